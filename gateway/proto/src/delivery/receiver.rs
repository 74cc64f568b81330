//! The collector's side of delivery.

use std::time::Duration;

use super::frame::{
    Ack, BATCH, Batch, DeliveryError, JournalId, LOST, Lost, LostReason, OFFER, Offer, Resume,
};
use super::sealed::SEALED_BATCH;
use crate::{link::Class, time::Instant};

/// Takes the readings of one lane in order, each once, and the gaps between them.
///
/// ```text
///  Waiting ──Offer──▶ Open ──Batch, Lost (next expected)──▶ handed on and taken: received moves
///     ▲                │  └──Batch, Lost (older)──────────▶ duplicate: dropped, acknowledged
///     └──handle_down───┘  └──Batch, Lost (newer)──────────▶ gap in transit: dropped, acknowledged
/// ```
///
/// A gap is handed on in its place, and confirmed like readings: what is committed is safe, or known to be lost where it matters.
///
/// Invariant: `committed ≤ received`. It outlives channels: what was received and not yet confirmed is not asked for again.
#[derive(Debug)]
pub struct Receiver {
    settings: ReceiverSettings,
    lane: Class,
    journal: JournalId,
    received: u64,
    committed: u64,
    /// Whether the channel is up and the journal was offered in it.
    open: bool,
    /// Whether the sinks take more at the moment.
    accepting: bool,
    resume_waits: bool,
    ack_waits: bool,
    ack_deadline: Option<Instant>,
    /// Of the latest Offer.
    term: u32,
    stats: ReceiverStats,
}

/// Bounds of a [`Receiver`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiverSettings {
    /// Readings a gateway may send beyond what was received, 1 to [`IN_FLIGHT_MAX`](super::IN_FLIGHT_MAX).
    pub window: u64,
    /// Whether a journal that is not known means that this collector was set back, if the gateway says that it has confirmed some
    /// of it. A collector whose sinks remember nothing begins with what there is instead.
    pub remembers: bool,
}

impl Default for ReceiverSettings {
    fn default() -> Self {
        Self {
            window: super::IN_FLIGHT_MAX / 2,
            remembers: true,
        }
    }
}

/// What an Offer says about custody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It goes on where it stopped, or begins.
    Continues,
    /// This collector has confirmed more than it knows of: it was set back to an older state. What the gateway still has comes
    /// again, the rest as a gap.
    Forgotten {
        /// What it has confirmed.
        confirmed: u64,
        /// What it knows of.
        received: u64,
    },
    /// The journal has not reached what was received of it: the gateway's disk was set back. It will be told and not send.
    SetBack,
}

/// What comes in its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// Readings.
    Readings(Batch<'a>),
    /// Readings that cannot be had any more, in their place.
    Gap(Lost),
}

/// Readings that were lost, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostCounts {
    /// [`LostReason::Corrupt`].
    pub corrupt: u64,
    /// [`LostReason::Discarded`].
    pub discarded: u64,
    /// [`LostReason::Expired`].
    pub expired: u64,
    /// [`LostReason::Released`].
    pub released: u64,
}

impl LostCounts {
    const fn add(&mut self, lost: &Lost) {
        let place = match lost.reason {
            LostReason::Corrupt => &mut self.corrupt,
            LostReason::Discarded => &mut self.discarded,
            LostReason::Expired => &mut self.expired,
            LostReason::Released => &mut self.released,
        };
        *place += lost.count();
    }

    /// Returns all of them together.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.corrupt + self.discarded + self.expired + self.released
    }
}

/// What a [`Receiver`] has seen since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverStats {
    /// Readings accepted.
    pub accepted: u64,
    /// Copies dropped.
    pub duplicates: u64,
    /// Readings dropped because one before them was missing.
    pub out_of_order: u64,
    /// Readings dropped because the sinks were behind.
    pub refused: u64,
    /// Readings that the gateway could not deliver any more.
    pub lost: LostCounts,
    /// Gaps that they came in.
    pub gaps: u64,
}

impl Receiver {
    /// Makes a receiver for a lane's journal of which everything up to `committed` is known to be safe (0: nothing).
    #[must_use]
    pub fn new(settings: ReceiverSettings, lane: Class, journal: JournalId, committed: u64) -> Self {
        Self {
            settings,
            lane,
            journal,
            received: committed,
            committed,
            open: false,
            accepting: true,
            resume_waits: false,
            ack_waits: false,
            ack_deadline: None,
            term: 0,
            stats: ReceiverStats::default(),
        }
    }

    /// Takes the gateway's Offer in a channel.
    ///
    /// # Errors
    /// [`DeliveryError::Journal`] if it is about another journal or lane; nothing has changed then.
    pub fn handle_offer(&mut self, offer: &Offer) -> Result<Offered, DeliveryError> {
        if (offer.journal, offer.lane) != (self.journal, self.lane) {
            return Err(DeliveryError::Journal);
        }
        let repeated = std::mem::replace(&mut self.open, true);
        self.term = offer.term.number;
        self.resume_waits = true;
        if offer.next <= self.received {
            // Within a channel a journal only grows: an Offer that readings have overtaken on the way is old, not set back.
            return Ok(if repeated {
                Offered::Continues
            } else {
                Offered::SetBack
            });
        }
        let has_confirmed = offer.confirmed > 0 && self.settings.remembers;
        if self.received == 0 && !has_confirmed {
            // A journal never seen begins where it begins: what was before went to other collectors.
            self.received = offer.first - 1;
            self.committed = self.received;
        } else if has_confirmed && offer.confirmed > self.received && !repeated {
            return Ok(Offered::Forgotten {
                confirmed: offer.confirmed,
                received: self.received,
            });
        }
        Ok(Offered::Continues)
    }

    /// Takes a Batch or Lost frame. `accept` gets what was not received before and says whether it takes it; it must take
    /// all of it or nothing.
    ///
    /// # Errors
    /// [`DeliveryError`] for a frame that is malformed or out of place; nothing has changed then.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        kind: u8,
        body: &[u8],
        accept: impl FnOnce(Arrival<'_>) -> bool,
    ) -> Result<(), DeliveryError> {
        if !self.open {
            return Err(DeliveryError::OutOfPlace { kind });
        }
        match kind {
            BATCH | SEALED_BATCH => {
                let batch = if kind == BATCH {
                    Batch::decode(body)?
                } else {
                    Batch::decode_sealed(body)?
                };
                self.check_lane(batch.lane)?;
                self.handle_batch(now, batch, accept);
            }
            LOST => {
                let lost = Lost::decode(body)?;
                self.check_lane(lost.lane)?;
                self.handle_lost(now, lost, accept);
            }
            OFFER => {
                self.handle_offer(&Offer::decode(body)?)?;
            }
            _ => return Err(DeliveryError::OutOfPlace { kind }),
        }
        Ok(())
    }

    fn check_lane(&self, lane: Class) -> Result<(), DeliveryError> {
        if lane == self.lane {
            Ok(())
        } else {
            Err(DeliveryError::Journal)
        }
    }

    fn handle_batch(&mut self, now: Instant, batch: Batch<'_>, accept: impl FnOnce(Arrival<'_>) -> bool) {
        let expected = self.received + 1;
        if batch.first > expected {
            self.stats.out_of_order += batch.count;
            self.ack_waits = true;
            return;
        }
        let known = (expected - batch.first).min(batch.count);
        self.stats.duplicates += known;
        let Some(fresh) = batch.without_first(known) else {
            self.ack_waits = true;
            return;
        };
        if !self.accepting || !accept(Arrival::Readings(fresh)) {
            self.stats.refused += fresh.count;
            self.ack_waits = true;
            return;
        }
        self.received += fresh.count;
        self.stats.accepted += fresh.count;
        self.ack_soon(now);
    }

    fn handle_lost(&mut self, now: Instant, lost: Lost, accept: impl FnOnce(Arrival<'_>) -> bool) {
        let expected = self.received + 1;
        // Of a gap that was taken in part, the rest is another gap: nothing is counted in two.
        let fresh = lost.from(expected).filter(|fresh| fresh.first == expected);
        let Some(fresh) = fresh.filter(|fresh| self.accepting && accept(Arrival::Gap(*fresh))) else {
            self.ack_waits = true;
            return;
        };
        self.received = fresh.last;
        self.stats.lost.add(&fresh);
        self.stats.gaps += 1;
        self.ack_soon(now);
    }

    /// Takes the sinks' word that everything they were given up to `up_to` is safe.
    pub fn handle_committed(&mut self, up_to: u64) {
        let up_to = up_to.min(self.received);
        if up_to > self.committed {
            self.committed = up_to;
            self.ack_waits = true;
        }
    }

    /// Says whether the sinks take more at the moment. Closed, the gateway's credit shrinks to what was received.
    pub const fn set_accepting(&mut self, accepting: bool) {
        if self.accepting != accepting {
            self.accepting = accepting;
            self.ack_waits = true;
        }
    }

    /// Takes the news that the channel is gone.
    pub const fn handle_down(&mut self) {
        self.open = false;
        self.resume_waits = false;
        self.ack_waits = false;
        self.ack_deadline = None;
    }

    /// Makes an acknowledgement that was put off due, if its time has come at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.ack_deadline.is_some_and(|deadline| now >= deadline) {
            self.ack_deadline = None;
            self.ack_waits = true;
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) wants to be called.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.ack_deadline
    }

    /// Returns whether frames wait to be written.
    #[must_use]
    pub const fn has_frames(&self) -> bool {
        self.open && (self.resume_waits || self.ack_waits)
    }

    /// Appends the frames that wait (Resume or Ack) to the plaintext being built.
    pub fn write_frames(&mut self, out: &mut Vec<u8>) {
        if !self.has_frames() {
            return;
        }
        let window = if self.accepting { self.settings.window } else { 0 };
        let ack = Ack {
            lane: self.lane,
            received: self.received,
            committed: self.committed,
            credit: self.received + window,
        };
        if self.resume_waits {
            Resume {
                journal: self.journal,
                ack,
                term: self.term,
            }
            .put(out);
        } else {
            ack.put(out);
        }
        self.resume_waits = false;
        self.ack_waits = false;
        self.ack_deadline = None;
    }

    /// Returns the lane.
    #[must_use]
    pub const fn lane(&self) -> Class {
        self.lane
    }

    /// Returns the journal.
    #[must_use]
    pub const fn journal(&self) -> &JournalId {
        &self.journal
    }

    /// Returns the highest sequence up to which everything was received.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Returns the highest sequence up to which everything was confirmed.
    #[must_use]
    pub const fn committed(&self) -> u64 {
        self.committed
    }

    /// Returns what was seen so far.
    #[must_use]
    pub const fn stats(&self) -> ReceiverStats {
        self.stats
    }

    fn ack_soon(&mut self, now: Instant) {
        if self.ack_deadline.is_none() {
            self.ack_deadline = Some(now + ACK_WITHIN);
        }
    }
}

/// Longest time an acknowledgement is put off when nothing was confirmed.
const ACK_WITHIN: Duration = Duration::from_millis(200);
