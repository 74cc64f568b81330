//! Relays of one cluster: what the store says, and links to the others.

use super::Node;
use crate::{
    entropy::Entropy,
    identity::Identifier,
    relay::{Cluster, ClusterSettings, Relay, StoreEvent, StoreWrite},
    route::LinkId,
    time::Now,
};

impl Node {
    /// Takes part in a cluster from now on, if this node is a relay. Call it before there are links.
    pub fn join_cluster(&mut self, now: Now, entropy: &mut dyn Entropy, settings: ClusterSettings) {
        let cluster = Cluster::new(now.instant, entropy, settings);
        self.router.join_cluster(now.instant, cluster);
    }

    /// Takes what the store of the cluster has to say.
    pub fn handle_store(&mut self, now: Now, event: &StoreEvent) {
        self.router.handle_store(now.instant, event);
    }

    /// Returns the next thing to do at the store of the cluster; ask until `None` at the end of each turn.
    pub fn poll_store_write(&mut self, now: Now) -> Option<StoreWrite> {
        self.router.poll_store_write(now.instant)
    }

    /// Returns this relay's part of a cluster.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        self.router.relay().and_then(Relay::cluster)
    }

    /// Returns the other relays of the cluster.
    #[must_use]
    pub fn cluster_relays(&self, now: Now) -> Vec<ClusterRelayView> {
        let (Some(relay), Some(cluster)) = (self.router.relay(), self.cluster()) else {
            return Vec::new();
        };
        let directory = cluster.directory();
        let others = directory.settings().relays.iter();
        others
            .map(|other| {
                let (is_alive, names) = directory.relay(now.instant, other);
                ClusterRelayView {
                    relay: *other,
                    is_alive,
                    names,
                    links: relay.attached().filter(|(_, member)| member == other).count(),
                }
            })
            .collect()
    }

    /// Forwards from and to a relay of the cluster that this node has dialled: its own channel to the registrar there vouches for the
    /// link. It ends with the connection.
    pub(super) fn attach_cluster_relay(&mut self, index: usize, link: Option<LinkId>) {
        let relay = self.neighbours.get(index).and_then(|neighbour| neighbour.relay);
        let other = relay.filter(|relay| {
            self.cluster()
                .is_some_and(|cluster| cluster.directory().has_relay(relay))
        });
        if let (Some(other), Some(link)) = (other, link) {
            // It fails only if the relay has opened many links at once; one of them does.
            let _ = self.router.attach(link, other);
        }
    }
}

/// What can be seen of another relay of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterRelayView {
    /// Which relay.
    pub relay: Identifier,
    /// Whether its lease in the store counts.
    pub is_alive: bool,
    /// How many names it holds, as far as is known.
    pub names: usize,
    /// Links over which this relay forwards to it.
    pub links: usize,
}
