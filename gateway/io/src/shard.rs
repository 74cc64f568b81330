//! What a shard knows, apart from how its backend talks to the kernel.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use crate::{
    clock,
    connection::{BufferClass, CloseReason, Connection, ConnectionId, ListenerId, Phase, dismantle},
    datagram::{DatagramId, DatagramSocket},
    local::LocalPath,
    outbox::BufferPool,
    table::Table,
};

/// Bounds of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Connections at a time; more are refused and counted. 1..=1,000,000.
    pub connections_max: u32,
    /// Receive buffers of 4 KiB for [`BufferClass::Device`], and for what brings little: a power of two, 8..=32,768. Only io_uring uses them.
    pub device_buffers: u16,
    /// Receive buffers of 256 KiB for [`BufferClass::Link`]: a power of two, 8..=4,096. Only io_uring uses them.
    pub link_buffers: u16,
    /// Datagram sockets at a time. 1..=100,000.
    pub datagram_sockets_max: u32,
    /// Receive buffers of 64 KiB for datagrams: a power of two, 8..=4,096. Only io_uring uses them, and takes memory only
    /// for what the datagrams need.
    pub datagram_buffers: u16,
    /// A connection with more bytes queued is congested; [`crate::Handler::drained`] tells when it no longer is.
    pub high_water: usize,
    /// A congested connection with fewer bytes queued is drained.
    pub low_water: usize,
    /// A connection with more bytes queued is aborted: a handler that heeds `high_water` never gets here.
    pub queued_bytes_max: usize,
    /// How long a closed connection may take to deliver what is queued and to see the peer close.
    pub close_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections_max: 65_536,
            device_buffers: 256,
            // Few: the kernel uses them in turn, and what is used again soon is still in the processor's cache.
            link_buffers: 8,
            datagram_sockets_max: 4096,
            datagram_buffers: 64,
            high_water: 256 << 10,
            low_water: 64 << 10,
            queued_bytes_max: 16 << 20,
            close_timeout: Duration::from_secs(3),
        }
    }
}

/// A bound that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shard setting {field} is {got}, but must be {allowed}")]
pub struct SettingsError {
    /// The field of [`Settings`].
    pub field: &'static str,
    /// Its value.
    pub got: usize,
    /// What it may be.
    pub allowed: &'static str,
}

impl SettingsError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        "start from the defaults; they suit a gateway with thousands of devices"
    }
}

impl Settings {
    /// Checks the bounds against each other.
    ///
    /// # Errors
    /// The first field that cannot work.
    pub const fn check(&self) -> Result<(), SettingsError> {
        const fn wrong(field: &'static str, got: usize, allowed: &'static str) -> Result<(), SettingsError> {
            Err(SettingsError { field, got, allowed })
        }
        if self.connections_max == 0 || self.connections_max > 1_000_000 {
            return wrong("connections_max", self.connections_max as usize, "in 1..=1000000");
        }
        if !self.device_buffers.is_power_of_two() || self.device_buffers < 8 {
            return wrong(
                "device_buffers",
                self.device_buffers as usize,
                "a power of two in 8..=32768",
            );
        }
        if !self.link_buffers.is_power_of_two() || self.link_buffers < 8 || self.link_buffers > 4096 {
            return wrong(
                "link_buffers",
                self.link_buffers as usize,
                "a power of two in 8..=4096",
            );
        }
        if self.datagram_sockets_max == 0 || self.datagram_sockets_max > 100_000 {
            return wrong(
                "datagram_sockets_max",
                self.datagram_sockets_max as usize,
                "in 1..=100000",
            );
        }
        if !self.datagram_buffers.is_power_of_two()
            || self.datagram_buffers < 8
            || self.datagram_buffers > 4096
        {
            return wrong(
                "datagram_buffers",
                self.datagram_buffers as usize,
                "a power of two in 8..=4096",
            );
        }
        if self.low_water == 0 || self.low_water > self.high_water {
            return wrong("low_water", self.low_water, "in 1..=high_water");
        }
        if self.queued_bytes_max < self.high_water || self.queued_bytes_max > 1 << 30 {
            return wrong("queued_bytes_max", self.queued_bytes_max, "in high_water..=1 GiB");
        }
        Ok(())
    }
}

/// What a shard has done since it began. All values only grow, except `connections` and `datagram_sockets`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections now, including those the kernel has not given back yet.
    pub connections: u64,
    /// Turns of the loop: waits that came back.
    pub turns: u64,
    /// System calls made to wait, submit or send; accepts and closes not counted.
    pub system_calls: u64,
    /// Connections accepted and handed to the handler.
    pub accepted: u64,
    /// Connections accepted and closed at once because `connections_max` was reached.
    pub refused: u64,
    /// Times a listener paused because the process or the machine had no descriptor or memory left for a connection.
    pub accept_pauses: u64,
    /// Receives that found no buffer and had to be repeated.
    pub buffers_exhausted: u64,
    /// Times a connection had its share of the turn and had to wait for the next.
    pub throttled: u64,
    /// Connections aborted because `queued_bytes_max` was exceeded.
    pub overrun: u64,
    /// Sends handed to the kernel.
    pub sends: u64,
    /// Bytes the kernel took for sending.
    pub bytes_sent: u64,
    /// Receives that brought bytes.
    pub receives: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Durable writes that ended, well or not.
    pub writes: u64,
    /// Datagram sockets now, including those the kernel has not given back yet.
    pub datagram_sockets: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Datagrams the kernel took for sending.
    pub datagrams_sent: u64,
    /// Datagrams not sent because the socket's queue was full or they were longer than any datagram is.
    pub datagrams_refused: u64,
    /// Datagrams the kernel did not take, and errors that the network told to sockets with one remote address.
    pub datagrams_failed: u64,
}

/// A socket that connections come from.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Where a UNIX socket stands. Before the socket: its file goes while nobody else can listen there.
    pub(crate) path: Option<LocalPath>,
    pub(crate) socket: TcpListener,
    pub(crate) class: BufferClass,
    /// Not before this time is accepting tried again; 0 if nothing is wrong.
    pub(crate) retry_at: u64,
    /// Nothing is to be accepted any more.
    pub(crate) closing: bool,
    /// Ring: the kernel holds the accept, or its cancellation.
    pub(crate) armed: bool,
    pub(crate) cancelling: bool,
    /// Epoll: there may be connections to accept.
    pub(crate) readable: bool,
}

/// Something the handler has to be told that came up where the handler is not at hand.
#[derive(Debug)]
pub(crate) enum Event {
    Connected(ConnectionId, io::Result<()>),
    Drained(ConnectionId),
    Closed(ConnectionId, CloseReason),
    DatagramFailed(DatagramId, Option<SocketAddr>, io::Error),
    DatagramsDrained(DatagramId),
}

#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) settings: Settings,
    pub(crate) connections: Table<Connection>,
    pub(crate) listeners: Vec<Option<Listener>>,
    /// Connections to look at before the next wait.
    pub(crate) dirty: Vec<ConnectionId>,
    /// Connections with something to receive without the kernel's help.
    pub(crate) ready: Vec<ConnectionId>,
    pub(crate) datagrams: Table<DatagramSocket>,
    /// Datagram sockets to look at before the next wait.
    pub(crate) dirty_datagrams: Vec<DatagramId>,
    /// Epoll: datagram sockets with something to receive.
    pub(crate) ready_datagrams: Vec<DatagramId>,
    /// Datagram sockets that do not receive for a while because of an error.
    pub(crate) paused_datagrams: Vec<DatagramId>,
    pub(crate) events: VecDeque<Event>,
    timers: BTreeSet<(u64, ConnectionId)>,
    pub(crate) pool: BufferPool,
    pub(crate) stats: Stats,
    pub(crate) now: u64,
    pub(crate) turn: u64,
    pub(crate) stopping: bool,
}

impl Shard {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            connections: Table::new(settings.connections_max),
            datagrams: Table::new(settings.datagram_sockets_max),
            settings,
            listeners: Vec::new(),
            dirty: Vec::new(),
            ready: Vec::new(),
            dirty_datagrams: Vec::new(),
            ready_datagrams: Vec::new(),
            paused_datagrams: Vec::new(),
            events: VecDeque::new(),
            timers: BTreeSet::new(),
            pool: BufferPool::default(),
            stats: Stats::default(),
            now: clock::monotonic(),
            turn: 1,
            stopping: false,
        }
    }

    pub(crate) fn listener(&mut self, id: ListenerId) -> Option<&mut Listener> {
        self.listeners.get_mut(id.0 as usize)?.as_mut()
    }

    /// Adds a listener.
    pub(crate) fn add_listener(
        &mut self,
        socket: TcpListener,
        class: BufferClass,
        path: Option<LocalPath>,
    ) -> io::Result<ListenerId> {
        let id = u32::try_from(self.listeners.len()).unwrap_or(u32::MAX);
        if id >= LISTENERS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "the shard has had 1024 listeners",
            ));
        }
        self.listeners.push(Some(Listener {
            path,
            socket,
            class,
            retry_at: 0,
            closing: false,
            armed: false,
            cancelling: false,
            readable: false,
        }));
        Ok(ListenerId(id))
    }

    /// Stops accepting for a while after an error that more accepting would only repeat; forgives the others.
    pub(crate) fn accept_failed(&mut self, id: ListenerId, error: &io::Error) {
        let retry_at = self.now.saturating_add(clock::nanos(ERROR_RETRY));
        let Some(listener) = self.listener(id) else { return };
        match error.raw_os_error() {
            // The one connection at the head of the queue is broken; the next may be well.
            Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO | libc::ECANCELED) => {}
            // EMFILE, ENFILE, ENOBUFS, ENOMEM, and whatever else would make the loop spin.
            _ => {
                listener.retry_at = retry_at;
                self.stats.accept_pauses += 1;
            }
        }
    }

    /// Lets listeners whose pause is over accept again.
    pub(crate) fn end_accept_pauses(&mut self) {
        for listener in self.listeners.iter_mut().flatten() {
            if listener.retry_at <= self.now {
                listener.retry_at = 0;
            }
        }
    }

    /// Puts an accepted connection into the table, or drops it when the table is full.
    pub(crate) fn admit(&mut self, socket: TcpStream, class: BufferClass) -> Option<ConnectionId> {
        match self
            .connections
            .insert(Connection::new(socket, Phase::Open, class))
        {
            Some(id) => {
                self.stats.accepted += 1;
                self.mark_dirty(id);
                Some(id)
            }
            None => {
                self.stats.refused += 1;
                None
            }
        }
    }

    /// Has the backend look at the connection before the next wait.
    pub(crate) fn mark_dirty(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(id);
        }
    }

    /// Has the connection's bytes looked at in the next turn, without waiting for the kernel.
    pub(crate) fn mark_ready(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.ready
        {
            connection.ready = true;
            self.ready.push(id);
        }
    }

    /// Sets or lifts (`u64::MAX`) the time by which connecting or closing must be done.
    pub(crate) fn set_deadline(&mut self, id: ConnectionId, deadline: u64) {
        if let Some(connection) = self.connections.get_mut(id) {
            let old = std::mem::replace(&mut connection.deadline, deadline);
            if old != u64::MAX {
                self.timers.remove(&(old, id));
            }
            if deadline != u64::MAX {
                self.timers.insert((deadline, id));
            }
        }
    }

    /// Closes what has taken too long to connect or to close, and frees memory that is not needed any more.
    pub(crate) fn expire(&mut self) {
        self.pool.trim(self.now);
        while let Some(&(deadline, id)) = self.timers.first() {
            if deadline > self.now {
                return;
            }
            self.timers.pop_first();
            let Some(connection) = self.connections.get_mut(id) else {
                continue;
            };
            connection.deadline = u64::MAX;
            match connection.phase {
                Phase::Connecting => self.connect_failed(id, io::ErrorKind::TimedOut.into()),
                Phase::Closing if connection.outbox.queued() == 0 => {
                    let reason = connection.reason;
                    self.lose(id, reason);
                }
                Phase::Closing => {
                    connection.reset = true;
                    self.lose(id, CloseReason::Unflushed);
                }
                Phase::Open | Phase::Gone => {}
            }
        }
    }

    /// The next time something must be done although nothing happens.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let timer = self
            .timers
            .first()
            .map(|&(deadline, _)| deadline)
            .into_iter()
            .chain(self.pool.trim_at())
            .min();
        let retry = self
            .listeners
            .iter()
            .flatten()
            .map(|listener| listener.retry_at)
            .filter(|&at| at != 0)
            .chain(self.datagram_pause_end())
            .min();
        match (timer, retry) {
            (Some(timer), Some(retry)) => Some(timer.min(retry)),
            (timer, retry) => timer.or(retry),
        }
    }

    /// A connect has succeeded.
    pub(crate) fn connected(&mut self, id: ConnectionId) {
        self.set_deadline(id, u64::MAX);
        if let Some(connection) = self.connections.get_mut(id)
            && connection.phase == Phase::Connecting
        {
            connection.phase = Phase::Open;
            self.events.push_back(Event::Connected(id, Ok(())));
            self.mark_dirty(id);
        }
    }

    /// A connect has failed.
    pub(crate) fn connect_failed(&mut self, id: ConnectionId, error: io::Error) {
        self.set_deadline(id, u64::MAX);
        if let Some(connection) = self.connections.get_mut(id)
            && connection.phase == Phase::Connecting
        {
            connection.phase = Phase::Gone;
            connection.outbox.discard_filling(&mut self.pool);
            self.events.push_back(Event::Connected(id, Err(error)));
            self.mark_dirty(id);
        }
    }

    /// The connection is over for the handler; the backend frees it as soon as the kernel lets go of it.
    pub(crate) fn lose(&mut self, id: ConnectionId, reason: CloseReason) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        match connection.phase {
            Phase::Gone => {}
            Phase::Connecting => self.connect_failed(id, io::ErrorKind::ConnectionAborted.into()),
            Phase::Open | Phase::Closing => {
                connection.phase = Phase::Gone;
                connection.backlog = Vec::new();
                connection.outbox.discard_filling(&mut self.pool);
                self.set_deadline(id, u64::MAX);
                self.events.push_back(Event::Closed(id, reason));
                self.mark_dirty(id);
            }
        }
    }

    /// Applies the bounds on what is queued, before sending. Returns whether the connection is still there to send on.
    pub(crate) fn check_queue(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(id) else {
            return false;
        };
        let queued = connection.outbox.queued();
        if queued > self.settings.queued_bytes_max {
            connection.reset = true;
            self.stats.overrun += 1;
            self.lose(id, CloseReason::Overrun);
            return false;
        }
        if queued > self.settings.high_water {
            connection.congested = true;
        }
        true
    }

    /// Draws the consequences of what was sent.
    pub(crate) fn after_send(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.congested && connection.outbox.queued() < self.settings.low_water {
            connection.congested = false;
            if connection.phase == Phase::Open {
                self.events.push_back(Event::Drained(id));
            }
        }
        if matches!(connection.phase, Phase::Open | Phase::Closing)
            && let Some(reason) = connection.settle()
        {
            self.lose(id, reason);
        }
    }

    /// Frees a connection the kernel holds nothing of.
    pub(crate) fn release(&mut self, id: ConnectionId) {
        self.set_deadline(id, u64::MAX);
        if let Some(connection) = self.connections.remove(id) {
            dismantle(*connection, &mut self.pool);
        }
    }
}

/// Listeners a shard can have in its life.
const LISTENERS_MAX: u32 = 1024;

/// Pause after an accept or a receive failed for want of descriptors or memory: long enough not to spin, short enough not to
/// be noticed.
pub(crate) const ERROR_RETRY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_settings_can_work() {
        assert_eq!(Settings::default().check(), Ok(()));
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        let good = Settings::default();
        for (settings, field) in [
            (
                Settings {
                    connections_max: 0,
                    ..good.clone()
                },
                "connections_max",
            ),
            (
                Settings {
                    device_buffers: 100,
                    ..good.clone()
                },
                "device_buffers",
            ),
            (
                Settings {
                    link_buffers: 4,
                    ..good.clone()
                },
                "link_buffers",
            ),
            (
                Settings {
                    datagram_sockets_max: 0,
                    ..good.clone()
                },
                "datagram_sockets_max",
            ),
            (
                Settings {
                    datagram_buffers: 4,
                    ..good.clone()
                },
                "datagram_buffers",
            ),
            (
                Settings {
                    low_water: 1 << 20,
                    ..good.clone()
                },
                "low_water",
            ),
            (
                Settings {
                    queued_bytes_max: 1,
                    ..good.clone()
                },
                "queued_bytes_max",
            ),
        ] {
            assert_eq!(settings.check().expect_err("it cannot work").field, field);
        }
    }
}
