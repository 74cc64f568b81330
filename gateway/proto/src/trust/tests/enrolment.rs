//! Requests of enrolment and their answers.

use super::*;
use crate::{crypto::Signature, identity::IdentityError};

const NONCE: [u8; 16] = [0x77; 16];

fn ticket(seed: u64) -> Ticket {
    Ticket::generate(&mut Seeded::new(seed), subject(9), BEGIN, Vec::new()).expect("it needs no way")
}

fn request(ticket: &Ticket, asker: &TestIdentity, name: &str) -> Vec<u8> {
    let draft = EnrolDraft::new(ticket, &asker.history, BEGIN, NONCE, name).expect("the request is short");
    let signature = asker.key.sign(&draft.message());
    draft.finish(&signature).expect("the current key signed")
}

#[test]
fn a_request_proves_ticket_and_identity() {
    let ticket = ticket(1);
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519] {
        let asker = TestIdentity::new(algorithm).rotated(KeyAlgorithm::Ed25519);
        let bytes = request(&ticket, &asker, "plant-7");
        let decoded = EnrolRequest::decode(&bytes).expect("it is well-formed");
        assert_eq!(
            (
                decoded.ticket,
                decoded.authority,
                decoded.created_at,
                decoded.nonce,
                decoded.name
            ),
            (*ticket.id(), subject(9), BEGIN, NONCE, "plant-7")
        );
        assert_eq!(decoded.verify(&ticket.key()).as_ref(), Ok(&asker.history));
    }
}

#[test]
fn every_bit_of_a_request_counts() {
    let ticket = ticket(1);
    let asker = TestIdentity::new(KeyAlgorithm::EcdsaP256);
    let bytes = request(&ticket, &asker, "n");
    for (bit, forged) in each_bit_inverted(&bytes) {
        let verified = EnrolRequest::decode(&forged).and_then(|request| request.verify(&ticket.key()));
        assert!(verified.is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(EnrolRequest::decode(&bytes[..len]).is_err(), "{len} bytes");
    }
    assert!(EnrolRequest::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn who_has_another_ticket_or_none_proves_nothing() {
    let (ours, theirs) = (ticket(1), ticket(2));
    let asker = TestIdentity::new(KeyAlgorithm::Ed25519);
    let bytes = request(&theirs, &asker, "");
    let decoded = EnrolRequest::decode(&bytes).expect("it is well-formed");
    assert_eq!(decoded.verify(&ours.key()), Err(TrustError::TicketKey));
    assert!(decoded.verify(&theirs.key()).is_ok());
}

/// Who reads a request cannot put another identity into it, even with the ticket used up in it.
#[test]
fn a_request_cannot_be_taken_over() {
    let ticket = ticket(1);
    let (asker, thief) = (
        TestIdentity::new(KeyAlgorithm::Ed25519),
        TestIdentity::new(KeyAlgorithm::Ed25519),
    );
    let bytes = request(&ticket, &asker, "");
    let (history, other) = (asker.history.to_bytes(), thief.history.to_bytes());
    let place = bytes
        .windows(history.len())
        .position(|window| window == history)
        .expect("the history is in the request");
    let mut taken = bytes.clone();
    taken[place..place + history.len()].copy_from_slice(&other);
    let decoded = EnrolRequest::decode(&taken).expect("it is well-formed");
    assert_eq!(decoded.verify(&ticket.key()), Err(TrustError::TicketKey));

    // With the ticket but without the key, there is no request either.
    let draft = EnrolDraft::new(&ticket, &asker.history, BEGIN, NONCE, "").expect("the request is short");
    let wrong: Signature = thief.key.sign(&draft.message());
    assert!(matches!(
        draft.finish(&wrong),
        Err(TrustError::Identity(IdentityError::Signature { .. }))
    ));
    let mut forged = bytes.clone();
    let end = forged.len();
    let message = EnrolDraft::new(&ticket, &asker.history, BEGIN, NONCE, "")
        .expect("the request is short")
        .message();
    forged[end - 64..].copy_from_slice(&thief.key.sign(&message));
    let decoded = EnrolRequest::decode(&forged).expect("it is well-formed");
    assert!(matches!(
        decoded.verify(&ticket.key()),
        Err(TrustError::Identity(IdentityError::Signature { .. }))
    ));
}

#[test]
fn the_name_and_the_whole_are_bounded() {
    let ticket = ticket(1);
    let asker = TestIdentity::new(KeyAlgorithm::Ed25519);
    let draft = |name: &str| EnrolDraft::new(&ticket, &asker.history, BEGIN, NONCE, name).map(drop);
    assert_eq!(draft(&"n".repeat(63)), Ok(()));
    assert!(matches!(
        draft(&"n".repeat(64)),
        Err(TrustError::Length { len: 64, max: 63, .. })
    ));
    assert!(matches!(draft("a\nb"), Err(TrustError::Text { found: '\n', .. })));
    // The longest history fits.
    let mut asker = TestIdentity::new(KeyAlgorithm::EcdsaP256);
    for _ in 0..15 {
        asker = asker.rotated(KeyAlgorithm::EcdsaP256);
    }
    let bytes = request(&ticket, &asker, &"n".repeat(63));
    assert!(bytes.len() <= ENROL_LEN_MAX);
    let decoded = EnrolRequest::decode(&bytes).expect("it is well-formed");
    assert!(decoded.verify(&ticket.key()).is_ok());
    assert!(matches!(
        EnrolRequest::decode(&[0; ENROL_LEN_MAX + 1]),
        Err(TrustError::Length { .. })
    ));
}

#[test]
fn an_answer_carries_credential_and_list() {
    let authority = Authority::new(KeyAlgorithm::EcdsaP256);
    let presentation = authority.present(&credential(NODE));
    let list = StatusList::new(4, BEGIN, BEGIN + DAY, [subject(1)]).expect("the list is short");
    let signed = list.sign(&authority.key).expect("the key is vouched for");
    for status in [None, Some(signed.as_slice())] {
        let bytes = EnrolResponse::encode(&presentation, status).expect("both are good");
        let response = EnrolResponse::decode(&bytes).expect("it is well-formed");
        let mut trust = authority.believer();
        trust
            .set_own(synchronised(BEGIN), response.presentation)
            .expect("it is ours");
        let brought = response.status().expect("both are short");
        assert_eq!(brought.is_some(), status.is_some());
        if let Some(brought) = brought {
            assert_eq!(brought, authority.list(4, BEGIN, &[subject(1)]));
            trust
                .take_status(synchronised(BEGIN), &brought)
                .expect("the list is good");
        }
        for len in 0..bytes.len() {
            assert!(EnrolResponse::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        assert!(EnrolResponse::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    }
    assert!(EnrolResponse::encode(&[], None).is_err());
    assert!(EnrolResponse::encode(&presentation, Some(&[1])).is_err());
    assert!(EnrolResponse::encode(&vec![0; 70_000], None).is_err());
}

proptest! {
    #[test]
    fn requests_come_back(seed: u32, created_at: u64, nonce: [u8; 16], name in "\\PC{0,15}") {
        let ticket = ticket(u64::from(seed));
        let asker = TestIdentity::new(KeyAlgorithm::Ed25519);
        let draft = EnrolDraft::new(&ticket, &asker.history, created_at, nonce, &name).unwrap();
        let signature = asker.key.sign(&draft.message());
        let bytes = draft.finish(&signature).unwrap();
        let decoded = EnrolRequest::decode(&bytes).unwrap();
        prop_assert_eq!((decoded.created_at, decoded.nonce), (created_at, nonce));
        prop_assert_eq!(decoded.name, name);
        prop_assert_eq!(decoded.verify(&ticket.key()), Ok(asker.history));
    }

    #[test]
    fn any_bytes_are_a_request_or_an_answer_or_refused(bytes: Vec<u8>) {
        if let Ok(request) = EnrolRequest::decode(&bytes) {
            prop_assert!(request.verify(&ticket(1).key()).is_err());
        }
        prop_assert!(EnrolResponse::decode(&bytes).is_err());
    }
}
