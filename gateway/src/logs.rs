//! Structured logs: to standard error, as text for people or JSON for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// Starts logging at `level` (`error`, `warn`, `info`, `debug`, `trace`). A second call in one process changes nothing.
pub(crate) fn start(level: &str, format: Format) {
    // rumqttc logs each publish at debug; it is a library's detail.
    let filter =
        EnvFilter::try_new(format!("{level},rumqttc=error")).unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        Format::Text => {
            let ansi = std::io::stderr().is_terminal();
            // journald stamps lines itself.
            let journald = std::env::var_os("JOURNAL_STREAM").is_some();
            let layer = fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(ansi)
                .with_target(false);
            if journald {
                registry.with(layer.without_time()).try_init()
            } else {
                registry.with(layer).try_init()
            }
        }
        Format::Json => registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_writer(std::io::stderr),
            )
            .try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}
