//! The three messages (PROTOCOL.md §4), as states that are consumed.
//!
//! ```text
//!  Initiator ──message 2──▶ Authenticated ──message 3 written──▶ Finished
//!      ▲                          │ identity refused
//!      └──────────────────────────┘
//!  Responder ──message 3──▶ Finished, payload
//! ```
//!
//! A message that is not acceptable gives the state back: anybody can send one, and the right one may still
//! come. Identities are the caller's business; it looks at the payload before it goes on.

use std::{fmt, sync::Arc};

use super::{
    ChannelError, ChannelId, LocalIdentity, Suite,
    message::{
        self, FORM_CACHED, MESSAGE_3, Message1, Message1Fields, Message2, decode_cookie, decode_message_3,
        head_2, mac1_key,
    },
    symmetric::{Keys, SymmetricState},
};
use crate::{
    crypto::{
        CIPHERTEXT_LEN, CryptoError, ENCAPSULATION_KEY_LEN, KemSecret, MacKey, Secret, X25519Secret,
        kem_encapsulate, label16, sha256,
    },
    entropy::Entropy,
    identity::Identifier,
    wire::WireError,
};

const LABEL_CHANNEL: [u8; 16] = label16("FG1 channel v1");
/// Cookies an initiator follows in one handshake; more than one only if the responder's secret changes.
const COOKIES_MAX: u8 = 3;

/// A refused message, with the state as it was before.
pub(super) type Refused<S> = (Box<S>, ChannelError);

/// Begins the transcript that both sides share.
fn symmetric(suite: Suite, responder: Identifier, message_1: &[u8]) -> SymmetricState {
    let start = sha256(&[&LABEL_CHANNEL]);
    let mut symmetric = SymmetricState::new(suite.aead(), Secret::new(start), start);
    symmetric.mix_hash(responder.as_bytes());
    symmetric.mix_hash(message_1);
    symmetric
}

/// What a finished handshake leaves behind.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) keys: Keys,
    pub(super) suite: Suite,
    /// The channel as the peer calls it.
    pub(super) peer_channel: ChannelId,
    pub(super) peer_static: [u8; 32],
    pub(super) local_static: Arc<X25519Secret>,
}

/// An initiator that sent message 1.
pub(super) struct Initiator {
    peer: Identifier,
    mac1_key: MacKey,
    local: Arc<LocalIdentity>,
    channel: ChannelId,
    suites: Vec<Suite>,
    e: X25519Secret,
    e1: Option<KemSecret>,
    cached: [u8; 16],
    cookie: Option<[u8; 32]>,
    cookies: u8,
    message_1: Vec<u8>,
}

/// What an initiator decides before it begins.
#[derive(Debug)]
pub(super) struct Intent {
    pub(super) peer: Identifier,
    pub(super) local: Arc<LocalIdentity>,
    pub(super) channel: ChannelId,
    /// Best first.
    pub(super) suites: Vec<Suite>,
    /// First half of the hash of the peer's attestation that is known, else zero.
    pub(super) cached: [u8; 16],
}

impl Initiator {
    /// Begins a handshake and writes message 1.
    pub(super) fn start(intent: Intent, entropy: &mut dyn Entropy) -> Self {
        let e1 = intent
            .suites
            .iter()
            .any(|suite| suite.is_hybrid())
            .then(KemSecret::generate);
        Self::with_ephemerals(intent, X25519Secret::generate(entropy), e1)
    }

    pub(super) fn with_ephemerals(intent: Intent, e: X25519Secret, e1: Option<KemSecret>) -> Self {
        let Intent {
            peer,
            local,
            channel,
            suites,
            cached,
        } = intent;
        let mac1_key = mac1_key(peer);
        let mut initiator = Self {
            peer,
            mac1_key,
            local,
            channel,
            suites,
            e,
            e1,
            cached,
            cookie: None,
            cookies: 0,
            message_1: Vec::new(),
        };
        initiator.write_message_1();
        initiator
    }

    fn write_message_1(&mut self) {
        let fields = Message1Fields {
            sender: self.channel,
            suites: &self.suites,
            e: self.e.public(),
            e1: self.e1.as_ref().map(KemSecret::public),
            cached: self.cached,
            cookie: self.cookie.as_ref(),
        };
        self.message_1 = fields.encode(&self.mac1_key);
    }

    /// Returns message 1, to be sent and sent again.
    pub(super) fn message_1(&self) -> &[u8] {
        &self.message_1
    }

    fn covered(&self) -> &[u8] {
        self.message_1
            .split_last_chunk::<16>()
            .map_or(&[], |(covered, _)| covered)
    }

    /// Puts the cookie of a cookie answer into message 1.
    pub(super) fn handle_cookie(&mut self, answer: &[u8]) -> Result<(), ChannelError> {
        let (mac1, cookie) = decode_cookie(answer)?;
        if !self.message_1.ends_with(&mac1) {
            return Err(ChannelError::Mac1);
        }
        if self.cookies >= COOKIES_MAX {
            return Err(ChannelError::Full {
                table: "cookies in one handshake",
                max: usize::from(COOKIES_MAX),
            });
        }
        self.cookies += 1;
        self.cookie = Some(cookie);
        self.write_message_1();
        Ok(())
    }

    /// Reads message 2. On success the sender is the owner of [`Authenticated::peer_static`]; whose
    /// key that is, its payload says.
    pub(super) fn handle_message_2(self: Box<Self>, message: &[u8]) -> Result<Authenticated, Refused<Self>> {
        match self.read_message_2(message) {
            Ok(opened) => Ok(Authenticated {
                initiator: self,
                opened,
            }),
            Err(error) => Err((self, error)),
        }
    }

    fn read_message_2(&self, message: &[u8]) -> Result<OpenedMessage2, ChannelError> {
        let message = Message2::decode(message)?;
        // The list was authenticated with message 1, so nobody but the responder can have chosen.
        if !self.suites.contains(&message.suite) {
            return Err(ChannelError::Suite);
        }
        let mut symmetric = symmetric(message.suite, self.peer, self.covered());
        symmetric.mix_hash(message.head);
        symmetric.mix_hash(message.e);
        symmetric.mix_key(&self.e.agree(message.e)?);
        if let (Some(ciphertext), Some(e1)) = (message.ciphertext, &self.e1) {
            let ciphertext = symmetric.decrypt_and_hash(ciphertext)?;
            let ciphertext: &[u8; CIPHERTEXT_LEN] =
                ciphertext.as_slice().try_into().map_err(|_| CryptoError::Kem)?;
            symmetric.mix_key(&e1.decapsulate(ciphertext)?);
        }
        let peer_static = to_key(&symmetric.decrypt_and_hash(message.s)?)?;
        symmetric.mix_key(&self.e.agree(&peer_static)?);
        let payload = symmetric.decrypt_and_hash(message.payload)?;
        Ok(OpenedMessage2 {
            symmetric,
            peer_channel: message.sender,
            suite: message.suite,
            peer_e: *message.e,
            peer_static,
            payload,
        })
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// What message 2 held.
#[derive(Debug)]
struct OpenedMessage2 {
    symmetric: SymmetricState,
    peer_channel: ChannelId,
    suite: Suite,
    peer_e: [u8; 32],
    peer_static: [u8; 32],
    payload: Vec<u8>,
}

/// An initiator that opened message 2 and has not shown who it is.
#[derive(Debug)]
pub(super) struct Authenticated {
    initiator: Box<Initiator>,
    opened: OpenedMessage2,
}

impl Authenticated {
    /// Returns the key that message 2 was made with.
    pub(super) const fn peer_static(&self) -> &[u8; 32] {
        &self.opened.peer_static
    }

    /// Returns the responder's payload, to be verified before [`Authenticated::write_message_3`]: an impostor
    /// must not learn who asks.
    pub(super) fn payload(&self) -> &[u8] {
        &self.opened.payload
    }

    /// Goes back: the payload is not acceptable, but a better answer may come.
    pub(super) fn refuse(self) -> Box<Initiator> {
        self.initiator
    }

    /// Returns who is wanted.
    pub(super) const fn peer(&self) -> Identifier {
        self.initiator.peer
    }

    /// Writes message 3, which presents at most
    /// [`PRESENTATION_LEN_MAX`](super::PRESENTATION_LEN_MAX) bytes, and ends.
    pub(super) fn write_message_3(
        self,
        presentation: &[u8],
    ) -> Result<(Vec<u8>, Finished), Refused<Initiator>> {
        let Self { initiator, opened } = self;
        let mut symmetric = opened.symmetric;
        let local = &initiator.local;
        let mut message = vec![MESSAGE_3];
        message.extend_from_slice(&opened.peer_channel.to_wire().to_be_bytes());
        symmetric.mix_hash(&message);
        symmetric.encrypt_and_hash(local.static_secret.public(), &mut message);
        match local.static_secret.agree(&opened.peer_e) {
            Ok(se) => symmetric.mix_key(&se),
            Err(error) => return Err((initiator, error.into())),
        }
        symmetric.encrypt_and_hash(&local.payload_3(presentation), &mut message);
        let finished = Finished {
            keys: symmetric.split(),
            suite: opened.suite,
            peer_channel: opened.peer_channel,
            peer_static: opened.peer_static,
            local_static: Arc::clone(&local.static_secret),
        };
        Ok((message, finished))
    }
}

/// A responder that sent message 2.
pub(super) struct Responder {
    local: Arc<LocalIdentity>,
    symmetric: SymmetricState,
    suite: Suite,
    peer_channel: ChannelId,
    e: X25519Secret,
    message_2: Vec<u8>,
}

/// Makes a KEM ciphertext and its secret for an encapsulation key.
pub(super) type Encapsulate<'a> =
    dyn FnOnce(&[u8; ENCAPSULATION_KEY_LEN]) -> Result<(Box<[u8; CIPHERTEXT_LEN]>, Secret), CryptoError> + 'a;

impl Responder {
    /// Answers message 1 with `suite`: the asymmetric work that an initiator can cause without showing who it
    /// is.
    pub(super) fn respond(
        local: Arc<LocalIdentity>,
        channel: ChannelId,
        suite: Suite,
        message_1: &Message1<'_>,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, ChannelError> {
        let e = X25519Secret::generate(entropy);
        Self::with_ephemerals(local, channel, suite, message_1, e, Box::new(kem_encapsulate))
    }

    pub(super) fn with_ephemerals(
        local: Arc<LocalIdentity>,
        channel: ChannelId,
        suite: Suite,
        message_1: &Message1<'_>,
        e: X25519Secret,
        encapsulate: Box<Encapsulate<'_>>,
    ) -> Result<Self, ChannelError> {
        let mut symmetric = symmetric(suite, local.identifier, message_1.covered);
        let mut message = head_2(message_1.sender, channel, suite);
        symmetric.mix_hash(&message);
        symmetric.mix_hash(e.public());
        message.extend_from_slice(e.public());
        symmetric.mix_key(&e.agree(message_1.e)?);
        if suite.is_hybrid() {
            let e1 = message_1.e1.ok_or(WireError::Value {
                field: "flags",
                value: 0,
            })?;
            let (ciphertext, shared) = encapsulate(e1)?;
            symmetric.encrypt_and_hash(ciphertext.as_slice(), &mut message);
            symmetric.mix_key(&shared);
        }
        symmetric.encrypt_and_hash(local.static_secret.public(), &mut message);
        symmetric.mix_key(&local.static_secret.agree(message_1.e)?);
        symmetric.encrypt_and_hash(payload_2(&local, message_1), &mut message);
        Ok(Self {
            local,
            symmetric,
            suite,
            peer_channel: message_1.sender,
            e,
            message_2: message,
        })
    }

    /// Returns message 2, to be sent and sent again.
    pub(super) fn message_2(&self) -> &[u8] {
        &self.message_2
    }

    /// Reads message 3: what the handshake leaves behind, and the initiator's payload, to be verified before
    /// the channel serves anybody.
    pub(super) fn handle_message_3(
        self: Box<Self>,
        message: &[u8],
    ) -> Result<(Finished, Vec<u8>), Refused<Self>> {
        match self.read_message_3(message) {
            Ok(done) => Ok(done),
            Err(error) => Err((self, error)),
        }
    }

    fn read_message_3(&self, message: &[u8]) -> Result<(Finished, Vec<u8>), ChannelError> {
        let message = decode_message_3(message)?;
        // On a copy: a forged message must leave the state as it is.
        let mut symmetric = self.symmetric.duplicate();
        symmetric.mix_hash(message.head);
        let peer_static = to_key(&symmetric.decrypt_and_hash(message.s)?)?;
        symmetric.mix_key(&self.e.agree(&peer_static)?);
        let payload = symmetric.decrypt_and_hash(message.payload)?;
        let finished = Finished {
            keys: symmetric.split(),
            suite: self.suite,
            peer_channel: self.peer_channel,
            peer_static,
            local_static: Arc::clone(&self.local.static_secret),
        };
        Ok((finished, payload))
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

/// Returns what a responder puts into message 2.
fn payload_2<'a>(local: &'a LocalIdentity, message_1: &Message1<'_>) -> &'a [u8] {
    if message_1.cached == local.attestation_hash {
        &[FORM_CACHED]
    } else {
        &local.payload
    }
}

/// Returns how long the answer to `message_1` with `suite` is.
pub(super) fn message_2_len(local: &LocalIdentity, suite: Suite, message_1: &Message1<'_>) -> usize {
    message::message_2_len_with(suite, payload_2(local, message_1).len())
}

fn to_key(bytes: &[u8]) -> Result<[u8; 32], ChannelError> {
    let error = WireError::Truncated {
        field: "s",
        need: 32,
        have: bytes.len(),
    };
    bytes.try_into().map_err(|_| error.into())
}

#[cfg(test)]
pub(super) mod tests;
