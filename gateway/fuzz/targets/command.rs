//! Fuzz target, see [`fieldgate_fuzz::command`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::command::run(data));
