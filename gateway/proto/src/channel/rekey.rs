//! New keys from fresh ephemerals inside a channel (PROTOCOL.md §6).

use std::fmt;

use super::{
    ChannelError, Suite,
    handshake::Encapsulate,
    record::generation_code,
    symmetric::{Keys, SymmetricState},
};
use crate::{
    crypto::{
        CIPHERTEXT_LEN, CryptoError, ENCAPSULATION_KEY_LEN, KemSecret, Secret, X25519Secret, kem_encapsulate,
        label16, sha256,
    },
    entropy::Entropy,
    wire::Reader,
};

const LABEL_REKEY: [u8; 16] = label16("FG1 rekey v1");

/// What both sides bring to a rekey from before.
#[derive(Debug)]
pub(super) struct RekeyContext<'a> {
    pub(super) suite: Suite,
    pub(super) root: &'a Secret,
    pub(super) binding: &'a [u8; 32],
    pub(super) local_static: &'a X25519Secret,
    pub(super) peer_static: &'a [u8; 32],
}

impl RekeyContext<'_> {
    fn symmetric(&self, body_1: &[u8], body_2: &[u8]) -> SymmetricState {
        let h = sha256(&[&LABEL_REKEY, self.binding]);
        let mut symmetric = SymmetricState::new(self.suite.aead(), self.root.duplicate(), h);
        symmetric.mix_hash(body_1);
        symmetric.mix_hash(body_2);
        symmetric
    }
}

/// Returns how long the body of Rekey1 is.
pub(super) const fn body_1_len(suite: Suite) -> usize {
    if suite.is_hybrid() {
        33 + ENCAPSULATION_KEY_LEN
    } else {
        33
    }
}

/// Returns how long the body of Rekey2 is.
pub(super) const fn body_2_len(suite: Suite) -> usize {
    if suite.is_hybrid() {
        33 + CIPHERTEXT_LEN
    } else {
        33
    }
}

/// Returns the generation that stands in the body of Rekey1 or Rekey2.
pub(super) fn generation_of(body: &[u8]) -> u8 {
    body.first().copied().unwrap_or_default()
}

/// Returns `generation` modulo 256, as in a body.
pub(super) const fn generation_byte(generation: u64) -> u8 {
    let [.., last] = generation.to_be_bytes();
    debug_assert!(last & 3 == generation_code(generation));
    last
}

/// An initiator that sent Rekey1.
pub(super) struct Offer {
    e: X25519Secret,
    e1: Option<KemSecret>,
    body: Vec<u8>,
}

impl Offer {
    /// Offers `generation`.
    pub(super) fn new(suite: Suite, generation: u64, entropy: &mut dyn Entropy) -> Self {
        let e1 = suite.is_hybrid().then(KemSecret::generate);
        Self::with_ephemerals(generation, X25519Secret::generate(entropy), e1)
    }

    pub(super) fn with_ephemerals(generation: u64, e: X25519Secret, e1: Option<KemSecret>) -> Self {
        let mut body = vec![generation_byte(generation)];
        body.extend_from_slice(e.public());
        if let Some(e1) = &e1 {
            body.extend_from_slice(e1.public());
        }
        Self { e, e1, body }
    }

    /// Returns the body of Rekey1, to be sent and sent again.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Derives the keys from the body of Rekey2.
    pub(super) fn finish(&self, context: &RekeyContext<'_>, body_2: &[u8]) -> Result<Keys, ChannelError> {
        let mut reader = Reader::new(body_2);
        reader.u8("generation")?;
        let peer_e = reader.array("e")?;
        let ciphertext = reader.rest();
        let mut symmetric = context.symmetric(&self.body, body_2);
        symmetric.mix_key(&self.e.agree(context.peer_static)?);
        symmetric.mix_key(&context.local_static.agree(context.peer_static)?);
        symmetric.mix_key(&self.e.agree(&peer_e)?);
        symmetric.mix_key(&context.local_static.agree(&peer_e)?);
        if let Some(e1) = &self.e1 {
            symmetric.mix_key(&e1.decapsulate(ciphertext.try_into().map_err(|_| CryptoError::Kem)?)?);
        }
        Ok(symmetric.split())
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Offer(..)")
    }
}

/// Answers the body of Rekey1: the body of Rekey2, and the keys.
pub(super) fn answer(
    context: &RekeyContext<'_>,
    body_1: &[u8],
    entropy: &mut dyn Entropy,
) -> Result<(Vec<u8>, Keys), ChannelError> {
    answer_with(
        context,
        body_1,
        &X25519Secret::generate(entropy),
        Box::new(kem_encapsulate),
    )
}

pub(super) fn answer_with(
    context: &RekeyContext<'_>,
    body_1: &[u8],
    e: &X25519Secret,
    encapsulate: Box<Encapsulate<'_>>,
) -> Result<(Vec<u8>, Keys), ChannelError> {
    let mut reader = Reader::new(body_1);
    let mut body_2 = vec![reader.u8("generation")?];
    let peer_e = reader.array("e")?;
    body_2.extend_from_slice(e.public());
    let shared = if context.suite.is_hybrid() {
        let e1 = reader.rest().try_into().map_err(|_| CryptoError::Kem)?;
        let (ciphertext, shared) = encapsulate(e1)?;
        body_2.extend_from_slice(ciphertext.as_slice());
        Some(shared)
    } else {
        None
    };
    let mut symmetric = context.symmetric(body_1, &body_2);
    symmetric.mix_key(&context.local_static.agree(&peer_e)?);
    symmetric.mix_key(&context.local_static.agree(context.peer_static)?);
    symmetric.mix_key(&e.agree(&peer_e)?);
    symmetric.mix_key(&e.agree(context.peer_static)?);
    if let Some(shared) = &shared {
        symmetric.mix_key(shared);
    }
    Ok((body_2, symmetric.split()))
}
