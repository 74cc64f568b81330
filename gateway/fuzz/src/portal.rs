//! Portals (PROTOCOL.md §15): the codecs, and both sides of a session against a peer that says anything.

use std::collections::BTreeMap;
use std::time::Duration;

use fieldgate_proto::channel::frames;
use fieldgate_proto::entropy::Entropy;
use fieldgate_proto::portal::{
    BEGIN, BEGUN, Begin, Items, Open, PACKET, ResetReason, Role, Session, SessionEvent, SessionSettings, SessionState,
    StreamId, StreamSink, TAKEN,
    flow::{self, Datagrams},
    proxy::{self, ProxyVersion},
    rfc2217::{self, ComPort, ComPortFlow, ComPortLine, ComPortParity, ComPortState},
    socks::{SocksOutput, SocksServer},
};
use fieldgate_proto::time::Instant;
use fieldgate_proto::wire::Reader;

/// Reads the input as a Begin, as items, and as what the other side of a session says, on either side.
pub fn run(data: &[u8]) {
    if let Ok(Some(header)) = proxy::decode(data) {
        assert!(header.len <= data.len().min(proxy::HEADER_LEN_MAX));
        let mut again = Vec::new();
        proxy::put(ProxyVersion::V2, header.endpoints, &mut again);
        let read = proxy::decode(&again);
        // An address of IPv4 in a header of IPv6 stays one of IPv6.
        assert_eq!(read.map(|read| read.map(|read| read.endpoints)), Ok(Some(header.endpoints)));
    }
    socks(data);
    com_port(data);
    datagrams(data);
    if let Ok(begin) = Begin::decode(data) {
        let mut record = Vec::new();
        begin.put(BEGIN, &mut record);
        let written: Vec<_> = frames(&record).map(|frame| frame.map(|(_, body)| body)).collect();
        assert_eq!(written, [Ok(data)]);
    }
    let mut items = Items::new(data);
    let mut again = Vec::new();
    let mut is_sound = true;
    loop {
        match items.next_item() {
            Ok(Some((stream, item))) => item.put(stream, &mut again),
            Ok(None) => break,
            Err(_) => {
                is_sound = false;
                break;
            }
        }
    }
    // A reason of a later version is the one that is known instead.
    assert!(!is_sound || again.len() == data.len());
    converse(data, Role::Inlet);
    converse(data, Role::Outlet);
}

/// Datagrams are the same however the bytes of their stream come, and are read back as they were written.
fn datagrams(data: &[u8]) {
    let read = |bytes: &[u8], piece: usize| {
        let mut reader = Datagrams::default();
        let mut came: Vec<Vec<u8>> = Vec::new();
        for piece in bytes.chunks(piece.max(1)) {
            reader.handle_bytes(piece, &mut |datagram| came.push(datagram.to_vec()));
        }
        came
    };
    let came = read(data, data.len());
    assert_eq!(read(data, 1), came);
    let mut written = Vec::new();
    for datagram in &came {
        assert!(flow::put_datagram(datagram, &mut written));
    }
    assert!(data.starts_with(&written));
    assert_eq!(read(&written, 3), came);
}

/// A line that takes every setting.
#[derive(Debug, PartialEq)]
struct Line(ComPortState, Vec<u8>);

impl ComPortLine for Line {
    fn data(&mut self, bytes: &[u8]) {
        self.1.extend_from_slice(bytes);
    }

    fn state(&self) -> ComPortState {
        self.0
    }

    fn set(&mut self, wanted: ComPortState) {
        assert!((5..=8).contains(&wanted.data_bits) && (1..=2).contains(&wanted.stop_bits) && wanted.baud > 0);
        self.0 = wanted;
    }

    fn purge(&mut self, received: bool, to_send: bool) {
        assert!(received || to_send);
    }
}

/// A serial port hears the same however its bytes come, answers within bounds, and has data come out as it went in.
fn com_port(data: &[u8]) {
    let feed = |bytes: &[u8], piece: usize| {
        let state = ComPortState {
            baud: 9_600,
            data_bits: 8,
            parity: ComPortParity::None,
            stop_bits: 1,
            flow: ComPortFlow::None,
            dtr: true,
            rts: true,
            is_break: false,
        };
        let mut line = Line(state, Vec::new());
        let mut port = ComPort::new(&mut Vec::new());
        let mut out = Vec::new();
        for piece in bytes.chunks(piece.max(1)) {
            port.handle_bytes(piece, &mut line, &mut out);
        }
        (line, out)
    };
    let (whole, said) = feed(data, data.len());
    assert_eq!(feed(data, 1), (whole, said.clone()));
    assert!(said.len() <= 3 * data.len());
    let mut escaped = Vec::new();
    rfc2217::put_data(data, &mut escaped);
    let (line, said) = feed(&escaped, escaped.len());
    assert!(line.1 == data && said.is_empty());
}

/// A client is told the same however its bytes come, and nothing after the end.
fn socks(data: &[u8]) {
    let Some((settings, bytes)) = data.split_first() else {
        return;
    };
    let feed = |piece: usize| {
        let mut server = SocksServer::new(settings & 1 != 0);
        let mut told = Vec::new();
        let mut taken = 0;
        for piece in bytes.chunks(piece) {
            let mut verify = |user: &str, password: &[u8]| user.len() == password.len();
            taken += server.handle_bytes(piece, &mut verify, &mut |output| told.push(output));
        }
        assert!(taken <= bytes.len() && taken <= 1_500, "it takes what is not its own");
        let is_end = |output: &SocksOutput| !matches!(output, SocksOutput::Send(_));
        let end = told.iter().position(is_end);
        assert!(end.is_none_or(|end| end + 1 == told.len()));
        told
    };
    assert_eq!(feed(usize::MAX), feed(usize::from(settings >> 1) + 1));
}

struct Zeroes;

impl Entropy for Zeroes {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(0);
    }
}

/// What came of each stream and was not passed on.
#[derive(Default)]
struct Kept(BTreeMap<StreamId, usize>);

impl StreamSink for Kept {
    fn data(&mut self, stream: StreamId, bytes: &[u8]) {
        assert!(!bytes.is_empty(), "nothing is no data");
        *self.0.entry(stream).or_default() += bytes.len();
    }
}

const WINDOW: u64 = 4096;
const STREAMS_MAX: usize = 4;

/// Feeds one side. Bad frames change nothing that counts; streams, and what came of them, stay within their bounds.
fn converse(data: &[u8], role: Role) {
    let settings = SessionSettings {
        streams_max: STREAMS_MAX,
        window: WINDOW,
        ..SessionSettings::default()
    };
    let mut session = Session::new(role, settings);
    session.prepare(&mut Zeroes);
    let mut now = Instant::START;
    session.handle_up(now);
    let mut kept = Kept::default();
    let mut record = Vec::new();
    let mut reader = Reader::new(data);
    while let (Ok(step), Ok(body)) = (reader.u8("step"), reader.bytes8("body")) {
        let stream = StreamId::new(u32::from(step >> 4));
        match step & 15 {
            0 if matches!(session.state(), SessionState::Down { .. }) => {
                session.prepare(&mut Zeroes);
                session.handle_up(now);
            }
            0 => session.handle_down(now),
            1 => now = now + Duration::from_millis(u64::from(step) * 500),
            2 => {
                let open = Open {
                    outlet: "plc",
                    origin: "origin",
                    user: "user",
                    target: "10.0.0.7:22",
                };
                let _ = session.open(open);
            }
            3 => session.accept(stream),
            4 => drop(session.write(stream, body)),
            5 => session.finish(stream),
            6 => session.reset(stream, ResetReason::Closed),
            7 => {
                let count = kept.0.remove(&stream).unwrap_or(0);
                session.handle_consumed(stream, count);
            }
            other => {
                let kind = [BEGIN, BEGUN, PACKET, TAKEN][usize::from(other & 3)];
                // What is refused is the peer's fault, and the channel's end.
                let taken = session.handle_frame(now, &mut Zeroes, kind, body, &mut kept);
                if taken.is_err() {
                    session.handle_down(now);
                }
            }
        }
        session.handle_timeout(now);
        let mut events = 0;
        while let Some(event) = session.poll_event() {
            events += 1;
            assert!(events < 1_000, "one input has events without end");
            match event {
                SessionEvent::Requested { stream, .. } if step & 0x80 == 0 => session.accept(stream),
                SessionEvent::Reset { stream, .. } | SessionEvent::Over { stream } => {
                    kept.0.remove(&stream);
                }
                SessionEvent::Requested { .. }
                | SessionEvent::Opened { .. }
                | SessionEvent::Finished { .. } => {}
            }
        }
        let mut frames = 0;
        record.clear();
        while session.write_frames(now, &mut record) {
            frames += 1;
            assert!(frames < 1_000, "there is always one more frame");
            assert!(record.len() <= Session::RECORD_MAX, "a record is too long");
            record.clear();
        }
        let alive: Vec<StreamId> = session.streams().map(|(stream, _)| stream).collect();
        assert!(alive.len() <= STREAMS_MAX);
        kept.0.retain(|stream, _| alive.contains(stream));
        assert!(kept.0.values().all(|count| *count as u64 <= WINDOW), "more came than was allowed");
    }
}
