//! Prometheus exposition: one table of names, filled from the node's status at each scrape.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use fieldgate_hsm::process::Condition;
use metrics::{Label, Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time,
};

use crate::{
    runtime::NodeHandle,
    status::{Health, IdentityStatus, NodeStatus},
};

mod cluster;
mod commands;
mod delivery;
mod paths;
mod portals;
mod trust;

/// The recorder and its text form.
pub(crate) struct Exposition {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Exposition {
    /// Makes a recorder of its own, so that several nodes can live in one process.
    pub(crate) fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, describe);
        Self { recorder, handle }
    }

    /// Returns the exposition of `status`.
    pub(crate) fn render(&self, status: &NodeStatus) -> String {
        metrics::with_local_recorder(&self.recorder, || record(status));
        self.handle.run_upkeep();
        self.handle.render()
    }
}

/// Name, unit and meaning of every counter.
const COUNTERS: [(&str, Unit, &str); 36] = [
    (
        "fieldgate_ledger_unsealed_readings_total",
        Unit::Count,
        "Readings without the gateway's signature, which cannot be proved later",
    ),
    (
        "fieldgate_ledger_refused_readings_total",
        Unit::Count,
        "Readings whose signature does not hold, which cannot be proved later",
    ),
    (
        "fieldgate_identity_signatures_total",
        Unit::Count,
        "Signatures made by the identity key",
    ),
    (
        "fieldgate_identity_errors_total",
        Unit::Count,
        "Failed attempts to sign with the identity key",
    ),
    (
        "fieldgate_token_worker_restarts_total",
        Unit::Count,
        "Starts of the process that holds the identity key after it was lost, by cause",
    ),
    ("fieldgate_turns_total", Unit::Count, "Turns of a shard's loop"),
    (
        "fieldgate_mqtt_accepted_total",
        Unit::Count,
        "MQTT connections accepted",
    ),
    (
        "fieldgate_mqtt_refused_total",
        Unit::Count,
        "MQTT connections refused at a bound",
    ),
    (
        "fieldgate_mqtt_delivered_total",
        Unit::Count,
        "MQTT messages given to connections",
    ),
    (
        "fieldgate_mqtt_dropped_total",
        Unit::Count,
        "MQTT messages dropped for clients that did not keep up, or expired",
    ),
    (
        "fieldgate_mqtt_slow_consumers_total",
        Unit::Count,
        "MQTT clients disconnected because their queue was full",
    ),
    (
        "fieldgate_mqtt_retained_refused_total",
        Unit::Count,
        "MQTT messages not retained because there was no room",
    ),
    (
        "fieldgate_mqtt_sessions_refused_total",
        Unit::Count,
        "MQTT clients refused because there were too many sessions",
    ),
    ("fieldgate_mqtt_wills_total", Unit::Count, "MQTT wills published"),
    (
        "fieldgate_mqtt_protocol_errors_total",
        Unit::Count,
        "MQTT sessions ended because of what the client sent",
    ),
    (
        "fieldgate_mqtt_auth_failures_total",
        Unit::Count,
        "MQTT log-ins refused",
    ),
    (
        "fieldgate_ingested_readings_total",
        Unit::Count,
        "Readings taken from devices",
    ),
    (
        "fieldgate_refused_readings_total",
        Unit::Count,
        "Readings refused: journal full, too large, not allowed",
    ),
    (
        "fieldgate_handshakes_total",
        Unit::Count,
        "Channel handshakes completed",
    ),
    (
        "fieldgate_handshake_failures_total",
        Unit::Count,
        "Channel handshakes that failed",
    ),
    (
        "fieldgate_link_dials_failed_total",
        Unit::Count,
        "Connections for links that were dialled and came to nothing",
    ),
    (
        "fieldgate_link_websockets_refused_total",
        Unit::Count,
        "Connections for links whose WebSocket did not open",
    ),
    (
        "fieldgate_link_quic_refused_total",
        Unit::Count,
        "Connections over QUIC that were turned away or made way for others",
    ),
    (
        "fieldgate_link_quic_retried_total",
        Unit::Count,
        "Strangers over QUIC who were asked to prove their address first",
    ),
    (
        "fieldgate_link_quic_failed_total",
        Unit::Count,
        "Connections over QUIC that others began and whose handshake did not end",
    ),
    (
        "fieldgate_link_quic_moved_total",
        Unit::Count,
        "Times that a link over QUIC went on from another address",
    ),
    (
        "fieldgate_records_refused_total",
        Unit::Count,
        "Records that did not open: forged, replayed or stale",
    ),
    (
        "fieldgate_relay_forwarded_frames_total",
        Unit::Count,
        "Frames forwarded for others",
    ),
    (
        "fieldgate_relay_forwarded_bytes_total",
        Unit::Bytes,
        "Payload bytes forwarded for others",
    ),
    (
        "fieldgate_dropped_frames_total",
        Unit::Count,
        "Frames dropped, by reason",
    ),
    (
        "fieldgate_delivered_readings_total",
        Unit::Count,
        "Readings confirmed by every sink and released",
    ),
    (
        "fieldgate_sink_confirmed_readings_total",
        Unit::Count,
        "Readings confirmed by a sink",
    ),
    (
        "fieldgate_sink_duplicate_readings_total",
        Unit::Count,
        "Readings that a sink had already",
    ),
    (
        "fieldgate_sink_missing_readings_total",
        Unit::Count,
        "Sequences that a sink recorded as missing",
    ),
    (
        "fieldgate_sink_set_aside_readings_total",
        Unit::Count,
        "Readings that were refused for good and put aside",
    ),
    (
        "fieldgate_sink_errors_total",
        Unit::Count,
        "Failures of the thing behind a sink",
    ),
];

/// Name, unit and meaning of every gauge.
const GAUGES: [(&str, Unit, &str); 25] = [
    (
        "fieldgate_ledger_bytes",
        Unit::Bytes,
        "Bytes of the collector's ledger",
    ),
    (
        "fieldgate_healthy",
        Unit::Count,
        "1 if the node does what its file says, else 0",
    ),
    ("fieldgate_uptime_seconds", Unit::Seconds, "Time since the start"),
    (
        "fieldgate_io_backend",
        Unit::Count,
        "1, with the I/O backend and why it was chosen as labels",
    ),
    ("fieldgate_build", Unit::Count, "1, with the version as label"),
    (
        "fieldgate_identity_attestation_seconds",
        Unit::Seconds,
        "Time until the attestation of the channel key ends",
    ),
    (
        "fieldgate_token_worker_condition",
        Unit::Count,
        "1 for what the process that holds the identity key is doing, 0 for what it is not",
    ),
    (
        "fieldgate_token_present",
        Unit::Count,
        "1 if the token that holds the identity key is there; looked at every 10 s",
    ),
    (
        "fieldgate_tpm_lockout",
        Unit::Count,
        "1 if the TPM that holds the identity key is locked out; looked at every hour and after failed log-ins",
    ),
    (
        "fieldgate_tpm_lockout_failures",
        Unit::Count,
        "Failures that the TPM counts towards its lockout now; power cuts are among them",
    ),
    (
        "fieldgate_tpm_lockout_failures_max",
        Unit::Count,
        "Failures that bring lockout",
    ),
    (
        "fieldgate_tpm_lockout_forgiven_seconds",
        Unit::Seconds,
        "Time of running after which the TPM forgives one failure; 0 forgives none",
    ),
    ("fieldgate_mqtt_clients", Unit::Count, "MQTT clients connected"),
    ("fieldgate_links", Unit::Count, "Links that are up"),
    (
        "fieldgate_link_queued_bytes",
        Unit::Bytes,
        "Bytes that wait to be sent on all links",
    ),
    ("fieldgate_channels", Unit::Count, "Channels established"),
    (
        "fieldgate_relay_names",
        Unit::Count,
        "Names registered by members",
    ),
    (
        "fieldgate_relay_neighbour_up",
        Unit::Count,
        "1 while this relay forwards to another that it dials",
    ),
    (
        "fieldgate_mqtt_sessions",
        Unit::Count,
        "MQTT sessions, with and without a connection",
    ),
    ("fieldgate_mqtt_subscriptions", Unit::Count, "MQTT subscriptions"),
    (
        "fieldgate_mqtt_queued_bytes",
        Unit::Bytes,
        "Memory of MQTT messages that wait for sessions",
    ),
    (
        "fieldgate_mqtt_retained_bytes",
        Unit::Bytes,
        "Memory of retained MQTT messages",
    ),
    (
        "fieldgate_sink_reachable",
        Unit::Count,
        "1 if the sink takes readings, else 0",
    ),
    (
        "fieldgate_sink_still_seconds",
        Unit::Seconds,
        "Time in which readings waited for a sink and none was confirmed",
    ),
    (
        "fieldgate_sink_waiting_bytes",
        Unit::Bytes,
        "Bytes of readings that wait for a sink",
    ),
];

fn describe() {
    for (name, unit, meaning) in COUNTERS
        .into_iter()
        .chain(trust::COUNTERS)
        .chain(delivery::COUNTERS)
        .chain(commands::COUNTERS)
        .chain(portals::COUNTERS)
        .chain(cluster::COUNTERS)
        .chain(paths::COUNTERS)
    {
        describe_counter!(name, unit, meaning);
    }
    for (name, unit, meaning) in GAUGES
        .into_iter()
        .chain(trust::GAUGES)
        .chain(delivery::GAUGES)
        .chain(commands::GAUGES)
        .chain(portals::GAUGES)
        .chain(cluster::GAUGES)
        .chain(paths::GAUGES)
    {
        describe_gauge!(name, unit, meaning);
    }
}

fn count(name: &'static str, labels: &[(&'static str, &str)], value: u64) {
    debug_assert!(
        COUNTERS
            .iter()
            .chain(&trust::COUNTERS)
            .chain(&delivery::COUNTERS)
            .chain(&commands::COUNTERS)
            .chain(&portals::COUNTERS)
            .chain(&cluster::COUNTERS)
            .chain(&paths::COUNTERS)
            .any(|(known, ..)| *known == name),
        "{name} is not described"
    );
    counter!(name, owned(labels)).absolute(value);
}

fn level(name: &'static str, labels: &[(&'static str, &str)], value: u64) {
    debug_assert!(
        GAUGES
            .iter()
            .chain(&trust::GAUGES)
            .chain(&delivery::GAUGES)
            .chain(&commands::GAUGES)
            .chain(&portals::GAUGES)
            .chain(&cluster::GAUGES)
            .chain(&paths::GAUGES)
            .any(|(known, ..)| *known == name),
        "{name} is not described"
    );
    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus knows only doubles; exact up to 2^53"
    )]
    gauge!(name, owned(labels)).set(value as f64);
}

fn owned(labels: &[(&'static str, &str)]) -> Vec<Label> {
    labels
        .iter()
        .map(|(key, value)| Label::new(*key, (*value).to_owned()))
        .collect()
}

fn record(status: &NodeStatus) {
    level(
        "fieldgate_healthy",
        &[],
        u64::from(status.health == Health::Healthy),
    );
    level("fieldgate_uptime_seconds", &[], status.uptime_secs);
    level(
        "fieldgate_io_backend",
        &[("backend", &status.io.backend), ("reason", &status.io.reason)],
        1,
    );
    level("fieldgate_build", &[("version", &status.version)], 1);
    record_identity(&status.identity);
    trust::record(status);
    for (index, shard) in status.shards.iter().enumerate() {
        let shard_label = index.to_string();
        let labels = [("shard", shard_label.as_str())];
        count("fieldgate_turns_total", &labels, shard.turns);
        level("fieldgate_mqtt_clients", &labels, shard.clients);
        count("fieldgate_mqtt_accepted_total", &labels, shard.accepted);
        count("fieldgate_mqtt_refused_total", &labels, shard.refused);
        count(
            "fieldgate_mqtt_protocol_errors_total",
            &labels,
            shard.protocol_errors,
        );
        count("fieldgate_mqtt_auth_failures_total", &labels, shard.auth_failures);
        count("fieldgate_ingested_readings_total", &labels, shard.readings);
        count(
            "fieldgate_refused_readings_total",
            &labels,
            shard.readings_refused,
        );
    }
    record_network(status);
    if let Some(mqtt) = &status.mqtt {
        let (counts, levels) = mqtt.samples();
        for (name, value) in counts {
            count(name, &[], value);
        }
        for (name, value) in levels {
            level(name, &[], value);
        }
    }
    delivery::record(status);
    commands::record(status);
    portals::record(status);
    cluster::record(status);
    paths::record(status);
    for sink in &status.sinks {
        let labels = [("sink", sink.name.as_str())];
        level("fieldgate_sink_reachable", &labels, u64::from(sink.reachable));
        level("fieldgate_sink_waiting_bytes", &labels, sink.waiting_bytes);
        count("fieldgate_sink_confirmed_readings_total", &labels, sink.confirmed);
        count(
            "fieldgate_sink_duplicate_readings_total",
            &labels,
            sink.duplicates,
        );
        count("fieldgate_sink_errors_total", &labels, sink.errors);
        count("fieldgate_sink_missing_readings_total", &labels, sink.missing);
        count("fieldgate_sink_set_aside_readings_total", &labels, sink.set_aside);
        level("fieldgate_sink_still_seconds", &labels, sink.still_secs);
    }
    if let Some(ledger) = &status.ledger {
        level("fieldgate_ledger_bytes", &[], ledger.bytes);
        count("fieldgate_ledger_unsealed_readings_total", &[], ledger.unsealed);
        count("fieldgate_ledger_refused_readings_total", &[], ledger.refused);
    }
    if !status.sinks.is_empty() {
        count("fieldgate_delivered_readings_total", &[], status.delivered);
    }
}

fn record_identity(identity: &IdentityStatus) {
    level(
        "fieldgate_identity_attestation_seconds",
        &[],
        identity.attestation_secs,
    );
    count("fieldgate_identity_signatures_total", &[], identity.signatures);
    count("fieldgate_identity_errors_total", &[], identity.signing_errors);
    if let Some(tpm) = &identity.tpm {
        for (name, value) in [
            ("fieldgate_tpm_lockout", u32::from(tpm.in_lockout)),
            ("fieldgate_tpm_lockout_failures", tpm.failures),
            ("fieldgate_tpm_lockout_failures_max", tpm.failures_max),
            ("fieldgate_tpm_lockout_forgiven_seconds", tpm.forgiven_every_secs),
        ] {
            level(name, &[], value.into());
        }
    }
    let Some(worker) = &identity.worker else { return };
    for condition in [
        Condition::Running,
        Condition::Restarting,
        Condition::PinRefused,
        Condition::LoginDeadly,
    ] {
        let name = condition.name();
        level(
            "fieldgate_token_worker_condition",
            &[("condition", name)],
            u64::from(worker.condition == name),
        );
    }
    for (cause, restarts) in [
        ("crash", worker.restarts_crash),
        ("hang", worker.restarts_hang),
        ("renewal", worker.restarts_renewal),
    ] {
        count(
            "fieldgate_token_worker_restarts_total",
            &[("cause", cause)],
            restarts,
        );
    }
    if identity.key == "token" {
        level(
            "fieldgate_token_present",
            &[],
            u64::from(worker.token_present == Some(true)),
        );
    }
}

fn record_network(status: &NodeStatus) {
    let network = &status.network;
    level("fieldgate_links", &[], network.links.len() as u64);
    level(
        "fieldgate_link_queued_bytes",
        &[],
        network.links.iter().map(|link| link.queued_bytes).sum(),
    );
    level("fieldgate_channels", &[], network.channels);
    level("fieldgate_relay_names", &[], network.registered.len() as u64);
    for relay in &network.relays {
        let labels = [("relay", relay.name.as_str()), ("address", &relay.address)];
        level("fieldgate_relay_neighbour_up", &labels, u64::from(relay.is_up()));
    }
    count("fieldgate_handshakes_total", &[], network.handshakes);
    count(
        "fieldgate_handshake_failures_total",
        &[],
        network.handshake_failures,
    );
    count("fieldgate_records_refused_total", &[], network.records_refused);
    count("fieldgate_link_dials_failed_total", &[], network.dials_failed);
    count(
        "fieldgate_link_websockets_refused_total",
        &[],
        network.websockets_refused,
    );
    let quic = network.quic;
    count("fieldgate_link_quic_refused_total", &[], quic.refused);
    count("fieldgate_link_quic_retried_total", &[], quic.retried);
    count("fieldgate_link_quic_failed_total", &[], quic.failed);
    count("fieldgate_link_quic_moved_total", &[], quic.moved);
    count(
        "fieldgate_relay_forwarded_frames_total",
        &[],
        network.forwarded_frames,
    );
    count(
        "fieldgate_relay_forwarded_bytes_total",
        &[],
        network.forwarded_bytes,
    );
    for (reason, dropped) in &network.dropped {
        count("fieldgate_dropped_frames_total", &[("reason", reason)], *dropped);
    }
}

/// Serves `GET /metrics` and `GET /healthz` on `listener` until the runtime ends.
pub(crate) async fn serve(listener: TcpListener, node: Rc<NodeHandle>) {
    let exposition = Rc::new(Exposition::new());
    let places = Arc::new(Semaphore::new(SCRAPES_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (node, exposition) = (Rc::clone(&node), Rc::clone(&exposition));
                tokio::task::spawn_local(async move {
                    if time::timeout(SCRAPE_TIME_MAX, answer(stream, &node, &exposition))
                        .await
                        .is_err()
                    {
                        tracing::debug!(%peer, "scrape took too long");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "scrape not accepted");
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, node: &NodeHandle, exposition: &Exposition) {
    let mut request = Vec::with_capacity(1024);
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        if request.len() > REQUEST_BYTES_MAX || !matches!(stream.read_buf(&mut request).await, Ok(1..)) {
            return;
        }
    }
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let (code, kind, body) = match line {
        line if line.starts_with(b"GET /metrics ") => (
            "200 OK",
            "text/plain; version=0.0.4; charset=utf-8",
            exposition.render(&node.status().await),
        ),
        line if line.starts_with(b"GET /healthz ") => {
            let status = node.status().await;
            match status.health {
                Health::Healthy => ("200 OK", "text/plain; charset=utf-8", "healthy\n".to_owned()),
                Health::Degraded => (
                    "503 Service Unavailable",
                    "text/plain; charset=utf-8",
                    status.reasons.join("\n") + "\n",
                ),
            }
        }
        _ => (
            "404 Not Found",
            "text/plain; charset=utf-8",
            "try /metrics or /healthz\n".to_owned(),
        ),
    };
    let head = format!(
        "HTTP/1.1 {code}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if stream.write_all(head.as_bytes()).await.is_ok() {
        // A scraper that hangs up early loses only its own answer.
        let _ = stream.write_all(body.as_bytes()).await;
    }
}

/// Binds the listener for [`serve`].
///
/// # Errors
/// Those of bind, with the address in the text.
pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| std::io::Error::new(error.kind(), format!("metrics on {address}: {error}")))
}

/// Scrapes served at the same time.
const SCRAPES_MAX: usize = 8;
/// Longest time for one scrape.
const SCRAPE_TIME_MAX: Duration = Duration::from_secs(5);
/// Largest request head, in bytes.
const REQUEST_BYTES_MAX: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        authority::AuthorityStatus,
        status::{
            JournalStatus, LaneStatus, ShardStatus, SinkStatus, SourceStatus, TrustStatus, UplinkStatus,
        },
    };

    #[test]
    fn every_recorded_name_has_help_and_type() {
        let status = NodeStatus {
            shards: vec![ShardStatus {
                readings: 12,
                ..ShardStatus::default()
            }],
            mqtt: Some(crate::status::MqttStatus::default()),
            journal: Some(JournalStatus {
                lanes: vec![LaneStatus {
                    class: "bulk".to_owned(),
                    discarded: 5,
                    ..LaneStatus::default()
                }],
                ..JournalStatus::default()
            }),
            uplinks: vec![UplinkStatus::default()],
            sources: vec![SourceStatus {
                lost_by: vec![("expired".to_owned(), 7)],
                ..SourceStatus::default()
            }],
            sinks: vec![SinkStatus::default()],
            ledger: Some(crate::status::LedgerStatus::default()),
            trust: Some(TrustStatus {
                self_revoked: true,
                ..TrustStatus::default()
            }),
            authority: Some(AuthorityStatus {
                requests: [("enrol/done".to_owned(), 3)].into(),
                ..AuthorityStatus::default()
            }),
            ..NodeStatus::default()
        };
        let text = Exposition::new().render(&status);
        assert!(
            text.contains("fieldgate_ingested_readings_total{shard=\"0\"} 12"),
            "{text}"
        );
        assert!(text.contains("fieldgate_trust_self_revoked 1"), "{text}");
        let discarded = "fieldgate_journal_discarded_readings_total{class=\"bulk\",reason=\"discarded\"} 5";
        assert!(text.contains(discarded), "{text}");
        assert!(text.contains("reason=\"expired\"} 7"), "{text}");
        assert!(text.contains("fieldgate_trust_enrolled 0"), "{text}");
        assert!(
            text.contains("fieldgate_authority_requests_total{kind=\"enrol\",outcome=\"done\"} 3"),
            "{text}"
        );
        for line in text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
        {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
        }
    }
}
