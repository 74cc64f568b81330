//! Identities with keys in memory: a token is not what is measured here.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use fieldgate_proto::channel::LocalIdentity;
use fieldgate_proto::crypto::{Signature, X25519Secret};
use fieldgate_proto::entropy::Entropy;
use fieldgate_proto::identity::{AttestationDraft, ChangeDraft, ChangeHistory, KeyAlgorithm, PublicKey};
use fieldgate_proto::time::{ClockQuality, Instant, Now, WallTime};

use crate::clock;
use crate::failure::Failure;

/// The operating system's generator.
pub(crate) struct System(SystemRandom);

impl System {
    pub(crate) fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Entropy for System {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0
            .fill(bytes)
            .expect("the generator of aws-lc-rs does not fail once it was seeded");
    }
}

/// A new identity with one key.
pub(super) struct Owner {
    key: EcdsaKeyPair,
    pub(super) history: ChangeHistory,
}

impl Owner {
    pub(super) fn new(entropy: &System) -> Result<Self, Failure> {
        Self::born(entropy, NOW_SECS)
    }

    fn born(entropy: &System, now_secs: u64) -> Result<Self, Failure> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map_err(|error| refused("making an identity key", &error))?;
        let public = PublicKey::new(KeyAlgorithm::EcdsaP256, key.public_key().as_ref(), 0)
            .map_err(|error| refused("taking a public key", &error))?;
        let draft = ChangeDraft::first(public, now_secs);
        let signature = sign(&key, &draft.message(), entropy)?;
        let history = draft
            .finish(signature, None)
            .map_err(|error| refused("signing the first change", &error))?;
        Ok(Self { key, history })
    }

    /// Signs with the identity key.
    pub(super) fn sign(&self, message: &[u8], entropy: &System) -> Result<Signature, Failure> {
        sign(&self.key, message, entropy)
    }
}

/// Makes a new identity with an attestation that is valid now.
pub(super) fn local(entropy: &mut System) -> Result<LocalIdentity, Failure> {
    local_at(entropy, NOW_SECS)
}

/// Makes a new identity with an attestation that begins at a time of day, in seconds since 1970, and is valid for a day.
pub(crate) fn local_at(entropy: &mut System, now_secs: u64) -> Result<LocalIdentity, Failure> {
    let owner = Owner::born(entropy, now_secs)?;
    let secret = X25519Secret::generate(entropy);
    let draft = AttestationDraft::new(&owner.history, *secret.public(), now_secs, DAY_SECS, 1)
        .map_err(|error| refused("drafting an attestation", &error))?;
    let signature = owner.sign(&draft.message(), entropy)?;
    let attestation = draft
        .finish(signature, &owner.history)
        .map_err(|error| refused("signing an attestation", &error))?;
    LocalIdentity::new(&owner.history, &attestation, secret)
        .map_err(|error| refused("making an identity", &error))
}

/// Returns a monotonic clock that runs and a wall clock that stands within every validity.
pub(super) fn now() -> Now {
    let wall = WallTime {
        unix_millis: NOW_SECS * 1000,
        quality: ClockQuality::Synchronised,
    };
    Now {
        instant: Instant::from_nanos(clock::now()),
        wall,
    }
}

fn sign(key: &EcdsaKeyPair, message: &[u8], entropy: &System) -> Result<Signature, Failure> {
    let signature = key
        .sign(&entropy.0, message)
        .map_err(|error| refused("signing", &error))?;
    signature
        .as_ref()
        .try_into()
        .map_err(|error| refused("taking a signature", &error))
}

/// Wraps an error of the measured code.
pub(super) fn refused(what: &'static str, error: &dyn std::fmt::Display) -> Failure {
    Failure::Subject {
        what,
        problem: error.to_string(),
    }
}

/// Any time will do, as long as it is the same everywhere.
pub(super) const NOW_SECS: u64 = 1_800_000_000;
pub(super) const DAY_SECS: u64 = 86_400;
