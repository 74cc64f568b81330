//! What goes with batches that carry a seal (PROTOCOL.md §8, §9.1).
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::frame::DeliveryError;
use crate::{
    channel::{begin_frame, finish_frame},
    seal::{Seal, merkle::Hash},
    wire::{Reader, put_bytes16},
};

/// Kind of [`ShownKey`].
pub const SEAL_KEY: u8 = 0x25;
/// Kind of a [`Batch`](super::Batch) with a seal.
pub const SEALED_BATCH: u8 = 0x26;
/// Kind of [`KeySeen`].
pub const SEAL_KEY_SEEN: u8 = 0x27;

/// First bytes of a sealing key's id: enough to tell the few keys of one gateway apart.
pub type KeyTag = [u8; 4];

/// Returns the tag of the key with the id `key_id`.
#[must_use]
pub const fn key_tag(key_id: &Hash) -> KeyTag {
    let [first, second, third, fourth, ..] = *key_id;
    [first, second, third, fourth]
}

/// The key that batches behind it are sealed with. Repeated until the collector has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownKey<'a> {
    /// The gateway's change history.
    pub history: &'a [u8],
    /// Its identity's word for the key.
    pub attestation: &'a [u8],
}

impl<'a> ShownKey<'a> {
    /// Longest body in bytes: a history of 16 changes fits.
    pub const LEN_MAX: usize = 8 << 10;

    /// Reads the body; nothing is verified.
    ///
    /// # Errors
    /// [`DeliveryError::Wire`], or [`DeliveryError::Range`] if it is too long.
    pub fn decode(body: &'a [u8]) -> Result<Self, DeliveryError> {
        if body.len() > Self::LEN_MAX {
            return Err(DeliveryError::Range {
                what: "length of a key",
                value: body.len() as u64,
                min: 0,
                max: Self::LEN_MAX as u64,
            });
        }
        let mut reader = Reader::new(body);
        let shown = Self {
            history: reader.bytes16("change history")?,
            attestation: reader.bytes16("attestation")?,
        };
        reader.finish()?;
        Ok(shown)
    }

    /// Appends the frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mark = begin_frame(out, SEAL_KEY);
        put_bytes16(out, self.history);
        put_bytes16(out, self.attestation);
        finish_frame(out, mark);
    }
}

/// The collector's word that it has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySeen {
    /// The key's id.
    pub key_id: Hash,
}

impl KeySeen {
    /// Reads the body.
    ///
    /// # Errors
    /// [`DeliveryError::Wire`].
    pub fn decode(body: &[u8]) -> Result<Self, DeliveryError> {
        let mut reader = Reader::new(body);
        let seen = Self {
            key_id: reader.array("key id")?,
        };
        reader.finish()?;
        Ok(seen)
    }

    /// Appends the frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mark = begin_frame(out, SEAL_KEY_SEEN);
        out.extend_from_slice(&self.key_id);
        finish_frame(out, mark);
    }
}

/// The seal of a batch as received. Nobody has verified it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSeal<'a> {
    /// Which key.
    pub key_tag: KeyTag,
    /// The seal.
    pub seal: Seal,
    /// Sequence of the first reading sealed.
    pub first: u64,
    /// Those in front that had come before, each behind its variable-length length.
    pub skipped: &'a [u8],
}
