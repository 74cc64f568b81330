//! The gateway's side of delivery.

use std::{collections::VecDeque, time::Duration};

use super::{
    IN_FLIGHT_MAX,
    frame::{ACK, Ack, DeliveryError, JournalId, Lost, LostReason, Offer, RESUME, Resume},
    window::Window,
};
use crate::{link::RoundTrip, time::Instant};

/// Sends the journal's committed readings to one collector, in order, again if need be.
///
/// ```text
///  Down ──handle_up──▶ Offering ──Resume──▶ Delivering      Offering ──Resume: received ≥ next──▶ SetBack
///   ▲                   │    ▲ └timeout: Offer again, wait × 2 ≤ 30 s
///   └────handle_down────┴────┴──────────────┴──────────────────────────────────────────┘
/// ```
///
/// Invariants: `committed ≤ received < next_to_send`; nothing is sent above `credit` or above `available`.
#[derive(Debug)]
pub struct Sender {
    journal: JournalId,
    state: SenderState,
    /// Oldest sequence the journal still has.
    first: u64,
    /// Highest sequence on the gateway's stable storage.
    available: u64,
    received: u64,
    committed: u64,
    credit: u64,
    next_to_send: u64,
    /// How many bytes may be on their way: a relay drops what it has no room for.
    window: Window,
    /// When to offer again, or to go back.
    deadline: Option<Instant>,
    /// How long to wait for an answer to an Offer.
    offer_wait: Duration,
    /// How long to wait for progress of what is on its way.
    wait: Duration,
    /// How long the way there and back takes.
    round_trip: RoundTrip,
    /// Highest sequence sent in this channel.
    sent: u64,
    /// A sequence that was sent once, and when: its acknowledgement tells how long the way takes (RFC 6298 §3).
    timed: Option<(u64, Instant)>,
    offer_waits: bool,
    lost: VecDeque<Lost>,
    stats: SenderStats,
}

/// Where a [`Sender`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderState {
    /// There is no channel.
    Down,
    /// The journal was offered; the collector has not said how far it is.
    Offering,
    /// Readings flow.
    Delivering,
    /// The collector has confirmed sequences this journal never gave out: the gateway's disk was set back to an older state.
    SetBack,
}

/// What a frame from the collector means for the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderEvent {
    /// Nothing new.
    None,
    /// Everything up to here is in the collector's custody: the journal may forget it.
    Released {
        /// The highest such sequence.
        up_to: u64,
    },
    /// See [`SenderState::SetBack`]; nothing will be sent.
    SetBack {
        /// What the collector has confirmed.
        committed: u64,
    },
}

/// What a [`Sender`] has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderStats {
    /// Readings sent, repetitions included.
    pub sent: u64,
    /// How often it went back because nothing moved.
    pub went_back: u64,
    /// Offers sent.
    pub offers: u64,
}

impl Sender {
    /// Makes a sender for a journal that has the sequences from `first` up to `available` (`first = available + 1` if none).
    #[must_use]
    pub fn new(journal: JournalId, first: u64, available: u64) -> Self {
        Self {
            journal,
            state: SenderState::Down,
            first,
            available,
            received: 0,
            committed: 0,
            credit: 0,
            next_to_send: first,
            window: Window::new(),
            deadline: None,
            offer_wait: WAIT_MIN,
            wait: WAIT_MIN,
            round_trip: RoundTrip::default(),
            sent: 0,
            timed: None,
            offer_waits: false,
            lost: VecDeque::new(),
            stats: SenderStats {
                sent: 0,
                went_back: 0,
                offers: 0,
            },
        }
    }

    /// Takes the news that a channel to the collector is up: offers the journal.
    pub fn handle_up(&mut self, now: Instant) {
        self.state = SenderState::Offering;
        self.offer_wait = WAIT_MIN;
        self.wait = WAIT_MIN;
        self.round_trip = RoundTrip::default();
        self.timed = None;
        // Nothing is on its way in the new channel, and the way may be another.
        self.window = Window::new();
        self.lost.clear();
        self.offer(now);
    }

    /// Takes the news that the channel is gone. What is on its way counts as not sent.
    pub fn handle_down(&mut self) {
        self.state = SenderState::Down;
        self.deadline = None;
        self.offer_waits = false;
        self.lost.clear();
    }

    /// Takes the news that the journal has everything from `first` up to `available` on stable storage.
    pub fn handle_available(&mut self, now: Instant, first: u64, available: u64) {
        self.first = self.first.max(first);
        self.available = self.available.max(available);
        self.arm(now);
    }

    /// Takes a frame of the collector.
    ///
    /// # Errors
    /// [`DeliveryError`] for a frame that is malformed, out of place or contradictory; nothing has changed then.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        kind: u8,
        body: &[u8],
    ) -> Result<SenderEvent, DeliveryError> {
        match (kind, self.state) {
            (RESUME, SenderState::Offering) => {
                let resume = Resume::decode(body)?;
                if resume.journal != self.journal {
                    return Err(DeliveryError::Journal);
                }
                if resume.ack.received > self.available {
                    self.state = SenderState::SetBack;
                    self.deadline = None;
                    return Ok(SenderEvent::SetBack {
                        committed: resume.ack.received,
                    });
                }
                self.state = SenderState::Delivering;
                self.received = resume.ack.received.max(self.first.saturating_sub(1));
                self.committed = resume.ack.committed;
                self.credit = resume.ack.credit;
                self.next_to_send = self.received + 1;
                self.sent = self.received;
                self.offer_wait = WAIT_MIN;
                self.deadline = None;
                self.arm(now);
                Ok(SenderEvent::Released {
                    up_to: self.committed,
                })
            }
            // An answer to an offer that was repeated, or to a probe.
            (RESUME, SenderState::Delivering) => {
                let resume = Resume::decode(body)?;
                if resume.journal != self.journal {
                    return Err(DeliveryError::Journal);
                }
                self.handle_ack(now, resume.ack)
            }
            (RESUME, SenderState::SetBack) => Ok(SenderEvent::None),
            (ACK, SenderState::Delivering) => {
                let ack = Ack::decode(body)?;
                // The collector acknowledges without anything new when it drops, which it does behind a gap.
                let is_news = ack.received != self.received
                    || ack.committed != self.committed
                    || ack.credit != self.credit;
                let event = self.handle_ack(now, ack)?;
                if !is_news && self.window.handle_duplicate(self.received, self.next_to_send - 1) {
                    self.deadline = None;
                    self.go_back(now);
                }
                Ok(event)
            }
            _ => Err(DeliveryError::OutOfPlace { kind }),
        }
    }

    fn handle_ack(&mut self, now: Instant, ack: Ack) -> Result<SenderEvent, DeliveryError> {
        // After going back, acknowledgements of what was sent before are still true.
        let max = self.available;
        if ack.received > max {
            return Err(DeliveryError::Range {
                what: "received",
                value: ack.received,
                min: 0,
                max,
            });
        }
        if ack.received < self.received {
            // Overtaken on the way: its credit is old as well.
            return Ok(SenderEvent::None);
        }
        self.credit = ack.credit;
        let moved = ack.received > self.received || ack.committed > self.committed;
        self.received = ack.received;
        self.next_to_send = self.next_to_send.max(self.received + 1);
        self.window.handle_received(self.received);
        let released = ack.committed > self.committed;
        self.committed = self.committed.max(ack.committed);
        if moved {
            self.measure(now);
            self.offer_wait = WAIT_MIN;
            self.deadline = None;
        }
        self.arm(now);
        Ok(if released {
            SenderEvent::Released {
                up_to: self.committed,
            }
        } else {
            SenderEvent::None
        })
    }

    /// Learns from progress how long the way takes. What was sent twice tells nothing, for the acknowledgement may be the
    /// first copy's: until something sent once has arrived, the wait stays as long as it got.
    fn measure(&mut self, now: Instant) {
        if let Some((_, since)) = self.timed.take_if(|(sequence, _)| *sequence <= self.received) {
            self.round_trip.record(now - since);
            self.wait = self
                .round_trip
                .timeout()
                .unwrap_or(WAIT_MIN)
                .clamp(WAIT_MIN, WAIT_MAX);
        }
    }

    /// Returns what to send next: the first sequence and how many at the most; `None` if nothing may or need be sent.
    #[must_use]
    pub fn next_range(&self) -> Option<(u64, u64)> {
        if self.state != SenderState::Delivering || self.window.is_full() {
            return None;
        }
        let last = self
            .available
            .min(self.credit)
            .min(self.committed + IN_FLIGHT_MAX);
        let count = (last + 1).checked_sub(self.next_to_send)?;
        (count > 0).then_some((self.next_to_send, count))
    }

    /// Takes the news that `count` readings from [`next_range`](Self::next_range)'s first on are on their way, in one record
    /// of `bytes` bytes.
    pub fn handle_sent(&mut self, now: Instant, count: u64, bytes: usize) {
        debug_assert!(
            self.next_to_send + count <= self.available + 1,
            "sent more than the journal has"
        );
        let fresh = self.next_to_send > self.sent;
        self.next_to_send += count;
        self.window.handle_sent(self.next_to_send - 1, bytes);
        self.stats.sent += count;
        self.sent = self.sent.max(self.next_to_send - 1);
        if fresh && self.timed.is_none() {
            self.timed = Some((self.sent, now));
        }
        self.arm(now);
    }

    /// Takes the news that the journal cannot give the sequences from `next_range`'s first up to `last`.
    pub fn handle_lost(&mut self, now: Instant, last: u64, reason: LostReason) {
        if last >= self.next_to_send {
            self.lost.push_back(Lost {
                first: self.next_to_send,
                last,
                reason,
            });
            self.next_to_send = last + 1;
            self.arm(now);
        }
    }

    /// Offers again, or goes back, if the deadline has passed at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.deadline = None;
        match self.state {
            SenderState::Delivering if self.is_in_flight() => {
                self.wait = (self.wait * 2).min(WAIT_MAX);
                self.window.handle_silence();
                self.go_back(now);
            }
            // Everything sent was received; sinks that are slow, or an Ack that was lost. The offer brings the answer.
            SenderState::Offering | SenderState::Delivering => {
                self.offer_wait = (self.offer_wait * 2).min(WAIT_MAX);
                self.offer(now);
            }
            SenderState::Down | SenderState::SetBack => {}
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) wants to be called.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns whether control frames wait to be written.
    #[must_use]
    pub fn has_frames(&self) -> bool {
        self.offer_waits || !self.lost.is_empty()
    }

    /// Appends the control frames that wait (Offer, Lost) to the plaintext being built.
    pub fn write_frames(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.offer_waits) {
            Offer {
                journal: self.journal,
                first: self.first,
                next: self.available + 1,
            }
            .put(out);
            self.stats.offers += 1;
        }
        while let Some(lost) = self.lost.pop_front() {
            lost.put(out);
        }
    }

    /// Returns where the sender stands.
    #[must_use]
    pub const fn state(&self) -> SenderState {
        self.state
    }

    /// Returns the highest sequence the collector has confirmed.
    #[must_use]
    pub const fn committed(&self) -> u64 {
        self.committed
    }

    /// Returns how many readings are on their way: sent and not confirmed.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        if matches!(self.state, SenderState::Delivering) {
            (self.next_to_send - 1).saturating_sub(self.committed)
        } else {
            0
        }
    }

    /// Returns how many readings are on stable storage and not sent.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        match self.state {
            SenderState::Delivering => (self.available + 1).saturating_sub(self.next_to_send),
            SenderState::Down | SenderState::Offering | SenderState::SetBack => {
                (self.available + 1).saturating_sub(self.first.max(self.committed + 1))
            }
        }
    }

    /// Returns what was done so far.
    #[must_use]
    pub const fn stats(&self) -> SenderStats {
        self.stats
    }

    /// Sends everything that was not received again.
    fn go_back(&mut self, now: Instant) {
        self.next_to_send = self.received + 1;
        self.timed = None;
        self.lost.clear();
        self.stats.went_back += 1;
        self.arm(now);
    }

    fn offer(&mut self, now: Instant) {
        self.offer_waits = true;
        self.deadline = Some(now + self.offer_wait);
    }

    /// Starts the retransmission time if anything is not settled: sent and not received, received and not confirmed, or held
    /// back for want of credit.
    fn arm(&mut self, now: Instant) {
        if self.state == SenderState::Delivering && self.deadline.is_none() && self.committed < self.available
        {
            let wait = if self.is_in_flight() || self.next_range().is_some() {
                self.wait
            } else {
                self.offer_wait
            };
            self.deadline = Some(now + wait);
        }
    }

    const fn is_in_flight(&self) -> bool {
        self.next_to_send > self.received + 1
    }
}

/// First and longest wait for an answer.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(30);
