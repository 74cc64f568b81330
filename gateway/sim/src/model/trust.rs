//! Who may be served, as far as the authority's words go.

use std::collections::{BTreeMap, BTreeSet};

use fieldgate_proto::{
    identity::{Identifier, SKEW_SECS},
    time::{ClockQuality, WallTime},
    trust::AfterGrace,
};

use super::{Check, ensure};
use crate::scenario::TrustPlan;

/// What an authority said, and what each host has heard of it.
#[derive(Debug, Default)]
pub(crate) struct TrustModel {
    plan: Option<TrustPlan>,
    /// By number: until when, and who is revoked.
    lists: BTreeMap<u64, (u64, BTreeSet<Identifier>)>,
    /// The number of the list that each host has.
    held: BTreeMap<usize, u64>,
    /// When each host took the list it has, in nanoseconds of the simulation.
    heard: BTreeMap<usize, u64>,
    /// Until when the newest credential of each member holds, in seconds since 1970.
    until: BTreeMap<Identifier, u64>,
    /// When each host's clock was set last, in nanoseconds of the simulation.
    clock_set: BTreeMap<usize, u64>,
}

/// The host that serves somebody, and what it knows of the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    pub(crate) host: usize,
    pub(crate) wall: WallTime,
    /// Nanoseconds of the simulation.
    pub(crate) at: u64,
}

impl TrustModel {
    pub(crate) fn begin(&mut self, plan: Option<&TrustPlan>) {
        self.plan = plan.cloned();
    }

    /// The authority has published a list.
    pub(crate) fn published(&mut self, number: u64, not_after: u64, revoked: BTreeSet<Identifier>) {
        self.lists.insert(number, (not_after, revoked));
    }

    /// The authority has issued a credential.
    pub(crate) fn issued(&mut self, subject: Identifier, not_after: u64) {
        let until = self.until.entry(subject).or_default();
        *until = (*until).max(not_after);
    }

    /// A host has this list since `at`.
    pub(crate) fn holds(&mut self, host: usize, number: u64, at: u64) -> Check {
        let before = self.held.insert(host, number).unwrap_or(0);
        if before != number {
            self.heard.insert(host, at);
        }
        invariant_lists_never_go_back(host, before, number)
    }

    /// A host was given back what it had kept before: it knows no better.
    pub(crate) fn rolled_back(&mut self, host: usize) {
        self.held.remove(&host);
    }

    /// A host's clock was set at `at`.
    pub(crate) fn clock_set(&mut self, host: usize, at: u64) {
        self.clock_set.insert(host, at);
    }

    /// Returns the number of the newest list.
    pub(crate) fn newest(&self) -> u64 {
        self.lists.keys().next_back().copied().unwrap_or(0)
    }

    fn held_by(&self, host: usize) -> Option<&(u64, BTreeSet<Identifier>)> {
        self.lists.get(self.held.get(&host)?)
    }

    /// A host lets a peer do something, with a credential or without.
    pub(crate) fn not_revoked(&self, host: usize, peer: &Identifier) -> Check {
        invariant_a_revoked_peer_is_not_served_after_the_list_arrived(self, host, peer)
    }

    /// A host serves a peer.
    pub(crate) fn served(&self, server: Server, peer: &Identifier) -> Check {
        if self.plan.is_none() {
            return Ok(());
        }
        invariant_a_revoked_peer_is_not_served_after_the_list_arrived(self, server.host, peer)?;
        invariant_nobody_without_a_credential_is_served(self, server, peer)
    }
}

/// Nobody, whatever it replays, makes a host believe an older list than it has.
pub(crate) fn invariant_lists_never_go_back(host: usize, before: u64, number: u64) -> Check {
    ensure(number >= before, "lists never go back", || {
        format!("host {host} had list {before}, and has {number}")
    })
}

/// From the moment a host has a list, it serves nobody whom that names.
pub(crate) fn invariant_a_revoked_peer_is_not_served_after_the_list_arrived(
    trust: &TrustModel,
    host: usize,
    peer: &Identifier,
) -> Check {
    let revoked = trust
        .held_by(host)
        .is_some_and(|(_, revoked)| revoked.contains(peer));
    ensure(
        !revoked,
        "a revoked peer is not served after the list arrived",
        || {
            format!(
                "host {host} has list {:?}, and serves {peer}",
                trust.held.get(&host)
            )
        },
    )
}

/// Whoever is served was given a credential, and it counts still, as far as the host's clock can tell.
pub(crate) fn invariant_nobody_without_a_credential_is_served(
    trust: &TrustModel,
    server: Server,
    peer: &Identifier,
) -> Check {
    let sentence = "nobody without a credential is served";
    let Some(until) = trust.until.get(peer) else {
        return ensure(false, sentence, || format!("host {} serves {peer}", server.host));
    };
    let Some(plan) = &trust.plan else { return Ok(()) };
    // What has ended is looked for once a second; a clock that was set makes things end at once.
    let set = trust.clock_set.get(&server.host).copied().unwrap_or(0);
    if server.wall.quality == ClockQuality::Unknown || server.at < set + LATE_NANOS {
        return Ok(());
    }
    let latest = |end: u64| end + SKEW_SECS + plan.grace.as_secs() + LATE_SECS;
    let now = server.wall.unix_secs();
    let silent = trust
        .held_by(server.host)
        .is_some_and(|(end, _)| now > latest(*end));
    if plan.after_grace == AfterGrace::GoOn {
        // Only while the authority is silent, and that depends on what the list says; a new one ends it for everybody at the next look.
        let taken = trust.heard.get(&server.host).copied().unwrap_or(0);
        let heard =
            server.at >= taken + LATE_NANOS && trust.held_by(server.host).is_some_and(|(end, _)| now < *end);
        return ensure(!heard || now <= latest(*until), sentence, || {
            format!(
                "host {} serves {peer} at {now}, its credential held until {until}",
                server.host
            )
        });
    }
    ensure(now <= latest(*until) && !silent, sentence, || {
        format!(
            "host {} serves {peer} at {now}, its credential held until {until}, silent: {silent}",
            server.host
        )
    })
}

/// How late a host may notice that something has ended.
const LATE_SECS: u64 = 3;
const LATE_NANOS: u64 = 2_000_000_000;

#[cfg(test)]
mod tests {
    use std::{ops::Range, time::Duration};

    use super::*;
    use crate::scenario::Scenario;

    const PEER: Identifier = Identifier::from_bytes([1; 32]);
    const OTHER: Identifier = Identifier::from_bytes([2; 32]);
    const HOST: usize = 4;
    /// Grace of a minute.
    const ENDS: Range<u64> = 1_000..1_000 + SKEW_SECS + 60 + LATE_SECS;

    fn model() -> TrustModel {
        let mut model = TrustModel::default();
        model.begin(Scenario::trusting(1).trust.as_ref());
        model.published(1, 100_000, BTreeSet::new());
        model.published(2, 100_000, BTreeSet::from([PEER]));
        model.issued(PEER, ENDS.start);
        model.issued(PEER, 500);
        model.holds(HOST, 1, 0).unwrap();
        model
    }

    fn at(unix_secs: u64) -> Server {
        let wall = WallTime {
            unix_millis: unix_secs * 1000,
            quality: ClockQuality::Synchronised,
        };
        Server {
            host: HOST,
            wall,
            at: 10 * LATE_NANOS,
        }
    }

    fn sentence(check: Check) -> &'static str {
        check.unwrap_err().sentence
    }

    #[test]
    fn a_list_that_goes_back_is_noticed_unless_the_disk_was_set_back() {
        let mut model = model();
        model.holds(HOST, 2, 0).unwrap();
        model.holds(HOST, 2, 0).unwrap();
        assert_eq!(sentence(model.holds(HOST, 1, 0)), "lists never go back");
        model.rolled_back(HOST);
        model.holds(HOST, 1, 0).unwrap();
        model.holds(HOST + 1, 1, 0).unwrap();
    }

    #[test]
    fn who_is_served_though_revoked_is_noticed_where_the_list_is() {
        let mut model = model();
        model.served(at(900), &PEER).unwrap();
        model.not_revoked(HOST, &PEER).unwrap();
        model.holds(HOST, 2, 0).unwrap();
        let revoked = "a revoked peer is not served after the list arrived";
        assert_eq!(sentence(model.served(at(900), &PEER)), revoked);
        assert_eq!(sentence(model.not_revoked(HOST, &PEER)), revoked);
        model.not_revoked(HOST, &OTHER).unwrap();
        model.not_revoked(HOST + 1, &PEER).unwrap();
    }

    #[test]
    fn who_is_served_without_a_credential_or_after_its_end_is_noticed() {
        let nobody = "nobody without a credential is served";
        let mut model = model();
        assert_eq!(sentence(model.served(at(900), &OTHER)), nobody);
        model.served(at(ENDS.end), &PEER).unwrap();
        assert_eq!(sentence(model.served(at(ENDS.end + 1), &PEER)), nobody);
        let mut unknown = at(ENDS.end + 1);
        unknown.wall.quality = ClockQuality::Unknown;
        model.served(unknown, &PEER).unwrap();
        // A clock that was set a moment ago.
        model.clock_set(HOST, at(0).at - 1);
        model.served(at(ENDS.end + 1), &PEER).unwrap();
    }

    #[test]
    fn who_is_served_long_after_the_authority_fell_silent_is_noticed() {
        let mut model = model();
        model.published(3, ENDS.start, BTreeSet::new());
        model.issued(PEER, 100_000);
        model.holds(HOST, 3, 0).unwrap();
        model.served(at(ENDS.end), &PEER).unwrap();
        let nobody = "nobody without a credential is served";
        assert_eq!(sentence(model.served(at(ENDS.end + 1), &PEER)), nobody);
        // Who is to go on goes on, but only while nothing is heard.
        let mut plan = Scenario::trusting(1).trust.unwrap();
        (plan.after_grace, plan.grace) = (AfterGrace::GoOn, Duration::from_secs(60));
        model.begin(Some(&plan));
        model.served(at(ENDS.end + 1), &PEER).unwrap();
        model.issued(OTHER, 500);
        assert_eq!(sentence(model.served(at(ENDS.start - 1), &OTHER)), nobody);
        // A list that came a moment ago.
        model.published(4, ENDS.start, BTreeSet::new());
        model.holds(HOST, 4, at(0).at - 1).unwrap();
        model.served(at(ENDS.start - 1), &OTHER).unwrap();
    }
}
