//! What the gateway says of itself below `$SYS`, to those who may hear it.

use std::{sync::Arc, time::Duration};

use fieldgate_adapters::topic::filter_matches;
use fieldgate_proto::time::{Instant, Now};

use super::{Broker, message::Message};
use crate::packet::Qos;

/// When the gateway spoke of itself, and what does not change.
#[derive(Debug)]
pub(super) struct System {
    version: Box<str>,
    started: Instant,
    due: Instant,
}

impl System {
    pub(super) fn new(version: &str, now: Instant) -> Self {
        Self {
            version: version.into(),
            started: now,
            due: now + INTERVAL,
        }
    }

    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// Returns whether it is time to speak, and if so sets the next time.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.due;
        if is_due {
            self.due = now + INTERVAL;
        }
        is_due
    }
}

impl Broker {
    /// Sends what changes to those who want it.
    pub(super) fn report_system(&mut self, now: Now) {
        if !self.subscriptions.has_first_level("$SYS") {
            return;
        }
        for message in self.system_messages(now, "$SYS/#") {
            self.route_owned(now, &message);
        }
    }

    /// Returns the messages below `$SYS` that a filter stands for.
    pub(super) fn system_messages(&self, now: Now, filter: &str) -> Vec<Arc<Message>> {
        if !filter.starts_with("$SYS/") {
            return Vec::new();
        }
        let counters = self.counters();
        let uptime = (now.instant - self.system.started).as_secs();
        let values: [(&str, String); 8] = [
            ("$SYS/broker/version", self.system.version.to_string()),
            ("$SYS/broker/uptime", uptime.to_string()),
            ("$SYS/broker/clients/connected", counters.connected.to_string()),
            ("$SYS/broker/clients/total", counters.sessions.to_string()),
            (
                "$SYS/broker/subscriptions/count",
                counters.subscriptions.to_string(),
            ),
            (
                "$SYS/broker/retained messages/count",
                counters.retained.to_string(),
            ),
            ("$SYS/broker/messages/sent", counters.delivered.to_string()),
            (
                "$SYS/broker/messages/dropped",
                counters.dropped_queue_full.to_string(),
            ),
        ];
        values
            .into_iter()
            .filter(|(topic, _)| filter_matches(filter, topic))
            .map(|(topic, value)| {
                Arc::new(Message {
                    device: "gateway".into(),
                    topic: topic.into(),
                    payload: value.into_bytes().into(),
                    qos: Qos::AtMostOnce,
                    retain: false,
                    payload_is_text: true,
                    content_type: None,
                    response_topic: None,
                    correlation_data: None,
                    user_properties: Box::default(),
                    expires_at: None,
                })
            })
            .collect()
    }
}

/// Time between two reports.
const INTERVAL: Duration = Duration::from_secs(10);
