//! What must hold, and the little that one has to remember to know whether it does.
//!
//! The model is told what devices gave to gateways, what was promised, handed to the sink, stored and released. Each
//! `invariant_…` compares a piece of that with what a machine just did, and says in its name what must hold.

mod bounds;
mod trust;

use std::collections::{BTreeMap, BTreeSet};

use fieldgate_proto::{
    delivery::{Batch, JournalId},
    identity::Identifier,
    journal::RecoveryReport,
    node::SourceInfo,
    wire::Reader,
};

use crate::sink::SourceKey;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, {millis} ms, step {step}: {sentence}: {detail}")]
pub struct Violation {
    /// The seed of the run.
    pub seed: u64,
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
    pub const fn hint(&self) -> &'static str {
        "run `cargo xtask sim SEED` for the whole story, and keep the seed in seeds.txt"
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

/// One gateway's journal.
#[derive(Debug, Default)]
pub(crate) struct JournalModel {
    /// What devices gave, by sequence, as far as the journal still goes.
    appended: BTreeMap<u64, Vec<u8>>,
    /// Highest sequence on stable storage, as the journal said.
    committed: u64,
    /// Highest sequence released.
    released: u64,
    /// Sequences nobody was promised, and those on damaged sectors.
    excused: BTreeSet<u64>,
    /// Sequences in the sink's store.
    stored: BTreeSet<u64>,
    /// Highest sequence in the sink's store.
    position: u64,
    /// Highest sequence handed to the sink in its present life.
    handed: u64,
    /// What was handed to it in this life and is not stored.
    pending: BTreeSet<u64>,
}

/// The model of a whole network.
#[derive(Debug, Default)]
pub(crate) struct Model {
    journals: BTreeMap<SourceKey, JournalModel>,
    broken: Option<Broken>,
    /// Bytes searched for plaintext.
    pub(crate) tapped: u64,
    pub(crate) trust: TrustModel,
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

    /// The journal promised everything up to `up_to`.
    pub(crate) fn committed(&mut self, key: SourceKey, up_to: u64) {
        let journal = self.journal(key);
        let check = invariant_promises_grow_and_cover_what_was_appended(journal, up_to);
        journal.committed = journal.committed.max(up_to);
        self.note(check);
    }

    /// Bits on the disk changed that may cost these sequences.
    pub(crate) fn damaged(&mut self, key: SourceKey, sequences: BTreeSet<u64>) {
        self.journal(key).excused.extend(sequences);
    }

    /// The gateway found its journal again after a stop.
    pub(crate) fn recovered(&mut self, key: SourceKey, report: &RecoveryReport) {
        let journal = self.journal(key);
        let check = invariant_no_promised_reading_is_lost_by_a_stop(journal, report);
        let last = report.next - 1;
        // What was being written is there or not; nobody was promised it. If it is there, it counts from now on.
        journal.excused.extend(journal.committed + 1..=last);
        journal.committed = journal.committed.max(last);
        journal.appended.retain(|sequence, _| *sequence <= last);
        self.note(check);
    }

    /// The collector began a new life: its sink goes on where its store is.
    pub(crate) fn collector_started(&mut self) {
        for journal in self.journals.values_mut() {
            journal.handed = journal.position;
            journal.pending.clear();
        }
    }

    /// A batch was handed to the sink.
    pub(crate) fn handed(&mut self, key: SourceKey, batch: &Batch<'_>) {
        if let Some(server) = self.server {
            self.note(self.trust.served(server, &key.0));
        }
        let Some(journal) = self.journals.get_mut(&key) else {
            self.note(invariant_the_sink_gets_readings_of_known_gateways_only(&key));
            return;
        };
        let check = invariant_the_sink_gets_each_reading_once_and_in_order(journal, batch)
            .and_then(|()| invariant_the_sink_gets_what_the_gateway_has_on_stable_storage(journal, batch));
        journal.handed = batch.first + batch.count - 1;
        journal.pending.extend(batch.first..=journal.handed);
        self.note(check);
    }

    /// A reading came to somebody who only claims to be the collector.
    pub(crate) fn reached_impostor(&mut self, source: &SourceInfo, batch: &Batch<'_>) {
        self.note(ensure(false, "an impostor gets nothing", || {
            format!("{} readings of {}", batch.count, source.gateway)
        }));
    }

    /// The sink's store has everything up to `up_to` that was handed over.
    pub(crate) fn stored(&mut self, key: SourceKey, up_to: u64) {
        let journal = self.journal(key);
        let later = journal.pending.split_off(&(up_to + 1));
        let stored = std::mem::replace(&mut journal.pending, later);
        journal.stored.extend(stored);
        journal.position = journal.position.max(up_to);
    }

    /// The node told the journal that it may forget everything up to `up_to`.
    pub(crate) fn released(&mut self, key: SourceKey, up_to: u64) {
        let journal = self.journal(key);
        let check = invariant_only_what_the_sink_has_stored_is_released(journal, up_to);
        journal.released = journal.released.max(up_to);
        self.note(check);
    }

    /// The collector missed sequences: allowed only for what a disk lost.
    pub(crate) fn missing(&mut self, key: SourceKey, first: u64, last: u64) {
        let journal = self.journal(key);
        let excused = (first..=last).all(|sequence| journal.excused.contains(&sequence));
        self.note(ensure(
            excused,
            "no gateway lacks what the collector has not confirmed",
            || format!("sequences {first} to {last}"),
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

    /// Checks at the end of a run that everything promised is in the sink's store.
    pub(crate) fn finish(&mut self) {
        let check = self
            .journals
            .iter()
            .try_for_each(|(key, journal)| invariant_every_promised_reading_arrives(key, journal));
        self.note(check);
    }

    /// Returns how many readings were promised, how many are stored, and how many that were excused are not.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        let mut totals = (0, 0, 0);
        for journal in self.journals.values() {
            totals.0 += journal.committed;
            totals.1 += journal.stored.len() as u64;
            totals.2 += (1..=journal.committed)
                .filter(|sequence| !journal.stored.contains(sequence))
                .count() as u64;
        }
        totals
    }

    /// Returns whether everything of a journal is promised, and either stored or excused, up to `next` − 1.
    pub(crate) fn is_settled(&self, key: SourceKey) -> bool {
        self.journals.get(&key).is_none_or(|journal| {
            let newest = journal.appended.keys().next_back().copied().unwrap_or(0);
            journal.committed >= newest && journal.released >= journal.committed
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
    report: &RecoveryReport,
) -> Check {
    ensure(
        report.next > journal.committed,
        "no promised reading is lost by a stop",
        || format!("{} were promised, {} comes next", journal.committed, report.next),
    )?;
    ensure(
        report.first <= journal.released + 1,
        "no stop releases a reading",
        || format!("{} were released, {} comes first", journal.released, report.first),
    )
}

/// Whoever has no journal here has no readings here.
pub(crate) fn invariant_the_sink_gets_readings_of_known_gateways_only(
    key: &(Identifier, JournalId),
) -> Check {
    ensure(false, "the sink gets readings of known gateways only", || {
        format!("{} with journal {:?}", key.0, key.1)
    })
}

/// Nothing comes twice, late or early: a replay, a reordering or a gap would show here. Gaps are allowed for what a disk lost.
pub(crate) fn invariant_the_sink_gets_each_reading_once_and_in_order(
    journal: &JournalModel,
    batch: &Batch<'_>,
) -> Check {
    let expected = journal.handed + 1;
    let excused = (expected..batch.first).all(|sequence| journal.excused.contains(&sequence));
    ensure(
        batch.first >= expected && excused,
        "the sink gets each reading once and in order",
        || format!("{} came, {expected} was expected", batch.first),
    )
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

/// The journal forgets only what is in the sink's store, or what nobody can have any more.
pub(crate) fn invariant_only_what_the_sink_has_stored_is_released(
    journal: &JournalModel,
    up_to: u64,
) -> Check {
    let unsafe_one = (journal.released + 1..=up_to)
        .find(|sequence| !journal.stored.contains(sequence) && !journal.excused.contains(sequence));
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

/// At the end everything that was promised to a device is in the sink's store.
pub(crate) fn invariant_every_promised_reading_arrives(key: &SourceKey, journal: &JournalModel) -> Check {
    let lost = (1..=journal.committed)
        .find(|sequence| !journal.stored.contains(sequence) && !journal.excused.contains(sequence));
    ensure(lost.is_none(), "every promised reading arrives", || {
        format!("reading {} of {} is not there", lost.unwrap_or_default(), key.0)
    })
}

/// Nothing that a device published stands on a wire in clear.
pub(crate) fn invariant_wires_carry_no_plaintext(who: &str, bytes: &[u8]) -> Check {
    ensure(!contains(bytes, MARKER), "wires carry no plaintext", || {
        format!("{who} sent a reading in clear")
    })
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

/// Stands in the payload of every reading.
pub(crate) const MARKER: &[u8] = b"~secret reading~";

pub(crate) use bounds::{check_journal, check_node, invariant_deadlines_lie_ahead};
pub(crate) use trust::{Server, TrustModel};

#[cfg(test)]
mod tests;
