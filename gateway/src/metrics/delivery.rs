//! What Prometheus is told of journal, uplinks and sources, lane by lane.

use metrics::Unit;

use super::{count, level};
use crate::status::{JournalStatus, NodeStatus, SourceStatus, UplinkStatus};

/// Name, unit and meaning of the counters.
pub(super) const COUNTERS: [(&str, Unit, &str); 11] = [
    (
        "fieldgate_journal_commits_total",
        Unit::Count,
        "Block writes of the journal",
    ),
    (
        "fieldgate_journal_lost_readings_total",
        Unit::Count,
        "Readings lost to corruption",
    ),
    (
        "fieldgate_journal_discarded_readings_total",
        Unit::Count,
        "Readings discarded by policy since the lane was begun, by reason",
    ),
    (
        "fieldgate_journal_committed_sequence",
        Unit::Count,
        "Highest sequence on stable storage",
    ),
    (
        "fieldgate_uplink_confirmed_sequence",
        Unit::Count,
        "Highest sequence confirmed by the collector",
    ),
    (
        "fieldgate_uplink_sent_readings_total",
        Unit::Count,
        "Readings sent, repetitions included",
    ),
    (
        "fieldgate_uplink_lost_readings_total",
        Unit::Count,
        "Readings that the collector was told are lost",
    ),
    (
        "fieldgate_source_received_sequence",
        Unit::Count,
        "Highest sequence received in order from a gateway",
    ),
    (
        "fieldgate_source_confirmed_sequence",
        Unit::Count,
        "Highest sequence that every sink confirmed",
    ),
    (
        "fieldgate_source_duplicate_readings_total",
        Unit::Count,
        "Copies dropped",
    ),
    (
        "fieldgate_source_lost_readings_total",
        Unit::Count,
        "Readings that the gateway could not deliver any more, by reason",
    ),
];

/// Name, unit and meaning of the levels.
pub(super) const GAUGES: [(&str, Unit, &str); 11] = [
    (
        "fieldgate_journal_bytes",
        Unit::Bytes,
        "Bytes of a lane's segments",
    ),
    (
        "fieldgate_journal_bytes_max",
        Unit::Bytes,
        "Bound on the bytes of a lane's segments",
    ),
    (
        "fieldgate_journal_readings",
        Unit::Count,
        "Readings that some collector still needs",
    ),
    (
        "fieldgate_journal_accepting",
        Unit::Count,
        "1 if the lane takes readings, else 0",
    ),
    (
        "fieldgate_journal_oldest_captured_seconds",
        Unit::Seconds,
        "When the oldest reading that is still needed was captured, since 1970",
    ),
    (
        "fieldgate_journal_full_in_seconds",
        Unit::Seconds,
        "Time until the lane is full, as things went when that was foreseen last",
    ),
    (
        "fieldgate_journal_written_bytes_per_day",
        Unit::Bytes,
        "Bytes given to the disk per day, as things go",
    ),
    (
        "fieldgate_journal_write_amplification_milli",
        Unit::Count,
        "Bytes given to the disk per 1,000 bytes of readings, since the lane was begun",
    ),
    (
        "fieldgate_uplink_up",
        Unit::Count,
        "1 if the uplink delivers, else 0",
    ),
    (
        "fieldgate_uplink_waiting_readings",
        Unit::Count,
        "Readings committed and not sent",
    ),
    (
        "fieldgate_source_stopped",
        Unit::Count,
        "1 if nothing comes since a position does not fit, else 0",
    ),
];

pub(super) fn record(status: &NodeStatus) {
    if let Some(journal) = &status.journal {
        record_journal(journal);
    }
    status.uplinks.iter().for_each(record_uplink);
    status.sources.iter().for_each(record_source);
}

fn record_journal(journal: &JournalStatus) {
    for lane in &journal.lanes {
        let class = lane.class.as_str();
        let labels = [("class", class)];
        level("fieldgate_journal_bytes", &labels, lane.bytes);
        level("fieldgate_journal_bytes_max", &labels, lane.bytes_max);
        level("fieldgate_journal_readings", &labels, lane.readings);
        let accepting = u64::from(lane.state == "ready");
        level("fieldgate_journal_accepting", &labels, accepting);
        for (name, value) in [
            (
                "fieldgate_journal_oldest_captured_seconds",
                lane.oldest_captured.map(|millis| millis / 1000),
            ),
            ("fieldgate_journal_full_in_seconds", lane.full_in_secs),
            ("fieldgate_journal_written_bytes_per_day", lane.written_per_day),
            (
                "fieldgate_journal_write_amplification_milli",
                lane.write_amplification_milli,
            ),
        ] {
            if let Some(value) = value {
                level(name, &labels, value);
            }
        }
        count("fieldgate_journal_commits_total", &labels, lane.commits);
        count("fieldgate_journal_lost_readings_total", &labels, lane.lost);
        count("fieldgate_journal_committed_sequence", &labels, lane.committed);
        for (reason, readings) in [("discarded", lane.discarded), ("expired", lane.expired)] {
            let labels = [("class", class), ("reason", reason)];
            count("fieldgate_journal_discarded_readings_total", &labels, readings);
        }
    }
}

fn record_uplink(uplink: &UplinkStatus) {
    let name = ("uplink", uplink.name.as_str());
    level(
        "fieldgate_uplink_up",
        &[name],
        u64::from(uplink.state == "delivering"),
    );
    for lane in &uplink.lanes {
        let labels = [name, ("class", lane.class.as_str())];
        level("fieldgate_uplink_waiting_readings", &labels, lane.waiting);
        count("fieldgate_uplink_confirmed_sequence", &labels, lane.confirmed);
        count("fieldgate_uplink_sent_readings_total", &labels, lane.sent);
        count("fieldgate_uplink_lost_readings_total", &labels, lane.lost);
    }
}

fn record_source(source: &SourceStatus) {
    let labels = [
        ("gateway", source.gateway.as_str()),
        ("class", source.class.as_str()),
        ("journal", source.journal.as_str()),
    ];
    count("fieldgate_source_received_sequence", &labels, source.received);
    count("fieldgate_source_confirmed_sequence", &labels, source.confirmed);
    count(
        "fieldgate_source_duplicate_readings_total",
        &labels,
        source.duplicates,
    );
    level("fieldgate_source_stopped", &labels, u64::from(source.stopped));
    let [gateway, class, journal] = labels;
    for (reason, lost) in &source.lost_by {
        let labels = [gateway, class, journal, ("reason", reason.as_str())];
        count("fieldgate_source_lost_readings_total", &labels, *lost);
    }
}
