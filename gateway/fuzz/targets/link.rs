//! Fuzz target, see [`fieldgate_fuzz::link`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::link::run(data));
