use proptest::prelude::*;

use super::*;
use crate::identity::tests::Seeded;

fn place(sequence: u64) -> ReplicationPlace {
    ReplicationPlace {
        authority: Identifier::from_bytes([7; 32]),
        sequence,
        previous: [9; 32],
    }
}

fn key() -> ReplicationKey {
    ReplicationKey::new(&[1; 32]).expect("it is long enough")
}

const BODY: ReplicationBody<'static> = ReplicationBody::Founding {
    id: [3; 16],
    decisions: 12,
    decisions_hash: [4; 32],
};

fn sealed() -> Vec<u8> {
    key()
        .seal(&place(1), &BODY, &mut Seeded::new(1))
        .expect("it is short")
}

#[test]
fn an_entry_opens_at_its_place_and_nowhere_else() {
    let entry = sealed();
    let opened = key().open(&place(1), &entry).expect("it stands there");
    assert_eq!(ReplicationBody::decode(&opened), Ok(BODY));
    let elsewhere = [
        place(2),
        ReplicationPlace {
            authority: Identifier::from_bytes([8; 32]),
            ..place(1)
        },
        ReplicationPlace {
            previous: [0; 32],
            ..place(1)
        },
    ];
    for place in elsewhere {
        assert_eq!(key().open(&place, &entry).err(), Some(ReplicationError::Seal));
    }
    let other = ReplicationKey::new(&[2; 32]).expect("it is long enough");
    assert_eq!(other.open(&place(1), &entry).err(), Some(ReplicationError::Seal));
}

#[test]
fn every_bit_of_an_entry_counts() {
    let entry = sealed();
    for bit in 0..entry.len() * 8 {
        let mut changed = entry.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(key().open(&place(1), &changed).is_err(), "bit {bit}");
    }
    for len in 0..entry.len() {
        assert!(key().open(&place(1), &entry[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn two_entries_for_one_place_share_no_key() {
    let mut entropy = Seeded::new(1);
    let mut seal = || key().seal(&place(1), &BODY, &mut entropy).expect("it is short");
    let (first, second) = (seal(), seal());
    assert_ne!(first[1..33], second[1..33]);
    assert_ne!(first[33..], second[33..]);
    assert_ne!(replication_hash(&first), replication_hash(&second));
}

#[test]
fn a_short_secret_and_a_long_part_are_refused() {
    assert!(matches!(
        ReplicationKey::new(&[1; 31]),
        Err(ReplicationError::Length { len: 31, .. })
    ));
    let bytes = vec![0; REPLICATION_PART_LEN_MAX + 1];
    let body = |len: usize| ReplicationBody::Writes {
        part: 0,
        bytes: &bytes[..len],
        is_last: true,
    };
    let seal = |len| key().seal(&place(1), &body(len), &mut Seeded::new(1));
    let longest = seal(REPLICATION_PART_LEN_MAX).expect("it just fits");
    assert_eq!(longest.len(), REPLICATION_ENTRY_LEN_MAX);
    assert!(key().open(&place(1), &longest).is_ok());
    assert!(seal(REPLICATION_PART_LEN_MAX + 1).is_err());
}

#[derive(Clone, Debug)]
enum Operation {
    Put(Vec<u8>),
    Remove,
    RemoveUpTo(Vec<u8>),
}

fn operation() -> impl Strategy<Value = Operation> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        bytes().prop_map(Operation::Put),
        Just(Operation::Remove),
        bytes().prop_map(Operation::RemoveUpTo),
    ]
}

proptest! {
    #[test]
    fn writes_come_back_as_they_were(
        writes in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40), operation()), 0..10),
        cut in any::<prop::sample::Index>(),
    ) {
        let writes: Vec<ReplicationWrite<'_>> = writes
            .iter()
            .map(|(table, key, operation)| ReplicationWrite {
                table: *table,
                key,
                operation: match operation {
                    Operation::Put(value) => ReplicationOperation::Put(value),
                    Operation::Remove => ReplicationOperation::Remove,
                    Operation::RemoveUpTo(last) => ReplicationOperation::RemoveUpTo(last),
                },
            })
            .collect();
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for write in &writes {
            write.encode(&mut bytes);
            ends.push(bytes.len());
        }
        let mut rest = bytes.as_slice();
        for write in &writes {
            prop_assert_eq!(ReplicationWrite::decode_next(&mut rest), Ok(Some(*write)));
        }
        prop_assert_eq!(ReplicationWrite::decode_next(&mut rest), Ok(None));
        // Cut anywhere but between two, it is no list of writes.
        let cut = cut.index(bytes.len() + 1);
        let mut rest = &bytes[..cut];
        let whole = loop {
            match ReplicationWrite::decode_next(&mut rest) {
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        prop_assert_eq!(whole, ends.contains(&cut));
    }

    #[test]
    fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ReplicationBody::decode(&bytes);
        let _ = key().open(&place(1), &bytes);
        let mut rest = bytes.as_slice();
        while let Ok(Some(_)) = ReplicationWrite::decode_next(&mut rest) {}
    }
}
