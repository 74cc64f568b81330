//! Delivery of a gateway's journal to one collector (PROTOCOL.md §8).
//!
//! [`Sender`] runs on the gateway, a [`Receiver`] for each lane on the collector, both inside a channel. Neither owns data: the
//! sender says which sequences to send next, the receiver hands on the bytes it accepts.
//!
//! ```text
//!  journal          Sender                                            Receivers      sinks
//!  alarm  ─▶ Outgoing ─┐                                           ┌─▶ alarm  ─▶
//!  normal ─▶ Outgoing ─┼─▶ Schedule ─▶ Window ─▶ one channel ─────┼─▶ normal ─▶ …
//!  bulk   ─▶ Outgoing ─┘  (who next)  (how much)                   └─▶ bulk   ─▶
//! ```

mod frame;
mod lane;
mod outgoing;
mod receiver;
mod schedule;
mod sealed;
mod sender;
pub(crate) mod window;

pub use frame::{
    ACK, Ack, BATCH, Batch, BatchWriter, DeliveryError, JournalId, LOST, Lost, LostReason, OFFER, Offer,
    RESUME, Resume, Term, lane_of,
};
pub use lane::{LaneSettings, PerLane};
pub use receiver::{Arrival, LostCounts, Offered, Receiver, ReceiverSettings, ReceiverStats};
pub use schedule::Shares;
pub use sealed::{BatchSeal, KeySeen, KeyTag, SEAL_KEY, SEAL_KEY_SEEN, SEALED_BATCH, ShownKey, key_tag};
pub use sender::{Allowed, LaneView, Sender, SenderEvent, SenderState, SenderStats};

/// Readings of a lane on their way to one collector, at the most.
pub const IN_FLIGHT_MAX: u64 = 65_536;

#[cfg(test)]
mod tests;
