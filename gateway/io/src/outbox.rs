//! Bytes on their way out of one connection, and the buffers they stand in.

/// The two send buffers of a connection: one that the handler fills, one that is being sent.
///
/// Invariant: while the kernel reads from `flight` (the owner knows), `flight` is not touched.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    filling: Vec<u8>,
    flight: Vec<u8>,
    sent: usize,
}

impl Outbox {
    pub(crate) const fn new() -> Self {
        Self {
            filling: Vec::new(),
            flight: Vec::new(),
            sent: 0,
        }
    }

    /// Returns the buffer to append to, taking one from the pool if there is none.
    pub(crate) fn filling(&mut self, pool: &mut BufferPool) -> &mut Vec<u8> {
        if self.filling.capacity() == 0 {
            self.filling = pool.take();
        }
        &mut self.filling
    }

    /// Bytes not yet sent.
    pub(crate) const fn queued(&self) -> usize {
        self.filling.len() + self.flight.len() - self.sent
    }

    /// Makes what was filled the next to be sent, if nothing is being sent. Returns whether there is something to send.
    pub(crate) const fn stage(&mut self) -> bool {
        if self.flight.is_empty() && !self.filling.is_empty() {
            std::mem::swap(&mut self.filling, &mut self.flight);
        }
        !self.flight.is_empty()
    }

    /// The bytes to send now.
    pub(crate) fn unsent(&self) -> &[u8] {
        self.flight.get(self.sent..).unwrap_or_default()
    }

    /// Notes that the first `count` unsent bytes are gone. Gives empty buffers to the pool.
    ///
    /// # Panics
    /// If more was sent than there was.
    pub(crate) fn advance(&mut self, count: usize, pool: &mut BufferPool) {
        self.sent += count;
        assert!(
            self.sent <= self.flight.len(),
            "sent {} of {} bytes",
            self.sent,
            self.flight.len()
        );
        if self.sent == self.flight.len() {
            self.sent = 0;
            pool.give(std::mem::take(&mut self.flight));
            if self.filling.is_empty() {
                pool.give(std::mem::take(&mut self.filling));
            }
        }
    }

    /// Throws away what the handler has filled and was not staged yet.
    pub(crate) fn discard_filling(&mut self, pool: &mut BufferPool) {
        pool.give(std::mem::take(&mut self.filling));
    }

    /// Throws everything away; only when the kernel does not read from it.
    pub(crate) fn clear(&mut self, pool: &mut BufferPool) {
        self.discard_filling(pool);
        self.sent = 0;
        pool.give(std::mem::take(&mut self.flight));
    }
}

/// Empty buffers that idle connections have given back, most recently used first, so that an idle connection holds none.
///
/// While the pool is large, those that nobody took for a second are freed.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    free: Vec<Vec<u8>>,
    bytes: usize,
    /// The fewest buffers that were free since the last trim: so many, the lowest in the stack, were not needed.
    unused: usize,
    /// When to trim next, in nanoseconds; `None` while the pool is small.
    trim_at: Option<u64>,
}

impl BufferPool {
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let buffer = self.free.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        self.unused = self.unused.min(self.free.len());
        buffer
    }

    /// Keeps `buffer` for later unless the pool is full.
    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0
            && self.free.len() < POOL_BUFFERS_MAX
            && self.bytes + buffer.capacity() <= POOL_BYTES_MAX
        {
            buffer.clear();
            self.bytes += buffer.capacity();
            self.free.push(buffer);
        }
    }

    /// When [`Self::trim`] has something to do.
    pub(crate) const fn trim_at(&self) -> Option<u64> {
        self.trim_at
    }

    /// Frees what was not needed since the last time, at most once a second and only while the pool is large.
    pub(crate) fn trim(&mut self, now: u64) {
        if self.bytes <= POOL_BYTES_KEPT {
            self.trim_at = None;
            return;
        }
        match self.trim_at {
            Some(at) if now < at => return,
            Some(_) => {
                for buffer in self.free.drain(..self.unused) {
                    self.bytes -= buffer.capacity();
                }
            }
            None => {}
        }
        self.unused = self.free.len();
        self.trim_at = (self.bytes > POOL_BYTES_KEPT).then_some(now.saturating_add(TRIM_INTERVAL));
    }
}

/// Most buffers kept: one for each of some thousand devices that are answered in the same turn.
const POOL_BUFFERS_MAX: usize = 4096;

/// Most memory kept: two buffers for each of a few links at full speed.
const POOL_BYTES_MAX: usize = 4 << 20;

/// So much is kept for good.
const POOL_BYTES_KEPT: usize = 128 << 10;

/// Nanoseconds between trims.
const TRIM_INTERVAL: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_idle_outbox_holds_no_memory() {
        let mut pool = BufferPool::default();
        let mut outbox = Outbox::default();
        outbox.filling(&mut pool).extend_from_slice(b"hello");
        assert!(outbox.stage());
        outbox.filling(&mut pool).extend_from_slice(b"world");
        assert_eq!(outbox.queued(), 10);
        outbox.advance(5, &mut pool);
        assert!(outbox.stage());
        assert_eq!(outbox.unsent(), b"world");
        outbox.advance(5, &mut pool);
        assert_eq!(outbox.queued(), 0);
        assert_eq!((outbox.filling.capacity(), outbox.flight.capacity()), (0, 0));
        assert_eq!(pool.free.len(), 2);
    }

    #[test]
    fn the_pool_is_bounded() {
        let mut pool = BufferPool::default();
        for _ in 0..100 {
            pool.give(Vec::with_capacity(POOL_BYTES_MAX / 10));
        }
        assert!(pool.free.len() <= 10);
        pool.give(Vec::with_capacity(POOL_BYTES_MAX + 1));
        assert!(pool.bytes <= POOL_BYTES_MAX);
        while !pool.free.is_empty() {
            pool.take();
        }
        assert_eq!(pool.bytes, 0);
    }

    #[test]
    fn a_large_pool_shrinks_to_what_is_used() {
        const SECOND: u64 = TRIM_INTERVAL;
        let mut pool = BufferPool::default();
        for _ in 0..10 {
            pool.give(Vec::with_capacity(100 << 10));
        }
        pool.trim(0);
        assert_eq!(pool.trim_at(), Some(SECOND));
        // Three are in use at a time.
        let taken: Vec<_> = (0..3).map(|_| pool.take()).collect();
        for buffer in taken {
            pool.give(buffer);
        }
        pool.trim(SECOND - 1);
        assert_eq!(pool.free.len(), 10);
        pool.trim(SECOND);
        assert_eq!(pool.free.len(), 3);
        // Nobody comes any more.
        pool.trim(2 * SECOND);
        assert_eq!((pool.free.len(), pool.bytes, pool.trim_at()), (0, 0, None));
        // A small pool stays.
        pool.give(Vec::with_capacity(1000));
        pool.trim(3 * SECOND);
        pool.trim(9 * SECOND);
        assert_eq!(pool.free.len(), 1);
    }

    proptest! {
        /// Whatever is written and however it is sent in pieces, the bytes come out once and in order.
        #[test]
        fn bytes_leave_once_and_in_order(steps in prop::collection::vec((0_usize..300, 0_usize..300), 1..60)) {
            let mut pool = BufferPool::default();
            let mut outbox = Outbox::default();
            let mut expected = VecDeque::new();
            let mut next = 0_u8;
            for (write, send) in steps {
                let filling = outbox.filling(&mut pool);
                for _ in 0..write {
                    filling.push(next);
                    expected.push_back(next);
                    next = next.wrapping_add(1);
                }
                if outbox.stage() {
                    let count = send.min(outbox.unsent().len());
                    let sent = outbox.unsent().get(..count).map(<[u8]>::to_vec).unwrap_or_default();
                    prop_assert_eq!(sent, expected.drain(..count).collect::<Vec<_>>());
                    outbox.advance(count, &mut pool);
                }
                prop_assert_eq!(outbox.queued(), expected.len());
            }
        }
    }
}
