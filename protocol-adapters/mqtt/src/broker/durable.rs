//! The broker's state in the store, to be written and to be read again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fieldgate_proto::{
    time::Now,
    wire::{Reader, WireError, put_bytes_varint, put_varint},
};

use super::{
    Broker, SessionIndex,
    age::{Age, Stamp},
    limits::Limits,
    message::{Message, text},
    queue::{Phase, Queued},
    session::{Session, SessionKey},
    store::key,
    subscriptions::Filter,
};
use crate::{
    exchange::{SubscriptionOptions, Will},
    packet::{PacketIdentifier, Qos},
    property::SubscriptionIdentifier,
};

impl Broker {
    /// Notes a session for the store, if it is kept there.
    pub(super) fn store_session(&mut self, now: Now, index: SessionIndex) {
        let Some(session) = self.session_mut(index).filter(|session| session.is_kept()) else {
            return;
        };
        session.is_stored = true;
        let (key, value) = (key::session(session.number), session.encode(now));
        self.pending.put(key, value);
    }

    /// Notes everything that a session holds, when it begins to be kept.
    pub(super) fn store_contents(&mut self, now: Now, index: SessionIndex) {
        let Some(mut session) = self.sessions.get_mut(index.0 as usize).and_then(Option::take) else {
            return;
        };
        for (filter, options) in &session.subscriptions {
            self.pending
                .put(key::filter(session.number, filter), options.encode());
        }
        for packet_id in &session.received {
            self.pending
                .put(key::received(session.number, *packet_id), Vec::new());
        }
        for message in &mut session.queue.in_flight {
            self.store_message(now, &mut message.queued);
            let value = encode_queued(&message.queued, Some((message.packet_id, message.phase)));
            self.pending
                .put(key::queued(session.number, message.queued.position), value);
        }
        for queued in &mut session.queue.waiting {
            self.store_message(now, queued);
            self.pending.put(
                key::queued(session.number, queued.position),
                encode_queued(queued, None),
            );
        }
        self.sessions[index.0 as usize] = Some(session);
    }

    /// Notes that a session and all it holds are gone.
    pub(super) fn unstore_session(&mut self, session: &Session) {
        if !session.is_stored {
            return;
        }
        self.pending.remove(key::session(session.number));
        for filter in session.subscriptions.keys() {
            self.pending.remove(key::filter(session.number, filter));
        }
        for packet_id in &session.received {
            self.pending.remove(key::received(session.number, *packet_id));
        }
        let in_flight = session.queue.in_flight.iter().map(|message| &message.queued);
        for queued in in_flight.chain(&session.queue.waiting) {
            if queued.stored_as != 0 {
                self.pending.remove(key::queued(session.number, queued.position));
                self.release_message(queued.stored_as);
            }
        }
    }

    /// Notes a message for the store, once for all sessions it waits for, and sets number and batch.
    pub(super) fn store_message(&mut self, now: Now, queued: &mut Queued) {
        if queued.stored_as == 0 {
            queued.stored_as = self.next_number();
            let mut value = Vec::with_capacity(queued.message.bytes());
            queued.message.encode(now, &mut value);
            self.pending.put(key::message(queued.stored_as), value);
        }
        *self.messages.entry(queued.stored_as).or_default() += 1;
        queued.batch = self.pending.next_batch();
    }

    /// Notes that one session less waits for a message.
    pub(super) fn release_message(&mut self, number: u64) {
        let Some(count) = self.messages.get_mut(&number) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.messages.remove(&number);
            self.pending.remove(key::message(number));
        }
    }

    /// Notes how far a message in flight is; returns the batch that says so, 0 if the session is not kept.
    pub(super) fn store_queued(&mut self, index: SessionIndex, packet_id: PacketIdentifier) -> u64 {
        let Some(session) = self.session_mut(index) else {
            return 0;
        };
        let number = session.number;
        let Some(message) = session.queue.find(packet_id) else {
            return 0;
        };
        if message.queued.stored_as == 0 {
            return 0;
        }
        let key = key::queued(number, message.queued.position);
        let value = encode_queued(&message.queued, Some((packet_id, message.phase)));
        self.pending.put(key, value)
    }

    /// Notes a waiting message.
    pub(super) fn store_waiting(&mut self, session: u64, queued: &Queued) {
        self.pending
            .put(key::queued(session, queued.position), encode_queued(queued, None));
    }

    /// Begins with what is in the store: all its keys and values, in the order of the keys. Returns the broker, and how many
    /// entries were not understood and left out.
    ///
    /// Sessions that had a connection are like those whose connection has just been lost.
    #[must_use]
    pub fn restore(
        limits: Limits,
        version: &str,
        now: Now,
        entries: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> (Self, u64) {
        let mut broker = Self::new(limits, version, now.instant);
        let mut loading = Loading {
            age: Age { now },
            messages: BTreeMap::new(),
            sessions: BTreeMap::new(),
            bad: 0,
        };
        let mut later = Vec::new();
        for (key, value) in entries {
            // Subscriptions, queues and identifiers refer to sessions and messages, which stand behind some of them.
            if matches!(key.first(), Some(&(key::SESSION | key::MESSAGE | key::RETAINED))) {
                loading.take(&mut broker, key, &value);
            } else {
                later.push((key, value));
            }
        }
        for (key, value) in later {
            loading.take(&mut broker, key, &value);
        }
        for number in loading.messages.keys() {
            broker.last_number = broker.last_number.max(*number);
            if !broker.messages.contains_key(number) {
                broker.pending.remove(key::message(*number));
            }
        }
        broker.pending.put(vec![key::VERSION], vec![TABLE_VERSION]);
        let indices: Vec<SessionIndex> = loading.sessions.into_values().collect();
        for index in indices {
            broker.schedule(index);
        }
        (broker, loading.bad)
    }
}

/// What is gathered while a store is read.
struct Loading {
    age: Age,
    messages: BTreeMap<u64, Arc<Message>>,
    sessions: BTreeMap<u64, SessionIndex>,
    bad: u64,
}

impl Loading {
    fn take(&mut self, broker: &mut Broker, key: Vec<u8>, value: &[u8]) {
        if self.try_take(broker, &key, value).is_err() {
            // What cannot be read would be in the way at every start.
            self.bad += 1;
            broker.pending.remove(key);
        }
    }

    fn try_take(&mut self, broker: &mut Broker, key: &[u8], value: &[u8]) -> Result<(), WireError> {
        let (mut key, mut value) = (Reader::new(key), Reader::new(value));
        match key.u8("kind of an entry")? {
            key::VERSION => Ok(()),
            key::RETAINED => {
                let message = Arc::new(Message::decode(&mut value, &self.age)?);
                let limits = Limits {
                    retained_max: usize::MAX,
                    retained_bytes_max: usize::MAX,
                    ..broker.limits
                };
                broker.retained.keep(&message, &limits);
                Ok(())
            }
            key::MESSAGE => {
                let number = key.u64("number of a message")?;
                let message = Message::decode(&mut value, &self.age)?;
                self.messages.insert(number, Arc::new(message));
                Ok(())
            }
            key::SESSION => {
                let number = key.u64("number of a session")?;
                let session = Session::decode(number, &mut value, &self.age)?;
                broker.last_number = broker.last_number.max(number);
                let index = broker.adopt(session);
                self.sessions.insert(number, index);
                Ok(())
            }
            kind => self.take_part(broker, kind, &mut key, &mut value),
        }
    }

    /// Takes what belongs to a session.
    fn take_part(
        &self,
        broker: &mut Broker,
        kind: u8,
        key: &mut Reader<'_>,
        value: &mut Reader<'_>,
    ) -> Result<(), WireError> {
        let number = key.u64("number of a session")?;
        let unknown = WireError::Value {
            field: "number of a session",
            value: number,
        };
        let index = self.sessions.get(&number).copied().ok_or(unknown)?;
        match kind {
            key::FILTER => {
                let field = "topic filter";
                let bytes = key.rest();
                let text = std::str::from_utf8(bytes).map_err(|_| WireError::Utf8 { field })?;
                let filter = Filter::parse(text).ok_or(WireError::Utf8 { field })?;
                let options = SubscriptionOptions::decode(value)?;
                broker.subscriptions.insert(&filter, index, options);
                if let Some(session) = broker.session_mut(index) {
                    session.subscriptions.insert(text.into(), options);
                }
                Ok(())
            }
            key::RECEIVED => {
                let packet_id = take_packet_id(key)?;
                if let Some(session) = broker.session_mut(index) {
                    session.received.insert(packet_id);
                }
                Ok(())
            }
            key::QUEUED => {
                let position = key.u64("position")?;
                let (stored_as, mut queued, progress) = decode_queued(value, position, &self.messages)?;
                queued.stored_as = stored_as;
                *broker.messages.entry(stored_as).or_default() += 1;
                broker.counters.queued += 1;
                broker.counters.queued_bytes += queued.message.bytes() as u64;
                if let Some(session) = broker.session_mut(index) {
                    match progress {
                        None => session.queue.push(queued),
                        Some((packet_id, phase)) => {
                            session.queue.restore_in_flight(queued, packet_id, phase, false);
                        }
                    }
                }
                Ok(())
            }
            _ => Err(WireError::Value {
                field: "kind of an entry",
                value: kind.into(),
            }),
        }
    }
}

impl Broker {
    /// Takes a session that was read from the store.
    fn adopt(&mut self, session: Session) -> SessionIndex {
        let index = SessionIndex(u32::try_from(self.sessions.len()).unwrap_or(u32::MAX));
        self.by_key.insert(session.key.clone(), index);
        self.sessions.push(Some(Box::new(session)));
        index
    }
}

impl Session {
    fn encode(&self, now: Now) -> Vec<u8> {
        let mut out = Vec::new();
        let is_detached = self.connection.is_none();
        out.push(u8::from(is_detached) | u8::from(self.will.is_some()) << 1);
        put_bytes_varint(&mut out, self.key.device.as_bytes());
        put_bytes_varint(&mut out, self.key.client_id.as_bytes());
        put_varint(&mut out, self.expiry_secs.into());
        Stamp::of(now.wall).encode(&mut out);
        if let Some(will) = &self.will {
            put_varint(&mut out, will.delay_secs.into());
            put_varint(&mut out, will.expiry_secs.map_or(0, |secs| u64::from(secs) + 1));
            out.push(will.class.code() | u8::from(will.is_local) << 2);
            will.message.encode(now, &mut out);
        }
        out
    }

    fn decode(number: u64, reader: &mut Reader<'_>, age: &Age) -> Result<Self, WireError> {
        let flags = reader.u8("flags of a session")?;
        let key = SessionKey {
            device: text(reader)?,
            client_id: text(reader)?,
        };
        let mut session = Self::new(key, number);
        session.is_stored = true;
        session.expiry_secs = take_u32(reader, "session expiry interval")?;
        let stamp = Stamp::decode(reader)?;
        let is_detached = flags & 1 != 0;
        // Where the connection went down with the node, the intervals begin now.
        let deadline = |secs: u32| match is_detached {
            true => age.deadline(stamp, secs.into()),
            false => age.now.instant + Duration::from_secs(secs.into()),
        };
        session.ends_at = (session.expiry_secs != u32::MAX).then(|| deadline(session.expiry_secs));
        if flags & 2 != 0 {
            let delay_secs = take_u32(reader, "will delay interval")?;
            let expiry = reader.varint("expiry of a will")?;
            let shape = reader.u8("class of a will")?;
            let class = fieldgate_adapters::class::Class::from_code(shape & 0b11).ok_or_else(|| {
                WireError::Value {
                    field: "class of a will",
                    value: shape.into(),
                }
            })?;
            session.will_at = Some(deadline(delay_secs.min(session.expiry_secs)));
            session.will = Some(Box::new(Will {
                message: Message::decode(reader, age)?,
                expiry_secs: expiry.checked_sub(1).and_then(|secs| u32::try_from(secs).ok()),
                delay_secs,
                class,
                is_local: shape & 0b100 != 0,
            }));
        }
        Ok(session)
    }
}

impl SubscriptionOptions {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out =
            vec![self.qos.code() | u8::from(self.no_local) << 2 | u8::from(self.retain_as_published) << 3];
        put_varint(
            &mut out,
            self.identifier.map_or(0, |identifier| identifier.0.into()),
        );
        out
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let flags = reader.u8("options of a subscription")?;
        let identifier = take_u32(reader, "subscription identifier")?;
        Ok(Self {
            qos: take_qos(flags)?,
            no_local: flags & 0b100 != 0,
            retain_as_published: flags & 0b1000 != 0,
            identifier: (identifier != 0).then_some(SubscriptionIdentifier(identifier)),
        })
    }
}

type Progress = Option<(PacketIdentifier, Phase)>;

fn encode_queued(queued: &Queued, progress: Progress) -> Vec<u8> {
    let mut out = vec![queued.qos.code() | u8::from(queued.retain) << 2];
    put_varint(&mut out, queued.stored_as);
    out.push(progress.map_or(0, |(_, phase)| phase.code()));
    if let Some((packet_id, _)) = progress {
        out.extend_from_slice(&packet_id.get().to_be_bytes());
    }
    for identifier in &queued.identifiers {
        put_varint(&mut out, identifier.0.into());
    }
    out
}

fn decode_queued(
    reader: &mut Reader<'_>,
    position: u64,
    messages: &BTreeMap<u64, Arc<Message>>,
) -> Result<(u64, Queued, Progress), WireError> {
    let flags = reader.u8("options of a message")?;
    let stored_as = reader.varint("number of a message")?;
    let message = messages.get(&stored_as).ok_or(WireError::Value {
        field: "number of a message",
        value: stored_as,
    })?;
    let progress = match reader.u8("progress of a message")? {
        0 => None,
        1 => Some((take_packet_id(reader)?, Phase::Published)),
        2 => Some((take_packet_id(reader)?, Phase::Released)),
        value => {
            return Err(WireError::Value {
                field: "progress of a message",
                value: value.into(),
            });
        }
    };
    let mut identifiers = Vec::new();
    while !reader.is_empty() {
        identifiers.push(SubscriptionIdentifier(take_u32(
            reader,
            "subscription identifier",
        )?));
    }
    let queued = Queued {
        message: Arc::clone(message),
        stored_as,
        qos: take_qos(flags)?,
        retain: flags & 0b100 != 0,
        identifiers,
        position,
        batch: 0,
    };
    Ok((stored_as, queued, progress))
}

fn take_qos(flags: u8) -> Result<Qos, WireError> {
    Qos::from_code(flags & 0b11).ok_or_else(|| WireError::Value {
        field: "QoS in the store",
        value: flags.into(),
    })
}

fn take_u32(reader: &mut Reader<'_>, field: &'static str) -> Result<u32, WireError> {
    let value = reader.varint(field)?;
    u32::try_from(value).map_err(|_| WireError::Value { field, value })
}

fn take_packet_id(reader: &mut Reader<'_>) -> Result<PacketIdentifier, WireError> {
    let field = "packet identifier";
    PacketIdentifier::new(reader.u16(field)?).ok_or(WireError::Value { field, value: 0 })
}

/// The version of the table in the store.
const TABLE_VERSION: u8 = 1;
