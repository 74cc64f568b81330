//! What a store keeps once: counters, and the status list.

use fieldgate_proto::wire::{Reader, WireError};

/// The status list as it was signed last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredList {
    /// Its number.
    pub(crate) number: u64,
    /// Seconds since 1970.
    pub(crate) issued_at: u64,
    /// Seconds since 1970.
    pub(crate) not_after: u64,
    /// Identifiers in it.
    pub(crate) entries: u32,
    /// Identifiers that had no room in it.
    pub(crate) overflow: u32,
    /// The signed statement.
    pub(crate) statement: Vec<u8>,
}

/// What counts on across restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// The last serial of a credential.
    pub(super) serial: u64,
    /// The last number of a status list.
    pub(super) list_number: u64,
    /// The last sequence of an attestation of the statement key.
    pub(super) attestation: u64,
    /// Sequence of the last entry of the log.
    pub(super) log_head: u64,
    /// Its hash.
    pub(super) log_hash: [u8; 32],
}

impl Counters {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        for number in [self.serial, self.list_number, self.attestation, self.log_head] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.log_hash);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let counters = Self {
            serial: reader.u64("serial")?,
            list_number: reader.u64("list number")?,
            attestation: reader.u64("attestation")?,
            log_head: reader.u64("log head")?,
            log_hash: reader.array("log hash")?,
        };
        reader.finish()?;
        Ok(counters)
    }
}

impl StoredList {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.statement.len());
        for number in [self.number, self.issued_at, self.not_after] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.entries.to_be_bytes());
        out.extend_from_slice(&self.overflow.to_be_bytes());
        out.extend_from_slice(&self.statement);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        Ok(Self {
            number: reader.u64("number")?,
            issued_at: reader.u64("issued_at")?,
            not_after: reader.u64("not_after")?,
            entries: reader.u32("entries")?,
            overflow: reader.u32("overflow")?,
            statement: reader.rest().to_vec(),
        })
    }
}
