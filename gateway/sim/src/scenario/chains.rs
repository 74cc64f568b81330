//! Scenarios with relays in a row, and with streams that cross them in both directions.

use std::{ops::Range, time::Duration};

use fieldgate_proto::{node::NAMES_PER_WAY_MAX, portal::SessionSettings};

use super::{Devices, Draw, Fault, Scenario, Stop};
use crate::dice::Dice;

/// Which relays are connected, and who is attached where. Relays are numbered from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chains {
    /// Which relay dials which other; both forward over the link.
    pub links: Vec<(usize, usize)>,
    /// The relays that each gateway dials, then those of each collector; at least one.
    pub homes: Vec<Vec<usize>>,
}

/// Who opens streams, and what they carry. Every collector has inlets that lead to every gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPlan {
    /// Bounds of sessions.
    pub session: SessionSettings,
    /// Whether gateways have inlets that lead to the collectors as well.
    pub both_ways: bool,
    /// Milliseconds between two streams of an inlet.
    pub pause_millis: Range<u64>,
    /// Bytes that each side of a stream has to say.
    pub bytes: Range<u64>,
    /// Bytes that are written, or go out, at once.
    pub piece: Range<u64>,
    /// Milliseconds between two pieces.
    pub piece_millis: Range<u64>,
    /// What an outlet leads to refuses one stream in so many; 0: none.
    pub refused_one_in: u64,
    /// One side in so many breaks off; 0: none.
    pub broken_one_in: u64,
    /// One side in so many takes nothing for long; 0: none.
    pub stalled_one_in: u64,
}

/// A way from a host: the place of its first relay among those that the host dials, and the relays after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) home: usize,
    pub(crate) onward: Vec<usize>,
}

impl Scenario {
    /// Returns a network of `relays` in a row in which nothing goes wrong: a gateway at the first, a collector at the last, and
    /// streams between them.
    #[must_use]
    pub fn chained(seed: u64, relays: usize) -> Self {
        let mut scenario = Self::quiet(seed);
        scenario.draw = Draw::Chained;
        scenario.relays = relays;
        scenario.chains = Some(Chains {
            links: (1..relays).map(|relay| (relay - 1, relay)).collect(),
            homes: vec![vec![0], vec![relays.saturating_sub(1)]],
        });
        scenario.streams = Some(StreamPlan {
            session: SessionSettings {
                streams_max: 16,
                window: 16 << 10,
                window_max: 64 << 10,
                growth_max: 128 << 10,
                resume_within: Duration::from_secs(60),
            },
            both_ways: true,
            pause_millis: 500..4_000,
            bytes: 0..20_000,
            piece: 1..4_000,
            piece_millis: 1..200,
            refused_one_in: 0,
            broken_one_in: 0,
            stalled_one_in: 0,
        });
        scenario
    }

    /// Draws a network of relays that are connected in some way, and everything else, from `seed`.
    #[must_use]
    pub fn draw_chained(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x6368_6169_6e65_6421);
        let relays = dice.index(5) + 1;
        let mut scenario = Self::chained(seed, relays);
        scenario.gateways = dice.pick(&[1, 1, 2, 3]);
        scenario.collectors = dice.pick(&[1, 1, 2]);
        scenario.chaos = Duration::from_secs(dice.between(15, 90));
        scenario.chains = Some(draw_chains(
            &mut dice,
            relays,
            scenario.gateways + scenario.collectors,
        ));
        scenario.draw_wires(&mut dice);
        // Several hops share what a stream gets.
        scenario.bytes_per_sec.start = scenario.bytes_per_sec.start.max(64 << 10);
        scenario.bytes_per_sec.end = scenario.bytes_per_sec.end.max(128 << 10);
        scenario.draw_devices(&mut dice);
        scenario.devices = Devices {
            burst: 1..scenario.devices.burst.end.min(12),
            ..scenario.devices.clone()
        };
        scenario.draw_channels(&mut dice);
        scenario.draw_clocks(&mut dice);
        scenario.drifts = (0..scenario.hosts())
            .map(|_| dice.pick(&[0, 0, 100, -100, 10_000, -10_000]))
            .collect();
        scenario.draw_faults(&mut dice);
        scenario.draw_steps(&mut dice);
        scenario.draw_attacker(&mut dice);
        scenario.draw_streams(&mut dice);
        scenario.draw_drains(&mut dice);
        scenario
    }

    /// Draws a network in which everybody dials every relay, and each relay is drained in its turn; nothing else happens to it.
    #[must_use]
    pub fn draw_drained(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x6472_6169_6e65_6421);
        let relays = dice.pick(&[2, 3]);
        let mut scenario = Self::chained(seed, relays);
        scenario.gateways = dice.pick(&[1, 2, 3]);
        scenario.collectors = dice.pick(&[1, 2]);
        let chains = Chains {
            links: if dice.one_in(2) { vec![(0, 1)] } else { Vec::new() },
            homes: vec![(0..relays).collect(); scenario.gateways + scenario.collectors],
        };
        scenario.chains = Some(chains);
        scenario.draw_wires(&mut dice);
        scenario.bytes_per_sec.start = scenario.bytes_per_sec.start.max(256 << 10);
        scenario.bytes_per_sec.end = scenario.bytes_per_sec.end.max(512 << 10);
        scenario.draw_channels(&mut dice);
        // Much of the time nothing happens.
        scenario.devices.pause_millis = 500..3_000;
        let mut at = Duration::from_secs(15);
        for relay in 0..relays {
            let within = dice.millis(20_000, 40_000);
            let drain = Fault::Drain {
                host: scenario.first_relay() + relay,
                within,
                lasting: dice.millis(1, 5_000),
            };
            scenario.faults.push((at, drain));
            // Whoever has left looks in again.
            at += within + Duration::from_secs(45);
        }
        scenario.chaos = at;
        scenario
    }

    /// Returns the relays that a gateway or a collector dials, by number from 0.
    pub(crate) fn homes(&self, host: usize) -> Vec<usize> {
        let Some(chains) = &self.chains else {
            return (0..self.relays).collect();
        };
        let end = if host < self.gateways {
            host
        } else {
            host.saturating_sub(self.relays)
        };
        // The impostor is everywhere.
        chains
            .homes
            .get(end)
            .cloned()
            .unwrap_or_else(|| (0..self.relays).collect())
    }

    /// Returns the relays that a relay dials.
    pub(crate) fn dialled_by(&self, relay: usize) -> Vec<usize> {
        let links = self.chains.iter().flat_map(|chains| &chains.links);
        links
            .filter(|(from, _)| *from == relay)
            .map(|(_, to)| *to)
            .collect()
    }

    /// Returns ways from a host over relays to another, the shortest first.
    pub(crate) fn ways(&self, from: usize, to: usize) -> Vec<Way> {
        let targets = self.homes(to);
        let links: Vec<(usize, usize)> = self
            .chains
            .iter()
            .flat_map(|chains| chains.links.clone())
            .collect();
        let homes = self.homes(from);
        let mut found = Vec::new();
        let mut reached: Vec<(usize, Vec<usize>)> = homes
            .iter()
            .enumerate()
            .map(|(home, relay)| (home, vec![*relay]))
            .collect();
        // Breadth first; no relay twice.
        for _ in 0..NAMES_PER_WAY_MAX {
            let mut further = Vec::new();
            for (home, path) in reached {
                let last = path.last().copied().unwrap_or_default();
                if targets.contains(&last) {
                    let onward = path.get(1..).unwrap_or_default().to_vec();
                    found.push(Way { home, onward });
                }
                for (one, other) in &links {
                    let next = if *one == last {
                        *other
                    } else if *other == last {
                        *one
                    } else {
                        continue;
                    };
                    if !path.contains(&next) {
                        further.push((home, [path.as_slice(), &[next]].concat()));
                    }
                }
            }
            reached = further;
        }
        found.truncate(WAYS_MAX);
        found
    }

    /// Returns the pairs of hosts between which there are links.
    pub(crate) fn wired(&self, chains: &Chains) -> Vec<(usize, usize)> {
        let first = self.first_relay();
        let between = chains
            .links
            .iter()
            .map(|(one, other)| (first + one, first + other));
        let ends = (0..self.gateways).chain(self.all_collectors());
        let attached = ends.flat_map(|end| {
            let homes = self.homes(end).into_iter();
            homes.map(move |relay| (first + relay, end))
        });
        between.chain(attached).collect()
    }

    /// Draws clocks that somebody sets while they run.
    fn draw_steps(&mut self, dice: &mut Dice) {
        while dice.one_in(3) {
            let at = dice.millis(500, self.chaos_millis());
            let ahead_millis = i64::try_from(dice.below(200_000)).unwrap_or(0) - 100_000;
            let host = dice.index(self.hosts());
            self.faults.push((at, Fault::StepClock { host, ahead_millis }));
        }
        // Whoever has streams stops more often: what is on its way then is the hard part.
        while dice.one_in(3) {
            let host = dice.index(self.hosts());
            let lasting = dice.millis(1, 5_000);
            let how = dice.pick(&[Stop::Kill, Stop::PowerCut]);
            let at = dice.millis(500, self.chaos_millis());
            self.faults.push((at, Fault::Stop { host, lasting, how }));
        }
    }

    /// Draws relays that have their members leave before they stop. Drawn last: seeds that are kept stay what they are.
    fn draw_drains(&mut self, dice: &mut Dice) {
        while dice.one_in(3) {
            let drain = Fault::Drain {
                host: self.first_relay() + dice.index(self.relays),
                within: dice.millis(500, 30_000),
                lasting: dice.millis(1, 5_000),
            };
            self.faults.push((dice.millis(500, self.chaos_millis()), drain));
        }
    }

    fn draw_streams(&mut self, dice: &mut Dice) {
        let Some(plan) = &mut self.streams else { return };
        plan.session.streams_max = dice.pick(&[3, 16, 64]);
        plan.session.window = dice.pick(&[1_000, 16 << 10, 64 << 10]);
        plan.session.window_max = plan.session.window * dice.pick(&[1, 4]);
        plan.session.resume_within = Duration::from_secs(dice.pick(&[5, 20, 60]));
        plan.both_ways = dice.one_in(2);
        plan.pause_millis = dice.pick(&[500..1_000, 500..4_000, 2_000..20_000]);
        (plan.bytes, plan.piece, plan.piece_millis) = dice.pick(&[
            (0..100, 1..30, 0..20),
            (0..20_000, 1..4_000, 1..200),
            (0..20_000, 500..4_000, 100..2_000),
            (5_000..150_000, 1_000..70_000, 0..50),
        ]);
        plan.refused_one_in = dice.pick(&[0, 5]);
        plan.broken_one_in = dice.pick(&[0, 0, 4]);
        plan.stalled_one_in = dice.pick(&[0, 6]);
    }
}

/// Draws relays that are all connected, some of them twice over, and who is attached where.
fn draw_chains(dice: &mut Dice, relays: usize, ends: usize) -> Chains {
    let mut links = Vec::new();
    let mut link = |dice: &mut Dice, one: usize, other: usize| {
        let known = links.contains(&(one, other)) || links.contains(&(other, one));
        if one != other && !known {
            links.push(if dice.one_in(2) {
                (one, other)
            } else {
                (other, one)
            });
        }
    };
    for relay in 1..relays {
        // In a row, or in any tree.
        let other = if dice.one_in(2) {
            relay - 1
        } else {
            dice.index(relay)
        };
        link(dice, relay, other);
    }
    while dice.one_in(3) {
        let (one, other) = (dice.index(relays), dice.index(relays));
        link(dice, one, other);
    }
    let homes = (0..ends).map(|_| {
        let mut homes = vec![dice.index(relays)];
        let other = dice.index(relays);
        if dice.one_in(3) && !homes.contains(&other) {
            homes.push(other);
        }
        homes
    });
    Chains {
        homes: homes.collect(),
        links,
    }
}

/// Ways of one host to another, at the most.
const WAYS_MAX: usize = 6;
