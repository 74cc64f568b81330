//! The three lanes of a gateway's journal, one per class.

use super::{AppendError, Journal, JournalState, LaneView, Output, WriteFailed};
use crate::{
    link::Class,
    node::{Copied, RecordSource},
    time::{Instant, Now, WallTime},
};

/// A gateway's journal: a [`Journal`] per [`Class`], each with its own files, sequences and bound.
///
/// Classes never share a segment, so that an urgent one overtakes the others and a class is discarded without rewriting
/// anything. Records are known to their devices by a *ticket*: one number that grows over all lanes.
///
/// ```text
///  append(class) ─▶ lane's pending ──flush──▶ at most one write per lane ──▶ Committed { up_to: ticket }
/// ```
/// Invariant: everything up to the ticket last reported as committed is on stable storage in its lane.
#[derive(Debug)]
pub struct Lanes {
    lanes: [Journal; 3],
    next_ticket: u64,
    /// The highest ticket that was reported.
    committed: u64,
}

/// An effect that somebody else has to bring about, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LanesOutput {
    /// An effect on a lane's files, or news of that lane alone.
    Lane {
        /// Which lane.
        lane: Class,
        /// What; its [`Output::Committed`] is the lane's highest sequence on stable storage.
        output: Output,
    },
    /// Everything up to this ticket is on stable storage.
    Committed {
        /// The highest such ticket.
        up_to: u64,
    },
}

impl Lanes {
    /// Puts the lanes together, in the order of [`Class::ALL`].
    #[must_use]
    pub const fn new(lanes: [Journal; 3]) -> Self {
        Self {
            lanes,
            next_ticket: 1,
            committed: 0,
        }
    }

    /// Appends a record that was captured at `captured` and whose body `fill` writes to the end of the buffer it is given;
    /// returns its ticket. It is on stable storage when [`LanesOutput::Committed`] says so.
    ///
    /// # Errors
    /// [`AppendError`]: nothing was taken. What one lane refuses another may take.
    pub fn append(
        &mut self,
        class: Class,
        captured: WallTime,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64, AppendError> {
        let ticket = self.next_ticket;
        self.lane_mut(class).append(ticket, captured, fill)?;
        self.next_ticket = ticket.saturating_add(1);
        Ok(ticket)
    }

    /// Has every lane write what is pending as soon as it has no write under way.
    pub fn flush(&mut self) {
        self.lanes.iter_mut().for_each(Journal::flush);
    }

    /// Takes the end of a lane's write, and its buffer.
    pub fn handle_written(
        &mut self,
        now: Instant,
        lane: Class,
        bytes: Vec<u8>,
        result: Result<(), WriteFailed>,
    ) {
        self.lane_mut(lane).handle_written(now, bytes, result);
    }

    /// Takes the end of a creation.
    pub fn handle_created(
        &mut self,
        now: Instant,
        lane: Class,
        segment: u64,
        result: Result<(), WriteFailed>,
    ) {
        self.lane_mut(lane).handle_created(now, segment, result);
        let needs_room = !self.lane(lane).may_discard() && self.lane(lane).is_short();
        if result == Err(WriteFailed::NoRoom) && needs_room {
            // The disk is full before the journal's own bound is reached: what may be discarded makes room for what may not.
            let expendable = self.lanes.iter_mut().rev().find(|lane| lane.may_discard());
            if let Some(expendable) = expendable {
                expendable.discard_oldest();
            }
        }
    }

    /// Takes the end of a cursor write.
    pub fn handle_cursor_written(&mut self, now: Instant, lane: Class, result: Result<(), WriteFailed>) {
        self.lane_mut(lane).handle_cursor_written(now, result);
    }

    /// Takes the bytes of a lane's read, `None` if it failed.
    pub fn handle_read(&mut self, lane: Class, bytes: Option<Vec<u8>>) {
        self.lane_mut(lane).handle_read(bytes);
    }

    /// Takes the word that the collector of `uplink` (its place among those given to the recovery) has everything of a lane up
    /// to `up_to`.
    pub fn handle_released(&mut self, now: Instant, lane: Class, uplink: usize, up_to: u64) {
        self.lane_mut(lane).handle_confirmed(now, uplink, up_to);
    }

    /// Does whatever is due at `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        for lane in &mut self.lanes {
            lane.handle_timeout(now);
        }
    }

    /// Returns when [`Lanes::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(Journal::poll_timeout).min()
    }

    /// Returns the next effect; drain it to `None` after every call.
    pub fn poll_output(&mut self) -> Option<LanesOutput> {
        for (class, lane) in Class::ALL.into_iter().zip(&mut self.lanes) {
            if let Some(output) = lane.poll_output() {
                return Some(LanesOutput::Lane { lane: class, output });
            }
        }
        let first_open = self.lanes.iter().filter_map(Journal::first_open_ticket).min();
        let up_to = first_open.unwrap_or(self.next_ticket).saturating_sub(1);
        (up_to > self.committed).then(|| {
            self.committed = up_to;
            LanesOutput::Committed { up_to }
        })
    }

    /// Returns a lane.
    #[must_use]
    pub const fn lane(&self, class: Class) -> &Journal {
        let [alarm, normal, bulk] = &self.lanes;
        match class {
            Class::Alarm => alarm,
            Class::Normal => normal,
            Class::Bulk => bulk,
        }
    }

    /// Returns all lanes with their classes, the most urgent first.
    pub fn iter(&self) -> impl Iterator<Item = (Class, &Journal)> {
        Class::ALL.into_iter().zip(&self.lanes)
    }

    /// Returns what an operator wants to know of each lane, the most urgent first.
    #[must_use]
    pub fn views(&self, now: Now) -> [(Class, LaneView); 3] {
        Class::ALL.map(|class| (class, self.lane(class).view(now)))
    }

    /// Returns whether readings of `class` are taken.
    #[must_use]
    pub const fn state(&self, class: Class) -> JournalState {
        self.lane(class).state()
    }

    /// Returns the highest ticket that was reported as committed.
    #[must_use]
    pub const fn committed(&self) -> u64 {
        self.committed
    }

    /// Returns the bytes of records that wait to be written, over all lanes.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.lanes.iter().map(Journal::pending_bytes).sum()
    }

    const fn lane_mut(&mut self, class: Class) -> &mut Journal {
        let [alarm, normal, bulk] = &mut self.lanes;
        match class {
            Class::Alarm => alarm,
            Class::Normal => normal,
            Class::Bulk => bulk,
        }
    }
}

impl RecordSource for Lanes {
    fn copy_records(
        &mut self,
        lane: Class,
        from: u64,
        bytes_max: usize,
        count_max: u64,
        out: &mut Vec<u8>,
    ) -> Copied {
        self.lane_mut(lane)
            .copy_records(lane, from, bytes_max, count_max, out)
    }
}
