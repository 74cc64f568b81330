//! Authorities whose state was set back to an older copy.

use fieldgate_proto::trust::REVOKED_MAX;

use super::*;
use crate::authority::permit::OwnRules;

/// Puts a copy of the store back, as it was when this was called, and starts the authority again.
struct Backup(Vec<u8>);

impl Backup {
    fn of(rig: &Rig) -> Self {
        Self(std::fs::read(&rig.settings.store).expect("the store is there"))
    }

    fn put_back(&self, rig: Rig) -> Rig {
        rig.restart_with(Box::new(OwnRules), |settings| {
            std::fs::write(&settings.store, &self.0).expect("the store can be written");
        })
    }
}

fn restored(rig: &Rig) -> Vec<String> {
    let problems = rig.engine.status().problems.into_iter();
    problems
        .filter(|problem| problem.contains("restored from an older copy"))
        .collect()
}

fn press(rig: &mut Rig) -> Node {
    rig.member(|order| order.name = Some("press-3".to_owned()))
}

#[test]
fn numbers_are_the_time_so_that_what_was_restored_does_not_fall_behind() {
    let mut rig = Rig::new();
    let node = press(&mut rig);
    let backup = Backup::of(&rig);
    for _ in 0..3 {
        rig.wait(10);
        rig.revoke(&Node::new().id().to_string());
    }
    let newest = rig.list().number();
    rig.wait(10);
    let mut rig = backup.put_back(rig);
    rig.revoke("press-3");
    assert!(rig.list().number() > newest);
    assert!(rig.list().is_revoked(&node.id()));
}

#[test]
fn a_clock_that_is_not_sure_gives_numbers_nothing_but_steps() {
    let mut rig = Rig::new();
    rig.now.wall.quality = ClockQuality::Floor;
    rig.wait(50_000_000);
    let mut before = rig.list().number();
    for _ in 0..20 {
        rig.revoke(&Node::new().id().to_string());
        let number = rig.list().number();
        assert!(
            (before + 1..=before + 65_536).contains(&number),
            "{before}, {number}"
        );
        before = number;
    }
    assert!(before < rig.now.wall.unix_secs());
}

#[test]
fn who_was_revoked_after_the_copy_is_taken_over_from_the_list_that_a_peer_shows() {
    let mut rig = Rig::new();
    let (member, other, stranger) = (press(&mut rig), Node::new(), Node::new());
    let backup = Backup::of(&rig);
    let held = rig.list();
    rig.wait(10);
    rig.revoke("press-3");
    rig.revoke(&stranger.id().to_string());
    let forgotten = rig.list();
    rig.wait(10);

    // The whole state is older, what its node holds, too.
    rig.held = Some(held);
    let mut rig = backup.put_back(rig);
    assert_eq!(restored(&rig), [""; 0], "it cannot know");
    assert!(matches!(rig.renew(&member), AuthorityAnswer::Issued(_)));
    rig.revoke(&other.id().to_string());
    let number = rig.list().number();
    assert!(number > forgotten.number());
    assert!(!rig.list().is_revoked(&member.id()));

    rig.engine.handle_forgotten(rig.now, &forgotten);
    rig.settle();
    let list = rig.list();
    assert!(list.number() > number);
    for revoked in [&member, &other, &stranger] {
        assert!(list.is_revoked(&revoked.id()));
    }
    assert_eq!(rig.renew(&member), AuthorityAnswer::Denied);
    let ticket = rig.ticket(|_| ());
    let mut stranger = stranger;
    let request = stranger.request(&ticket, "");
    assert_eq!(
        rig.enrol(request),
        AuthorityAnswer::Denied,
        "only the half of it is known"
    );
    let problem = restored(&rig).concat();
    assert!(problem.contains("2 of the revoked were taken over"), "{problem}");
    assert_eq!(rig.engine.status().revoked, 3);
    rig.verify_log();

    // It is known from now on, over a restart, too.
    let before = rig.list();
    rig.engine.handle_forgotten(rig.now, &forgotten);
    rig.settle();
    assert_eq!(restored(&rig), [problem]);
    rig.held = Some(before.clone());
    let mut rig = rig.restart();
    assert_eq!(restored(&rig), [""; 0]);
    rig.wait(10);
    rig.revoke(&Node::new().id().to_string());
    assert!(
        before
            .revoked()
            .iter()
            .all(|prefix| rig.list().revoked().contains(prefix))
    );
    assert_eq!(rig.list().revoked().len(), 4);
}

#[test]
fn a_list_that_is_ahead_of_the_clock_is_gone_beyond() {
    let mut rig = Rig::new();
    let backup = Backup::of(&rig);
    rig.now.wall.quality = ClockQuality::Floor;
    for _ in 0..5 {
        rig.revoke(&Node::new().id().to_string());
    }
    let forgotten = rig.list();
    let mut rig = backup.put_back(rig);
    rig.engine.handle_forgotten(rig.now, &forgotten);
    rig.settle();
    assert_eq!(rig.list().number(), forgotten.number() + 1);
    assert_eq!(rig.list().revoked(), forgotten.revoked());
}

#[test]
fn a_store_from_a_backup_takes_over_what_its_node_holds() {
    let mut rig = Rig::new();
    let node = press(&mut rig);
    let backup = Backup::of(&rig);
    rig.wait(10);
    rig.revoke("press-3");
    let newest = rig.list();
    rig.held = Some(newest.clone());
    let mut rig = backup.put_back(rig);
    assert_eq!(restored(&rig).len(), 1);
    assert_eq!(rig.list().number(), newest.number() + 1);
    assert!(rig.list().is_revoked(&node.id()));
    assert_eq!(rig.renew(&node), AuthorityAnswer::Denied);
    rig.held = Some(rig.list());
    assert_eq!(restored(&rig.restart()), [""; 0]);
}

#[test]
fn what_has_no_room_is_said() {
    let mut rig = Rig::new();
    let id = |n: u32| {
        let mut bytes = [0xee; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        Identifier::from_bytes(bytes)
    };
    let count = u32::try_from(REVOKED_MAX).expect("it is short");
    let now = rig.now.wall.unix_secs();
    let list = |number, ids: std::ops::Range<u32>| {
        StatusList::new(number, now, now + 86_400, ids.map(id)).expect("it fits")
    };
    rig.engine.handle_forgotten(rig.now, &list(now + 5, 0..count));
    rig.settle();
    assert_eq!(rig.list().revoked().len(), REVOKED_MAX);
    rig.engine
        .handle_forgotten(rig.now, &list(now + 9, 10..count + 9 - 9));
    assert!(!restored(&rig).concat().contains("ARE NOT REVOKED"));
    rig.engine
        .handle_forgotten(rig.now, &list(now + 20, count..count + 3));
    let problem = restored(&rig).concat();
    assert!(problem.contains("3 had no room and ARE NOT REVOKED"), "{problem}");
    rig.verify_log();
}
