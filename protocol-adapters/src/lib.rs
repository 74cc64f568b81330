//! Readings, devices and the adapter interface of fieldgate.
//!
//! Every field protocol turns what a device says into a [`Reading`](reading::Reading) and hands it to the node through
//! [`Ingest`](ingest::Ingest); who the device is and what it may say comes from [`Authenticate`](authenticate::Authenticate).
//!
//! **Invariant:** no socket, file, thread or clock is in here, and no knowledge of channels or relays.
#![forbid(unsafe_code)]

pub mod authenticate;
pub mod class;
pub mod classify;
pub mod device;
pub mod ingest;
pub mod password;
pub mod reading;
pub mod scram;
pub mod topic;
