//! What Prometheus is told of portals.

use metrics::Unit;

use super::{count, level};
use crate::status::{NodeStatus, PortalSession, PortalStatus};

/// Name, unit and meaning of the counters.
pub(super) const COUNTERS: [(&str, Unit, &str); 11] = [
    (
        "fieldgate_portal_audit_written_total",
        Unit::Count,
        "Lines written to the audit file of portals",
    ),
    (
        "fieldgate_portal_audit_lost_total",
        Unit::Count,
        "Lines that could not be written to the audit file of portals",
    ),
    (
        "fieldgate_portal_streams_total",
        Unit::Count,
        "Streams that were opened, by kind (inlet, outlet) and name",
    ),
    (
        "fieldgate_portal_refused_total",
        Unit::Count,
        "Streams that were refused, by kind and name; without a name those to outlets that do not exist",
    ),
    (
        "fieldgate_portal_datagrams_total",
        Unit::Count,
        "Datagrams given on in either direction, by kind (inlet, outlet) and name",
    ),
    (
        "fieldgate_portal_datagrams_dropped_total",
        Unit::Count,
        "Datagrams dropped in either direction, by kind and name",
    ),
    (
        "fieldgate_portal_line_failures_total",
        Unit::Count,
        "Streams that did not get the serial line of an outlet, or lost it, by name",
    ),
    (
        "fieldgate_portal_sent_bytes_total",
        Unit::Bytes,
        "Bytes of streams given to another node",
    ),
    (
        "fieldgate_portal_received_bytes_total",
        Unit::Bytes,
        "Bytes of streams that came from another node",
    ),
    (
        "fieldgate_portal_resumed_total",
        Unit::Count,
        "Times that streams went on in another channel",
    ),
    (
        "fieldgate_portal_lost_total",
        Unit::Count,
        "Times that the streams of a session were lost",
    ),
];

/// Name, unit and meaning of the gauges.
pub(super) const GAUGES: [(&str, Unit, &str); 4] = [
    (
        "fieldgate_portal_streams",
        Unit::Count,
        "Streams, by kind (inlet, outlet) and name; 0 for one that was removed",
    ),
    (
        "fieldgate_portal_up",
        Unit::Count,
        "1 if streams can be carried to or from another node, else 0",
    ),
    (
        "fieldgate_portal_round_trip_microseconds",
        Unit::Microseconds,
        "Smoothed round trip to another node",
    ),
    (
        "fieldgate_portal_kept_bytes",
        Unit::Bytes,
        "Bytes that are kept until another node has taken them",
    ),
];

pub(super) fn record(status: &NodeStatus) {
    let Some(portals) = &status.portals else {
        return;
    };
    for (kind, ends) in [("inlet", &portals.inlets), ("outlet", &portals.outlets)] {
        // Another may have the name of one that was removed: it comes last, and counts.
        let (gone, here): (Vec<_>, Vec<_>) = ends.iter().partition(|end| end.is_removed());
        for end in gone.into_iter().chain(here) {
            record_end(kind, end);
        }
    }
    if !portals.outlets.is_empty() {
        let labels = [("kind", "outlet"), ("name", "")];
        count("fieldgate_portal_refused_total", &labels, portals.unknown_outlets);
    }
    if let Some(audit) = &portals.audit {
        count("fieldgate_portal_audit_written_total", &[], audit.written);
        count("fieldgate_portal_audit_lost_total", &[], audit.lost);
    }
    portals.sessions.iter().for_each(record_session);
}

fn record_end(kind: &'static str, end: &PortalStatus) {
    let labels = [("kind", kind), ("name", end.name.as_str())];
    // Nobody says when the last stream of one that was removed has ended.
    let streams = if end.is_removed() { 0 } else { end.streams };
    level("fieldgate_portal_streams", &labels, streams);
    count("fieldgate_portal_streams_total", &labels, end.streams_total);
    count("fieldgate_portal_refused_total", &labels, end.refused);
    if let Some(datagrams) = &end.datagrams {
        count("fieldgate_portal_datagrams_total", &labels, datagrams.passed);
        count(
            "fieldgate_portal_datagrams_dropped_total",
            &labels,
            datagrams.dropped,
        );
    }
    if let Some(line) = &end.line {
        count("fieldgate_portal_line_failures_total", &labels, line.failures);
    }
}

fn record_session(session: &PortalSession) {
    let labels = [("role", session.role.as_str()), ("peer", session.peer.as_str())];
    level("fieldgate_portal_up", &labels, u64::from(session.state == "up"));
    if let Some(rtt) = session.rtt_us {
        level("fieldgate_portal_round_trip_microseconds", &labels, rtt);
    }
    level("fieldgate_portal_kept_bytes", &labels, session.bytes_kept);
    count("fieldgate_portal_sent_bytes_total", &labels, session.bytes_sent);
    count(
        "fieldgate_portal_received_bytes_total",
        &labels,
        session.bytes_received,
    );
    count("fieldgate_portal_resumed_total", &labels, session.resumed);
    count("fieldgate_portal_lost_total", &labels, session.lost);
}
