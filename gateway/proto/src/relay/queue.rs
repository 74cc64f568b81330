//! What waits for a congested link, by class.

use std::collections::VecDeque;

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
    /// Memory for the next piece; none while nothing waits.
    spare: Vec<u8>,
}

/// Frames of one class in pieces of [`PIECE_BYTES`] and the frame that crosses it, of which only the last is appended to. No piece is empty.
#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    /// Bytes at the front of the first piece that are gone already.
    at: usize,
    /// The start of the frame at the front, in weighted bytes.
    start: u64,
}

#[derive(Debug, Default)]
struct Piece {
    bytes: Vec<u8>,
    /// Bytes of its last frame.
    last: usize,
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
        let was_empty = queue.is_empty();
        let written = queue.append(&mut self.spare, write)?;
        if was_empty {
            queue.start = queue.start.max(self.now);
        }
        self.len += written;
        Ok(written)
    }

    /// Moves frames into `out` until at least `room` bytes were moved or none waits, and returns the bytes moved: at
    /// most one frame more than `room`.
    ///
    /// While one class alone waits and `out` is empty, a piece of its queue takes the place of `out` without a copy; then it may be less
    /// than `room`, if the next piece would have to be cut. Something moves whenever something waits and there is room for it.
    pub fn drain(&mut self, out: &mut Vec<u8>, room: usize) -> usize {
        let mut moved = self.swap(out, room);
        let is_swapped = moved > 0;
        while moved < room {
            if is_swapped && self.next_piece_len() > room - moved {
                break;
            }
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
        if self.len == 0 {
            // A link that was congested once does not hold memory for ever.
            self.spare = Vec::new();
        }
        moved
    }

    /// Puts the first piece in the place of `out`, which is empty, if one class alone waits and the piece is not longer than `room`.
    fn swap(&mut self, out: &mut Vec<u8>, room: usize) -> usize {
        let mut waiting = self
            .queues
            .iter_mut()
            .zip(WEIGHTS)
            .filter(|(queue, _)| !queue.is_empty());
        let (Some((queue, weight)), None) = (waiting.next(), waiting.next()) else {
            return 0;
        };
        let is_whole = queue.at == 0
            && queue
                .pieces
                .front()
                .is_some_and(|piece| piece.bytes.len() <= room);
        if !out.is_empty() || !is_whole {
            return 0;
        }
        let Some(piece) = queue.pieces.pop_front() else {
            return 0;
        };
        let len = piece.bytes.len();
        queue.start += weight * len as u64;
        self.now = queue.start - weight * piece.last as u64;
        self.len -= len;
        self.spare = std::mem::replace(out, piece.bytes);
        len
    }

    /// Returns the bytes left in the first piece of the class that waits alone; 0 if none or several do.
    fn next_piece_len(&self) -> usize {
        let mut waiting = self.queues.iter().filter(|queue| !queue.is_empty());
        let (Some(queue), None) = (waiting.next(), waiting.next()) else {
            return 0;
        };
        let front = queue.pieces.front();
        front.map_or(0, |piece| piece.bytes.len() - queue.at)
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Appends the one frame that `write` writes and returns its length in bytes.
    fn append(
        &mut self,
        spare: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), FrameError>,
    ) -> Result<usize, FrameError> {
        if self
            .pieces
            .back()
            .is_none_or(|piece| piece.bytes.len() >= PIECE_BYTES)
        {
            let bytes = std::mem::take(spare);
            self.pieces.push_back(Piece { bytes, last: 0 });
        }
        let piece = self.pieces.back_mut().expect("there is one, if only since now");
        let before = piece.bytes.len();
        let result = write(&mut piece.bytes);
        let written = piece.bytes.len() - before;
        if written > 0 {
            piece.last = written;
        } else if before == 0 {
            self.pieces.pop_back();
        }
        result.map(|()| written)
    }

    /// Returns the frame at the front; frames carry their length.
    fn front(&self) -> &[u8] {
        let piece = self
            .pieces
            .front()
            .expect("who asks has seen that something waits");
        let rest = &piece.bytes[self.at..];
        let [high, middle, low, _] = *rest
            .first_chunk::<FRAME_HEADER_LEN>()
            .expect("only whole frames are appended");
        let len = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        &rest[..FRAME_HEADER_LEN + len]
    }

    fn remove(&mut self, len: usize) {
        self.at += len;
        if self
            .pieces
            .front()
            .is_some_and(|piece| self.at == piece.bytes.len())
        {
            self.pieces.pop_front();
            self.at = 0;
        }
    }
}

/// What a byte of each class costs, most urgent first.
const WEIGHTS: [u64; 3] = [1, 4, 8];
/// Bytes from which on a piece is not appended to any more: two records of the greatest length.
const PIECE_BYTES: usize = 100 << 10;

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
        assert!(queues.is_empty());
        assert!(queues.queues[2].pieces.is_empty());
        assert_eq!(queues.spare.capacity(), 0);
    }

    #[test]
    fn a_class_that_waits_alone_moves_in_whole_pieces() {
        let fill =
            |queues: &mut ClassQueues| (0..7).for_each(|fill| append(queues, Class::Normal, fill, 60_000));
        let (mut queues, mut reference) = (ClassQueues::default(), ClassQueues::default());
        fill(&mut queues);
        fill(&mut reference);
        let mut expected = vec![1];
        reference.drain(&mut expected, usize::MAX);
        let mut got = vec![1];
        // Two frames are a piece; a third would have to be cut off the next.
        for pieces in [1, 1, 2] {
            let mut out = Vec::with_capacity(10);
            let moved = queues.drain(&mut out, 200_000);
            assert_eq!(moved, out.len());
            assert_eq!(moved, if pieces == 1 { 120_008 } else { 180_012 });
            got.extend_from_slice(&out);
        }
        assert!(queues.is_empty());
        assert_eq!(got, expected);
        // The starts are the same, too.
        assert_eq!(queues.queues[1].start, reference.queues[1].start);
        assert_eq!(queues.now, reference.now);
    }
}
