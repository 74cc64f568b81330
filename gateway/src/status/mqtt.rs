//! Sessions, subscriptions and retained messages in the status.

use std::fmt::Write as _;

use fieldgate_mqtt::broker::counters::BrokerCounters;
use serde::{Deserialize, Serialize};

/// The broker between devices.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct MqttStatus {
    /// Sessions, with and without a connection.
    pub(crate) sessions: u64,
    /// Sessions with a connection.
    pub(crate) connected: u64,
    /// Subscriptions of all sessions.
    pub(crate) subscriptions: u64,
    /// Messages that wait for sessions.
    pub(crate) queued: u64,
    /// Memory of these messages.
    pub(crate) queued_bytes: u64,
    /// Retained messages.
    pub(crate) retained: u64,
    /// Memory of retained messages.
    pub(crate) retained_bytes: u64,
    /// Messages given to connections since the start.
    pub(crate) delivered: u64,
    /// Messages dropped because a session's queue was full.
    pub(crate) dropped_queue_full: u64,
    /// Messages at QoS 0 dropped because a client or a shard was behind.
    pub(crate) dropped_behind: u64,
    /// Messages dropped because they had expired.
    pub(crate) dropped_expired: u64,
    /// Clients disconnected because their queue was full.
    pub(crate) slow_consumers: u64,
    /// Messages not retained because there was no room.
    pub(crate) retained_refused: u64,
    /// Clients refused because there were too many sessions.
    pub(crate) sessions_refused: u64,
    /// Subscriptions refused because the session had too many.
    pub(crate) subscriptions_refused: u64,
    /// Wills published.
    pub(crate) wills: u64,
    /// Wills that the journal did not take.
    pub(crate) wills_lost: u64,
    /// Why sessions cannot be written to the disk, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

impl MqttStatus {
    /// Takes the broker's counts.
    pub(crate) fn new(counters: &BrokerCounters) -> Self {
        Self {
            sessions: counters.sessions,
            connected: counters.connected,
            subscriptions: counters.subscriptions,
            queued: counters.queued,
            queued_bytes: counters.queued_bytes,
            retained: counters.retained,
            retained_bytes: counters.retained_bytes,
            delivered: counters.delivered,
            dropped_queue_full: counters.dropped_queue_full,
            dropped_expired: counters.dropped_expired,
            slow_consumers: counters.slow_consumers,
            retained_refused: counters.retained_refused,
            sessions_refused: counters.sessions_refused,
            subscriptions_refused: counters.subscriptions_refused,
            wills: counters.wills,
            ..Self::default()
        }
    }

    /// Returns what is wrong, if anything is.
    pub(super) fn reason(&self) -> Option<String> {
        let problem = self.problem.as_ref()?;
        Some(format!(
            "MQTT sessions cannot be written ({problem}): who publishes to them, or retains, is not acknowledged"
        ))
    }

    /// Writes the status for a person.
    pub(super) fn write_text(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "  sessions   {} ({} connected), {} subscriptions, {} messages wait, {} retained",
            self.sessions, self.connected, self.subscriptions, self.queued, self.retained
        )?;
        let dropped = self.dropped_queue_full + self.dropped_behind;
        if dropped > 0 {
            writeln!(
                out,
                "             {dropped} messages dropped for clients that did not keep up, {} of them disconnected",
                self.slow_consumers
            )?;
        }
        Ok(())
    }

    /// Returns the names and values of what only grows, and of what goes up and down.
    pub(crate) const fn samples(&self) -> (Samples<6>, Samples<4>) {
        (
            [
                ("fieldgate_mqtt_delivered_total", self.delivered),
                (
                    "fieldgate_mqtt_dropped_total",
                    self.dropped_queue_full + self.dropped_behind + self.dropped_expired,
                ),
                ("fieldgate_mqtt_slow_consumers_total", self.slow_consumers),
                ("fieldgate_mqtt_retained_refused_total", self.retained_refused),
                ("fieldgate_mqtt_sessions_refused_total", self.sessions_refused),
                ("fieldgate_mqtt_wills_total", self.wills),
            ],
            [
                ("fieldgate_mqtt_sessions", self.sessions),
                ("fieldgate_mqtt_subscriptions", self.subscriptions),
                ("fieldgate_mqtt_queued_bytes", self.queued_bytes),
                ("fieldgate_mqtt_retained_bytes", self.retained_bytes),
            ],
        )
    }
}
/// Names of metrics and their values.
pub(crate) type Samples<const N: usize> = [(&'static str, u64); N];
