//! What happened, in numbers: the caller owns them and shows them as metrics.

/// Counts over all sessions that were given these counters; they only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Clients whose CONNECT was accepted.
    pub connected: u64,
    /// Clients whose CONNECT was refused, for whatever reason.
    pub connects_refused: u64,
    /// Of these, the ones whose credentials were wrong or missing.
    pub logins_refused: u64,
    /// Connections that sent no CONNECT in time.
    pub connect_timeouts: u64,
    /// Sessions ended because nothing came for one and a half keep-alives.
    pub keep_alive_timeouts: u64,
    /// Sessions ended because the client broke the protocol.
    pub violations: u64,
    /// Readings given to the journal.
    pub readings: u64,
    /// Repeated publishes whose reading was waiting for its commit already.
    pub repeated: u64,
    /// Publishes and wills outside the rights of their device.
    pub unauthorized: u64,
    /// Publishes refused because the journal was full.
    pub journal_full: u64,
    /// Publishes refused because a limit of a reading was exceeded.
    pub too_large: u64,
    /// Publishes refused because the node took no readings.
    pub not_now: u64,
    /// Publishes refused because their payload was not the UTF-8 text they said.
    pub payload_format_invalid: u64,
    /// Of the refused publishes, those at QoS 0: their devices never learn of it.
    pub dropped_qos0: u64,
    /// Topic filters of SUBSCRIBEs that were refused.
    pub subscribes_refused: u64,
    /// Messages sent to clients.
    pub delivered: u64,
    /// Messages not sent because they exceed what the client takes.
    pub too_large_for_client: u64,
    /// Times an MQTT 3.1.1 client was not read because its publishes waited for their commit.
    pub paused: u64,
}
