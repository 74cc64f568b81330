//! Links over QUIC: datagrams of strangers, and what a peer writes on its streams after the handshake.

use std::{collections::VecDeque, net::SocketAddr, sync::LazyLock};

use fieldgate_proto::time::Instant;
use fieldgate_quic::{Datagram, Dial, Endpoint, LinkId, Output, Settings};

/// The first byte says which: an even one gives the rest to a server as datagrams, an odd one has a client write it.
pub fn run(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else {
        return;
    };
    if mode & 1 == 0 {
        strangers(bytes);
    } else {
        written(bytes);
    }
}

/// Each datagram has its length in front, in units of eight bytes.
fn strangers(mut bytes: &[u8]) {
    let mut server = endpoint();
    let (mut received, mut sent) = (0, 0);
    while let Some((len, rest)) = bytes.split_first() {
        let (datagram, rest) = rest.split_at(rest.len().min(usize::from(*len) * 8));
        bytes = rest;
        received += datagram.len();
        server.handle_datagram(Instant::START, &from(CLIENT, datagram), true);
        server.process(Instant::START);
        server.flush(Instant::START, &mut |datagram| {
            sent += datagram.bytes.len();
            true
        });
    }
    // RFC 9000 §8.1; the library lets the datagram go with which it comes to the limit.
    assert!(sent <= 3 * received + 1200, "{sent} bytes for {received}");
    while let Some(output) = server.poll_output() {
        assert!(matches!(output, Output::Closed { was_open: false, .. }));
    }
}

/// What comes out at the server are whole frames, no more than were written.
fn written(bytes: &[u8]) {
    let (mut server, mut client) = (endpoint(), endpoint());
    let dial = Dial {
        socket: 0,
        remote: SERVER,
    };
    let id = client.dial(Instant::START, dial).expect("there may be somebody");
    let mut told = Vec::new();
    carry(&mut server, &mut client, &mut told);
    assert!(client.is_open(id), "nothing is lost on this way");
    client.write(id, bytes);
    carry(&mut server, &mut client, &mut told);
    let mut total = 0;
    for output in told {
        if let Output::Received { frames, .. } = output {
            total += frames.len();
            let mut rest = frames.as_slice();
            while let [high, middle, low, _, behind @ ..] = rest {
                let len = (usize::from(*high) << 16) | (usize::from(*middle) << 8) | usize::from(*low);
                rest = behind.get(len..).expect("a frame is whole");
            }
            assert!(rest.is_empty());
        }
    }
    assert!(total <= bytes.len());
    server.abort(Instant::START, LinkId(0));
}

/// Carries datagrams until nobody has more to say.
fn carry(server: &mut Endpoint, client: &mut Endpoint, told: &mut Vec<Output>) {
    let now = Instant::START;
    let (mut up, mut down): (VecDeque<Vec<u8>>, VecDeque<Vec<u8>>) = Default::default();
    for _ in 0..ROUNDS_MAX {
        client.process(now);
        client.flush(now, &mut |datagram| {
            up.push_back(datagram.bytes.to_vec());
            true
        });
        server.process(now);
        server.flush(now, &mut |datagram| {
            down.push_back(datagram.bytes.to_vec());
            true
        });
        if up.is_empty() && down.is_empty() {
            break;
        }
        for datagram in up.drain(..) {
            server.handle_datagram(now, &from(CLIENT, &datagram), true);
        }
        for datagram in down.drain(..) {
            client.handle_datagram(now, &from(SERVER, &datagram), false);
        }
        server.process(now);
        told.extend(std::iter::from_fn(|| server.poll_output()));
        while client.poll_output().is_some() {}
    }
}

fn from(remote: SocketAddr, bytes: &[u8]) -> Datagram<'_> {
    Datagram {
        socket: 0,
        remote,
        local: None,
        bytes,
    }
}

fn endpoint() -> Endpoint {
    Endpoint::new(&Settings {
        accepted_max: 4,
        reset_key: [7; 32],
        epoch: *EPOCH,
    })
    .expect("TLS works")
}

/// The library's clock has no other beginning; it stands still here.
#[expect(clippy::disallowed_methods, reason = "nothing depends on what it says")]
static EPOCH: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 4433);
const CLIENT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)), 50_000);

/// Far more than a handshake and the longest input take.
const ROUNDS_MAX: usize = 1000;
