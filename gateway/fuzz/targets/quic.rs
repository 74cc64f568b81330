//! Fuzz target, see [`fieldgate_fuzz::quic`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::quic::run(data));
