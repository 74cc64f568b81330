//! Links over QUIC (RFC 9000), sans-IO: an [`Endpoint`] takes datagrams and whole frames of links, and gives both.
//!
//! ```text
//!  datagrams ──▶ Endpoint ──▶ connection ──▶ streams by class ──▶ whole frames ──▶ the node
//!  datagrams ◀── (quinn-proto) ◀───────────  streams by class ◀── whole frames ◀──
//! ```
//!
//! Each side opens one unidirectional stream for each class of frames, so that a lost packet of bulk does not hold up an alarm,
//! and what is more urgent leaves first. TLS protects nothing that the channel does not; its key proves nothing, and nobody
//! judges it. Early data is never sent nor taken.
//!
//! | bound | value |
//! |---|---|
//! | connections that others opened | [`Settings::accepted_max`], and [`OPENING_MAX`] whose handshake has not ended, of which the oldest makes way |
//! | those above which an address has to be proven first (RFC 9000 §8.1.2) | [`RETRY_ABOVE`] |
//! | time for a handshake | [`OPENING_TIME_MAX`] |
//! | bytes held for one connection: received | 256 KiB, after [`Endpoint::trust`] 4 MiB |
//! | … and sent, not acknowledged | twice what the network takes at a time, 128 KiB to 4 MiB |
//! | silence | 30 s, then it is lost; the link's pings keep it |
//!
//! Randomness is not an argument here: identifiers of connections and the keys of TLS come from the libraries.
#![forbid(unsafe_code)]

mod endpoint;
mod lanes;
mod tls;

pub use endpoint::{
    CLOSING_TIME_MAX, Datagram, Dial, Endpoint, LinkId, OPENING_MAX, Output, RETRY_ABOVE, Stats,
};
pub use tls::TlsError;

/// Longest time from the first datagram to the end of the handshake.
pub const OPENING_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// What an endpoint is made with.
pub struct Settings {
    /// Connections that others may have opened at a time.
    pub accepted_max: usize,
    /// What connections of an earlier run of the node are told to be gone by (RFC 9000 §10.3): a secret, the same for as long as
    /// possible.
    pub reset_key: [u8; 32],
    /// The point of the clock of the libraries that is [`Instant::START`](fieldgate_proto::time::Instant::START).
    pub epoch: std::time::Instant,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("accepted_max", &self.accepted_max)
            .finish_non_exhaustive()
    }
}
