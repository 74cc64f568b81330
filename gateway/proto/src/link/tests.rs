use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::{
    entropy::Entropy,
    route::{HopLimit, RouteRef},
};

/// A seeded source of numbers (splitmix64), the same in every run.
pub(crate) struct Seeded(pub(crate) u64);

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            *byte = (mixed ^ mixed >> 27)
                .wrapping_mul(0x94d0_49bb_1331_11eb)
                .to_be_bytes()[0];
        }
    }
}

fn seconds(seconds: u64) -> Instant {
    Instant::START + Duration::from_secs(seconds)
}

fn settings(nonce: u64) -> LinkSettings {
    LinkSettings::new("test/1", nonce)
}

fn hello(frame_len_max: u32, nonce: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_hello(
        &mut out,
        &Hello {
            frame_len_max,
            nonce,
            software: "peer\u{7}/2",
        },
    );
    out
}

fn frame(frame: &Frame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    frame::tests::encode(&mut out, frame);
    out
}

/// Gives bytes to a link and describes what comes out and what it sends.
fn feed(link: &mut Link, now: Instant, mut bytes: Vec<u8>) -> (Vec<String>, Vec<u8>) {
    let mut out = Vec::new();
    let mut seen = Vec::new();
    let mut incoming = link.receive(now, &mut bytes);
    loop {
        match incoming.next_input(&mut out) {
            Ok(Some(LinkInput::Up(_))) => seen.push("up".to_owned()),
            Ok(Some(LinkInput::Frame(frame))) => {
                let text = format!("{frame:?}");
                seen.push(text.split([' ', '(']).next().unwrap_or_default().to_owned());
            }
            Ok(Some(LinkInput::Malformed(_))) => seen.push("malformed".to_owned()),
            Ok(None) => return (seen, out),
            Err(error) => seen.push(format!("close: {error}")),
        }
    }
}

/// Names the kinds of the frames in what a link sent.
fn kinds(mut bytes: Vec<u8>) -> String {
    let mut reader = FrameReader::default();
    let mut frames = reader.read(&mut bytes);
    let mut names = Vec::new();
    while let Ok(Some(raw)) = frames.next_frame() {
        names.push(match raw.kind {
            1 => "Hello",
            2 => "Ping",
            3 => "Pong",
            _ => "?",
        });
    }
    names.join(" ")
}

fn up() -> Link {
    let mut link = Link::new(Instant::START, &settings(1), &mut Vec::new());
    feed(&mut link, Instant::START, hello(69_632, 2));
    assert!(link.is_up());
    link
}

/// A link after its Hello came, one that waits for it, and one that was closed.
fn states() -> [(&'static str, Link); 3] {
    let mut closed = up();
    feed(&mut closed, Instant::START, vec![0, 0, 0, 0xff]);
    [
        (
            "AwaitingHello",
            Link::new(Instant::START, &settings(1), &mut Vec::new()),
        ),
        ("Up", up()),
        ("Closed", closed),
    ]
}

#[test]
fn transitions_are_these() {
    let label = Label::new(9).expect("not zero");
    let head = RoutedHead {
        hop_limit: HopLimit::MAX,
        offered: None,
        onward: RouteRef::EMPTY,
        return_route: RouteRef::EMPTY,
    };
    let inputs: Vec<(&str, Vec<u8>)> = vec![
        ("Hello", hello(69_632, 2)),
        ("Hello of its own", hello(69_632, 1)),
        ("Hello small frames", hello(4_095, 2)),
        ("Hello huge frames", hello(u32::MAX, 2)),
        (
            "Hello other magic",
            hello(69_632, 2)
                .iter()
                .map(|b| if *b == b'F' { b'G' } else { *b })
                .collect(),
        ),
        ("Hello cut short", vec![0, 0, 4, 1, b'F', b'G', b'L', b'1']),
        ("Ping", frame(&Frame::Ping(3))),
        ("Ping malformed", vec![0, 0, 1, 2, 0]),
        ("Pong expected", frame(&Frame::Pong(1))),
        ("Pong unexpected", frame(&Frame::Pong(77))),
        ("LabelGone", frame(&Frame::LabelGone(label))),
        (
            "Data",
            frame(&Frame::Data {
                class: Class::Bulk,
                label,
                payload: &mut [1],
            }),
        ),
        ("Data malformed", vec![0, 0, 2, 0x10, 0, 0]),
        (
            "DataOffer",
            frame(&Frame::DataOffer {
                class: Class::Bulk,
                label,
                offered: label,
                payload: &mut [1],
            }),
        ),
        (
            "Routed",
            frame(&Frame::Routed {
                class: Class::Bulk,
                head,
                payload: &mut [1],
            }),
        ),
        ("Routed malformed", vec![0, 0, 1, 0x30, 9]),
        ("unknown kind", vec![0, 0, 0, 0x13]),
        ("too long", vec![1, 0x10, 1, 0x10]),
        ("half a frame", vec![0, 0, 8, 2, 0]),
    ];
    let mut table = String::new();
    for (name, bytes) in &inputs {
        for (from, mut link) in states() {
            let (seen, out) = feed(&mut link, seconds(1), bytes.clone());
            let to = link.machine.state;
            writeln!(
                table,
                "{from:13} {name:18} -> {to:13?} [{}] {}",
                seen.join(", "),
                kinds(out)
            )
            .expect("a string");
        }
    }
    for at in [9, 10, 15, 45] {
        for (from, mut link) in states() {
            let mut out = Vec::new();
            let result = link
                .handle_timeout(seconds(at), &mut out)
                .map_err(|error| error.to_string());
            let to = link.machine.state;
            writeln!(
                table,
                "{from:13} {at:2} s of silence    -> {to:13?} {result:?} {}",
                kinds(out)
            )
            .expect("a string");
        }
    }
    let table: Vec<&str> = table.lines().map(str::trim_end).collect();
    let expected: Vec<&str> = include_str!("transitions.txt").lines().collect();
    assert_eq!(table, expected, "\n{}\n", table.join("\n"));
}

#[test]
fn says_hello_first() {
    let mut out = Vec::new();
    let link = Link::new(Instant::START, &settings(7), &mut out);
    assert!(!link.is_up());
    let decoded = Hello::decode(&out[FRAME_HEADER_LEN..]).expect("a Hello");
    assert_eq!(
        (decoded.frame_len_max, decoded.nonce, decoded.software),
        (69_632, 7, "test/1")
    );
}

#[test]
fn tells_what_the_neighbour_said() {
    let mut link = Link::new(Instant::START, &settings(1), &mut Vec::new());
    let mut bytes = hello(u32::MAX, 2);
    let mut incoming = link.receive(Instant::START, &mut bytes);
    let expected = PeerHello {
        frame_len_max: FRAME_LEN_MAX,
        nonce: 2,
        software: "peer\u{fffd}/2".to_owned(),
    };
    match incoming.next_input(&mut Vec::new()) {
        Ok(Some(LinkInput::Up(hello))) => assert_eq!(hello, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn before_hello_only_a_short_frame_is_read() {
    let mut link = Link::new(Instant::START, &settings(1), &mut Vec::new());
    let (seen, _) = feed(&mut link, Instant::START, vec![0, 1, 17, 1]);
    assert_eq!(seen, ["close: broken frame"]);
}

#[test]
fn frames_behind_hello_in_the_same_bytes_are_read() {
    let mut link = Link::new(Instant::START, &settings(1), &mut Vec::new());
    let label = Label::new(9).expect("not zero");
    let data = frame(&Frame::Data {
        class: Class::Bulk,
        label,
        payload: &mut [1; 60_000],
    });
    let (seen, out) = feed(
        &mut link,
        Instant::START,
        [hello(69_632, 2), frame(&Frame::Ping(3)), data].concat(),
    );
    assert_eq!(seen, ["up", "Data"]);
    assert_eq!(kinds(out), "Ping Pong");
}

#[test]
fn measures_the_round_trip() {
    let mut link = up();
    assert_eq!(link.round_trip().smoothed(), None);
    let at = Instant::START + Duration::from_millis(80);
    feed(
        &mut link,
        at,
        [frame(&Frame::Pong(1)), frame(&Frame::Pong(1))].concat(),
    );
    assert_eq!(link.round_trip().smoothed(), Some(Duration::from_millis(80)));
    assert_eq!(link.stats().pongs_matched, 1);
    assert_eq!(link.stats().pongs_unmatched, 1);
}

#[test]
fn a_busy_link_is_pinged_too_and_a_dead_one_three_times() {
    let mut link = up();
    let mut pings = Vec::new();
    while let Some(deadline) = link.poll_timeout() {
        let mut out = Vec::new();
        if link.handle_timeout(deadline, &mut out) == Err(LinkError::Silent) {
            assert_eq!(deadline, seconds(45));
            break;
        }
        pings.push((deadline, kinds(out)));
    }
    assert_eq!(pings, [15, 30].map(|at| (seconds(at), "Ping".to_owned())));
    assert_eq!(link.poll_timeout(), None);

    let mut link = up();
    for at in 0..60 {
        feed(&mut link, seconds(at), frame(&Frame::Pong(99)));
        assert_eq!(link.handle_timeout(seconds(at), &mut Vec::new()), Ok(()));
    }
    assert_eq!(link.stats().pings_sent, 4);
}

#[test]
fn bytes_of_a_frame_that_never_ends_are_no_sign_of_life() {
    let mut link = up();
    feed(&mut link, Instant::START, vec![0, 0xff, 0xff, 0x10]);
    for at in 1..45 {
        feed(&mut link, seconds(at), frame(&Frame::Pong(99)));
        assert_eq!(link.handle_timeout(seconds(at), &mut Vec::new()), Ok(()));
    }
    feed(&mut link, seconds(45), frame(&Frame::Pong(99)));
    let silent = link.handle_timeout(seconds(45), &mut Vec::new());
    assert_eq!(silent, Err(LinkError::Silent));
}

#[test]
fn a_peer_that_does_not_read_gets_no_more_pongs() {
    let mut link = up();
    let mut bytes: Vec<u8> = (0..200_000).flat_map(|id| frame(&Frame::Ping(id))).collect();
    let mut out = Vec::new();
    let mut incoming = link.receive(Instant::START, &mut bytes);
    assert!(matches!(incoming.next_input(&mut out), Ok(None)));
    assert!(out.len() <= PONG_BACKLOG_MAX + 12);
    assert!(link.stats().pongs_suppressed > 100_000);
}

#[test]
fn every_error_has_a_hint() {
    let errors = [
        LinkError::Frame(FrameError::Kind { kind: 9 }),
        LinkError::NotHello { kind: 9 },
        LinkError::Hello(WireError::Trailing { extra: 1 }),
        LinkError::SecondHello,
        LinkError::FrameLenMax { got: 1, want: 2 },
        LinkError::Itself,
        LinkError::HelloTimeout,
        LinkError::Silent,
    ];
    assert!(
        errors
            .iter()
            .all(|error| !error.hint().is_empty() && !error.to_string().is_empty())
    );
}

proptest! {
    #[test]
    fn any_bytes_in_any_chunks_are_taken(
        bytes: Vec<u8>, greeted: bool, chunks in proptest::collection::vec(1_usize..20, 1..9),
    ) {
        let stream = if greeted { [hello(69_632, 2), bytes].concat() } else { bytes };
        let run = |chunks: &[usize]| {
            let mut link = Link::new(Instant::START, &settings(1), &mut Vec::new());
            let (mut seen, mut sent) = (Vec::new(), Vec::new());
            let mut rest = stream.as_slice();
            for len in chunks.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, behind) = rest.split_at((*len).min(rest.len()));
                rest = behind;
                let (inputs, out) = feed(&mut link, Instant::START, chunk.to_vec());
                seen.extend(inputs);
                sent.extend(out);
            }
            (seen, sent, link.machine.state)
        };
        prop_assert_eq!(run(&chunks), run(&[usize::MAX]));
    }
}
