//! Proofs: files that show, without contact to anyone, that one reading came from the gateway whose identity it names
//! (PROTOCOL.md §9.1).
//!
//! ```text
//!  reading ─leaf─▶ path ─▶ root ─▶ signature of the sealing key ─▶ attestation by the identity key ─▶ change history ─▶ fg1…
//! ```
//! A collector makes a [`Proof`] from a batch and its seal; [`Proof::verify`] goes the way back. Nothing here touches files,
//! clocks or the network.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod error;
mod file;
pub mod ledger;

pub use error::ProofError;
pub use file::PROOF_LEN_MAX;

use fieldgate_proto::{
    crypto::sha256,
    identity::{ChangeHistory, Identifier, SignedAttestation},
    seal::{
        Extent, Seal,
        merkle::{self, Hash},
        reading_leaf,
    },
};

/// A proof for one reading. Holding one does not mean that it was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The gateway's change history, as it was when the batch was sealed or later.
    pub history: Vec<u8>,
    /// The identity's word for the sealing key.
    pub attestation: Vec<u8>,
    /// The batch that was sealed.
    pub extent: Extent,
    /// The gateway's word for it.
    pub seal: Seal,
    /// The reading as it was delivered (PROTOCOL.md §9).
    pub reading: Vec<u8>,
    /// Its place in the batch, from 0.
    pub index: u64,
    /// Hashes beside the way to the root, lowest first.
    pub path: Vec<Hash>,
}

/// What a proof has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The gateway.
    pub gateway: Identifier,
    /// The change of its identity whose key vouched for the sealing key, from 0.
    pub key_sequence: u32,
    /// When the batch was sealed, by the gateway's clock, in seconds since 1970.
    pub sealed_at: u64,
    /// Validity of the sealing key, seconds since 1970.
    pub valid: (u64, u64),
}

/// A sealed batch, in the form that the collector got it.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The gateway's change history.
    pub history: &'a [u8],
    /// The identity's word for the sealing key.
    pub attestation: &'a [u8],
    /// Which readings it has.
    pub extent: Extent,
    /// The seal over all of them.
    pub seal: Seal,
}

impl Batch<'_> {
    /// Makes the proof for the reading at `index` of `readings`, all readings of the batch in order.
    ///
    /// # Errors
    /// [`ProofError::Place`] if there is no such reading, or they are not as many as the extent says.
    pub fn prove<'r>(
        &self,
        readings: impl Iterator<Item = &'r [u8]>,
        index: usize,
    ) -> Result<Proof, ProofError> {
        let place = ProofError::Place {
            index: index as u64,
            count: self.extent.count,
        };
        if self.extent.count > merkle::LEAVES_MAX as u64 {
            return Err(place);
        }
        let mut leaves = Vec::new();
        let mut reading = None;
        for (at, (sequence, bytes)) in (self.extent.first..).zip(readings).enumerate() {
            if at == index {
                reading = Some(bytes.to_vec());
            }
            leaves.push(reading_leaf(&self.extent.journal, sequence, bytes));
            if leaves.len() as u64 > self.extent.count {
                return Err(place);
            }
        }
        if leaves.len() as u64 != self.extent.count {
            return Err(place);
        }
        let (reading, path) = reading
            .zip(merkle::inclusion_path(&mut leaves, index))
            .ok_or(place)?;
        Ok(Proof {
            history: self.history.to_vec(),
            attestation: self.attestation.to_vec(),
            extent: self.extent,
            seal: self.seal,
            reading,
            index: index as u64,
            path,
        })
    }
}

/// A sealing key as a collector got it, verified once and used for every seal that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealingKey {
    /// Whose it is.
    pub gateway: Identifier,
    /// Hash of the attestation: the key's name in seals.
    pub key_id: Hash,
    public_key: [u8; 32],
    key_sequence: u32,
    valid: (u64, u64),
}

impl SealingKey {
    /// Verifies that the identity with the change history `history` vouches for the key in `attestation`.
    ///
    /// # Errors
    /// [`ProofError::Identity`].
    pub fn verify(history: &[u8], attestation: &[u8]) -> Result<Self, ProofError> {
        let history = ChangeHistory::decode(history)?;
        let signed = SignedAttestation::decode(attestation)?;
        signed.verify_readings_key(&history)?;
        let said = signed.attestation();
        Ok(Self {
            gateway: history.identifier(),
            key_id: sha256(&[attestation]),
            public_key: said.public_key,
            key_sequence: said.key_sequence,
            valid: (said.not_before, said.not_after),
        })
    }

    /// Verifies a seal over `extent` and its `root`.
    ///
    /// # Errors
    /// [`ProofError::Time`] if it was made when the key was not vouched for, [`ProofError::Signature`].
    pub fn verify_seal(&self, seal: &Seal, extent: &Extent, root: &Hash) -> Result<(), ProofError> {
        let (not_before, not_after) = self.valid;
        if !(not_before..=not_after).contains(&seal.sealed_at) {
            return Err(ProofError::Time {
                sealed_at: seal.sealed_at,
                not_before,
                not_after,
            });
        }
        seal.verify(&self.public_key, &self.key_id, extent, root)
            .map_err(ProofError::Signature)
    }
}

impl Proof {
    /// Returns the reading's number in its journal.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.extent.first.saturating_add(self.index)
    }

    /// Verifies everything: that the reading is in the batch, that the batch was sealed, and that the gateway's identity vouched
    /// for the key that did it at that time. What remains to be judged is whether the identifier is the one expected.
    ///
    /// # Errors
    /// [`ProofError`] names the first thing that does not hold.
    pub fn verify(&self) -> Result<Verified, ProofError> {
        let key = SealingKey::verify(&self.history, &self.attestation)?;
        let leaf = reading_leaf(&self.extent.journal, self.sequence(), &self.reading);
        let root = merkle::root_from_path(leaf, self.index, self.extent.count, &self.path).ok_or(
            ProofError::Place {
                index: self.index,
                count: self.extent.count,
            },
        )?;
        key.verify_seal(&self.seal, &self.extent, &root)?;
        Ok(Verified {
            gateway: key.gateway,
            key_sequence: key.key_sequence,
            sealed_at: self.seal.sealed_at,
            valid: key.valid,
        })
    }
}

#[cfg(test)]
mod tests;
