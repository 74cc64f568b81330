//! The codec and the session through their public interface.
#![expect(clippy::unwrap_used, reason = "a test fails by its panic, in helpers too")]

mod auth;
mod bench;
mod bytes;
mod chunks;
mod codec;
mod commit;
mod connect;
mod forbidden;
mod publish;
mod time;
mod will;
