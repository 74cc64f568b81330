//! Seals: a gateway's signature over a batch of readings, from which anybody can be shown later that a single reading of it came
//! from that gateway (PROTOCOL.md §9.1).
//!
//! ```text
//! entry     = 16 journal id | u64 sequence | reading
//! root      = root of the Merkle tree over the entries of one batch (RFC 9162 §2.1, SHA-256)
//! signature = Ed25519 over the Sig_structure of COSE_Sign1 (RFC 9052 §4.4) with the root as payload
//! ```
//! The key that signs is drawn by the gateway's process and attested by its identity key for a day (§2.2, purpose 3), so that the
//! token signs once a day and every reading leads back to it.

pub mod merkle;

use self::merkle::{Hash, leaf_hash};
use crate::{
    crypto::{CryptoError, Ed25519Secret, Signature, verify_ed25519_plain},
    delivery::JournalId,
    entropy::Entropy,
    identity::{AttestationDraft, ChangeHistory, IdentityError, SignedAttestation},
};

/// The gateway's word for a batch of readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// When it was signed, by the gateway's clock, in seconds since 1970.
    pub sealed_at: u64,
    /// Over [`signed_bytes`].
    pub signature: Signature,
}

/// Returns the leaf that stands for a reading.
#[must_use]
pub fn reading_leaf(journal: &JournalId, sequence: u64, reading: &[u8]) -> Hash {
    leaf_hash([journal, &sequence.to_be_bytes(), reading])
}

/// Which readings a seal is about. It is signed with the root, because a root alone does not tell how large its tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Which of the gateway's journals.
    pub journal: JournalId,
    /// Number of the first reading.
    pub first: u64,
    /// How many there are, 1 to [`merkle::LEAVES_MAX`].
    pub count: u64,
}

/// Returns the protected header of a seal (RFC 9052 §3): algorithm EdDSA, key id, CWT claim "issued at" (RFC 9597), RFC
/// 9162 with SHA-256 as the structure that the root is of (draft-ietf-cose-merkle-tree-proofs §4), and the extent. Deterministic
/// CBOR (RFC 8949 §4.2.1).
#[must_use]
pub fn protected_header(extent: &Extent, key_id: &Hash, sealed_at: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(PROTECTED_LEN_MAX);
    out.extend_from_slice(&[MAP_OF_FIVE, LABEL_ALG, ALG_EDDSA, LABEL_KID, BYTES_U8_LEN, 32]);
    out.extend_from_slice(key_id);
    out.extend_from_slice(&[LABEL_CWT_CLAIMS, MAP_OF_ONE, CLAIM_IAT]);
    put_unsigned(&mut out, sealed_at);
    out.extend_from_slice(&LABEL_VDS);
    out.push(VDS_RFC9162_SHA256);
    out.extend_from_slice(LABEL_EXTENT);
    out.extend_from_slice(&[ARRAY_OF_THREE, SIXTEEN_BYTES]);
    out.extend_from_slice(&extent.journal);
    put_unsigned(&mut out, extent.first);
    put_unsigned(&mut out, extent.count);
    out
}

/// Returns what is signed: the Sig_structure of RFC 9052 §4.4 with `root` as payload.
#[must_use]
pub fn signed_bytes(extent: &Extent, key_id: &Hash, sealed_at: u64, root: &Hash) -> Vec<u8> {
    let protected = protected_header(extent, key_id, sealed_at);
    let mut out = Vec::with_capacity(CONTEXT.len().saturating_add(protected.len()).saturating_add(40));
    out.push(ARRAY_OF_FOUR);
    out.extend_from_slice(CONTEXT);
    out.push(BYTES_U8_LEN);
    out.push(u8::try_from(protected.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(&protected);
    out.extend_from_slice(&[NO_BYTES, BYTES_U8_LEN, 32]);
    out.extend_from_slice(root);
    out
}

impl Seal {
    /// Verifies the signature over `root`, the root over `extent`, by the key that the attestation with the hash `key_id` is about.
    ///
    /// # Errors
    /// [`CryptoError::Signature`].
    pub fn verify(
        &self,
        public_key: &[u8; 32],
        key_id: &Hash,
        extent: &Extent,
        root: &Hash,
    ) -> Result<(), CryptoError> {
        verify_ed25519_plain(
            public_key,
            &signed_bytes(extent, key_id, self.sealed_at, root),
            &self.signature,
        )
    }
}

/// A new sealing key that waits for the signature of the gateway's identity key, which a token holds.
#[derive(Debug)]
pub struct SealKeyDraft {
    secret: Ed25519Secret,
    draft: AttestationDraft,
}

impl SealKeyDraft {
    /// Draws a key for the owner of `history`, valid from `not_before` (seconds since 1970) for `lifetime_secs`. `sequence` must
    /// exceed that of every attestation the identity made before, whatever it was for.
    ///
    /// # Errors
    /// [`IdentityError::Lifetime`] outside 1..=[`LIFETIME_SECS_MAX`](crate::identity::LIFETIME_SECS_MAX).
    pub fn new(
        entropy: &mut dyn Entropy,
        history: &ChangeHistory,
        not_before: u64,
        lifetime_secs: u64,
        sequence: u64,
    ) -> Result<Self, IdentityError> {
        let secret = Ed25519Secret::generate(entropy);
        let draft =
            AttestationDraft::for_readings(history, *secret.public(), not_before, lifetime_secs, sequence)?;
        Ok(Self { secret, draft })
    }

    /// Returns what the identity's current key signs.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        self.draft.message()
    }

    /// Takes the signature.
    ///
    /// # Errors
    /// [`IdentityError::Signature`] if it is not the current key's, [`IdentityError::NotCurrentKey`] if `history` was rotated
    /// meanwhile.
    pub fn finish(self, signature: Signature, history: &ChangeHistory) -> Result<SealKey, IdentityError> {
        let attestation = self.draft.finish(signature, history)?;
        Ok(SealKey {
            key_id: attestation.hash(),
            attestation,
            secret: self.secret,
        })
    }
}

/// The key a gateway seals readings with, and the word of its identity for it. Lives in this process only.
#[derive(Debug)]
pub struct SealKey {
    secret: Ed25519Secret,
    attestation: SignedAttestation,
    key_id: Hash,
}

impl SealKey {
    /// Returns the word for this key. It says until when the key can sign.
    #[must_use]
    pub const fn attestation(&self) -> &SignedAttestation {
        &self.attestation
    }

    /// Returns the hash of the attestation, which stands in each seal.
    #[must_use]
    pub const fn key_id(&self) -> &Hash {
        &self.key_id
    }

    /// Signs `root`, the root over `extent`, at `sealed_at`, seconds since 1970.
    #[must_use]
    pub fn seal(&self, sealed_at: u64, extent: &Extent, root: &Hash) -> Seal {
        Seal {
            sealed_at,
            signature: self
                .secret
                .sign_plain(&signed_bytes(extent, &self.key_id, sealed_at, root)),
        }
    }
}

/// Appends an unsigned integer of CBOR in its shortest form (RFC 8949 §4.2.1).
fn put_unsigned(out: &mut Vec<u8>, value: u64) {
    if let Ok(value) = u8::try_from(value) {
        if value >= 24 {
            out.push(24);
        }
        out.push(value);
    } else if let Ok(value) = u16::try_from(value) {
        out.push(25);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = u32::try_from(value) {
        out.push(26);
        out.extend_from_slice(&value.to_be_bytes());
    } else {
        out.push(27);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Label of the proofs that a seal is about a tree, for whoever writes the whole COSE_Sign1: `vdp`.
pub const LABEL_VDP: i64 = 396;

const PROTECTED_LEN_MAX: usize = 96;
/// `"Signature1"`.
const CONTEXT: &[u8; 11] = b"\x6aSignature1";
const ARRAY_OF_FOUR: u8 = 0x84;
const ARRAY_OF_THREE: u8 = 0x83;
const SIXTEEN_BYTES: u8 = 0x50;
const MAP_OF_FIVE: u8 = 0xa5;
const MAP_OF_ONE: u8 = 0xa1;
/// A byte string whose length is the next byte.
const BYTES_U8_LEN: u8 = 0x58;
const NO_BYTES: u8 = 0x40;
const LABEL_ALG: u8 = 1;
/// -8.
const ALG_EDDSA: u8 = 0x27;
const LABEL_KID: u8 = 4;
const LABEL_CWT_CLAIMS: u8 = 15;
const CLAIM_IAT: u8 = 6;
/// 395, `vds`.
const LABEL_VDS: [u8; 3] = [0x19, 0x01, 0x8b];
const VDS_RFC9162_SHA256: u8 = 1;
/// `"fg"`.
const LABEL_EXTENT: &[u8; 3] = b"\x62fg";

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;
    use crate::{
        crypto::Secret,
        entropy::Entropy,
        identity::{ChangeDraft, PublicKey},
    };

    /// Gives the same bytes for ever.
    struct Fixed(u8);

    impl Entropy for Fixed {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    const EXTENT: Extent = Extent {
        journal: [5; 16],
        first: 1,
        count: 9,
    };

    #[test]
    fn what_is_signed_is_deterministic_cbor() {
        let bytes = signed_bytes(&EXTENT, &[0x11; 32], 1_800_000_000, &[0x22; 32]);
        let want = [
            "846a5369676e61747572653158",
            "49",
            "a5012704",
            "5820",
            &"11".repeat(32),
            "0fa1061a6b49d200",
            "19018b01",
            "626667",
            "8350",
            &"05".repeat(16),
            "0109",
            "405820",
            &"22".repeat(32),
        ];
        assert_eq!(HEXLOWER.encode(&bytes), want.concat());
    }

    #[test]
    fn integers_take_their_shortest_form() {
        for (value, want) in [
            (0, "00"),
            (23, "17"),
            (24, "1818"),
            (255, "18ff"),
            (256, "190100"),
            (65_536, "1a00010000"),
            (1 << 32, "1b0000000100000000"),
        ] {
            let mut out = Vec::new();
            put_unsigned(&mut out, value);
            assert_eq!(HEXLOWER.encode(&out), want);
        }
    }

    /// An identity with an Ed25519 key made of `seed`.
    fn identity(seed: u8) -> (Ed25519Secret, ChangeHistory) {
        let secret = Ed25519Secret::new(&Secret::new([seed; 32]));
        let key = PublicKey::Ed25519(*secret.public());
        let draft = ChangeDraft::first(key, 1_800_000_000);
        let signature = secret.sign(&[&draft.message()]);
        let history = draft.finish(signature, None).unwrap();
        (secret, history)
    }

    #[test]
    fn a_seal_verifies_until_a_bit_of_it_changes() {
        let (identity, history) = identity(7);
        let draft = SealKeyDraft::new(&mut Fixed(9), &history, 1_800_000_000, 86_400, 1).unwrap();
        let signature = identity.sign(&[&draft.message()]);
        let key = draft.finish(signature, &history).unwrap();
        key.attestation().verify_readings_key(&history).unwrap();
        key.attestation()
            .verify_statement_key(&history)
            .expect_err("a key for readings signs no statements");
        let mut leaves: Vec<Hash> = (1..=9)
            .map(|sequence| reading_leaf(&[5; 16], sequence, b"21.5"))
            .collect();
        let root = merkle::root(&mut leaves).unwrap();
        let seal = key.seal(1_800_000_100, &EXTENT, &root);
        let public = key.attestation().attestation().public_key;
        seal.verify(&public, key.key_id(), &EXTENT, &root).unwrap();
        for bit in 0..256 {
            let mut other = root;
            other[bit / 8] ^= 1 << (bit % 8);
            seal.verify(&public, key.key_id(), &EXTENT, &other).unwrap_err();
            let mut other = *key.key_id();
            other[bit / 8] ^= 1 << (bit % 8);
            seal.verify(&public, &other, &EXTENT, &root).unwrap_err();
        }
        for bit in 0..512 {
            let mut other = seal;
            other.signature[bit / 8] ^= 1 << (bit % 8);
            other.verify(&public, key.key_id(), &EXTENT, &root).unwrap_err();
        }
        let later = Seal {
            sealed_at: seal.sealed_at + 1,
            ..seal
        };
        later.verify(&public, key.key_id(), &EXTENT, &root).unwrap_err();
        let longer = Extent { count: 10, ..EXTENT };
        seal.verify(&public, key.key_id(), &longer, &root).unwrap_err();
    }

    #[test]
    fn leaves_of_other_places_differ() {
        let leaf = reading_leaf(&[5; 16], 1, b"21.5");
        assert_ne!(leaf, reading_leaf(&[6; 16], 1, b"21.5"));
        assert_ne!(leaf, reading_leaf(&[5; 16], 2, b"21.5"));
        assert_ne!(leaf, reading_leaf(&[5; 16], 1, b"21.6"));
    }
}
