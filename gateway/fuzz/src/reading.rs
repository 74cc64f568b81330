//! Readings (PROTOCOL.md §9): what is taken is written back to the same bytes.

use fieldgate_adapters::reading::Reading;

/// Reads the input as a reading.
pub fn run(data: &[u8]) {
    let Ok(reading) = Reading::decode(data) else {
        return;
    };
    let mut written = Vec::new();
    reading
        .encode(&mut written)
        .expect("what was decoded can be encoded");
    assert_eq!(written, data);
}
