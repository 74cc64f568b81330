//! Delivery of a gateway's journal to one collector (PROTOCOL.md §8).
//!
//! [`Sender`] runs on the gateway, [`Receiver`] on the collector, both inside a channel. Neither owns data: the sender says
//! which sequences to send next, the receiver hands on the bytes it accepts.

mod frame;
mod receiver;
mod sender;
mod window;

pub use frame::{
    ACK, Ack, BATCH, Batch, BatchWriter, DeliveryError, JournalId, LOST, Lost, LostReason, OFFER, Offer,
    RESUME, Resume,
};
pub use receiver::{Offered, Receiver, ReceiverSettings, ReceiverStats};
pub use sender::{Sender, SenderEvent, SenderState, SenderStats};

/// Readings on their way to one collector, at the most.
pub const IN_FLIGHT_MAX: u64 = 65_536;

#[cfg(test)]
mod tests;
