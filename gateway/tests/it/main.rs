//! The binary as its users meet it: real processes, stock MQTT clients, a real broker, real tokens.
//!
//! `FIELDGATE_IO=uring|epoll` chooses the I/O backend of every node that is started; without it a node chooses itself. A program
//! that is not installed fails the test that needs it, with the sentence how to install it.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test that gets something else says what it got"
)]
#![forbid(unsafe_code)]

mod authorities;
mod chain;
mod cli;
mod client_faults;
mod cluster;
mod commands;
mod custody;
mod demo;
mod direct;
mod doctor;
mod drain;
mod failover;
mod fleet;
mod harness;
mod identity;
mod interop;
mod journal_faults;
mod kills;
mod lanes;
mod links;
#[cfg(feature = "tls-psk")]
mod listeners;
mod mqtt_conformance;
mod mqtt_exchange;
mod mqtt_peer;
mod namespaces;
mod paho;
mod portals;
mod power_cuts;
mod proofs;
mod relays;
mod rotation;
mod secrets;
mod sinks;
mod spy;
mod token_faults;
mod tpm;
mod trust_rules;
mod uplink_faults;
