//! What keeps the authority small.

use super::*;

#[test]
fn strangers_do_not_fill_the_log() {
    let mut rig = Rig::new();
    let unknown = foreign_ticket(rig.authority.id());
    let mut node = Node::new();
    let request = node.request(&unknown, "");
    let before = rig.log_page(1).head;
    let from = node.origin(NOTHING);
    for _ in 0..50 {
        let requests = (0..64)
            .map(|_| (from, RequestKind::Enrol(request.clone())))
            .collect();
        let answers = rig.engine.handle_requests(rig.now, requests);
        assert!(answers.iter().all(|answer| *answer == AuthorityAnswer::Denied));
    }
    assert_eq!(rig.log_page(1).head, before + 1000);
    assert_eq!(rig.engine.status().log_suppressed, 2200);
    assert_eq!(
        rig.engine.status().requests.get("enrol/unknown-ticket"),
        Some(&3200)
    );
    // What operators do is written all the same.
    let ticket = rig.ticket(|_| ());
    let good = node.request(&ticket, "");
    assert!(matches!(rig.enrol(good), AuthorityAnswer::Issued(_)));
    assert_eq!(rig.log_page(1).head, before + 1002);
    rig.wait(61);
    assert!(
        rig.log()
            .iter()
            .any(|line| line == "suppressed done: 2200 refusals were counted and not written one by one")
    );
    rig.verify_log();
}

#[test]
fn the_log_drops_its_oldest_tenth_and_stays_a_chain() {
    let mut rig = Rig::with(|settings| settings.limits.log_entries_max = 100);
    for _ in 0..120 {
        rig.ticket(|_| ());
    }
    rig.wait(61);
    let page = rig.log_page(1);
    assert!(page.first > 20, "{}", page.first);
    assert_eq!(page.entries.len() as u64, page.head - page.first + 1);
    assert!(page.entries.len() <= 100);
    rig.verify_log();
    let mut rig = rig.restart();
    rig.verify_log();
}

#[test]
fn tickets_are_dropped_a_month_after_their_end() {
    let mut rig = Rig::with(|settings| settings.limits.tickets_max = 3);
    let spent = rig.ticket(|_| ());
    let mut node = Node::new();
    let request = node.request(&spent, "");
    assert!(matches!(rig.enrol(request.clone()), AuthorityAnswer::Issued(_)));
    rig.ticket(|_| ());
    rig.ticket(|order| order.expires_secs = 40 * 86_400);
    assert_eq!(rig.engine.status().tickets, 3);
    let answer = rig.manage(ManageRequest::TicketIssue(order(|_| ())));
    assert_eq!(refused(answer).code, "full");
    rig.wait(60);
    assert_eq!(rig.engine.status().tickets_open, 2);
    rig.wait(32 * 86_400);
    assert_eq!(
        (rig.engine.status().tickets, rig.engine.status().tickets_open),
        (1, 1)
    );
    assert_eq!(rig.enrol(request), AuthorityAnswer::Denied);
    // A member outlives its ticket.
    assert!(matches!(rig.renew(&node), AuthorityAnswer::Issued(_)));
    rig.ticket(|_| ());
}

#[test]
fn the_revoked_leave_the_list_when_no_credential_can_count() {
    let mut rig = Rig::new();
    let node = rig.member(|order| order.name = Some("press-3".to_owned()));
    rig.revoke("press-3");
    rig.wait(401 * 86_400);
    rig.wait(86_400);
    assert!(rig.list().is_revoked(&node.id()), "three days and 400 of grace");
    rig.wait(86_400);
    rig.wait(86_400);
    assert_eq!(rig.list().revoked().len(), 0);
    // It stays revoked.
    assert_eq!(rig.renew(&node), AuthorityAnswer::Denied);
    let shown = rig.manage(ManageRequest::MemberShow {
        member: node.id().to_string(),
    });
    assert!(
        matches!(&shown, ManageAnswer::Member(member) if member.revoked.as_ref().is_some_and(|revoked| !revoked.listed)),
        "{shown:?}"
    );
}

#[test]
fn the_list_has_room_for_those_whose_credentials_live_longest() {
    let mut rig = Rig::new();
    let max = fieldgate_proto::trust::REVOKED_MAX as u64;
    let identifier = |number: u64| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Identifier::from_bytes(bytes)
    };
    rig.engine
        .store
        .batch(|batch| {
            for number in 0..max + 5 {
                let revoked = crate::authority::record::Revoked {
                    at: BEGINNING,
                    not_after: BEGINNING + number,
                    reason: "test".to_owned(),
                    member: None,
                };
                batch.put_revoked(&identifier(number), &revoked)?;
            }
            Ok(())
        })
        .expect("the store takes them");
    rig.revoke(&Node::new().id().to_string());
    let list = rig.list();
    assert_eq!(list.revoked().len() as u64, max);
    let status = rig.engine.status();
    assert_eq!((status.list_entries, status.list_overflow), (max, 6));
    assert!(status.problems.iter().any(|problem| problem.contains("no room")));
    // The one revoked last has no credential at all, so it is among those left out.
    assert!(list.is_revoked(&identifier(max + 4)));
    assert!(!list.is_revoked(&identifier(0)));
}

#[test]
fn a_store_that_fails_decides_nothing() {
    let mut rig = Rig::new();
    let ticket = rig.ticket(|_| ());
    let mut node = Node::new();
    let request = node.request(&ticket, "");
    let fails = Arc::clone(&rig.engine.store.fails);
    fails.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(rig.enrol(request.clone()), AuthorityAnswer::NotReady);
    assert!(rig.broken.is_some());
    assert!(!rig.engine.status().ready);
    assert_eq!(refused(rig.manage(ManageRequest::Log { from: 1 })).code, "store");
    // After a restart it is as if nothing had been asked, or as if it had been answered; never both.
    let mut rig = rig.restart();
    assert!(matches!(rig.enrol(request), AuthorityAnswer::Issued(_)));
    assert_eq!(used(&mut rig, &ticket), 1);
    rig.verify_log();
}
