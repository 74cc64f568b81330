//! The collector's side of delivery.

use std::time::Duration;

use super::frame::{Ack, BATCH, Batch, DeliveryError, JournalId, LOST, Lost, OFFER, Offer, Resume};
use crate::time::Instant;

/// Takes the readings of one journal in order, each once.
///
/// ```text
///  Waiting ──Offer──▶ Open ──Batch (next expected)──▶ accepted: received moves
///     ▲                │  └──Batch (older)──────────▶ duplicate: dropped, acknowledged
///     └──handle_down───┘  └──Batch (newer)──────────▶ gap in transit: dropped, acknowledged
/// ```
///
/// Invariant: `committed ≤ received`. It outlives channels: what was received and not yet confirmed is not asked for again.
#[derive(Debug)]
pub struct Receiver {
    settings: ReceiverSettings,
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
    stats: ReceiverStats,
}

/// Bounds of a [`Receiver`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiverSettings {
    /// Readings a gateway may send beyond what was received, 1 to [`IN_FLIGHT_MAX`](super::IN_FLIGHT_MAX).
    pub window: u64,
}

impl Default for ReceiverSettings {
    fn default() -> Self {
        Self {
            window: super::IN_FLIGHT_MAX / 2,
        }
    }
}

/// What an Offer says about custody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It goes on where it stopped, or begins.
    Continues,
    /// The gateway does not have these sequences any more: this collector was set back, or the gateway lost them.
    Missing {
        /// First sequence missing.
        first: u64,
        /// Last sequence missing.
        last: u64,
    },
    /// The journal has not reached what was received of it: the gateway's disk was set back. It will be told and not send.
    SetBack,
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
    /// Sequences that the gateway could not deliver any more.
    pub lost: u64,
}

impl Receiver {
    /// Makes a receiver for a journal of which everything up to `committed` is known to be safe (0: nothing).
    #[must_use]
    pub const fn new(settings: ReceiverSettings, journal: JournalId, committed: u64) -> Self {
        Self {
            settings,
            journal,
            received: committed,
            committed,
            open: false,
            accepting: true,
            resume_waits: false,
            ack_waits: false,
            ack_deadline: None,
            stats: ReceiverStats {
                accepted: 0,
                duplicates: 0,
                out_of_order: 0,
                refused: 0,
                lost: 0,
            },
        }
    }

    /// Takes the gateway's Offer in a channel.
    ///
    /// # Errors
    /// [`DeliveryError::Journal`] if it is about another journal; nothing has changed then.
    pub fn handle_offer(&mut self, offer: &Offer) -> Result<Offered, DeliveryError> {
        if offer.journal != self.journal {
            return Err(DeliveryError::Journal);
        }
        let repeated = std::mem::replace(&mut self.open, true);
        self.resume_waits = true;
        if offer.next <= self.received {
            // Within a channel a journal only grows: an Offer that readings have overtaken on the way is old, not set back.
            return Ok(if repeated {
                Offered::Continues
            } else {
                Offered::SetBack
            });
        }
        if offer.first <= self.received + 1 {
            return Ok(Offered::Continues);
        }
        let (before, last) = (self.received, offer.first - 1);
        self.skip(last);
        if before == 0 {
            // A journal never seen begins where it begins: what was before went to another collector.
            return Ok(Offered::Continues);
        }
        self.stats.lost += last - before;
        Ok(Offered::Missing {
            first: before + 1,
            last,
        })
    }

    /// Takes a Batch or Lost frame. `accept` gets the batch without what was received before and says whether it takes it;
    /// it must take all of it or nothing.
    ///
    /// # Errors
    /// [`DeliveryError`] for a frame that is malformed or out of place; nothing has changed then.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        kind: u8,
        body: &[u8],
        accept: impl FnOnce(Batch<'_>) -> bool,
    ) -> Result<(), DeliveryError> {
        if !self.open {
            return Err(DeliveryError::OutOfPlace { kind });
        }
        match kind {
            BATCH => self.handle_batch(now, Batch::decode(body)?, accept),
            LOST => self.handle_lost(now, Lost::decode(body)?),
            OFFER => {
                self.handle_offer(&Offer::decode(body)?)?;
            }
            _ => return Err(DeliveryError::OutOfPlace { kind }),
        }
        Ok(())
    }

    fn handle_batch(&mut self, now: Instant, batch: Batch<'_>, accept: impl FnOnce(Batch<'_>) -> bool) {
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
        if !self.accepting || !accept(fresh) {
            self.stats.refused += fresh.count;
            self.ack_waits = true;
            return;
        }
        self.received += fresh.count;
        self.stats.accepted += fresh.count;
        self.ack_soon(now);
    }

    fn handle_lost(&mut self, now: Instant, lost: Lost) {
        if lost.first <= self.received + 1 && lost.last > self.received {
            self.stats.lost += lost.last - self.received;
            self.skip(lost.last);
        }
        self.ack_soon(now);
    }

    /// Goes on behind `last`. If nothing unconfirmed lies before, it counts as confirmed: there is nothing to confirm.
    const fn skip(&mut self, last: u64) {
        if self.committed == self.received {
            self.committed = last;
        }
        self.received = last;
    }

    /// Takes the sinks' word that everything they were given up to `up_to` is safe.
    pub fn handle_committed(&mut self, up_to: u64) {
        let up_to = up_to.min(self.received);
        if up_to > self.committed {
            self.committed = up_to;
            self.ack_waits = true;
        }
    }

    /// Takes the news that everything handed to the sinks has been confirmed: what was lost behind it is settled as well.
    pub fn handle_all_committed(&mut self) {
        self.handle_committed(self.received);
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
            received: self.received,
            committed: self.committed,
            credit: self.received + window,
        };
        if self.resume_waits {
            Resume {
                journal: self.journal,
                ack,
            }
            .put(out);
        } else {
            ack.put(out);
        }
        self.resume_waits = false;
        self.ack_waits = false;
        self.ack_deadline = None;
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
