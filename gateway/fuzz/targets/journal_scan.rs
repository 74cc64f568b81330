//! Fuzz target, see [`fieldgate_fuzz::journal::run_scan`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::journal::run_scan(data));
