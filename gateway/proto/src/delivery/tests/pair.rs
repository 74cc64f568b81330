//! A gateway and a collector with three lanes and a bad pipe between them, whatever happens to either.

use std::{collections::VecDeque, time::Duration};

use proptest::prelude::*;

use super::*;

/// What can happen between two steps of the pair below.
#[derive(Clone, Debug)]
enum Step {
    /// The gateway's journal commits so many readings in a lane.
    Commit { lane: Class, count: u8 },
    /// Policy discards so many of the oldest of a lane.
    Discard { lane: Class, count: u8 },
    /// A frame is lost, doubled or overtaken on the way to the other side.
    Disturb { to_collector: bool, how: u8 },
    /// Time passes.
    Wait(u16),
    /// The sink makes everything it holds safe.
    SinkCommits,
    /// The sink closes or opens for a lane.
    Accept { lane: Class, accepting: bool },
    /// The channel breaks; both sides keep their memory.
    ChannelBreaks,
    /// The gateway restarts with what is on its disk.
    GatewayRestarts,
    /// The collector restarts with what its sink made safe.
    CollectorRestarts,
    /// The collector is restored from a backup that lacks the newest so many things.
    CollectorRestored { lost: u8 },
}

fn lane() -> impl Strategy<Value = Class> {
    prop::sample::select(Class::ALL.to_vec())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (lane(), 1..40_u8).prop_map(|(lane, count)| Step::Commit { lane, count }),
        2 => (lane(), 1..40_u8).prop_map(|(lane, count)| Step::Discard { lane, count }),
        4 => (any::<bool>(), 0..3_u8).prop_map(|(to_collector, how)| Step::Disturb { to_collector, how }),
        4 => (0..3_000_u16).prop_map(Step::Wait),
        3 => Just(Step::SinkCommits),
        1 => (lane(), any::<bool>()).prop_map(|(lane, accepting)| Step::Accept { lane, accepting }),
        1 => Just(Step::ChannelBreaks),
        1 => Just(Step::GatewayRestarts),
        1 => Just(Step::CollectorRestarts),
        1 => (0..20_u8).prop_map(|lost| Step::CollectorRestored { lost }),
    ]
}

/// Something in the sink. Reading number n has the sequence n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Reading(u64),
    Gap(Lost),
}

impl Item {
    fn last(self) -> u64 {
        match self {
            Self::Reading(number) => number,
            Self::Gap(lost) => lost.last,
        }
    }
}

/// What one lane has on both sides.
#[derive(Default)]
struct Lane {
    available: u64,
    /// The collector has confirmed everything up to here, and the journal deletes it when a segment is full of such.
    released: u64,
    /// Policy has discarded everything up to here, but for what was released.
    discarded: u64,
    /// Highest sequence that was ever safe at the collector.
    was_safe: u64,
    sink: Vec<Item>,
    /// How many of them are safe.
    safe: usize,
}

impl Lane {
    fn safe_up_to(&self) -> u64 {
        self.safe.checked_sub(1).map_or(0, |last| self.sink[last].last())
    }

    /// Returns up to where the journal has nothing from `first` on, and why; segments hold eight records.
    fn lost_from(&self, first: u64) -> Option<(u64, LostReason)> {
        let deleted = self.released / 8 * 8;
        if self.discarded > self.released && first > self.released && first <= self.discarded {
            Some((self.discarded, LostReason::Discarded))
        } else {
            (first <= deleted).then_some((deleted, LostReason::Released))
        }
    }

    /// Each sequence stands in exactly one reading or one gap, in order, and every gap has its reason.
    fn check(&self) {
        let mut next = 1;
        for item in &self.sink {
            match *item {
                Item::Reading(number) => assert_eq!(number, next, "each once and in order: {:?}", self.sink),
                Item::Gap(lost) => {
                    assert_eq!(lost.first, next, "a gap stands in its place: {:?}", self.sink);
                    match lost.reason {
                        LostReason::Discarded => assert!(lost.last <= self.discarded),
                        LostReason::Released => assert!(
                            lost.last <= self.was_safe,
                            "only what was confirmed once is gone without a trace"
                        ),
                        LostReason::Corrupt | LostReason::Expired => panic!("nobody said that"),
                    }
                }
            }
            next = item.last() + 1;
        }
    }
}

/// A gateway and a collector with a bad pipe between them.
struct Pair {
    now: Instant,
    sender: Sender,
    receivers: PerLane<Receiver>,
    lanes: PerLane<Lane>,
    to_collector: VecDeque<(u8, Vec<u8>)>,
    to_gateway: VecDeque<(u8, Vec<u8>)>,
}

const RECEIVER: ReceiverSettings = ReceiverSettings {
    window: 64,
    remembers: true,
};

fn journal(lane: Class) -> JournalId {
    [lane.bits() + 1; 16]
}

impl Pair {
    fn new() -> Self {
        let lanes = PerLane::default();
        let mut pair = Self {
            now: Instant::START,
            sender: Self::sender(&lanes),
            receivers: PerLane::from_fn(|lane| Receiver::new(RECEIVER, lane, journal(lane), 0)),
            lanes,
            to_collector: VecDeque::new(),
            to_gateway: VecDeque::new(),
        };
        pair.sender.handle_up(pair.now);
        pair
    }

    /// A sender that knows what is on the gateway's disk.
    fn sender(lanes: &PerLane<Lane>) -> Sender {
        let settings = PerLane::from_fn(|lane| LaneSettings {
            journal: journal(lane),
            first: lanes[lane].released + 1,
            available: lanes[lane].available,
            confirmed: lanes[lane].released,
        });
        Sender::new(&settings, Shares::default())
    }

    fn channel_breaks(&mut self) {
        self.to_collector.clear();
        self.to_gateway.clear();
        self.sender.handle_down();
        for receiver in &mut self.receivers.0 {
            receiver.handle_down();
        }
        self.sender.handle_up(self.now);
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Commit { lane, count } => {
                let entry = &mut self.lanes[*lane];
                entry.available += u64::from(*count);
                self.sender
                    .handle_available(self.now, *lane, entry.released + 1, entry.available);
            }
            Step::Discard { lane, count } => {
                let entry = &mut self.lanes[*lane];
                let from = entry.discarded.max(entry.released);
                entry.discarded = (from + u64::from(*count)).min(entry.available);
            }
            Step::Disturb { to_collector, how } => {
                let queue = if *to_collector {
                    &mut self.to_collector
                } else {
                    &mut self.to_gateway
                };
                match (how, queue.front().cloned()) {
                    (0, _) => drop(queue.pop_front()),
                    (1, Some(frame)) => queue.push_back(frame),
                    (_, Some(frame)) => {
                        queue.pop_front();
                        queue.push_back(frame);
                    }
                    (_, None) => {}
                }
            }
            Step::Wait(millis) => {
                self.now = self.now + Duration::from_millis(u64::from(*millis));
                self.sender.handle_timeout(self.now);
                for receiver in &mut self.receivers.0 {
                    receiver.handle_timeout(self.now);
                }
            }
            Step::SinkCommits => {
                for (lane, entry) in self.lanes.iter_mut() {
                    entry.safe = entry.sink.len();
                    entry.was_safe = entry.was_safe.max(entry.safe_up_to());
                    self.receivers[lane].handle_committed(entry.safe_up_to());
                }
            }
            Step::Accept { lane, accepting } => self.receivers[*lane].set_accepting(*accepting),
            Step::ChannelBreaks => self.channel_breaks(),
            Step::GatewayRestarts => {
                self.sender = Self::sender(&self.lanes);
                self.channel_breaks();
            }
            Step::CollectorRestarts => self.restart_collector(0),
            Step::CollectorRestored { lost } => self.restart_collector(usize::from(*lost)),
        }
    }

    fn restart_collector(&mut self, lost: usize) {
        for (lane, entry) in self.lanes.iter_mut() {
            entry.safe = entry.safe.saturating_sub(lost);
            entry.sink.truncate(entry.safe);
            self.receivers[lane] = Receiver::new(RECEIVER, lane, journal(lane), entry.safe_up_to());
        }
        self.channel_breaks();
    }

    /// Sends what may be sent and delivers one frame each way.
    fn run(&mut self) {
        if let Some(Allowed { lane, first, count }) = self.sender.next(&NOBODY_ABSENT) {
            if let Some((last, reason)) = self.lanes[lane].lost_from(first) {
                let lost = Copied::Lost {
                    last,
                    reason,
                    captured: Some((first, last)),
                };
                self.sender.handle_lost(self.now, lane, lost);
            } else {
                let count = count.min(7);
                let sent: Vec<u64> = (first..first + count).collect();
                self.to_collector.push_back((BATCH, batch_of(lane, first, &sent)));
                self.sender.handle_sent(self.now, lane, count, 1000);
            }
        }
        for lane in Class::ALL {
            let frames = frames_of(|out| self.sender.write_frames(lane, out));
            self.to_collector.extend(frames);
        }
        self.arrive_at_collector();
        for receiver in &mut self.receivers.0 {
            self.to_gateway
                .extend(frames_of(|out| receiver.write_frames(out)));
        }
        self.arrive_at_gateway();
        self.lanes.0.iter().for_each(Lane::check);
    }

    fn arrive_at_collector(&mut self) {
        let Some((kind, body)) = self.to_collector.pop_front() else {
            return;
        };
        let lane = lane_of(&body).unwrap();
        let (receiver, entry) = (&mut self.receivers[lane], &mut self.lanes[lane]);
        if kind == OFFER {
            let offered = receiver.handle_offer(&Offer::decode(&body).unwrap()).unwrap();
            assert_ne!(offered, Offered::SetBack, "the gateway's disk is never set back");
            return;
        }
        // A batch from before the channel broke meets a receiver without an offer: refused.
        let _ = receiver.handle_frame(self.now, kind, &body, |arrival| {
            match arrival {
                Arrival::Readings(batch) => {
                    entry.sink.extend(readings(&batch).into_iter().map(Item::Reading))
                }
                Arrival::Gap(lost) => entry.sink.push(Item::Gap(lost)),
            }
            true
        });
    }

    fn arrive_at_gateway(&mut self) {
        let Some((kind, body)) = self.to_gateway.pop_front() else {
            return;
        };
        match self.sender.handle_frame(self.now, kind, &body) {
            Ok(SenderEvent::Released { lane, up_to }) => {
                let entry = &mut self.lanes[lane];
                assert!(
                    up_to <= entry.safe_up_to(),
                    "released before the sink made it safe"
                );
                entry.released = entry.released.max(up_to);
            }
            Ok(SenderEvent::CollectorSetBack {
                lane,
                confirmed,
                committed,
            }) => assert!(committed < confirmed && confirmed <= self.lanes[lane].was_safe),
            Ok(SenderEvent::SetBack { .. }) => panic!("the gateway's disk is never set back"),
            Ok(SenderEvent::None) | Err(_) => {}
        }
    }

    fn is_done(&self) -> bool {
        self.lanes
            .0
            .iter()
            .all(|lane| lane.safe_up_to() == lane.available)
    }
}

proptest! {
    #[test]
    fn every_committed_reading_arrives_once_and_in_order_or_in_one_gap(
        steps in prop::collection::vec((step(), 0..6_u8), 1..120)
    ) {
        let mut pair = Pair::new();
        for (step, runs) in &steps {
            pair.apply(step);
            for _ in 0..*runs {
                pair.run();
            }
        }
        // The network heals: everything must come through in bounded time.
        for lane in Class::ALL {
            pair.apply(&Step::Accept { lane, accepting: true });
        }
        for _ in 0..3_000 {
            pair.apply(&Step::Wait(500));
            pair.run();
            pair.apply(&Step::SinkCommits);
            if pair.is_done() {
                break;
            }
        }
        for (lane, entry) in pair.lanes.iter() {
            prop_assert_eq!(entry.safe_up_to(), entry.available, "{:?}", lane);
        }
    }
}
