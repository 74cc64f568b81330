//! Fuzz target, see [`fieldgate_fuzz::ticket`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::ticket::run(data));
