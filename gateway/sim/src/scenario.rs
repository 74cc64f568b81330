//! What a run consists of, and how a seed draws it.

mod chains;
mod trust;

use std::{ops::Range, time::Duration};

use fieldgate_proto::{
    channel::{ChannelSettings, Padding, PqPolicy, RekeySettings, SuiteOrder},
    delivery::PerLane,
    journal::{JournalSettings, WhenFull},
    link::Class,
    time::{ClockQuality, WallTime},
};

pub(crate) use chains::Way;
pub use chains::{Chains, StreamPlan};
pub use trust::TrustPlan;

use crate::{attacker::Verb, dice::Dice};

/// Longest time from healing until everything promised has arrived and was released.
///
/// The longest waits of the protocol may follow each other: a silent link (45 s), a handshake with nobody (31 s), a
/// registration's back-off (60 s), a sender's patience (30 s), and a label nobody took up (30 s).
pub const SETTLE_MAX: Duration = Duration::from_secs(240);

/// When simulated time begins: 2026-01-01.
pub const EPOCH_SECS: u64 = 1_767_225_600;

/// The same with an authority: a renewal that was refused is tried again after up to ten minutes, a list that was lost is sent again
/// after five, and a clock that was wrong may have made either fail.
pub const SETTLE_MAX_TRUSTING: Duration = Duration::from_secs(1_800);

/// The same with relays in a row: each of them may find out by itself, one after the other, that its neighbour is gone.
pub const SETTLE_MAX_CHAINED: Duration = Duration::from_secs(600);

/// A network, what devices do, and what goes wrong.
///
/// Hosts are numbered: gateways from 0, then relays, then collectors, then the authority and the impostor if there are any.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Where everything random comes from that is not said below.
    pub seed: u64,
    /// What was drawn from it, for whoever wants to play it again.
    pub draw: Draw,
    /// Gateways, 1 to 3.
    pub gateways: usize,
    /// Collectors that every gateway delivers to, 1 or 2.
    pub collectors: usize,
    /// Relays, 0 to 5; without one, `direct` has to be set.
    pub relays: usize,
    /// Whether gateways can dial the collector as well, as their last way.
    pub direct: bool,
    /// Whether that is their first way instead.
    pub direct_first: bool,
    /// How long faults last and devices publish.
    pub chaos: Duration,
    /// Latency of links in milliseconds, drawn for each pair of hosts.
    pub latency_millis: Range<u64>,
    /// Bytes per second of links, drawn for each pair of hosts.
    pub bytes_per_sec: Range<u64>,
    /// What devices do.
    pub devices: Devices,
    /// Bounds and policies of the lanes of the gateways' journals.
    pub journal: PerLane<JournalSettings>,
    /// Time of a disk operation, in milliseconds.
    pub disk_millis: Range<u64>,
    /// What the collector's sink is like.
    pub sink: SinkPlan,
    /// How all nodes' channels behave.
    pub channels: ChannelSettings,
    /// How long gateways let readings wait for company.
    pub latency_budget: Duration,
    /// Clocks by host; a host beyond the end has a right one.
    pub clocks: Vec<Clock>,
    /// By how many millionths the clocks of hosts go fast, slow if negative; a host beyond the end has a right one.
    pub drifts: Vec<i64>,
    /// How relays are connected, and who is attached where; otherwise gateways and collectors dial all of them, and relays nobody.
    pub chains: Option<Chains>,
    /// Who opens streams, if anybody does.
    pub streams: Option<StreamPlan>,
    /// What goes wrong and when.
    pub faults: Vec<(Duration, Fault)>,
    /// Who attacks, if anybody does.
    pub attacker: Option<AttackPlan>,
    /// Whether somebody claims the collector's name at the relays, and delivers readings of its own to the collector.
    pub impostor: bool,
    /// What an authority does, if there is one; otherwise everybody is listed.
    pub trust: Option<TrustPlan>,
}

/// What is drawn from a seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Draw {
    /// Gateways and collectors that dial all relays: [`Scenario::draw`].
    #[default]
    Plain,
    /// The same with an authority: [`Scenario::draw_trusting`].
    Trusting,
    /// Relays in a row, and streams: [`Scenario::draw_chained`].
    Chained,
}

impl Draw {
    /// Returns its name for `cargo xtask sim`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Trusting => "trusting",
            Self::Chained => "chained",
        }
    }

    /// Returns the file of seeds that are played every time.
    #[must_use]
    pub const fn kept(self) -> &'static str {
        match self {
            Self::Plain => "seeds.txt",
            Self::Trusting => "seeds-trusting.txt",
            Self::Chained => "seeds-chained.txt",
        }
    }
}

/// What devices publish at each gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// Milliseconds between bursts.
    pub pause_millis: Range<u64>,
    /// Readings in a burst.
    pub burst: Range<u64>,
    /// Bytes of payload.
    pub payload: Range<u64>,
    /// One reading in so many is as long as `payload_long`; 0: none.
    pub long_one_in: u64,
    /// Bytes of payload of long readings.
    pub payload_long: u64,
    /// How many of them are of each class.
    pub classes: Classes,
}

/// Weights of the classes, alarms first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classes(pub [u64; 3]);

impl Classes {
    pub(crate) fn pick(self, dice: &mut Dice) -> Class {
        let [alarm, normal, bulk] = self.0;
        let drawn = dice.below(alarm + normal + bulk);
        if drawn < alarm {
            Class::Alarm
        } else if drawn < alarm + normal {
            Class::Normal
        } else {
            Class::Bulk
        }
    }
}

/// The collector's sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkPlan {
    /// Milliseconds until what it took is in its store.
    pub store_millis: Range<u64>,
    /// Milliseconds from then until it says so.
    pub confirm_millis: Range<u64>,
    /// Batches that go into the store at once, at the most.
    pub batches_at_once: u64,
    /// Bytes it holds that are not in the store; above it takes nothing.
    pub held_bytes_max: usize,
}

/// A host's wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds it is ahead of the truth; behind, if negative.
    pub ahead_millis: i64,
    /// How far the host believes it.
    pub quality: ClockQuality,
}

impl Clock {
    /// A clock that is right.
    pub const RIGHT: Self = Self {
        ahead_millis: 0,
        quality: ClockQuality::Synchronised,
    };

    /// Returns what it shows `elapsed` after the beginning of simulated time.
    pub(crate) fn at(self, elapsed: Duration) -> WallTime {
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        WallTime {
            unix_millis: (EPOCH_SECS * 1000 + millis).saturating_add_signed(self.ahead_millis),
            quality: self.quality,
        }
    }
}

/// Something that goes wrong; what lasts is over at healing at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A host stops without a word and starts again later.
    Stop {
        /// Which.
        host: usize,
        /// For how long.
        lasting: Duration,
        /// How.
        how: Stop,
    },
    /// The connections between two hosts are cut.
    Reset {
        /// The two hosts.
        between: (usize, usize),
    },
    /// Nothing passes between two hosts, and neither is told.
    Partition {
        /// The two hosts.
        between: (usize, usize),
        /// For how long.
        lasting: Duration,
    },
    /// Nothing passes from one host to another, and neither is told; the other direction works.
    OneWay {
        /// The host that is not heard.
        from: usize,
        /// The one that does not hear it.
        to: usize,
        /// For how long.
        lasting: Duration,
    },
    /// A gateway's disk misbehaves.
    Disk {
        /// Which gateway.
        host: usize,
        /// How.
        trouble: DiskTrouble,
        /// For how long.
        lasting: Duration,
    },
    /// Bits of a gateway's disk change.
    Rot {
        /// Which gateway.
        host: usize,
    },
    /// The sink takes nothing and stores nothing.
    SinkStops {
        /// For how long.
        lasting: Duration,
    },
    /// A host gets a new purpose key while it runs.
    Renew {
        /// Which host.
        host: usize,
    },
    /// A collector stops, and starts with the store of a backup.
    Restore {
        /// Which collector.
        host: usize,
        /// How old the backup is.
        age: Duration,
        /// For how long it is away.
        lasting: Duration,
    },
    /// A relay has its members leave, and stops once nobody is left who may still leave, or when the time is over.
    Drain {
        /// Which relay.
        host: usize,
        /// How much time there is.
        within: Duration,
        /// For how long it is away.
        lasting: Duration,
    },
    /// A host's clock is days wrong and it believes it.
    WrongClock {
        /// Which host.
        host: usize,
        /// For how long.
        lasting: Duration,
    },
    /// Somebody sets a host's clock.
    StepClock {
        /// Which host.
        host: usize,
        /// Milliseconds it is ahead of the truth from then on.
        ahead_millis: i64,
    },
}

/// How a host stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The process is killed: its kernel closes connections and finishes writes.
    Kill,
    /// The power goes: writes are torn, neighbours are not told.
    PowerCut,
}

/// What a disk does to its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskTrouble {
    /// There is no room for another file.
    Full,
    /// Writing fails, with some of it on disk.
    Broken,
    /// Operations take a second each.
    Slow,
}

/// What a malicious relay, or somebody on a link, does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttackPlan {
    /// Relays that attack, by number from 0.
    pub relays: Vec<usize>,
    /// Whether somebody sits on the links between gateways and collector as well.
    pub on_direct_links: bool,
    /// What is done.
    pub verbs: Vec<Verb>,
    /// One frame in so many is attacked.
    pub one_in: u64,
    /// When, from the beginning.
    pub during: Range<Duration>,
}

impl Scenario {
    /// Returns a network of one gateway, one relay and a collector in which nothing goes wrong.
    #[must_use]
    pub fn quiet(seed: u64) -> Self {
        Self {
            seed,
            draw: Draw::Plain,
            gateways: 1,
            collectors: 1,
            relays: 1,
            direct: false,
            direct_first: false,
            chaos: Duration::from_secs(30),
            latency_millis: 1..20,
            bytes_per_sec: 1 << 20..4 << 20,
            devices: Devices {
                pause_millis: 50..400,
                burst: 1..8,
                payload: 20..200,
                long_one_in: 0,
                payload_long: 0,
                classes: Classes([1, 1, 1]),
            },
            journal: PerLane(
                [JournalSettings {
                    bytes_max: 8 * SEGMENT_BYTES,
                    segment_bytes: SEGMENT_BYTES,
                    tail_bytes_max: 16 << 10,
                    pending_bytes_max: 16 << 10,
                    ttl: None,
                    when_full: WhenFull::Refuse,
                }; 3],
            ),
            disk_millis: 1..8,
            sink: SinkPlan {
                store_millis: 1..20,
                confirm_millis: 0..3,
                batches_at_once: 8,
                held_bytes_max: 1 << 20,
            },
            channels: ChannelSettings {
                // Which AEAD this processor is best at must not change what happens.
                order: SuiteOrder::AesFirst,
                ..ChannelSettings::default()
            },
            latency_budget: Duration::from_millis(2),
            clocks: Vec::new(),
            drifts: Vec::new(),
            chains: None,
            streams: None,
            faults: Vec::new(),
            attacker: None,
            impostor: false,
            trust: None,
        }
    }

    /// Returns a network in which a relay does `verb`, and nothing else goes wrong.
    #[must_use]
    pub fn malicious(seed: u64, verb: Verb) -> Self {
        let mut scenario = Self::quiet(seed);
        scenario.attacker = Some(AttackPlan {
            relays: vec![0],
            on_direct_links: false,
            verbs: vec![verb],
            one_in: 6,
            during: Duration::from_secs(2)..scenario.chaos,
        });
        scenario
    }

    /// Draws everything from `seed`, also which kinds of faults exist at all.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x6669_656c_6467_6174);
        let mut scenario = Self::quiet(seed);
        scenario.gateways = dice.pick(&[1, 1, 2, 3]);
        scenario.collectors = dice.pick(&[1, 1, 1, 2]);
        scenario.relays = dice.pick(&[1, 1, 2, 3]);
        scenario.direct = dice.one_in(4);
        scenario.direct_first = scenario.direct && dice.one_in(2);
        scenario.chaos = Duration::from_secs(dice.between(15, 60));
        scenario.draw_wires(&mut dice);
        scenario.draw_devices(&mut dice);
        scenario.draw_channels(&mut dice);
        scenario.draw_clocks(&mut dice);
        scenario.draw_faults(&mut dice);
        scenario.draw_attacker(&mut dice);
        scenario
    }

    /// Returns the number of the first relay.
    #[must_use]
    pub const fn first_relay(&self) -> usize {
        self.gateways
    }

    /// Returns the number of the first collector.
    #[must_use]
    pub const fn collector(&self) -> usize {
        self.gateways + self.relays
    }

    /// Returns the numbers of all collectors, in the order of the gateways' uplinks.
    #[must_use]
    pub const fn all_collectors(&self) -> Range<usize> {
        self.collector()..self.collector() + self.collectors
    }

    /// Returns whether somebody may add to what a host sends.
    #[must_use]
    pub fn is_attacked(&self, host: usize) -> bool {
        self.attacker.as_ref().is_some_and(|plan| {
            let relay = host.checked_sub(self.first_relay());
            let is_relay = host < self.collector() && relay.is_some();
            relay.is_some_and(|relay| plan.relays.contains(&relay)) || plan.on_direct_links && !is_relay
        })
    }

    /// Returns how many hosts there are without authority and impostor.
    #[must_use]
    pub const fn hosts(&self) -> usize {
        self.collector() + self.collectors
    }

    /// Returns the number of the authority, if there is one.
    #[must_use]
    pub const fn authority(&self) -> usize {
        self.hosts()
    }

    /// Returns the number of the impostor, if there is one.
    #[must_use]
    pub const fn impostor_host(&self) -> usize {
        self.hosts() + if self.trust.is_some() { 1 } else { 0 }
    }

    /// Returns the longest time from healing to the end.
    #[must_use]
    pub const fn settle_max(&self) -> Duration {
        if self.trust.is_some() {
            SETTLE_MAX_TRUSTING
        } else if self.chains.is_some() {
            SETTLE_MAX_CHAINED
        } else {
            SETTLE_MAX
        }
    }

    fn draw_wires(&mut self, dice: &mut Dice) {
        self.latency_millis = dice.pick(&[0..2, 1..20, 20..150, 1..600]);
        self.bytes_per_sec = match dice.below(4) {
            0 => 24 << 10..96 << 10,
            1 => 64 << 10..1 << 20,
            _ => 1 << 20..16 << 20,
        };
        self.latency_budget = Duration::from_millis(dice.pick(&[0, 1, 2, 20]));
        self.disk_millis = dice.pick(&[0..1, 1..8, 5..60]);
    }

    fn draw_devices(&mut self, dice: &mut Dice) {
        self.devices = match dice.below(5) {
            // Now and then a reading.
            0 => Devices {
                pause_millis: 500..4000,
                burst: 1..3,
                ..self.devices.clone()
            },
            // Backlogs that have to be read from disk.
            1 => Devices {
                pause_millis: 200..1500,
                burst: 1..120,
                ..self.devices.clone()
            },
            // Readings of all sizes.
            2 => Devices {
                pause_millis: 200..1500,
                payload: 8..2000,
                long_one_in: 25,
                payload_long: 20_000,
                ..self.devices.clone()
            },
            _ => self.devices.clone(),
        };
        self.devices.classes = dice.pick(&[Classes([1, 1, 1]), Classes([1, 20, 4]), Classes([8, 1, 1])]);
        for lane in &mut self.journal.0 {
            if self.devices.long_one_in > 0 {
                lane.segment_bytes = 2 * SEGMENT_BYTES;
                lane.bytes_max = 12 * SEGMENT_BYTES;
            }
            if dice.one_in(4) {
                // Full soon.
                lane.bytes_max = 3 * lane.segment_bytes;
            }
            if dice.one_in(3) {
                lane.when_full = WhenFull::DropOldest;
            }
            if dice.one_in(5) {
                lane.ttl = Some(Duration::from_secs(dice.between(5, 60)));
            }
        }
        self.sink = SinkPlan {
            store_millis: dice.pick(&[0..1, 1..20, 20..300]),
            confirm_millis: dice.pick(&[0..1, 0..30, 100..800]),
            batches_at_once: dice.between(1, 8),
            held_bytes_max: dice.pick(&[4 << 10, 64 << 10, 1 << 20]),
        };
    }

    fn draw_channels(&mut self, dice: &mut Dice) {
        if dice.one_in(4) {
            self.channels.padding = Padding::Buckets;
        }
        // Classical handshakes are cheaper, and differ in nothing that matters here but one token.
        if dice.one_in(2) {
            self.channels.pq = PqPolicy::Off;
        }
        if dice.one_in(3) {
            self.channels.rekey = RekeySettings {
                interval: Duration::from_secs(dice.between(8, 30)),
                bytes_max: dice.pick(&[4 << 10, 1 << 30]),
                ..RekeySettings::default()
            };
        }
    }

    fn draw_clocks(&mut self, dice: &mut Dice) {
        self.clocks = (0..self.hosts())
            .map(|_| match dice.below(4) {
                // At the limit of what two clocks may differ: one ahead, another behind, 250 s in all.
                0 => Clock {
                    ahead_millis: i64::try_from(dice.below(250_000)).unwrap_or(0) - 125_000,
                    quality: ClockQuality::Synchronised,
                },
                // Nobody vouches for it, and it shows anything.
                1 => Clock {
                    ahead_millis: -i64::try_from(dice.below(1_700_000_000_000)).unwrap_or(0),
                    quality: ClockQuality::Unknown,
                },
                // At least so late.
                2 => Clock {
                    ahead_millis: -i64::try_from(dice.below(10_000_000_000)).unwrap_or(0),
                    quality: ClockQuality::Floor,
                },
                _ => Clock::RIGHT,
            })
            .collect();
    }

    fn draw_faults(&mut self, dice: &mut Dice) {
        let kinds: Vec<u64> = (0..FAULT_KINDS).filter(|_| dice.one_in(3)).collect();
        if kinds.is_empty() {
            return;
        }
        for _ in 0..dice.between(1, 12) {
            let at = dice.millis(500, self.chaos_millis());
            let kind = dice.pick(&kinds);
            let fault = self.draw_fault(dice, kind);
            self.faults.push((at, fault));
        }
    }

    fn draw_fault(&self, dice: &mut Dice, kind: u64) -> Fault {
        let host = dice.index(self.hosts());
        let gateway = dice.index(self.gateways);
        let collector = self.collector() + dice.index(self.collectors);
        let lasting = dice.millis(1, 20_000);
        let long = dice.millis(1000, 70_000);
        let between = match &self.chains {
            Some(chains) => dice.pick(&self.wired(chains)),
            None => (
                self.first_relay() + dice.index(self.relays),
                dice.pick(&[gateway, collector]),
            ),
        };
        match kind {
            0 => Fault::Stop {
                host: gateway,
                lasting,
                how: dice.pick(&[Stop::Kill, Stop::PowerCut]),
            },
            1 => Fault::Stop {
                host: between.0,
                lasting,
                how: dice.pick(&[Stop::Kill, Stop::PowerCut]),
            },
            2 => Fault::Stop {
                host: collector,
                lasting,
                how: dice.pick(&[Stop::Kill, Stop::PowerCut]),
            },
            3 => Fault::Reset { between },
            4 => Fault::Partition {
                between,
                lasting: long,
            },
            5 => Fault::Disk {
                host: gateway,
                trouble: dice.pick(&[DiskTrouble::Full, DiskTrouble::Broken, DiskTrouble::Slow]),
                lasting,
            },
            6 => Fault::Rot { host: gateway },
            7 => Fault::SinkStops { lasting: long },
            8 => Fault::Renew { host },
            9 => Fault::Restore {
                host: collector,
                age: dice.millis(500, 20_000),
                lasting,
            },
            10 => Fault::WrongClock { host, lasting: long },
            _ => {
                let (from, to) = dice.pick(&[between, (between.1, between.0)]);
                Fault::OneWay {
                    from,
                    to,
                    lasting: long,
                }
            }
        }
    }

    fn draw_attacker(&mut self, dice: &mut Dice) {
        self.impostor = dice.one_in(6);
        if !dice.one_in(2) {
            return;
        }
        let mut verbs: Vec<Verb> = Verb::ALL.into_iter().filter(|_| dice.one_in(3)).collect();
        if verbs.is_empty() {
            verbs.push(dice.pick(&Verb::ALL));
        }
        let begin = dice.millis(0, self.chaos_millis() / 2);
        let relays = (0..self.relays).filter(|_| dice.one_in(2)).collect::<Vec<_>>();
        self.attacker = Some(AttackPlan {
            relays: if relays.is_empty() { vec![0] } else { relays },
            on_direct_links: dice.one_in(2),
            verbs,
            one_in: dice.pick(&[2, 5, 20, 100]),
            during: begin..begin + dice.millis(1000, self.chaos_millis()),
        });
    }

    fn chaos_millis(&self) -> u64 {
        u64::try_from(self.chaos.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Kinds of faults that [`Scenario::draw_fault`] knows.
const FAULT_KINDS: u64 = 12;
/// Small, so that a journal of some hundred readings has several.
const SEGMENT_BYTES: u64 = 64 << 10;
