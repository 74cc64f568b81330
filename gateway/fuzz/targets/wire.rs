//! Fuzz target, see [`fieldgate_fuzz::wire`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::wire::run(data));
