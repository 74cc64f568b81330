//! Addresses that nodes tell each other (PROTOCOL.md §19): what is taken is written back to the same bytes, and what may be dialled
//! is an address of one host.

use fieldgate_proto::candidates::{CANDIDATES, Candidates, Range, is_allowed};
use fieldgate_proto::channel::frames;

/// Reads the input as the body of a frame.
pub fn run(data: &[u8]) {
    let Ok(candidates) = Candidates::decode(data) else {
        return;
    };
    let mut record = Vec::new();
    candidates.put(&mut record);
    let written: Vec<_> = frames(&record).collect();
    assert_eq!(written, [Ok((CANDIDATES, data))]);
    let ranges = ["0.0.0.0", "::"].map(|first| Range {
        first: first.parse().expect("an address"),
        last: if first.contains(':') {
            [0xff; 16].into()
        } else {
            [0xff; 4].into()
        },
    });
    for address in candidates.addresses {
        let ip = address.ip();
        let is_nobody = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
        assert!(!is_nobody || !is_allowed(&ranges, address), "{address}");
    }
}
