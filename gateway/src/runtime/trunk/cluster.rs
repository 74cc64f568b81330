//! The trunk and the store of the cluster.

use std::sync::PoisonError;

use fieldgate_proto::{
    relay::{StoreEvent, StoreWrite, WriteFailed},
    time::Now,
};
use tokio::sync::mpsc;

use super::Trunk;
use crate::{
    cluster::SharedHealth,
    status::{ClusterRelayStatus, ClusterStatus},
};

/// The way to the task that talks to the store.
pub(crate) struct StoreDesk {
    /// What is to be written.
    pub(crate) writes: mpsc::Sender<StoreWrite>,
    /// How the store does.
    pub(crate) health: SharedHealth,
}

impl Trunk {
    /// Has the store write what is to be written.
    pub(super) fn run_store(&mut self, now: Now) {
        let Some(store) = &self.store else { return };
        while let Some(write) = self.node.poll_store_write(now) {
            let ticket = match &write {
                StoreWrite::Put { ticket, .. } | StoreWrite::Delete { ticket, .. } => Some(*ticket),
                StoreWrite::Reread => None,
            };
            // There is room for more than is on its way at a time, so this fails only while the node ends.
            if let (Err(_), Some(ticket)) = (store.writes.try_send(write), ticket) {
                let result = Err(WriteFailed);
                self.node
                    .handle_store(now, &StoreEvent::Written { ticket, result });
            }
        }
    }

    pub(super) fn cluster_status(&self, now: Now) -> Option<ClusterStatus> {
        let store = self.store.as_ref()?;
        let cluster = self.node.cluster()?;
        let health = store.health.lock().unwrap_or_else(PoisonError::into_inner);
        let (directory, publisher) = (cluster.directory(), cluster.publisher());
        let relays = self.node.cluster_relays(now).into_iter();
        Some(ClusterStatus {
            store: health.server.clone(),
            problem: health.problem.clone(),
            sessions: health.sessions,
            is_current: directory.is_current(),
            relays: relays
                .map(|view| ClusterRelayStatus {
                    relay: view.relay.to_string(),
                    is_alive: view.is_alive,
                    links: view.links as u64,
                    names: view.names as u64,
                })
                .collect(),
            names_here: publisher.wanted() as u64,
            unsettled: publisher.unsettled() as u64,
            names_elsewhere: directory.len() as u64,
            written: publisher.stats().written,
            failed: publisher.stats().failed,
            refused: publisher.stats().refused + directory.stats().refused,
            malformed: directory.stats().malformed,
            foreign: directory.stats().foreign,
            expired: directory.stats().expired,
            conflicts: publisher.stats().conflicts,
            reread: publisher.stats().reread,
        })
    }
}
