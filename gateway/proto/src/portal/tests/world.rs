//! Two sessions, and a way between them that loses packets, ends channels and restarts nodes.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use crate::{
    entropy::Entropy,
    portal::{
        BEGUN, Item, Open, PACKET, ResetReason, Role, Session, SessionEvent, SessionSettings, SessionState,
        StreamId, StreamSink, StreamState, TAKEN,
        frame::{put_packet, put_taken},
    },
    time::Instant,
};

/// A wish for a stream to an outlet.
fn to(outlet: &str) -> Open<'_> {
    Open {
        outlet,
        ..Open::default()
    }
}

/// Random numbers that a seed fixes (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

impl Entropy for Dice {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.next().to_le_bytes()[0];
        }
    }
}

/// What came out of the streams of one side, and is not consumed.
#[derive(Default)]
struct Arrived {
    bytes: BTreeMap<StreamId, Vec<u8>>,
    unconsumed: BTreeMap<StreamId, usize>,
}

impl StreamSink for Arrived {
    fn data(&mut self, stream: StreamId, bytes: &[u8]) {
        self.bytes.entry(stream).or_default().extend_from_slice(bytes);
        *self.unconsumed.entry(stream).or_default() += bytes.len();
    }
}

/// What one side knows of its streams.
struct Side {
    session: Session,
    arrived: Arrived,
    /// Bytes written, by stream.
    written: BTreeMap<StreamId, usize>,
    events: Vec<SessionEvent>,
    /// Plaintexts on their way to the other side.
    outgoing: Vec<Vec<u8>>,
}

impl Side {
    fn new(role: Role, settings: SessionSettings) -> Self {
        Self {
            session: Session::new(role, settings),
            arrived: Arrived::default(),
            written: BTreeMap::new(),
            events: Vec::new(),
            outgoing: Vec::new(),
        }
    }

    fn flush(&mut self, now: Instant) {
        let mut frames = Vec::new();
        while self.session.write_frames(now, &mut frames) {
            assert!(frames.len() <= Session::RECORD_MAX);
            self.outgoing.push(std::mem::take(&mut frames));
        }
        assert!(!self.session.has_frames());
    }

    fn take(&mut self, now: Instant, dice: &mut Dice, plaintext: &[u8]) {
        let mut rest = plaintext;
        while let [kind, high, low, body @ ..] = rest {
            let (body, later) = body.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            self.session
                .handle_frame(now, dice, *kind, body, &mut self.arrived)
                .expect("the other side keeps to the rules");
            rest = later;
        }
        while let Some(event) = self.session.poll_event() {
            self.events.push(event);
        }
    }

    fn consume(&mut self, dice: &mut Dice) {
        for (stream, left) in &mut self.arrived.unconsumed {
            let count = usize::try_from(dice.below(*left as u64 + 1)).unwrap();
            self.session.handle_consumed(*stream, count);
            *left -= count;
        }
        while let Some(event) = self.session.poll_event() {
            self.events.push(event);
        }
    }
}

const SETTINGS: SessionSettings = SessionSettings {
    streams_max: 8,
    window: 50_000,
    window_max: 120_000,
    growth_max: 100_000,
    resume_within: Duration::from_secs(60),
};

/// The byte at a place of a stream, so that what arrives can be told.
fn pattern(stream: StreamId, at: usize, role: Role) -> u8 {
    let seed = u64::from(stream.number()) << 33 | u64::from(role == Role::Inlet) << 32 | at as u64;
    Dice(seed).next().to_le_bytes()[0]
}

struct World {
    now: Instant,
    dice: Dice,
    inlet: Side,
    outlet: Side,
    is_up: bool,
    loss_one_in: u64,
}

impl World {
    fn new(seed: u64, loss_one_in: u64) -> Self {
        let mut world = Self {
            now: Instant::START,
            dice: Dice(seed),
            inlet: Side::new(Role::Inlet, SETTINGS),
            outlet: Side::new(Role::Outlet, SETTINGS),
            is_up: false,
            loss_one_in,
        };
        world.connect();
        world
    }

    fn connect(&mut self) {
        self.is_up = true;
        self.inlet.session.prepare(&mut self.dice);
        self.inlet.session.handle_up(self.now);
        self.outlet.session.handle_up(self.now);
    }

    fn cut(&mut self) {
        self.is_up = false;
        for side in [&mut self.inlet, &mut self.outlet] {
            side.session.handle_down(self.now);
            side.outgoing.clear();
        }
    }

    /// Lets time pass, and carries what there is to carry.
    fn turn(&mut self) {
        self.now = self.now + Duration::from_millis(20);
        for side in [&mut self.inlet, &mut self.outlet] {
            side.session.handle_timeout(self.now);
            if self.is_up {
                side.flush(self.now);
            }
        }
        for (to_outlet, plaintext) in self.on_their_way() {
            if self.loss_one_in > 0 && self.dice.below(self.loss_one_in) == 0 {
                continue;
            }
            let side = if to_outlet {
                &mut self.outlet
            } else {
                &mut self.inlet
            };
            side.take(self.now, &mut self.dice, &plaintext);
        }
        self.accept();
        self.inlet.consume(&mut self.dice);
        self.outlet.consume(&mut self.dice);
    }

    fn on_their_way(&mut self) -> Vec<(bool, Vec<u8>)> {
        let to_outlet = std::mem::take(&mut self.inlet.outgoing).into_iter();
        let to_inlet = std::mem::take(&mut self.outlet.outgoing).into_iter();
        to_outlet
            .map(|plaintext| (true, plaintext))
            .chain(to_inlet.map(|plaintext| (false, plaintext)))
            .collect()
    }

    fn accept(&mut self) {
        let asked: Vec<StreamId> = self
            .outlet
            .session
            .streams()
            .filter(|(_, state)| *state == StreamState::Opening)
            .map(|(stream, _)| stream)
            .collect();
        for stream in asked {
            self.outlet.session.accept(stream);
        }
    }

    /// Writes to a stream on one side as much as goes, up to `count` bytes.
    fn write(&mut self, role: Role, stream: StreamId, count: usize) -> usize {
        let side = match role {
            Role::Inlet => &mut self.inlet,
            Role::Outlet => &mut self.outlet,
        };
        let at = side.written.entry(stream).or_default();
        let bytes: Vec<u8> = (*at..*at + count).map(|at| pattern(stream, at, role)).collect();
        let written = side.session.write(stream, &bytes);
        *at += written;
        written
    }

    /// What arrived is what was written, from the beginning.
    fn check(&self) {
        for (from, to, role) in [
            (&self.inlet, &self.outlet, Role::Inlet),
            (&self.outlet, &self.inlet, Role::Outlet),
        ] {
            for (stream, bytes) in &to.arrived.bytes {
                assert!(bytes.len() <= from.written.get(stream).copied().unwrap_or(0));
                let wrong = bytes
                    .iter()
                    .enumerate()
                    .position(|(at, byte)| *byte != pattern(*stream, at, role));
                assert_eq!(wrong, None, "stream {stream}");
            }
            assert!(
                to.arrived
                    .unconsumed
                    .values()
                    .all(|left| *left as u64 <= SETTINGS.window_max)
            );
            let windows = to.session.streams().len() as u64 * SETTINGS.window + SETTINGS.growth_max;
            assert!(to.arrived.unconsumed.values().sum::<usize>() as u64 <= windows);
        }
    }
}

/// Two streams carry `total` bytes each way; returns the world at the end.
fn carry(mut world: World, total: usize, mut trouble: impl FnMut(&mut World, u64)) -> World {
    let streams: Vec<StreamId> = (0..2)
        .map(|_| world.inlet.session.open(to("plc")).expect("there is room"))
        .collect();
    for turn in 0..20_000 {
        world.turn();
        trouble(&mut world, turn);
        for stream in &streams {
            for role in [Role::Inlet, Role::Outlet] {
                let side = if role == Role::Inlet {
                    &world.inlet
                } else {
                    &world.outlet
                };
                let left = total - side.written.get(stream).copied().unwrap_or(0);
                let count = usize::try_from(world.dice.below(30_000)).unwrap().min(left);
                world.write(role, *stream, count);
                if left == 0 {
                    let side = if role == Role::Inlet {
                        &mut world.inlet
                    } else {
                        &mut world.outlet
                    };
                    side.session.finish(*stream);
                }
            }
        }
        world.check();
        let over = |side: &Side| side.session.streams().len() == 0 && side.session.bytes_kept() == 0;
        if turn > 10 && over(&world.inlet) && over(&world.outlet) && world.is_up {
            return world;
        }
    }
    panic!("not over: {:?} {:?}", world.inlet.session, world.outlet.session);
}

fn all_arrived(world: &World, total: usize) {
    for side in [&world.inlet, &world.outlet] {
        assert_eq!(side.arrived.bytes.len(), 2);
        assert!(side.arrived.bytes.values().all(|bytes| bytes.len() == total));
        let over = |event: &&SessionEvent| matches!(event, SessionEvent::Over { .. });
        assert_eq!(side.events.iter().filter(over).count(), 2, "{:?}", side.events);
        assert!(
            !side
                .events
                .iter()
                .any(|event| matches!(event, SessionEvent::Reset { .. }))
        );
        assert_eq!(side.session.bytes_kept(), 0);
    }
}

#[test]
fn streams_carry_bytes_both_ways_and_end() {
    let world = carry(World::new(1, 0), 400_000, |_, _| {});
    all_arrived(&world, 400_000);
    let stats = world.inlet.session.stats();
    assert_eq!((stats.streams, stats.lost, stats.went_back), (2, 0, 0));
    assert_eq!((stats.bytes_sent, stats.bytes_received), (800_000, 800_000));
}

#[test]
fn a_node_that_was_restarted_is_known_by_what_it_has_forgotten() {
    for restarted in [Role::Inlet, Role::Outlet] {
        let mut world = World::new(7, 0);
        let stream = world.inlet.session.open(to("plc")).expect("there is room");
        (0..5).for_each(|_| world.turn());
        world.write(Role::Inlet, stream, 10_000);
        (0..5).for_each(|_| world.turn());
        assert_eq!(world.outlet.arrived.bytes[&stream].len(), 10_000);
        world.cut();
        let fresh = Side::new(restarted, SETTINGS);
        match restarted {
            Role::Inlet => world.inlet = fresh,
            Role::Outlet => world.outlet = fresh,
        }
        world.connect();
        (0..5).for_each(|_| world.turn());
        let other = match restarted {
            Role::Inlet => &world.outlet,
            Role::Outlet => &world.inlet,
        };
        let reason = ResetReason::Lost;
        assert!(
            other.events.contains(&SessionEvent::Reset { stream, reason }),
            "{:?}",
            other.events
        );
        assert_eq!(other.session.stats().lost, 1);
        // And everything works again.
        let stream = world.inlet.session.open(to("plc")).expect("there is room");
        world.outlet.arrived = Arrived::default();
        world.inlet.written.clear();
        (0..5).for_each(|_| world.turn());
        world.write(Role::Inlet, stream, 10_000);
        (0..5).for_each(|_| world.turn());
        assert_eq!(world.outlet.arrived.bytes[&stream].len(), 10_000);
    }
}

#[test]
fn streams_are_lost_when_no_channel_comes() {
    let mut world = World::new(3, 0);
    let stream = world.inlet.session.open(to("plc")).expect("there is room");
    (0..5).for_each(|_| world.turn());
    world.cut();
    let cut = world.now;
    for side in [&mut world.inlet, &mut world.outlet] {
        let at = cut + SETTINGS.resume_within;
        assert_eq!(side.session.poll_timeout(), Some(at));
        side.session.handle_timeout(at);
        let reason = ResetReason::Lost;
        assert_eq!(
            side.session.poll_event(),
            Some(SessionEvent::Reset { stream, reason })
        );
        assert_eq!(side.session.state(), SessionState::Down { since: None });
        assert_eq!(side.session.poll_timeout(), None);
    }
}

#[test]
fn both_sides_give_up_a_session_without_streams_too() {
    let mut world = World::new(9, 0);
    (0..5).for_each(|_| world.turn());
    let known = world.inlet.session.id();
    assert!(known.is_some() && known == world.outlet.session.id());
    world.cut();
    let cut = world.now;
    for side in [&mut world.inlet, &mut world.outlet] {
        // An attempt that fails is no channel; nor is a stream that waits for one.
        side.session.handle_down(cut + SETTINGS.resume_within / 2);
        let early = side.session.open(to("plc"));
        let at = cut + SETTINGS.resume_within;
        assert_eq!(side.session.poll_timeout(), Some(at));
        side.session.handle_timeout(at);
        assert_eq!(side.session.id(), None);
        assert_eq!(side.session.poll_timeout(), None);
        // The other side has not heard of it: it is the next session's.
        assert_eq!(side.session.poll_event(), None);
        assert_eq!(side.session.streams().len(), usize::from(early.is_some()));
    }
    world.connect();
    (0..5).for_each(|_| world.turn());
    let next = world.inlet.session.id();
    assert!(next.is_some() && next != known && next == world.outlet.session.id());
    let streams: Vec<_> = world.inlet.session.streams().collect();
    assert_eq!(streams, [(StreamId::new(1), StreamState::Open)]);
}

#[test]
fn a_stream_nobody_has_heard_of_outlives_its_session() {
    let mut world = World::new(10, 0);
    let heard = world.inlet.session.open(to("plc")).expect("there is room");
    (0..5).for_each(|_| world.turn());
    // Asked for just before the channel is gone, and after.
    let mut late = vec![world.inlet.session.open(to("plc")).expect("there is room")];
    world.write(Role::Inlet, heard, 50_000);
    world.cut();
    world.write(Role::Inlet, heard, 50_000);
    late.push(world.inlet.session.open(to("plc")).expect("there is room"));
    world.inlet.session.finish(late[1]);
    let dropped = world.inlet.session.open(to("plc")).expect("there is room");
    world.inlet.session.reset(dropped, ResetReason::Closed);
    world.outlet = Side::new(Role::Outlet, SETTINGS);
    world.connect();
    (0..10).for_each(|_| world.turn());
    let (mut lost, mut asked) = (Vec::new(), Vec::new());
    for event in world.inlet.events.iter().chain(&world.outlet.events) {
        if let SessionEvent::Reset { stream, .. } = event {
            lost.push(*stream);
        } else if let SessionEvent::Requested { stream, .. } = event {
            asked.push(*stream);
        }
    }
    assert_eq!((lost, asked), (vec![heard], late.clone()));
    let ended = SessionEvent::Finished { stream: late[1] };
    assert!(world.outlet.events.contains(&ended));
    let written = world.write(Role::Inlet, late[0], 10_000);
    (0..5).for_each(|_| world.turn());
    assert_eq!(world.outlet.arrived.bytes[&late[0]].len(), written);
    assert!(!world.outlet.arrived.bytes.contains_key(&heard));
}

#[test]
fn a_stream_that_nobody_reads_stands_still_and_holds_up_no_other() {
    let mut world = World::new(4, 0);
    let [slow, quick] = [(); 2].map(|()| world.inlet.session.open(to("plc")).expect("there is room"));
    (0..5).for_each(|_| world.turn());
    // Nothing of the slow one is consumed.
    let mut total = 0;
    for _ in 0..200 {
        world.write(Role::Inlet, slow, 5_000);
        total += world.write(Role::Inlet, quick, 5_000);
        world.outlet.arrived.unconsumed.remove(&slow);
        world.turn();
    }
    assert_eq!(world.inlet.written[&slow] as u64, SETTINGS.window);
    assert!(total > 900_000, "{total}");
    // Once it is read, it goes on, and the caller is told.
    let named = |world: &mut World| -> Vec<StreamId> {
        std::iter::from_fn(|| world.inlet.session.poll_writable()).collect()
    };
    assert!(!named(&mut world).contains(&slow));
    let window = usize::try_from(SETTINGS.window).unwrap();
    world.outlet.session.handle_consumed(slow, window);
    (0..3).for_each(|_| world.turn());
    assert!(named(&mut world).contains(&slow));
    assert_eq!(world.inlet.session.writable(slow), window);
}

#[test]
fn no_more_streams_than_allowed() {
    let mut world = World::new(5, 0);
    let mut settings = SETTINGS;
    settings.streams_max = 100;
    world.inlet = Side::new(Role::Inlet, settings);
    world.cut();
    world.connect();
    let streams: Vec<StreamId> = (0..10)
        .map(|_| world.inlet.session.open(to("plc")).expect("there is room"))
        .collect();
    (0..5).for_each(|_| world.turn());
    assert_eq!(world.outlet.session.streams().len(), SETTINGS.streams_max);
    let reason = ResetReason::Limit;
    for stream in &streams[SETTINGS.streams_max..] {
        let stream = *stream;
        assert!(
            world
                .inlet
                .events
                .contains(&SessionEvent::Reset { stream, reason })
        );
    }
    settings.streams_max = 1;
    let mut session = Session::new(Role::Inlet, settings);
    assert!(session.open(to("a")).is_some());
    assert!(session.open(to("a")).is_none());
    assert!(
        Session::new(Role::Inlet, settings)
            .open(to(&"a".repeat(256)))
            .is_none()
    );
}

#[test]
fn one_that_sends_more_than_it_was_told_loses_its_stream() {
    let mut world = World::new(6, 0);
    let stream = world.inlet.session.open(to("plc")).expect("there is room");
    (0..5).for_each(|_| world.turn());
    // More than it was told, in whichever packet comes next.
    let mut items = Vec::new();
    Item::Data(&[1; 60_000]).put(stream, &mut items);
    for sequence in 1..10 {
        let mut frames = Vec::new();
        put_packet(&mut frames, sequence, &items);
        world.outlet.take(world.now, &mut world.dice, &frames);
    }
    let reason = ResetReason::Broken;
    assert_eq!(
        world.outlet.events.last(),
        Some(&SessionEvent::Reset { stream, reason })
    );
    assert_eq!(world.outlet.session.streams().len(), 0);
    assert!(world.outlet.arrived.bytes.is_empty());
}

#[test]
fn what_cannot_be_is_refused() {
    let mut world = World::new(8, 0);
    (0..5).for_each(|_| world.turn());
    let mut taken = Vec::new();
    put_taken(&mut taken, 1_000);
    for (kind, body) in [
        (TAKEN, &taken[3..]),
        (BEGUN, &[0; 25]),
        (PACKET, &[0; 7]),
        (0x4f, &[]),
    ] {
        let Side { session, arrived, .. } = &mut world.outlet;
        let refused = session.handle_frame(world.now, &mut world.dice, kind, body, arrived);
        assert!(refused.is_err(), "{kind:#04x}");
        assert!(!refused.unwrap_err().hint().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn nothing_is_lost_or_doubled_however_bad_the_way(seed: u64, loss in 3_u64..30, cut_one_in in 20_u64..200) {
        let world = carry(World::new(seed, loss), 150_000, |world, _| {
            if world.is_up && world.dice.below(cut_one_in) == 0 {
                world.cut();
            } else if !world.is_up && world.dice.below(5) == 0 {
                world.connect();
            }
        });
        all_arrived(&world, 150_000);
    }
}
