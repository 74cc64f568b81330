//! Where the messages and requests of a shard's clients go: to journal and broker, or to the shard that has them.

use std::sync::Arc;

use fieldgate_adapters::ingest::Refused;
use fieldgate_mqtt::exchange::{Exchange as Port, Publication, Request};
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
}

impl Intake<'_> {
    /// Returns whether so much waits that clients should not be read for a moment.
    pub(super) fn is_behind(&self) -> bool {
        match self {
            Self::Own { journal, exchange } => {
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
        match self.intake {
            Intake::Own { journal, exchange } => {
                exchange.publish(self.now, journal.as_deref_mut(), self.connection, publication)
            }
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

    fn request(&mut self, request: Request) {
        match self.intake {
            Intake::Own { exchange, .. } => exchange.request(self.now, self.connection, request),
            Intake::Batch(outgoing) => outgoing.batch.push_request(self.connection, request),
        }
    }
}

/// Bytes of messages that a shard without the journal gathers in one turn.
const OUTGOING_BYTES_MAX: usize = 900 << 10;
/// Bytes of messages waiting for the journal from which on clients are not read.
const BEHIND_BYTES: usize = 512 << 10;
