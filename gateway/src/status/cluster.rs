//! What the status says of a cluster of relays.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Relays that share their members with this one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterStatus {
    /// The server of the store it is connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<String>,
    /// Why it is connected to none, or why that takes no writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    /// Connections to the store since the start.
    pub(crate) sessions: u64,
    /// Whether everything that the store has is known.
    pub(crate) is_current: bool,
    /// The other relays.
    pub(crate) relays: Vec<ClusterRelayStatus>,
    /// Names held here that the others are to know of.
    pub(crate) names_here: u64,
    /// Names of which the store does not say yet what holds.
    pub(crate) unsettled: u64,
    /// Names that the others hold.
    pub(crate) names_elsewhere: u64,
    /// Entries written since the start.
    pub(crate) written: u64,
    /// Writes that failed.
    pub(crate) failed: u64,
    /// Names that were not taken for want of room.
    pub(crate) refused: u64,
    /// Entries that could not be read.
    pub(crate) malformed: u64,
    /// Entries of relays that the file does not name.
    pub(crate) foreign: u64,
    /// Leases of others that ended.
    pub(crate) expired: u64,
    /// Times that another process wrote this relay's lease.
    pub(crate) conflicts: u64,
    /// Times that everything was read again because changes did not come.
    pub(crate) reread: u64,
}

/// Another relay of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterRelayStatus {
    /// Its identifier.
    pub(crate) relay: String,
    /// Whether its lease counts.
    pub(crate) is_alive: bool,
    /// Links to it.
    pub(crate) links: u64,
    /// Names it holds.
    pub(crate) names: u64,
}

impl ClusterStatus {
    /// Returns what is wrong.
    pub(super) fn reasons(&self) -> impl Iterator<Item = String> + '_ {
        let store = self.store.is_none().then(|| {
            let problem = self.problem.as_deref().unwrap_or("not reached yet");
            format!("cluster: the store is not reached ({problem}); names of other relays count for the time of grace")
        });
        let unwritten = self.store.as_ref().and(self.problem.as_ref()).map(|problem| {
            format!(
                "cluster: the store takes no writes ({problem}); the other relays do not hear of changes here"
            )
        });
        let conflict = (self.conflicts > 0)
            .then(|| "cluster: another process runs with the identity of this relay".to_owned());
        let refused = (self.refused > 0).then(|| {
            format!(
                "cluster: {} times a name had no room; raise `names_max` of [relay.cluster]",
                self.refused
            )
        });
        let relays = self
            .relays
            .iter()
            .filter_map(|relay| match (relay.links, relay.is_alive) {
                (0, _) => Some(format!("cluster: no link to relay {}", relay.relay)),
                (_, false) if self.is_current => Some(format!(
                    "cluster: relay {} does not renew its lease in the store",
                    relay.relay
                )),
                _ => None,
            });
        store
            .into_iter()
            .chain(unwritten)
            .chain(conflict)
            .chain(refused)
            .chain(relays)
    }

    /// Writes it for a person.
    ///
    /// # Errors
    /// What `out` says.
    pub(crate) fn write_text(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "  cluster    {}",
            self.store.as_deref().unwrap_or("store not reached")
        )?;
        writeln!(
            out,
            "             {} names here, {} not settled, {} elsewhere",
            self.names_here, self.unsettled, self.names_elsewhere
        )?;
        for relay in &self.relays {
            let life = if relay.is_alive { "alive" } else { "no lease" };
            writeln!(
                out,
                "  relay      {}, {life}, {} links, {} names",
                relay.relay, relay.links, relay.names
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_sees_the_relays_and_what_is_wrong() {
        let relay = |relay: &str, is_alive, links| ClusterRelayStatus {
            relay: relay.to_owned(),
            is_alive,
            links,
            names: 2,
        };
        let mut status = ClusterStatus {
            store: Some("n1 10.0.0.1:4222 (NATS 2.9.10)".to_owned()),
            is_current: true,
            relays: vec![
                relay("fg1a", true, 1),
                relay("fg1b", false, 1),
                relay("fg1c", true, 0),
            ],
            names_here: 3,
            names_elsewhere: 4,
            ..ClusterStatus::default()
        };
        let mut text = String::new();
        status.write_text(&mut text).unwrap();
        assert_eq!(
            text,
            "  cluster    n1 10.0.0.1:4222 (NATS 2.9.10)\n             3 names here, 0 not settled, 4 elsewhere\n  \
             relay      fg1a, alive, 1 links, 2 names\n  relay      fg1b, no lease, 1 links, 2 names\n  \
             relay      fg1c, alive, 0 links, 2 names\n"
        );
        let reasons: Vec<String> = status.reasons().collect();
        assert_eq!(
            reasons,
            [
                "cluster: relay fg1b does not renew its lease in the store",
                "cluster: no link to relay fg1c"
            ]
        );
        status.problem = Some("no acknowledgement".to_owned());
        let reasons: Vec<String> = status.reasons().collect();
        assert_eq!(reasons.len(), 3, "{reasons:?}");
        assert!(reasons[0].contains("takes no writes (no acknowledgement)"));
        status.store = None;
        status.is_current = false;
        status.problem = Some("no server answers".to_owned());
        let reasons: Vec<String> = status.reasons().collect();
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        assert!(reasons[0].contains("no server answers"));
    }
}
