//! Results that are owed to brokers: which command was brought by which one, and where its result is awaited.
//!
//! What is owed is kept beside the command, and until the broker has acknowledged the result: a restart of the collector loses no
//! result, but may tell one twice.

use std::collections::BTreeMap;

use fieldgate_proto::{
    command::CommandId,
    wire::{Reader, WireError, put_bytes_varint},
};
use tokio::sync::mpsc;

use crate::control::command::CommandState;

/// Where a command came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Name of the sink whose broker brought it.
    pub(crate) sink: String,
    /// What its sender calls it, so that a copy is recognised.
    pub(crate) id: Option<CommandId>,
    /// Where the result is awaited.
    pub(crate) reply_to: ReplyTo,
}

/// Where a result is awaited (MQTT 5.0 §4.10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplyTo {
    /// The response topic; `None` for the usual one. At most [`REPLY_TEXT_MAX`] bytes.
    pub(crate) topic: Option<String>,
    /// Correlation data. At most [`REPLY_TEXT_MAX`] bytes.
    pub(crate) correlation_data: Option<Vec<u8>>,
}

/// A result for a broker.
#[derive(Clone, Debug)]
pub(crate) struct BrokerResult {
    /// Which command; `None` for one that was not taken.
    pub(crate) id: Option<CommandId>,
    /// Where it is awaited.
    pub(crate) reply_to: ReplyTo,
    /// What has become of it.
    pub(crate) state: CommandState,
    /// Why it was not taken, if so.
    pub(crate) refusal: Option<String>,
}

/// The way to the task that talks to a broker.
#[derive(Debug)]
pub(crate) enum InboxWord {
    /// A connection to the broker is there: results go this way from now on.
    Open {
        /// Name of the sink.
        sink: String,
        /// Where results go.
        results: mpsc::Sender<BrokerResult>,
    },
    /// The broker has acknowledged a result.
    Told {
        /// Of which command.
        id: CommandId,
        /// The state that was told.
        state: String,
    },
}

/// What is owed to brokers. Bounded by the commands that the collector keeps.
#[derive(Debug, Default)]
pub(crate) struct OwedResults {
    owed: BTreeMap<CommandId, Owed>,
    inboxes: BTreeMap<String, mpsc::Sender<BrokerResult>>,
}

#[derive(Debug)]
struct Owed {
    sink: String,
    reply_to: ReplyTo,
    /// The state that the broker has acknowledged.
    told: Option<String>,
}

impl OwedResults {
    /// Takes note that a result is owed; returns what is to be kept of it.
    pub(crate) fn note(&mut self, id: CommandId, origin: Origin) -> Vec<u8> {
        let record = encode(&id, &origin);
        let owed = Owed {
            sink: origin.sink,
            reply_to: origin.reply_to,
            told: None,
        };
        self.owed.insert(id, owed);
        record
    }

    /// Takes up what was kept.
    ///
    /// # Errors
    /// If it is no such record.
    pub(crate) fn restore(&mut self, record: &[u8]) -> Result<CommandId, WireError> {
        let (id, owed) = decode(record)?;
        self.owed.insert(id, owed);
        Ok(id)
    }

    /// A command is not remembered any more; returns whether something is kept of it here.
    pub(crate) fn forget(&mut self, id: &CommandId) -> bool {
        self.owed.remove(id).is_some()
    }

    /// Returns the commands whose results a sink's broker has not acknowledged.
    pub(crate) fn untold(&self, sink: &str) -> Vec<CommandId> {
        let untold = self.owed.iter().filter(|(_, owed)| owed.sink == sink);
        untold
            .filter(|(_, owed)| owed.told.is_none())
            .map(|(id, _)| *id)
            .collect()
    }

    /// Sends the results for a sink's broker this way from now on.
    pub(crate) fn open(&mut self, sink: String, results: mpsc::Sender<BrokerResult>) {
        self.inboxes.insert(sink, results);
    }

    /// A command has come to its end. A result that finds no room is told with the next connection.
    pub(crate) fn finish(&mut self, id: CommandId, state: impl FnOnce() -> CommandState) {
        let Some(owed) = self.owed.get_mut(&id) else {
            return;
        };
        owed.told = None;
        let Some(inbox) = self.inboxes.get(&owed.sink) else {
            return;
        };
        let result = BrokerResult {
            id: Some(id),
            reply_to: owed.reply_to.clone(),
            state: state(),
            refusal: None,
        };
        if inbox.try_send(result).is_err() {
            tracing::debug!(sink = owed.sink, "the broker is away: its result is told later");
        }
    }

    /// The broker has acknowledged a result; returns whether that is all there is to tell, so that nothing is kept any more.
    /// `better_may_come` says that another end may follow, as after `unconfirmed`.
    pub(crate) fn told(
        &mut self,
        id: &CommandId,
        state: String,
        (now, better_may_come): (&str, bool),
    ) -> bool {
        let is_last = state == now && !better_may_come;
        if is_last {
            return self.forget(id);
        }
        if state == now
            && let Some(owed) = self.owed.get_mut(id)
        {
            owed.told = Some(state);
        }
        false
    }
}

fn encode(id: &CommandId, origin: &Origin) -> Vec<u8> {
    let ReplyTo {
        topic,
        correlation_data,
    } = &origin.reply_to;
    let mut out = vec![VERSION];
    out.extend_from_slice(id);
    put_bytes_varint(&mut out, origin.sink.as_bytes());
    for part in [topic.as_deref().map(str::as_bytes), correlation_data.as_deref()] {
        out.push(u8::from(part.is_some()));
        put_bytes_varint(&mut out, part.unwrap_or_default());
    }
    out
}

fn decode(record: &[u8]) -> Result<(CommandId, Owed), WireError> {
    let text = |field: &'static str, bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).map(ToOwned::to_owned);
        text.map_err(|_| WireError::Utf8 { field })
    };
    let mut reader = Reader::new(record);
    let version = reader.u8("version")?;
    if version != VERSION {
        return Err(WireError::Value {
            field: "version",
            value: version.into(),
        });
    }
    let id = reader.array("id")?;
    let sink = text("sink", reader.bytes_varint("sink")?)?;
    let mut part = |field| -> Result<Option<&[u8]>, WireError> {
        let is_there = match reader.u8(field)? {
            0 => false,
            1 => true,
            other => {
                let value = other.into();
                return Err(WireError::Value { field, value });
            }
        };
        let bytes = reader.bytes_varint(field)?;
        Ok(is_there.then_some(bytes))
    };
    let topic = part("response topic")?.map(|bytes| text("response topic", bytes));
    let correlation_data = part("correlation data")?.map(<[u8]>::to_vec);
    reader.finish()?;
    let reply_to = ReplyTo {
        topic: topic.transpose()?,
        correlation_data,
    };
    let told = None;
    Ok((id, Owed { sink, reply_to, told }))
}

/// Longest response topic and longest correlation data, in bytes: they are kept with each command.
pub(crate) const REPLY_TEXT_MAX: usize = 1024;
/// Results that wait for a broker: as many as there can be commands.
pub(crate) const RESULTS_MAX: usize = 4096;
/// First byte of a record.
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state(name: &str) -> CommandState {
        CommandState {
            id: "00".repeat(16),
            gateway: "g".to_owned(),
            device: "d".to_owned(),
            resource: "r".to_owned(),
            submitted_ms: 0,
            deadline_ms: 0,
            cancelled: false,
            state: name.to_owned(),
            finished: true,
            succeeded: false,
            reason_code: None,
            answer: None,
        }
    }

    fn origin(sink: &str) -> Origin {
        Origin {
            sink: sink.to_owned(),
            id: None,
            reply_to: ReplyTo::default(),
        }
    }

    #[test]
    fn a_result_is_owed_until_its_broker_has_it() {
        let mut owed = OwedResults::default();
        let (one, other) = ([1; 16], [2; 16]);
        owed.note(one, origin("a"));
        owed.note(other, origin("b"));
        // Nobody is there yet.
        owed.finish(one, || state("delivered"));
        assert_eq!(owed.untold("a"), [one]);
        let (results, mut inbox) = mpsc::channel(1);
        owed.open("a".to_owned(), results);
        owed.finish(one, || state("delivered"));
        owed.finish(other, || state("delivered"));
        assert_eq!(inbox.try_recv().map(|result| result.id), Ok(Some(one)));
        assert!(inbox.try_recv().is_err(), "the other one is for another broker");
        assert!(owed.told(&one, "delivered".to_owned(), ("delivered", false)));
        assert!(owed.untold("a").is_empty());
        assert!(!owed.told(&one, "delivered".to_owned(), ("delivered", false)));
    }

    #[test]
    fn a_better_end_is_told_too() {
        let mut owed = OwedResults::default();
        let id = [1; 16];
        owed.note(id, origin("a"));
        let unconfirmed = || "unconfirmed".to_owned();
        assert!(!owed.told(&id, unconfirmed(), ("unconfirmed", true)));
        assert!(owed.untold("a").is_empty());
        owed.finish(id, || state("answered"));
        assert_eq!(owed.untold("a"), [id]);
        // The word on the first comes late.
        assert!(!owed.told(&id, unconfirmed(), ("answered", false)));
        assert_eq!(owed.untold("a"), [id]);
        assert!(owed.told(&id, "answered".to_owned(), ("answered", false)));
    }

    proptest! {
        #[test]
        fn what_is_kept_comes_back(
            id: CommandId,
            sink: String,
            topic: Option<String>,
            correlation_data: Option<Vec<u8>>,
        ) {
            let reply_to = ReplyTo { topic, correlation_data };
            let mut owed = OwedResults::default();
            let origin = Origin { sink: sink.clone(), id: None, reply_to: reply_to.clone() };
            let record = owed.note(id, origin);
            let (decoded, back) = decode(&record).expect("it was written here");
            prop_assert_eq!((decoded, back.sink, back.reply_to), (id, sink, reply_to));
            // No prefix of it is taken for a whole one.
            prop_assert!((0..record.len()).all(|len| decode(&record[..len]).is_err()));
        }

        #[test]
        fn damaged_records_are_refused_without_harm(record: Vec<u8>) {
            drop(decode(&record));
        }
    }
}
