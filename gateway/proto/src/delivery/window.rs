//! How many bytes may be on their way to a collector.

use std::collections::VecDeque;

/// A congestion window in bytes, after RFC 5681: it grows with what arrives and is halved when something was dropped on the way.
///
/// Relays hold a bounded queue for each link and drop the rest. A backlog that went out as fast as the first link takes it would
/// lose most of itself there, time and again.
///
/// Invariant: `bytes` is the sum over `records`.
#[derive(Debug)]
pub(super) struct Window {
    /// Bytes that may be on their way.
    size: u64,
    /// Up to here it doubles with each window that arrives, above it grows by one record.
    threshold: u64,
    /// Records on their way: last sequence and bytes.
    records: VecDeque<(u64, u64)>,
    bytes: u64,
    /// Acknowledgements in a row that brought nothing new.
    duplicates: u8,
    /// Highest sequence that was on its way when something was lost: until it is received there is no further loss to notice.
    recovering_to: u64,
}

impl Window {
    pub(super) const fn new() -> Self {
        Self {
            size: SIZE_START,
            threshold: SIZE_MAX,
            records: VecDeque::new(),
            bytes: 0,
            duplicates: 0,
            recovering_to: 0,
        }
    }

    /// Returns whether nothing more may be sent for now. The last record may exceed the window.
    pub(super) const fn is_full(&self) -> bool {
        self.bytes >= self.size
    }

    /// Notes a record with the readings up to `last`.
    pub(super) fn handle_sent(&mut self, last: u64, bytes: usize) {
        let bytes = bytes as u64;
        self.records.push_back((last, bytes));
        self.bytes += bytes;
    }

    /// Takes the news that everything up to `received` has arrived, and grows if the window was in use.
    pub(super) fn handle_received(&mut self, received: u64) {
        let was_used = self.bytes * 2 >= self.size;
        let mut arrived = 0;
        while let Some(&(last, bytes)) = self.records.front()
            && last <= received
        {
            self.records.pop_front();
            arrived += bytes;
        }
        if arrived == 0 {
            return;
        }
        self.bytes -= arrived;
        self.duplicates = 0;
        if was_used {
            let growth = if self.size < self.threshold {
                arrived
            } else {
                (arrived * RECORD_BYTES / self.size).max(1)
            };
            self.size = (self.size + growth).min(SIZE_MAX);
        }
    }

    /// Takes an acknowledgement without anything new, with the sequences received and sent; true if something was lost, so that
    /// the caller shall send again what is behind `received`.
    pub(super) fn handle_duplicate(&mut self, received: u64, sent: u64) -> bool {
        if sent <= received || received < self.recovering_to {
            return false;
        }
        self.duplicates += 1;
        if self.duplicates < DUPLICATES {
            return false;
        }
        self.recovering_to = sent;
        self.shrink();
        self.size = self.threshold;
        true
    }

    /// Takes the news that nothing has arrived for so long that all counts as lost.
    pub(super) fn handle_silence(&mut self) {
        self.recovering_to = 0;
        self.shrink();
        self.size = SIZE_MIN;
    }

    fn shrink(&mut self) {
        self.threshold = (self.size / 2).max(SIZE_MIN);
        self.records.clear();
        self.bytes = 0;
        self.duplicates = 0;
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
/// Acknowledgements without anything new that are a sign of loss; one may come of a copy that arrived twice.
const DUPLICATES: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends records of 64 KiB until the window is full; returns the last sequence.
    fn fill(window: &mut Window, mut last: u64) -> u64 {
        while !window.is_full() {
            last += 1;
            window.handle_sent(last, 64 << 10);
        }
        last
    }

    #[test]
    fn doubles_with_each_window_that_arrives_until_something_is_lost() {
        let mut window = Window::new();
        let mut last = fill(&mut window, 0);
        assert_eq!(last, 4);
        window.handle_received(last);
        last = fill(&mut window, last);
        assert_eq!(last, 4 + 8);
        window.handle_received(last);
        let sent = fill(&mut window, last);
        assert_eq!(sent, 12 + 16);
        assert!(!window.handle_duplicate(last, sent));
        assert!(window.handle_duplicate(last, sent));
        assert_eq!(fill(&mut window, last), 12 + 8, "half of what was too much");
        window.handle_received(20);
        assert_eq!(fill(&mut window, 20), 20 + 9, "one record more");
    }

    #[test]
    fn one_loss_is_answered_once() {
        let mut window = Window::new();
        let sent = fill(&mut window, 0);
        window.handle_duplicate(0, sent);
        assert!(window.handle_duplicate(0, sent));
        assert!(
            (0..9).all(|_| !window.handle_duplicate(1, sent)),
            "what was dropped behind the gap"
        );
        window.handle_sent(sent + 1, 100);
        assert!(!window.handle_duplicate(sent, sent + 1));
        assert!(window.handle_duplicate(sent, sent + 1), "the next loss");
    }

    #[test]
    fn silence_leaves_two_records() {
        let mut window = Window::new();
        fill(&mut window, 0);
        window.handle_silence();
        assert_eq!(fill(&mut window, 0), 2);
    }

    #[test]
    fn does_not_grow_while_there_is_little_to_send() {
        let mut window = Window::new();
        for last in 1..1000 {
            window.handle_sent(last, 1000);
            window.handle_received(last);
        }
        assert_eq!(fill(&mut window, 1000), 1004);
    }

    #[test]
    fn with_nothing_on_its_way_nothing_is_lost() {
        let mut window = Window::new();
        assert!((0..9).all(|_| !window.handle_duplicate(7, 7)));
    }
}
