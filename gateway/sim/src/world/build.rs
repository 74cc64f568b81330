//! Putting a network together.

use std::collections::{BTreeMap, BTreeSet};

use fieldgate_proto::{
    identity::Identifier,
    node::{CollectSettings, NeighbourSettings, NodeSettings, RegistrationSettings, UplinkSettings},
    relay::{MemberRights, RelaySettings},
};

use super::{Event, Fingerprint, WireProfile, World};
use crate::{
    attacker::Attacker,
    dice::Dice,
    gateway::GatewayDisk,
    host::{Host, Role},
    model::Model,
    report::{Report, Trace},
    scenario::Scenario,
    sink::Store,
};

impl<'a, 't> World<'a, 't> {
    /// Makes the hosts of `scenario`, and schedules what it says.
    pub(crate) fn new(scenario: &'a Scenario, trace: &'a mut Trace<'t>) -> Self {
        let mut dice = Dice::new(scenario.seed);
        let hosts = hosts(scenario, &mut dice);
        let wires = wires(scenario, hosts.len(), &mut dice);
        let attacker = scenario
            .attacker
            .as_ref()
            .map(|plan| Attacker::new(&plan.verbs, plan.one_in, dice.fork()));
        let mut world = Self {
            scenario,
            trace,
            now: 0,
            dice,
            events: BTreeMap::new(),
            next_event: 0,
            hosts,
            pipes: BTreeMap::new(),
            ends: BTreeMap::new(),
            next_pipe: 0,
            blocked: BTreeMap::new(),
            postponed: Vec::new(),
            wires,
            disk_busy_until: BTreeMap::new(),
            attacker,
            down: BTreeSet::new(),
            doomed: BTreeMap::new(),
            model: Model::default(),
            report: Report {
                seed: scenario.seed,
                ..Report::default()
            },
            healed_at: None,
            fingerprint: Fingerprint::new(),
        };
        world.plan();
        world
    }

    /// Schedules starts, devices, faults and healing.
    fn plan(&mut self) {
        for host in 0..self.hosts.len() {
            self.down.insert(host);
            // Not all at once, and in any order.
            let after = self.dice.millis(0, 300);
            self.schedule(after, Event::Start { host });
        }
        for gateway in 0..self.scenario.gateways {
            let after = self.dice.millis(0, 1500);
            self.schedule(after, Event::Publish { gateway });
        }
        for (fault, (at, _)) in self.scenario.faults.iter().enumerate() {
            self.schedule(*at, Event::Begin { fault });
        }
        self.schedule(self.scenario.chaos, Event::Heal);
    }
}

fn hosts(scenario: &Scenario, dice: &mut Dice) -> Vec<Host> {
    let mut hosts = Vec::new();
    for number in 0..scenario.gateways {
        let files = Role::Gateway(GatewayDisk::default());
        hosts.push(host(format!("gateway-{number}"), files, scenario, dice));
    }
    for number in 0..scenario.relays {
        hosts.push(host(format!("relay-{number}"), Role::Relay, scenario, dice));
    }
    hosts.push(host(
        "collector".to_owned(),
        Role::Collector(Store::new()),
        scenario,
        dice,
    ));
    if scenario.impostor {
        hosts.push(host("impostor".to_owned(), Role::Impostor, scenario, dice));
    }
    for (host, clock) in hosts.iter_mut().zip(&scenario.clocks) {
        host.clock = *clock;
    }
    let identifiers: Vec<Identifier> = hosts.iter().map(|host| host.member.identifier()).collect();
    for (index, host) in hosts.iter_mut().enumerate() {
        introduce(host, index, scenario, &identifiers);
    }
    hosts
}

fn host(name: String, role: Role, scenario: &Scenario, dice: &mut Dice) -> Host {
    let mut settings = NodeSettings::new(&name);
    settings.channels = scenario.channels;
    Host::new(name, role, dice.fork(), settings)
}

/// Tells a host whom it dials, trusts and serves.
fn introduce(host: &mut Host, index: usize, scenario: &Scenario, identifiers: &[Identifier]) {
    let of = |index: usize| *identifiers.get(index).expect("every host has an identity");
    let relays = scenario.first_relay()..scenario.collector();
    let gateways = 0..scenario.gateways;
    let neighbours = |names: &[&str]| -> Vec<NeighbourSettings> {
        relays
            .clone()
            .map(|relay| NeighbourSettings {
                relay: Some(of(relay)),
                pq: scenario.channels.pq,
                registrations: names
                    .iter()
                    .map(|name| RegistrationSettings {
                        name: (*name).to_owned(),
                    })
                    .collect(),
            })
            .collect()
    };
    let mut dials: Vec<usize> = relays.clone().collect();
    let direct = scenario.direct && matches!(host.role, Role::Gateway(_));
    let settings = match &host.role {
        Role::Gateway(_) => {
            let mut ways: Vec<(usize, Option<String>)> = (0..scenario.relays)
                .map(|relay| (relay, Some(NAME.to_owned())))
                .collect();
            // Gateways prefer different relays.
            let preferred = index % ways.len().max(1);
            ways.rotate_left(preferred);
            let mut neighbours = neighbours(&[]);
            if direct {
                neighbours.push(NeighbourSettings {
                    relay: None,
                    pq: scenario.channels.pq,
                    registrations: Vec::new(),
                });
                let at = if scenario.direct_first { 0 } else { ways.len() };
                ways.insert(at, (scenario.relays, None));
                dials.push(scenario.collector());
            }
            let uplink = uplink(scenario, of(scenario.collector()), ways);
            Parts {
                neighbours,
                uplinks: vec![uplink],
                ..Parts::default()
            }
        }
        Role::Relay => {
            dials.clear();
            Parts {
                relay: Some(relay_settings(scenario, identifiers)),
                ..Parts::default()
            }
        }
        Role::Collector(_) => Parts {
            neighbours: neighbours(&[NAME]),
            collect: Some(CollectSettings {
                gateways: gateways.map(of).collect(),
                ..CollectSettings::default()
            }),
            ..Parts::default()
        },
        Role::Impostor => {
            let ways = (0..scenario.relays).map(|relay| (relay, Some(NAME.to_owned())));
            let mut forged = uplink(scenario, of(scenario.collector()), ways.collect());
            forged.available = 3;
            Parts {
                neighbours: neighbours(&[NAME]),
                uplinks: vec![forged],
                collect: Some(CollectSettings {
                    gateways: gateways.map(of).collect(),
                    ..CollectSettings::default()
                }),
                ..Parts::default()
            }
        }
    };
    let target = host.settings_mut();
    target.neighbours = settings.neighbours;
    target.uplinks = settings.uplinks;
    target.relay = settings.relay;
    target.collect = settings.collect;
    host.dials = dials;
}

#[derive(Default)]
struct Parts {
    neighbours: Vec<NeighbourSettings>,
    uplinks: Vec<UplinkSettings>,
    relay: Option<RelaySettings>,
    collect: Option<CollectSettings>,
}

fn uplink(scenario: &Scenario, collector: Identifier, ways: Vec<(usize, Option<String>)>) -> UplinkSettings {
    UplinkSettings {
        collector,
        pq: scenario.channels.pq,
        live_proof: false,
        ways,
        latency: scenario.latency_budget,
        // A gateway's are told by its journal at every start.
        journal: [0xee; 16],
        first: 1,
        available: 0,
    }
}

fn relay_settings(scenario: &Scenario, identifiers: &[Identifier]) -> RelaySettings {
    let rights = |hold: &[&str], reach: &[&str]| MemberRights {
        names: hold
            .iter()
            .map(|name| name.parse().expect("it is a name"))
            .collect(),
        reach: reach
            .iter()
            .map(|name| name.parse().expect("it is a name"))
            .collect(),
    };
    let member = |(index, identifier): (usize, &Identifier)| {
        let rights = if index < scenario.gateways {
            rights(&[], &[NAME])
        } else if index == scenario.collector() {
            rights(&[NAME], &[])
        } else {
            // A relay that means ill lets anybody be anything.
            rights(&["*"], &["*"])
        };
        (*identifier, rights)
    };
    RelaySettings {
        members: identifiers.iter().enumerate().map(member).collect(),
        ..RelaySettings::default()
    }
}

fn wires(scenario: &Scenario, hosts: usize, dice: &mut Dice) -> BTreeMap<(usize, usize), WireProfile> {
    let mut wires = BTreeMap::new();
    for one in 0..hosts {
        for other in one + 1..hosts {
            let (latency, rate) = (&scenario.latency_millis, &scenario.bytes_per_sec);
            let profile = WireProfile {
                latency: dice.millis(latency.start, latency.end),
                bytes_per_sec: dice.between(rate.start, rate.end),
                piece_max: dice.pick(&[120, 1400, 16 << 10, 256 << 10]),
            };
            wires.insert((one, other), profile);
        }
    }
    wires
}

/// The name the collector holds at relays.
const NAME: &str = "plant";
