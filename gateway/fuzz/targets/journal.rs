//! Fuzz target, see [`fieldgate_fuzz::journal`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::journal::run(data));
