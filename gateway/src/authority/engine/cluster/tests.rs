use std::{sync::Arc, thread};

use fieldgate_proto::trust::REPLICATION_PART_LEN_MAX;

use crate::authority::{
    AuthorityAnswer, StoreError,
    log::{Action, Actor, Decision, Outcome},
    replication::Position,
    rig::{Node, Rig, SharedLog, at, refused},
    wire::{ManageAnswer, ManageRequest},
};

const NAME: &str = "log";

/// Two processes of one authority, of which the first has founded the log.
fn pair() -> (SharedLog, Rig, Rig) {
    let log = SharedLog::default();
    let first = Rig::following(&log, NAME, true);
    let second = Rig::following(&log, NAME, false);
    (log, first, second)
}

fn halted(rig: &Rig) -> String {
    let cluster = rig.engine.status().cluster.expect("it follows a log");
    cluster.halted.expect("it decides nothing")
}

fn decides(rig: &mut Rig) -> bool {
    let answer = rig.manage(ManageRequest::TicketList { after: None });
    matches!(answer, ManageAnswer::Tickets { .. })
}

/// Looks at the log again, after a failure.
fn look(rig: &mut Rig) {
    rig.wait(2);
}

#[test]
fn who_has_not_looked_at_the_log_says_so_and_is_not_ready() {
    let (log, _, _) = pair();
    let mut late = Rig::following_unlooked(&log, NAME);
    let status = late.engine.status();
    assert!(!status.ready);
    assert!(
        halted(&late).contains("has not been looked at"),
        "{}",
        halted(&late)
    );
    assert_eq!(status.problems, [halted(&late)]);
    // It need not wait for that: a request makes it look.
    assert!(decides(&mut late));
    assert_eq!(late.engine.status().problems, Vec::<String>::new());
}

#[test]
fn a_ticket_is_good_once_whoever_is_asked() {
    let (_, mut first, mut second) = pair();
    let ticket = first.ticket(|_| ());
    let (mut node, mut other) = (Node::new(), Node::new());
    let request = node.request(&ticket, "");
    let answer = second.enrol(request.clone());
    let credential = second.credential(&answer);
    assert_eq!(credential.subject, node.id());
    assert_eq!(first.enrol(other.request(&ticket, "")), AuthorityAnswer::Denied);
    // Who spent it gets its credential again, at either.
    assert!(matches!(first.enrol(request), AuthorityAnswer::Issued(_)));
    let renewed = first.renew(&node);
    assert!(first.credential(&renewed).serial > credential.serial);
    first.verify_log();
    second.verify_log();
}

#[test]
fn two_that_decide_at_the_same_time_give_each_ticket_to_one() {
    const TICKETS: usize = 12;
    let (_, mut first, second) = pair();
    let tickets: Arc<Vec<_>> = Arc::new((0..TICKETS).map(|_| first.ticket(|_| ())).collect());
    let runs = [first, second].map(|mut rig| {
        let tickets = Arc::clone(&tickets);
        thread::spawn(move || {
            let mut won = Vec::new();
            for ticket in tickets.iter() {
                let mut node = Node::new();
                let request = node.request(ticket, "");
                let answer = rig.enrol(request);
                let has = matches!(answer, AuthorityAnswer::Issued(_));
                assert!(has || answer == AuthorityAnswer::Denied, "{answer:?}");
                won.push(has);
            }
            (rig, won)
        })
    });
    let [(mut first, left), (mut second, right)] = runs.map(|run| run.join().expect("it does not panic"));
    for (left, right) in left.iter().zip(&right) {
        assert_ne!(left, right, "one of them has it");
    }
    // Both have the same state in the end.
    for rig in [&mut first, &mut second] {
        look(rig);
        rig.verify_log();
    }
    let (first, second) = (first.log(), second.log());
    assert_eq!(first, second);
    assert_eq!(
        first.iter().filter(|line| line.starts_with("enrol done")).count(),
        TICKETS
    );
}

#[test]
fn what_one_revokes_the_other_lists_and_renews_no_more() {
    let (_, mut first, mut second) = pair();
    let node = first.member(|_| ());
    assert!(matches!(second.renew(&node), AuthorityAnswer::Issued(_)));
    let before = second.list().number();
    first.revoke(&node.id().to_string());
    assert_eq!(second.renew(&node), AuthorityAnswer::Denied);
    look(&mut second);
    let (told, own) = (second.list(), first.list());
    assert!(told.number() > before && told.number() == own.number());
    assert_eq!(told.revoked().len(), 1);
    // The numbers go on at the other.
    let node = second.member(|_| ());
    second.revoke(&node.id().to_string());
    assert!(second.list().number() > own.number());
    look(&mut first);
    assert_eq!(first.list().number(), second.list().number());
    assert_eq!(first.list().revoked().len(), 2);
}

#[test]
fn without_the_log_nothing_is_decided_and_everybody_may_ask_again() {
    let (log, mut first, _second) = pair();
    let ticket = first.ticket(|_| ());
    log.kept().away = true;
    let mut node = Node::new();
    let request = node.request(&ticket, "");
    assert_eq!(first.enrol(request.clone()), AuthorityAnswer::NotReady);
    let error = refused(first.add(&node, "node"));
    assert_eq!(error.code, "store");
    assert!(
        error.message.contains("the cluster's log is not reached"),
        "{error:?}"
    );
    assert!(!first.engine.status().ready);
    assert!(halted(&first).contains("no answer"));
    log.kept().away = false;
    look(&mut first);
    assert!(first.engine.status().ready);
    assert!(matches!(first.enrol(request), AuthorityAnswer::Issued(_)));
    assert_eq!(first.broken, None);
}

#[test]
fn a_decision_whose_acknowledgement_was_lost_counts_and_is_told_when_asked_again() {
    let (log, mut first, mut second) = pair();
    let ticket = first.ticket(|_| ());
    let mut node = Node::new();
    let request = node.request(&ticket, "");
    log.kept().silent = 1;
    assert_eq!(first.enrol(request.clone()), AuthorityAnswer::NotReady);
    let mut other = Node::new();
    assert_eq!(second.enrol(other.request(&ticket, "")), AuthorityAnswer::Denied);
    assert!(matches!(
        second.enrol(request.clone()),
        AuthorityAnswer::Issued(_)
    ));
    look(&mut first);
    assert!(matches!(first.enrol(request), AuthorityAnswer::Issued(_)));
    let spent = first
        .log()
        .into_iter()
        .filter(|line| line.starts_with("enrol done"));
    assert_eq!(spent.count(), 1);
    first.verify_log();
}

#[test]
fn a_restarted_process_goes_on_where_the_log_is() {
    let (_, mut first, second) = pair();
    let node = first.member(|_| ());
    let second = second.restart();
    let mut first = first.restart();
    let mut second = second;
    assert!(matches!(second.renew(&node), AuthorityAnswer::Issued(_)));
    second.revoke(&node.id().to_string());
    assert_eq!(first.renew(&node), AuthorityAnswer::Denied);
}

#[test]
fn a_log_that_was_set_back_or_emptied_or_forged_is_refused() {
    let (log, mut first, mut second) = pair();
    let node = first.member(|_| ());
    look(&mut second);
    let whole = log.kept().entries.clone();

    log.kept().entries.truncate(whole.len() - 1);
    for rig in [&mut first, &mut second] {
        look(rig);
        assert!(halted(rig).contains("was set back"), "{}", halted(rig));
        assert_eq!(rig.renew(&node), AuthorityAnswer::NotReady);
    }
    log.kept().entries.clear();
    look(&mut first);
    assert!(halted(&first).contains("ends at entry 0"), "{}", halted(&first));

    // Somebody who can write to the servers.
    log.kept().entries.clone_from(&whole);
    log.kept().entries.push(b"welcome to the fleet".to_vec());
    look(&mut first);
    assert!(halted(&first).contains("does not continue"), "{}", halted(&first));
    // An old entry once more, and the last one changed.
    let last = log.kept().entries.len() - 1;
    log.kept().entries[last].clone_from(&whole[last - 1]);
    look(&mut first);
    assert!(halted(&first).contains("does not continue"), "{}", halted(&first));
    log.kept().entries.clone_from(&whole);
    let last = whole.len() - 1;
    log.kept().entries[last][40] ^= 1;
    look(&mut first);
    assert!(halted(&first).contains("does not continue"), "{}", halted(&first));

    // As soon as the log is the right one, it goes on.
    log.kept().entries = whole;
    look(&mut first);
    assert!(decides(&mut first));
    assert_eq!(first.broken, None);
}

#[test]
fn what_stands_before_a_forged_entry_is_taken_when_the_log_is_right_again() {
    let (log, mut first, mut second) = pair();
    let node = first.member(|_| ());
    look(&mut second);
    let seen = log.kept().entries.len();
    first.revoke(&node.id().to_string());
    first.member(|_| ());
    let whole = log.kept().entries.clone();
    assert!(whole.len() > seen + 1, "several entries come at once");

    let last = whole.len() - 1;
    log.kept().entries[last][40] ^= 1;
    for _ in 0..2 {
        look(&mut second);
        assert!(
            halted(&second).contains("does not continue"),
            "{}",
            halted(&second)
        );
    }
    log.kept().entries = whole;
    look(&mut second);
    assert_eq!(second.renew(&node), AuthorityAnswer::Denied);
    second.verify_log();
    look(&mut first);
    assert_eq!(first.log().len(), second.log().len());
}

#[test]
fn who_begins_is_said_and_who_comes_late_needs_a_copy() {
    let log = SharedLog::default();
    let mut early = Rig::following(&log, NAME, false);
    assert!(halted(&early).contains("has no entry"), "{}", halted(&early));
    let mut first = Rig::following(&log, NAME, true);
    let node = first.member(|_| ());
    look(&mut early);
    assert!(matches!(early.renew(&node), AuthorityAnswer::Issued(_)));

    // A store of its own, with decisions that the log does not know.
    let mut alone = Rig::new();
    alone.member(|_| ());
    let other = alone.follow(&log, NAME, false);
    assert!(
        halted(&other).contains("was begun on another store"),
        "{}",
        halted(&other)
    );

    log.kept().dropped = 1;
    let late = Rig::following(&log, NAME, false);
    assert!(halted(&late).contains("is kept no more"), "{}", halted(&late));
}

#[test]
fn an_authority_that_was_alone_becomes_several_and_moves_to_another_log() {
    let mut alone = Rig::new();
    let node = alone.member(|_| ());
    let copy = alone.copied();
    let log = SharedLog::default();
    let mut first = alone.follow(&log, NAME, true);
    assert!(matches!(first.renew(&node), AuthorityAnswer::Issued(_)));
    let mut second = copy.follow(&log, NAME, false);
    assert!(matches!(second.renew(&node), AuthorityAnswer::Issued(_)));
    // The servers are lost with everything: another log is begun on what one of them has.
    let another = SharedLog::default();
    look(&mut first);
    let copy = first.copied();
    let mut first = first.follow(&another, "log-2", true);
    let mut second = copy.follow(&another, "log-2", false);
    first.revoke(&node.id().to_string());
    assert_eq!(second.renew(&node), AuthorityAnswer::Denied);
    // Alone it would decide without the others.
    let error = first.open_alone().expect_err("it is refused");
    assert!(matches!(error, StoreError::Clustered { .. }), "{error}");
}

#[test]
fn a_transaction_of_many_parts_counts_as_a_whole_or_not_at_all() {
    let (log, mut first, mut second) = pair();
    let entries = log.kept().entries.len();
    let long = |rig: &mut Rig| {
        let now = rig.now;
        rig.engine.transact(now, None, |turn| {
            for _ in 0..5_000 {
                turn.batch
                    .log(at(1), decision("x".repeat(REPLICATION_PART_LEN_MAX / 2_000)))?;
            }
            Ok(())
        })
    };
    assert_eq!(long(&mut first), Some(()));
    assert!(log.kept().entries.len() > entries + 1, "it has several parts");
    look(&mut second);
    second.verify_log();
    assert_eq!(first.engine.status().log_entries, {
        let node = Node::new();
        second.renew(&node);
        second.engine.status().log_entries - 1
    });
    // Its writer falls silent in the middle.
    look(&mut first);
    log.kept().silent = 1;
    assert_eq!(long(&mut first), None);
    let node = second.member(|_| ());
    look(&mut first);
    assert!(matches!(first.renew(&node), AuthorityAnswer::Issued(_)));
    first.verify_log();
    second.verify_log();
    look(&mut second);
    assert_eq!(first.log().len(), second.log().len());
}

fn decision(reason: String) -> Decision {
    Decision {
        actor: Actor::Authority,
        action: Action::Founded,
        outcome: Outcome::Done,
        subject: None,
        ticket: None,
        reason,
    }
}

#[test]
fn a_position_comes_back_as_it_was() {
    let position = Position {
        name: "log".to_owned(),
        id: [1; 16],
        sequence: 7,
        hash: [2; 32],
    };
    assert_eq!(Position::decode(&position.encode()).expect("it is one"), position);
    assert!(Position::decode(&[0; 55]).is_err());
}
