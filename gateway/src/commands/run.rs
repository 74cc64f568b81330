//! `fieldgate run`.

use std::{cell::RefCell, path::Path, rc::Rc, time::Duration};

use fieldgate_config::settings::{LogFormat, Settings, sink::SinkKind};
use fieldgate_proto::node::Asked;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    task::LocalSet,
};

use super::{Failure, check};
use crate::{
    authority::wire::{ManageAnswer, ManageError},
    control::{Manage, Socket, enrol::EnrolDone, manage_here, relay::RelayJob},
    logs, memory, metrics,
    runtime::{
        NodeHandle, Question, StartError,
        clock::Clock,
        desk::Desk,
        doorkeeper, enrolling,
        keys::Identity,
        portals::book::Book,
        start::{self, Options},
    },
    sinks,
};
use portals::SharedBook;

mod portals;

pub(super) fn run(config: &Path) -> Result<(), Failure> {
    let settings = check::settings(config)?;
    let format = match settings.log.format {
        LogFormat::Text => logs::Format::Text,
        LogFormat::Json => logs::Format::Json,
    };
    logs::start(settings.log.level.as_str(), format);
    harden();
    loop {
        let (book, settings) = Book::open(config, check::host_name(), settings.clone());
        let book = Rc::new(RefCell::new(book));
        let identity = Identity::open(&settings).map_err(StartError::into_failure)?;
        let clock = Clock::open(&settings.node.state_dir);
        let runtime = control_runtime()?;
        // What ends with the set: every task of this start.
        match LocalSet::new().block_on(&runtime, serve(&settings, identity, clock, &book))? {
            End::Stopped => return Ok(()),
            End::Again => tracing::info!("starting anew as a member"),
        }
    }
}

/// Why a node has ended.
enum End {
    /// It was told to.
    Stopped,
    /// It was enrolled: who it belongs to is read at the start.
    Again,
}

/// Makes the runtime of the control thread, which is the calling one.
pub(super) fn control_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::chain("control thread", &error))
}

/// Keeps secrets out of core dumps, and makes room for connections.
pub(super) fn harden() {
    if let Err(error) = fieldgate_io::process::forbid_core_dumps() {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
    match fieldgate_io::process::raise_descriptor_limit() {
        Ok(limit) => tracing::debug!(limit, "descriptors"),
        Err(error) => tracing::warn!(%error, "the limit of descriptors could not be raised"),
    }
}

async fn serve(
    settings: &Settings,
    identity: Identity,
    clock: Clock,
    book: &SharedBook,
) -> Result<End, Failure> {
    let identifier = identity.history().identifier();
    let shared = identity.share();
    let options = Options {
        added: book.borrow().added().clone(),
        ..Options::new(clock.clone())
    };
    let mut running = start::start(settings, identity, options)
        .await
        .map_err(StartError::into_failure)?;
    let control = Socket::bind(&settings.node.control_socket).map_err(|error| {
        Failure::new(error).hint("stop the other node, or name another control_socket under [node]")
    })?;
    let (again, stop) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
    let control = control_services(control, settings, &running.handle, shared, &clock, &again);
    let control = relay_service(control, settings, &running.handle, &stop);
    let control = portals::service(control, book, &running.handle);
    tokio::task::spawn_local(control.serve(Rc::clone(&running.handle)));
    if let Some(settings) = &settings.metrics {
        let listener = metrics::bind(settings.listen).await.map_err(Failure::new)?;
        tokio::task::spawn_local(metrics::serve(listener, Rc::clone(&running.handle)));
    }
    take_commands(settings, &running.handle.desk);
    tokio::task::spawn_local(memory::give_back());
    // Whoever reads that the node is ready may signal it at once.
    let mut end = EndSignals::listen()?;
    let mut hangup = listen(SignalKind::hangup())?;
    tracing::info!(
        name = settings.node.name,
        roles = running.handle.roles.join(" + "),
        %identifier,
        mqtt = ?running.mqtt,
        links = ?running.links,
        "ready"
    );
    // Without systemd there is nobody to notify.
    drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
    let result = loop {
        tokio::select! {
            () = end.wait() => {
                if let Some(within) = drain_time(settings) {
                    tracing::info!(within_secs = within.as_secs(), "members are to leave before the end");
                    tokio::select! {
                        () = running.handle.drain_and_wait(within) => {}
                        // Whoever asks twice does not want to wait.
                        () = end.wait() => {}
                    }
                }
                break Ok(End::Stopped);
            }
            () = stop.notified() => break Ok(End::Stopped),
            () = again.notified() => break Ok(End::Again),
            _ = hangup.recv() => reload(settings, &running.handle).await,
            Some(reason) = running.broken.recv() => break Err(Failure::new(reason)),
        }
    };
    tracing::info!("stopping");
    drop(sd_notify::notify(&[sd_notify::NotifyState::Stopping]));
    running.stop();
    clock.keep();
    tracing::info!("stopped");
    result
}

/// Returns how long a relay gives its members to leave when it is told to end.
fn drain_time(settings: &Settings) -> Option<Duration> {
    let relay = settings.relay.as_ref()?;
    (!relay.drain.is_zero()).then_some(relay.drain)
}

/// Lets operators drain and stop a relay over the control socket.
fn relay_service(control: Socket, settings: &Settings, node: &Rc<NodeHandle>, stop: &Rc<Notify>) -> Socket {
    if settings.relay.is_none() {
        return control;
    }
    let (node, stop) = (Rc::clone(node), Rc::clone(stop));
    control.with_relaying(Rc::new(move |job| {
        let (node, stop) = (Rc::clone(&node), Rc::clone(&stop));
        Box::pin(async move {
            match job {
                RelayJob::Drain { within_secs } => {
                    node.drain(Some(Duration::from_secs(u64::from(within_secs))))
                        .await;
                }
                RelayJob::Undrain {} => node.drain(None).await,
                RelayJob::Stop {} => drop(tokio::task::spawn_local(async move {
                    // Whoever asked gets the answer first.
                    tokio::time::sleep(ANSWER_FIRST).await;
                    stop.notify_one();
                })),
            }
            Ok(())
        })
    }))
}

/// Takes commands from the brokers that bring some.
fn take_commands(settings: &Settings, desk: &Rc<Desk>) {
    let sinks = settings.collector.iter().flat_map(|collector| &collector.sinks);
    for sink in sinks {
        if let SinkKind::Mqtt(broker) = &sink.kind
            && let Some(commands) = &broker.commands
        {
            let (name, desk) = (sink.name.clone(), Rc::clone(desk));
            let task = sinks::mqtt::commands::run(name, broker.clone(), commands.clone(), desk);
            tokio::task::spawn_local(task);
        }
    }
}

/// Reads the policy again; a policy that is wrong changes nothing.
async fn reload(settings: &Settings, node: &NodeHandle) {
    match doorkeeper::policy(settings) {
        Ok(policy) => {
            let rules = policy.rule_count();
            node.desk.set_policy(policy).await;
            tracing::info!(
                rules,
                "policy read again; everything else takes effect after a restart"
            );
        }
        Err(error) => tracing::error!(%error, "the policy in use stays"),
    }
}

/// Lets operators manage the authority and enrol the node over the control socket, where the file allows it.
fn control_services(
    mut control: Socket,
    settings: &Settings,
    node: &Rc<NodeHandle>,
    identity: Identity,
    clock: &Clock,
    again: &Rc<Notify>,
) -> Socket {
    let rotating = Rc::clone(node);
    if settings.collector.is_some() {
        let desk = Rc::clone(&node.desk);
        control = control.with_commanding(Rc::new(move |job| {
            let desk = Rc::clone(&desk);
            Box::pin(async move { desk.command(job).await })
        }));
    }
    control = control.with_rotated(Rc::new(move || {
        let node = Rc::clone(&rotating);
        Box::pin(async move { node.handle_rotated().await.map_err(|error| error.to_string()) })
    }));
    if let Some(authority) = &node.authority {
        control = control.with_manage(manage_here(authority.clone()));
    } else if settings.trust.is_some() {
        control = control.with_manage(manage_there(Rc::clone(&node.desk)));
    }
    if settings.trust.is_some() && settings.authority.is_none() {
        let settings = Rc::new(settings.clone());
        let (clock, again) = (clock.clone(), Rc::clone(again));
        control = control.with_enrol(Rc::new(move |job| {
            let (settings, identity) = (Rc::clone(&settings), identity.share());
            let (clock, again) = (clock.clone(), Rc::clone(&again));
            Box::pin(async move {
                let done = enrolling::enrol(&settings, identity, clock, job).await?;
                if matches!(done, EnrolDone::Enrolled(_)) {
                    tokio::task::spawn_local(async move {
                        // Whoever asked gets the answer first.
                        tokio::time::sleep(ANSWER_FIRST).await;
                        again.notify_one();
                    });
                }
                Ok(done)
            })
        }));
    }
    control
}

/// Puts operators' requests to the authority that this node is a member of.
fn manage_there(desk: Rc<Desk>) -> Manage {
    Rc::new(move |_uid, request| {
        let desk = Rc::clone(&desk);
        Box::pin(async move {
            let error = |code: &str, message: String, hint: &str| {
                ManageAnswer::Error(ManageError {
                    code: code.to_owned(),
                    message,
                    hint: Some(hint.to_owned()),
                })
            };
            let json = match request.to_json().map(String::from_utf8) {
                Ok(Ok(json)) => json,
                Ok(Err(_)) => {
                    return error(
                        "request",
                        "the request is no text".to_owned(),
                        "ask for less at once",
                    );
                }
                Err(problem) => return error("request", problem.to_string(), "ask for less at once"),
            };
            match desk.ask(Question::Manage(json)).await {
                Asked::Managed(answer) => {
                    ManageAnswer::from_json(answer.as_bytes()).unwrap_or_else(|problem| {
                        error(
                            "answer",
                            problem.to_string(),
                            "upgrade the older of the two nodes",
                        )
                    })
                }
                Asked::TooLong => error(
                    "request",
                    "the request is too long for a frame".to_owned(),
                    "ask for less at once",
                ),
                Asked::Issued | Asked::Denied | Asked::Unanswered => error(
                    "no-answer",
                    "the authority was not reached, or does not let this node manage it".to_owned(),
                    "see `fieldgate status`; only enrollers and administrators may manage",
                ),
            }
        })
    })
}

/// How long the answer to an enrolment may take to be sent.
const ANSWER_FIRST: Duration = Duration::from_millis(100);

/// The signals that tell a node to end.
pub(super) struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    /// Listens; from now on they do not end the process by themselves.
    pub(super) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for one of them.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::chain("signals", &error))
}
