//! Fuzz target, see [`fieldgate_fuzz::topic`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::topic::run(data));
