//! `fieldgate run`.

use std::{path::Path, rc::Rc};

use fieldgate_config::settings::{LogFormat, Settings};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::LocalSet,
};

use super::{Failure, check};
use crate::{
    control::Socket,
    logs, memory, metrics,
    runtime::{
        StartError,
        keys::Identity,
        start::{self, Options},
    },
};

pub(super) fn run(config: &Path) -> Result<(), Failure> {
    let settings = check::settings(config)?;
    let format = match settings.log.format {
        LogFormat::Text => logs::Format::Text,
        LogFormat::Json => logs::Format::Json,
    };
    logs::start(settings.log.level.as_str(), format);
    harden();
    let identity =
        Identity::open(&settings.identity, &settings.node.state_dir).map_err(StartError::into_failure)?;
    let runtime = control_runtime()?;
    LocalSet::new().block_on(&runtime, serve(&settings, identity))
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

async fn serve(settings: &Settings, identity: Identity) -> Result<(), Failure> {
    let identifier = identity.history().identifier();
    let mut running = start::start(settings, identity, Options::default())
        .await
        .map_err(StartError::into_failure)?;
    let control = Socket::bind(&settings.node.control_socket).map_err(|error| {
        Failure::new(error).hint("stop the other node, or name another control_socket under [node]")
    })?;
    tokio::task::spawn_local(control.serve(Rc::clone(&running.handle)));
    if let Some(settings) = &settings.metrics {
        let listener = metrics::bind(settings.listen).await.map_err(Failure::new)?;
        tokio::task::spawn_local(metrics::serve(listener, Rc::clone(&running.handle)));
    }
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
            () = end.wait() => break Ok(()),
            _ = hangup.recv() => tracing::warn!("SIGHUP: a changed file takes effect after a restart"),
            Some(reason) = running.broken.recv() => break Err(Failure::new(reason)),
        }
    };
    tracing::info!("stopping");
    drop(sd_notify::notify(&[sd_notify::NotifyState::Stopping]));
    running.stop();
    tracing::info!("stopped");
    result
}

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
