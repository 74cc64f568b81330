//! Commands to devices, and what devices have to do with them: who can be reached, what became of a command, and answers.

use fieldgate_mqtt::{
    broker::{ConnectionKey, command::CommandOutcome, message::Message},
    exchange::{Envelope, Publication, Request},
    packet::Qos,
};
use fieldgate_proto::{
    command::{CommandId, Delivered, Order},
    time::Now,
};

use super::Exchange;

/// What the trunk is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Whether a device can be reached.
    Presence { device: Box<str>, reachable: bool },
    /// What became of a command.
    Delivered { number: u64, delivered: Delivered },
    /// A device has answered.
    Answer {
        device: Box<str>,
        number: u64,
        id: CommandId,
        content_type: Box<str>,
        payload: Box<[u8]>,
    },
}

/// A command on its way to its device.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) number: u64,
    pub(crate) id: CommandId,
    pub(crate) topic: String,
    pub(crate) order: std::sync::Arc<Order>,
    pub(crate) left: std::time::Duration,
}

impl Exchange {
    /// Has a device told a command.
    pub(crate) fn command(&mut self, now: Now, outbound: Outbound) {
        let Outbound {
            number,
            id,
            topic,
            order,
            left,
        } = outbound;
        let content_type = Some(&order.content_type).filter(|text| !text.is_empty());
        let message = Message {
            device: (*order.device).into(),
            topic: topic.into(),
            payload: (*order.payload).into(),
            qos: Qos::AtLeastOnce,
            retain: false,
            payload_is_text: false,
            content_type: content_type.cloned(),
            response_topic: order.answer_wanted.then(|| answer_topic(&order.device).into()),
            correlation_data: order
                .answer_wanted
                .then(|| correlation(number, &id).to_vec().into()),
            user_properties: Box::default(),
            expires_at: Some(now.instant + left),
        };
        self.broker.command(now, number, message);
    }

    /// Gives the broker a request, and notes whether the device can be reached now.
    pub(super) fn handle_request(&mut self, now: Now, from: ConnectionKey, request: Request) {
        let concerns = matches!(
            request,
            Request::Attach(_)
                | Request::Subscribe { .. }
                | Request::Unsubscribe { .. }
                | Request::Detach { .. }
        );
        let before = self.broker.device_of(from).filter(|_| concerns).map(Box::from);
        self.broker.handle_request(now, from, request);
        if !concerns {
            return;
        }
        let device = before.or_else(|| self.broker.device_of(from).map(Box::from));
        if let Some(device) = device {
            let reachable = self.broker.is_reachable(&device);
            self.words.push(Word::Presence { device, reachable });
        }
    }

    /// Takes a message that is a device's answer to a command. It is nobody's reading.
    pub(super) fn take_answer(&mut self, publication: &Publication<'_>) -> bool {
        let reading = &publication.reading;
        let Some((number, id)) = publication.envelope.correlation_data.and_then(parse) else {
            return false;
        };
        if reading.resource.strip_prefix(reading.device) != Some(ANSWER) {
            return false;
        }
        self.words.push(Word::Answer {
            device: reading.device.into(),
            number,
            id,
            content_type: reading.content_type.unwrap_or_default().into(),
            payload: reading.payload.into(),
        });
        true
    }

    /// Takes what the trunk is to be told.
    pub(crate) fn take_words(&mut self) -> Vec<Word> {
        while let Some((number, outcome)) = self.broker.poll_command() {
            let delivered = match outcome {
                CommandOutcome::Acknowledged { can_answer } => Delivered::Acknowledged { can_answer },
                CommandOutcome::Sent => Delivered::Handed,
                CommandOutcome::Refused(reason) => Delivered::Rejected(reason.code()),
                CommandOutcome::NotSent => Delivered::NotHanded,
                CommandOutcome::Interrupted => Delivered::Interrupted,
            };
            self.words.push(Word::Delivered { number, delivered });
        }
        std::mem::take(&mut self.words)
    }
}

/// Returns whether a message may be an answer, without a look at its topic.
pub(super) fn is_answer_like(envelope: &Envelope<'_>) -> bool {
    envelope.correlation_data.and_then(parse).is_some()
}

/// The topic on which a device answers.
fn answer_topic(device: &str) -> String {
    format!("{device}{ANSWER}")
}

/// What an answer carries: which command, by this gateway's number, and by the collector's id.
fn correlation(number: u64, id: &CommandId) -> [u8; CORRELATION_LEN] {
    let mut data = [0; CORRELATION_LEN];
    data[..8].copy_from_slice(&number.to_be_bytes());
    data[8..].copy_from_slice(id);
    data
}

fn parse(data: &[u8]) -> Option<(u64, CommandId)> {
    let (number, id) = data.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), id.try_into().ok()?))
}

/// What follows a device's name in the topic of its answers.
const ANSWER: &str = "/answer";
/// Bytes of correlation data.
const CORRELATION_LEN: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlation_data_come_back_and_others_are_refused() {
        let id = [7; 16];
        assert_eq!(parse(&correlation(9, &id)), Some((9, id)));
        assert_eq!(parse(&correlation(9, &id)[1..]), None);
        assert_eq!(parse(&[0; 25]), None);
        assert_eq!(parse(&[]), None);
    }
}
