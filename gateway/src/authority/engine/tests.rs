use std::{collections::BTreeMap, sync::Arc};

use fieldgate_hsm::Algorithm;
use fieldgate_proto::{
    identity::Identifier,
    time::ClockQuality,
    trust::{EnrolResponse, Presentation, Rights, SignedTime, StatementKind, Ticket},
};

use super::*;
use crate::authority::{
    Grant,
    rig::{
        ADMINISTRATOR, BEGINNING, ENROLLER, LOCAL, NOTHING, Node, Rig, at, credential, issued, order,
        read_ticket, refused,
    },
    wire::{MESSAGE_BYTES_MAX, MemberOrder, TicketOrder},
};

mod keys;
mod limits;
mod operators;
mod random;
mod restored;

/// Number of the second list, if it is made in the same second as the first.
const SECOND: u64 = BEGINNING + 1;

#[test]
fn a_ticket_makes_a_member() {
    let mut rig = Rig::new();
    let ticket = rig.ticket(|order| {
        order.name = Some("press-3".to_owned());
        order.grant.attributes = BTreeMap::from([("site".to_owned(), "north".to_owned())]);
        order.grant.hold = vec!["press-*".to_owned()];
        order.grant.reach = vec!["collector".to_owned()];
    });
    let mut node = Node::with(Algorithm::P256);
    let request = node.request(&ticket, "another-name");
    let answer = rig.enrol(request);
    let credential = rig.credential(&answer);
    assert_eq!(credential.subject, node.id());
    assert_eq!(credential.name, "press-3", "the ticket says the name");
    assert_eq!(
        credential.attributes.get("site").map(String::as_str),
        Some("north")
    );
    assert_eq!(credential.rights, NOTHING);
    let texts = |patterns: &[fieldgate_proto::relay::NamePattern]| {
        patterns.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(texts(&credential.hold), ["press-*"]);
    assert_eq!(texts(&credential.reach), ["collector"]);
    assert_eq!(credential.issued_at, BEGINNING);
    assert_eq!(credential.not_after, BEGINNING + 3 * 86_400);
    rig.verify_log();
}

#[test]
fn an_identity_that_was_rotated_enrols_with_its_current_key() {
    let mut rig = Rig::new();
    let ticket = rig.ticket(|_| ());
    let node = Node::new();
    let identifier = node.id();
    let mut node = node.rotated();
    let request = node.request(&ticket, "");
    let answer = rig.enrol(request);
    assert_eq!(rig.credential(&answer).subject, identifier);
}

/// Whoever is refused hears the same; the log says why.
#[test]
fn a_refusal_is_explained_to_the_operator_only() {
    let mut rig = Rig::with(|settings| settings.limits.members_max = 3);
    let other_authority = foreign_ticket(Node::seeded(2).id());
    let unknown = foreign_ticket(rig.authority.id());
    let plain = rig.ticket(|_| ());
    let spent = rig.ticket(|_| ());
    let mut first = Node::new();
    let request = first.request(&spent, "first");
    assert!(matches!(rig.enrol(request), AuthorityAnswer::Issued(_)));
    let ended = rig.ticket(|_| ());
    rig.manage(ManageRequest::TicketRevoke {
        id: data_encoding::HEXUPPER.encode(ended.id()),
    });
    let named = rig.ticket(|order| order.name = Some("first".to_owned()));
    let mut revoked = Node::new();
    rig.revoke(&revoked.id().to_string());
    let forged = forged_ticket(&plain);
    let wrong_key = {
        let (mut owner, mut thief) = (Node::new(), Node::new());
        let genuine = owner.request(&plain, "");
        let other = thief.request(&plain, "");
        // Another identity's signature behind a request.
        let mut mixed = genuine;
        let len = mixed.len();
        mixed[len - 64..].copy_from_slice(&other[other.len() - 64..]);
        mixed
    };
    let short = rig.ticket(|order| order.expires_secs = 60);
    rig.wait(61);
    let mut node = Node::new();
    let bad_name = node.request(&plain, "not a name");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("malformed", vec![1, 2, 3]),
        ("malformed", Vec::new()),
        ("other-authority", node.request(&other_authority, "")),
        ("unknown-ticket", node.request(&unknown, "")),
        ("forged-ticket", node.request(&forged, "")),
        ("forged-identity", wrong_key),
        ("expired-ticket", node.request(&short, "")),
        ("revoked-ticket", node.request(&ended, "")),
        ("spent-ticket", node.request(&spent, "")),
        ("revoked-identity", revoked.request(&plain, "")),
        ("name-taken", node.request(&named, "")),
        ("order", bad_name),
    ];
    for (code, request) in cases {
        let answer = rig.enrol(request);
        assert_eq!(answer, AuthorityAnswer::Denied, "{code}");
        let log = rig.log();
        let last = log.last().expect("the log is not empty");
        assert!(
            last.starts_with(&format!("enrol refused: {code}: ")),
            "{code}: {last}"
        );
        assert!(
            rig.engine
                .status()
                .requests
                .contains_key(&format!("enrol/{code}"))
        );
    }
    // The tickets that were tried are as good as before.
    assert!(matches!(
        rig.enrol(node.request(&plain, "")),
        AuthorityAnswer::Issued(_)
    ));
    let more = rig.ticket(|order| order.uses = 2);
    assert!(matches!(
        rig.enrol(Node::new().request(&more, "")),
        AuthorityAnswer::Issued(_)
    ));
    assert_eq!(
        rig.enrol(Node::new().request(&more, "")),
        AuthorityAnswer::Denied,
        "there are three members"
    );
    assert!(
        rig.log()
            .last()
            .is_some_and(|last| last.starts_with("enrol refused: full"))
    );
    rig.verify_log();
}

/// A ticket of this authority that it never issued.
fn foreign_ticket(authority: Identifier) -> Ticket {
    let mut entropy = crate::runtime::entropy::SystemEntropy;
    Ticket::generate(&mut entropy, authority, BEGINNING + 86_400, Vec::new()).expect("the ticket is good")
}

/// The same ticket with another secret.
fn forged_ticket(ticket: &Ticket) -> Ticket {
    let mut bytes = ticket.encode().to_vec();
    bytes[17..33].fill(7);
    Ticket::decode(&bytes).expect("the ticket is well formed")
}

#[test]
fn a_flipped_bit_spoils_a_request() {
    let mut rig = Rig::new();
    let ticket = rig.ticket(|order| order.uses = 1000);
    let mut node = Node::new();
    let genuine = node.request(&ticket, "node");
    for byte in 0..genuine.len() {
        let requests = (0..8)
            .map(|bit| {
                let mut request = genuine.clone();
                request[byte] ^= 1 << bit;
                (node.origin(NOTHING), RequestKind::Enrol(request))
            })
            .collect();
        let answers = rig.engine.handle_requests(rig.now, requests);
        assert_eq!(answers, [const { AuthorityAnswer::Denied }; 8], "byte {byte}");
    }
    assert!(matches!(rig.enrol(genuine), AuthorityAnswer::Issued(_)));
}

#[test]
fn the_same_subject_gets_its_credential_again_and_spends_nothing() {
    let mut rig = Rig::new();
    let ticket = rig.ticket(|order| {
        order.uses = 2;
        order.expires_secs = 3600;
    });
    let mut node = Node::new();
    let request = node.request(&ticket, "press-3");
    let first = rig.enrol(request.clone());
    let first = rig.credential(&first);
    for _ in 0..5 {
        let again = rig.enrol(request.clone());
        let again = rig.credential(&again);
        assert_eq!(
            (again.subject, &again.name, again.rights),
            (first.subject, &first.name, first.rights)
        );
        assert!(again.serial > first.serial);
    }
    // Also with another request, and when the ticket has expired: the answer may have been lost for long.
    rig.wait(7200);
    let again = node.request(&ticket, "other");
    let again = rig.enrol(again);
    assert_eq!(rig.credential(&again).name, "press-3");
    assert_eq!(used(&mut rig, &ticket), 1);
    assert!(
        rig.log()
            .last()
            .is_some_and(|last| last.starts_with("enrol repeated"))
    );
    // But not when an operator has ended the ticket.
    rig.manage(ManageRequest::TicketRevoke {
        id: data_encoding::HEXLOWER.encode(ticket.id()),
    });
    assert_eq!(rig.enrol(request), AuthorityAnswer::Denied);
    assert!(
        matches!(rig.renew(&node), AuthorityAnswer::Issued(_)),
        "it is a member all the same"
    );
}

fn used(rig: &mut Rig, ticket: &Ticket) -> u32 {
    let id = data_encoding::HEXLOWER.encode(ticket.id());
    let answer = rig.manage(ManageRequest::TicketList { after: None });
    let ManageAnswer::Tickets { tickets, .. } = answer else {
        panic!("{answer:?}")
    };
    tickets
        .iter()
        .find(|shown| shown.id == id)
        .map_or(0, |shown| shown.used)
}

#[test]
fn of_one_batch_only_one_gets_the_ticket() {
    let mut rig = Rig::new();
    let ticket = rig.ticket(|_| ());
    let mut nodes: Vec<Node> = (0..50).map(|_| Node::new()).collect();
    let requests = nodes
        .iter_mut()
        .map(|node| {
            (
                node.origin(NOTHING),
                RequestKind::Enrol(node.request(&ticket, "press-3")),
            )
        })
        .collect();
    let commits = rig.engine.status().commits;
    let answers = rig.engine.handle_requests(rig.now, requests);
    assert_eq!(rig.engine.status().commits, commits + 1);
    assert!(matches!(answers[0], AuthorityAnswer::Issued(_)));
    assert!(
        answers[1..]
            .iter()
            .all(|answer| *answer == AuthorityAnswer::Denied)
    );
    assert_eq!(used(&mut rig, &ticket), 1);
}

#[test]
fn names_are_unique_and_nobody_takes_another_s() {
    let mut rig = Rig::new();
    let ticket = rig.ticket(|order| order.uses = 10);
    let name_of = |rig: &mut Rig, wanted: &str| {
        let mut node = Node::new();
        let request = node.request(&ticket, wanted);
        let answer = rig.enrol(request);
        let name = rig.credential(&answer).name;
        (node, name)
    };
    let (first, name) = name_of(&mut rig, "press-3");
    assert_eq!(name, "press-3");
    let (second, name) = name_of(&mut rig, "press-3");
    assert_eq!(name, format!("press-3-{}", &second.id().to_string()[4..12]));
    let (third, name) = name_of(&mut rig, "");
    assert_eq!(name, format!("node-{}", &third.id().to_string()[4..12]));
    let long = "x".repeat(63);
    assert_eq!(name_of(&mut rig, &long).1, long);
    assert!(name_of(&mut rig, &long).1.len() <= 63);
    // A revoked member frees its name.
    rig.revoke(&first.id().to_string());
    assert_eq!(name_of(&mut rig, "press-3").1, "press-3");
}

/// Otherwise an operator who revokes somebody by identifier could hit another.
#[test]
fn nobody_is_called_like_somebody_s_identifier() {
    let mut rig = Rig::new();
    let victim = rig.member(|_| ());
    let ticket = rig.ticket(|_| ());
    let mut node = Node::new();
    let text = victim.id().to_string();
    let request = node.request(&ticket, &text);
    assert_eq!(rig.enrol(request), AuthorityAnswer::Denied);
    assert_eq!(refused(rig.add(&node, &text)).code, "order");
}

#[test]
fn another_ticket_changes_what_a_member_is_granted() {
    let mut rig = Rig::new();
    let mut node = rig.member(|order| order.name = Some("press-3".to_owned()));
    let better = rig.ticket(|order| order.grant.hold = vec!["press-*".to_owned()]);
    let request = node.request(&better, "ignored");
    let answer = rig.enrol(request);
    let credential = rig.credential(&answer);
    assert_eq!((credential.name.as_str(), credential.hold.len()), ("press-3", 1));
    let renamed = rig.ticket(|order| order.name = Some("press-4".to_owned()));
    let request = node.request(&renamed, "");
    let answer = rig.enrol(request);
    assert_eq!(rig.credential(&answer).name, "press-4");
    assert_eq!(
        refused(rig.manage(ManageRequest::MemberShow {
            member: "press-3".to_owned()
        }))
        .code,
        "no-such-member"
    );
    assert_eq!(rig.engine.status().members, 1);
}

#[test]
fn members_renew_and_others_do_not() {
    let mut rig = Rig::new();
    let node = rig.member(|order| order.name = Some("press-3".to_owned()));
    assert_eq!(rig.renew(&Node::new()), AuthorityAnswer::Denied);
    // Nobody renews over the control socket.
    assert_eq!(rig.ask(LOCAL, RequestKind::Renew), AuthorityAnswer::Denied);
    rig.wait(31);
    let first = rig.renew(&node);
    let serial = rig.credential(&first).serial;
    let commits = rig.log().len();
    assert_eq!(rig.renew(&node), first, "a moment later it is the same one");
    assert_eq!(rig.log().len(), commits, "and costs no entry");
    rig.wait(31);
    let later = rig.renew(&node);
    assert!(rig.credential(&later).serial > serial);
    assert_eq!(rig.credential(&later).issued_at, rig.now.wall.unix_secs());
    rig.revoke("press-3");
    assert_eq!(
        rig.renew(&node),
        AuthorityAnswer::Denied,
        "what is remembered does not count"
    );
}

#[test]
fn a_member_added_by_hand_renews_without_a_ticket() {
    let mut rig = Rig::new();
    let node = Node::new();
    assert!(matches!(rig.add(&node, "relay-1"), ManageAnswer::Member(_)));
    let answer = rig.renew(&node);
    assert_eq!(rig.credential(&answer).name, "relay-1");
    assert_eq!(refused(rig.add(&node, "relay-2")).code, "already-a-member");
    assert_eq!(refused(rig.add(&Node::new(), "relay-1")).code, "name-taken");
}

#[test]
fn a_policy_can_only_forbid() {
    let mut rig = Rig::new();
    let ticket = rig.ticket(|_| ());
    let mut node = Node::new();
    let mut rig = rig.restart_forbidding("enrolling");
    assert_eq!(rig.enrol(node.request(&ticket, "")), AuthorityAnswer::Denied);
    assert!(
        rig.log()
            .last()
            .is_some_and(|last| last.starts_with("enrol refused: policy"))
    );
    let mut rig = rig.restart_forbidding("issuing a ticket");
    let answer = rig.manage(ManageRequest::TicketIssue(order(|_| ())));
    assert_eq!(refused(answer).code, "policy");
    let stranger = Node::new().origin(NOTHING);
    assert_eq!(
        refused(rig.manage_from(stranger, ManageRequest::LogHead {})).code,
        "not-allowed"
    );
}

#[test]
fn the_time_is_told_to_who_asks() {
    let mut rig = Rig::new();
    let from = Node::new().origin(NOTHING);
    let nonce = [3; 16];
    let AuthorityAnswer::Time(bytes) = rig.ask(from, RequestKind::Time { nonce }) else {
        panic!("the time was not told");
    };
    let presented = Presentation::decode(StatementKind::Time, &bytes).expect("the time is one");
    let (_, statement) = presented
        .verify_alone(rig.authority.id())
        .expect("the authority has signed it");
    let time = SignedTime::decode(&statement).expect("the time is one");
    assert_eq!((time.nonce, time.unix_millis), (nonce, rig.now.wall.unix_millis));
    // An authority that does not know the time keeps silent.
    rig.now.wall.quality = ClockQuality::Unknown;
    assert_eq!(
        rig.ask(from, RequestKind::Time { nonce }),
        AuthorityAnswer::NotReady
    );
}

#[test]
fn a_request_in_a_file_is_answered_in_a_file() {
    let mut rig = Rig::new();
    rig.revoke(&Node::new().id().to_string());
    let ticket = rig.ticket(|_| ());
    let mut node = Node::new();
    let enrolment = data_encoding::BASE64.encode(&node.request(&ticket, "press-3"));
    let ask = |rig: &mut Rig, enrolment: &str| {
        rig.manage(ManageRequest::Answer {
            enrolment: enrolment.to_owned(),
        })
    };
    let ManageAnswer::Response { response, member } = ask(&mut rig, &enrolment) else {
        panic!("no response");
    };
    assert_eq!(member.name, "press-3");
    let response = data_encoding::BASE64
        .decode(response.as_bytes())
        .expect("the response is Base64");
    let response = EnrolResponse::decode(&response).expect("the response is one");
    assert_eq!(
        credential(response.presentation, rig.authority.id()).subject,
        node.id()
    );
    let list = response
        .status()
        .expect("the list fits")
        .expect("there is a list");
    assert_eq!(Some(&Arc::from(list)), rig.lists.last());
    // The operator hears why it is no.
    let enrolment = data_encoding::BASE64.encode(&Node::new().request(&ticket, ""));
    let error = refused(ask(&mut rig, &enrolment));
    assert_eq!(error.code, "spent-ticket");
    assert!(error.hint.is_some());
    assert_eq!(refused(ask(&mut rig, "no Base64")).code, "malformed");
}
