//! Fuzz target, see [`fieldgate_fuzz::reading`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::reading::run(data));
