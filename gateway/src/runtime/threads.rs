//! The shards' threads: what each gets, and how they begin.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, mpsc as blocking},
    thread::JoinHandle,
    time::Duration,
};

use fieldgate_adapters::{
    authenticate::{Anonymous, Authenticator},
    classify::Classifier,
    device::{Device, DeviceTable, Login},
    topic::TopicFilter,
};
use fieldgate_config::{
    settings::{LinkUnix, Mqtt, Settings, SlowConsumer, portal::PortalInlet},
    target::InletAddress,
};
use fieldgate_io::{
    Backend, BufferClass, DatagramOptions, Driver, Io, ListenOptions, Waker,
    mailbox::{MailReceiver, MailSender},
    thread,
};
use fieldgate_mqtt::broker::{
    Broker,
    limits::{self, Limits},
};
use fieldgate_proto::{entropy::Entropy as _, time::Now};
use tokio::sync::mpsc;

use super::{
    ShardMessage, StartError,
    accepting::Accepting,
    classes,
    clock::{Clock, TurnClock},
    entropy::SystemEntropy,
    exchange::{
        Exchange,
        batch::FieldBatch,
        store::{Entries, Store},
    },
    field::{Checks, Field, Outgoing, Parts},
    links::LINKS_MAX,
    portals::{self, changing::Listening},
    shard::{Purpose, Shard},
    transport::{
        Stack,
        listeners::{self, Listener},
        tls,
    },
    trunk::{LinkKind, Trunk},
};

/// What every shard's thread needs.
pub(super) struct ShardPlan {
    started: u64,
    clock: Clock,
    backend: Backend,
    senders: Arc<[MailSender<ShardMessage>]>,
    accepting: Arc<Accepting>,
    classifier: Arc<Classifier>,
    io: fieldgate_io::Settings,
    mqtt: Vec<Listener>,
    links: Vec<SocketAddr>,
    websockets: Vec<SocketAddr>,
    quic: Vec<SocketAddr>,
    local: Option<LinkUnix>,
    inlets: Vec<PortalInlet>,
    field: Option<FieldPlan>,
    latency: Duration,
}

#[derive(Clone)]
struct FieldPlan {
    settings: Arc<fieldgate_mqtt::settings::Settings>,
    table: Arc<DeviceTable>,
    anonymous: Anonymous,
    memo_key: [u8; 32],
    /// By the number that a listener's purpose has.
    stacks: Arc<[Stack]>,
    clients_max: usize,
    connects_per_second_max: u32,
    checks: Checks,
}

pub(super) type Mailbox = ((MailSender<ShardMessage>, MailReceiver<ShardMessage>), Waker);
/// Threads, MQTT addresses, link addresses.
pub(super) type Spawned = (Vec<JoinHandle<()>>, Vec<SocketAddr>, Vec<SocketAddr>);
/// Addresses of each listener for MQTT, and of links.
type Bound = Result<(Vec<Vec<SocketAddr>>, Vec<SocketAddr>), StartError>;

impl ShardPlan {
    pub(super) fn new(
        settings: &Settings,
        started: u64,
        clock: Clock,
        backend: Backend,
        senders: Arc<[MailSender<ShardMessage>]>,
        accepting: Arc<Accepting>,
    ) -> Result<Self, StartError> {
        let (field, mqtt) = match &settings.mqtt {
            Some(mqtt) => {
                let (field, listeners) = field_plan(mqtt, &senders, &clock)?;
                (Some(field), listeners)
            }
            None => (None, Vec::new()),
        };
        let clients_max = settings.mqtt.as_ref().map_or(0, |mqtt| mqtt.clients_max);
        let streams_max = portals::connections_max(settings.portal.as_ref());
        let links_max = settings.relay.as_ref().map_or(LINKS_MAX, |relay| relay.links_max);
        Ok(Self {
            started,
            clock,
            backend,
            senders,
            accepting,
            classifier: Arc::new(classes::classifier(
                settings.journal.as_ref().map_or(&[], |journal| &journal.classes),
            )?),
            io: fieldgate_io::Settings {
                connections_max: clients_max
                    .saturating_add(links_max)
                    .saturating_add(streams_max)
                    .min(CONNECTIONS_MAX),
                ..fieldgate_io::Settings::default()
            },
            mqtt,
            links: settings
                .link_tcp
                .as_ref()
                .map(|link| link.listen.clone())
                .unwrap_or_default(),
            websockets: settings
                .link_websocket
                .as_ref()
                .map(|link| link.listen.clone())
                .unwrap_or_default(),
            quic: settings
                .link_quic
                .as_ref()
                .map(|link| link.listen.clone())
                .unwrap_or_default(),
            local: settings.link_unix.clone(),
            inlets: settings
                .portal
                .iter()
                .flat_map(|portal| portal.inlets.clone())
                .collect(),
            field,
            latency: settings.mqtt.as_ref().map_or(Duration::ZERO, |mqtt| mqtt.latency),
        })
    }

    /// Returns what has files that may change while the node runs.
    pub(super) fn acceptors(&self) -> Vec<tls::Acceptor> {
        listeners::acceptors(&self.mqtt)
    }

    /// Starts the shards one after the other: the first finds out which ports the others share.
    pub(super) fn spawn(
        mut self,
        mailboxes: Vec<Mailbox>,
        trunk: Trunk,
        exchange: Option<Exchange>,
        broken: &mpsc::Sender<String>,
    ) -> Result<Spawned, StartError> {
        let mut threads = Vec::with_capacity(mailboxes.len());
        let mut links = Vec::new();
        let mut owned = Some((trunk, exchange));
        for (index, ((_, mail), waker)) in mailboxes.into_iter().enumerate() {
            let (bound_sender, bound) = blocking::channel::<Bound>();
            let plan = self.for_shard(index);
            let (trunk, exchange) = owned
                .take()
                .map_or((None, None), |(trunk, exchange)| (Some(trunk), exchange));
            let broken = broken.clone();
            let thread = thread::spawn(&format!("fg-shard-{index}"), None, move || {
                if let Err(error) = plan.run(index, mail, &waker, (trunk, exchange), &bound_sender) {
                    // Nobody listens any more if the node is ending anyway.
                    drop(broken.try_send(format!("shard {index}: {error}")));
                }
            });
            threads.push(thread.map_err(|error| StartError::new(format!("no thread for a shard: {error}")))?);
            match bound.recv() {
                Ok(Ok((mqtt, bound_links))) => {
                    if index == 0 {
                        links = bound_links;
                        for (listener, addresses) in self.mqtt.iter_mut().zip(mqtt) {
                            listener.addresses = addresses;
                        }
                    }
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(StartError::new(format!("shard {index} ended at its start"))),
            }
        }
        for listener in &self.mqtt {
            let transport = listener.stack.name();
            for address in &listener.addresses {
                tracing::info!(%address, transport, "listening for MQTT");
            }
        }
        let plain = self
            .mqtt
            .into_iter()
            .next()
            .map(|listener| listener.addresses)
            .unwrap_or_default();
        Ok((threads, plain, links))
    }

    fn for_shard(&self, index: usize) -> Self {
        Self {
            started: self.started,
            clock: self.clock.clone(),
            backend: self.backend,
            senders: Arc::clone(&self.senders),
            accepting: Arc::clone(&self.accepting),
            classifier: Arc::clone(&self.classifier),
            io: self.io.clone(),
            mqtt: self.mqtt.clone(),
            links: if index == 0 {
                self.links.clone()
            } else {
                Vec::new()
            },
            websockets: if index == 0 {
                self.websockets.clone()
            } else {
                Vec::new()
            },
            quic: if index == 0 { self.quic.clone() } else { Vec::new() },
            local: self.local.clone().filter(|_| index == 0),
            inlets: if index == 0 {
                self.inlets.clone()
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
        (mut trunk, exchange): (Option<Trunk>, Option<Exchange>),
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
        let listening = self.listen(driver.io(), &mut listeners).and_then(|addresses| {
            self.listen_links(driver.io(), &mut listeners, trunk.as_mut())?;
            self.listen_inlets(driver.io(), &mut listeners, trunk.as_mut())?;
            Ok(addresses)
        });
        match listening {
            Ok(addresses) => drop(bound.send(Ok(addresses))),
            Err(error) => {
                drop(bound.send(Err(error)));
                return Ok(());
            }
        }
        let field = self.field.as_ref().map(|plan| {
            let authenticator =
                Authenticator::new(Arc::clone(&plan.table), plan.anonymous.clone(), &plan.memo_key);
            Field::new(Parts {
                shard: index,
                settings: Arc::clone(&plan.settings),
                authenticator,
                checks: plan.checks.clone(),
                stacks: Arc::clone(&plan.stacks),
                count_max: plan.clients_max,
                connects_per_second_max: plan.connects_per_second_max,
            })
        });
        let mut shard = Shard {
            index,
            clock: TurnClock::following(self.clock, self.started),
            listeners,
            field,
            trunk,
            exchange,
            outgoing: Outgoing {
                ticket: 0,
                batch: FieldBatch::default(),
                accepting: self.accepting,
                classifier: self.classifier,
            },
            mail,
            shards: self.senders,
            latency: self.latency,
            turns: 0,
            stop_by: None,
        };
        driver.run(&mut shard)
    }

    /// Listens for links that do not come over TCP.
    fn listen_links(
        &self,
        io: &mut Io,
        listeners: &mut BTreeMap<fieldgate_io::ListenerId, Purpose>,
        mut trunk: Option<&mut Trunk>,
    ) -> Result<(), StartError> {
        for address in &self.quic {
            let Some(trunk) = &mut trunk else { break };
            let local = trunk
                .listen_quic(io, *address)
                .map_err(|error| cannot_listen(*address, &error))?;
            tracing::info!(address = %local, "listening for links over QUIC");
        }
        if let Some(local) = &self.local {
            let options = ListenOptions {
                class: BufferClass::Link,
                ..ListenOptions::default()
            };
            let path = &local.listen;
            let listener = io
                .listen_local(path, local.mode, &options)
                .map_err(|error| cannot_listen_locally(&path.display(), &error))?;
            tracing::info!(path = %path.display(), "listening for links of this machine");
            listeners.insert(listener, Purpose::Link(LinkKind::Tcp));
        }
        Ok(())
    }

    /// Listens for those whose connections lead to other nodes.
    fn listen_inlets(
        &self,
        io: &mut Io,
        listeners: &mut BTreeMap<fieldgate_io::ListenerId, Purpose>,
        mut trunk: Option<&mut Trunk>,
    ) -> Result<(), StartError> {
        for (index, inlet) in self.inlets.iter().enumerate() {
            let (listening, address) = listen_inlet(io, inlet)?;
            match listening {
                Listening::Datagrams(socket) => {
                    if let Some(trunk) = &mut trunk {
                        trunk.set_inlet_datagrams(index, socket, address);
                    }
                }
                Listening::Connections(listener) => {
                    listeners.insert(listener, Purpose::Inlet { inlet: index });
                    if let Some(trunk) = &mut trunk {
                        trunk.set_inlet_address(index, address);
                    }
                }
            }
        }
        Ok(())
    }

    fn listen(&self, io: &mut Io, listeners: &mut BTreeMap<fieldgate_io::ListenerId, Purpose>) -> Bound {
        let mut bind = |addresses: &[SocketAddr], purpose: Purpose| -> Result<Vec<SocketAddr>, StartError> {
            let mut bound = Vec::with_capacity(addresses.len());
            for address in addresses {
                let options = match purpose {
                    Purpose::Link(_) | Purpose::Inlet { .. } => ListenOptions {
                        class: BufferClass::Link,
                        ..ListenOptions::default()
                    },
                    Purpose::Mqtt { .. } => ListenOptions {
                        reuse_port: self.senders.len() > 1,
                        ..ListenOptions::default()
                    },
                };
                let (listener, local) = io
                    .listen(*address, &options)
                    .map_err(|error| cannot_listen(*address, &error))?;
                listeners.insert(listener, purpose);
                bound.push(local);
            }
            Ok(bound)
        };
        let mqtt = self
            .mqtt
            .iter()
            .enumerate()
            .map(|(stack, listener)| bind(&listener.addresses, Purpose::Mqtt { stack }))
            .collect::<Result<_, _>>()?;
        let mut links = bind(&self.links, Purpose::Link(LinkKind::Tcp))?;
        links.extend(bind(&self.websockets, Purpose::Link(LinkKind::WebSocket))?);
        Ok((mqtt, links))
    }
}

/// Listens for an inlet; returns where, too.
pub(super) fn listen_inlet(io: &mut Io, inlet: &PortalInlet) -> Result<(Listening, String), StartError> {
    let options = ListenOptions {
        class: BufferClass::Link,
        keep_alive: inlet.keep_alive,
        ..ListenOptions::default()
    };
    let (listening, address) = match &inlet.listen {
        InletAddress::Udp(address) => {
            let bound = io.bind_datagrams(*address, &DatagramOptions::default());
            let (socket, local) = bound.map_err(|error| cannot_listen(*address, &error))?;
            (Listening::Datagrams(socket), format!("udp:{local}"))
        }
        InletAddress::Tcp(address) => {
            let bound = io.listen(*address, &options);
            let (listener, local) = bound.map_err(|error| cannot_listen(*address, &error))?;
            (Listening::Connections(listener), local.to_string())
        }
        InletAddress::Unix(path) => {
            let bound = io.listen_local(path, inlet.mode, &options);
            let listener = bound.map_err(|error| cannot_listen_locally(&inlet.listen, &error))?;
            (Listening::Connections(listener), inlet.listen.to_string())
        }
    };
    tracing::info!(address, inlet = inlet.name, "listening for portal");
    Ok((listening, address))
}

fn cannot_listen_locally(path: &dyn std::fmt::Display, error: &std::io::Error) -> StartError {
    StartError::new(format!("cannot listen on {path}: {error}")).hint(
        "stop whoever listens there; the directory has to exist, and this user has to be able to write to it",
    )
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> StartError {
    StartError::new(format!("cannot listen on {address}: {error}"))
        .hint("choose another address, or stop the program that uses it (`ss -ltunp`)")
}

/// Makes the broker with what its store holds, if the node has clients.
pub(super) fn exchange(
    settings: &Settings,
    now: Now,
    senders: &Arc<[MailSender<ShardMessage>]>,
) -> Result<Option<Exchange>, StartError> {
    let Some(mqtt) = &settings.mqtt else {
        return Ok(None);
    };
    let path = settings.node.state_dir.join("mqtt").join("sessions.redb");
    let unusable = |error: std::io::Error| {
        StartError::new(format!("MQTT sessions in {}: {error}", path.display()))
            .hint("look at the disk and the rights of the directory; without the file sessions begin anew")
    };
    let (store, entries): (Store, Entries) = Store::open(&path).map_err(unusable)?;
    let (broker, lost) = Broker::restore(limits(mqtt), env!("CARGO_PKG_VERSION"), now, entries);
    if lost > 0 {
        tracing::warn!(
            lost,
            "entries of MQTT sessions were not understood and are left out"
        );
    }
    let store = store.spawn(senders[0].clone()).map_err(unusable)?;
    Ok(Some(Exchange::new(broker, store, Arc::clone(senders))))
}

/// Turns the file's words into the broker's.
fn limits(mqtt: &Mqtt) -> Limits {
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let count = |count: u32| size(count.into());
    Limits {
        sessions_max: count(mqtt.sessions_max),
        subscriptions_max: count(mqtt.subscriptions_max),
        queue_messages_max: count(mqtt.queue_messages_max),
        queue_bytes_max: size(mqtt.queue_bytes_max),
        retained_max: count(mqtt.retained_max),
        retained_bytes_max: size(mqtt.retained_bytes_max),
        slow_consumer: match mqtt.slow_consumer {
            SlowConsumer::Disconnect => limits::SlowConsumer::Disconnect,
            SlowConsumer::Drop => limits::SlowConsumer::Drop,
        },
    }
}

fn field_plan(
    mqtt: &Mqtt,
    senders: &Arc<[MailSender<ShardMessage>]>,
    clock: &Clock,
) -> Result<(FieldPlan, Vec<Listener>), StartError> {
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
        .with_alarm_topics(filters(&mqtt.alarm_topics)?)
        .with_local_topics(filters(&mqtt.local_topics)?)
        .with_session_expiry_secs_max(u32::try_from(mqtt.session_expiry_max.as_secs()).unwrap_or(u32::MAX));
    let (mut logins, mut others) = (Vec::new(), Vec::new());
    for device in &mqtt.devices {
        let topics: Arc<[TopicFilter]> = filters(&device.publish)?.into();
        let known = Device::new(&device.name, topics)
            .map_err(|error| unsound(&error))?
            .with_subscribe(filters(&device.subscribe)?.into());
        let Some(hash) = &device.password_hash else {
            others.push(known);
            continue;
        };
        logins.push(Login {
            username: device.username.clone(),
            password: hash
                .as_str()
                .parse()
                .map_err(|error: fieldgate_adapters::password::PasswordHashError| unsound(&error))?,
            device: known,
        });
    }
    let table = DeviceTable::new(logins)
        .and_then(|table| table.with_others(others))
        .map_err(|error| unsound(&error))?;
    let anonymous = if mqtt.anonymous {
        Anonymous::Allowed {
            // Everything, and what the gateway says of itself, which nobody can write.
            topics: filters(&["#".to_owned(), "$SYS/#".to_owned()])?.into(),
        }
    } else {
        Anonymous::Refused
    };
    let mut memo_key = [0; 32];
    SystemEntropy.fill(&mut memo_key);
    let listeners = listeners::listeners(mqtt, &table, clock)?;
    let shards = senders.len();
    // The kernel spreads clients over shards by chance, so each may get somewhat more than its share.
    let share = usize::try_from(mqtt.clients_max)
        .unwrap_or(usize::MAX)
        .div_ceil(shards);
    let clients_max = if shards == 1 {
        share
    } else {
        share.saturating_add(share / 4)
    };
    let plan = FieldPlan {
        settings: Arc::new(settings),
        table: Arc::new(table),
        anonymous,
        memo_key,
        stacks: listeners.iter().map(|listener| listener.stack.clone()).collect(),
        clients_max,
        connects_per_second_max: mqtt.connects_per_second_max,
        checks: Checks::spawn(Arc::clone(senders))
            .map_err(|error| StartError::new(format!("no thread for passwords: {error}")))?,
    };
    Ok((plan, listeners))
}

/// Connections that one shard may have at the most.
const CONNECTIONS_MAX: u32 = 1_000_000;
