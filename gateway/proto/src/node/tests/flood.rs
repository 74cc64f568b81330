//! Peers that say anything about trust, in any order: nothing panics, and everything stays bounded.

use proptest::prelude::*;

use super::{fleet::*, net::*};
use crate::{
    channel::{frames, put_frame},
    identity::Identifier,
    time::ClockQuality,
    trust::{STATUS_LEN_MAX, StatusPart, TrustFrame, status_parts},
};

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    /// A host says frames to another in the channel they have, all in one record.
    Say {
        from: usize,
        to: usize,
        what: Vec<Said>,
        times: usize,
    },
    /// Seconds pass.
    Pass(u64),
    /// The authority publishes its next list; the gateway is revoked in it, or not.
    Publish { revoked: bool },
    /// The authority answers, refuses or is silent.
    Feel(Mood),
    /// The link between a host and the relay is cut.
    Cut(usize),
    /// A host's clock changes.
    SetClock(usize, TestClock),
    /// The gateway's operator wants something.
    Manage,
    /// A host's policy changes: its peers have to prove themselves, or not.
    Decide { host: usize, proving: bool },
}

/// One frame, whoever may or may not say it.
#[derive(Clone, Debug)]
enum Said {
    Raw(u8, Vec<u8>),
    Have {
        foreign: bool,
        number: u64,
    },
    Part {
        number: u64,
        total: u32,
        offset: u32,
        len: usize,
    },
    List {
        number: u64,
        genuine: bool,
        many: bool,
    },
    TimePlease,
    SignedTime {
        asked: bool,
        genuine: bool,
    },
    Enrol(Vec<u8>),
    Renew(u32),
    Issued {
        request: u32,
        own: bool,
    },
    Denied(u32),
    Manage(u32, String),
    Managed(u32),
    Credential {
        own: bool,
    },
}

fn said() -> impl Strategy<Value = Said> {
    let number = prop_oneof![0_u64..6, Just(u64::MAX)];
    let request = 0_u32..8;
    prop_oneof![
        (0x05_u8..0x42, prop::collection::vec(any::<u8>(), 0..80))
            .prop_map(|(kind, body)| Said::Raw(kind, body)),
        (any::<bool>(), number.clone()).prop_map(|(foreign, number)| Said::Have { foreign, number }),
        (number.clone(), any::<u32>(), 0_u32..3_000_000, 0_usize..2_000).prop_map(
            |(number, total, offset, len)| Said::Part {
                number,
                total,
                offset,
                len
            }
        ),
        (number, 2_000_u32..2_000_000, 1_500_usize..2_000).prop_map(|(number, total, len)| Said::Part {
            number,
            total,
            offset: 0,
            len
        }),
        (0_u64..6, any::<bool>(), any::<bool>()).prop_map(|(number, genuine, many)| Said::List {
            number,
            genuine,
            many
        }),
        Just(Said::TimePlease),
        (any::<bool>(), any::<bool>()).prop_map(|(asked, genuine)| Said::SignedTime { asked, genuine }),
        prop::collection::vec(any::<u8>(), 1..200).prop_map(Said::Enrol),
        request.clone().prop_map(Said::Renew),
        (request.clone(), any::<bool>()).prop_map(|(request, own)| Said::Issued { request, own }),
        request.clone().prop_map(Said::Denied),
        (request.clone(), "[a-z{}]{0,40}").prop_map(|(request, text)| Said::Manage(request, text)),
        request.prop_map(Said::Managed),
        any::<bool>().prop_map(|own| Said::Credential { own }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let clock = prop_oneof![
        3 => Just(TestClock::RIGHT),
        1 => Just(TestClock { ahead_millis: -1_700_000_000_000, quality: ClockQuality::Unknown }),
        1 => Just(TestClock { ahead_millis: -1_000_000_000, quality: ClockQuality::Floor }),
        1 => Just(TestClock { ahead_millis: 3_000_000_000_000, quality: ClockQuality::Synchronised }),
    ];
    let mood = prop_oneof![Just(Mood::Answers), Just(Mood::Denies), Just(Mood::IsSilent)];
    prop_oneof![
        12 => (0_usize..4, 0_usize..4, prop::collection::vec(said(), 1..6), 1_usize..60)
            .prop_map(|(from, to, what, times)| Step::Say { from, to, what, times }),
        4 => prop_oneof![1_u64..4, 30_u64..70].prop_map(Step::Pass),
        1 => any::<bool>().prop_map(|revoked| Step::Publish { revoked }),
        1 => mood.prop_map(Step::Feel),
        1 => (0_usize..4).prop_map(Step::Cut),
        1 => (0_usize..4, clock).prop_map(|(host, clock)| Step::SetClock(host, clock)),
        1 => Just(Step::Manage),
        1 => (1_usize..4, any::<bool>()).prop_map(|(host, proving)| Step::Decide { host, proving }),
    ]
}

/// Writes a frame as `from` might know how to.
fn put(net: &mut Net, from: usize, to: usize, said: &Said, out: &mut Vec<u8>) {
    let authority = net.identifier(AUTHORITY);
    let wall = net.now.wall;
    match said {
        Said::Raw(kind, body) => put_frame(out, *kind, body),
        Said::Have { foreign, number } => TrustFrame::StatusHave {
            authority: if *foreign {
                Identifier::from_bytes([3; 32])
            } else {
                authority
            },
            number: *number,
        }
        .put(out),
        Said::Part {
            number,
            total,
            offset,
            len,
        } => TrustFrame::StatusPart(StatusPart {
            authority,
            number: *number,
            total: *total,
            offset: *offset,
            bytes: &vec![1; *len],
        })
        .put(out),
        Said::List {
            number,
            genuine,
            many,
        } => {
            let revoked = net.authority().revoked.clone();
            if *many {
                let ids = (0..1_000_u32).map(|n| Identifier::from_bytes([n.to_be_bytes()[3]; 32]));
                net.authority().revoked.extend(ids);
            }
            let mut list = net.authority().list_numbered((*number).max(1), wall.unix_secs());
            net.authority().revoked = revoked;
            if !genuine && let Some(last) = list.last_mut() {
                *last ^= 1;
            }
            for part in status_parts(authority, *number, &list) {
                part.put(out);
            }
        }
        Said::TimePlease => TrustFrame::TimePlease { nonce: [4; 16] }.put(out),
        Said::SignedTime { asked, genuine } => {
            let nonce = nonce(net, to, *asked);
            let mut presentation = net.authority().time(nonce, wall.unix_millis);
            if !genuine && let Some(last) = presentation.last_mut() {
                *last ^= 1;
            }
            TrustFrame::SignedTime {
                presentation: &presentation,
            }
            .put(out);
        }
        Said::Enrol(bytes) => TrustFrame::Enrol {
            request: 1,
            signed_request: bytes,
        }
        .put(out),
        Said::Renew(request) => TrustFrame::Renew { request: *request }.put(out),
        Said::Issued { request, own } => {
            let presentation = credential(net, if *own { to } else { from });
            TrustFrame::Issued {
                request: *request,
                presentation: &presentation,
            }
            .put(out);
        }
        Said::Denied(request) => TrustFrame::Denied { request: *request }.put(out),
        Said::Manage(request, text) => TrustFrame::Manage {
            request: *request,
            text,
        }
        .put(out),
        Said::Managed(request) => TrustFrame::Managed {
            request: *request,
            text: "{}",
        }
        .put(out),
        Said::Credential { own } => put_frame(out, 0x07, &credential(net, if *own { from } else { to })),
    }
}

/// Returns the newest question that a host asked, or that nobody asked.
fn nonce(net: &mut Net, host: usize, asked: bool) -> [u8; 16] {
    net.question(host).filter(|_| asked).unwrap_or([8; 16])
}

fn credential(net: &mut Net, host: usize) -> Vec<u8> {
    let (subject, secs) = (net.identifier(host), net.now.wall.unix_secs());
    net.authority()
        .issue(subject, secs)
        .unwrap_or_else(|| vec![1; 300])
}

fn take(net: &mut Net, step: &Step) {
    match step {
        Step::Say {
            from,
            to,
            what,
            times,
        } => {
            let peer = net.identifier(*to);
            let Some(channel) = net.hosts[*from].channel_with(peer) else {
                return;
            };
            let mut all = Vec::new();
            let mut record = Vec::new();
            for said in what {
                put(net, *from, *to, said, &mut all);
            }
            for _ in 0..*times {
                for frame in frames(&all) {
                    let Ok((kind, body)) = frame else { break };
                    if record.len() + body.len() + 3 > 65_000 {
                        net.say(*from, channel, &std::mem::take(&mut record));
                    }
                    put_frame(&mut record, kind, body);
                }
            }
            net.say(*from, channel, &record);
        }
        Step::Pass(secs) => net.pass(*secs),
        Step::Publish { revoked } => {
            let gateway = net.identifier(GATEWAY);
            let list = &mut net.authority().revoked;
            if *revoked {
                list.insert(gateway);
            } else {
                list.remove(&gateway);
            }
            let now = net.now_at(AUTHORITY);
            let list = net
                .authority()
                .list(now.wall.unix_secs().clamp(EPOCH_SECS, EPOCH_SECS + 80_000));
            let host = &mut net.hosts[AUTHORITY];
            // Somebody may have brought a later one.
            let _ = host.node.publish_status(now, &list, &mut host.buffers);
        }
        Step::Feel(mood) => net.authority().mood = *mood,
        Step::Cut(host) => {
            let link = net
                .pipes
                .keys()
                .find(|(from, _)| from == host)
                .map(|(_, key)| *key);
            if let Some(link) = link {
                net.disconnect(*host, link);
            }
        }
        Step::SetClock(host, clock) => {
            // The authority's own is right, or it could sign nothing.
            if *host != AUTHORITY {
                net.hosts[*host].clock = *clock;
            }
        }
        Step::Manage => {
            let (now, gateway) = (net.now, &mut net.hosts[GATEWAY]);
            gateway.node.manage(now, 1, "{}".to_owned(), &mut gateway.buffers);
        }
        Step::Decide { host, proving: prove } => {
            let authority = net.identifier(AUTHORITY);
            net.hosts[*host].policy = Some(if *prove {
                proving(authority)
            } else {
                standard(authority)
            });
            let (now, host) = (net.now_at(*host), &mut net.hosts[*host]);
            host.node.authorise_all_again(now, &mut host.buffers);
        }
    }
    net.settle();
}

/// What must hold at any time.
fn check(net: &Net, numbers: &mut [u64]) {
    for (index, host) in net.hosts.iter().enumerate() {
        let node = &host.node;
        let channels = node.by_channel.len();
        assert!(channels <= 24, "host {index} has {channels} channels");
        assert!(
            node.known.len() <= channels,
            "it knows peers of channels that are gone"
        );
        let (waiting, later, bytes) = node.accesses.waiting();
        assert!(waiting <= channels && later <= channels && bytes <= 4 << 20);
        let (sending, assembling) = node.lists.held();
        assert!(sending <= channels, "{sending} lists are being sent");
        assert!(assembling <= 8 * STATUS_LEN_MAX);
        for known in node.known.values() {
            assert!(known.dealings.unanswered() <= 16);
        }
        let number = net.view(index).list_number;
        assert!(
            number >= numbers[index],
            "host {index} went back to list {number}"
        );
        numbers[index] = number;
        let trust = node.trust.as_ref().unwrap();
        for known in node.known.values().filter(|known| known.admitted) {
            assert!(
                !trust.is_revoked(&known.peer),
                "host {index} serves who is revoked"
            );
        }
        let deadline = node.poll_timeout().unwrap();
        let ahead = deadline > net.now.instant;
        assert!(
            ahead,
            "host {index} wants to be called at {deadline} again, at {}",
            net.now.instant
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn peers_that_say_anything_harm_nobody(steps in prop::collection::vec(step(), 1..40)) {
        let mut net = fleet(|plan| {
            plan.credential_secs = 120;
            plan.list_secs = 240;
            for trust in plan.trust.iter_mut().flatten() {
                trust.grace = std::time::Duration::from_secs(60);
            }
        });
        net.pass(3);
        let mut numbers = vec![0; net.hosts.len()];
        for step in &steps {
            let before: usize = net.carried.values().sum();
            let events: usize = net.hosts.iter().map(|host| host.events.len() + host.outputs.len()).sum();
            take(&mut net, step);
            check(&net, &mut numbers);
            let carried: usize = net.carried.values().sum::<usize>() - before;
            let said: usize = net.hosts.iter().map(|host| host.events.len() + host.outputs.len()).sum();
            if let Step::Say { .. } = step {
                // One record of 64 KiB and what it may bring about: no multiple of what it holds.
                prop_assert!(carried <= 2 << 20, "{carried} bytes for {step:?}");
                prop_assert!(said - events <= 120, "{} outputs for {step:?}", said - events);
            }
        }
    }
}
