//! The file's words in the core's: what a node is made from.

use std::collections::{BTreeMap, BTreeSet};

use fieldgate_config::{
    address::{LinkAddress, Network},
    settings::{
        Pq, Registration, Relay, Settings, UplinkPath,
        portal::{Portal, PortalInlet},
    },
};
use fieldgate_proto::{
    candidates::Range,
    channel::{ChannelSettings, Padding, PqPolicy},
    delivery::{LaneSettings, PerLane, ReceiverSettings, Shares},
    identity::Identifier,
    node::{
        AccessPolicy, CollectSettings, DirectSettings, ForwardingSettings, NeighbourSettings, NodeSettings,
        PortalPeerSettings, PortalSettings, RegistrationSettings, UplinkSettings, WaySettings,
    },
    relay::RelaySettings,
};

use super::{
    belonging::Belonging,
    journal::JournalFiles,
    portals::peers_of,
    trunk::{Names, dialling::Neighbour},
};
use crate::sinks::positions::SourceKey;

const fn pq_policy(pq: Pq) -> PqPolicy {
    match pq {
        Pq::Required => PqPolicy::Required,
        Pq::Preferred => PqPolicy::Preferred,
        Pq::Off => PqPolicy::Off,
    }
}

/// Neighbours without repetition: a node has one link to each.
#[derive(Default)]
struct Neighbours {
    settings: Vec<NeighbourSettings>,
    addresses: Vec<Neighbour>,
    /// Those of them that are dialled at addresses that peers tell.
    direct: BTreeSet<usize>,
    /// Those whose links lie in channels, by index.
    carried: BTreeMap<usize, WaySettings>,
}

impl Neighbours {
    fn index(
        &mut self,
        (address, also): (&LinkAddress, &[LinkAddress]),
        relay: Option<Identifier>,
        pq: PqPolicy,
    ) -> usize {
        let is_same = |known: &Neighbour| known.addresses.first() == Some(address) && known.over.is_none();
        let known = self
            .addresses
            .iter()
            .zip(&self.settings)
            .position(|(known, settings)| is_same(known) && settings.relay == relay);
        if let Some(known) = known.and_then(|known| self.addresses.get_mut(known)) {
            // Another entry may know of another way to the same node.
            let new = also.iter().filter(|other| !known.addresses.contains(other));
            let new: Vec<LinkAddress> = new.cloned().collect();
            known.addresses.extend(new);
        }
        known.unwrap_or_else(|| {
            let mut addresses = vec![address.clone()];
            addresses.extend_from_slice(also);
            self.addresses.push(Neighbour {
                addresses,
                on_demand: false,
                over: None,
            });
            self.settings.push(NeighbourSettings {
                relay,
                pq,
                registrations: Vec::new(),
                forwarding: None,
            });
            self.addresses.len() - 1
        })
    }

    /// Returns the ways that a path allows, in order of preference.
    fn ways(&mut self, path: &UplinkPath, pq: PqPolicy) -> Vec<WaySettings> {
        match path {
            UplinkPath::Relays { via, relays } => relays
                .iter()
                .map(|way| {
                    let first = self.index(
                        (&way.relay.address, &way.relay.also),
                        Some(way.relay.identifier),
                        pq,
                    );
                    if way.through_identifiers.is_empty() {
                        return WaySettings {
                            neighbour: first,
                            names: way.through.iter().chain([via]).cloned().collect(),
                        };
                    }
                    let behind = way.through.iter().zip(&way.through_identifiers);
                    let last = behind.fold(first, |before, (name, relay)| {
                        self.behind(before, name, *relay, pq)
                    });
                    WaySettings::relayed(last, via)
                })
                .collect(),
            UplinkPath::Direct { address, also } => {
                vec![WaySettings::direct(self.index((address, also), None, pq))]
            }
        }
    }

    /// Returns a relay behind another, to which a link lies in a channel.
    fn behind(&mut self, before: usize, name: &str, relay: Identifier, pq: PqPolicy) -> usize {
        let way = WaySettings::relayed(before, name);
        let known = self.carried.iter().find(|(index, known)| {
            let settings = self.settings.get(**index);
            **known == way && settings.is_some_and(|settings| settings.relay == Some(relay))
        });
        if let Some((index, _)) = known {
            return *index;
        }
        let index = self.settings.len();
        let over = format!("{name} over {}", self.addresses[before]);
        self.addresses.push(Neighbour {
            addresses: Vec::new(),
            over: Some(over),
            on_demand: false,
        });
        self.settings.push(NeighbourSettings {
            relay: Some(relay),
            pq,
            registrations: Vec::new(),
            forwarding: None,
        });
        self.carried.insert(index, way);
        index
    }

    /// Returns the ways that a path allows, and behind them one that needs no relay, at addresses that the peer tells, if that is
    /// wanted.
    fn all_ways(&mut self, path: &UplinkPath, direct_path: bool, pq: PqPolicy) -> Vec<WaySettings> {
        let mut ways = self.ways(path, pq);
        if !direct_path {
            return ways;
        }
        let index = self.settings.len();
        self.addresses.push(Neighbour {
            addresses: Vec::new(),
            over: None,
            on_demand: true,
        });
        self.settings.push(NeighbourSettings {
            relay: None,
            pq,
            registrations: Vec::new(),
            forwarding: None,
        });
        self.direct.insert(index);
        ways.push(WaySettings::direct(index));
        ways
    }

    fn register(&mut self, registrations: &[Registration], pq: PqPolicy) {
        for registration in registrations {
            let relay = &registration.relay;
            let index = self.index((&relay.address, &relay.also), Some(relay.identifier), pq);
            self.settings[index].registrations.push(RegistrationSettings {
                name: registration.name.clone(),
            });
        }
    }

    /// Has a relay dial others, and forward to them.
    fn forward(&mut self, relay: &Relay, pq: PqPolicy) {
        for neighbour in &relay.neighbours {
            let index = self.index(
                (&neighbour.relay.address, &neighbour.relay.also),
                Some(neighbour.relay.identifier),
                pq,
            );
            let settings = &mut self.settings[index];
            for name in &neighbour.register {
                if !settings.registrations.iter().any(|held| held.name == *name) {
                    settings
                        .registrations
                        .push(RegistrationSettings { name: name.clone() });
                }
            }
            settings.forwarding = Some(ForwardingSettings {
                name: neighbour.name.clone(),
                reach: neighbour.reach.clone(),
            });
        }
    }
}

/// Whom a node has links to, for ways that are wanted while it runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownNeighbours(Vec<(Option<Identifier>, Vec<LinkAddress>)>);

impl KnownNeighbours {
    fn new(neighbours: &Neighbours) -> Self {
        let all = neighbours.settings.iter().zip(&neighbours.addresses);
        Self(
            all.map(|(settings, known)| (settings.relay, known.addresses.clone()))
                .collect(),
        )
    }

    fn index(&self, address: &LinkAddress, relay: Option<Identifier>) -> Result<usize, String> {
        let is_it = |(of, addresses): &(Option<Identifier>, Vec<LinkAddress>)| {
            *of == relay && (relay.is_some() || addresses.contains(address))
        };
        self.0.iter().position(is_it).ok_or_else(|| {
            format!("this node has no link to {address}: who is linked to is said in its file, and needs a restart")
        })
    }

    /// Returns who an inlet leads to, and how.
    ///
    /// # Errors
    /// In words, to whom there is no link.
    pub(crate) fn peer(&self, inlet: &PortalInlet) -> Result<PortalPeerSettings, String> {
        if inlet.direct_path {
            return Err("`direct_path` is for inlets of the node's file".to_owned());
        }
        let ways = match &inlet.path {
            UplinkPath::Relays { via, relays } => relays
                .iter()
                .map(|way| {
                    if !way.through_identifiers.is_empty() {
                        return Err("`through_identifiers` is for inlets of the node's file".to_owned());
                    }
                    Ok(WaySettings {
                        neighbour: self.index(&way.relay.address, Some(way.relay.identifier))?,
                        names: way.through.iter().chain([via]).cloned().collect(),
                    })
                })
                .collect::<Result<_, String>>()?,
            UplinkPath::Direct { address, .. } => vec![WaySettings::direct(self.index(address, None)?)],
        };
        Ok(PortalPeerSettings {
            peer: inlet.node,
            pq: pq_policy(inlet.pq),
            live_proof: inlet.live_proof,
            ways,
        })
    }
}

fn portal_settings(portal: &Portal, neighbours: &mut Neighbours) -> PortalSettings {
    let peers = peers_of(&portal.inlets).into_iter().map(|inlet| {
        let pq = pq_policy(inlet.pq);
        let ways = neighbours.all_ways(&inlet.path, inlet.direct_path, pq);
        PortalPeerSettings {
            peer: inlet.node,
            pq,
            live_proof: inlet.live_proof,
            ways,
        }
    });
    let allowed = portal.outlets.iter().flat_map(|outlet| &outlet.allow);
    PortalSettings {
        peers: peers.collect(),
        outlets: (!portal.outlets.is_empty()).then(|| allowed.copied().collect()),
        sessions_max: PORTAL_SESSIONS_MAX,
        ..PortalSettings::default()
    }
}

/// Turns the file's words about paths without relays into the core's, with the neighbours that are dialled for them.
fn direct_settings(settings: &Settings, neighbours: BTreeSet<usize>) -> DirectSettings {
    DirectSettings {
        collector: settings
            .collector
            .as_ref()
            .is_some_and(|collector| collector.direct_path),
        outlets: settings.portal.as_ref().is_some_and(|portal| portal.direct_path),
        ranges: settings.direct_allow.iter().map(range).collect(),
        neighbours,
    }
}

fn range(network: &Network) -> Range {
    Range {
        first: network.first(),
        last: network.last(),
    }
}

/// Nodes whose streams lead here at the same time.
const PORTAL_SESSIONS_MAX: usize = 256;

/// Turns the file's words into the core's.
pub(super) fn node_settings(
    settings: &Settings,
    own: Identifier,
    belonging: &Belonging,
    journal: Option<&JournalFiles>,
    positions: Option<BTreeMap<SourceKey, u64>>,
) -> (NodeSettings, Names, KnownNeighbours) {
    let mut node = NodeSettings::new(concat!("fieldgate ", env!("CARGO_PKG_VERSION")));
    node.access = AccessPolicy::Ask;
    let mut neighbours = Neighbours::default();
    for (index, uplink) in settings.uplinks.iter().enumerate() {
        let pq = pq_policy(uplink.pq);
        let ways = neighbours.all_ways(&uplink.path, uplink.direct_path, pq);
        let Some(files) = journal else { continue };
        node.uplinks.push(UplinkSettings {
            collector: uplink.collector,
            live_proof: uplink.live_proof,
            pq,
            ways,
            latency: uplink.latency,
            verifiable: uplink.verifiable,
            lanes: PerLane::from_fn(|lane| {
                let journal = files.lanes.lane(lane);
                LaneSettings {
                    journal: *journal.id(),
                    first: journal.first_available(),
                    available: journal.committed(),
                    confirmed: journal.confirmed(index).unwrap_or(0),
                }
            }),
            shares: Shares::default(),
        });
    }
    let padding = settings.uplinks.iter().any(|uplink| uplink.padding);
    let mut pq = PqPolicy::default();
    if let Some(portal) = &settings.portal {
        pq = pq_policy(portal.pq);
        neighbours.register(&portal.registrations, pq);
        node.portals = portal_settings(portal, &mut neighbours);
    }
    if let Some(trust) = &settings.trust {
        node.authority_pq = pq_policy(trust.pq);
    }
    node.authority_ways = belonging
        .paths
        .iter()
        .flat_map(|path| neighbours.ways(path, node.authority_pq))
        .collect();
    if let Some(collector) = &settings.collector {
        pq = pq_policy(collector.pq);
        neighbours.register(&collector.registrations, pq);
        node.collect = Some(CollectSettings {
            receiver: ReceiverSettings {
                remembers: positions.is_some(),
                ..ReceiverSettings::default()
            },
            positions: positions.unwrap_or_default(),
            ..CollectSettings::default()
        });
    }
    if let Some(authority) = &settings.authority {
        pq = pq_policy(authority.pq);
        neighbours.register(&authority.registrations, pq);
        node.authority = true;
    }
    if let Some(relay) = &settings.relay {
        pq = pq_policy(relay.pq);
        neighbours.forward(relay, pq);
        for other in relay.cluster.iter().flat_map(|cluster| &cluster.relays) {
            if other.identifier != own {
                neighbours.index((&other.address, &other.also), Some(other.identifier), pq);
            }
        }
        node.links_max = usize::try_from(relay.links_max).unwrap_or(usize::MAX);
        node.labels_max = usize::try_from(relay.labels_max).unwrap_or(usize::MAX);
        node.guests_max = usize::from(relay.guests_max);
        node.relay = Some(RelaySettings {
            links_per_member_max: usize::from(relay.links_per_member_max),
            queue_bytes_max: usize::try_from(relay.queue_bytes_max).unwrap_or(usize::MAX),
            held_bytes_max: usize::try_from(relay.held_bytes_max).unwrap_or(usize::MAX),
            ..RelaySettings::default()
        });
    }
    node.channels = ChannelSettings {
        pq,
        padding: if padding { Padding::Buckets } else { Padding::Off },
        ..ChannelSettings::default()
    };
    let known = KnownNeighbours::new(&neighbours);
    node.direct = direct_settings(settings, neighbours.direct);
    node.neighbours = neighbours.settings;
    node.carried = neighbours.carried;
    let uplinks = settings.uplinks.iter();
    let uplinks = uplinks.map(|uplink| uplink.name.clone()).collect();
    let members = settings.relay.iter().flat_map(|relay| &relay.members);
    let members = members.map(|member| (member.identifier, member.name.clone()));
    (
        node,
        Names {
            neighbours: neighbours.addresses,
            uplinks,
            members: members.collect(),
        },
        known,
    )
}
