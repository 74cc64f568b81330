//! Live proofs that this node demands of those it reaches itself (PROTOCOL.md §5.2).
//!
//! Who opens a channel knows whom it wants; what it may still want is the signature of that identity's key. Which peers are asked
//! for it is told to the node beforehand, so no channel waits for a decision: it waits for the proof, and is not used before.

use crate::{
    channel::{ChannelId, CloseCode},
    identity::Identifier,
    node::{Node, Service, Use, Wire},
    time::Now,
    trust::Trust,
};

impl Node {
    /// Returns those to whom this node opens channels, and for which of their services: once each.
    #[must_use]
    pub fn own_peers(&self) -> Vec<(Service, Identifier)> {
        let relays = self.neighbours.iter().filter_map(|neighbour| neighbour.relay);
        let collectors = self.uplinks.iter().map(|uplink| uplink.settings.collector);
        let own = self.channels.local().identifier();
        let authority = self.trust.as_ref().and_then(Trust::authority);
        let mut peers: Vec<(Service, Identifier)> = relays
            .map(|relay| (Service::Registrar, relay))
            .chain(collectors.map(|collector| (Service::Uplink, collector)))
            .chain(self.portals.peers().map(|peer| (Service::Portal, peer)))
            .chain(
                authority
                    .filter(|authority| *authority != own)
                    .map(|authority| (Service::Authority, authority)),
            )
            .collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// Demands a live proof of these peers from now on, in the channels that are open, too; their channels are used on until it
    /// is there, and end without it.
    pub fn set_proof_demands(&mut self, now: Now, demands: impl IntoIterator<Item = (Service, Identifier)>) {
        self.proof_demands = demands.into_iter().collect();
        let open = self
            .known
            .iter()
            .filter(|(_, known)| known.admitted && !known.live_proof);
        let open: Vec<ChannelId> = open.map(|(channel, _)| *channel).collect();
        for channel in open {
            if self.wants_proof(channel) {
                self.demand_own(now, channel);
            }
        }
    }

    /// Returns whether this node has to have a proof in a channel it opened.
    fn wants_proof(&self, channel: ChannelId) -> bool {
        let Some(used_for) = self.by_channel.get(&channel).map(|entry| entry.used_for) else {
            return false;
        };
        let (service, in_settings) = match used_for {
            Use::Registrar { .. } | Use::Carrier { neighbour: Some(_) } => (Service::Registrar, false),
            Use::Authority => (Service::Authority, false),
            Use::Uplink { uplink } => {
                let settings = self.uplinks.get(uplink).map(|uplink| &uplink.settings);
                (
                    Service::Uplink,
                    settings.is_some_and(|settings| settings.live_proof),
                )
            }
            Use::Inlet { inlet } => {
                let settings = self.portals.peer_settings(inlet);
                (
                    Service::Portal,
                    settings.is_some_and(|settings| settings.live_proof),
                )
            }
            Use::Member { .. }
            | Use::Gateway { .. }
            | Use::Asker
            | Use::Outlet { .. }
            | Use::Carrier { neighbour: None }
            | Use::Unknown { .. } => return false,
        };
        let peer = self.known.get(&channel).map(|known| known.peer);
        in_settings || peer.is_some_and(|peer| self.proof_demands.contains(&(service, peer)))
    }

    fn demand_own(&mut self, now: Now, channel: ChannelId) {
        if self.channels.demand_proof(now, channel).is_err() {
            self.close_channel(channel, CloseCode::LIMIT);
        }
    }

    /// Uses a channel that this node opened, once its peer has proven what it has to.
    pub(in crate::node) fn own_established(&mut self, now: Now, channel: ChannelId, wire: &mut dyn Wire) {
        if self.wants_proof(channel) {
            self.demand_own(now, channel);
        } else {
            self.own_ready(now, channel, wire);
        }
    }

    /// Uses a channel that this node opened. Does nothing if it is in use.
    pub(super) fn own_ready(&mut self, now: Now, channel: ChannelId, wire: &mut dyn Wire) {
        if self.known.get(&channel).is_none_or(|known| known.admitted) {
            return;
        }
        match self.by_channel.get(&channel).map(|entry| entry.used_for) {
            Some(Use::Registrar { neighbour }) => {
                self.registrar_established(now, neighbour, wire);
                self.admitted(now, channel, wire);
            }
            Some(Use::Uplink { uplink }) => {
                self.uplink_established(now, uplink, channel);
                self.admitted(now, channel, wire);
            }
            Some(Use::Authority) => self.authority_established(now, channel, wire),
            Some(Use::Inlet { inlet }) => {
                self.inlet_established(now, inlet, channel);
                self.admitted(now, channel, wire);
            }
            Some(Use::Carrier {
                neighbour: Some(neighbour),
            }) => {
                if self.carrier_established(now, channel, Some(neighbour), wire) {
                    self.admitted(now, channel, wire);
                } else {
                    self.close_channel(channel, CloseCode::LIMIT);
                }
            }
            Some(
                Use::Carrier { neighbour: None }
                | Use::Member { .. }
                | Use::Gateway { .. }
                | Use::Asker
                | Use::Outlet { .. }
                | Use::Unknown { .. },
            )
            | None => {}
        }
    }
}
