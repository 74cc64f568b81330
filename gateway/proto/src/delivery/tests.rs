use std::{collections::VecDeque, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{channel::frames, link::Class, node::Copied, time::Instant, wire::put_bytes_varint};

mod pair;

const JOURNAL: JournalId = [9; 16];
const LANE: Class = Class::Normal;
const NOBODY_ABSENT: PerLane<bool> = PerLane([false; 3]);

fn frames_of(write: impl FnOnce(&mut Vec<u8>)) -> Vec<(u8, Vec<u8>)> {
    let mut plaintext = Vec::new();
    write(&mut plaintext);
    frames(&plaintext)
        .map(|frame| frame.map(|(kind, body)| (kind, body.to_vec())))
        .collect::<Result<_, _>>()
        .unwrap()
}

fn batch(first: u64, readings: &[u64]) -> Vec<u8> {
    batch_of(LANE, first, readings)
}

fn batch_of(lane: Class, first: u64, readings: &[u64]) -> Vec<u8> {
    let frames = frames_of(|out| {
        let writer = BatchWriter::begin(out, lane, first);
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

fn offer(first: u64, next: u64, confirmed: u64) -> Offer {
    Offer {
        lane: LANE,
        journal: JOURNAL,
        first,
        next,
        confirmed,
        term: Term { run: 1, number: 1 },
    }
}

fn receiver(committed: u64) -> Receiver {
    Receiver::new(ReceiverSettings::default(), LANE, JOURNAL, committed)
}

/// A receiver that has committed as much, and was offered a journal by a gateway that knows it.
fn open(committed: u64, first: u64, next: u64) -> (Receiver, Offered) {
    let mut receiver = receiver(committed);
    let offered = receiver.handle_offer(&offer(first, next, committed)).unwrap();
    (receiver, offered)
}

/// A sender whose lanes have nothing but this one, which has the sequences from `first` to `available`.
fn sender(first: u64, available: u64, confirmed: u64) -> Sender {
    let mut lanes = PerLane::from_fn(|lane| LaneSettings {
        journal: [lane.bits(); 16],
        first: 1,
        available: 0,
        confirmed: 0,
    });
    lanes[LANE] = LaneSettings {
        journal: JOURNAL,
        first,
        available,
        confirmed,
    };
    Sender::new(&lanes, Shares::default())
}

fn ack(received: u64, committed: u64, credit: u64) -> Ack {
    Ack {
        lane: LANE,
        received,
        committed,
        credit,
    }
}

/// The body of a Resume with these numbers.
fn resume(ack: Ack) -> Vec<u8> {
    resume_in(1, ack)
}

/// The same in answer to an Offer of that term.
fn resume_in(term: u32, ack: Ack) -> Vec<u8> {
    let journal = if ack.lane == LANE {
        JOURNAL
    } else {
        [ack.lane.bits(); 16]
    };
    frames_of(|out| Resume { journal, ack, term }.put(out))
        .remove(0)
        .1
}

fn next_range(sender: &Sender) -> Option<(u64, u64)> {
    let next = sender.next(&NOBODY_ABSENT)?;
    assert_eq!(next.lane, LANE);
    Some((next.first, next.count))
}

fn gap(first: u64, last: u64, reason: LostReason) -> Lost {
    Lost {
        lane: LANE,
        first,
        last,
        reason,
        captured: None,
    }
}

/// What a journal says of what every collector had confirmed.
fn released(last: u64) -> Copied {
    Copied::Lost {
        last,
        reason: LostReason::Released,
        captured: None,
    }
}

fn body_of(lost: &Lost) -> Vec<u8> {
    frames_of(|out| lost.put(out)).remove(0).1
}

fn sent_gaps(sender: &mut Sender) -> Vec<Lost> {
    let frames = frames_of(|out| sender.write_frames(LANE, out));
    let lost = frames.iter().filter(|(kind, _)| *kind == LOST);
    lost.map(|(_, body)| Lost::decode(body).unwrap()).collect()
}

#[test]
fn frames_come_back() {
    let offer = offer(3, 9, 2);
    let ack = ack(9, 7, 100);
    let resume = Resume {
        journal: JOURNAL,
        ack,
        term: 7,
    };
    let lost = Lost {
        lane: Class::Bulk,
        captured: Some((1_767_225_600_000, 1_767_225_700_000)),
        ..gap(4, 8, LostReason::Expired)
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
    let lanes: Vec<_> = frames.iter().map(|(_, body)| lane_of(body).unwrap()).collect();
    assert_eq!(lanes, [LANE, LANE, LANE, Class::Bulk]);
    let body = batch(5, &[50, 60]);
    let decoded = Batch::decode(&body).unwrap();
    assert_eq!(
        (decoded.lane, decoded.first, readings(&decoded)),
        (LANE, 5, vec![50, 60])
    );
    assert_eq!(readings(&decoded.without_first(1).unwrap()), [60]);
    assert_eq!(decoded.without_first(2), None);
}

#[test]
fn contradictory_numbers_are_refused() {
    let refused = |write: &dyn Fn(&mut Vec<u8>), decode: &dyn Fn(&[u8]) -> Option<DeliveryError>| {
        let body = frames_of(|out| write(out)).remove(0).1;
        assert!(matches!(decode(&body), Some(DeliveryError::Range { .. })));
    };
    refused(&|out| offer(9, 3, 0).put(out), &|body| Offer::decode(body).err());
    refused(&|out| ack(3, 4, 0).put(out), &|body| Ack::decode(body).err());
    refused(
        &|out| {
            Lost {
                captured: Some((9, 3)),
                ..gap(1, 2, LostReason::Corrupt)
            }
            .put(out);
        },
        &|body| Lost::decode(body).err(),
    );
    assert!(Batch::decode(&[0; 11]).is_err());
    assert!(Offer::decode(&[3; 41]).is_err(), "there is no fourth lane");
}

#[test]
fn a_receiver_takes_only_the_next_reading() {
    let (mut receiver, offered) = open(0, 1, 10);
    assert_eq!(offered, Offered::Continues);
    let mut taken = Vec::new();
    for (first, sent) in [(1, vec![1, 2]), (4, vec![4]), (1, vec![1, 2, 3]), (3, vec![3])] {
        let body = batch(first, &sent);
        receiver
            .handle_frame(Instant::START, BATCH, &body, |arrival| {
                if let Arrival::Readings(batch) = arrival {
                    taken.extend(readings(&batch));
                }
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
fn a_gap_is_handed_on_in_its_place_and_confirmed_like_readings() {
    let (mut receiver, _) = open(0, 1, 100);
    let mut arrived = Vec::new();
    let lost = |first, last| body_of(&gap(first, last, LostReason::Discarded));
    let frames = [
        (BATCH, batch(1, &[1, 2])),
        // Before its turn, in its turn, again, and grown by what was discarded since.
        (LOST, lost(5, 9)),
        (LOST, lost(3, 9)),
        (LOST, lost(3, 9)),
        (LOST, lost(3, 12)),
        (BATCH, batch(13, &[13])),
    ];
    for (kind, body) in &frames {
        receiver
            .handle_frame(Instant::START, *kind, body, |arrival| {
                arrived.push(match arrival {
                    Arrival::Readings(batch) => (batch.first, batch.first + batch.count - 1),
                    Arrival::Gap(lost) => (lost.first, lost.last),
                });
                true
            })
            .unwrap();
    }
    assert_eq!(arrived, [(1, 2), (3, 9), (10, 12), (13, 13)]);
    let stats = receiver.stats();
    assert_eq!((stats.accepted, stats.lost.discarded, stats.gaps), (3, 10, 2));
    assert_eq!((receiver.received(), receiver.committed()), (13, 0));
    receiver.handle_committed(9);
    assert_eq!(receiver.committed(), 9, "the gap's record is safe");
}

#[test]
fn a_gap_that_the_sinks_have_no_room_for_is_told_again() {
    let (mut receiver, _) = open(0, 1, 100);
    let body = body_of(&gap(1, 9, LostReason::Expired));
    for room in [false, true] {
        receiver
            .handle_frame(Instant::START, LOST, &body, |_| room)
            .unwrap();
        assert_eq!(receiver.received(), if room { 9 } else { 0 });
    }
    assert_eq!(receiver.stats().lost.expired, 9, "counted once");
}

#[test]
fn a_frame_of_another_lane_changes_nothing() {
    let (mut receiver, _) = open(0, 1, 100);
    let alarm = batch_of(Class::Alarm, 1, &[1]);
    let refused = receiver.handle_frame(Instant::START, BATCH, &alarm, |_| true);
    assert_eq!(refused, Err(DeliveryError::Journal));
    let alarm = Offer {
        lane: Class::Alarm,
        ..offer(1, 2, 0)
    };
    assert_eq!(receiver.handle_offer(&alarm), Err(DeliveryError::Journal));
    assert_eq!(receiver.received(), 0);
}

#[test]
fn a_collector_restored_from_an_old_backup_is_told_what_it_had_and_what_is_gone() {
    let mut receiver = receiver(10);
    assert_eq!(
        receiver.handle_offer(&offer(51, 60, 55)),
        Ok(Offered::Forgotten {
            confirmed: 55,
            received: 10
        })
    );
    let mut sender = sender(51, 59, 55);
    sender.handle_up(Instant::START);
    let frames = frames_of(|out| receiver.write_frames(out));
    let event = sender.handle_frame(Instant::START, RESUME, &frames[0].1).unwrap();
    assert_eq!(
        event,
        SenderEvent::CollectorSetBack {
            lane: LANE,
            confirmed: 55,
            committed: 10
        }
    );
    assert_eq!(
        next_range(&sender),
        Some((11, 49)),
        "whatever the journal has of it"
    );
    sender.handle_lost(Instant::START, LANE, released(50));
    assert_eq!(sent_gaps(&mut sender), [gap(11, 50, LostReason::Released)]);
    assert_eq!(next_range(&sender), Some((51, 9)), "what is there is sent again");
    let gap = body_of(&gap(11, 50, LostReason::Released));
    receiver
        .handle_frame(Instant::START, LOST, &gap, |_| true)
        .unwrap();
    assert_eq!((receiver.received(), receiver.stats().lost.released), (50, 40));
    // It is not told twice what it knows by now.
    sender.handle_down();
    sender.handle_up(Instant::START);
    let again = Resume {
        term: 2,
        ..Resume::decode(&frames[0].1).unwrap()
    };
    let again = frames_of(|out| again.put(out)).remove(0).1;
    let event = sender.handle_frame(Instant::START, RESUME, &again).unwrap();
    assert_eq!(
        event,
        SenderEvent::Released {
            lane: LANE,
            up_to: 10
        }
    );
}

#[test]
fn a_gap_that_was_lost_on_the_way_is_told_again_and_counted_once() {
    let mut sender = sender(11, 59, 55);
    sender.handle_up(Instant::START);
    sender
        .handle_frame(Instant::START, RESUME, &resume(ack(10, 10, 1_000)))
        .unwrap();
    for _ in 0..2 {
        sender.handle_lost(Instant::START, LANE, released(40));
        assert_eq!(sent_gaps(&mut sender), [gap(11, 40, LostReason::Released)]);
        assert_eq!(next_range(&sender), Some((41, 19)));
        let deadline = deadline(&mut sender);
        sender.handle_timeout(deadline);
        assert_eq!(next_range(&sender), Some((11, 49)));
    }
    assert_eq!(sender.lanes()[LANE].stats.lost, 30);
}

#[test]
fn a_collector_that_was_set_back_is_not_taken_for_a_new_one_before_it_was_told() {
    // It had confirmed 2 of 2 and lost both; the first channel ends before it is told of the gap.
    let mut receiver = receiver(0);
    let mut sender = sender(3, 2, 2);
    for _ in 0..2 {
        sender.handle_up(Instant::START);
        let offers = frames_of(|out| sender.write_frames(LANE, out));
        let offer = Offer::decode(&offers[0].1).unwrap();
        let offered = receiver.handle_offer(&offer).unwrap();
        assert_eq!(
            offered,
            Offered::Forgotten {
                confirmed: 2,
                received: 0
            }
        );
        let frames = frames_of(|out| receiver.write_frames(out));
        sender.handle_frame(Instant::START, RESUME, &frames[0].1).unwrap();
        sender.handle_down();
        receiver.handle_down();
    }
}

#[test]
fn a_journal_never_seen_begins_where_it_begins() {
    let mut receiver = receiver(0);
    assert_eq!(receiver.handle_offer(&offer(51, 60, 0)), Ok(Offered::Continues));
    assert_eq!((receiver.stats().lost.total(), receiver.received()), (0, 50));
}

#[test]
fn a_collector_that_remembers_nothing_begins_with_what_there_is() {
    let settings = ReceiverSettings {
        remembers: false,
        ..ReceiverSettings::default()
    };
    let mut receiver = Receiver::new(settings, LANE, JOURNAL, 0);
    assert_eq!(receiver.handle_offer(&offer(51, 60, 50)), Ok(Offered::Continues));
    assert_eq!(receiver.received(), 50);
}

#[test]
fn an_offer_that_readings_have_overtaken_is_no_set_back() {
    let (mut receiver, _) = open(0, 1, 3);
    let body = batch(1, &[1, 2, 3, 4]);
    receiver
        .handle_frame(Instant::START, BATCH, &body, |_| true)
        .unwrap();
    let old = offer(1, 3, 0);
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
    let mut sender = sender(1, 50, 0);
    sender.handle_up(Instant::START);
    let frames = frames_of(|out| receiver.write_frames(out));
    let event = sender.handle_frame(Instant::START, RESUME, &frames[0].1).unwrap();
    assert_eq!(
        event,
        SenderEvent::SetBack {
            lane: LANE,
            committed: 100
        }
    );
    assert_eq!(next_range(&sender), None);
}

/// A sender whose collector has nothing of the lane yet.
fn delivering(available: u64) -> Sender {
    let mut sender = sender(1, available, 0);
    sender.handle_up(Instant::START);
    sender
        .handle_frame(Instant::START, RESUME, &resume(ack(0, 0, 1_000)))
        .unwrap();
    sender
}

/// The body of an Ack that confirms nothing.
fn received(received: u64) -> Vec<u8> {
    frames_of(|out| ack(received, 0, 1_000).put(out)).remove(0).1
}

/// Returns when the lane wants to be called; the others wait for an answer to their Offers.
fn deadline(sender: &mut Sender) -> Instant {
    for lane in [Class::Alarm, Class::Bulk] {
        let nothing = Ack {
            lane,
            ..ack(0, 0, 1_000)
        };
        if sender.lanes()[lane].state == SenderState::Offering {
            sender
                .handle_frame(Instant::START, RESUME, &resume(nothing))
                .unwrap();
        }
    }
    sender.poll_timeout().unwrap()
}

#[test]
fn a_sender_goes_back_when_nothing_moves_and_waits_longer_each_time() {
    let mut sender = delivering(10);
    let mut now = Instant::START;
    let mut waits = Vec::new();
    for _ in 0..7 {
        assert_eq!(next_range(&sender), Some((1, 10)));
        sender.handle_sent(now, LANE, 10, 1000);
        assert_eq!(next_range(&sender), None);
        let deadline = deadline(&mut sender);
        waits.push((deadline - now).as_secs());
        now = deadline;
        sender.handle_timeout(now);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
}

#[test]
fn a_slow_way_makes_the_sender_patient() {
    let mut sender = delivering(100);
    let mut now = Instant::START;
    // Each reading takes 900 ms to be acknowledged, which is nearly too long.
    for sequence in 1..=10 {
        sender.handle_sent(now, LANE, 1, 1000);
        now = now + Duration::from_millis(900);
        sender.handle_frame(now, ACK, &received(sequence)).unwrap();
    }
    sender.handle_sent(now, LANE, 1, 1000);
    let patience = deadline(&mut sender) - now;
    assert!(
        patience > Duration::from_millis(1_000) && patience < Duration::from_secs(3),
        "{patience:?}"
    );
}

#[test]
fn what_was_sent_twice_does_not_make_the_sender_impatient() {
    let mut sender = delivering(100);
    let mut now = Instant::START;
    sender.handle_sent(now, LANE, 10, 1000);
    for _ in 0..3 {
        now = deadline(&mut sender);
        sender.handle_timeout(now);
        sender.handle_sent(now, LANE, 10, 1000);
    }
    // The first copy's acknowledgement, 7 s late, just behind the fourth copy.
    now = now + Duration::from_millis(1);
    sender.handle_frame(now, ACK, &received(5)).unwrap();
    assert_eq!(deadline(&mut sender) - now, Duration::from_secs(8));
    // Something sent once tells how long the way takes.
    sender.handle_frame(now, ACK, &received(10)).unwrap();
    sender.handle_sent(now, LANE, 10, 1000);
    now = now + Duration::from_millis(20);
    sender.handle_frame(now, ACK, &received(20)).unwrap();
    sender.handle_sent(now, LANE, 10, 1000);
    assert_eq!(deadline(&mut sender) - now, Duration::from_secs(1));
}

#[test]
fn a_new_channel_begins_with_an_empty_window() {
    let mut sender = delivering(100);
    while next_range(&sender).is_some() {
        sender.handle_sent(Instant::START, LANE, 1, 64 << 10);
    }
    assert!(sender.awaits_answer());
    sender.handle_down();
    assert!(!sender.awaits_answer());
    sender.handle_up(Instant::START);
    // What answers an Offer of before, or was on its way then, says nothing about the new term.
    for (kind, old) in [(RESUME, resume(ack(50, 50, 1_000))), (ACK, received(40))] {
        assert_eq!(
            sender.handle_frame(Instant::START, kind, &old),
            Ok(SenderEvent::None)
        );
    }
    assert_eq!(next_range(&sender), None);
    sender
        .handle_frame(Instant::START, RESUME, &resume_in(2, ack(0, 0, 1_000)))
        .unwrap();
    assert_eq!(next_range(&sender), Some((1, 100)));
}

#[test]
fn frames_out_of_place_change_nothing() {
    let mut sender = sender(1, 10, 0);
    assert_eq!(
        sender.handle_frame(Instant::START, ACK, &received(0)),
        Err(DeliveryError::OutOfPlace { kind: ACK })
    );
    assert_eq!(
        sender.handle_frame(Instant::START, RESUME, &resume_in(0, ack(0, 0, 1))),
        Err(DeliveryError::OutOfPlace { kind: RESUME })
    );
    sender.handle_up(Instant::START);
    let other = frames_of(|out| {
        Resume {
            journal: [1; 16],
            ack: ack(0, 0, 1),
            term: 1,
        }
        .put(out);
    });
    assert_eq!(
        sender.handle_frame(Instant::START, RESUME, &other[0].1),
        Err(DeliveryError::Journal)
    );
    assert_eq!(sender.lanes()[LANE].state, SenderState::Offering);
    let refused = receiver(0).handle_frame(Instant::START, BATCH, &batch(1, &[1]), |_| true);
    assert_eq!(refused, Err(DeliveryError::OutOfPlace { kind: BATCH }));
}

/// A sender whose lanes have so many readings each, and whose collector takes anything.
fn of_three(available: PerLane<u64>) -> Sender {
    let lanes = PerLane::from_fn(|lane| LaneSettings {
        journal: if lane == LANE { JOURNAL } else { [lane.bits(); 16] },
        first: 1,
        available: available[lane],
        confirmed: 0,
    });
    let mut sender = Sender::new(&lanes, Shares::default());
    sender.handle_up(Instant::START);
    for lane in Class::ALL {
        let ack = Ack {
            lane,
            ..ack(0, 0, 60_000)
        };
        sender.handle_frame(Instant::START, RESUME, &resume(ack)).unwrap();
    }
    sender
}

#[test]
fn an_alarm_overtakes_a_backlog_though_the_window_is_full_of_it() {
    let mut sender = of_three(PerLane([0, 50_000, 50_000]));
    let mut sent = 0;
    while let Some(next) = sender.next(&NOBODY_ABSENT) {
        assert_eq!(next.lane, Class::Normal);
        sender.handle_sent(Instant::START, next.lane, 500, 64 << 10);
        sent += 1;
    }
    assert_eq!(sent, 4, "a window");
    sender.handle_available(Instant::START, Class::Alarm, 1, 1);
    let next = sender.next(&NOBODY_ABSENT);
    assert_eq!(
        next,
        Some(Allowed {
            lane: Class::Alarm,
            first: 1,
            count: 1
        })
    );
}

#[test]
fn a_lane_that_waits_for_its_disk_holds_back_no_other() {
    let sender = of_three(PerLane([5, 5, 5]));
    let absent = PerLane([true, false, false]);
    assert_eq!(sender.next(&absent).map(|next| next.lane), Some(Class::Normal));
    assert_eq!(sender.next(&PerLane([true; 3])), None);
}

#[test]
fn a_flood_of_alarms_starves_nobody() {
    let mut sender = of_three(PerLane([50_000; 3]));
    let mut now = Instant::START;
    let mut bytes = PerLane::<usize>::default();
    let mut sent_up_to = PerLane::<u64>::default();
    let mut in_flight = VecDeque::new();
    for _ in 0..500 {
        // The window is always as full as it may be, with what only alarms may send, too.
        while let Some(Allowed { lane, .. }) = sender.next(&NOBODY_ABSENT) {
            sender.handle_sent(now, lane, 50, 16 << 10);
            bytes[lane] += 16 << 10;
            sent_up_to[lane] += 50;
            in_flight.push_back((lane, sent_up_to[lane]));
        }
        now = now + Duration::from_millis(5);
        let (lane, received) = in_flight.pop_front().expect("the window is not empty");
        let ack = Ack {
            lane,
            ..ack(received, received, 60_000)
        };
        let body = frames_of(|out| ack.put(out)).remove(0).1;
        sender.handle_frame(now, ACK, &body).unwrap();
    }
    let all: usize = bytes.0.iter().sum();
    assert!(bytes[Class::Alarm] > all * 3 / 4, "{bytes:?}");
    assert!(bytes[Class::Normal] + (128 << 10) > all / 8, "{bytes:?}");
    assert!(bytes[Class::Bulk] + (128 << 10) > all / 16, "{bytes:?}");
}

#[test]
fn a_lane_set_back_leaves_the_others_alone() {
    let mut sender = of_three(PerLane([5, 5, 5]));
    sender.handle_down();
    sender.handle_up(Instant::START);
    for (lane, received) in [(Class::Alarm, 0), (Class::Normal, 9), (Class::Bulk, 2)] {
        let ack = Ack {
            lane,
            ..ack(received, received, 100)
        };
        sender
            .handle_frame(Instant::START, RESUME, &resume_in(2, ack))
            .unwrap();
    }
    let states = sender.lanes().map(|lane| lane.state);
    assert_eq!(
        states.0,
        [
            SenderState::Delivering,
            SenderState::SetBack,
            SenderState::Delivering
        ]
    );
    assert_eq!(
        sender.next(&NOBODY_ABSENT).map(|next| next.lane),
        Some(Class::Alarm)
    );
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(body: Vec<u8>) {
        let _ = (Offer::decode(&body), Resume::decode(&body), Ack::decode(&body), Lost::decode(&body));
        if let Ok(batch) = Batch::decode(&body) {
            prop_assert!(batch.without_first(batch.count).is_none());
        }
    }

    #[test]
    fn any_frame_comes_back(lane in 0..3_u8, journal: [u8; 16], numbers in prop::array::uniform3(1..1_u64 << 60), code in 1..=4_u8, run: u64, term: u32) {
        let lane = Class::from_bits(lane).unwrap();
        let mut sorted = numbers;
        sorted.sort_unstable();
        let [low, middle, high] = sorted;
        let offer = Offer { lane, journal, first: low, next: high, confirmed: middle, term: Term { run, number: term } };
        let ack = Ack { lane, received: high, committed: low, credit: middle };
        let resume = Resume { journal, ack, term };
        let reason = LostReason::from_code(code).unwrap();
        let lost = Lost { lane, first: low, last: high, reason, captured: Some((low, middle)) };
        let frames = frames_of(|out| {
            offer.put(out);
            ack.put(out);
            resume.put(out);
            lost.put(out);
        });
        prop_assert_eq!(Offer::decode(&frames[0].1), Ok(offer));
        prop_assert_eq!(Ack::decode(&frames[1].1), Ok(ack));
        prop_assert_eq!(Resume::decode(&frames[2].1), Ok(resume));
        prop_assert_eq!(Lost::decode(&frames[3].1), Ok(lost));
    }
}
