//! Records (PROTOCOL.md §5): nobody without the key makes one that opens, and frames inside never panic.

use fieldgate_proto::channel::{ChannelId, Opener, Padding, RecordHeader, Sealer, frames};
use fieldgate_proto::crypto::{Aead, Secret};

/// Reads the input as plaintext, as a record, and as changes to a genuine record.
pub fn run(data: &[u8]) {
    for frame in frames(data) {
        if frame.is_err() {
            break;
        }
    }
    open(&mut data.to_vec(), false);
    let mut genuine = Vec::new();
    let secret = Secret::new([7; 32]);
    let mut sealer = Sealer::new(ChannelId::from_wire(9), 0, Aead::Aes256Gcm, &secret, Padding::Off);
    let start = sealer.begin(&mut genuine);
    genuine.extend_from_slice(data);
    if sealer.finish(&mut genuine, start).is_err() {
        return;
    }
    open(&mut genuine.clone(), true);
    if let [place, value, ..] = data {
        let place = usize::from(*place) % genuine.len();
        let change = if *value == 0 { 1 } else { *value };
        genuine[place] ^= change;
        open(&mut genuine, false);
    }
}

fn open(record: &mut [u8], genuine: bool) {
    let mut opener = Opener::new(Aead::Aes256Gcm, &Secret::new([7; 32]));
    let Ok(header) = RecordHeader::decode(record) else {
        assert!(!genuine);
        return;
    };
    // Which generation a record is of is decided before an opener is asked: those bits only choose one.
    assert_eq!(
        opener.open(&header, record).is_ok(),
        genuine,
        "a forged record opened, or a genuine one did not"
    );
}
