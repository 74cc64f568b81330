//! A relay's part of a cluster: the node's, and the task that talks to the store.

use std::sync::Arc;

use fieldgate_config::settings::{Settings, cluster::RelayCluster};
use fieldgate_io::mailbox::MailSender;
use fieldgate_proto::{
    identity::Identifier,
    node::Node,
    relay::{ClusterSettings, StoreWrite},
    time::Now,
};
use tokio::sync::mpsc;

use super::{ShardMessage, entropy::SystemEntropy, trunk::StoreDesk};
use crate::cluster::{self, SharedHealth, nats::NatsStore};

/// What is to run beside the shards, if there is a cluster.
pub(super) struct Clustering(Option<Task>);

struct Task {
    store: NatsStore,
    writes: mpsc::Receiver<StoreWrite>,
    health: SharedHealth,
}

impl Clustering {
    /// Has the node take part in the cluster of the file, if there is one.
    pub(super) fn begin(
        settings: &Settings,
        own: Identifier,
        now: Now,
        node: &mut Node,
    ) -> (Option<StoreDesk>, Self) {
        let relay = settings.relay.as_ref();
        let Some(cluster) = relay.and_then(|relay| relay.cluster.as_ref()) else {
            return (None, Self(None));
        };
        node.join_cluster(now, &mut SystemEntropy, cluster_settings(cluster, own));
        let (sender, writes) = mpsc::channel(cluster::WRITES_MAX);
        let health = SharedHealth::default();
        let desk = StoreDesk {
            writes: sender,
            health: Arc::clone(&health),
        };
        let store = NatsStore::new(cluster.store.clone());
        let task = Task {
            store,
            writes,
            health,
        };
        (Some(desk), Self(Some(task)))
    }

    /// Starts the task, on the control thread.
    pub(super) fn serve(self, trunk: MailSender<ShardMessage>) {
        if let Some(task) = self.0 {
            tokio::task::spawn_local(cluster::run(task.store, task.writes, trunk, task.health));
        }
    }
}

fn cluster_settings(cluster: &RelayCluster, own: Identifier) -> ClusterSettings {
    let relays = cluster.relays.iter().map(|relay| relay.identifier);
    ClusterSettings {
        lease: cluster.lease,
        grace: cluster.grace,
        names_per_relay_max: cluster.names_per_relay_max,
        names_max: cluster.names_max,
        ..ClusterSettings::new(own, relays.filter(|relay| *relay != own).collect())
    }
}
