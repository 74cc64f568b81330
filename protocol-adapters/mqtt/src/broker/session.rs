//! One session as the broker knows it: what outlives a connection.

use std::collections::{BTreeMap, BTreeSet};

use fieldgate_proto::time::Instant;

use super::{ConnectionKey, queue::Queue};
use crate::{
    exchange::{Attach, SubscriptionOptions, Will},
    packet::PacketIdentifier,
};

/// Who a session belongs to: a device, and the client identifier it chose. Another device with the same client identifier has
/// a session of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionKey {
    pub(super) device: Box<str>,
    pub(super) client_id: Box<str>,
}

/// A session (MQTT 5.0 §4.1).
///
/// ```text
///            attach                    attach (another connection)
///  (none) ───────────▶ connected ──────────────────────────────▶ closing, successor waits
///     ▲                 │     ▲                                        │
///     │      detach     ▼     └────────── detach of the old one ───────┘
///     └─ ends_at ─── detached ── attach ─▶ connected
/// ```
/// A successor waits until the older connection's last word has come, so nothing that was sent on it comes too late.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: SessionKey,
    /// Its number in the store.
    pub(super) number: u64,
    pub(super) connection: Option<ConnectionKey>,
    /// Whether the connection was told to end.
    pub(super) is_closing: bool,
    pub(super) successor: Option<(ConnectionKey, Box<Attach>)>,
    pub(super) expiry_secs: u32,
    pub(super) receive_maximum: u16,
    /// Whether its client speaks MQTT 5.0.
    pub(super) speaks_v5: bool,
    pub(super) will: Option<Box<Will>>,
    pub(super) will_at: Option<Instant>,
    pub(super) ends_at: Option<Instant>,
    /// Where it stands among the deadlines.
    pub(super) deadline: Option<Instant>,
    /// By topic filter, as the client wrote it.
    pub(super) subscriptions: BTreeMap<Box<str>, SubscriptionOptions>,
    pub(super) queue: Queue,
    /// Messages at QoS 2 received and not released.
    pub(super) received: BTreeSet<PacketIdentifier>,
    /// Waits for the store before it is sent more.
    pub(super) is_stalled: bool,
    /// Whether the store has heard of it.
    pub(super) is_stored: bool,
}

impl Session {
    pub(super) fn new(key: SessionKey, number: u64) -> Self {
        Self {
            key,
            number,
            connection: None,
            is_closing: false,
            successor: None,
            expiry_secs: 0,
            receive_maximum: 1,
            speaks_v5: false,
            will: None,
            will_at: None,
            ends_at: None,
            deadline: None,
            subscriptions: BTreeMap::new(),
            queue: Queue::default(),
            received: BTreeSet::new(),
            is_stalled: false,
            is_stored: false,
        }
    }

    /// Returns whether it outlives its connection, and so is in the store.
    pub(super) const fn is_kept(&self) -> bool {
        self.expiry_secs > 0
    }

    /// Returns whether one more message may be sent to its client.
    pub(super) fn has_room(&self) -> bool {
        self.queue.unacknowledged() < usize::from(self.receive_maximum).min(super::limits::IN_FLIGHT_MAX)
    }

    /// Returns the connection messages can be sent to.
    pub(super) fn open_connection(&self) -> Option<ConnectionKey> {
        self.connection.filter(|_| !self.is_closing)
    }
}
