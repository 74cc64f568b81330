//! Handshakes other nodes begin.

use std::{sync::Arc, time::Duration};

use super::{Channels, after};
use crate::{
    channel::{
        ChannelError, ChannelId, HALF_OPEN_MAX, PathId, Role,
        established::{Established, PeerAt},
        handshake::{self, Responder},
        message::{Message1, Payload, encode_cookie, receiver},
        suite,
        table::{HalfOpen, State},
    },
    crypto::sha256,
    entropy::Entropy,
    time::{Instant, Now},
    wire::WireError,
};

/// Milliseconds from sending message 2 to repeating it.
const MESSAGE_2_AFTER_MILLIS: [u64; 3] = [1_000, 2_000, 4_000];
/// How long a responder keeps a handshake.
const HALF_OPEN_TIME: Duration = Duration::from_secs(10);

impl Channels {
    pub(super) fn handle_message_1(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        path: PathId,
        return_path: &[u8],
        bytes: &[u8],
    ) -> Result<(), ChannelError> {
        let message = Message1::decode(bytes, &self.mac1_key)?;
        let digest = sha256(&[bytes]);
        if let Some(known) = self.half_open.get(&digest)
            && let State::HalfOpen(half_open) = self.table.state(*known)
        {
            let (known, answer) = (*known, half_open.handshake.message_2().to_vec());
            self.transmit(Some(known), path, answer);
            return Ok(());
        }
        let suite = suite::choose(self.settings.pq, message.suites()).ok_or(ChannelError::Suite)?;
        let larger = handshake::message_2_len(&self.local, suite, &message) > bytes.len();
        if larger || self.half_open.len() >= self.settings.cookie_from {
            let proven = message.cookie.is_some_and(|cookie| {
                self.cookies
                    .verify(now.instant, entropy, return_path, message.e, &cookie)
            });
            if !proven {
                let cookie = self.cookies.cookie(now.instant, entropy, return_path, message.e);
                self.stats.cookies_sent += 1;
                self.transmit(None, path, encode_cookie(message.sender, &message.mac1, &cookie));
                return Ok(());
            }
        }
        let max = self.settings.half_open_max.min(HALF_OPEN_MAX);
        if self.half_open.len() >= max {
            return Err(ChannelError::Full {
                table: "half-open handshakes",
                max,
            });
        }
        let max = self.settings.half_open_per_path_max;
        if self
            .half_open_by_path
            .get(&path)
            .is_some_and(|count| *count >= max)
        {
            return Err(ChannelError::Full {
                table: "half-open handshakes of one path",
                max,
            });
        }
        let channel = self.table.reserve(entropy)?;
        let handshake = match Responder::respond(Arc::clone(&self.local), channel, suite, &message, entropy) {
            Ok(handshake) => Box::new(handshake),
            Err(error) => {
                self.table.remove(channel);
                return Err(error);
            }
        };
        self.transmit(Some(channel), path, handshake.message_2().to_vec());
        self.half_open.insert(digest, channel);
        *self.half_open_by_path.entry(path).or_default() += 1;
        self.stats.half_open += 1;
        let half_open = HalfOpen {
            handshake,
            path,
            digest,
            sent: 1,
            deadline: now.instant + after(&MESSAGE_2_AFTER_MILLIS, 0).unwrap_or_default(),
            expires: now.instant + HALF_OPEN_TIME,
        };
        self.table.put(channel, State::HalfOpen(Box::new(half_open)));
        Ok(())
    }

    pub(super) fn handle_message_3(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        path: PathId,
        message: &[u8],
    ) -> Result<(), ChannelError> {
        let channel = receiver(message)?;
        let half_open = match self.table.take(channel) {
            State::HalfOpen(half_open) => half_open,
            other @ (State::Free | State::Connecting(_) | State::Open(_)) => {
                self.table.put(channel, other);
                return Err(ChannelError::Channel(channel));
            }
        };
        let HalfOpen {
            handshake,
            path: half_open_path,
            digest,
            sent,
            deadline,
            expires,
        } = *half_open;
        let (finished, payload) = match handshake.handle_message_3(message) {
            Ok(done) => done,
            Err((handshake, error)) => {
                let path = half_open_path;
                let half_open = HalfOpen {
                    handshake,
                    path,
                    digest,
                    sent,
                    deadline,
                    expires,
                };
                self.table.put(channel, State::HalfOpen(Box::new(half_open)));
                return Err(error);
            }
        };
        self.forget_half_open(half_open_path, &digest);
        // Only now, behind the AEAD of message 3: nobody but a peer that proved a key costs a verification.
        let verified = match Payload::decode(&payload) {
            Ok(Payload::Full {
                history,
                attestation,
                presentation,
            }) => self
                .peers
                .verify(history, attestation, None, &finished.peer_static, now.wall)
                .map(|signed| (signed, presentation.to_vec()))
                .map_err(Into::into),
            Ok(Payload::Cached) => Err(WireError::Value {
                field: "form of payload",
                value: 2,
            }
            .into()),
            Err(error) => Err(ChannelError::from(error)),
        };
        let (signed, presentation) = match verified {
            Ok(verified) => verified,
            Err(error) => {
                self.table.remove(channel);
                return Err(error);
            }
        };
        let peer = PeerAt {
            attestation: *signed.attestation(),
            key: self.current_key(signed.attestation().identifier),
            path,
            now: now.instant,
        };
        let mut open = Established::new(&self.settings, Role::Responder, finished, &peer, entropy);
        if !presentation.is_empty() {
            open.note_presentation_taken(now.instant);
        }
        let mut first = Vec::new();
        if let Some(own) = &self.presenting.current {
            open.present(now.instant, self.presenting.version, Arc::clone(own));
            open.put_assured(now.instant, &mut first);
        }
        self.establish(now.instant, channel, open, presentation);
        // The first record tells the initiator that message 3 arrived.
        self.send(channel, &first);
        Ok(())
    }

    pub(super) fn retry_half_open(&mut self, now: Instant, channel: ChannelId, mut half_open: Box<HalfOpen>) {
        if half_open.expires <= now {
            self.forget_half_open(half_open.path, &half_open.digest);
            self.table.remove(channel);
            self.stats.abandoned += 1;
            return;
        }
        let next =
            after(&MESSAGE_2_AFTER_MILLIS, half_open.sent).map_or(half_open.expires, |next| now + next);
        half_open.sent += 1;
        half_open.deadline = next.min(half_open.expires);
        self.transmit(
            Some(channel),
            half_open.path,
            half_open.handshake.message_2().to_vec(),
        );
        self.table.put(channel, State::HalfOpen(half_open));
    }

    fn forget_half_open(&mut self, path: PathId, digest: &[u8; 32]) {
        self.half_open.remove(digest);
        self.stats.half_open -= 1;
        if let Some(count) = self.half_open_by_path.get_mut(&path) {
            *count -= 1;
            if *count == 0 {
                self.half_open_by_path.remove(&path);
            }
        }
    }
}
