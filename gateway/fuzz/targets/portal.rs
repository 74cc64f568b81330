//! Fuzz target, see [`fieldgate_fuzz::portal`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::portal::run(data));
