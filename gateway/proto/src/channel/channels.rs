//! All channels of a node.

mod accept;
mod dial;
mod present;
mod prove;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use present::Presenting;

use super::{
    ChannelError, ChannelId, ChannelSettings, ChannelStats, ChannelsStats, CloseCode, CloseReason,
    LocalIdentity, Output, PathId, RecordHeader, RecordStart,
    cookie::CookieJar,
    established::{Effects, Established},
    frame::{self, FIRST_APPLICATION_KIND, FrameError, frames, put_frame},
    message::{COOKIE, MESSAGE_1, MESSAGE_2, MESSAGE_3, mac1_key},
    record::is_record,
    table::{State, Table},
};
use crate::{
    crypto::MacKey,
    entropy::Entropy,
    identity::{AttestationCache, CacheStats, Identifier, IdentityError},
    time::{Instant, Now},
    wire::Reader,
};

/// How often silence and expired attestations are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The channels of a node, sans I/O.
///
/// 1. Bytes go in by [`handle_message`](Self::handle_message), time by
///    [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) says so.
/// 2. After each `handle_*`, [`connect`](Self::connect), [`close`](Self::close), [`ping`](Self::ping),
///    [`present`](Self::present) and [`demand_proof`](Self::demand_proof) the caller drains
///    [`poll_output`](Self::poll_output), before it looks at the frames of a record: what the peer presents or
///    proves comes before what it says.
/// 3. Records are sealed straight into the caller's buffer: [`begin`](Self::begin), append frames,
///    [`finish`](Self::finish). Neither allocates.
///
/// ```text
/// connect ─▶ Connecting ──message 2──▶ Open ─┐
///                │ 31 s                      ├─ close, Close frame, silence, expiry, rekey unanswered ─▶ Closed
///                └────────▶ Closed           │
/// message 1 ─▶ HalfOpen ──message 3──▶ Open ─┘
///                └ 10 s: forgotten
/// ```
#[derive(Debug)]
pub struct Channels {
    settings: ChannelSettings,
    local: Arc<LocalIdentity>,
    mac1_key: MacKey,
    peers: AttestationCache,
    table: Table,
    half_open: BTreeMap<[u8; 32], ChannelId>,
    half_open_by_path: BTreeMap<PathId, usize>,
    cookies: CookieJar,
    outputs: VecDeque<Output>,
    presenting: Presenting,
    /// Channels whose peer waits for a signature of this node's identity key, and the change of the key that
    /// was asked. The channel may be gone meanwhile.
    signing: BTreeMap<ChannelId, u32>,
    sweep_at: Option<Instant>,
    stats: ChannelsStats,
}

/// What a message turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'m> {
    /// Part of a handshake; dealt with.
    Handshake,
    /// A record. Frames of a kind below [`FIRST_APPLICATION_KIND`] are dealt with; the caller iterates over
    /// [`frames`] and takes the others. All are well-formed.
    Record {
        /// The channel it came in.
        channel: ChannelId,
        /// What was in it, where the ciphertext was.
        plaintext: &'m [u8],
    },
}

impl Channels {
    /// Makes a node without channels.
    #[must_use]
    pub fn new(settings: ChannelSettings, local: LocalIdentity) -> Self {
        Self {
            mac1_key: mac1_key(local.identifier),
            peers: AttestationCache::new(settings.peers_remembered_max),
            table: Table::new(settings.channels_max),
            settings,
            local: Arc::new(local),
            half_open: BTreeMap::new(),
            half_open_by_path: BTreeMap::new(),
            cookies: CookieJar::default(),
            outputs: VecDeque::new(),
            presenting: Presenting::default(),
            signing: BTreeMap::new(),
            sweep_at: None,
            stats: ChannelsStats::default(),
        }
    }

    /// Replaces attestation, static key or identity for handshakes that begin from now on. Handshakes and
    /// channels under way keep what they began with.
    pub fn set_local(&mut self, local: LocalIdentity) {
        self.mac1_key = mac1_key(local.identifier);
        self.local = Arc::new(local);
    }

    /// Returns who this node is.
    #[must_use]
    pub fn local(&self) -> &LocalIdentity {
        &self.local
    }

    /// Takes a message that came along `path`. `return_path` is the encoded route back, which a cookie is
    /// bound to. A record is opened where it is.
    ///
    /// # Errors
    /// [`ChannelError`]: the message is dropped and counted. Answer the sender nothing.
    pub fn handle_message<'m>(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        path: PathId,
        return_path: &[u8],
        message: &'m mut [u8],
    ) -> Result<Received<'m>, ChannelError> {
        let kind = Reader::new(message).u8("message kind")?;
        if is_record(kind) {
            return self.handle_record(now, entropy, message);
        }
        let handled = match kind {
            MESSAGE_1 => self.handle_message_1(now, entropy, path, return_path, message),
            MESSAGE_2 => self.handle_message_2(now, entropy, path, message),
            MESSAGE_3 => self.handle_message_3(now, entropy, path, message),
            COOKIE => self.handle_cookie(message),
            _ => Err(ChannelError::Kind { got: kind }),
        };
        if let Err(error) = handled {
            let counter = match error {
                ChannelError::Mac1 => &mut self.stats.wrong_mac1,
                ChannelError::Full { .. } => &mut self.stats.full,
                ChannelError::Identity(_) => &mut self.stats.identities_refused,
                ChannelError::Wire(_)
                | ChannelError::Kind { .. }
                | ChannelError::Version { .. }
                | ChannelError::TooLong { .. }
                | ChannelError::Suite
                | ChannelError::Channel(_)
                | ChannelError::Crypto(_)
                | ChannelError::Replayed { .. }
                | ChannelError::TooOld { .. }
                | ChannelError::TooFar { .. }
                | ChannelError::Generation { .. }
                | ChannelError::Frame(_)
                | ChannelError::Rekey { .. } => &mut self.stats.handshakes_refused,
            };
            *counter += 1;
        }
        handled.map(|()| Received::Handshake)
    }

    fn establish(&mut self, now: Instant, channel: ChannelId, open: Established, presentation: Vec<u8>) {
        self.outputs.push_back(Output::Established {
            channel,
            peer: open.peer,
            path: open.path,
            role: open.role(),
            binding: *open.binding(),
            suite: open.suite(),
            not_after: open.attestation().not_after,
            key_sequence: open.attestation().key_sequence,
            presentation,
        });
        self.table.put(channel, State::Open(Box::new(open)));
        self.stats.established += 1;
        self.stats.open += 1;
        self.sweep_at.get_or_insert(now + SWEEP_EVERY);
    }

    fn handle_record<'m>(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        message: &'m mut [u8],
    ) -> Result<Received<'m>, ChannelError> {
        let header = RecordHeader::decode(message).inspect_err(|_| self.stats.records_malformed += 1)?;
        let channel = header.channel;
        let open = self
            .table
            .open_mut(channel)
            .inspect_err(|_| self.stats.records_unknown += 1)?;
        let (plaintext, opened) = match open.open(now.instant, &header, message) {
            Ok(opened) => opened,
            Err(error) => {
                let under_attack = open.is_under_attack();
                *self.counter_of(&error) += 1;
                if under_attack {
                    self.end(channel, CloseReason::Forgeries, Some(CloseCode::BROKEN));
                }
                return Err(error);
            }
        };
        self.stats.records_opened += 1;
        let bytes_due = open.notice_bytes(now.instant);
        let own_frames = has_own_frames(plaintext);
        if bytes_due || open.is_news(opened) || own_frames != Ok(false) {
            let handled = open.handle_opened(now.instant, entropy, opened, plaintext);
            // What the record's generation proves holds even if its frames are malformed.
            self.table.rearm(channel);
            match handled {
                Ok(effects) => self.apply(channel, effects),
                Err(error) => {
                    self.stats.records_malformed += 1;
                    return Err(error.into());
                }
            }
        }
        Ok(Received::Record { channel, plaintext })
    }

    /// Returns what counts records refused for `error`.
    const fn counter_of(&mut self, error: &ChannelError) -> &mut u64 {
        match error {
            ChannelError::Replayed { .. } | ChannelError::TooOld { .. } => &mut self.stats.records_replayed,
            ChannelError::Crypto(_) | ChannelError::TooFar { .. } => &mut self.stats.records_forged,
            ChannelError::Channel(_) | ChannelError::Generation { .. } => &mut self.stats.records_unknown,
            ChannelError::Wire(_)
            | ChannelError::Kind { .. }
            | ChannelError::Version { .. }
            | ChannelError::TooLong { .. }
            | ChannelError::Mac1
            | ChannelError::Suite
            | ChannelError::Identity(_)
            | ChannelError::Frame(_)
            | ChannelError::Rekey { .. }
            | ChannelError::Full { .. } => &mut self.stats.records_malformed,
        }
    }

    /// Reserves room for a record of `channel` at the end of `out`; append frames, then call
    /// [`Channels::finish`].
    ///
    /// # Errors
    /// [`ChannelError::Channel`] if the channel is not established.
    pub fn begin(&mut self, channel: ChannelId, out: &mut Vec<u8>) -> Result<RecordStart, ChannelError> {
        Ok(self.table.open_mut(channel)?.sealer().begin(out))
    }

    /// Seals the record begun at `start`, in place.
    ///
    /// # Errors
    /// [`ChannelError::Channel`] if the channel closed meanwhile, [`ChannelError::TooLong`] if more than
    /// [`PLAINTEXT_LEN_MAX`](super::PLAINTEXT_LEN_MAX) bytes were appended. Then nothing is sealed: cut `out`
    /// at [`RecordStart::offset`], taken before.
    pub fn finish(
        &mut self,
        now: Instant,
        channel: ChannelId,
        out: &mut Vec<u8>,
        start: RecordStart,
    ) -> Result<(), ChannelError> {
        let open = self.table.open_mut(channel)?;
        open.sealer().finish(out, start)?;
        if open.notice_bytes(now) {
            self.table.rearm(channel);
        }
        Ok(())
    }

    /// Pads no record of a channel from now on: what it carries is sealed already, and padded where that is wanted. Call it before
    /// the first record.
    ///
    /// # Errors
    /// [`ChannelError::Channel`] if the channel is not established.
    pub fn stop_padding(&mut self, channel: ChannelId) -> Result<(), ChannelError> {
        self.table.open_mut(channel)?.stop_padding();
        Ok(())
    }

    /// Asks the peer for a sign of life, answered by [`Output::Pong`]. A second ping replaces one that is
    /// unanswered.
    ///
    /// # Errors
    /// [`ChannelError::Channel`] if the channel is not established.
    pub fn ping(&mut self, now: Now, channel: ChannelId) -> Result<(), ChannelError> {
        let mut frames = Vec::new();
        self.table.open_mut(channel)?.put_ping(now.instant, &mut frames);
        self.send(channel, &frames);
        Ok(())
    }

    /// Sends what `channel` sends on its own account along `path` from now on.
    ///
    /// # Errors
    /// [`ChannelError::Channel`] if there is no such channel.
    pub fn set_path(&mut self, channel: ChannelId, path: PathId) -> Result<(), ChannelError> {
        let mut state = self.table.take(channel);
        let result = match &mut state {
            State::Connecting(connecting) => {
                connecting.path = path;
                Ok(())
            }
            State::Open(open) => {
                open.path = path;
                Ok(())
            }
            State::Free | State::HalfOpen(_) => Err(ChannelError::Channel(channel)),
        };
        self.table.put(channel, state);
        result
    }

    /// Ends `channel`, and tells the peer if there is one. Unknown channels are ignored.
    pub fn close(&mut self, channel: ChannelId, code: CloseCode) {
        self.end(channel, CloseReason::Local(code), Some(code));
    }

    /// Returns when [`Channels::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.table.deadline(), self.presenting.deadline(), self.sweep_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what the time demands: repetitions, rekeys, wiping of old keys, presenting, giving up.
    pub fn handle_timeout(&mut self, now: Now, entropy: &mut dyn Entropy) {
        while let Some(channel) = self.table.pop_due(now.instant) {
            match self.table.take(channel) {
                State::Free => {}
                State::Connecting(connecting) => self.retry_connecting(now.instant, channel, connecting),
                State::HalfOpen(half_open) => self.retry_half_open(now.instant, channel, half_open),
                State::Open(mut open) => {
                    let effects = open.handle_timeout(now.instant, entropy);
                    self.table.put(channel, State::Open(open));
                    self.apply(channel, effects);
                }
            }
        }
        self.advance_presenting(now.instant);
        if self.sweep_at.is_some_and(|at| at <= now.instant) {
            self.sweep(now);
        }
    }

    /// Closes channels whose peer is silent or may not be trusted any more.
    fn sweep(&mut self, now: Now) {
        let ended: Vec<_> = self
            .table
            .iter_open()
            .filter_map(|(channel, open)| {
                let expired = open.attestation().check_time(now.wall);
                if matches!(expired, Err(IdentityError::Expired { .. })) {
                    Some((channel, CloseReason::Expired))
                } else if open.is_silent(now.instant) {
                    Some((channel, CloseReason::Silent))
                } else {
                    None
                }
            })
            .collect();
        for (channel, reason) in ended {
            self.end(channel, reason, Some(CloseCode::BROKEN));
        }
        self.sweep_at = (self.stats.open > 0).then(|| now.instant + SWEEP_EVERY);
    }

    /// Returns the next effect.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns who is at the other end of an established channel.
    #[must_use]
    pub fn peer(&self, channel: ChannelId) -> Option<Identifier> {
        self.table.open(channel).ok().map(|open| open.peer)
    }

    /// Returns the path of an established channel.
    #[must_use]
    pub fn path(&self, channel: ChannelId) -> Option<PathId> {
        self.table.open(channel).ok().map(|open| open.path)
    }

    /// Returns what all channels did.
    #[must_use]
    pub const fn stats(&self) -> ChannelsStats {
        self.stats
    }

    /// Returns what one established channel did.
    #[must_use]
    pub fn channel_stats(&self, channel: ChannelId) -> Option<ChannelStats> {
        self.table.open(channel).ok().map(Established::stats)
    }

    /// Returns how well the attestations of peers were remembered.
    #[must_use]
    pub const fn peer_stats(&self) -> CacheStats {
        self.peers.stats()
    }

    fn transmit(&mut self, channel: Option<ChannelId>, path: PathId, bytes: Vec<u8>) {
        self.outputs.push_back(Output::Transmit { channel, path, bytes });
    }

    /// Seals `frames` and sends them at once.
    fn send(&mut self, channel: ChannelId, frames: &[u8]) {
        let Ok(open) = self.table.open_mut(channel) else {
            return;
        };
        let mut bytes = Vec::with_capacity(frames.len() + super::RECORD_OVERHEAD_MAX);
        let path = open.path;
        let start = open.sealer().begin(&mut bytes);
        bytes.extend_from_slice(frames);
        open.sealer()
            .finish(&mut bytes, start)
            .expect("a channel's own frames are a few kilobytes");
        self.transmit(Some(channel), path, bytes);
    }

    fn apply(&mut self, channel: ChannelId, effects: Effects) {
        self.stats.records_malformed += effects.refused;
        self.stats.frames_unknown += effects.unknown;
        self.stats.rekeys += u64::from(effects.rekeyed);
        self.stats.presentations_dropped += effects.presentations_dropped;
        match effects.close {
            None => {}
            Some(CloseReason::Unproven) => return self.end_unproven(channel),
            Some(reason) => {
                let tell = match reason {
                    CloseReason::Peer(_) => None,
                    CloseReason::Local(code) => Some(code),
                    CloseReason::NoAnswer { .. }
                    | CloseReason::Unconfirmed
                    | CloseReason::RekeyUnanswered
                    | CloseReason::Silent
                    | CloseReason::Expired
                    | CloseReason::Forgeries
                    | CloseReason::Unproven
                    | CloseReason::Unsigned => Some(CloseCode::BROKEN),
                };
                return self.end(channel, reason, tell);
            }
        }
        if !effects.reply.is_empty() {
            self.send(channel, &effects.reply);
        }
        if let Some(round_trip) = effects.round_trip {
            self.outputs.push_back(Output::Pong { channel, round_trip });
        }
        if let Some(presentation) = effects.presentation {
            self.stats.presentations += 1;
            self.outputs.push_back(Output::Presented {
                channel,
                presentation,
            });
        }
        if let Some(proof) = effects.proof {
            self.check_proof(channel, proof);
        }
        if effects.proof_wanted {
            self.ask_for_signature(channel);
        }
    }

    /// Removes a channel that its owner knows of, and says so.
    fn end(&mut self, channel: ChannelId, reason: CloseReason, tell: Option<CloseCode>) {
        match self.table.state(channel) {
            State::Free | State::HalfOpen(_) => return,
            State::Connecting(_) => self.stats.connecting -= 1,
            State::Open(_) => {
                if let Some(code) = tell {
                    let mut close = Vec::new();
                    put_frame(&mut close, frame::CLOSE, &[code.0]);
                    self.send(channel, &close);
                }
                self.stats.open -= 1;
            }
        }
        self.table.remove(channel);
        self.stats.closed += 1;
        self.outputs.push_back(Output::Closed { channel, reason });
    }
}

/// Returns whether `plaintext` holds frames of the channel's own; an error if it is not made of frames.
fn has_own_frames(plaintext: &[u8]) -> Result<bool, FrameError> {
    let mut own = false;
    for item in frames(plaintext) {
        let (kind, _) = item?;
        own |= kind < FIRST_APPLICATION_KIND;
    }
    Ok(own)
}

/// Returns the time to wait after something was sent `sent` times more than once.
fn after(millis: &[u64], sent: u8) -> Option<Duration> {
    millis.get(usize::from(sent)).copied().map(Duration::from_millis)
}

#[cfg(test)]
mod tests;
