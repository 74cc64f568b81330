//! The sink that publishes to a real MQTT broker through rumqttc, at QoS 1.
//!
//! A reading is confirmed only after the broker's PUBACK. A connection lost ends one *incarnation* of the client: the next one
//! starts afresh and publishes everything not confirmed again, so a broker may see a reading twice. It cannot remove
//! duplicates itself, so each copy carries the reading's id: with MQTT 5 as user property `fieldgate-id`, and in every format
//! but `raw` in the payload as well.
//!
//! ```text
//!  queue ──feed──▶ client ──PUBLISH──▶ broker ──PUBACK──▶ drive ──▶ order per source ──▶ positions, trunk
//!    ▲                │ connection lost: a new incarnation publishes `retained` again
//!    └── full: back-pressure
//! ```

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use fieldgate_config::settings::sink::{Format, MqttSink as Settings, OnRejected, Output};
use tokio::time;

use self::{
    bridge::Bridge,
    client::{Client, Connection, Events, Happening, Message, Purpose, Way},
};
use super::{
    Delivery, Source,
    custody::{BackOff, Custody},
    gap::GapReason,
    item::{Item, Tally},
    json,
    open::read_login,
    output::{body_into, content_type, topic_into},
    queue::DeliveryReceiver,
    stats::SinkStats,
};

mod bridge;
mod client;
pub(crate) mod commands;

/// Publishes until the trunk closes the queue. Runs as a task of a `LocalSet`.
pub(crate) async fn run(settings: Settings, custody: Custody, deliveries: DeliveryReceiver) {
    let sink = MqttSink {
        settings,
        custody,
        deliveries,
        retained: VecDeque::new(),
    };
    sink.run().await;
}

struct MqttSink {
    settings: Settings,
    custody: Custody,
    deliveries: DeliveryReceiver,
    /// What was taken from the queue and is not confirmed yet, oldest first.
    retained: VecDeque<Delivery>,
}

/// Why an incarnation ended.
enum End {
    /// The trunk closed the queue: the node stops.
    Stopped,
    /// The broker went away.
    Lost(String),
    /// The broker refuses.
    Refused(String),
}

impl MqttSink {
    async fn run(mut self) {
        let mut back_off = BackOff::new();
        loop {
            let reached = Cell::new(false);
            let end = self.incarnation(&reached).await;
            if reached.get() {
                back_off = BackOff::new();
            }
            let stats = &self.custody.stats;
            let (is_new, reason) = match end {
                End::Stopped => break,
                End::Lost(reason) => (stats.away(reason.clone()), reason),
                End::Refused(reason) => (stats.refused(reason.clone()), reason),
            };
            let (host, port) = (self.settings.address.host(), self.settings.address.port());
            if is_new {
                tracing::warn!(host, port, reason, "broker lost");
            } else {
                tracing::debug!(host, port, reason, "broker still away");
            }
            self.custody.save();
            time::sleep(back_off.next()).await;
        }
        self.custody.save();
    }

    async fn incarnation(&mut self, reached: &Cell<bool>) -> End {
        let opened = connect(&self.settings, &self.settings.client_id, Purpose::Readings);
        let (client, events, bridge) = match opened {
            Ok(opened) => opened,
            Err(end) => return end,
        };
        let shared = Shared {
            progress: RefCell::default(),
            output: std::rc::Rc::clone(&self.custody.output),
            stats: Arc::clone(&self.custody.stats),
            custody: RefCell::new(&mut self.custody),
            retained: RefCell::new(&mut self.retained),
            packet_bytes_max: Cell::new(None),
            on_rejected: self.settings.on_rejected,
            reached,
        };
        let feeder = feed(&client, &mut self.deliveries, &shared);
        let driver = drive(events, &shared);
        let end = tokio::select! {
            end = driver => end,
            end = feeder => end,
        };
        // The client only sees that the socket was closed; the bridge knows why.
        match (end, bridge.as_ref().and_then(Bridge::failure)) {
            (End::Lost(_), Some(failure)) => End::Lost(failure),
            (end, _) => end,
        }
    }
}

/// Makes a client, which knows nothing of those before, and the TLS connection behind it, if there is to be one.
fn connect(
    settings: &Settings,
    client_id: &str,
    purpose: Purpose,
) -> Result<(Client, Events, Option<Bridge>), End> {
    let login = settings.login.as_ref().map(read_login).transpose();
    let login = login.map_err(End::Refused)?;
    let (host, port) = (settings.address.host().to_owned(), settings.address.port());
    let bridge = match &settings.tls {
        None => None,
        Some(tls) => {
            let opened = Bridge::open(tls.clone(), host.clone(), port);
            Some(opened.map_err(|error| End::Lost(error.to_string()))?)
        }
    };
    let (client, events) = client::open(Connection {
        version: settings.version,
        client_id: client_id.to_owned(),
        way: match &bridge {
            Some(bridge) => Way::Socket(bridge.path.clone()),
            None => Way::Tcp(host, port),
        },
        login,
        inflight_max: settings.inflight_max,
        purpose,
    });
    Ok((client, events, bridge))
}

/// Publishes on their way in one incarnation of the client.
#[derive(Default)]
struct Progress {
    /// Handed to the client, not yet given a packet identifier, in order.
    handed: VecDeque<(u32, u64)>,
    /// By packet identifier.
    sent: BTreeMap<u16, (u32, u64)>,
    /// Per source, in order of sequence.
    order: BTreeMap<u32, VecDeque<Pending>>,
    /// By index of the source.
    sources: BTreeMap<u32, Arc<Source>>,
}

/// A sequence on its way.
struct Pending {
    sequence: u64,
    is_done: bool,
    tally: Tally,
}

impl Progress {
    /// Notes the broker's word on `packet`: it counts as `tally`, or as it was entered.
    fn finish(&mut self, packet: u16, tally: Option<Tally>) -> Option<Settled> {
        let (source, sequence) = self.sent.remove(&packet)?;
        let order = self.order.get_mut(&source)?;
        let index = order
            .binary_search_by_key(&sequence, |pending| pending.sequence)
            .ok()?;
        let pending = order.get_mut(index)?;
        pending.is_done = true;
        pending.tally = tally.unwrap_or(pending.tally);
        self.settle(source)
    }

    /// Enters a sequence that is about to be published, or passed over.
    fn enter(&mut self, source: &Arc<Source>, pending: Pending) {
        self.sources
            .entry(source.index)
            .or_insert_with(|| Arc::clone(source));
        self.order.entry(source.index).or_default().push_back(pending);
    }

    /// Takes off the sequences of `source` that are done without one before them that is not.
    fn settle(&mut self, source: u32) -> Option<Settled> {
        let order = self.order.get_mut(&source)?;
        let mut settled = None;
        let mut tally = Tally::NOTHING;
        while let Some(pending) = order.pop_front_if(|pending| pending.is_done) {
            tally.add(pending.tally);
            settled = Some(pending.sequence);
        }
        Some(Settled {
            source: Arc::clone(self.sources.get(&source)?),
            up_to: settled?,
            tally,
        })
    }
}

/// Sequences of a source that became confirmed together.
struct Settled {
    source: Arc<Source>,
    up_to: u64,
    tally: Tally,
}

/// What the feeder and the driver of one incarnation share; both run on one thread.
struct Shared<'a> {
    progress: RefCell<Progress>,
    output: std::rc::Rc<Output>,
    stats: Arc<SinkStats>,
    custody: RefCell<&'a mut Custody>,
    retained: RefCell<&'a mut VecDeque<Delivery>>,
    packet_bytes_max: Cell<Option<u32>>,
    on_rejected: OnRejected,
    reached: &'a Cell<bool>,
}

impl Shared<'_> {
    /// Keeps a delivery until it is confirmed, and lets go those that are.
    fn retain(&self, delivery: &Delivery) {
        let mut retained = self.retained.borrow_mut();
        retained.retain(|old| self.custody.borrow().position(old.source()) < old.last());
        retained.push_back(delivery.clone());
    }

    fn take(&self, settled: Option<Settled>) {
        if let Some(settled) = settled {
            settled.tally.count(&self.stats);
            self.custody.borrow_mut().settle(&settled.source, settled.up_to);
        }
    }
}

async fn feed(client: &Client, deliveries: &mut DeliveryReceiver, shared: &Shared<'_>) -> End {
    let retained_at = |index: usize| shared.retained.borrow().get(index).cloned();
    let mut again = 0;
    while let Some(delivery) = retained_at(again) {
        again += 1;
        if let Err(end) = publish(client, &delivery, shared).await {
            return end;
        }
    }
    loop {
        let Some(delivery) = deliveries.recv().await else {
            return End::Stopped;
        };
        let known = shared.custody.borrow().position(delivery.source());
        delivery.count_known(known, &shared.stats);
        shared.retain(&delivery);
        if let Err(end) = publish(client, &delivery, shared).await {
            return end;
        }
    }
}

async fn publish(client: &Client, delivery: &Delivery, shared: &Shared<'_>) -> Result<(), End> {
    let source = delivery.source();
    let known = shared.custody.borrow().position(source);
    if delivery.first() <= known {
        let up_to = delivery.last().min(known);
        shared.custody.borrow_mut().settle(source, up_to);
    }
    for item in delivery.items(known) {
        let message = match item {
            Item::Undecodable { .. } => None,
            // The broker has had them: what is old after a crash are the positions, by a second at the most.
            Item::Gap { gap, .. } if gap.reason == GapReason::Released => None,
            Item::Reading { .. } | Item::Gap { .. } => Some(message(&shared.output, &item)),
        };
        let refusal = message.as_ref().and_then(|message| refusal(message, shared));
        match (message, refusal) {
            (Some(message), None) => {
                {
                    let mut progress = shared.progress.borrow_mut();
                    progress.handed.push_back((source.index, item.last()));
                    let pending = Pending {
                        sequence: item.last(),
                        is_done: false,
                        tally: item.tally(),
                    };
                    progress.enter(source, pending);
                }
                client.publish(message).await.map_err(End::Lost)?;
            }
            (None, _) => skip(source, &item, item.tally(), shared),
            (Some(_), Some(reason)) => {
                let aside = shared.custody.borrow_mut().put_aside(&item, &reason);
                aside.map_err(End::Refused)?;
                skip(source, &item, Tally::NOTHING, shared);
            }
        }
    }
    Ok(())
}

/// Passes over an item that is not published.
fn skip(source: &Arc<Source>, item: &Item<'_>, tally: Tally, shared: &Shared<'_>) {
    let settled = {
        let mut progress = shared.progress.borrow_mut();
        let pending = Pending {
            sequence: item.last(),
            is_done: true,
            tally,
        };
        progress.enter(source, pending);
        progress.settle(source.index)
    };
    shared.take(settled);
}

/// Returns why the broker would not take a message, where that can be told beforehand.
fn refusal(message: &Message, shared: &Shared<'_>) -> Option<String> {
    if message.topic.is_empty() || message.topic.len() > usize::from(u16::MAX) {
        return Some(format!(
            "its topic has {} bytes, outside 1..=65535",
            message.topic.len()
        ));
    }
    let max = shared.packet_bytes_max.get()?;
    let bytes = message.packet_bytes();
    (bytes > max as usize)
        .then(|| format!("its packet has {bytes} bytes, more than the {max} the broker takes"))
}

fn message(output: &Output, item: &Item<'_>) -> Message {
    let mut topic = String::new();
    topic_into(output, &mut topic, item);
    let mut payload = Vec::new();
    body_into(output, &mut payload, item);
    let given = match item {
        Item::Reading { reading, .. } => reading.content_type,
        Item::Gap { .. } | Item::Undecodable { .. } => None,
    };
    Message {
        topic,
        payload,
        content_type: content_type(output, item).or(given).map(str::to_owned),
        user_properties: user_properties(output, item),
        correlation_data: None,
    }
}

fn user_properties(output: &Output, item: &Item<'_>) -> Vec<(String, String)> {
    let own = |name: &str, text: String| (name.to_owned(), text);
    let mut properties = vec![
        own("fieldgate-id", item.id()),
        own("fieldgate-class", json::class(item.class()).to_owned()),
    ];
    if let Item::Reading { reading, .. } = item {
        let captured_at = json::rfc3339(reading.captured_at.unix_millis);
        properties.push(own("fieldgate-captured-at", captured_at));
        let quality = json::quality(reading.captured_at.quality);
        properties.push(own("fieldgate-time-quality", quality.to_owned()));
        let given = reading.user_properties.iter();
        properties.extend(given.map(|(name, text)| own(name, text.to_owned())));
    }
    if output.format == Format::Raw {
        properties.extend(output.set.iter().map(|(name, text)| own(name, text.clone())));
    }
    properties
}

/// Puts aside what the broker refuses for good.
fn refuse(packet: u16, reason: &str, shared: &Shared<'_>) -> Result<(), End> {
    let refused = shared.progress.borrow().sent.get(&packet).copied();
    let Some((source, sequence)) = refused else {
        return Ok(());
    };
    let retained = shared.retained.borrow();
    let delivery = retained.iter().find(|delivery| {
        delivery.source().index == source && (delivery.first()..=delivery.last()).contains(&sequence)
    });
    // A gap is entered with its last sequence; what is known of it stays out as it did before.
    let known = delivery.map(|delivery| match delivery {
        Delivery::Readings(_) => sequence - 1,
        Delivery::Gap(gap) => shared.custody.borrow().position(&gap.source),
    });
    let item = delivery
        .zip(known)
        .and_then(|(delivery, known)| delivery.items(known).next());
    if let Some(item) = item {
        let aside = shared.custody.borrow_mut().put_aside(&item, reason);
        aside.map_err(End::Refused)?;
    }
    drop(retained);
    let settled = shared.progress.borrow_mut().finish(packet, Some(Tally::NOTHING));
    shared.take(settled);
    Ok(())
}

async fn drive(mut events: Events, shared: &Shared<'_>) -> End {
    loop {
        let happening = match events.poll().await {
            Ok(happening) => happening,
            Err(reason) => return End::Lost(reason),
        };
        match happening {
            Happening::Connected { packet_bytes_max } => {
                tracing::info!("broker reached");
                shared.reached.set(true);
                shared.packet_bytes_max.set(packet_bytes_max);
                shared.stats.taking();
            }
            Happening::Sent(packet) => {
                let mut progress = shared.progress.borrow_mut();
                let Some(handed) = progress.handed.pop_front() else {
                    return End::Lost("the client sent a publish that was not handed to it".to_owned());
                };
                progress.sent.insert(packet, handed);
            }
            Happening::Acknowledged(packet) => {
                let settled = shared.progress.borrow_mut().finish(packet, None);
                shared.take(settled);
            }
            Happening::Refused {
                packet,
                reason,
                for_good,
            } => {
                let reason = format!("broker refused a publish: {reason}");
                if !for_good || shared.on_rejected == OnRejected::Stop {
                    return End::Refused(reason);
                }
                if let Err(end) = refuse(packet, &reason, shared) {
                    return end;
                }
            }
            Happening::Subscribed
            | Happening::NotSubscribed { .. }
            | Happening::Brought(_)
            | Happening::Other => {}
        }
        shared.custody.borrow_mut().save_if_due();
    }
}
