//! What a shard without the journal sends to the one that has it: its clients' messages as bytes, and between them, in order,
//! what its sessions ask of the broker.
//!
//! One entry: kind (1 byte: the class of a message, or [`REQUEST`]), connection (8), and for a message: flags (2), length of
//! the reading (4), what the flags announce, the encoded reading. Numbers are big-endian. The bytes never leave the process.

use std::collections::VecDeque;

use fieldgate_adapters::{ingest::Refused, reading::Reading};
use fieldgate_mqtt::{
    exchange::{Envelope, Publication, Request},
    packet::{PacketIdentifier, Qos},
};
use fieldgate_proto::wire::{Reader, WireError};

/// Messages and requests of a shard's clients.
#[derive(Default)]
pub(crate) struct FieldBatch {
    /// Which shard.
    pub(crate) shard: usize,
    /// The shard's ticket of the last message.
    pub(crate) last_ticket: u64,
    bytes: Vec<u8>,
    requests: VecDeque<Request>,
    /// Bytes that were taken.
    taken: usize,
}

/// One entry of a batch.
pub(crate) enum Entry<'a> {
    /// A message.
    Message(Message<'a>),
    /// A request of a session.
    Request {
        /// Which connection.
        connection: u64,
        /// What it wants.
        request: Request,
    },
}

/// A message in a batch.
pub(crate) struct Message<'a> {
    /// Which connection it came from.
    pub(crate) connection: u64,
    /// The class of the reading.
    pub(crate) class: u8,
    /// What goes to subscribers besides the reading.
    pub(crate) envelope: Envelope<'a>,
    /// The encoded reading.
    pub(crate) reading: &'a [u8],
}

impl FieldBatch {
    /// Returns the bytes of the messages.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Returns whether there is nothing in it.
    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends a message.
    ///
    /// # Errors
    /// [`Refused::TooLarge`] if the reading cannot be encoded; the batch is then unchanged.
    pub(crate) fn push(&mut self, connection: u64, publication: &Publication<'_>) -> Result<(), Refused> {
        let Publication { reading, envelope } = publication;
        let len = reading.encoded_len().map_err(|_| Refused::TooLarge)?;
        let len = u32::try_from(len).map_err(|_| Refused::TooLarge)?;
        let start = self.bytes.len();
        let out = &mut self.bytes;
        out.push(reading.class.code());
        out.extend_from_slice(&connection.to_be_bytes());
        out.extend_from_slice(&flags(envelope).to_be_bytes());
        out.extend_from_slice(&len.to_be_bytes());
        if let Some(packet_id) = envelope.kept_packet_id {
            out.extend_from_slice(&packet_id.get().to_be_bytes());
        }
        if let Some(secs) = envelope.expiry_secs {
            out.extend_from_slice(&secs.to_be_bytes());
        }
        let texts = [
            envelope.response_topic.map(str::as_bytes),
            envelope.correlation_data,
        ];
        for bytes in texts.into_iter().flatten() {
            // They came in fields of 16-bit lengths.
            let len = u16::try_from(bytes.len()).map_err(|_| Refused::TooLarge)?;
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(bytes);
        }
        reading.encode(out).map_err(|_| {
            self.bytes.truncate(start);
            Refused::TooLarge
        })
    }

    /// Appends a request.
    pub(crate) fn push_request(&mut self, connection: u64, request: Request) {
        self.bytes.push(REQUEST);
        self.bytes.extend_from_slice(&connection.to_be_bytes());
        self.requests.push_back(request);
    }

    /// Takes the next entry; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Entry<'_>> {
        let rest = self.bytes.get(self.taken..)?;
        let mut reader = Reader::new(rest);
        let (kind, connection) = (reader.u8("kind").ok()?, reader.u64("connection").ok()?);
        if kind == REQUEST {
            self.taken += rest.len() - reader.rest().len();
            let request = self.requests.pop_front()?;
            return Some(Entry::Request { connection, request });
        }
        // The bytes were written above, in this process.
        let (envelope, reading) = take_message(&mut reader).ok()?;
        self.taken += rest.len() - reader.rest().len();
        Some(Entry::Message(Message {
            connection,
            class: kind,
            envelope,
            reading,
        }))
    }
}

impl Message<'_> {
    /// Returns the message as its publisher sent it.
    pub(crate) fn publication(&self) -> Option<Publication<'_>> {
        Some(Publication {
            reading: Reading::decode(self.reading).ok()?,
            envelope: self.envelope,
        })
    }
}

fn flags(envelope: &Envelope<'_>) -> u16 {
    u16::from(envelope.qos.code())
        | if envelope.retain { RETAIN } else { 0 }
        | if envelope.payload_is_text { TEXT } else { 0 }
        | if envelope.is_local { LOCAL } else { 0 }
        | if envelope.kept_packet_id.is_some() {
            PACKET_ID
        } else {
            0
        }
        | if envelope.expiry_secs.is_some() { EXPIRY } else { 0 }
        | if envelope.response_topic.is_some() {
            RESPONSE_TOPIC
        } else {
            0
        }
        | if envelope.correlation_data.is_some() {
            CORRELATION_DATA
        } else {
            0
        }
}

fn take_message<'a>(reader: &mut Reader<'a>) -> Result<(Envelope<'a>, &'a [u8]), WireError> {
    let flags = reader.u16("flags")?;
    let len = reader.u32("length of the reading")?;
    let has = |flag: u16| flags & flag != 0;
    let kept_packet_id = match has(PACKET_ID) {
        true => PacketIdentifier::new(reader.u16("packet identifier")?),
        false => None,
    };
    let expiry_secs = has(EXPIRY).then(|| reader.u32("expiry")).transpose()?;
    let response_topic = match has(RESPONSE_TOPIC) {
        true => std::str::from_utf8(reader.bytes16("response topic")?).ok(),
        false => None,
    };
    let correlation_data = has(CORRELATION_DATA)
        .then(|| reader.bytes16("correlation data"))
        .transpose()?;
    let envelope = Envelope {
        qos: Qos::from_code((flags & QOS) as u8).unwrap_or_default(),
        retain: has(RETAIN),
        payload_is_text: has(TEXT),
        is_local: has(LOCAL),
        kept_packet_id,
        expiry_secs,
        response_topic,
        correlation_data,
    };
    Ok((envelope, reader.bytes("reading", len as usize)?))
}

const QOS: u16 = 0b11;
const RETAIN: u16 = 1 << 2;
const TEXT: u16 = 1 << 3;
const LOCAL: u16 = 1 << 4;
const PACKET_ID: u16 = 1 << 5;
const EXPIRY: u16 = 1 << 6;
const RESPONSE_TOPIC: u16 = 1 << 7;
const CORRELATION_DATA: u16 = 1 << 8;
/// The kind of an entry that is a request; classes are below.
const REQUEST: u8 = 0xff;

#[cfg(test)]
mod tests {
    use fieldgate_adapters::{class::Class, reading::UserProperties};
    use fieldgate_proto::time::WallTime;
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    struct Owned {
        connection: u64,
        qos: u8,
        bits: [bool; 3],
        packet_id: Option<u16>,
        expiry_secs: Option<u32>,
        response_topic: Option<String>,
        correlation_data: Option<Vec<u8>>,
        payload: Vec<u8>,
    }

    fn owned() -> impl Strategy<Value = Owned> {
        (
            any::<u64>(),
            0_u8..3,
            any::<[bool; 3]>(),
            proptest::option::of(1_u16..),
            any::<Option<u32>>(),
            proptest::option::of("[a-é/]{1,9}"),
            any::<Option<Vec<u8>>>(),
            any::<Vec<u8>>(),
        )
            .prop_map(
                |(
                    connection,
                    qos,
                    bits,
                    packet_id,
                    expiry_secs,
                    response_topic,
                    correlation_data,
                    payload,
                )| Owned {
                    connection,
                    qos,
                    bits,
                    packet_id,
                    expiry_secs,
                    response_topic,
                    correlation_data,
                    payload,
                },
            )
    }

    fn publication(owned: &Owned) -> Publication<'_> {
        Publication {
            reading: Reading {
                device: "d",
                resource: "t",
                content_type: None,
                user_properties: UserProperties::EMPTY,
                payload: &owned.payload,
                captured_at: WallTime::default(),
                class: Class::Bulk,
            },
            envelope: Envelope {
                qos: Qos::from_code(owned.qos).expect("0 to 2"),
                retain: owned.bits[0],
                payload_is_text: owned.bits[1],
                is_local: owned.bits[2],
                kept_packet_id: owned.packet_id.and_then(PacketIdentifier::new),
                expiry_secs: owned.expiry_secs,
                response_topic: owned.response_topic.as_deref(),
                correlation_data: owned.correlation_data.as_deref(),
            },
        }
    }

    proptest! {
        #[test]
        fn entries_come_back_in_their_order(messages in proptest::collection::vec(owned(), 0..9)) {
            let mut batch = FieldBatch::default();
            for (index, message) in messages.iter().enumerate() {
                batch.push(message.connection, &publication(message)).expect("small");
                if index % 2 == 0 {
                    let packet_id = PacketIdentifier::new(7).expect("not 0");
                    batch.push_request(message.connection, Request::Release { packet_id });
                }
            }
            for (index, message) in messages.iter().enumerate() {
                let Some(Entry::Message(got)) = batch.next() else { panic!("a message") };
                prop_assert_eq!(got.connection, message.connection);
                prop_assert_eq!(got.class, Class::Bulk.code());
                prop_assert_eq!(got.publication(), Some(publication(message)));
                if index % 2 == 0 {
                    let entry = batch.next();
                    let is_request = matches!(entry, Some(Entry::Request { connection, .. }) if connection == message.connection);
                    prop_assert!(is_request);
                }
            }
            prop_assert!(batch.next().is_none());
        }
    }
}
