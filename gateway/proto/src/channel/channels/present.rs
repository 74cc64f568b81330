//! What this node presents to its peers.

use std::{sync::Arc, time::Duration};

use super::Channels;
use crate::{
    channel::{ChannelError, ChannelId, PRESENTATION_LEN_MAX},
    time::{Instant, Now},
};

/// Places in the table that are looked at in one step, so that ten thousand channels do not hold up a turn.
const PLACES_PER_STEP: usize = 256;
/// Time between two steps.
const STEP_EVERY: Duration = Duration::from_millis(10);

/// What this node presents, and how far its channels have it.
#[derive(Debug, Default)]
pub(super) struct Presenting {
    pub(super) current: Option<Arc<[u8]>>,
    /// Counts the presentations, so that each goes into a channel once.
    pub(super) version: u64,
    /// The next place in the table and when it is looked at, while all channels are gone through.
    walk: Option<(usize, Instant)>,
}

impl Presenting {
    /// Returns when the next channels are gone through.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.walk.map(|(_, at)| at)
    }
}

impl Channels {
    /// Sets what this node presents: as initiator in message 3 of the handshakes that finish from now on, as
    /// responder in the first record. Channels that are open learn it by [`Channels::present`] or
    /// [`Channels::present_everywhere`].
    ///
    /// # Errors
    /// [`ChannelError::TooLong`] if it has more than [`PRESENTATION_LEN_MAX`] bytes; then the one before stays.
    pub fn set_presentation(&mut self, presentation: Option<Arc<[u8]>>) -> Result<(), ChannelError> {
        let len = presentation.as_ref().map_or(0, |presentation| presentation.len());
        if len > PRESENTATION_LEN_MAX {
            return Err(ChannelError::TooLong {
                len,
                max: PRESENTATION_LEN_MAX,
            });
        }
        // An empty one is none on the wire.
        self.presenting.current = presentation.filter(|presentation| !presentation.is_empty());
        self.presenting.version += 1;
        Ok(())
    }

    /// Presents in `channel` what [`Channels::set_presentation`] set, if anything: at once, or two seconds after
    /// the presentation before. It is repeated until the peer has it.
    ///
    /// # Errors
    /// [`ChannelError::Channel`] if the channel is not established.
    pub fn present(&mut self, now: Now, channel: ChannelId) -> Result<(), ChannelError> {
        let open = self.table.open_mut(channel)?;
        if let Some(presentation) = &self.presenting.current {
            open.present(now.instant, self.presenting.version, Arc::clone(presentation));
            self.send_assured(now.instant, channel);
        }
        Ok(())
    }

    /// Presents what [`Channels::set_presentation`] set in every channel whose peer does not have it yet.
    /// [`Channels::handle_timeout`] does it, a few channels at a time: 65,536 take three seconds.
    pub fn present_everywhere(&mut self, now: Now) {
        self.presenting.walk = self.presenting.current.as_ref().map(|_| (0, now.instant));
    }

    /// Goes through a few more channels, if it is time.
    pub(super) fn advance_presenting(&mut self, now: Instant) {
        let Some((place, _)) = self.presenting.walk.filter(|(_, at)| *at <= now) else {
            return;
        };
        self.presenting.walk = None;
        let Some(presentation) = self.presenting.current.clone() else {
            return;
        };
        let version = self.presenting.version;
        let end = place + PLACES_PER_STEP;
        for channel in self.table.open_at(place..end) {
            if let Ok(open) = self.table.open_mut(channel)
                && open.lacks_presentation(version)
            {
                open.present(now, version, Arc::clone(&presentation));
                self.send_assured(now, channel);
            }
        }
        if end < self.table.places() {
            self.presenting.walk = Some((end, now + STEP_EVERY));
        }
    }

    /// Sends the frames of `channel` that are repeated until acknowledged and due.
    pub(super) fn send_assured(&mut self, now: Instant, channel: ChannelId) {
        let mut frames = Vec::new();
        if let Ok(open) = self.table.open_mut(channel) {
            open.put_assured(now, &mut frames);
        }
        if !frames.is_empty() {
            self.send(channel, &frames);
        }
        self.table.rearm(channel);
    }
}
