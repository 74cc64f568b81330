//! What the core finds worth telling, in the words of the log.

use fieldgate_proto::{
    delivery::Lost,
    identity::Identifier,
    link::Class,
    node::{Event, PathOwner, SourceIndex},
    time::Now,
    trust::Freshness,
};

use super::{
    Trunk,
    complaints::{Complaint, Say},
};
use crate::sinks::json::rfc3339;

impl Trunk {
    #[expect(clippy::too_many_lines, reason = "one arm for each event, a sentence each")]
    pub(super) fn handle_event(&mut self, now: Now, event: Event) {
        match event {
            Event::LinkUp {
                connection,
                neighbour,
                software,
            } => {
                let dialled = neighbour.is_some();
                self.dialling.link_up(connection);
                if dialled {
                    self.layers.trust(connection);
                }
                tracing::info!(peer = %self.peer(connection), dialled, software, "link up");
            }
            Event::LinkBroken { connection, error } => {
                tracing::info!(peer = %self.peer(connection), %error, hint = error.hint(), "link closed");
            }
            Event::Attached { neighbour } => {
                tracing::info!(relay = self.neighbour(neighbour), "attached to relay")
            }
            Event::RelayDrains { neighbour } => {
                tracing::warn!(
                    relay = self.neighbour(neighbour),
                    "relay is about to stop; moving away"
                )
            }
            Event::RelayStays { neighbour } => {
                tracing::info!(relay = self.neighbour(neighbour), "relay does not stop");
            }
            Event::RelayLeft { neighbour } => {
                tracing::info!(
                    relay = self.neighbour(neighbour),
                    "left relay that is about to stop"
                );
            }
            Event::ChannelLost { peer, reason } => {
                tracing::info!(%peer, %reason, hint = reason.hint(), "channel closed");
            }
            Event::RelayNotAttached { neighbour, error } => {
                tracing::warn!(relay = self.neighbour(neighbour), %error, hint = error.hint(), "nothing is forwarded to this relay");
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
            Event::SetBack {
                uplink,
                lane,
                committed,
            } => tracing::error!(
                uplink = self.uplink(uplink),
                class = lane.name(),
                committed,
                "the collector has readings this journal never gave out: the disk was set back. Move the journal's directory away \
                 to begin a new journal"
            ),
            Event::MemberAttached { member, connection } => {
                self.layers.trust(connection);
                tracing::info!(%member, peer = %self.peer(connection), "member attached");
            }
            Event::PeerLinked { peer, connection } => {
                self.layers.trust(connection);
                tracing::info!(%peer, at = %self.peer(connection), "peer reached this node without a relay");
            }
            Event::NameRegistered { member, name } => {
                tracing::info!(%member, name, "name registered by member")
            }
            Event::SourceOpened { source } => self.source_opened(source),
            Event::ReadingsLost { source, lost } => self.readings_lost(source, &lost),
            Event::CollectorSetBack {
                uplink,
                lane,
                confirmed,
                committed,
            } => self.collector_set_back((uplink, lane), confirmed, committed),
            Event::SourceSetBack { source } => {
                let (gateway, class) = self.collecting.name_and_class(source);
                tracing::warn!(
                    gateway,
                    class,
                    "the gateway's journal is older than what was received of it; it sends nothing"
                );
            }
            Event::Forgotten {
                source,
                confirmed,
                received,
            } => {
                let (gateway, class) = self.collecting.name_and_class(source);
                tracing::warn!(
                    gateway,
                    class,
                    confirmed,
                    received,
                    "this collector was set back: it had confirmed more than it knows of; what the gateway still has comes again"
                );
            }
            Event::NotAuthorised { peer, service } => {
                self.complain(now, Complaint::NotAuthorised, peer, |repeated| {
                    tracing::warn!(%peer, service, repeated, "refused: neither this node's file nor its policy allows it");
                });
            }
            Event::PeerRevoked { peer } => self.complain(now, Complaint::Revoked, peer, |repeated| {
                tracing::warn!(%peer, repeated, "peer is revoked; its channel is closed");
            }),
            Event::CredentialRefused { peer, error } => {
                self.complain(now, Complaint::Credential, peer, |repeated| {
                    tracing::warn!(%peer, %error, hint = error.hint(), repeated, "credential refused");
                });
            }
            Event::ListRefused { peer, error } => self.complain(now, Complaint::List, peer, |repeated| {
                tracing::warn!(%peer, %error, hint = error.hint(), repeated, "list of the revoked refused");
            }),
            Event::PathChanged {
                owner,
                from,
                to,
                reason,
            } => {
                let what = match owner {
                    PathOwner::Uplink(uplink) => format!("uplink {}", self.uplink(uplink)),
                    PathOwner::Inlet(_) => "portals".to_owned(),
                };
                let (from, by) = (self.neighbour(from), self.neighbour(to));
                tracing::warn!(what, from, by, reason = reason.name(), "another path is in use");
            }
            Event::PortalUp { peer } => tracing::info!(%peer, "portals to node up"),
            Event::PortalDown { peer } => {
                tracing::warn!(%peer, "portals to node down; their streams wait for another channel");
            }
            Event::PeerEnded { .. }
            | Event::SelfRevoked { .. }
            | Event::PeerInGrace { .. }
            | Event::CredentialTaken { .. }
            | Event::RenewalDenied
            | Event::ListTaken { .. }
            | Event::FreshnessChanged { .. }
            | Event::AuthorityUp
            | Event::AuthorityDown => log_trust(event),
        }
    }

    fn source_opened(&mut self, source: SourceIndex) {
        let opened = self.node.sources().find(|view| view.info.index == source);
        if let Some(view) = opened {
            let via = view.info.neighbour.map(|neighbour| self.neighbour(neighbour));
            let member = self.node.member_name(&view.info.gateway);
            self.collecting.open(&view, member, via);
        }
    }

    fn readings_lost(&self, source: SourceIndex, lost: &Lost) {
        let (gateway, class) = self.collecting.name_and_class(source);
        tracing::warn!(
            gateway,
            class,
            first = lost.first,
            last = lost.last,
            reason = lost.reason.name(),
            "readings are lost; the sinks record the gap"
        );
    }

    fn collector_set_back(&mut self, (uplink, lane): (usize, Class), confirmed: u64, committed: u64) {
        tracing::warn!(
            uplink = self.uplink(uplink),
            class = lane.name(),
            confirmed,
            committed,
            "the collector was set back: it has less than it had confirmed; what is still here is sent again"
        );
        let note = format!(
            "the collector was set back: of {} readings it had confirmed up to {confirmed} and has up to {committed}; what is still \
             here is sent again, the rest is recorded there as released",
            lane.name()
        );
        self.uplink_notes.insert((uplink, lane), note);
    }

    /// Has `log` say what comes with every attempt of a peer, and how often it came since it was said last; not every time.
    fn complain(&mut self, now: Now, complaint: Complaint, peer: Identifier, log: impl FnOnce(u64)) {
        match self.complaints.note(now.instant, complaint, peer) {
            Say::Nothing => {}
            Say::This { repeated } => log(repeated),
            Say::Crowd { unnamed } => {
                log(0);
                tracing::warn!(unnamed, "more peers are refused than are named here");
            }
        }
    }
}

/// Logs what is about trust.
fn log_trust(event: Event) {
    match event {
        Event::SelfRevoked { revoked: true } => tracing::error!(
            "this node is revoked: no member serves it any more; if that is a mistake, make it a new identity and enrol that"
        ),
        Event::SelfRevoked { revoked: false } => tracing::info!("this node is revoked no more"),
        Event::PeerEnded { peer, standing } => {
            tracing::warn!(%peer, standing = standing.name(), "channel closed: the peer's credential is not good any more");
        }
        Event::PeerInGrace { peer, since } => tracing::warn!(
            %peer,
            expired = rfc3339(since.saturating_mul(1000)),
            "the peer's credential has expired; it is served for the time of grace"
        ),
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
        | Event::RelayNotAttached { .. }
        | Event::RelayDrains { .. }
        | Event::RelayStays { .. }
        | Event::RelayLeft { .. }
        | Event::ChannelLost { .. }
        | Event::Registered { .. }
        | Event::RegistrationRefused { .. }
        | Event::UplinkUp { .. }
        | Event::UplinkDown { .. }
        | Event::SetBack { .. }
        | Event::MemberAttached { .. }
        | Event::PeerLinked { .. }
        | Event::NameRegistered { .. }
        | Event::NotAuthorised { .. }
        | Event::PeerRevoked { .. }
        | Event::CredentialRefused { .. }
        | Event::ListRefused { .. }
        | Event::SourceOpened { .. }
        | Event::ReadingsLost { .. }
        | Event::CollectorSetBack { .. }
        | Event::Forgotten { .. }
        | Event::PathChanged { .. }
        | Event::PortalUp { .. }
        | Event::PortalDown { .. }
        | Event::SourceSetBack { .. } => {}
    }
}
