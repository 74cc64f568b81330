//! What Prometheus is told of ways of which there are several.

use metrics::Unit;

use super::{count, level};
use crate::status::{NodeStatus, PathsStatus};

/// Name, unit and meaning of the counters.
pub(super) const COUNTERS: [(&str, Unit, &str); 1] = [(
    "fieldgate_path_changes_total",
    Unit::Count,
    "Times that another way was taken while the other end could be reached, by kind (uplink, portals) and name",
)];

/// Name, unit and meaning of the gauges.
pub(super) const GAUGES: [(&str, Unit, &str); 4] = [
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
];

pub(super) fn record(status: &NodeStatus) {
    status.network.paths.iter().for_each(record_paths);
}

fn record_paths(paths: &PathsStatus) {
    let owner = [("kind", paths.kind.as_str()), ("name", paths.name.as_str())];
    count("fieldgate_path_changes_total", &owner, paths.switches);
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
