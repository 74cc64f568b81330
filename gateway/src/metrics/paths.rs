//! What Prometheus is told of ways of which there are several.

use metrics::Unit;

use super::{count, level};
use crate::status::{NodeStatus, PathsStatus};

/// Name, unit and meaning of the counters.
pub(super) const COUNTERS: [(&str, Unit, &str); 5] = [
    (
        "fieldgate_path_changes_total",
        Unit::Count,
        "Times that another way was taken while the other end could be reached, by kind (uplink, portals) and name",
    ),
    (
        "fieldgate_direct_attempts_total",
        Unit::Count,
        "Times that a peer was asked for addresses at which it can be reached without a relay",
    ),
    (
        "fieldgate_direct_failures_total",
        Unit::Count,
        "Direct paths that did not come about or broke, by reason",
    ),
    (
        "fieldgate_direct_answered_total",
        Unit::Count,
        "Times that a peer was told addresses of this node",
    ),
    (
        "fieldgate_direct_unanswered_total",
        Unit::Count,
        "Times that a peer was not told addresses of this node since too many asked",
    ),
];

/// Name, unit and meaning of the gauges.
pub(super) const GAUGES: [(&str, Unit, &str); 5] = [
    (
        "fieldgate_path_active",
        Unit::Count,
        "1 if the way is in use, else 0, by kind, name and path",
    ),
    (
        "fieldgate_path_up",
        Unit::Count,
        "1 if the way is in use or answers in reserve, else 0",
    ),
    (
        "fieldgate_path_round_trip_microseconds",
        Unit::Microseconds,
        "Smoothed round trip over the way",
    ),
    (
        "fieldgate_path_loss_permille",
        Unit::Count,
        "Lost probes in a thousand, smoothed",
    ),
    (
        "fieldgate_direct_path_up",
        Unit::Count,
        "1 if there is a path without a relay, else 0, by kind and name",
    ),
];

pub(super) fn record(status: &NodeStatus) {
    status.network.paths.iter().for_each(record_paths);
    if let Some(direct) = &status.network.direct {
        count("fieldgate_direct_attempts_total", &[], direct.attempts);
        count("fieldgate_direct_answered_total", &[], direct.answered);
        count("fieldgate_direct_unanswered_total", &[], direct.unanswered);
        for (reason, failed) in &direct.failed {
            count("fieldgate_direct_failures_total", &[("reason", reason)], *failed);
        }
    }
}

fn record_paths(paths: &PathsStatus) {
    let owner = [("kind", paths.kind.as_str()), ("name", paths.name.as_str())];
    count("fieldgate_path_changes_total", &owner, paths.switches);
    if let Some(direct) = &paths.direct {
        level(
            "fieldgate_direct_path_up",
            &owner,
            u64::from(direct.state == "up"),
        );
    }
    for path in &paths.paths {
        let way: Vec<&str> = std::iter::once(&path.by)
            .chain(&path.through)
            .map(String::as_str)
            .collect();
        let way = way.join("/");
        let labels = [owner[0], owner[1], ("path", way.as_str())];
        level(
            "fieldgate_path_active",
            &labels,
            u64::from(path.state == "active"),
        );
        level("fieldgate_path_up", &labels, u64::from(path.state != "down"));
        if let Some(rtt) = path.rtt_us {
            level("fieldgate_path_round_trip_microseconds", &labels, rtt);
        }
        level(
            "fieldgate_path_loss_permille",
            &labels,
            u64::from(path.loss_permille),
        );
    }
}
