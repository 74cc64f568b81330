//! Fuzz target, see [`fieldgate_fuzz::replication`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::replication::run(data));
