//! The statement key, and what waits for it.

use super::*;

#[test]
fn nothing_is_spent_while_nothing_can_be_signed() {
    let mut rig = Rig::new();
    let ticket = rig.ticket(|_| ());
    rig.signs = false;
    let mut rig = rig.restart();
    assert!(!rig.engine.status().ready);
    let mut node = Node::new();
    let request = node.request(&ticket, "");
    assert_eq!(rig.enrol(request.clone()), AuthorityAnswer::NotReady);
    // Everybody hears that, whatever they bring.
    assert_eq!(rig.enrol(vec![1, 2, 3]), AuthorityAnswer::NotReady);
    assert_eq!(rig.renew(&node), AuthorityAnswer::NotReady);
    assert_eq!(refused(rig.manage(ManageRequest::LogHead {})).code, "not-ready");
    assert_eq!(used(&mut rig, &ticket), 0);
    // Tickets need no signature.
    rig.ticket(|_| ());
    // The signature that never came is given up after a minute, and a second later there is another try.
    rig.signs = true;
    rig.wait(60);
    rig.wait(1);
    assert!(rig.engine.status().ready);
    assert!(matches!(rig.enrol(request), AuthorityAnswer::Issued(_)));
}

#[test]
fn the_key_is_renewed_at_half_of_its_life() {
    let mut rig = Rig::new();
    let first = rig.engine.status().key_not_after;
    rig.wait(42_000);
    assert_eq!(rig.engine.status().key_not_after, first);
    rig.wait(1_200);
    let second = rig.engine.status().key_not_after;
    assert_eq!(second, rig.now.wall.unix_secs() - 300 + 86_400);
    // Without the identity key it serves until its end, and then says so.
    rig.signs = false;
    rig.wait(86_000);
    rig.ticket(|_| ());
    assert!(rig.engine.status().ready);
    rig.wait(200);
    rig.ticket(|_| ());
    assert!(!rig.engine.status().ready);
    assert!(
        rig.engine
            .status()
            .problems
            .iter()
            .any(|problem| problem.contains("the identity key has not answered"))
    );
    rig.signs = true;
    rig.wait(60);
    rig.wait(60);
    assert!(rig.engine.status().ready);
    assert!(rig.engine.status().problems.is_empty());
}

#[test]
fn a_refused_or_foreign_signature_is_asked_for_again_later() {
    let mut rig = Rig::new();
    rig.signs = false;
    let mut rig = rig.restart();
    let mut asked = 0;
    let mut last = 0;
    for _ in 0..300 {
        rig.now.instant = rig.now.instant + Duration::from_secs(1);
        rig.engine.handle_timeout(rig.now);
        while let Some(output) = rig.engine.poll_output() {
            if let AuthorityOutput::Sign(request) = output {
                asked += 1;
                last = request.id;
                let result = if asked % 2 == 0 {
                    Ok([7; 64])
                } else {
                    Err("the token is gone".to_owned())
                };
                rig.engine.handle_signature(rig.now, request.id, result);
            }
        }
    }
    // 1, 2, 4 … 60 s apart: about ten in five minutes.
    assert!((5..15).contains(&asked), "{asked}");
    // A signature that was not asked for changes nothing.
    rig.engine.handle_signature(rig.now, last + 1, Ok([7; 64]));
    rig.engine.handle_signature(rig.now, last, Ok([7; 64]));
    assert!(!rig.engine.status().ready);
}

#[test]
fn a_clock_that_is_set_back_gets_a_new_key() {
    let mut rig = Rig::new();
    rig.now.wall = at(BEGINNING - 200);
    assert!(
        rig.engine.keys.usable(BEGINNING - 200).is_some(),
        "a little is allowed for"
    );
    let node = rig.member(|_| ());
    rig.now.wall = at(BEGINNING - 10_000);
    rig.wait(1);
    let answer = rig.renew(&node);
    assert_eq!(rig.credential(&answer).issued_at, rig.now.wall.unix_secs());
}

#[test]
fn a_rotated_identity_signs_with_its_new_key() {
    let mut rig = Rig::new();
    let node = rig.member(|_| ());
    rig.authority = rig.authority.rotated();
    rig.engine.handle_history(rig.now, rig.authority.history.clone());
    rig.settle();
    rig.wait(31);
    let AuthorityAnswer::Issued(presentation) = rig.renew(&node) else {
        panic!("no credential");
    };
    let presented =
        Presentation::decode(StatementKind::Credential, &presentation).expect("the presentation is one");
    assert_eq!(presented.history(), rig.authority.history.to_bytes());
    assert_eq!(presented.signed().attestation().attestation().key_sequence, 1);
    assert_eq!(
        rig.list().number(),
        BEGINNING,
        "the list is told again with the longer history"
    );
    // A history of somebody else is ignored.
    rig.engine.handle_history(rig.now, Node::new().history);
    rig.settle();
    rig.wait(31);
    assert!(matches!(rig.renew(&node), AuthorityAnswer::Issued(_)));
}

#[test]
fn the_list_is_signed_anew_at_half_of_its_life() {
    let mut rig = Rig::new();
    rig.wait(43_100);
    assert_eq!(rig.list().number(), BEGINNING);
    rig.wait(200);
    let list = rig.list();
    let now = rig.now.wall.unix_secs();
    assert_eq!((list.number(), list.issued_at()), (now, now));
    // A restart tells the list that there is, and makes no other.
    let rig = rig.restart();
    assert_eq!(rig.list(), list);
}

#[test]
fn a_revocation_without_key_is_signed_when_there_is_one() {
    let mut rig = Rig::new();
    let node = rig.member(|order| order.name = Some("press-3".to_owned()));
    rig.signs = false;
    let mut rig = rig.restart();
    let answer = rig.revoke("press-3");
    assert!(
        matches!(
            answer,
            ManageAnswer::Revoked {
                list: Some(SECOND),
                note: Some(_),
                ..
            }
        ),
        "{answer:?}"
    );
    assert_eq!(rig.list().number(), BEGINNING);
    // Also across another restart.
    rig.signs = true;
    let rig = rig.restart();
    let list = rig.list();
    assert_eq!(list.number(), SECOND);
    assert!(list.is_revoked(&node.id()));
}

#[test]
fn numbers_and_serials_go_on_across_restarts() {
    let mut rig = Rig::new();
    let node = rig.member(|_| ());
    rig.wait(60);
    let before = rig.renew(&node);
    let before = rig.credential(&before).serial;
    rig.revoke(&Node::new().id().to_string());
    let mut rig = rig.restart();
    rig.wait(60);
    let after = rig.renew(&node);
    assert!(rig.credential(&after).serial > before);
    rig.revoke(&Node::new().id().to_string());
    assert!(rig.list().number() > SECOND);
    rig.verify_log();
}
