//! Records of the channel: sealed in place behind a header, opened in place.

use fieldgate_proto::channel::{ChannelId, Opener, Padding, RecordHeader, Sealer};
use fieldgate_proto::crypto::{Aead, Secret};

use super::Case;
use super::handshake::Pair;
use super::identity::refused;
use crate::failure::Failure;

/// Makes the cases of both ciphers for all sizes, and those of whole nodes.
pub(super) fn cases(sizes: &[usize]) -> Result<Vec<Case>, Failure> {
    let ciphers = [
        (
            Aead::Aes256Gcm,
            "record AES-256-GCM: seal",
            "record AES-256-GCM: seal + open",
        ),
        (
            Aead::ChaCha20Poly1305,
            "record ChaCha20-Poly1305: seal",
            "record ChaCha20-Poly1305: seal + open",
        ),
    ];
    let mut cases = Vec::new();
    for (aead, seal_name, open_name) in ciphers {
        for &bytes in sizes {
            let mut records = Records::new(aead, bytes);
            cases.push(Case::new(seal_name, bytes, move || records.seal()).beside(plain(seal_name)));
            let mut records = Records::new(aead, bytes);
            cases.push(Case::new(open_name, bytes, move || records.seal_and_open()).beside(plain(open_name)));
        }
    }
    for &bytes in sizes {
        let mut pair = Pair::established()?;
        let frame = vec![0x5a; bytes - FRAME_HEADER_MAX];
        let mut record = Vec::new();
        let name = "record between two nodes: seal + open";
        cases.push(Case::new(name, bytes, move || pair.exchange(&frame, &mut record)));
    }
    Ok(cases)
}

/// Returns the name of the same work without a channel.
fn plain(name: &'static str) -> &'static str {
    name.strip_prefix("record ").unwrap_or(name)
}

/// Both ends of one direction.
struct Records {
    sealer: Sealer,
    opener: Opener,
    plaintext: Vec<u8>,
    record: Vec<u8>,
}

impl Records {
    fn new(aead: Aead, bytes: usize) -> Self {
        let secret = Secret::new([7; 32]);
        Self {
            sealer: Sealer::new(ChannelId::from_wire(1), 0, aead, &secret, Padding::Off),
            opener: Opener::new(aead, &secret),
            plaintext: vec![0x5a; bytes],
            record: Vec::new(),
        }
    }

    fn seal(&mut self) -> Result<(), Failure> {
        self.record.clear();
        let start = self.sealer.begin(&mut self.record);
        self.record.extend_from_slice(&self.plaintext);
        self.sealer
            .finish(&mut self.record, start)
            .map_err(|error| refused("sealing a record", &error))
    }

    fn seal_and_open(&mut self) -> Result<(), Failure> {
        self.seal()?;
        let header = RecordHeader::decode(&self.record)
            .map_err(|error| refused("reading the header of a record", &error))?;
        let opened = self.opener.open(&header, &mut self.record);
        let plaintext = opened.map_err(|error| refused("opening a record", &error))?;
        if plaintext.len() == self.plaintext.len() {
            return Ok(());
        }
        Err(refused("opening a record", &"the plaintext has another length"))
    }
}

/// Kind and the longest length of a frame that fits into a record.
const FRAME_HEADER_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::cases;

    #[test]
    fn every_case_does_its_work_again_and_again() {
        for mut case in cases(&[64, 65_536]).unwrap() {
            case.run(3)
                .unwrap_or_else(|failure| panic!("{}, {} bytes: {failure}", case.name, case.bytes));
        }
    }
}
