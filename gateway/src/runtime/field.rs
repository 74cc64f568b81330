//! The field side of a shard: MQTT connections and their sessions.

mod checks;
mod half_open;
mod intake;
mod sources;

use std::{cmp::Reverse, collections::BinaryHeap, net::SocketAddr, sync::Arc};

use fieldgate_adapters::{
    authenticate::{Authenticate, Authentication, Authenticator, CheckedPassword, Credentials, Denial},
    device::Device,
    scram::Dialog,
};
use fieldgate_io::{ConnectionId, Io};
use fieldgate_mqtt::{
    counters::Counters,
    exchange::Answer,
    packet::Qos,
    session::{
        Context, Flow, Session,
        end::{SessionEnd, Termination},
    },
    settings::Settings,
};
use fieldgate_proto::{
    entropy::Entropy,
    time::{Instant, Now},
};

pub(crate) use self::{
    checks::Checks,
    intake::{Intake, Outgoing},
};
use self::{half_open::HalfOpen, intake::Way, sources::Sources};
use super::{
    entropy::SystemEntropy,
    exchange::Answers,
    transport::{Stack, Transport},
};
use crate::status::ShardStatus;

/// One client.
struct Client {
    id: ConnectionId,
    session: Session,
    /// What lies between the connection and the session; `None` for plain TCP.
    transport: Option<Box<Transport>>,
    /// In the list of those whose PUBACKs wait for a commit.
    awaiting: bool,
    /// Not read because too much waits for the journal.
    held: bool,
}

/// What a call into a session does.
type Act<'a> = dyn FnMut(&mut Session, &mut Context<'_>) -> Result<(), SessionEnd> + 'a;

/// Says who a client is: by its password, or by what its connection has proven.
struct Gate {
    authenticator: Authenticator,
    /// The device that the connection of this call has proven to be.
    proven: Option<Arc<Device>>,
}

impl Authenticate for Gate {
    fn authenticate(&mut self, credentials: &Credentials<'_>) -> Authentication {
        match &self.proven {
            Some(device) => Authentication::Accepted(Arc::clone(device)),
            None => self.authenticator.authenticate(credentials),
        }
    }

    /// A device that is known already has no conversation in which it could become another.
    fn dialog(&mut self, method: &str, entropy: &mut dyn Entropy) -> Option<Box<dyn Dialog>> {
        match &self.proven {
            Some(_) => None,
            None => self.authenticator.dialog(method, entropy),
        }
    }
}

/// What a field side is made of.
pub(crate) struct Parts {
    /// Which shard it is on.
    pub(crate) shard: usize,
    /// Settings of all sessions.
    pub(crate) settings: Arc<Settings>,
    /// Who says who a client is.
    pub(crate) authenticator: Authenticator,
    /// Where slow passwords are checked.
    pub(crate) checks: Checks,
    /// How clients speak below MQTT, by the number of a listener.
    pub(crate) stacks: Arc<[Stack]>,
    /// Clients at most.
    pub(crate) count_max: usize,
    /// Connections per second from one address; 0 for any number.
    pub(crate) connects_per_second_max: u32,
}

/// All clients of a shard.
pub(crate) struct Field {
    shard: usize,
    checks: Checks,
    sources: Sources,
    settings: Arc<Settings>,
    gate: Gate,
    entropy: SystemEntropy,
    counters: Counters,
    /// By the number of a listener.
    stacks: Arc<[Stack]>,
    half_open: HalfOpen,
    /// By index of the connection.
    clients: Vec<Option<Box<Client>>>,
    count: usize,
    count_max: usize,
    awaiting: Vec<ConnectionId>,
    held: Vec<ConnectionId>,
    /// When to look at a client; those that heard from it meanwhile are put back.
    deadlines: BinaryHeap<Reverse<(Instant, u64)>>,
    accepted: u64,
    refused: u64,
    /// Connections refused because their address opened too many at once.
    too_fast: u64,
    /// Messages at QoS 0 dropped because a client did not read.
    dropped_slow: u64,
}

impl Field {
    /// Makes a field side.
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            shard: parts.shard,
            checks: parts.checks,
            sources: Sources::new(parts.connects_per_second_max),
            settings: parts.settings,
            gate: Gate {
                authenticator: parts.authenticator,
                proven: None,
            },
            half_open: HalfOpen::new(parts.count_max),
            count_max: parts.count_max,
            stacks: parts.stacks,
            entropy: SystemEntropy,
            counters: Counters::default(),
            clients: Vec::new(),
            count: 0,
            awaiting: Vec::new(),
            held: Vec::new(),
            deadlines: BinaryHeap::new(),
            accepted: 0,
            refused: 0,
            too_fast: 0,
            dropped_slow: 0,
        }
    }

    /// Takes a new connection of `peer` at the listener with the number `stack`.
    pub(crate) fn handle_accepted(
        &mut self,
        io: &mut Io,
        now: Now,
        id: ConnectionId,
        (peer, stack): (SocketAddr, usize),
        intake: &mut Intake<'_>,
    ) {
        // The driver gives a place away before it tells that the connection there before is no more.
        let before = self.clients.get(index(id)).and_then(Option::as_ref);
        if let Some(gone) = before.map(|client| client.id) {
            self.handle_closed(now, gone, intake);
        }
        if !self.sources.admit(now.instant, peer.ip()) {
            // Without a word: a flood is not worth reading its CONNECTs.
            self.too_fast += 1;
            self.refused += 1;
            tracing::debug!(%peer, "client refused: its address connects too fast");
            io.abort(id);
            return;
        }
        self.make_room(io, now, id, intake);
        let transport = match self.stacks.get(stack).map(Stack::open) {
            Some(Ok(transport)) if self.count < self.count_max => transport,
            _ => {
                self.refused += 1;
                tracing::debug!(%peer, "client refused: too many connections");
                io.abort(id);
                return;
            }
        };
        self.accepted += 1;
        self.count += 1;
        let session = Session::new(Arc::clone(&self.settings), now.instant);
        if let Some(deadline) = session.poll_timeout() {
            self.deadlines.push(Reverse((deadline, id.as_u64())));
        }
        let place = index(id);
        if self.clients.len() <= place {
            self.clients.resize_with(place + 1, || None);
        }
        if let Some(slot) = self.clients.get_mut(place) {
            *slot = Some(Box::new(Client {
                id,
                session,
                transport,
                awaiting: false,
                held: false,
            }));
        }
    }

    /// Sees to it that connections without CONNECT shut nobody out: the oldest of them goes if there are too many, or if no place
    /// is left for `id`.
    fn make_room(&mut self, io: &mut Io, now: Now, id: ConnectionId, intake: &mut Intake<'_>) {
        let clients = &self.clients;
        let is_half_open = |other: ConnectionId| {
            other == id
                || clients
                    .get(index(other))
                    .and_then(Option::as_deref)
                    .is_some_and(|client| client.id == other && client.session.device().is_none())
        };
        let mut evicted = self.half_open.push(id, is_half_open);
        if evicted.is_none() && self.count >= self.count_max {
            evicted = self.half_open.oldest(is_half_open);
        }
        if let Some(evicted) = evicted.filter(|evicted| *evicted != id) {
            self.refused += 1;
            self.with_client(io, now, evicted, intake, &mut |_, _| {
                Err(SessionEnd::ConnectTimeout)
            });
        }
    }

    /// Returns whether the connection is one of ours.
    pub(crate) fn has(&self, id: ConnectionId) -> bool {
        self.client(id).is_some()
    }

    fn client(&self, id: ConnectionId) -> Option<&Client> {
        self.clients
            .get(index(id))?
            .as_deref()
            .filter(|client| client.id == id)
    }

    fn take(&mut self, id: ConnectionId) -> Option<Box<Client>> {
        self.clients.get_mut(index(id))?.take_if(|client| client.id == id)
    }

    fn put_back(&mut self, client: Box<Client>) {
        if let Some(slot) = self.clients.get_mut(index(client.id)) {
            *slot = Some(client);
        }
    }

    /// Takes bytes of a client.
    pub(crate) fn handle_received(
        &mut self,
        io: &mut Io,
        now: Now,
        id: ConnectionId,
        bytes: &[u8],
        intake: &mut Intake<'_>,
    ) {
        let Some(mut client) = self.take(id) else { return };
        let result = match client.transport.take() {
            None => self.call(io, now, &mut client, intake, &mut |session, context| {
                session.handle_bytes(now, bytes, context)
            }),
            Some(mut transport) => {
                let mut plain = Vec::new();
                let mut result = Ok(());
                let mut nowhere = Vec::new();
                let out = io.send_buffer(id).unwrap_or(&mut nowhere);
                let received = transport.receive(bytes, out, |piece, device| {
                    if result.is_ok() {
                        self.gate.proven = device.cloned();
                        let mut way = way(now, id, intake);
                        let mut context = self.context(&mut plain, &mut way);
                        result = client.session.handle_bytes(now, piece, &mut context);
                    }
                });
                self.gate.proven = None;
                if let Err(error) = &received {
                    tracing::debug!(%error, "transport of a client ended");
                    result = result.and(Err(SessionEnd::Closed));
                }
                deliver(io, id, &mut transport, &plain, result.is_err());
                client.transport = Some(transport);
                result
            }
        };
        self.follow_up(io, now, client, intake, result);
    }

    /// Runs `act` on a client and deals with what comes of it.
    fn with_client(
        &mut self,
        io: &mut Io,
        now: Now,
        id: ConnectionId,
        intake: &mut Intake<'_>,
        act: &mut Act<'_>,
    ) {
        let Some(mut client) = self.take(id) else { return };
        let result = self.call(io, now, &mut client, intake, act);
        self.follow_up(io, now, client, intake, result);
    }

    /// Runs `act` on a session with its send buffer, through its transport where there is one.
    fn call(
        &mut self,
        io: &mut Io,
        now: Now,
        client: &mut Client,
        intake: &mut Intake<'_>,
        act: &mut Act<'_>,
    ) -> Result<(), SessionEnd> {
        let id = client.id;
        let mut way = way(now, id, intake);
        let Some(mut transport) = client.transport.take() else {
            return match io.send_buffer(id) {
                Some(send) => act(&mut client.session, &mut self.context(send, &mut way)),
                None => Err(SessionEnd::Closed),
            };
        };
        let mut plain = Vec::new();
        self.gate.proven = transport.device().cloned();
        let result = act(&mut client.session, &mut self.context(&mut plain, &mut way));
        self.gate.proven = None;
        deliver(io, id, &mut transport, &plain, result.is_err());
        client.transport = Some(transport);
        result
    }

    fn context<'a>(&'a mut self, send: &'a mut Vec<u8>, way: &'a mut Way<'_, '_>) -> Context<'a> {
        Context {
            send,
            exchange: way,
            authenticator: &mut self.gate,
            entropy: &mut self.entropy,
            counters: &mut self.counters,
        }
    }

    /// Deals with what a call into a session left behind.
    fn follow_up(
        &mut self,
        io: &mut Io,
        now: Now,
        mut client: Box<Client>,
        intake: &mut Intake<'_>,
        result: Result<(), SessionEnd>,
    ) {
        let id = client.id;
        if let Some(check) = self.gate.authenticator.take_check() {
            self.put_back(client);
            // Read on when the client has its session.
            io.pause_receive(id);
            if !self.checks.order(self.shard, id.as_u64(), check) {
                let busy = Authentication::Denied(Denial::Busy);
                self.handle_authenticated(io, now, id, &busy, intake);
            }
            return;
        }
        if let Err(end) = result {
            tracing::debug!(client = client.session.client_id(), %end, "session ended");
            // Whatever ended it, the broker is told once.
            let mut nowhere = Vec::new();
            let mut way = way(now, id, intake);
            client
                .session
                .handle_closed(&mut self.context(&mut nowhere, &mut way));
            self.count -= 1;
            io.close(id);
            return;
        }
        if !client.awaiting && client.session.awaited_commit().is_some() {
            client.awaiting = true;
            self.awaiting.push(id);
        }
        if !client.session.wants_bytes() {
            io.pause_receive(id);
        } else if intake.is_behind() && !client.held {
            client.held = true;
            self.held.push(id);
            io.pause_receive(id);
        }
        self.put_back(client);
    }

    /// Takes what became of a slow check of a password.
    pub(crate) fn handle_checked(
        &mut self,
        io: &mut Io,
        now: Now,
        number: u64,
        checked: &CheckedPassword,
        intake: &mut Intake<'_>,
    ) {
        let id = ConnectionId::from_u64(number);
        let verdict = match self.gate.authenticator.handle_checked(checked) {
            Authentication::Pending => Authentication::Denied(Denial::Busy),
            verdict @ (Authentication::Accepted(_) | Authentication::Denied(_)) => verdict,
        };
        self.handle_authenticated(io, now, id, &verdict, intake);
    }

    fn handle_authenticated(
        &mut self,
        io: &mut Io,
        now: Now,
        id: ConnectionId,
        verdict: &Authentication,
        intake: &mut Intake<'_>,
    ) {
        self.with_client(io, now, id, intake, &mut |session, context| {
            session.handle_authenticated(now, verdict.clone(), context)
        });
    }

    /// Takes what the broker has for clients.
    pub(crate) fn handle_answers(
        &mut self,
        io: &mut Io,
        now: Now,
        answers: Answers,
        intake: &mut Intake<'_>,
    ) {
        for (number, answer) in answers {
            let id = ConnectionId::from_u64(number);
            let is_attached = matches!(answer, Answer::Attached(_));
            if is_unsure(&answer) && io.queued_bytes(id) > QUEUED_BYTES_HIGH {
                self.dropped_slow += 1;
                continue;
            }
            let mut answer = Some(answer);
            self.with_client(io, now, id, intake, &mut |session, context| {
                answer
                    .take()
                    .map_or(Ok(()), |answer| session.handle_answer(now, answer, context))
            });
            if is_attached {
                self.handle_attached(io, id);
            }
        }
    }

    /// A client is connected: it is read again, and its keep-alive counts.
    fn handle_attached(&mut self, io: &mut Io, id: ConnectionId) {
        let Some(client) = self.client(id) else { return };
        let (name, wants_bytes) = (client.session.client_id(), client.session.wants_bytes());
        let device = client.session.device().map(|device| device.name());
        tracing::debug!(client = name, device, "client connected");
        let deadline = client.session.poll_timeout();
        if wants_bytes && !client.held {
            io.resume_receive(id);
        }
        if let Some(deadline) = deadline {
            self.deadlines.push(Reverse((deadline, id.as_u64())));
        }
    }

    /// Ends every session, telling clients that the node stops.
    pub(crate) fn handle_stop(&mut self, io: &mut Io, now: Now, intake: &mut Intake<'_>) {
        let ids: Vec<ConnectionId> = self.clients.iter().flatten().map(|client| client.id).collect();
        for id in ids {
            self.with_client(io, now, id, intake, &mut |session, context| {
                Err(session.handle_termination(Termination::ShuttingDown, context))
            });
        }
    }

    /// A connection is gone.
    pub(crate) fn handle_closed(&mut self, now: Now, id: ConnectionId, intake: &mut Intake<'_>) {
        let Some(mut client) = self.take(id) else { return };
        let mut nowhere = Vec::new();
        let mut way = way(now, id, intake);
        client
            .session
            .handle_closed(&mut self.context(&mut nowhere, &mut way));
        self.count -= 1;
    }

    /// Everything up to a ticket is on stable storage: writes what clients wait for.
    pub(crate) fn handle_committed(&mut self, io: &mut Io, now: Now, up_to: u64, intake: &mut Intake<'_>) {
        let mut waiting = std::mem::take(&mut self.awaiting);
        waiting.retain(|id| {
            let Some(mut client) = self.take(*id) else {
                return false;
            };
            let mut flow = Flow::Steady;
            match (client.transport.take(), io.send_buffer(*id)) {
                (None, Some(send)) => flow = client.session.handle_committed(up_to, send),
                (Some(mut transport), _) => {
                    let mut plain = Vec::new();
                    flow = client.session.handle_committed(up_to, &mut plain);
                    deliver(io, *id, &mut transport, &plain, false);
                    client.transport = Some(transport);
                }
                (None, None) => {}
            }
            client.awaiting = client.session.awaited_commit().is_some();
            let awaits = client.awaiting;
            self.put_back(client);
            if flow == Flow::Resume {
                self.resume(io, now, *id, intake);
            }
            // One that does not wait any more and was resumed is in the list anew if it has to.
            awaits
        });
        waiting.append(&mut self.awaiting);
        self.awaiting = waiting;
        if !intake.is_behind() {
            self.release_held(io);
        }
    }

    /// Reads on where reading was put off because too much waited.
    pub(crate) fn release_held(&mut self, io: &mut Io) {
        for id in std::mem::take(&mut self.held) {
            if let Some(client) = self
                .clients
                .get_mut(index(id))
                .and_then(Option::as_mut)
                .filter(|client| client.id == id)
            {
                client.held = false;
                if client.session.wants_bytes() {
                    io.resume_receive(id);
                }
            }
        }
    }

    fn resume(&mut self, io: &mut Io, now: Now, id: ConnectionId, intake: &mut Intake<'_>) {
        self.with_client(io, now, id, intake, &mut |session, context| {
            session.handle_bytes(now, &[], context)
        });
        let Some(client) = self.client(id) else { return };
        if client.session.wants_bytes() {
            let deadline = client.session.poll_timeout();
            io.resume_receive(id);
            if let Some(deadline) = deadline {
                self.deadlines.push(Reverse((deadline, id.as_u64())));
            }
        }
    }

    /// Looks at clients whose time has come.
    pub(crate) fn handle_timeout(&mut self, io: &mut Io, now: Now, intake: &mut Intake<'_>) {
        while let Some(Reverse((deadline, number))) = self.deadlines.peek().copied() {
            if deadline > now.instant {
                return;
            }
            self.deadlines.pop();
            let id = ConnectionId::from_u64(number);
            self.with_client(io, now, id, intake, &mut |session, context| {
                session.handle_timeout(now, context)
            });
            let deadline = self.client(id).and_then(|client| client.session.poll_timeout());
            if let Some(deadline) = deadline {
                self.deadlines.push(Reverse((deadline, number)));
            }
        }
    }

    /// Returns when [`Field::handle_timeout`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// Returns whether there are clients.
    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds this shard's numbers to a report.
    pub(crate) fn report(&self, status: &mut ShardStatus) {
        let counters = &self.counters;
        status.clients = self.count as u64;
        status.accepted = self.accepted;
        status.refused = self.refused;
        status.too_fast = self.too_fast;
        status.messages_dropped = self.dropped_slow;
        status.protocol_errors = counters.violations;
        status.auth_failures = counters.logins_refused;
        status.readings = counters.readings;
        status.readings_refused =
            counters.journal_full + counters.too_large + counters.not_now + counters.unauthorized;
    }
}

fn way<'a, 'i>(now: Now, id: ConnectionId, intake: &'a mut Intake<'i>) -> Way<'a, 'i> {
    Way {
        intake,
        connection: id.as_u64(),
        now,
    }
}

/// Sends what a session has to say through its transport, and the transport's goodbye if it was the last.
fn deliver(io: &mut Io, id: ConnectionId, transport: &mut Transport, plain: &[u8], is_last: bool) {
    let mut nowhere = Vec::new();
    let out = io.send_buffer(id).unwrap_or(&mut nowhere);
    transport.send(plain, out);
    if is_last {
        transport.close(out);
    }
}

/// Returns whether a message may be dropped for a client that does not read.
fn is_unsure(answer: &Answer) -> bool {
    matches!(answer, Answer::Deliver(delivery) if delivery.qos == Qos::AtMostOnce)
}

/// Returns the place of a connection among those of its shard.
fn index(id: ConnectionId) -> usize {
    (id.as_u64() & 0xffff_ffff) as usize
}

/// Bytes that a client has not read from which on it misses messages at QoS 0.
const QUEUED_BYTES_HIGH: usize = 1 << 20;
