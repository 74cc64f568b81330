//! Portals: streams carried in a channel, from an inlet's node to an outlet's (PROTOCOL.md §15).
//!
//! ```text
//!  who connects ─▶ inlet's node                                        outlet's node ─▶ what is reached
//!                  Session ─ streams ─▶ packets ══ channel ══▶ packets ─ streams ─ Session
//!                               ▲          │ kept until taken      │ in order, each once
//!                               └─ credit ─┴───── Taken ◀──────────┘
//! ```
//!
//! A [`Session`] is one side of what two nodes carry for each other. It outlives channels: packets that the other side has not
//! taken are sent again in the next one, so a stream does not notice that a relay died. What streams say goes into packets in the
//! order in which it was said, and nothing overtakes; credit for each stream keeps one that is not read from holding up the
//! others.

mod conveyor;
pub mod flow;
mod frame;
pub mod proxy;
pub mod rfc2217;
mod session;
pub mod socks;
mod stream;

pub use frame::{
    BEGIN, BEGUN, Begin, Item, Items, Open, PACKET, PortalError, ResetReason, SessionId, TAKEN, TEXT_LEN_MAX,
};
pub use session::{Role, Session, SessionEvent, SessionSettings, SessionState, SessionStats, StreamSink};
pub use stream::{StreamId, StreamState};

#[cfg(test)]
mod tests;
