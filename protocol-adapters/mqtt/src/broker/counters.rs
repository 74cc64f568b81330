//! What happened in a broker, in numbers.

/// Counts of a broker. The first group are levels, the others only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerCounters {
    /// Sessions, with and without a connection.
    pub sessions: u64,
    /// Sessions with a connection.
    pub connected: u64,
    /// Subscriptions of all sessions.
    pub subscriptions: u64,
    /// Messages that wait for sessions, those in flight included.
    pub queued: u64,
    /// Bytes of these messages.
    pub queued_bytes: u64,
    /// Retained messages.
    pub retained: u64,
    /// Bytes of retained messages.
    pub retained_bytes: u64,
    /// Messages given to connections, those sent again included.
    pub delivered: u64,
    /// Messages dropped because a session's queue was full.
    pub dropped_queue_full: u64,
    /// Messages dropped because they had expired.
    pub dropped_expired: u64,
    /// Clients disconnected because their queue was full.
    pub slow_consumers: u64,
    /// Messages not retained because the room for them was used up.
    pub retained_refused: u64,
    /// Clients refused because there were too many sessions.
    pub sessions_refused: u64,
    /// Subscriptions refused because the session had too many.
    pub subscriptions_refused: u64,
    /// Sessions that ended because nobody came back for them.
    pub sessions_expired: u64,
    /// Wills published.
    pub wills: u64,
}
