//! The trunk's part of the status.

use fieldgate_io::Io;
use fieldgate_proto::{
    delivery::SenderState,
    journal::{JournalState, LaneView},
    link::Class,
    node::{NeighbourState, PathOwner, PortalKey, UplinkState, UplinkView},
    route::DropReason,
    time::Now,
};

use super::{Trunk, TrunkReport};
use crate::{
    runtime::journal::JournalFiles,
    status::{
        GapStatus, JournalStatus, LaneStatus, LedgerStatus, LinkStatus, NetworkStatus, PathStatus,
        PathsStatus, QuicStatus, RelayStatus, TrustStatus, UplinkLaneStatus, UplinkStatus,
    },
};

impl Trunk {
    /// Returns what the trunk knows.
    pub(crate) fn report(&self, io: &Io, now: Now) -> TrunkReport {
        TrunkReport {
            network: self.network_status(io, now),
            trust: self.trust_status(now),
            commands: self.commands_status(),
            cluster: self.cluster_status(now),
            portals: self.portals.status(&self.node, &self.names.neighbours),
            journal: self.journal.as_ref().map(|files| journal_status(files, now)),
            uplinks: self.uplink_status(),
            sources: self.collecting.source_status(&self.node),
            ledger: self.collecting.ledger.as_deref().map(LedgerStatus::new),
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

    fn network_status(&self, io: &Io, now: Now) -> NetworkStatus {
        let channels = self.node.channel_stats();
        let router = self.node.router_stats();
        let links = self.node.connections().map(|view| LinkStatus {
            peer: self.peer(view.connection).into_owned(),
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
            chosen: self
                .dialling
                .chosen(view.connection)
                .map(|chosen| chosen.why.clone()),
            queued_bytes: self.layers.queued_bytes(io, view.connection) as u64,
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
            relays: self.relay_status(),
            drain: self.drain_status(now),
            paths: self.paths_status(now),
            forwarded_frames: router.frames_forwarded.iter().sum(),
            forwarded_bytes: router.bytes_forwarded,
            dials_failed: self.dialling.failed(),
            websockets_refused: self.layers.refused(),
            quic: QuicStatus::new(self.layers.quic().stats()),
            direct: self.direct_status(),
            dropped: dropped.filter(|(_, count)| *count > 0).collect(),
        }
    }

    fn paths_status(&self, now: Now) -> Vec<PathsStatus> {
        let uplinks = self.names.uplinks.iter().enumerate();
        let uplinks = uplinks.map(|(index, name)| (PathOwner::Uplink(index), "uplink", name.clone()));
        let inlets = self.node.portals().filter_map(|view| match view.key {
            PortalKey::Inlet(index) => Some((PathOwner::Inlet(index), "portals", view.peer.to_string())),
            PortalKey::Outlet(_) => None,
        });
        let all = uplinks.chain(inlets).map(|(owner, kind, name)| {
            let (views, switches) = self.node.paths(now.instant, owner);
            let paths = views.into_iter().map(|view| PathStatus {
                by: self.neighbour(view.neighbour),
                through: view.through,
                state: view.state.name().to_owned(),
                rtt_us: view
                    .round_trip
                    .map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
                loss_permille: view.loss_permille,
                reason: view.reason.map(|reason| reason.name().to_owned()),
            });
            PathsStatus {
                kind: kind.to_owned(),
                name,
                switches,
                paths: paths.collect(),
                direct: self.direct_path_status(now, owner),
            }
        });
        // Of a single way everything is said elsewhere.
        all.filter(|paths| paths.paths.len() > 1).collect()
    }

    fn relay_status(&self) -> Vec<RelayStatus> {
        let neighbours = self.node.neighbours().zip(&self.names.neighbours);
        let relays = neighbours.filter_map(|(view, address)| {
            let forwarding = view.forwarding?;
            let state = match view.state {
                NeighbourState::Ready { .. } if view.attached => "forwarding",
                NeighbourState::Ready { .. } => "refused",
                NeighbourState::Down { .. } | NeighbourState::Dialling => "not connected",
                NeighbourState::Greeting { .. } | NeighbourState::Attaching { .. } => "connecting",
            };
            let registered = view.names().filter(|(_, registered, _)| *registered);
            let refused = view
                .names()
                .filter_map(|(name, _, why)| Some(format!("{name} ({})", why?.name())));
            Some(RelayStatus {
                name: forwarding.name.clone(),
                address: address.to_string(),
                state: state.to_owned(),
                registered: registered.map(|(name, ..)| name.to_owned()).collect(),
                refused: refused.collect(),
            })
        });
        relays.collect()
    }

    fn uplink_status(&self) -> Vec<UplinkStatus> {
        let ready: Vec<bool> = self
            .node
            .neighbours()
            .map(|view| matches!(view.state, NeighbourState::Ready { .. }))
            .collect();
        let uplinks = self.node.uplinks().zip(&self.names.uplinks).enumerate();
        let uplinks = uplinks.map(|(index, (view, name))| {
            let lanes: Vec<UplinkLaneStatus> = view.lanes.iter().map(uplink_lane_status).collect();
            let sum = |value: fn(&UplinkLaneStatus) -> u64| lanes.iter().map(value).sum::<u64>();
            UplinkStatus {
                name: name.clone(),
                state: uplink_state(&view, ready.get(view.neighbour) == Some(&true)).to_owned(),
                via: self.neighbour(view.neighbour),
                confirmed: sum(|lane| lane.confirmed),
                in_flight: sum(|lane| lane.in_flight),
                waiting: sum(|lane| lane.waiting),
                notes: self.notes_of(index),
                lanes,
            }
        });
        uplinks.collect()
    }

    /// Returns what happened to an uplink that an operator should know of.
    fn notes_of(&self, uplink: usize) -> Vec<String> {
        let notes = self
            .uplink_notes
            .iter()
            .filter(|((index, _), _)| *index == uplink);
        notes.map(|(_, note)| note.clone()).collect()
    }
}

/// Says where an uplink stands; what stops a lane comes before all else.
fn uplink_state(view: &UplinkView, neighbour_ready: bool) -> &'static str {
    let any = |state| view.lanes.0.iter().any(|lane| lane.state == state);
    match view.state {
        UplinkState::Up if any(SenderState::SetBack) => {
            "stopped: the collector has readings this journal never gave out"
        }
        UplinkState::Up if any(SenderState::Down) || any(SenderState::Offering) => {
            "asking the collector how far it is"
        }
        UplinkState::Up => "delivering",
        UplinkState::Connecting => "securing the channel to the collector",
        UplinkState::Waiting if neighbour_ready => "collector not reached",
        UplinkState::Waiting => "not connected",
    }
}

fn uplink_lane_status((lane, view): (Class, &fieldgate_proto::delivery::LaneView)) -> UplinkLaneStatus {
    UplinkLaneStatus {
        class: lane.name().to_owned(),
        state: match view.state {
            SenderState::Down => "down",
            SenderState::Offering => "offering",
            SenderState::Delivering => "delivering",
            SenderState::SetBack => "set-back",
        }
        .to_owned(),
        confirmed: view.committed,
        in_flight: view.in_flight,
        waiting: view.waiting,
        sent: view.stats.sent,
        lost: view.stats.lost,
    }
}

fn journal_status(files: &JournalFiles, now: Now) -> JournalStatus {
    let lanes: Vec<LaneStatus> = files.lanes.views(now).into_iter().map(lane_status).collect();
    let sum = |value: fn(&LaneStatus) -> u64| lanes.iter().map(value).sum::<u64>();
    let worst = ["failed", "full"]
        .into_iter()
        .find(|state| lanes.iter().any(|lane| lane.state == *state));
    JournalStatus {
        state: worst.unwrap_or("ready").to_owned(),
        bytes: sum(|lane| lane.bytes),
        bytes_max: sum(|lane| lane.bytes_max),
        readings: sum(|lane| lane.readings),
        commits: sum(|lane| lane.commits),
        lost: sum(|lane| lane.lost),
        durable: files.is_durable(),
        lanes,
    }
}

fn lane_status((lane, view): (Class, LaneView)) -> LaneStatus {
    let gaps = view.gaps.iter().map(|gap| GapStatus {
        first: gap.first,
        last: gap.last,
        reason: gap.reason.name().to_owned(),
    });
    LaneStatus {
        class: lane.name().to_owned(),
        state: match view.state {
            JournalState::Ready => "ready",
            JournalState::Full => "full",
            JournalState::Failed => "failed",
        }
        .to_owned(),
        bytes: view.bytes,
        bytes_max: view.bytes_max,
        readings: view.waiting,
        oldest_captured: view.oldest_captured,
        committed: view.committed,
        commits: view.stats.commits,
        lost: view.stats.lost,
        discarded: view.totals.discarded,
        expired: view.totals.expired,
        full_in_secs: view.full_in.map(|left| left.as_secs()),
        written_per_day: view.written_per_day,
        write_amplification_milli: view.write_amplification_milli,
        gaps: gaps.collect(),
    }
}
