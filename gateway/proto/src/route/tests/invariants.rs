//! What holds between all tables of a router after every step.

use proptest::prelude::*;

use super::{
    super::label::{Source, Target},
    *,
};
use crate::link::{begin_data, begin_data_offer, put_label_gone};

/// Panics if two tables of the router disagree.
pub(super) fn check(router: &Router) {
    let mut count = 0;
    for (key, state) in router.links.iter() {
        let link = LinkId(key);
        let mut incomplete = 0;
        for (label, entry) in state.labels.chosen() {
            count += 1;
            match entry.target {
                Target::Flow(flow) => {
                    assert_eq!(
                        router.link_of(flow),
                        Some(link),
                        "a label leads to a conversation of another link"
                    );
                }
                Target::Forward {
                    link: out,
                    label: out_label,
                } => {
                    let out_state = router
                        .links
                        .get(out.0)
                        .expect("a label leads to a link that is gone");
                    assert_ne!(out, link, "a label leads back over its own link");
                    assert_eq!(
                        out_state.labels.source(out_label),
                        Some(Source::Label { link, label })
                    );
                    assert!(
                        state.member.is_some() && out_state.member.is_some(),
                        "forwarding without membership"
                    );
                    if let Some(pair) = entry.pair {
                        let other = out_state.labels.get(pair).expect("half a pair");
                        assert_eq!(other.pair, Some(label));
                    }
                }
            }
        }
        for (label, source) in state.labels.leaving() {
            match source {
                Source::Flow(flow) => assert_eq!(router.link_of(flow), Some(link)),
                Source::Label {
                    link: from,
                    label: ours,
                } => {
                    let entry = router
                        .links
                        .get(from.0)
                        .and_then(|state| state.labels.get(ours))
                        .expect("dangling");
                    assert_eq!(entry.target, Target::Forward { link, label });
                    incomplete += usize::from(entry.pair.is_none());
                }
            }
        }
        assert_eq!(
            state.incomplete, incomplete,
            "offers nobody took up are miscounted"
        );
        assert!(state.flows.iter().all(|flow| router.link_of(*flow) == Some(link)));
        assert!(
            state
                .by_return
                .values()
                .all(|flow| router.link_of(*flow) == Some(link))
        );
        assert_eq!(router.congested.contains(&link), !state.queue.is_empty());
        assert_eq!(router.by_address.get(&state.address), Some(&link));
    }
    assert!(
        router
            .congested
            .iter()
            .all(|link| router.links.get(link.0).is_some())
    );
    assert_eq!(router.label_count, count, "labels are miscounted");
    assert_eq!(router.by_address.len(), router.links.len());
    let held: usize = router.links.iter().map(|(_, state)| state.queue.len()).sum();
    assert_eq!(router.held_bytes, held, "held bytes are miscounted");
}

/// One thing that happens to a relay with five links: two attached members that hold a name and may reach the other's,
/// one that may nothing, a stranger, and a link that is mostly down.
#[derive(Clone, Debug)]
enum Step {
    /// A frame over a link; numbers are small, so that guesses hit.
    Frame {
        link: usize,
        kind: u8,
        hops: u8,
        onward: Vec<u8>,
        back: Vec<u8>,
        labels: (u8, u8),
        len: u16,
    },
    /// An answer from one link to another with an offer, the offer taken up, and a payload each way.
    Converse {
        from: usize,
        to: usize,
        offers: (u8, u8),
        len: u16,
    },
    Open {
        link: usize,
    },
    Send {
        flow: u8,
    },
    Close {
        flow: u8,
    },
    Down {
        link: usize,
    },
    Detach {
        link: usize,
    },
    Attach {
        link: usize,
        member: u8,
    },
    Register {
        link: usize,
    },
    Stick {
        link: usize,
        bytes: usize,
    },
    Flush,
    Policy {
        members: u8,
    },
    Wait {
        secs: u64,
    },
}

fn steps() -> impl Strategy<Value = Step> {
    let link = 0_usize..5;
    let addresses = || proptest::collection::vec(0_u8..12, 0..5);
    let frame = (
        link.clone(),
        0_u8..10,
        0_u8..9,
        addresses(),
        addresses(),
        any::<(u8, u8)>(),
        0_u16..3_000,
    );
    prop_oneof![
        12 => frame.prop_map(|(link, kind, hops, onward, back, labels, len)| {
            Step::Frame { link, kind, hops, onward, back, labels, len }
        }),
        12 => (link.clone(), link.clone(), any::<(u8, u8)>(), 0_u16..40_000)
            .prop_map(|(from, to, offers, len)| Step::Converse { from, to, offers, len }),
        1 => link.clone().prop_map(|link| Step::Open { link }),
        2 => any::<u8>().prop_map(|flow| Step::Send { flow }),
        1 => any::<u8>().prop_map(|flow| Step::Close { flow }),
        1 => link.clone().prop_map(|link| Step::Down { link }),
        1 => link.clone().prop_map(|link| Step::Detach { link }),
        3 => (link.clone(), 0_u8..6).prop_map(|(link, member)| Step::Attach { link, member }),
        1 => link.clone().prop_map(|link| Step::Register { link }),
        1 => (link, 100_000_usize..200_000).prop_map(|(link, bytes)| Step::Stick { link, bytes }),
        1 => Just(Step::Flush),
        1 => (0_u8..8).prop_map(|members| Step::Policy { members }),
        1 => (0_u64..70).prop_map(|secs| Step::Wait { secs }),
    ]
}

/// The world around one relay.
struct World {
    node: Node,
    entropy: Seeded,
    now: Instant,
    links: Vec<LinkId>,
    flows: Vec<FlowId>,
    /// Labels this relay has told anyone, from what it sent: frames that guess well use them.
    told: Vec<u32>,
}

fn members(bits: u8) -> RelaySettings {
    let all = vec![
        (1, rights(&["x*"], &["x2"])),
        (2, rights(&["x2"], &["*"])),
        (3, rights(&[], &[])),
    ];
    policy(
        all.into_iter()
            .filter(|(number, _)| bits >> (number - 1) & 1 == 1)
            .collect(),
    )
}

impl World {
    fn new() -> Self {
        let mut node = relay(Vec::new());
        node.router.set_relay(members(7), &mut Buffers::default());
        let mut world = Self {
            node,
            entropy: Seeded(11),
            now: seconds(1),
            links: Vec::new(),
            flows: Vec::new(),
            told: vec![1],
        };
        for member in 1..=5 {
            let link = world.node.up(world.now, &mut world.entropy);
            world.links.push(link);
            let _ = world.node.router.attach(link, id(member));
            world.register(usize::from(member) - 1);
        }
        world
    }

    fn register(&mut self, link: usize) {
        let at = self.links[link];
        let member = self.node.router.member(at).unwrap_or_else(|| id(1));
        for name in ["x1", "x2"] {
            let frame = RegistrarFrame::Register { request: 1, name };
            let _ = self
                .node
                .router
                .handle_registrar_frame(self.now, at, member, &frame);
        }
    }

    fn route(&self, parts: &[u8]) -> Route {
        let mut texts: Vec<String> = Vec::new();
        for part in parts {
            let text = match *part {
                0..5 => {
                    let link = self.links[usize::from(*part)];
                    let address = self
                        .node
                        .router
                        .links
                        .get(link.0)
                        .map_or(LinkAddress([9; 8]), |state| state.address);
                    format!("link:{address}")
                }
                5 | 6 => format!("name:x{}", part - 4),
                7 => "service:registrar".to_owned(),
                8 => "service:flow-00000000000000aa".to_owned(),
                _ => self.flows.get(usize::from(*part)).map_or_else(
                    || "service:uplink".to_owned(),
                    |flow| self.node.router.flows.return_route(*flow).unwrap_or_default(),
                ),
            };
            if !text.is_empty() && !texts.contains(&text) {
                texts.push(text);
            }
        }
        route(&texts.join("/"))
    }

    fn label(&self, guess: u8) -> Label {
        let number = self.told[usize::from(guess) % self.told.len()];
        Label::new(number).expect("never zero")
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Frame {
                link,
                kind,
                hops,
                onward,
                back,
                labels,
                len,
            } => {
                let mut out = Vec::new();
                let class = Class::ALL[usize::from(kind % 3)];
                let (label, offered) = (self.label(labels.0), self.label(labels.1));
                let (onward, back) = (self.route(&onward), self.route(&back));
                let mark = match kind {
                    0..3 => begin_data(&mut out, class, label),
                    3..6 => begin_data_offer(&mut out, class, label, offered),
                    6..9 => begin_routed(
                        &mut out,
                        class,
                        &RoutedHead {
                            hop_limit: HopLimit::new(hops).expect("at most 8"),
                            offered: (labels.0 % 2 == 0).then_some(offered),
                            onward: onward.as_ref(),
                            return_route: back.as_ref(),
                        },
                    ),
                    _ => {
                        put_label_gone(&mut out, label);
                        return self.node.take(self.now, self.links[link], out);
                    }
                };
                out.resize(out.len() + usize::from(len), 1);
                finish_frame(&mut out, mark, FRAME_LEN_MAX).expect("short");
                self.node.take(self.now, self.links[link], out);
            }
            Step::Converse {
                from,
                to,
                offers,
                len,
            } => self.converse(from, to, offers, len),
            Step::Open { link } => {
                let onward = route("name:x2/service:uplink");
                if let Ok(flow) =
                    self.node
                        .router
                        .open(self.now, &mut self.entropy, self.links[link], &onward)
                {
                    self.flows.push(flow);
                }
            }
            Step::Send { flow } => {
                if let Some(flow) = self.flow(flow) {
                    let _ =
                        self.node
                            .router
                            .send(self.now, flow, Class::Normal, b"x", &mut self.node.buffers);
                }
            }
            Step::Close { flow } => {
                if let Some(flow) = self.flow(flow) {
                    self.node.router.close(flow, &mut self.node.buffers);
                }
            }
            Step::Down { link } => {
                let old = self.links[link];
                self.node.buffers.bytes.remove(&old);
                self.node.router.link_down(old, &mut self.node.buffers);
                self.links[link] = self.node.up(self.now, &mut self.entropy);
                let member = u8::try_from(link + 1).expect("below 6");
                let _ = self.node.router.attach(self.links[link], id(member));
            }
            Step::Detach { link } => self.node.router.detach(self.links[link], &mut self.node.buffers),
            Step::Attach { link, member } => {
                // Mostly who was there before.
                let member = if member == 0 {
                    3
                } else {
                    u8::try_from(link + 1).expect("below 6")
                };
                let _ = self.node.router.attach(self.links[link], id(member));
            }
            Step::Register { link } => self.register(link),
            Step::Stick { link, bytes } => {
                self.node.buffers.stuck.insert(self.links[link], bytes);
            }
            Step::Flush => {
                self.node.buffers.stuck.clear();
                self.node.router.flush(&mut self.node.buffers);
            }
            Step::Policy { members: bits } => {
                self.node.router.set_relay(members(bits), &mut self.node.buffers)
            }
            Step::Wait { secs } => {
                self.now = self.now + std::time::Duration::from_secs(secs);
                self.node.router.handle_timeout(self.now, &mut self.node.buffers);
            }
        }
    }

    fn converse(&mut self, from: usize, to: usize, offers: (u8, u8), len: u16) {
        let [here, there] = [offers.0, offers.1].map(|offer| Label::new(u32::from(offer) + 1));
        let (Some(here), Some(there)) = (here, there) else {
            return;
        };
        let mut out = Vec::new();
        let onward = self.route(&[u8::try_from(to).expect("below 5"), 8]);
        let head = RoutedHead {
            hop_limit: HopLimit::MAX,
            offered: Some(here),
            onward: onward.as_ref(),
            return_route: RouteRef::EMPTY,
        };
        let mark = begin_routed(&mut out, Class::Normal, &head);
        finish_frame(&mut out, mark, FRAME_LEN_MAX).expect("short");
        self.node.take(self.now, self.links[from], out);
        let Some(label) = self.learn() else {
            return;
        };
        let mut out = Vec::new();
        let mark = begin_data_offer(&mut out, Class::Alarm, label, there);
        finish_frame(&mut out, mark, FRAME_LEN_MAX).expect("short");
        self.node.take(self.now, self.links[to], out);
        let back = self.learn();
        for (link, label) in [(to, Some(label)), (from, back)] {
            let Some(label) = label else {
                continue;
            };
            let mut out = Vec::new();
            let class = Class::ALL[usize::from(len) % 3];
            put_data(&mut out, class, label, &vec![1; usize::from(len)], FRAME_LEN_MAX).expect("short");
            self.node.take(self.now, self.links[link], out);
        }
    }

    fn flow(&self, index: u8) -> Option<FlowId> {
        self.flows
            .get(usize::from(index) % self.flows.len().max(1))
            .copied()
    }

    /// Reads what was sent, which is whole frames only, and returns the label offered last.
    fn learn(&mut self) -> Option<Label> {
        let mut last = None;
        for event in self.node.events() {
            if let Event::Accepted { flow, .. } = event {
                self.flows.push(flow);
            }
        }
        for bytes in self.node.buffers.bytes.values_mut() {
            let mut bytes = std::mem::take(bytes);
            let mut reader = FrameReader::default();
            let mut frames = reader.read(&mut bytes);
            while let Some(raw) = frames.next_frame().expect("whole frames") {
                let offered = match Frame::decode(raw.kind, raw.body).expect("well formed") {
                    Frame::DataOffer { offered, .. } => Some(offered),
                    Frame::Routed { head, .. } => head.offered,
                    Frame::Data { .. }
                    | Frame::LabelGone(_)
                    | Frame::Hello(_)
                    | Frame::Ping(_)
                    | Frame::Pong(_) => None,
                };
                self.told.extend(offered.map(Label::number));
                last = offered.or(last);
            }
        }
        self.told.drain(..self.told.len().saturating_sub(40));
        last
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn all_tables_agree_after_anything(steps in proptest::collection::vec(steps(), 1..150)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            world.node.drain();
            let _ = world.learn();
        }
        // With every link gone nothing is left.
        for link in world.links.clone() {
            world.node.buffers.bytes.remove(&link);
            world.node.router.link_down(link, &mut world.node.buffers);
        }
        world.node.drain();
        prop_assert_eq!(world.node.router.label_count(), 0);
        prop_assert!(world.node.router.flows.is_empty());
        prop_assert_eq!(world.node.router.held_bytes(), 0);
        prop_assert_eq!(world.node.router.relay().map(|relay| relay.attached().count()), Some(0));
    }
}
