//! Fuzz target, see [`fieldgate_fuzz::pkcs11_uri`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldgate_fuzz::pkcs11_uri::run(data));
