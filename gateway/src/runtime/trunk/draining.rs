//! A relay that its members are to leave.

use std::time::Duration;

use fieldgate_io::Io;
use fieldgate_proto::{identity::Identifier, relay::StaysReason, time::Now};

use super::Trunk;
use crate::status::{DrainStatus, LeaverStatus};

impl Trunk {
    /// Has members leave within this time, or lets them stay again.
    pub(super) fn handle_drain(&mut self, io: &mut Io, now: Now, within: Option<Duration>) {
        match within {
            Some(within) => {
                tracing::warn!(within_secs = within.as_secs(), "members are to leave this relay");
                self.node.drain(now, within);
            }
            None => {
                tracing::warn!("members may stay at this relay");
                self.node.undrain(now, &mut wire!(self, io));
            }
        }
    }

    /// Returns what the file or its credential calls a member.
    pub(super) fn member_name(&self, member: &Identifier) -> Option<String> {
        let listed = self.names.members.get(member).cloned();
        listed.or_else(|| self.node.member_name(member).map(ToOwned::to_owned))
    }

    pub(super) fn drain_status(&self, now: Now) -> Option<DrainStatus> {
        let view = self.node.drain_view(MEMBERS_MAX)?;
        let members = view.members.into_iter().map(|leaver| LeaverStatus {
            name: self
                .member_name(&leaver.member)
                .unwrap_or_else(|| leaver.member.to_string()),
            identifier: leaver.member.to_string(),
            peer: leaver
                .connection
                .map_or_else(String::new, |connection| self.peer(connection).into_owned()),
            names: leaver.names,
            reason: leaver.stays.map(StaysReason::name).map(ToOwned::to_owned),
        });
        Some(DrainStatus {
            for_secs: now.instant.saturating_since(view.since).as_secs(),
            left: view.left as u64,
            stuck: view.stuck as u64,
            is_waiting: view.is_waiting,
            labels: view.labels as u64,
            members: members.collect(),
        })
    }
}

/// Members that are named; of the others it is said how many they are.
const MEMBERS_MAX: usize = 100;
