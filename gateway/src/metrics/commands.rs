//! What Prometheus is told of commands to devices.

use metrics::Unit;

use super::{count, level};
use crate::status::NodeStatus;

/// Name, unit and meaning of the counters.
pub(super) const COUNTERS: [(&str, Unit, &str); 3] = [
    (
        "fieldgate_commands_total",
        Unit::Count,
        "Commands that a gateway has ended, by result; refused ones were never accepted",
    ),
    (
        "fieldgate_commands_accepted_total",
        Unit::Count,
        "Commands that a gateway has accepted",
    ),
    (
        "fieldgate_commands_handed_total",
        Unit::Count,
        "Times that a device was handed a command",
    ),
];

/// Name, unit and meaning of the gauges.
pub(super) const GAUGES: [(&str, Unit, &str); 3] = [
    (
        "fieldgate_commands_waiting",
        Unit::Count,
        "Commands that a gateway keeps for its devices",
    ),
    (
        "fieldgate_commands_unreported",
        Unit::Count,
        "Results that collectors have not acknowledged",
    ),
    (
        "fieldgate_commands_unfinished",
        Unit::Count,
        "Commands of a collector that have not come to their end",
    ),
];

pub(super) fn record(status: &NodeStatus) {
    let Some(commands) = &status.commands else {
        return;
    };
    if let Some(gateway) = &commands.gateway {
        for (result, value) in [
            ("succeeded", gateway.succeeded),
            ("failed", gateway.failed),
            ("refused", gateway.refused),
        ] {
            count("fieldgate_commands_total", &[("result", result)], value);
        }
        count("fieldgate_commands_accepted_total", &[], gateway.accepted);
        count("fieldgate_commands_handed_total", &[], gateway.handed);
        level("fieldgate_commands_waiting", &[], gateway.waiting);
        level("fieldgate_commands_unreported", &[], gateway.unreported);
    }
    if let Some(unfinished) = commands.unfinished {
        level("fieldgate_commands_unfinished", &[], unfinished);
    }
}
