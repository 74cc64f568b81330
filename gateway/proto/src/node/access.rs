//! Who may do what: what peers are known by, and what waits for a decision.
//!
//! ```text
//!  Established ─▶ revoked? ─▶ Lists: the settings decide at once
//!                    │       └ Ask: Output::Authorise ─▶ handle_verdict ─▶ Permit ─▶ in use
//!                    ▼                    ▲                   │ Prove: ProofPlease ─▶ Output::Proven ┐
//!                 closed                  └───────────────────┼──────────────────────────────────────┘
//!                                                             └ Refuse ─▶ closed
//! ```
//!
//! What the peer says meanwhile is kept, up to a bound, and dealt with after the decision. A channel in use that is decided
//! again goes on being served under the decision before until the next one comes.

mod demands;
mod waiting;

use std::{sync::Arc, time::Duration};

pub(super) use waiting::Accesses;
use waiting::PENDING_MAX;

use super::{ChannelEntry, Event, Links, Node, Output, ReadingSink, Service, Use, Wire, trust::Dealings};
use crate::{
    channel::{ChannelId, CloseCode, Suite},
    entropy::Entropy,
    identity::Identifier,
    relay::MemberRights,
    route::FlowId,
    time::Now,
    trust::{Credential, Freshness, Standing},
};

/// Decides who may use this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessPolicy {
    /// The lists of the settings, at once.
    #[default]
    Lists,
    /// The caller, asked by [`Output::Authorise`].
    Ask,
}

/// What a peer wants, for whoever decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Comes back in [`Node::handle_verdict`].
    pub attempt: u64,
    /// Who wants it.
    pub peer: Identifier,
    /// For which service its channel came.
    pub service: Service,
    /// Its verified credential and how good that is now.
    pub credential: Option<(Arc<Credential>, Standing)>,
    /// How fresh the list of the revoked is.
    pub freshness: Freshness,
    /// What is known of the channel.
    pub facts: ChannelFacts,
}

/// What is known of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelFacts {
    /// Whether its key agreement is post-quantum.
    pub post_quantum: bool,
    /// Whether it came straight over one link.
    pub direct: bool,
    /// Whether the peer's identity key has signed in it.
    pub live_proof: bool,
}

/// The answer to an [`Access`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Close the channel.
    Refuse,
    /// Demand a live proof, then ask again. Refuses a peer that has given one.
    Prove,
    /// Serve it; at a relay's registrar with these rights.
    Permit {
        /// What it may hold and reach.
        rights: MemberRights,
        /// Whether it may stay for a minute only.
        guest: bool,
    },
}

/// What is known of the peer of a channel, from the end of its handshake on.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) peer: Identifier,
    post_quantum: bool,
    pub(super) credential: Option<Arc<Credential>>,
    /// Whether the credential was before those who decided that it may. Who is known by its identifier alone stays when its
    /// credential ends.
    pub(super) rests_on_credential: bool,
    live_proof: bool,
    /// Whether the channel is in use: trust frames are taken and lists are sent.
    pub(super) admitted: bool,
    /// Whether its grace was spoken of.
    pub(super) grace_said: bool,
    pub(super) dealings: Dealings,
}

impl Node {
    /// Takes the answer to [`Output::Authorise`]. One that nobody waits for any more is ignored.
    pub fn handle_verdict(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        attempt: u64,
        verdict: Verdict,
        wire: &mut dyn Wire,
        sink: &mut dyn ReadingSink,
    ) {
        let Some(channel) = self.accesses.by_attempt.get(&attempt).copied() else {
            return;
        };
        match verdict {
            Verdict::Prove => {
                // Its end is a proof, or the channel's; of a proof that was given no other would come.
                let proven = self.known.get(&channel).is_some_and(|known| known.live_proof);
                if proven || self.channels.demand_proof(now, channel).is_err() {
                    self.refuse_pending(channel);
                }
            }
            Verdict::Refuse => self.refuse_pending(channel),
            Verdict::Permit { rights, guest } => {
                let Some(pending) = self.accesses.forget(channel) else {
                    return;
                };
                self.permit(now, channel, pending.service, (rights, guest), wire);
                for (kind, body) in pending.frames {
                    if !self.handle_channel_frame(now, entropy, channel, (kind, &body), wire, sink) {
                        self.stats.bad_frames += 1;
                    }
                }
            }
        }
        self.settle(now, entropy, wire);
        self.authorise_later(now, wire);
    }

    fn refuse_pending(&mut self, channel: ChannelId) {
        let Some(pending) = self.accesses.forget(channel) else {
            return;
        };
        if let Some(peer) = self.channels.peer(channel) {
            self.refuse(channel, peer, pending.service.as_str());
        }
    }

    /// Takes note of a peer that was authenticated; false if it was revoked, and its channel closed.
    pub(super) fn meet(
        &mut self,
        now: Now,
        channel: ChannelId,
        peer: Identifier,
        suite: Suite,
        presentation: &[u8],
    ) -> bool {
        let credential = self.verify_presentation(now, peer, presentation);
        self.known.insert(
            channel,
            Known {
                peer,
                post_quantum: suite.is_hybrid(),
                credential,
                rests_on_credential: false,
                live_proof: false,
                admitted: false,
                grace_said: false,
                dealings: Dealings::default(),
            },
        );
        if self.trust.as_ref().is_some_and(|trust| trust.is_revoked(&peer)) {
            self.end_revoked(channel, peer);
            return false;
        }
        true
    }

    /// Decides on a channel that came for `service`, or has it decided.
    pub(super) fn authorise(&mut self, now: Now, channel: ChannelId, service: Service, wire: &mut dyn Wire) {
        let Some(known) = self.known.get(&channel) else {
            return;
        };
        let peer = known.peer;
        match self.accesses.policy {
            AccessPolicy::Lists => self.permit_listed(now, channel, service, peer, wire),
            AccessPolicy::Ask => {
                let Some(attempt) = self.accesses.begin(channel, service) else {
                    self.refuse(channel, peer, service.as_str());
                    return;
                };
                let access = self.access(now, channel, service, attempt);
                if let Some(access) = access {
                    self.outputs.push_back(Output::Authorise(Box::new(access)));
                }
            }
        }
    }

    fn access(&self, now: Now, channel: ChannelId, service: Service, attempt: u64) -> Option<Access> {
        let known = self.known.get(&channel)?;
        let credential = known.credential.as_ref().map(|credential| {
            let standing = self.standing(now, credential);
            (Arc::clone(credential), standing)
        });
        Some(Access {
            attempt,
            peer: known.peer,
            service,
            credential,
            freshness: self.freshness(now),
            facts: self.channel_facts(channel, known),
        })
    }

    pub(super) fn channel_facts(&self, channel: ChannelId, known: &Known) -> ChannelFacts {
        let direct = self
            .by_channel
            .get(&channel)
            .is_some_and(|entry| self.router.is_direct(entry.flow));
        ChannelFacts {
            post_quantum: known.post_quantum,
            direct,
            live_proof: known.live_proof,
        }
    }

    /// Has it decided again what a channel in use may, since its peer presented another credential or the policy changed.
    pub(super) fn authorise_again(&mut self, now: Now, channel: ChannelId, wire: &mut dyn Wire) {
        let Some(entry) = self.by_channel.get(&channel) else {
            return;
        };
        let service = match entry.used_for {
            Use::Member { .. } => Service::Registrar,
            Use::Gateway { .. } => Service::Uplink,
            Use::Asker => Service::Authority,
            Use::Outlet { .. } => Service::Portal,
            Use::Unknown { service } => service,
            Use::Carrier { neighbour: None } => Service::Link,
            Use::Registrar { .. }
            | Use::Uplink { .. }
            | Use::Authority
            | Use::Inlet { .. }
            | Use::Carrier { .. } => return,
        };
        if self.accesses.policy != AccessPolicy::Ask || !self.known.contains_key(&channel) {
            return;
        }
        let pending = &self.accesses.by_channel;
        if pending.len() >= AGAIN_MAX && !pending.contains_key(&channel) {
            // Half of the room is for newcomers, and nobody who is served goes for want of it.
            self.accesses.later.insert(channel);
            return;
        }
        self.authorise(now, channel, service, wire);
    }

    /// Has decided again what had to wait, as far as there is room.
    pub(super) fn authorise_later(&mut self, now: Now, wire: &mut dyn Wire) {
        while self.accesses.by_channel.len() < AGAIN_MAX
            && let Some(channel) = self.accesses.later.pop_first()
        {
            self.authorise_again(now, channel, wire);
        }
    }

    /// Has it decided again what every channel may: the policy has changed.
    pub fn authorise_all_again(&mut self, now: Now, wire: &mut dyn Wire) {
        let channels: Vec<ChannelId> = self.by_channel.keys().copied().collect();
        for channel in channels {
            self.authorise_again(now, channel, wire);
        }
        self.commands.rights_changed();
    }

    /// The peer of a channel has proven that it holds its identity key.
    pub(super) fn handle_proven(&mut self, now: Now, channel: ChannelId, wire: &mut dyn Wire) {
        if let Some(known) = self.known.get_mut(&channel) {
            known.live_proof = true;
        }
        self.commands.rights_changed();
        match self.by_channel.get(&channel).map(|entry| entry.used_for) {
            Some(
                Use::Registrar { .. }
                | Use::Uplink { .. }
                | Use::Authority
                | Use::Inlet { .. }
                | Use::Carrier { neighbour: Some(_) },
            ) => {
                self.own_ready(now, channel, wire);
            }
            Some(_) => {
                if let Some(pending) = self.accesses.by_channel.get(&channel) {
                    self.authorise(now, channel, pending.service, wire);
                }
            }
            None => {}
        }
    }

    /// Keeps a frame that came before the decision on its channel; false if there is no decision pending.
    pub(super) fn keep_frame(&mut self, channel: ChannelId, kind: u8, body: &[u8]) -> bool {
        let kept = self.accesses.keep(channel, kind, body);
        self.stats.frames_unkept += u64::from(kept == Some(false));
        kept.is_some()
    }

    pub(super) fn forget_access(&mut self, channel: ChannelId) {
        self.forget_lists(channel);
        self.forget_questions(channel);
        drop(self.accesses.forget(channel));
        self.accesses.later.remove(&channel);
        self.accesses.guests.remove(&channel);
        self.known.remove(&channel);
    }

    /// Serves a channel that the lists of the settings allow.
    fn permit_listed(
        &mut self,
        now: Now,
        channel: ChannelId,
        service: Service,
        peer: Identifier,
        wire: &mut dyn Wire,
    ) {
        let listed = match service {
            // The registry knows its members.
            Service::Registrar | Service::Authority => true,
            // As any link: it is nobody's until its registrar's channel is there.
            Service::Link => true,
            Service::Uplink => self
                .collector
                .as_ref()
                .is_some_and(|collector| collector.is_listed(&peer)),
            Service::Portal => self.portals.is_listed(&peer),
        };
        if !listed {
            self.refuse(channel, peer, service.as_str());
            return;
        }
        self.serve(now, channel, service, peer, wire);
    }

    /// Serves a channel that was decided on.
    fn permit(
        &mut self,
        now: Now,
        channel: ChannelId,
        service: Service,
        (rights, guest): (MemberRights, bool),
        wire: &mut dyn Wire,
    ) {
        let Some(known) = self.known.get_mut(&channel) else {
            return;
        };
        let peer = known.peer;
        known.rests_on_credential = known.credential.is_some();
        // Rights that nobody comes to hold would never be taken back.
        let in_vain = service == Service::Registrar && !self.can_attach(channel, peer);
        if in_vain || !self.note_guest(now, channel, guest) {
            self.refuse(channel, peer, service.as_str());
            return;
        }
        if service == Service::Registrar {
            let mut links = Links {
                connection_of: &self.connection_of,
                carried: &mut self.carried,
                wire: &mut *wire,
            };
            self.router.grant(peer, rights, &mut links);
        }
        let undecided = matches!(
            self.by_channel.get(&channel),
            Some(ChannelEntry {
                used_for: Use::Unknown { .. },
                ..
            })
        );
        if undecided {
            self.serve(now, channel, service, peer, wire);
        }
    }

    /// Takes note of a guest, or of one that is no guest any more; false if there are too many.
    fn note_guest(&mut self, now: Now, channel: ChannelId, guest: bool) -> bool {
        let guests = &mut self.accesses.guests;
        if !guest {
            guests.remove(&channel);
        } else if !guests.contains_key(&channel) {
            if guests.len() >= self.guests_max {
                return false;
            }
            guests.insert(channel, now.instant + GUEST_TIME);
        }
        true
    }

    /// Returns whether the link of a channel to the registrar can become its peer's.
    fn can_attach(&self, channel: ChannelId, peer: Identifier) -> bool {
        let flow = self.by_channel.get(&channel).map(|entry| entry.flow);
        flow.is_some_and(|flow| {
            let link = self.router.link_of(flow).filter(|_| self.router.is_direct(flow));
            link.is_some_and(|link| self.router.member(link).is_none_or(|member| member == peer))
        })
    }

    fn serve(
        &mut self,
        now: Now,
        channel: ChannelId,
        service: Service,
        peer: Identifier,
        wire: &mut dyn Wire,
    ) {
        let Some(flow) = self.by_channel.get(&channel).map(|entry| entry.flow) else {
            return;
        };
        let served = match service {
            Service::Registrar => self.member_established(now, channel, peer, flow, wire),
            Service::Uplink => {
                let admitted = self
                    .collector
                    .as_mut()
                    .map(|collector| collector.admit(channel, peer));
                admitted.is_some_and(|(gateway, order, before)| {
                    self.set_use(channel, Use::Gateway { gateway, order });
                    if let Some(before) = before {
                        self.close_channel(before, CloseCode::REPLACED);
                    }
                    true
                })
            }
            Service::Authority => {
                self.set_use(channel, Use::Asker);
                true
            }
            Service::Portal => self.outlet_established(now, (channel, flow), peer),
            Service::Link => self.carrier_established(now, channel, None, wire),
        };
        if served {
            self.note_linked(channel, peer, flow);
            self.admitted(now, channel, wire);
        } else {
            self.refuse(channel, peer, service.as_str());
        }
    }

    /// Tells the caller of a peer that has come straight over its link for what a collector or outlets have.
    fn note_linked(&mut self, channel: ChannelId, peer: Identifier, flow: FlowId) {
        let used_for = self.by_channel.get(&channel).map(|entry| entry.used_for);
        if !matches!(used_for, Some(Use::Gateway { .. } | Use::Outlet { .. })) || !self.router.is_direct(flow)
        {
            return;
        }
        let link = self.router.link_of(flow);
        let connection = link.and_then(|link| self.connection_of.get(link.index()).copied().flatten());
        if let Some(connection) = connection {
            self.event(Event::PeerLinked { peer, connection });
        }
    }

    /// Ends the visit of a guest, and its link with it.
    pub(super) fn end_guest(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        channel: ChannelId,
        wire: &mut dyn Wire,
    ) {
        self.close_channel(channel, CloseCode::LIMIT);
        if let Some(Use::Member { link }) = self.by_channel.get(&channel).map(|entry| entry.used_for)
            && let Some(connection) = self.connection_of.get(link.index()).copied().flatten()
        {
            // What the channel has to say goes before the link does.
            self.settle(now, entropy, wire);
            self.forget_connection(now, entropy, connection, wire);
            self.close_connection(connection);
        }
    }

    /// Closes the channel of a revoked peer.
    pub(super) fn end_revoked(&mut self, channel: ChannelId, peer: Identifier) {
        self.stats.revoked += 1;
        self.commands.rights_changed();
        self.event(Event::PeerRevoked { peer });
        self.close_channel(channel, CloseCode::NOT_AUTHORISED);
    }
}

/// Channels that wait above which channels in use are not decided again.
const AGAIN_MAX: usize = PENDING_MAX / 2;
/// How long a guest may stay (PROTOCOL.md §7).
const GUEST_TIME: Duration = Duration::from_secs(60);
