use std::{
    fmt,
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::sys;

/// Wakes a shard, or calls a function, from any thread.
///
/// A shard's waker is made first with [`Waker::new`] and given to [`crate::Driver::new`] on the shard's thread; clones of it
/// go to whoever sends to the shard. Wakes coalesce: however often it is used before the shard gets to run, there is one
/// system call and one call of [`crate::Handler::woken`].
#[derive(Clone)]
pub struct Waker(Arc<Inner>);

enum Inner {
    /// An eventfd. It is never read: it is watched edge-triggered, and its counter does not wrap in a lifetime.
    Event {
        file: File,
        pending: AtomicBool,
        attached: AtomicBool,
    },
    Callback(Box<dyn Fn() + Send + Sync>),
}

impl Waker {
    /// Makes a waker for a shard.
    ///
    /// # Errors
    /// The kernel has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Inner::Event {
            file: File::from(sys::eventfd()?),
            pending: AtomicBool::new(false),
            attached: AtomicBool::new(false),
        })))
    }

    /// Makes a waker that calls `callback`, to reach receivers that are not shards: a tokio `Notify`, a parked thread.
    #[must_use]
    pub fn callback(callback: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner::Callback(Box::new(callback))))
    }

    /// Makes a waker that does nothing, for receivers that block on their mailbox.
    #[must_use]
    pub fn none() -> Self {
        Self::callback(|| {})
    }

    /// Wakes the shard, now or the next time it waits.
    pub fn wake(&self) {
        match &*self.0 {
            Inner::Event { file, pending, .. } => {
                // What the waking thread wrote before this is visible to the shard after it cleared the flag.
                if !pending.swap(true, Ordering::AcqRel) {
                    let mut file = file;
                    // Adding 1 fails only when the counter is full, and then the shard is being woken already.
                    let _ = file.write(&1_u64.to_ne_bytes());
                }
            }
            Inner::Callback(callback) => callback(),
        }
    }

    /// Claims the waker for a driver and returns whether that was possible: it is a shard's, and free.
    pub(crate) fn attach(&self) -> bool {
        match &*self.0 {
            Inner::Event { attached, .. } => !attached.swap(true, Ordering::AcqRel),
            Inner::Callback(_) => false,
        }
    }

    /// Gives the waker back.
    pub(crate) fn detach(&self) {
        if let Inner::Event { attached, .. } = &*self.0 {
            attached.store(false, Ordering::Release);
        }
    }

    /// Clears the wish to be woken. Call before looking at what the wakers left, never after.
    pub(crate) fn clear(&self) {
        if let Inner::Event { pending, .. } = &*self.0 {
            pending.swap(false, Ordering::AcqRel);
        }
    }

    /// Returns the descriptor to watch.
    pub(crate) fn event(&self) -> Option<BorrowedFd<'_>> {
        match &*self.0 {
            Inner::Event { file, .. } => Some(file.as_fd()),
            Inner::Callback(_) => None,
        }
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Inner::Event { pending, .. } => f.debug_struct("Waker").field("pending", pending).finish(),
            Inner::Callback(_) => f.write_str("Waker(callback)"),
        }
    }
}
