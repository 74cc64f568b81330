use proptest::prelude::*;

use super::*;

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        path: "/mqtt".to_owned(),
        subprotocol: "mqtt".to_owned(),
        origins: Some(vec!["https://panel.example.net".to_owned()]),
    })
}

/// The request of RFC 6455 §1.2, for our path and subprotocol.
const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: chat, mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// What a connection made of some bytes.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    stream: Vec<u8>,
    out: Vec<u8>,
    result: Result<(), Ended>,
}

fn feed<'p>(socket: &mut WebSocket, portions: impl IntoIterator<Item = &'p [u8]>) -> Outcome {
    let mut outcome = Outcome {
        stream: Vec::new(),
        out: Vec::new(),
        result: Ok(()),
    };
    for portion in portions {
        let stream = &mut outcome.stream;
        outcome.result = socket.handle_bytes(portion, &mut outcome.out, |piece| {
            stream.extend_from_slice(piece);
        });
        if outcome.result.is_err() {
            break;
        }
    }
    outcome
}

fn open() -> WebSocket {
    let mut socket = WebSocket::new(settings());
    let outcome = feed(&mut socket, [REQUEST.as_bytes()]);
    assert_eq!(outcome.result, Ok(()));
    socket
}

fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | u8::try_from(len).unwrap()),
        len @ 126..65536 => {
            bytes.push(0xfe);
            bytes.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            bytes.push(0xff);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[test]
fn grants_the_request_of_the_standard() {
    let mut socket = WebSocket::new(settings());
    let outcome = feed(&mut socket, [REQUEST.as_bytes()]);
    assert_eq!(
        String::from_utf8(outcome.out).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
    assert!(socket.is_open());
}

#[test]
fn grants_what_other_clients_write() {
    let variants = [
        REQUEST.replace("/mqtt HTTP", "/mqtt?device=7 HTTP"),
        REQUEST.replace("/mqtt HTTP", "ws://server.example.com/mqtt HTTP"),
        REQUEST.replace("Connection: Upgrade", "connection: keep-alive, upgrade"),
        REQUEST.replace("Upgrade: websocket", "Upgrade: WebSocket"),
        REQUEST.replace("Host:", "Origin: HTTPS://panel.example.net\r\nHost:"),
        REQUEST.replace("Host:", "Content-Length: 0\r\nHost:"),
        REQUEST.replace("chat, mqtt", "chat\r\nSec-WebSocket-Protocol: mqtt"),
        REQUEST.replace("\r\n", "\n"),
    ];
    for request in variants {
        let outcome = feed(&mut WebSocket::new(settings()), [request.as_bytes()]);
        assert_eq!(outcome.result, Ok(()), "{request}");
        assert!(outcome.out.starts_with(b"HTTP/1.1 101 "), "{request}");
    }
}

#[test]
fn refuses_other_requests_with_the_status_that_says_why() {
    let long = format!("Cookie: {}\r\nHost:", "c".repeat(REQUEST_BYTES_MAX));
    let many = format!("{}Host:", "A: b\r\n".repeat(HEADERS_MAX));
    let cases = [
        ("/mqtt HTTP", "/other HTTP", Refusal::Path, "404"),
        ("/mqtt HTTP", "/mqtt/ HTTP", Refusal::Path, "404"),
        ("GET", "POST", Refusal::Method, "405"),
        ("HTTP/1.1", "HTTP/1.0", Refusal::Malformed, "400"),
        ("Host: server.example.com\r\n", "", Refusal::Malformed, "400"),
        ("Host:", "Host: a\r\nHost:", Refusal::Malformed, "400"),
        ("Host:", "Content-Length: 5\r\nHost:", Refusal::Malformed, "400"),
        (
            "Host:",
            "Transfer-Encoding: chunked\r\nHost:",
            Refusal::Malformed,
            "400",
        ),
        (
            "Host:",
            "Origin: https://evil.example\r\nHost:",
            Refusal::Origin,
            "403",
        ),
        ("Host:", &long, Refusal::TooLong, "431"),
        ("Host:", &many, Refusal::TooLong, "431"),
        ("Upgrade: websocket\r\n", "", Refusal::NotUpgrade, "426"),
        ("Connection: Upgrade\r\n", "", Refusal::NotUpgrade, "426"),
        ("Version: 13", "Version: 8", Refusal::Version, "426"),
        ("Sec-WebSocket-Version: 13\r\n", "", Refusal::Version, "426"),
        ("chat, mqtt", "chat, mqttv3", Refusal::Subprotocol, "400"),
        (
            "Sec-WebSocket-Protocol: chat, mqtt\r\n",
            "",
            Refusal::Subprotocol,
            "400",
        ),
        (
            "dGhlIHNhbXBsZSBub25jZQ==",
            "dGhlIHNhbXBsZQ==",
            Refusal::Malformed,
            "400",
        ),
        ("dGhlIHNhbXBsZSBub25jZQ==", "!", Refusal::Malformed, "400"),
        (
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Lock",
            Refusal::Malformed,
            "400",
        ),
        ("Host", "Ho st", Refusal::Malformed, "400"),
    ];
    for (from, to, refusal, status) in cases {
        let request = REQUEST.replacen(from, to, 1);
        let mut socket = WebSocket::new(settings());
        let outcome = feed(&mut socket, [request.as_bytes()]);
        assert_eq!(outcome.result, Err(Ended::Refused(refusal)), "{request}");
        let answer = String::from_utf8(outcome.out).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("close\r\nContent-Length: 0\r\n\r\n"), "{answer}");
        assert_eq!(answer.contains("Sec-WebSocket-Version: 13"), status == "426");
        assert!(!refusal.hint().is_empty());
        let after = feed(&mut socket, [&b"x"[..]]);
        assert_eq!((after.result, after.out), (Err(Ended::Closed), Vec::new()));
    }
}

#[test]
fn does_not_wait_for_the_end_of_what_is_no_request() {
    for start in [
        &b"\x10\x0c\x00\x04MQTT"[..],
        b"\x16\x03\x01",
        b"get /",
        b"get / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"AAAAAAAAAAAAAAAAAAAA",
    ] {
        let outcome = feed(&mut WebSocket::new(settings()), [start]);
        assert_eq!(
            outcome.result,
            Err(Ended::Refused(Refusal::Malformed)),
            "{start:?}"
        );
    }
}

#[test]
fn no_list_of_origins_lets_every_page_in() {
    let settings = Settings {
        origins: None,
        ..Settings::clone(&settings())
    };
    let request = REQUEST.replace("Host:", "Origin: https://evil.example\r\nHost:");
    let outcome = feed(&mut WebSocket::new(settings.into()), [request.as_bytes()]);
    assert_eq!(outcome.result, Ok(()));
}

#[test]
fn takes_the_masked_frames_of_the_standard() {
    // RFC 6455 §5.7, but with the opcode for binary: "Hello", then the same in two fragments, a ping between them.
    let mut socket = open();
    let hello = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(feed(&mut socket, [&hello[..]]).stream, b"Hello");
    let mut bytes = frame(0x02, b"Hel", MASK);
    bytes.extend(frame(0x89, b"Hello", [1, 2, 3, 4]));
    bytes.extend(frame(0x80, b"lo", MASK));
    let outcome = feed(&mut socket, [&bytes[..]]);
    assert_eq!(outcome.stream, b"Hello");
    assert_eq!(outcome.out, [0x8a, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
}

#[test]
fn refuses_frames_against_the_rules_with_the_code_that_says_why() {
    let cases: [(Vec<u8>, Violation, u16); 19] = [
        (frame(0xc2, b"x", MASK), Violation::ReservedBit, 1002),
        (frame(0x83, b"x", MASK), Violation::Opcode(3), 1002),
        (frame(0x8b, b"x", MASK), Violation::Opcode(11), 1002),
        (vec![0x82, 0x01], Violation::NotMasked, 1002),
        (frame(0x81, b"text", MASK), Violation::Text, 1003),
        (frame(0x80, b"x", MASK), Violation::Fragments, 1002),
        (
            [frame(0x02, b"x", MASK), frame(0x82, b"y", MASK)].concat(),
            Violation::Fragments,
            1002,
        ),
        (frame(0x09, b"x", MASK), Violation::Control, 1002),
        (frame(0x89, &[0; 126], MASK), Violation::Control, 1002),
        (vec![0x82, 0xfe, 0, 125, 0, 0, 0, 0], Violation::Length, 1002),
        (
            vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0],
            Violation::Length,
            1002,
        ),
        (
            vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            Violation::Length,
            1002,
        ),
        (
            vec![0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 0],
            Violation::TooLong,
            1009,
        ),
        (
            [frame(0x02, b"x", MASK), frame(0x80, &vec![0; 1 << 20], MASK)].concat(),
            Violation::TooLong,
            1009,
        ),
        (frame(0x88, &[3], MASK), Violation::Close, 1002),
        (frame(0x88, &[3, 0xec], MASK), Violation::Close, 1002),
        (frame(0x88, &[3, 0xee], MASK), Violation::Close, 1002),
        (frame(0x88, &[0x13, 0x88], MASK), Violation::Close, 1002),
        (frame(0x88, &[3, 0xe8, 0xff], MASK), Violation::Reason, 1007),
    ];
    for (bytes, violation, code) in cases {
        let mut socket = open();
        let outcome = feed(&mut socket, [&bytes[..]]);
        assert_eq!(outcome.result, Err(Ended::Violation(violation)));
        let [high, low] = code.to_be_bytes();
        assert_eq!(outcome.out, [0x88, 2, high, low], "{violation:?}");
        assert_eq!(violation.code(), code);
        assert!(!socket.is_open());
    }
}

#[test]
fn a_message_of_the_greatest_length_passes() {
    let payload = vec![7; 1 << 20];
    let outcome = feed(&mut open(), [&frame(0x82, &payload, MASK)[..]]);
    assert_eq!(outcome.result, Ok(()));
    assert_eq!(outcome.stream, payload);
}

#[test]
fn answers_a_close_once_and_gives_what_came_before() {
    for (payload, answer) in [
        (&[][..], &[0x88, 0][..]),
        (&[3, 0xe9, b'b', b'y', b'e'], &[0x88, 2, 3, 0xe9]),
        (&[0x0f, 0xa0], &[0x88, 2, 0x0f, 0xa0]),
    ] {
        let mut socket = open();
        let bytes = [
            frame(0x82, b"last", MASK),
            frame(0x88, payload, MASK),
            frame(0x82, b"never", MASK),
        ]
        .concat();
        let outcome = feed(&mut socket, [&bytes[..]]);
        assert_eq!(outcome.result, Err(Ended::Closed));
        assert_eq!(outcome.stream, b"last");
        assert_eq!(outcome.out, answer);
        let mut out = Vec::new();
        socket.send(b"nobody hears it", &mut out);
        socket.close(&mut out);
        assert!(out.is_empty());
    }
}

#[test]
fn many_pings_in_one_portion_are_answered_once() {
    let pings: Vec<u8> = (0..100).flat_map(|number| frame(0x89, &[number], MASK)).collect();
    let outcome = feed(&mut open(), [&pings[..]]);
    assert_eq!(outcome.out, [0x8a, 1, 99]);
    assert_eq!(feed(&mut open(), [&frame(0x8a, b"pong", MASK)[..]]).out, []);
}

#[test]
fn frames_of_every_length_form_are_written() {
    let socket = open();
    for (len, head) in [
        (1, &[0x82, 1][..]),
        (125, &[0x82, 125]),
        (126, &[0x82, 126, 0, 126]),
        (65535, &[0x82, 126, 0xff, 0xff]),
        (65536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let mut out = Vec::new();
        socket.send(&vec![5; len], &mut out);
        assert_eq!(&out[..head.len()], head);
        assert_eq!(out.len(), head.len() + len);
    }
    let mut out = Vec::new();
    socket.send(&[], &mut out);
    assert!(out.is_empty());
}

#[test]
fn closes_with_a_code_and_never_before_the_upgrade() {
    let mut out = Vec::new();
    open().close(&mut out);
    assert_eq!(out, [0x88, 2, 3, 0xe8]);
    out.clear();
    WebSocket::new(settings()).close(&mut out);
    assert!(out.is_empty());
}

/// Frames as a client that keeps the rules sends them: kind, payload, mask.
fn traffic() -> impl Strategy<Value = Vec<(bool, Vec<u8>, [u8; 4])>> {
    let payload = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..130),
        1 => prop::collection::vec(any::<u8>(), 65_530..65_540),
    ];
    prop::collection::vec((any::<bool>(), payload, any::<[u8; 4]>()), 0..6)
}

proptest! {
    #[test]
    fn any_portions_give_the_same_stream(frames in traffic(), cuts in prop::collection::vec(1_usize..9_000, 1..40)) {
        let mut bytes = REQUEST.as_bytes().to_vec();
        let mut expected = Vec::new();
        for (is_ping, payload, mask) in &frames {
            if *is_ping {
                bytes.extend(frame(0x89, &payload[..payload.len().min(125)], *mask));
            } else {
                bytes.extend(frame(0x82, payload, *mask));
                expected.extend_from_slice(payload);
            }
        }
        let mut portions = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (portion, left) = rest.split_at(rest.len().min(*cut));
            portions.push(portion);
            rest = left;
            if rest.is_empty() {
                break;
            }
        }
        let outcome = feed(&mut WebSocket::new(settings()), portions);
        prop_assert_eq!(outcome.result, Ok(()));
        prop_assert!(outcome.stream == expected);
    }

    #[test]
    fn any_bytes_do_no_harm(
        is_open in any::<bool>(),
        portions in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
    ) {
        let mut socket = if is_open { open() } else { WebSocket::new(settings()) };
        let given: usize = portions.iter().map(Vec::len).sum();
        let outcome = feed(&mut socket, portions.iter().map(Vec::as_slice));
        prop_assert!(outcome.stream.len() <= given);
        // A pong repeats what came; an answer to a request has a bounded length.
        prop_assert!(outcome.out.len() <= given + 256);
    }
}
