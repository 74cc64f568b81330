//! Frames between a gateway and a collector (PROTOCOL.md §8).

use fieldgate_proto::channel::frames;
use fieldgate_proto::delivery::{Ack, Batch, Lost, Offer, Resume};
use fieldgate_proto::wire::Reader;

/// Reads the input as the body of each frame; what is taken is written back to the same bytes.
pub fn run(body: &[u8]) {
    if let Ok(offer) = Offer::decode(body) {
        check(body, |out| offer.put(out));
    }
    if let Ok(ack) = Ack::decode(body) {
        check(body, |out| ack.put(out));
    }
    if let Ok(resume) = Resume::decode(body) {
        check(body, |out| resume.put(out));
    }
    if let Ok(lost) = Lost::decode(body) {
        check(body, |out| lost.put(out));
    }
    if let Ok(batch) = Batch::decode(body) {
        let mut reader = Reader::new(batch.readings);
        for _ in 0..batch.count {
            reader
                .bytes_varint("reading")
                .expect("a batch that was taken holds as many readings as it says");
        }
        assert!(reader.rest().is_empty());
        let rest = batch.without_first(1);
        assert_eq!(rest.is_some(), batch.count > 1);
    }
}

fn check(body: &[u8], put: impl FnOnce(&mut Vec<u8>)) {
    let mut record = Vec::new();
    put(&mut record);
    let written: Vec<_> = frames(&record).map(|frame| frame.map(|(_, body)| body)).collect();
    assert_eq!(written, [Ok(body)]);
}
