//! Direct paths, as the trunk sees them: which addresses this node has, whom it dials, and for whom it opens routers.

use std::{net::SocketAddr, time::Duration};

use fieldgate_config::address::LinkAddress;
use fieldgate_io::Io;
use fieldgate_proto::{
    node::{DirectFailure, DirectState, PathOwner},
    time::{Instant, Now},
};

use super::Trunk;
use crate::status::{DirectPathStatus, DirectStatus};

impl Trunk {
    /// Looks which addresses this node has, if it is time to.
    pub(super) fn look_at_addresses(&mut self, io: &mut Io, now: Now) {
        if self.layers.poll_addresses().is_none_or(|at| now.instant < at) {
            return;
        }
        let addresses = self.layers.look_at_addresses(io, now.instant + LOOK_EVERY);
        self.node.set_own_addresses(now, addresses, &mut wire!(self, io));
    }

    /// Dials a peer at the addresses that it has told.
    pub(super) fn dial_direct(&mut self, io: &mut Io, now: Now, neighbour: usize, addresses: &[SocketAddr]) {
        if let Some(known) = self.names.neighbours.get_mut(neighbour) {
            let addresses = addresses.iter().map(|address| format!("quic://{address}"));
            let addresses: Vec<LinkAddress> = addresses.filter_map(|text| text.parse().ok()).collect();
            tracing::debug!(?addresses, "looking for a direct path");
            known.addresses = addresses;
        }
        // What was learned of others says nothing of these.
        self.dialling.forget(neighbour);
        self.dial(io, now, neighbour);
    }

    /// Says what is known of the direct path of an owner.
    pub(super) fn direct_path_status(&self, now: Now, owner: PathOwner) -> Option<DirectPathStatus> {
        let view = self.node.direct(owner)?;
        let (state, since) = match view.state {
            DirectState::Waiting { .. } => ("waiting", None),
            DirectState::Asking { .. } => ("asking", None),
            DirectState::Dialling => ("dialling", None),
            DirectState::Opening { .. } => ("opening", None),
            DirectState::Up { since } => ("up", Some((now.instant - since).as_secs())),
        };
        let retry = match view.state {
            DirectState::Waiting { retry_at } => Some((retry_at.max(now.instant) - now.instant).as_secs()),
            DirectState::Asking { .. }
            | DirectState::Dialling
            | DirectState::Opening { .. }
            | DirectState::Up { .. } => None,
        };
        Some(DirectPathStatus {
            state: state.to_owned(),
            peer: view.connection.map(|key| self.peer(key).to_string()),
            up_secs: since,
            retry_in_secs: retry,
            failure: view.failure.map(|failure| failure.name().to_owned()),
            hint: view.failure.map(|failure| failure.hint().to_owned()),
        })
    }

    /// Says what has happened with direct paths.
    pub(super) fn direct_status(&self) -> Option<DirectStatus> {
        self.layers.poll_addresses()?;
        let stats = self.node.direct_stats();
        let failed = DirectFailure::ALL.iter().zip(stats.failed);
        Some(DirectStatus {
            addresses: self
                .node
                .direct_addresses()
                .iter()
                .map(ToString::to_string)
                .collect(),
            attempts: stats.attempts,
            failed: failed
                .filter(|(_, count)| *count > 0)
                .map(|(failure, count)| (failure.name().to_owned(), count))
                .collect(),
            answered: stats.answered,
            unanswered: stats.unanswered,
        })
    }

    /// Has routers in front of this node let in what comes from these addresses.
    pub(super) fn punch(&mut self, io: &mut Io, now: Instant, addresses: &[SocketAddr]) {
        self.layers.punch(io, now, addresses);
    }
}

/// How often the addresses of this machine are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
