//! Status lists, whole and in parts.

use super::*;

fn parts(authority: &Authority, number: u64, encoded: &[u8]) -> Vec<Vec<u8>> {
    status_parts(authority.identifier(), number, encoded)
        .map(|frame| {
            let mut out = Vec::new();
            frame.put(&mut out);
            out
        })
        .collect()
}

/// Reads a part as it comes out of a record.
fn read(plaintext: &[u8]) -> StatusPart<'_> {
    let (kind, body) = crate::channel::frames(plaintext)
        .next()
        .expect("there is a frame")
        .expect("it is well-formed");
    match TrustFrame::decode(kind, body) {
        Ok(Some(TrustFrame::StatusPart(part))) => part,
        other => panic!("{other:?} is no part"),
    }
}

fn many(count: u32) -> Vec<Identifier> {
    (0..count)
        .map(|number| Identifier::from_bytes(crate::crypto::sha256(&[&number.to_be_bytes()])))
        .collect()
}

#[test]
fn a_list_says_who_is_new_in_it() {
    let authority = Authority::new(KeyAlgorithm::EcdsaP256);
    let mut trust = authority.believer();
    let wall = synchronised(BEGIN);
    let have = |trust: &Trust| match trust.status_have() {
        Some(TrustFrame::StatusHave { number, .. }) => number,
        other => panic!("{other:?} does not tell the number"),
    };
    assert_eq!(have(&trust), 0);
    let first = authority.list(1, BEGIN, &[subject(3), subject(1), subject(3)]);
    let taken = trust.take_status(wall, &first).expect("the list is good");
    assert_eq!(
        taken,
        StatusTaken {
            newer: true,
            number: 1,
            revoked: vec![[1; 16], [3; 16]]
        }
    );
    assert_eq!(trust.status_encoded().as_deref(), Some(first.as_slice()));
    assert_eq!(
        saved(&mut trust),
        [
            (SavedPart::History, authority.identity.history.to_bytes()),
            (SavedPart::Status, first.clone()),
        ]
    );
    let again = trust.take_status(wall, &first).expect("it is the same");
    assert_eq!((again.newer, again.number, again.revoked.len()), (false, 1, 0));
    assert_eq!(saved(&mut trust), []);
    let second = authority.list(7, BEGIN + 1, &[subject(2), subject(3)]);
    let taken = trust.take_status(wall, &second).expect("the list is good");
    assert_eq!(
        (taken.newer, taken.number, taken.revoked),
        (true, 7, vec![[2; 16]])
    );
    assert!(!trust.is_revoked(&subject(1)), "the authority took it back");
    assert_eq!(have(&trust), 7);
}

#[test]
fn an_older_list_is_refused_from_whomever() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let mut trust = authority.believer();
    let wall = synchronised(BEGIN);
    let (old, new) = (
        authority.list(4, BEGIN, &[]),
        authority.list(5, BEGIN, &[subject(1)]),
    );
    assert!(trust.take_status(wall, &new).is_ok());
    assert_eq!(saved(&mut trust).len(), 2);
    assert_eq!(
        trust.take_status(wall, &old),
        Err(TrustError::RolledBack { have: 5, got: 4 })
    );
    assert!(trust.is_revoked(&subject(1)));
    assert_eq!(saved(&mut trust), []);
    // Judged by its head alone, before it is gathered.
    let ours = authority.identifier();
    assert_eq!(
        trust.check_offer(ours, 4),
        Err(TrustError::RolledBack { have: 5, got: 4 })
    );
    assert_eq!(trust.check_offer(ours, 5), Ok(false));
    assert_eq!(trust.check_offer(ours, 6), Ok(true));
    assert_eq!(
        trust.check_offer(ours, 0),
        Err(TrustError::NoNumber { what: "status list" })
    );
    assert!(matches!(
        trust.check_offer(subject(9), 6),
        Err(TrustError::Foreign { .. })
    ));
}

#[test]
fn every_bit_of_a_list_counts() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let list = authority.list(2, BEGIN, &[subject(1), subject(2)]);
    for (bit, forged) in each_bit_inverted(&list) {
        let mut trust = authority.believer();
        let got = trust.take_status(WallTime::default(), &forged);
        assert!(got.is_err(), "bit {bit}");
        assert!(trust.status().is_none() && trust.history().is_none());
    }
    for len in 0..list.len() {
        let cut = authority
            .believer()
            .take_status(WallTime::default(), &list[..len]);
        assert!(cut.is_err(), "{len} bytes");
    }
}

#[test]
fn a_list_that_is_signed_and_nevertheless_wrong_is_refused() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let mut trust = authority.believer();
    let mut take = |number, body: &[u8]| {
        let signed = authority
            .key
            .sign(StatementKind::StatusList, number, BEGIN, BEGIN + DAY, body)
            .expect("it is signed as it is");
        let bytes = Presentation::encode(StatementKind::StatusList, &authority.identity.history, &signed)
            .expect("the list is short");
        trust.take_status(synchronised(BEGIN), &bytes).map(drop)
    };
    let two = |one: u8, other: u8| [[0, 0, 0, 2].as_slice(), &[one; 16], &[other; 16]].concat();
    let order = Err(TrustError::Order {
        what: "revoked subjects",
    });
    assert_eq!(take(1, &two(2, 1)), order);
    assert_eq!(take(1, &two(1, 1)), order);
    assert_eq!(
        take(0, &two(1, 2)),
        Err(TrustError::NoNumber { what: "status list" })
    );
    assert!(matches!(take(1, &two(1, 2)[..35]), Err(TrustError::Wire(_))));
    assert!(matches!(
        take(1, &[two(1, 2), vec![0]].concat()),
        Err(TrustError::Wire(_))
    ));
    assert!(matches!(
        take(1, &[0, 1, 0, 0]),
        Err(TrustError::Length { len: 65_536, .. })
    ));
    assert_eq!(take(1, &two(1, 2)), Ok(()));
}

#[test]
fn a_list_larger_than_a_part_arrives_in_parts() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let revoked = many(10_000);
    let list = authority.list(1, BEGIN, &revoked);
    let plaintexts = parts(&authority, 1, &list);
    assert_eq!(plaintexts.len(), 3);
    let mut assembler = Assembler::default();
    let mut complete = None;
    for plaintext in &plaintexts {
        assert_eq!(complete, None);
        complete = assembler
            .handle_part("channel", read(plaintext))
            .expect("the parts are in order");
    }
    assert_eq!(complete.as_ref(), Some(&list));
    assert_eq!(assembler.held_bytes(), 0);
    let mut trust = authority.believer();
    let taken = trust
        .take_status(synchronised(BEGIN), &complete.expect("it is complete"))
        .expect("the list is good");
    assert_eq!(taken.revoked.len(), 10_000);
    assert!(revoked.iter().all(|subject| trust.is_revoked(subject)));
    assert!(
        !many(10_001)
            .iter()
            .skip(10_000)
            .any(|subject| trust.is_revoked(subject))
    );
}

#[test]
fn the_largest_list_is_taken_and_a_larger_one_not_made() {
    let authority = Authority::new(KeyAlgorithm::EcdsaP256);
    let revoked = many(65_001);
    let list = authority.list(1, BEGIN, &revoked[..65_000]);
    assert!(list.len() <= STATUS_LEN_MAX);
    assert_eq!(parts(&authority, 1, &list).len(), 18);
    let mut trust = authority.believer();
    assert!(trust.take_status(synchronised(BEGIN), &list).is_ok());
    assert!(trust.is_revoked(&revoked[64_999]) && !trust.is_revoked(&revoked[65_000]));
    assert_eq!(
        StatusList::new(1, BEGIN, BEGIN + DAY, revoked).err(),
        Some(TrustError::Length {
            what: "status list",
            len: 65_001,
            min: 0,
            max: 65_000
        })
    );
    assert_eq!(
        StatusList::new(0, BEGIN, BEGIN + DAY, []).err(),
        Some(TrustError::NoNumber { what: "status list" })
    );
}

#[test]
fn numbers_cannot_be_used_up() {
    let last = BEGIN + NUMBER_AHEAD_MAX;
    assert!(StatusList::new(last, BEGIN, BEGIN + DAY, []).is_ok());
    assert_eq!(
        StatusList::new(last + 1, BEGIN, BEGIN + DAY, []).err(),
        Some(TrustError::NumberAhead {
            number: last + 1,
            issued_at: BEGIN,
            max: NUMBER_AHEAD_MAX
        })
    );
    // A second later there is room for one more.
    assert!(StatusList::new(last + 1, BEGIN + 1, BEGIN + DAY, []).is_ok());
}

#[test]
fn malformed_parts_are_refused_and_forget_what_came_before() {
    let part = |offset: u32, total: u32, bytes: &'static [u8]| StatusPart {
        authority: subject(1),
        number: 5,
        total,
        offset,
        bytes,
    };
    let total = |total| PartError::Total {
        total,
        max: STATUS_LEN_MAX,
    };
    let len = |len, offset, total| PartError::Len { len, offset, total };
    let order = |offset| PartError::OutOfOrder { offset, want: 2 };
    let other_number = StatusPart {
        number: 6,
        ..part(2, 10, b"x")
    };
    let refused: [(&str, StatusPart<'_>, PartError); 10] = [
        ("nothing in all", part(0, 0, b"x"), total(0)),
        ("too much in all", part(0, 1_114_113, b"x"), total(1_114_113)),
        ("an empty part", part(2, 10, b""), len(0, 2, 10)),
        ("beyond the end", part(2, 10, b"123456789"), len(9, 2, 10)),
        (
            "at the largest offset",
            part(u32::MAX, 10, b"1"),
            len(1, u32::MAX, 10),
        ),
        (
            "too long for a frame",
            part(0, 70_000, &[0; 60_001]),
            len(60_001, 0, 70_000),
        ),
        ("a gap", part(3, 10, b"x"), order(3)),
        ("a repetition", part(1, 10, b"x"), order(1)),
        ("another length", part(2, 11, b"x"), PartError::OtherList),
        ("another number", other_number, PartError::OtherList),
    ];
    for (what, bad, want) in refused {
        let mut assembler = Assembler::default();
        assert_eq!(assembler.handle_part(1, part(0, 10, b"ab")), Ok(None));
        assert_eq!(assembler.handle_part(1, bad), Err(want), "{what}");
        assert_eq!(assembler.held_bytes(), 0, "{what}");
        assert_eq!(
            assembler.handle_part(1, part(2, 10, b"x")),
            Err(PartError::OutOfOrder { offset: 2, want: 0 })
        );
    }
    let mut assembler = Assembler::default();
    assert_eq!(assembler.handle_part(1, part(0, 10, b"ab")), Ok(None));
    let foreign = StatusPart {
        authority: subject(2),
        ..part(2, 10, b"x")
    };
    assert_eq!(assembler.handle_part(1, foreign), Err(PartError::OtherList));
    // A list that begins anew takes the place of the one before, and channels do not mix.
    assert_eq!(assembler.handle_part(1, part(0, 4, b"ab")), Ok(None));
    assert_eq!(assembler.handle_part(2, part(0, 4, b"xy")), Ok(None));
    assert_eq!(assembler.handle_part(1, part(0, 5, b"123")), Ok(None));
    assert_eq!(
        assembler.handle_part(2, part(2, 4, b"z!")),
        Ok(Some(b"xyz!".to_vec()))
    );
    assert_eq!(
        assembler.handle_part(1, part(3, 5, b"45")),
        Ok(Some(b"12345".to_vec()))
    );
    assert_eq!(assembler.handle_part(1, part(0, 5, b"123")), Ok(None));
    assembler.forget(1);
    assert_eq!(assembler.held_bytes(), 0);
}

#[test]
fn many_channels_cannot_fill_the_memory() {
    let piece = [0; PART_LEN_MAX];
    let part = |offset: usize| StatusPart {
        authority: subject(1),
        number: 5,
        total: 1_100_000,
        offset: u32::try_from(offset).expect("it is small"),
        bytes: &piece,
    };
    let mut assembler = Assembler::default();
    // One that goes on is not pushed out by any number that begin and wait.
    for channel in 1..1000 {
        assert_eq!(assembler.handle_part(channel, part(0)), Ok(None));
        let offset = (channel - 1) % 18;
        let got = assembler.handle_part(0, part(offset * PART_LEN_MAX));
        assert_eq!(got, Ok(None), "{channel}");
        assert!(assembler.held_bytes() <= ASSEMBLIES_MAX * STATUS_LEN_MAX);
        assert!(assembler.held_bytes() <= 18 * PART_LEN_MAX + (ASSEMBLIES_MAX - 1) * PART_LEN_MAX);
    }
    assert_eq!(
        assembler.handle_part(1, part(PART_LEN_MAX)),
        Err(PartError::OutOfOrder {
            offset: 60_000,
            want: 0
        }),
        "the one that waited was forgotten"
    );
}

proptest! {
    #[test]
    fn lists_come_back(
        number in 1_u64..=BEGIN + NUMBER_AHEAD_MAX,
        subjects in prop::collection::btree_set(any::<[u8; 32]>(), 0..50),
        split in 1_usize..5000,
    ) {
        let authority = Authority::new(KeyAlgorithm::Ed25519);
        let subjects: Vec<_> = subjects.into_iter().map(Identifier::from_bytes).collect();
        let encoded = authority.list(number, BEGIN, &subjects);
        let presented = Presentation::decode(StatementKind::StatusList, &encoded).unwrap();
        let (_, statement) = presented.verify_alone(authority.identifier()).unwrap();
        let list = StatusList::decode(&statement).unwrap();
        prop_assert_eq!(list.number(), number);
        prop_assert_eq!(list.encode(), statement.body);
        prop_assert_eq!((list.issued_at(), list.not_after()), (BEGIN, BEGIN + DAY));
        for subject in &subjects {
            prop_assert!(list.is_revoked(subject));
        }
        prop_assert!(!list.is_revoked(&Identifier::from_bytes([0xaa; 32])));
        prop_assert!(list.revoked().is_sorted());

        // However it is cut.
        let mut assembler = Assembler::default();
        let total = u32::try_from(encoded.len()).unwrap();
        let mut complete = None;
        for (index, bytes) in encoded.chunks(split).enumerate() {
            let offset = u32::try_from(index * split).unwrap();
            let part = StatusPart { authority: authority.identifier(), number, total, offset, bytes };
            complete = assembler.handle_part((), part).unwrap();
        }
        prop_assert_eq!(complete, Some(encoded));
    }
}
