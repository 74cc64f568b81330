//! Handshakes this node begins.

use std::sync::Arc;

use super::{Channels, after};
use crate::{
    channel::{
        ChannelError, ChannelId, CloseReason, PathId, PqPolicy, Role,
        established::{Established, PeerAt},
        handshake::{Authenticated, Initiator, Intent},
        message::{Payload, presentation_len, receiver},
        suite,
        table::{Connecting, State},
    },
    entropy::Entropy,
    identity::{Attestation, Identifier, PublicKey},
    time::{Instant, Now, WallTime},
};

/// Milliseconds from sending message 1 to repeating it, and from the last repetition to giving up. The first are short, because
/// after a restart the peer's name is registered a moment later, and until then the relay drops the message.
const MESSAGE_1_AFTER_MILLIS: [u64; 7] = [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000];

impl Channels {
    /// Begins a channel to `peer` along `path`. It can seal records once [`Output::Established`](crate::channel::Output::Established)
    /// says so.
    ///
    /// # Errors
    /// [`ChannelError::Full`] if there are too many channels.
    pub fn connect(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        peer: Identifier,
        path: PathId,
        pq: PqPolicy,
    ) -> Result<ChannelId, ChannelError> {
        let channel = self.table.reserve(entropy)?;
        let cached = self.peers.hash_of(peer, now.wall).map_or([0; 16], half);
        let intent = Intent {
            peer,
            local: Arc::clone(&self.local),
            channel,
            suites: suite::offer(pq, self.settings.order),
            cached,
        };
        let handshake = Box::new(Initiator::start(intent, entropy));
        self.transmit(Some(channel), path, handshake.message_1().to_vec());
        let deadline = now.instant + after(&MESSAGE_1_AFTER_MILLIS, 0).unwrap_or_default();
        let connecting = Connecting {
            handshake,
            path,
            sent: 1,
            deadline,
            refusal: None,
        };
        self.table.put(channel, State::Connecting(Box::new(connecting)));
        self.stats.connecting += 1;
        Ok(channel)
    }

    pub(super) fn handle_cookie(&mut self, message: &[u8]) -> Result<(), ChannelError> {
        let channel = receiver(message)?;
        let mut state = self.table.take(channel);
        let result = match &mut state {
            State::Connecting(connecting) => connecting
                .handshake
                .handle_cookie(message)
                .map(|()| (connecting.path, connecting.handshake.message_1().to_vec())),
            State::Free | State::HalfOpen(_) | State::Open(_) => Err(ChannelError::Channel(channel)),
        };
        self.table.put(channel, state);
        let (path, message_1) = result?;
        self.transmit(Some(channel), path, message_1);
        Ok(())
    }

    pub(super) fn handle_message_2(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        path: PathId,
        message: &[u8],
    ) -> Result<(), ChannelError> {
        let channel = receiver(message)?;
        let connecting = match self.table.take(channel) {
            State::Connecting(connecting) => connecting,
            State::Open(open) => {
                let repeated = open.repeat_message_3(message).map(<[u8]>::to_vec);
                self.table.put(channel, State::Open(open));
                let message_3 = repeated.ok_or(ChannelError::Channel(channel))?;
                self.transmit(Some(channel), path, message_3);
                return Ok(());
            }
            other @ (State::Free | State::HalfOpen(_)) => {
                self.table.put(channel, other);
                return Err(ChannelError::Channel(channel));
            }
        };
        let Connecting {
            handshake,
            path: connecting_path,
            sent,
            deadline,
            refusal: _,
        } = *connecting;
        let finished = handshake.handle_message_2(message).and_then(|authenticated| {
            match self.verify_payload(now.wall, &authenticated) {
                Ok(attestation) => authenticated
                    .write_message_3(self.presenting.current.as_deref().unwrap_or_default())
                    .map(|(message_3, finished)| (attestation, message_3, finished)),
                Err(error) => Err((authenticated.refuse(), error)),
            }
        });
        match finished {
            Ok((attestation, message_3, finished)) => {
                self.transmit(Some(channel), path, message_3.clone());
                let peer = PeerAt {
                    attestation,
                    key: self.current_key(attestation.identifier),
                    path,
                    now: now.instant,
                };
                let mut open = Established::new(&self.settings, Role::Initiator, finished, &peer, entropy);
                open.await_confirmation(now.instant, message, message_3);
                if self.presenting.current.is_some() {
                    open.note_presented(now.instant, self.presenting.version);
                }
                self.stats.connecting -= 1;
                self.establish(now.instant, channel, open, Vec::new());
                Ok(())
            }
            Err((handshake, error)) => {
                let refusal = Some(error);
                let connecting = Connecting {
                    handshake,
                    path: connecting_path,
                    sent,
                    deadline,
                    refusal,
                };
                self.table.put(channel, State::Connecting(Box::new(connecting)));
                Err(error)
            }
        }
    }

    /// Verifies who made message 2.
    fn verify_payload(
        &mut self,
        wall: WallTime,
        authenticated: &Authenticated,
    ) -> Result<Attestation, ChannelError> {
        let peer = authenticated.peer();
        let signed = match Payload::decode(authenticated.payload())? {
            // So that no message 2 is longer than its message 1.
            Payload::Full { presentation, .. } if !presentation.is_empty() => {
                return Err(presentation_len(presentation).into());
            }
            Payload::Full {
                history, attestation, ..
            } => self.peers.verify(
                history,
                attestation,
                Some(peer),
                authenticated.peer_static(),
                wall,
            ),
            Payload::Cached => self.peers.reuse(peer, authenticated.peer_static(), wall),
        }?;
        Ok(*signed.attestation())
    }

    /// Returns the key that vouched for the attestation of `peer` just verified.
    pub(super) fn current_key(&self, peer: Identifier) -> PublicKey {
        let history = self.peers.history(peer);
        *history
            .expect("whoever was just verified is the last to be forgotten")
            .current_key()
    }

    pub(super) fn retry_connecting(
        &mut self,
        now: Instant,
        channel: ChannelId,
        mut connecting: Box<Connecting>,
    ) {
        let Some(next) = after(&MESSAGE_1_AFTER_MILLIS, connecting.sent) else {
            let refusal = connecting.refusal;
            self.table.put(channel, State::Connecting(connecting));
            self.end(channel, CloseReason::NoAnswer { refusal }, None);
            return;
        };
        connecting.sent += 1;
        connecting.deadline = now + next;
        self.transmit(
            Some(channel),
            connecting.path,
            connecting.handshake.message_1().to_vec(),
        );
        self.table.put(channel, State::Connecting(connecting));
    }
}

fn half(hash: [u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    half
}
