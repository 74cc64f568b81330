//! How much, how long: what connections are made with.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use quinn_proto::{
    ConnectionIdGenerator, EndpointConfig, HashedConnectionIdGenerator, IdleTimeout, ServerConfig,
    TransportConfig, VarInt,
};

use crate::lanes::LANES;

/// Returns what all connections have in common, on both sides.
pub(super) fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(STREAMS)
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .receive_window(STRANGERS_WINDOW)
        // One stream may use all of it.
        .stream_receive_window(TRUSTED_WINDOW)
        .send_window(SEND_WINDOW_MAX)
        // Who is more urgent goes first; equals there are none.
        .send_fairness(false)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MILLIS_MAX))))
        // The link has pings of its own, every 15 s.
        .keep_alive_interval(None)
        .crypto_buffer_size(CRYPTO_BYTES_MAX);
    transport
}

/// Limits what strangers cost before they are decided on, which happens at once.
pub(super) fn limit(server: &mut ServerConfig) {
    server
        .migration(true)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX)
        .retry_token_lifetime(RETRY_TIME_MAX);
    let mut token = quinn_proto::ValidationTokenConfig::default();
    // Proofs of an address for a later connection: more state than the round trip is worth that they save.
    token.sent(0);
    server.validation_token_config(token);
}

/// Returns what recognises connections of an earlier run, and says that they are gone.
pub(super) fn endpoint(reset_key: &[u8; 32]) -> EndpointConfig {
    let key = hmac::Key::new(hmac::HMAC_SHA256, reset_key);
    let mut config = EndpointConfig::new(Arc::new(key.clone()));
    // Identifiers are told from chance by the same secret.
    let sign = hmac::sign(&key, b"connection identifiers");
    let mut seed = [0; 8];
    for (byte, from) in seed.iter_mut().zip(sign.as_ref()) {
        *byte = *from;
    }
    let seed = u64::from_be_bytes(seed);
    config.cid_generator(move || -> Box<dyn ConnectionIdGenerator> {
        Box::new(HashedConnectionIdGenerator::from_key(seed))
    });
    config
}

/// Streams in one direction.
const STREAMS: VarInt = VarInt::from_u32(3);
const _: () = assert!(LANES == 3, "each lane has a stream");

/// Bytes that may be on their way to this side before it has taken them, from somebody who may be anybody.
pub(super) const STRANGERS_WINDOW: VarInt = VarInt::from_u32(256 << 10);

/// As [`STRANGERS_WINDOW`], from somebody who is known: 300 Mbit/s over 100 ms.
pub(super) const TRUSTED_WINDOW: VarInt = VarInt::from_u32(4 << 20);

/// Bytes held until the other end has acknowledged them.
pub(super) const SEND_WINDOW_MAX: u64 = 4 << 20;

/// What is held even if the network takes less: an initial congestion window and the longest frame.
pub(super) const SEND_WINDOW_MIN: u64 = 128 << 10;

/// Milliseconds of silence after which a connection is lost: two pings of the link and no answer.
const IDLE_MILLIS_MAX: u32 = 30_000;

/// Bytes of a handshake that may come in the wrong order.
const CRYPTO_BYTES_MAX: usize = 16 << 10;

/// Connections that nobody has decided on.
const INCOMING_MAX: usize = 64;

/// Bytes that wait for such a decision.
const INCOMING_BYTES_MAX: u64 = 64 << 10;

/// Longest time between being asked for a proof of the address and giving it.
const RETRY_TIME_MAX: Duration = Duration::from_secs(15);
