//! Tickets, as people type them.

use bech32::{Bech32m, ByteIterExt as _, Fe32, Fe32IterExt as _, Hrp};
use zeroize::Zeroizing;

use super::*;
use crate::wire::WireError;

fn relay_way() -> Way {
    Way::Relay {
        address: "relay.example:7447".to_owned(),
        relay: subject(4),
        name: "authority".to_owned(),
    }
}

fn ticket() -> Ticket {
    let ways = vec![
        relay_way(),
        Way::Direct {
            address: "[2001:db8::1]:7447".to_owned(),
        },
    ];
    Ticket::generate(&mut Seeded::new(5), subject(9), BEGIN, ways).expect("the ways are good")
}

fn parse(text: &str) -> Result<Ticket, TicketError> {
    text.parse()
}

fn encode(prefix: &str, bytes: &[u8]) -> String {
    bech32::encode::<Bech32m>(Hrp::parse(prefix).expect("the prefix is valid"), bytes)
        .expect("the text is short")
}

#[test]
fn a_ticket_comes_back_from_its_text_in_small_and_capital_letters() {
    let ticket = ticket();
    let (small, capitals) = (ticket.to_text(), ticket.to_capitals());
    assert!(small.starts_with("fgticket1") && capitals.starts_with("FGTICKET1"));
    assert_eq!(parse(&small).as_ref(), Ok(&ticket));
    assert_eq!(parse(&capitals).as_ref(), Ok(&ticket));
    // Terminals and chat programs break lines, files end with one.
    let broken: String = small
        .as_bytes()
        .chunks(40)
        .map(|line| format!("  {}\r\n", String::from_utf8_lossy(line)))
        .collect();
    assert_eq!(parse(&broken).as_ref(), Ok(&ticket));
    let parsed = parse(&small).expect("it is a ticket");
    assert_eq!(
        (parsed.id(), parsed.authority(), parsed.not_after(), parsed.ways()),
        (ticket.id(), subject(9), BEGIN, ticket.ways())
    );
    assert_eq!(parsed.key(), ticket.key());
    assert_eq!(
        TicketKey::from_bytes(*ticket.key().as_bytes()),
        ticket.key(),
        "as the authority stores it"
    );
}

/// A mistyped ticket is told from a wrong text, and the wrong character is shown.
#[test]
fn what_is_wrong_with_a_text_is_said() {
    let text = ticket().to_text();
    let capitals = ticket().to_capitals();
    let identifier = subject(9).to_string();
    let with = |at: usize, wrong: &str| {
        let mut typed = text.to_string();
        typed.replace_range(at..=at, wrong);
        typed
    };
    let character = |found, at| TicketError::Character { found, at };
    let mixed = [&text[..20], &capitals[20..]].concat();
    for (typed, want) in [
        (String::new(), TicketError::Empty),
        (" \n".to_owned(), TicketError::Empty),
        (identifier.clone(), TicketError::Identifier),
        (identifier.to_uppercase(), TicketError::Identifier),
        (identifier[..40].to_owned(), TicketError::Identifier),
        ("hello".to_owned(), TicketError::OtherKind),
        ("https://example.org".to_owned(), TicketError::OtherKind),
        (encode("fgticke", &[1; 40]), TicketError::OtherKind),
        (encode("bc", &[1; 32]), TicketError::OtherKind),
        (with(30, "b"), character('b', 31)),
        (with(30, "O"), character('o', 31)),
        (with(30, "é"), character('é', 31)),
        (with(9, "1"), character('1', 10)),
        (with(30, "\u{0}"), character('\0', 31)),
        (mixed, TicketError::MixedCase),
        (text[..text.len() - 1].to_owned(), TicketError::Mistyped),
        (text[..100].to_owned(), TicketError::Mistyped),
        ("fgticket1".to_owned(), TicketError::Mistyped),
        (format!("{}q", *text), TicketError::Mistyped),
        (format!("{}{}", *text, *text), character('i', text.len() + 4)),
    ] {
        assert_eq!(parse(&typed), Err(want), "{typed}");
    }
    let long = text.repeat(4);
    assert!(long.len() > TICKET_TEXT_LEN_MAX);
    assert_eq!(parse(&long), Err(TicketError::TooLong { len: long.len() }));
}

#[test]
fn every_wrong_character_and_every_swap_is_noticed() {
    let ticket = ticket();
    let text = ticket.to_text();
    for at in 0..text.len() {
        for wrong in "qpzry9x8gf2tvdw0s3jn54khce6mua7l1bio".chars() {
            let mut typed = text.to_string();
            typed.replace_range(at..=at, &wrong.to_string());
            assert_eq!(parse(&typed).is_ok(), *typed == **text, "{typed}");
        }
        if at > 0 {
            let mut swapped = text.as_bytes().to_vec();
            swapped.swap(at - 1, at);
            let swapped = String::from_utf8(swapped).expect("it is ASCII");
            assert_eq!(parse(&swapped).is_ok(), *swapped == **text, "{swapped}");
        }
    }
}

/// The last character holds bits that no byte takes: other ones would be another text of the same ticket.
#[test]
fn a_ticket_has_one_text() {
    let ticket = ticket();
    let prefix = Hrp::parse("fgticket").expect("the prefix is valid");
    let write = |characters: Vec<Fe32>| -> String {
        characters
            .into_iter()
            .with_checksum::<Bech32m>(&prefix)
            .chars()
            .collect()
    };
    let characters: Vec<Fe32> = ticket.encode().iter().copied().bytes_to_fes().collect();
    let spare = characters.len() * 5 - ticket.encode().len() * 8;
    assert!(spare > 0, "the ticket is of such a length");
    assert_eq!(parse(&write(characters.clone())).as_ref(), Ok(&ticket));
    let mut other = characters.clone();
    let last = other.last_mut().expect("there are some");
    *last = Fe32::try_from(last.to_u8() ^ 1).expect("it has 5 bits");
    assert_eq!(parse(&write(other)), Err(TicketError::Mistyped));
    let longer = [characters.as_slice(), &[Fe32::Q]].concat();
    assert!(parse(&write(longer)).is_err());
}

#[test]
fn a_later_version_and_a_malformed_content_are_told_apart() {
    let bytes = ticket().encode();
    let with = |at: usize, byte: u8| {
        let mut changed = bytes.to_vec();
        changed[at] = byte;
        encode("fgticket", &changed)
    };
    assert_eq!(
        parse(&with(0, 2)),
        Err(TicketError::NewerVersion { got: 2, want: 1 })
    );
    assert_eq!(
        parse(&with(0, 0)),
        Err(TicketError::Content(TrustError::Version {
            what: "ticket",
            got: 0,
            want: 1
        }))
    );
    let count_at = 1 + 16 + 16 + 32 + 8;
    assert!(matches!(
        parse(&with(count_at, 5)),
        Err(TicketError::Content(TrustError::Length {
            what: "ways",
            len: 5,
            ..
        }))
    ));
    let wire = |text: &str| match parse(text) {
        Err(TicketError::Content(TrustError::Wire(error))) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        wire(&with(count_at + 1, 3)),
        WireError::Value {
            field: "kind of way",
            value: 3
        }
    );
    assert!(matches!(wire(&with(count_at, 1)), WireError::Trailing { .. }));
    assert!(matches!(wire(&with(count_at, 3)), WireError::Truncated { .. }));
    assert!(matches!(
        wire(&encode("fgticket", &bytes[..40])),
        WireError::Truncated { .. }
    ));
    assert!(matches!(
        wire(&encode("fgticket", &[])),
        WireError::Truncated { .. }
    ));
}

#[test]
fn a_ticket_has_at_most_four_ways_that_fit_the_text() {
    let make = |ways: Vec<Way>| Ticket::generate(&mut Seeded::new(1), subject(9), 0, ways);
    assert!(make(Vec::new()).is_ok(), "enrolment by files needs none");
    assert!(make(vec![relay_way(); 4]).is_ok());
    assert_eq!(
        make(vec![relay_way(); 5]).err(),
        Some(TrustError::Length {
            what: "ways",
            len: 5,
            min: 0,
            max: 4
        })
    );
    // The longest ticket has a text of a thousand characters.
    let longest = |spare: usize| {
        let direct = |len: usize| Way::Direct {
            address: format!("{}:1", "a".repeat(len - 2)),
        };
        make(vec![
            direct(255),
            direct(255),
            direct(615 - 74 - 2 * 257 - 2 - spare),
        ])
    };
    let ticket = longest(0).expect("615 bytes are allowed");
    assert_eq!((ticket.encode().len(), ticket.to_text().len()), (615, 999));
    assert_eq!(parse(&ticket.to_text()), Ok(ticket));
    let longer = make(vec![
        Way::Direct {
            address: format!("{}:1", "a".repeat(253)),
        };
        3
    ]);
    assert!(matches!(
        longer,
        Err(TrustError::Length {
            what: "ticket",
            max: 615,
            ..
        })
    ));
    assert!(longest(1).is_ok());
}

#[test]
fn a_way_is_a_host_and_a_port() {
    let try_address = |address: &str| {
        let way = Way::Direct {
            address: address.to_owned(),
        };
        Ticket::generate(&mut Seeded::new(1), subject(9), 0, vec![way]).map(drop)
    };
    for good in ["a:1", "relay.example:65535", "192.0.2.1:7447", "[::1]:7447"] {
        assert_eq!(try_address(good), Ok(()), "{good}");
    }
    for bad in [
        "relay.example",
        ":7447",
        "relay.example:0",
        "relay.example:65536",
        "relay.example:",
        "relay example:7447",
    ] {
        assert_eq!(
            try_address(bad),
            Err(TrustError::Address {
                address: bad.to_owned()
            })
        );
    }
    assert!(matches!(try_address(""), Err(TrustError::Length { .. })));
    assert!(matches!(
        try_address("a\u{1b}[2J:1"),
        Err(TrustError::Text { .. })
    ));
    let nameless = Way::Relay {
        address: "a:1".to_owned(),
        relay: subject(4),
        name: String::new(),
    };
    let made = Ticket::generate(&mut Seeded::new(1), subject(9), 0, vec![nameless]);
    assert!(matches!(made, Err(TrustError::Length { .. })));
}

#[test]
fn a_ticket_ends_as_far_as_the_clock_can_tell() {
    let ticket = ticket();
    let ended = |secs, quality| ticket.check_time(at(secs, quality)).is_err();
    for quality in [
        ClockQuality::Floor,
        ClockQuality::Authority,
        ClockQuality::Synchronised,
    ] {
        assert!(!ended(BEGIN + 300, quality) && ended(BEGIN + 301, quality));
    }
    assert!(!ended(BEGIN + DAY, ClockQuality::Unknown));
    assert_eq!(
        ticket.check_time(synchronised(BEGIN + 301)),
        Err(TicketError::Expired {
            not_after: BEGIN,
            now: BEGIN + 301
        })
    );
}

#[test]
fn the_secret_does_not_print() {
    let ticket = ticket();
    let text: Zeroizing<String> = ticket.to_text();
    let secret = ticket.encode()[17..33].to_vec();
    let draft = EnrolDraft::new(
        &ticket,
        &TestIdentity::new(KeyAlgorithm::Ed25519).history,
        0,
        [0; 16],
        "",
    )
    .expect("the request is short");
    for printed in [
        format!("{ticket:?}"),
        format!("{ticket:#?}"),
        format!("{:?}", ticket.key()),
        format!("{draft:?}"),
    ] {
        assert!(!printed.contains(&format!("{secret:?}")), "{printed}");
        assert!(
            !printed.contains(&format!("{:?}", ticket.key().as_bytes())),
            "{printed}"
        );
        assert!(!printed.contains(&text[9..40]), "{printed}");
    }
    assert_eq!(format!("{:?}", ticket.key()), "TicketKey(..)");
    // What somebody mistyped may be nearly a ticket: errors show one character of it at most.
    let mut typed = text.to_string();
    typed.replace_range(40..=40, "b");
    let error = parse(&typed).expect_err("b does not occur");
    assert!(!format!("{error} {error:?}").contains(&text[20..30]));
}

#[test]
fn tickets_differ_in_every_part() {
    let one = ticket();
    assert_eq!(one, ticket());
    let other = Ticket::generate(&mut Seeded::new(6), subject(9), BEGIN, one.ways().to_vec())
        .expect("the ways are good");
    assert_ne!(one, other);
    assert_ne!(one.key(), other.key());
    for at in [1, 17, 33, 72] {
        let mut bytes = one.encode();
        bytes[at] ^= 1;
        assert_ne!(Ticket::decode(&bytes).as_ref(), Ok(&one), "byte {at}");
    }
}

fn way() -> impl Strategy<Value = Way> {
    let address = "[a-z.]{1,60}:[1-9][0-9]{0,3}";
    prop_oneof![
        address.prop_map(|address| Way::Direct { address }),
        (address, any::<[u8; 32]>(), "\\PC{1,30}").prop_map(|(address, relay, name)| Way::Relay {
            address,
            relay: Identifier::from_bytes(relay),
            name,
        }),
    ]
}

proptest! {
    #[test]
    fn tickets_come_back(
        seed: u32,
        authority: [u8; 32],
        not_after: u64,
        ways in prop::collection::vec(way(), 0..=3),
    ) {
        let entropy = &mut Seeded::new(u64::from(seed));
        let authority = Identifier::from_bytes(authority);
        if let Ok(ticket) = Ticket::generate(entropy, authority, not_after, ways) {
            let decoded = Ticket::decode(&ticket.encode());
            prop_assert_eq!(decoded.as_ref(), Ok(&ticket));
            let text = ticket.to_text();
            prop_assert!(text.len() <= TICKET_TEXT_LEN_MAX);
            prop_assert_eq!(parse(&text), Ok(ticket));
        }
    }

    #[test]
    fn any_bytes_and_texts_are_a_ticket_or_refused(bytes: Vec<u8>, text: String, data in "[a-z0-9]{0,80}") {
        if let Ok(ticket) = Ticket::decode(&bytes) {
            prop_assert_eq!(&**ticket.encode(), bytes.as_slice());
        }
        let with_version = [&[1], bytes.as_slice()].concat();
        if let Ok(ticket) = Ticket::decode(&with_version) {
            prop_assert_eq!(&**ticket.encode(), with_version.as_slice());
        }
        prop_assert!(parse(&text).is_err());
        let typed = format!("fgticket1{data}");
        prop_assert!(parse(&typed).is_err());
        let _ = parse(&encode("fgticket", &bytes)).map(drop);
    }
}
