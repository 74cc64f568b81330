//! Keys and values in the store (PROTOCOL.md §16).

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::{borrow::Cow, fmt::Write as _, str::FromStr as _, time::Duration};

use crate::{
    identity::Identifier,
    route::Address,
    wire::{Reader, WireError},
};

/// Why an entry of the store is not understood. Whoever wrote it is not a relay of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The key is none of ours.
    #[error("the key is none of a relay")]
    Key,
    /// The value has another form.
    #[error("the value has another form")]
    Value(#[from] WireError),
}

impl EntryError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Key => "give the cluster a bucket that nothing else writes to",
            Self::Value(_) => "upgrade the older relays of the cluster",
        }
    }
}

/// What an entry is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKey<'a> {
    /// Whether a relay is alive.
    Lease(Identifier),
    /// That a relay holds a name.
    Name {
        /// Which relay.
        relay: Identifier,
        /// Which name.
        name: Cow<'a, str>,
    },
}

impl EntryKey<'_> {
    /// Reads a key; every key has one form.
    ///
    /// # Errors
    /// [`EntryError::Key`].
    pub fn decode(text: &str) -> Result<Self, EntryError> {
        let mut parts = text.split('.');
        let kind = parts.next();
        let relay = parts.next().ok_or(EntryError::Key)?;
        let relay = Identifier::from_str(relay)
            .ok()
            .filter(|known| known.to_string() == relay)
            .ok_or(EntryError::Key)?;
        let key = match (kind, parts.next()) {
            (Some(LEASE), None) => Self::Lease(relay),
            (Some(NAME), Some(hex)) => Self::Name {
                relay,
                name: Cow::Owned(decode_hex(hex).ok_or(EntryError::Key)?),
            },
            _ => return Err(EntryError::Key),
        };
        if parts.next().is_some() {
            return Err(EntryError::Key);
        }
        Ok(key)
    }

    /// Returns the text of the key: letters, digits and dots only, as stores want it.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Lease(relay) => format!("{LEASE}.{relay}"),
            Self::Name { relay, name } => {
                let mut text = format!("{NAME}.{relay}.");
                for byte in name.as_bytes() {
                    write!(text, "{byte:02x}").expect("a string takes everything");
                }
                text
            }
        }
    }
}

/// Returns the name of a text of hexadecimal digits in lower case.
fn decode_hex(hex: &str) -> Option<String> {
    let digits = hex.as_bytes();
    if digits.len() > crate::route::NAME_LEN_MAX.saturating_mul(2) {
        return None;
    }
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let bytes = pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect::<Option<Vec<u8>>>()?;
    let name = String::from_utf8(bytes).ok()?;
    Address::Name(&name).check().ok()?;
    Some(name)
}

const fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(character.wrapping_sub(b'a').wrapping_add(10)),
        _ => None,
    }
}

/// That a relay is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseEntry {
    /// The life of the relay: drawn when it starts. Names of another life do not count.
    pub epoch: u64,
    /// How long whoever reads it may take the relay for alive, from when it was read; whole milliseconds.
    pub lease: Duration,
}

impl LeaseEntry {
    /// Reads a value. A lease longer than an hour counts as an hour.
    ///
    /// # Errors
    /// [`WireError`] for another form.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        version(&mut reader)?;
        let entry = Self {
            epoch: reader.u64("epoch")?,
            lease: Duration::from_millis(u64::from(reader.u32("lease")?)).min(LEASE_MAX),
        };
        reader.finish()?;
        Ok(entry)
    }

    /// Returns the bytes of the value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.epoch.to_be_bytes());
        let millis = u32::try_from(self.lease.as_millis()).unwrap_or(u32::MAX);
        out.extend_from_slice(&millis.to_be_bytes());
        out
    }
}

/// That a relay holds a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameEntry {
    /// The life of the relay that it was registered in.
    pub epoch: u64,
    /// The number of the registration in that life.
    pub number: u64,
    /// How long it had been registered when the entry was written; whole seconds.
    pub age: Duration,
}

impl NameEntry {
    /// Reads a value.
    ///
    /// # Errors
    /// [`WireError`] for another form.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        version(&mut reader)?;
        let entry = Self {
            epoch: reader.u64("epoch")?,
            number: reader.u64("number")?,
            age: Duration::from_secs(u64::from(reader.u32("age")?)),
        };
        reader.finish()?;
        Ok(entry)
    }

    /// Returns the bytes of the value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
        let age_secs = u32::try_from(self.age.as_secs()).unwrap_or(u32::MAX);
        out.extend_from_slice(&age_secs.to_be_bytes());
        out
    }
}

fn version(reader: &mut Reader<'_>) -> Result<(), WireError> {
    match reader.u8("version")? {
        VERSION => Ok(()),
        other => Err(WireError::Value {
            field: "version",
            value: u64::from(other),
        }),
    }
}

const LEASE: &str = "lease";
const NAME: &str = "name";
const VERSION: u8 = 1;
/// A forged lease must not keep names alive for weeks.
const LEASE_MAX: Duration = Duration::from_secs(3_600);
