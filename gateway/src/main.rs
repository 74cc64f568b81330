//! Edge gateway: field readings, kept durably, carried end to end in secure channels.
fn main() {}
