//! aws-lc-rs alone: the floor under every record.

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};

use super::Case;
use crate::failure::Failure;

/// Makes the cases of both ciphers for all sizes: sealing, and sealing with opening.
pub(super) fn cases(sizes: &[usize]) -> Result<Vec<Case>, Failure> {
    let ciphers = [
        (&AES_256_GCM, "AES-256-GCM: seal", "AES-256-GCM: seal + open"),
        (
            &CHACHA20_POLY1305,
            "ChaCha20-Poly1305: seal",
            "ChaCha20-Poly1305: seal + open",
        ),
    ];
    let mut cases = Vec::new();
    for (algorithm, seal_name, open_name) in ciphers {
        for &bytes in sizes {
            let mut sealer = Sealer::new(algorithm, bytes)?;
            cases.push(Case::new(seal_name, bytes, move || sealer.seal()));
            let mut both = Sealer::new(algorithm, bytes)?;
            cases.push(Case::new(open_name, bytes, move || both.seal_and_open()));
        }
    }
    Ok(cases)
}

/// A key with a counter for its nonces, and a message.
struct Sealer {
    key: LessSafeKey,
    number: u64,
    plaintext: Vec<u8>,
    sealed: Vec<u8>,
}

impl Sealer {
    fn new(algorithm: &'static Algorithm, bytes: usize) -> Result<Self, Failure> {
        let key = UnboundKey::new(algorithm, &[7; 32]).map_err(|error| refused("making a key", error))?;
        let sealed = Vec::with_capacity(bytes + algorithm.tag_len());
        Ok(Self {
            key: LessSafeKey::new(key),
            number: 0,
            plaintext: vec![0x5a; bytes],
            sealed,
        })
    }

    fn nonce(&self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[4..].copy_from_slice(&self.number.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    /// Copies the plaintext and seals it in place with a header as associated data, as records do.
    fn seal(&mut self) -> Result<(), Failure> {
        self.number += 1;
        self.sealed.clear();
        self.sealed.extend_from_slice(&self.plaintext);
        let nonce = self.nonce();
        let sealed = self
            .key
            .seal_in_place_append_tag(nonce, Aad::from(HEADER), &mut self.sealed);
        sealed.map_err(|error| refused("sealing", error))
    }

    fn seal_and_open(&mut self) -> Result<(), Failure> {
        self.seal()?;
        let nonce = self.nonce();
        let opened = self.key.open_in_place(nonce, Aad::from(HEADER), &mut self.sealed);
        opened.map(drop).map_err(|error| refused("opening", error))
    }
}

fn refused(what: &'static str, error: aws_lc_rs::error::Unspecified) -> Failure {
    Failure::Subject {
        what,
        problem: error.to_string(),
    }
}

/// As long as the associated data of a record.
const HEADER: [u8; 13] = [0x40; 13];

#[cfg(test)]
mod tests {
    use super::cases;

    #[test]
    fn every_case_does_its_work_again_and_again() {
        for mut case in cases(&[0, 64, 1024]).unwrap() {
            case.run(3)
                .unwrap_or_else(|failure| panic!("{}, {} bytes: {failure}", case.name, case.bytes));
        }
    }
}
