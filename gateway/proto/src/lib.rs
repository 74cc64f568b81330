//! Sans-IO core of fieldgate: wire, identity, trust, channel, routing, relay, delivery, journal.
//!
//! Bytes, time and randomness go in, effects come out. No socket, file, thread, clock or lock is in here.
#![forbid(unsafe_code)]

pub mod candidates;
pub mod channel;
pub mod command;
pub mod crypto;
pub mod delivery;
pub mod entropy;
pub mod identity;
pub mod journal;
pub mod link;
pub mod node;
pub mod portal;
pub mod relay;
pub mod route;
pub mod seal;
pub mod time;
pub mod trust;
pub mod wire;
