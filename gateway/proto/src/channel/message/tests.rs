use proptest::prelude::*;

use super::*;

const RESPONDER: Identifier = Identifier::from_bytes([3; 32]);

fn fields<'a>(suites: &'a [Suite], e1: Option<&'a [u8; ENCAPSULATION_KEY_LEN]>) -> Message1Fields<'a> {
    Message1Fields {
        sender: ChannelId::from_wire(7),
        suites,
        e: &[1; 32],
        e1,
        cached: [2; 16],
        cookie: None,
    }
}

/// Replaces `mac1` by the right one: an attacker who knows the identifier can do that.
fn with_mac1(mut message: Vec<u8>) -> Vec<u8> {
    let covered = message.len() - 16;
    message.truncate(covered);
    let mac1 = mac1_key(RESPONDER).mac16(&[&message]);
    message.extend_from_slice(&mac1);
    message
}

#[test]
fn message_1_is_as_long_as_any_answer_to_it_with_a_fresh_identity() {
    let key = mac1_key(RESPONDER);
    let hybrid = fields(&[Suite::HybridAes256Gcm], Some(&[4; ENCAPSULATION_KEY_LEN])).encode(&key);
    let classical = fields(&[Suite::ClassicalAes256Gcm], None).encode(&key);
    assert_eq!((hybrid.len(), classical.len()), (1900, 700));
    let cookie = Message1Fields {
        cookie: Some(&[5; 32]),
        ..fields(&[Suite::ClassicalAes256Gcm], None)
    };
    assert_eq!(cookie.encode(&key).len(), 700);
}

#[test]
fn a_message_for_another_identity_is_refused_before_anything_in_it_is_read() {
    let garbage = [MESSAGE_1; 100];
    assert_eq!(
        Message1::decode(&garbage, &mac1_key(RESPONDER)).err(),
        Some(ChannelError::Mac1)
    );
    let message = fields(&[Suite::ClassicalAes256Gcm], None).encode(&mac1_key(RESPONDER));
    let other = mac1_key(Identifier::from_bytes([4; 32]));
    assert_eq!(Message1::decode(&message, &other).err(), Some(ChannelError::Mac1));
}

#[test]
fn a_message_1_that_breaks_a_rule_is_refused() {
    let key = mac1_key(RESPONDER);
    let good = fields(&[Suite::ClassicalAes256Gcm], None).encode(&key);
    let decode = |message: &[u8]| Message1::decode(message, &key).err();
    assert_eq!(decode(&good), None);
    let changed = |at: usize, value: u8| {
        let mut message = good.clone();
        message[at] = value;
        with_mac1(message)
    };
    assert_eq!(
        decode(&changed(1, 2)),
        Some(ChannelError::Version { got: 2, want: 1 })
    );
    for count in [0, 9] {
        let refused = WireError::Value {
            field: "number of suites",
            value: count.into(),
        };
        assert_eq!(decode(&changed(6, count)), Some(refused.into()));
    }
    for flags in [1, 2, 0x80] {
        let refused = WireError::Value {
            field: "flags",
            value: flags.into(),
        };
        assert_eq!(decode(&changed(9, flags)), Some(refused.into()));
    }
    let refused = WireError::Value {
        field: "length of cookie",
        value: 31,
    };
    assert_eq!(decode(&changed(58, 31)), Some(refused.into()));
    let refused = WireError::Value {
        field: "zeros",
        value: 1,
    };
    assert_eq!(decode(&changed(400, 9)), Some(refused.into()));
    let mut longer = good.clone();
    longer.insert(good.len() - 16, 0);
    assert_eq!(
        decode(&with_mac1(longer)),
        Some(WireError::Trailing { extra: 1 }.into())
    );
    let long = with_mac1(vec![MESSAGE_1; MESSAGE_LEN_MAX + 1]);
    assert_eq!(
        decode(&long),
        Some(ChannelError::TooLong { len: 8193, max: 8192 })
    );
}

#[test]
fn unknown_suites_are_skipped() {
    let key = mac1_key(RESPONDER);
    let two = [Suite::ClassicalAes256Gcm, Suite::ClassicalChaCha20Poly1305];
    let mut message = fields(&two, None).encode(&key);
    message[7..9].copy_from_slice(&[0x02, 0x01]);
    let message = with_mac1(message);
    let decoded = Message1::decode(&message, &key).expect("an unknown suite is no fault");
    assert_eq!(
        decoded.suites().collect::<Vec<_>>(),
        [Suite::ClassicalChaCha20Poly1305]
    );
}

#[test]
fn a_cookie_answer_comes_back() {
    let answer = encode_cookie(ChannelId::from_wire(9), &[1; 16], &[2; 32]);
    assert_eq!(receiver(&answer), Ok(ChannelId::from_wire(9)));
    assert_eq!(decode_cookie(&answer), Ok(([1; 16], [2; 32])));
    for len in 0..answer.len() {
        assert!(decode_cookie(&answer[..len]).is_err());
    }
    assert!(decode_cookie(&[answer.as_slice(), &[0]].concat()).is_err());
}

proptest! {
    #[test]
    fn message_1_comes_back(
        sender: u32,
        e: [u8; 32],
        cached: [u8; 16],
        cookie: Option<[u8; 32]>,
        hybrid: bool,
        count in 1..=2_usize,
    ) {
        let key = mac1_key(RESPONDER);
        let suites = if hybrid {
            &[Suite::HybridAes256Gcm, Suite::ClassicalAes256Gcm][..count]
        } else {
            &[Suite::ClassicalAes256Gcm, Suite::ClassicalChaCha20Poly1305][..count]
        };
        let e1 = hybrid.then_some([6; ENCAPSULATION_KEY_LEN]);
        let sender = ChannelId::from_wire(sender);
        let fields =
            Message1Fields { sender, suites, e: &e, e1: e1.as_ref(), cached, cookie: cookie.as_ref() };
        let message = fields.encode(&key);
        let decoded = Message1::decode(&message, &key).expect("our own message is well-formed");
        prop_assert_eq!(decoded.sender, sender);
        prop_assert_eq!(decoded.suites().collect::<Vec<_>>(), suites);
        prop_assert_eq!((decoded.e, decoded.e1), (&e, e1.as_ref()));
        prop_assert_eq!((decoded.cached, decoded.cookie), (cached, cookie));
        prop_assert_eq!(decoded.covered, &message[..message.len() - 16]);
    }

    #[test]
    fn payloads_come_back(
        changes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..17),
        attestation in prop::collection::vec(any::<u8>(), 0..300),
        presentation in prop::collection::vec(any::<u8>(), 0..PRESENTATION_LEN_MAX + 10),
    ) {
        let mut history = vec![u8::try_from(changes.len()).expect("at most 16")];
        for change in &changes {
            wire::put_bytes16(&mut history, change);
        }
        let mut payload = vec![FORM_FULL];
        payload.extend_from_slice(&history);
        wire::put_bytes16(&mut payload, &attestation);
        wire::put_bytes16(&mut payload, &presentation);
        let full = Payload::Full {
            history: &history,
            attestation: &attestation,
            presentation: &presentation,
        };
        let want = if presentation.len() <= PRESENTATION_LEN_MAX {
            Ok(full)
        } else {
            Err(presentation_len(&presentation))
        };
        prop_assert_eq!(Payload::decode(&payload), want);
        payload.push(0);
        prop_assert!(Payload::decode(&payload).is_err());
    }

    #[test]
    fn any_bytes_are_a_message_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..2100)) {
        let _ = Message2::decode(&bytes);
        let _ = decode_message_3(&bytes);
        let _ = decode_cookie(&bytes);
        let _ = Payload::decode(&bytes);
        let _ = receiver(&bytes);
        // Behind the right mac1, so that the parser is reached.
        bytes.splice(0..bytes.len().min(2), [MESSAGE_1, VERSION]);
        bytes.resize(bytes.len().max(18), 0);
        let _ = Message1::decode(&with_mac1(bytes), &mac1_key(RESPONDER));
    }

    #[test]
    fn a_changed_message_1_is_another_or_refused(at in 2..684_usize, value: u8) {
        let key = mac1_key(RESPONDER);
        let mut message = fields(&[Suite::ClassicalAes256Gcm], None).encode(&key);
        message[at] = value;
        let message = with_mac1(message);
        if let Ok(decoded) = Message1::decode(&message, &key) {
            prop_assert!(decoded.e1.is_none());
        }
    }
}
