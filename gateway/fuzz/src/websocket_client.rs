//! The client's side of a WebSocket behind a tunnel: answers of proxies and servers, and frames, in any portions.

use fieldgate_websocket::{
    client::{Client, Ended, Settings},
    tunnel::{Refused, Tunnel},
};

/// Gives the input to a connection in one piece and in small ones: the same stream comes out. The first byte says how far the
/// connection is before.
pub fn run(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else {
        return;
    };
    let portion = usize::from(mode >> 2) + 1;
    let whole = feed(mode & 3, std::iter::once(bytes));
    let parts = feed(mode & 3, bytes.chunks(portion));
    assert_eq!(whole.stream, parts.stream);
    if !bytes.is_empty() {
        assert_eq!(whole.result, parts.result);
    }
    assert!(whole.stream.len() <= bytes.len());
    // A pong and a close frame, both short.
    assert!(whole.out.len() <= 2 * (6 + 125));
}

#[derive(Debug, PartialEq, Eq)]
enum Failure {
    Tunnel(Refused),
    WebSocket(Ended),
}

struct Outcome {
    stream: Vec<u8>,
    out: Vec<u8>,
    result: Result<(), Failure>,
}

fn feed<'d>(mode: u8, portions: impl Iterator<Item = &'d [u8]>) -> Outcome {
    let settings = Settings {
        host: "relay.example.net".to_owned(),
        path: "/".to_owned(),
        subprotocol: "fieldgate".to_owned(),
    };
    let mut tunnel = (mode == 0).then(|| Tunnel::new("relay.example.net:443", None, &mut Vec::new()));
    let mut client = Client::new(&settings, *b"the sample nonce", &mut Vec::new());
    let mut outcome = Outcome {
        stream: Vec::new(),
        out: Vec::new(),
        result: Ok(()),
    };
    if mode >= 2 {
        let opened = client.handle_bytes(ANSWER, [[0; 4]; 2], &mut Vec::new(), |_| ());
        assert_eq!(opened, Ok(()));
        assert!(client.is_open());
    }
    for mut portion in portions {
        if let Some(way) = &mut tunnel {
            match way.handle_bytes(&mut portion) {
                Ok(false) => continue,
                Ok(true) => tunnel = None,
                Err(refused) => {
                    outcome.result = Err(Failure::Tunnel(refused));
                    break;
                }
            }
        }
        let Outcome { stream, out, .. } = &mut outcome;
        let mut answers = Vec::new();
        let taken = client.handle_bytes(portion, [[1; 4], [2; 4]], &mut answers, |piece| {
            stream.extend_from_slice(piece);
        });
        *out = answers;
        if let Err(ended) = taken {
            assert!(!client.is_open());
            outcome.result = Err(Failure::WebSocket(ended));
            break;
        }
    }
    outcome
}

const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: fieldgate\r\n\r\n";
