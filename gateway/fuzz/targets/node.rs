//! Fuzz target, see [`fieldgate_fuzz::node`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::node::run(data));
