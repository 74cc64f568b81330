//! Fuzz target, see [`fieldgate_fuzz::websocket_client`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::websocket_client::run(data));
