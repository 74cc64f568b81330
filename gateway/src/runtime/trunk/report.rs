//! The trunk's part of the status.

use fieldgate_io::{ConnectionId, Io};
use fieldgate_proto::{
    delivery::SenderState,
    journal::JournalState,
    node::{NeighbourState, UplinkState},
    route::DropReason,
    time::Now,
};

use super::{Trunk, TrunkReport};
use crate::{
    runtime::journal::JournalFiles,
    status::{JournalStatus, LinkStatus, NetworkStatus, TrustStatus, UplinkStatus},
};

impl Trunk {
    /// Returns what the trunk knows.
    pub(crate) fn report(&self, io: &Io, now: Now) -> TrunkReport {
        TrunkReport {
            network: self.network_status(io),
            trust: self.trust_status(now),
            journal: self.journal.as_ref().map(journal_status),
            uplinks: self.uplink_status(),
            sources: self.collecting.source_status(&self.node),
            sinks: self
                .collecting
                .fanout
                .as_ref()
                .map(crate::sinks::fanout::Fanout::status)
                .unwrap_or_default(),
            delivered: self
                .collecting
                .fanout
                .as_ref()
                .map_or(0, crate::sinks::fanout::Fanout::released),
        }
    }

    fn trust_status(&self, now: Now) -> Option<TrustStatus> {
        if !self.belongs {
            return None;
        }
        let Some(view) = self.node.trust_view(self.judged(now)) else {
            return Some(TrustStatus::default());
        };
        let stats = self.node.stats();
        Some(TrustStatus {
            revoked: stats.revoked,
            credentials_refused: stats.credentials_refused,
            lists_refused: stats.lists_refused,
            ..TrustStatus::new(&view, now.wall, self.is_authority)
        })
    }

    fn network_status(&self, io: &Io) -> NetworkStatus {
        let channels = self.node.channel_stats();
        let router = self.node.router_stats();
        let links = self.node.connections().map(|view| LinkStatus {
            peer: self.peer(view.connection).to_owned(),
            origin: if view.neighbour.is_some() {
                "dialled"
            } else {
                "accepted"
            }
            .to_owned(),
            state: if view.up { "up" } else { "connecting" }.to_owned(),
            member: view.member.map(|member| member.to_string()),
            rtt_us: view
                .round_trip
                .map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
            queued_bytes: io.queued_bytes(ConnectionId::from_u64(view.connection.0)) as u64,
        });
        let dropped = DropReason::ALL
            .iter()
            .map(|reason| (reason.name().to_owned(), router.dropped(*reason)));
        NetworkStatus {
            links: links.collect(),
            channels: channels.open,
            handshakes: channels.established,
            handshake_failures: channels.abandoned
                + channels.handshakes_refused
                + channels.identities_refused
                + channels.wrong_mac1,
            records_refused: channels.records_forged + channels.records_replayed + channels.records_unknown,
            registered: self.node.registered_names(),
            forwarded_frames: router.frames_forwarded.iter().sum(),
            forwarded_bytes: router.bytes_forwarded,
            dropped: dropped.filter(|(_, count)| *count > 0).collect(),
        }
    }

    fn uplink_status(&self) -> Vec<UplinkStatus> {
        let ready: Vec<bool> = self
            .node
            .neighbours()
            .map(|view| matches!(view.state, NeighbourState::Ready { .. }))
            .collect();
        let uplinks = self
            .node
            .uplinks()
            .zip(&self.names.uplinks)
            .map(|(view, name)| UplinkStatus {
                name: name.clone(),
                state: match (view.state, view.delivery) {
                    (UplinkState::Up, SenderState::Delivering) => "delivering",
                    (UplinkState::Up, SenderState::SetBack) => {
                        "stopped: the collector has readings this journal never gave out"
                    }
                    (UplinkState::Up, SenderState::Down | SenderState::Offering) => {
                        "asking the collector how far it is"
                    }
                    (UplinkState::Connecting, _) => "securing the channel to the collector",
                    (UplinkState::Waiting, _) if ready.get(view.neighbour) == Some(&true) => {
                        "collector not reached"
                    }
                    (UplinkState::Waiting, _) => "not connected",
                }
                .to_owned(),
                via: self.neighbour(view.neighbour),
                confirmed: view.committed,
                in_flight: view.in_flight,
                waiting: view.waiting,
            });
        uplinks.collect()
    }
}

fn journal_status(files: &JournalFiles) -> JournalStatus {
    let journal = &files.journal;
    let (bytes, bytes_max) = journal.bytes();
    let stats = journal.stats();
    JournalStatus {
        state: match journal.state() {
            JournalState::Ready => "ready",
            JournalState::Full => "full",
            JournalState::Failed => "failed",
        }
        .to_owned(),
        bytes,
        bytes_max,
        readings: journal.committed() + 1 - journal.first_available().min(journal.committed() + 1),
        oldest: journal.first_available(),
        committed: journal.committed(),
        commits: stats.commits,
        lost: stats.lost,
        durable: files.is_durable(),
    }
}
