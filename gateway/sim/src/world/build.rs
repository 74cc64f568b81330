//! Putting a network together.

use std::collections::{BTreeMap, BTreeSet};

use fieldgate_proto::{
    delivery::{LaneSettings, PerLane, Shares},
    identity::Identifier,
    node::{
        AccessPolicy, CARRIED_DEPTH_MAX, CollectSettings, ForwardingSettings, NeighbourSettings,
        NodeSettings, PortalPeerSettings, PortalSettings, RegistrationSettings, UplinkSettings, WaySettings,
    },
    relay::{MemberRights, NamePattern, RelaySettings},
    time::{ClockQuality, WallTime},
};

use super::{Event, Fingerprint, WireProfile, World};
use crate::{
    attacker::Attacker,
    authority::{Authority, MemberPlan},
    dice::Dice,
    gateway::GatewayDisk,
    host::{Host, Role},
    model::{COLLECTORS_MAX, Model},
    report::{Report, Trace},
    scenario::{EPOCH_SECS, Fault, Scenario, TrustPlan, Way},
    sink::Store,
    trusting::{AUTHORITY_NAME, HostTrust, pattern},
};

impl<'a, 't> World<'a, 't> {
    /// Makes the hosts of `scenario`, and schedules what it says.
    pub(crate) fn new(scenario: &'a Scenario, trace: &'a mut Trace<'t>) -> Self {
        let mut dice = Dice::new(scenario.seed);
        let mut model = Model::default();
        model.trust.begin(scenario.trust.as_ref());
        model.collectors = (scenario.collector(), scenario.collectors);
        model.streams.pairs = portals(scenario).into_iter().collect();
        let hosts = hosts(scenario, &mut dice, &mut model);
        let wires = wires(scenario, hosts.len(), &mut dice);
        let attacker = scenario
            .attacker
            .as_ref()
            .map(|plan| Attacker::new(&plan.verbs, plan.one_in, dice.fork()))
            .map(|attacker| match scenario.chains {
                Some(_) => attacker.with_relays((0..scenario.relays).map(relay_name).collect()),
                None => attacker,
            });
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
            backups: BTreeMap::new(),
            model,
            report: Report {
                seed: scenario.seed,
                ..Report::default()
            },
            healed_at: None,
            fingerprint: Fingerprint::new(),
            steps_at_once: 0,
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
        for (fault, (at, what)) in self.scenario.faults.iter().enumerate() {
            self.schedule(*at, Event::Begin { fault });
            if let Fault::Restore { host, age, .. } = what {
                self.schedule(at.saturating_sub(*age), Event::BackUp { host: *host });
            }
        }
        self.plan_trust();
        self.schedule(self.scenario.chaos, Event::Heal);
    }
}

fn hosts(scenario: &Scenario, dice: &mut Dice, model: &mut Model) -> Vec<Host> {
    let mut roles = Vec::new();
    for number in 0..scenario.gateways {
        roles.push((format!("gateway-{number}"), Role::Gateway(GatewayDisk::default())));
    }
    for number in 0..scenario.relays {
        roles.push((format!("relay-{number}"), Role::Relay));
    }
    for number in 0..scenario.collectors {
        let name = if number == 0 {
            "collector".to_owned()
        } else {
            format!("collector-{number}")
        };
        roles.push((name, Role::Collector(Store::new())));
    }
    if let Some(plan) = &scenario.trust {
        let authority = Role::Authority(Box::new(Authority::new(plan)));
        roles.push(("authority".to_owned(), authority));
    }
    if scenario.impostor {
        roles.push(("impostor".to_owned(), Role::Impostor));
    }
    let numbered = roles.into_iter().enumerate();
    let mut hosts: Vec<Host> = numbered
        .map(|(number, (name, role))| {
            let mut settings = NodeSettings::new(&name);
            settings.channels = scenario.channels;
            Host::new(name, number, role, dice.fork(), settings)
        })
        .collect();
    for (host, clock) in hosts.iter_mut().zip(&scenario.clocks) {
        host.clock = *clock;
    }
    for (host, drift) in hosts.iter_mut().zip(&scenario.drifts) {
        host.drift = *drift;
    }
    let identifiers: Vec<Identifier> = hosts.iter().map(|host| host.member.identifier()).collect();
    for (index, host) in hosts.iter_mut().enumerate() {
        introduce(host, index, scenario, &identifiers);
    }
    if let Some(plan) = &scenario.trust {
        admit(&mut hosts, scenario, plan, model);
    }
    hosts
}

/// Makes members of the hosts, or gives them tickets, and has all trust the authority.
fn admit(hosts: &mut [Host], scenario: &Scenario, plan: &TrustPlan, model: &mut Model) {
    let (members, others) = hosts.split_at_mut(scenario.authority());
    let Some((authority, others)) = others.split_first_mut() else {
        return;
    };
    let identifier = authority.member.identifier();
    for host in members.iter_mut().chain(others).chain([&mut *authority]) {
        host.trust = Some(HostTrust::new(identifier, plan));
    }
    let Role::Authority(store) = &mut authority.role else {
        return;
    };
    store.start(&mut authority.member, &mut authority.dice, EPOCH_SECS);
    let wall = WallTime {
        unix_millis: EPOCH_SECS * 1000,
        quality: ClockQuality::Synchronised,
    };
    for (index, host) in members.iter_mut().enumerate() {
        let (hold, reach): (&[&str], &[&str]) = if index < scenario.gateways {
            (&[], &[NAMES[0], NAMES[1], AUTHORITY_NAME])
        } else if let Some(name) = name_of(scenario, index) {
            (&[name], &[AUTHORITY_NAME])
        } else {
            (&[], &[])
        };
        let member = MemberPlan {
            name: host.name.clone(),
            hold: hold.iter().map(|name| pattern(name)).collect(),
            reach: reach.iter().map(|name| pattern(name)).collect(),
        };
        let subject = host.member.identifier();
        let Some(trust) = &mut host.trust else { continue };
        if plan.strangers.iter().any(|(stranger, _)| *stranger == index) {
            let until = EPOCH_SECS + 86_400;
            trust.ticket = Some(store.ticket(identifier, &mut authority.dice, member, until));
        } else {
            store.admit(subject, member);
            trust.saved.own = store.issue(&authority.member, subject, wall, model);
        }
    }
}

/// Tells a host whom it dials, trusts and serves.
fn introduce(host: &mut Host, index: usize, scenario: &Scenario, identifiers: &[Identifier]) {
    let of = |index: usize| *identifiers.get(index).expect("every host has an identity");
    let relays = scenario.first_relay()..scenario.collector();
    let gateways = 0..scenario.gateways;
    let homes: Vec<usize> = scenario
        .homes(index)
        .iter()
        .map(|home| relays.start + home)
        .collect();
    let neighbours = |names: &[&str]| -> Vec<NeighbourSettings> {
        homes
            .iter()
            .map(|relay| NeighbourSettings {
                relay: Some(of(*relay)),
                pq: scenario.channels.pq,
                registrations: names
                    .iter()
                    .map(|name| RegistrationSettings {
                        name: (*name).to_owned(),
                    })
                    .collect(),
                forwarding: None,
            })
            .collect()
    };
    let mut dials = homes.clone();
    let settings = match &host.role {
        Role::Gateway(_) => {
            let own = portal_name(index);
            let names = scenario.streams.as_ref().map(|_| own.as_str());
            let (parts, dialled) = gateway(scenario, index, neighbours(names.as_slice()), &of);
            dials.extend(dialled);
            parts
        }
        Role::Relay if scenario.trust.is_some() => {
            dials = vec![scenario.authority()];
            Parts {
                neighbours: vec![directly(scenario)],
                relay: Some(RelaySettings::default()),
                ..Parts::default()
            }
        }
        Role::Relay => {
            let (neighbours, dialled) = relays_dialled(scenario, index, identifiers);
            dials = dialled;
            Parts {
                neighbours,
                relay: Some(relay_settings(scenario, identifiers)),
                ..Parts::default()
            }
        }
        Role::Authority(_) => Parts {
            neighbours: neighbours(&[AUTHORITY_NAME]),
            ..Parts::default()
        },
        Role::Collector(_) => Parts {
            neighbours: neighbours(name_of(scenario, index).as_slice()),
            collect: Some(CollectSettings {
                gateways: gateways.map(of).collect(),
                ..CollectSettings::default()
            }),
            ..Parts::default()
        },
        Role::Impostor => Parts {
            neighbours: match scenario.chains {
                Some(_) => neighbours(&[NAMES[0], &portal_name(0), &relay_name(0)]),
                None => neighbours(&[NAMES[0]]),
            },
            collect: Some(CollectSettings {
                gateways: gateways.map(of).collect(),
                ..CollectSettings::default()
            }),
            ..impostor(scenario, of(scenario.collector()))
        },
    };
    let to_authority = authority_ways(host, index, scenario);
    introduce_portals(host, index, scenario, &of);
    let is_authority = matches!(host.role, Role::Authority(_));
    let target = host.settings_mut();
    if scenario.trust.is_some() {
        target.access = AccessPolicy::Ask;
        target.authority = is_authority;
        target.authority_pq = scenario.channels.pq;
        target.authority_ways = to_authority;
    }
    target.neighbours = settings.neighbours;
    target.uplinks = settings.uplinks;
    target.relay = settings.relay;
    target.collect = settings.collect;
    if scenario.chains.as_ref().is_some_and(|chains| chains.carried) {
        carry(target, scenario, &of);
    }
    host.dials = dials;
}

/// Has a host authenticate the relays on its ways, as many as may be.
fn carry(settings: &mut NodeSettings, scenario: &Scenario, of: &impl Fn(usize) -> Identifier) {
    let uplinks = settings.uplinks.iter_mut().flat_map(|uplink| &mut uplink.ways);
    let peers = settings.portals.peers.iter_mut().flat_map(|peer| &mut peer.ways);
    for way in uplinks.chain(peers) {
        let onward = way.names.len().saturating_sub(1);
        for name in way.names.drain(..onward.min(usize::from(CARRIED_DEPTH_MAX))) {
            let relay = (0..scenario.relays).find(|relay| relay_name(*relay) == name);
            let over = WaySettings::relayed(way.neighbour, &name);
            let known = settings.carried.iter().find(|(_, known)| **known == over);
            way.neighbour = known.map(|(index, _)| *index).unwrap_or_else(|| {
                settings.neighbours.push(NeighbourSettings {
                    relay: relay.map(|relay| of(scenario.first_relay() + relay)),
                    pq: scenario.channels.pq,
                    registrations: Vec::new(),
                    forwarding: None,
                });
                let index = settings.neighbours.len() - 1;
                settings.carried.insert(index, over);
                index
            });
        }
    }
}

/// Returns what a gateway does, and the collectors that it dials itself.
fn gateway(
    scenario: &Scenario,
    index: usize,
    mut neighbours: Vec<NeighbourSettings>,
    of: &impl Fn(usize) -> Identifier,
) -> (Parts, Vec<usize>) {
    let (mut uplinks, mut dials) = (Vec::new(), Vec::new());
    let relays = neighbours.len();
    for (number, collector) in scenario.all_collectors().enumerate() {
        let name = name_of(scenario, collector).unwrap_or_default();
        let mut ways = ways(scenario, (index, collector), name);
        if scenario.chains.is_none() {
            // Gateways prefer different relays.
            let preferred = index % ways.len().max(1);
            ways.rotate_left(preferred);
        }
        if scenario.direct {
            neighbours.push(directly(scenario));
            let at = if scenario.direct_first { 0 } else { ways.len() };
            ways.insert(at, WaySettings::direct(relays + number));
            dials.push(collector);
        }
        uplinks.push(uplink(scenario, of(collector), ways));
    }
    let parts = Parts {
        neighbours,
        uplinks,
        ..Parts::default()
    };
    (parts, dials)
}

/// Returns the ways from one host over relays to another, that has a name.
fn ways(scenario: &Scenario, (from, to): (usize, usize), name: &str) -> Vec<WaySettings> {
    let ways = scenario.ways(from, to).into_iter();
    ways.map(|Way { home, onward }| WaySettings {
        neighbour: home,
        names: onward
            .into_iter()
            .map(relay_name)
            .chain([name.to_owned()])
            .collect(),
    })
    .collect()
}

/// Returns the inlet's host and the outlet's of all portals.
fn portals(scenario: &Scenario) -> Vec<(usize, usize)> {
    let Some(plan) = &scenario.streams else {
        return Vec::new();
    };
    let collectors = scenario.all_collectors();
    let pairs =
        collectors.flat_map(|collector| (0..scenario.gateways).map(move |gateway| (collector, gateway)));
    let back = pairs.clone().map(|(collector, gateway)| (gateway, collector));
    pairs.chain(back.filter(|_| plan.both_ways)).collect()
}

/// Tells a host where its inlets lead, and whose streams lead to it.
fn introduce_portals(host: &mut Host, index: usize, scenario: &Scenario, of: &impl Fn(usize) -> Identifier) {
    let Some(plan) = &scenario.streams else { return };
    let portals = portals(scenario);
    let inlets = portals
        .iter()
        .filter(|(from, _)| *from == index)
        .map(|(_, to)| *to);
    host.inlets = inlets.collect();
    let peers = portals
        .iter()
        .filter(|(_, to)| *to == index)
        .map(|(from, _)| *from);
    host.outlets = peers.map(|peer| (of(peer), peer)).collect();
    let peer = |to: &usize| {
        let name = name_of(scenario, *to).map_or_else(|| portal_name(*to), str::to_owned);
        PortalPeerSettings {
            peer: of(*to),
            pq: scenario.channels.pq,
            live_proof: false,
            ways: ways(scenario, (index, *to), &name),
        }
    };
    let settings = PortalSettings {
        peers: host.inlets.iter().map(peer).collect(),
        outlets: (!host.outlets.is_empty()).then(|| host.outlets.keys().copied().collect()),
        session: plan.session,
        sessions_max: host.outlets.len(),
    };
    host.settings_mut().portals = settings;
}

/// Returns the relays that a relay dials: as neighbours, and their numbers among the hosts.
fn relays_dialled(
    scenario: &Scenario,
    index: usize,
    identifiers: &[Identifier],
) -> (Vec<NeighbourSettings>, Vec<usize>) {
    let first = scenario.first_relay();
    let own = index - first;
    let others = scenario.dialled_by(own);
    let neighbours = others.iter().map(|other| NeighbourSettings {
        relay: identifiers.get(first + other).copied(),
        pq: scenario.channels.pq,
        registrations: vec![RegistrationSettings {
            name: relay_name(own),
        }],
        forwarding: Some(ForwardingSettings {
            name: relay_name(*other),
            reach: patterns(&EVERYBODY),
        }),
    });
    (
        neighbours.collect(),
        others.iter().map(|other| first + other).collect(),
    )
}

/// What somebody has who claims to be the collector, and to have readings for it.
fn impostor(scenario: &Scenario, collector: Identifier) -> Parts {
    let ways = (0..scenario.relays).map(|relay| WaySettings::relayed(relay, NAMES[0]));
    let mut forged = uplink(scenario, collector, ways.collect());
    for lane in &mut forged.lanes.0 {
        lane.available = 3;
    }
    Parts {
        uplinks: vec![forged],
        ..Parts::default()
    }
}

/// A neighbour that is no relay.
const fn directly(scenario: &Scenario) -> NeighbourSettings {
    NeighbourSettings {
        relay: None,
        pq: scenario.channels.pq,
        registrations: Vec::new(),
        forwarding: None,
    }
}

/// Returns how a host reaches the authority.
fn authority_ways(host: &Host, index: usize, scenario: &Scenario) -> Vec<WaySettings> {
    match host.role {
        Role::Gateway(_) | Role::Collector(_) | Role::Impostor => {
            let mut ways: Vec<WaySettings> = (0..scenario.relays)
                .map(|relay| WaySettings::relayed(relay, AUTHORITY_NAME))
                .collect();
            let preferred = index % ways.len().max(1);
            ways.rotate_left(preferred);
            ways
        }
        Role::Relay => vec![WaySettings::direct(0)],
        Role::Authority(_) => Vec::new(),
    }
}

#[derive(Default)]
struct Parts {
    neighbours: Vec<NeighbourSettings>,
    uplinks: Vec<UplinkSettings>,
    relay: Option<RelaySettings>,
    collect: Option<CollectSettings>,
}

fn uplink(scenario: &Scenario, collector: Identifier, ways: Vec<WaySettings>) -> UplinkSettings {
    UplinkSettings {
        collector,
        pq: scenario.channels.pq,
        live_proof: scenario.trust.as_ref().is_some_and(|plan| plan.proofs),
        ways,
        latency: scenario.latency_budget,
        verifiable: false,
        // A gateway's are told by its journal at every start.
        lanes: PerLane::from_fn(|lane| LaneSettings {
            journal: [0xe0 + lane.bits(); 16],
            first: 1,
            available: 0,
            confirmed: 0,
        }),
        shares: Shares::default(),
    }
}

fn relay_settings(scenario: &Scenario, identifiers: &[Identifier]) -> RelaySettings {
    let rights = |hold: &[&str], reach: &[&str]| MemberRights {
        names: patterns(hold),
        reach: patterns(reach),
    };
    let is_chained = scenario.chains.is_some();
    let member = |(index, identifier): (usize, &Identifier)| {
        let rights = if is_chained && index < scenario.hosts() {
            let own = name_of(scenario, index).map_or_else(|| portal_name(index), str::to_owned);
            let relay = index.checked_sub(scenario.first_relay()).map(relay_name);
            match relay {
                Some(relay) if index < scenario.collector() => rights(&[&relay], &EVERYBODY),
                Some(_) => rights(&[&own], &["relay-*", "gateway-*"]),
                None => rights(&[&own], &["relay-*", "plant", "archive"]),
            }
        } else if index < scenario.gateways {
            rights(&[], &NAMES)
        } else if let Some(name) = name_of(scenario, index) {
            rights(&[name], &[])
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

/// Returns the name that a collector holds at relays.
fn name_of(scenario: &Scenario, host: usize) -> Option<&'static str> {
    let number = scenario
        .all_collectors()
        .position(|collector| collector == host)?;
    NAMES.get(number).copied()
}

fn patterns(names: &[&str]) -> Vec<NamePattern> {
    names.iter().map(|name| pattern(name)).collect()
}

/// Returns the name under which relays in a row know each other.
fn relay_name(relay: usize) -> String {
    format!("relay-{relay}")
}

/// Returns the name that a gateway with outlets holds at relays.
fn portal_name(gateway: usize) -> String {
    format!("gateway-{gateway}")
}

/// What relays in a row may reach at each other.
const EVERYBODY: [&str; 4] = ["relay-*", "gateway-*", "plant", "archive"];
/// The names that collectors hold at relays.
const NAMES: [&str; COLLECTORS_MAX] = ["plant", "archive"];
