use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use proptest::prelude::*;

use super::*;
use crate::{
    crypto::{CryptoError, Signature, sha256},
    entropy::Entropy,
    time::{ClockQuality, WallTime},
    wire::WireError,
};

/// A generator that a seed determines.
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed << 32)
    }
}

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            self.0 += 1;
            let block = sha256(&[&self.0.to_be_bytes()]);
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
    }
}

/// A signing key in memory, in the place of a token.
pub(crate) enum TestKey {
    P256(Box<EcdsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

impl TestKey {
    pub(crate) fn new(algorithm: KeyAlgorithm) -> Self {
        match algorithm {
            KeyAlgorithm::EcdsaP256 => {
                let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("keys can be made");
                Self::P256(Box::new(key))
            }
            KeyAlgorithm::Ed25519 => Self::Ed25519(Ed25519KeyPair::generate().expect("keys can be made")),
        }
    }

    pub(crate) fn public(&self) -> PublicKey {
        let (algorithm, bytes) = match self {
            Self::P256(key) => (KeyAlgorithm::EcdsaP256, key.public_key().as_ref()),
            Self::Ed25519(key) => (KeyAlgorithm::Ed25519, key.public_key().as_ref()),
        };
        PublicKey::new(algorithm, bytes, 0).expect("the library encodes keys as we do")
    }

    /// `sign` of PROTOCOL.md §2.1.
    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        let mut signature = [0; 64];
        match self {
            Self::P256(key) => {
                let made = key.sign(&SystemRandom::new(), message).expect("a key can sign");
                signature.copy_from_slice(made.as_ref());
            }
            Self::Ed25519(key) => signature.copy_from_slice(key.sign(&sha256(&[message])).as_ref()),
        }
        signature
    }
}

/// An identity with its current key.
pub(crate) struct TestIdentity {
    pub(crate) key: TestKey,
    pub(crate) history: ChangeHistory,
}

impl TestIdentity {
    pub(crate) fn new(algorithm: KeyAlgorithm) -> Self {
        let key = TestKey::new(algorithm);
        let draft = ChangeDraft::first(key.public(), 0);
        let own = key.sign(&draft.message());
        Self {
            history: draft.finish(own, None).expect("the key signed"),
            key,
        }
    }

    pub(crate) fn rotated(&self, algorithm: KeyAlgorithm) -> Self {
        let key = TestKey::new(algorithm);
        let draft = ChangeDraft::next(self.history.clone(), key.public(), 5).expect("there is room");
        let (own, predecessor) = (key.sign(&draft.message()), self.key.sign(&draft.message()));
        Self {
            history: draft.finish(own, Some(predecessor)).expect("both keys signed"),
            key,
        }
    }

    pub(crate) fn attest(
        &self,
        public_key: [u8; 32],
        not_before: u64,
        lifetime: u64,
        sequence: u64,
    ) -> SignedAttestation {
        let draft = AttestationDraft::new(&self.history, public_key, not_before, lifetime, sequence)
            .expect("the lifetime is allowed");
        let signature = self.key.sign(&draft.message());
        draft
            .finish(signature, &self.history)
            .expect("the current key signed")
    }
}

const STATIC: [u8; 32] = [7; 32];

const fn synchronised(secs: u64) -> WallTime {
    WallTime {
        unix_millis: secs * 1000,
        quality: ClockQuality::Synchronised,
    }
}

fn verify(
    cache: &mut AttestationCache,
    identity: &TestIdentity,
    signed: &SignedAttestation,
    wall: WallTime,
) -> Result<SignedAttestation, IdentityError> {
    cache.verify(
        &identity.history.to_bytes(),
        &signed.encode(),
        None,
        &STATIC,
        wall,
    )
}

#[test]
fn a_history_comes_back_with_all_its_keys() {
    let first = TestIdentity::new(KeyAlgorithm::EcdsaP256);
    let third = first
        .rotated(KeyAlgorithm::Ed25519)
        .rotated(KeyAlgorithm::EcdsaP256);
    let decoded = ChangeHistory::decode(&third.history.to_bytes()).expect("the history verifies");
    assert_eq!(decoded, third.history);
    assert_eq!(decoded.identifier(), first.history.identifier());
    assert_eq!(decoded.current_key(), &third.key.public());
    assert_eq!(
        decoded
            .changes()
            .map(|change| change.sequence)
            .collect::<Vec<_>>(),
        [0, 1, 2]
    );
}

#[test]
fn every_bit_of_a_history_counts() {
    let identity = TestIdentity::new(KeyAlgorithm::EcdsaP256).rotated(KeyAlgorithm::Ed25519);
    let bytes = identity.history.to_bytes();
    for bit in 0..bytes.len() * 8 {
        let mut forged = bytes.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(ChangeHistory::decode(&forged).is_err(), "bit {bit}");
    }
}

#[test]
fn a_history_cut_or_extended_anywhere_is_refused() {
    let bytes = TestIdentity::new(KeyAlgorithm::Ed25519)
        .rotated(KeyAlgorithm::Ed25519)
        .history
        .to_bytes();
    for len in 0..bytes.len() {
        assert!(ChangeHistory::decode(&bytes[..len]).is_err(), "{len} bytes");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert_eq!(
        ChangeHistory::decode(&longer),
        Err(IdentityError::Wire(WireError::Trailing { extra: 1 }))
    );
}

#[test]
fn a_change_needs_the_signature_of_the_key_before() {
    let identity = TestIdentity::new(KeyAlgorithm::Ed25519);
    let (key, stranger) = (
        TestKey::new(KeyAlgorithm::Ed25519),
        TestKey::new(KeyAlgorithm::Ed25519),
    );
    let draft = ChangeDraft::next(identity.history.clone(), key.public(), 0).expect("there is room");
    let message = draft.message();
    let (own, right, wrong) = (
        key.sign(&message),
        identity.key.sign(&message),
        stranger.sign(&message),
    );
    assert_eq!(
        draft.clone().finish(own, None),
        Err(IdentityError::Previous { sequence: 1 })
    );
    let refused = |sequence| IdentityError::Signature {
        what: "change",
        sequence,
        source: CryptoError::Signature,
    };
    assert_eq!(draft.clone().finish(own, Some(wrong)), Err(refused(0)));
    assert_eq!(draft.clone().finish(wrong, Some(right)), Err(refused(1)));
    assert!(draft.finish(own, Some(right)).is_ok());
    let first = ChangeDraft::first(key.public(), 0);
    let own = key.sign(&first.message());
    assert_eq!(
        first.finish(own, Some(right)),
        Err(IdentityError::Previous { sequence: 0 })
    );
}

#[test]
fn an_identity_has_at_most_sixteen_changes() {
    let mut identity = TestIdentity::new(KeyAlgorithm::Ed25519);
    for _ in 1..CHANGES_MAX {
        identity = identity.rotated(KeyAlgorithm::Ed25519);
    }
    assert!(ChangeHistory::decode(&identity.history.to_bytes()).is_ok());
    let draft = ChangeDraft::next(identity.history.clone(), identity.key.public(), 0);
    let full = IdentityError::ChangeCount { got: 17, max: 16 };
    assert_eq!(draft.err(), Some(full));
    let mut bytes = identity.history.to_bytes();
    bytes[0] = 17;
    assert_eq!(ChangeHistory::decode(&bytes), Err(full));
    bytes[0] = 0;
    assert_eq!(
        ChangeHistory::decode(&bytes),
        Err(IdentityError::ChangeCount { got: 0, max: 16 })
    );
}

#[test]
fn a_known_history_is_extended_but_neither_forked_nor_set_back() {
    let first = TestIdentity::new(KeyAlgorithm::Ed25519);
    let second = first.rotated(KeyAlgorithm::Ed25519);
    let fork = first.rotated(KeyAlgorithm::Ed25519);
    let known = &second.history;
    assert_eq!(
        ChangeHistory::decode_onto(&first.history, &known.to_bytes()).as_ref(),
        Ok(known)
    );
    assert_eq!(
        ChangeHistory::decode_onto(known, &known.to_bytes()).as_ref(),
        Ok(known)
    );
    assert_eq!(
        ChangeHistory::decode_onto(known, &first.history.to_bytes()),
        Err(IdentityError::OldHistory { got: 0, known: 1 })
    );
    assert_eq!(
        ChangeHistory::decode_onto(known, &fork.history.to_bytes()),
        Err(IdentityError::Fork { sequence: 1 })
    );
    let stranger = TestIdentity::new(KeyAlgorithm::Ed25519);
    assert_eq!(
        ChangeHistory::decode_onto(known, &stranger.history.to_bytes()),
        Err(IdentityError::Fork { sequence: 0 })
    );
    // What is new is verified.
    let mut forged = second.rotated(KeyAlgorithm::Ed25519).history.to_bytes();
    *forged.last_mut().expect("a history is not empty") ^= 1;
    assert!(matches!(
        ChangeHistory::decode_onto(known, &forged),
        Err(IdentityError::Signature { .. })
    ));
}

#[test]
fn every_bit_of_an_attestation_counts() {
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519] {
        let identity = TestIdentity::new(algorithm);
        let bytes = identity.attest(STATIC, 1000, 3600, 1).encode();
        assert_eq!(bytes.len(), SIGNED_ATTESTATION_LEN);
        let history = identity.history.to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let mut cache = AttestationCache::new(1);
            let unknown = WallTime::default();
            assert!(
                cache.verify(&history, &forged, None, &STATIC, unknown).is_err(),
                "bit {bit}"
            );
            assert!(cache.is_empty());
        }
    }
}

#[test]
fn an_attestation_is_valid_as_far_as_the_clock_can_tell() {
    let attestation = *TestIdentity::new(KeyAlgorithm::Ed25519)
        .attest(STATIC, 10_000, 3600, 1)
        .attestation();
    let at = |secs: u64, quality| {
        attestation.check_time(WallTime {
            unix_millis: secs * 1000,
            quality,
        })
    };
    use ClockQuality::{Floor, Synchronised, Unknown};
    let early = Err(IdentityError::NotYetValid {
        not_before: 10_000,
        now: 9_699,
    });
    let late = Err(IdentityError::Expired {
        not_after: 13_600,
        now: 13_901,
    });
    for (secs, quality, want) in [
        (9_699, Synchronised, early),
        (9_700, Synchronised, Ok(())),
        (13_900, Synchronised, Ok(())),
        (13_901, Synchronised, late),
        (9_699, Floor, Ok(())),
        (13_901, Floor, late),
        (9_699, Unknown, Ok(())),
        (13_901, Unknown, Ok(())),
    ] {
        assert_eq!(at(secs, quality), want, "{secs} {quality:?}");
    }
}

#[test]
fn a_window_is_neither_empty_nor_longer_than_a_day() {
    let identity = TestIdentity::new(KeyAlgorithm::Ed25519);
    for secs in [0, LIFETIME_SECS_MAX + 1] {
        let draft = AttestationDraft::new(&identity.history, STATIC, 5, secs, 1);
        assert_eq!(
            draft.err(),
            Some(IdentityError::Lifetime {
                secs,
                max: LIFETIME_SECS_MAX
            })
        );
    }
    assert!(AttestationDraft::new(&identity.history, STATIC, 5, LIFETIME_SECS_MAX, 1).is_ok());
}

#[test]
fn an_attestation_by_a_key_of_yesterday_is_refused() {
    let old = TestIdentity::new(KeyAlgorithm::Ed25519);
    let signed = old.attest(STATIC, 1000, 3600, 1);
    let new = old.rotated(KeyAlgorithm::Ed25519);
    let stale = IdentityError::NotCurrentKey { got: 0, current: 1 };
    assert_eq!(signed.verify(&new.history), Err(stale));
    let mut cache = AttestationCache::new(1);
    assert_eq!(verify(&mut cache, &new, &signed, synchronised(1000)), Err(stale));
}

#[test]
fn an_attestation_of_somebody_else_or_for_another_key_is_refused() {
    let (identity, other) = (
        TestIdentity::new(KeyAlgorithm::Ed25519),
        TestIdentity::new(KeyAlgorithm::Ed25519),
    );
    let mut cache = AttestationCache::new(1);
    let wall = synchronised(1000);
    let signed = other.attest(STATIC, 1000, 3600, 1);
    let (mine, theirs) = (identity.history.identifier(), other.history.identifier());
    assert_eq!(
        verify(&mut cache, &identity, &signed, wall),
        Err(IdentityError::Foreign {
            got: theirs,
            want: mine
        })
    );
    let expected = cache.verify(
        &other.history.to_bytes(),
        &signed.encode(),
        Some(mine),
        &STATIC,
        wall,
    );
    assert_eq!(
        expected,
        Err(IdentityError::Foreign {
            got: theirs,
            want: mine
        })
    );
    let signed = identity.attest([8; 32], 1000, 3600, 1);
    assert_eq!(
        verify(&mut cache, &identity, &signed, wall),
        Err(IdentityError::OtherKey)
    );
    assert!(cache.is_empty());
}

#[test]
fn a_known_attestation_costs_no_signature_and_an_older_one_is_refused() {
    let identity = TestIdentity::new(KeyAlgorithm::EcdsaP256);
    let mut cache = AttestationCache::new(4);
    let wall = synchronised(2000);
    let (old, new) = (
        identity.attest(STATIC, 1000, 3600, 8),
        identity.attest(STATIC, 1500, 3600, 9),
    );
    for _ in 0..3 {
        assert_eq!(verify(&mut cache, &identity, &new, wall), Ok(new));
    }
    assert_eq!(
        cache.stats(),
        CacheStats {
            hits: 2,
            misses: 1,
            evictions: 0
        }
    );
    assert_eq!(
        verify(&mut cache, &identity, &old, wall),
        Err(IdentityError::OldAttestation { got: 8, highest: 9 })
    );
    let name = identity.history.identifier();
    assert_eq!(cache.hash_of(name, wall), Some(new.hash()));
    assert_eq!(cache.reuse(name, &STATIC, wall), Ok(new));
    assert_eq!(cache.reuse(name, &[8; 32], wall), Err(IdentityError::OtherKey));
    let late = synchronised(5401);
    assert_eq!(cache.hash_of(name, late), None);
    assert_eq!(
        cache.reuse(name, &STATIC, late),
        Err(IdentityError::Expired {
            not_after: 5100,
            now: 5401
        })
    );
    assert_eq!(
        verify(&mut cache, &identity, &new, late),
        Err(IdentityError::Expired {
            not_after: 5100,
            now: 5401
        })
    );
}

#[test]
fn a_known_attestation_with_another_signature_is_verified_again() {
    let identity = TestIdentity::new(KeyAlgorithm::Ed25519);
    let mut cache = AttestationCache::new(4);
    let signed = identity.attest(STATIC, 1000, 3600, 1);
    assert!(verify(&mut cache, &identity, &signed, synchronised(1000)).is_ok());
    let mut forged = signed.encode();
    forged[SIGNED_ATTESTATION_LEN - 1] ^= 1;
    let refused = cache.verify(
        &identity.history.to_bytes(),
        &forged,
        None,
        &STATIC,
        synchronised(1000),
    );
    assert!(matches!(refused, Err(IdentityError::Signature { .. })));
    assert_eq!(
        cache.hash_of(identity.history.identifier(), synchronised(1000)),
        Some(signed.hash())
    );
}

#[test]
fn a_full_cache_forgets_who_was_away_longest() {
    let identities: Vec<_> = (0..4).map(|_| TestIdentity::new(KeyAlgorithm::Ed25519)).collect();
    let mut cache = AttestationCache::new(3);
    let wall = synchronised(1000);
    let meet = |cache: &mut AttestationCache, index: usize| {
        let identity = &identities[index];
        verify(cache, identity, &identity.attest(STATIC, 1000, 3600, 1), wall).expect("the identity is good");
    };
    for index in [0, 1, 2, 0, 3] {
        meet(&mut cache, index);
        assert!(cache.len() <= 3);
    }
    let known: Vec<_> = identities
        .iter()
        .map(|identity| cache.history(identity.history.identifier()).is_some())
        .collect();
    assert_eq!(known, [true, false, true, true]);
    assert_eq!(cache.stats().evictions, 1);
}

#[test]
fn an_identifier_with_a_typing_error_is_refused() {
    let text = Identifier::from_bytes(sha256(&[b"x"])).to_string();
    assert_eq!(text.len(), 61);
    for at in 0..text.len() {
        for wrong in ["q", "p", "7", "l", "b", "1", "é"] {
            let mut typed = text.clone();
            typed.replace_range(at..=at, wrong);
            assert_eq!(typed.parse::<Identifier>().is_ok(), typed == text, "{typed}");
        }
    }
    assert_eq!(
        text.to_uppercase()
            .parse::<Identifier>()
            .map(|parsed| parsed.to_string()),
        Ok(text.clone())
    );
    assert!(text[..60].parse::<Identifier>().is_err());
    assert!(
        format!("{}{}", &text[..30], text[30..].to_uppercase())
            .parse::<Identifier>()
            .is_err()
    );
}

#[test]
fn other_bech32m_texts_are_no_identifiers() {
    let encode = |prefix, bytes: &[u8]| {
        let prefix = bech32::Hrp::parse(prefix).expect("the prefix is valid");
        bech32::encode::<bech32::Bech32m>(prefix, bytes).expect("the text is short")
    };
    assert_eq!(
        encode("bc", &[1; 32]).parse::<Identifier>(),
        Err(IdentifierError::Prefix)
    );
    assert_eq!(
        encode("fg", &[1; 31]).parse::<Identifier>(),
        Err(IdentifierError::Length { got: 31 })
    );
    assert_eq!(
        encode("fg", &[1; 33]).parse::<Identifier>(),
        Err(IdentifierError::Length { got: 33 })
    );
    let prefix = bech32::Hrp::parse("fg").expect("the prefix is valid");
    let old = bech32::encode::<bech32::Bech32>(prefix, &[1; 32]).expect("the text is short");
    assert_eq!(old.parse::<Identifier>(), Err(IdentifierError::Checksum));
}

proptest! {
    #[test]
    fn identifiers_come_back(bytes: [u8; 32]) {
        let identifier = Identifier::from_bytes(bytes);
        prop_assert_eq!(identifier.to_string().parse(), Ok(identifier));
    }

    #[test]
    fn changes_come_back(sequence: u32, created_at: u64, previous: [u8; 32], key: [u8; 32], p256: bool) {
        let key = if p256 {
            let mut point = [4; 65];
            point[1..33].copy_from_slice(&key);
            PublicKey::EcdsaP256(point)
        } else {
            PublicKey::Ed25519(key)
        };
        let change = Change { sequence, created_at, previous, key };
        prop_assert_eq!(Change::decode(&change.encode()), Ok(change));
    }

    #[test]
    fn any_bytes_are_an_identity_or_refused(bytes: Vec<u8>, text: String) {
        let _ = Change::decode(&bytes);
        let _ = SignedAttestation::decode(&bytes);
        prop_assert!(ChangeHistory::decode(&bytes).is_err());
        let mut cache = AttestationCache::new(1);
        prop_assert!(cache.verify(&bytes, &bytes, None, &STATIC, WallTime::default()).is_err());
        prop_assert!(text.parse::<Identifier>().is_err());
    }
}
