//! The gateway's side of delivery.

use super::{
    frame::{ACK, Ack, DeliveryError, JournalId, RESUME, Resume, Term},
    lane::{LaneSettings, PerLane},
    outgoing::Outgoing,
    schedule::{Schedule, Shares},
    window::Window,
};
use crate::{link::Class, node::Copied, time::Instant};

/// Sends the lanes of a journal to one collector: the most urgent first, each in order and again if need be, nobody starved.
///
/// The lanes are delivered independently of each other and share the way: one congestion window, one schedule.
#[derive(Debug)]
pub struct Sender {
    lanes: PerLane<Outgoing>,
    /// How many bytes may be on their way: a relay drops what it has no room for.
    window: Window,
    schedule: Schedule,
    shares: Shares,
    /// Of the channel in use.
    term: Term,
}

/// Where a lane of a [`Sender`] stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SenderState {
    /// There is no channel.
    #[default]
    Down,
    /// The lane was offered; the collector has not said how far it is.
    Offering,
    /// Readings flow.
    Delivering,
    /// The collector has confirmed sequences this journal never gave out: the gateway's disk was set back to an older state.
    SetBack,
}

/// What a frame from the collector means for a lane of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderEvent {
    /// Nothing new.
    None,
    /// Everything up to here is in the collector's custody: it may be forgotten as far as this uplink is concerned.
    Released {
        /// Which lane.
        lane: Class,
        /// The highest such sequence.
        up_to: u64,
    },
    /// See [`SenderState::SetBack`]; nothing of the lane will be sent.
    SetBack {
        /// Which lane.
        lane: Class,
        /// What the collector has confirmed.
        committed: u64,
    },
    /// The collector has less than it had confirmed: it was set back to an older state. What the gateway still has is sent again,
    /// of the rest it is told.
    CollectorSetBack {
        /// Which lane.
        lane: Class,
        /// What it had confirmed.
        confirmed: u64,
        /// What it has now.
        committed: u64,
    },
}

/// What a lane of a [`Sender`] has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderStats {
    /// Readings sent, repetitions included.
    pub sent: u64,
    /// How often it went back because nothing moved.
    pub went_back: u64,
    /// Offers sent.
    pub offers: u64,
    /// Readings told to be lost.
    pub lost: u64,
}

/// What may be sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Which lane.
    pub lane: Class,
    /// The first sequence.
    pub first: u64,
    /// How many at the most, at least 1.
    pub count: u64,
}

/// What can be seen of a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneView {
    /// Where delivery stands.
    pub state: SenderState,
    /// Its journal.
    pub journal: JournalId,
    /// Highest sequence the collector has confirmed.
    pub committed: u64,
    /// Readings sent and not confirmed.
    pub in_flight: u64,
    /// Readings on stable storage and not sent.
    pub waiting: u64,
    /// Counters.
    pub stats: SenderStats,
}

impl Sender {
    /// Makes a sender for lanes that have what `settings` say.
    #[must_use]
    pub fn new(settings: &PerLane<LaneSettings>, shares: Shares) -> Self {
        Self {
            lanes: PerLane::from_fn(|lane| Outgoing::new(lane, settings[lane])),
            window: Window::new(),
            schedule: Schedule::new(shares),
            shares,
            term: Term::default(),
        }
    }

    /// Says what terms of this run of the node are known by; call it before anything else.
    pub const fn set_run(&mut self, run: u64) {
        self.term.run = run;
    }

    /// Takes the news that a channel to the collector is to be used: offers the lanes in it, in a new term.
    pub fn handle_up(&mut self, now: Instant) {
        self.term.number = self.term.number.saturating_add(1);
        // Nothing is on its way in the new channel, and the way may be another.
        self.window = Window::new();
        self.schedule = Schedule::new(self.shares);
        for lane in &mut self.lanes.0 {
            lane.handle_up(now);
        }
    }

    /// Takes the news that the channel is gone. What is on its way counts as not sent.
    pub fn handle_down(&mut self) {
        for lane in &mut self.lanes.0 {
            lane.handle_down();
        }
    }

    /// Takes the news that a lane has records up to `available` on stable storage, and that `first` is the oldest sequence that
    /// some collector still has to hear of.
    pub fn handle_available(&mut self, now: Instant, lane: Class, first: u64, available: u64) {
        self.lanes[lane].handle_available(now, first, available);
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
        match kind {
            RESUME => {
                let resume = Resume::decode(body)?;
                if resume.term != self.term.number {
                    // It answers what was offered before the channel was left and taken into use again.
                    return Ok(SenderEvent::None);
                }
                self.lanes[resume.ack.lane].handle_resume(now, &resume, &mut self.window)
            }
            ACK => {
                let ack = Ack::decode(body)?;
                self.lanes[ack.lane].handle_ack(now, ack, &mut self.window)
            }
            _ => Err(DeliveryError::OutOfPlace { kind }),
        }
    }

    /// Returns what to send next; `None` if nothing may or need be sent. Nothing is asked for of lanes that are `absent`: those
    /// whose records are not there for now.
    #[must_use]
    pub fn next(&self, absent: &PerLane<bool>) -> Option<Allowed> {
        let ranges = self.ranges();
        let waiting = PerLane::from_fn(|lane| ranges[lane].is_some() && !absent[lane]);
        // Alarms that owe something leave alone what room is only theirs: in a flood of them the window would never be so empty
        // that the lane they owe it to may send.
        let is_due = Class::ALL
            .into_iter()
            .any(|lane| waiting[lane] && self.schedule.is_owed_by_alarms(lane));
        let is_full = |lane| self.window.is_full(lane) || is_due && self.window.is_full_for_all();
        let ready = PerLane::from_fn(|lane| waiting[lane] && !is_full(lane));
        let lane = self.schedule.pick(&ready)?;
        let (first, count) = ranges[lane]?;
        Some(Allowed { lane, first, count })
    }

    fn ranges(&self) -> PerLane<Option<(u64, u64)>> {
        self.lanes.map(Outgoing::next_range)
    }

    /// Takes the news that `count` readings of `lane` are on their way from the first that [`next`](Self::next) named, in one
    /// record of `bytes` bytes.
    pub fn handle_sent(&mut self, now: Instant, lane: Class, count: u64, bytes: usize) {
        self.lanes[lane].handle_sent(now, count, bytes, &mut self.window);
        let waiting = self.ranges().map(Option::is_some);
        self.schedule.handle_sent(lane, bytes, &waiting);
    }

    /// Takes the news that the journal cannot give what [`next`](Self::next) named, in the words of the journal; anything but
    /// [`Copied::Lost`] changes nothing.
    pub fn handle_lost(&mut self, now: Instant, lane: Class, copied: Copied) {
        self.lanes[lane].handle_lost(now, copied);
    }

    /// Offers again, or goes back, where a deadline has passed at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        for lane in &mut self.lanes.0 {
            lane.handle_timeout(now, &mut self.window);
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.lanes.0.iter().filter_map(Outgoing::poll_timeout).min()
    }

    /// Returns whether control frames of a lane wait to be written.
    #[must_use]
    pub fn has_frames(&self, lane: Class) -> bool {
        self.lanes[lane].has_frames()
    }

    /// Appends the control frames of a lane that wait (Offer, Lost) to the plaintext being built. They have to stay in order with
    /// the lane's readings.
    pub fn write_frames(&mut self, lane: Class, out: &mut Vec<u8>) {
        self.lanes[lane].write_frames(self.term, out);
    }

    /// Returns what can be seen of each lane.
    #[must_use]
    pub fn lanes(&self) -> PerLane<LaneView> {
        self.lanes.map(|lane| LaneView {
            state: lane.state(),
            journal: *lane.journal(),
            committed: lane.committed(),
            in_flight: lane.in_flight(),
            waiting: lane.waiting(),
            stats: lane.stats(),
        })
    }

    /// Returns whether the collector owes an answer in any lane. That its sinks are slow is none.
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        self.lanes.0.iter().any(Outgoing::awaits_answer)
    }

    /// Returns how many readings of a lane could be sent now, and whether the window lets any go.
    #[must_use]
    pub fn ready(&self, lane: Class) -> u64 {
        let range = self.lanes[lane]
            .next_range()
            .filter(|_| !self.window.is_full(lane));
        range.map_or(0, |(_, count)| count)
    }
}
