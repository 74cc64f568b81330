//! Connections between hosts: ordered bytes with latency and bandwidth, cut at will.

use std::collections::VecDeque;

use fieldgate_proto::node::ConnectionKey;

/// One connection.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) ends: [End; 2],
}

/// One end, and what it has sent that has not arrived.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) host: usize,
    pub(crate) key: ConnectionKey,
    /// Its owner knows the connection.
    pub(crate) open: bool,
    /// Bytes that wait for bandwidth.
    pub(crate) queue: VecDeque<u8>,
    /// A pump is scheduled.
    pub(crate) pumping: bool,
    /// On the way to the other end, in order.
    pub(crate) in_flight: VecDeque<Item>,
    /// When the last of it arrives.
    pub(crate) last_arrival: u64,
    /// What an attacker keeps back, and until when.
    pub(crate) held: Vec<u8>,
    pub(crate) held_until: u64,
    /// What an attacker lets the next frames overtake.
    pub(crate) overtaken: Vec<u8>,
}

/// Something on its way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Bytes(Vec<u8>),
    /// The other end is gone.
    End,
}

impl Pipe {
    pub(crate) fn new(ends: [(usize, ConnectionKey); 2]) -> Self {
        Self {
            ends: ends.map(|(host, key)| End {
                host,
                key,
                open: true,
                queue: VecDeque::new(),
                pumping: false,
                in_flight: VecDeque::new(),
                last_arrival: 0,
                held: Vec::new(),
                held_until: 0,
                overtaken: Vec::new(),
            }),
        }
    }

    /// Returns whether it runs between these two.
    pub(crate) fn is_between(&self, one: usize, other: usize) -> bool {
        let hosts = self.hosts();
        hosts == (one, other) || hosts == (other, one)
    }

    /// Returns the hosts at both ends.
    pub(crate) fn hosts(&self) -> (usize, usize) {
        let [one, other] = &self.ends;
        (one.host, other.host)
    }

    pub(crate) fn end(&self, side: Side) -> &End {
        let [one, other] = &self.ends;
        match side {
            Side::Dialler => one,
            Side::Listener => other,
        }
    }

    pub(crate) fn end_mut(&mut self, side: Side) -> &mut End {
        let [one, other] = &mut self.ends;
        match side {
            Side::Dialler => one,
            Side::Listener => other,
        }
    }
}

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Dialler,
    Listener,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Dialler, Self::Listener];

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Listener,
            Self::Listener => Self::Dialler,
        }
    }
}

impl End {
    /// Takes at most `max` bytes off the queue.
    pub(crate) fn take(&mut self, max: usize) -> Vec<u8> {
        let count = max.min(self.queue.len());
        self.queue.drain(..count).collect()
    }

    /// Returns the bytes that are on their way.
    pub(crate) fn in_flight_bytes(&self) -> usize {
        let items = self.in_flight.iter();
        items
            .map(|item| match item {
                Item::Bytes(bytes) => bytes.len(),
                Item::End => 0,
            })
            .sum()
    }

    /// Returns the bytes that its owner has queued, for its back-pressure.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len() + self.held.len() + self.overtaken.len()
    }
}
