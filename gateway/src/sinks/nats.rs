//! The sink that publishes into a NATS JetStream stream, each reading with its id as message id.
//!
//! One connection is one *incarnation*. It finds or creates the stream, reads back which readings the stream has, publishes what
//! it does not have, and confirms in order as the acknowledgements come.
//!
//! # No duplicates
//! The server recognises a message id that comes again within its duplicate window (two minutes, if nothing else is set). Beyond
//! the window the sink sees to it itself: the positions say which message of which stream they account for, and at the start of
//! each incarnation the headers of all later messages are read. So a message that was stored and whose acknowledgement was lost
//! is found in the stream itself, however long ago that was. The window covers what is left: messages of the connection before
//! that the server had not stored when it was asked.
//!
//! | happens | what it takes |
//! |---|---|
//! | server or collector killed, connection lost | the messages since the checkpoint are read back |
//! | collector restored from an older backup, or its positions lost | more of the stream is read back, at worst all of it |
//! | the stream was deleted and created again | its creation time differs: read back from the beginning |
//! | the stream has forgotten by its limits what it was given | only the window and the positions help: within limits that forget, positions must not be restored from backups older than those limits |
//! | the stream ends before a message it acknowledged (power cut before fsync) | a warning says how many messages are gone; gateways have forgotten them |
//!
//! # Nothing lost
//! A position moves only over sequences that are acknowledged or found in the stream. A message that fails while later ones are
//! stored leaves a hole, which stays open until it is published.

use std::{
    collections::{BTreeMap, VecDeque},
    future::IntoFuture,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use async_nats::{
    Client, ConnectOptions, Event,
    jetstream::{
        self, Context,
        context::{ContextBuilder, PublishError, PublishErrorKind},
        message::PublishMessage,
        publish::PublishAck,
    },
};
use fieldgate_config::settings::sink::{NatsAuth, NatsSink as Settings, SinkTls};
use tokio::{sync::watch, time};

use self::{message::Message, ranges::Ranges};
use super::{
    Delivery, Source,
    custody::{BackOff, Custody},
    item::{Item, Tally},
    open::{read_login, read_secret},
    positions::SourceKey,
    queue::DeliveryReceiver,
    stats::Subject,
    tls,
};

mod message;
mod ranges;
mod stream;

/// Publishes until the trunk closes the queue. Runs as a task of a `LocalSet`.
pub(crate) async fn run(settings: Settings, custody: Custody, deliveries: DeliveryReceiver) {
    let sink = NatsSink {
        settings,
        custody,
        deliveries,
        retained: VecDeque::new(),
        have: BTreeMap::new(),
        window: VecDeque::new(),
        place: String::new(),
        stored: 0,
    };
    sink.run().await;
}

struct NatsSink {
    settings: Settings,
    custody: Custody,
    deliveries: DeliveryReceiver,
    /// What was taken from the queue and is not confirmed yet, oldest first.
    retained: VecDeque<Delivery>,
    /// What the stream has beyond the positions.
    have: BTreeMap<SourceKey, Ranges>,
    /// On their way in this incarnation, oldest first.
    window: VecDeque<InFlight>,
    /// Which stream the positions account for.
    place: String,
    /// Highest message of the stream up to which everything of this sink is in the positions.
    stored: u64,
}

/// A sequence on its way.
struct InFlight {
    delivery: Delivery,
    /// The item's last sequence, or the delivery's.
    up_to: u64,
    first: u64,
    tally: Tally,
    /// `None`: there is nothing to wait for.
    ack: Option<Ack>,
}

type Ack = Pin<Box<dyn Future<Output = Result<PublishAck, PublishError>> + Send>>;

/// Why an incarnation ended.
enum End {
    /// The trunk closed the queue: the node stops.
    Stopped,
    /// The server went away.
    Lost(String),
    /// The server refuses.
    Refused(String),
}

/// The connection of an incarnation.
struct Link {
    context: Context,
    lost: watch::Receiver<Option<String>>,
}

impl NatsSink {
    async fn run(mut self) {
        let mut back_off = BackOff::new();
        loop {
            let before = self.custody.stats.condition().state;
            let end = self.incarnation(&mut back_off).await;
            self.window.clear();
            let stats = &self.custody.stats;
            let (is_new, reason) = match end {
                End::Stopped => break,
                End::Lost(reason) => (stats.away(reason.clone()), reason),
                End::Refused(reason) => (stats.refused(reason.clone()), reason),
            };
            let (host, port) = (self.settings.address.host(), self.settings.address.port());
            if is_new {
                tracing::warn!(host, port, reason, ?before, "NATS does not take readings");
            } else {
                tracing::debug!(host, port, reason, "NATS still does not");
            }
            self.custody.save();
            time::sleep(back_off.next()).await;
        }
        self.custody.save();
    }

    async fn incarnation(&mut self, back_off: &mut BackOff) -> End {
        let link = match self.connect().await {
            Ok(link) => link,
            Err(end) => return end,
        };
        if let Err(end) = self.catch_up(&link).await {
            return end;
        }
        self.custody.stats.taking();
        *back_off = BackOff::new();
        match self.publish_all(&link).await {
            Ok(()) => End::Stopped,
            Err(end) => end,
        }
    }

    async fn connect(&self) -> Result<Link, End> {
        let address = &self.settings.address;
        // Another server of the cluster may answer; a new incarnation asks it, and reads back what it has.
        let (options, scheme, lost) = one_connection(
            &self.settings.auth,
            self.settings.tls.as_ref(),
            (ANSWER_TIME, PING_EVERY),
        )
        .map_err(End::Refused)?;
        let options = options.name("fieldgate collector");
        let url = format!("{scheme}://{address}");
        let client: Client = match time::timeout(ANSWER_TIME, options.connect(url)).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(End::Lost(chain(&error))),
            Err(_) => return Err(End::Lost("it does not answer".to_owned())),
        };
        let context = ContextBuilder::new()
            .timeout(ANSWER_TIME)
            .ack_timeout(ANSWER_TIME)
            .max_ack_inflight(usize::from(self.settings.inflight_max) + 1)
            .build(client);
        Ok(Link { context, lost })
    }

    /// Finds the stream and what it has.
    async fn catch_up(&mut self, link: &Link) -> Result<(), End> {
        let opened = stream::open(&link.context, &self.settings, &self.custody.output).await;
        let stream = opened.map_err(|(is_refused, reason)| {
            if is_refused {
                End::Refused(reason)
            } else {
                End::Lost(reason)
            }
        })?;
        let info = stream.cached_info();
        let version = link.context.client().server_info().version;
        self.judge(stream::durability(info, &version));
        let place = format!("{} {}", info.config.name, info.created.unix_timestamp_nanos());
        let last = info.state.last_sequence;
        let is_same = self.custody.positions.place == place;
        let mut from = if is_same {
            self.custody.positions.offset + 1
        } else {
            1
        };
        if !is_same && self.custody.positions.offset > 0 {
            let text = format!(
                "stream {} is another than the one that took readings before: it was deleted and created again",
                info.config.name
            );
            tracing::warn!(stream = info.config.name, "the stream is another than before");
            self.custody.stats.notice(Subject::SetBack, Some(text));
        }
        if from > last + 1 {
            let gone = from - 1 - last;
            let text = format!(
                "stream {} ends {gone} messages before what it acknowledged: they are lost there, and gateways have forgotten them",
                info.config.name
            );
            tracing::warn!(
                stream = info.config.name,
                messages = gone,
                "the stream has less than it acknowledged"
            );
            self.custody.stats.notice(Subject::SetBack, Some(text));
            // What it stores from here on has these sequences again.
            from = last + 1;
        }
        let from = from.max(info.state.first_sequence);
        // Everything that is not in the positions is read back, so what was found before does not count.
        self.have.clear();
        let have = &mut self.have;
        let read = stream::read_back(&stream, from, last, |key, first, last| {
            let ranges = have.entry(key).or_default();
            if ranges.len() < RANGES_MAX {
                ranges.insert(first, last);
            }
        });
        read.await.map_err(End::Lost)?;
        let positions = &mut self.custody.positions;
        self.have.retain(|key, ranges| {
            let known = positions.all().get(key).copied().unwrap_or(0);
            let contiguous = ranges.contiguous_after(known);
            positions.advance_key(*key, contiguous);
            ranges.forget(contiguous);
            ranges.len() > 0
        });
        // Only what is in the positions is accounted for: holes are read back again next time.
        if self.have.is_empty() {
            positions.account_for(&place, last);
        } else if positions.place != place {
            positions.account_for(&place, 0);
        }
        self.place = place;
        self.stored = positions.offset;
        tracing::info!(
            stream = info.config.name,
            read_from = from,
            last,
            "stream reached"
        );
        Ok(())
    }

    /// Shows what acknowledgements are worth, and says it aloud when it is news.
    fn judge(&self, text: Option<String>) {
        let before = self.custody.stats.condition().notices;
        if let Some(text) = text
            .as_ref()
            .filter(|text| before.get(&Subject::Durability) != Some(text))
        {
            tracing::warn!(stream = self.settings.stream, "{text}");
        }
        self.custody.stats.notice(Subject::Durability, text);
    }

    /// Publishes what waits and what comes, and settles what is acknowledged.
    async fn publish_all(&mut self, link: &Link) -> Result<(), End> {
        let mut lost = link.lost.clone();
        for delivery in self.retained.clone() {
            self.publish(&delivery, link).await?;
        }
        loop {
            let front = self.window.front_mut().and_then(|front| front.ack.as_mut());
            tokio::select! {
                biased;
                changed = lost.changed() => {
                    let reason = match changed {
                        Ok(()) => lost.borrow().clone(),
                        Err(_) => None,
                    };
                    return Err(End::Lost(reason.unwrap_or_else(|| "connection lost".to_owned())));
                }
                acknowledged = wait_for(front) => self.settle_front(acknowledged)?,
                delivery = self.deliveries.recv() => {
                    let Some(delivery) = delivery else { return Ok(()) };
                    let positions = &self.custody.positions;
                    self.retained.retain(|old| positions.of(old.source()) < old.last());
                    self.retained.push_back(delivery.clone());
                    self.publish(&delivery, link).await?;
                }
            }
            self.settle_done();
            self.custody.save_if_due();
        }
    }

    /// Publishes what the stream does not have of a delivery.
    async fn publish(&mut self, delivery: &Delivery, link: &Link) -> Result<(), End> {
        let source = delivery.source();
        let known = self.custody.position(source);
        delivery.count_known(known, &self.custody.stats);
        let key = (source.gateway, source.journal);
        for item in delivery.items(known) {
            let missing = match self.have.get(&key) {
                Some(have) => have.missing(item.first(), item.last()),
                None => vec![(item.first(), item.last())],
            };
            if missing.is_empty() {
                let copies = Tally::copy_of(&item, &self.custody.stats);
                self.enter(delivery, item.first(), item.last(), copies, None);
            }
            for (first, last) in missing {
                // Of a gap only what the stream does not have; a reading is one sequence anyway.
                let part = match &item {
                    Item::Gap { gap, .. } => Some(Item::Gap { gap, first, last }),
                    Item::Reading { .. } | Item::Undecodable { .. } => None,
                };
                self.publish_item(delivery, part.as_ref().unwrap_or(&item), link)
                    .await?;
            }
            // What is settled up to the end of the item is settled as a whole.
            if self.window.back().is_none_or(|back| back.up_to != item.last()) {
                self.enter(delivery, item.first(), item.last(), Tally::NOTHING, None);
            }
        }
        self.enter(delivery, delivery.last(), delivery.last(), Tally::NOTHING, None);
        self.settle_done();
        Ok(())
    }

    async fn publish_item(&mut self, delivery: &Delivery, item: &Item<'_>, link: &Link) -> Result<(), End> {
        while self.window.len() >= usize::from(self.settings.inflight_max) {
            let front = self.window.front_mut().and_then(|front| front.ack.as_mut());
            if front.is_some() {
                let acknowledged = wait_for(front).await;
                self.settle_front(acknowledged)?;
            }
            self.settle_done();
        }
        if matches!(item, Item::Undecodable { .. }) {
            self.enter(delivery, item.first(), item.last(), item.tally(), None);
            return Ok(());
        }
        let message = Message::new(&self.custody.output, &self.settings.stream, item);
        if message.subject.len() > SUBJECT_LEN_MAX {
            let reason = format!(
                "its subject has {} bytes, more than {SUBJECT_LEN_MAX}",
                message.subject.len()
            );
            return self.put_aside(delivery, item, &reason);
        }
        let publish = PublishMessage::build()
            .payload(message.payload.into())
            .headers(message.headers);
        match link.context.send_publish(message.subject, publish).await {
            Ok(ack) => {
                let ack: Ack = ack.into_future();
                self.enter(delivery, item.first(), item.last(), item.tally(), Some(ack));
                Ok(())
            }
            Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                self.put_aside(delivery, item, &chain(&error))
            }
            Err(error) => Err(End::Lost(chain(&error))),
        }
    }

    fn put_aside(&mut self, delivery: &Delivery, item: &Item<'_>, reason: &str) -> Result<(), End> {
        self.custody.put_aside(item, reason).map_err(End::Refused)?;
        self.enter(delivery, item.first(), item.last(), Tally::NOTHING, None);
        Ok(())
    }

    fn enter(&mut self, delivery: &Delivery, first: u64, up_to: u64, tally: Tally, ack: Option<Ack>) {
        self.window.push_back(InFlight {
            delivery: delivery.clone(),
            up_to,
            first,
            tally,
            ack,
        });
    }

    /// Takes the server's word on the oldest message.
    fn settle_front(&mut self, acknowledged: Result<PublishAck, PublishError>) -> Result<(), End> {
        let Some(mut front) = self.window.pop_front() else {
            return Ok(());
        };
        match acknowledged {
            Ok(ack) => {
                // Messages are stored in the order in which they were sent, so everything of this sink up to here is settled.
                self.stored = self.stored.max(ack.sequence);
                if ack.duplicate {
                    front.tally = Tally::NOTHING;
                    self.custody
                        .stats
                        .duplicates
                        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            }
            Err(error) => match judge(&error) {
                Verdict::Lost(reason) => return Err(End::Lost(reason)),
                Verdict::Refused(reason) => return Err(End::Refused(reason)),
                Verdict::ForGood(reason) => {
                    let items = front.delivery.items(front.first - 1);
                    if let Some(item) = items.take(1).next() {
                        self.custody.put_aside(&item, &reason).map_err(End::Refused)?;
                    }
                    front.tally = Tally::NOTHING;
                }
            },
        }
        front.ack = None;
        self.window.push_front(front);
        self.settle_done();
        Ok(())
    }

    /// Confirms what is at the front and has nothing to wait for.
    fn settle_done(&mut self) {
        let mut settled: BTreeMap<u32, (Arc<Source>, u64)> = BTreeMap::new();
        while let Some(done) = self.window.pop_front_if(|front| front.ack.is_none()) {
            done.tally.count(&self.custody.stats);
            let source = done.delivery.source();
            settled.insert(source.index, (Arc::clone(source), done.up_to));
        }
        for (source, up_to) in settled.values() {
            self.custody.settle(source, *up_to);
            let key = (source.gateway, source.journal);
            if let Some(ranges) = self.have.get_mut(&key) {
                ranges.forget(*up_to);
                if ranges.len() == 0 {
                    self.have.remove(&key);
                }
            }
        }
        // After a crash the stream itself says what it has.
        self.custody.confirm_settled();
        if self.have.is_empty() && !settled.is_empty() {
            self.custody.positions.account_for(&self.place, self.stored);
        }
    }
}

/// Waits for an acknowledgement; for ever, where there is none to wait for.
async fn wait_for(ack: Option<&mut Ack>) -> Result<PublishAck, PublishError> {
    match ack {
        Some(ack) => ack.await,
        None => std::future::pending().await,
    }
}

/// What a failed publish means.
enum Verdict {
    /// Try again over another connection.
    Lost(String),
    /// Everything would be refused.
    Refused(String),
    /// This message will always be.
    ForGood(String),
}

fn judge(error: &PublishError) -> Verdict {
    let reason = chain(error);
    match error.kind() {
        PublishErrorKind::StreamNotFound => {
            Verdict::Refused(format!("no stream takes its subject: {reason}"))
        }
        PublishErrorKind::MaxPayloadExceeded => Verdict::ForGood(reason),
        PublishErrorKind::Other => {
            let told =
                std::error::Error::source(error).and_then(|source| source.downcast_ref::<jetstream::Error>());
            match told.map(jetstream::Error::error_code) {
                Some(jetstream::ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM) => Verdict::ForGood(reason),
                Some(_) => Verdict::Refused(reason),
                None => Verdict::Lost(reason),
            }
        }
        PublishErrorKind::WrongLastMessageId
        | PublishErrorKind::WrongLastSequence
        | PublishErrorKind::TimedOut
        | PublishErrorKind::BrokenPipe
        | PublishErrorKind::MaxAckPending => Verdict::Lost(reason),
    }
}

/// Says an error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some say their cause themselves.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// Prepares one connection, which is not made again when it is lost: gives its options, the scheme of the servers' addresses,
/// and where to hear that it is lost, and why. An answer is waited for `answer`, and the server asked for life every `ping`.
///
/// # Errors
/// In words, if a secret or certificate cannot be read.
pub(crate) fn one_connection(
    auth: &NatsAuth,
    tls: Option<&SinkTls>,
    (answer, ping): (Duration, Duration),
) -> Result<(ConnectOptions, &'static str, watch::Receiver<Option<String>>), String> {
    let (tell, lost) = watch::channel(None);
    let options = options(auth)?
        .connection_timeout(answer)
        .request_timeout(Some(answer))
        .ping_interval(ping)
        .max_reconnects(1)
        .event_callback(move |event| {
            let tell = tell.clone();
            async move {
                if let Event::Disconnected | Event::Closed | Event::ClientError(_) = event {
                    tell.send_replace(Some(event.to_string()));
                }
            }
        });
    Ok(match tls {
        Some(settings) => {
            let config = tls::client_config(settings)?;
            (options.require_tls(true).tls_client_config(config), "tls", lost)
        }
        None => (options, "nats", lost),
    })
}

/// Reads who this node is there, anew for each connection.
///
/// # Errors
/// In words, if a secret cannot be read.
fn options(auth: &NatsAuth) -> Result<ConnectOptions, String> {
    Ok(match auth {
        NatsAuth::None => ConnectOptions::new(),
        NatsAuth::Login(login) => {
            let (user, password) = read_login(login)?;
            ConnectOptions::with_user_and_password(user, password.to_string())
        }
        NatsAuth::Token(token) => ConnectOptions::with_token(read_secret(token)?.to_string()),
        NatsAuth::Credentials(credentials) => ConnectOptions::with_credentials(&read_secret(credentials)?)
            .map_err(|_| {
                "`credentials` hold no user JWT and NKEY seed as a .creds file has them".to_owned()
            })?,
    })
}

/// Longest time for a connection, an answer, an acknowledgement.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How often the server is asked whether it is there; two questions without answer end the connection.
const PING_EVERY: Duration = Duration::from_secs(10);
/// Longest subject, in bytes: a line of the protocol has 4,096, and holds the inbox and sizes, too.
const SUBJECT_LEN_MAX: usize = 3_000;
/// Ranges that are remembered per source: far more holes than a window can leave. Beyond it the server's own window removes
/// duplicates.
const RANGES_MAX: usize = 100_000;
