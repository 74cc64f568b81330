//! Deterministic simulator of fieldgate networks with fault injection.
//!
//! One seed is one run: it draws a [`Scenario`] (gateways, relays, a collector, links, faults, an attacker), and [`run`] plays
//! it with the real machines of the core: nodes, journals, channels. Only wires, disks, sinks and time are made up. After
//! every step a reference model is compared with what the machines did; the functions named `invariant_…` say what
//! must hold, and the first that does not ends the run with a [`Violation`].
//!
//! ```text
//!  devices ─▶ Journal ─▶ gateway's Node ═wires═ relay's Node ═wires═ collector's Node ─▶ sink
//!               │disk                    ▲ Attacker, on what leaves a relay                │store
//!               └────────────────── Model: promised, sent, made safe, released ───────────┘
//! ```
//!
//! In some networks nobody is listed: an authority issues credentials that end after a minute, revokes and restores members, and is
//! away for long; clocks begin in 1970; disks come back with lists and credentials of long ago. Then it is checked as well who is
//! served.
//!
//! In others relays stand in a row, or in any net: whoever is attached to one reaches the others through several. Streams cross them in
//! both directions; what comes out of one has to be a beginning of what was said at every moment, and none may break off for no reason.
//!
//! Phases of a run: *chaos*, in which devices publish while faults and attacks happen; *healing*, after which everything works
//! and the attacker behaves; *settling*, in which every reading that was promised has to arrive within
//! [`SETTLE_MAX`](scenario::SETTLE_MAX), and everybody to have the newest list.
//!
//! The bytes of ML-KEM keys and ciphertexts differ from run to run, for their generator cannot be seeded. Nothing here looks
//! at their values, so what happens and when is the same; [`Report::fingerprint`] shows it.
#![forbid(unsafe_code)]

pub mod attacker;
pub mod dice;
pub mod report;
pub mod scenario;

mod authority;
mod disk;
mod gateway;
mod host;
mod member;
mod model;
mod pipe;
mod sink;
mod streams;
mod trusting;
mod world;

pub use attacker::Verb;
pub use model::Violation;
pub use report::{Arrival, Report, StreamReport, Trace};
pub use scenario::Scenario;

/// Plays a scenario to its end.
///
/// # Errors
/// [`Violation`]: something that must hold did not.
pub fn run(scenario: &Scenario, trace: &mut Trace<'_>) -> Result<Report, Violation> {
    world::World::new(scenario, trace).run()
}
