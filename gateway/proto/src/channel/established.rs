//! One channel after its handshake.

mod assured;
mod live;
mod rekeying;

use std::{sync::Arc, time::Duration};

use assured::{Assured, Presentations};
pub(super) use live::Proof;
use live::{LiveProof, PROOF_LEN};
use rekeying::{Generation, Rekey, rekey_time};

use super::{
    ChannelError, ChannelId, ChannelSettings, ChannelStats, CloseReason, FrameError, PRESENTATION_LEN_MAX,
    Padding, PathId, Role, Suite,
    frame::{self, frames, put_frame},
    handshake::Finished,
    record::{Opener, RecordHeader, Sealer, generation_code},
    rekey::{body_1_len, body_2_len},
};
use crate::{
    crypto::{Secret, X25519Secret},
    entropy::Entropy,
    identity::{Attestation, Identifier, PublicKey},
    time::Instant,
};

/// When an initiator that heard nothing sends Ping; 16 s after the last it gives up.
const CONFIRM_AFTER_SECS: [u64; 5] = [1, 2, 4, 8, 16];
/// Records that may fail to verify.
const FORGERIES_MAX: u32 = 1 << 20;

/// A channel that seals and opens records.
///
/// ```text
/// initiator: Idle ──interval or bytes──▶ Offered ──Rekey2──▶ Confirming ──record in new generation──▶ Idle
/// responder: Idle ──Rekey1──▶ Answered ──record in new generation──▶ Idle
/// ```
///
/// Invariant: `previous` is `Some` from the first use of a generation until its predecessor's keys are wiped.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) path: PathId,
    pub(super) peer: Identifier,
    role: Role,
    suite: Suite,
    attestation: Attestation,
    /// The key that signed the attestation.
    peer_key: PublicKey,
    peer_channel: ChannelId,
    peer_static: [u8; 32],
    local_static: Arc<X25519Secret>,
    settings: ChannelSettings,

    generation: u64,
    since: Instant,
    root: Secret,
    binding: [u8; 32],
    sealer: Sealer,
    opener: Opener,
    previous: Option<Box<Previous>>,
    rekey: Rekey,
    /// When this side begins a rekey, or asks for one.
    rekey_at: Instant,
    /// Whether `bytes_max` was noticed in this generation.
    bytes_noticed: bool,

    /// `Some` at an initiator that has not opened a record.
    confirmation: Option<Box<Confirmation>>,
    /// The binding of generation 0, which live proofs are about.
    first_binding: [u8; 32],
    live: LiveProof,
    presentations: Presentations,
    /// At most one frame of a kind.
    assured: Vec<Assured>,
    forged: u32,
    last_received: Instant,
    ping: Option<(u64, Instant)>,
    pings: u64,
}

/// The generation before, as long as it opens records.
#[derive(Debug)]
struct Previous {
    opener: Opener,
    /// `None` until the peer has proven that it left the generation.
    wipe_at: Option<Instant>,
}

#[derive(Debug)]
struct Confirmation {
    message_3: Vec<u8>,
    /// Message 2 that it answers, to recognise a repetition.
    message_2: Vec<u8>,
    pings: u8,
    at: Instant,
}

/// What opening a record or the time of day brought about besides.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Frames to be sealed and sent at once.
    pub(super) reply: Vec<u8>,
    /// The answer to a ping of ours.
    pub(super) round_trip: Option<Duration>,
    /// The peer or the time ended the channel.
    pub(super) close: Option<CloseReason>,
    /// Frames of the channel's own that do not fit its state.
    pub(super) refused: u64,
    /// Frames of an unknown kind below 0x10.
    pub(super) unknown: u64,
    /// A generation was replaced.
    pub(super) rekeyed: bool,
    /// What the peer presents.
    pub(super) presentation: Option<Vec<u8>>,
    /// Presentations that came too early after another.
    pub(super) presentations_dropped: u64,
    /// The proof that the peer was asked for, to be verified.
    pub(super) proof: Option<Proof>,
    /// The peer asks for a proof, for the first time.
    pub(super) proof_wanted: bool,
}

/// Who the peer turned out to be, and where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerAt {
    pub(super) attestation: Attestation,
    /// The key that signed the attestation.
    pub(super) key: PublicKey,
    pub(super) path: PathId,
    pub(super) now: Instant,
}

impl Established {
    /// Takes over from a handshake.
    pub(super) fn new(
        settings: &ChannelSettings,
        role: Role,
        finished: Finished,
        peer: &PeerAt,
        entropy: &mut dyn Entropy,
    ) -> Self {
        let Finished {
            keys,
            suite,
            peer_channel,
            peer_static,
            local_static,
        } = finished;
        let generation = Generation::new(keys, role, suite, peer_channel, 0, settings);
        Self {
            path: peer.path,
            peer: peer.attestation.identifier,
            role,
            suite,
            attestation: peer.attestation,
            peer_key: peer.key,
            peer_channel,
            peer_static,
            local_static,
            settings: *settings,
            generation: 0,
            since: peer.now,
            root: generation.root,
            binding: generation.binding,
            sealer: generation.sealer,
            opener: generation.opener,
            previous: None,
            rekey: Rekey::Idle,
            rekey_at: rekey_time(settings, role, peer.now, entropy),
            bytes_noticed: false,
            confirmation: None,
            first_binding: generation.binding,
            live: LiveProof::default(),
            presentations: Presentations::default(),
            assured: Vec::new(),
            forged: 0,
            last_received: peer.now,
            ping: None,
            pings: 0,
        }
    }

    /// Pads no record from now on.
    pub(super) const fn stop_padding(&mut self) {
        self.settings.padding = Padding::Off;
        self.sealer.set_padding(Padding::Off);
    }

    /// Keeps message 3 until the peer has sent a record.
    pub(super) fn await_confirmation(&mut self, now: Instant, message_2: &[u8], message_3: Vec<u8>) {
        self.confirmation = Some(Box::new(Confirmation {
            message_3,
            message_2: message_2.to_vec(),
            pings: 0,
            at: now + Duration::from_secs(1),
        }));
    }

    /// Returns message 3, if it may be lost and `message_2` is a repetition of the one it answers.
    pub(super) fn repeat_message_3(&self, message_2: &[u8]) -> Option<&[u8]> {
        self.confirmation
            .as_ref()
            .filter(|confirmation| confirmation.message_2 == message_2)
            .map(|confirmation| confirmation.message_3.as_slice())
    }

    pub(super) const fn role(&self) -> Role {
        self.role
    }

    pub(super) const fn suite(&self) -> Suite {
        self.suite
    }

    pub(super) const fn binding(&self) -> &[u8; 32] {
        &self.binding
    }

    pub(super) const fn attestation(&self) -> &Attestation {
        &self.attestation
    }

    pub(super) const fn peer_key(&self) -> &PublicKey {
        &self.peer_key
    }

    pub(super) const fn sealer(&mut self) -> &mut Sealer {
        &mut self.sealer
    }

    pub(super) const fn stats(&self) -> ChannelStats {
        ChannelStats {
            generation: self.generation,
            records_sealed: self.sealer.records(),
            records_opened: self.opener.records(),
            bytes_sealed: self.sealer.bytes(),
            bytes_opened: self.opener.bytes(),
            forged: self.forged,
            last_received: self.last_received,
        }
    }

    /// Returns whether nothing was received for too long.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        now - self.last_received >= self.settings.silence_max
    }

    /// Appends a Ping to `frames` whose Pong is reported.
    pub(super) fn put_ping(&mut self, now: Instant, frames: &mut Vec<u8>) {
        // 0 is for the channel's own pings, whose answer is not reported.
        self.pings += 1;
        self.ping = Some((self.pings, now));
        put_frame(frames, frame::PING, &self.pings.to_be_bytes());
    }

    /// Returns when [`Established::handle_timeout`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let rekey = match &self.rekey {
            Rekey::Idle if self.previous.is_none() || self.role == Role::Responder => Some(self.rekey_at),
            Rekey::Idle | Rekey::Answered(_) => None,
            Rekey::Offered { at, .. } | Rekey::Confirming { at, .. } => Some(*at),
        };
        let wipe = self.previous.as_ref().and_then(|previous| previous.wipe_at);
        let confirm = self.confirmation.as_ref().map(|confirmation| confirmation.at);
        [rekey, wipe, confirm, self.assured_at(), self.proof_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what the time demands.
    pub(super) fn handle_timeout(&mut self, now: Instant, entropy: &mut dyn Entropy) -> Effects {
        let mut effects = Effects::default();
        if self
            .previous
            .as_ref()
            .is_some_and(|previous| previous.wipe_at.is_some_and(|at| at <= now))
        {
            self.previous = None;
        }
        self.confirm(now, &mut effects);
        self.advance_rekey(now, entropy, &mut effects);
        self.expire_proof(now, &mut effects);
        self.put_assured(now, &mut effects.reply);
        effects
    }

    fn confirm(&mut self, now: Instant, effects: &mut Effects) {
        let Some(confirmation) = self
            .confirmation
            .as_mut()
            .filter(|confirmation| confirmation.at <= now)
        else {
            return;
        };
        confirmation.pings += 1;
        match CONFIRM_AFTER_SECS.get(usize::from(confirmation.pings)) {
            Some(secs) => {
                confirmation.at = now + Duration::from_secs(*secs);
                put_frame(&mut effects.reply, frame::PING, &[0; 8]);
            }
            None => effects.close = Some(CloseReason::Unconfirmed),
        }
    }

    /// Opens a record in place. Call [`Established::handle_opened`] if it says so or the plaintext holds
    /// frames of the channel's own.
    pub(super) fn open<'m>(
        &mut self,
        now: Instant,
        header: &RecordHeader,
        record: &'m mut [u8],
    ) -> Result<(&'m [u8], Opened), ChannelError> {
        let got = header.generation;
        let opened = if got == generation_code(self.generation) {
            self.opener
                .open(header, record)
                .map(|plaintext| (plaintext, Opened::Current))
        } else if let Rekey::Answered(answered) = &mut self.rekey
            && got == generation_code(self.generation + 1)
        {
            answered
                .next
                .opener
                .open(header, record)
                .map(|plaintext| (plaintext, Opened::Next))
        } else if let Some(previous) = &mut self.previous
            && got == generation_code(self.generation.wrapping_sub(1))
        {
            // The timer may be late; the keys must not be.
            if previous.wipe_at.is_some_and(|at| at <= now) {
                return Err(ChannelError::Generation { got });
            }
            previous
                .opener
                .open(header, record)
                .map(|plaintext| (plaintext, Opened::Previous))
        } else {
            return Err(ChannelError::Generation { got });
        };
        match opened {
            Ok(opened) => {
                self.last_received = now;
                Ok(opened)
            }
            Err(error) => {
                if matches!(error, ChannelError::Crypto(_)) {
                    self.forged = self.forged.saturating_add(1);
                }
                Err(error)
            }
        }
    }

    /// Returns whether so many records did not verify that the channel must end.
    pub(super) const fn is_under_attack(&self) -> bool {
        self.forged >= FORGERIES_MAX
    }

    /// Returns whether a record opened in a generation changes the state of the channel.
    pub(super) const fn is_news(&self, opened: Opened) -> bool {
        match opened {
            Opened::Next => true,
            Opened::Current => matches!(self.rekey, Rekey::Confirming { .. }) || self.confirmation.is_some(),
            Opened::Previous => false,
        }
    }

    /// Follows up on an opened record: first what its generation proves, then its frames of the channel's
    /// own.
    ///
    /// # Errors
    /// [`FrameError`]: the plaintext is not what a peer that keeps to the protocol sends; nothing in it may be
    /// used.
    pub(super) fn handle_opened(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        opened: Opened,
        plaintext: &[u8],
    ) -> Result<Effects, FrameError> {
        let mut effects = Effects::default();
        if self.is_news(opened) {
            effects.rekeyed = self.prove_generation(now, entropy, opened);
            self.confirmation = None;
        }
        for item in frames(plaintext) {
            let (kind, body) = item?;
            check_len(self.suite, kind, body.len())?;
        }
        let mut pong = None;
        let mut repeat_answer = false;
        for (kind, body) in frames(plaintext).flatten() {
            match kind {
                frame::PING => pong = body.first_chunk::<8>().copied(),
                frame::PONG => self.handle_pong(now, body, &mut effects),
                frame::CLOSE => {
                    let code = super::CloseCode(body.first().copied().unwrap_or_default());
                    effects.close = Some(CloseReason::Peer(code));
                }
                frame::REKEY1 => match self.handle_rekey_1(now, entropy, body) {
                    Ok(()) => repeat_answer = true,
                    Err(_) => effects.refused += 1,
                },
                frame::REKEY2 => match self.handle_rekey_2(now, entropy, body) {
                    Ok(()) => {
                        // Any record in the new generation lets the responder follow.
                        put_frame(&mut effects.reply, frame::PING, &[0; 8]);
                    }
                    Err(_) => effects.refused += 1,
                },
                frame::REKEY_PLEASE => self.handle_rekey_please(now),
                frame::CREDENTIAL if self.take_presentation(now) => {
                    effects.presentation = Some(body.to_vec());
                }
                frame::CREDENTIAL => effects.presentations_dropped += 1,
                frame::PROOF_PLEASE => self.handle_proof_please(&mut effects),
                frame::PROOF => self.handle_proof(now, body, &mut effects),
                frame::FIRST_APPLICATION_KIND.. => {}
                _ => effects.unknown += 1,
            }
        }
        if let Some(number) = pong {
            put_frame(&mut effects.reply, frame::PONG, &number);
        }
        if repeat_answer && let Rekey::Answered(answered) = &self.rekey {
            put_frame(&mut effects.reply, frame::REKEY2, &answered.body_2);
        }
        Ok(effects)
    }

    fn handle_pong(&mut self, now: Instant, body: &[u8], effects: &mut Effects) {
        self.acknowledge(body);
        if let Some((number, sent)) = self.ping
            && body == number.to_be_bytes()
        {
            self.ping = None;
            effects.round_trip = Some(now - sent);
        }
    }

    /// Returns whether keys of an earlier generation are still in memory.
    #[cfg(test)]
    pub(super) const fn has_previous(&self) -> bool {
        self.previous.is_some()
    }
}

/// In which generation a record was opened, seen from the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    Previous,
    Current,
    Next,
}

/// Checks the length of a frame of the channel's own.
fn check_len(suite: Suite, kind: u8, len: usize) -> Result<(), FrameError> {
    let want = match kind {
        frame::PING | frame::PONG => 8,
        frame::CLOSE => 1,
        frame::REKEY1 => body_1_len(suite),
        frame::REKEY2 => body_2_len(suite),
        frame::REKEY_PLEASE | frame::PROOF_PLEASE => 0,
        frame::CREDENTIAL => len.min(PRESENTATION_LEN_MAX),
        frame::PROOF => PROOF_LEN,
        _ => return Ok(()),
    };
    if len == want {
        Ok(())
    } else {
        Err(FrameError::Length { kind, len })
    }
}
