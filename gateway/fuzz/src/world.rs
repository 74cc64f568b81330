//! What machines need around them: time, randomness, identities.

use std::sync::OnceLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use fieldgate_proto::channel::LocalIdentity;
use fieldgate_proto::crypto::{Secret, Signature, X25519Secret};
use fieldgate_proto::entropy::Entropy;
use fieldgate_proto::identity::{
    AttestationDraft, ChangeDraft, ChangeHistory, KeyAlgorithm, PublicKey, SignedAttestation,
};
use fieldgate_proto::time::{ClockQuality, Instant, Now, WallTime};

/// The same values in every run, so that an input does the same each time.
pub(crate) struct Repeatable(u64);

impl Repeatable {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Entropy for Repeatable {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *byte = self.0.to_be_bytes()[0];
        }
    }
}

/// So many milliseconds after the start of everything.
pub(crate) fn now(millis: u64) -> Now {
    Now {
        instant: Instant::from_nanos(millis.saturating_mul(1_000_000)),
        wall: WallTime {
            unix_millis: (BEGIN_SECS + 60) * 1000 + millis,
            quality: ClockQuality::Synchronised,
        },
    }
}

/// An identity whose proofs are made once per process: signing is slow and nothing of it is fuzzed.
pub(crate) struct Member {
    pub(crate) history: ChangeHistory,
    attestation: SignedAttestation,
    secret: Secret,
}

impl Member {
    fn new(seed: u8) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("aws-lc-rs makes keys");
        let public = PublicKey::new(KeyAlgorithm::EcdsaP256, key.public_key().as_ref(), 0)
            .expect("aws-lc-rs makes uncompressed points");
        let draft = ChangeDraft::first(public, BEGIN_SECS);
        let signature = sign(&key, &draft.message());
        let history = draft.finish(signature, None).expect("the signature is its own");
        let secret = Secret::new([seed; 32]);
        let x25519 = X25519Secret::new(&secret);
        let draft = AttestationDraft::new(&history, *x25519.public(), BEGIN_SECS, 86_400, 1)
            .expect("a day is the longest validity");
        let signature = sign(&key, &draft.message());
        let attestation = draft
            .finish(signature, &history)
            .expect("the signature is its own");
        Self {
            history,
            attestation,
            secret,
        }
    }

    /// Returns what the node proves itself with.
    pub(crate) fn local(&self) -> LocalIdentity {
        let secret = X25519Secret::new(&self.secret);
        LocalIdentity::new(&self.history, &self.attestation, secret).expect("the parts belong together")
    }

    /// Returns the encoded attestation.
    pub(crate) fn attestation(&self) -> Vec<u8> {
        self.attestation.encode()
    }
}

/// Two identities that exist for the whole process.
pub(crate) fn members() -> &'static [Member; 2] {
    static MEMBERS: OnceLock<[Member; 2]> = OnceLock::new();
    MEMBERS.get_or_init(|| [Member::new(1), Member::new(2)])
}

fn sign(key: &EcdsaKeyPair, message: &[u8]) -> Signature {
    let signature = key.sign(&SystemRandom::new(), message).expect("aws-lc-rs signs");
    signature
        .as_ref()
        .try_into()
        .expect("fixed signatures have 64 bytes")
}

/// Cuts a number of pieces off the input, the length of each given by the byte in front of it.
pub(crate) fn pieces(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&length, rest) = data.split_first()?;
        let (piece, rest) = rest.split_at(usize::from(length).min(rest.len()));
        data = rest;
        Some(piece)
    })
}

/// Any time; attestations begin here.
pub(crate) const BEGIN_SECS: u64 = 1_800_000_000;
