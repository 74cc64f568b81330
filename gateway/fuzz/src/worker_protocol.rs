//! What node and token worker say to each other (`fieldgate_hsm::process::wire`): a module may damage the memory of the worker, so
//! neither side believes the other.

use fieldgate_hsm::process::wire::{decode_answer, decode_request, encode_answer, encode_request};

/// Reads the input as a frame of either direction; what is taken comes back from its own encoding.
pub fn run(frame: &[u8]) {
    if let Ok(request) = decode_request(frame) {
        let encoded = encode_request(&request).expect("what fitted a frame fits one again");
        assert_eq!(decode_request(&encoded[LENGTH..]).as_ref(), Ok(&request));
    }
    if let Ok(answer) = decode_answer(frame) {
        let encoded = encode_answer(&answer).expect("what fitted a frame fits one again");
        assert_eq!(decode_answer(&encoded[LENGTH..]).as_ref(), Ok(&answer));
    }
}

/// Bytes of a frame's length, which the decoders do not see.
const LENGTH: usize = 4;
