//! Fuzz target, see [`fieldgate_fuzz::registrar`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::registrar::run(data));
