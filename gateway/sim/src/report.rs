//! What a run has to say for itself.

use std::{collections::BTreeMap, fmt, time::Duration};

use fieldgate_proto::link::Class;

use crate::attacker::Verb;

/// What happened in a run that broke no invariant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Events played.
    pub steps: u64,
    /// Readings that devices gave to gateways.
    pub appended: u64,
    /// Readings that were promised to devices.
    pub acknowledged: u64,
    /// Readings that gateways did not take: full disk, failing disk, too much waiting.
    pub refused: u64,
    /// Readings that reached the sink's store, those nobody was promised included.
    pub delivered: u64,
    /// Readings in gap records of the first collector's store.
    pub lost: u64,
    /// Readings in gap records of all collectors, by reason.
    pub lost_by: BTreeMap<&'static str, u64>,
    /// What the first collector's sink took, in order; not in sums over many runs.
    pub arrivals: Vec<Arrival>,
    /// Readings that journals discarded before every collector had them.
    pub discarded: u64,
    /// Collectors restored from backups, and how often somebody noticed, lane by lane.
    pub restored: u64,
    /// See `restored`.
    pub restores_noticed: u64,
    /// Starts after a stop: of gateways, relays, collectors.
    pub restarts: [u64; 3],
    /// Relays that stopped after they had their members leave.
    pub drains: u64,
    /// Members that had not left then.
    pub left_behind: u64,
    /// Connections cut with both ends running.
    pub resets: u64,
    /// Times nothing passed between two nodes for a while.
    pub partitions: u64,
    /// The same in one direction only.
    pub one_ways: u64,
    /// Connections whose end never told its neighbour that it was gone, for longer than a link may be silent.
    pub silent_ends: u64,
    /// Disk operations that failed or were cut in the middle.
    pub disk_faults: u64,
    /// Sectors of a disk that were damaged later.
    pub rot: u64,
    /// Times the sink stopped taking readings.
    pub sink_stops: u64,
    /// Purpose keys replaced while running.
    pub renewals: u64,
    /// Clocks that somebody set.
    pub clock_steps: u64,
    /// Clocks set wrong for a while.
    pub wrong_clocks: u64,
    /// Attacks carried out on frames, by kind.
    pub attacks: BTreeMap<Verb, u64>,
    /// Bytes on wires that were searched for plaintext.
    pub tapped: u64,
    /// Frames that relays forwarded.
    pub forwarded: u64,
    /// Counters of all nodes in all their lives together: records that did not verify, that came again, for no channel.
    pub records_refused: [u64; 3],
    /// Channels established.
    pub established: u64,
    /// Keys of channels replaced.
    pub rekeys: u64,
    /// Copies of readings that the collector dropped, and readings that came too early.
    pub duplicates: u64,
    /// See `duplicates`.
    pub out_of_order: u64,
    /// Readings the sinks did not take at once.
    pub held_back: u64,
    /// Times a stranger came for a service and was refused.
    pub refused_peers: u64,
    /// Messages that reached the impostor and did not fool anybody.
    pub impostor_messages: u64,
    /// Frames that routers dropped, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Frames on wires, those that were forwarded and those of attackers included.
    pub frames: u64,
    /// What happened to streams.
    pub streams: StreamReport,
    /// What happened to trust.
    pub trust: TrustReport,
    /// From healing to the last release.
    pub settled_after: Duration,
    /// A hash over what happened when, lengths included, contents left out.
    pub fingerprint: u64,
}

/// Readings that a sink took together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Simulated milliseconds since the beginning.
    pub millis: u64,
    /// Their class.
    pub lane: Class,
    /// How many.
    pub readings: u64,
}

/// What happened to streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamReport {
    /// Streams that were opened at inlets.
    pub opened: u64,
    /// Streams whose both ends came to their end.
    pub ended_well: u64,
    /// Ends that were told that their stream was broken off, by reason.
    pub broken_off: BTreeMap<&'static str, u64>,
    /// Bytes that came out.
    pub bytes: u64,
    /// Times that sessions went on in another channel with streams alive.
    pub resumed: u64,
    /// Sessions that were lost.
    pub lost: u64,
    /// Times that a side gave its session up.
    pub given_up: u64,
    /// Times that packets were sent again.
    pub went_back: u64,
    /// Packets that came twice.
    pub duplicates: u64,
}

impl StreamReport {
    /// Takes what the model has counted, beside what sessions did.
    pub(crate) fn take_model(&mut self, model: Self) {
        self.opened = model.opened;
        self.ended_well = model.ended_well;
        self.broken_off = model.broken_off;
        self.bytes = model.bytes;
        self.given_up = model.given_up;
    }

    fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.ended_well += other.ended_well;
        for (reason, count) in &other.broken_off {
            *self.broken_off.entry(reason).or_default() += count;
        }
        self.bytes += other.bytes;
        self.resumed += other.resumed;
        self.given_up += other.given_up;
        self.lost += other.lost;
        self.went_back += other.went_back;
        self.duplicates += other.duplicates;
    }
}

/// What happened to trust in a run with an authority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrustReport {
    /// Credentials that nodes took: enrolments and renewals.
    pub credentials_taken: u64,
    /// Credentials that nodes refused: expired, revoked.
    pub credentials_refused: u64,
    /// Times the authority refused to renew one.
    pub renewals_denied: u64,
    /// Lists that nodes took.
    pub lists_taken: u64,
    /// Lists that nodes refused.
    pub lists_refused: u64,
    /// Channels that were closed because their peer was revoked.
    pub revoked: u64,
    /// Times a peer was served in its time of grace.
    pub in_grace: u64,
    /// Channels that were closed because a credential had ended.
    pub ended: u64,
    /// Times a node became stale or lapsed.
    pub silences: u64,
    /// Strangers that became members.
    pub enrolled: u64,
    /// Live proofs that verified.
    pub proofs: u64,
    /// Clocks that the authority set.
    pub clocks_set: u64,
    /// Disks that came back with what had been on them long ago.
    pub rollbacks: u64,
}

impl TrustReport {
    fn add(&mut self, other: &Self) {
        self.credentials_taken += other.credentials_taken;
        self.credentials_refused += other.credentials_refused;
        self.renewals_denied += other.renewals_denied;
        self.lists_taken += other.lists_taken;
        self.lists_refused += other.lists_refused;
        self.revoked += other.revoked;
        self.in_grace += other.in_grace;
        self.ended += other.ended;
        self.silences += other.silences;
        self.enrolled += other.enrolled;
        self.proofs += other.proofs;
        self.clocks_set += other.clocks_set;
        self.rollbacks += other.rollbacks;
    }
}

impl Report {
    /// Returns how often `verb` was carried out.
    #[must_use]
    pub fn attacks_of(&self, verb: Verb) -> u64 {
        self.attacks.get(&verb).copied().unwrap_or(0)
    }

    /// Adds the counters of another run, for totals over many seeds.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.appended += other.appended;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.delivered += other.delivered;
        self.lost += other.lost;
        for (reason, count) in &other.lost_by {
            *self.lost_by.entry(reason).or_default() += count;
        }
        self.discarded += other.discarded;
        self.restored += other.restored;
        self.restores_noticed += other.restores_noticed;
        let restarts = self.restarts.iter_mut().zip(other.restarts);
        let refused = self.records_refused.iter_mut().zip(other.records_refused);
        restarts.chain(refused).for_each(|(sum, part)| *sum += part);
        self.drains += other.drains;
        self.left_behind += other.left_behind;
        self.resets += other.resets;
        self.partitions += other.partitions;
        self.one_ways += other.one_ways;
        self.silent_ends += other.silent_ends;
        self.disk_faults += other.disk_faults;
        self.rot += other.rot;
        self.sink_stops += other.sink_stops;
        self.renewals += other.renewals;
        self.clock_steps += other.clock_steps;
        self.wrong_clocks += other.wrong_clocks;
        for (reason, count) in &other.dropped {
            *self.dropped.entry(reason).or_default() += count;
        }
        self.frames += other.frames;
        self.streams.add(&other.streams);
        for (verb, count) in &other.attacks {
            *self.attacks.entry(*verb).or_default() += count;
        }
        self.tapped += other.tapped;
        self.forwarded += other.forwarded;
        self.established += other.established;
        self.rekeys += other.rekeys;
        self.duplicates += other.duplicates;
        self.out_of_order += other.out_of_order;
        self.held_back += other.held_back;
        self.refused_peers += other.refused_peers;
        self.impostor_messages += other.impostor_messages;
        self.trust.add(&other.trust);
        self.settled_after = self.settled_after.max(other.settled_after);
    }
}

/// Where the story of a run goes: nowhere, or to a function that gets it line by line.
pub struct Trace<'a>(Option<&'a mut dyn FnMut(String)>);

impl fmt::Debug for Trace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({})", if self.0.is_some() { "on" } else { "off" })
    }
}

impl<'a> Trace<'a> {
    /// Tells nothing; costs nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Tells everything to `tell`.
    pub fn to(tell: &'a mut dyn FnMut(String)) -> Self {
        Self(Some(tell))
    }

    /// Returns whether anybody listens.
    pub(crate) const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Tells a line.
    pub(crate) fn line(&mut self, line: String) {
        if let Some(tell) = &mut self.0 {
            tell(line);
        }
    }
}
