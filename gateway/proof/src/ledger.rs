//! The ledger: what a collector keeps in order to prove readings later. Files of entries, appended one behind the other.
//!
//! ```text
//! entry = "FGL1" | u32 length of content | u32 CRC-32C of content | content
//! key   = u8 1 | bytes16 change history | bytes16 signed attestation
//! batch = u8 2 | 32 gateway | 32 key id | 16 journal id | u64 first | u32 count | u64 sealed at | 64 signature
//!         | u32 n | n × 32 leaf | (count − n) × (varint length, reading)
//! ```
//! Integers are big-endian. A key stands in each file before the first batch that names it, so that every file can be read, and
//! deleted, by itself. The `n` leaves in front are those of readings that the collector had got before, in another batch.

use fieldgate_proto::{
    identity::Identifier,
    seal::{
        Extent, Seal,
        merkle::{self, Hash},
        reading_leaf,
    },
    wire::{Reader, WireError, put_bytes16},
};

use crate::{Proof, ProofError, SealingKey};

/// Longest content of an entry in bytes: the largest batch, and a leaf for each reading of it.
pub const CONTENT_LEN_MAX: usize = 4 << 20;
/// Bytes in front of the content.
pub const ENTRY_HEADER_LEN: usize = 12;

const MAGIC: &[u8; 4] = b"FGL1";
const KIND_KEY: u8 = 1;
const KIND_BATCH: u8 = 2;

/// What stands in a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A sealing key.
    Key {
        /// The gateway's change history.
        history: &'a [u8],
        /// The identity's word for the key.
        attestation: &'a [u8],
    },
    /// A sealed batch.
    Batch(SealedBatch<'a>),
}

/// A sealed batch, as a collector keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedBatch<'a> {
    /// Who sealed it.
    pub gateway: Identifier,
    /// Hash of the attestation of the key.
    pub key_id: Hash,
    /// Which readings it has.
    pub extent: Extent,
    /// The seal.
    pub seal: Seal,
    /// Leaves of the first readings, which came in another batch before.
    pub skipped: Vec<Hash>,
    /// The others, each behind its variable-length length.
    pub readings: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Appends the entry.
    ///
    /// # Errors
    /// [`ProofError::Length`] if it is longer than an entry may be; `out` is then unchanged.
    pub fn put(&self, out: &mut Vec<u8>) -> Result<(), ProofError> {
        let start = out.len();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 8]);
        match self {
            Self::Key { history, attestation } => {
                out.push(KIND_KEY);
                put_bytes16(out, history);
                put_bytes16(out, attestation);
            }
            Self::Batch(batch) => {
                out.push(KIND_BATCH);
                batch.put(out);
            }
        }
        let Some((header, content)) = out
            .get_mut(start..)
            .and_then(|entry| entry.split_at_mut_checked(ENTRY_HEADER_LEN))
        else {
            return Ok(());
        };
        let len = content.len();
        let short = u32::try_from(len).ok().filter(|_| len <= CONTENT_LEN_MAX);
        let Some(short) = short else {
            out.truncate(start);
            return Err(ProofError::Length {
                len,
                max: CONTENT_LEN_MAX,
            });
        };
        let checksum = crc32c::crc32c(content);
        let fields = short.to_be_bytes().into_iter().chain(checksum.to_be_bytes());
        header
            .iter_mut()
            .skip(MAGIC.len())
            .zip(fields)
            .for_each(|(place, byte)| *place = byte);
        Ok(())
    }

    fn decode(content: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(content);
        match reader.u8("kind of entry")? {
            KIND_KEY => {
                let entry = Self::Key {
                    history: reader.bytes16("change history")?,
                    attestation: reader.bytes16("attestation")?,
                };
                reader.finish()?;
                Ok(entry)
            }
            KIND_BATCH => Ok(Self::Batch(SealedBatch::read(reader)?)),
            kind => Err(WireError::Value {
                field: "kind of entry",
                value: u64::from(kind),
            }),
        }
    }
}

impl<'a> SealedBatch<'a> {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.gateway.as_bytes());
        out.extend_from_slice(&self.key_id);
        out.extend_from_slice(&self.extent.journal);
        out.extend_from_slice(&self.extent.first.to_be_bytes());
        let count = u32::try_from(self.extent.count).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(&self.seal.sealed_at.to_be_bytes());
        out.extend_from_slice(&self.seal.signature);
        let skipped = u32::try_from(self.skipped.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&skipped.to_be_bytes());
        self.skipped.iter().for_each(|leaf| out.extend_from_slice(leaf));
        out.extend_from_slice(self.readings);
    }

    fn read(mut reader: Reader<'a>) -> Result<Self, WireError> {
        let gateway = Identifier::from_bytes(reader.array("gateway")?);
        let key_id = reader.array("key id")?;
        let extent = Extent {
            journal: reader.array("journal id")?,
            first: reader.u64("first sequence")?,
            count: u64::from(reader.u32("number of readings")?),
        };
        let seal = Seal {
            sealed_at: reader.u64("sealed at")?,
            signature: reader.array("signature")?,
        };
        let skipped_count = reader.u32("number of leaves")?;
        let mut skipped = Vec::new();
        for _ in 0..skipped_count {
            skipped.push(reader.array("leaf")?);
        }
        let batch = Self {
            gateway,
            key_id,
            extent,
            seal,
            skipped,
            readings: reader.rest(),
        };
        let bad_count = WireError::Value {
            field: "number of readings",
            value: extent.count,
        };
        if extent.count > merkle::LEAVES_MAX as u64 || extent.first.checked_add(extent.count).is_none() {
            return Err(bad_count);
        }
        // Every reading has its place, and there is nothing behind the last.
        if batch.leaves()?.len() as u64 == extent.count {
            Ok(batch)
        } else {
            Err(bad_count)
        }
    }

    /// Returns whether the reading itself, not only its leaf, stands here.
    #[must_use]
    pub fn holds(&self, sequence: u64) -> bool {
        let place = sequence.checked_sub(self.extent.first);
        place.is_some_and(|place| (self.skipped.len() as u64..self.extent.count).contains(&place))
    }

    /// Returns the root over the batch.
    ///
    /// # Errors
    /// [`ProofError::Form`] if a reading is cut off.
    pub fn root(&self) -> Result<Hash, ProofError> {
        let what = "the readings of a batch are not whole";
        let mut leaves = self.leaves().map_err(|_| ProofError::Form { what })?;
        merkle::root(&mut leaves).ok_or(ProofError::Form { what })
    }

    /// Makes the proof for the reading `sequence`, with the key that the batch names.
    ///
    /// # Errors
    /// [`ProofError::Place`] if the reading does not stand here, [`ProofError::Form`] if a reading is cut off.
    pub fn prove(&self, history: &[u8], attestation: &[u8], sequence: u64) -> Result<Proof, ProofError> {
        let place = sequence.saturating_sub(self.extent.first);
        let nowhere = ProofError::Place {
            index: place,
            count: self.extent.count,
        };
        if !self.holds(sequence) {
            return Err(nowhere);
        }
        let index = usize::try_from(place).map_err(|_| nowhere.clone())?;
        let reading = self.readings().nth(index.saturating_sub(self.skipped.len()));
        let mut leaves = self.leaves().map_err(|_| ProofError::Form {
            what: "the readings of a batch are not whole",
        })?;
        let (Some(Ok(reading)), Some(path)) = (reading, merkle::inclusion_path(&mut leaves, index)) else {
            return Err(nowhere);
        };
        Ok(Proof {
            history: history.to_vec(),
            attestation: attestation.to_vec(),
            extent: self.extent,
            seal: self.seal,
            reading: reading.to_vec(),
            index: place,
            path,
        })
    }

    fn readings(&self) -> impl Iterator<Item = Result<&'a [u8], WireError>> {
        let mut reader = Reader::new(self.readings);
        std::iter::from_fn(move || (!reader.is_empty()).then(|| reader.bytes_varint("reading")))
    }

    fn leaves(&self) -> Result<Vec<Hash>, WireError> {
        let mut leaves = self.skipped.clone();
        let behind = self.extent.first.saturating_add(leaves.len() as u64);
        for (sequence, reading) in (behind..).zip(self.readings()) {
            if leaves.len() >= merkle::LEAVES_MAX {
                break;
            }
            leaves.push(reading_leaf(&self.extent.journal, sequence, reading?));
        }
        Ok(leaves)
    }

    /// Verifies the seal by `key`.
    ///
    /// # Errors
    /// As for [`SealingKey::verify_seal`], and [`ProofError::Form`] if the key is another, or the readings are not whole.
    pub fn verify(&self, key: &SealingKey) -> Result<(), ProofError> {
        if key.key_id != self.key_id || key.gateway != self.gateway {
            return Err(ProofError::Form {
                what: "the key is not the one that the batch names",
            });
        }
        key.verify_seal(&self.seal, &self.extent, &self.root()?)
    }
}

/// Goes through the entries at the beginning of `bytes`. What is damaged is passed over up to the next entry.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    at: usize,
    intact: usize,
    damaged: u64,
}

impl<'a> Entries<'a> {
    /// Begins at the start of a file's `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            intact: 0,
            damaged: 0,
        }
    }

    /// Returns the offset behind the last entry that was read: what is behind may be the torn end of the last write.
    #[must_use]
    pub const fn intact(&self) -> usize {
        self.intact
    }

    /// Returns how many places were passed over so far.
    #[must_use]
    pub const fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Reads the entry at `at`, and returns it with the offset behind it.
    fn entry_at(&self, at: usize) -> Option<(Entry<'a>, usize)> {
        let mut reader = Reader::new(self.bytes.get(at..)?);
        if reader.bytes("magic", MAGIC.len()).ok()? != MAGIC {
            return None;
        }
        let len = usize::try_from(reader.u32("length").ok()?).ok()?;
        let checksum = reader.u32("checksum").ok()?;
        if len > CONTENT_LEN_MAX {
            return None;
        }
        let content = reader.bytes("content", len).ok()?;
        if crc32c::crc32c(content) != checksum {
            return None;
        }
        let behind = at.saturating_add(ENTRY_HEADER_LEN).saturating_add(len);
        Some((Entry::decode(content).ok()?, behind))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let mut passed = false;
        while self.at < self.bytes.len() {
            if let Some((entry, behind)) = self.entry_at(self.at) {
                self.at = behind;
                self.intact = behind;
                return Some(entry);
            }
            if !std::mem::replace(&mut passed, true) {
                self.damaged = self.damaged.saturating_add(1);
            }
            let from = self.at.saturating_add(1);
            let rest = self.bytes.get(from..).unwrap_or_default();
            let next = rest.windows(MAGIC.len()).position(|window| window == MAGIC);
            self.at = next.map_or(self.bytes.len(), |offset| from.saturating_add(offset));
        }
        None
    }
}
