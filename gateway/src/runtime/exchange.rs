//! The trunk's side of the field: journal and broker for the clients of all shards, and the way back to them.
//!
//! ```text
//!  shard 0    Exchange::publish, request ──┬─▶ Journal ──committed──┐
//!  shard 1 …  FieldBatch by mailbox ───────┤                        ├─▶ Receipts ─▶ Committed: PUBACK, PUBREC
//!                                          └─▶ Broker ─▶ Store ─────┘
//!                                                │
//!  shard 0 … ◀── answers, once per turn ─────────┘
//! ```
//!
//! A message that the journal has no room for is *parked*: subscribers have it, requests behind it go on, and its publisher waits.
//! What is parked is bounded: shards refuse messages as soon as they learn that the journal is full, and read no more while much is parked.

pub(crate) mod batch;
pub(crate) mod command;
mod receipts;
pub(crate) mod store;

use std::{collections::VecDeque, sync::Arc};

use fieldgate_adapters::{
    class::Class,
    ingest::Refused,
    reading::{Reading, UserProperties},
};
use fieldgate_io::mailbox::MailSender;
use fieldgate_mqtt::{
    broker::{Broker, ConnectionKey, Output, limits::PENDING_BYTES_HIGH},
    exchange::{Answer, Publication, Request, Will},
    packet::Qos,
};
use fieldgate_proto::{
    journal::{AppendError, JournalState, Lanes},
    link,
    time::{Instant, Now, WallTime},
};

use self::{
    batch::{Entry, FieldBatch},
    command::{Word, is_answer_like},
    receipts::{Receipt, Receipts},
    store::{StoreHandle, Stored},
};
use super::ShardMessage;
use crate::status::MqttStatus;

/// Answers for one shard: to which connection, and what.
pub(crate) type Answers = Vec<(u64, Answer)>;

/// What a shard's clients get.
#[derive(Default)]
struct Desk {
    receipts: Receipts,
    answers: Answers,
    /// The highest ticket that is due and not told.
    due: Option<u64>,
}

/// Messages without room in the journal, of one class.
type Parked = VecDeque<Waiting>;

struct Waiting {
    shard: usize,
    ticket: u64,
    reading: Vec<u8>,
}

/// Journal and broker for the clients of all shards; see the [module](self).
pub(crate) struct Exchange {
    broker: Broker,
    store: StoreHandle,
    /// Whether a batch is being written.
    is_writing: bool,
    /// Why the last batch could not be written.
    problem: Option<String>,
    desks: Vec<Desk>,
    shards: Arc<[MailSender<ShardMessage>]>,
    parked: [Parked; 3],
    /// Bytes of readings in `parked`.
    parked_bytes: usize,
    /// Messages of this shard's own clients.
    ticket: u64,
    /// Whether the last receipt of this shard is of this turn.
    is_same_turn: bool,
    committed: u64,
    stored: u64,
    counters: ExchangeCounters,
    /// What devices have to do with commands, for the trunk.
    words: Vec<Word>,
}

/// What happened, in numbers.
#[derive(Clone, Copy, Debug, Default)]
struct ExchangeCounters {
    /// Messages at QoS 0 dropped because a shard did not take its answers.
    dropped_shard_behind: u64,
    /// Wills that the journal did not take.
    wills_lost: u64,
}

impl Exchange {
    /// Begins with what was in the store.
    pub(crate) fn new(broker: Broker, store: StoreHandle, shards: Arc<[MailSender<ShardMessage>]>) -> Self {
        Self {
            broker,
            store,
            is_writing: false,
            problem: None,
            desks: shards.iter().map(|_| Desk::default()).collect(),
            shards,
            parked: Default::default(),
            parked_bytes: 0,
            ticket: 0,
            is_same_turn: false,
            committed: 0,
            stored: 0,
            counters: ExchangeCounters::default(),
            words: Vec::new(),
        }
    }

    /// Takes a message of this shard's clients.
    ///
    /// # Errors
    /// [`Refused`] if the journal does not take it.
    pub(crate) fn publish(
        &mut self,
        now: Now,
        journal: Option<&mut Lanes>,
        connection: u64,
        publication: &Publication<'_>,
    ) -> Result<u64, Refused> {
        let Publication { reading, envelope } = publication;
        reading.encoded_len().map_err(|_| Refused::TooLarge)?;
        if self.broker.pending_bytes() > PENDING_BYTES_MAX || self.parked_bytes > PARKED_BYTES_MAX {
            return Err(Refused::NotNow);
        }
        let is_answer = self.take_answer(publication);
        let journalled = match journal {
            _ if envelope.is_local || is_answer => Some(0),
            None => return Err(Refused::NotNow),
            Some(journal) => self.journal_or_park(journal, reading)?,
        };
        let mut batch = 0;
        if !is_answer
            && self
                .broker
                .is_interested(envelope.retain, envelope.kept_packet_id.is_some())
        {
            let from = ConnectionKey { shard: 0, connection };
            batch = self.broker.publish(now, from, publication);
        }
        self.ticket += 1;
        let receipt = Receipt {
            ticket: self.ticket,
            journal: journalled.unwrap_or_default(),
            batch,
            parked: u32::from(journalled.is_none()),
        };
        if let Some(desk) = self.desks.first_mut() {
            desk.receipts.join(receipt, self.is_same_turn);
            self.is_same_turn = true;
        }
        Ok(self.ticket)
    }

    /// Puts a reading of this shard's clients into the journal. `None` if it is parked until the next segment is there, which is
    /// for moments: what is behind it in its lane waits too, so that order is kept.
    fn journal_or_park(
        &mut self,
        journal: &mut Lanes,
        reading: &Reading<'_>,
    ) -> Result<Option<u64>, Refused> {
        let lane = lane(reading.class);
        let parked = &mut self.parked[usize::from(lane.bits()).min(2)];
        let appended = if parked.is_empty() {
            // The length was found before, so the reading can be encoded.
            journal.append(lane, reading.captured_at, |out| {
                let _ = reading.encode(out);
            })
        } else {
            match journal.state(lane) {
                JournalState::Ready => Err(AppendError::Busy),
                JournalState::Full => Err(AppendError::Full),
                JournalState::Failed => Err(AppendError::Failed),
            }
        };
        match appended {
            Ok(given) => Ok(Some(given)),
            Err(AppendError::Busy) => {
                let mut encoded = Vec::new();
                reading.encode(&mut encoded).map_err(|_| Refused::TooLarge)?;
                self.parked_bytes += encoded.len();
                parked.push_back(Waiting {
                    shard: 0,
                    ticket: self.ticket + 1,
                    reading: encoded,
                });
                Ok(None)
            }
            Err(error) => Err(refused(error)),
        }
    }

    /// Takes a request of this shard's sessions.
    pub(crate) fn request(&mut self, now: Now, connection: u64, request: Request) {
        self.handle_request(now, ConnectionKey { shard: 0, connection }, request);
    }

    /// Takes messages and requests of another shard.
    pub(crate) fn handle_batch(&mut self, now: Now, mut journal: Option<&mut Lanes>, mut batch: FieldBatch) {
        let (shard, ticket) = (batch.shard, batch.last_ticket);
        let mut receipt = Receipt {
            ticket,
            ..Receipt::default()
        };
        let mut has_messages = false;
        while let Some(entry) = batch.next() {
            let message = match entry {
                Entry::Request { connection, request } => {
                    self.handle_request(now, ConnectionKey { shard, connection }, request);
                    continue;
                }
                Entry::Message(message) => message,
            };
            has_messages = true;
            if is_answer_like(&message.envelope)
                && message
                    .publication()
                    .is_some_and(|publication| self.take_answer(&publication))
            {
                continue;
            }
            if !message.envelope.is_local {
                let lane = link::Class::from_bits(message.class).unwrap_or(link::Class::Normal);
                let parked = &mut self.parked[usize::from(lane.bits()).min(2)];
                let appended = match &mut journal {
                    Some(journal) if parked.is_empty() => {
                        journal.append(lane, captured_at(message.reading), |out| {
                            out.extend_from_slice(message.reading);
                        })
                    }
                    _ => Err(AppendError::Busy),
                };
                match appended {
                    Ok(given) => receipt.journal = receipt.journal.max(given),
                    // It was encoded within the limit of a reading, which is a record's.
                    Err(AppendError::TooLong { .. }) => {}
                    Err(AppendError::Full | AppendError::Busy | AppendError::Failed) => {
                        receipt.parked += 1;
                        self.parked_bytes += message.reading.len();
                        parked.push_back(Waiting {
                            shard,
                            ticket,
                            reading: message.reading.to_vec(),
                        });
                    }
                }
            }
            let envelope = &message.envelope;
            if self
                .broker
                .is_interested(envelope.retain, envelope.kept_packet_id.is_some())
                && let Some(publication) = message.publication()
            {
                let from = ConnectionKey {
                    shard,
                    connection: message.connection,
                };
                receipt.batch = receipt.batch.max(self.broker.publish(now, from, &publication));
            }
        }
        if has_messages && let Some(desk) = self.desks.get_mut(shard) {
            desk.receipts.push(receipt);
        }
    }

    /// Puts parked messages into the journal, as far as it takes them.
    fn unpark(&mut self, journal: &mut Lanes) {
        for (lane, parked) in link::Class::ALL.into_iter().zip(&mut self.parked) {
            while let Some(waiting) = parked.front() {
                let appended = journal.append(lane, captured_at(&waiting.reading), |out| {
                    out.extend_from_slice(&waiting.reading);
                });
                let given = match appended {
                    Ok(given) => given,
                    Err(AppendError::TooLong { .. }) => 0,
                    Err(AppendError::Full | AppendError::Busy | AppendError::Failed) => break,
                };
                if let Some(desk) = self.desks.get_mut(waiting.shard) {
                    desk.receipts.unpark(waiting.ticket, given);
                }
                self.parked_bytes -= waiting.reading.len();
                parked.pop_front();
            }
        }
    }

    /// Learns how far the journal is on stable storage.
    pub(crate) fn handle_committed(&mut self, up_to: u64) {
        self.committed = self.committed.max(up_to);
    }

    /// Learns how far the store is.
    pub(crate) fn handle_stored(&mut self, now: Now, stored: Stored) {
        match stored {
            Stored::Done(number) => {
                if self.problem.take().is_some() {
                    tracing::info!("MQTT sessions are on stable storage again");
                }
                self.is_writing = false;
                self.stored = number;
                self.broker.handle_stored(now, number);
            }
            Stored::Failed(error) => {
                if self.problem.is_none() {
                    tracing::warn!(
                        error,
                        "MQTT sessions cannot be written: who publishes to them, or retains, is not acknowledged"
                    );
                }
                self.problem = Some(error);
            }
        }
    }

    /// Does what is due, and hands over what the other shards are to know.
    pub(crate) fn run(&mut self, now: Now, mut journal: Option<&mut Lanes>) {
        self.is_same_turn = false;
        if let Some(journal) = &mut journal
            && self.parked.iter().any(|parked| !parked.is_empty())
        {
            self.unpark(journal);
        }
        if self.broker.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.broker.handle_timeout(now);
        }
        self.drain(now, journal);
        if !self.is_writing
            && let Some(batch) = self.broker.take_batch()
        {
            // It takes one at a time, and has none.
            self.is_writing = self.store.write(batch).is_ok();
        }
        self.tell();
    }

    /// Distributes what the broker has to say.
    fn drain(&mut self, now: Now, mut journal: Option<&mut Lanes>) {
        while let Some(output) = self.broker.poll_output() {
            match output {
                Output::Answer { to, answer } => {
                    let Some(desk) = self.desks.get_mut(to.shard) else {
                        continue;
                    };
                    let is_behind = desk.answers.len() >= ANSWERS_MAX;
                    if is_behind
                        && matches!(&answer, Answer::Deliver(delivery) if delivery.qos == Qos::AtMostOnce)
                    {
                        self.counters.dropped_shard_behind += 1;
                    } else {
                        desk.answers.push((to.connection, answer));
                    }
                }
                Output::Will(will) => {
                    if !journal
                        .as_deref_mut()
                        .is_some_and(|journal| keep(now, &will, journal))
                    {
                        self.counters.wills_lost += 1;
                    }
                }
            }
        }
    }

    /// Settles receipts and gives the other shards their answers.
    fn tell(&mut self) {
        for (shard, desk) in self.desks.iter_mut().enumerate() {
            let due = desk.receipts.settle(self.committed, self.stored);
            desk.due = desk.due.max(due);
            let Some(mailbox) = self.shards.get(shard).filter(|_| shard > 0) else {
                continue;
            };
            if !desk.answers.is_empty() {
                let answers = std::mem::take(&mut desk.answers);
                if let Err(error) = mailbox.try_send(ShardMessage::Answers(answers))
                    && let ShardMessage::Answers(answers) = error.into_value()
                {
                    desk.answers = answers;
                }
            }
            if let Some(ticket) = desk.due
                && mailbox.try_send(ShardMessage::Committed { ticket }).is_ok()
            {
                desk.due = None;
            }
        }
    }

    /// Takes the answers for this shard's own sessions.
    pub(crate) fn take_answers(&mut self) -> Answers {
        self.desks
            .first_mut()
            .map(|desk| std::mem::take(&mut desk.answers))
            .unwrap_or_default()
    }

    /// Takes how far this shard's own messages may be acknowledged, if that has moved.
    pub(crate) fn take_due(&mut self) -> Option<u64> {
        self.desks.first_mut()?.due.take()
    }

    /// Returns when [`run`](Self::run) has something to do; `now` if it could not hand everything over.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let is_behind = self
            .desks
            .iter()
            .any(|desk| !desk.answers.is_empty() || desk.due.is_some());
        let retry = is_behind.then(|| now + RETRY_AFTER);
        [self.broker.poll_timeout(), retry].into_iter().flatten().min()
    }

    /// Returns whether so much waits for store or journal that clients should not be read for a moment.
    pub(crate) const fn is_behind(&self) -> bool {
        self.broker.pending_bytes() > PENDING_BYTES_HIGH || self.parked_bytes > PARKED_BYTES_HIGH
    }

    /// Returns whether everything taken from devices is where it belongs.
    pub(crate) fn is_settled(&self) -> bool {
        let is_stored = !self.is_writing && self.broker.pending_bytes() == 0;
        (is_stored || self.problem.is_some()) && self.parked.iter().all(VecDeque::is_empty)
    }

    /// Returns the exchange's part of the status.
    pub(crate) fn report(&self) -> MqttStatus {
        MqttStatus {
            dropped_behind: self.counters.dropped_shard_behind,
            wills_lost: self.counters.wills_lost,
            problem: self.problem.clone(),
            ..MqttStatus::new(&self.broker.counters())
        }
    }
}

/// Puts a will into the journal; says whether it was taken.
fn keep(now: Now, will: &Will, journal: &mut Lanes) -> bool {
    let like = Reading {
        device: "",
        resource: "",
        content_type: None,
        user_properties: UserProperties::EMPTY,
        payload: &[],
        captured_at: now.wall,
        class: will.class,
    };
    will.message.as_reading(&like, |reading| {
        let Ok(len) = reading.encoded_len() else {
            return false;
        };
        let mut bytes = Vec::with_capacity(len);
        reading.encode(&mut bytes).is_ok()
            && journal
                .append(lane(will.class), now.wall, |out| out.extend_from_slice(&bytes))
                .is_ok()
    })
}

/// Returns the lane of the journal that readings of a class go into.
pub(crate) const fn lane(class: Class) -> link::Class {
    match class {
        Class::Alarm => link::Class::Alarm,
        Class::Normal => link::Class::Normal,
        Class::Bulk => link::Class::Bulk,
    }
}

/// Returns when an encoded reading was captured.
fn captured_at(body: &[u8]) -> WallTime {
    Reading::decode(body).map_or_else(|_| WallTime::default(), |reading| reading.captured_at)
}

const fn refused(error: AppendError) -> Refused {
    match error {
        AppendError::Full => Refused::Full,
        AppendError::Busy | AppendError::Failed => Refused::NotNow,
        AppendError::TooLong { .. } => Refused::TooLarge,
    }
}

/// Bytes of changes waiting for the store from which on messages are refused.
const PENDING_BYTES_MAX: usize = 64 << 20;
/// Bytes of readings waiting for the journal from which on messages are refused.
const PARKED_BYTES_MAX: usize = 16 << 20;
/// And from which on clients are not read.
const PARKED_BYTES_HIGH: usize = 1 << 20;
/// Answers waiting for a shard from which on messages at QoS 0 are dropped.
const ANSWERS_MAX: usize = 65_536;
/// When answers that found a shard's mailbox full are sent again.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_millis(1);
