//! Fuzz target, see [`fieldgate_fuzz::candidates`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::candidates::run(data));
