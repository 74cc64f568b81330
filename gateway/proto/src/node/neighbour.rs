//! Nodes that this node dials and keeps a link to.

use std::net::SocketAddr;

use super::{
    ConnectionKey, Event, ForwardingSettings, NeighbourSettings, Node, Output, Use, WaySettings, Wire,
    drain::{Leaving, Rest},
    settings::REGISTRAR,
    way::BACKOFF,
};
use crate::{
    channel::{ChannelId, PqPolicy},
    entropy::Entropy,
    identity::Identifier,
    link::Backoff,
    relay::{RefusedReason, RegistrarFrame, Registration, RegistrationOutput, RegistrationState},
    route::{Address, LinkId, Route},
    time::{Instant, Now},
};

/// One node to dial.
///
/// ```text
///  Down ─retry_at─▶ Dialling ─connected─▶ Greeting ─Hello─▶ (relay) Attaching ─Established─▶ Ready
///   ▲                  │                     │            └ (collector dialled directly) ─────▶ ▲
///   └──── connection gone, dial failed; channel to the registrar closed: the connection is closed ┘
/// ```
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) relay: Option<Identifier>,
    pub(super) pq: PqPolicy,
    pub(super) state: NeighbourState,
    pub(super) link: Option<LinkId>,
    pub(super) channel: Option<ChannelId>,
    registrations: Vec<Registration>,
    /// What is forwarded over its link, if both are relays.
    forwarding: Option<ForwardingSettings>,
    /// The link that is attached for that.
    pub(super) attached: Option<LinkId>,
    backoff: Backoff,
    /// The way to it, if its link lies in a channel.
    pub(super) over: Option<WaySettings>,
    /// That channel, from the beginning of its handshake on.
    pub(super) carrier: Option<ChannelId>,
    /// Set while its relay wants to be left.
    pub(super) leaving: Option<Leaving>,
    pub(super) rest: Rest,
    /// Dialled only at addresses that the peer has told.
    on_demand: bool,
    /// Where its relay says that this node's link comes from.
    pub(super) observed: Option<SocketAddr>,
}

/// Where a neighbour stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Not connected; dialled again at this time.
    Down {
        /// When.
        retry_at: Instant,
    },
    /// The caller was asked to dial.
    Dialling,
    /// Connected; its Hello has not come.
    Greeting {
        /// The connection.
        connection: ConnectionKey,
    },
    /// The channel to its registrar is being established.
    Attaching {
        /// The connection.
        connection: ConnectionKey,
    },
    /// Channels can be opened over it.
    Ready {
        /// The connection.
        connection: ConnectionKey,
    },
}

impl Neighbour {
    pub(super) fn new(
        now: Instant,
        settings: &NeighbourSettings,
        over: Option<WaySettings>,
        on_demand: bool,
    ) -> Self {
        let registrations = settings.registrations.iter().map(|registration| {
            Registration::new(&registration.name).expect("names were checked when the settings were made")
        });
        Self {
            relay: settings.relay,
            pq: settings.pq,
            state: NeighbourState::Down { retry_at: now },
            link: None,
            channel: None,
            registrations: registrations.collect(),
            forwarding: settings.forwarding.clone(),
            attached: None,
            backoff: Backoff::new(BACKOFF),
            over,
            carrier: None,
            leaving: None,
            rest: Rest::new(),
            on_demand,
            observed: None,
        }
    }

    /// Returns the names that its relay has confirmed.
    pub(super) fn registered(&self) -> impl Iterator<Item = &str> {
        let registered = self
            .registrations
            .iter()
            .filter(|registration| matches!(registration.state(), RegistrationState::Registered { .. }));
        registered.map(Registration::name)
    }

    /// Returns whether a name is to be registered there.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.registrations
            .iter()
            .any(|registration| registration.name() == name)
    }

    /// Returns its connection, if there is one.
    pub(super) const fn connection(&self) -> Option<ConnectionKey> {
        match self.state {
            NeighbourState::Down { .. } | NeighbourState::Dialling => None,
            NeighbourState::Greeting { connection }
            | NeighbourState::Attaching { connection }
            | NeighbourState::Ready { connection } => Some(connection),
        }
    }

    /// Notes that the connection is gone or could not be made, and when to dial again.
    pub(super) fn handle_failure(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        self.state = NeighbourState::Down {
            retry_at: self.backoff.handle_failure(now, entropy),
        };
        // What was attached went with the link.
        self.link = None;
        self.attached = None;
        self.channel = None;
        self.carrier = None;
        self.leaving = None;
        self.observed = None;
        self.rest.is_resting = false;
        for registration in &mut self.registrations {
            registration.handle_channel_down();
            while registration.poll_output().is_some() {}
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let dial = match self.state {
            NeighbourState::Down { retry_at } => Some(retry_at).filter(|_| !self.on_demand),
            NeighbourState::Dialling
            | NeighbourState::Greeting { .. }
            | NeighbourState::Attaching { .. }
            | NeighbourState::Ready { .. } => None,
        };
        self.registrations
            .iter()
            .filter_map(Registration::poll_timeout)
            .chain(dial)
            .chain(self.leaving.as_ref().map(Leaving::poll_timeout))
            .min()
    }
}

impl Node {
    /// Dials neighbours that are down, and renews registrations.
    pub(super) fn time_out_neighbours(&mut self, now: Now, entropy: &mut dyn Entropy, wire: &mut dyn Wire) {
        for index in 0..self.neighbours.len() {
            let neighbour = &mut self.neighbours[index];
            if let NeighbourState::Down { retry_at } = neighbour.state
                && now.instant >= retry_at
                && !neighbour.on_demand
            {
                neighbour.rest.is_resting = false;
                if neighbour.over.is_some() {
                    self.dial_carried(now, entropy, index, wire);
                } else {
                    neighbour.state = NeighbourState::Dialling;
                    self.outputs.push_back(Output::Dial { neighbour: index });
                }
            }
            for registration in &mut self.neighbours[index].registrations {
                registration.handle_timeout(now.instant, entropy);
            }
            self.settle_registrations(now, index, wire);
        }
    }

    /// Returns the link of a neighbour over which channels can be opened.
    pub(super) fn ready_link(&self, index: usize) -> Option<LinkId> {
        let neighbour = self.neighbours.get(index)?;
        matches!(neighbour.state, NeighbourState::Ready { .. }).then_some(neighbour.link)?
    }

    /// Goes on with a neighbour whose Hello came.
    pub(super) fn neighbour_greeted(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        index: usize,
        (connection, link): (ConnectionKey, LinkId),
        wire: &mut dyn Wire,
    ) {
        let Some(neighbour) = self.neighbours.get_mut(index) else {
            return;
        };
        neighbour.link = Some(link);
        let Some(relay) = neighbour.relay else {
            neighbour.state = NeighbourState::Ready { connection };
            neighbour.backoff.handle_success(now.instant);
            self.wake_uplinks(now);
            self.portals.wake(now.instant);
            self.wake_authority(now);
            self.look_at_direct(now, entropy, index, wire);
            return;
        };
        neighbour.state = NeighbourState::Attaching { connection };
        let pq = neighbour.pq;
        let route = Route::new([Address::Service(REGISTRAR)]).expect("one service makes a route");
        let used_for = Use::Registrar { neighbour: index };
        let opened = self.open_channel(now, entropy, (link, &route), (relay, pq, used_for), wire);
        if let Some((channel, _)) = opened {
            self.neighbours[index].channel = Some(channel);
        }
    }

    /// Attaches the link to a relay for forwarding, if this node is one as well and forwards there: the channel to its registrar
    /// has said who is at the other end (PROTOCOL.md §7).
    fn attach_neighbour(&mut self, index: usize) {
        let neighbour = &mut self.neighbours[index];
        let (Some(relay), Some(link), Some(forwarding)) =
            (neighbour.relay, neighbour.link, &neighbour.forwarding)
        else {
            return;
        };
        let reach = forwarding.reach.clone();
        match self.router.attach_relay(link, relay, &forwarding.name, reach) {
            Ok(()) => neighbour.attached = Some(link),
            Err(error) => self.event(Event::RelayNotAttached {
                neighbour: index,
                error,
            }),
        }
    }

    pub(super) fn registrar_established(&mut self, now: Now, index: usize, wire: &mut dyn Wire) {
        let Some(connection) = self.neighbours[index].connection() else {
            return;
        };
        self.attach_neighbour(index);
        let neighbour = &mut self.neighbours[index];
        neighbour.state = NeighbourState::Ready { connection };
        neighbour.backoff.handle_success(now.instant);
        for registration in &mut neighbour.registrations {
            registration.handle_channel_up(now.instant);
        }
        let link = neighbour.link;
        self.attach_cluster_relay(index, link);
        self.event(Event::Attached { neighbour: index });
        self.settle_registrations(now, index, wire);
        self.wake_carried(now);
        self.wake_uplinks(now);
        self.portals.wake(now.instant);
        self.wake_authority(now);
    }

    /// The channel to a registrar is gone. Without it nothing is forwarded, so the connection is given up as well.
    pub(super) fn registrar_closed(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        index: usize,
        channel: ChannelId,
        wire: &mut dyn Wire,
    ) {
        let neighbour = &self.neighbours[index];
        if neighbour.channel != Some(channel) {
            return;
        }
        if let Some(connection) = neighbour.connection() {
            self.forget_connection(now, entropy, connection, wire);
            self.close_connection(connection);
        }
    }

    /// Takes a frame of a relay's registrar; false if it is bad.
    pub(super) fn registrar_frame(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        index: usize,
        (kind, body): (u8, &[u8]),
        wire: &mut dyn Wire,
    ) -> bool {
        let Ok(frame) = RegistrarFrame::decode(kind, body) else {
            return false;
        };
        let Some(frame) = frame else { return true };
        if let RegistrarFrame::Drain { within_secs } = frame {
            self.neighbour_drains(now, index, within_secs);
        }
        if let RegistrarFrame::Observed { address } = frame {
            self.take_observed(now, index, address, wire);
        }
        for registration in &mut self.neighbours[index].registrations {
            registration.handle_frame(now.instant, &frame, entropy);
        }
        self.settle_registrations(now, index, wire);
        true
    }

    /// Sends what registrations have to say.
    fn settle_registrations(&mut self, now: Now, index: usize, wire: &mut dyn Wire) {
        let mut frames = Vec::new();
        let neighbour = &mut self.neighbours[index];
        for registration in &mut neighbour.registrations {
            while let Some(output) = registration.poll_output() {
                let name = registration.name();
                match output {
                    RegistrationOutput::SendRegister { request } => {
                        RegistrarFrame::Register { request, name }.put(&mut frames);
                    }
                    RegistrationOutput::Registered { .. } => {
                        let event = Event::Registered {
                            neighbour: index,
                            name: name.to_owned(),
                        };
                        self.outputs.push_back(Output::Event(event));
                    }
                    RegistrationOutput::Refused { reason } => {
                        let event = Event::RegistrationRefused {
                            neighbour: index,
                            name: name.to_owned(),
                            reason,
                        };
                        self.outputs.push_back(Output::Event(event));
                    }
                    RegistrationOutput::Lost => {}
                }
            }
        }
        if let (Some(channel), false) = (neighbour.channel, frames.is_empty()) {
            self.send_frames(now, channel, &frames, wire);
        }
    }

    /// Returns the index of the neighbour that a channel's flow comes by.
    pub(super) fn neighbour_of(&self, channel: ChannelId) -> Option<usize> {
        let entry = self.by_channel.get(&channel)?;
        let link = self.router.link_of(entry.flow)?;
        let connection = (*self.connection_of.get(link.index())?)?;
        self.connections.get(&connection)?.neighbour
    }

    /// Returns where each neighbour stands, with the names confirmed and those refused there, in the order of the settings.
    pub fn neighbours(&self) -> impl Iterator<Item = NeighbourView<'_>> + '_ {
        self.neighbours.iter().map(|neighbour| NeighbourView {
            state: neighbour.state,
            forwarding: neighbour.forwarding.as_ref(),
            attached: neighbour.attached.is_some(),
            registrations: &neighbour.registrations,
        })
    }
}

/// What can be seen of a neighbour.
#[derive(Clone, Copy, Debug)]
pub struct NeighbourView<'a> {
    /// Where it stands.
    pub state: NeighbourState,
    /// What is forwarded over its link, if both are relays.
    pub forwarding: Option<&'a ForwardingSettings>,
    /// Whether that is so now.
    pub attached: bool,
    registrations: &'a [Registration],
}

impl NeighbourView<'_> {
    /// Returns the names this node wants there, whether each is registered, and what the relay said if it refused.
    pub fn names(&self) -> impl Iterator<Item = (&str, bool, Option<RefusedReason>)> + '_ {
        self.registrations
            .iter()
            .map(|registration| match registration.state() {
                RegistrationState::Registered { .. } => (registration.name(), true, None),
                RegistrationState::Waiting { refused, .. } => (registration.name(), false, refused),
                RegistrationState::NoChannel | RegistrationState::Asking => {
                    (registration.name(), false, None)
                }
            })
    }
}
