//! How streams begin: at an inlet by a connection, at an outlet by the wish of another node.

use super::{
    BufferClass, ConnectOptions, ConnectionId, DeskRequest, Duration, End, Ground, IpAddr, Key, Place,
    Portals, Progress, ResetReason, Resolve, SWEEP_EVERY, SocketAddr, Stream, Wanted, audit,
};

impl Stream {
    fn new(ground: &Ground<'_>, place: Place, origin: String, progress: Progress) -> Self {
        Self {
            place,
            origin,
            progress,
            connection: None,
            pending: Vec::new(),
            pending_taken: 0,
            has_ended: false,
            is_finished: false,
            from_socket: 0,
            to_socket: 0,
            told: 0,
            since: ground.now.instant,
            active: ground.now.instant,
        }
    }
}

impl Portals {
    /// Takes a connection to an inlet.
    pub(crate) fn handle_accepted(
        &mut self,
        ground: &mut Ground<'_>,
        index: usize,
        connection: ConnectionId,
        peer: SocketAddr,
    ) {
        let is_stopping = self.is_stopping;
        let Some(inlet) = self.inlets.get_mut(index) else {
            ground.io.abort(connection);
            return;
        };
        let origin = peer.to_string();
        let refusal = if is_stopping {
            Some("the node is ending")
        } else if !inlet.allow.iter().any(|network| network.contains(peer.ip())) {
            Some("its address is in none of the networks that are allowed")
        } else if inlet.portal.open >= inlet.portal.streams_max {
            Some("there are as many streams as may be")
        } else {
            None
        };
        let opened = if refusal.is_none() {
            let session = ground.node.portal(inlet.session);
            session.and_then(|session| session.open(&inlet.outlet, &origin))
        } else {
            None
        };
        let Some(id) = opened else {
            ground.io.abort(connection);
            inlet.portal.refused += 1;
            let reason = refusal.unwrap_or("the session has as many streams as may be");
            audit::refused(ground, &mut inlet.portal, Place::Inlet(index), &origin, reason);
            return;
        };
        inlet.portal.open += 1;
        // Until the other end is there nothing is taken: a client that only connected has sent nothing into the void.
        ground.io.pause_receive(connection);
        let key = (inlet.session, id);
        let mut stream = Stream::new(ground, Place::Inlet(index), origin, Progress::Opening);
        stream.connection = Some(connection);
        self.by_connection.insert(connection, key);
        self.insert(ground, key, stream);
    }

    fn insert(&mut self, ground: &Ground<'_>, key: Key, stream: Stream) {
        self.streams.insert(key, stream);
        self.sweep_at.get_or_insert(ground.now.instant + SWEEP_EVERY);
    }

    /// The other end of an inlet's stream is there.
    pub(super) fn handle_opened(&mut self, ground: &mut Ground<'_>, key: Key) {
        let Some(connection) = self.streams.get(&key).and_then(|stream| stream.connection) else {
            return;
        };
        self.open(ground, key);
        ground.io.resume_receive(connection);
    }

    /// Bytes may flow.
    fn open(&mut self, ground: &Ground<'_>, key: Key) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        stream.progress = Progress::Open;
        stream.active = ground.now.instant;
        let portal = match stream.place {
            Place::Inlet(index) => self.inlets.get_mut(index).map(|inlet| &mut inlet.portal),
            Place::Outlet(index) => self.outlets.get_mut(index).map(|outlet| &mut outlet.portal),
        };
        if let Some(portal) = portal {
            portal.total += 1;
            audit::begun(ground, portal, key, stream);
        }
    }

    /// Another node wants a stream to an outlet.
    pub(super) fn handle_requested(&mut self, ground: &mut Ground<'_>, key: Key, name: &str, origin: String) {
        let found = self
            .outlets
            .iter_mut()
            .enumerate()
            .find(|(_, outlet)| outlet.portal.name == name);
        let Some((index, outlet)) = found else {
            self.unknown_total += 1;
            audit::unknown(ground, &mut self.unknown, key.0, name, &origin);
            if let Some(session) = ground.node.portal(key.0) {
                session.reset(key.1, ResetReason::NotAllowed);
            }
            return;
        };
        let is_full = outlet.portal.open >= outlet.portal.streams_max;
        outlet.portal.open += 1;
        let place = Place::Outlet(index);
        // By the word of the peer: it may contain anything.
        let origin = origin.escape_debug().to_string();
        let question = self.next_question();
        let stream = Stream::new(ground, place, origin, Progress::Asking { question });
        self.insert(ground, key, stream);
        if self.is_stopping {
            self.end(ground, key, End::Here(ResetReason::Closed));
        } else if is_full {
            self.end(ground, key, End::Here(ResetReason::Limit));
        } else {
            self.ask_policy(ground, key, index, question);
        }
    }

    const fn next_question(&mut self) -> u64 {
        self.last_question += 1;
        self.last_question
    }

    /// Has it decided whether a stream may be; who cannot be asked about is refused.
    fn ask_policy(&mut self, ground: &mut Ground<'_>, key: Key, outlet: usize, question: u64) {
        let Some(name) = self.outlets.get(outlet).map(|outlet| outlet.portal.name.clone()) else {
            return;
        };
        let Some(access) = ground.node.portal_access(ground.now, key.0) else {
            self.end(ground, key, End::Here(ResetReason::Broken));
            return;
        };
        let request = DeskRequest::AuthorisePortal {
            question,
            outlet: name,
            access: Box::new(access),
        };
        if ground.desk.try_send(request).is_ok() {
            self.by_question.insert(question, key);
        } else {
            // Who decides is overwhelmed: nobody is let in, and nobody stays of whom nobody knows.
            self.end(ground, key, End::Here(ResetReason::Limit));
        }
    }

    /// Takes the decision about a stream.
    pub(crate) fn handle_permission(&mut self, ground: &mut Ground<'_>, question: u64, is_permitted: bool) {
        let Some(key) = self.by_question.remove(&question) else {
            return;
        };
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        if !is_permitted {
            // Of an open one the policy has changed.
            let reason = match stream.progress {
                Progress::Open => ResetReason::Closed,
                Progress::Asking { .. } | Progress::Connecting { .. } | Progress::Opening => {
                    ResetReason::NotAllowed
                }
            };
            self.end(ground, key, End::Here(reason));
            return;
        }
        let Place::Outlet(index) = stream.place else {
            return;
        };
        if !matches!(stream.progress, Progress::Asking { .. }) {
            return;
        }
        let Some(address) = self.outlets.get(index).map(|outlet| &outlet.address) else {
            return;
        };
        if let Ok(ip) = address.host().parse::<IpAddr>() {
            let candidates = vec![SocketAddr::new(ip, address.port())];
            stream.progress = Progress::Connecting { candidates };
            self.connect_next(ground, key);
            return;
        }
        let resolve = Resolve {
            wanted: Wanted::Portal(question),
            address: address.clone(),
        };
        self.by_question.insert(question, key);
        if ground.resolve.try_send(resolve).is_err() {
            self.end(ground, key, End::Here(ResetReason::Limit));
        }
    }

    /// Takes the addresses of what an outlet leads to.
    pub(crate) fn handle_resolved(
        &mut self,
        ground: &mut Ground<'_>,
        question: u64,
        addresses: Result<Vec<SocketAddr>, String>,
    ) {
        let Some(key) = self.by_question.remove(&question) else {
            return;
        };
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        let mut candidates = addresses.unwrap_or_else(|error| {
            tracing::debug!(error, "name not resolved");
            Vec::new()
        });
        // Taken from the end.
        candidates.reverse();
        stream.progress = Progress::Connecting { candidates };
        self.connect_next(ground, key);
    }

    /// Connects the next address of what an outlet leads to, or ends the stream if there is none left.
    fn connect_next(&mut self, ground: &mut Ground<'_>, key: Key) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        let Progress::Connecting { candidates } = &mut stream.progress else {
            return;
        };
        let options = ConnectOptions {
            class: BufferClass::Link,
            timeout: CONNECT_TIME_MAX,
        };
        while let Some(address) = candidates.pop() {
            match ground.io.connect(address, &options) {
                Ok(connection) => {
                    stream.connection = Some(connection);
                    self.by_connection.insert(connection, key);
                    return;
                }
                Err(error) => tracing::debug!(%address, %error, "not connected"),
            }
        }
        self.end(ground, key, End::Here(ResetReason::Unreachable));
    }

    /// Takes the end of an attempt to connect.
    pub(crate) fn handle_connected(
        &mut self,
        ground: &mut Ground<'_>,
        connection: ConnectionId,
        result: std::io::Result<()>,
    ) {
        let Some((key, stream)) = self.stream_of(connection) else {
            return;
        };
        match result {
            Ok(()) => {
                if let Some(session) = ground.node.portal(key.0) {
                    session.accept(key.1);
                }
                self.open(ground, key);
            }
            Err(error) => {
                tracing::debug!(%error, "what the outlet leads to is not reached");
                stream.connection = None;
                self.by_connection.remove(&connection);
                self.connect_next(ground, key);
            }
        }
    }

    /// The policy has changed: it is asked again about every stream that leads here.
    pub(crate) fn handle_policy_changed(&mut self, ground: &mut Ground<'_>) {
        let open = self.streams.iter().filter_map(|(key, stream)| {
            let Place::Outlet(outlet) = stream.place else {
                return None;
            };
            (stream.progress == Progress::Open).then_some((*key, outlet))
        });
        let open: Vec<(Key, usize)> = open.collect();
        for (key, outlet) in open {
            // Those of a session without a channel end: of a node that is not there nobody knows what the policy wants to know.
            let question = self.next_question();
            self.ask_policy(ground, key, outlet, question);
        }
    }
}

/// Longest time for one attempt to connect what an outlet leads to.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
