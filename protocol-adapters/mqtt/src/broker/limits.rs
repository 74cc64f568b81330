//! What a broker holds at most.

/// Bounds of a broker. Reaching one is counted in [`BrokerCounters`](super::counters::BrokerCounters).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions, with and without a connection.
    pub sessions_max: usize,
    /// Subscriptions of one session.
    pub subscriptions_max: usize,
    /// Messages above QoS 0 that wait for one session, those in flight included.
    pub queue_messages_max: usize,
    /// Bytes of these messages.
    pub queue_bytes_max: usize,
    /// Retained messages.
    pub retained_max: usize,
    /// Bytes of retained messages.
    pub retained_bytes_max: usize,
    /// What becomes of a connected client whose queue is full.
    pub slow_consumer: SlowConsumer,
}

impl Default for Limits {
    /// 10,000 sessions of 100 subscriptions and 1,000 messages or 1 MiB each; 10,000 retained messages or 16 MiB.
    fn default() -> Self {
        Self {
            sessions_max: 10_000,
            subscriptions_max: 100,
            queue_messages_max: 1_000,
            queue_bytes_max: 1 << 20,
            retained_max: 10_000,
            retained_bytes_max: 16 << 20,
            slow_consumer: SlowConsumer::Disconnect,
        }
    }
}

/// What becomes of a connected client whose queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumer {
    /// It is disconnected with reason code 0x97; its session stays as long as it would without a connection.
    #[default]
    Disconnect,
    /// It misses what does not fit.
    Drop,
}

/// Messages above QoS 0 that are under way to one client at most, whatever receive maximum it has.
pub(super) const IN_FLIGHT_MAX: usize = 256;
/// Bytes of these messages; one message may always be under way.
pub(super) const IN_FLIGHT_BYTES_MAX: usize = 512 << 10;
/// Bytes of changes that wait for the store from which on a caller should take no further messages for a moment.
pub const PENDING_BYTES_HIGH: usize = 4 << 20;
