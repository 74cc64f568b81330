//! The field side of a shard: MQTT connections and their sessions.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    net::SocketAddr,
    sync::Arc,
};

use fieldgate_adapters::{
    authenticate::{Authentication, Authenticator, Denial},
    ingest::{Ingest, Refused},
    reading::Reading,
};
use fieldgate_io::{ConnectionId, Io};
use fieldgate_mqtt::{
    counters::Counters,
    session::{
        Context, Flow, Output, Session,
        end::{SessionEnd, Termination},
    },
    settings::Settings,
};
use fieldgate_proto::{
    journal::{AppendError, Lanes},
    link::Class,
    time::{Instant, Now},
};
use rustls::ServerConfig;

use super::{accepting::Accepting, entropy::SystemEntropy, tls::Tls};
use crate::status::ShardStatus;

/// Readings that a shard without the journal took, on their way to the one with it.
pub(crate) struct ReadingBatch {
    /// Which shard.
    pub(crate) shard: usize,
    /// The shard's ticket of the last reading.
    pub(crate) last_ticket: u64,
    /// Per reading: class, length (4 bytes, big-endian), encoded reading.
    pub(crate) bytes: Vec<u8>,
}

/// Where the readings of this shard's clients go.
pub(crate) enum Intake<'a> {
    /// Into the journal, which this shard owns.
    Journal(&'a mut Lanes),
    /// Into a batch for the shard that does.
    Batch(&'a mut Outgoing),
}

/// The batch being filled.
pub(crate) struct Outgoing {
    pub(crate) ticket: u64,
    pub(crate) bytes: Vec<u8>,
    /// Set by the trunk: which readings the journal takes.
    pub(crate) accepting: Arc<Accepting>,
}

impl Ingest for Intake<'_> {
    fn publish(&mut self, reading: &Reading<'_>) -> Result<u64, Refused> {
        let len = reading.encoded_len().map_err(|_| Refused::TooLarge)?;
        match self {
            Self::Journal(journal) => journal
                .append(lane(reading), reading.captured_at, |out| {
                    // The length was just found, so the reading can be encoded.
                    let _ = reading.encode(out);
                })
                .map_err(|error| match error {
                    AppendError::Full => Refused::Full,
                    AppendError::Busy | AppendError::Failed => Refused::NotNow,
                    AppendError::TooLong { .. } => Refused::TooLarge,
                }),
            Self::Batch(outgoing) => {
                if !outgoing.accepting.takes(lane(reading)) {
                    return Err(Refused::Full);
                }
                if outgoing.bytes.len() > OUTGOING_BYTES_MAX {
                    return Err(Refused::NotNow);
                }
                outgoing.bytes.push(reading.class.code());
                outgoing
                    .bytes
                    .extend_from_slice(&u32::try_from(len).map_err(|_| Refused::TooLarge)?.to_be_bytes());
                reading
                    .encode(&mut outgoing.bytes)
                    .map_err(|_| Refused::TooLarge)?;
                outgoing.ticket += 1;
                Ok(outgoing.ticket)
            }
        }
    }
}

/// Returns the lane of the journal that a reading goes into.
const fn lane(reading: &Reading<'_>) -> Class {
    match reading.class {
        fieldgate_adapters::class::Class::Alarm => Class::Alarm,
        fieldgate_adapters::class::Class::Normal => Class::Normal,
        fieldgate_adapters::class::Class::Bulk => Class::Bulk,
    }
}

impl Intake<'_> {
    /// Returns whether so much waits that clients should not be read for a moment.
    fn is_behind(&self) -> bool {
        match self {
            Self::Journal(journal) => journal.pending_bytes() > BEHIND_BYTES,
            Self::Batch(outgoing) => outgoing.bytes.len() > BEHIND_BYTES,
        }
    }
}

/// One client.
struct Client {
    id: ConnectionId,
    session: Session,
    tls: Option<Box<Tls>>,
    /// In the list of those whose PUBACKs wait for a commit.
    awaiting: bool,
    /// Not read because too much waits for the journal.
    held: bool,
    /// Device and client identifier, once connected.
    key: Option<ClientKey>,
}

type ClientKey = (Box<str>, Box<str>);

/// All clients of a shard.
pub(crate) struct Field {
    settings: Arc<Settings>,
    authenticator: Authenticator,
    entropy: SystemEntropy,
    counters: Counters,
    tls: Option<Arc<ServerConfig>>,
    /// By index of the connection.
    clients: Vec<Option<Box<Client>>>,
    count: usize,
    count_max: usize,
    awaiting: Vec<ConnectionId>,
    held: Vec<ConnectionId>,
    by_key: BTreeMap<ClientKey, ConnectionId>,
    /// When to look at a client; those that heard from it meanwhile are put back.
    deadlines: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Identifiers that connected in this turn, for the other shards.
    pub(crate) connected: Vec<Box<str>>,
    accepted: u64,
    refused: u64,
}

impl Field {
    /// Makes a field side for at most `count_max` clients.
    pub(crate) fn new(
        settings: Arc<Settings>,
        authenticator: Authenticator,
        tls: Option<Arc<ServerConfig>>,
        count_max: usize,
    ) -> Self {
        Self {
            settings,
            authenticator,
            entropy: SystemEntropy,
            counters: Counters::default(),
            tls,
            clients: Vec::new(),
            count: 0,
            count_max,
            awaiting: Vec::new(),
            held: Vec::new(),
            by_key: BTreeMap::new(),
            deadlines: BinaryHeap::new(),
            connected: Vec::new(),
            accepted: 0,
            refused: 0,
        }
    }

    /// Takes a new connection.
    pub(crate) fn handle_accepted(
        &mut self,
        io: &mut Io,
        now: Now,
        id: ConnectionId,
        peer: SocketAddr,
        secure: bool,
    ) {
        let tls = match (secure, &self.tls) {
            (false, _) => None,
            (true, Some(config)) => Tls::new(config).ok().map(Box::new),
            (true, None) => None,
        };
        if self.count >= self.count_max || (secure && tls.is_none()) {
            self.refused += 1;
            tracing::debug!(%peer, "client refused: too many connections");
            io.abort(id);
            return;
        }
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
                tls,
                awaiting: false,
                held: false,
                key: None,
            }));
        }
    }

    /// Returns whether the connection is one of ours.
    pub(crate) fn has(&self, id: ConnectionId) -> bool {
        self.clients
            .get(index(id))
            .and_then(Option::as_ref)
            .is_some_and(|client| client.id == id)
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
        self.with_client(
            io,
            now,
            id,
            intake,
            |field, client, send, intake| {
                let mut context = context(
                    (&mut field.counters, &mut field.authenticator, &mut field.entropy),
                    send,
                    intake,
                );
                client.session.handle_bytes(now, bytes, &mut context)
            },
            Some(bytes),
        );
    }

    /// Runs `act` on a client with its send buffer, through TLS where there is one, and deals with what comes of it.
    fn with_client(
        &mut self,
        io: &mut Io,
        now: Now,
        id: ConnectionId,
        intake: &mut Intake<'_>,
        mut act: impl FnMut(&mut Self, &mut Client, &mut Vec<u8>, &mut Intake<'_>) -> Result<(), SessionEnd>,
        received: Option<&[u8]>,
    ) {
        let Some(mut client) = self.take(id) else { return };
        let result = match (client.tls.take(), received) {
            (None, _) => match io.send_buffer(id) {
                Some(send) => act(self, &mut client, send, intake),
                None => Err(SessionEnd::Closed),
            },
            (Some(mut tls), received) => {
                let mut plain = Vec::new();
                let mut result = Ok(());
                let decrypted = match received {
                    // The session takes what was decrypted, piece by piece.
                    Some(bytes) => tls.receive(bytes, |piece| {
                        if result.is_ok() {
                            let mut context = context(
                                (&mut self.counters, &mut self.authenticator, &mut self.entropy),
                                &mut plain,
                                intake,
                            );
                            result = client.session.handle_bytes(now, piece, &mut context);
                        }
                    }),
                    None => {
                        result = act(self, &mut client, &mut plain, intake);
                        Ok(())
                    }
                };
                tls.send(&plain);
                if let Err(error) = &decrypted {
                    tracing::debug!(%error, "TLS with a client failed");
                    result = result.and(Err(SessionEnd::Closed));
                }
                if result.is_err() {
                    tls.close();
                }
                if let Some(out) = io.send_buffer(id) {
                    tls.drain(out);
                }
                client.tls = Some(tls);
                result
            }
        };
        self.follow_up(io, now, client, intake, result);
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
        // Slow hashes are for passwords that people chose; devices' generated ones are checked at once. The check runs here, so a
        // table of slow hashes costs connection rate, never correctness.
        if let Some(check) = self.authenticator.take_check() {
            let checked = check.run();
            let verdict = self.authenticator.handle_checked(&checked);
            let verdict = if matches!(verdict, Authentication::Pending) {
                Authentication::Denied(Denial::Busy)
            } else {
                verdict
            };
            self.put_back(client);
            self.with_client(
                io,
                now,
                id,
                intake,
                |field, client, send, intake| {
                    let mut context = context(
                        (&mut field.counters, &mut field.authenticator, &mut field.entropy),
                        send,
                        intake,
                    );
                    client
                        .session
                        .handle_authenticated(now, verdict.clone(), &mut context)
                },
                None,
            );
            return;
        }
        while let Some(Output::Connected) = client.session.poll_output() {
            self.handle_connected(io, now, &mut client, intake);
        }
        if let Err(end) = result {
            tracing::debug!(client = client.session.client_id(), %end, "session ended");
            self.forget(&client);
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

    /// Ends an older session of the same device and identifier.
    fn handle_connected(&mut self, io: &mut Io, now: Now, client: &mut Client, intake: &mut Intake<'_>) {
        let (Some(client_id), Some(device)) = (client.session.client_id(), client.session.device()) else {
            return;
        };
        let key: ClientKey = (device.name().into(), client_id.into());
        tracing::debug!(client = client_id, device = device.name(), "client connected");
        self.connected.push(join_key(&key));
        client.key = Some(key.clone());
        if let Some(deadline) = client.session.poll_timeout() {
            self.deadlines.push(Reverse((deadline, client.id.as_u64())));
        }
        if let Some(older) = self.by_key.insert(key, client.id) {
            self.terminate(io, now, older, Termination::TakenOver, intake);
        }
    }

    /// Another shard took a client with this key.
    pub(crate) fn handle_taken_over(&mut self, io: &mut Io, now: Now, joined: &str, intake: &mut Intake<'_>) {
        let Some((device, client_id)) = joined.split_once('\0') else {
            return;
        };
        let key: ClientKey = (device.into(), client_id.into());
        if let Some(id) = self.by_key.get(&key).copied() {
            self.terminate(io, now, id, Termination::TakenOver, intake);
        }
    }

    fn terminate(
        &mut self,
        io: &mut Io,
        now: Now,
        id: ConnectionId,
        why: Termination,
        intake: &mut Intake<'_>,
    ) {
        self.with_client(
            io,
            now,
            id,
            intake,
            |field, client, send, intake| {
                let mut context = context(
                    (&mut field.counters, &mut field.authenticator, &mut field.entropy),
                    send,
                    intake,
                );
                Err(client.session.handle_termination(now, why, &mut context))
            },
            None,
        );
    }

    /// Ends every session, telling clients that the node stops.
    pub(crate) fn handle_stop(&mut self, io: &mut Io, now: Now, intake: &mut Intake<'_>) {
        let ids: Vec<ConnectionId> = self.clients.iter().flatten().map(|client| client.id).collect();
        for id in ids {
            self.terminate(io, now, id, Termination::ShuttingDown, intake);
        }
    }

    /// A connection is gone.
    pub(crate) fn handle_closed(&mut self, now: Now, id: ConnectionId, intake: &mut Intake<'_>) {
        let Some(mut client) = self.take(id) else { return };
        let mut nowhere = Vec::new();
        let mut context = context(
            (&mut self.counters, &mut self.authenticator, &mut self.entropy),
            &mut nowhere,
            intake,
        );
        client.session.handle_closed(now, &mut context);
        self.forget(&client);
    }

    fn forget(&mut self, client: &Client) {
        self.count -= 1;
        if let Some(key) = &client.key
            && self.by_key.get(key) == Some(&client.id)
        {
            self.by_key.remove(key);
        }
    }

    /// Everything up to `up_to` is on stable storage: writes the PUBACKs, and reads on from clients that were held.
    pub(crate) fn handle_committed(&mut self, io: &mut Io, now: Now, up_to: u64, intake: &mut Intake<'_>) {
        let mut waiting = std::mem::take(&mut self.awaiting);
        waiting.retain(|id| {
            let Some(mut client) = self.take(*id) else {
                return false;
            };
            let flow = match (&mut client.tls, io.send_buffer(*id)) {
                (_, None) => Flow::Steady,
                (None, Some(send)) => client.session.handle_committed(up_to, send),
                (Some(tls), Some(send)) => {
                    let mut plain = Vec::new();
                    let flow = client.session.handle_committed(up_to, &mut plain);
                    tls.send(&plain);
                    tls.drain(send);
                    flow
                }
            };
            client.awaiting = client.session.awaited_commit().is_some();
            let awaits = client.awaiting;
            self.put_back(client);
            if flow == Flow::Resume {
                self.resume(io, now, *id, intake);
            }
            // A client that was resumed may have joined the list anew.
            awaits && !self.awaiting.contains(id)
        });
        waiting.append(&mut self.awaiting);
        self.awaiting = waiting;
        if !intake.is_behind() {
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
    }

    fn resume(&mut self, io: &mut Io, now: Now, id: ConnectionId, intake: &mut Intake<'_>) {
        self.with_client(
            io,
            now,
            id,
            intake,
            |field, client, send, intake| {
                let mut context = context(
                    (&mut field.counters, &mut field.authenticator, &mut field.entropy),
                    send,
                    intake,
                );
                client.session.handle_bytes(now, &[], &mut context)
            },
            None,
        );
        let Some(client) = self
            .clients
            .get(index(id))
            .and_then(Option::as_ref)
            .filter(|client| client.id == id)
        else {
            return;
        };
        if client.session.wants_bytes() {
            io.resume_receive(id);
            if let Some(deadline) = client.session.poll_timeout() {
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
            self.with_client(
                io,
                now,
                id,
                intake,
                |field, client, send, intake| {
                    let mut context = context(
                        (&mut field.counters, &mut field.authenticator, &mut field.entropy),
                        send,
                        intake,
                    );
                    client.session.handle_timeout(now, &mut context)
                },
                None,
            );
            let client = self
                .clients
                .get(index(id))
                .and_then(Option::as_ref)
                .filter(|client| client.id == id);
            if let Some(deadline) = client.and_then(|client| client.session.poll_timeout()) {
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
        status.protocol_errors = counters.violations;
        status.auth_failures = counters.logins_refused;
        status.readings = counters.readings;
        status.readings_refused =
            counters.journal_full + counters.too_large + counters.not_now + counters.unauthorized;
    }
}

fn context<'a, 'i: 'a>(
    tools: (&'a mut Counters, &'a mut Authenticator, &'a mut SystemEntropy),
    send: &'a mut Vec<u8>,
    intake: &'a mut Intake<'i>,
) -> Context<'a> {
    let (counters, authenticator, entropy) = tools;
    Context {
        send,
        ingest: intake,
        authenticator,
        entropy,
        counters,
    }
}

/// Device and client identifier in one text: neither can contain U+0000 (MQTT 5.0 §1.5.4).
fn join_key((device, client_id): &ClientKey) -> Box<str> {
    format!("{device}\0{client_id}").into()
}

/// Returns the place of a connection among those of its shard.
fn index(id: ConnectionId) -> usize {
    (id.as_u64() & 0xffff_ffff) as usize
}

/// Bytes of readings a shard without the journal gathers in one turn.
const OUTGOING_BYTES_MAX: usize = 900 << 10;
/// Bytes of readings waiting for the journal from which on clients are not read.
const BEHIND_BYTES: usize = 512 << 10;
