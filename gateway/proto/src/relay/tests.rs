use proptest::prelude::*;

use super::*;
use crate::{
    route::{LinkId, MemberLinkError},
    time::Instant,
};

fn seconds(seconds: u64) -> Instant {
    Instant::START + Duration::from_secs(seconds)
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

/// Members 1 (holds `a*`) and 2 (holds everything, reaches `a`).
fn relay() -> Relay {
    Relay::new(RelaySettings {
        members: BTreeMap::from([(id(1), rights(&["a*"], &[])), (id(2), rights(&["*"], &["a"]))]),
        ..RelaySettings::default()
    })
}

fn link(index: u32) -> LinkId {
    LinkId::for_test(index)
}

/// Registers and returns the reason if that is refused.
fn register(relay: &mut Relay, at: u64, over: u32, name: &str) -> Result<(), RefusedReason> {
    match relay.handle_frame(
        seconds(at),
        link(over),
        &RegistrarFrame::Register { request: 9, name },
    ) {
        Some(RegistrarFrame::Registered {
            request: 9,
            lease_secs: 600,
        }) => Ok(()),
        Some(RegistrarFrame::Refused { request: 9, reason }) => Err(reason),
        other => panic!("{other:?}"),
    }
}

fn holders(relay: &Relay, name: &str) -> Vec<LinkId> {
    relay
        .registrations()
        .filter(|found| found.name == name)
        .map(|found| found.link)
        .collect()
}

#[test]
fn frames_have_the_bytes_of_the_protocol() {
    let cases: [(RegistrarFrame<'_>, &[u8]); 8] = [
        (
            RegistrarFrame::Register {
                request: 1,
                name: "ab",
            },
            &[0x10, 0, 7, 0, 0, 0, 1, 2, b'a', b'b'],
        ),
        (
            RegistrarFrame::Registered {
                request: 2,
                lease_secs: 600,
            },
            &[0x11, 0, 8, 0, 0, 0, 2, 0, 0, 2, 0x58],
        ),
        (
            RegistrarFrame::Refused {
                request: 3,
                reason: RefusedReason::BadName,
            },
            &[0x12, 0, 5, 0, 0, 0, 3, 3],
        ),
        (
            RegistrarFrame::Unregister { name: "ab" },
            &[0x13, 0, 3, 2, b'a', b'b'],
        ),
        (
            RegistrarFrame::Drain { within_secs: 60 },
            &[0x14, 0, 4, 0, 0, 0, 60],
        ),
        (
            RegistrarFrame::Observed {
                address: "203.0.113.7:61001".parse().unwrap(),
            },
            &[0x16, 0, 7, 4, 203, 0, 113, 7, 0xee, 0x49],
        ),
        (
            RegistrarFrame::Observed {
                address: "[2001:db8::7]:4433".parse().unwrap(),
            },
            &[
                0x16, 0, 19, 6, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0x11, 0x51,
            ],
        ),
        (
            RegistrarFrame::Stays {
                reason: StaysReason::Peers,
            },
            &[0x15, 0, 1, 3],
        ),
    ];
    for (frame, bytes) in cases {
        let mut out = Vec::new();
        frame.put(&mut out);
        assert_eq!(out, bytes);
        assert_eq!(RegistrarFrame::decode(bytes[0], &bytes[3..]), Ok(Some(frame)));
    }
    assert_eq!(RegistrarFrame::decode(0x17, b"later"), Ok(None));
    assert!(RegistrarFrame::decode(0x12, &[0, 0, 0, 1, 5]).is_err());
}

proptest! {
    #[test]
    fn any_frame_is_refused_or_has_one_encoding(kind in 0x0f_u8..0x17, body: Vec<u8>) {
        if let Ok(Some(frame)) = RegistrarFrame::decode(kind, &body) {
            let mut out = Vec::new();
            frame.put(&mut out);
            prop_assert_eq!(out[0], kind);
            prop_assert_eq!(out.get(3..), Some(body.as_slice()));
        }
    }

    #[test]
    fn registrations_come_back(request: u32, name in "\\PC{1,60}", unregister: bool) {
        let frame = if unregister {
            RegistrarFrame::Unregister { name: &name }
        } else {
            RegistrarFrame::Register { request, name: &name }
        };
        let mut out = Vec::new();
        frame.put(&mut out);
        let mut reader = crate::wire::Reader::new(&out);
        let kind = reader.u8("kind").expect("a kind");
        let body = reader.bytes16("body").expect("a body");
        prop_assert_eq!(RegistrarFrame::decode(kind, body), Ok(Some(frame)));
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn patterns_come_back(text in "[^*]{0,40}\\*?") {
        if let Ok(pattern) = text.parse::<NamePattern>() {
            prop_assert_eq!(pattern.to_string(), text);
        } else {
            prop_assert!(text.is_empty() || text.len() > 128);
        }
    }
}

#[test]
fn patterns_mean_one_name_or_a_beginning() {
    let matches =
        |pattern: &str, name: &str| pattern.parse::<NamePattern>().expect("a pattern").matches(name);
    assert!(matches("plant", "plant") && !matches("plant", "plant-1"));
    assert!(matches("plant-*", "plant-1") && matches("plant-*", "plant-") && !matches("plant-*", "plant"));
    assert!(matches("*", "anything"));
    for bad in ["", "a*b", "**", &"x".repeat(129)] {
        let error = bad.parse::<NamePattern>().expect_err("not a pattern");
        assert!(!error.hint().is_empty() && !error.to_string().is_empty());
    }
}

#[test]
fn only_members_register_and_only_their_names() {
    let mut relay = relay();
    assert_eq!(register(&mut relay, 1, 1, "a"), Err(RefusedReason::NotAuthorised));
    assert_eq!(relay.attach(link(1), id(9)), Err(MemberLinkError::NotAMember));
    assert_eq!(relay.attach(link(1), id(1)), Ok(()));
    assert_eq!(register(&mut relay, 1, 1, "b"), Err(RefusedReason::NotAuthorised));
    assert_eq!(register(&mut relay, 1, 1, "ab"), Ok(()));
    assert_eq!(register(&mut relay, 1, 1, ""), Err(RefusedReason::BadName));
    assert_eq!(
        register(&mut relay, 1, 1, &"a".repeat(129)),
        Err(RefusedReason::BadName)
    );
    assert_eq!(register(&mut relay, 1, 1, &"a".repeat(128)), Ok(()));
    let answer = RegistrarFrame::Registered {
        request: 1,
        lease_secs: 1,
    };
    assert_eq!(relay.handle_frame(seconds(1), link(1), &answer), None);
}

#[test]
fn the_link_that_registered_last_holds_the_name() {
    let mut relay = relay();
    for (over, member) in [(1, 1), (2, 2), (3, 2)] {
        relay.attach(link(over), id(member)).expect("a member");
        register(&mut relay, 1, over, "a").expect("registered");
    }
    assert_eq!(relay.holder("a", seconds(1), link(9)), Ok(link(3)));
    assert_eq!(
        relay.holder("a", seconds(1), link(3)),
        Ok(link(2)),
        "never back over the same link"
    );
    register(&mut relay, 2, 1, "a").expect("a renewal");
    assert_eq!(
        relay.holder("a", seconds(2), link(9)),
        Ok(link(3)),
        "a renewal changes nothing"
    );
    relay.handle_frame(seconds(2), link(3), &RegistrarFrame::Unregister { name: "a" });
    assert_eq!(relay.holder("a", seconds(2), link(9)), Ok(link(2)));
    register(&mut relay, 3, 3, "a").expect("registered anew");
    assert_eq!(relay.holder("a", seconds(3), link(9)), Ok(link(3)));
    relay.detach(link(3));
    relay.detach(link(2));
    assert_eq!(relay.holder("a", seconds(3), link(1)), Err(true));
    relay.detach(link(1));
    assert_eq!(relay.holder("a", seconds(3), link(1)), Err(false));
    assert!(relay.is_empty() && relay.attached().count() == 0);
}

#[test]
fn a_name_not_renewed_leads_nowhere() {
    let mut relay = relay();
    relay.attach(link(1), id(1)).expect("a member");
    register(&mut relay, 0, 1, "a").expect("registered");
    register(&mut relay, 300, 1, "ab").expect("registered");
    assert!(relay.holder("a", seconds(599), link(9)).is_ok());
    assert!(
        relay.holder("a", seconds(600), link(9)).is_err(),
        "expired before anybody looked"
    );
    let expired = relay.expire(seconds(600));
    let lease = LeaseExpired {
        name: "a".to_owned(),
        member: id(1),
        link: link(1),
    };
    assert_eq!(expired, [lease]);
    assert_eq!(holders(&relay, "a"), []);
    assert_eq!(holders(&relay, "ab"), [link(1)]);
    assert_eq!(register(&mut relay, 601, 1, "a"), Ok(()));
}

#[test]
fn a_member_has_sixteen_names_over_all_its_links() {
    let mut relay = relay();
    relay.attach(link(1), id(2)).expect("a member");
    relay.attach(link(2), id(2)).expect("a member");
    for n in 0..16 {
        register(&mut relay, 1, 1 + n % 2, &format!("n{n}")).expect("registered");
    }
    assert_eq!(register(&mut relay, 1, 1, "n16"), Err(RefusedReason::Limit));
    assert_eq!(
        register(&mut relay, 1, 1, "n1"),
        Ok(()),
        "a name it has already, over another link"
    );
    relay.handle_frame(seconds(1), link(1), &RegistrarFrame::Unregister { name: "n0" });
    assert_eq!(register(&mut relay, 1, 2, "n16"), Ok(()));
}

#[test]
fn a_ninth_holder_takes_the_place_of_its_members_oldest_link_or_is_refused() {
    let mut relay = relay();
    for over in 1..=9 {
        relay.attach(link(over), id(2)).expect("a member");
        register(&mut relay, 1, over, "a").expect("registered");
    }
    assert_eq!(holders(&relay, "a"), (2..=9).map(link).collect::<Vec<_>>());
    relay.attach(link(10), id(1)).expect("a member");
    assert_eq!(register(&mut relay, 1, 10, "a"), Err(RefusedReason::Limit));
}

#[test]
fn reach_is_denied_by_default() {
    let relay = relay();
    let may = |member: u8, name: &str| relay.may_reach(link(1), &id(member), name);
    assert!(may(2, "a"));
    assert!(!may(2, "ab") && !may(1, "a") && !may(9, "a"));
    assert!(!Relay::new(RelaySettings::default()).may_reach(link(1), &id(2), "a"));
}

#[test]
fn a_relay_that_was_dialled_keeps_the_name_it_was_given_while_its_link_is_up() {
    let mut relay = relay();
    let reach = vec!["b-*".parse().unwrap()];
    relay
        .attach_relay(link(7), id(9), ("other", reach))
        .expect("room");
    assert_eq!(holders(&relay, "other"), [link(7)]);
    assert!(relay.may_reach(link(7), &id(9), "b-1") && !relay.may_reach(link(7), &id(9), "c"));
    assert!(
        !relay.may_reach(link(8), &id(9), "b-1"),
        "the right is the link's"
    );
    // Neither time, nor what it says itself, nor another policy takes the name away.
    assert_eq!(relay.expire(seconds(1_000_000)), []);
    relay.handle_frame(seconds(0), link(7), &RegistrarFrame::Unregister { name: "other" });
    assert_eq!(relay.grant(id(9), MemberRights::default()), [link(7)]);
    assert_eq!(relay.set_settings(RelaySettings::default()), []);
    assert_eq!(relay.holder("other", seconds(1_000_000), link(1)), Ok(link(7)));
    // Another name it may not hold without a right.
    assert_eq!(register(&mut relay, 1, 7, "a"), Err(RefusedReason::NotAuthorised));
    relay.detach(link(7));
    assert_eq!(holders(&relay, "other"), []);
    assert!(!relay.may_reach(link(7), &id(9), "b-1"));
}

#[test]
fn a_new_policy_takes_away_what_it_does_not_allow() {
    let mut relay = relay();
    relay.attach(link(1), id(1)).expect("a member");
    relay.attach(link(2), id(2)).expect("a member");
    for name in ["a", "ab"] {
        register(&mut relay, 1, 1, name).expect("registered");
    }
    let same = relay.settings().clone();
    assert_eq!(relay.set_settings(same), []);
    let members = BTreeMap::from([(id(1), rights(&["a"], &[]))]);
    let changed = relay.set_settings(RelaySettings {
        members,
        ..RelaySettings::default()
    });
    assert_eq!(changed, [(link(1), true), (link(2), false)]);
    assert_eq!(holders(&relay, "a"), [link(1)]);
    assert_eq!(holders(&relay, "ab"), []);
}

#[test]
fn what_a_policy_granted_stands_in_the_place_of_the_list_until_the_last_link_goes() {
    let mut relay = relay();
    assert_eq!(relay.attach(link(3), id(3)), Err(MemberLinkError::NotAMember));
    assert_eq!(relay.grant(id(3), rights(&["c"], &["a"])), []);
    assert_eq!(relay.attach(link(3), id(3)), Ok(()));
    assert_eq!(register(&mut relay, 0, 3, "c"), Ok(()));
    assert!(relay.may_reach(link(1), &id(3), "a") && !relay.may_reach(link(1), &id(3), "b"));

    // The same again changes nothing; less takes the name, and what was forwarded.
    assert_eq!(relay.grant(id(3), rights(&["c"], &["a"])), []);
    assert_eq!(relay.grant(id(3), rights(&["d"], &["b"])), [link(3)]);
    assert_eq!(holders(&relay, "c"), []);
    assert_eq!(register(&mut relay, 1, 3, "c"), Err(RefusedReason::NotAuthorised));
    assert!(relay.may_reach(link(1), &id(3), "b"));

    // New lists leave what a policy decided on.
    assert_eq!(relay.set_settings(RelaySettings::default()), []);
    assert_eq!(register(&mut relay, 2, 3, "d"), Ok(()));
    relay.detach(link(3));
    assert_eq!(relay.attach(link(3), id(3)), Err(MemberLinkError::NotAMember));

    // A grant also takes rights away from whom the lists name.
    let mut relay = self::relay();
    assert_eq!(relay.attach(link(1), id(1)), Ok(()));
    assert_eq!(register(&mut relay, 0, 1, "ab"), Ok(()));
    assert_eq!(relay.grant(id(1), rights(&[], &[])), [link(1)]);
    assert_eq!(holders(&relay, "ab"), []);
}

#[test]
fn a_relay_that_is_drained_takes_no_new_names_and_renews_those_it_has() {
    let mut relay = relay();
    relay.attach(link(1), id(1)).expect("a member");
    relay.attach(link(2), id(2)).expect("a member");
    assert_eq!(register(&mut relay, 1, 1, "a"), Ok(()));
    let way = |relay: &Relay, at| relay.way(seconds(at), "a", (link(2), &id(2)));
    assert_eq!(way(&relay, 1), Ok(Way::Holder(link(1))));
    relay.set_draining(true);
    assert_eq!(register(&mut relay, 300, 1, "a"), Ok(()), "it goes on");
    assert_eq!(register(&mut relay, 300, 1, "ab"), Err(RefusedReason::Draining));
    assert_eq!(way(&relay, 301), Err(NoWay::Draining));
    assert_eq!(
        relay.way(seconds(301), "b", (link(2), &id(2))),
        Err(NoWay::Nobody),
        "what nobody holds is said to be so"
    );
    assert_eq!(relay.leavers().count(), 2);
    relay.set_draining(false);
    assert_eq!(way(&relay, 899), Ok(Way::Holder(link(1))), "it was renewed");
    assert_eq!(register(&mut relay, 302, 1, "ab"), Ok(()));
}
