use proptest::prelude::*;

use super::*;
use crate::identity::tests::Seeded;

fn seconds(seconds: u64) -> Instant {
    Instant::START + Duration::from_secs(seconds)
}

fn id(number: u8) -> Identifier {
    Identifier::from_bytes([number; 32])
}

fn settings(own: u8) -> ClusterSettings {
    let others = (1..=3).filter(|number| *number != own).map(id);
    ClusterSettings {
        lease: Duration::from_secs(30),
        grace: Duration::from_secs(100),
        names_per_relay_max: 4,
        names_max: 6,
        ..ClusterSettings::new(id(own), others.collect())
    }
}

fn name_key(relay: u8, name: &str) -> String {
    let name = name.into();
    EntryKey::Name {
        relay: id(relay),
        name,
    }
    .encode()
}

fn name_value(epoch: u64, number: u64, age_secs: u64) -> Vec<u8> {
    let age = Duration::from_secs(age_secs);
    NameEntry { epoch, number, age }.encode()
}

fn lease_value(epoch: u64, lease_secs: u64) -> Vec<u8> {
    let lease = Duration::from_secs(lease_secs);
    LeaseEntry { epoch, lease }.encode()
}

fn entry(key: String, revision: u64, value: Option<Vec<u8>>) -> StoreEvent {
    StoreEvent::Entry { key, revision, value }
}

/// Relay 1, to which the store has told everything: nothing.
fn relay() -> Cluster {
    let mut cluster = Cluster::new(seconds(0), &mut Seeded::new(1), settings(1));
    cluster.handle_event(seconds(0), &StoreEvent::Begin);
    cluster.handle_event(seconds(0), &StoreEvent::Current);
    cluster
}

fn lease(cluster: &mut Cluster, at: u64, relay: u8, epoch: u64, lease_secs: u64) {
    let key = EntryKey::Lease(id(relay)).encode();
    cluster.handle_event(seconds(at), &entry(key, 1, Some(lease_value(epoch, lease_secs))));
}

fn name(cluster: &mut Cluster, at: u64, relay: u8, name: &str, (epoch, number, age_secs): (u64, u64, u64)) {
    let value = name_value(epoch, number, age_secs);
    cluster.handle_event(seconds(at), &entry(name_key(relay, name), 1, Some(value)));
}

fn holders(cluster: &Cluster, at: u64, name: &str) -> Vec<Identifier> {
    let holders = cluster.directory().holders(seconds(at), name);
    holders.iter().map(|holder| holder.relay).collect()
}

#[test]
fn a_name_counts_while_the_lease_of_its_relay_does() {
    let mut cluster = relay();
    name(&mut cluster, 1, 2, "a", (7, 1, 0));
    assert_eq!(holders(&cluster, 1, "a"), [], "no lease is known");
    lease(&mut cluster, 2, 2, 7, 30);
    assert_eq!(holders(&cluster, 31, "a"), [id(2)]);
    assert_eq!(holders(&cluster, 32, "a"), []);
    assert_eq!(cluster.directory().relay(seconds(31), &id(2)), (true, 1));
    cluster.handle_timeout(seconds(32));
    assert_eq!(cluster.directory().stats().expired, 1);
    lease(&mut cluster, 40, 2, 7, 30);
    assert_eq!(holders(&cluster, 40, "a"), [id(2)], "it was only slow");
    lease(&mut cluster, 41, 2, 8, 30);
    assert_eq!(holders(&cluster, 41, "a"), [], "another life of the relay");
}

#[test]
fn who_registered_last_comes_first_and_telling_again_changes_nothing() {
    let mut cluster = relay();
    lease(&mut cluster, 100, 2, 7, 30);
    lease(&mut cluster, 100, 3, 9, 30);
    name(&mut cluster, 100, 2, "a", (7, 1, 50));
    name(&mut cluster, 100, 3, "a", (9, 1, 20));
    assert_eq!(holders(&cluster, 101, "a"), [id(3), id(2)]);
    name(&mut cluster, 101, 2, "a", (7, 1, 0));
    assert_eq!(holders(&cluster, 101, "a"), [id(3), id(2)]);
    name(&mut cluster, 102, 2, "a", (7, 2, 0));
    assert_eq!(holders(&cluster, 102, "a"), [id(2), id(3)]);
    cluster.handle_event(seconds(103), &entry(name_key(2, "a"), 5, None));
    assert_eq!(holders(&cluster, 103, "a"), [id(3)]);
}

#[test]
fn without_the_store_leases_count_for_the_time_of_grace() {
    let mut cluster = relay();
    lease(&mut cluster, 0, 2, 7, 30);
    name(&mut cluster, 0, 2, "a", (7, 1, 0));
    name(&mut cluster, 0, 2, "b", (7, 2, 0));
    cluster.handle_event(seconds(10), &StoreEvent::Away);
    assert_eq!(holders(&cluster, 129, "a"), [id(2)]);
    assert_eq!(holders(&cluster, 130, "a"), []);
    // While everything is read, what has not come yet may come.
    cluster.handle_event(seconds(50), &StoreEvent::Begin);
    assert_eq!(holders(&cluster, 60, "a"), [id(2)]);
    lease(&mut cluster, 61, 2, 7, 30);
    name(&mut cluster, 61, 2, "a", (7, 1, 0));
    cluster.handle_event(seconds(61), &StoreEvent::Current);
    assert_eq!(holders(&cluster, 61, "a"), [id(2)]);
    assert_eq!(holders(&cluster, 61, "b"), [], "it was deleted meanwhile");
    assert_eq!(holders(&cluster, 91, "a"), [], "and without grace");
}

#[test]
fn strangers_and_garbage_are_counted_and_bounds_hold() {
    let mut cluster = relay();
    lease(&mut cluster, 0, 9, 7, 30);
    name(&mut cluster, 0, 9, "a", (7, 1, 0));
    assert_eq!(cluster.directory().stats().foreign, 2);
    for key in ["", "lease", "lease.x", "name.fg1", "other.key"] {
        cluster.handle_event(seconds(0), &entry(key.to_owned(), 1, Some(Vec::new())));
    }
    lease(&mut cluster, 0, 2, 7, 30);
    name(&mut cluster, 0, 2, "a", (7, 1, 0));
    let bad = entry(name_key(2, "a"), 2, Some(vec![1, 2, 3]));
    cluster.handle_event(seconds(0), &bad);
    assert_eq!(cluster.directory().stats().malformed, 6);
    assert_eq!(holders(&cluster, 0, "a"), []);
    for relay in [2, 3] {
        for number in 0..5 {
            name(&mut cluster, 0, relay, &format!("n{number}"), (7, 1 + number, 0));
        }
    }
    assert_eq!(
        (cluster.directory().len(), cluster.directory().stats().refused),
        (6, 4)
    );
    // A known name is no new one.
    name(&mut cluster, 1, 2, "n0", (7, 9, 0));
    assert_eq!(cluster.directory().stats().refused, 4);
}

#[test]
fn a_lease_from_outside_ends_within_an_hour() {
    let value = LeaseEntry {
        epoch: 1,
        lease: Duration::from_millis(u64::from(u32::MAX)),
    };
    let decoded = LeaseEntry::decode(&value.encode()).unwrap();
    assert_eq!(decoded.lease, Duration::from_secs(3_600));
}

#[test]
fn changes_that_do_not_come_are_asked_for() {
    let mut cluster = relay();
    let mut now = 0;
    let mut reread = None;
    // Every write is taken, and the store tells of none.
    while now < 100 && reread.is_none() {
        while let Some(write) = cluster.poll_write(seconds(now)) {
            match write {
                StoreWrite::Put { ticket, .. } | StoreWrite::Delete { ticket, .. } => {
                    let result = Ok(now + 1);
                    cluster.handle_event(seconds(now), &StoreEvent::Written { ticket, result });
                }
                StoreWrite::Reread => reread = Some(now),
            }
        }
        now += 1;
    }
    assert_eq!(reread, Some(30), "one lease after the first was written");
}

#[test]
fn another_process_with_the_same_identity_shows() {
    let mut cluster = relay();
    let Some(StoreWrite::Put { ticket, key, .. }) = cluster.poll_write(seconds(0)) else {
        panic!("the lease is written first");
    };
    assert_eq!(key, EntryKey::Lease(id(1)).encode());
    cluster.handle_event(
        seconds(0),
        &StoreEvent::Written {
            ticket,
            result: Ok(1),
        },
    );
    lease(&mut cluster, 1, 1, 99, 30);
    assert_eq!(cluster.publisher().stats().conflicts, 1);
}

/// A store that keeps what it is given, and tells of it when it is asked to.
#[derive(Default)]
struct Model {
    entries: std::collections::BTreeMap<String, (u64, Vec<u8>)>,
    revision: u64,
    changes: std::collections::VecDeque<StoreEvent>,
    /// Writes that are on their way, and what will be said of them.
    waiting: std::collections::VecDeque<StoreWrite>,
}

impl Model {
    fn apply(&mut self, write: &StoreWrite) -> Option<u64> {
        let (key, value) = match write {
            StoreWrite::Put { key, value, .. } => (key, Some(value)),
            StoreWrite::Delete { key, .. } => (key, None),
            StoreWrite::Reread => return None,
        };
        self.revision += 1;
        match value {
            Some(value) => self.entries.insert(key.clone(), (self.revision, value.clone())),
            None => self.entries.remove(key),
        };
        self.changes
            .push_back(entry(key.clone(), self.revision, value.cloned()));
        Some(self.revision)
    }

    /// Has everything told again.
    fn tell_all(&mut self, now: Instant, cluster: &mut Cluster) {
        self.changes.clear();
        cluster.handle_event(now, &StoreEvent::Begin);
        for (key, (revision, value)) in &self.entries {
            cluster.handle_event(now, &entry(key.clone(), *revision, Some(value.clone())));
        }
        cluster.handle_event(now, &StoreEvent::Current);
    }

    fn names(&self) -> Vec<String> {
        let names = self.entries.keys().filter_map(|key| match EntryKey::decode(key) {
            Ok(EntryKey::Name { name, .. }) => Some(name.into_owned()),
            _ => None,
        });
        names.collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Hold(u8, bool),
    /// What becomes of the oldest write: whether it is done, and whether the answer comes.
    Write(bool, bool),
    Change,
    Lose,
    Come,
    Wait(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..5, any::<bool>()).prop_map(|(name, held)| Step::Hold(name, held)),
        4 => (any::<bool>(), any::<bool>()).prop_map(|(done, told)| Step::Write(done, told)),
        4 => Just(Step::Change),
        1 => Just(Step::Lose),
        1 => Just(Step::Come),
        2 => (0_u8..20).prop_map(Step::Wait),
    ]
}

fn answer(cluster: &mut Cluster, now: Instant, write: &StoreWrite, result: Result<u64, WriteFailed>) {
    if let StoreWrite::Put { ticket, .. } | StoreWrite::Delete { ticket, .. } = write {
        let ticket = *ticket;
        cluster.handle_event(now, &StoreEvent::Written { ticket, result });
    }
}

proptest! {
    #[test]
    fn any_key_is_refused_or_has_one_form(text in "(lease|name|x)?\\.?[a-z0-9.]{0,90}") {
        if let Ok(key) = EntryKey::decode(&text) {
            prop_assert_eq!(key.encode(), text);
        }
    }

    #[test]
    fn keys_come_back(relay: [u8; 32], name in "\\PC{1,30}") {
        let relay = Identifier::from_bytes(relay);
        for key in [EntryKey::Lease(relay), EntryKey::Name { relay, name: name.as_str().into() }] {
            let text = key.encode();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.'));
            prop_assert_eq!(EntryKey::decode(&text), Ok(key));
        }
    }

    #[test]
    fn any_value_is_refused_or_has_one_encoding(bytes: Vec<u8>) {
        if let Ok(entry) = NameEntry::decode(&bytes) {
            prop_assert_eq!(entry.encode(), bytes.as_slice());
        }
        if let Ok(entry) = LeaseEntry::decode(&bytes) {
            prop_assert!(entry.lease <= Duration::from_secs(3_600));
        }
    }

    #[test]
    fn names_come_back(epoch: u64, number: u64, age_secs: u32) {
        let age = Duration::from_secs(u64::from(age_secs));
        let entry = NameEntry { epoch, number, age };
        prop_assert_eq!(NameEntry::decode(&entry.encode()), Ok(entry));
    }

    /// Whatever is lost, done late or told late: once the store is there and answers, it has what is held, and nothing else.
    #[test]
    fn the_store_comes_to_have_what_is_held(steps in prop::collection::vec(step(), 0..120)) {
        let mut now = seconds(0);
        let mut cluster = Cluster::new(now, &mut Seeded::new(1), settings(1));
        let mut model = Model::default();
        // What an earlier life has left.
        model.apply(&StoreWrite::Put { ticket: 0, key: name_key(1, "n0"), value: name_value(5, 1, 0) });
        model.apply(&StoreWrite::Put { ticket: 0, key: name_key(1, "old"), value: name_value(5, 2, 0) });
        let mut held = BTreeSet::new();
        for step in steps {
            match step {
                Step::Hold(number, holds) => {
                    let name = format!("n{number}");
                    let is_news = if holds { held.insert(name.clone()) } else { held.remove(&name) };
                    if is_news {
                        cluster.handle_local(now, &name, holds.then_some(now));
                    }
                }
                Step::Write(done, told) => if let Some(write) = model.waiting.pop_front() {
                    let revision = if done { model.apply(&write) } else { None };
                    let result = revision.filter(|_| told).ok_or(WriteFailed);
                    answer(&mut cluster, now, &write, result);
                },
                Step::Change => if let Some(change) = model.changes.pop_front() {
                    cluster.handle_event(now, &change);
                },
                Step::Lose => cluster.handle_event(now, &StoreEvent::Away),
                Step::Come => model.tell_all(now, &mut cluster),
                Step::Wait(secs) => now = now + Duration::from_secs(u64::from(secs)),
            }
            cluster.handle_timeout(now);
            while let Some(write) = cluster.poll_write(now) {
                model.waiting.push_back(write);
            }
        }
        model.tell_all(now, &mut cluster);
        for _ in 0..200 {
            while let Some(write) = model.waiting.pop_front() {
                let result = model.apply(&write).ok_or(WriteFailed);
                answer(&mut cluster, now, &write, result);
            }
            while let Some(change) = model.changes.pop_front() {
                cluster.handle_event(now, &change);
            }
            while let Some(write) = cluster.poll_write(now) {
                model.waiting.push_back(write);
            }
            now = now + Duration::from_secs(1);
        }
        let held: Vec<String> = held.into_iter().collect();
        prop_assert_eq!(model.names(), held);
        prop_assert_eq!(cluster.publisher().unsettled(), 0);
    }
}
