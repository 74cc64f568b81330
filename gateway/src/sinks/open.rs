//! Starting a sink from its settings.

use std::{io, path::Path, sync::Arc};

use fieldgate_config::settings::{
    SecretSource,
    sink::{Login, NatsAuth, OnRejected, Sink, SinkKind},
};
use fieldgate_io::Backend;
use zeroize::Zeroizing;

use super::{
    Confirm, QUEUE_DELIVERIES, SinkHandle,
    custody::Custody,
    file, http, mqtt, nats, null,
    positions::{Known, Positions},
    queue::{DeliveryReceiver, queue},
    set_aside::SetAside,
    stats::SinkStats,
    stdout::{self, Style},
    writers::Writing,
};
use crate::runtime::keys::secret_source;

/// What a sink is told beside its settings.
pub(crate) struct Place<'a> {
    /// Which sink, counted in the order of the file.
    pub(crate) index: usize,
    /// Where positions and refused readings are kept.
    pub(crate) state_dir: &'a Path,
    /// How files are written.
    pub(crate) backend: Backend,
    /// How standard output looks.
    pub(crate) stdout: Style,
    /// For threads of their own.
    pub(crate) writing: Writing,
}

/// Starts a sink; returns how far it is with each source, if it keeps that over restarts. Call it in a `LocalSet`.
///
/// # Errors
/// If a file cannot be opened or is damaged. A server that cannot be reached is no error: it may come.
pub(crate) fn spawn(
    sink: &Sink,
    place: &Place<'_>,
    confirm: Confirm,
) -> io::Result<(SinkHandle, Option<Known>)> {
    let index = place.index;
    match &sink.kind {
        SinkKind::Null => Ok((null::spawn(index, confirm), None)),
        SinkKind::Stdout => Ok((
            stdout::spawn(
                index,
                place.stdout,
                sink.output.clone(),
                confirm,
                place.writing.clone(),
            )?,
            None,
        )),
        SinkKind::File(settings) => {
            let positions = positions(sink, place)?;
            let output = sink.output.clone();
            let (handle, known) = file::spawn(
                index,
                settings,
                output,
                place.backend,
                positions,
                confirm,
                place.writing.clone(),
            )?;
            Ok((handle, Some(known)))
        }
        SinkKind::Mqtt(settings) => {
            check_login(settings.login.as_ref())?;
            let parts = Parts::new(sink, place, settings.on_rejected, confirm)?;
            let name = format!("mqtt {}", settings.address);
            let (custody, deliveries) = (parts.custody, parts.deliveries);
            tokio::task::spawn_local(mqtt::run(settings.clone(), custody, deliveries));
            Ok((parts.handle.named(name), Some(parts.known)))
        }
        SinkKind::Nats(settings) => {
            match &settings.auth {
                NatsAuth::None => {}
                NatsAuth::Login(login) => check_login(Some(login))?,
                NatsAuth::Token(secret) | NatsAuth::Credentials(secret) => check_secret(Some(secret))?,
            }
            let parts = Parts::new(sink, place, settings.on_rejected, confirm)?;
            let name = format!("nats {} {}", settings.address, settings.stream);
            let (custody, deliveries) = (parts.custody, parts.deliveries);
            tokio::task::spawn_local(nats::run(settings.clone(), custody, deliveries));
            Ok((parts.handle.named(name), Some(parts.known)))
        }
        SinkKind::Http(settings) => {
            check_secret(settings.token.as_ref())?;
            let parts = Parts::new(sink, place, settings.on_rejected, confirm)?;
            let name = format!("http {}", settings.url);
            let (custody, deliveries) = (parts.custody, parts.deliveries);
            tokio::task::spawn_local(http::run(settings.clone(), custody, deliveries));
            Ok((parts.handle.named(name), Some(parts.known)))
        }
    }
}

/// What every sink that talks to a server is made of.
struct Parts {
    handle: SinkHandle,
    known: Known,
    custody: Custody,
    deliveries: DeliveryReceiver,
}

impl Parts {
    fn new(sink: &Sink, place: &Place<'_>, on_rejected: OnRejected, confirm: Confirm) -> io::Result<Self> {
        let positions = positions(sink, place)?;
        let known = positions.all().clone();
        let stats = Arc::new(SinkStats::new());
        let (queue, deliveries) = queue(QUEUE_DELIVERIES);
        let aside = place.state_dir.join(format!("sink-{}.rejected.jsonl", sink.name));
        let aside = SetAside::new(aside, &sink.output);
        let custody = Custody::new(
            place.index,
            positions,
            confirm,
            Arc::clone(&stats),
            sink.output.clone(),
        );
        Ok(Self {
            handle: SinkHandle {
                name: String::new(),
                stats,
                queue,
            },
            known,
            custody: custody.on_rejected(on_rejected, aside),
            deliveries,
        })
    }
}

fn positions(sink: &Sink, place: &Place<'_>) -> io::Result<Positions> {
    Positions::load(place.state_dir.join(format!("sink-{}.positions", sink.name)))
}

/// A password that cannot be read is found out at the start, and not in the night.
fn check_login(login: Option<&Login>) -> io::Result<()> {
    match login.map(read_login) {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(io::Error::other(error)),
    }
}

fn check_secret(secret: Option<&SecretSource>) -> io::Result<()> {
    match secret.map(read_secret) {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(io::Error::other(error)),
    }
}

/// Reads a password; a login without one has an empty one.
///
/// # Errors
/// In words, naming where the secret should be, never what it is.
pub(crate) fn read_login(login: &Login) -> Result<(String, Zeroizing<String>), String> {
    let password = login
        .password
        .as_ref()
        .map_or_else(|| Ok(Zeroizing::default()), read_secret)?;
    Ok((login.username.clone(), password))
}

/// Reads a secret that is text.
///
/// # Errors
/// In words, naming where the secret should be, never what it is.
pub(crate) fn read_secret(source: &SecretSource) -> Result<Zeroizing<String>, String> {
    let source = secret_source(source);
    let secret = source.read().map_err(|error| error.to_string())?;
    let text = std::str::from_utf8(secret.expose()).map_err(|_| format!("{source} holds no text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}
