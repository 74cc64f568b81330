//! Fuzz target, see [`fieldgate_fuzz::channel`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::channel::run(data));
