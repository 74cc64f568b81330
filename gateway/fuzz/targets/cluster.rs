//! Fuzz target, see [`fieldgate_fuzz::cluster`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::cluster::run(data));
