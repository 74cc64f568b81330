//! Sockets of streams that are over and still have something to send.

use std::{collections::BTreeMap, time::Duration};

use fieldgate_io::{ConnectionId, Io};
use fieldgate_proto::time::Instant;

/// Sockets to be closed when what is queued on them has gone out: closing gives the peer only seconds to read it.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    /// And when their peers have had time enough.
    until: BTreeMap<ConnectionId, Instant>,
    look_at: Option<Instant>,
    wait: Duration,
}

impl Lingering {
    /// Takes a socket; closes it at once if nothing is queued.
    pub(super) fn add(&mut self, io: &mut Io, now: Instant, connection: ConnectionId) {
        io.finish(connection);
        if io.queued_bytes(connection) == 0 {
            io.close(connection);
            return;
        }
        self.until.insert(connection, now + LINGER_MAX);
        self.wait = WAIT_MIN;
        self.look_at = Some(now + WAIT_MIN);
    }

    /// A socket is gone.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        self.until.remove(&connection);
    }

    /// Closes what has gone out, and gives up what will not.
    pub(super) fn end_turn(&mut self, io: &mut Io, now: Instant) {
        if self.look_at.is_none_or(|at| now < at) {
            return;
        }
        self.until.retain(|connection, until| {
            if io.queued_bytes(*connection) == 0 {
                io.close(*connection);
                false
            } else if now >= *until {
                io.abort(*connection);
                false
            } else {
                true
            }
        });
        self.wait = (self.wait * 2).min(WAIT_MAX);
        self.look_at = (!self.until.is_empty()).then(|| now + self.wait);
    }

    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.look_at
    }
}

/// Longest time that the peer of a socket may take to read what is queued.
const LINGER_MAX: Duration = Duration::from_secs(300);
/// Between two looks; the kernel says nothing when the last of little has gone out.
const WAIT_MIN: Duration = Duration::from_millis(2);
const WAIT_MAX: Duration = Duration::from_secs(1);
