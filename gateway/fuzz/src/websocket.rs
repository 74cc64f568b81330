//! The server's side of a WebSocket: an upgrade request or frames, in any portions.

use std::sync::{Arc, LazyLock};

use fieldgate_websocket::{Ended, MESSAGE_BYTES_MAX, Settings, WebSocket};

/// Gives the input to a connection in one piece and in small ones: the same stream comes out. The first byte says whether the
/// connection is open before.
pub fn run(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else {
        return;
    };
    let is_open = mode & 1 == 1;
    let portion = usize::from(mode >> 1) + 1;
    let whole = feed(is_open, std::iter::once(bytes));
    let parts = feed(is_open, bytes.chunks(portion));
    assert_eq!(whole.stream, parts.stream);
    if !bytes.is_empty() {
        assert_eq!(whole.result, parts.result);
    }
    assert!(whole.stream.len() <= bytes.len());
    assert!(whole.out.len() <= bytes.len() + ANSWER_MAX);
    assert!(
        u64::try_from(whole.stream.len()).expect("usize fits")
            <= MESSAGE_BYTES_MAX * (bytes.len() as u64 / 6 + 1)
    );
}

struct Outcome {
    stream: Vec<u8>,
    out: Vec<u8>,
    result: Result<(), Ended>,
}

fn feed<'d>(is_open: bool, portions: impl Iterator<Item = &'d [u8]>) -> Outcome {
    let mut socket = WebSocket::new(Arc::clone(&SETTINGS));
    let mut outcome = Outcome {
        stream: Vec::new(),
        out: Vec::new(),
        result: Ok(()),
    };
    if is_open {
        let opened = socket.handle_bytes(REQUEST, &mut Vec::new(), |_| ());
        assert_eq!(opened, Ok(()));
    }
    for portion in portions {
        let stream = &mut outcome.stream;
        outcome.result = socket.handle_bytes(portion, &mut outcome.out, |piece| {
            stream.extend_from_slice(piece);
        });
        if outcome.result.is_err() {
            assert!(!socket.is_open());
            break;
        }
    }
    outcome
}

static SETTINGS: LazyLock<Arc<Settings>> = LazyLock::new(|| {
    Arc::new(Settings {
        path: "/mqtt".to_owned(),
        subprotocol: "mqtt".to_owned(),
        origins: Some(vec!["https://a.example".to_owned()]),
    })
});
const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// The longest answer to a request.
const ANSWER_MAX: usize = 256;
