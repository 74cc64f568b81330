use std::{collections::VecDeque, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{channel::frames, time::Instant, wire::put_bytes_varint};

const JOURNAL: JournalId = [9; 16];

fn frames_of(write: impl FnOnce(&mut Vec<u8>)) -> Vec<(u8, Vec<u8>)> {
    let mut plaintext = Vec::new();
    write(&mut plaintext);
    frames(&plaintext)
        .map(|frame| frame.map(|(kind, body)| (kind, body.to_vec())))
        .collect::<Result<_, _>>()
        .unwrap()
}

fn batch(first: u64, readings: &[u64]) -> Vec<u8> {
    let frames = frames_of(|out| {
        let writer = BatchWriter::begin(out, first);
        for reading in readings {
            put_bytes_varint(out, &reading.to_be_bytes());
        }
        writer.finish(out, u16::try_from(readings.len()).unwrap());
    });
    frames.into_iter().next().unwrap().1
}

fn readings(batch: &Batch<'_>) -> Vec<u64> {
    let mut reader = crate::wire::Reader::new(batch.readings);
    (0..batch.count)
        .map(|_| u64::from_be_bytes(reader.bytes_varint("x").unwrap().try_into().unwrap()))
        .collect()
}

fn open(committed: u64, first: u64, next: u64) -> (Receiver, Offered) {
    let mut receiver = Receiver::new(ReceiverSettings::default(), JOURNAL, committed);
    let offered = receiver
        .handle_offer(&Offer {
            journal: JOURNAL,
            first,
            next,
        })
        .unwrap();
    (receiver, offered)
}

#[test]
fn frames_come_back() {
    let offer = Offer {
        journal: JOURNAL,
        first: 3,
        next: 9,
    };
    let ack = Ack {
        received: 9,
        committed: 7,
        credit: 100,
    };
    let resume = Resume {
        journal: JOURNAL,
        ack,
    };
    let lost = Lost {
        first: 4,
        last: 8,
        reason: LostReason::Corrupt,
    };
    let frames = frames_of(|out| {
        offer.put(out);
        resume.put(out);
        ack.put(out);
        lost.put(out);
    });
    assert_eq!(
        frames.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
        [OFFER, RESUME, ACK, LOST]
    );
    assert_eq!(Offer::decode(&frames[0].1), Ok(offer));
    assert_eq!(Resume::decode(&frames[1].1), Ok(resume));
    assert_eq!(Ack::decode(&frames[2].1), Ok(ack));
    assert_eq!(Lost::decode(&frames[3].1), Ok(lost));
    let body = batch(5, &[50, 60]);
    let decoded = Batch::decode(&body).unwrap();
    assert_eq!((decoded.first, readings(&decoded)), (5, vec![50, 60]));
    assert_eq!(readings(&decoded.without_first(1).unwrap()), [60]);
    assert_eq!(decoded.without_first(2), None);
}

#[test]
fn contradictory_numbers_are_refused() {
    let mut out = Vec::new();
    Offer {
        journal: JOURNAL,
        first: 9,
        next: 3,
    }
    .put(&mut out);
    assert!(matches!(
        Offer::decode(&out[3..]),
        Err(DeliveryError::Range { .. })
    ));
    out.clear();
    Ack {
        received: 3,
        committed: 4,
        credit: 0,
    }
    .put(&mut out);
    assert!(matches!(Ack::decode(&out[3..]), Err(DeliveryError::Range { .. })));
    assert!(Batch::decode(&[0; 10]).is_err());
}

#[test]
fn a_receiver_takes_only_the_next_reading() {
    let (mut receiver, offered) = open(0, 1, 10);
    assert_eq!(offered, Offered::Continues);
    let mut taken = Vec::new();
    for (first, sent) in [(1, vec![1, 2]), (4, vec![4]), (1, vec![1, 2, 3]), (3, vec![3])] {
        let body = batch(first, &sent);
        receiver
            .handle_frame(Instant::START, BATCH, &body, |batch| {
                taken.extend(readings(&batch));
                true
            })
            .unwrap();
    }
    assert_eq!(taken, [1, 2, 3]);
    let stats = receiver.stats();
    assert_eq!((stats.accepted, stats.duplicates, stats.out_of_order), (3, 3, 1));
}

#[test]
fn a_receiver_that_is_not_accepting_keeps_its_position_and_closes_the_credit() {
    let (mut receiver, _) = open(0, 1, 10);
    receiver
        .handle_frame(Instant::START, BATCH, &batch(1, &[1]), |_| false)
        .unwrap();
    assert_eq!((receiver.received(), receiver.stats().refused), (0, 1));
    receiver.set_accepting(false);
    let frames = frames_of(|out| receiver.write_frames(out));
    let resume = Resume::decode(&frames[0].1).unwrap();
    assert_eq!(resume.ack.credit, 0);
}

#[test]
fn a_collector_restored_from_an_old_backup_reports_what_is_missing_and_goes_on() {
    let (receiver, offered) = open(10, 51, 60);
    assert_eq!(offered, Offered::Missing { first: 11, last: 50 });
    assert_eq!(
        (receiver.received(), receiver.committed(), receiver.stats().lost),
        (50, 50, 40)
    );
}

#[test]
fn a_journal_never_seen_begins_where_it_begins() {
    let (receiver, offered) = open(0, 51, 60);
    assert_eq!(
        (offered, receiver.stats().lost, receiver.received()),
        (Offered::Continues, 0, 50)
    );
}

#[test]
fn an_offer_that_readings_have_overtaken_is_no_set_back() {
    let (mut receiver, _) = open(0, 1, 3);
    let body = batch(1, &[1, 2, 3, 4]);
    receiver
        .handle_frame(Instant::START, BATCH, &body, |_| true)
        .unwrap();
    let old = Offer {
        journal: JOURNAL,
        first: 1,
        next: 3,
    };
    assert_eq!(receiver.handle_offer(&old), Ok(Offered::Continues));
    assert_eq!(receiver.received(), 4);
    // The same words in a new channel mean what they say.
    receiver.handle_down();
    assert_eq!(receiver.handle_offer(&old), Ok(Offered::SetBack));
}

#[test]
fn a_gateway_whose_disk_was_set_back_sends_nothing() {
    let (mut receiver, offered) = open(100, 1, 51);
    assert_eq!(offered, Offered::SetBack);
    let mut sender = Sender::new(JOURNAL, 1, 50);
    sender.handle_up(Instant::START);
    let frames = frames_of(|out| receiver.write_frames(out));
    let event = sender.handle_frame(Instant::START, RESUME, &frames[0].1).unwrap();
    assert_eq!(event, SenderEvent::SetBack { committed: 100 });
    assert_eq!(sender.next_range(), None);
}

#[test]
fn a_sender_goes_back_when_nothing_moves_and_waits_longer_each_time() {
    let mut sender = Sender::new(JOURNAL, 1, 10);
    sender.handle_up(Instant::START);
    let mut out = Vec::new();
    Resume {
        journal: JOURNAL,
        ack: Ack {
            received: 0,
            committed: 0,
            credit: 100,
        },
    }
    .put(&mut out);
    sender.handle_frame(Instant::START, RESUME, &out[3..]).unwrap();
    let mut now = Instant::START;
    let mut waits = Vec::new();
    for _ in 0..7 {
        assert_eq!(sender.next_range(), Some((1, 10)));
        sender.handle_sent(now, 10, 1000);
        assert_eq!(sender.next_range(), None);
        let deadline = sender.poll_timeout().unwrap();
        waits.push((deadline - now).as_secs());
        now = deadline;
        sender.handle_timeout(now);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
}

/// A sender whose collector has nothing yet, and the frame with which it acknowledges.
fn delivering(available: u64) -> (Sender, impl Fn(u64) -> Vec<u8>) {
    let ack = |received| Ack {
        received,
        committed: 0,
        credit: 1_000,
    };
    let mut sender = Sender::new(JOURNAL, 1, available);
    sender.handle_up(Instant::START);
    let resume = frames_of(|out| {
        Resume {
            journal: JOURNAL,
            ack: ack(0),
        }
        .put(out);
    });
    sender.handle_frame(Instant::START, RESUME, &resume[0].1).unwrap();
    (sender, move |received| {
        frames_of(|out| ack(received).put(out))[0].1.clone()
    })
}

#[test]
fn a_slow_way_makes_the_sender_patient() {
    let (mut sender, ack) = delivering(100);
    let mut now = Instant::START;
    // Each reading takes 900 ms to be acknowledged, which is nearly too long.
    for sequence in 1..=10 {
        sender.handle_sent(now, 1, 1000);
        now = now + Duration::from_millis(900);
        sender.handle_frame(now, ACK, &ack(sequence)).unwrap();
    }
    sender.handle_sent(now, 1, 1000);
    let patience = sender.poll_timeout().unwrap() - now;
    assert!(
        patience > Duration::from_millis(1_000) && patience < Duration::from_secs(3),
        "{patience:?}"
    );
}

#[test]
fn what_was_sent_twice_does_not_make_the_sender_impatient() {
    let (mut sender, ack) = delivering(100);
    let mut now = Instant::START;
    sender.handle_sent(now, 10, 1000);
    for _ in 0..3 {
        now = sender.poll_timeout().unwrap();
        sender.handle_timeout(now);
        sender.handle_sent(now, 10, 1000);
    }
    // The first copy's acknowledgement, 7 s late, just behind the fourth copy.
    now = now + Duration::from_millis(1);
    sender.handle_frame(now, ACK, &ack(5)).unwrap();
    assert_eq!(sender.poll_timeout().unwrap() - now, Duration::from_secs(8));
    // Something sent once tells how long the way takes.
    sender.handle_frame(now, ACK, &ack(10)).unwrap();
    sender.handle_sent(now, 10, 1000);
    now = now + Duration::from_millis(20);
    sender.handle_frame(now, ACK, &ack(20)).unwrap();
    sender.handle_sent(now, 10, 1000);
    assert_eq!(sender.poll_timeout().unwrap() - now, Duration::from_secs(1));
}

#[test]
fn a_new_channel_begins_with_an_empty_window() {
    let (mut sender, _) = delivering(100);
    while sender.next_range().is_some() {
        sender.handle_sent(Instant::START, 1, 64 << 10);
    }
    sender.handle_down();
    sender.handle_up(Instant::START);
    let resume = frames_of(|out| {
        Resume {
            journal: JOURNAL,
            ack: Ack {
                received: 0,
                committed: 0,
                credit: 1_000,
            },
        }
        .put(out);
    });
    sender.handle_frame(Instant::START, RESUME, &resume[0].1).unwrap();
    assert_eq!(sender.next_range(), Some((1, 100)));
}

#[test]
fn frames_out_of_place_change_nothing() {
    let mut sender = Sender::new(JOURNAL, 1, 10);
    assert_eq!(
        sender.handle_frame(Instant::START, ACK, &[0; 24]),
        Err(DeliveryError::OutOfPlace { kind: ACK })
    );
    sender.handle_up(Instant::START);
    let mut out = Vec::new();
    Resume {
        journal: [1; 16],
        ack: Ack {
            received: 0,
            committed: 0,
            credit: 1,
        },
    }
    .put(&mut out);
    assert_eq!(
        sender.handle_frame(Instant::START, RESUME, &out[3..]),
        Err(DeliveryError::Journal)
    );
    assert_eq!(sender.state(), SenderState::Offering);
    let mut receiver = Receiver::new(ReceiverSettings::default(), JOURNAL, 0);
    let refused = receiver.handle_frame(Instant::START, BATCH, &batch(1, &[1]), |_| true);
    assert_eq!(refused, Err(DeliveryError::OutOfPlace { kind: BATCH }));
}

/// What can happen between two steps of the pair below.
#[derive(Clone, Debug)]
enum Step {
    /// The gateway's journal commits so many readings.
    Commit(u8),
    /// A frame is lost, doubled or overtaken on the way to the other side.
    Disturb { to_collector: bool, how: u8 },
    /// Time passes.
    Wait(u16),
    /// The sink makes everything it holds safe.
    SinkCommits,
    /// The sink closes or opens.
    Accept(bool),
    /// The channel breaks; both sides keep their memory.
    ChannelBreaks,
    /// The gateway restarts with what is on its disk.
    GatewayRestarts,
    /// The collector restarts with what its sink made safe.
    CollectorRestarts,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..40_u8).prop_map(Step::Commit),
        4 => (any::<bool>(), 0..3_u8).prop_map(|(to_collector, how)| Step::Disturb { to_collector, how }),
        4 => (0..3_000_u16).prop_map(Step::Wait),
        3 => Just(Step::SinkCommits),
        1 => any::<bool>().prop_map(Step::Accept),
        1 => Just(Step::ChannelBreaks),
        1 => Just(Step::GatewayRestarts),
        1 => Just(Step::CollectorRestarts),
    ]
}

/// A gateway and a collector with a bad pipe between them. Reading number n has the sequence n.
struct Pair {
    now: Instant,
    sender: Sender,
    receiver: Receiver,
    released: u64,
    available: u64,
    to_collector: VecDeque<(u8, Vec<u8>)>,
    to_gateway: VecDeque<(u8, Vec<u8>)>,
    /// What the sink holds, and how much of it is safe.
    sink: Vec<u64>,
    safe: usize,
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self {
            now: Instant::START,
            sender: Sender::new(JOURNAL, 1, 0),
            receiver: Receiver::new(ReceiverSettings { window: 64 }, JOURNAL, 0),
            released: 0,
            available: 0,
            to_collector: VecDeque::new(),
            to_gateway: VecDeque::new(),
            sink: Vec::new(),
            safe: 0,
        };
        pair.sender.handle_up(pair.now);
        pair
    }

    fn channel_breaks(&mut self) {
        self.to_collector.clear();
        self.to_gateway.clear();
        self.sender.handle_down();
        self.receiver.handle_down();
        self.sender.handle_up(self.now);
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Commit(count) => {
                self.available += u64::from(*count);
                self.sender
                    .handle_available(self.now, self.released + 1, self.available);
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
                self.receiver.handle_timeout(self.now);
            }
            Step::SinkCommits => {
                self.safe = self.sink.len();
                self.receiver.handle_committed(self.safe as u64);
            }
            Step::Accept(accepting) => self.receiver.set_accepting(*accepting),
            Step::ChannelBreaks => self.channel_breaks(),
            Step::GatewayRestarts => {
                self.sender = Sender::new(JOURNAL, self.released + 1, self.available);
                self.channel_breaks();
            }
            Step::CollectorRestarts => {
                self.sink.truncate(self.safe);
                self.receiver = Receiver::new(ReceiverSettings { window: 64 }, JOURNAL, self.safe as u64);
                self.channel_breaks();
            }
        }
    }

    /// Sends what may be sent and delivers one frame each way.
    fn run(&mut self) {
        if let Some((first, count)) = self.sender.next_range() {
            let count = count.min(7);
            let sent: Vec<u64> = (first..first + count).collect();
            self.to_collector.push_back((BATCH, batch(first, &sent)));
            self.sender.handle_sent(self.now, count, 1000);
        }
        self.to_collector
            .extend(frames_of(|out| self.sender.write_frames(out)));
        if let Some((kind, body)) = self.to_collector.pop_front() {
            if kind == OFFER {
                let offered = self
                    .receiver
                    .handle_offer(&Offer::decode(&body).unwrap())
                    .unwrap();
                assert_eq!(
                    offered,
                    Offered::Continues,
                    "nothing is lost and no disk is set back"
                );
            } else {
                // A batch from before the channel broke meets a receiver without an offer: refused.
                let sink = &mut self.sink;
                let _ = self.receiver.handle_frame(self.now, kind, &body, |batch| {
                    sink.extend(readings(&batch));
                    true
                });
            }
        }
        self.to_gateway
            .extend(frames_of(|out| self.receiver.write_frames(out)));
        if let Some((kind, body)) = self.to_gateway.pop_front()
            && let Ok(SenderEvent::Released { up_to }) = self.sender.handle_frame(self.now, kind, &body)
        {
            assert!(up_to <= self.safe as u64, "released before the sink made it safe");
            self.released = self.released.max(up_to);
        }
        let expected: Vec<u64> = (1..=self.sink.len() as u64).collect();
        assert_eq!(self.sink, expected, "each reading once and in order");
    }
}

proptest! {
    #[test]
    fn every_committed_reading_arrives_once_and_in_order(steps in prop::collection::vec((step(), 0..6_u8), 1..120)) {
        let mut pair = Pair::new();
        for (step, runs) in &steps {
            pair.apply(step);
            for _ in 0..*runs {
                pair.run();
            }
        }
        // The network heals: everything must come through in bounded time.
        pair.apply(&Step::Accept(true));
        for _ in 0..2_000 {
            pair.apply(&Step::Wait(500));
            pair.run();
            pair.apply(&Step::SinkCommits);
            if pair.released == pair.available {
                break;
            }
        }
        prop_assert_eq!(pair.released, pair.available);
        prop_assert_eq!(pair.sink.len() as u64, pair.available);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(body: Vec<u8>) {
        let _ = (Offer::decode(&body), Resume::decode(&body), Ack::decode(&body), Lost::decode(&body));
        if let Ok(batch) = Batch::decode(&body) {
            prop_assert!(batch.without_first(batch.count).is_none());
        }
    }
}
