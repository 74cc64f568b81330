use super::{message::message_2_len_with, *};
use crate::{
    channel::{SuiteOrder, suite},
    identity::{
        KeyAlgorithm,
        tests::{Seeded, TestIdentity},
    },
};

/// A node's side of handshakes, with an attestation for the whole of 1970.
pub(in crate::channel) fn local(identity: &TestIdentity, seed: u64) -> LocalIdentity {
    let secret = X25519Secret::generate(&mut Seeded::new(seed));
    let attestation = identity.attest(*secret.public(), 0, 86_400, seed);
    LocalIdentity::new(&identity.history, &attestation, secret).expect("the parts belong together")
}

const ALL: [Suite; 4] = [
    Suite::HybridAes256Gcm,
    Suite::HybridChaCha20Poly1305,
    Suite::ClassicalAes256Gcm,
    Suite::ClassicalChaCha20Poly1305,
];

/// A handshake of which every step can be tampered with.
struct Run {
    responder: Arc<LocalIdentity>,
    initiator: Box<Initiator>,
    entropy: Seeded,
}

impl Run {
    fn new(suites: &[Suite]) -> Self {
        let mut entropy = Seeded::new(9);
        let responder = Arc::new(local(&TestIdentity::new(KeyAlgorithm::EcdsaP256), 1));
        let intent = Intent {
            peer: responder.identifier,
            local: Arc::new(local(&TestIdentity::new(KeyAlgorithm::Ed25519), 2)),
            channel: ChannelId::from_wire(11),
            suites: suites.to_vec(),
            cached: [0; 16],
        };
        let initiator = Box::new(Initiator::start(intent, &mut entropy));
        Self {
            responder,
            initiator,
            entropy,
        }
    }

    /// Answers the message 1 that was really sent.
    fn answer(&mut self, suite: Suite) -> Box<Responder> {
        let message_1 = self.initiator.message_1().to_vec();
        self.respond(&message_1, suite).expect("message 1 is good")
    }

    fn respond(&mut self, message_1: &[u8], suite: Suite) -> Result<Box<Responder>, ChannelError> {
        let key = mac1_key(self.responder.identifier);
        let message = Message1::decode(message_1, &key)?;
        let (local, channel) = (Arc::clone(&self.responder), ChannelId::from_wire(22));
        Responder::respond(local, channel, suite, &message, &mut self.entropy).map(Box::new)
    }
}

/// Puts the right `mac1` under a message 1 that was tampered with, as anyone can who knows the identifier.
fn with_mac1(mut message: Vec<u8>, responder: Identifier) -> Vec<u8> {
    message.truncate(message.len() - 16);
    let mac1 = mac1_key(responder).mac16(&[&message]);
    message.extend_from_slice(&mac1);
    message
}

fn flipped(message: &[u8], bit: usize) -> Vec<u8> {
    let mut forged = message.to_vec();
    forged[bit / 8] ^= 1 << (bit % 8);
    forged
}

#[test]
fn both_sides_agree_in_every_suite() {
    for chosen in ALL {
        let mut run = Run::new(&[chosen]);
        let responder = run.answer(chosen);
        let message_2 = responder.message_2().to_vec();
        assert_eq!(
            message_2.len(),
            message_2_len_with(chosen, run.responder.payload.len())
        );
        assert!(message_2.len() <= run.initiator.message_1().len());
        let authenticated = run
            .initiator
            .handle_message_2(&message_2)
            .expect("message 2 opens");
        assert_eq!(authenticated.payload(), run.responder.payload);
        let (message_3, initiator) = authenticated
            .write_message_3(&[])
            .expect("no key is of low order");
        let (responder, _) = responder.handle_message_3(&message_3).expect("message 3 opens");
        assert_eq!(initiator.keys.initiator, responder.keys.initiator);
        assert_eq!(initiator.keys.responder, responder.keys.responder);
        assert_ne!(initiator.keys.initiator, initiator.keys.responder);
        assert_eq!(
            (&initiator.keys.root, initiator.keys.binding),
            (&responder.keys.root, responder.keys.binding)
        );
        assert_eq!((initiator.suite, responder.suite), (chosen, chosen));
        assert_eq!(initiator.peer_channel, ChannelId::from_wire(22));
        assert_eq!(responder.peer_channel, ChannelId::from_wire(11));
    }
}

#[test]
fn every_bit_of_message_1_counts() {
    for suite in [Suite::HybridAes256Gcm, Suite::ClassicalChaCha20Poly1305] {
        let mut run = Run::new(&[suite]);
        let message_1 = run.initiator.message_1().to_vec();
        for bit in 0..message_1.len() * 8 {
            assert!(
                run.respond(&flipped(&message_1, bit), suite).is_err(),
                "bit {bit}"
            );
        }
        assert!(run.respond(&message_1, suite).is_ok());
    }
}

/// An attacker who knows the identifier can mend `mac1`; then the transcripts differ and message 2 does not
/// open. One bit of each byte, since each costs a handshake.
#[test]
fn a_message_1_changed_under_a_mended_mac1_leads_nowhere() {
    let suite = Suite::ClassicalAes256Gcm;
    let mut run = Run::new(&[suite]);
    let message_1 = run.initiator.message_1().to_vec();
    let mut answered = 0;
    for byte in 1..message_1.len() - 16 {
        let forged = with_mac1(flipped(&message_1, byte * 8), run.responder.identifier);
        let Ok(responder) = run.respond(&forged, suite) else {
            continue;
        };
        answered += 1;
        let (initiator, error) = run
            .initiator
            .handle_message_2(responder.message_2())
            .expect_err("it is forged");
        assert!(matches!(error, ChannelError::Crypto(_)), "byte {byte}: {error}");
        run.initiator = initiator;
    }
    assert!(answered > 40, "{answered} of the changed messages were answered");
    let responder = run.respond(&message_1, suite).expect("message 1 is good");
    assert!(run.initiator.handle_message_2(responder.message_2()).is_ok());
}

#[test]
fn every_bit_of_message_2_counts_and_the_right_one_is_still_taken() {
    for suite in [Suite::HybridAes256Gcm, Suite::ClassicalChaCha20Poly1305] {
        let mut run = Run::new(&suite::offer(
            crate::channel::PqPolicy::Preferred,
            SuiteOrder::AesFirst,
        ));
        let responder = run.answer(suite);
        let message_2 = responder.message_2();
        let mut initiator = run.initiator;
        // The receiver's channel (bytes 1 to 4) selects the handshake; here there is but one.
        for bit in 8..message_2.len() * 8 {
            let (back, _) = initiator
                .handle_message_2(&flipped(message_2, bit))
                .expect_err("it is forged");
            initiator = back;
        }
        for len in 0..message_2.len() {
            let (back, _) = initiator
                .handle_message_2(&message_2[..len])
                .expect_err("it is cut");
            initiator = back;
        }
        assert!(initiator.handle_message_2(message_2).is_ok());
    }
}

#[test]
fn every_bit_of_message_3_counts_and_the_right_one_is_still_taken() {
    for suite in [Suite::HybridAes256Gcm, Suite::ClassicalChaCha20Poly1305] {
        let mut run = Run::new(&[suite]);
        let mut responder = run.answer(suite);
        let authenticated = run
            .initiator
            .handle_message_2(responder.message_2())
            .expect("message 2 opens");
        let (message_3, _) = authenticated
            .write_message_3(&[])
            .expect("no key is of low order");
        for bit in 0..message_3.len() * 8 {
            let (back, _) = responder
                .handle_message_3(&flipped(&message_3, bit))
                .expect_err("it is forged");
            responder = back;
        }
        for len in 0..message_3.len() {
            let (back, _) = responder
                .handle_message_3(&message_3[..len])
                .expect_err("it is cut");
            responder = back;
        }
        let longer = [message_3.as_slice(), &[0]].concat();
        let (responder, _) = responder.handle_message_3(&longer).expect_err("it is longer");
        assert!(responder.handle_message_3(&message_3).is_ok());
    }
}

#[test]
fn a_suite_list_edited_on_the_way_does_not_lead_to_a_weaker_channel() {
    let mut run = Run::new(&ALL);
    let message_1 = run.initiator.message_1().to_vec();
    // Takes the hybrid suites out: n, suites and flags change, e1 goes.
    let mut edited = message_1[..6].to_vec();
    edited.extend_from_slice(&[2, 0, 1, 0, 2, 0]);
    edited.extend_from_slice(&message_1[16..48]);
    edited.extend_from_slice(&message_1[48 + ENCAPSULATION_KEY_LEN..]);
    let edited = with_mac1(edited, run.responder.identifier);
    let responder = run
        .respond(&edited, Suite::ClassicalAes256Gcm)
        .expect("the edited message is well-formed");
    let (initiator, error) = run
        .initiator
        .handle_message_2(responder.message_2())
        .expect_err("transcripts differ");
    assert_eq!(error, ChannelError::Crypto(CryptoError::Tag));
    let responder = run_respond(&run.responder, &message_1, &mut run.entropy);
    assert!(initiator.handle_message_2(responder.message_2()).is_ok());
}

fn run_respond(local: &Arc<LocalIdentity>, message_1: &[u8], entropy: &mut Seeded) -> Box<Responder> {
    let key = mac1_key(local.identifier);
    let message = Message1::decode(message_1, &key).expect("message 1 is good");
    let suite = Suite::HybridAes256Gcm;
    let responder = Responder::respond(
        Arc::clone(local),
        ChannelId::from_wire(22),
        suite,
        &message,
        entropy,
    );
    Box::new(responder.expect("message 1 is good"))
}

#[test]
fn a_suite_that_was_not_offered_is_refused() {
    let mut run = Run::new(&[Suite::HybridAes256Gcm, Suite::ClassicalAes256Gcm]);
    let message_1 = run.initiator.message_1().to_vec();
    for suite in [Suite::HybridChaCha20Poly1305, Suite::ClassicalChaCha20Poly1305] {
        let responder = run
            .respond(&message_1, suite)
            .expect("the responder does as it likes");
        let (initiator, error) = run
            .initiator
            .handle_message_2(responder.message_2())
            .expect_err("not offered");
        assert_eq!(error, ChannelError::Suite);
        run.initiator = initiator;
    }
}

#[test]
fn keys_of_low_order_are_refused() {
    let suite = Suite::ClassicalAes256Gcm;
    let mut run = Run::new(&[suite]);
    let mut message_1 = run.initiator.message_1().to_vec();
    let e_at = 1 + 1 + 4 + 1 + 2 + 1;
    message_1[e_at..e_at + 32].fill(0);
    let message_1 = with_mac1(message_1, run.responder.identifier);
    assert_eq!(
        run.respond(&message_1, suite).err(),
        Some(ChannelError::Crypto(CryptoError::LowOrder))
    );
    let responder = run.answer(suite);
    let mut message_2 = responder.message_2().to_vec();
    message_2[11..43].fill(0);
    let (_, error) = run.initiator.handle_message_2(&message_2).expect_err("e is zero");
    assert_eq!(error, ChannelError::Crypto(CryptoError::LowOrder));
}

#[test]
fn an_encapsulation_key_that_is_not_reduced_is_refused() {
    let suite = Suite::HybridAes256Gcm;
    let mut run = Run::new(&[suite]);
    let mut message_1 = run.initiator.message_1().to_vec();
    let e1_at = 1 + 1 + 4 + 1 + 2 + 1 + 32;
    message_1[e1_at..e1_at + 3].fill(0xff);
    let message_1 = with_mac1(message_1, run.responder.identifier);
    assert_eq!(
        run.respond(&message_1, suite).err(),
        Some(ChannelError::Crypto(CryptoError::Kem))
    );
}

#[test]
fn a_cookie_is_followed_three_times_and_only_for_the_last_message() {
    let mut run = Run::new(&[Suite::HybridAes256Gcm]);
    let answer = |initiator: &Initiator, cookie: u8| {
        let mac1 = initiator
            .message_1()
            .last_chunk()
            .expect("message 1 ends with mac1");
        message::encode_cookie(ChannelId::from_wire(11), mac1, &[cookie; 32])
    };
    let first = answer(&run.initiator, 1);
    let before = run.initiator.message_1().to_vec();
    assert_eq!(run.initiator.handle_cookie(&first), Ok(()));
    let after = run.initiator.message_1().to_vec();
    assert_eq!(after.len(), before.len());
    assert_ne!(after, before);
    assert_eq!(run.initiator.handle_cookie(&first), Err(ChannelError::Mac1));
    assert_eq!(run.initiator.message_1(), after);
    for cookie in 2..=3 {
        let answer = answer(&run.initiator, cookie);
        assert_eq!(run.initiator.handle_cookie(&answer), Ok(()));
    }
    let fourth = answer(&run.initiator, 4);
    assert!(matches!(
        run.initiator.handle_cookie(&fourth),
        Err(ChannelError::Full { .. })
    ));
}
