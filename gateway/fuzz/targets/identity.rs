//! Fuzz target, see [`fieldgate_fuzz::identity`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::identity::run(data));
