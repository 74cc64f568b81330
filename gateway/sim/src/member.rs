//! Identities of simulated nodes: the same in every run of a seed.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use fieldgate_proto::{
    channel::LocalIdentity,
    crypto::{Signature, X25519Secret, sha256},
    entropy::Entropy,
    identity::{
        AttestationDraft, ChangeDraft, ChangeHistory, Identifier, KeyAlgorithm, LIFETIME_SECS_MAX, PublicKey,
    },
    trust::{StatementKey, StatementKeyDraft},
};

/// An identity with its key in memory. Ed25519, because its signatures draw no randomness.
#[derive(Debug)]
pub(crate) struct Member {
    key: Ed25519KeyPair,
    history: ChangeHistory,
    attestations: u64,
}

impl Member {
    pub(crate) fn new(entropy: &mut dyn Entropy, unix_secs: u64) -> Self {
        let mut seed = [0; 32];
        entropy.fill(&mut seed);
        let key = Ed25519KeyPair::from_seed_unchecked(&seed).expect("any 32 bytes are a seed");
        let public = PublicKey::new(KeyAlgorithm::Ed25519, key.public_key().as_ref(), 0)
            .expect("aws-lc-rs makes valid public keys");
        let draft = ChangeDraft::first(public, unix_secs);
        let signature = sign(&key, &draft.message());
        let history = draft
            .finish(signature, None)
            .expect("the signature is the key's own");
        Self {
            key,
            history,
            attestations: 0,
        }
    }

    pub(crate) const fn history(&self) -> &ChangeHistory {
        &self.history
    }

    /// Signs with the identity key, as a token would.
    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        sign(&self.key, message)
    }

    /// Draws a statement key and attests it from `unix_secs` on.
    pub(crate) fn statement_key(&mut self, entropy: &mut dyn Entropy, unix_secs: u64) -> StatementKey {
        self.attestations += 1;
        let (lifetime, sequence) = (LIFETIME_SECS_MAX, self.attestations);
        let draft = StatementKeyDraft::new(entropy, &self.history, unix_secs, lifetime, sequence)
            .expect("the validity is the longest allowed");
        let signature = self.sign(&draft.message());
        draft
            .finish(signature, &self.history)
            .expect("the signature is the key's own")
    }

    pub(crate) fn identifier(&self) -> Identifier {
        self.history.identifier()
    }

    /// Draws a new purpose key and attests it from `unix_secs` on.
    pub(crate) fn local(&mut self, entropy: &mut dyn Entropy, unix_secs: u64) -> LocalIdentity {
        self.attestations += 1;
        let secret = X25519Secret::generate(entropy);
        let draft = AttestationDraft::new(
            &self.history,
            *secret.public(),
            unix_secs,
            LIFETIME_SECS_MAX,
            self.attestations,
        )
        .expect("the validity is the longest allowed");
        let signature = sign(&self.key, &draft.message());
        let attestation = draft
            .finish(signature, &self.history)
            .expect("the signature is the key's own");
        LocalIdentity::new(&self.history, &attestation, secret).expect("the parts were made for each other")
    }
}

/// Signs as PROTOCOL.md §2.1 says for Ed25519: the message is its digest.
fn sign(key: &Ed25519KeyPair, message: &[u8]) -> Signature {
    let signature = key.sign(&sha256(&[message]));
    signature
        .as_ref()
        .try_into()
        .expect("Ed25519 signatures have 64 bytes")
}
