//! The only place of this crate that reads the clock.

use std::time::Instant;

/// Returns the monotonic time now.
#[expect(
    clippy::disallowed_methods,
    reason = "the worker's deadlines are real time: a hanging token is found by the clock alone"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
