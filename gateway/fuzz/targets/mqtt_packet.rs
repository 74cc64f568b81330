//! Fuzz target, see [`fieldgate_fuzz::mqtt_packet`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::mqtt_packet::run(data));
