//! The trunk: what one shard of each node owns beside its clients. Links, channels, relay, journal, delivery.

use std::{borrow::Cow, collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use fieldgate_config::address::HostPort;
use fieldgate_io::{ConnectionId, Io, LocalPeer};
use fieldgate_proto::{
    identity::Identifier,
    journal::JournalState,
    link::Class,
    node::{ConnectionKey, Node, Output, RecordSource, Verdict},
    time::{Instant, Now},
};
use tokio::sync::mpsc;

use super::{
    Question, TrunkMessage,
    accepting::Accepting,
    classes::class_of,
    clock::Clock,
    collector::Collecting,
    commanding::Commanding,
    desk::DeskRequest,
    entropy::SystemEntropy,
    exchange::command::Outbound,
    journal::JournalFiles,
    links::{Layers, Received},
    portals::{Portals, staged::Takers},
};
use crate::status::{
    ClusterStatus, CommandsStatus, JournalStatus, LedgerStatus, NetworkStatus, PortalsStatus, SinkStatus,
    SourceStatus, TrustStatus, UplinkStatus,
};

/// The links' send buffers, as the node of a trunk wants them.
macro_rules! wire {
    ($trunk:expr, $io:expr) => {
        $crate::runtime::links::IoWire {
            io: $io,
            layers: &mut $trunk.layers,
        }
    };
}

mod cluster;
mod commands;
mod complaints;
pub(crate) mod dialling;
mod direct;
mod draining;
mod events;
mod portals;
mod quic;
mod report;

pub(crate) use cluster::StoreDesk;
use dialling::{Dialling, Neighbour};

/// How a link is listened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkKind {
    /// TCP and nothing else.
    Tcp,
    /// A WebSocket, with TLS or behind a proxy that ends it.
    WebSocket,
}

/// An address, to be resolved by the control thread.
pub(crate) struct Resolve {
    pub(crate) wanted: Wanted,
    pub(crate) address: HostPort,
}

/// What an address is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// To dial a neighbour.
    Neighbour {
        /// Its number.
        neighbour: usize,
        /// Which of its addresses.
        form: usize,
    },
    /// For a stream of an outlet, by the number of the question.
    Portal(u64),
}

/// Names for what the node counts by number.
pub(crate) struct Names {
    /// Addresses of the neighbours.
    pub(crate) neighbours: Vec<Neighbour>,
    /// Names of the uplinks.
    pub(crate) uplinks: Vec<String>,
    /// What the file calls members of this relay.
    pub(crate) members: BTreeMap<Identifier, String>,
}

/// What the trunk owns; see the [module](self).
pub(crate) struct Trunk {
    node: Node,
    pub(crate) journal: Option<JournalFiles>,
    commit_delay: Duration,
    /// Since when records wait to be flushed.
    pending_since: Option<Instant>,
    /// Lanes of which uplinks have not been told how far they are, by the number of their class.
    untold: [bool; 3],
    /// What happened to uplinks that an operator should know of, by uplink and lane.
    uplink_notes: BTreeMap<(usize, Class), String>,
    collecting: Collecting,
    commanding: Commanding,
    portals: Portals,
    /// Commands for devices, on their way to the broker.
    outbound: Vec<Outbound>,
    /// Whether the node may have something to say that waits for the end of a turn.
    is_due: bool,
    names: Names,
    resolve: mpsc::Sender<Resolve>,
    desk: mpsc::Sender<DeskRequest>,
    /// The way to the store of the cluster, where this node is of one.
    store: Option<StoreDesk>,
    /// Whether the file has `[trust]` or `[authority]`.
    belongs: bool,
    is_authority: bool,
    clock: Clock,
    /// Whom the log has complained of.
    complaints: complaints::Complaints,
    /// Neighbours being dialled.
    dialling: Dialling,
    /// What lies between links and their sockets.
    layers: Layers,
    /// Addresses of connections, for status and log.
    peers: BTreeMap<ConnectionKey, String>,
    /// For the other shards: which readings the journal takes.
    accepting: Arc<Accepting>,
}

/// The trunk's part of the status.
#[derive(Default)]
pub(crate) struct TrunkReport {
    pub(crate) network: NetworkStatus,
    pub(crate) journal: Option<JournalStatus>,
    pub(crate) uplinks: Vec<UplinkStatus>,
    pub(crate) sources: Vec<SourceStatus>,
    pub(crate) sinks: Vec<SinkStatus>,
    pub(crate) ledger: Option<LedgerStatus>,
    pub(crate) delivered: u64,
    pub(crate) trust: Option<TrustStatus>,
    pub(crate) commands: Option<CommandsStatus>,
    pub(crate) portals: Option<PortalsStatus>,
    pub(crate) cluster: Option<ClusterStatus>,
}

/// What a trunk is made of.
pub(crate) struct Parts {
    pub(crate) node: Node,
    pub(crate) journal: Option<JournalFiles>,
    pub(crate) commit_delay: Duration,
    pub(crate) collecting: Collecting,
    pub(crate) commanding: Commanding,
    pub(crate) portals: Portals,
    pub(crate) names: Names,
    pub(crate) layers: Layers,
    pub(crate) resolve: mpsc::Sender<Resolve>,
    pub(crate) desk: mpsc::Sender<DeskRequest>,
    pub(crate) store: Option<StoreDesk>,
    pub(crate) belongs: bool,
    pub(crate) is_authority: bool,
    pub(crate) clock: Clock,
    pub(crate) accepting: Arc<Accepting>,
}

impl Trunk {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            node: parts.node,
            journal: parts.journal,
            commit_delay: parts.commit_delay,
            pending_since: None,
            untold: [true; 3],
            uplink_notes: BTreeMap::new(),
            collecting: parts.collecting,
            commanding: parts.commanding,
            portals: parts.portals,
            outbound: Vec::new(),
            is_due: false,
            complaints: complaints::Complaints::default(),
            names: parts.names,
            resolve: parts.resolve,
            desk: parts.desk,
            store: parts.store,
            belongs: parts.belongs,
            is_authority: parts.is_authority,
            clock: parts.clock,
            dialling: Dialling::default(),
            layers: parts.layers,
            peers: BTreeMap::new(),
            accepting: parts.accepting,
        }
    }

    /// Takes a connection that a neighbour opened, with or without a WebSocket to come.
    pub(crate) fn handle_accepted(
        &mut self,
        io: &mut Io,
        now: Now,
        (id, peer): (ConnectionId, SocketAddr),
        kind: LinkKind,
    ) {
        let now = self.judged(now);
        let key = ConnectionKey(id.as_u64());
        match kind {
            LinkKind::Tcp => {
                self.peers.insert(key, peer.to_string());
                self.node.handle_connected(now, key, None, &mut wire!(self, io));
            }
            LinkKind::WebSocket => {
                self.peers.insert(key, format!("{peer} over WebSocket"));
                match self.layers.accept(now.instant, key) {
                    Ok(None) => {}
                    Ok(Some(oldest)) => {
                        self.drop_opening(io, now, oldest, "others wait");
                        self.drain(io, now);
                    }
                    Err(error) => {
                        tracing::debug!(%peer, error, "link refused");
                        io.abort(id);
                    }
                }
            }
        }
    }

    /// Takes a connection of a node on this machine.
    pub(crate) fn handle_local(&mut self, io: &mut Io, now: Now, id: ConnectionId, peer: LocalPeer) {
        let now = self.judged(now);
        let key = ConnectionKey(id.as_u64());
        let shown = format!("process {} of user {} over UNIX socket", peer.process, peer.user);
        self.peers.insert(key, shown);
        self.node.handle_connected(now, key, None, &mut wire!(self, io));
    }

    /// Drops a connection whose WebSocket did not open.
    fn drop_opening(&mut self, io: &mut Io, now: Now, key: ConnectionKey, error: &str) {
        let id = ConnectionId::from_u64(key.0);
        io.abort(id);
        if !self.lost(io, now, id, error) {
            self.layers.forget(now.instant, key);
            if let Some(peer) = self.peers.remove(&key) {
                tracing::debug!(peer, error, "link refused");
            }
        }
    }

    /// Returns `now` with the time by which the ends of statements are judged: it is surely past, while the time that readings
    /// get may be ahead.
    fn judged(&self, now: Now) -> Now {
        Now {
            wall: self.clock.bound_at(fieldgate_io::clock::monotonic()),
            ..now
        }
    }

    /// Returns whether the connection is a link.
    pub(crate) fn has(&self, id: ConnectionId) -> bool {
        self.peers.contains_key(&ConnectionKey(id.as_u64()))
    }

    /// Takes the end of an attempt to dial.
    pub(crate) fn handle_connected(
        &mut self,
        io: &mut Io,
        now: Now,
        id: ConnectionId,
        result: std::io::Result<()>,
    ) {
        let now = self.judged(now);
        if self.portals.has(id) {
            self.with_portals(io, now, |portals, ground| {
                portals.handle_connected(ground, id, result)
            });
            return;
        }
        if self.handle_dialled(io, now, id, result) {
            self.drain(io, now);
        }
    }

    /// Takes bytes of a link.
    pub(crate) fn handle_received(&mut self, io: &mut Io, now: Now, id: ConnectionId, bytes: &mut [u8]) {
        let now = self.judged(now);
        if self.portals.has(id) {
            self.with_portals(io, now, |portals, ground| {
                portals.handle_received(ground, id, bytes)
            });
            return;
        }
        let key = ConnectionKey(id.as_u64());
        match self.layers.receive(io, key, bytes) {
            None => self.take_bytes(io, now, key, bytes),
            Some(Received::Link { opened, mut bytes }) => {
                if opened {
                    self.layers_opened(io, now, id);
                }
                if !bytes.is_empty() {
                    self.take_bytes(io, now, key, &mut bytes);
                }
            }
            Some(Received::Broken {
                was_open,
                error,
                mut bytes,
            }) => {
                if was_open && !bytes.is_empty() {
                    self.take_bytes(io, now, key, &mut bytes);
                }
                tracing::debug!(peer = %self.peer(key), error, "link closed");
                io.close(id);
                if !self.lost(io, now, id, &error) {
                    self.handle_closed(io, now, id);
                }
            }
        }
        self.drain(io, now);
        self.run_portals(io, now);
    }

    /// A link's WebSocket is open.
    fn layers_opened(&mut self, io: &mut Io, now: Now, id: ConnectionId) {
        if self.dialling.is_dialling(id) {
            self.opened(io, now, id);
        } else {
            let key = ConnectionKey(id.as_u64());
            self.node.handle_connected(now, key, None, &mut wire!(self, io));
        }
    }

    fn take_bytes(&mut self, io: &mut Io, now: Now, key: ConnectionKey, bytes: &mut [u8]) {
        self.portals.lend(io);
        let sink = &mut Takers {
            collecting: &mut self.collecting,
            staged: &mut self.portals.staged,
        };
        let wire = &mut wire!(self, io);
        self.node
            .handle_bytes(now, &mut SystemEntropy, key, bytes, wire, sink);
    }

    /// A link is gone.
    pub(crate) fn handle_closed(&mut self, io: &mut Io, now: Now, id: ConnectionId) {
        let now = self.judged(now);
        let key = ConnectionKey(id.as_u64());
        if let Some(peer) = self.peers.remove(&key) {
            tracing::debug!(peer, "link down");
        }
        self.dialling.link_gone(key);
        let was_opening = self.layers.is_opening(key);
        self.layers.forget(now.instant, key);
        if !self.lost(io, now, id, "the other side closed the connection") && !was_opening {
            self.node
                .handle_disconnected(now, &mut SystemEntropy, key, &mut wire!(self, io));
        }
        self.drain(io, now);
    }

    /// Takes a sink's confirmation.
    pub(crate) fn handle_confirmed(&mut self, confirmation: crate::sinks::Confirmation) {
        let Some(fanout) = &mut self.collecting.fanout else {
            return;
        };
        if let Some((source, up_to)) = fanout.confirm(confirmation) {
            self.node
                .handle_sinks_committed(fieldgate_proto::node::SourceIndex(source), up_to);
            for lane in Class::ALL {
                self.node
                    .set_sinks_accepting(lane, fanout.accepts(class_of(lane)));
            }
        }
    }

    /// Does what is due, and brings the journal and the links up to date at the end of a turn. Returns how far the journal
    /// is on stable storage, if that moved.
    pub(crate) fn end_turn(&mut self, io: &mut Io, now: Now) -> Option<u64> {
        let now = self.judged(now);
        self.is_due = false;
        self.run_quic(io, now);
        self.look_at_addresses(io, now);
        if self
            .node
            .poll_timeout()
            .is_some_and(|deadline| now.instant >= deadline)
        {
            self.node
                .handle_timeout(now, &mut SystemEntropy, &mut wire!(self, io));
            self.drain(io, now);
        }
        self.run_store(now);
        let committed = self.run_journal(io, now);
        self.end_portals_turn(io, now);
        self.flush(io, now);
        // What waited for room in sessions goes out in the same turn.
        while self.write_portals(io, now) {
            self.flush(io, now);
        }
        self.dial_due(io, now);
        for key in self.layers.overdue(now.instant) {
            self.drop_opening(io, now, key, "the WebSocket did not open in time");
        }
        self.drain(io, now);
        self.layers.flush(io, now.instant);
        // What was released, or has to be read from disk.
        let more = self.run_journal(io, now);
        committed.max(more)
    }

    /// Has the node send what waits.
    fn flush(&mut self, io: &mut Io, now: Now) {
        let journal = self
            .journal
            .as_mut()
            .map(|files| &mut files.lanes as &mut dyn RecordSource);
        self.node
            .flush(now, &mut SystemEntropy, &mut wire!(self, io), journal);
        self.drain(io, now);
    }

    /// Flushes the journal when it is time and carries out what it wants.
    fn run_journal(&mut self, io: &mut Io, now: Now) -> Option<u64> {
        let files = self.journal.as_mut()?;
        files.handle_replies(now.instant);
        if files
            .lanes
            .poll_timeout()
            .is_some_and(|deadline| now.instant >= deadline)
        {
            files.handle_timeout(now);
        }
        if files.lanes.pending_bytes() > 0 {
            let since = *self.pending_since.get_or_insert(now.instant);
            if now.instant >= since + self.commit_delay {
                files.lanes.flush();
                self.pending_since = None;
            }
        }
        let progress = files.execute(now.instant, io);
        for (lane, state) in Class::ALL.into_iter().zip(progress.states) {
            if let Some(state) = state {
                self.accepting.set(lane, state == JournalState::Ready);
            }
        }
        for ((lane, journal), (moved, untold)) in files
            .lanes
            .iter()
            .zip(progress.moved.into_iter().zip(&mut self.untold))
        {
            if moved || std::mem::take(untold) {
                self.node
                    .handle_available(now, lane, journal.first_available(), journal.committed());
            }
        }
        progress.committed
    }

    /// Takes the end of a durable write; returns how far the journal is on stable storage.
    pub(crate) fn handle_written(
        &mut self,
        io: &mut Io,
        now: Now,
        (token, buffer): (u64, Vec<u8>),
        result: std::io::Result<()>,
    ) -> Option<u64> {
        let files = self.journal.as_mut()?;
        files.handle_written(now.instant, token, buffer, result);
        self.run_journal(io, now)
    }

    /// Deals with what the node has to say.
    fn drain(&mut self, io: &mut Io, now: Now) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Dial { neighbour } => self.dial(io, now, neighbour),
                Output::DialDirect { neighbour, addresses } => {
                    self.dial_direct(io, now, neighbour, &addresses);
                }
                Output::Punch { addresses } => self.punch(io, now.instant, &addresses),
                Output::CloseConnection { connection } => {
                    let id = ConnectionId::from_u64(connection.0);
                    self.peers.remove(&connection);
                    self.dialling.link_gone(connection);
                    self.layers.close(io, now.instant, connection);
                    io.close(id);
                }
                Output::Released { uplink, lane, up_to } => {
                    if let Some(files) = &mut self.journal {
                        files.lanes.handle_released(now.instant, lane, uplink, up_to);
                    }
                }
                Output::Authorise(access) => {
                    let attempt = access.attempt;
                    if self.desk.try_send(DeskRequest::Authorise(access)).is_err() {
                        // Who decides is overwhelmed: nobody new is let in.
                        self.handle_verdict(io, now, attempt, Verdict::Refuse);
                    }
                }
                Output::Sign { channel, message } => {
                    if self
                        .desk
                        .try_send(DeskRequest::Sign { channel, message })
                        .is_err()
                    {
                        self.node.handle_signature(
                            now,
                            &mut SystemEntropy,
                            channel,
                            None,
                            &mut wire!(self, io),
                        );
                    }
                }
                Output::Authority(request) => self.hand_over(DeskRequest::Authority(request)),
                Output::Asked { id, asked } => self.hand_over(DeskRequest::Asked { id, asked }),
                Output::Save { what, bytes } => self.hand_over(DeskRequest::Save { what, bytes }),
                Output::Forgotten(list) => self.hand_over(DeskRequest::Forgotten(list)),
                Output::Time(wall) => self.hand_over(DeskRequest::Time(wall)),
                Output::AuthoriseCommand(access) => self.authorise_command(now, access),
                Output::Executor(output) => self.handle_executor(now, *output),
                Output::Commander(output) => {
                    self.commanding
                        .handle_commander(now, &mut self.node, &self.collecting.gateways, *output)
                }
                Output::Event(event) => self.handle_event(now, event),
            }
        }
    }

    /// Gives the control thread something to do. What does not fit is lost, and asked for again by whoever wants it.
    fn hand_over(&self, request: DeskRequest) {
        if self.desk.try_send(request).is_err() {
            tracing::warn!("the control thread does not keep up");
        }
    }

    /// Takes what the control thread has to say.
    pub(crate) fn handle_message(&mut self, io: &mut Io, now: Now, message: TrunkMessage) {
        let now = self.judged(now);
        let entropy = &mut SystemEntropy;
        let wire = &mut wire!(self, io);
        match message {
            TrunkMessage::Local(local) => self.node.set_local(*local),
            TrunkMessage::SealKey(sealing) => self.node.set_seal_key(now, sealing.0, &sealing.1),
            TrunkMessage::Resolved { wanted, addresses } => match wanted {
                Wanted::Neighbour { neighbour, form } => {
                    return self.handle_resolved(io, now, (neighbour, form), addresses);
                }
                Wanted::Portal(question) => {
                    return self.with_portals(io, now, |portals, ground| {
                        portals.handle_resolved(ground, question, addresses);
                    });
                }
            },
            TrunkMessage::Verdict { attempt, verdict } => self.handle_verdict(io, now, attempt, verdict),
            TrunkMessage::PolicyChanged { proof_demands } => {
                self.node.set_proof_demands(now, proof_demands);
                self.node.authorise_all_again(now, wire);
                self.with_portals(io, now, Portals::handle_policy_changed);
            }
            TrunkMessage::PortalPermission { question, permitted } => {
                return self.with_portals(io, now, |portals, ground| {
                    portals.handle_permission(ground, question, permitted);
                });
            }
            TrunkMessage::Signature { channel, signature } => {
                self.node.handle_signature(now, entropy, channel, signature, wire);
            }
            TrunkMessage::AuthorityAnswer {
                channel,
                request,
                answer,
            } => self
                .node
                .handle_authority_answer(now, channel, request, &answer, wire),
            TrunkMessage::Ask { id, question } => match question {
                Question::Enrol(request) => self.node.enrol(now, id, request, wire),
                Question::Manage(json) => self.node.manage(now, id, json, wire),
            },
            TrunkMessage::PublishStatus { list, issued } => {
                self.node.set_issued_lists(&issued);
                if let Err(error) = self.node.publish_status(now, &list, wire) {
                    tracing::error!(%error, hint = error.hint(), "the authority's own list is refused");
                }
            }
            TrunkMessage::CommandPermission { question, permission } => {
                if let Some(executor) = self.node.executor_mut() {
                    executor.handle_permission(now, question, permission);
                }
            }
            TrunkMessage::Drain { within } => self.handle_drain(io, now, within),
            TrunkMessage::Store(events) => {
                for event in &events {
                    self.node.handle_store(now, event);
                }
            }
            TrunkMessage::Command(job) => {
                self.commanding
                    .handle_job(now, &mut self.node, &self.collecting.gateways, *job);
            }
            TrunkMessage::Inbox(word) => {
                self.commanding
                    .handle_inbox(&self.node, &self.collecting.gateways, word);
            }
            TrunkMessage::Credential(presentation) => {
                if let Err(error) = self.node.take_credential(now, &presentation) {
                    tracing::error!(%error, hint = error.hint(), "the credential is refused");
                }
            }
        }
        self.drain(io, now);
    }

    fn neighbour(&self, index: usize) -> String {
        self.names
            .neighbours
            .get(index)
            .map(ToString::to_string)
            .unwrap_or_default()
    }

    /// Returns the other end of a connection, in words.
    fn peer(&self, connection: ConnectionKey) -> Cow<'_, str> {
        match (
            self.peers.get(&connection),
            self.node.connection_below(connection),
        ) {
            (Some(peer), _) => Cow::Borrowed(peer),
            (None, Some(below)) => Cow::Owned(format!("in a channel over {}", self.peer(below))),
            (None, None) => Cow::Borrowed("gone"),
        }
    }

    fn uplink(&self, index: usize) -> &str {
        self.names.uplinks.get(index).map_or("", String::as_str)
    }

    /// Returns when [`Trunk::end_turn`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let journal = self.journal.as_ref().and_then(|files| files.lanes.poll_timeout());
        let flush = self.pending_since.map(|since| since + self.commit_delay);
        let due = self.is_due.then_some(Instant::START);
        [
            self.node.poll_timeout(),
            journal,
            flush,
            due,
            self.portals.poll_timeout(),
            self.dialling.poll_timeout(),
            self.layers.poll_timeout(),
            self.layers.poll_addresses(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Returns whether everything taken from devices is on stable storage.
    pub(crate) fn is_settled(&self) -> bool {
        self.journal.as_ref().is_none_or(JournalFiles::is_idle)
    }
}
