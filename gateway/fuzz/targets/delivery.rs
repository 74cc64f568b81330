//! Fuzz target, see [`fieldgate_fuzz::delivery`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::delivery::run(data));
