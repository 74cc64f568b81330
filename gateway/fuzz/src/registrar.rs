//! Frames between a relay and its members (PROTOCOL.md §7): what is taken is written back to the same bytes.

use fieldgate_proto::channel::frames;
use fieldgate_proto::relay::RegistrarFrame;

/// Reads the input as a frame: kind, then body.
pub fn run(data: &[u8]) {
    let Some((&kind, body)) = data.split_first() else {
        return;
    };
    let Ok(Some(frame)) = RegistrarFrame::decode(kind, body) else {
        return;
    };
    let mut record = Vec::new();
    frame.put(&mut record);
    let written: Vec<_> = frames(&record).collect();
    assert_eq!(written, [Ok((kind, body))]);
}
