//! What comes in: bytes of connections, and what links, routing and channels make of them.

use super::{
    ChannelEntry, ConnectionKey, Event, Links, Node, Output, PortalKey, ReadingSink, Service, Use, Wire,
    candidate_path, carried, command::is_command, flow_path,
};
use crate::{
    candidates::CANDIDATES,
    channel::{self, ChannelId, CloseCode, CloseReason, FIRST_APPLICATION_KIND, Received, Role, frames},
    crypto::Signature,
    delivery::SEAL_KEY,
    entropy::Entropy,
    identity::Identifier,
    link::{Frame, LinkInput, PeerHello},
    relay::RegistrarFrame,
    route::{self, Candidate, FlowId, LinkId},
    time::Now,
    trust::{FIRST_KIND, LAST_KIND},
};

impl Node {
    /// Takes bytes of a connection. Records are opened in place, so `bytes` holds something else afterwards.
    pub fn handle_bytes(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        key: ConnectionKey,
        bytes: &mut [u8],
        wire: &mut dyn Wire,
        sink: &mut dyn ReadingSink,
    ) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let mut id = connection.id;
        let Some(mut link) = connection.link.take() else {
            return;
        };
        let mut control = std::mem::take(&mut self.scratch);
        control.clear();
        let mut incoming = link.receive(now.instant, bytes);
        let end = loop {
            match incoming.next_input(&mut control) {
                Ok(Some(LinkInput::Up(hello))) => id = self.handle_hello(now, entropy, key, hello, wire),
                Ok(Some(LinkInput::Frame(frame))) => {
                    if let Some(id) = id {
                        self.handle_frame(now, entropy, id, frame, wire, sink);
                    }
                }
                Ok(Some(LinkInput::Malformed(_))) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if !control.is_empty()
            && let Some(out) = carried::buffer(&mut self.carried, wire, key)
        {
            out.extend_from_slice(&control);
        }
        self.scratch = control;
        // What came may have made the node give the connection up.
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.link = Some(link);
        }
        if let Err(error) = end {
            self.break_connection(now, entropy, key, error, wire);
        }
        self.settle(now, entropy, wire);
    }

    /// Takes the neighbour's Hello: the link can be used. Returns how routing calls it.
    fn handle_hello(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        key: ConnectionKey,
        hello: PeerHello,
        wire: &mut dyn Wire,
    ) -> Option<LinkId> {
        let Ok(link) = self.router.link_up(now.instant, entropy, hello.frame_len_max) else {
            // At the bound of links the newcomer has to go; it is told nothing.
            self.forget_connection(now, entropy, key, wire);
            self.close_connection(key);
            return None;
        };
        if self.connection_of.len() <= link.index() {
            self.connection_of.resize(link.index() + 1, None);
        }
        if let Some(place) = self.connection_of.get_mut(link.index()) {
            *place = Some(key);
        }
        let connection = self.connections.get_mut(&key)?;
        connection.id = Some(link);
        let neighbour = connection.neighbour;
        self.event(Event::LinkUp {
            connection: key,
            neighbour,
            software: hello.software,
        });
        if let Some(neighbour) = neighbour {
            self.neighbour_greeted(now, entropy, neighbour, (key, link), wire);
        }
        Some(link)
    }

    fn handle_frame(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        link: LinkId,
        frame: Frame<'_>,
        wire: &mut dyn Wire,
        sink: &mut dyn ReadingSink,
    ) {
        let mut links = Links {
            connection_of: &self.connection_of,
            carried: &mut self.carried,
            wire: &mut *wire,
        };
        match self.router.handle_frame(now.instant, link, frame, &mut links) {
            route::Received::Local { flow, payload, .. } => {
                if payload.is_empty() {
                    // Keeps the labels in use.
                    return;
                }
                self.handle_payload(now, entropy, flow, payload, wire, sink);
                self.settle(now, entropy, wire);
            }
            route::Received::Candidate { candidate, payload } => {
                self.handle_candidate(now, entropy, &candidate, payload, wire);
            }
            route::Received::Forwarded { .. } | route::Received::Consumed | route::Received::Dropped(_) => {}
        }
    }

    /// Takes the first message of a conversation. Only a handshake that was answered leaves state behind.
    fn handle_candidate(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        candidate: &Candidate<'_>,
        payload: &mut [u8],
        wire: &mut dyn Wire,
    ) {
        let Some(service) = Service::from_name(candidate.service()) else {
            return;
        };
        let mut path = Vec::with_capacity(64);
        candidate.put_path(&mut path);
        // A bad message is counted by the channels; its sender is told nothing.
        let _ = self
            .channels
            .handle_message(now, entropy, candidate_path(candidate.link()), &path, payload);
        while let Some(output) = self.channels.poll_output() {
            match &output {
                channel::Output::Transmit {
                    channel: None, bytes, ..
                } => {
                    let mut links = Links {
                        connection_of: &self.connection_of,
                        carried: &mut self.carried,
                        wire: &mut *wire,
                    };
                    // A cookie that finds its link gone has nobody to go to.
                    let _ = self.router.answer(candidate, bytes, &mut links);
                }
                channel::Output::Transmit {
                    channel: Some(channel),
                    path,
                    ..
                } if *path == candidate_path(candidate.link()) && !self.by_channel.contains_key(channel) => {
                    let Ok(flow) = self.router.accept(now.instant, candidate) else {
                        continue;
                    };
                    self.by_channel.insert(
                        *channel,
                        ChannelEntry {
                            used_for: Use::Unknown { service },
                            flow,
                        },
                    );
                    self.by_flow.insert(flow, *channel);
                    self.handle_channel_output(now, entropy, wire, output);
                }
                channel::Output::Transmit { .. }
                | channel::Output::Established { .. }
                | channel::Output::Presented { .. }
                | channel::Output::Sign { .. }
                | channel::Output::Proven { .. }
                | channel::Output::Pong { .. }
                | channel::Output::Closed { .. } => self.handle_channel_output(now, entropy, wire, output),
            }
        }
        self.settle(now, entropy, wire);
    }

    fn handle_payload(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        flow: FlowId,
        payload: &mut [u8],
        wire: &mut dyn Wire,
        sink: &mut dyn ReadingSink,
    ) {
        let Ok(Received::Record { channel, plaintext }) =
            self.channels
                .handle_message(now, entropy, flow_path(flow), &[], payload)
        else {
            return;
        };
        self.path_heard(now, channel);
        let mut bad = 0;
        for frame in frames(plaintext) {
            let Ok((kind, body)) = frame else {
                bad += 1;
                break;
            };
            if kind >= FIRST_APPLICATION_KIND
                && !self.handle_channel_frame(now, entropy, channel, (kind, body), wire, sink)
            {
                bad += 1;
            }
        }
        self.stats.bad_frames += bad;
    }

    /// Hands a frame of a channel to whom the channel is for; false if it is bad.
    pub(super) fn handle_channel_frame(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        channel: ChannelId,
        frame: (u8, &[u8]),
        wire: &mut dyn Wire,
        sink: &mut dyn ReadingSink,
    ) -> bool {
        // What authentication has to say comes before what the peer says.
        self.settle(now, entropy, wire);
        let Some(entry) = self.by_channel.get(&channel).copied() else {
            return true;
        };
        if (FIRST_KIND..=LAST_KIND).contains(&frame.0) && !matches!(entry.used_for, Use::Unknown { .. }) {
            return self.trust_frame(now, channel, entry.used_for, frame, wire);
        }
        if frame.0 == CANDIDATES && !matches!(entry.used_for, Use::Unknown { .. }) {
            return self.candidates_frame(now, entropy, (channel, entry.used_for), frame.1, wire);
        }
        match entry.used_for {
            Use::Registrar { neighbour } => self.registrar_frame(now, entropy, neighbour, frame, wire),
            // What was on its way in a channel that was left.
            Use::Uplink { uplink } if self.uplinks[uplink].channel() != Some(channel) => true,
            Use::Uplink { uplink } if is_command(frame.0) => self.command_frame(now, uplink, frame),
            Use::Uplink { uplink } => self.uplink_frame(now, uplink, frame.0, frame.1),
            Use::Member { link } => self.member_frame(now, channel, link, frame, wire),
            Use::Gateway { .. } if is_command(frame.0) => self.commands.gateway_frame(now, channel, frame),
            Use::Gateway { gateway, order } => {
                if frame.0 == SEAL_KEY {
                    self.gateway_key(now, channel, frame.1, sink, wire)
                } else {
                    self.gateway_frame(now, channel, (gateway, order), frame, sink)
                }
            }
            Use::Authority | Use::Asker => false,
            Use::Inlet { inlet } => {
                let portal = (channel, PortalKey::Inlet(inlet));
                self.portal_frame(now, entropy, portal, frame, sink)
            }
            Use::Outlet { outlet } => {
                let portal = (channel, PortalKey::Outlet(outlet));
                self.portal_frame(now, entropy, portal, frame, sink)
            }
            Use::Carrier { .. } => self.carrier_frame(now, entropy, channel, frame, wire, sink),
            Use::Unknown { .. } => self.keep_frame(channel, frame.0, frame.1),
        }
    }

    /// Takes a frame of a member for this relay's registrar; false if it is bad.
    fn member_frame(
        &mut self,
        now: Now,
        channel: ChannelId,
        link: LinkId,
        (kind, body): (u8, &[u8]),
        wire: &mut dyn Wire,
    ) -> bool {
        let Some(member) = self.channels.peer(channel) else {
            return false;
        };
        let Ok(frame) = RegistrarFrame::decode(kind, body) else {
            return false;
        };
        let Some(frame) = frame else { return true };
        if let RegistrarFrame::Stays { reason } = frame {
            self.drain_stays(channel, reason);
        }
        if let Some(answer) = self
            .router
            .handle_registrar_frame(now.instant, link, member, &frame)
        {
            if let (RegistrarFrame::Register { name, .. }, RegistrarFrame::Registered { .. }) =
                (&frame, &answer)
            {
                self.event(Event::NameRegistered {
                    member,
                    name: (*name).to_owned(),
                });
            }
            let mut out = Vec::new();
            answer.put(&mut out);
            self.send_frames(now, channel, &out, wire);
        }
        true
    }

    pub(super) fn handle_channel_output(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        wire: &mut dyn Wire,
        output: channel::Output,
    ) {
        match output {
            channel::Output::Transmit { channel, path, bytes } => {
                let entry = channel.and_then(|channel| self.by_channel.get(&channel));
                let flow = entry.map_or_else(|| FlowId::from_number(path.0), |entry| entry.flow);
                self.send(now, flow, &bytes, wire);
            }
            channel::Output::Established {
                channel,
                peer,
                role,
                suite,
                presentation,
                ..
            } => {
                if self.meet(now, channel, peer, suite, &presentation) {
                    self.handle_established(now, channel, role, wire);
                }
            }
            channel::Output::Presented {
                channel,
                presentation,
            } => self.handle_presented(now, channel, &presentation, wire),
            channel::Output::Sign { channel, message } => {
                self.outputs.push_back(Output::Sign { channel, message });
            }
            channel::Output::Proven { channel } => self.handle_proven(now, channel, wire),
            channel::Output::Closed { channel, reason } => {
                self.handle_closed(now, entropy, channel, reason, wire);
            }
            channel::Output::Pong { channel, round_trip } => self.path_answered(channel, round_trip),
        }
    }

    fn handle_established(&mut self, now: Now, channel: ChannelId, role: Role, wire: &mut dyn Wire) {
        let Some(entry) = self.by_channel.get(&channel).copied() else {
            self.close_channel(channel, CloseCode::BROKEN);
            return;
        };
        debug_assert!(
            (role == Role::Responder) == matches!(entry.used_for, Use::Unknown { .. }),
            "roles fit uses"
        );
        match entry.used_for {
            Use::Registrar { .. }
            | Use::Uplink { .. }
            | Use::Authority
            | Use::Inlet { .. }
            | Use::Carrier { .. } => {
                self.own_established(now, channel, wire);
            }
            Use::Unknown { service } => self.authorise(now, channel, service, wire),
            Use::Member { .. } | Use::Gateway { .. } | Use::Asker | Use::Outlet { .. } => {}
        }
    }

    /// A member may use this relay: its link becomes its own, if its channel came straight over one.
    pub(super) fn member_established(
        &mut self,
        now: Now,
        channel: ChannelId,
        member: Identifier,
        flow: FlowId,
        wire: &mut dyn Wire,
    ) -> bool {
        let link = self.router.link_of(flow).filter(|_| self.router.is_direct(flow));
        let Some(link) = link.filter(|link| self.router.attach(*link, member).is_ok()) else {
            return false;
        };
        self.set_use(channel, Use::Member { link });
        self.drain_attached(channel, link);
        if let Some(connection) = self.connection_of.get(link.index()).copied().flatten() {
            self.event(Event::MemberAttached { member, connection });
            self.tell_observed(now, channel, connection, wire);
        }
        true
    }

    /// Takes the identity key's signature that [`Output::Sign`] asked for, or the news that there is none.
    pub fn handle_signature(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        channel: ChannelId,
        signature: Option<Signature>,
        wire: &mut dyn Wire,
    ) {
        // Whether the channel is gone, or asks again since the identity has changed: outputs tell.
        let _ = self.channels.handle_signature(now, channel, signature.ok_or(()));
        self.settle(now, entropy, wire);
    }

    pub(super) fn set_use(&mut self, channel: ChannelId, used_for: Use) {
        if let Some(entry) = self.by_channel.get_mut(&channel) {
            entry.used_for = used_for;
        }
    }

    pub(super) fn refuse(&mut self, channel: ChannelId, peer: Identifier, service: &'static str) {
        self.stats.unauthorised += 1;
        self.event(Event::NotAuthorised { peer, service });
        self.close_channel(channel, CloseCode::NOT_AUTHORISED);
    }

    fn handle_closed(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        channel: ChannelId,
        reason: CloseReason,
        wire: &mut dyn Wire,
    ) {
        self.forget_access(channel);
        self.forget_lists(channel);
        self.direct.forget(channel);
        self.commands.gateway_down(now, channel);
        let Some(entry) = self.by_channel.remove(&channel) else {
            return;
        };
        self.by_flow.remove(&entry.flow);
        self.router.close(
            entry.flow,
            &mut Links {
                connection_of: &self.connection_of,
                carried: &mut self.carried,
                wire: &mut *wire,
            },
        );
        match entry.used_for {
            Use::Registrar { neighbour } => {
                if let Some(relay) = self.neighbours[neighbour].relay {
                    self.event(Event::ChannelLost { peer: relay, reason });
                }
                self.registrar_closed(now, entropy, neighbour, channel, wire);
            }
            Use::Uplink { uplink } => {
                let peer = self.uplinks[uplink].settings.collector;
                self.event(Event::ChannelLost { peer, reason });
                self.uplink_closed(now, entropy, uplink, channel);
            }
            Use::Member { link } => {
                self.drain_closed(channel);
                self.router.detach(
                    link,
                    &mut Links {
                        connection_of: &self.connection_of,
                        carried: &mut self.carried,
                        wire,
                    },
                );
            }
            Use::Gateway {
                gateway: Some(gateway),
                ..
            } => self.gateway_closed(channel, gateway),
            Use::Authority => self.authority_closed(now, entropy),
            Use::Inlet { inlet } => {
                if let Some(peer) = self.portals.peer_settings(inlet).map(|settings| settings.peer) {
                    self.event(Event::ChannelLost { peer, reason });
                }
                self.inlet_closed(now, entropy, inlet, channel);
            }
            Use::Outlet { outlet } => self.outlet_closed(now, channel, outlet),
            Use::Carrier { neighbour } => self.carrier_closed(now, entropy, channel, neighbour, wire),
            Use::Gateway { gateway: None, .. } | Use::Asker | Use::Unknown { .. } => {}
        }
    }

    pub(super) fn handle_router_output(&mut self, _now: Now, output: route::Output) {
        match output {
            route::Output::FlowLost { flow, .. } => {
                if let Some(channel) = self.by_flow.remove(&flow) {
                    if matches!(
                        self.by_channel.get(&channel),
                        Some(ChannelEntry {
                            used_for: Use::Unknown { .. },
                            ..
                        })
                    ) {
                        // Its handshake was never finished, so nobody will say that it ended.
                        self.by_channel.remove(&channel);
                    }
                    // The path is gone for good: what runs in the channel is taken up again in a new one.
                    self.close_channel(channel, CloseCode::BROKEN);
                }
            }
            route::Output::LeaseExpired(_) => {}
        }
    }
}
