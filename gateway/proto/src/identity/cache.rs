//! What is known about peers, so that a reconnection verifies no signature.

use std::collections::BTreeMap;

use super::{ChangeHistory, Identifier, IdentityError, Purpose, SignedAttestation};
use crate::time::WallTime;

/// The last verified history and attestation of each peer, for the peers used most recently.
///
/// An attestation seen before costs a comparison instead of a signature verification (about 49 µs on P-256).
/// An identity in the cache cannot be rolled back: neither its history nor the sequence of its attestations.
///
/// Invariant: `ages` holds exactly one entry per peer, under the peer's `age`.
#[derive(Debug)]
pub struct AttestationCache {
    capacity: usize,
    peers: BTreeMap<Identifier, Known>,
    ages: BTreeMap<u64, Identifier>,
    clock: u64,
    stats: CacheStats,
}

#[derive(Debug)]
struct Known {
    history: ChangeHistory,
    attestation: SignedAttestation,
    hash: [u8; 32],
    age: u64,
}

/// What the cache did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Peers whose attestation was known: no signature verified.
    pub hits: u64,
    /// Peers whose attestation was verified.
    pub misses: u64,
    /// Peers forgotten to make room; with them the highest sequence seen.
    pub evictions: u64,
}

impl AttestationCache {
    /// Makes an empty cache for at most `capacity` peers (at least 1).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            peers: BTreeMap::new(),
            ages: BTreeMap::new(),
            clock: 0,
            stats: CacheStats::default(),
        }
    }

    /// Verifies that the owner of the identity in `history` (encoded) vouches in `attestation` (encoded) for
    /// `static_key` at `wall`, and remembers it. An error leaves the cache as it was.
    ///
    /// # Errors
    /// [`IdentityError`]; [`IdentityError::Foreign`] if `expected` is somebody else.
    pub fn verify(
        &mut self,
        history: &[u8],
        attestation: &[u8],
        expected: Option<Identifier>,
        static_key: &[u8; 32],
        wall: WallTime,
    ) -> Result<SignedAttestation, IdentityError> {
        let identifier = ChangeHistory::peek_identifier(history)?;
        if let Some(want) = expected
            && want != identifier
        {
            return Err(IdentityError::Foreign {
                got: identifier,
                want,
            });
        }
        let signed = SignedAttestation::decode(attestation)?;
        // All comparisons come before all signatures: they cost nothing.
        check_use(&signed, static_key, wall)?;
        let known = self.peers.get(&identifier);
        if let Some(known) = known {
            let (got, highest) = (
                signed.attestation().sequence,
                known.attestation.attestation().sequence,
            );
            if got < highest {
                return Err(IdentityError::OldAttestation { got, highest });
            }
        }
        let verified = match known {
            Some(known) => ChangeHistory::decode_onto(&known.history, history)?,
            None => ChangeHistory::decode(history)?,
        };
        let hash = signed.hash();
        if known.is_some_and(|known| known.hash == hash && known.history == verified) {
            self.stats.hits += 1;
        } else {
            signed.verify(&verified)?;
            self.stats.misses += 1;
        }
        self.remember(identifier, verified, signed, hash);
        Ok(signed)
    }

    /// Checks the attestation remembered for `identifier` for another use.
    ///
    /// # Errors
    /// [`IdentityError::OtherKey`], also if none is remembered, or what the time does not allow.
    pub fn reuse(
        &mut self,
        identifier: Identifier,
        static_key: &[u8; 32],
        wall: WallTime,
    ) -> Result<SignedAttestation, IdentityError> {
        let signed = self
            .peers
            .get(&identifier)
            .ok_or(IdentityError::OtherKey)?
            .attestation;
        check_use(&signed, static_key, wall)?;
        self.stats.hits += 1;
        self.touch(identifier);
        Ok(signed)
    }

    /// Returns the hash of the attestation remembered for `identifier`, if its window is open at `wall`.
    #[must_use]
    pub fn hash_of(&self, identifier: Identifier, wall: WallTime) -> Option<[u8; 32]> {
        let known = self.peers.get(&identifier)?;
        known.attestation.attestation().check_time(wall).ok()?;
        Some(known.hash)
    }

    /// Returns the verified history of `identifier`.
    #[must_use]
    pub fn history(&self, identifier: Identifier) -> Option<&ChangeHistory> {
        self.peers.get(&identifier).map(|known| &known.history)
    }

    /// Returns how many peers are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Returns whether no peer is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Returns what the cache did so far.
    #[must_use]
    pub const fn stats(&self) -> CacheStats {
        self.stats
    }

    fn remember(
        &mut self,
        identifier: Identifier,
        history: ChangeHistory,
        attestation: SignedAttestation,
        hash: [u8; 32],
    ) {
        if !self.peers.contains_key(&identifier)
            && self.peers.len() >= self.capacity
            && let Some((_, oldest)) = self.ages.pop_first()
        {
            self.peers.remove(&oldest);
            self.stats.evictions += 1;
        }
        let age = self.next_age();
        if let Some(before) = self.peers.insert(
            identifier,
            Known {
                history,
                attestation,
                hash,
                age,
            },
        ) {
            self.ages.remove(&before.age);
        }
        self.ages.insert(age, identifier);
    }

    fn touch(&mut self, identifier: Identifier) {
        let age = self.next_age();
        if let Some(known) = self.peers.get_mut(&identifier) {
            self.ages.remove(&known.age);
            known.age = age;
            self.ages.insert(age, identifier);
        }
    }

    const fn next_age(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

/// Checks what changes from use to use: which key, and when.
fn check_use(signed: &SignedAttestation, static_key: &[u8; 32], wall: WallTime) -> Result<(), IdentityError> {
    signed.attestation().check_purpose(Purpose::Channel)?;
    if &signed.attestation().public_key != static_key {
        return Err(IdentityError::OtherKey);
    }
    signed.attestation().check_time(wall)
}
