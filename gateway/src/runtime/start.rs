//! Starting a node: everything that its settings switch on, in the order in which it can fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool, mpsc as blocking},
    thread::JoinHandle,
    time::Duration,
};

use fieldgate_adapters::{
    authenticate::{Anonymous, Authenticator},
    device::{Device, DeviceTable, Login},
    topic::TopicFilter,
};
use fieldgate_config::{
    address::HostPort,
    settings::{Collector, IoBackend, Mqtt, Pq, Settings, SinkKind, UplinkPath},
};
use fieldgate_io::{
    Backend, BackendChoice, BufferClass, Driver, Io, ListenOptions, Selected, Waker,
    mailbox::{MailReceiver, MailSender, mailbox},
    thread,
};
use fieldgate_proto::{
    channel::{ChannelSettings, Padding, PqPolicy},
    entropy::Entropy as _,
    identity::Identifier,
    node::{CollectSettings, NeighbourSettings, Node, NodeSettings, RegistrationSettings, UplinkSettings},
    relay::{MemberRights, RelaySettings},
};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::{
    MAILBOX_MAX, NodeHandle, ShardMessage, StartError,
    clock::{self, TurnClock},
    collector::Collecting,
    entropy::SystemEntropy,
    field::{Field, Outgoing},
    journal::JournalFiles,
    keys::{self, Identity},
    shard::{Purpose, Shard},
    tls,
    trunk::{Names, Parts, Resolve, Trunk},
};
use crate::sinks::{
    Confirm, SinkHandle,
    fanout::Fanout,
    file::{self, Style},
    mqtt, null,
    positions::{self, Positions, SourceKey},
};

/// A node that runs.
pub(crate) struct Running {
    /// To ask it, and to stop it.
    pub(crate) handle: Rc<NodeHandle>,
    /// Where it listens for MQTT.
    pub(crate) mqtt: Vec<SocketAddr>,
    /// Where it listens for links.
    pub(crate) links: Vec<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
    /// Ends when a shard ended by itself, which it never should.
    pub(crate) broken: mpsc::Receiver<String>,
}

impl Running {
    /// Stops the node and waits for its threads.
    pub(crate) fn stop(&mut self) {
        self.handle.stop();
        for thread in self.threads.drain(..) {
            // A shard that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// What the command line decides beside the file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// How a sink on standard output prints; lines of JSON if not said otherwise.
    pub(crate) stdout: Option<Style>,
}

/// Starts the node that `settings` describe. Call it in a `LocalSet`.
///
/// # Errors
/// [`StartError`]: the first thing that does not work, with what to do about it. Nothing runs then.
pub(crate) async fn start(
    settings: &Settings,
    mut identity: Identity,
    options: Options,
) -> Result<Running, StartError> {
    let started = fieldgate_io::clock::monotonic();
    let selected = select_backend(settings.node.io)?;
    let backend = selected.backend;
    let local = identity.attest(clock::wall()).await?;
    let shard_count = shard_count(settings);
    let mut mailboxes = Vec::with_capacity(shard_count);
    for _ in 0..shard_count {
        let waker = Waker::new().map_err(|error| StartError::new(format!("no event descriptor: {error}")))?;
        mailboxes.push((mailbox::<ShardMessage>(MAILBOX_MAX, waker.clone()), waker));
    }
    let senders: Arc<[MailSender<ShardMessage>]> =
        mailboxes.iter().map(|((sender, _), _)| sender.clone()).collect();
    let (resolve, resolve_requests) = mpsc::channel(64);
    let accepting = Arc::new(AtomicBool::new(true));
    let journal = match &settings.journal {
        Some(config) => Some(JournalFiles::open(config, mailboxes[0].1.clone())?),
        None => None,
    };
    let (collecting, positions) = collecting(settings, backend, &senders[0], options)?;
    let (node_settings, names) = node_settings(settings, journal.as_ref(), positions);
    let turn_clock = TurnClock::new(started).at(fieldgate_io::clock::monotonic());
    let node = Node::new(turn_clock, &mut SystemEntropy, node_settings, local);
    let trunk = Trunk::new(Parts {
        node,
        journal,
        commit_delay: settings
            .journal
            .as_ref()
            .map_or(Duration::ZERO, |journal| journal.commit_delay),
        collecting,
        names,
        resolve,
        shards: senders.to_vec(),
        accepting: Arc::clone(&accepting),
    });
    let plan = ShardPlan::new(settings, started, backend, Arc::clone(&senders), accepting)?;
    let (broken_sender, broken) = mpsc::channel(shard_count);
    let (threads, mqtt, links) = plan.spawn(mailboxes, trunk, &broken_sender)?;
    let handle = Rc::new(NodeHandle {
        name: settings.node.name.clone(),
        roles: roles(settings),
        started,
        io: selected,
        identifier: identity.history().identifier().to_string(),
        key_place: identity.place,
        key_health: Arc::clone(&identity.health),
        signer: identity.worker(),
        shards: senders.to_vec(),
    });
    tokio::task::spawn_local(resolve_names(resolve_requests, senders[0].clone()));
    tokio::task::spawn_local(renew(identity, senders[0].clone()));
    Ok(Running {
        handle,
        mqtt,
        links,
        threads,
        broken,
    })
}

/// Chooses how sockets are served and says so once.
fn select_backend(choice: IoBackend) -> Result<Selected, StartError> {
    let choice = match choice {
        IoBackend::Auto => BackendChoice::Auto,
        IoBackend::Uring => BackendChoice::Uring,
        IoBackend::Epoll => BackendChoice::Epoll,
    };
    let selected = Backend::select(choice).map_err(|error| StartError::new(&error).hint(error.hint()))?;
    let cure = selected.cure.as_deref().unwrap_or_default();
    tracing::info!(
        backend = selected.backend.as_str(),
        reason = selected.reason,
        cure,
        "I/O backend"
    );
    Ok(selected)
}

/// Returns how many shards the node gets. Only clients are spread over shards; links live on the first.
fn shard_count(settings: &Settings) -> usize {
    if settings.mqtt.is_none() {
        return 1;
    }
    settings
        .node
        .shards
        .map_or_else(|| thread::processors().len(), usize::from)
        .max(1)
}

fn roles(settings: &Settings) -> Vec<String> {
    let roles = [
        (settings.mqtt.is_some() || !settings.uplinks.is_empty(), "gateway"),
        (settings.relay.is_some(), "relay"),
        (settings.collector.is_some(), "collector"),
    ];
    roles
        .into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, role)| role.to_owned())
        .collect()
}

const fn pq_policy(pq: Pq) -> PqPolicy {
    match pq {
        Pq::Required => PqPolicy::Required,
        Pq::Preferred => PqPolicy::Preferred,
        Pq::Off => PqPolicy::Off,
    }
}

/// Neighbours without repetition: a node has one link to each.
#[derive(Default)]
struct Neighbours {
    settings: Vec<NeighbourSettings>,
    addresses: Vec<HostPort>,
}

impl Neighbours {
    fn index(&mut self, address: &HostPort, relay: Option<Identifier>, pq: PqPolicy) -> usize {
        let known = self
            .addresses
            .iter()
            .zip(&self.settings)
            .position(|(known, settings)| known == address && settings.relay == relay);
        known.unwrap_or_else(|| {
            self.addresses.push(address.clone());
            self.settings.push(NeighbourSettings {
                relay,
                pq,
                registrations: Vec::new(),
            });
            self.addresses.len() - 1
        })
    }
}

/// Turns the file's words into the core's.
fn node_settings(
    settings: &Settings,
    journal: Option<&JournalFiles>,
    positions: BTreeMap<SourceKey, u64>,
) -> (NodeSettings, Names) {
    let mut node = NodeSettings::new(concat!("fieldgate ", env!("CARGO_PKG_VERSION")));
    let mut neighbours = Neighbours::default();
    for uplink in &settings.uplinks {
        let pq = pq_policy(uplink.pq);
        let ways = match &uplink.path {
            UplinkPath::Relays { via, relays } => {
                let way = |relay: &fieldgate_config::settings::RelayAddress| {
                    (
                        neighbours.index(&relay.address, Some(relay.identifier), pq),
                        Some(via.clone()),
                    )
                };
                relays.iter().map(way).collect()
            }
            UplinkPath::Direct { address } => vec![(neighbours.index(address, None, pq), None)],
        };
        let Some(files) = journal else { continue };
        node.uplinks.push(UplinkSettings {
            collector: uplink.collector,
            pq,
            live_proof: uplink.live_proof,
            ways,
            latency: uplink.latency,
            journal: *files.journal.id(),
            first: files.journal.first_available(),
            available: files.journal.committed(),
        });
    }
    let padding = settings.uplinks.iter().any(|uplink| uplink.padding);
    let mut pq = PqPolicy::default();
    if let Some(collector) = &settings.collector {
        pq = pq_policy(collector.pq);
        for registration in &collector.registrations {
            let index = neighbours.index(
                &registration.relay.address,
                Some(registration.relay.identifier),
                pq,
            );
            neighbours.settings[index]
                .registrations
                .push(RegistrationSettings {
                    name: registration.name.clone(),
                });
        }
        node.collect = Some(CollectSettings {
            gateways: collector
                .gateways
                .iter()
                .map(|gateway| gateway.identifier)
                .collect::<BTreeSet<_>>(),
            positions,
            ..CollectSettings::default()
        });
    }
    if let Some(relay) = &settings.relay {
        pq = pq_policy(relay.pq);
        node.links_max = usize::try_from(relay.links_max).unwrap_or(usize::MAX);
        node.labels_max = usize::try_from(relay.labels_max).unwrap_or(usize::MAX);
        let members = relay.members.iter().map(|member| {
            (
                member.identifier,
                MemberRights {
                    names: member.hold.clone(),
                    reach: member.reach.clone(),
                },
            )
        });
        node.relay = Some(RelaySettings {
            members: members.collect(),
            links_per_member_max: usize::from(relay.links_per_member_max),
            queue_bytes_max: usize::try_from(relay.queue_bytes_max).unwrap_or(usize::MAX),
            held_bytes_max: usize::try_from(relay.held_bytes_max).unwrap_or(usize::MAX),
            ..RelaySettings::default()
        });
    }
    node.channels = ChannelSettings {
        pq,
        padding: if padding { Padding::Buckets } else { Padding::Off },
        ..ChannelSettings::default()
    };
    node.neighbours = neighbours.settings;
    let uplinks = settings
        .uplinks
        .iter()
        .map(|uplink| uplink.name.clone())
        .collect();
    (
        node,
        Names {
            neighbours: neighbours.addresses,
            uplinks,
        },
    )
}

/// Starts the sinks and finds out how far they are.
fn collecting(
    settings: &Settings,
    backend: Backend,
    trunk: &MailSender<ShardMessage>,
    options: Options,
) -> Result<(Collecting, BTreeMap<SourceKey, u64>), StartError> {
    let Some(collector) = &settings.collector else {
        return Ok(Default::default());
    };
    std::fs::create_dir_all(&collector.state_dir)
        .map_err(|error| StartError::file(&collector.state_dir, &error))?;
    let mut handles = Vec::new();
    let mut kept = Vec::new();
    for (index, sink) in collector.sinks.iter().enumerate() {
        let (handle, positions) = spawn_sink(collector, index, backend, trunk, options).map_err(|error| {
            StartError::new(format!("sink {}: {error}", sink.name)).hint("see [[collector.sink]]")
        })?;
        handles.push(handle);
        kept.extend(positions);
    }
    let gateways = collector
        .gateways
        .iter()
        .map(|gateway| (gateway.identifier, gateway.name.clone()));
    let collecting = Collecting::new(
        Fanout::new(handles),
        settings.node.name.clone(),
        gateways.collect(),
    );
    Ok((collecting, positions::common(&kept)))
}

/// Starts a sink; returns how far it is with each source, if it keeps that over restarts.
fn spawn_sink(
    collector: &Collector,
    index: usize,
    backend: Backend,
    trunk: &MailSender<ShardMessage>,
    options: Options,
) -> std::io::Result<(SinkHandle, Option<BTreeMap<SourceKey, u64>>)> {
    let sink = &collector.sinks[index];
    let trunk = trunk.clone();
    // The trunk empties its mailbox in every turn, so this waits for moments only; it is gone when the node ends.
    let confirm: Confirm =
        Box::new(move |confirmation| drop(trunk.send(ShardMessage::Confirmed(confirmation))));
    let positions = || Positions::load(collector.state_dir.join(format!("sink-{}.positions", sink.name)));
    match &sink.kind {
        SinkKind::Null => Ok((null::spawn(index, confirm), None)),
        SinkKind::Stdout => {
            let style = options.stdout.unwrap_or(Style::Lines);
            Ok((file::spawn_stdout(index, style, confirm)?, None))
        }
        SinkKind::File(path) => {
            let (handle, known) = file::spawn_file(index, path, backend, positions()?, confirm)?;
            Ok((handle, Some(known)))
        }
        SinkKind::Mqtt(broker) => {
            let positions = positions()?;
            let known = positions.all().clone();
            let login = broker.login.as_ref().map(|login| {
                let password = login.password.as_ref().map_or_else(
                    || Ok(Zeroizing::new(String::new())),
                    |source| {
                        let secret = keys::secret_source(source)
                            .read()
                            .map_err(std::io::Error::other)?;
                        let text = std::str::from_utf8(secret.expose()).map_err(std::io::Error::other)?;
                        Ok::<_, std::io::Error>(Zeroizing::new(text.to_owned()))
                    },
                )?;
                Ok::<_, std::io::Error>((login.username.clone(), password))
            });
            let settings = mqtt::Settings {
                host: broker.address.host().to_owned(),
                port: broker.address.port(),
                client_id: broker.client_id.clone(),
                login: login.transpose()?,
                topic: broker.topic.clone(),
                inflight_max: broker.inflight_max,
            };
            Ok((mqtt::spawn(index, settings, positions, confirm), Some(known)))
        }
    }
}

/// What every shard's thread needs.
struct ShardPlan {
    started: u64,
    backend: Backend,
    senders: Arc<[MailSender<ShardMessage>]>,
    accepting: Arc<AtomicBool>,
    io: fieldgate_io::Settings,
    mqtt: Vec<SocketAddr>,
    mqtt_tls: Vec<SocketAddr>,
    links: Vec<SocketAddr>,
    field: Option<FieldPlan>,
    latency: Duration,
}

#[derive(Clone)]
struct FieldPlan {
    settings: Arc<fieldgate_mqtt::settings::Settings>,
    table: Arc<DeviceTable>,
    anonymous: Anonymous,
    memo_key: [u8; 32],
    tls: Option<Arc<rustls::ServerConfig>>,
    clients_max: usize,
}

type Mailbox = ((MailSender<ShardMessage>, MailReceiver<ShardMessage>), Waker);
/// Threads, MQTT addresses, link addresses.
type Spawned = (Vec<JoinHandle<()>>, Vec<SocketAddr>, Vec<SocketAddr>);
/// Addresses for MQTT, MQTT over TLS, and links.
type Bound = Result<(Vec<SocketAddr>, Vec<SocketAddr>, Vec<SocketAddr>), StartError>;

impl ShardPlan {
    fn new(
        settings: &Settings,
        started: u64,
        backend: Backend,
        senders: Arc<[MailSender<ShardMessage>]>,
        accepting: Arc<AtomicBool>,
    ) -> Result<Self, StartError> {
        let field = settings
            .mqtt
            .as_ref()
            .map(|mqtt| field_plan(mqtt, senders.len()))
            .transpose()?;
        let clients_max = settings.mqtt.as_ref().map_or(0, |mqtt| mqtt.clients_max);
        let links_max = settings.relay.as_ref().map_or(LINKS_MAX, |relay| relay.links_max);
        Ok(Self {
            started,
            backend,
            senders,
            accepting,
            io: fieldgate_io::Settings {
                connections_max: clients_max.saturating_add(links_max),
                ..fieldgate_io::Settings::default()
            },
            mqtt: settings
                .mqtt
                .as_ref()
                .map(|mqtt| mqtt.listen.clone())
                .unwrap_or_default(),
            mqtt_tls: settings
                .mqtt
                .as_ref()
                .and_then(|mqtt| mqtt.tls.as_ref())
                .map(|tls| tls.listen.clone())
                .unwrap_or_default(),
            links: settings
                .link_tcp
                .as_ref()
                .map(|link| link.listen.clone())
                .unwrap_or_default(),
            field,
            latency: settings.mqtt.as_ref().map_or(Duration::ZERO, |mqtt| mqtt.latency),
        })
    }

    /// Starts the shards one after the other: the first finds out which ports the others share.
    fn spawn(
        mut self,
        mailboxes: Vec<Mailbox>,
        trunk: Trunk,
        broken: &mpsc::Sender<String>,
    ) -> Result<Spawned, StartError> {
        let mut threads = Vec::with_capacity(mailboxes.len());
        let mut links = Vec::new();
        let mut trunk = Some(trunk);
        for (index, ((_, mail), waker)) in mailboxes.into_iter().enumerate() {
            let (bound_sender, bound) = blocking::channel::<Bound>();
            let plan = self.for_shard(index);
            let trunk = trunk.take();
            let broken = broken.clone();
            let thread = thread::spawn(&format!("fg-shard-{index}"), None, move || {
                if let Err(error) = plan.run(index, mail, &waker, trunk, &bound_sender) {
                    // Nobody listens any more if the node is ending anyway.
                    drop(broken.try_send(format!("shard {index}: {error}")));
                }
            });
            threads.push(thread.map_err(|error| StartError::new(format!("no thread for a shard: {error}")))?);
            match bound.recv() {
                Ok(Ok((mqtt, mqtt_tls, bound_links))) => {
                    if index == 0 {
                        (self.mqtt, self.mqtt_tls, links) = (mqtt, mqtt_tls, bound_links);
                    }
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(StartError::new(format!("shard {index} ended at its start"))),
            }
        }
        Ok((threads, self.mqtt, links))
    }

    fn for_shard(&self, index: usize) -> Self {
        Self {
            started: self.started,
            backend: self.backend,
            senders: Arc::clone(&self.senders),
            accepting: Arc::clone(&self.accepting),
            io: self.io.clone(),
            mqtt: self.mqtt.clone(),
            mqtt_tls: self.mqtt_tls.clone(),
            links: if index == 0 {
                self.links.clone()
            } else {
                Vec::new()
            },
            field: self.field.clone(),
            latency: self.latency,
        }
    }

    fn run(
        self,
        index: usize,
        mail: MailReceiver<ShardMessage>,
        waker: &Waker,
        trunk: Option<Trunk>,
        bound: &blocking::Sender<Bound>,
    ) -> std::io::Result<()> {
        let mut driver = match Driver::new(self.backend, self.io.clone(), waker) {
            Ok(driver) => driver,
            Err(error) => {
                drop(bound.send(Err(StartError::new(format!("I/O driver: {error}")))));
                return Ok(());
            }
        };
        let mut listeners = BTreeMap::new();
        match self.listen(driver.io(), &mut listeners) {
            Ok(addresses) => drop(bound.send(Ok(addresses))),
            Err(error) => {
                drop(bound.send(Err(error)));
                return Ok(());
            }
        }
        let field = self.field.as_ref().map(|plan| {
            let authenticator =
                Authenticator::new(Arc::clone(&plan.table), plan.anonymous.clone(), &plan.memo_key);
            Field::new(
                Arc::clone(&plan.settings),
                authenticator,
                plan.tls.clone(),
                plan.clients_max,
            )
        });
        let mut shard = Shard {
            index,
            clock: TurnClock::new(self.started),
            listeners,
            field,
            trunk,
            outgoing: Outgoing {
                ticket: 0,
                bytes: Vec::new(),
                accepting: self.accepting,
            },
            mail,
            shards: self.senders,
            latency: self.latency,
            turns: 0,
            stop_by: None,
        };
        driver.run(&mut shard)
    }

    fn listen(&self, io: &mut Io, listeners: &mut BTreeMap<fieldgate_io::ListenerId, Purpose>) -> Bound {
        let mut bind = |addresses: &[SocketAddr], purpose: Purpose| -> Result<Vec<SocketAddr>, StartError> {
            let mut bound = Vec::with_capacity(addresses.len());
            for address in addresses {
                let options = match purpose {
                    Purpose::Link => ListenOptions {
                        class: BufferClass::Link,
                        ..ListenOptions::default()
                    },
                    Purpose::Mqtt | Purpose::MqttTls => ListenOptions {
                        reuse_port: self.senders.len() > 1,
                        ..ListenOptions::default()
                    },
                };
                let (listener, local) = io.listen(*address, &options).map_err(|error| {
                    StartError::new(format!("cannot listen on {address}: {error}"))
                        .hint("choose another address, or stop the program that uses it (`ss -ltnp`)")
                })?;
                listeners.insert(listener, purpose);
                bound.push(local);
            }
            Ok(bound)
        };
        let mqtt = bind(&self.mqtt, Purpose::Mqtt)?;
        let mqtt_tls = bind(&self.mqtt_tls, Purpose::MqttTls)?;
        let links = bind(&self.links, Purpose::Link)?;
        Ok((mqtt, mqtt_tls, links))
    }
}

fn field_plan(mqtt: &Mqtt, shards: usize) -> Result<FieldPlan, StartError> {
    let unsound = |error: &dyn std::fmt::Display| {
        StartError::new(format!("[mqtt]: {error}")).hint("run `fieldgate check` on the file")
    };
    let filters = |texts: &[String]| -> Result<Vec<TopicFilter>, StartError> {
        texts
            .iter()
            .map(|text| text.parse::<TopicFilter>().map_err(|error| unsound(&error)))
            .collect()
    };
    let settings = fieldgate_mqtt::settings::Settings::default()
        .with_connect_timeout(mqtt.connect_timeout)
        .and_then(|settings| settings.with_maximum_packet_size(mqtt.packet_bytes_max))
        .and_then(|settings| settings.with_receive_maximum(mqtt.receive_max))
        .and_then(|settings| {
            let secs = u16::try_from(mqtt.keep_alive_max.as_secs()).unwrap_or(u16::MAX);
            settings.with_keep_alive_secs_max((secs < u16::MAX).then_some(secs))
        })
        .map_err(|error| unsound(&error))?
        .with_alarm_topics(filters(&mqtt.alarm_topics)?);
    let mut logins = Vec::with_capacity(mqtt.devices.len());
    for device in &mqtt.devices {
        let topics: Arc<[TopicFilter]> = filters(&device.publish)?.into();
        logins.push(Login {
            username: device.username.clone(),
            password: device
                .password_hash
                .as_str()
                .parse()
                .map_err(|error: fieldgate_adapters::password::PasswordHashError| unsound(&error))?,
            device: Device::new(&device.name, topics).map_err(|error| unsound(&error))?,
        });
    }
    let table = DeviceTable::new(logins).map_err(|error| unsound(&error))?;
    let anonymous = if mqtt.anonymous {
        Anonymous::Allowed {
            topics: filters(&["#".to_owned()])?.into(),
        }
    } else {
        Anonymous::Refused
    };
    let mut memo_key = [0; 32];
    SystemEntropy.fill(&mut memo_key);
    let tls = mqtt
        .tls
        .as_ref()
        .map(|tls| tls::server_config(&tls.certificate, &tls.key))
        .transpose()?;
    // The kernel spreads clients over shards by chance, so each may get somewhat more than its share.
    let share = usize::try_from(mqtt.clients_max)
        .unwrap_or(usize::MAX)
        .div_ceil(shards);
    let clients_max = if shards == 1 {
        share
    } else {
        share.saturating_add(share / 4)
    };
    Ok(FieldPlan {
        settings: Arc::new(settings),
        table: Arc::new(table),
        anonymous,
        memo_key,
        tls,
        clients_max,
    })
}

/// Resolves names for the trunk, which must not wait.
async fn resolve_names(mut requests: mpsc::Receiver<Resolve>, trunk: MailSender<ShardMessage>) {
    while let Some(Resolve { neighbour, address }) = requests.recv().await {
        let trunk = trunk.clone();
        tokio::task::spawn_local(async move {
            let lookup = tokio::net::lookup_host((address.host().to_owned(), address.port()));
            let addresses = match tokio::time::timeout(RESOLVE_TIME_MAX, lookup).await {
                Ok(Ok(addresses)) => Ok(addresses.collect()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("the name server does not answer".to_owned()),
            };
            // A trunk that is gone needs no address.
            drop(trunk.try_send(ShardMessage::Resolved { neighbour, addresses }));
        });
    }
}

/// Renews the attestation at half its life, and keeps trying while the key does not sign.
async fn renew(mut identity: Identity, trunk: MailSender<ShardMessage>) {
    let mut wait = RENEW_AFTER;
    loop {
        tokio::time::sleep(wait).await;
        match identity.attest(clock::wall()).await {
            Ok(local) => {
                tracing::info!("attestation renewed");
                drop(trunk.try_send(ShardMessage::Local(Box::new(local))));
                wait = RENEW_AFTER;
            }
            Err(error) => {
                tracing::warn!(%error, "attestation not renewed; channels live on until it ends");
                wait = RENEW_RETRY;
            }
        }
    }
}

/// Links of a node that is no relay.
const LINKS_MAX: u32 = 1024;
/// Longest time for a look-up of a name.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(5);
/// Half the life of an attestation.
const RENEW_AFTER: Duration = Duration::from_secs(12 * 3600);
/// Time between attempts to renew.
const RENEW_RETRY: Duration = Duration::from_secs(60);
