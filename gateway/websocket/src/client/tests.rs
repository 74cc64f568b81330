use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{Settings as ServerSettings, WebSocket};

fn settings() -> Settings {
    Settings {
        host: "server.example.com".to_owned(),
        path: "/chat".to_owned(),
        subprotocol: "fieldgate".to_owned(),
    }
}

/// The nonce of RFC 6455 §1.3.
const NONCE: Nonce = *b"the sample nonce";

const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: fieldgate\r\n\r\n";

fn opening() -> Client {
    Client::new(&settings(), NONCE, &mut Vec::new())
}

/// Gives bytes in portions; returns the stream, what was answered, and how it ended.
fn feed<'p>(
    client: &mut Client,
    portions: impl IntoIterator<Item = &'p [u8]>,
) -> (Vec<u8>, Vec<u8>, Result<(), Ended>) {
    let (mut stream, mut out) = (Vec::new(), Vec::new());
    for portion in portions {
        let result = client.handle_bytes(portion, [[1; 4], [2; 4]], &mut out, |piece| {
            stream.extend_from_slice(piece);
        });
        if result.is_err() {
            return (stream, out, result);
        }
    }
    (stream, out, Ok(()))
}

fn open() -> Client {
    let mut client = opening();
    assert_eq!(feed(&mut client, [ANSWER.as_bytes()]).2, Ok(()));
    assert!(client.is_open());
    client
}

#[test]
fn the_request_of_the_rfc_is_made() {
    let mut out = Vec::new();
    let client = Client::new(&settings(), NONCE, &mut out);
    assert!(!client.is_open());
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: fieldgate\r\n\r\n"
    );
}

#[test]
fn the_answer_may_come_byte_by_byte_with_frames_behind_it() {
    let bytes = [ANSWER.as_bytes(), b"\x82\x05hello\x82\x01!"].concat();
    let mut client = opening();
    let (stream, out, result) = feed(&mut client, bytes.chunks(1));
    assert_eq!(
        (stream.as_slice(), out.as_slice(), result),
        (&b"hello!"[..], &b""[..], Ok(()))
    );
    assert_eq!(feed(&mut opening(), [bytes.as_slice()]).0, b"hello!");
}

#[test]
fn answers_that_open_nothing_are_told_apart() {
    let with = |from: &str, to: &str| ANSWER.replace(from, to);
    for (answer, expected) in [
        (
            with("101 Switching Protocols", "404 Not Found"),
            Denial::Status(404),
        ),
        (with("101 Switching Protocols", "302 Found"), Denial::Status(302)),
        (
            with("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "AAAALMBiTxaQ9kYGzzhZRbK+xOo="),
            Denial::NotWebSocket,
        ),
        (with("Upgrade: websocket", "Upgrade: h2c"), Denial::NotWebSocket),
        (
            with("Connection: Upgrade", "Connection: close"),
            Denial::NotWebSocket,
        ),
        (with(": fieldgate", ": mqtt"), Denial::NotOffered),
        (
            with("Sec-WebSocket-Protocol: fieldgate\r\n", ""),
            Denial::NotOffered,
        ),
        (
            with(
                "\r\n\r\n",
                "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            ),
            Denial::NotOffered,
        ),
        (with("HTTP/1.1", "HTTP/1.0"), Denial::Malformed),
        (
            with(
                "\r\n\r\n",
                "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            ),
            Denial::Malformed,
        ),
        ("220 mail.example.net ESMTP\r\n\r\n".to_owned(), Denial::Malformed),
        ("H".repeat(20_000), Denial::TooLong),
    ] {
        let mut client = opening();
        let (stream, out, result) = feed(&mut client, [answer.as_bytes()]);
        assert_eq!(result, Err(Ended::Denied(expected)), "{answer}");
        assert!(stream.is_empty() && out.is_empty() && !client.is_open());
        assert!(!expected.hint().is_empty());
    }
}

#[test]
fn a_masked_frame_of_a_server_is_against_the_rules() {
    let (_, out, result) = feed(&mut open(), [&b"\x82\x81\0\0\0\0x"[..]]);
    assert_eq!(result, Err(Ended::Violation(Violation::Masked)));
    // Close, 1002, under the second mask.
    assert_eq!(out, [0x88, 0x82, 2, 2, 2, 2, 0x03 ^ 2, 0xea ^ 2]);
}

#[test]
fn pings_and_the_close_are_answered_under_masks() {
    let mut client = open();
    let (_, out, result) = feed(&mut client, [&b"\x89\x02hi\x88\x02\x03\xe8"[..]]);
    assert_eq!(result, Err(Ended::Closed));
    let expected = [
        &[0x8a, 0x82, 1, 1, 1, 1, b'h' ^ 1, b'i' ^ 1][..],
        &[0x88, 0x82, 2, 2, 2, 2, 0x03 ^ 2, 0xe8 ^ 2],
    ]
    .concat();
    assert_eq!(out, expected);
    let mut after = Vec::new();
    client.send(b"too late", [3; 4], &mut after);
    client.close([3; 4], &mut after);
    assert!(after.is_empty());
}

#[test]
fn closing_says_so_once() {
    let mut client = open();
    let mut out = Vec::new();
    client.close([0; 4], &mut out);
    client.close([0; 4], &mut out);
    assert_eq!(out, [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]);
}

proptest! {
    /// Our server understands our client, and the other way round, in any portions.
    #[test]
    fn both_sides_understand_each_other(
        messages in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..70_000), any::<Mask>()), 1..4),
        nonce in any::<Nonce>(),
        portion in 1_usize..10_000,
    ) {
        let settings = settings();
        let mut request = Vec::new();
        let mut client = Client::new(&settings, nonce, &mut request);
        let mut server = WebSocket::new(Arc::new(ServerSettings {
            path: settings.path,
            subprotocol: settings.subprotocol,
            origins: None,
        }));
        let mut answer = Vec::new();
        for piece in request.chunks(portion) {
            prop_assert_eq!(server.handle_bytes(piece, &mut answer, |_| ()), Ok(()));
        }
        prop_assert_eq!(feed(&mut client, answer.chunks(portion)).2, Ok(()));
        prop_assert!(client.is_open() && server.is_open());
        let (mut up, mut down, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for (message, mask) in &messages {
            client.send(message, *mask, &mut up);
            server.send(message, &mut down);
            expected.extend_from_slice(message);
        }
        let mut stream = Vec::new();
        for piece in up.chunks(portion) {
            let taken = server.handle_bytes(piece, &mut Vec::new(), |piece| stream.extend_from_slice(piece));
            prop_assert_eq!(taken, Ok(()));
        }
        prop_assert_eq!(&stream, &expected);
        let (stream, out, result) = feed(&mut client, down.chunks(portion));
        prop_assert_eq!((stream, out.len(), result), (expected, 0, Ok(())));
    }

    #[test]
    fn any_bytes_are_taken_without_panic_and_the_same_in_any_portions(
        is_open in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        portion in 1_usize..50,
    ) {
        let begin = || if is_open { open() } else { opening() };
        let (whole, _, end) = feed(&mut begin(), [bytes.as_slice()]);
        let (parts, _, parts_end) = feed(&mut begin(), bytes.chunks(portion));
        prop_assert_eq!(whole, parts);
        prop_assert_eq!(end, parts_end);
    }
}
