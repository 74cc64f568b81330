//! Inlets and outlets that come and go while the node runs.
//!
//! ```text
//!  control thread: Book ─ checks, reads, starts threads ─▶ Change ─▶ shard 0: Portals::change ─ listens, or ends streams
//! ```
//!
//! An entry of the tables keeps its place while anything refers to it: one that was removed stands there until its last stream has
//! ended, and the next takes its place then.

use std::collections::{BTreeMap, BTreeSet};

use fieldgate_config::{
    settings::portal::{OutletTarget, PortalInlet, PortalOutlet},
    target::InletAddress,
};
use fieldgate_io::{DatagramId, Io, ListenerId};
use fieldgate_proto::{
    identity::Identifier,
    node::{PortalKey, PortalPeerSettings, Service},
    portal::ResetReason,
};

use super::{
    End, Ground, Inlet, Key, Outlet, Place, Portal, Portals, StartError, arriving, audit, report, serial,
    trail::Trail,
};
use crate::{
    control::portal::PortalKind,
    runtime::{shard::Purpose, threads},
};

/// Where an inlet or outlet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortalOrigin {
    /// The node's file.
    File,
    /// A command, until the node ends.
    Command,
    /// A command, also after a restart.
    Kept,
}

impl PortalOrigin {
    /// Returns it in words.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Command => "command",
            Self::Kept => "command, kept",
        }
    }
}

/// What is to change, with everything prepared that may take time.
pub(crate) enum Change {
    /// An inlet more.
    AddInlet(Box<NewInlet>),
    /// An outlet more.
    AddOutlet(Box<NewOutlet>),
    /// One less.
    Remove {
        /// Which side.
        kind: PortalKind,
        /// Its name.
        name: String,
        /// End an inlet's streams, too.
        now: bool,
    },
}

/// An inlet before it listens.
pub(crate) struct NewInlet {
    settings: PortalInlet,
    logins: Option<Vec<arriving::Login>>,
    origin: PortalOrigin,
    /// The node it leads to.
    pub(crate) peer: PortalPeerSettings,
    /// Of whom a live proof is demanded when this node reaches them.
    pub(crate) proof_demands: Vec<(Service, Identifier)>,
}

impl NewInlet {
    /// Reads the passwords of its users.
    ///
    /// # Errors
    /// [`StartError`] for a password that cannot be read.
    pub(crate) fn new(
        settings: PortalInlet,
        origin: PortalOrigin,
        peer: PortalPeerSettings,
    ) -> Result<Self, StartError> {
        let logins = Inlet::logins(&settings)?;
        Ok(Self {
            settings,
            logins,
            origin,
            peer,
            proof_demands: Vec::new(),
        })
    }
}

/// An outlet before it is known.
pub(crate) struct NewOutlet {
    settings: PortalOutlet,
    line: Option<serial::Line>,
    origin: PortalOrigin,
}

impl NewOutlet {
    /// Starts the thread of its line, if it leads to one.
    ///
    /// # Errors
    /// [`StartError`] for a line that can have no thread.
    pub(crate) fn new(settings: PortalOutlet, origin: PortalOrigin) -> Result<Self, StartError> {
        Ok(Self {
            line: Outlet::line(&settings)?,
            settings,
            origin,
        })
    }
}

impl Inlet {
    fn logins(inlet: &PortalInlet) -> Result<Option<Vec<arriving::Login>>, StartError> {
        let socks = inlet.socks.as_ref();
        socks
            .map(|socks| arriving::logins(&inlet.name, socks))
            .transpose()
    }

    fn of(
        settings: &PortalInlet,
        socks: Option<Vec<arriving::Login>>,
        session: PortalKey,
        portal: Portal,
    ) -> Self {
        Self {
            portal,
            listen: settings.listen.to_string(),
            is_udp: matches!(settings.listen, InletAddress::Udp(_)),
            session,
            outlet: settings.outlet.clone(),
            allow: settings.allow.clone(),
            accept_proxy_from: settings.accept_proxy_from.clone(),
            socks,
        }
    }

    /// Makes one of those that are there from the start.
    pub(super) fn first(
        settings: &PortalInlet,
        session: usize,
        trail: &Trail,
        origin: PortalOrigin,
    ) -> Result<Self, StartError> {
        let portal = Portal::new(&settings.name, settings.streams_max, settings.idle, trail, origin);
        Ok(Self::of(
            settings,
            Self::logins(settings)?,
            PortalKey::Inlet(session),
            portal,
        ))
    }
}

impl Outlet {
    fn line(outlet: &PortalOutlet) -> Result<Option<serial::Line>, StartError> {
        match &outlet.target {
            OutletTarget::Serial { device, line } => serial::Line::start(device, *line).map(Some),
            OutletTarget::Tcp(_) | OutletTarget::Unix(_) | OutletTarget::Udp(_) | OutletTarget::Asked(_) => {
                Ok(None)
            }
        }
    }

    fn of(settings: &PortalOutlet, line: Option<serial::Line>, portal: Portal) -> Self {
        Self {
            portal,
            line,
            target: settings.target.clone(),
            send_proxy: settings.send_proxy,
            keep_alive: settings.keep_alive,
            allow: settings.allow.clone(),
        }
    }

    /// Makes one of those that are there from the start.
    pub(super) fn first(
        settings: &PortalOutlet,
        trail: &Trail,
        origin: PortalOrigin,
    ) -> Result<Self, StartError> {
        let portal = Portal::new(&settings.name, settings.streams_max, settings.idle, trail, origin);
        Ok(Self::of(settings, Self::line(settings)?, portal))
    }
}

/// How an inlet listens.
pub(crate) enum Listening {
    /// For connections.
    Connections(ListenerId),
    /// For datagrams.
    Datagrams(DatagramId),
}

impl Portals {
    /// Carries out a change; returns where an inlet listens, or what an outlet leads to.
    ///
    /// # Errors
    /// In words, why it cannot be. Nothing has changed then.
    pub(crate) fn change(
        &mut self,
        ground: &mut Ground<'_>,
        listeners: &mut BTreeMap<ListenerId, Purpose>,
        change: Change,
    ) -> Result<String, StartError> {
        match change {
            Change::AddInlet(inlet) => self.add_inlet(ground, listeners, *inlet),
            Change::AddOutlet(outlet) => Ok(self.add_outlet(ground, *outlet)),
            Change::Remove {
                kind: PortalKind::Inlet,
                name,
                now,
            } => self.remove_inlet(ground, listeners, &name, now),
            Change::Remove {
                kind: PortalKind::Outlet,
                name,
                ..
            } => self.remove_outlet(ground, &name),
        }
    }

    fn add_inlet(
        &mut self,
        ground: &mut Ground<'_>,
        listeners: &mut BTreeMap<ListenerId, Purpose>,
        new: NewInlet,
    ) -> Result<String, StartError> {
        let (listening, address) = threads::listen_inlet(ground.io, &new.settings)?;
        let now = ground.now;
        let Some(session) = ground.node.add_portal_peer(now.instant, new.peer) else {
            unlisten(ground.io, &listening);
            return Err(
                StartError::new("inlets have led to too many nodes since the start")
                    .hint("write this one into the file and restart the node"),
            );
        };
        ground.node.set_proof_demands(now, new.proof_demands);
        let settings = &new.settings;
        let portal = Portal::new(
            &settings.name,
            settings.streams_max,
            settings.idle,
            &self.trail,
            new.origin,
        );
        let inlet = Inlet::of(settings, new.logins, PortalKey::Inlet(session), portal);
        let index = place_in(&mut self.inlets, inlet, |inlet| &inlet.portal);
        match listening {
            Listening::Connections(listener) => {
                listeners.insert(listener, Purpose::Inlet { inlet: index });
            }
            Listening::Datagrams(socket) => self.set_datagrams(index, socket),
        }
        self.set_listening(index, address.clone());
        if let Some(inlet) = self.inlets.get(index) {
            audit::changed(ground, &inlet.portal, "inlet", "added", &address);
        }
        Ok(address)
    }

    fn add_outlet(&mut self, ground: &mut Ground<'_>, new: NewOutlet) -> String {
        let settings = &new.settings;
        let portal = Portal::new(
            &settings.name,
            settings.streams_max,
            settings.idle,
            &self.trail,
            new.origin,
        );
        let address = report::target_text(&settings.target);
        audit::changed(ground, &portal, "outlet", "added", &address);
        let outlet = Outlet::of(settings, new.line, portal);
        place_in(&mut self.outlets, outlet, |outlet| &outlet.portal);
        self.list_outlets(ground);
        address
    }

    /// Ends an inlet: nobody gets in any more. Its streams go on, unless they are to end now; flows of datagrams end with the socket
    /// that they share.
    fn remove_inlet(
        &mut self,
        ground: &mut Ground<'_>,
        listeners: &mut BTreeMap<ListenerId, Purpose>,
        name: &str,
        now: bool,
    ) -> Result<String, StartError> {
        let found = self.inlets.iter_mut().enumerate();
        let found = found
            .filter(|(_, inlet)| !inlet.portal.is_gone)
            .find(|(_, inlet)| inlet.portal.name == name);
        let Some((index, inlet)) = found else {
            return Err(StartError::new(format!("there is no inlet {name}")));
        };
        inlet.portal.is_gone = true;
        let (session, address, is_udp) = (inlet.session, inlet.listen.clone(), inlet.is_udp);
        audit::changed(ground, &inlet.portal, "inlet", "removed", &address);
        listeners.retain(|listener, purpose| {
            let is_of_others = *purpose != Purpose::Inlet { inlet: index };
            if !is_of_others {
                ground.io.unlisten(*listener);
            }
            is_of_others
        });
        // Who has not said what it wants does not get in any more either.
        self.turn_all_away(ground, index, "the inlet was removed");
        if now || is_udp {
            self.end_all(ground, Place::Inlet(index));
        }
        if let Some(socket) = self.take_datagrams(index) {
            ground.io.unbind_datagrams(socket);
        }
        self.leave_unused(ground, session);
        Ok(address)
    }

    /// Ends an outlet and its streams.
    fn remove_outlet(&mut self, ground: &mut Ground<'_>, name: &str) -> Result<String, StartError> {
        let found = self.outlets.iter_mut().enumerate();
        let found = found
            .filter(|(_, outlet)| !outlet.portal.is_gone)
            .find(|(_, outlet)| outlet.portal.name == name);
        let Some((index, outlet)) = found else {
            return Err(StartError::new(format!("there is no outlet {name}")));
        };
        outlet.portal.is_gone = true;
        // Its thread ends when the line is free.
        outlet.line = None;
        let address = report::target_text(&outlet.target);
        audit::changed(ground, &outlet.portal, "outlet", "removed", &address);
        self.end_all(ground, Place::Outlet(index));
        self.list_outlets(ground);
        Ok(address)
    }

    /// Ends everything that an inlet or outlet carries, and tells the other side that it was closed.
    fn end_all(&mut self, ground: &mut Ground<'_>, place: Place) {
        let streams = self.streams.iter();
        let keys: Vec<Key> = streams
            .filter(|(_, stream)| stream.place == place)
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.end(ground, key, End::Here(ResetReason::Closed));
        }
    }

    /// Says anew whose inlets may lead here.
    fn list_outlets(&self, ground: &mut Ground<'_>) {
        let outlets = || self.outlets.iter().filter(|outlet| !outlet.portal.is_gone);
        let allowed: BTreeSet<Identifier> = outlets().flat_map(|outlet| &outlet.allow).copied().collect();
        let listed = outlets().next().is_some().then_some(allowed);
        ground.node.set_portal_outlets(listed);
    }

    /// Leaves a node that no inlet leads to any more, once the last stream has ended.
    pub(super) fn leave_unused(&self, ground: &mut Ground<'_>, session: PortalKey) {
        let PortalKey::Inlet(index) = session else {
            return;
        };
        let mut inlets = self.inlets.iter().filter(|inlet| inlet.session == session);
        if inlets.all(|inlet| inlet.portal.is_vacant()) {
            ground.node.leave_portal_peer(index);
        }
    }
}

/// Puts an entry into a table, where one that was removed has left a place; returns where.
fn place_in<T>(table: &mut Vec<T>, entry: T, portal: impl Fn(&T) -> &Portal) -> usize {
    let vacant = table.iter_mut().position(|entry| portal(entry).is_vacant());
    let index = vacant.unwrap_or(table.len());
    match table.get_mut(index) {
        Some(place) => *place = entry,
        None => table.push(entry),
    }
    index
}

fn unlisten(io: &mut Io, listening: &Listening) {
    match listening {
        Listening::Connections(listener) => io.unlisten(*listener),
        Listening::Datagrams(socket) => io.unbind_datagrams(*socket),
    }
}
