//! What waits for decisions.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    channel::ChannelId,
    node::{AccessPolicy, Service},
    time::Instant,
};

/// A channel that waits for a decision.
#[derive(Debug)]
pub(super) struct Pending {
    attempt: u64,
    pub(super) service: Service,
    /// What the peer said meanwhile.
    pub(super) frames: Vec<(u8, Vec<u8>)>,
}

/// What waits for decisions.
#[derive(Debug, Default)]
pub(in crate::node) struct Accesses {
    pub(in crate::node) policy: AccessPolicy,
    pub(super) by_channel: BTreeMap<ChannelId, Pending>,
    pub(super) by_attempt: BTreeMap<u64, ChannelId>,
    last_attempt: u64,
    frame_bytes: usize,
    /// Channels in use that are to be decided again when there is room.
    pub(super) later: BTreeSet<ChannelId>,
    /// Guests, and when they have to go.
    pub(super) guests: BTreeMap<ChannelId, Instant>,
}

impl Accesses {
    pub(in crate::node) fn new(policy: AccessPolicy) -> Self {
        Self {
            policy,
            ..Self::default()
        }
    }

    /// Returns whether a channel is served as a guest.
    pub(in crate::node) fn is_guest(&self, channel: ChannelId) -> bool {
        self.guests.contains_key(&channel)
    }

    /// Returns whether there is something to look at once a second.
    pub(in crate::node) fn has_work(&self) -> bool {
        !self.guests.is_empty() || !self.later.is_empty()
    }

    /// Returns the guests whose time is over.
    pub(in crate::node) fn overstayed(&self, now: Instant) -> Vec<ChannelId> {
        let over = self.guests.iter().filter(|(_, until)| now >= **until);
        over.map(|(channel, _)| *channel).collect()
    }

    /// Returns how many channels wait, how many are to be decided again later, and the bytes of all frames kept.
    #[cfg(test)]
    pub(in crate::node) fn waiting(&self) -> (usize, usize, usize) {
        (self.by_channel.len(), self.later.len(), self.frame_bytes)
    }

    pub(super) fn begin(&mut self, channel: ChannelId, service: Service) -> Option<u64> {
        if self.by_channel.len() >= PENDING_MAX && !self.by_channel.contains_key(&channel) {
            return None;
        }
        self.last_attempt += 1;
        let attempt = self.last_attempt;
        let frames = self
            .forget(channel)
            .map_or_else(Vec::new, |pending| pending.frames);
        self.frame_bytes += frames.iter().map(|(_, body)| body.len()).sum::<usize>();
        self.by_attempt.insert(attempt, channel);
        self.by_channel.insert(
            channel,
            Pending {
                attempt,
                service,
                frames,
            },
        );
        Some(attempt)
    }

    /// Forgets what waits for a channel.
    pub(super) fn forget(&mut self, channel: ChannelId) -> Option<Pending> {
        let pending = self.by_channel.remove(&channel)?;
        self.by_attempt.remove(&pending.attempt);
        self.frame_bytes -= pending.frames.iter().map(|(_, body)| body.len()).sum::<usize>();
        Some(pending)
    }

    /// Keeps what the peer of a channel said; `None` if its channel does not wait, false if there is no room: then it is lost like
    /// a frame on a bad path, and its sender repeats it.
    pub(super) fn keep(&mut self, channel: ChannelId, kind: u8, body: &[u8]) -> Option<bool> {
        let room = FRAME_BYTES_MAX.saturating_sub(self.frame_bytes);
        let pending = self.by_channel.get_mut(&channel)?;
        let has_room = pending.frames.len() < FRAMES_PER_CHANNEL_MAX && body.len() <= room;
        if has_room {
            self.frame_bytes += body.len();
            pending.frames.push((kind, body.to_vec()));
        }
        Some(has_room)
    }
}

/// Channels that may wait for a decision.
pub(super) const PENDING_MAX: usize = 1_024;
/// Frames of one channel kept until the decision.
const FRAMES_PER_CHANNEL_MAX: usize = 16;
/// Bytes of all frames kept.
const FRAME_BYTES_MAX: usize = 4 << 20;
