//! Fuzz target, see [`fieldgate_fuzz::credential`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::credential::run(data));
