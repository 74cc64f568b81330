//! What must hold, and the little that one has to remember to know whether it does.
//!
//! The model is told what devices gave to gateways, what was promised, handed to the sink, stored and released. Each
//! `invariant_…` compares a piece of that with what a machine just did, and says in its name what must hold.

mod bounds;
mod side;
mod streams;
mod trust;

use std::collections::{BTreeMap, BTreeSet};

use fieldgate_adapters::reading::Reading;
use fieldgate_proto::{
    delivery::{Batch, JournalId, Lost, LostReason},
    identity::Identifier,
    journal::{JournalSettings, RecoveryReport, WhenFull},
    node::SourceInfo,
    wire::Reader,
};
use side::Side;

use crate::{
    report::Arrival,
    scenario::Draw,
    sink::{SourceKey, Store},
};

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, {millis} ms, step {step}: {sentence}: {detail}")]
pub struct Violation {
    /// The seed of the run.
    pub seed: u64,
    /// What was drawn from it.
    pub draw: Draw,
    /// Simulated milliseconds since the beginning.
    pub millis: u64,
    /// Events played before.
    pub step: u64,
    /// What must hold.
    pub sentence: &'static str,
    /// What happened instead.
    pub detail: String,
}

impl Violation {
    /// Returns how to see more.
    #[must_use]
    pub fn hint(&self) -> String {
        let (seed, of) = (self.seed, self.draw.name());
        format!(
            "run `cargo xtask sim {seed} --of {of}` for the whole story, and keep the seed in {}",
            self.draw.kept()
        )
    }
}

/// A sentence that does not hold, before it is known when that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// The sentence.
    pub(crate) sentence: &'static str,
    /// What happened instead.
    pub(crate) detail: String,
}

/// What a check gives.
pub(crate) type Check = Result<(), Broken>;

/// Fails with the name of the invariant unless `holds`.
pub(crate) fn ensure(holds: bool, sentence: &'static str, detail: impl FnOnce() -> String) -> Check {
    if holds {
        Ok(())
    } else {
        Err(Broken {
            sentence,
            detail: detail(),
        })
    }
}

/// One lane of a gateway's journal.
#[derive(Debug, Default)]
pub(crate) struct JournalModel {
    policy: Policy,
    /// What devices gave, by sequence, as far as the journal still goes.
    appended: BTreeMap<u64, Vec<u8>>,
    /// Highest sequence on stable storage, as the journal said.
    committed: u64,
    /// Sequences nobody was promised, and those on damaged sectors.
    excused: BTreeSet<u64>,
    /// What each collector has, in the order of uplinks.
    sides: [Side; COLLECTORS_MAX],
}

/// What a lane may discard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    /// The oldest, when it is full.
    drops: bool,
    /// What is too old.
    expires: bool,
}

impl Policy {
    pub(crate) fn of(settings: &JournalSettings) -> Self {
        Self {
            drops: settings.when_full == WhenFull::DropOldest,
            expires: settings.ttl.is_some(),
        }
    }
}

/// The model of a whole network.
#[derive(Debug, Default)]
pub(crate) struct Model {
    journals: BTreeMap<SourceKey, JournalModel>,
    /// Number of the first collector's host, and how many there are.
    pub(crate) collectors: (usize, usize),
    /// Which collectors were restored from a backup.
    restored: [bool; COLLECTORS_MAX],
    /// How often a node said so.
    pub(crate) restores_noticed: u64,
    /// What was handed to the first collector, in order.
    pub(crate) arrivals: Vec<Arrival>,
    /// Simulated milliseconds.
    pub(crate) millis: u64,
    broken: Option<Broken>,
    /// Bytes searched for plaintext.
    pub(crate) tapped: u64,
    pub(crate) trust: TrustModel,
    pub(crate) streams: StreamsModel,
    /// Who is at work, and may be handed readings.
    pub(crate) server: Option<Server>,
}

impl Model {
    /// Returns what was found broken first, if anything was.
    pub(crate) const fn take_broken(&mut self) -> Option<Broken> {
        self.broken.take()
    }

    /// Keeps the first sentence that does not hold.
    pub(crate) fn note(&mut self, check: Check) {
        if let Err(broken) = check {
            self.broken.get_or_insert(broken);
        }
    }

    fn journal(&mut self, key: SourceKey) -> &mut JournalModel {
        self.journals.entry(key).or_default()
    }

    /// A device gave a reading, and the journal took it under `sequence`.
    pub(crate) fn appended(&mut self, key: SourceKey, sequence: u64, reading: Vec<u8>) {
        let journal = self.journal(key);
        let check = invariant_sequences_are_given_out_once(journal, sequence);
        journal.appended.insert(sequence, reading);
        self.note(check);
    }

    /// The journal has everything up to `up_to` on stable storage.
    pub(crate) fn committed(&mut self, key: SourceKey, up_to: u64) {
        let journal = self.journal(key);
        let check = invariant_promises_grow_and_cover_what_was_appended(journal, up_to);
        journal.committed = journal.committed.max(up_to);
        self.note(check);
    }

    /// A device was acknowledged.
    pub(crate) fn acknowledged(&mut self, key: SourceKey, sequence: u64) {
        let committed = self.journal(key).committed;
        self.note(ensure(
            sequence <= committed,
            "what is acknowledged is on stable storage in its lane",
            || format!("{sequence} was acknowledged, {committed} are there"),
        ));
    }

    /// Bits on the disk changed that may cost these sequences.
    pub(crate) fn damaged(&mut self, key: SourceKey, sequences: BTreeSet<u64>) {
        self.journal(key).excused.extend(sequences);
    }

    /// The gateway found its journal again after a stop.
    pub(crate) fn recovered(&mut self, key: SourceKey, report: &RecoveryReport, policy: Policy) {
        let collectors = self.collectors.1;
        let journal = self.journal(key);
        journal.policy = policy;
        let check = invariant_no_promised_reading_is_lost_by_a_stop(journal, collectors, report);
        let last = report.next - 1;
        // What was being written is there or not; nobody was promised it. If it is there, it counts from now on.
        journal.excused.extend(journal.committed + 1..=last);
        journal.committed = journal.committed.max(last);
        journal.appended.retain(|sequence, _| *sequence <= last);
        self.note(check);
    }

    /// A collector began a new life: its sink goes on where its store is.
    pub(crate) fn collector_started(&mut self, host: usize) {
        let collector = self.collector(host);
        for journal in self.journals.values_mut() {
            journal.sides[collector].start();
        }
    }

    /// A collector's store is that of a backup.
    pub(crate) fn restored(&mut self, host: usize, store: &Store) {
        let collector = self.collector(host);
        self.restored[collector] = true;
        for (key, journal) in &mut self.journals {
            let position = store.get(key).copied().unwrap_or(0);
            journal.sides[collector].restore(position);
        }
    }

    const fn collector(&self, host: usize) -> usize {
        host - self.collectors.0
    }

    /// A batch was handed to the sink of a collector's host.
    pub(crate) fn handed(&mut self, host: usize, key: SourceKey, batch: &Batch<'_>) {
        let collector = self.collector(host);
        if collector == 0 {
            self.arrivals.push(Arrival {
                millis: self.millis,
                lane: batch.lane,
                readings: batch.count,
            });
        }
        let Some(journal) = self.arrived(key) else { return };
        let side = &journal.sides[collector];
        let check = invariant_the_sink_gets_each_reading_once_and_in_order(side, batch.first)
            .and_then(|()| invariant_the_sink_gets_what_the_gateway_has_on_stable_storage(journal, batch));
        journal.sides[collector].hand(batch.first, batch.first + batch.count - 1, None);
        self.note(check);
    }

    /// A gap was handed to the sink of a collector's host.
    pub(crate) fn gap(&mut self, host: usize, key: SourceKey, lost: &Lost) {
        let collector = self.collector(host);
        let Some(journal) = self.arrived(key) else { return };
        let side = &journal.sides[collector];
        let check = invariant_the_sink_gets_each_reading_once_and_in_order(side, lost.first)
            .and_then(|()| invariant_a_gap_has_its_reason(journal, side, lost))
            .and_then(|()| invariant_a_gap_says_from_when_to_when(journal, lost));
        journal.sides[collector].hand(lost.first, lost.last, Some(*lost));
        self.note(check);
    }

    /// Returns the journal of something that arrived, if whoever takes it may serve its gateway and there is one.
    fn arrived(&mut self, key: SourceKey) -> Option<&mut JournalModel> {
        if let Some(server) = self.server {
            self.note(self.trust.served(server, &key.0));
        }
        if !self.journals.contains_key(&key) {
            self.note(invariant_the_sink_gets_readings_of_known_gateways_only(&key));
        }
        self.journals.get_mut(&key)
    }

    /// A reading came to somebody who only claims to be the collector.
    pub(crate) fn reached_impostor(&mut self, source: &SourceInfo, count: u64) {
        self.note(ensure(false, "an impostor gets nothing", || {
            format!("{count} readings of {}", source.gateway)
        }));
    }

    /// The store of a collector's host has everything up to `up_to` that was handed over.
    pub(crate) fn stored(&mut self, host: usize, key: SourceKey, up_to: u64) {
        let collector = self.collector(host);
        self.journal(key).sides[collector].store(up_to);
    }

    /// The node told the journal that an uplink's collector has everything up to `up_to`.
    pub(crate) fn released(&mut self, uplink: usize, key: SourceKey, up_to: u64) {
        let side = &mut self.journal(key).sides[uplink];
        let check = invariant_only_what_the_sink_has_stored_is_released(side, up_to);
        side.released = side.released.max(up_to);
        self.note(check);
    }

    /// A collector found that it had confirmed more than it knows of.
    pub(crate) fn forgotten(&mut self, host: usize, confirmed: u64, received: u64) {
        let collector = self.collector(host);
        self.noticed_restore(collector, confirmed, received);
    }

    /// A gateway found that the collector of an uplink had confirmed more.
    pub(crate) fn told_of_restore(&mut self, uplink: usize, confirmed: u64, committed: u64) {
        self.noticed_restore(uplink, confirmed, committed);
    }

    fn noticed_restore(&mut self, collector: usize, confirmed: u64, known: u64) {
        self.restores_noticed += 1;
        let happened = self.restored[collector];
        self.note(ensure(
            happened && known < confirmed,
            "a collector is said to be set back only if it was",
            || format!("collector {collector} had {confirmed}, has {known}"),
        ));
    }

    /// A journal was found set back behind what was received of it.
    pub(crate) fn set_back(&mut self, who: &str) {
        self.note(ensure(false, "no journal is ever set back", || who.to_owned()));
    }

    /// Looks through what `who` sends for what devices published.
    pub(crate) fn tap(&mut self, who: &str, bytes: &[u8]) {
        self.tapped += bytes.len() as u64;
        let check = invariant_wires_carry_no_plaintext(who, bytes);
        self.note(check);
    }

    /// Checks at the end of a run that everything promised is in every collector's store, or in a gap there.
    pub(crate) fn finish(&mut self) {
        let collectors = self.collectors.1;
        let check = self.journals.iter().try_for_each(|(key, journal)| {
            let mut sides = journal.sides.iter().take(collectors);
            sides.try_for_each(|side| invariant_every_promised_reading_arrives(key, journal, side))
        });
        self.note(check);
    }

    /// Returns how many readings were promised, how many are stored at the first collector, and how many are in gaps there.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        let mut totals = (0, 0, 0);
        for journal in self.journals.values() {
            let [side, ..] = &journal.sides;
            totals.0 += journal.committed;
            totals.1 += side.readings();
            totals.2 += side.lost();
        }
        totals
    }

    /// Returns the reasons of gaps at all collectors, and how many readings each cost.
    pub(crate) fn lost_by(&self) -> BTreeMap<&'static str, u64> {
        let mut lost = BTreeMap::new();
        let sides = self.journals.values().flat_map(|journal| &journal.sides);
        for gap in sides.flat_map(Side::gaps) {
            *lost.entry(gap.reason.name()).or_default() += gap.count();
        }
        lost
    }

    /// Returns whether everything of a journal is promised and released by every collector.
    pub(crate) fn is_settled(&self, key: SourceKey) -> bool {
        self.journals.get(&key).is_none_or(|journal| {
            let newest = journal.appended.keys().next_back().copied().unwrap_or(0);
            let mut sides = journal.sides.iter().take(self.collectors.1);
            journal.committed >= newest && sides.all(|side| side.position() >= journal.committed)
        })
    }
}

/// A sequence is given to one reading; only those that a stop took back are given out again.
pub(crate) fn invariant_sequences_are_given_out_once(journal: &JournalModel, sequence: u64) -> Check {
    let newest = journal.appended.keys().next_back().copied().unwrap_or(0);
    let next = newest.max(journal.committed) + 1;
    ensure(
        sequence == next,
        "sequences are given out once and without gaps",
        || format!("{sequence} was given out, {next} is next"),
    )
}

/// A promise is about readings that were appended, and is never taken back.
pub(crate) fn invariant_promises_grow_and_cover_what_was_appended(
    journal: &JournalModel,
    up_to: u64,
) -> Check {
    let newest = journal.appended.keys().next_back().copied().unwrap_or(0);
    ensure(
        up_to >= journal.committed && up_to <= newest,
        "promises grow and cover what was appended",
        || format!("up to {up_to}, after {} of {newest}", journal.committed),
    )
}

/// After a stop at any moment the journal has every reading that was promised.
pub(crate) fn invariant_no_promised_reading_is_lost_by_a_stop(
    journal: &JournalModel,
    collectors: usize,
    report: &RecoveryReport,
) -> Check {
    ensure(
        report.next > journal.committed,
        "no promised reading is lost by a stop",
        || format!("{} were promised, {} comes next", journal.committed, report.next),
    )?;
    let sides = journal.sides.iter().take(collectors);
    let released = sides.map(|side| side.released).min().unwrap_or(0);
    ensure(report.first <= released + 1, "no stop releases a reading", || {
        format!("{released} were released, {} comes first", report.first)
    })
}

/// Whoever has no journal here has no readings here.
pub(crate) fn invariant_the_sink_gets_readings_of_known_gateways_only(
    key: &(Identifier, JournalId),
) -> Check {
    ensure(false, "the sink gets readings of known gateways only", || {
        format!("{} with journal {:?}", key.0, key.1)
    })
}

/// Nothing comes twice, late or early: a replay, a reordering or something missing would show here.
pub(crate) fn invariant_the_sink_gets_each_reading_once_and_in_order(side: &Side, first: u64) -> Check {
    let expected = side.handed() + 1;
    ensure(
        first == expected,
        "the sink gets each reading once and in order",
        || format!("{first} came, {expected} was expected"),
    )
}

/// Nothing is given up that could be had: damage for what was damaged, policy where there is one, and what was let go of only if it
/// had arrived once.
pub(crate) fn invariant_a_gap_has_its_reason(journal: &JournalModel, side: &Side, lost: &Lost) -> Check {
    let mut sequences = lost.first..=lost.last;
    let holds = lost.last <= journal.committed
        && match lost.reason {
            LostReason::Corrupt => sequences.all(|sequence| journal.excused.contains(&sequence)),
            LostReason::Discarded => journal.policy.drops || journal.policy.expires,
            LostReason::Expired => journal.policy.drops || journal.policy.expires,
            LostReason::Released => sequences.all(|sequence| side.was_settled(sequence)),
        };
    ensure(holds, "a gap has its reason", || {
        format!(
            "{lost:?} of {} committed, {:?}",
            journal.committed, journal.policy
        )
    })
}

/// A gap that says when its readings were captured leaves none out.
pub(crate) fn invariant_a_gap_says_from_when_to_when(journal: &JournalModel, lost: &Lost) -> Check {
    let Some((earliest, latest)) = lost.captured else {
        return Ok(());
    };
    let bodies = journal.appended.range(lost.first..=lost.last);
    let mut times = bodies.filter_map(|(_, body)| Some(Reading::decode(body).ok()?.captured_at.unix_millis));
    let outside = times.find(|time| !(earliest..=latest).contains(time));
    ensure(outside.is_none(), "a gap says from when to when", || {
        format!("{lost:?} and a reading of {outside:?}")
    })
}

/// What arrives is, byte for byte, what a device gave to this gateway under this sequence, and was promised before it was sent.
pub(crate) fn invariant_the_sink_gets_what_the_gateway_has_on_stable_storage(
    journal: &JournalModel,
    batch: &Batch<'_>,
) -> Check {
    let sentence = "the sink gets what the gateway has on stable storage";
    let last = batch.first + batch.count - 1;
    ensure(last <= journal.committed, sentence, || {
        format!("{last} came, {} are promised", journal.committed)
    })?;
    let mut reader = Reader::new(batch.readings);
    for sequence in batch.first..=last {
        let reading = reader.bytes_varint("reading").unwrap_or_default();
        let genuine = journal.appended.get(&sequence).map(Vec::as_slice);
        ensure(genuine == Some(reading), sentence, || {
            format!(
                "reading {sequence} has {} bytes that differ from what was appended",
                reading.len()
            )
        })?;
    }
    ensure(reader.is_empty(), sentence, || {
        format!("{} bytes behind reading {last}", reader.rest().len())
    })
}

/// The journal forgets only what is in the sink's store, or in a gap there.
pub(crate) fn invariant_only_what_the_sink_has_stored_is_released(side: &Side, up_to: u64) -> Check {
    let unsafe_one = (side.released + 1..=up_to).find(|sequence| !side.was_settled(*sequence));
    ensure(
        unsafe_one.is_none(),
        "only what the sink has stored is released",
        || {
            format!(
                "up to {up_to}, and {} is not stored",
                unsafe_one.unwrap_or_default()
            )
        },
    )
}

/// At the end everything that was promised to a device is in the sink's store, or in exactly one gap there.
pub(crate) fn invariant_every_promised_reading_arrives(
    key: &SourceKey,
    journal: &JournalModel,
    side: &Side,
) -> Check {
    let wrong = (1..=journal.committed).find(|sequence| side.accounts(*sequence) != 1);
    ensure(wrong.is_none(), "every promised reading arrives", || {
        let sequence = wrong.unwrap_or_default();
        format!(
            "reading {sequence} of {} is there {} times",
            key.0,
            side.accounts(sequence)
        )
    })
}

/// Nothing that a device published stands on a wire in clear.
pub(crate) fn invariant_wires_carry_no_plaintext(who: &str, bytes: &[u8]) -> Check {
    ensure(!contains(bytes, MARKER), "wires carry no plaintext", || {
        format!("{who} sent a reading in clear")
    })
}

/// Every frame that anybody sends is forwarded a few times and not for ever: a route has eight hops at the most.
pub(crate) fn invariant_no_frame_goes_round_for_ever(frames: u64, forwarded: u64) -> Check {
    let begun = frames.saturating_sub(forwarded);
    ensure(
        forwarded <= begun.saturating_mul(HOPS_MAX),
        "no frame goes round for ever",
        || format!("{forwarded} of {frames} frames on wires were forwarded"),
    )
}

/// Returns whether `wanted` stands in `bytes`.
pub(crate) fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    let Some(first) = wanted.first() else { return true };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(wanted) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// Collectors in a network, at the most.
pub(crate) const COLLECTORS_MAX: usize = 2;
/// Hops of a route (PROTOCOL.md §3.2).
const HOPS_MAX: u64 = 8;
/// Stands in the payload of every reading, and in what streams carry.
pub(crate) const MARKER: &[u8] = b"~secret reading~";

pub(crate) use bounds::{check_journal, check_node, invariant_deadlines_lie_ahead};
pub(crate) use streams::{Place, StreamBounds, StreamsModel, Tag};
pub(crate) use trust::{Server, TrustModel};

#[cfg(test)]
mod tests;
