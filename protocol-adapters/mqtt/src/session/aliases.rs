//! Topic aliases of both directions (MQTT 5.0 §3.3.2.3.4).

use std::collections::BTreeMap;

use crate::{reason::ReasonCode, violation::Violation};

/// The topics behind a client's aliases; takes no memory until the first is defined.
#[derive(Debug, Default)]
pub(super) struct TopicAliases {
    /// The topic of alias i + 1; empty if it is not defined.
    topics: Vec<String>,
}

impl TopicAliases {
    /// Returns the topic of a PUBLISH, and remembers it if an alias came with it.
    pub(super) fn resolve<'a>(
        &'a mut self,
        alias: Option<u16>,
        topic: &'a str,
        maximum: u16,
    ) -> Result<&'a str, Violation> {
        let Some(alias) = alias else {
            return Ok(topic);
        };
        if alias == 0 || alias > maximum {
            let reason = ReasonCode::TopicAliasInvalid;
            return Err(Violation::Rule {
                reason,
                what: "the topic alias is above the maximum ([MQTT-3.3.2-9])",
            });
        }
        let index = usize::from(alias) - 1;
        if topic.is_empty() {
            return self
                .topics
                .get(index)
                .map(String::as_str)
                .filter(|topic| !topic.is_empty())
                .ok_or(Violation::protocol("the topic alias is not defined (§3.3.2.3.4)"));
        }
        let known = self.topics.get(index).map_or("", String::as_str);
        if known != topic {
            let others = self.heap_bytes() - self.topics.get(index).map_or(0, String::capacity);
            if others + topic.len() > ALIAS_BYTES_MAX {
                let reason = ReasonCode::QuotaExceeded;
                return Err(Violation::Rule {
                    reason,
                    what: "the topics behind the aliases take too many bytes",
                });
            }
            if self.topics.len() <= index {
                self.topics.resize_with(index + 1, String::new);
            }
            if let Some(place) = self.topics.get_mut(index) {
                *place = topic.to_owned();
            }
        }
        Ok(topic)
    }

    /// Returns the bytes of the topics.
    pub(super) fn heap_bytes(&self) -> usize {
        self.topics.iter().map(String::capacity).sum()
    }
}

/// Bytes of topics behind the aliases of one client at most.
const ALIAS_BYTES_MAX: usize = 16_384;

/// The aliases by which the gateway calls topics towards a client; takes no memory until the first is given.
#[derive(Debug, Default)]
pub(super) struct GivenAliases {
    maximum: u16,
    by_topic: BTreeMap<Box<str>, u16>,
    bytes: usize,
}

/// How a topic is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// By its name alone.
    Name,
    /// By its name, and the alias that stands for it from now on.
    Define(u16),
    /// By its alias alone.
    Alias(u16),
}

impl GivenAliases {
    /// Gives at most `maximum` aliases, which the client takes.
    pub(super) fn new(maximum: u16) -> Self {
        Self {
            maximum: maximum.min(GIVEN_MAX),
            ..Self::default()
        }
    }

    /// Returns how to send a topic. The first topics get the aliases; a gateway's devices have few.
    pub(super) fn naming(&self, topic: &str) -> Naming {
        match self.by_topic.get(topic) {
            Some(alias) => Naming::Alias(*alias),
            None if self.by_topic.len() < usize::from(self.maximum)
                && self.bytes + topic.len() <= ALIAS_BYTES_MAX =>
            {
                Naming::Define(u16::try_from(self.by_topic.len()).unwrap_or(u16::MAX) + 1)
            }
            None => Naming::Name,
        }
    }

    /// Notes that a definition was sent.
    pub(super) fn note(&mut self, topic: &str, alias: u16) {
        self.bytes += topic.len();
        self.by_topic.insert(topic.into(), alias);
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes + self.by_topic.len() * size_of::<(Box<str>, u16)>()
    }
}

/// Aliases given to one client at most.
const GIVEN_MAX: u16 = 32;
