//! The vectors of the second implementation (`gateway/proto/tests/second/`), which was written from
//! PROTOCOL.md alone: both sides of each handshake, records, credentials and live proofs, rekey.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde::Deserialize;

use super::{
    ChannelId, ChannelSettings, LocalIdentity, Opener, Padding, PathId, RecordHeader, Role, Sealer, Suite,
    cookie,
    established::{Effects, Established, PeerAt},
    frame, frames,
    handshake::{Finished, Initiator, Intent, Responder},
    message::{Message1, Payload, encode_cookie, mac1_key},
    rekey::{Offer, RekeyContext, answer_with},
    symmetric::Keys,
};
use crate::{
    crypto::{KemSecret, Secret, X25519Secret},
    identity::{AttestationCache, ChangeHistory, Identifier, SignedAttestation, tests::Seeded},
    time::{ClockQuality, Instant, WallTime},
};

#[derive(Deserialize)]
struct Vectors {
    now: u64,
    identities: std::collections::BTreeMap<String, Party>,
    handshakes: Vec<Case>,
}

#[derive(Deserialize)]
struct Party {
    identifier: Hex,
    text: String,
    history: Hex,
    attestation: Hex,
    static_private: Hex,
    payload: Hex,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    initiator: String,
    responder: String,
    suite: u16,
    suites: Vec<u16>,
    initiator_channel: u32,
    responder_channel: u32,
    #[serde(flatten)]
    ephemerals: Ephemerals,
    cached: Hex,
    cookie_secret: Hex,
    cookie_path: Hex,
    cookie_answer: Hex,
    message_1: Hex,
    message_2: Hex,
    presentation: Hex,
    message_3: Hex,
    #[serde(flatten)]
    after: After,
    credential: Credential,
    proofs: Vec<Proof>,
    rekey: Rekey,
}

#[derive(Deserialize)]
struct Ephemerals {
    ei_private: Hex,
    er_private: Hex,
    e1_expanded: Hex,
    kem_ciphertext: Hex,
    kem_shared: Hex,
}

#[derive(Deserialize)]
struct After {
    t1: Hex,
    t2: Hex,
    root: Hex,
    binding: Hex,
    records: Vec<Record>,
}

#[derive(Deserialize)]
struct Rekey {
    #[serde(flatten)]
    ephemerals: Ephemerals,
    body_1: Hex,
    body_2: Hex,
    #[serde(flatten)]
    after: After,
}

#[derive(Deserialize)]
struct Credential {
    presentation: Hex,
    record: Hex,
}

#[derive(Deserialize)]
struct Proof {
    role: u8,
    message: Hex,
    body: Hex,
    record: Hex,
}

#[derive(Deserialize)]
struct Record {
    direction: String,
    number: u64,
    plaintext: Hex,
    record: Hex,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Hex(Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = data_encoding::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        HEXLOWER.decode(text.as_bytes()).map(Self)
    }
}

impl Hex {
    fn array<const N: usize>(&self) -> [u8; N] {
        self.0
            .as_slice()
            .try_into()
            .expect("the vector has the length of the field")
    }

    fn secret(&self) -> Secret {
        Secret::new(self.array())
    }
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../tests/second/vectors.json"))
        .expect("vectors.json is well-formed")
}

impl Vectors {
    fn wall(&self) -> WallTime {
        WallTime {
            unix_millis: self.now * 1000,
            quality: ClockQuality::Synchronised,
        }
    }

    fn local(&self, name: &str) -> Arc<LocalIdentity> {
        let party = &self.identities[name];
        let history = ChangeHistory::decode(&party.history.0).expect("history verifies");
        let attestation =
            SignedAttestation::decode(&party.attestation.0).expect("attestation is well-formed");
        let local = LocalIdentity::new(
            &history,
            &attestation,
            X25519Secret::new(&party.static_private.secret()),
        );
        Arc::new(local.expect("the parts belong together"))
    }

    /// Verifies a payload; returns whose it is and what it presents.
    fn verify<'a>(&self, payload: &'a [u8], static_key: &[u8; 32]) -> (Identifier, &'a [u8]) {
        let Ok(Payload::Full {
            history,
            attestation,
            presentation,
        }) = Payload::decode(payload)
        else {
            panic!("payload is not of form 1");
        };
        let signed = AttestationCache::new(1).verify(history, attestation, None, static_key, self.wall());
        (
            signed.expect("payload verifies").attestation().identifier,
            presentation,
        )
    }

    /// Returns one side of a finished handshake as it goes on.
    fn established(&self, role: Role, finished: Finished, peer: &str) -> Established {
        let peer = &self.identities[peer];
        let history = ChangeHistory::decode(&peer.history.0).expect("history verifies");
        let signed = SignedAttestation::decode(&peer.attestation.0).expect("attestation is well-formed");
        let peer = PeerAt {
            attestation: *signed.attestation(),
            key: *history.current_key(),
            path: PathId(0),
            now: Instant::START,
        };
        let settings = ChannelSettings::default();
        Established::new(&settings, role, finished, &peer, &mut Seeded::new(1))
    }
}

impl Ephemerals {
    fn e1(&self) -> Option<KemSecret> {
        let expanded = &self.e1_expanded.0;
        (!expanded.is_empty()).then(|| KemSecret::from_expanded(expanded).expect("key has the right length"))
    }
}

fn check_keys(name: &str, keys: &Keys, after: &After) {
    assert_eq!(keys.initiator, after.t1.secret(), "{name}");
    assert_eq!(keys.responder, after.t2.secret(), "{name}");
    assert_eq!(keys.root, after.root.secret(), "{name}");
    assert_eq!(keys.binding, after.binding.array(), "{name}");
}

/// Opens all records and seals those whose number a sealer can reach.
fn check_records(case: &Case, generation: u64, keys: &Keys, after: &After) {
    let suite = Suite::from_code(case.suite).expect("suite is known");
    for (direction, secret, channel) in [
        ("i", &keys.initiator, case.responder_channel),
        ("r", &keys.responder, case.initiator_channel),
    ] {
        let channel = ChannelId::from_wire(channel);
        let mut opener = Opener::new(suite.aead(), secret);
        let mut sealer = Sealer::new(channel, generation, suite.aead(), secret, Padding::Off);
        let records = after
            .records
            .iter()
            .filter(|record| record.direction == direction);
        let mut count = 0;
        for record in records {
            let mut bytes = record.record.0.clone();
            let header = RecordHeader::decode(&bytes).expect("header is well-formed");
            assert_eq!(
                (header.channel, u64::from(header.generation)),
                (channel, generation)
            );
            // A receiver that lost more than 32,767 records waits for a wide number: 5 << 20 has one.
            let plaintext = opener.open(&header, &mut bytes);
            if record.number == (1 << 20) - 1 {
                assert!(plaintext.is_err(), "a jump of a million needs a wide number");
                continue;
            }
            assert_eq!(
                plaintext,
                Ok(record.plaintext.0.as_slice()),
                "{} {}",
                case.name,
                record.number
            );
            assert!(frames(&record.plaintext.0).all(|frame| frame.is_ok()));

            sealer.leap(record.number);
            let mut sealed = Vec::new();
            let start = sealer.begin(&mut sealed);
            sealed.extend_from_slice(&record.plaintext.0);
            sealer.finish(&mut sealed, start).expect("record is short");
            assert_eq!(sealed, record.record.0, "{} {}", case.name, record.number);
            count += 1;
        }
        assert_eq!(count, 10, "{}", case.name);
    }
}

/// Opens a record and returns what its frames of the channel's own bring about.
fn effects(open: &mut Established, record: &Hex) -> Effects {
    let (now, mut bytes) = (Instant::START, record.0.clone());
    let header = RecordHeader::decode(&bytes).expect("header is well-formed");
    let (plaintext, opened) = open.open(now, &header, &mut bytes).expect("record opens");
    open.handle_opened(now, &mut Seeded::new(1), opened, plaintext)
        .expect("frames are well-formed")
}

/// Takes the proof of the peer, and gives the one of this side.
fn check_proofs(open: &mut Established, case: &Case) {
    assert_eq!(case.proofs.len(), 2);
    let (ours, theirs) = match open.role() {
        Role::Initiator => (&case.proofs[0], &case.proofs[1]),
        Role::Responder => (&case.proofs[1], &case.proofs[0]),
    };
    for proof in &case.proofs {
        let prover = [Role::Initiator, Role::Responder][usize::from(proof.role)];
        assert_eq!(open.live_message(prover), proof.message.0, "{}", case.name);
    }
    open.demand_proof(Instant::START);
    let proof = effects(open, &theirs.record).proof.expect("it was demanded");
    let (key_sequence, signature) = proof.parts();
    assert_eq!(key_sequence, open.attestation().key_sequence);
    assert_eq!(
        open.peer_key().verify(&theirs.message.0, signature),
        Ok(()),
        "{}",
        case.name
    );
    open.accept_proof(proof);

    let (key_sequence, signature) = ours.body.0.split_first_chunk().expect("a body has 68 bytes");
    let signature = signature.try_into().expect("a signature has 64 bytes");
    open.answer_proof(Instant::START, u32::from_be_bytes(*key_sequence), signature);
    let mut plaintext = Vec::new();
    open.put_assured(Instant::START, &mut plaintext);
    let first = frames(&plaintext).next();
    assert_eq!(first, Some(Ok((frame::PROOF, ours.body.0.as_slice()))));
}

#[test]
fn identities_are_those_of_the_second_implementation() {
    let vectors = vectors();
    assert_eq!(vectors.identities.len(), 3);
    for party in vectors.identities.values() {
        let history = ChangeHistory::decode(&party.history.0).expect("history verifies");
        assert_eq!(history.to_bytes(), party.history.0);
        assert_eq!(history.identifier().as_bytes(), &party.identifier.array());
        assert_eq!(history.identifier().to_string(), party.text);
        assert_eq!(party.text.parse(), Ok(history.identifier()));
        let attestation =
            SignedAttestation::decode(&party.attestation.0).expect("attestation is well-formed");
        assert_eq!(attestation.encode(), party.attestation.0);
        assert_eq!(attestation.verify(&history), Ok(()));
    }
    for name in vectors.identities.keys() {
        assert_eq!(vectors.local(name).payload, vectors.identities[name].payload.0);
    }
}

#[test]
fn an_initiator_agrees_with_the_second_implementation() {
    let vectors = vectors();
    let mut count = 0;
    for case in &vectors.handshakes {
        let Some(suites) = case
            .suites
            .iter()
            .copied()
            .map(Suite::from_code)
            .collect::<Option<Vec<_>>>()
        else {
            continue;
        };
        let responder = vectors.local(&case.responder);
        let intent = Intent {
            peer: responder.identifier,
            local: vectors.local(&case.initiator),
            channel: ChannelId::from_wire(case.initiator_channel),
            suites,
            cached: case.cached.array(),
        };
        let e = X25519Secret::new(&case.ephemerals.ei_private.secret());
        let mut initiator = Box::new(Initiator::with_ephemerals(intent, e, case.ephemerals.e1()));
        if !case.cookie_answer.0.is_empty() {
            initiator
                .handle_cookie(&case.cookie_answer.0)
                .expect("cookie is for this message");
        }
        assert_eq!(initiator.message_1(), case.message_1.0, "{}", case.name);
        let authenticated = initiator
            .handle_message_2(&case.message_2.0)
            .expect("message 2 opens");
        assert_eq!(authenticated.peer_static(), responder.static_secret.public());
        if case.cached.array() == [0; 16] {
            let peer = vectors.verify(authenticated.payload(), authenticated.peer_static());
            assert_eq!(peer, (responder.identifier, [].as_slice()));
        } else {
            assert_eq!(Payload::decode(authenticated.payload()), Ok(Payload::Cached));
        }
        let (message_3, finished) = authenticated
            .write_message_3(&case.presentation.0)
            .expect("no key is of low order");
        assert_eq!(message_3, case.message_3.0, "{}", case.name);
        assert_eq!(finished.suite.code(), case.suite);
        assert_eq!(finished.peer_channel.to_wire(), case.responder_channel);
        check_keys(&case.name, &finished.keys, &case.after);
        check_records(case, 0, &finished.keys, &case.after);

        let offer = Offer::with_ephemerals(
            1,
            X25519Secret::new(&case.rekey.ephemerals.ei_private.secret()),
            case.rekey.ephemerals.e1(),
        );
        assert_eq!(offer.body(), case.rekey.body_1.0);
        let context = RekeyContext {
            suite: finished.suite,
            root: &finished.keys.root,
            binding: &finished.keys.binding,
            local_static: &finished.local_static,
            peer_static: &finished.peer_static,
        };
        let keys = offer
            .finish(&context, &case.rekey.body_2.0)
            .expect("body 2 is well-formed");
        check_keys(&case.name, &keys, &case.rekey.after);
        check_records(case, 1, &keys, &case.rekey.after);

        let mut open = vectors.established(Role::Initiator, finished, &case.responder);
        let presented = effects(&mut open, &case.credential.record).presentation;
        assert_eq!(presented.as_ref(), Some(&case.credential.presentation.0));
        check_proofs(&mut open, case);
        count += 1;
    }
    assert_eq!(count, 5);
}

#[test]
fn a_responder_agrees_with_the_second_implementation() {
    let vectors = vectors();
    assert_eq!(vectors.handshakes.len(), 6);
    for case in &vectors.handshakes {
        let local = vectors.local(&case.responder);
        let initiator = vectors.local(&case.initiator);
        let message_1 =
            Message1::decode(&case.message_1.0, &mac1_key(local.identifier)).expect("message 1 is for us");
        if let Some(presented) = message_1.cookie {
            let secret = case.cookie_secret.secret();
            let cookie = cookie::cookie(&secret, &case.cookie_path.0, message_1.e);
            assert_eq!(cookie.as_bytes(), &presented);
            let mac1: &[u8; 16] = case.cookie_answer.0[5..21].try_into().expect("16 bytes");
            let answer = encode_cookie(message_1.sender, mac1, &presented);
            assert_eq!(answer, case.cookie_answer.0);
        }
        let suite = Suite::from_code(case.suite).expect("suite is known");
        assert!(message_1.suites().any(|offered| offered == suite));
        let shared = (
            case.ephemerals.kem_ciphertext.0.clone(),
            case.ephemerals.kem_shared.0.clone(),
        );
        let responder = Responder::with_ephemerals(
            Arc::clone(&local),
            ChannelId::from_wire(case.responder_channel),
            suite,
            &message_1,
            X25519Secret::new(&case.ephemerals.er_private.secret()),
            Box::new(|_| {
                let ciphertext = Box::new(shared.0.as_slice().try_into().expect("1,088 bytes"));
                Ok((
                    ciphertext,
                    Secret::new(shared.1.as_slice().try_into().expect("32 bytes")),
                ))
            }),
        );
        let responder = Box::new(responder.expect("message 1 can be answered"));
        assert_eq!(responder.message_2(), case.message_2.0, "{}", case.name);
        let (finished, payload) = responder
            .handle_message_3(&case.message_3.0)
            .expect("message 3 opens");
        assert_eq!(&finished.peer_static, initiator.static_secret.public());
        assert_eq!(
            vectors.verify(&payload, &finished.peer_static),
            (initiator.identifier, case.presentation.0.as_slice()),
            "{}",
            case.name
        );
        assert_eq!(finished.peer_channel.to_wire(), case.initiator_channel);
        check_keys(&case.name, &finished.keys, &case.after);

        let context = RekeyContext {
            suite,
            root: &finished.keys.root,
            binding: &finished.keys.binding,
            local_static: &finished.local_static,
            peer_static: &finished.peer_static,
        };
        let rekey = &case.rekey;
        let e = X25519Secret::new(&rekey.ephemerals.er_private.secret());
        let (body_2, keys) = answer_with(
            &context,
            &rekey.body_1.0,
            &e,
            Box::new(|_| {
                let ciphertext = rekey.ephemerals.kem_ciphertext.array();
                Ok((Box::new(ciphertext), rekey.ephemerals.kem_shared.secret()))
            }),
        )
        .expect("body 1 is well-formed");
        assert_eq!(body_2, rekey.body_2.0, "{}", case.name);
        check_keys(&case.name, &keys, &rekey.after);

        let mut open = vectors.established(Role::Responder, finished, &case.initiator);
        let presents: Arc<[u8]> = case.credential.presentation.0.as_slice().into();
        open.present(Instant::START, 1, presents);
        let mut plaintext = Vec::new();
        open.put_assured(Instant::START, &mut plaintext);
        let first = frames(&plaintext).next();
        let credential = case.credential.presentation.0.as_slice();
        assert_eq!(first, Some(Ok((frame::CREDENTIAL, credential))));
        check_proofs(&mut open, case);
    }
}
