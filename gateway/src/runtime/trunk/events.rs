//! What the core finds worth telling, in the words of the log.

use fieldgate_proto::{node::Event, trust::Freshness};

use super::Trunk;
use crate::sinks::json::rfc3339;

impl Trunk {
    pub(super) fn handle_event(&mut self, event: Event) {
        match event {
            Event::LinkUp {
                connection,
                neighbour,
                software,
            } => {
                let dialled = neighbour.is_some();
                tracing::info!(peer = self.peer(connection), dialled, software, "link up");
            }
            Event::LinkBroken { connection, error } => {
                tracing::info!(peer = self.peer(connection), %error, hint = error.hint(), "link closed");
            }
            Event::Attached { neighbour } => {
                tracing::info!(relay = self.neighbour(neighbour), "attached to relay")
            }
            Event::ChannelLost { peer, reason } => {
                tracing::info!(%peer, %reason, hint = reason.hint(), "channel closed");
            }
            Event::Registered { neighbour, name } => {
                tracing::info!(relay = self.neighbour(neighbour), name, "name registered");
            }
            Event::RegistrationRefused {
                neighbour,
                name,
                reason,
            } => {
                tracing::warn!(
                    relay = self.neighbour(neighbour),
                    name,
                    reason = reason.name(),
                    hint = reason.hint(),
                    "name refused"
                );
            }
            Event::UplinkUp { uplink, neighbour } => {
                tracing::info!(
                    uplink = self.uplink(uplink),
                    by = self.neighbour(neighbour),
                    "uplink up"
                );
            }
            Event::UplinkDown { uplink } => {
                tracing::warn!(
                    uplink = self.uplink(uplink),
                    "uplink down; readings stay in the journal"
                );
            }
            Event::SetBack { uplink, committed } => tracing::error!(
                uplink = self.uplink(uplink),
                committed,
                "the collector has readings this journal never gave out: the disk was set back. Move the journal's directory away \
                 to begin a new journal"
            ),
            Event::MemberAttached { member, connection } => {
                tracing::info!(%member, peer = self.peer(connection), "member attached");
            }
            Event::NameRegistered { member, name } => {
                tracing::info!(%member, name, "name registered by member")
            }
            Event::NotAuthorised { peer, service } => {
                tracing::warn!(%peer, service, "refused: neither this node's file nor its policy allows it");
            }
            Event::SourceOpened { source } => {
                let opened = self.node.sources().find(|view| view.info.index == source);
                if let Some(view) = opened {
                    let via = view.info.neighbour.map(|neighbour| self.neighbour(neighbour));
                    let member = self.node.member_name(&view.info.gateway);
                    self.collecting.open(&view, member, via);
                }
            }
            Event::ReadingsMissing { source, first, last } => {
                let name = self.collecting.name(source);
                tracing::warn!(
                    gateway = name,
                    first,
                    last,
                    "readings are missing: gateway or collector was set back"
                );
            }
            Event::SourceSetBack { source } => {
                let name = self.collecting.name(source);
                tracing::warn!(
                    gateway = name,
                    "the gateway's journal is older than what was received of it; it sends nothing"
                );
            }
            Event::PeerRevoked { .. }
            | Event::PeerEnded { .. }
            | Event::PeerInGrace { .. }
            | Event::CredentialRefused { .. }
            | Event::CredentialTaken { .. }
            | Event::RenewalDenied
            | Event::ListTaken { .. }
            | Event::ListRefused { .. }
            | Event::FreshnessChanged { .. }
            | Event::AuthorityUp
            | Event::AuthorityDown => log_trust(event),
        }
    }
}

/// Logs what is about trust.
fn log_trust(event: Event) {
    match event {
        Event::PeerRevoked { peer } => tracing::warn!(%peer, "peer is revoked; its channel is closed"),
        Event::PeerEnded { peer, standing } => {
            tracing::warn!(%peer, standing = standing.name(), "channel closed: the peer's credential is not good any more");
        }
        Event::PeerInGrace { peer, since } => tracing::warn!(
            %peer,
            expired = rfc3339(since.saturating_mul(1000)),
            "the peer's credential has expired; it is served for the time of grace"
        ),
        Event::CredentialRefused { peer, error } => {
            tracing::warn!(%peer, %error, hint = error.hint(), "credential refused");
        }
        Event::CredentialTaken { not_after } => tracing::info!(
            until = rfc3339(not_after.saturating_mul(1000)),
            "credential taken"
        ),
        Event::RenewalDenied => {
            tracing::warn!("the authority does not renew this node's credential: see the authority's log");
        }
        Event::ListTaken {
            number,
            newly_revoked,
        } => {
            tracing::info!(number, newly_revoked, "list of the revoked taken");
        }
        Event::ListRefused { peer, error } => {
            tracing::warn!(%peer, %error, hint = error.hint(), "list of the revoked refused");
        }
        Event::FreshnessChanged { freshness } => match freshness {
            Freshness::NoList => tracing::info!("there is no list of the revoked yet"),
            Freshness::Fresh { .. } => tracing::info!("the list of the revoked is fresh"),
            Freshness::Stale { grace_until, .. } => tracing::warn!(
                grace_until = rfc3339(grace_until.saturating_mul(1000)),
                "the list of the revoked is out of date: the authority was not reached; time of grace runs"
            ),
            Freshness::Lapsed { .. } => {
                tracing::error!("the list of the revoked is out of date and the time of grace is over");
            }
        },
        Event::AuthorityUp => tracing::info!("authority reached"),
        Event::AuthorityDown => tracing::info!("authority lost; credentials live on"),
        Event::LinkUp { .. }
        | Event::LinkBroken { .. }
        | Event::Attached { .. }
        | Event::ChannelLost { .. }
        | Event::Registered { .. }
        | Event::RegistrationRefused { .. }
        | Event::UplinkUp { .. }
        | Event::UplinkDown { .. }
        | Event::SetBack { .. }
        | Event::MemberAttached { .. }
        | Event::NameRegistered { .. }
        | Event::NotAuthorised { .. }
        | Event::SourceOpened { .. }
        | Event::ReadingsMissing { .. }
        | Event::SourceSetBack { .. } => {}
    }
}
