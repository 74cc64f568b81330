//! Fuzz target, see [`fieldgate_fuzz::status_list`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::status_list::run(data));
