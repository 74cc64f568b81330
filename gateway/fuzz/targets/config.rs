//! Fuzz target, see [`fieldgate_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::config::run(data));
