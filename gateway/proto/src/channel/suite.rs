//! What the two sides agree on before they agree on a key.

use crate::crypto::{Aead, cpu_prefers_aes};

/// A combination of key agreement and AEAD (PROTOCOL.md §4). Hash and key derivation are SHA-256 in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suite {
    /// X25519 and ML-KEM-768, AES-256-GCM.
    HybridAes256Gcm,
    /// X25519 and ML-KEM-768, ChaCha20-Poly1305.
    HybridChaCha20Poly1305,
    /// X25519, AES-256-GCM.
    ClassicalAes256Gcm,
    /// X25519, ChaCha20-Poly1305.
    ClassicalChaCha20Poly1305,
}

impl Suite {
    /// Returns the number on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::HybridAes256Gcm => 0x0101,
            Self::HybridChaCha20Poly1305 => 0x0102,
            Self::ClassicalAes256Gcm => 0x0001,
            Self::ClassicalChaCha20Poly1305 => 0x0002,
        }
    }

    /// Returns the suite with this number.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        match code {
            0x0101 => Some(Self::HybridAes256Gcm),
            0x0102 => Some(Self::HybridChaCha20Poly1305),
            0x0001 => Some(Self::ClassicalAes256Gcm),
            0x0002 => Some(Self::ClassicalChaCha20Poly1305),
            _ => None,
        }
    }

    /// Returns the AEAD.
    #[must_use]
    pub const fn aead(self) -> Aead {
        match self {
            Self::HybridAes256Gcm | Self::ClassicalAes256Gcm => Aead::Aes256Gcm,
            Self::HybridChaCha20Poly1305 | Self::ClassicalChaCha20Poly1305 => Aead::ChaCha20Poly1305,
        }
    }

    /// Returns whether ML-KEM-768 takes part.
    #[must_use]
    pub const fn is_hybrid(self) -> bool {
        matches!(self, Self::HybridAes256Gcm | Self::HybridChaCha20Poly1305)
    }
}

/// Whether a channel must resist someone who records it now and has a quantum computer later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PqPolicy {
    /// Hybrid suites only.
    #[default]
    Required,
    /// Hybrid suites; classical ones only with a peer that offers no other.
    Preferred,
    /// Classical suites only, for links where 2.4 KB more per handshake hurt.
    Off,
}

/// Which AEAD stands first in an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SuiteOrder {
    /// AES-256-GCM first.
    AesFirst,
    /// ChaCha20-Poly1305 first.
    ChaChaFirst,
}

impl SuiteOrder {
    /// Returns the order that suits this processor.
    #[must_use]
    pub fn for_this_cpu() -> Self {
        if cpu_prefers_aes() {
            Self::AesFirst
        } else {
            Self::ChaChaFirst
        }
    }
}

/// Returns the suites an initiator offers, best first.
pub(super) fn offer(policy: PqPolicy, order: SuiteOrder) -> Vec<Suite> {
    let sorted = |mut pair: [Suite; 2]| {
        if order == SuiteOrder::ChaChaFirst {
            pair.reverse();
        }
        pair
    };
    let hybrid = sorted([Suite::HybridAes256Gcm, Suite::HybridChaCha20Poly1305]);
    let classical = sorted([Suite::ClassicalAes256Gcm, Suite::ClassicalChaCha20Poly1305]);
    match policy {
        PqPolicy::Required => hybrid.to_vec(),
        PqPolicy::Preferred => [hybrid, classical].concat(),
        PqPolicy::Off => classical.to_vec(),
    }
}

/// Returns the first suite of the initiator's that a responder with `policy` takes.
pub(super) fn choose(policy: PqPolicy, mut offered: impl Iterator<Item = Suite> + Clone) -> Option<Suite> {
    let hybrid_offered = offered.clone().any(Suite::is_hybrid);
    offered.find(|suite| match policy {
        PqPolicy::Required => suite.is_hybrid(),
        PqPolicy::Preferred => suite.is_hybrid() || !hybrid_offered,
        PqPolicy::Off => !suite.is_hybrid(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back() {
        let known = (0..=u16::MAX)
            .filter_map(Suite::from_code)
            .map(Suite::code)
            .collect::<Vec<_>>();
        assert_eq!(known, [0x0001, 0x0002, 0x0101, 0x0102]);
    }

    #[test]
    fn a_responder_takes_the_initiators_first_that_its_policy_allows() {
        use PqPolicy::{Off, Preferred, Required};
        let cases = [
            (Required, Required, Some(Suite::HybridChaCha20Poly1305)),
            (Required, Preferred, Some(Suite::HybridChaCha20Poly1305)),
            (Required, Off, None),
            (Preferred, Required, Some(Suite::HybridChaCha20Poly1305)),
            (Preferred, Preferred, Some(Suite::HybridChaCha20Poly1305)),
            (Preferred, Off, Some(Suite::ClassicalChaCha20Poly1305)),
            (Off, Required, None),
            (Off, Preferred, Some(Suite::ClassicalChaCha20Poly1305)),
            (Off, Off, Some(Suite::ClassicalChaCha20Poly1305)),
        ];
        for (responder, initiator, want) in cases {
            let offered = offer(initiator, SuiteOrder::ChaChaFirst);
            assert_eq!(
                choose(responder, offered.into_iter()),
                want,
                "{responder:?} answers {initiator:?}"
            );
        }
    }

    #[test]
    fn a_preferring_responder_is_not_led_to_a_classical_suite_by_its_place_in_the_list() {
        let offered = [Suite::ClassicalAes256Gcm, Suite::HybridAes256Gcm];
        assert_eq!(
            choose(PqPolicy::Preferred, offered.into_iter()),
            Some(Suite::HybridAes256Gcm)
        );
    }
}
