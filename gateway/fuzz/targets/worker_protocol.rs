//! Fuzz target, see [`fieldgate_fuzz::worker_protocol`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::worker_protocol::run(data));
