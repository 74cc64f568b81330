//! What waits for a congested link, by class.

use crate::link::{Class, FRAME_HEADER_LEN, FrameError};

/// Whole frames that wait for one link, first in first out within their class.
///
/// Start-time fair queueing (Goyal, Vin, Cheng 1996): while all three classes wait, alarm, normal and bulk share the
/// link 8 : 2 : 1 by bytes. A class that had nothing waiting starts at the present, and of equal starts the most urgent
/// goes first: so an alarm passes whatever waits, and a flood of alarms leaves the others a share.
#[derive(Debug, Default)]
pub struct ClassQueues {
    queues: [Queue; 3],
    len: usize,
    /// The start of the frame sent last, in weighted bytes.
    now: u64,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Bytes at the front of `bytes` that are gone already.
    at: usize,
    /// The start of the frame at the front, in weighted bytes.
    start: u64,
}

impl ClassQueues {
    /// Returns the bytes that wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns whether a frame with `payload_len` bytes may wait too, of `max` bytes in all. Bulk gets half of them,
    /// normal three quarters, so that there is room for an alarm when the rest is full.
    #[must_use]
    pub const fn admits(&self, class: Class, payload_len: usize, max: usize) -> bool {
        let share = match class {
            Class::Alarm => max,
            Class::Normal => max / 4 * 3,
            Class::Bulk => max / 2,
        };
        self.len.saturating_add(payload_len) <= share
    }

    /// Appends the one frame that `write` writes and returns its length in bytes.
    ///
    /// # Errors
    /// Those of `write`, which then has written nothing.
    pub fn append(
        &mut self,
        class: Class,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), FrameError>,
    ) -> Result<usize, FrameError> {
        let queue = &mut self.queues[usize::from(class.bits())];
        let before = queue.bytes.len();
        write(&mut queue.bytes)?;
        if queue.at == before {
            queue.start = queue.start.max(self.now);
        }
        let written = queue.bytes.len() - before;
        self.len += written;
        Ok(written)
    }

    /// Moves frames into `out` until at least `room` bytes were moved or none waits, and returns the bytes moved: at
    /// most one frame more than `room`.
    pub fn drain(&mut self, out: &mut Vec<u8>, room: usize) -> usize {
        let mut moved = 0;
        while moved < room {
            let waiting = self
                .queues
                .iter_mut()
                .zip(WEIGHTS)
                .filter(|(queue, _)| !queue.is_empty());
            // The first of equal minima: the more urgent class.
            let Some((queue, weight)) = waiting.min_by_key(|(queue, _)| queue.start) else {
                break;
            };
            self.now = queue.start;
            let frame = queue.front();
            let len = frame.len();
            out.extend_from_slice(frame);
            queue.start += weight * len as u64;
            queue.remove(len);
            self.len -= len;
            moved += len;
        }
        moved
    }
}

impl Queue {
    const fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Returns the frame at the front; frames carry their length.
    fn front(&self) -> &[u8] {
        let rest = &self.bytes[self.at..];
        let [high, middle, low, _] = *rest
            .first_chunk::<FRAME_HEADER_LEN>()
            .expect("only whole frames are appended");
        let len = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        &rest[..FRAME_HEADER_LEN + len]
    }

    fn remove(&mut self, len: usize) {
        self.at += len;
        if self.is_empty() {
            self.at = 0;
            self.bytes.clear();
            self.bytes.shrink_to(CAPACITY_KEPT);
        } else if self.at >= self.bytes.len() / 2 {
            // Each byte is moved at most once on the average.
            self.bytes.drain(..self.at);
            self.at = 0;
        }
    }
}

/// What a byte of each class costs, most urgent first.
const WEIGHTS: [u64; 3] = [1, 4, 8];
/// Bytes of memory an empty queue keeps: a link that was congested once does not hold its largest backlog for ever.
const CAPACITY_KEPT: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Appends a frame with `len` bytes of body, all `fill`.
    fn append(queues: &mut ClassQueues, class: Class, fill: u8, len: u16) {
        let written = queues.append(class, |buffer| {
            let [high, low] = len.to_be_bytes();
            buffer.extend_from_slice(&[0, high, low, 0x10 | class.bits()]);
            buffer.resize(buffer.len() + usize::from(len), fill);
            Ok(())
        });
        assert_eq!(written, Ok(FRAME_HEADER_LEN + usize::from(len)));
    }

    /// Drains everything one frame at a time and returns (class, fill) of each.
    fn order(queues: &mut ClassQueues) -> Vec<(u8, u8)> {
        let mut order = Vec::new();
        loop {
            let mut out = Vec::new();
            let before = queues.len();
            let moved = queues.drain(&mut out, 1);
            assert_eq!((moved, queues.len()), (out.len(), before - moved));
            match out.as_slice() {
                [] => return order,
                [_, _, _, kind, fill, ..] => order.push((kind & 0x0f, *fill)),
                _ => panic!("half a frame"),
            }
        }
    }

    #[test]
    fn keeps_the_order_within_a_class() {
        let mut queues = ClassQueues::default();
        for fill in 0..100 {
            append(&mut queues, Class::Bulk, fill, 300);
        }
        assert_eq!(
            order(&mut queues),
            (0..100).map(|fill| (2, fill)).collect::<Vec<_>>()
        );
        assert!(queues.is_empty());
    }

    #[test]
    fn an_alarm_passes_everything_that_waits() {
        let mut queues = ClassQueues::default();
        for fill in 0..50 {
            append(&mut queues, Class::Bulk, fill, 1_000);
            append(&mut queues, Class::Normal, fill, 1_000);
        }
        let mut out = Vec::new();
        queues.drain(&mut out, 30_000);
        append(&mut queues, Class::Alarm, 7, 200);
        assert_eq!(order(&mut queues).first(), Some(&(0, 7)));
    }

    #[test]
    fn shares_are_eight_to_two_to_one() {
        let mut queues = ClassQueues::default();
        for class in Class::ALL {
            for _ in 0..220 {
                append(&mut queues, class, 1, 996);
            }
        }
        let order = order(&mut queues);
        let counts = [0, 1, 2].map(|class| {
            order
                .iter()
                .take(110)
                .filter(|(found, _)| *found == class)
                .count()
        });
        assert_eq!(counts, [80, 20, 10]);
    }

    #[test]
    fn a_class_that_was_silent_has_saved_nothing_up() {
        let mut queues = ClassQueues::default();
        for _ in 0..1_000 {
            append(&mut queues, Class::Bulk, 1, 996);
        }
        queues.drain(&mut Vec::new(), 900_000);
        for _ in 0..200 {
            append(&mut queues, Class::Alarm, 1, 996);
        }
        // Nine alarms up to the start of the next bulk frame, then eight for each.
        let order = order(&mut queues);
        assert_eq!(order.iter().take(90).filter(|(class, _)| *class == 0).count(), 81);
    }

    #[test]
    fn small_rooms_give_the_same_shares_as_large_ones() {
        let fill = |queues: &mut ClassQueues| {
            for class in Class::ALL {
                (0..60).for_each(|fill| append(queues, class, fill, 500));
            }
        };
        let (mut small, mut large) = (ClassQueues::default(), ClassQueues::default());
        fill(&mut small);
        fill(&mut large);
        let (mut one_by_one, mut at_once) = (Vec::new(), Vec::new());
        while small.drain(&mut one_by_one, 1) > 0 {}
        large.drain(&mut at_once, usize::MAX);
        assert_eq!(one_by_one, at_once);
    }

    #[test]
    fn bulk_is_refused_first_then_normal_then_alarms() {
        let mut queues = ClassQueues::default();
        append(&mut queues, Class::Bulk, 0, 496);
        assert!(queues.admits(Class::Bulk, 0, 1_000) && !queues.admits(Class::Bulk, 1, 1_000));
        append(&mut queues, Class::Normal, 0, 246);
        assert!(queues.admits(Class::Normal, 0, 1_000) && !queues.admits(Class::Normal, 1, 1_000));
        assert!(queues.admits(Class::Alarm, 250, 1_000) && !queues.admits(Class::Alarm, 251, 1_000));
    }

    #[test]
    fn a_frame_that_could_not_be_written_leaves_nothing() {
        let mut queues = ClassQueues::default();
        let error = FrameError::TooLong { len: 2, max: 1 };
        assert_eq!(queues.append(Class::Alarm, |_| Err(error)), Err(error));
        assert!(queues.is_empty());
        assert_eq!(queues.drain(&mut Vec::new(), 10), 0);
    }

    #[test]
    fn an_empty_queue_gives_its_memory_back() {
        let mut queues = ClassQueues::default();
        for _ in 0..10 {
            append(&mut queues, Class::Bulk, 0, 60_000);
        }
        queues.drain(&mut Vec::new(), usize::MAX);
        assert!(queues.queues[2].bytes.capacity() <= CAPACITY_KEPT);
    }
}
