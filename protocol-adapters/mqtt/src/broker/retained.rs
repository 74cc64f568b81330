//! Retained messages: the last of each topic that its publisher wanted kept (MQTT 5.0 §3.3.1.3).

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use fieldgate_adapters::topic::filter_matches;
use fieldgate_proto::time::Instant;

use super::{limits::Limits, message::Message};

/// The retained messages of all topics.
#[derive(Debug, Default)]
pub(super) struct Retained {
    messages: BTreeMap<Box<str>, Arc<Message>>,
    bytes: usize,
}

/// What became of a message to be retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It stands for its topic now.
    Stored,
    /// It was empty, and took away what stood for its topic.
    Removed,
    /// It was empty, and nothing stood there.
    Nothing,
    /// There is no room.
    Refused,
}

impl Retained {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a message, or forgets the topic's if the message is empty (`[MQTT-3.3.1-6]`).
    pub(super) fn keep(&mut self, message: &Arc<Message>, limits: &Limits) -> Kept {
        if message.payload.is_empty() {
            return if self.remove(&message.topic) {
                Kept::Removed
            } else {
                Kept::Nothing
            };
        }
        let old = self.messages.get(&message.topic).map(|old| old.bytes());
        let bytes = self.bytes - old.unwrap_or(0) + message.bytes();
        if bytes > limits.retained_bytes_max || old.is_none() && self.len() >= limits.retained_max {
            return Kept::Refused;
        }
        self.bytes = bytes;
        self.messages.insert(message.topic.clone(), Arc::clone(message));
        Kept::Stored
    }

    fn remove(&mut self, topic: &str) -> bool {
        let Some(old) = self.messages.remove(topic) else {
            return false;
        };
        self.bytes -= old.bytes();
        true
    }

    /// Returns the messages whose topics `filter` stands for, ordered by topic.
    pub(super) fn matching<'a>(&'a self, filter: &'a str) -> impl Iterator<Item = &'a Arc<Message>> {
        // Topics that begin like the filter does before its first wildcard stand together.
        let wildcard = filter.find(['+', '#']);
        let prefix = &filter[..wildcard.unwrap_or(filter.len())];
        // "a/#" stands for "a" as well.
        let start = prefix.strip_suffix('/').unwrap_or(prefix);
        self.messages
            .range::<str, _>((Bound::Included(start), Bound::Unbounded))
            .take_while(move |(topic, _)| topic.starts_with(start))
            .filter(move |(topic, _)| filter_matches(filter, topic))
            .map(|(_, message)| message)
    }

    /// Forgets what has expired and returns its topics.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Box<str>> {
        let expired: Vec<Box<str>> = self
            .messages
            .values()
            .filter(|message| message.is_expired(now))
            .map(|message| message.topic.clone())
            .collect();
        for topic in &expired {
            self.remove(topic);
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{broker::tests::message, packet::Qos};

    fn keep(retained: &mut Retained, topic: &str, payload: &str, limits: &Limits) -> Kept {
        let message = Message {
            retain: true,
            ..message(topic, payload, Qos::AtLeastOnce)
        };
        retained.keep(&Arc::new(message), limits)
    }

    #[test]
    fn the_room_is_bounded_in_number_and_bytes() {
        let limits = Limits {
            retained_max: 2,
            ..Limits::default()
        };
        let mut retained = Retained::default();
        assert_eq!(keep(&mut retained, "a", "1", &limits), Kept::Stored);
        assert_eq!(keep(&mut retained, "b", "1", &limits), Kept::Stored);
        assert_eq!(keep(&mut retained, "c", "1", &limits), Kept::Refused);
        assert_eq!(keep(&mut retained, "b", "22", &limits), Kept::Stored, "replaces");
        assert_eq!(keep(&mut retained, "x", "", &limits), Kept::Nothing);
        assert_eq!(keep(&mut retained, "a", "", &limits), Kept::Removed);
        let limits = Limits {
            retained_bytes_max: retained.bytes(),
            ..Limits::default()
        };
        assert_eq!(keep(&mut retained, "c", "1", &limits), Kept::Refused);
        assert_eq!(keep(&mut retained, "b", "22", &limits), Kept::Stored);
        assert_eq!(keep(&mut retained, "b", "", &limits), Kept::Removed);
        assert_eq!((retained.len(), retained.bytes()), (0, 0));
    }

    proptest! {
        #[test]
        fn finds_what_the_definition_of_matching_says(
            topics in proptest::collection::btree_set("[ab$é/]{1,5}", 0..20),
            filter in "(a|b|é|\\$|\\+)(/(a|b|é|\\+)?){0,3}(/#)?|#",
        ) {
            let mut retained = Retained::default();
            for topic in &topics {
                keep(&mut retained, topic, "x", &Limits::default());
            }
            let found: Vec<&str> = retained.matching(&filter).map(|message| &*message.topic).collect();
            let expected: Vec<&str> = topics
                .iter()
                .map(String::as_str)
                .filter(|topic| filter_matches(&filter, topic))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
