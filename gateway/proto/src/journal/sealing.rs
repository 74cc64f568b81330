//! Encryption of records at rest.
//!
//! Each segment has a key of its own, derived from the journal's key, and each record its sequence as nonce. A sequence is
//! written into a segment once: what failed goes into another segment, and a restart begins a new one with a fresh salt. So
//! no nonce is ever used twice under one key.
//!
//! What this protects is a disk in the wrong hands. Lengths, classes, sequences and the range of capture times of each block
//! stay in clear, and whoever can write to the disk unseen can take records away (which is noticed) or put segments there that
//! are not encrypted (which is not, as long as such are accepted at all: see [`Recovery`](super::Recovery)).
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use super::format::{BLOCK_HEADER_LEN, RECORD_HEADER_LEN, SegmentHeader, peek_record, seal_record};
use crate::crypto::{Aead, AeadKey, Secret, TAG_LEN, hkdf_expand, hmac_sha256, label16};

/// The key of a gateway's journal. Wiped when dropped.
#[derive(Debug)]
pub struct JournalKey(Secret);

/// What a segment's header says about its encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSeal {
    /// Random, drawn anew at each start of the node.
    pub salt: [u8; 16],
    /// Which journal key it was derived from.
    pub key_id: [u8; 8],
}

impl JournalKey {
    /// Takes 32 random bytes that are kept somewhere safe.
    #[must_use]
    pub const fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// Makes a second copy, for another lane.
    #[must_use]
    pub const fn duplicate(&self) -> Self {
        Self(self.0.duplicate())
    }

    /// Returns a name of the key that tells nothing about it: a wrong key is found out before anything is taken for damaged.
    #[must_use]
    pub fn id(&self) -> [u8; 8] {
        let name = hkdf_expand(&self.0, &KEY_ID, &[]);
        let mut id = [0; 8];
        id.iter_mut()
            .zip(name.as_bytes())
            .for_each(|(place, byte)| *place = *byte);
        id
    }

    /// Returns what opens the records of a segment with this header; `None` if that is not encrypted, or with another key.
    #[must_use]
    pub fn opener(&self, header: &SegmentHeader) -> Option<RecordOpener> {
        let seal = header.seal.filter(|seal| seal.key_id == self.id())?;
        Some(RecordOpener(self.segment(header, &seal.salt)))
    }

    /// Returns the key of a segment: HKDF-SHA-256 (RFC 5869) with the segment's salt; the context is what names it.
    pub(super) fn segment(&self, header: &SegmentHeader, salt: &[u8; 16]) -> SegmentKey {
        let prk = hmac_sha256(salt, &[self.0.as_bytes()]);
        let mut context = [0; 1 + 16 + 8];
        let fields = [header.lane]
            .into_iter()
            .chain(header.journal)
            .chain(header.number.to_be_bytes());
        context
            .iter_mut()
            .zip(fields)
            .for_each(|(place, byte)| *place = byte);
        SegmentKey {
            key: AeadKey::new(Aead::Aes256Gcm, &hkdf_expand(&prk, &SEGMENT, &context)),
            lane: header.lane,
        }
    }
}

/// Opens the records of one segment, for tools.
#[derive(Debug)]
pub struct RecordOpener(SegmentKey);

impl RecordOpener {
    /// Opens the body of a record as it stands in the segment; `None` if it does not verify.
    #[must_use]
    pub fn open(&self, sequence: u64, class: u8, body: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = body.to_vec();
        let len = self.0.open(sequence, class, &mut sealed)?.len();
        sealed.truncate(len);
        Some(sealed)
    }
}

/// Seals and opens the records of one segment.
#[derive(Debug)]
pub(super) struct SegmentKey {
    key: AeadKey,
    lane: u8,
}

impl SegmentKey {
    /// Appends the records of `block`, whose first has the sequence `first`, to `sealed`, encrypted and with checksums. Room for
    /// a block's header is left at the beginning.
    pub(super) fn seal_block(&self, block: &[u8], first: u64, sealed: &mut Vec<u8>) {
        sealed.clear();
        sealed.resize(BLOCK_HEADER_LEN, 0);
        let mut at = BLOCK_HEADER_LEN;
        while let Some((record, _, len)) = block.get(at..).and_then(|rest| peek_record(rest, first)) {
            let start = sealed.len();
            let body_start = start.saturating_add(RECORD_HEADER_LEN);
            sealed.resize(body_start, 0);
            sealed.extend_from_slice(record.body);
            let aad = self.associated(record.sequence, record.class, record.body.len());
            let body = sealed.get_mut(body_start..).unwrap_or_default();
            let tag = self.key.seal(record.sequence, &aad, body);
            sealed.extend_from_slice(&tag);
            let index = u32::try_from(record.sequence.saturating_sub(first)).unwrap_or(u32::MAX);
            seal_record(sealed, start, record.sequence, index, record.class);
            at = at.saturating_add(len);
        }
    }

    /// Opens in place what stands in `sealed`, and returns the body; `None` if it does not verify.
    pub(super) fn open<'b>(&self, sequence: u64, class: u8, sealed: &'b mut [u8]) -> Option<&'b [u8]> {
        let len = sealed.len().checked_sub(TAG_LEN)?;
        let aad = self.associated(sequence, class, len);
        self.key.open(sequence, &aad, sealed).ok().map(|body| &*body)
    }

    /// What is authenticated with a body of `len` bytes.
    fn associated(&self, sequence: u64, class: u8, len: usize) -> [u8; 14] {
        let mut aad = [0; 14];
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let fields = [self.lane]
            .into_iter()
            .chain(sequence.to_be_bytes())
            .chain([class])
            .chain(len.to_be_bytes());
        aad.iter_mut().zip(fields).for_each(|(place, byte)| *place = byte);
        aad
    }
}

const KEY_ID: [u8; 16] = label16("fgj key id");
const SEGMENT: [u8; 16] = label16("fgj segment");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::format::{RECORD_BODY_MAX, Records};

    fn header(number: u64) -> SegmentHeader {
        SegmentHeader {
            journal: [1; 16],
            number,
            segment_bytes: 1 << 16,
            lane: 1,
            next: 1,
            released: 0,
            seal: None,
        }
    }

    fn block(bodies: &[&[u8]]) -> Vec<u8> {
        let mut block = vec![0; BLOCK_HEADER_LEN];
        for (index, body) in (0..).zip(bodies) {
            let start = block.len();
            block.resize(start + RECORD_HEADER_LEN, 0);
            block.extend_from_slice(body);
            seal_record(&mut block, start, 7 + u64::from(index), index, 1);
        }
        block
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_and_nowhere_else() {
        let key = JournalKey::new(Secret::new([9; 32]));
        let long = vec![5; RECORD_BODY_MAX];
        let bodies: [&[u8]; 4] = [b"first", b"", &long, b"last"];
        let segment = key.segment(&header(3), &[4; 16]);
        let mut sealed = Vec::new();
        segment.seal_block(&block(&bodies), 7, &mut sealed);
        assert!(!sealed.windows(5).any(|window| window == b"first"));
        let payload = &sealed[BLOCK_HEADER_LEN..];
        let records: Vec<_> = Records::new(payload, 7, 10).collect();
        assert_eq!(records.len(), 4, "the checksums are over the ciphertext");
        let others = [
            key.segment(&header(4), &[4; 16]),
            key.segment(&header(3), &[5; 16]),
            key.segment(&SegmentHeader { lane: 2, ..header(3) }, &[4; 16]),
            JournalKey::new(Secret::new([8; 32])).segment(&header(3), &[4; 16]),
        ];
        for (record, body) in records.iter().zip(bodies) {
            assert_eq!(record.body.len(), body.len() + TAG_LEN);
            let opened = |key: &SegmentKey, sequence, class| {
                let mut bytes = record.body.to_vec();
                key.open(sequence, class, &mut bytes).map(<[u8]>::to_vec)
            };
            assert_eq!(opened(&segment, record.sequence, 1).as_deref(), Some(body));
            assert_eq!(opened(&segment, record.sequence + 1, 1), None);
            assert_eq!(opened(&segment, record.sequence, 0), None);
            assert!(others.iter().all(|key| opened(key, record.sequence, 1).is_none()));
        }
    }

    #[test]
    fn a_key_has_a_name_and_does_not_show_itself() {
        let key = JournalKey::new(Secret::new([9; 32]));
        assert_eq!(key.id(), key.duplicate().id());
        assert_ne!(key.id(), JournalKey::new(Secret::new([8; 32])).id());
        assert!(!format!("{key:?}").contains('9'));
    }
}
