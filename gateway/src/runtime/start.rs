//! Starting a node: everything that its settings switch on, in the order in which it can fail.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, RwLock},
    thread::JoinHandle,
    time::Duration,
};

use fieldgate_config::settings::{Collector, IoBackend, Settings, portal::Portal};
use fieldgate_io::{
    Backend, BackendChoice, Selected, Waker,
    mailbox::{MailSender, mailbox},
    thread,
};
use fieldgate_proto::{
    node::Node,
    seal::SealKey,
    time::{Now, WallTime},
    trust::Trust,
};
use tokio::sync::mpsc;

use super::{
    MAILBOX_MAX, NodeHandle, Rotation, ShardMessage, StartError, TrunkMessage,
    accepting::Accepting,
    belonging::{Belonging, TrustFiles},
    clock::{Clock, TurnClock},
    clustering::Clustering,
    collector::Collecting,
    commanding::Commanding,
    desk::Desk,
    doorkeeper::{self, Doorkeeper},
    entropy::SystemEntropy,
    governing::Governing,
    journal::{self, JournalFiles},
    keys::Identity,
    links::Layers,
    portals::{Portals, book::Added, trail::Trail},
    threads::{self, Mailbox, ShardPlan},
    translate::node_settings,
    transport,
    trunk::{Parts, Resolve, Trunk},
};
use crate::authority::service::AuthorityHandle;
use crate::sinks::{
    Confirm, SinkHandle,
    fanout::Fanout,
    ledger::{self, LedgerStats},
    open::{self, Place},
    positions::{self, Positions, SourceKey},
    stdout::Style,
    writers::{Writers, Writing, writers},
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
    writers: Writers,
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
        // The shards have dropped the queues.
        if !self.writers.wait(WRITERS_TIME_MAX) {
            tracing::warn!("a sink still writes; the next start reads what it has");
        }
    }
}

/// What the command line decides beside the file.
pub(crate) struct Options {
    /// How a sink on standard output prints; lines of JSON if not said otherwise.
    pub(crate) stdout: Option<Style>,
    /// The authority to belong to in the place of the one that file and enrolment name.
    pub(crate) belonging: Option<Belonging>,
    /// The node's clock.
    pub(crate) clock: Clock,
    /// Which of the portals come from commands.
    pub(crate) added: Added,
}

impl Options {
    /// Decides nothing.
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            stdout: None,
            belonging: None,
            clock,
            added: Added::default(),
        }
    }
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
    let clock = options.clock.clone();
    let local = identity.attest(clock.wall()).await?;
    let seal_key = seal_key(settings, &mut identity, clock.wall()).await?;
    let mailboxes = mailboxes(shard_count(settings))?;
    let senders: Arc<[MailSender<ShardMessage>]> =
        mailboxes.iter().map(|((sender, _), _)| sender.clone()).collect();
    let (broken_sender, broken) = mpsc::channel(mailboxes.len() + 1);
    let mut control = ControlPlane::start(settings, &identity, &options, &senders[0])?;
    let (resolve, resolve_requests) = mpsc::channel(DESK_MAX);
    let (desk_sender, desk_requests) = mpsc::channel(DESK_MAX);
    let (rotation_sender, rotations) = mpsc::channel(1);
    let accepting = Arc::new(Accepting::new());
    let journal = open_journal(settings, &mailboxes[0].1)?;
    let (collecting, positions, writers) = collecting(settings, selected.backend, &senders[0], &options)?;
    let own = identity.history().identifier();
    let (node_settings, names, neighbours) =
        node_settings(settings, own, &control.belonging, journal.as_ref(), positions);
    let layers = Layers::load(settings, &names.neighbours, &clock)?;
    let now = TurnClock::following(clock.clone(), started).at(fieldgate_io::clock::monotonic());
    let node = Node::new(now, &mut SystemEntropy, node_settings, local);
    let mut node = equipped(now, node, control.trust.take(), seal_key, &identity);
    let (store, clustering) = Clustering::begin(settings, own, now, &mut node);
    let commanding = Commanding::open(settings, now, &mut node, &senders[0])?;
    let proof_demands = control.desk.set_own_peers(node.own_peers());
    node.set_proof_demands(now, proof_demands);
    let layers_acceptor = layers.acceptor();
    let (trail, audit_thread) = trail(settings)?;
    let trunk = Trunk::new(Parts {
        layers,
        portals: Portals::new(settings.portal.as_ref(), &options.added, &trail)?,
        node,
        journal,
        commit_delay: commit_delay(settings),
        collecting,
        commanding,
        names,
        resolve,
        desk: desk_sender,
        store,
        belongs: settings.trust.is_some() || settings.authority.is_some(),
        is_authority: settings.authority.is_some(),
        clock: clock.clone(),
        accepting: Arc::clone(&accepting),
    });
    let plan = ShardPlan::new(
        settings,
        started,
        clock.clone(),
        selected.backend,
        Arc::clone(&senders),
        accepting,
    )?;
    let exchange = threads::exchange(settings, now, &senders)?;
    let mut acceptors = plan.acceptors();
    acceptors.extend(layers_acceptor);
    drop(trail);
    let (mut threads, mqtt, links) = plan.spawn(mailboxes, trunk, exchange, &broken_sender)?;
    // Behind the shards: it ends when they have.
    threads.extend(audit_thread);
    let handle = Rc::new(NodeHandle {
        name: settings.node.name.clone(),
        roles: roles(settings),
        started,
        io: selected,
        identifier: identity.history().identifier().to_string(),
        key_place: identity.place,
        key_health: Arc::clone(&identity.health),
        signer: identity.signer(),
        clock: clock.clone(),
        authority: control.authority(),
        desk: Rc::clone(&control.desk),
        rotations: rotation_sender,
        neighbours,
        shards: senders.to_vec(),
    });
    tokio::task::spawn_local(Rc::clone(&control.desk).serve(desk_requests));
    if let Some(governing) = control.governing {
        governing.serve(
            &control.desk,
            identity.signer(),
            senders[0].clone(),
            broken_sender,
        );
    }
    clustering.serve(senders[0].clone());
    tokio::task::spawn_local(clock.clone().run());
    tokio::task::spawn_local(transport::tls::follow(acceptors));
    tokio::task::spawn_local(resolve_names(resolve_requests, senders[0].clone()));
    tokio::task::spawn_local(renew(identity, settings.clone(), Rc::clone(&handle), rotations));
    Ok(Running {
        handle,
        mqtt,
        links,
        threads,
        writers,
        broken,
    })
}

/// Gives the node what it judges others by, and what it vouches for readings with.
fn equipped(
    now: Now,
    node: Node,
    trust: Option<Trust>,
    seal_key: Option<SealKey>,
    identity: &Identity,
) -> Node {
    let mut node = match trust {
        Some(trust) => node.trusting(trust),
        None => node,
    };
    if let Some(key) = seal_key {
        node.set_seal_key(now, key, identity.history());
    }
    node
}

/// Opens the audit files, if there are some, and starts their thread.
fn trail(settings: &Settings) -> Result<(Trail, Option<JoinHandle<()>>), StartError> {
    Trail::open(settings.portal.as_ref().and_then(|portal| portal.audit.as_ref()))
}

/// Makes one mailbox for each shard.
fn mailboxes(count: usize) -> Result<Vec<Mailbox>, StartError> {
    let mailbox = |_| {
        let waker = Waker::new().map_err(|error| StartError::new(format!("no event descriptor: {error}")))?;
        Ok((mailbox::<ShardMessage>(MAILBOX_MAX, waker.clone()), waker))
    };
    (0..count).map(mailbox).collect()
}

fn commit_delay(settings: &Settings) -> Duration {
    settings
        .journal
        .as_ref()
        .map_or(Duration::ZERO, |journal| journal.commit_delay)
}

/// What runs beside the shards, and what the node is told of it.
struct ControlPlane {
    belonging: Belonging,
    trust: Option<Trust>,
    governing: Option<Governing>,
    desk: Rc<Desk>,
}

impl ControlPlane {
    /// The authority of this node, if it is one.
    fn authority(&self) -> Option<AuthorityHandle> {
        self.governing
            .as_ref()
            .map(|governing| governing.service.handle())
    }

    fn start(
        settings: &Settings,
        identity: &Identity,
        options: &Options,
        trunk: &MailSender<ShardMessage>,
    ) -> Result<Self, StartError> {
        let history = identity.history();
        let files = TrustFiles::new(&settings.node.state_dir);
        let belonging = match &options.belonging {
            Some(belonging) => belonging.clone(),
            None => Belonging::find(settings, history.identifier(), &files)?,
        };
        let trust = match belonging.authority {
            Some(_) => Some(belonging.trust(settings, history, &files)?),
            None => None,
        };
        if settings.trust.is_some() && trust.is_none() {
            tracing::warn!("this node is not enrolled: get a ticket and run `fieldgate enroll`");
        }
        if let Some(trust) = &trust {
            options.clock.note_statement_time(trust.latest_statement_time());
        }
        let policy = Arc::new(RwLock::new(doorkeeper::policy(settings)?));
        let held = trust.as_ref().and_then(Trust::status);
        let governing = settings
            .authority
            .as_ref()
            .map(|authority| {
                let (policy, clock) = (Arc::clone(&policy), options.clock.clone());
                Governing::start(settings, authority, history, policy, held.cloned(), clock)
            })
            .transpose()?;
        let desk = Rc::new(Desk::new(
            Doorkeeper::new(policy, settings),
            trunk.clone(),
            identity.signer(),
            governing.as_ref().map(|governing| governing.service.handle()),
            options.clock.clone(),
            files,
        ));
        Ok(Self {
            belonging,
            trust,
            governing,
            desk,
        })
    }
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
    let has_portal = |has: fn(&Portal) -> bool| settings.portal.as_ref().is_some_and(has);
    let roles = [
        (settings.mqtt.is_some() || !settings.uplinks.is_empty(), "gateway"),
        (settings.relay.is_some(), "relay"),
        (settings.collector.is_some(), "collector"),
        (settings.authority.is_some(), "authority"),
        (has_portal(|portal| !portal.outlets.is_empty()), "outlet"),
        (has_portal(|portal| !portal.inlets.is_empty()), "inlet"),
    ];
    roles
        .into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, role)| role.to_owned())
        .collect()
}

/// Opens the journal, where the node has one, with a position for each uplink.
fn open_journal(settings: &Settings, waker: &Waker) -> Result<Option<JournalFiles>, StartError> {
    let Some(config) = &settings.journal else {
        return Ok(None);
    };
    let uplinks: Vec<u64> = settings
        .uplinks
        .iter()
        .map(|uplink| journal::uplink_name(&uplink.collector, &uplink.name))
        .collect();
    let key = journal::key::KeyPlace::of(settings)?;
    JournalFiles::open(config, key.as_ref(), &uplinks, waker.clone()).map(Some)
}

/// Starts the sinks and finds out how far they are.
fn collecting(
    settings: &Settings,
    backend: Backend,
    trunk: &MailSender<ShardMessage>,
    options: &Options,
) -> Result<(Collecting, Option<positions::Known>, Writers), StartError> {
    let (writing, writers) = writers();
    let Some(collector) = &settings.collector else {
        return Ok((Collecting::default(), None, writers));
    };
    std::fs::create_dir_all(&collector.state_dir)
        .map_err(|error| StartError::file(&collector.state_dir, &error))?;
    let mut handles = Vec::new();
    let mut kept = Vec::new();
    for (index, sink) in collector.sinks.iter().enumerate() {
        let trunk = trunk.clone();
        // The trunk empties its mailbox in every turn, so this waits for moments only; it is gone when the node ends.
        let confirm: Confirm =
            Box::new(move |confirmation| drop(trunk.send(ShardMessage::Confirmed(confirmation))));
        let place = Place {
            index,
            state_dir: &collector.state_dir,
            backend,
            stdout: options.stdout.unwrap_or(Style::Lines),
            writing: writing.clone(),
        };
        let (handle, positions) = open::spawn(sink, &place, confirm).map_err(|error| {
            StartError::new(format!("sink {}: {error}", sink.name)).hint("see [[collector.sink]]")
        })?;
        handles.push(handle);
        kept.extend(positions);
    }
    let mut ledger_stats = None;
    if let Some(ledger) = &collector.ledger {
        let (handle, known, stats) =
            spawn_ledger(collector, ledger, &kept, trunk, writing).map_err(|error| {
                StartError::new(format!("ledger {}: {error}", ledger.dir.display()))
                    .hint("see [collector.ledger]")
            })?;
        handles.push(handle);
        kept.push(known);
        ledger_stats = Some(stats);
    }
    let gateways = collector
        .gateways
        .iter()
        .map(|gateway| (gateway.identifier, gateway.name.clone()));
    let collecting = Collecting::new(
        Fanout::new(handles),
        settings.node.name.clone(),
        gateways.collect(),
        ledger_stats,
    );
    // Sinks that remember nothing begin with what gateways have.
    let known = (!kept.is_empty()).then(|| positions::common(&kept));
    Ok((collecting, known, writers))
}

/// Starts the ledger, which comes behind the sinks of the file; returns how far it is with each source.
fn spawn_ledger(
    collector: &Collector,
    settings: &fieldgate_config::settings::Ledger,
    others: &[BTreeMap<SourceKey, u64>],
    trunk: &MailSender<ShardMessage>,
    writing: Writing,
) -> std::io::Result<(SinkHandle, BTreeMap<SourceKey, u64>, Arc<LedgerStats>)> {
    let file = collector.state_dir.join("ledger.positions");
    let is_new = !file.exists();
    let mut positions = Positions::load(file)?;
    if is_new {
        // What the sinks had before there was a ledger does not come again.
        for (key, sequence) in positions::common(others) {
            positions.advance_key(key, sequence);
        }
        positions.save()?;
    }
    let known = positions.all().clone();
    let trunk = trunk.clone();
    let confirm: Confirm =
        Box::new(move |confirmation| drop(trunk.send(ShardMessage::Confirmed(confirmation))));
    let (handle, stats) = ledger::spawn(
        collector.sinks.len(),
        &settings.dir,
        settings.bytes_max,
        positions,
        confirm,
        writing,
    )?;
    Ok((handle, known, stats))
}

/// Resolves names for the trunk, which must not wait.
async fn resolve_names(mut requests: mpsc::Receiver<Resolve>, trunk: MailSender<ShardMessage>) {
    while let Some(Resolve { wanted, address }) = requests.recv().await {
        let trunk = trunk.clone();
        tokio::task::spawn_local(async move {
            let lookup = tokio::net::lookup_host((address.host().to_owned(), address.port()));
            let addresses = match tokio::time::timeout(RESOLVE_TIME_MAX, lookup).await {
                Ok(Ok(addresses)) => Ok(addresses.collect()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("the name server does not answer".to_owned()),
            };
            let mut message = ShardMessage::Trunk(TrunkMessage::Resolved { wanted, addresses });
            // Without an answer a neighbour would be dialled no more, so a full mailbox is waited for.
            while let Err(fieldgate_io::mailbox::MailError::Full(back)) = trunk.try_send(message) {
                message = back;
                tokio::time::sleep(MAILBOX_RETRY).await;
            }
        });
    }
}

/// Returns a key that seals readings, if this node does.
async fn seal_key(
    settings: &Settings,
    identity: &mut Identity,
    wall: WallTime,
) -> Result<Option<SealKey>, StartError> {
    if seals(settings) {
        identity.attest_seals(wall).await.map(Some)
    } else {
        Ok(None)
    }
}

/// Returns whether this node seals readings.
fn seals(settings: &Settings) -> bool {
    settings.journal.is_some() && settings.uplinks.iter().any(|uplink| uplink.verifiable)
}

/// Renews the attestation at half its life, and keeps trying while the key does not sign; takes the new key when the identity
/// was rotated.
async fn renew(
    mut identity: Identity,
    settings: Settings,
    node: Rc<NodeHandle>,
    mut rotations: mpsc::Receiver<Rotation>,
) {
    let mut wait = RENEW_AFTER;
    loop {
        let rotation = {
            let due = tokio::time::sleep(wait);
            tokio::pin!(due);
            loop {
                tokio::select! {
                    () = &mut due => break None,
                    Some(rotation) = rotations.recv() => break Some(rotation),
                    () = tokio::time::sleep(LOOK_EVERY) => {
                        if identity.is_ahead(node.clock.wall()) {
                            tracing::info!("the clock was ahead and was corrected: attested anew");
                            break None;
                        }
                        if identity.is_period_over(node.clock.wall()) {
                            break None;
                        }
                    }
                }
            }
        };
        let reloaded = match &rotation {
            Some(_) => identity.reload(&settings).await,
            None => Ok(()),
        };
        let attested = match reloaded {
            Ok(()) => identity.attest(node.clock.wall()).await,
            Err(error) => Err(error),
        };
        let result = match attested {
            Ok(local) => {
                tracing::info!(keys = identity.history().changes().count(), "attestation renewed");
                node.desk.tell(TrunkMessage::Local(Box::new(local))).await;
                if seals(&settings) {
                    match identity.attest_seals(node.clock.wall()).await {
                        Ok(key) => {
                            let history = identity.history().clone();
                            node.desk
                                .tell(TrunkMessage::SealKey(Box::new((key, history))))
                                .await;
                        }
                        Err(error) => {
                            tracing::warn!(%error, "no new key for seals; when the one in use ends readings cannot be proved");
                        }
                    }
                }
                if let (Some(_), Some(authority)) = (&rotation, &node.authority) {
                    authority.handle_history(identity.history().clone());
                }
                wait = RENEW_AFTER;
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "attestation not renewed; channels live on until it ends");
                wait = RENEW_RETRY;
                Err(error)
            }
        };
        if let Some(rotation) = rotation {
            // Who told the node may have gone.
            drop(rotation.send(result));
        }
    }
}

/// What the trunk may want of the control thread before it is looked at.
const DESK_MAX: usize = 4096;
/// Time for sinks to write what they were given before the node ended.
const WRITERS_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest time for a look-up of a name.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(5);
/// Wait for room in the trunk's mailbox.
const MAILBOX_RETRY: Duration = Duration::from_millis(10);
/// Half the life of an attestation.
const RENEW_AFTER: Duration = Duration::from_secs(12 * 3600);
/// How often the attestation is compared with the clock.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time between attempts to renew.
const RENEW_RETRY: Duration = Duration::from_secs(60);
