//! Addresses, routes, and the machine that carries payloads along them (PROTOCOL.md §3.2, §3.3).
//!
//! [`Router`] is both ends and the middle: it keeps the *flows* of this node (one conversation over a route each) and,
//! with [`RelaySettings`](crate::relay::RelaySettings), forwards between links by name and by label. The calls a node
//! makes, in order:
//!
//! ```text
//! link_up(now, entropy, frame_len_max)            when Link says Up
//! open(now, entropy, link, route)                 initiator: a flow
//! begin(now, flow, class, out) … finish(flow, …)  seal a record in the send buffer of link_of(flow)
//! handle_frame(now, link, frame, links)  ─▶ Received::{Local, Candidate, Forwarded, Consumed, Dropped}
//! accept(now, candidate)                          responder: a flow, from the first answer that keeps state
//! attach(link, member)                            the registrar's channel authenticated the link
//! flush(links)                                    once per turn
//! link_down(link, links)                          the connection is gone
//! handle_timeout(now, links) at poll_timeout(); poll_output() to None
//! ```

mod address;
mod flow;
mod forward;
mod label;
mod received;
mod router;
mod slab;

pub use address::{
    ADDRESSES_MAX, Address, Addresses, HopLimit, LinkAddress, NAME_LEN_MAX, Route, RouteError, RouteRef,
    SERVICE_LEN_MAX,
};
pub use flow::{FlowError, FlowId, FlowLost};
pub use label::LABELS_PER_LINK_MAX;
pub use received::{Candidate, DropReason, Received, RouterStats};
pub use router::{
    LinkId, LinkTraffic, LinkWriter, MemberLinkError, Output, Router, RouterError, RouterSettings,
};

#[cfg(test)]
mod tests;
