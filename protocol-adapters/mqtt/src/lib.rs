//! MQTT 3.1.1 and 5.0 for field devices, sans-IO.
//!
//! [`Session`](session::Session) is the gateway's side of one connection: bytes and time go in, answers and messages come
//! out. [`Broker`](broker::Broker) stands behind all of them: who gets which message, and what outlives a connection.
//! [`exchange`] is what the two say to each other. [`packet`] is the codec in both directions, for the session and for clients
//! such as a load generator.
//!
//! A PUBLISH above QoS 0 is acknowledged only after the caller has said that its message is on stable storage
//! ([`Session::handle_committed`](session::Session::handle_committed)).
//!
//! **Invariant:** no socket, clock or thread is in here; what a client sends can end its own session and nothing else.
#![forbid(unsafe_code)]

pub mod broker;
pub mod counters;
pub mod encode;
pub mod exchange;
mod field;
pub mod frame;
pub mod packet;
pub mod property;
pub mod reason;
pub mod session;
pub mod settings;
pub mod version;
pub mod violation;
