//! Noise XX with the published vectors, from the same `SymmetricState` that channels use.

use data_encoding::HEXLOWER;
use serde_json::Value;

use super::*;
use crate::crypto::{X25519Secret, tests::packaged};

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER
        .decode(value.as_str().expect("a vector is text").as_bytes())
        .expect("a vector is hexadecimal")
}

fn key(value: &Value) -> X25519Secret {
    X25519Secret::new(&Secret::new(hex(value).try_into().expect("32 bytes")))
}

/// One side of plain Noise XX, token by token.
struct Side {
    symmetric: SymmetricState,
    e: X25519Secret,
    s: X25519Secret,
    re: Option<[u8; 32]>,
    rs: Option<[u8; 32]>,
    initiator: bool,
}

impl Side {
    fn new(name: &str, prologue: &[u8], e: X25519Secret, s: X25519Secret, initiator: bool) -> Self {
        let aead = if name.contains("AESGCM") {
            Aead::Aes256Gcm
        } else {
            Aead::ChaCha20Poly1305
        };
        // Noise rev 34 §5.2: a name of at most 32 bytes is padded, a longer one hashed.
        let h = if name.len() <= 32 {
            let mut h = [0; 32];
            h[..name.len()].copy_from_slice(name.as_bytes());
            h
        } else {
            sha256(&[name.as_bytes()])
        };
        let mut symmetric = SymmetricState::new(aead, Secret::new(h), h);
        symmetric.mix_hash(prologue);
        Self {
            symmetric,
            e,
            s,
            re: None,
            rs: None,
            initiator,
        }
    }

    fn dh(&self, token: &str) -> Secret {
        // The first letter names the initiator's key, the second the responder's.
        let (own, peer) = if self.initiator {
            (&token[..1], &token[1..])
        } else {
            (&token[1..], &token[..1])
        };
        let own = if own == "e" { &self.e } else { &self.s };
        let peer = if peer == "e" { self.re } else { self.rs };
        own.agree(&peer.expect("the pattern sends a key before it is used"))
            .expect("no vector is of low order")
    }

    fn write(&mut self, tokens: &[&str], payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for token in tokens {
            match *token {
                "e" => {
                    out.extend_from_slice(self.e.public());
                    self.symmetric.mix_hash(self.e.public());
                }
                "s" => self.symmetric.encrypt_and_hash(self.s.public(), &mut out),
                dh => {
                    let shared = self.dh(dh);
                    self.symmetric.mix_key(&shared);
                }
            }
        }
        self.symmetric.encrypt_and_hash(payload, &mut out);
        out
    }

    fn read(&mut self, tokens: &[&str], mut message: &[u8]) -> Vec<u8> {
        for token in tokens {
            match *token {
                "e" => {
                    let (e, rest) = message.split_at(32);
                    self.symmetric.mix_hash(e);
                    self.re = Some(e.try_into().expect("32 bytes"));
                    message = rest;
                }
                "s" => {
                    let (s, rest) = message.split_at(48);
                    let s = self.symmetric.decrypt_and_hash(s).expect("the static key opens");
                    self.rs = Some(s.try_into().expect("32 bytes"));
                    message = rest;
                }
                dh => {
                    let shared = self.dh(dh);
                    self.symmetric.mix_key(&shared);
                }
            }
        }
        self.symmetric
            .decrypt_and_hash(message)
            .expect("the payload opens")
    }
}

const XX: [&[&str]; 3] = [&["e"], &["e", "ee", "s", "es"], &["s", "se"]];

fn run(vector: &Value) {
    let name = vector["protocol_name"].as_str().expect("a vector has a name");
    let side = |role: &str| {
        Side::new(
            name,
            &hex(&vector[format!("{role}_prologue")]),
            key(&vector[format!("{role}_ephemeral")]),
            key(&vector[format!("{role}_static")]),
            role == "init",
        )
    };
    let (mut initiator, mut responder) = (side("init"), side("resp"));
    let messages = vector["messages"].as_array().expect("a vector has messages");
    assert!(messages.len() >= 5);
    for (index, tokens) in XX.iter().enumerate() {
        let (payload, ciphertext) = (
            hex(&messages[index]["payload"]),
            hex(&messages[index]["ciphertext"]),
        );
        let (writer, reader) = if index % 2 == 0 {
            (&mut initiator, &mut responder)
        } else {
            (&mut responder, &mut initiator)
        };
        assert_eq!(
            writer.write(tokens, &payload),
            ciphertext,
            "{name}, message {index}"
        );
        assert_eq!(
            reader.read(tokens, &ciphertext),
            payload,
            "{name}, message {index}"
        );
    }
    assert_eq!(initiator.symmetric.h(), responder.symmetric.h());
    if let Some(hash) = vector.get("handshake_hash") {
        assert_eq!(initiator.symmetric.h().as_slice(), hex(hash));
    }
    let keys = initiator.symmetric.split();
    let aead = initiator.symmetric.aead;
    let mut counters = [0, 0];
    for (index, message) in messages.iter().enumerate().skip(3) {
        // The side that did not send the last handshake message sends next, and so on by turns.
        let (secret, counter) = if index % 2 == 0 {
            (&keys.initiator, &mut counters[0])
        } else {
            (&keys.responder, &mut counters[1])
        };
        let mut sealed = hex(&message["payload"]);
        let tag = AeadKey::new(aead, secret).seal(*counter, &[], &mut sealed);
        sealed.extend_from_slice(&tag);
        assert_eq!(sealed, hex(&message["ciphertext"]), "{name}, message {index}");
        *counter += 1;
    }
}

#[test]
fn published_noise_xx_vectors_pass() {
    let mut names = Vec::new();
    for file in ["cacophony.txt", "snow.txt"] {
        let vectors: Value = serde_json::from_str(&packaged("snow", &format!("tests/vectors/{file}")))
            .expect("vectors are JSON");
        for vector in vectors["vectors"].as_array().expect("a file holds vectors") {
            let name = vector["protocol_name"].as_str().expect("a vector has a name");
            if ["Noise_XX_25519_AESGCM_SHA256", "Noise_XX_25519_ChaChaPoly_SHA256"].contains(&name) {
                run(vector);
                names.push(name.to_owned());
            }
        }
    }
    names.sort_unstable();
    names.dedup_by(|a, b| a == b);
    assert_eq!(
        names,
        ["Noise_XX_25519_AESGCM_SHA256", "Noise_XX_25519_ChaChaPoly_SHA256"]
    );
}

#[test]
fn a_forged_ciphertext_is_refused_without_a_change_of_the_original() {
    let mut writer = SymmetricState::new(Aead::Aes256Gcm, Secret::new([1; 32]), [2; 32]);
    writer.mix_key(&Secret::new([3; 32]));
    let reader = writer.duplicate();
    let mut sealed = Vec::new();
    writer.encrypt_and_hash(b"static key", &mut sealed);
    for bit in 0..sealed.len() * 8 {
        let mut forged = sealed.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(reader.duplicate().decrypt_and_hash(&forged).is_err(), "bit {bit}");
    }
    assert_eq!(
        reader.duplicate().decrypt_and_hash(&sealed).as_deref(),
        Ok(b"static key".as_slice())
    );
}
