use proptest::prelude::*;

use super::*;
use crate::crypto::CryptoError;

const CHANNEL: ChannelId = ChannelId::from_wire(0x0102_0304);

struct Pair {
    sealer: Sealer,
    opener: Opener,
}

impl Pair {
    fn new() -> Self {
        Self::with(Aead::Aes256Gcm, Padding::Off)
    }

    fn with(aead: Aead, padding: Padding) -> Self {
        let secret = Secret::new([5; 32]);
        Self {
            sealer: Sealer::new(CHANNEL, 6, aead, &secret, padding),
            opener: Opener::new(aead, &secret),
        }
    }

    fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let start = self.sealer.begin(&mut out);
        out.extend_from_slice(plaintext);
        self.sealer
            .finish(&mut out, start)
            .expect("the record is not too long");
        out
    }

    /// Seals record `number` as if all before it had been sealed and lost.
    fn seal_at(&mut self, number: u64) -> Vec<u8> {
        self.sealer.leap(number);
        self.seal(b"x")
    }

    fn open(&mut self, record: &[u8]) -> Result<Vec<u8>, ChannelError> {
        let mut record = record.to_vec();
        let header = RecordHeader::decode(&record)?;
        assert_eq!((header.channel, header.generation), (CHANNEL, 2));
        self.opener.open(&header, &mut record).map(<[u8]>::to_vec)
    }
}

#[test]
fn records_come_back_in_any_order_of_the_window_and_once() {
    for aead in [Aead::Aes256Gcm, Aead::ChaCha20Poly1305] {
        let mut pair = Pair::with(aead, Padding::Off);
        let records: Vec<_> = (0..2048_u64)
            .map(|index| pair.seal(&index.to_be_bytes()))
            .collect();
        for (index, record) in records.iter().enumerate().rev() {
            assert_eq!(pair.open(record), Ok((index as u64).to_be_bytes().to_vec()));
        }
        for (index, record) in records.iter().enumerate() {
            assert_eq!(
                pair.open(record),
                Err(ChannelError::Replayed { number: index as u64 })
            );
        }
        let later = pair.seal_at(2100);
        pair.open(&later).expect("a later record opens");
        assert_eq!(
            pair.open(&records[0]),
            Err(ChannelError::TooOld {
                number: 0,
                highest: 2100
            })
        );
        assert_eq!((pair.opener.records(), pair.opener.bytes()), (2049, 2048 * 8 + 1));
    }
}

#[test]
fn every_bit_of_a_record_counts_and_forgeries_change_nothing() {
    for len in [NumberLen::Two, NumberLen::Four, NumberLen::Eight] {
        let mut pair = Pair::new();
        pair.sealer.set_number_len(len);
        pair.sealer.leap(3);
        let record = pair.seal(b"reading");
        for bit in 0..record.len() * 8 {
            let mut forged = record.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let mut copy = forged.clone();
            let opened = RecordHeader::decode(&forged).and_then(|header| {
                let opened = pair.opener.open(&header, &mut copy).map(<[u8]>::to_vec);
                // Channel and generation select the keys; here there is but one set.
                if header.channel == CHANNEL && header.generation == 2 {
                    opened
                } else {
                    Err(ChannelError::Mac1)
                }
            });
            assert!(opened.is_err(), "bit {bit}");
        }
        assert_eq!(pair.opener.window.next_expected(), 0);
        assert_eq!(pair.open(&record).as_deref(), Ok(b"reading".as_slice()));
    }
}

#[test]
fn a_record_cut_anywhere_is_refused() {
    let mut pair = Pair::new();
    let record = pair.seal(b"reading");
    for len in 0..record.len() {
        assert!(pair.open(&record[..len]).is_err(), "{len} bytes");
    }
    assert!(pair.open(&[record.as_slice(), &[0]].concat()).is_err());
    assert!(pair.open(&record).is_ok());
}

#[test]
fn a_record_that_is_too_long_is_neither_sealed_nor_opened() {
    let mut pair = Pair::new();
    let mut out = vec![9; 3];
    let start = pair.sealer.begin(&mut out);
    let offset = start.offset();
    out.resize(start.plaintext_offset() + PLAINTEXT_LEN_MAX + 1, 1);
    let refused = ChannelError::TooLong {
        len: PLAINTEXT_LEN_MAX + 1,
        max: PLAINTEXT_LEN_MAX,
    };
    assert_eq!(pair.sealer.finish(&mut out, start), Err(refused));
    out.truncate(offset);
    assert_eq!((out.as_slice(), pair.sealer.records()), ([9; 3].as_slice(), 0));
    let largest = pair.seal(&vec![1; PLAINTEXT_LEN_MAX]);
    let longer = [largest.as_slice(), &[0]].concat();
    assert_eq!(RecordHeader::decode(&longer), Err(refused));
    assert_eq!(
        pair.open(&largest).map(|plaintext| plaintext.len()),
        Ok(PLAINTEXT_LEN_MAX)
    );
}

#[test]
fn records_are_built_behind_what_is_in_the_buffer_without_moving_it() {
    let mut pair = Pair::new();
    let mut out = Vec::with_capacity(4096);
    let before = out.as_ptr();
    for round in 0..100 {
        out.clear();
        out.extend_from_slice(b"link header");
        let start = pair.sealer.begin(&mut out);
        out.extend_from_slice(&[round; 100]);
        pair.sealer.finish(&mut out, start).expect("the record is short");
        let (head, record) = out.split_at(11);
        assert_eq!(head, b"link header");
        assert_eq!(pair.open(record), Ok(vec![round; 100]));
    }
    assert_eq!((out.as_ptr(), out.capacity()), (before, 4096));
}

#[test]
fn numbers_are_short_except_for_every_256th() {
    let mut pair = Pair::new();
    for number in 0..1000_u64 {
        let len = pair.seal(&[]).len() - TAG_LEN - 5;
        assert_eq!(len, if number % 256 == 0 { 4 } else { 2 }, "{number}");
    }
}

#[test]
fn a_receiver_finds_its_place_after_70_000_lost_records() {
    let mut pair = Pair::new();
    let first = pair.seal(b"x");
    pair.open(&first).expect("the first record opens");
    pair.sealer.leap(70_001);
    let mut lost = 0;
    while {
        let record = pair.seal(b"x");
        pair.open(&record).is_err()
    } {
        lost += 1;
    }
    // The next number divisible by 256.
    assert_eq!(lost, 70_144 - 70_001);
    let next = pair.seal(b"x");
    assert!(pair.open(&next).is_ok());
}

#[test]
fn a_receiver_follows_over_three_million_lost_records() {
    for lost in [1_u64 << 20, 3_000_064, 16 << 20] {
        let mut pair = Pair::new();
        let first = pair.seal(b"x");
        pair.open(&first).expect("the first record opens");
        let number = lost.next_multiple_of(256);
        let record = pair.seal_at(number);
        assert_eq!(pair.open(&record).as_deref(), Ok(b"x".as_slice()), "{lost}");
        // The epoch before the new one was kept too, for records that were overtaken.
        let before = (number >> 20 << 20) - 1;
        let mut other = Pair::new();
        other.sealer.set_number_len(NumberLen::Eight);
        let late = other.seal_at(before);
        let want = if number - before < REPLAY_WINDOW {
            Ok(b"x".to_vec())
        } else {
            Err(ChannelError::TooOld {
                number: before,
                highest: number,
            })
        };
        assert_eq!(pair.open(&late), want, "{lost}");
    }
}

#[test]
fn keys_are_derived_sixteen_epochs_ahead_and_no_further() {
    let mut pair = Pair::new();
    let record = pair.seal_at(17 << 20);
    let refused = ChannelError::TooFar {
        number: 17 << 20,
        ahead: 17,
        max: 16,
    };
    assert_eq!(pair.open(&record), Err(refused));
    let record = Pair::new().seal_at(16 << 20);
    assert!(pair.open(&record).is_ok());
}

#[test]
fn a_forged_number_ahead_does_not_cost_the_keys_in_use() {
    let mut pair = Pair::new();
    let records: Vec<_> = (0..3).map(|_| pair.seal(b"x")).collect();
    pair.open(&records[0]).expect("the first record opens");
    let mut forged = pair.seal_at(9 << 20);
    *forged.last_mut().expect("a record has a tag") ^= 1;
    assert_eq!(pair.open(&forged), Err(ChannelError::Crypto(CryptoError::Tag)));
    assert_eq!(
        (pair.opener.keys.epoch, pair.opener.window.next_expected()),
        (0, 1)
    );
    assert!(pair.open(&records[1]).is_ok());
}

#[test]
fn epochs_follow_each_other_and_a_late_record_of_the_last_one_opens() {
    let mut pair = Pair::new();
    // Gets the receiver near the end of the first epoch.
    let near = pair.seal_at((1 << 20) - 256);
    pair.open(&near).expect("the record opens");
    let records: Vec<_> = (0..600).map(|_| pair.seal(b"x")).collect();
    let late = &records[100];
    for record in records.iter().filter(|record| *record != late) {
        assert!(pair.open(record).is_ok());
    }
    assert_eq!(pair.opener.keys.epoch, 1);
    assert!(pair.open(late).is_ok());
    for _ in 0..REPLAY_WINDOW {
        let record = pair.seal(b"x");
        assert!(pair.open(&record).is_ok());
    }
    assert!(
        pair.opener.previous.is_none(),
        "the key behind the window is wiped"
    );
}

#[test]
fn padding_hides_the_length() {
    let mut pair = Pair::with(Aead::Aes256Gcm, Padding::Buckets);
    for (len, want) in [
        (0, 64),
        (64, 64),
        (65, 256),
        (1000, 1024),
        (4097, 16_384),
        (16_385, 65_280),
        (65_281, 65_536),
        (65_536, 65_536),
    ] {
        let record = pair.seal(&vec![1; len]);
        let opened = pair.open(&record).expect("the record opens");
        assert_eq!(opened.len(), want);
        assert!(opened[len..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_size_code_of_three_and_other_kinds_are_refused() {
    let mut pair = Pair::new();
    let mut record = pair.seal(b"x");
    record[0] |= 3;
    assert!(matches!(
        RecordHeader::decode(&record),
        Err(ChannelError::Wire(_))
    ));
    record[0] = 0x51;
    assert_eq!(
        RecordHeader::decode(&record),
        Err(ChannelError::Kind { got: 0x51 })
    );
}

#[test]
fn keys_differ_by_generation_direction_and_epoch() {
    let mut pair = Pair::new();
    let other = Opener::new(Aead::Aes256Gcm, &Secret::new([6; 32]));
    let record = pair.seal(b"x");
    let header = RecordHeader::decode(&record).expect("the header is well-formed");
    let mut opener = other;
    assert_eq!(
        opener.open(&header, &mut record.clone()),
        Err(ChannelError::Crypto(CryptoError::Tag))
    );
}

proptest! {
    /// RFC 9000 §A.3: within half the range around the expected number, the full number comes back.
    #[test]
    fn truncated_numbers_come_back(expected in 0..1_u64 << 40, bits in prop_oneof![Just(16_u32), Just(32)], ahead: i64) {
        let half = 1_i64 << (bits - 1);
        let number = expected.saturating_add_signed(ahead % half);
        let header = RecordHeader {
            header: KIND,
            channel: CHANNEL,
            generation: 0,
            truncated: number & ((1 << bits) - 1),
            bits,
            len: 7,
        };
        prop_assert_eq!(header.number(expected), number);
    }

    #[test]
    fn any_bytes_are_a_record_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200), code in 0..16_u8) {
        if let Some(first) = bytes.first_mut() {
            *first = KIND | code;
        }
        if let Ok(header) = RecordHeader::decode(&bytes) {
            let mut opener = Opener::new(Aead::Aes256Gcm, &Secret::new([5; 32]));
            prop_assert!(opener.open(&header, &mut bytes).is_err());
            prop_assert_eq!(opener.window.next_expected(), 0);
        }
    }

    /// Any order, loss and duplication: what opens is what was sealed, each at most once.
    #[test]
    fn what_opens_was_sealed_and_opens_once(order in prop::collection::vec(0..300_usize, 0..600)) {
        let mut pair = Pair::new();
        let records: Vec<_> = (0..300_u64).map(|index| pair.seal(&index.to_be_bytes())).collect();
        let mut seen = [false; 300];
        for index in order {
            let opened = pair.open(&records[index]);
            if seen[index] {
                prop_assert!(opened.is_err());
            } else {
                prop_assert_eq!(opened, Ok((index as u64).to_be_bytes().to_vec()));
                seen[index] = true;
            }
        }
    }
}
