//! Entries of the replication log, from which several processes of one authority build their stores (PROTOCOL.md §18).
//!
//! ```text
//! entry   = u8 version (1) | 32 salt | sealed body | 16 tag
//! body    = 1 Founding: 16 log id | u64 entries and 32 hash of the log of decisions
//!         | 2 Writes:   u8 part, from 0 | u8 (0: they go on in the next entry, 1: they end here) | bytes of writes
//! write   = u8 table | u8 operation | bytes16 key | (0 put: u32 length, value) (1 remove) (2 remove up to: bytes16 last key)
//! ```
//!
//! Each entry is sealed with a key of its own to the authority, its place, and the entry before it: whoever only holds the log's servers
//! can neither read nor make one, nor put one elsewhere.

use zeroize::Zeroizing;

use crate::{
    crypto::{Aead, AeadKey, Secret, TAG_LEN, hkdf_expand, hmac_sha256, label16, sha256},
    entropy::Entropy,
    identity::Identifier,
    wire::{Reader, WireError, put_bytes16},
};

/// Least length of the secret, in bytes.
pub const REPLICATION_SECRET_LEN_MIN: usize = 32;
/// Longest part of writes in one entry, in bytes: with its seal half of what NATS takes if nothing is set.
pub const REPLICATION_PART_LEN_MAX: usize = 512 * 1024;
/// Longest entry, in bytes.
pub const REPLICATION_ENTRY_LEN_MAX: usize = 1 + SALT_LEN + 3 + REPLICATION_PART_LEN_MAX + TAG_LEN;

const VERSION: u8 = 1;
const SALT_LEN: usize = 32;
const LABEL: [u8; 16] = label16("FG1 replication");

/// What all processes of an authority share, and nobody else has.
pub struct ReplicationKey(Secret);

impl std::fmt::Debug for ReplicationKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReplicationKey(..)")
    }
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationPlace {
    /// Whose log it is.
    pub authority: Identifier,
    /// Its number, from 1 on.
    pub sequence: u64,
    /// [`replication_hash`] of the entry before; zero for the first.
    pub previous: [u8; 32],
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicationBody<'a> {
    /// The first entry: which log it is, and on which store it goes on.
    Founding {
        /// Drawn for this log.
        id: [u8; 16],
        /// Entries of the log of decisions in the store it was founded on.
        decisions: u64,
        /// Hash of the last of them.
        decisions_hash: [u8; 32],
    },
    /// Writes of one transaction.
    Writes {
        /// Which part of them this is, from 0 on. A part 0 ends what came before without its end: that is void.
        part: u8,
        /// The part, [`ReplicationWrite`]s one behind the other.
        bytes: &'a [u8],
        /// Whether they end here.
        is_last: bool,
    },
}

/// One write to a table of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationWrite<'a> {
    /// The table's number.
    pub table: u8,
    /// The key, at most 65,535 bytes.
    pub key: &'a [u8],
    /// What becomes of it.
    pub operation: ReplicationOperation<'a>,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicationOperation<'a> {
    /// It gets this value.
    Put(&'a [u8]),
    /// It is removed.
    Remove,
    /// It and every one up to and with this one are removed.
    RemoveUpTo(&'a [u8]),
}

/// Why an entry is not taken: whoever can write to the log's servers has made it, or another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicationError {
    /// The bytes have not the form of PROTOCOL.md §18.
    #[error("malformed entry")]
    Wire(#[from] WireError),
    /// The version is not one we speak.
    #[error("entry has version {got}, not {want}")]
    Version {
        /// The version found.
        got: u8,
        /// The version we speak.
        want: u8,
    },
    /// A kind or an operation is unknown.
    #[error("unknown {what} {got}")]
    Unknown {
        /// Of what.
        what: &'static str,
        /// The code found.
        got: u8,
    },
    /// Something is too short or too long.
    #[error("{what} has {len} bytes, outside {min}..={max}")]
    Length {
        /// What.
        what: &'static str,
        /// How long it is.
        len: usize,
        /// The least length allowed.
        min: usize,
        /// The largest length allowed.
        max: usize,
    },
    /// It was not sealed with the shared secret for its place: forged, moved, or of another log.
    #[error("entry was not sealed with the shared secret for its place")]
    Seal,
}

impl ReplicationKey {
    /// Takes the shared secret, of which every byte counts.
    ///
    /// # Errors
    /// [`ReplicationError::Length`] if it is shorter than [`REPLICATION_SECRET_LEN_MIN`].
    pub fn new(secret: &[u8]) -> Result<Self, ReplicationError> {
        if secret.len() < REPLICATION_SECRET_LEN_MIN {
            return Err(ReplicationError::Length {
                what: "the secret of the replication log",
                len: secret.len(),
                min: REPLICATION_SECRET_LEN_MIN,
                max: usize::MAX,
            });
        }
        Ok(Self(hmac_sha256(&LABEL, &[secret])))
    }

    /// Seals an entry for its place.
    ///
    /// # Errors
    /// [`ReplicationError::Length`] if there are more than [`REPLICATION_PART_LEN_MAX`] bytes of writes.
    pub fn seal(
        &self,
        place: &ReplicationPlace,
        body: &ReplicationBody<'_>,
        entropy: &mut dyn Entropy,
    ) -> Result<Vec<u8>, ReplicationError> {
        let mut salt = [0; SALT_LEN];
        entropy.fill(&mut salt);
        let mut plain = Zeroizing::new(Vec::new());
        body.encode(&mut plain)?;
        let tag = self.entry_key(&salt).seal(0, &place.bound(), &mut plain);
        Ok([&[VERSION][..], &salt, &plain, &tag].concat())
    }

    /// Opens an entry that stands at this place, into the bytes of its body.
    ///
    /// # Errors
    /// [`ReplicationError`]: [`ReplicationError::Seal`] if it was not sealed with this key for this place.
    pub fn open(
        &self,
        place: &ReplicationPlace,
        entry: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, ReplicationError> {
        let mut reader = Reader::new(entry);
        let version = reader.u8("version")?;
        if version != VERSION {
            return Err(ReplicationError::Version {
                got: version,
                want: VERSION,
            });
        }
        let salt = reader.array::<SALT_LEN>("salt")?;
        let sealed = reader.rest();
        if sealed.len() > REPLICATION_ENTRY_LEN_MAX {
            return Err(ReplicationError::Length {
                what: "an entry of the replication log",
                len: sealed.len(),
                min: TAG_LEN,
                max: REPLICATION_ENTRY_LEN_MAX,
            });
        }
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let len = self.entry_key(&salt).open(0, &place.bound(), &mut bytes);
        let len = len.map_err(|_| ReplicationError::Seal)?.len();
        bytes.truncate(len);
        Ok(bytes)
    }

    /// A key of its own for each entry: two processes may seal different ones for the same place.
    fn entry_key(&self, salt: &[u8; SALT_LEN]) -> AeadKey {
        AeadKey::new(Aead::Aes256Gcm, &hkdf_expand(&self.0, &LABEL, salt))
    }
}

impl ReplicationPlace {
    fn bound(&self) -> Vec<u8> {
        let mut bound = Vec::with_capacity(16 + 32 + 8 + 32);
        bound.extend_from_slice(&LABEL);
        bound.extend_from_slice(self.authority.as_bytes());
        bound.extend_from_slice(&self.sequence.to_be_bytes());
        bound.extend_from_slice(&self.previous);
        bound
    }
}

/// Returns the hash by which the next entry names this one.
#[must_use]
pub fn replication_hash(entry: &[u8]) -> [u8; 32] {
    sha256(&[&LABEL, entry])
}

impl<'a> ReplicationBody<'a> {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), ReplicationError> {
        match self {
            Self::Founding {
                id,
                decisions,
                decisions_hash,
            } => {
                out.push(1);
                out.extend_from_slice(id);
                out.extend_from_slice(&decisions.to_be_bytes());
                out.extend_from_slice(decisions_hash);
            }
            Self::Writes { part, bytes, is_last } => {
                if bytes.len() > REPLICATION_PART_LEN_MAX {
                    return Err(ReplicationError::Length {
                        what: "a part of writes",
                        len: bytes.len(),
                        min: 0,
                        max: REPLICATION_PART_LEN_MAX,
                    });
                }
                out.extend_from_slice(&[2, *part, u8::from(*is_last)]);
                out.extend_from_slice(bytes);
            }
        }
        Ok(())
    }

    /// Reads what [`ReplicationKey::open`] has opened.
    ///
    /// # Errors
    /// [`ReplicationError`] if it has not this form.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, ReplicationError> {
        let mut reader = Reader::new(bytes);
        match reader.u8("kind")? {
            1 => {
                let body = Self::Founding {
                    id: reader.array("log id")?,
                    decisions: reader.u64("decisions")?,
                    decisions_hash: reader.array("hash of the decisions")?,
                };
                reader.finish()?;
                Ok(body)
            }
            2 => {
                let part = reader.u8("part")?;
                let is_last = match reader.u8("end")? {
                    0 => false,
                    1 => true,
                    got => return Err(ReplicationError::Unknown { what: "end", got }),
                };
                Ok(Self::Writes {
                    part,
                    bytes: reader.rest(),
                    is_last,
                })
            }
            got => Err(ReplicationError::Unknown { what: "kind", got }),
        }
    }
}

impl<'a> ReplicationWrite<'a> {
    /// Appends it to others.
    ///
    /// # Panics
    /// If a key is longer than 65,535 bytes or a value than 4 GiB.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.table);
        let (code, operand) = match &self.operation {
            ReplicationOperation::Put(value) => (0, *value),
            ReplicationOperation::Remove => (1, &[][..]),
            ReplicationOperation::RemoveUpTo(last) => (2, *last),
        };
        out.push(code);
        put_bytes16(out, self.key);
        match code {
            0 => {
                let len = u32::try_from(operand.len()).expect("values are far below 4 GiB");
                out.extend_from_slice(&len.to_be_bytes());
                out.extend_from_slice(operand);
            }
            2 => put_bytes16(out, operand),
            _ => {}
        }
    }

    /// Reads the next one; `None` at the end.
    ///
    /// # Errors
    /// [`ReplicationError`] if it is cut off or has an unknown operation.
    pub fn decode_next(bytes: &mut &'a [u8]) -> Result<Option<Self>, ReplicationError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut reader = Reader::new(bytes);
        let table = reader.u8("table")?;
        let code = reader.u8("operation")?;
        let key = reader.bytes16("key")?;
        let operation = match code {
            0 => {
                let len = reader.u32("value length")?;
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                ReplicationOperation::Put(reader.bytes("value", len)?)
            }
            1 => ReplicationOperation::Remove,
            2 => ReplicationOperation::RemoveUpTo(reader.bytes16("last key")?),
            got => {
                return Err(ReplicationError::Unknown {
                    what: "operation",
                    got,
                });
            }
        };
        *bytes = reader.rest();
        Ok(Some(Self {
            table,
            key,
            operation,
        }))
    }
}

#[cfg(test)]
mod tests;
