//! Commands: from a collector to a device behind a gateway (PROTOCOL.md §9.2).
//!
//! [`Commander`] runs on the collector, [`Executor`] on the gateway, both beside delivery in the gateway's channel. Both keep
//! what they promise in a store that their callers own: what is to be kept is an output, and what rests on it waits for the
//! word that it is kept.
//!
//! ```text
//!  submit ─▶ kept ─▶ Command ───────────▶ permitted? ─▶ kept ─▶ queued while the device sleeps ─▶ kept as handed ─▶ device
//!                       ▲                     │           │                                                          │
//!  Finished ◀─ kept ◀───┴── Result ◀──────────┴───────────┴──── kept ◀── acknowledged, answered, refused, expired ◀──┘
//! ```
//!
//! # Guarantees
//! They hold whatever crashes at whatever moment, as long as stores keep what they said they keep.
//! - **At most once**: the device is handed the command once or never. The collector notes that it leaves before it leaves,
//!   and never sends it again; the gateway notes that it is handed over before it is, and never hands it over again.
//! - **At least once**: the device has acknowledged the command, or the result says why not. It may be handed it more than once,
//!   and whoever wants to tell copies apart has the command's id.
//! - **Results are true**: *delivered* and *answered* mean that the device had it. *Expired*, *refused*, *unknown device*,
//!   *cancelled* and *lost* mean that it had not, and will not. What is not known is called *unconfirmed*.
//! - **Deadline**: nothing is handed to a device after its deadline, as far as the gateway's clocks can tell. Where they cannot,
//!   which happens after a restart without a good clock, the command waits for a clock or for the collector's word.
//! - **Order**: commands for one device are handed over in the order in which they were submitted, one at a time.

mod commander;
mod deadline;
mod executor;
mod frame;
mod record;

pub use commander::{
    CancelError, CommandView, Commander, CommanderOutput, CommanderSettings, Stage, SubmitError,
};
pub use deadline::Carried;
pub use executor::{
    Delivered, Executor, ExecutorOutput, ExecutorSettings, ExecutorStats, Permission, WaitingView,
};
pub use frame::{
    Answer, CANCEL, COMMAND, Cancel, Command, CommandError, CommandId, Guarantee, Order, QUERY, Query,
    RESULT, RESULT_ACK, Refusal, Report, ResultAck, State,
};
pub use record::RecordError;

/// Longest payload of a command and of an answer, in bytes.
pub const PAYLOAD_LEN_MAX: usize = 16_384;
/// Longest resource of a command, in bytes.
pub const RESOURCE_LEN_MAX: usize = 1_024;
/// Longest time from submission to deadline.
pub const DEADLINE_MAX: std::time::Duration = std::time::Duration::from_hours(30 * 24);

#[cfg(test)]
mod tests;
