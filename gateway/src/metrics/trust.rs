//! What Prometheus is told of trust: who the node belongs to, the list of the revoked, and the authority it is.

use metrics::Unit;

use super::{count, level};
use crate::{
    authority::AuthorityStatus,
    status::{NodeStatus, TrustStatus},
};

/// Name, unit and meaning of the counters of trust.
pub(super) const COUNTERS: [(&str, Unit, &str); 11] = [
    (
        "fieldgate_trust_revoked_channels_total",
        Unit::Count,
        "Channels closed because the peer is revoked",
    ),
    (
        "fieldgate_trust_credentials_refused_total",
        Unit::Count,
        "Credentials of peers that did not verify or do not count",
    ),
    (
        "fieldgate_trust_lists_refused_total",
        Unit::Count,
        "Lists of the revoked that did not verify or are older than the one held",
    ),
    (
        "fieldgate_authority_requests_total",
        Unit::Count,
        "Requests to the authority by kind and outcome",
    ),
    (
        "fieldgate_authority_busy_total",
        Unit::Count,
        "Requests to the authority refused because too many waited",
    ),
    (
        "fieldgate_authority_commits_total",
        Unit::Count,
        "Transactions of the authority's store",
    ),
    (
        "fieldgate_authority_log_entries_total",
        Unit::Count,
        "Entries of the authority's log, those dropped included",
    ),
    (
        "fieldgate_authority_log_suppressed_total",
        Unit::Count,
        "Refusals of strangers that were counted and not logged one by one",
    ),
    (
        "fieldgate_authority_cluster_taken_total",
        Unit::Count,
        "Transactions of the other processes of this authority that were taken from their log",
    ),
    (
        "fieldgate_authority_cluster_written_total",
        Unit::Count,
        "Transactions of this process of the authority in the log",
    ),
    (
        "fieldgate_authority_cluster_late_total",
        Unit::Count,
        "Transactions that were decided again because another process of the authority came first",
    ),
];

/// Name, unit and meaning of the levels of trust.
pub(super) const GAUGES: [(&str, Unit, &str); 16] = [
    (
        "fieldgate_authority_cluster_up",
        Unit::Count,
        "1 if this process of the authority follows the log and may decide",
    ),
    (
        "fieldgate_authority_cluster_entry",
        Unit::Count,
        "Last entry of the log that this process of the authority has taken",
    ),
    (
        "fieldgate_trust_enrolled",
        Unit::Count,
        "1 if the node has a credential of its authority",
    ),
    (
        "fieldgate_trust_self_revoked",
        Unit::Count,
        "1 if the node itself is in the list of the revoked",
    ),
    (
        "fieldgate_trust_authority_reached",
        Unit::Count,
        "1 while the channel to the authority is up",
    ),
    (
        "fieldgate_trust_credential_seconds",
        Unit::Seconds,
        "Time until the node's credential ends",
    ),
    (
        "fieldgate_trust_list_number",
        Unit::Count,
        "Number of the list of the revoked that is held",
    ),
    (
        "fieldgate_trust_list_fresh",
        Unit::Count,
        "1 while the list of the revoked is fresh, by state",
    ),
    (
        "fieldgate_trust_peers_in_grace",
        Unit::Count,
        "Peers served although their credential has ended",
    ),
    (
        "fieldgate_clock_quality",
        Unit::Count,
        "1, with the quality of the time in use",
    ),
    (
        "fieldgate_authority_ready",
        Unit::Count,
        "1 if the authority can issue credentials",
    ),
    (
        "fieldgate_authority_problems",
        Unit::Count,
        "What is wrong with the authority, in lines of its status",
    ),
    (
        "fieldgate_authority_members",
        Unit::Count,
        "Members that are not revoked",
    ),
    (
        "fieldgate_authority_revoked",
        Unit::Count,
        "Identities revoked for good",
    ),
    (
        "fieldgate_authority_tickets_open",
        Unit::Count,
        "Tickets somebody can still enrol with",
    ),
    (
        "fieldgate_authority_list_number",
        Unit::Count,
        "Number of the newest list of the revoked",
    ),
];

pub(super) fn record(status: &NodeStatus) {
    if !status.clock.quality.is_empty() {
        // A label that is another now would go on saying 1.
        for quality in ["synchronised", "authority", "floor", "unknown"] {
            let is_it = u64::from(status.clock.quality == quality);
            level("fieldgate_clock_quality", &[("quality", quality)], is_it);
        }
    }
    if let Some(trust) = &status.trust {
        record_trust(trust);
    }
    if let Some(authority) = &status.authority {
        record_authority(authority);
    }
}

fn record_trust(trust: &TrustStatus) {
    level("fieldgate_trust_enrolled", &[], u64::from(trust.member.is_some()));
    level("fieldgate_trust_self_revoked", &[], u64::from(trust.self_revoked));
    level(
        "fieldgate_trust_authority_reached",
        &[],
        u64::from(trust.connected),
    );
    level("fieldgate_trust_credential_seconds", &[], trust.credential_secs);
    level("fieldgate_trust_list_number", &[], trust.list_number);
    for state in ["fresh", "stale", "lapsed", "none"] {
        level(
            "fieldgate_trust_list_fresh",
            &[("state", state)],
            u64::from(trust.list == state),
        );
    }
    level("fieldgate_trust_peers_in_grace", &[], trust.peers_in_grace as u64);
    count("fieldgate_trust_revoked_channels_total", &[], trust.revoked);
    count(
        "fieldgate_trust_credentials_refused_total",
        &[],
        trust.credentials_refused,
    );
    count("fieldgate_trust_lists_refused_total", &[], trust.lists_refused);
}

fn record_authority(authority: &AuthorityStatus) {
    level("fieldgate_authority_ready", &[], u64::from(authority.ready));
    level(
        "fieldgate_authority_problems",
        &[],
        authority.problems.len() as u64,
    );
    level("fieldgate_authority_members", &[], authority.members);
    level("fieldgate_authority_revoked", &[], authority.revoked);
    level("fieldgate_authority_tickets_open", &[], authority.tickets_open);
    level("fieldgate_authority_list_number", &[], authority.list_number);
    for (request, requests) in &authority.requests {
        let (kind, outcome) = request.split_once('/').unwrap_or((request, ""));
        let labels = [("kind", kind), ("outcome", outcome)];
        count("fieldgate_authority_requests_total", &labels, *requests);
    }
    count("fieldgate_authority_busy_total", &[], authority.busy);
    count("fieldgate_authority_commits_total", &[], authority.commits);
    count(
        "fieldgate_authority_log_entries_total",
        &[],
        authority.log_entries,
    );
    count(
        "fieldgate_authority_log_suppressed_total",
        &[],
        authority.log_suppressed,
    );
    if let Some(cluster) = &authority.cluster {
        level(
            "fieldgate_authority_cluster_up",
            &[],
            u64::from(cluster.halted.is_none()),
        );
        level("fieldgate_authority_cluster_entry", &[], cluster.entry);
        count("fieldgate_authority_cluster_taken_total", &[], cluster.taken);
        count("fieldgate_authority_cluster_written_total", &[], cluster.written);
        count("fieldgate_authority_cluster_late_total", &[], cluster.late);
    }
}
