//! Fuzz target, see [`fieldgate_fuzz::record`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::record::run(data));
