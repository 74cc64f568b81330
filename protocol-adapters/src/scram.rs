//! SCRAM-SHA-256 (RFC 5802, RFC 7677) against the device table: the password never travels, and what is stored does not log in.
//!
//! ```text
//!  client                                             gateway
//!    n,,n=<user>,r=<nonce>                    ─────▶
//!                                             ◀─────  r=<nonce><ours>,s=<salt>,i=<iterations>
//!    c=biws,r=<nonce><ours>,p=<proof>         ─────▶
//!                                             ◀─────  v=<signature>
//! ```
//!
//! Only devices whose entry is of the scheme `scram-sha-256` log in this way. An unknown user name, or one of another scheme, gets
//! a salt that is always the same for it and fails at the end, so the conversation tells nothing.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::{fmt, sync::Arc};

use aws_lc_rs::{digest, hmac};
use data_encoding::BASE64;
use subtle::ConstantTimeEq as _;

use crate::{
    authenticate::Denial,
    device::{Device, DeviceTable},
};

/// The name of the mechanism, which is the authentication method of MQTT 5.0 (§4.12).
pub const METHOD: &str = "SCRAM-SHA-256";

/// A conversation that ends with a device or a refusal.
pub trait Dialog: fmt::Debug + Send {
    /// Takes what the client says.
    fn step(&mut self, data: &[u8]) -> Turn;
}

/// What a [`Dialog`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The client is to go on with this.
    Continue(Vec<u8>),
    /// The client is this device; the data proves that the gateway knows it.
    Accepted {
        /// Who it is.
        device: Arc<Device>,
        /// The last word.
        data: Vec<u8>,
    },
    /// The client is turned away.
    Denied(Denial),
}

/// What of a password is stored for SCRAM (RFC 5802 §3).
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// Salt of the password.
    pub salt: Box<[u8]>,
    /// Iterations of PBKDF2.
    pub iterations: u32,
    /// `StoredKey`.
    pub stored_key: [u8; KEY_LEN],
    /// `ServerKey`.
    pub server_key: [u8; KEY_LEN],
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramKeys({} iterations)", self.iterations)
    }
}

/// Returns `StoredKey` and `ServerKey` of a salted password (RFC 5802 §3).
#[must_use]
pub fn keys_of(salted_password: &[u8]) -> ([u8; KEY_LEN], [u8; KEY_LEN]) {
    let client_key = mac(salted_password, b"Client Key");
    (hash(&client_key), mac(salted_password, b"Server Key"))
}

/// One conversation.
pub struct Scram {
    table: Arc<DeviceTable>,
    /// Makes salts for who is not known.
    decoy: hmac::Key,
    /// Our half of the nonce, printable.
    nonce: String,
    state: State,
}

enum State {
    First,
    Final {
        /// `client-first-message-bare`, a comma, `server-first-message`, and the comma behind it.
        said: String,
        nonce: String,
        header: String,
        /// `None` for who is not known.
        found: Option<(ScramKeys, Arc<Device>)>,
    },
    Over,
}

impl Scram {
    /// Begins a conversation. `decoy` makes the salts of unknown users and must stay the same for as long as the process lives;
    /// `random` must be random, and new for each conversation.
    #[must_use]
    pub fn new(table: Arc<DeviceTable>, decoy: hmac::Key, random: &[u8; NONCE_BYTES]) -> Self {
        Self {
            table,
            decoy,
            nonce: BASE64.encode(random),
            state: State::First,
        }
    }

    fn first(&mut self, text: &str) -> Option<Turn> {
        // No channel binding; an authorisation identity would make the client somebody else.
        let bare = text.strip_prefix("n,,").or_else(|| text.strip_prefix("y,,"))?;
        let header = text.strip_suffix(bare)?.to_owned();
        let mut fields = bare.split(',');
        let username = unescape(fields.next()?.strip_prefix("n=")?)?;
        let theirs = fields.next()?.strip_prefix("r=")?;
        if theirs.is_empty()
            || theirs.len() > NONCE_LEN_MAX
            || !theirs.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return None;
        }
        let found = self
            .table
            .scram(&username)
            .map(|(keys, device)| (keys, Arc::clone(device)));
        let (salt, iterations) = match &found {
            Some((keys, _)) => (keys.salt.to_vec(), keys.iterations),
            None => {
                let tag = hmac::sign(&self.decoy, username.as_bytes());
                (
                    tag.as_ref().iter().copied().take(DECOY_SALT_LEN).collect(),
                    DECOY_ITERATIONS,
                )
            }
        };
        let nonce = format!("{theirs}{}", self.nonce);
        let answer = format!("r={nonce},s={},i={iterations}", BASE64.encode(&salt));
        self.state = State::Final {
            said: format!("{bare},{answer},"),
            nonce,
            header,
            found,
        };
        Some(Turn::Continue(answer.into_bytes()))
    }
}

/// Checks the last message of a client; returns who it is and the proof that the gateway knows it.
fn last(
    text: &str,
    said: &str,
    nonce: &str,
    header: &str,
    found: Option<(ScramKeys, Arc<Device>)>,
) -> Option<Turn> {
    let (without_proof, proof) = text.rsplit_once(",p=")?;
    let mut fields = without_proof.split(',');
    let binding = BASE64
        .decode(fields.next()?.strip_prefix("c=")?.as_bytes())
        .ok()?;
    if binding != header.as_bytes() || fields.next()?.strip_prefix("r=")? != nonce {
        return None;
    }
    let proof = <[u8; KEY_LEN]>::try_from(BASE64.decode(proof.as_bytes()).ok()?).ok()?;
    let (keys, device) = found?;
    let message = format!("{said}{without_proof}");
    let signature = mac(&keys.stored_key, message.as_bytes());
    let mut client_key = proof;
    for (byte, mask) in client_key.iter_mut().zip(signature) {
        *byte ^= mask;
    }
    if !bool::from(hash(&client_key).ct_eq(&keys.stored_key)) {
        return None;
    }
    let data = format!("v={}", BASE64.encode(&mac(&keys.server_key, message.as_bytes())));
    Some(Turn::Accepted {
        device,
        data: data.into_bytes(),
    })
}

impl Dialog for Scram {
    fn step(&mut self, data: &[u8]) -> Turn {
        let denied = Turn::Denied(Denial::BadCredentials);
        let Ok(text) = std::str::from_utf8(data) else {
            return denied;
        };
        match std::mem::replace(&mut self.state, State::Over) {
            State::First => self.first(text).unwrap_or(denied),
            State::Final {
                said,
                nonce,
                header,
                found,
            } => last(text, &said, &nonce, &header, found).unwrap_or(denied),
            State::Over => denied,
        }
    }
}

impl fmt::Debug for Scram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::First => "first",
            State::Final { .. } => "final",
            State::Over => "over",
        };
        write!(f, "Scram({state})")
    }
}

/// Takes a `saslname` apart: `=2C` is a comma, `=3D` an equals sign, and nothing else may follow one (RFC 5802 §5.1).
fn unescape(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let (character, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (None, Some(rest)) => ('=', rest),
            (None, None) => return None,
        };
        out.push(character);
        out.push_str(rest);
    }
    Some(out).filter(|name| !name.is_empty())
}

fn mac(key: &[u8], message: &[u8]) -> [u8; KEY_LEN] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes")
}

fn hash(bytes: &[u8]) -> [u8; KEY_LEN] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

/// Bytes of a key.
pub const KEY_LEN: usize = 32;
/// Random bytes of our half of the nonce.
pub const NONCE_BYTES: usize = 18;
const NONCE_LEN_MAX: usize = 256;
const DECOY_SALT_LEN: usize = 16;
/// What a device table usually says, so that a decoy looks like an entry.
const DECOY_ITERATIONS: u32 = 4_096;

#[cfg(test)]
mod tests {
    use aws_lc_rs::pbkdf2;

    use super::*;
    use crate::{
        device::{Login, tests::Counting},
        password::scram_password,
        topic::TopicFilter,
    };

    fn table(password: &[u8]) -> Arc<DeviceTable> {
        let topics: Arc<[TopicFilter]> = [TopicFilter::new("d/#").expect("a filter")].into();
        let login = Login {
            username: "us,er=".to_owned(),
            password: scram_password(password, 64, &mut Counting::default()).expect("iterations are fine"),
            device: Device::new("d", topics).expect("a name"),
        };
        Arc::new(DeviceTable::new(vec![login]).expect("one entry"))
    }

    fn begin() -> Scram {
        Scram::new(
            table(b"pencil"),
            hmac::Key::new(hmac::HMAC_SHA256, &[1]),
            &[7; NONCE_BYTES],
        )
    }

    fn said(turn: Turn) -> String {
        let Turn::Continue(data) = turn else {
            panic!("{turn:?}")
        };
        String::from_utf8(data).expect("it is text")
    }

    /// Plays a client through to its last message; returns that and the signature it expects.
    fn client(first: &str, answer: &str, password: &[u8]) -> (String, String) {
        let field = |name: &str| {
            let found = answer.split(',').find_map(|field| field.strip_prefix(name));
            found.expect("the server says it").to_owned()
        };
        let salt = BASE64.decode(field("s=").as_bytes()).expect("base64");
        let iterations = field("i=")
            .parse::<u32>()
            .ok()
            .and_then(std::num::NonZeroU32::new);
        let mut salted = [0; KEY_LEN];
        let iterations = iterations.expect("a number");
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            &salt,
            password,
            &mut salted,
        );
        let last = format!("c=biws,r={}", field("r="));
        let message = format!("{},{answer},{last}", &first[3..]);
        let client_key = mac(&salted, b"Client Key");
        let signature = mac(&hash(&client_key), message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        let expected = BASE64.encode(&mac(&mac(&salted, b"Server Key"), message.as_bytes()));
        (
            format!("{last},p={}", BASE64.encode(&proof)),
            format!("v={expected}"),
        )
    }

    const FIRST: &str = "n,,n=us=2Cer=3D,r=clientnonce";

    #[test]
    fn who_knows_the_password_is_let_in_and_learns_that_the_gateway_knows_it_too() {
        let mut scram = begin();
        let answer = said(scram.step(FIRST.as_bytes()));
        assert!(
            answer.starts_with("r=clientnonce") && answer.len() > 40,
            "{answer}"
        );
        let (last, expected) = client(FIRST, &answer, b"pencil");
        let Turn::Accepted { device, data } = scram.step(last.as_bytes()) else {
            panic!("the password is right")
        };
        assert_eq!((device.name(), data.as_slice()), ("d", expected.as_bytes()));
        assert_eq!(
            scram.step(last.as_bytes()),
            Turn::Denied(Denial::BadCredentials),
            "once"
        );
    }

    #[test]
    fn who_does_not_is_not_and_an_unknown_name_looks_the_same() {
        let mut scram = begin();
        let answer = said(scram.step(FIRST.as_bytes()));
        let (last, _) = client(FIRST, &answer, b"pen");
        assert_eq!(scram.step(last.as_bytes()), Turn::Denied(Denial::BadCredentials));
        let unknown = "n,,n=nobody,r=clientnonce";
        let answers = [
            said(begin().step(unknown.as_bytes())),
            said(begin().step(unknown.as_bytes())),
        ];
        assert_eq!(answers[0], answers[1], "the same salt each time");
        let mut scram = begin();
        let answer = said(scram.step(unknown.as_bytes()));
        let (last, _) = client(unknown, &answer, b"pencil");
        assert_eq!(scram.step(last.as_bytes()), Turn::Denied(Denial::BadCredentials));
    }

    #[test]
    fn messages_out_of_form_are_refused() {
        for first in [
            "",
            "n",
            "n,,",
            "n,,n=,r=x",
            "n,,n=user",
            "n,,n=user,r=",
            "p=tls-unique,,n=user,r=x",
            "n,a=other,n=user,r=x",
            "n,,n=us=2Xer,r=x",
            "n,,r=x,n=user",
            "n,,m=ext,n=user,r=x",
        ] {
            assert_eq!(
                begin().step(first.as_bytes()),
                Turn::Denied(Denial::BadCredentials),
                "{first}"
            );
        }
        let mut scram = begin();
        let answer = said(scram.step(FIRST.as_bytes()));
        let (last, _) = client(FIRST, &answer, b"pencil");
        for bad in [
            last.replace("c=biws", "c=eSws"),
            last.replace("r=clientnonce", "r=clientnoncf"),
            last.replace(",p=", ",q="),
            format!("{last}x"),
            last[..last.len() - 4].to_owned(),
        ] {
            let mut scram = begin();
            scram.step(FIRST.as_bytes());
            assert_eq!(
                scram.step(bad.as_bytes()),
                Turn::Denied(Denial::BadCredentials),
                "{bad}"
            );
        }
    }

    /// The keys of RFC 7677 §3: user "user", password "pencil".
    #[test]
    fn the_conversation_of_the_standard_comes_out() {
        let salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let mut salted = [0; KEY_LEN];
        let iterations = std::num::NonZeroU32::new(4_096).expect("not 0");
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            &salt,
            b"pencil",
            &mut salted,
        );
        let (stored_key, server_key) = keys_of(&salted);
        let device = Arc::new(Device::new("d", [].into()).expect("a name"));
        let keys = ScramKeys {
            salt: salt.into(),
            iterations: 4_096,
            stored_key,
            server_key,
        };
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let said = format!("n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,");
        let text = format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let Some(Turn::Accepted { data, .. }) = last(&text, &said, nonce, "n,,", Some((keys, device))) else {
            panic!("the proof is right")
        };
        assert_eq!(data, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }
}
