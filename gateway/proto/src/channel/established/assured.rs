//! Frames of the channel's own that must arrive.
//!
//! Relays drop what they have no room for. A frame kept here is sent with a Ping and again until the Pong says
//! that the record with both was opened; a receiver takes the same frame twice for once.

use std::{sync::Arc, time::Duration};

use super::Established;
use crate::{
    channel::frame::{self, put_frame},
    time::Instant,
};

/// Seconds from sending a frame to repeating it; after the last it is given up.
const REPEAT_AFTER_SECS: [u64; 6] = [1, 2, 4, 8, 16, 32];
/// Set in the numbers of Pings that go with such frames, so that their Pongs are no others'.
const NUMBER_BIT: u64 = 1 << 63;
/// Least time between two presentations in one channel: twice what the receiver demands, because the network
/// may bring them closer together.
const PRESENT_EVERY: Duration = Duration::from_secs(2);
/// Least time between two presentations that are taken in one channel (PROTOCOL.md §5.2).
const TAKE_EVERY: Duration = Duration::from_secs(1);

/// A frame that waits for its acknowledgement.
#[derive(Debug)]
pub(super) struct Assured {
    kind: u8,
    body: Arc<[u8]>,
    /// Of the Ping that went with it last; 0 before the first time.
    number: u64,
    /// When it is sent, or sent again.
    at: Instant,
    sent: usize,
}

/// What was presented in a channel, both ways.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Presentations {
    /// Which of this node's presentations the peer has, or is being sent.
    version: u64,
    sent_at: Option<Instant>,
    taken_at: Option<Instant>,
}

impl Established {
    /// Notes that message 3 carried this node's presentation.
    pub(in crate::channel) const fn note_presented(&mut self, now: Instant, version: u64) {
        self.presentations.version = version;
        self.presentations.sent_at = Some(now);
    }

    /// Notes that the peer's message 3 carried a presentation.
    pub(in crate::channel) const fn note_presentation_taken(&mut self, now: Instant) {
        self.presentations.taken_at = Some(now);
    }

    /// Returns whether the peer was not sent the presentation of this version.
    pub(in crate::channel) const fn lacks_presentation(&self, version: u64) -> bool {
        self.presentations.version != version
    }

    /// Presents `body` as soon as the one before is old enough. Call [`Established::put_assured`] then.
    pub(in crate::channel) fn present(&mut self, now: Instant, version: u64, body: Arc<[u8]>) {
        let at = self
            .presentations
            .sent_at
            .map_or(now, |sent| now.max(sent + PRESENT_EVERY));
        self.presentations.version = version;
        self.assure(frame::CREDENTIAL, body, at);
    }

    /// Returns whether a presentation of the peer is taken at `now`, and notes it.
    pub(super) fn take_presentation(&mut self, now: Instant) -> bool {
        let taken = self
            .presentations
            .taken_at
            .is_none_or(|before| now - before >= TAKE_EVERY);
        if taken {
            self.presentations.taken_at = Some(now);
        }
        taken
    }

    /// Sends a frame from `at` on until it is acknowledged, instead of one of the same kind.
    pub(super) fn assure(&mut self, kind: u8, body: Arc<[u8]>, at: Instant) {
        self.give_up(kind);
        self.assured.push(Assured {
            kind,
            body,
            number: 0,
            at,
            sent: 0,
        });
    }

    /// Sends the frame of this kind no more.
    pub(super) fn give_up(&mut self, kind: u8) {
        self.assured.retain(|assured| assured.kind != kind);
    }

    /// Appends the frames that are due, and one Ping behind them: of several in a record only the last is
    /// answered, so nothing with a Ping that matters may follow.
    pub(in crate::channel) fn put_assured(&mut self, now: Instant, out: &mut Vec<u8>) {
        if self.assured.iter().all(|assured| assured.at > now) {
            return;
        }
        self.assured
            .retain(|assured| assured.at > now || assured.sent <= REPEAT_AFTER_SECS.len());
        self.pings += 1;
        let number = NUMBER_BIT | self.pings;
        let mut any = false;
        for assured in self.assured.iter_mut().filter(|assured| assured.at <= now) {
            put_frame(out, assured.kind, &assured.body);
            if assured.kind == frame::CREDENTIAL {
                self.presentations.sent_at = Some(now);
            }
            let secs = REPEAT_AFTER_SECS.get(assured.sent).or(REPEAT_AFTER_SECS.last());
            assured.at = now + Duration::from_secs(secs.copied().unwrap_or_default());
            assured.sent += 1;
            assured.number = number;
            any = true;
        }
        if any {
            put_frame(out, frame::PING, &number.to_be_bytes());
        }
    }

    /// Takes the body of a Pong: what its Ping went with has arrived.
    pub(super) fn acknowledge(&mut self, pong: &[u8]) {
        self.assured
            .retain(|assured| assured.sent == 0 || pong != assured.number.to_be_bytes());
    }

    /// Returns when [`Established::put_assured`] has something to do.
    pub(super) fn assured_at(&self) -> Option<Instant> {
        self.assured.iter().map(|assured| assured.at).min()
    }
}
