//! Where the messages and requests of a shard's clients go: to journal and broker, or to the shard that has them.

use std::sync::Arc;

use fieldgate_adapters::{
    class::Class,
    classify::Classifier,
    device::Device,
    ingest::Refused,
    reading::{Reading, UserProperties},
};
use fieldgate_mqtt::exchange::{Exchange as Port, Publication, Request, Will};
use fieldgate_proto::{journal::Lanes, time::Now};

use crate::runtime::{
    accepting::Accepting,
    exchange::{Exchange, batch::FieldBatch, lane},
};

/// The way to journal and broker.
pub(crate) enum Intake<'a> {
    /// This shard owns them.
    Own {
        /// The journal, where the node has one.
        journal: Option<&'a mut Lanes>,
        /// The broker and what belongs to it.
        exchange: &'a mut Exchange,
        /// Which class a reading gets.
        classifier: &'a Classifier,
    },
    /// Another shard does.
    Batch(&'a mut Outgoing),
}

/// The batch being filled.
pub(crate) struct Outgoing {
    pub(crate) ticket: u64,
    pub(crate) batch: FieldBatch,
    /// Set by the trunk: which readings the journal takes.
    pub(crate) accepting: Arc<Accepting>,
    /// Which class a reading gets.
    pub(crate) classifier: Arc<Classifier>,
}

impl Intake<'_> {
    fn classifier(&self) -> &Classifier {
        match self {
            Self::Own { classifier, .. } => classifier,
            Self::Batch(outgoing) => &outgoing.classifier,
        }
    }

    /// Returns whether so much waits that clients should not be read for a moment.
    pub(super) fn is_behind(&self) -> bool {
        match self {
            Self::Own {
                journal, exchange, ..
            } => {
                exchange.is_behind()
                    || journal
                        .as_ref()
                        .is_some_and(|journal| journal.pending_bytes() > BEHIND_BYTES)
            }
            Self::Batch(outgoing) => outgoing.batch.bytes() > BEHIND_BYTES,
        }
    }
}

/// The way of one connection's messages and requests, during one call.
pub(super) struct Way<'a, 'i> {
    pub(super) intake: &'a mut Intake<'i>,
    pub(super) connection: u64,
    pub(super) now: Now,
}

impl Port for Way<'_, '_> {
    fn publish(&mut self, publication: &Publication<'_>) -> Result<u64, Refused> {
        let mut publication = *publication;
        // What is not journalled has no class.
        if !publication.envelope.is_local {
            publication.reading.class = self.intake.classifier().class(&publication.reading);
        }
        let publication = &publication;
        match self.intake {
            Intake::Own {
                journal, exchange, ..
            } => exchange.publish(self.now, journal.as_deref_mut(), self.connection, publication),
            Intake::Batch(outgoing) => {
                if !publication.envelope.is_local
                    && !outgoing.accepting.takes(lane(publication.reading.class))
                {
                    return Err(Refused::Full);
                }
                if outgoing.batch.bytes() > OUTGOING_BYTES_MAX {
                    return Err(Refused::NotNow);
                }
                outgoing.batch.push(self.connection, publication)?;
                outgoing.ticket += 1;
                Ok(outgoing.ticket)
            }
        }
    }

    fn request(&mut self, mut request: Request) {
        if let Request::Attach(attach) = &mut request
            && let Some(will) = &mut attach.will
        {
            will.class = class_of_will(self.intake.classifier(), &attach.device, will, self.now);
        }
        match self.intake {
            Intake::Own { exchange, .. } => exchange.request(self.now, self.connection, request),
            Intake::Batch(outgoing) => outgoing.batch.push_request(self.connection, request),
        }
    }
}

/// Returns the class of a will, which is a reading of its device if it comes to that. It is decided while the rules are at hand: the
/// broker that publishes it may have been started anew by then.
fn class_of_will(classifier: &Classifier, device: &Device, will: &Will, now: Now) -> Class {
    classifier.class(&Reading {
        device: device.name(),
        resource: &will.message.topic,
        content_type: will.message.content_type.as_deref(),
        user_properties: UserProperties::EMPTY,
        payload: &will.message.payload,
        captured_at: now.wall,
        class: will.class,
    })
}

/// Bytes of messages that a shard without the journal gathers in one turn.
const OUTGOING_BYTES_MAX: usize = 900 << 10;
/// Bytes of messages waiting for the journal from which on clients are not read.
const BEHIND_BYTES: usize = 512 << 10;
