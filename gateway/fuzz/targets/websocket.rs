//! Fuzz target, see [`fieldgate_fuzz::websocket`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::websocket::run(data));
