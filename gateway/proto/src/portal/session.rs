//! One side of what two nodes carry for each other.
#![warn(clippy::indexing_slicing)]

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{
    conveyor::{Conveyor, RECORD_MAX, Restart},
    frame::{
        BEGIN, BEGUN, Begin, Item, Items, Open, PACKET, PortalError, ResetReason, SessionId, TAKEN,
        decode_taken, split_packet,
    },
    stream::{Stream, StreamId, StreamState, Waits},
};
use crate::{entropy::Entropy, time::Instant};

/// Which side of a session a node is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Streams begin here; opens the channel.
    Inlet,
    /// Streams lead to something from here.
    Outlet,
}

/// Bounds of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// Streams at a time; what comes beyond is refused.
    pub streams_max: usize,
    /// Bytes of one stream that may be on their way to this side and in its memory, before it has passed them on.
    pub window: u64,
    /// What that grows to where the other side could send more, and nothing waits to be passed on.
    pub window_max: u64,
    /// Bytes by which the windows of all streams may have grown together.
    pub growth_max: u64,
    /// How long streams wait for another channel before they are lost.
    pub resume_within: Duration,
}

impl Default for SessionSettings {
    /// 1,024 streams of 1 MiB each, which grow to 8 MiB, 32 MiB beyond the first in all; and a minute.
    fn default() -> Self {
        Self {
            streams_max: 1_024,
            window: 1 << 20,
            window_max: 8 << 20,
            growth_max: 32 << 20,
            resume_within: Duration::from_secs(60),
        }
    }
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// There is no channel, since then; `None` if there never was one, or the session was given up.
    Down {
        /// Since when.
        since: Option<Instant>,
    },
    /// The two sides tell each other how far they are.
    Beginning,
    /// Packets flow.
    Up,
}

/// What happened to a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The other side wants a stream to an outlet: [`Session::accept`] or [`Session::reset`] it.
    Requested {
        /// Which stream it will be.
        stream: StreamId,
        /// Name of the outlet.
        outlet: String,
        /// Who connected to the inlet, by the word of its node.
        origin: String,
        /// As whom they proved to be there, by its word; empty if they did not.
        user: String,
        /// Where the stream shall lead, if the outlet leaves that to the inlet; empty otherwise.
        target: String,
    },
    /// The outlet is connected.
    Opened {
        /// Which stream.
        stream: StreamId,
    },
    /// The other side has no more to say; what it said came before.
    Finished {
        /// Which stream.
        stream: StreamId,
    },
    /// The stream is over, whatever was on its way.
    Reset {
        /// Which stream.
        stream: StreamId,
        /// Why.
        reason: ResetReason,
    },
    /// Both sides have finished, and everything has gone out on this one. Nothing more is heard of the stream.
    Over {
        /// Which stream.
        stream: StreamId,
    },
}

/// Takes what comes out of streams.
pub trait StreamSink {
    /// Takes bytes of a stream, in order and each once; the caller tells by [`Session::handle_consumed`] once they have gone out.
    fn data(&mut self, stream: StreamId, bytes: &[u8]);
}

/// What a session has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// Streams that were opened, refused ones included.
    pub streams: u64,
    /// Bytes of streams given to the other side.
    pub bytes_sent: u64,
    /// Bytes of streams that came from it.
    pub bytes_received: u64,
    /// How often it began again in another channel with streams alive.
    pub resumed: u64,
    /// How often it was lost, and its streams with it.
    pub lost: u64,
    /// How often it sent again what was on its way.
    pub went_back: u64,
    /// Packets that came twice.
    pub duplicates: u64,
}

/// One side of what two nodes carry for each other.
///
/// ```text
///  Down ──handle_up──▶ Beginning ──Begin, Begun──▶ Up
///   ▲ │                     │ (inlet: Begin again after 1, 2, 4 … 10 s)
///   │ └─ resume_within ─▶ lost: streams are reset, the next session is another, and has those never heard of
///   └──────────── handle_down ──────────┘
/// ```
///
/// Memory is bounded: what was not taken by the 16 MiB of packets kept, what was not passed on by `streams_max` × `window` and `growth_max`.
#[derive(Debug)]
pub struct Session {
    role: Role,
    settings: SessionSettings,
    state: SessionState,
    id: Option<SessionId>,
    /// What the next one will be known by.
    next_id: Option<SessionId>,
    /// The other side knows the session.
    is_known: bool,
    conveyor: Conveyor,
    streams: BTreeMap<StreamId, Stream>,
    /// By how much the windows of `streams` have grown.
    growth: u64,
    /// Highest identifier that was used.
    last_stream: u32,
    /// Streams that have more to say and credit, in the order of their turns.
    turns: VecDeque<StreamId>,
    /// A Begin or Begun that is to be written.
    begin_due: Option<Begin>,
    begin_wait: Duration,
    begin_at: Option<Instant>,
    /// Grows with each channel that the inlet's node takes into use.
    term: u32,
    events: VecDeque<SessionEvent>,
    stats: SessionStats,
}

impl Session {
    /// Makes a side without a channel.
    #[must_use]
    pub fn new(role: Role, settings: SessionSettings) -> Self {
        Self {
            role,
            settings,
            state: SessionState::Down { since: None },
            id: None,
            next_id: None,
            is_known: false,
            conveyor: Conveyor::new(),
            streams: BTreeMap::new(),
            growth: 0,
            last_stream: 0,
            turns: VecDeque::new(),
            begin_due: None,
            begin_wait: BEGIN_WAIT_MIN,
            begin_at: None,
            term: 0,
            events: VecDeque::new(),
            stats: SessionStats::default(),
        }
    }

    /// Draws what the next session is known by. Call it on the inlet's side before there is a channel, and whenever one is gone.
    pub fn prepare(&mut self, entropy: &mut dyn Entropy) {
        self.next_id.get_or_insert_with(|| {
            let mut id = [0; 16];
            entropy.fill(&mut id);
            id
        });
    }

    /// Takes the news that a channel to the other side is up.
    pub fn handle_up(&mut self, now: Instant) {
        self.state = SessionState::Beginning;
        if self.role == Role::Inlet {
            self.begin(now);
        }
    }

    /// Takes the news that the channel is gone, or that another attempt to open one has failed. Streams wait for the next one; with none,
    /// too, the other side has to find that it holds the session, or that neither does.
    pub fn handle_down(&mut self, now: Instant) {
        if !matches!(self.state, SessionState::Down { .. }) {
            let since = self.id.is_some().then_some(now);
            self.state = SessionState::Down { since };
        }
        self.begin_due = None;
        self.begin_at = None;
    }

    fn begin(&mut self, now: Instant) {
        debug_assert!(self.id.is_some() || self.next_id.is_some(), "prepared before");
        self.id = self.id.or_else(|| self.next_id.take());
        self.begin_wait = BEGIN_WAIT_MIN;
        self.term = self.term.saturating_add(1);
        self.say_begin(now);
    }

    fn say_begin(&mut self, now: Instant) {
        self.begin_due = self.id.map(|session| Begin {
            session,
            taken: self.conveyor.received(),
            resumes: self.is_known,
            term: self.term,
        });
        self.begin_at = Some(now + self.begin_wait);
    }

    /// Asks for a stream to an outlet; `None` if there are as many as may be, or a text is longer than
    /// [`TEXT_LEN_MAX`](super::TEXT_LEN_MAX).
    pub fn open(&mut self, open: Open<'_>) -> Option<StreamId> {
        if !open.fits() || self.role != Role::Inlet || self.streams.len() >= self.settings.streams_max {
            return None;
        }
        self.last_stream = self.last_stream.checked_add(1)?;
        let id = StreamId::new(self.last_stream);
        self.stats.streams = self.stats.streams.saturating_add(1);
        self.conveyor.put(id, &Item::Open(open));
        self.insert(id);
        self.promise_first(id);
        Some(id)
    }

    /// Answers [`SessionEvent::Requested`]: what the outlet leads to is connected.
    pub fn accept(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.state == StreamState::Opening && self.role == Role::Outlet {
            stream.state = StreamState::Open;
            self.conveyor.put(id, &Item::Opened);
            self.promise_first(id);
        }
    }

    fn promise_first(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.promised = stream.window;
            self.conveyor.put(id, &Item::Credit(stream.promised));
        }
    }

    /// Returns how many bytes of a stream could be written now.
    #[must_use]
    pub fn writable(&self, id: StreamId) -> usize {
        let Some(stream) = self.streams.get(&id).filter(|stream| !stream.has_finished) else {
            return 0;
        };
        let credit = usize::try_from(stream.room()).unwrap_or(usize::MAX);
        credit.min(self.conveyor.room())
    }

    /// Returns whether little enough waits to be sent for bytes that are fetched now to be taken whole. A caller that fetches none
    /// otherwise, and [waits](Self::wait), need not keep what was not taken.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.conveyor.is_ready()
    }

    /// Takes bytes of a stream and returns how many; the others are to be offered again after [`Session::poll_writable`] has named the stream.
    pub fn write(&mut self, id: StreamId, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = self.writable(id).min(rest.len());
            let Some((now, later)) = rest.split_at_checked(count).filter(|_| count > 0) else {
                break;
            };
            self.conveyor.put(id, &Item::Data(now));
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.sent = stream.sent.saturating_add(count as u64);
            }
            rest = later;
        }
        if !rest.is_empty() {
            self.wait(id);
        }
        let written = bytes.len().saturating_sub(rest.len());
        self.stats.bytes_sent = self.stats.bytes_sent.saturating_add(written as u64);
        written
    }

    /// Notes that the caller has more to say in a stream, and wants to be told when it can be.
    pub fn wait(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.waits == Waits::No {
            stream.waits = Waits::Credit;
            self.queue_turn(id);
        }
    }

    /// Gives a stream that waits a turn, if it has credit.
    fn queue_turn(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.waits == Waits::Credit
            && stream.room() > 0
        {
            stream.waits = Waits::Turn;
            self.turns.push_back(id);
        }
    }

    /// Returns the next stream that has waited and can be written to now. Each is named once for each time it waits, and has its
    /// turn after those that waited longer, and [`is_ready`](Self::is_ready) then.
    pub fn poll_writable(&mut self) -> Option<StreamId> {
        while self.conveyor.is_ready() {
            let id = self.turns.pop_front()?;
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.waits = Waits::No;
                return Some(id);
            }
        }
        None
    }

    /// Says that nothing more is written to a stream.
    pub fn finish(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.has_finished) else {
            return;
        };
        stream.has_finished = true;
        self.conveyor.put(id, &Item::Finish);
        self.end_if_over(id);
    }

    /// Ends a stream. No event follows.
    pub fn reset(&mut self, id: StreamId, reason: ResetReason) {
        if self.remove(id) {
            self.conveyor.put(id, &Item::Reset(reason));
        }
    }

    /// Takes the news that bytes of a stream have gone out on this side.
    pub fn handle_consumed(&mut self, id: StreamId, bytes: usize) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if let Some(limit) = stream.handle_consumed(bytes as u64) {
            self.conveyor.put(id, &Item::Credit(limit));
        }
        self.end_if_over(id);
    }

    fn end_if_over(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(Stream::is_over) {
            self.remove(id);
            self.events.push_back(SessionEvent::Over { stream: id });
        }
    }

    fn insert(&mut self, id: StreamId) {
        let stream = Stream::new(StreamState::Opening, self.settings.window);
        self.streams.insert(id, stream);
    }

    /// Takes a stream out; false if it is not known.
    fn remove(&mut self, id: StreamId) -> bool {
        let stream = self.streams.remove(&id);
        if let Some(stream) = &stream {
            let growth = stream.window.saturating_sub(self.settings.window);
            self.growth = self.growth.saturating_sub(growth);
        }
        stream.is_some()
    }

    /// Takes a frame of the other side; data goes to `sink`.
    ///
    /// # Errors
    /// [`PortalError`] for a frame that is malformed or cannot be; the channel should be closed.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        kind: u8,
        body: &[u8],
        sink: &mut dyn StreamSink,
    ) -> Result<(), PortalError> {
        match (kind, self.role) {
            (BEGIN, Role::Outlet) => self.handle_begin(Begin::decode(body)?),
            (BEGUN, Role::Inlet) => self.handle_begun(now, entropy, Begin::decode(body)?),
            (PACKET, _) => self.handle_packet(now, body, sink)?,
            (TAKEN, _) => {
                let taken = decode_taken(body)?;
                if self.state == SessionState::Up {
                    self.conveyor.handle_taken(now, taken)?;
                }
            }
            (kind, _) => return Err(PortalError::OutOfPlace { kind }),
        }
        Ok(())
    }

    fn handle_begin(&mut self, begin: Begin) {
        let is_ours = self.id == Some(begin.session);
        let restart = if is_ours {
            self.conveyor.restart(begin.taken)
        } else {
            Restart::Impossible
        };
        match restart {
            Restart::Stale => return,
            Restart::Done => {
                let resumes = !self.streams.is_empty() && self.state != SessionState::Up;
                self.stats.resumed = self.stats.resumed.saturating_add(u64::from(resumes));
                self.state = SessionState::Up;
            }
            Restart::Impossible => {
                self.lose();
                // One that only the inlet's node knows is none; its next Begin brings another.
                if begin.resumes {
                    self.state = SessionState::Beginning;
                } else {
                    (self.id, self.state) = (Some(begin.session), SessionState::Up);
                    self.is_known = true;
                }
            }
        }
        self.begin_due = Some(Begin {
            session: begin.session,
            taken: self.conveyor.received(),
            resumes: restart == Restart::Done,
            term: begin.term,
        });
    }

    fn handle_begun(&mut self, now: Instant, entropy: &mut dyn Entropy, begun: Begin) {
        if self.state != SessionState::Beginning || (self.id, self.term) != (Some(begun.session), begun.term)
        {
            return;
        }
        let is_lost = self.is_known && !begun.resumes;
        match self.conveyor.restart(begun.taken) {
            Restart::Done if !is_lost => {
                let resumes = self.is_known && !self.streams.is_empty();
                self.stats.resumed = self.stats.resumed.saturating_add(u64::from(resumes));
                self.is_known = true;
                self.state = SessionState::Up;
                self.begin_due = None;
                self.begin_at = None;
            }
            Restart::Stale if !is_lost => {}
            Restart::Done | Restart::Stale | Restart::Impossible => {
                self.lose();
                self.prepare(entropy);
                self.begin(now);
            }
        }
    }

    /// Forgets the session: its streams are over. Those of which the other side cannot have heard are the next one's.
    fn lose(&mut self) {
        if self.id.take().is_some() && self.is_known {
            self.stats.lost = self.stats.lost.saturating_add(1);
        }
        self.is_known = false;
        self.keep_counts();
        let before = std::mem::replace(&mut self.conveyor, Conveyor::new());
        self.turns.clear();
        self.growth = 0;
        let mut streams = std::mem::take(&mut self.streams);
        before.for_each_unsaid(|id, item| {
            if matches!(item, Item::Open(_))
                && let Some(stream) = streams.remove(&id)
            {
                self.streams.insert(id, stream);
            }
            if self.streams.contains_key(&id) {
                self.conveyor.put(id, item);
            }
        });
        for stream in streams.into_keys() {
            let reason = ResetReason::Lost;
            self.events.push_back(SessionEvent::Reset { stream, reason });
        }
        if self.role == Role::Outlet {
            self.last_stream = 0;
        }
    }

    fn keep_counts(&mut self) {
        self.stats.went_back = self.stats.went_back.saturating_add(self.conveyor.went_back());
        self.stats.duplicates = self.stats.duplicates.saturating_add(self.conveyor.duplicates());
    }

    fn handle_packet(
        &mut self,
        now: Instant,
        body: &[u8],
        sink: &mut dyn StreamSink,
    ) -> Result<(), PortalError> {
        // Before the two have agreed which session it is, a packet can be one that overtook the agreement.
        if self.state != SessionState::Up {
            return Ok(());
        }
        let (sequence, items) = split_packet(body)?;
        // All of it has to be sound before any of it counts.
        let mut looked_at = items.clone();
        while looked_at.next_item()?.is_some() {}
        if self.conveyor.handle_packet(sequence) {
            self.take_items(now, items, sink)?;
        }
        Ok(())
    }

    fn take_items(
        &mut self,
        now: Instant,
        mut items: Items<'_>,
        sink: &mut dyn StreamSink,
    ) -> Result<(), PortalError> {
        while let Some((id, item)) = items.next_item()? {
            match item {
                Item::Open(open) => self.take_open(id, open),
                Item::Data(bytes) => self.take_data(now, id, bytes, sink),
                Item::Opened | Item::Credit(_) | Item::Finish | Item::Reset(_) => self.take_news(id, item),
            }
        }
        Ok(())
    }

    fn take_open(&mut self, id: StreamId, open: Open<'_>) {
        if self.role != Role::Outlet || id.number() <= self.last_stream {
            return;
        }
        self.last_stream = id.number();
        self.stats.streams = self.stats.streams.saturating_add(1);
        if self.streams.len() >= self.settings.streams_max {
            self.conveyor.put(id, &Item::Reset(ResetReason::Limit));
            return;
        }
        self.insert(id);
        self.events.push_back(SessionEvent::Requested {
            stream: id,
            outlet: open.outlet.to_owned(),
            origin: open.origin.to_owned(),
            user: open.user.to_owned(),
            target: open.target.to_owned(),
        });
    }

    fn take_data(&mut self, now: Instant, id: StreamId, bytes: &[u8], sink: &mut dyn StreamSink) {
        // One that was reset on this side: the other will hear of it.
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !stream.handle_data(bytes.len() as u64) {
            self.fail(id);
            return;
        }
        // The smallest: the others hold what waits in queues, and a window that grows with its own queue never stops.
        if let Some(round_trip) = self.conveyor.round_trip().smallest()
            && stream.is_held_up(now, round_trip)
        {
            let more = stream
                .window
                .min(self.settings.window_max.saturating_sub(stream.window));
            let growth = self.growth.saturating_add(more);
            if growth <= self.settings.growth_max {
                self.growth = growth;
                stream.window = stream.window.saturating_add(more);
            }
        }
        self.stats.bytes_received = self.stats.bytes_received.saturating_add(bytes.len() as u64);
        if !bytes.is_empty() {
            sink.data(id, bytes);
        }
    }

    /// Ends a stream whose other side does not keep to the rules.
    fn fail(&mut self, stream: StreamId) {
        let reason = ResetReason::Broken;
        self.reset(stream, reason);
        self.events.push_back(SessionEvent::Reset { stream, reason });
    }

    fn take_news(&mut self, id: StreamId, item: Item<'_>) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        match item {
            Item::Opened if self.role == Role::Inlet && stream.state == StreamState::Opening => {
                stream.state = StreamState::Open;
                self.events.push_back(SessionEvent::Opened { stream: id });
            }
            Item::Credit(limit) => {
                stream.credit = stream.credit.max(limit);
                self.queue_turn(id);
            }
            Item::Finish if !stream.is_finished => {
                stream.is_finished = true;
                self.events.push_back(SessionEvent::Finished { stream: id });
                self.end_if_over(id);
            }
            Item::Reset(reason) => {
                self.remove(id);
                self.events.push_back(SessionEvent::Reset { stream: id, reason });
            }
            Item::Opened | Item::Finish | Item::Open(_) | Item::Data(_) => self.fail(id),
        }
    }

    /// Returns whether [`Session::write_frames`] has something to append.
    #[must_use]
    pub fn has_frames(&self) -> bool {
        self.begin_due.is_some() || (self.state == SessionState::Up && self.conveyor.has_something())
    }

    /// Appends frames to the plaintext of a record that has room for [`Session::RECORD_MAX`] bytes; false if there are none.
    pub fn write_frames(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        if let Some(begin) = self.begin_due.take() {
            let kind = match self.role {
                Role::Inlet => BEGIN,
                Role::Outlet => BEGUN,
            };
            begin.put(kind, out);
            return true;
        }
        self.state == SessionState::Up && self.conveyor.write(now, out)
    }

    /// Plaintext that [`Session::write_frames`] appends at the most.
    pub const RECORD_MAX: usize = RECORD_MAX;

    /// Sends again what was lost, begins again, gives up waiting for a channel.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.begin_at.is_some_and(|at| now >= at) {
            self.begin_wait = self.begin_wait.saturating_mul(2).min(BEGIN_WAIT_MAX);
            self.say_begin(now);
        }
        match self.state {
            SessionState::Up => self.conveyor.handle_timeout(now),
            SessionState::Down { since: Some(since) } if now >= since + self.settings.resume_within => {
                self.lose();
                self.state = SessionState::Down { since: None };
            }
            SessionState::Down { .. } | SessionState::Beginning => {}
        }
    }

    /// Returns when [`Session::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of_state = match self.state {
            SessionState::Up => self.conveyor.poll_timeout(),
            SessionState::Down { since } => since.map(|since| since + self.settings.resume_within),
            SessionState::Beginning => None,
        };
        [self.begin_at, of_state].into_iter().flatten().min()
    }

    /// Returns what happened next.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// Returns what the session is known by, once it has begun.
    #[must_use]
    pub const fn id(&self) -> Option<SessionId> {
        self.id
    }

    /// Returns where the session stands.
    #[must_use]
    pub const fn state(&self) -> SessionState {
        self.state
    }

    /// Returns the streams and where each stands.
    pub fn streams(&self) -> impl ExactSizeIterator<Item = (StreamId, StreamState)> + '_ {
        self.streams.iter().map(|(id, stream)| (*id, stream.state))
    }

    /// Returns the smoothed round trip to the other side, once it was measured in this channel.
    #[must_use]
    pub const fn round_trip(&self) -> Option<Duration> {
        self.conveyor.round_trip().smoothed()
    }

    /// Returns the bytes that are kept until the other side has taken them.
    #[must_use]
    pub const fn bytes_kept(&self) -> usize {
        self.conveyor.bytes()
    }

    /// Returns the counters.
    #[must_use]
    pub const fn stats(&self) -> SessionStats {
        let mut stats = self.stats;
        stats.went_back = stats.went_back.saturating_add(self.conveyor.went_back());
        stats.duplicates = stats.duplicates.saturating_add(self.conveyor.duplicates());
        stats
    }
}

/// First wait for the answer to a Begin.
const BEGIN_WAIT_MIN: Duration = Duration::from_secs(1);
const BEGIN_WAIT_MAX: Duration = Duration::from_secs(10);
