//! Fuzz target, see [`fieldgate_fuzz::proof`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::proof::run(data));
