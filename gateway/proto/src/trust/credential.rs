//! Who belongs to an authority, with which rights (PROTOCOL.md §10.1, kind 1).

use std::collections::BTreeMap;

use crate::{
    identity::Identifier,
    relay::NamePattern,
    time::WallTime,
    wire::{Reader, WireError, put_bytes8},
};

use super::{Statement, StatementKey, StatementKind, TrustError, statement::check_validity};

/// Longest name of a member, in bytes.
pub const NAME_LEN_MAX: usize = 63;
/// Attributes of a member.
pub const ATTRIBUTES_MAX: usize = 32;
/// Patterns of names a member may hold, and as many it may reach.
pub const PATTERNS_MAX: usize = 16;

/// Longest text behind a `u8` length.
const TEXT_LEN_MAX: usize = 255;
const RIGHT_ENROLLER: u8 = 1;
const RIGHT_ADMINISTRATOR: u8 = 2;

/// What a member may do at its authority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rights {
    /// Issue tickets.
    pub enroller: bool,
    /// Revoke members, and issue tickets that grant rights.
    pub administrator: bool,
}

impl Rights {
    /// Returns the bits on the wire.
    #[must_use]
    pub const fn bits(self) -> u8 {
        (if self.enroller { RIGHT_ENROLLER } else { 0 })
            | (if self.administrator {
                RIGHT_ADMINISTRATOR
            } else {
                0
            })
    }

    /// Returns the rights with these bits; `None` if there is one that does not exist.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits & !(RIGHT_ENROLLER | RIGHT_ADMINISTRATOR) != 0 {
            return None;
        }
        Some(Self {
            enroller: bits & RIGHT_ENROLLER != 0,
            administrator: bits & RIGHT_ADMINISTRATOR != 0,
        })
    }

    /// Returns whether whoever has `self` has all of `other`.
    #[must_use]
    pub const fn includes(self, other: Self) -> bool {
        other.bits() & !self.bits() == 0
    }
}

/// An authority's word about a member.
///
/// ```text
/// 32 subject | u8 rights | text8 name | u8 n, n × (text8 key | text8 value)
/// | u8 n, n × text8 pattern it may hold | u8 n, n × text8 pattern it may reach
/// ```
/// Serial and times stand in the statement around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Who it is about.
    pub subject: Identifier,
    /// Unique among the credentials of the authority.
    pub serial: u64,
    /// What the member may do at its authority.
    pub rights: Rights,
    /// The member's name, 1 to 63 bytes.
    pub name: String,
    /// What policies ask for, at most 32; keys of 1 to 255 bytes, values of at most 255.
    pub attributes: BTreeMap<String, String>,
    /// Names it may register at relays, at most 16 patterns.
    pub hold: Vec<NamePattern>,
    /// Names it may send first messages to, at most 16 patterns.
    pub reach: Vec<NamePattern>,
    /// When it was made, seconds since 1970.
    pub issued_at: u64,
    /// Until when it holds, seconds since 1970.
    pub not_after: u64,
}

impl Credential {
    /// Reads the body of a statement, which [`SignedStatement::verify`](super::SignedStatement::verify) handed out.
    ///
    /// # Errors
    /// [`TrustError`] for anything PROTOCOL.md §10.1 does not allow.
    pub fn decode(statement: &Statement<'_>) -> Result<Self, TrustError> {
        if statement.kind != StatementKind::Credential {
            return Err(TrustError::Kind {
                got: statement.kind.code(),
                want: StatementKind::Credential.code(),
            });
        }
        let mut reader = Reader::new(statement.body);
        let subject = Identifier::from_bytes(reader.array("subject")?);
        let bits = reader.u8("rights")?;
        let rights = Rights::from_bits(bits).ok_or_else(|| WireError::Value {
            field: "rights",
            value: u64::from(bits),
        })?;
        let name = reader.text8("name")?;
        check_text("name", name, 1, NAME_LEN_MAX)?;
        let credential = Self {
            subject,
            serial: statement.number,
            rights,
            name: name.to_owned(),
            attributes: read_attributes(&mut reader)?,
            hold: read_patterns(&mut reader, "patterns it may hold")?,
            reach: read_patterns(&mut reader, "patterns it may reach")?,
            issued_at: statement.issued_at,
            not_after: statement.not_after,
        };
        reader.finish()?;
        Ok(credential)
    }

    /// Returns the body of the statement.
    ///
    /// # Errors
    /// [`TrustError::Length`], [`TrustError::Text`] or [`TrustError::Pattern`] for what a verifier would not take.
    pub fn encode(&self) -> Result<Vec<u8>, TrustError> {
        let mut out = self.subject.as_bytes().to_vec();
        out.push(self.rights.bits());
        check_text("name", &self.name, 1, NAME_LEN_MAX)?;
        put_bytes8(&mut out, self.name.as_bytes());
        out.push(count("attributes", self.attributes.len(), ATTRIBUTES_MAX)?);
        for (key, value) in &self.attributes {
            check_text("key of an attribute", key, 1, TEXT_LEN_MAX)?;
            check_text("value of an attribute", value, 0, TEXT_LEN_MAX)?;
            put_bytes8(&mut out, key.as_bytes());
            put_bytes8(&mut out, value.as_bytes());
        }
        put_patterns(&mut out, "patterns it may hold", &self.hold)?;
        put_patterns(&mut out, "patterns it may reach", &self.reach)?;
        Ok(out)
    }

    /// Signs it: a signed statement for [`Presentation::encode`](super::Presentation::encode), which judges the
    /// length of the whole.
    ///
    /// # Errors
    /// As [`Credential::encode`] and [`StatementKey::sign`].
    pub fn sign(&self, key: &StatementKey) -> Result<Vec<u8>, TrustError> {
        let body = self.encode()?;
        key.sign(
            StatementKind::Credential,
            self.serial,
            self.issued_at,
            self.not_after,
            &body,
        )
    }

    /// Returns when to ask for the next one: at half of its life, in seconds since 1970.
    #[must_use]
    pub const fn renew_at(&self) -> u64 {
        let life = self.not_after.saturating_sub(self.issued_at);
        self.issued_at.saturating_add(life / 2)
    }

    /// Checks all that a signed credential must keep, before it is signed: texts, limits, window.
    ///
    /// # Errors
    /// As [`Credential::sign`], but for what depends on the key.
    pub fn check(&self) -> Result<(), TrustError> {
        check_validity(self.issued_at, self.not_after)?;
        self.encode().map(drop)
    }

    /// Returns whether it is surely not valid yet at `wall`.
    pub(super) fn is_early(&self, wall: WallTime) -> bool {
        wall.is_surely_before(self.issued_at.saturating_sub(crate::identity::SKEW_SECS))
    }
}

fn read_attributes(reader: &mut Reader<'_>) -> Result<BTreeMap<String, String>, TrustError> {
    let mut attributes = BTreeMap::new();
    for _ in 0..read_count(reader, "attributes", ATTRIBUTES_MAX)? {
        let (key, value) = (
            reader.text8("key of an attribute")?,
            reader.text8("value of an attribute")?,
        );
        check_text("key of an attribute", key, 1, TEXT_LEN_MAX)?;
        check_text("value of an attribute", value, 0, TEXT_LEN_MAX)?;
        let ascends = attributes
            .last_key_value()
            .is_none_or(|(last, _): (&String, &String)| last.as_str() < key);
        if !ascends {
            return Err(TrustError::Order {
                what: "keys of attributes",
            });
        }
        attributes.insert(key.to_owned(), value.to_owned());
    }
    Ok(attributes)
}

fn read_patterns(reader: &mut Reader<'_>, what: &'static str) -> Result<Vec<NamePattern>, TrustError> {
    let count = read_count(reader, what, PATTERNS_MAX)?;
    let mut patterns = Vec::with_capacity(count);
    for _ in 0..count {
        patterns.push(reader.text8(what)?.parse()?);
    }
    Ok(patterns)
}

fn put_patterns(out: &mut Vec<u8>, what: &'static str, patterns: &[NamePattern]) -> Result<(), TrustError> {
    out.push(count(what, patterns.len(), PATTERNS_MAX)?);
    for pattern in patterns {
        let text = pattern.to_string();
        // An exact name that ends in * would come back as the beginning of names.
        let read: NamePattern = text.parse()?;
        if read != *pattern {
            return Err(TrustError::Text { what, found: '*' });
        }
        put_bytes8(out, text.as_bytes());
    }
    Ok(())
}

fn read_count(reader: &mut Reader<'_>, what: &'static str, max: usize) -> Result<usize, TrustError> {
    let len = usize::from(reader.u8(what)?);
    count(what, len, max)?;
    Ok(len)
}

fn count(what: &'static str, len: usize, max: usize) -> Result<u8, TrustError> {
    match u8::try_from(len) {
        Ok(count) if len <= max => Ok(count),
        _ => Err(TrustError::Length {
            what,
            len,
            min: 0,
            max,
        }),
    }
}

/// Checks a text that terminals and logs will show.
pub(super) fn check_text(what: &'static str, text: &str, min: usize, max: usize) -> Result<(), TrustError> {
    let len = text.len();
    if len < min || len > max {
        return Err(TrustError::Length { what, len, min, max });
    }
    match text.chars().find(|found| found.is_control()) {
        Some(found) => Err(TrustError::Text { what, found }),
        None => Ok(()),
    }
}
