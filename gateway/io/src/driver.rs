use std::{io, marker::PhantomData, time::Duration};

use crate::{
    backend::Backend,
    clock,
    connection::Phase,
    epoll,
    handler::{Handler, Turn},
    io::{Io, Port},
    shard::{Settings, Shard},
    uring,
    waker::Waker,
};

/// The loop of one shard. It belongs to the thread that made it.
///
/// A handler must not wait. With io_uring, calls that wait with a timeout on the shard's thread also end early, with
/// `Interrupted`, when the kernel has work of the ring to do there.
///
/// Dropping it aborts all connections and waits until the kernel has given back all memory; durable writes in flight are
/// finished, but nobody hears of them.
#[derive(Debug)]
pub struct Driver {
    io: Io,
    inbox: Inbox,
    next: Turn,
    waker: Waker,
    /// The ring may be used by one thread only.
    not_send: PhantomData<*const ()>,
}

/// What came from the kernel and the memory it came in, apart from [`Io`] so that a handler can hold a slice of it.
#[derive(Debug)]
enum Inbox {
    Epoll(epoll::Inbox),
    Ring(uring::Inbox),
}

impl Driver {
    /// Makes the driver of a shard, on the thread that will run it.
    ///
    /// # Errors
    /// Settings that cannot work, a waker that is in use or not a shard's ([`Waker::callback`]), or what the kernel says
    /// when descriptors or memory run out.
    pub fn new(backend: Backend, settings: Settings, waker: &Waker) -> io::Result<Self> {
        settings
            .check()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        if !waker.attach() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the waker is in use or not a shard's",
            ));
        }
        match Self::build(backend, &settings, waker) {
            Ok((port, inbox)) => Ok(Self {
                io: Io {
                    shard: Shard::new(settings),
                    port,
                },
                inbox,
                // The first turn comes at once, so that the handler can say how to wait.
                next: Turn {
                    deadline_nanos: Some(0),
                    coalesce: Duration::ZERO,
                },
                waker: waker.clone(),
                not_send: PhantomData,
            }),
            Err(error) => {
                waker.detach();
                Err(error)
            }
        }
    }

    fn build(backend: Backend, settings: &Settings, waker: &Waker) -> io::Result<(Port, Inbox)> {
        Ok(match backend {
            Backend::Epoll => (
                Port::Epoll(epoll::Poller::new(waker)?),
                Inbox::Epoll(epoll::Inbox::new()),
            ),
            Backend::Uring => {
                let (ring, inbox) = uring::Ring::new(settings, waker)?;
                (Port::Ring(Box::new(ring)), Inbox::Ring(inbox))
            }
        })
    }

    /// Returns what the handler will get, to listen and connect before the first turn.
    pub const fn io(&mut self) -> &mut Io {
        &mut self.io
    }

    /// Runs turns until the handler calls [`Io::stop`].
    ///
    /// # Errors
    /// What [`Self::turn`] says.
    pub fn run(&mut self, handler: &mut dyn Handler) -> io::Result<()> {
        while !self.io.shard.stopping {
            self.turn(handler)?;
        }
        self.io.flush();
        match &mut self.io.port {
            Port::Epoll(_) => Ok(()),
            Port::Ring(ring) => ring.submit(),
        }
    }

    /// Runs one turn: sends what is queued, waits, tells the handler.
    ///
    /// # Errors
    /// The kernel refuses to wait. It never does unless something is badly wrong; the shard cannot go on.
    pub fn turn(&mut self, handler: &mut dyn Handler) -> io::Result<()> {
        let io = &mut self.io;
        io.flush();
        let (timeout, window) = Self::waiting(io, self.next);
        io.shard.stats.system_calls += 1;
        match (&mut io.port, &mut self.inbox) {
            (Port::Epoll(poller), Inbox::Epoll(inbox)) => poller.wait(inbox, timeout, window)?,
            (Port::Ring(ring), Inbox::Ring(inbox)) => {
                ring.wait(inbox, timeout, window, &mut io.shard.stats)?
            }
            (Port::Epoll(_), Inbox::Ring(_)) | (Port::Ring(_), Inbox::Epoll(_)) => {
                unreachable!("port and inbox are made together")
            }
        }
        io.shard.now = clock::monotonic();
        io.shard.turn += 1;
        io.shard.stats.turns += 1;
        io.shard.end_accept_pauses();
        io.shard.end_datagram_pauses();
        match &mut self.inbox {
            Inbox::Epoll(inbox) => epoll::dispatch(io, inbox, handler),
            Inbox::Ring(inbox) => uring::dispatch(io, inbox, handler),
        }
        io.shard.expire();
        io.tell(handler);
        self.next = handler.turn_ended(io);
        Ok(())
    }

    /// Returns how long to wait at most, and how long not to be disturbed.
    fn waiting(io: &Io, next: Turn) -> (Option<Duration>, Duration) {
        let shard = &io.shard;
        let accepting = shard
            .listeners
            .iter()
            .flatten()
            .any(|listener| listener.readable && listener.retry_at == 0);
        if accepting
            || !shard.ready.is_empty()
            || !shard.ready_datagrams.is_empty()
            || !shard.events.is_empty()
            || !shard.dirty.is_empty()
        {
            return (Some(Duration::ZERO), Duration::ZERO);
        }
        let deadline = match (next.deadline_nanos, io.shard.next_deadline()) {
            (Some(handler), Some(driver)) => Some(handler.min(driver)),
            (handler, driver) => handler.or(driver),
        };
        if deadline.is_none() && next.coalesce.is_zero() {
            return (None, Duration::ZERO);
        }
        let now = clock::monotonic();
        let timeout = deadline.map(|deadline| Duration::from_nanos(deadline.saturating_sub(now)));
        let elapsed = Duration::from_nanos(now.saturating_sub(io.shard.now));
        let window = next.coalesce.saturating_sub(elapsed);
        (timeout, timeout.map_or(window, |timeout| window.min(timeout)))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let (Port::Ring(ring), Inbox::Ring(inbox)) = (&mut self.io.port, &mut self.inbox) {
            ring.shut_down(&mut self.io.shard, inbox);
        }
        for id in self.io.shard.connections.ids() {
            if let Some(connection) = self.io.shard.connections.get(id)
                && (connection.reset || matches!(connection.phase, Phase::Connecting | Phase::Open))
            {
                connection.arm_reset();
            }
        }
        self.waker.detach();
    }
}
