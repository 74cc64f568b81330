//! Routers joined by in-memory links.

mod cluster;
mod conversation;
mod hostile;
mod invariants;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    identity::Identifier,
    link::tests::Seeded,
    link::{
        Class, FRAME_LEN_MAX, Frame, FrameReader, Label, RoutedHead, begin_routed, finish_frame, put_data,
    },
    relay::{MemberRights, RegistrarFrame, RelaySettings},
    time::Instant,
};

/// The send buffers of one node.
#[derive(Default)]
struct Buffers {
    bytes: BTreeMap<LinkId, Vec<u8>>,
    /// Bytes that a slow connection still has to send.
    stuck: BTreeMap<LinkId, usize>,
}

impl LinkWriter for Buffers {
    fn buffer(&mut self, link: LinkId) -> Option<&mut Vec<u8>> {
        self.bytes.get_mut(&link)
    }

    fn queued_bytes(&self, link: LinkId) -> usize {
        self.bytes.get(&link).map_or(0, Vec::len) + self.stuck.get(&link).copied().unwrap_or(0)
    }
}

/// What a router did with a frame, with storage of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Local {
        flow: FlowId,
        class: Class,
        payload: Vec<u8>,
    },
    Accepted {
        flow: FlowId,
        payload: Vec<u8>,
    },
    Dropped(DropReason),
    Lost {
        flow: FlowId,
        reason: FlowLost,
    },
    LeaseExpired(String),
}

struct Node {
    router: Router,
    buffers: Buffers,
    events: Vec<Event>,
    /// Whether the tables are compared after every step; a flood compares them at its end.
    check_each: bool,
}

impl Node {
    fn new(settings: RouterSettings) -> Self {
        Self {
            router: Router::new(settings),
            buffers: Buffers::default(),
            events: Vec::new(),
            check_each: true,
        }
    }

    fn up(&mut self, now: Instant, entropy: &mut Seeded) -> LinkId {
        let link = self.router.link_up(now, entropy, FRAME_LEN_MAX).expect("room");
        self.buffers.bytes.insert(link, Vec::new());
        link
    }

    /// Gives a frame's bytes to the router; a candidate is accepted.
    fn take(&mut self, now: Instant, link: LinkId, mut bytes: Vec<u8>) {
        let mut reader = FrameReader::default();
        let mut frames = reader.read(&mut bytes);
        while let Some(raw) = frames.next_frame().expect("frames of routers are whole") {
            let frame = Frame::decode(raw.kind, raw.body).expect("frames of routers are well formed");
            let event = match self.router.handle_frame(now, link, frame, &mut self.buffers) {
                Received::Local { flow, class, payload } => Event::Local {
                    flow,
                    class,
                    payload: payload.to_vec(),
                },
                Received::Candidate { candidate, payload } => {
                    let flow = self.router.accept(now, &candidate).expect("room");
                    Event::Accepted {
                        flow,
                        payload: payload.to_vec(),
                    }
                }
                Received::Forwarded { .. } | Received::Consumed => continue,
                Received::Dropped(reason) => Event::Dropped(reason),
            };
            self.events.push(event);
        }
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.router.poll_output() {
            self.events.push(match output {
                Output::FlowLost { flow, reason, .. } => Event::Lost { flow, reason },
                Output::LeaseExpired(lease) => Event::LeaseExpired(lease.name),
            });
        }
        if self.check_each {
            invariants::check(&self.router);
        }
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn send(&mut self, now: Instant, flow: FlowId, class: Class, payload: &[u8]) {
        self.router
            .send(now, flow, class, payload, &mut self.buffers)
            .expect("sent");
    }

    fn register(&mut self, now: Instant, link: LinkId, member: Identifier, name: &str) {
        let frame = RegistrarFrame::Register { request: 1, name };
        let answer = self.router.handle_registrar_frame(now, link, member, &frame);
        assert!(
            matches!(answer, Some(RegistrarFrame::Registered { request: 1, .. })),
            "{answer:?}"
        );
    }
}

/// Nodes by index, and which link of which node leads where.
struct Network {
    now: Instant,
    entropy: Seeded,
    nodes: Vec<Node>,
    wires: BTreeMap<(usize, LinkId), (usize, LinkId)>,
}

impl Network {
    fn new(nodes: Vec<Node>) -> Self {
        Self {
            now: seconds(1),
            entropy: Seeded(7),
            nodes,
            wires: BTreeMap::new(),
        }
    }

    fn connect(&mut self, a: usize, b: usize) -> (LinkId, LinkId) {
        let at_a = self.nodes[a].up(self.now, &mut self.entropy);
        let at_b = self.nodes[b].up(self.now, &mut self.entropy);
        self.wires.insert((a, at_a), (b, at_b));
        self.wires.insert((b, at_b), (a, at_a));
        (at_a, at_b)
    }

    /// Carries frames until none is on its way.
    fn run(&mut self) {
        loop {
            let mut moved = false;
            for (&(from, link), &(to, at)) in &self.wires {
                let buffer = self.nodes[from]
                    .buffers
                    .bytes
                    .get_mut(&link)
                    .expect("links on wires are up");
                let bytes = std::mem::take(buffer);
                if !bytes.is_empty() {
                    moved = true;
                    self.nodes[to].take(self.now, at, bytes);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn cut(&mut self, a: usize, at_a: LinkId) {
        let (b, at_b) = self.wires.remove(&(a, at_a)).expect("connected");
        self.wires.remove(&(b, at_b));
        for (node, link) in [(a, at_a), (b, at_b)] {
            let node = &mut self.nodes[node];
            node.buffers.bytes.remove(&link);
            node.router.link_down(link, &mut node.buffers);
            node.drain();
        }
        self.run();
    }

    /// Lets time pass in steps of a second, with the timeouts of `nodes` only.
    fn wait(&mut self, secs: u64, nodes: &[usize]) {
        for _ in 0..secs {
            self.now = self.now + std::time::Duration::from_secs(1);
            for index in nodes {
                let node = &mut self.nodes[*index];
                if node
                    .router
                    .poll_timeout()
                    .is_some_and(|deadline| self.now >= deadline)
                {
                    node.router.handle_timeout(self.now, &mut node.buffers);
                    node.drain();
                }
            }
            self.run();
        }
    }

    fn labels(&self) -> Vec<usize> {
        self.nodes.iter().map(|node| node.router.label_count()).collect()
    }
}

fn seconds(seconds: u64) -> Instant {
    Instant::START + std::time::Duration::from_secs(seconds)
}

fn id(number: u8) -> Identifier {
    Identifier::from_bytes([number; 32])
}

fn rights(names: &[&str], reach: &[&str]) -> MemberRights {
    let patterns = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| text.parse().expect("a pattern"))
            .collect()
    };
    MemberRights {
        names: patterns(names),
        reach: patterns(reach),
    }
}

fn policy(members: Vec<(u8, MemberRights)>) -> RelaySettings {
    RelaySettings {
        members: members
            .into_iter()
            .map(|(number, rights)| (id(number), rights))
            .collect(),
        queue_bytes_max: 512 << 10,
        ..RelaySettings::default()
    }
}

fn endpoint() -> Node {
    Node::new(RouterSettings {
        services: BTreeSet::from(["uplink".to_owned()]),
        ..RouterSettings::default()
    })
}

fn relay(members: Vec<(u8, MemberRights)>) -> Node {
    Node::new(RouterSettings {
        services: BTreeSet::from(["registrar".to_owned()]),
        relay: Some(policy(members)),
        ..RouterSettings::default()
    })
}

fn route(text: &str) -> Route {
    text.parse().expect("a route")
}

/// Gateway 0, relays 1, 2, 3, collector 4, each joined to the next; the links by node, towards the collector and
/// towards the gateway.
struct Chain {
    net: Network,
    /// `onward[n]` is the link of node n to node n + 1.
    onward: Vec<LinkId>,
    /// `back[n]` is the link of node n + 1 to node n.
    back: Vec<LinkId>,
}

/// The member number of each node of a chain is its index.
fn chain() -> Chain {
    let mut net = Network::new(vec![
        endpoint(),
        relay(vec![(0, rights(&[], &["r2"])), (2, rights(&["r2"], &[]))]),
        relay(vec![(1, rights(&[], &["r3"])), (3, rights(&["r3"], &[]))]),
        relay(vec![(2, rights(&[], &["plant"])), (4, rights(&["plant"], &[]))]),
        endpoint(),
    ]);
    let (onward, back): (Vec<_>, Vec<_>) = (0..4).map(|n| net.connect(n, n + 1)).unzip();
    for (n, name) in [(1_u8, "r2"), (2, "r3"), (3, "plant")] {
        let now = net.now;
        let node = &mut net.nodes[usize::from(n)];
        node.router
            .attach(back[usize::from(n) - 1], id(n - 1))
            .expect("a member");
        node.router
            .attach(onward[usize::from(n)], id(n + 1))
            .expect("a member");
        node.register(now, onward[usize::from(n)], id(n + 1), name);
    }
    Chain { net, onward, back }
}

const CHAIN_ROUTE: &str = "name:r2/name:r3/name:plant/service:uplink";

impl Chain {
    /// Opens a conversation from end to end and agrees on labels; the flows at both ends.
    fn converse(&mut self) -> (FlowId, FlowId) {
        let net = &mut self.net;
        let now = net.now;
        let gateway = net.nodes[0]
            .router
            .open(now, &mut net.entropy, self.onward[0], &route(CHAIN_ROUTE))
            .expect("opened");
        net.nodes[0].send(now, gateway, Class::Normal, b"one");
        net.run();
        let events = net.nodes[4].events();
        let [
            Event::Accepted {
                flow: collector,
                payload,
            },
        ] = events.as_slice()
        else {
            panic!("{events:?}")
        };
        let collector = *collector;
        assert_eq!(payload, b"one");
        net.nodes[4].send(now, collector, Class::Normal, b"two");
        net.run();
        let two = Event::Local {
            flow: gateway,
            class: Class::Normal,
            payload: b"two".to_vec(),
        };
        assert_eq!(net.nodes[0].events(), [two]);
        net.nodes[0].send(now, gateway, Class::Normal, b"three");
        net.run();
        let three = Event::Local {
            flow: collector,
            class: Class::Normal,
            payload: b"three".to_vec(),
        };
        assert_eq!(net.nodes[4].events(), [three]);
        net.nodes[4].send(now, collector, Class::Normal, b"four");
        net.run();
        let four = Event::Local {
            flow: gateway,
            class: Class::Normal,
            payload: b"four".to_vec(),
        };
        assert_eq!(net.nodes[0].events(), [four]);
        assert!(net.nodes[0].router.is_established(gateway));
        assert!(net.nodes[4].router.is_established(collector));
        (gateway, collector)
    }
}
