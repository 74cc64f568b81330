//! What Prometheus is told of a cluster of relays.

use metrics::Unit;

use super::{count, level};
use crate::status::NodeStatus;

/// Name, unit and meaning of the counters.
pub(super) const COUNTERS: [(&str, Unit, &str); 9] = [
    (
        "fieldgate_cluster_sessions_total",
        Unit::Count,
        "Connections to the store of the cluster",
    ),
    (
        "fieldgate_cluster_written_total",
        Unit::Count,
        "Entries of the cluster's store written",
    ),
    (
        "fieldgate_cluster_failed_total",
        Unit::Count,
        "Writes to the cluster's store that failed",
    ),
    (
        "fieldgate_cluster_refused_total",
        Unit::Count,
        "Names for which the cluster had no room",
    ),
    (
        "fieldgate_cluster_malformed_total",
        Unit::Count,
        "Entries of the cluster's store that could not be read",
    ),
    (
        "fieldgate_cluster_foreign_total",
        Unit::Count,
        "Entries of relays that the file does not name",
    ),
    (
        "fieldgate_cluster_expired_total",
        Unit::Count,
        "Leases of other relays that ended",
    ),
    (
        "fieldgate_cluster_conflicts_total",
        Unit::Count,
        "Times that another process wrote this relay's lease",
    ),
    (
        "fieldgate_cluster_reread_total",
        Unit::Count,
        "Times that the store was read again because changes did not come",
    ),
];

/// Name, unit and meaning of the gauges.
pub(super) const GAUGES: [(&str, Unit, &str); 6] = [
    (
        "fieldgate_cluster_store_up",
        Unit::Count,
        "1 if the store of the cluster is reached, else 0",
    ),
    (
        "fieldgate_cluster_names",
        Unit::Count,
        "Names held, by place (here, elsewhere)",
    ),
    (
        "fieldgate_cluster_unsettled",
        Unit::Count,
        "Names of which the store does not say yet what holds",
    ),
    (
        "fieldgate_cluster_relay_alive",
        Unit::Count,
        "1 if another relay's lease counts, else 0",
    ),
    (
        "fieldgate_cluster_relay_links",
        Unit::Count,
        "Links to another relay",
    ),
    (
        "fieldgate_cluster_relay_names",
        Unit::Count,
        "Names that another relay holds",
    ),
];

pub(super) fn record(status: &NodeStatus) {
    let Some(cluster) = &status.cluster else {
        return;
    };
    count("fieldgate_cluster_sessions_total", &[], cluster.sessions);
    count("fieldgate_cluster_written_total", &[], cluster.written);
    count("fieldgate_cluster_failed_total", &[], cluster.failed);
    count("fieldgate_cluster_refused_total", &[], cluster.refused);
    count("fieldgate_cluster_malformed_total", &[], cluster.malformed);
    count("fieldgate_cluster_foreign_total", &[], cluster.foreign);
    count("fieldgate_cluster_expired_total", &[], cluster.expired);
    count("fieldgate_cluster_conflicts_total", &[], cluster.conflicts);
    count("fieldgate_cluster_reread_total", &[], cluster.reread);
    let is_reached = cluster.store.is_some();
    level("fieldgate_cluster_store_up", &[], u64::from(is_reached));
    level(
        "fieldgate_cluster_names",
        &[("place", "here")],
        cluster.names_here,
    );
    level(
        "fieldgate_cluster_names",
        &[("place", "elsewhere")],
        cluster.names_elsewhere,
    );
    level("fieldgate_cluster_unsettled", &[], cluster.unsettled);
    for relay in &cluster.relays {
        let labels = [("relay", relay.relay.as_str())];
        level(
            "fieldgate_cluster_relay_alive",
            &labels,
            u64::from(relay.is_alive),
        );
        level("fieldgate_cluster_relay_links", &labels, relay.links);
        level("fieldgate_cluster_relay_names", &labels, relay.names);
    }
}
