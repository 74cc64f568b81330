//! One stream: how much it may send, and how far it has come.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::{fmt, time::Duration};

use crate::time::Instant;

/// Which stream of a session; the inlet's node counts them from 1 and uses no number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

impl StreamId {
    /// Makes the identifier of a number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// Asked for, and not connected yet.
    Opening,
    /// Bytes flow.
    Open,
}

/// One side of a stream.
///
/// Invariants: `sent ≤ credit`; `received − consumed ≤ window`; `window` only grows.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) state: StreamState,
    /// Bytes given to the other side.
    pub(super) sent: u64,
    /// Bytes the other side has room for, in all.
    pub(super) credit: u64,
    /// Bytes that came.
    pub(super) received: u64,
    /// Bytes of those that went out on this side.
    pub(super) consumed: u64,
    /// What the other side was told that it may send, in all.
    pub(super) promised: u64,
    /// Bytes that may be on their way to this side and in its memory.
    pub(super) window: u64,
    /// When what came was looked at last, and how much that was.
    measured: Option<(Instant, u64)>,
    /// This side has finished.
    pub(super) has_finished: bool,
    /// The other side has finished.
    pub(super) is_finished: bool,
    /// What the caller, who has more to say, waits for.
    pub(super) waits: Waits,
}

/// What a stream that has more to say waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// Nothing: the caller may write.
    No,
    /// Credit of the other side.
    Credit,
    /// Its turn.
    Turn,
}

impl Stream {
    pub(super) const fn new(state: StreamState, window: u64) -> Self {
        Self {
            state,
            sent: 0,
            credit: 0,
            received: 0,
            consumed: 0,
            promised: 0,
            window,
            measured: None,
            has_finished: false,
            is_finished: false,
            waits: Waits::No,
        }
    }

    /// Returns how many bytes the other side has room for.
    pub(super) const fn room(&self) -> u64 {
        self.credit.saturating_sub(self.sent)
    }

    /// Takes the news of `bytes` bytes from the other side; false if that is more than it was told.
    pub(super) const fn handle_data(&mut self, bytes: u64) -> bool {
        let received = self.received.saturating_add(bytes);
        if received > self.promised || self.is_finished {
            return false;
        }
        self.received = received;
        true
    }

    /// Returns whether the window may be what keeps the other side from sending more: as much as half of it comes in a round trip, and
    /// no more than that waits to go out on this side (dynamic right-sizing, Fisk and Feng 2001).
    pub(super) fn is_held_up(&mut self, now: Instant, round_trip: Duration) -> bool {
        let round_trip = round_trip.max(ROUND_TRIP_MIN);
        let (since, before) = *self.measured.get_or_insert((now, self.received));
        let elapsed = now.saturating_since(since);
        if elapsed < round_trip {
            return false;
        }
        self.measured = Some((now, self.received));
        let came = u128::from(self.received.saturating_sub(before));
        let in_round_trips = came.saturating_mul(round_trip.as_nanos()).saturating_mul(2);
        let waits = self.received.saturating_sub(self.consumed);
        in_round_trips >= u128::from(self.window).saturating_mul(elapsed.as_nanos())
            && waits.saturating_mul(2) <= self.window
    }

    /// Takes the news that `bytes` bytes went out on this side. Returns what the other side is to be told that it may send, once
    /// that is worth a word: half a window.
    pub(super) fn handle_consumed(&mut self, bytes: u64) -> Option<u64> {
        let window = self.window;
        self.consumed = self.consumed.saturating_add(bytes).min(self.received);
        let limit = self.consumed.saturating_add(window);
        let news = limit.saturating_sub(self.promised);
        let is_worth_it = news.saturating_mul(2) >= window && !self.is_finished;
        is_worth_it.then(|| {
            self.promised = limit;
            limit
        })
    }

    /// Returns whether both sides have finished, and all went out.
    pub(super) const fn is_over(&self) -> bool {
        self.has_finished && self.is_finished && self.consumed == self.received
    }
}

/// What a round trip counts at the least: on one machine or in one room it is the scheduler that a window bridges.
const ROUND_TRIP_MIN: Duration = Duration::from_micros(500);
