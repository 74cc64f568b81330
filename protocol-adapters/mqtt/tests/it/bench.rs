//! One session with everything around it.

use std::sync::Arc;

use fieldgate_adapters::{
    authenticate::{Anonymous, Authentication, Authenticator},
    class::Class,
    device::{Device, DeviceTable, Login},
    ingest::Refused,
    password::hash_password,
    reading::{Reading, UserProperties},
    topic::TopicFilter,
};
use fieldgate_mqtt::{
    broker::{Broker, ConnectionKey, Output, limits::Limits},
    counters::Counters,
    exchange::{Answer, Exchange, Publication, Request},
    session::{Context, Flow, Session, end::SessionEnd, end::Termination},
    settings::Settings,
    version::ProtocolVersion,
};
use fieldgate_proto::{
    entropy::Entropy,
    time::{ClockQuality, Instant, Now, WallTime},
};

use crate::{auth::Manners, bytes};

/// A reading that the journal took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) device: String,
    pub(crate) resource: String,
    pub(crate) content_type: Option<String>,
    pub(crate) user_properties: Vec<(String, String)>,
    pub(crate) payload: Vec<u8>,
    pub(crate) captured_at: WallTime,
    pub(crate) class: Class,
}

/// A journal that remembers, and refuses when told to.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) readings: Vec<Taken>,
    pub(crate) refuse: Option<Refused>,
    /// Only counts, so that a test can watch for allocations elsewhere.
    pub(crate) counts_only: bool,
    pub(crate) last: u64,
}

impl Journal {
    fn take(&mut self, reading: &Reading<'_>) -> Result<u64, Refused> {
        if let Some(refused) = self.refuse {
            return Err(refused);
        }
        self.last += 1;
        if !self.counts_only {
            self.readings.push(Taken {
                device: reading.device.to_owned(),
                resource: reading.resource.to_owned(),
                content_type: reading.content_type.map(str::to_owned),
                user_properties: reading
                    .user_properties
                    .iter()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
                payload: reading.payload.to_vec(),
                captured_at: reading.captured_at,
                class: reading.class,
            });
        }
        Ok(self.last)
    }
}

/// The way of the one session to journal and broker.
struct Way<'a> {
    journal: &'a mut Journal,
    broker: &'a mut Broker,
    connection: ConnectionKey,
    now: Now,
}

impl Exchange for Way<'_> {
    fn publish(&mut self, publication: &Publication<'_>) -> Result<u64, Refused> {
        let ticket = self.journal.take(&publication.reading)?;
        self.broker.publish(self.now, self.connection, publication);
        Ok(ticket)
    }

    fn request(&mut self, request: Request) {
        self.broker.handle_request(self.now, self.connection, request);
    }
}

/// Entropy for tests: every byte is one more than the one before.
#[derive(Debug, Default)]
pub(crate) struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
    }
}

/// A session, its journal, its device table and its clock.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) session: Session,
    settings: Arc<Settings>,
    connection: ConnectionKey,
    pub(crate) journal: Journal,
    pub(crate) broker: Broker,
    pub(crate) authenticator: Authenticator,
    manners: Option<Manners>,
    pub(crate) counters: Counters,
    pub(crate) now: Now,
    pub(crate) send: Vec<u8>,
    entropy: Counting,
}

pub(crate) fn filters(filters: &[&str]) -> Arc<[TopicFilter]> {
    filters
        .iter()
        .map(|filter| TopicFilter::new(filter).unwrap())
        .collect()
}

/// One device, "pump", that logs in as "user" with `password` and may publish below "pump" and "own".
fn authenticator(iterations: u32) -> Authenticator {
    let login = Login {
        username: "user".to_owned(),
        password: hash_password(b"password", iterations, &mut Counting::default()).unwrap(),
        device: Device::new("pump", filters(&["pump/#", "own/+"])).unwrap(),
    };
    let table = DeviceTable::new(vec![login]).unwrap();
    Authenticator::new(
        Arc::new(table),
        Anonymous::Allowed {
            topics: filters(&["#"]),
        },
        &[3; 32],
    )
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let now = Now {
            instant: Instant::from_nanos(5_000_000_000),
            wall: WallTime {
                unix_millis: 1_700_000_000_123,
                quality: ClockQuality::Floor,
            },
        };
        let settings = Arc::new(settings);
        Self {
            session: Session::new(Arc::clone(&settings), now.instant),
            settings,
            connection: ConnectionKey {
                shard: 0,
                connection: 1,
            },
            journal: Journal::default(),
            broker: Broker::new(Limits::default(), "1.2.3", now.instant),
            authenticator: authenticator(2),
            manners: None,
            counters: Counters::default(),
            now,
            send: Vec::new(),
            entropy: Counting::default(),
        }
    }

    /// Clients must converse.
    pub(crate) fn with_manners(self) -> Self {
        Self {
            manners: Some(Manners),
            ..self
        }
    }

    /// The next connection to the same broker.
    pub(crate) fn reconnect(&mut self) {
        self.session = Session::new(Arc::clone(&self.settings), self.now.instant);
        self.connection.connection += 1;
    }

    /// Passwords take longer to check than the session's thread may.
    pub(crate) fn with_slow_passwords() -> Self {
        Self {
            authenticator: authenticator(1_001),
            ..Self::new()
        }
    }

    /// Connected without credentials, as client "c".
    pub(crate) fn connected(version: ProtocolVersion) -> Self {
        Self::connected_with(Settings::default(), version)
    }

    pub(crate) fn connected_with(settings: Settings, version: ProtocolVersion) -> Self {
        let mut bench = Self::with(settings);
        bench.give(&bytes::plain_connect(version)).unwrap();
        let answer = bench.sent();
        assert_eq!(answer[0], 0x20);
        assert_eq!(answer[3], 0, "CONNACK refuses");
        bench
    }

    /// Connected as the device in the table.
    pub(crate) fn logged_in(version: ProtocolVersion) -> Self {
        let mut bench = Self::new();
        bench.give(&bytes::device_connect(version, "password")).unwrap();
        assert_eq!(bench.sent()[3], 0, "CONNACK refuses");
        bench
    }

    fn call<T>(&mut self, call: impl FnOnce(&mut Session, Now, &mut Context<'_>) -> T) -> T {
        let mut context = Context {
            send: &mut self.send,
            exchange: &mut Way {
                journal: &mut self.journal,
                broker: &mut self.broker,
                connection: self.connection,
                now: self.now,
            },
            authenticator: match &mut self.manners {
                Some(manners) => manners,
                None => &mut self.authenticator,
            },
            entropy: &mut self.entropy,
            counters: &mut self.counters,
        };
        call(&mut self.session, self.now, &mut context)
    }

    /// Calls the session, and lets it and the broker talk until both have said everything.
    fn talk(
        &mut self,
        call: impl FnOnce(&mut Session, Now, &mut Context<'_>) -> Result<(), SessionEnd>,
    ) -> Result<(), SessionEnd> {
        let mut result = self.call(call);
        loop {
            while let Some(batch) = self.broker.take_batch() {
                self.broker.handle_stored(self.now, batch.number);
            }
            match self.broker.poll_output() {
                None => return result,
                Some(Output::Answer { to, answer }) => {
                    if to == self.connection {
                        let answered = self.answer(answer);
                        result = result.and(answered);
                    }
                }
                Some(Output::Will(will)) => {
                    let like = Reading {
                        device: "",
                        resource: "",
                        content_type: None,
                        user_properties: UserProperties::EMPTY,
                        payload: &[],
                        captured_at: self.now.wall,
                        class: will.class,
                    };
                    // One that is not taken is lost, which some tests want.
                    let _ = will
                        .message
                        .as_reading(&like, |reading| self.journal.take(reading));
                }
            }
        }
    }

    /// Gives the session an answer of the broker.
    pub(crate) fn answer(&mut self, answer: Answer) -> Result<(), SessionEnd> {
        self.call(|session, now, context| session.handle_answer(now, answer, context))
    }

    pub(crate) fn give(&mut self, bytes: &[u8]) -> Result<(), SessionEnd> {
        self.talk(|session, now, context| session.handle_bytes(now, bytes, context))
    }

    pub(crate) fn authenticated(&mut self, authentication: Authentication) -> Result<(), SessionEnd> {
        self.talk(|session, now, context| session.handle_authenticated(now, authentication, context))
    }

    pub(crate) fn timeout(&mut self) -> Result<(), SessionEnd> {
        self.talk(Session::handle_timeout)
    }

    pub(crate) fn terminate(&mut self, termination: Termination) -> SessionEnd {
        self.talk(|session, _, context| Err(session.handle_termination(termination, context)))
            .unwrap_err()
    }

    pub(crate) fn close(&mut self) -> SessionEnd {
        self.talk(|session, _, context| Err(session.handle_closed(context)))
            .unwrap_err()
    }

    /// Commits up to a sequence and returns the PUBACKs.
    pub(crate) fn commit(&mut self, up_to: u64) -> (Vec<u8>, Flow) {
        let mut send = Vec::new();
        let flow = self.session.handle_committed(up_to, &mut send);
        (unexplained(&send), flow)
    }

    pub(crate) fn acks(&mut self, up_to: u64) -> Vec<u8> {
        self.commit(up_to).0
    }

    /// Takes what was sent, but for what explains it to people.
    pub(crate) fn sent(&mut self) -> Vec<u8> {
        unexplained(&self.sent_whole())
    }

    /// Takes what was sent.
    pub(crate) fn sent_whole(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.send)
    }

    pub(crate) fn advance_millis(&mut self, millis: u64) {
        self.now.instant = self.now.instant + std::time::Duration::from_millis(millis);
        self.now.wall.unix_millis += millis;
    }
}

/// Leaves Reason Strings out of packets, so that what programs act on can be compared.
fn unexplained(mut packets: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while let [first, rest @ ..] = packets {
        let (mut length, mut shift, mut at) = (0, 0, 0);
        loop {
            let byte = rest[at];
            length |= usize::from(byte & 0x7f) << shift;
            (shift, at) = (shift + 7, at + 1);
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (body, whole) = (&rest[at..at + length], &packets[..=at + length]);
        packets = &rest[at + length..];
        // Where the properties begin; behind them stands nothing but the reason codes of SUBACK.
        let (properties, at_least) = match first >> 4 {
            2 => (2, true),
            4 | 5 => (3, false),
            9 => (2, true),
            14 => (1, false),
            _ => {
                plain.extend_from_slice(whole);
                continue;
            }
        };
        let Some([bytes, 0x1f, ..]) = body.get(properties..) else {
            plain.extend_from_slice(whole);
            continue;
        };
        let end = properties + 1 + usize::from(*bytes);
        let text = str::from_utf8(&body[properties + 4..end]).expect("it is for people");
        assert!(text.len() >= 10, "{text:?} explains nothing");
        let kept = [
            &body[..properties],
            if at_least { &[0] } else { &[] },
            &body[end..],
        ]
        .concat();
        plain.extend([*first, u8::try_from(kept.len()).expect("a short packet")]);
        plain.extend(kept);
    }
    plain
}
