//! One seed: a gateway's journal in many lives.

use std::{collections::VecDeque, time::Duration};

use fieldgate_proto::{
    crypto::Secret,
    journal::{JournalKey, Lanes, LanesOutput, Output},
    link::Class,
    time::{ClockQuality, Instant, Now, WallTime},
};

use super::{
    collector::Collector,
    dice::Dice,
    files::{Done, Files, Trouble},
    plan::Plan,
    promises::{Appended, Promises},
};

/// How often what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) power_cuts: u64,
    pub(super) kills: u64,
    pub(super) appended: u64,
    pub(super) refused: u64,
    pub(super) delivered: u64,
    pub(super) discarded: u64,
    pub(super) expired: u64,
    pub(super) corrupt: u64,
    pub(super) released: u64,
    pub(super) told_again: u64,
    pub(super) torn: u64,
    pub(super) quarantined: u64,
    pub(super) full: u64,
    pub(super) broken: u64,
    pub(super) read_only: u64,
    pub(super) unreadable: u64,
    pub(super) rot: u64,
    pub(super) cursors_damaged: u64,
    pub(super) clock_jumps: u64,
    pub(super) collector_stops: u64,
    pub(super) set_backs: u64,
    pub(super) encrypted: u64,
}

impl Tally {
    fn counts(&mut self) -> [&mut u64; 22] {
        [
            &mut self.power_cuts,
            &mut self.kills,
            &mut self.appended,
            &mut self.refused,
            &mut self.delivered,
            &mut self.discarded,
            &mut self.expired,
            &mut self.corrupt,
            &mut self.released,
            &mut self.told_again,
            &mut self.torn,
            &mut self.quarantined,
            &mut self.full,
            &mut self.broken,
            &mut self.read_only,
            &mut self.unreadable,
            &mut self.rot,
            &mut self.cursors_damaged,
            &mut self.clock_jumps,
            &mut self.collector_stops,
            &mut self.set_backs,
            &mut self.encrypted,
        ]
    }

    pub(super) fn add(&mut self, other: &Self) {
        let mut other = other.clone();
        for (sum, count) in self.counts().into_iter().zip(other.counts()) {
            *sum += *count;
        }
    }

    /// A suite that never does what it is made for would find nothing.
    pub(super) fn everything_happened(&self) {
        let mut counts = self.clone();
        assert!(counts.counts().into_iter().all(|count| *count > 0), "{self:#?}");
    }
}

/// A gateway's journal, its disk, its collectors, and what was promised.
pub(super) struct World {
    dice: Dice,
    plan: Plan,
    key: Option<JournalKey>,
    files: Files,
    lanes: Lanes,
    promises: [Promises; 3],
    /// By uplink, and by lane.
    collectors: Vec<[Collector; 3]>,
    /// Tickets that were not reported: ticket, lane, sequence.
    open: VecDeque<(u64, Class, u64)>,
    tickets: u64,
    next_id: u64,
    /// Milliseconds since the beginning of the seed, and since the start of this life.
    true_millis: u64,
    life_millis: u64,
    /// What the wall clock is wrong by, and how far it can be believed.
    clock_error: u64,
    clock_quality: ClockQuality,
    /// When the trouble ends.
    trouble_until: u64,
    /// A file could not be deleted or cut off: the bound does not hold until the next start.
    leftovers: bool,
    tally: Tally,
    is_told: bool,
}

impl World {
    pub(super) fn new(seed: u64, is_told: bool) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::draw(&mut dice);
        let key = plan
            .is_encrypted
            .then(|| JournalKey::new(Secret::new(dice.bytes())));
        let mut files = Files::new();
        let lanes = Self::recover(&mut files, &plan, key.as_ref(), &mut dice, &mut Tally::default());
        let collectors = plan.uplinks.iter().map(|_| Default::default()).collect();
        let tally = Tally {
            encrypted: u64::from(plan.is_encrypted),
            ..Tally::default()
        };
        Self {
            promises: plan.lanes.map(Promises::new),
            dice,
            plan,
            key,
            files,
            lanes,
            collectors,
            open: VecDeque::new(),
            tickets: 0,
            next_id: 1,
            true_millis: 0,
            life_millis: 0,
            clock_error: 0,
            clock_quality: ClockQuality::Synchronised,
            trouble_until: 0,
            leftovers: false,
            tally,
            is_told,
        }
    }

    /// Plays the seed, and at last lets everything work and arrive.
    pub(super) fn run(mut self) -> Tally {
        self.execute();
        for _ in 0..self.plan.steps {
            self.step();
        }
        self.heal();
        self.tally
    }

    #[expect(clippy::print_stdout, reason = "whoever asks for a seed wants its story")]
    fn tell(&self, line: impl FnOnce() -> String) {
        if self.is_told {
            println!("{:>8} ms: {}", self.true_millis, line());
        }
    }

    fn step(&mut self) {
        match self.dice.below(20) {
            0..=5 => self.publish(),
            6..=7 => {
                self.lanes.flush();
                self.execute();
            }
            8..=10 => self.end_one(),
            11..=13 => self.collect(),
            14..=15 => self.confirm(),
            _ => {
                let millis = self.dice.below(1_500);
                self.pass(millis);
            }
        }
        if self.dice.one_in(self.plan.stop_one_in) {
            self.stop();
        }
        if self.plan.trouble_one_in > 0 && self.dice.one_in(self.plan.trouble_one_in) {
            self.trouble();
        }
        if self.plan.has_rot && self.dice.one_in(120) {
            self.rot();
        }
        if self.plan.clock_jumps && self.dice.one_in(80) {
            self.jump();
        }
        if self.dice.one_in(60) {
            self.stop_collector();
        }
        self.check();
    }

    fn now(&self) -> Now {
        Now {
            instant: Instant::START + Duration::from_millis(self.life_millis),
            wall: WallTime {
                unix_millis: 1_000_000 + self.true_millis + self.clock_error,
                quality: self.clock_quality,
            },
        }
    }

    fn publish(&mut self) {
        let lane = self.dice_lane();
        let now = self.now();
        for _ in 0..1 + self.dice.below(12) {
            let id = self.next_id;
            self.next_id += 1;
            let len = if self.dice.one_in(20) {
                self.dice.index(9_000)
            } else {
                self.dice.index(900)
            };
            let taken = self.lanes.append(lane, now.wall, |body| {
                body.extend_from_slice(&id.to_be_bytes());
                body.extend_from_slice(MARKER);
                body.resize(body.len() + len, b'.');
            });
            let Ok(ticket) = taken else {
                self.tally.refused += 1;
                continue;
            };
            self.tally.appended += 1;
            assert_eq!(ticket, self.tickets + 1, "tickets are one number over all lanes");
            self.tickets = ticket;
            let sequence = self.lanes.lane(lane).last_given();
            let record = Appended {
                id,
                captured: now.wall.unix_millis,
                at: self.true_millis,
            };
            self.promises_mut(lane).appended(sequence, record);
            self.open.push_back((ticket, lane, sequence));
        }
        self.execute();
    }

    fn dice_lane(&mut self) -> Class {
        Class::ALL[self.dice.index(3)]
    }

    fn promises_mut(&mut self, lane: Class) -> &mut Promises {
        &mut self.promises[usize::from(lane.bits())]
    }

    /// Gives the disk what the lanes want, and takes note of what they say.
    fn execute(&mut self) {
        while let Some(output) = self.lanes.poll_output() {
            match output {
                LanesOutput::Committed { up_to } => {
                    while let Some((_, lane, sequence)) =
                        self.open.pop_front_if(|(ticket, ..)| *ticket <= up_to)
                    {
                        assert!(
                            self.lanes.lane(lane).committed() >= sequence,
                            "a ticket is reported before its record is safe"
                        );
                    }
                }
                LanesOutput::Lane { lane, output } => match self.files.begin(lane, output) {
                    Some(Output::Committed { up_to }) => {
                        self.tell(|| format!("{} committed {up_to}", lane.name()));
                        self.promises_mut(lane).committed(up_to);
                    }
                    Some(Output::Discarded { count, expired }) => {
                        self.tell(|| format!("{} discards {count}, expired: {expired}", lane.name()));
                    }
                    Some(other) => self.tell(|| format!("{} {other:?}", lane.name())),
                    None => {}
                },
            }
            self.note_gaps();
        }
    }

    fn note_gaps(&mut self) {
        for lane in Class::ALL {
            for gap in self.lanes.lane(lane).gaps() {
                self.promises[usize::from(lane.bits())].discarded(
                    gap.first,
                    gap.last,
                    gap.reason,
                    self.true_millis,
                );
            }
        }
    }

    /// Ends something that is under way.
    fn end_one(&mut self) {
        let lane = self.dice_lane();
        if self.dice.one_in(2) && self.files.is_writing(lane) {
            self.end_write(lane);
        } else {
            self.end_other();
        }
    }

    fn end_write(&mut self, lane: Class) {
        let now = self.now().instant;
        if let Done::Written(bytes, result) = self.files.end_write(lane, &mut self.dice) {
            self.lanes.handle_written(now, lane, bytes, result);
        }
        self.execute();
    }

    fn end_other(&mut self) {
        let now = self.now().instant;
        self.leftovers |= self.files.trouble == Trouble::ReadOnly;
        if let Some((lane, done)) = self.files.end_other() {
            match done {
                Done::Created(segment, result) => self.lanes.handle_created(now, lane, segment, result),
                Done::CursorWritten(result) => self.lanes.handle_cursor_written(now, lane, result),
                Done::Read(bytes) => self.lanes.handle_read(lane, bytes),
                Done::Written(..) | Done::Nothing => {}
            }
        }
        self.execute();
    }

    fn is_away(&self, uplink: usize) -> bool {
        self.plan.absent == Some(uplink)
    }

    fn collect(&mut self) {
        let uplink = self.dice.index(self.collectors.len());
        let lane = self.dice_lane();
        if !self.is_away(uplink) {
            self.take(uplink, lane);
        }
    }

    fn take(&mut self, uplink: usize, lane: Class) -> bool {
        let index = usize::from(lane.bits());
        let taken = self.collectors[uplink][index].take(
            (&mut self.lanes, lane),
            &self.promises[index],
            (self.tally.clock_jumps > 0, &mut self.dice),
            &mut self.tally,
        );
        self.tell(|| {
            let received = self.collectors[uplink][index].received;
            format!("{uplink} has {received} of {}", lane.name())
        });
        self.execute();
        taken
    }

    fn confirm(&mut self) {
        let uplink = self.dice.index(self.collectors.len());
        let lane = self.dice_lane();
        let collector = &mut self.collectors[uplink][usize::from(lane.bits())];
        if let Some(up_to) = collector.confirm(&mut self.dice) {
            let now = self.now().instant;
            self.lanes.handle_released(now, lane, uplink, up_to);
            self.execute();
        }
    }

    fn pass(&mut self, millis: u64) {
        self.true_millis += millis;
        self.life_millis += millis;
        if self.files.trouble != Trouble::None && self.true_millis >= self.trouble_until {
            self.tell(|| "the disk works again".to_owned());
            self.files.trouble = Trouble::None;
        }
        let now = self.now();
        if self
            .lanes
            .poll_timeout()
            .is_some_and(|deadline| now.instant >= deadline)
        {
            self.lanes.handle_timeout(now);
        }
        self.execute();
    }

    fn trouble(&mut self) {
        let (trouble, count) = match self.dice.below(4) {
            0 => (Trouble::Full, &mut self.tally.full),
            1 => (Trouble::Broken, &mut self.tally.broken),
            2 => (Trouble::ReadOnly, &mut self.tally.read_only),
            _ => (Trouble::Unreadable, &mut self.tally.unreadable),
        };
        *count += 1;
        self.files.trouble = trouble;
        self.trouble_until = self.true_millis + 500 + self.dice.below(5_000);
        self.tell(|| format!("the disk is {trouble:?}"));
    }

    fn rot(&mut self) {
        let lane = self.dice_lane();
        let index = usize::from(lane.bits());
        if self.dice.one_in(3) {
            let both = self.dice.one_in(2);
            if self.files.lane(lane).rot_cursor(both, &mut self.dice) {
                self.tell(|| format!("the cursor of {} is damaged, both slots: {both}", lane.name()));
                self.promises[index].cursor_was_damaged = true;
                self.tally.cursors_damaged += 1;
            }
        } else if let Some((first, last)) = self.files.lane(lane).rot(&mut self.dice) {
            self.tell(|| format!("{first} to {last} of {} are damaged", lane.name()));
            self.promises[index].rotted(first, last);
            self.tally.rot += 1;
        }
    }

    fn jump(&mut self) {
        self.tally.clock_jumps += 1;
        self.clock_error = self.dice.below(400_000);
        let qualities = [
            ClockQuality::Unknown,
            ClockQuality::Floor,
            ClockQuality::Synchronised,
        ];
        self.clock_quality = qualities[self.dice.index(3)];
    }

    fn stop_collector(&mut self) {
        let uplink = self.dice.index(self.collectors.len());
        let lane = self.dice.index(3);
        let is_old = self.dice.one_in(4);
        let collector = &mut self.collectors[uplink][lane];
        if is_old {
            collector.set_back(&mut self.dice);
            self.tally.set_backs += 1;
        } else {
            collector.restart();
            self.tally.collector_stops += 1;
        }
    }

    /// Stops the gateway, by a power cut or otherwise, and starts it again some time later.
    fn stop(&mut self) {
        if self.dice.one_in(4) {
            self.tally.kills += 1;
            self.tell(|| "killed".to_owned());
            self.files.kill(&mut self.dice);
        } else {
            self.tally.power_cuts += 1;
            self.tell(|| "power cut".to_owned());
            self.files.cut(&mut self.dice);
        }
        // A collector hears from the next life only what it then offers; what was on its way is not there.
        self.true_millis += self.dice.below(30_000);
        self.life_millis = 0;
        // What could not be deleted in the life before is in the way until it can.
        let mut lanes = self.plan.lanes.into_iter().zip(Class::ALL);
        self.leftovers = lanes.any(|(settings, lane)| self.files.lane(lane).bytes() > settings.bytes_max);
        self.open.clear();
        self.tickets = 0;
        self.lanes = Self::recover(
            &mut self.files,
            &self.plan,
            self.key.as_ref(),
            &mut self.dice,
            &mut self.tally,
        );
        for lane in Class::ALL {
            let journal = self.lanes.lane(lane);
            let committed = journal.committed();
            self.promises[usize::from(lane.bits())].restarted(committed);
            for (uplink, collectors) in self.collectors.iter().enumerate() {
                let collector = &collectors[usize::from(lane.bits())];
                assert!(
                    journal.confirmed(uplink) <= Some(collector.confirmed_max),
                    "{} has more confirmed than was said",
                    lane.name()
                );
            }
            self.tell(|| format!("{} starts with {committed}", lane.name()));
        }
        self.execute();
    }

    fn recover(
        files: &mut Files,
        plan: &Plan,
        key: Option<&JournalKey>,
        dice: &mut Dice,
        tally: &mut Tally,
    ) -> Lanes {
        Lanes::new(Class::ALL.map(|lane| {
            let settings = plan.lanes[usize::from(lane.bits())];
            let key = key.map(JournalKey::duplicate);
            let (journal, report) = files
                .lane(lane)
                .recover((settings, lane), &plan.uplinks, key, dice);
            assert!(report.locked.is_empty(), "the key fits");
            tally.torn += report.torn;
            tally.quarantined += report.quarantined.len() as u64;
            journal
        }))
    }

    /// What holds at any time.
    fn check(&mut self) {
        for (lane, settings) in Class::ALL.into_iter().zip(self.plan.lanes) {
            let bytes = self.files.lane(lane).bytes();
            assert!(
                bytes <= settings.bytes_max || self.leftovers,
                "{} takes {bytes} of {}",
                lane.name(),
                settings.bytes_max
            );
        }
    }

    /// Lets everything work, and everything arrive.
    fn heal(&mut self) {
        self.files.trouble = Trouble::None;
        self.plan.absent = None;
        self.plan.uplinks.truncate(self.collectors.len());
        let mut rounds = 0;
        while !self.is_settled() {
            rounds += 1;
            assert!(rounds < 2_000, "it does not come to rest");
            self.lanes.flush();
            self.execute();
            for lane in Class::ALL {
                self.end_write(lane);
                for uplink in 0..self.collectors.len() {
                    while self.take(uplink, lane) {}
                    let collector = &mut self.collectors[uplink][usize::from(lane.bits())];
                    collector.confirmed = collector.received;
                    collector.confirmed_max = collector.confirmed_max.max(collector.received);
                    let up_to = collector.confirmed;
                    let now = self.now().instant;
                    self.lanes.handle_released(now, lane, uplink, up_to);
                    self.execute();
                }
            }
            while self.files.is_busy() {
                self.end_other();
            }
            self.pass(3_000);
        }
        let is_plain = Class::ALL
            .into_iter()
            .any(|lane| self.files.lane(lane).holds(MARKER));
        assert!(
            !(is_plain && self.plan.is_encrypted),
            "a body stands on the disk in clear"
        );
        for (lane, settings) in Class::ALL.into_iter().zip(self.plan.lanes) {
            let bytes = self.files.lane(lane).bytes();
            assert!(
                bytes <= 3 * settings.segment_bytes || self.leftovers,
                "{} keeps {bytes} bytes that nobody needs",
                lane.name()
            );
        }
    }

    fn is_settled(&self) -> bool {
        Class::ALL.into_iter().all(|lane| {
            let journal = self.lanes.lane(lane);
            let everybody_has_all = self
                .collectors
                .iter()
                .all(|collectors| collectors[usize::from(lane.bits())].confirmed >= journal.committed());
            everybody_has_all
                && journal.pending_bytes() == 0
                && journal.gap_count() == 0
                && !self.files.is_busy()
                && self.lanes.poll_timeout().is_none()
                && self.open.is_empty()
        })
    }
}

const MARKER: &[u8] = b"a reading in clear";
