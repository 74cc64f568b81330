//! Frames on a byte stream (PROTOCOL.md §3.1): portions do not matter, and bodies never panic.

use fieldgate_proto::link::{Frame, FrameReader};

/// Cuts the input into frames, once whole and once in portions of the length its first byte gives.
pub fn run(data: &[u8]) {
    let Some((&portion, stream)) = data.split_first() else {
        return;
    };
    let whole = frames(stream, stream.len().max(1));
    let in_portions = frames(stream, usize::from(portion).max(1));
    assert_eq!(whole, in_portions);
}

/// Returns kinds and bodies as they come out; `None` at the end if the stream broke.
fn frames(stream: &[u8], portion: usize) -> Vec<Option<(u8, Vec<u8>)>> {
    let mut reader = FrameReader::default();
    let mut found = Vec::new();
    for bytes in stream.chunks(portion) {
        let mut bytes = bytes.to_vec();
        let mut frames = reader.read(&mut bytes);
        loop {
            match frames.next_frame() {
                Ok(Some(frame)) => {
                    found.push(Some((frame.kind, frame.body.to_vec())));
                    // Whether it is refused does not matter here; how it is taken is the router's matter.
                    let _ = Frame::decode(frame.kind, frame.body);
                }
                Ok(None) => break,
                Err(_) => {
                    found.push(None);
                    return found;
                }
            }
        }
    }
    found
}
