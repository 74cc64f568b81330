//! What the owner of the channels decides.

use std::{borrow::Cow, sync::Arc, time::Duration};

use super::{PqPolicy, SuiteOrder};
use crate::{
    crypto::X25519Secret,
    identity::{ChangeHistory, Identifier, IdentityError, PublicKey, SignedAttestation},
};

/// How a node's channels behave. The default is what PROTOCOL.md says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelSettings {
    /// Suites taken as responder; an initiator decides per connection.
    pub pq: PqPolicy,
    /// AEAD offered first as initiator.
    pub order: SuiteOrder,
    /// Whether records are padded.
    pub padding: Padding,
    /// When keys are replaced.
    pub rekey: RekeySettings,
    /// Longest time without a record from the peer before a channel closes.
    pub silence_max: Duration,
    /// Channels, handshakes included, at most 65,536.
    pub channels_max: usize,
    /// Half-open handshakes as responder, at most 1,024.
    pub half_open_max: usize,
    /// Half-open handshakes as responder from which on initiators must prove their path with a cookie.
    pub cookie_from: usize,
    /// Half-open handshakes as responder on one path, so that one path cannot fill the table.
    pub half_open_per_path_max: usize,
    /// Peers whose verified attestation is remembered.
    pub peers_remembered_max: usize,
}

impl Default for ChannelSettings {
    fn default() -> Self {
        Self {
            pq: PqPolicy::default(),
            order: SuiteOrder::for_this_cpu(),
            padding: Padding::Off,
            rekey: RekeySettings::default(),
            silence_max: Duration::from_secs(7200),
            channels_max: CHANNELS_MAX,
            half_open_max: HALF_OPEN_MAX,
            cookie_from: 256,
            half_open_per_path_max: 128,
            peers_remembered_max: 4096,
        }
    }
}

/// Channels in one node (PROTOCOL.md §14).
pub const CHANNELS_MAX: usize = 65_536;
/// Half-open handshakes in one node (PROTOCOL.md §14).
pub const HALF_OPEN_MAX: usize = 1024;

/// Bytes of a presentation, in message 3 and in a Credential frame (PROTOCOL.md §14).
pub const PRESENTATION_LEN_MAX: usize = 4096;
/// Live proofs of this node that wait for its identity key (PROTOCOL.md §14).
pub const PROOFS_WAITING_MAX: usize = 64;

/// Whether the length of a record hides the length of what is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// Records are as long as their content.
    #[default]
    Off,
    /// Plaintexts are filled to 64, 256, 1,024, 4,096, 16,384 or 65,536 bytes.
    Buckets,
}

/// When the keys of a channel are replaced (PROTOCOL.md §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RekeySettings {
    /// Age of a generation at which the initiator replaces it, ± 20 %.
    pub interval: Duration,
    /// Bytes of plaintext in both directions at which the initiator replaces a generation.
    pub bytes_max: u64,
    /// Least age of a generation before the peer's wish or `bytes_max` replaces it.
    pub interval_min: Duration,
}

impl Default for RekeySettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(3600),
            bytes_max: 1 << 36,
            interval_min: Duration::from_secs(1),
        }
    }
}

/// What a node proves itself with: identity, current attestation, and the key it is about.
#[derive(Debug)]
pub struct LocalIdentity {
    pub(super) identifier: Identifier,
    /// The change whose key signs, and that key.
    pub(super) key_sequence: u32,
    pub(super) key: PublicKey,
    pub(super) static_secret: Arc<X25519Secret>,
    /// The payload of form 1 (PROTOCOL.md §4.4), with an empty presentation at its end.
    pub(super) payload: Vec<u8>,
    /// First half of the hash of the attestation.
    pub(super) attestation_hash: [u8; 16],
}

impl LocalIdentity {
    /// Puts the parts together.
    ///
    /// # Errors
    /// [`IdentityError`] if they do not belong together: the attestation is not signed by the current key of
    /// `history` or is about another key than `static_secret`.
    pub fn new(
        history: &ChangeHistory,
        attestation: &SignedAttestation,
        static_secret: X25519Secret,
    ) -> Result<Self, IdentityError> {
        attestation.verify(history)?;
        if &attestation.attestation().public_key != static_secret.public() {
            return Err(IdentityError::OtherKey);
        }
        let mut payload = vec![super::message::FORM_FULL];
        history.encode(&mut payload);
        crate::wire::put_bytes16(&mut payload, &attestation.encode());
        crate::wire::put_bytes16(&mut payload, &[]);
        let mut attestation_hash = [0; 16];
        attestation_hash
            .iter_mut()
            .zip(attestation.hash())
            .for_each(|(to, from)| *to = from);
        Ok(Self {
            identifier: history.identifier(),
            key_sequence: history.current().sequence,
            key: *history.current_key(),
            static_secret: Arc::new(static_secret),
            payload,
            attestation_hash,
        })
    }

    /// Returns the payload of message 3 with `presentation`.
    pub(super) fn payload_3(&self, presentation: &[u8]) -> Cow<'_, [u8]> {
        match self.payload.strip_suffix(&[0, 0]) {
            Some(before) if !presentation.is_empty() => {
                let mut payload = Vec::with_capacity(self.payload.len() + presentation.len());
                payload.extend_from_slice(before);
                crate::wire::put_bytes16(&mut payload, presentation);
                Cow::Owned(payload)
            }
            _ => Cow::Borrowed(&self.payload),
        }
    }

    /// Returns whose identity it is.
    #[must_use]
    pub const fn identifier(&self) -> Identifier {
        self.identifier
    }
}
