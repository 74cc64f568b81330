//! The gateway's side of one MQTT connection.

mod acknowledgements;
mod aliases;
mod connect;
mod connection;
mod deliver;
pub mod end;
mod publish;
mod will;

use std::{fmt, mem, sync::Arc};

use fieldgate_adapters::{
    authenticate::{Authenticate, Authentication},
    device::Device,
    scram::{Dialog, Turn},
};
use fieldgate_proto::{
    entropy::Entropy,
    time::{Instant, Now},
};
use zeroize::Zeroize as _;

use self::{
    connect::{Admission, Attaching, NOT_CONNECT, Opening, next_word, send_word},
    connection::Connection,
    end::{SessionEnd, Termination},
};
use crate::{
    counters::Counters,
    exchange::{Answer, Exchange, Request},
    frame::{Frame, PacketType, Split, split},
    reason::ReasonCode,
    settings::Settings,
    version::ProtocolVersion,
    violation::Violation,
};

/// What a session needs of its surroundings during one call.
pub struct Context<'a> {
    /// The connection's output buffer; answers are appended.
    pub send: &'a mut Vec<u8>,
    /// Where messages and requests go.
    pub exchange: &'a mut dyn Exchange,
    /// Who says who a client is.
    pub authenticator: &'a mut dyn Authenticate,
    /// For client identifiers that the gateway chooses.
    pub entropy: &'a mut dyn Entropy,
    /// What happened, in numbers.
    pub counters: &'a mut Counters,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("send_len", &self.send.len())
            .finish_non_exhaustive()
    }
}

/// One MQTT connection of a field device, MQTT 3.1.1 or 5.0.
///
/// ```text
///  AwaitingConnect ──CONNECT──▶ Attaching ──attached──▶ Connected ───▶ Ended
///      │   │                     ▲    │                                 ▲
///      │   │                     │    └─refused, too late───────────────┤
///      │   ├─CONNECT, slow check─▶ Authenticating ──denied, too late────┤
///      │   └─CONNECT, AUTH …─────▶ Conversing ──────denied, too late────┤
///      └──anything else, too late───────────────────────────────────────┘
/// ```
///
/// The caller, in a loop of its own:
/// 1. gives received bytes to [`handle_bytes`](Self::handle_bytes) while [`wants_bytes`](Self::wants_bytes);
/// 2. gives what the broker answers to [`handle_answer`](Self::handle_answer);
/// 3. tells [`handle_committed`](Self::handle_committed) how far messages are on stable storage, as soon as that reaches
///    [`awaited_commit`](Self::awaited_commit);
/// 4. calls [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout), which moves with every packet;
/// 5. on the first error sends what is in the output buffer and closes the connection;
/// 6. calls [`handle_closed`](Self::handle_closed) when the connection is gone in any other way.
///
/// This is the part of a session that lives and ends with its connection; what outlives it is the broker's. Every further
/// call to an ended session gives the same error and does nothing.
///
/// Invariant: bytes given in other portions have the same effect.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    /// Received bytes not taken yet: the beginning of a packet, or whole packets while the session is held.
    tail: Vec<u8>,
    state: State,
    /// When the connection was opened; once connected, when the last packet came.
    since: Instant,
}

#[derive(Debug)]
enum State {
    AwaitingConnect,
    Authenticating(Box<Admission>),
    Conversing(Box<Conversation>),
    Attaching(Box<Attaching>),
    Connected(Box<Connection>),
    Ended(SessionEnd),
}

/// A client that proves who it is in several steps (MQTT 5.0 §4.12).
#[derive(Debug)]
struct Conversation {
    admission: Admission,
    method: Box<str>,
    dialog: Box<dyn Dialog>,
}

/// What the caller does after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// Nothing more.
    Steady,
    /// Packets were held back and can be taken now: call [`Session::handle_bytes`] (with no bytes, if there are none) and read on.
    Resume,
}

impl Session {
    /// Begins with a connection that was opened at `now`.
    #[must_use]
    pub const fn new(settings: Arc<Settings>, now: Instant) -> Self {
        Self {
            settings,
            tail: Vec::new(),
            state: State::AwaitingConnect,
            since: now,
        }
    }

    /// Takes received bytes: answers what can be answered and gives readings to the journal.
    ///
    /// PUBACKs are not among the answers: they are written by [`handle_committed`](Self::handle_committed).
    ///
    /// # Errors
    /// [`SessionEnd`] when the session ended; what is to be said to the client has been appended to the output buffer.
    pub fn handle_bytes(
        &mut self,
        now: Now,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) -> Result<(), SessionEnd> {
        if let State::Ended(end) = &self.state {
            return Err(*end);
        }
        self.take_bytes(now, bytes, context)
            .map_err(|end| self.end(end, context))
    }

    /// Takes the answer to a check that was [`Authentication::Pending`].
    ///
    /// # Errors
    /// [`SessionEnd`] when the session ended, with this answer or before it.
    pub fn handle_authenticated(
        &mut self,
        now: Now,
        authentication: Authentication,
        context: &mut Context<'_>,
    ) -> Result<(), SessionEnd> {
        if authentication == Authentication::Pending {
            return Ok(());
        }
        match mem::replace(&mut self.state, State::AwaitingConnect) {
            State::Authenticating(admission) => self
                .decide(now, *admission, authentication, context)
                .and_then(|()| self.take_bytes(now, &[], context))
                .map_err(|end| self.end(end, context)),
            State::Ended(end) => {
                self.state = State::Ended(end);
                Err(end)
            }
            other @ (State::AwaitingConnect
            | State::Conversing(_)
            | State::Attaching(_)
            | State::Connected(_)) => {
                self.state = other;
                Ok(())
            }
        }
    }

    /// Takes what the broker answers, and tells the client.
    ///
    /// # Errors
    /// [`SessionEnd`] when the session ended, with this answer or before it.
    pub fn handle_answer(
        &mut self,
        now: Now,
        answer: Answer,
        context: &mut Context<'_>,
    ) -> Result<(), SessionEnd> {
        match mem::replace(&mut self.state, State::AwaitingConnect) {
            State::Connected(mut connection) => {
                let result = connection.handle_answer(answer, context);
                self.state = State::Connected(connection);
                result.map_err(|end| self.end(end, context))
            }
            State::Attaching(attaching) => self
                .take_attach_answer(now, attaching, &answer, context)
                .map_err(|end| self.end(end, context)),
            State::Ended(end) => {
                self.state = State::Ended(end);
                Err(end)
            }
            other @ (State::AwaitingConnect | State::Authenticating(_) | State::Conversing(_)) => {
                self.state = other;
                Ok(())
            }
        }
    }

    /// Learns that everything up to the ticket `up_to` is on stable storage, and appends PUBACKs and PUBRECs to `send`.
    pub fn handle_committed(&mut self, up_to: u64, send: &mut Vec<u8>) -> Flow {
        let State::Connected(connection) = &mut self.state else {
            return Flow::Steady;
        };
        let was_paused = connection.is_paused(&self.settings);
        connection.handle_committed(up_to, send);
        if was_paused && !connection.is_paused(&self.settings) {
            Flow::Resume
        } else {
            Flow::Steady
        }
    }

    /// Ends the session if its deadline has passed at `now`; otherwise gives back memory that a burst took.
    ///
    /// # Errors
    /// [`SessionEnd`] when the session ended, now or before.
    pub fn handle_timeout(&mut self, now: Now, context: &mut Context<'_>) -> Result<(), SessionEnd> {
        if let State::Ended(end) = &self.state {
            return Err(*end);
        }
        if self
            .poll_timeout()
            .is_some_and(|deadline| now.instant >= deadline)
        {
            let end = if matches!(self.state, State::Connected(_)) {
                SessionEnd::KeepAliveTimeout
            } else {
                SessionEnd::ConnectTimeout
            };
            return Err(self.end(end, context));
        }
        if let State::Connected(connection) = &mut self.state {
            connection.acknowledgements.shrink();
        }
        Ok(())
    }

    /// Ends the session because the node wants it, and tells the client as well as its version can.
    pub fn handle_termination(&mut self, termination: Termination, context: &mut Context<'_>) -> SessionEnd {
        self.end(SessionEnd::Terminated(termination), context)
    }

    /// Learns that the connection is gone: the broker publishes the will. Does nothing to a session that ended before.
    pub fn handle_closed(&mut self, context: &mut Context<'_>) -> SessionEnd {
        self.end(SessionEnd::Closed, context)
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due; `None` if never, as things are.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::AwaitingConnect
            | State::Authenticating(_)
            | State::Conversing(_)
            | State::Attaching(_) => Some(self.since + self.settings.connect_timeout()),
            // A client that is not read cannot show that it is there.
            State::Connected(connection) if connection.is_paused(&self.settings) => None,
            State::Connected(connection) => connection.silence_max().map(|silence| self.since + silence),
            State::Ended(_) => None,
        }
    }

    /// Returns whether the connection should be read. What is on its way already may still be given.
    #[must_use]
    pub fn wants_bytes(&self) -> bool {
        !matches!(self.state, State::Ended(_)) && !self.is_held()
    }

    /// Returns the ticket whose commit the next PUBACK or PUBREC waits for; `None` if none waits.
    #[must_use]
    pub fn awaited_commit(&self) -> Option<u64> {
        self.connection()
            .and_then(|connection| connection.acknowledgements.awaited())
    }

    /// Returns the client identifier, once connected; the gateway's choice if the client left it.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.connection().map(|connection| &*connection.client_id)
    }

    /// Returns the device, once connected.
    #[must_use]
    pub fn device(&self) -> Option<&Arc<Device>> {
        self.connection().map(|connection| &connection.device)
    }

    /// Returns the version, once connected.
    #[must_use]
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.connection().map(|connection| connection.version)
    }

    /// Returns the bytes of memory the session takes, without what it shares.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let state = match &self.state {
            State::Authenticating(admission) => admission.heap_bytes(),
            State::Conversing(conversation) => conversation.admission.heap_bytes(),
            State::Attaching(attaching) => attaching.heap_bytes(),
            State::Connected(connection) => size_of::<Connection>() + connection.heap_bytes(),
            State::AwaitingConnect | State::Ended(_) => 0,
        };
        size_of::<Self>() + self.tail.capacity() + state
    }

    fn connection(&self) -> Option<&Connection> {
        match &self.state {
            State::Connected(connection) => Some(connection),
            State::AwaitingConnect
            | State::Authenticating(_)
            | State::Conversing(_)
            | State::Attaching(_)
            | State::Ended(_) => None,
        }
    }

    /// Returns whether packets are held back: no further one is taken before something else happens.
    fn is_held(&self) -> bool {
        match &self.state {
            State::Authenticating(_) | State::Attaching(_) => true,
            State::Connected(connection) => connection.is_paused(&self.settings),
            State::AwaitingConnect | State::Conversing(_) | State::Ended(_) => false,
        }
    }

    fn take_bytes(
        &mut self,
        now: Now,
        mut input: &[u8],
        context: &mut Context<'_>,
    ) -> Result<(), SessionEnd> {
        // Packets whose beginning came earlier are completed in the tail, byte by byte until the length is known.
        while !self.tail.is_empty() && !self.is_held() {
            let mut tail = mem::take(&mut self.tail);
            let holds_password = matches!(self.state, State::AwaitingConnect);
            let taken = self.take_packets(now, &tail, context);
            let Ok(Taken { consumed, need }) = taken else {
                tail.zeroize();
                return taken.map(|_| ());
            };
            if holds_password && consumed > 0 {
                // The password of a CONNECT must not stay behind in memory that is given back.
                tail.iter_mut().take(consumed).for_each(|byte| byte.zeroize());
            }
            tail.drain(..consumed);
            let (missing, rest) = input.split_at(need.min(input.len()));
            if !self.is_held() && !tail.is_empty() {
                tail.extend_from_slice(missing);
                input = rest;
            }
            self.keep_tail(tail);
            if missing.len() < need && !self.is_held() && !self.tail.is_empty() {
                return Ok(());
            }
        }
        let consumed = if self.is_held() {
            0
        } else {
            self.take_packets(now, input, context)?.consumed
        };
        self.hold(input.get(consumed..).unwrap_or_default())
    }

    /// Takes all whole packets at the front of `bytes`, unless the session becomes held.
    fn take_packets(
        &mut self,
        now: Now,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) -> Result<Taken, SessionEnd> {
        let mut left = bytes;
        loop {
            let taken = |need| Taken {
                consumed: bytes.len() - left.len(),
                need,
            };
            if self.is_held() {
                return Ok(taken(0));
            }
            if matches!(self.state, State::AwaitingConnect)
                && left
                    .first()
                    .is_some_and(|first| *first != PacketType::Connect.first_byte())
            {
                return Err(NOT_CONNECT.into());
            }
            match split(left, self.settings.maximum_packet_size())? {
                Split::Incomplete { need } => return Ok(taken(need)),
                Split::Complete { frame, rest } => {
                    self.take_packet(now, &frame, context)?;
                    left = rest;
                }
            }
        }
    }

    fn take_packet(
        &mut self,
        now: Now,
        frame: &Frame<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), SessionEnd> {
        if let State::Conversing(_) = &self.state {
            return self.go_on(now, frame, context);
        }
        let State::Connected(connection) = &mut self.state else {
            return match Admission::begin(frame, &self.settings, context)? {
                Opening::Asked(admission, authentication) => {
                    self.decide(now, admission, authentication, context)
                }
                Opening::Conversing(admission, method, dialog, turn) => {
                    let conversation = Conversation {
                        admission,
                        method,
                        dialog,
                    };
                    self.converse(now, Box::new(conversation), turn, context)
                }
            };
        };
        self.since = now.instant;
        connection.handle_packet(now, frame, &self.settings, context)?;
        if connection.is_paused(&self.settings) {
            context.counters.paused += 1;
        }
        Ok(())
    }

    /// Takes the next packet of a client that is proving who it is.
    fn go_on(&mut self, now: Now, frame: &Frame<'_>, context: &mut Context<'_>) -> Result<(), SessionEnd> {
        let State::Conversing(mut conversation) = mem::replace(&mut self.state, State::AwaitingConnect)
        else {
            return Ok(());
        };
        let turn = conversation.dialog.step(next_word(frame, &conversation.method)?);
        self.converse(now, conversation, turn, context)
    }

    /// Answers the last word of a client that is proving who it is.
    fn converse(
        &mut self,
        now: Now,
        conversation: Box<Conversation>,
        turn: Turn,
        context: &mut Context<'_>,
    ) -> Result<(), SessionEnd> {
        match turn {
            Turn::Continue(data) => {
                let word = (&*conversation.method, data.as_slice());
                let maximum = conversation.admission.wishes.maximum_packet_size;
                send_word(ReasonCode::ContinueAuthentication, word, maximum, context.send);
                self.state = State::Conversing(conversation);
                Ok(())
            }
            Turn::Accepted { device, data } => {
                let mut admission = conversation.admission;
                admission.proof = Some((conversation.method, data));
                self.decide(now, admission, Authentication::Accepted(device), context)
            }
            Turn::Denied(denial) => {
                let denied = Authentication::Denied(denial);
                self.decide(now, conversation.admission, denied, context)
            }
        }
    }

    /// Takes the broker's answer to a client that waits for its session.
    fn take_attach_answer(
        &mut self,
        now: Now,
        attaching: Box<Attaching>,
        answer: &Answer,
        context: &mut Context<'_>,
    ) -> Result<(), SessionEnd> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "nothing else comes before the session"
        )]
        match answer {
            Answer::Attached(attached) => {
                let connection = attaching.accept(attached, &self.settings, context);
                self.state = State::Connected(Box::new(connection));
                self.since = now.instant;
                self.take_bytes(now, &[], context)
            }
            Answer::Refused(reason) => Err(attaching.refuse(*reason, context)),
            Answer::Close(termination) => {
                self.state = State::Attaching(attaching);
                Err(SessionEnd::Terminated(*termination))
            }
            _ => {
                self.state = State::Attaching(attaching);
                Ok(())
            }
        }
    }

    fn decide(
        &mut self,
        now: Now,
        admission: Admission,
        authentication: Authentication,
        context: &mut Context<'_>,
    ) -> Result<(), SessionEnd> {
        if authentication == Authentication::Pending {
            self.state = State::Authenticating(Box::new(admission));
            return Ok(());
        }
        let attaching = admission.finish(authentication, &self.settings, context)?;
        self.state = State::Attaching(Box::new(attaching));
        self.since = now.instant;
        Ok(())
    }

    /// Keeps bytes for later.
    fn hold(&mut self, bytes: &[u8]) -> Result<(), SessionEnd> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.tail.len() + bytes.len() > HELD_BYTES_MAX {
            let reason = ReasonCode::QuotaExceeded;
            return Err(Violation::Rule {
                reason,
                what: "the client sent too much before it was answered",
            }
            .into());
        }
        self.tail.extend_from_slice(bytes);
        Ok(())
    }

    /// Puts the tail back, without its memory if that is worth nothing.
    fn keep_tail(&mut self, tail: Vec<u8>) {
        if !tail.is_empty() || tail.capacity() <= TAIL_BYTES_KEPT {
            self.tail = tail;
        }
    }

    /// Ends the session and says goodbye; returns why it ended, which is the older reason if there is one.
    fn end(&mut self, end: SessionEnd, context: &mut Context<'_>) -> SessionEnd {
        self.tail.zeroize();
        self.tail = Vec::new();
        match mem::replace(&mut self.state, State::Ended(end)) {
            State::Connected(connection) => connection.finish(&end, context),
            State::Attaching(_) => context.exchange.request(Request::Detach {
                publishes_will: false,
                expiry_secs: None,
            }),
            State::Ended(earlier) => {
                self.state = State::Ended(earlier);
                return earlier;
            }
            State::AwaitingConnect | State::Authenticating(_) | State::Conversing(_) => {
                if !matches!(
                    end,
                    SessionEnd::ConnectTimeout | SessionEnd::Closed | SessionEnd::Terminated(_)
                ) {
                    context.counters.connects_refused += 1;
                }
            }
        }
        match end {
            SessionEnd::Violation(_) => context.counters.violations += 1,
            SessionEnd::KeepAliveTimeout => context.counters.keep_alive_timeouts += 1,
            SessionEnd::ConnectTimeout => context.counters.connect_timeouts += 1,
            SessionEnd::Disconnected { .. }
            | SessionEnd::Refused { .. }
            | SessionEnd::NotAuthorized
            | SessionEnd::NotTaken { .. }
            | SessionEnd::Terminated(_)
            | SessionEnd::Closed => {}
        }
        end
    }
}

/// How far received bytes were taken.
struct Taken {
    consumed: usize,
    /// More bytes that the next packet has at the least.
    need: usize,
}

/// Bytes that are held at most while a client's packets are not taken.
const HELD_BYTES_MAX: usize = 131_072;
/// Memory that an empty tail keeps, so that small packets cut in two cost no allocation.
const TAIL_BYTES_KEPT: usize = 256;
