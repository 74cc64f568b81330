//! How many bytes may be on their way to a collector.

use std::collections::VecDeque;

use super::lane::PerLane;
use crate::link::Class;

/// A congestion window in bytes, after RFC 5681: it grows with what arrives and is halved when something was dropped on the way.
///
/// Relays hold a bounded queue for each link and drop the rest. A backlog that went out as fast as the first link takes it would
/// lose most of itself there, time and again. The lanes of a channel share the way, so they share the window; what is lost is
/// noticed in each by itself, and one loss on the way shrinks the window once.
///
/// Invariants: `bytes` is the sum over all records; a lane's is the sum over its own.
#[derive(Debug)]
pub(crate) struct Window {
    /// Bytes that may be on their way.
    size: u64,
    /// Up to here it doubles with each window that arrives, above it grows by one record.
    threshold: u64,
    bytes: u64,
    lanes: PerLane<InFlight>,
}

/// What is on its way in one lane.
#[derive(Debug, Default)]
struct InFlight {
    /// Last sequence and bytes of each record.
    records: VecDeque<(u64, u64)>,
    bytes: u64,
    /// Highest sequence of a record that was ever sent.
    sent: u64,
    /// Acknowledgements in a row that brought nothing new.
    duplicates: u8,
    /// Highest sequence that was on its way when the lane went back: until it is received there is no further loss to notice.
    recovering_to: u64,
    /// Highest sequence that was on its way when the window shrank: up to here a loss has been answered.
    answered_to: u64,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self {
            size: SIZE_START,
            threshold: SIZE_MAX,
            bytes: 0,
            lanes: PerLane::default(),
        }
    }

    /// Returns whether nothing more of `lane` may be sent for now. The last record may exceed the window.
    pub(crate) const fn is_full(&self, lane: Class) -> bool {
        match lane {
            // Relays keep room for alarms, too.
            Class::Alarm => self.bytes >= self.size + ALARM_RESERVE,
            Class::Normal | Class::Bulk => self.is_full_for_all(),
        }
    }

    /// Returns whether nothing more may be sent for now but what has room of its own.
    pub(super) const fn is_full_for_all(&self) -> bool {
        self.bytes >= self.size
    }

    /// Notes a record of `lane` with the readings up to `last`.
    pub(crate) fn handle_sent(&mut self, lane: Class, last: u64, bytes: usize) {
        let bytes = bytes as u64;
        let in_flight = &mut self.lanes[lane];
        in_flight.records.push_back((last, bytes));
        in_flight.bytes += bytes;
        in_flight.sent = in_flight.sent.max(last);
        self.bytes += bytes;
    }

    /// Takes the news that everything of `lane` up to `received` has arrived, and grows if the window was in use.
    pub(crate) fn handle_received(&mut self, lane: Class, received: u64) {
        let was_used = self.bytes * 2 >= self.size;
        let in_flight = &mut self.lanes[lane];
        let mut arrived = 0;
        while let Some((_, bytes)) = in_flight.records.pop_front_if(|(last, _)| *last <= received) {
            arrived += bytes;
        }
        if arrived == 0 {
            return;
        }
        in_flight.bytes -= arrived;
        in_flight.duplicates = 0;
        self.bytes -= arrived;
        if was_used {
            let growth = if self.size < self.threshold {
                arrived
            } else {
                (arrived * RECORD_BYTES / self.size).max(1)
            };
            self.size = (self.size + growth).min(SIZE_MAX);
        }
    }

    /// Takes an acknowledgement of `lane` without anything new, with the sequences received and sent; true if something was
    /// lost, so that the caller shall send again what is behind `received`.
    pub(crate) fn handle_duplicate(&mut self, lane: Class, received: u64, sent: u64) -> bool {
        let in_flight = &mut self.lanes[lane];
        if sent <= received || received < in_flight.recovering_to {
            return false;
        }
        in_flight.duplicates += 1;
        if in_flight.duplicates < DUPLICATES {
            return false;
        }
        in_flight.recovering_to = sent;
        if self.shrink(lane, received, sent) {
            self.size = self.threshold;
        }
        true
    }

    /// Takes the news that nothing of `lane` has arrived for so long that all of it counts as lost.
    pub(crate) fn handle_silence(&mut self, lane: Class, received: u64) {
        self.lanes[lane].recovering_to = 0;
        self.shrink(lane, received, 0);
        self.size = SIZE_MIN;
    }

    /// Forgets what was on its way in `lane`. Returns whether the loss is a new one: the threshold is lower then.
    fn shrink(&mut self, lane: Class, received: u64, sent: u64) -> bool {
        let is_new = received >= self.lanes[lane].answered_to;
        if is_new {
            self.threshold = (self.size / 2).max(SIZE_MIN);
            for in_flight in &mut self.lanes.0 {
                in_flight.answered_to = in_flight.sent;
            }
        }
        let in_flight = &mut self.lanes[lane];
        in_flight.answered_to = in_flight.answered_to.max(sent);
        in_flight.records.clear();
        in_flight.duplicates = 0;
        self.bytes -= std::mem::take(&mut in_flight.bytes);
        is_new
    }
}

/// Half of what a relay queues for a link by default.
const SIZE_START: u64 = 256 << 10;
/// Two records of the greatest length.
const SIZE_MIN: u64 = 2 * RECORD_BYTES;
/// As much as is on its way at 1 Gbit/s in an eighth of a second.
const SIZE_MAX: u64 = 16 << 20;
/// A record of the greatest length.
const RECORD_BYTES: u64 = 64 << 10;
/// What alarms may have on their way beyond the window, so that a window full of backlog does not hold them back.
const ALARM_RESERVE: u64 = RECORD_BYTES;
/// Acknowledgements without anything new that are a sign of loss; one may come of a copy that arrived twice.
const DUPLICATES: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: Class = Class::Normal;

    /// Sends records of 64 KiB until the window is full; returns the last sequence.
    fn fill(window: &mut Window, lane: Class, mut last: u64) -> u64 {
        while !window.is_full(lane) {
            last += 1;
            window.handle_sent(lane, last, 64 << 10);
        }
        last
    }

    #[test]
    fn doubles_with_each_window_that_arrives_until_something_is_lost() {
        let mut window = Window::new();
        let mut last = fill(&mut window, LANE, 0);
        assert_eq!(last, 4);
        window.handle_received(LANE, last);
        last = fill(&mut window, LANE, last);
        assert_eq!(last, 4 + 8);
        window.handle_received(LANE, last);
        let sent = fill(&mut window, LANE, last);
        assert_eq!(sent, 12 + 16);
        assert!(!window.handle_duplicate(LANE, last, sent));
        assert!(window.handle_duplicate(LANE, last, sent));
        assert_eq!(fill(&mut window, LANE, last), 12 + 8, "half of what was too much");
        window.handle_received(LANE, 20);
        assert_eq!(fill(&mut window, LANE, 20), 20 + 9, "one record more");
    }

    #[test]
    fn one_loss_is_answered_once() {
        let mut window = Window::new();
        let sent = fill(&mut window, LANE, 0);
        window.handle_duplicate(LANE, 0, sent);
        assert!(window.handle_duplicate(LANE, 0, sent));
        assert!(
            (0..9).all(|_| !window.handle_duplicate(LANE, 1, sent)),
            "what was dropped behind the gap"
        );
        window.handle_sent(LANE, sent + 1, 100);
        assert!(!window.handle_duplicate(LANE, sent, sent + 1));
        assert!(window.handle_duplicate(LANE, sent, sent + 1), "the next loss");
    }

    #[test]
    fn a_loss_noticed_in_two_lanes_halves_the_window_once() {
        let mut window = Window::new();
        window.handle_sent(Class::Normal, 1, 64 << 10);
        window.handle_sent(Class::Bulk, 1, 64 << 10);
        for lane in [Class::Normal, Class::Bulk] {
            window.handle_duplicate(lane, 0, 1);
            assert!(window.handle_duplicate(lane, 0, 1), "each goes back by itself");
        }
        assert_eq!((window.size, window.bytes), (SIZE_START / 2, 0));
        // And a silence of all three leaves the threshold where one left it.
        let mut window = Window::new();
        for lane in Class::ALL {
            window.handle_sent(lane, 1, 60 << 10);
        }
        for lane in Class::ALL {
            window.handle_silence(lane, 0);
        }
        assert_eq!((window.size, window.threshold), (SIZE_MIN, SIZE_START / 2));
    }

    #[test]
    fn silence_leaves_two_records() {
        let mut window = Window::new();
        fill(&mut window, LANE, 0);
        window.handle_silence(LANE, 0);
        assert_eq!(fill(&mut window, LANE, 0), 2);
    }

    #[test]
    fn a_window_full_of_backlog_has_room_for_alarms() {
        let mut window = Window::new();
        fill(&mut window, Class::Bulk, 0);
        assert!(window.is_full(Class::Normal));
        assert_eq!(fill(&mut window, Class::Alarm, 0), 1);
        window.handle_received(Class::Alarm, 1);
        assert!(!window.is_full(Class::Alarm));
    }

    #[test]
    fn does_not_grow_while_there_is_little_to_send() {
        let mut window = Window::new();
        for last in 1..1000 {
            window.handle_sent(LANE, last, 1000);
            window.handle_received(LANE, last);
        }
        assert_eq!(fill(&mut window, LANE, 1000), 1004);
    }

    #[test]
    fn with_nothing_on_its_way_nothing_is_lost() {
        let mut window = Window::new();
        assert!((0..9).all(|_| !window.handle_duplicate(LANE, 7, 7)));
    }
}
