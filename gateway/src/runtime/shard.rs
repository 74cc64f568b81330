//! One shard: the thread's handler, which knows whose each connection is.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use fieldgate_io::{
    CloseReason, ConnectionId, DatagramId, DatagramPath, Handler, Io, ListenerId, LocalPeer, Turn,
    mailbox::{MailReceiver, MailSender},
};
use fieldgate_proto::time::{Instant, Now};

use super::{
    ShardMessage, ShardReport,
    clock::TurnClock,
    exchange::Exchange,
    field::{Field, Intake, Outgoing},
    portals::Caller,
    trunk::{LinkKind, Trunk},
};
use crate::status::ShardStatus;

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// MQTT, over what the field side has under this number.
    Mqtt {
        /// Its number.
        stack: usize,
    },
    /// Links of other nodes.
    Link(LinkKind),
    /// Connections that lead to other nodes.
    Inlet {
        /// Its place in the file.
        inlet: usize,
    },
}

/// The handler of one shard's driver.
pub(crate) struct Shard {
    pub(crate) index: usize,
    pub(crate) clock: TurnClock,
    pub(crate) listeners: BTreeMap<ListenerId, Purpose>,
    pub(crate) field: Option<Field>,
    /// On the first shard only.
    pub(crate) trunk: Option<Trunk>,
    /// On the first shard only, where the node has clients.
    pub(crate) exchange: Option<Exchange>,
    /// On the others.
    pub(crate) outgoing: Outgoing,
    pub(crate) mail: MailReceiver<ShardMessage>,
    pub(crate) shards: Arc<[MailSender<ShardMessage>]>,
    /// How long clients' bytes may wait for company.
    pub(crate) latency: Duration,
    pub(crate) turns: u64,
    /// Set when the node stops: no later than this.
    pub(crate) stop_by: Option<Instant>,
}

/// Runs a function on the field with the intake that this shard has.
macro_rules! with_field {
    ($shard:expr, |$field:ident, $intake:ident| $body:expr) => {
        if let Some($field) = &mut $shard.field {
            let journal = $shard.trunk.as_mut().and_then(|trunk| trunk.journal.as_mut());
            let $intake = &mut match &mut $shard.exchange {
                Some(exchange) => Intake::Own {
                    journal: journal.map(|files| &mut files.lanes),
                    exchange,
                    classifier: &$shard.outgoing.classifier,
                },
                None => Intake::Batch(&mut $shard.outgoing),
            };
            $body
        }
    };
}

impl Shard {
    fn now(&mut self, io: &Io) -> Now {
        self.clock.at(io.now())
    }

    fn handle_committed(&mut self, io: &mut Io, now: Now, up_to: u64) {
        with_field!(self, |field, intake| field
            .handle_committed(io, now, up_to, intake));
    }

    /// Notes how far the journal is on stable storage; says whether that is news.
    fn note_committed(&mut self, committed: Option<u64>) -> bool {
        match (&mut self.exchange, committed) {
            (Some(exchange), Some(up_to)) => {
                exchange.handle_committed(up_to);
                true
            }
            (None, _) | (_, None) => false,
        }
    }

    fn handle_message(&mut self, io: &mut Io, now: Now, message: ShardMessage) {
        match message {
            ShardMessage::Status(answer) => {
                let mut shard = ShardStatus {
                    turns: self.turns,
                    ..ShardStatus::default()
                };
                if let Some(field) = &self.field {
                    field.report(&mut shard);
                }
                let trunk = self.trunk.as_ref().map(|trunk| trunk.report(io, now));
                // Who asked may have gone.
                let mqtt = self.exchange.as_ref().map(Exchange::report);
                drop(answer.send(ShardReport { shard, mqtt, trunk }));
            }
            ShardMessage::Committed { ticket } => self.handle_committed(io, now, ticket),
            ShardMessage::Answers(answers) => {
                with_field!(self, |field, intake| field
                    .handle_answers(io, now, answers, intake));
            }
            ShardMessage::Checked { connection, checked } => {
                with_field!(self, |field, intake| field
                    .handle_checked(io, now, connection, &checked, intake));
            }
            ShardMessage::Stored(stored) => {
                if let Some(exchange) = &mut self.exchange {
                    exchange.handle_stored(now, stored);
                }
            }
            ShardMessage::Stop => {
                with_field!(self, |field, intake| field.handle_stop(io, now, intake));
                for listener in self.listeners.keys() {
                    io.unlisten(*listener);
                }
                if let Some(trunk) = &mut self.trunk {
                    trunk.handle_stop(io, now);
                }
                self.stop_by = Some(now.instant + STOP_TIME_MAX);
            }
            ShardMessage::Trunk(message) => {
                if let Some(trunk) = &mut self.trunk {
                    trunk.handle_message(io, now, message);
                }
            }
            ShardMessage::Portal(change, answer) => {
                if let Some(trunk) = &mut self.trunk {
                    let result = trunk.change_portals(io, now, &mut self.listeners, *change);
                    // Who asked may have gone.
                    drop(answer.send(result));
                }
            }
            ShardMessage::CommandsKept(kept) => {
                if let Some(trunk) = &mut self.trunk {
                    trunk.handle_commands_kept(now, kept);
                }
            }
            ShardMessage::Confirmed(confirmation) => {
                if let Some(trunk) = &mut self.trunk {
                    trunk.handle_confirmed(confirmation);
                }
            }
            ShardMessage::Field(batch) => {
                if let Some(exchange) = &mut self.exchange {
                    let journal = self.trunk.as_mut().and_then(|trunk| trunk.journal.as_mut());
                    exchange.handle_batch(now, journal.map(|files| &mut files.lanes), batch);
                }
            }
        }
    }

    /// Sends what this shard's clients want to the shard with journal and broker.
    fn tell_trunk(&mut self) {
        if self.outgoing.batch.is_empty() {
            return;
        }
        let mut batch = std::mem::take(&mut self.outgoing.batch);
        (batch.shard, batch.last_ticket) = (self.index, self.outgoing.ticket);
        let sent = self
            .shards
            .first()
            .map(|trunk| trunk.try_send(ShardMessage::Field(batch)));
        if let Some(Err(error)) = sent
            && let ShardMessage::Field(batch) = error.into_value()
        {
            // The trunk is behind: what is here waits, and clients are held when it grows.
            self.outgoing.batch = batch;
        }
    }

    /// Runs journal and broker together, and gives this shard's own sessions what concerns them.
    fn run_exchange(&mut self, io: &mut Io, now: Now) {
        for _ in 0..EXCHANGE_ROUNDS {
            let Some(exchange) = &mut self.exchange else {
                return;
            };
            let journal = self.trunk.as_mut().and_then(|trunk| trunk.journal.as_mut());
            exchange.run(now, journal.map(|files| &mut files.lanes));
            let (answers, due) = (exchange.take_answers(), exchange.take_due());
            if answers.is_empty() && due.is_none() {
                return;
            }
            // What the sessions say to it goes to the broker at once, and is answered in the next round.
            with_field!(self, |field, intake| field
                .handle_answers(io, now, answers, intake));
            if let Some(up_to) = due {
                self.handle_committed(io, now, up_to);
            }
        }
    }

    /// Tells the trunk what devices have to do with commands.
    fn pass_words(&mut self, now: Now) {
        if let (Some(exchange), Some(trunk)) = (&mut self.exchange, &mut self.trunk) {
            let words = exchange.take_words();
            if !words.is_empty() {
                trunk.handle_words(now, words);
            }
        }
    }

    /// Gives the broker the commands for devices; says whether there were any.
    fn pass_commands(&mut self, now: Now) -> bool {
        let outbound = self.trunk.as_mut().map(Trunk::take_outbound).unwrap_or_default();
        let any = !outbound.is_empty();
        if let Some(exchange) = &mut self.exchange {
            for command in outbound {
                exchange.command(now, command);
            }
        }
        any
    }

    /// Returns whether everything is done that has to be before the end.
    fn may_stop(&self, now: Now) -> bool {
        let settled = self.trunk.as_ref().is_none_or(Trunk::is_settled)
            && self.exchange.as_ref().is_none_or(Exchange::is_settled)
            && self.outgoing.batch.is_empty();
        let clients_gone = self.field.as_ref().is_none_or(Field::is_empty);
        self.stop_by
            .is_some_and(|by| now.instant >= by || (settled && clients_gone))
    }
}

impl Handler for Shard {
    fn accepted(&mut self, io: &mut Io, listener: ListenerId, connection: ConnectionId, peer: SocketAddr) {
        let now = self.now(io);
        match self.listeners.get(&listener) {
            Some(Purpose::Link(kind)) => {
                if let Some(trunk) = &mut self.trunk {
                    trunk.handle_accepted(io, now, (connection, peer), *kind);
                }
            }
            Some(Purpose::Inlet { inlet }) => {
                if let Some(trunk) = &mut self.trunk {
                    trunk.handle_inlet(io, now, *inlet, (connection, Caller::Network(peer)));
                }
            }
            Some(Purpose::Mqtt { stack }) => {
                let stack = *stack;
                with_field!(self, |field, intake| field.handle_accepted(
                    io,
                    now,
                    connection,
                    (peer, stack),
                    intake
                ));
            }
            None => io.abort(connection),
        }
    }

    fn accepted_local(
        &mut self,
        io: &mut Io,
        listener: ListenerId,
        connection: ConnectionId,
        peer: LocalPeer,
    ) {
        let now = self.now(io);
        match (self.listeners.get(&listener), &mut self.trunk) {
            (Some(Purpose::Inlet { inlet }), Some(trunk)) => {
                trunk.handle_inlet(io, now, *inlet, (connection, Caller::Local(peer)));
            }
            (Some(Purpose::Link(_)), Some(trunk)) => trunk.handle_local(io, now, connection, peer),
            (Some(_) | None, _) => io.abort(connection),
        }
    }

    fn connected(&mut self, io: &mut Io, connection: ConnectionId, result: io::Result<()>) {
        let now = self.now(io);
        if let Some(trunk) = &mut self.trunk {
            trunk.handle_connected(io, now, connection, result);
        }
    }

    fn received(&mut self, io: &mut Io, connection: ConnectionId, bytes: &mut [u8]) {
        let now = self.now(io);
        if self.field.as_ref().is_some_and(|field| field.has(connection)) {
            with_field!(self, |field, intake| field
                .handle_received(io, now, connection, bytes, intake));
        } else if let Some(trunk) = &mut self.trunk {
            trunk.handle_received(io, now, connection, bytes);
        }
    }

    fn ended(&mut self, io: &mut Io, connection: ConnectionId) {
        let now = self.now(io);
        match self.trunk.as_mut().filter(|trunk| trunk.has_portal(connection)) {
            Some(trunk) => trunk.handle_portal_ended(io, now, connection),
            None => io.close(connection),
        }
    }

    fn drained(&mut self, _io: &mut Io, _connection: ConnectionId) {
        // The end of the turn looks at every link's queue anyway.
    }

    fn closed(&mut self, io: &mut Io, connection: ConnectionId, reason: CloseReason) {
        let now = self.now(io);
        with_field!(self, |field, intake| field.handle_closed(now, connection, intake));
        if let Some(trunk) = &mut self.trunk {
            if trunk.has(connection) {
                trunk.handle_closed(io, now, connection);
            } else {
                trunk.handle_portal_closed(io, now, connection, reason);
            }
        }
    }

    fn datagram(&mut self, io: &mut Io, socket: DatagramId, path: DatagramPath, bytes: &mut [u8]) {
        let now = self.now(io);
        if let Some(trunk) = &mut self.trunk {
            if trunk.has_portal_datagrams(socket) {
                trunk.handle_portal_datagram(io, now, (socket, path), bytes);
            } else {
                trunk.handle_datagram(now, (socket, path), bytes);
            }
        }
    }

    fn datagram_failed(
        &mut self,
        _io: &mut Io,
        socket: DatagramId,
        _remote: Option<SocketAddr>,
        error: io::Error,
    ) {
        if let Some(trunk) = &mut self.trunk {
            trunk.handle_portal_datagram_failed(socket, &error);
        }
    }

    fn datagrams_drained(&mut self, _io: &mut Io, socket: DatagramId) {
        if let Some(trunk) = &mut self.trunk {
            trunk.handle_datagrams_drained(socket);
        }
    }

    fn written(&mut self, io: &mut Io, token: u64, buffer: Vec<u8>, result: io::Result<()>) {
        let now = self.now(io);
        let committed = self
            .trunk
            .as_mut()
            .and_then(|trunk| trunk.handle_written(io, now, (token, buffer), result));
        self.note_committed(committed);
    }

    fn woken(&mut self, io: &mut Io) {
        let now = self.now(io);
        while let Some(message) = self.mail.try_receive() {
            self.handle_message(io, now, message);
        }
    }

    fn turn_ended(&mut self, io: &mut Io) -> Turn {
        let now = self.now(io);
        self.turns += 1;
        if self
            .field
            .as_ref()
            .and_then(Field::poll_timeout)
            .is_some_and(|deadline| now.instant >= deadline)
        {
            with_field!(self, |field, intake| field.handle_timeout(io, now, intake));
        }
        self.run_exchange(io, now);
        self.pass_words(now);
        self.tell_trunk();
        let committed = self.trunk.as_mut().and_then(|trunk| trunk.end_turn(io, now));
        if self.note_committed(committed) | self.pass_commands(now) {
            self.run_exchange(io, now);
            self.pass_words(now);
        }
        if self.may_stop(now) {
            if let Some(trunk) = &mut self.trunk {
                trunk.handle_end(io, now);
            }
            io.stop();
        }
        let field = self.field.as_ref().and_then(Field::poll_timeout);
        let trunk = self.trunk.as_ref().and_then(Trunk::poll_timeout);
        let exchange = self
            .exchange
            .as_ref()
            .and_then(|exchange| exchange.poll_timeout(now.instant));
        let retry = (!self.outgoing.batch.is_empty()).then(|| now.instant + RETRY_AFTER);
        let deadline = [field, trunk, exchange, retry, self.stop_by]
            .into_iter()
            .flatten()
            .min();
        Turn {
            deadline_nanos: deadline.map(|deadline| self.clock.monotonic(deadline)),
            coalesce: if self.field.as_ref().is_some_and(|field| !field.is_empty()) {
                self.latency
            } else {
                Duration::ZERO
            },
        }
    }
}

/// Longest time that a stopping node waits for its clients and its disk.
const STOP_TIME_MAX: Duration = Duration::from_secs(3);
/// Times in a turn that the broker and this shard's sessions answer each other; what is left waits for the next.
const EXCHANGE_ROUNDS: usize = 8;
/// When a batch that found the trunk's mailbox full is sent again.
const RETRY_AFTER: Duration = Duration::from_millis(1);
