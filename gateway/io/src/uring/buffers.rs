//! Provided buffers: memory the kernel picks from when bytes arrive, so that waiting connections need none.
#![expect(
    unsafe_code,
    reason = "memory is shared with the kernel, which follows the protocol of io_uring_register(2)"
)]

use std::{
    io,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{IoUring, types::BufRingEntry};

use crate::sys::Mapping;

/// A ring of `count` buffers of `size` bytes each.
///
/// ```text
///   ours ──recycle: entry at the tail──▶ kernel's ──completion names it: take──▶ ours
/// ```
///
/// Invariant: `ledger` knows which side each buffer is on; only buffers on our side are read or written.
#[derive(Debug)]
pub(crate) struct BufferRing {
    /// `count` entries of 16 bytes; the tail stands in a field of the first that is otherwise unused.
    entries: Entries,
    memory: Entries,
    ledger: Ledger,
    size: usize,
}

/// Memory the kernel may hold on to.
struct Entries(Option<Mapping>);

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.as_ref().map_or(0, Mapping::size))
    }
}

impl Entries {
    fn mapping(&self) -> &Mapping {
        self.0
            .as_ref()
            .expect("memory is there until the ring is shut down")
    }
}

impl BufferRing {
    /// Makes the buffers and gives all of them to the kernel as group `group` of `ring`.
    pub(crate) fn register(ring: &IoUring, group: u16, count: u16, size: usize) -> io::Result<Self> {
        assert!(count.is_power_of_two() && count <= COUNT_MAX, "{count} buffers");
        assert!(u32::try_from(size).is_ok(), "buffers of {size} bytes");
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * size)?;
        let address = entries.start().as_ptr() as u64;
        // SAFETY: the entries are a zeroed mapping of `count` entries at a page boundary; it is unmapped only after the
        // ring has been shut down, or never.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(address, count, group, 0)
        }?;
        let mut buffers = Self {
            entries: Entries(Some(entries)),
            memory: Entries(Some(memory)),
            ledger: Ledger::new(count),
            size,
        };
        for buffer in 0..count {
            buffers.recycle(buffer);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// Notes that the kernel has given a buffer back, by naming it in a completion.
    pub(crate) fn take(&mut self, buffer: u16) {
        self.ledger.take(buffer);
    }

    /// Returns the first `length` bytes of a buffer that was taken.
    ///
    /// # Panics
    /// If the buffer is the kernel's, or shorter than `length`.
    pub(crate) fn bytes(&mut self, buffer: u16, length: usize) -> &mut [u8] {
        assert!(
            self.ledger.is_ours(buffer),
            "buffer {buffer} read while the kernel owns it"
        );
        assert!(length <= self.size, "{length} bytes in a buffer of {}", self.size);
        let memory = self.memory.mapping();
        let offset = usize::from(buffer) * self.size;
        assert!(
            offset + length <= memory.size(),
            "buffer {buffer} is not in the memory"
        );
        // SAFETY: the offset lies inside the mapping, as asserted.
        let start = unsafe { memory.start().add(offset) };
        // SAFETY: the range lies inside the mapping; the kernel gave the buffer back and cannot get it again while `self`
        // is borrowed; mapped memory is initialised.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), length) }
    }

    /// Puts a buffer back into the ring; the kernel sees it after [`Self::publish`].
    pub(crate) fn recycle(&mut self, buffer: u16) {
        let position = self.ledger.give(buffer);
        let offset = usize::from(buffer) * self.size;
        assert!(
            offset + self.size <= self.memory.mapping().size(),
            "buffer {buffer} is not in the memory"
        );
        // SAFETY: the offset lies inside the mapping, as asserted.
        let start = unsafe { self.memory.mapping().start().add(offset) };
        assert!(usize::from(position) * size_of::<BufRingEntry>() < self.entries.mapping().size());
        // SAFETY: the position lies inside the mapping of entries, as asserted.
        let entry = unsafe {
            self.entries
                .mapping()
                .start()
                .cast::<BufRingEntry>()
                .add(usize::from(position))
        };
        // SAFETY: the entry lies at or beyond the published tail, so the kernel does not read it, and nobody else writes.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(start.as_ptr() as u64);
        #[expect(clippy::cast_possible_truncation, reason = "checked in `register`")]
        entry.set_len(self.size as u32);
        entry.set_bid(buffer);
    }

    /// Lets the kernel see the buffers recycled since the last call.
    pub(crate) fn publish(&mut self) {
        let first = self.entries.mapping().start().cast::<BufRingEntry>();
        // SAFETY: `first` is the first entry of a registered ring, and initialised.
        let tail = unsafe { BufRingEntry::tail(first.as_ptr()) };
        // SAFETY: the tail is two aligned bytes inside the mapping, which the kernel only reads, atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the kernel must see the entries before it sees the tail that covers them.
        tail.store(self.ledger.tail, Ordering::Release);
    }

    /// Gives the memory up for good, because the kernel may still write to it.
    pub(crate) fn leak(&mut self) {
        std::mem::forget(self.entries.0.take());
        std::mem::forget(self.memory.0.take());
    }
}

/// The kernel's bound on entries.
const COUNT_MAX: u16 = 1 << 15;

/// Which buffers the kernel holds, and where the next entry goes.
#[derive(Debug)]
struct Ledger {
    in_kernel: Vec<bool>,
    tail: u16,
}

impl Ledger {
    fn new(count: u16) -> Self {
        Self {
            in_kernel: vec![false; usize::from(count)],
            tail: 0,
        }
    }

    /// Moves a buffer to the kernel's side and returns the position of its entry.
    fn give(&mut self, buffer: u16) -> u16 {
        let mask = self.in_kernel.len() - 1;
        let side = self
            .in_kernel
            .get_mut(usize::from(buffer))
            .expect("the buffer exists");
        assert!(!*side, "buffer {buffer} given to the kernel twice");
        *side = true;
        let position = usize::from(self.tail) & mask;
        self.tail = self.tail.wrapping_add(1);
        #[expect(clippy::cast_possible_truncation, reason = "the mask is below 2^15")]
        {
            position as u16
        }
    }

    /// Moves a buffer to our side.
    fn take(&mut self, buffer: u16) {
        let side = self
            .in_kernel
            .get_mut(usize::from(buffer))
            .expect("the kernel names buffers that exist");
        assert!(
            *side,
            "the kernel gave back buffer {buffer}, which it did not have"
        );
        *side = false;
    }

    fn is_ours(&self, buffer: u16) -> bool {
        self.in_kernel
            .get(usize::from(buffer))
            .is_some_and(|in_kernel| !in_kernel)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a model of the kernel, which reads entries in order from its head: it never meets an entry that was
        /// overwritten before it was read, and each buffer is on exactly one side.
        #[test]
        fn ledger_agrees_with_the_kernel(
            bits in 0_u32..6,
            steps in prop::collection::vec((any::<bool>(), any::<u16>()), 0..2000),
        ) {
            let count = 1_u16 << bits;
            let mut ledger = Ledger::new(count);
            let mut entries = vec![u16::MAX; usize::from(count)];
            let mut ours: Vec<u16> = (0..count).collect();
            let (mut head, mut in_kernel) = (0_u16, VecDeque::new());
            for (give, choice) in steps {
                if give && !ours.is_empty() {
                    let buffer = ours.swap_remove(usize::from(choice) % ours.len());
                    let position = ledger.give(buffer);
                    prop_assert!(in_kernel.len() < usize::from(count));
                    prop_assert_eq!(usize::from(position), in_kernel_position(head, in_kernel.len(), count));
                    entries[usize::from(position)] = buffer;
                    in_kernel.push_back(buffer);
                } else if let Some(expected) = in_kernel.pop_front() {
                    let buffer = entries[usize::from(head) % usize::from(count)];
                    prop_assert_eq!(buffer, expected);
                    head = head.wrapping_add(1);
                    prop_assert!(!ledger.is_ours(buffer));
                    ledger.take(buffer);
                    prop_assert!(ledger.is_ours(buffer));
                    ours.push(buffer);
                }
                prop_assert_eq!(ledger.tail.wrapping_sub(head), u16::try_from(in_kernel.len()).expect("few"));
                let marked = ledger.in_kernel.iter().filter(|side| **side).count();
                prop_assert_eq!(marked, in_kernel.len());
            }
        }
    }

    fn in_kernel_position(head: u16, held: usize, count: u16) -> usize {
        (usize::from(head) + held) % usize::from(count)
    }

    #[test]
    fn the_tail_wraps() {
        let mut ledger = Ledger::new(8);
        for round in 0..20_000_u32 {
            let buffer = u16::try_from(round % 8).expect("small");
            assert_eq!(ledger.give(buffer), buffer);
            ledger.take(buffer);
        }
        assert_eq!(ledger.tail, 20_000);
        for round in 0..50_000_u32 {
            let buffer = u16::try_from(round % 8).expect("small");
            assert_eq!(ledger.give(buffer), buffer);
            ledger.take(buffer);
        }
        assert_eq!(u32::from(ledger.tail), 70_000 % 65_536);
    }

    #[test]
    #[should_panic(expected = "given to the kernel twice")]
    fn giving_twice_is_noticed() {
        let mut ledger = Ledger::new(8);
        ledger.give(3);
        ledger.give(3);
    }

    #[test]
    #[should_panic(expected = "which it did not have")]
    fn taking_what_the_kernel_did_not_have_is_noticed() {
        Ledger::new(8).take(3);
    }
}
