//! One lane of a sender.

use std::{collections::VecDeque, time::Duration};

use super::{
    IN_FLIGHT_MAX,
    frame::{Ack, DeliveryError, Lost, Offer, Resume, Term},
    lane::LaneSettings,
    sender::{SenderEvent, SenderState, SenderStats},
    window::Window,
};
use crate::{
    link::{Class, RoundTrip},
    node::Copied,
    time::Instant,
};

/// Sends one lane's committed readings, in order, again if need be.
///
/// ```text
///  Down ──handle_up──▶ Offering ──Resume──▶ Delivering      Offering ──Resume: received ≥ next──▶ SetBack
///   ▲                   │    ▲ └timeout: Offer again, wait × 2 ≤ 30 s
///   └────handle_down────┴────┴──────────────┴──────────────────────────────────────────┘
/// ```
///
/// Invariants: `committed ≤ received < next_to_send`; no reading is sent above `credit` or above `available`.
#[derive(Debug)]
pub(super) struct Outgoing {
    lane: Class,
    settings: LaneSettings,
    state: SenderState,
    received: u64,
    committed: u64,
    credit: u64,
    next_to_send: u64,
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

impl Outgoing {
    pub(super) fn new(lane: Class, settings: LaneSettings) -> Self {
        Self {
            lane,
            settings,
            state: SenderState::Down,
            received: settings.confirmed,
            committed: settings.confirmed,
            credit: 0,
            next_to_send: settings.confirmed + 1,
            deadline: None,
            offer_wait: WAIT_MIN,
            wait: WAIT_MIN,
            round_trip: RoundTrip::default(),
            sent: 0,
            timed: None,
            offer_waits: false,
            lost: VecDeque::new(),
            stats: SenderStats::default(),
        }
    }

    pub(super) fn handle_up(&mut self, now: Instant) {
        self.state = SenderState::Offering;
        self.offer_wait = WAIT_MIN;
        self.wait = WAIT_MIN;
        self.round_trip = RoundTrip::default();
        self.timed = None;
        self.lost.clear();
        self.offer(now);
    }

    /// What is on its way counts as not sent.
    pub(super) fn handle_down(&mut self) {
        self.state = SenderState::Down;
        self.deadline = None;
        self.offer_waits = false;
        self.lost.clear();
    }

    pub(super) fn handle_available(&mut self, now: Instant, first: u64, available: u64) {
        self.settings.first = self.settings.first.max(first);
        self.settings.available = self.settings.available.max(available);
        self.arm(now);
    }

    pub(super) fn handle_resume(
        &mut self,
        now: Instant,
        resume: &Resume,
        window: &mut Window,
    ) -> Result<SenderEvent, DeliveryError> {
        if resume.journal != self.settings.journal {
            return Err(DeliveryError::Journal);
        }
        match self.state {
            SenderState::Offering => Ok(self.handle_first_resume(now, resume.ack)),
            // An answer to an offer that was repeated, or to a probe.
            SenderState::Delivering => self.handle_progress(now, resume.ack, window),
            SenderState::SetBack => Ok(SenderEvent::None),
            SenderState::Down => Err(DeliveryError::OutOfPlace {
                kind: super::frame::RESUME,
            }),
        }
    }

    fn handle_first_resume(&mut self, now: Instant, ack: Ack) -> SenderEvent {
        if ack.received > self.settings.available {
            self.state = SenderState::SetBack;
            self.deadline = None;
            return SenderEvent::SetBack {
                lane: self.lane,
                committed: ack.received,
            };
        }
        self.state = SenderState::Delivering;
        // Wherever it wants to go on from: the journal says of what it let go of that it did.
        self.received = ack.received;
        let known = std::mem::replace(&mut self.committed, ack.committed);
        self.settings.confirmed = self.settings.confirmed.max(self.committed);
        self.credit = ack.credit;
        self.next_to_send = self.received + 1;
        self.sent = self.received;
        self.offer_wait = WAIT_MIN;
        self.deadline = None;
        self.arm(now);
        if known <= self.committed {
            return SenderEvent::Released {
                lane: self.lane,
                up_to: self.committed,
            };
        }
        SenderEvent::CollectorSetBack {
            lane: self.lane,
            confirmed: known,
            committed: self.committed,
        }
    }

    pub(super) fn handle_ack(
        &mut self,
        now: Instant,
        ack: Ack,
        window: &mut Window,
    ) -> Result<SenderEvent, DeliveryError> {
        match self.state {
            SenderState::Delivering => {}
            // What was on its way when the channel was left, before it was taken into use again.
            SenderState::Offering => return Ok(SenderEvent::None),
            SenderState::Down | SenderState::SetBack => {
                return Err(DeliveryError::OutOfPlace {
                    kind: super::frame::ACK,
                });
            }
        }
        // The collector acknowledges without anything new when it drops, which it does behind a gap.
        let is_news =
            ack.received != self.received || ack.committed != self.committed || ack.credit != self.credit;
        let event = self.handle_progress(now, ack, window)?;
        if !is_news && window.handle_duplicate(self.lane, self.received, self.next_to_send - 1) {
            self.deadline = None;
            self.go_back(now);
        }
        Ok(event)
    }

    fn handle_progress(
        &mut self,
        now: Instant,
        ack: Ack,
        window: &mut Window,
    ) -> Result<SenderEvent, DeliveryError> {
        // After going back, acknowledgements of what was sent before are still true.
        let max = self.settings.available;
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
        window.handle_received(self.lane, self.received);
        let released = ack.committed > self.committed;
        self.committed = self.committed.max(ack.committed);
        self.settings.confirmed = self.settings.confirmed.max(self.committed);
        if moved {
            self.measure(now);
            self.offer_wait = WAIT_MIN;
            self.deadline = None;
        }
        self.arm(now);
        Ok(if released {
            SenderEvent::Released {
                lane: self.lane,
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

    /// Returns what the collector takes next: the first sequence and how many at the most.
    pub(super) fn next_range(&self) -> Option<(u64, u64)> {
        if self.state != SenderState::Delivering {
            return None;
        }
        let last = self
            .settings
            .available
            .min(self.credit)
            .min(self.committed + IN_FLIGHT_MAX);
        let count = (last + 1).checked_sub(self.next_to_send)?;
        (count > 0).then_some((self.next_to_send, count))
    }

    pub(super) fn handle_sent(&mut self, now: Instant, count: u64, bytes: usize, window: &mut Window) {
        debug_assert!(
            self.next_to_send + count <= self.settings.available + 1,
            "sent more than the journal has"
        );
        let fresh = self.next_to_send > self.sent;
        self.next_to_send += count;
        window.handle_sent(self.lane, self.next_to_send - 1, bytes);
        self.stats.sent += count;
        self.sent = self.sent.max(self.next_to_send - 1);
        if fresh && self.timed.is_none() {
            self.timed = Some((self.sent, now));
        }
        self.arm(now);
    }

    /// Takes the news that the journal cannot give what comes next; anything but [`Copied::Lost`] changes nothing.
    pub(super) fn handle_lost(&mut self, now: Instant, copied: Copied) {
        let Copied::Lost {
            last,
            reason,
            captured,
        } = copied
        else {
            return;
        };
        if last < self.next_to_send {
            return;
        }
        let lost = Lost {
            lane: self.lane,
            first: self.next_to_send,
            last,
            reason,
            captured,
        };
        // Told again after going back, it is not counted again.
        if last > self.sent {
            self.stats.lost += lost.count();
        }
        self.lost.push_back(lost);
        self.next_to_send = last + 1;
        self.sent = self.sent.max(last);
        self.arm(now);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, window: &mut Window) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.deadline = None;
        match self.state {
            SenderState::Delivering if self.is_in_flight() => {
                self.wait = (self.wait * 2).min(WAIT_MAX);
                window.handle_silence(self.lane, self.received);
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

    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn has_frames(&self) -> bool {
        self.offer_waits || !self.lost.is_empty()
    }

    pub(super) fn write_frames(&mut self, term: Term, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.offer_waits) {
            Offer {
                lane: self.lane,
                journal: self.settings.journal,
                first: self.settings.first,
                next: self.settings.available + 1,
                confirmed: self.settings.confirmed,
                term,
            }
            .put(out);
            self.stats.offers += 1;
        }
        while let Some(lost) = self.lost.pop_front() {
            lost.put(out);
        }
    }

    pub(super) const fn state(&self) -> SenderState {
        self.state
    }

    pub(super) const fn journal(&self) -> &[u8; 16] {
        &self.settings.journal
    }

    pub(super) const fn committed(&self) -> u64 {
        self.committed
    }

    /// Returns how many are on their way: sent and not confirmed.
    pub(super) const fn in_flight(&self) -> u64 {
        if matches!(self.state, SenderState::Delivering) {
            (self.next_to_send - 1).saturating_sub(self.committed)
        } else {
            0
        }
    }

    /// Returns whether the collector owes an answer: to the Offer, or for readings that it has not received as far as is known.
    pub(super) const fn awaits_answer(&self) -> bool {
        match self.state {
            SenderState::Offering => true,
            SenderState::Delivering => self.next_to_send > self.received + 1,
            SenderState::Down | SenderState::SetBack => false,
        }
    }

    /// Returns how many are on stable storage and not sent.
    pub(super) fn waiting(&self) -> u64 {
        let next = match self.state {
            SenderState::Delivering => self.next_to_send,
            SenderState::Down | SenderState::Offering | SenderState::SetBack => {
                self.settings.first.max(self.committed + 1)
            }
        };
        (self.settings.available + 1).saturating_sub(next)
    }

    pub(super) const fn stats(&self) -> SenderStats {
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
        if self.state == SenderState::Delivering
            && self.deadline.is_none()
            && self.committed < self.settings.available
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
