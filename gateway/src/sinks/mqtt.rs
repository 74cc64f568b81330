//! The sink that publishes to a real MQTT 5 broker through rumqttc, at QoS 1.
//!
//! A reading is confirmed only after the broker's PUBACK. A connection lost ends one *incarnation* of the client: the next one
//! starts afresh and publishes everything not confirmed again, so a broker may see a reading twice. It cannot remove
//! duplicates itself, so each copy carries the reading's id as user property `fieldgate-id`.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use fieldgate_adapters::reading::Reading;
use fieldgate_config::template::TopicTemplate;
use rumqttc::Outgoing;
use rumqttc::v5::{
    AsyncClient, ConnectionError, Event, EventLoop, Incoming, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{PubAckReason, PublishProperties},
    },
};
use tokio::{sync::mpsc, time};
use zeroize::Zeroizing;

use super::{
    Confirm, Confirmation, Delivery, QUEUE_DELIVERIES, SinkHandle, SinkStats, Source, gap::Gap, json,
    positions::Positions,
};

/// Where and how to publish.
pub(crate) struct Settings {
    /// Host name or address of the broker.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
    /// Client identifier.
    pub(crate) client_id: String,
    /// User name and password, where the broker wants them.
    pub(crate) login: Option<(String, Zeroizing<String>)>,
    /// Topic of each reading.
    pub(crate) topic: TopicTemplate,
    /// Publishes on their way without PUBACK, at the most.
    pub(crate) inflight_max: u16,
}

/// Starts the sink as a task of the current tokio runtime.
pub(crate) fn spawn(index: usize, settings: Settings, positions: Positions, confirm: Confirm) -> SinkHandle {
    let (queue, deliveries) = mpsc::channel(QUEUE_DELIVERIES);
    let stats = Arc::new(SinkStats::default());
    let name = format!("mqtt {}:{}", settings.host, settings.port);
    let sink = MqttSink {
        index,
        settings,
        positions,
        confirm,
        deliveries,
        retained: VecDeque::new(),
        stats: Arc::clone(&stats),
    };
    tokio::task::spawn_local(sink.run());
    SinkHandle { name, stats, queue }
}

struct MqttSink {
    index: usize,
    settings: Settings,
    positions: Positions,
    confirm: Confirm,
    deliveries: mpsc::Receiver<Delivery>,
    /// What was taken from the queue and is not confirmed yet, oldest first.
    retained: VecDeque<Delivery>,
    stats: Arc<SinkStats>,
}

/// Why an incarnation ended.
enum End {
    /// The trunk closed the queue: the node stops.
    Stopped,
    /// The broker went away or refused.
    Lost(String),
}

impl MqttSink {
    async fn run(mut self) {
        let mut wait = WAIT_MIN;
        loop {
            match self.incarnation().await {
                End::Stopped => break,
                End::Lost(reason) => {
                    self.stats.errors.fetch_add(1, Ordering::Relaxed);
                    if self.stats.reachable.swap(false, Ordering::Relaxed) {
                        wait = WAIT_MIN;
                        tracing::warn!(
                            host = self.settings.host,
                            port = self.settings.port,
                            reason,
                            "broker lost"
                        );
                    } else {
                        tracing::debug!(host = self.settings.host, reason, "broker still away");
                    }
                }
            }
            self.save();
            time::sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
        self.save();
    }

    fn save(&mut self) {
        if let Err(error) = self.positions.save() {
            tracing::warn!(%error, "position of the MQTT sink not saved; after a restart readings may be published again");
        }
    }

    async fn incarnation(&mut self) -> End {
        let mut options = MqttOptions::new(
            self.settings.client_id.clone(),
            self.settings.host.clone(),
            self.settings.port,
        );
        options
            .set_clean_start(true)
            .set_keep_alive(Duration::from_secs(15))
            .set_outgoing_inflight_upper_limit(self.settings.inflight_max);
        if let Some((user, password)) = &self.settings.login {
            options.set_credentials(user.clone(), password.as_str());
        }
        let (client, events) = AsyncClient::new(options, usize::from(self.settings.inflight_max));
        let shared = Shared {
            progress: RefCell::default(),
            custody: RefCell::new(Custody {
                index: self.index,
                positions: &mut self.positions,
                confirm: &mut self.confirm,
            }),
            stats: &self.stats,
        };
        let feeder = feed(
            &client,
            &self.settings.topic,
            &mut self.deliveries,
            &mut self.retained,
            &shared,
        );
        let driver = drive(events, &shared);
        tokio::select! {
            end = driver => end,
            end = feeder => end,
        }
    }
}

/// Publishes on their way in one incarnation of the client.
#[derive(Default)]
struct Progress {
    /// Handed to the client, not yet given a packet identifier, in order.
    handed: VecDeque<(u32, u64)>,
    /// By packet identifier.
    sent: BTreeMap<u16, (u32, u64)>,
    /// Per source, in order of sequence: whether the broker has it.
    order: BTreeMap<u32, VecDeque<(u64, bool)>>,
    /// By index of the source.
    sources: BTreeMap<u32, Arc<Source>>,
}

impl Progress {
    /// Notes the broker's PUBACK for `packet`.
    fn acknowledge(&mut self, packet: u16) -> Option<Settled> {
        let (source, sequence) = self.sent.remove(&packet)?;
        self.order
            .get_mut(&source)?
            .iter_mut()
            .find(|(candidate, _)| *candidate == sequence)?
            .1 = true;
        self.settle(source)
    }

    /// Takes off the readings of `source` that are done without one before them that is not.
    fn settle(&mut self, source: u32) -> Option<Settled> {
        let order = self.order.get_mut(&source)?;
        let mut settled = None;
        let mut count = 0;
        while let Some(&(sequence, true)) = order.front() {
            order.pop_front();
            count += 1;
            settled = Some(sequence);
        }
        settled.map(|up_to| Settled {
            source: Arc::clone(&self.sources[&source]),
            up_to,
            count,
        })
    }
}

/// Readings of a source that became confirmed together.
struct Settled {
    source: Arc<Source>,
    up_to: u64,
    count: u64,
}

/// What is kept across incarnations of the client.
struct Custody<'a> {
    index: usize,
    positions: &'a mut Positions,
    confirm: &'a mut Confirm,
}

impl Custody<'_> {
    fn take(&mut self, settled: &Settled, stats: &SinkStats) {
        self.positions.advance(&settled.source, settled.up_to);
        stats.confirmed.fetch_add(settled.count, Ordering::Relaxed);
        (self.confirm)(Confirmation {
            sink: self.index,
            source: settled.source.index,
            up_to: settled.up_to,
        });
    }
}

/// What the feeder and the driver of one incarnation share; both run on one thread.
struct Shared<'a> {
    progress: RefCell<Progress>,
    custody: RefCell<Custody<'a>>,
    stats: &'a SinkStats,
}

async fn feed(
    client: &AsyncClient,
    template: &TopicTemplate,
    deliveries: &mut mpsc::Receiver<Delivery>,
    retained: &mut VecDeque<Delivery>,
    shared: &Shared<'_>,
) -> End {
    for delivery in retained.iter() {
        if let Err(end) = publish(client, template, delivery, shared).await {
            return end;
        }
    }
    loop {
        let Some(delivery) = deliveries.recv().await else {
            return End::Stopped;
        };
        retained.retain(|old| shared.custody.borrow().positions.of(old.source()) < old.last());
        retained.push_back(delivery.clone());
        if let Err(end) = publish(client, template, &delivery, shared).await {
            return end;
        }
    }
}

async fn publish(
    client: &AsyncClient,
    template: &TopicTemplate,
    delivery: &Delivery,
    shared: &Shared<'_>,
) -> Result<(), End> {
    let source = delivery.source().index;
    let position = shared.custody.borrow().positions.of(delivery.source());
    if delivery.first() <= position {
        let known = delivery.last().min(position);
        if let Delivery::Readings(batch) = delivery {
            shared
                .stats
                .duplicates
                .fetch_add(known + 1 - batch.first, Ordering::Relaxed);
        }
        let settled = Settled {
            source: Arc::clone(delivery.source()),
            up_to: known,
            count: 0,
        };
        shared.custody.borrow_mut().take(&settled, shared.stats);
    }
    shared
        .progress
        .borrow_mut()
        .sources
        .entry(source)
        .or_insert_with(|| Arc::clone(delivery.source()));
    let batch = match delivery {
        Delivery::Readings(batch) => batch,
        Delivery::Gap(gap) if gap.last > position => {
            return publish_gap(client, template, gap, gap.first.max(position + 1), shared).await;
        }
        Delivery::Gap(_) => return Ok(()),
    };
    for (sequence, reading) in batch
        .iter(shared.stats)
        .filter(|(sequence, _)| *sequence > position)
    {
        let Some(reading) = reading else {
            let mut progress = shared.progress.borrow_mut();
            progress
                .order
                .entry(source)
                .or_default()
                .push_back((sequence, true));
            if let Some(settled) = progress.settle(source) {
                shared.custody.borrow_mut().take(&settled, shared.stats);
            }
            continue;
        };
        let mut topic = String::new();
        template.expand_into(&mut topic, &batch.source.name, reading.device, reading.resource);
        let properties = PublishProperties {
            content_type: reading.content_type.map(str::to_owned),
            user_properties: user_properties(&batch.source, sequence, &reading),
            ..PublishProperties::default()
        };
        {
            let mut progress = shared.progress.borrow_mut();
            progress.handed.push_back((source, sequence));
            progress
                .order
                .entry(source)
                .or_default()
                .push_back((sequence, false));
        }
        client
            .publish_with_properties(
                topic,
                QoS::AtLeastOnce,
                false,
                reading.payload.to_vec(),
                properties,
            )
            .await
            .map_err(|error| End::Lost(error.to_string()))?;
    }
    Ok(())
}

/// Publishes the record that readings are missing, from sequence `first` on, as JSON. Its device is `$gap`, its resource
/// `$gap/<class>`.
async fn publish_gap(
    client: &AsyncClient,
    template: &TopicTemplate,
    gap: &Gap,
    first: u64,
    shared: &Shared<'_>,
) -> Result<(), End> {
    let mut topic = String::new();
    let resource = format!("{GAP}/{}", json::class(gap.class));
    template.expand_into(&mut topic, &gap.source.name, GAP, &resource);
    let properties = PublishProperties {
        content_type: Some("application/json".to_owned()),
        user_properties: vec![("fieldgate-id".to_owned(), gap.source.gap_id(first, gap.last))],
        ..PublishProperties::default()
    };
    let mut payload = Vec::new();
    json::gap_line(&mut payload, gap, first);
    payload.pop();
    {
        let mut progress = shared.progress.borrow_mut();
        progress.handed.push_back((gap.source.index, gap.last));
        progress
            .order
            .entry(gap.source.index)
            .or_default()
            .push_back((gap.last, false));
    }
    client
        .publish_with_properties(topic, QoS::AtLeastOnce, false, payload, properties)
        .await
        .map_err(|error| End::Lost(error.to_string()))
}

fn user_properties(source: &Source, sequence: u64, reading: &Reading<'_>) -> Vec<(String, String)> {
    let mut properties = Vec::with_capacity(3);
    properties.push(("fieldgate-id".to_owned(), source.reading_id(sequence)));
    properties.push((
        "fieldgate-captured-at".to_owned(),
        json::rfc3339(reading.captured_at.unix_millis),
    ));
    properties.push((
        "fieldgate-time-quality".to_owned(),
        json::quality(reading.captured_at.quality).to_owned(),
    ));
    properties.extend(
        reading
            .user_properties
            .iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    properties
}

async fn drive(mut events: EventLoop, shared: &Shared<'_>) -> End {
    let mut save_at = time::Instant::now() + SAVE_EVERY;
    loop {
        let event = match events.poll().await {
            Ok(event) => event,
            Err(ConnectionError::RequestsDone) => return End::Stopped,
            Err(error) => return End::Lost(error.to_string()),
        };
        match event {
            Event::Incoming(Incoming::ConnAck(_)) => {
                tracing::info!("broker reached");
                shared.stats.reachable.store(true, Ordering::Relaxed);
            }
            Event::Outgoing(Outgoing::Publish(packet)) => {
                let mut progress = shared.progress.borrow_mut();
                let Some(handed) = progress.handed.pop_front() else {
                    return End::Lost("the client sent a publish that was not handed to it".to_owned());
                };
                progress.sent.insert(packet, handed);
            }
            Event::Incoming(Incoming::PubAck(ack)) => {
                if !matches!(
                    ack.reason,
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers
                ) {
                    return End::Lost(format!("broker refused a publish: {:?}", ack.reason));
                }
                if let Some(settled) = shared.progress.borrow_mut().acknowledge(ack.pkid) {
                    shared.custody.borrow_mut().take(&settled, shared.stats);
                }
            }
            Event::Incoming(Incoming::Disconnect(reason)) => {
                return End::Lost(format!("broker disconnected: {:?}", reason.reason_code));
            }
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
        if time::Instant::now() >= save_at {
            save_at = time::Instant::now() + SAVE_EVERY;
            if let Err(error) = shared.custody.borrow_mut().positions.save() {
                tracing::warn!(%error, "position of the MQTT sink not saved");
            }
        }
    }
}

/// Device, and first level of the resource, of a record of missing readings.
const GAP: &str = "$gap";
/// First and longest wait before the broker is tried again.
const WAIT_MIN: Duration = Duration::from_millis(250);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How often the position is written; what was confirmed since may be published again after a crash.
const SAVE_EVERY: Duration = Duration::from_secs(1);
