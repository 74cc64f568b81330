//! Links over QUIC.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{carry, dial, link, start};
use crate::harness::{node::text, ports, site::Site};

/// A site whose relay takes links over QUIC too, and that address.
fn site() -> (Site, SocketAddr) {
    let site = Site::new().without_broker();
    let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    site.relay
        .append(&format!("[link.quic]\nlisten = [\"{address}\"]\n"));
    (site, address)
}

fn stop(site: &mut Site) {
    site.gateway.stop();
    site.collector.stop();
    site.relay.stop();
}

#[test]
fn readings_travel_over_quic_also_after_the_relay_was_killed() {
    let (mut site, address) = site();
    let quic = format!("quic://{address}");
    dial(&site, &site.gateway, &quic, "");
    dial(&site, &site.collector, &quic, "");
    start(&mut site);
    carry(&site, "21.5");
    for node in [&site.gateway, &site.collector] {
        let dialled = link(node);
        assert_eq!(dialled["peer"], format!("{quic} at {address}").as_str());
        assert_eq!(dialled["chosen"], "its only address");
    }
    let status = site.relay.wait_status("two links", |status| {
        status["network"]["links"]
            .as_array()
            .is_some_and(|links| links.len() == 2)
    });
    for link in status["network"]["links"].as_array().expect("two links") {
        assert!(text(link, "peer").ends_with(" over QUIC"), "{link}");
    }
    site.relay.kill();
    site.relay.start();
    publish_until(&site, "22.5", 2);
    stop(&mut site);
}

#[test]
fn a_link_lives_on_when_the_address_of_a_node_changes() {
    let (mut site, address) = site();
    let router = Router::start(address);
    dial(&site, &site.gateway, &format!("quic://{}", router.address), "");
    start(&mut site);
    carry(&site, "21.5");
    let before = site.gateway.status();
    let seen = |site: &Site, port: u16| {
        site.relay.wait_status("the link at its address", |status| {
            let links = status["network"]["links"].as_array();
            links.into_iter().flatten().any(|link| {
                link["peer"] == format!("127.0.0.1:{port} over QUIC").as_str() && link["state"] == "up"
            })
        })
    };
    seen(&site, router.port());
    router.move_away();
    publish_until(&site, "22.5", 2);
    let status = seen(&site, router.port());
    assert_eq!(status["network"]["quic"]["moved"], 1, "{status:#}");
    let after = site.gateway.status();
    for field in ["handshakes", "dials_failed"] {
        assert_eq!(after["network"][field], before["network"][field], "{field}");
    }
    stop(&mut site);
}

#[test]
fn where_udp_is_dropped_the_race_goes_to_tcp() {
    let (mut site, _) = site();
    // Takes datagrams and says nothing, as a firewall does.
    let wall = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let silent = format!("quic://{}", wall.local_addr().expect("it is bound"));
    let tcp = site.link.to_string();
    dial(&site, &site.gateway, &silent, &format!("\"{tcp}\""));
    start(&mut site);
    carry(&site, "22.5");
    let kept = link(&site.gateway);
    assert_eq!(kept["peer"], tcp.as_str());
    assert_eq!(kept["chosen"], format!("answered before {silent}").as_str());
    stop(&mut site);
}

/// Publishes one more reading, and waits until there are `count`.
fn publish_until(site: &Site, payload: &str, count: usize) {
    super::publish_one(site, payload);
    let readings = site.wait_readings(count);
    assert_eq!(readings.last().expect("there are some")["payload"], payload);
}

/// Passes datagrams between one node and the relay, from an address of its own that it can change, as routers do.
struct Router {
    /// Where it takes those of the node.
    address: SocketAddr,
    outside: Arc<Mutex<UdpSocket>>,
    relay: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Router {
    fn start(relay: SocketAddr) -> Self {
        let inside = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        inside.set_read_timeout(Some(POLL)).expect("a socket");
        let router = Self {
            address: inside.local_addr().expect("it is bound"),
            outside: Arc::new(Mutex::new(outside(relay))),
            relay,
            is_over: Arc::default(),
        };
        let (shared, is_over) = (Arc::clone(&router.outside), Arc::clone(&router.is_over));
        thread::spawn(move || pass(&inside, &shared, &is_over));
        router
    }

    /// The port that the relay sees.
    fn port(&self) -> u16 {
        let outside = self.outside.lock().expect("nobody panicked");
        outside.local_addr().expect("it is bound").port()
    }

    /// Goes on from another port; what comes to the old one is lost.
    fn move_away(&self) {
        let mut outside = self.outside.lock().expect("nobody panicked");
        // Both are there for a moment, so that the new one is another.
        *outside = self::outside(self.relay);
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn outside(relay: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    socket.connect(relay).expect("loopback");
    socket.set_nonblocking(true).expect("a socket");
    socket
}

/// Passes what comes on either side until the test is over.
fn pass(inside: &UdpSocket, outside: &Mutex<UdpSocket>, is_over: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    let mut node = None;
    while !is_over.load(Ordering::Relaxed) {
        match inside.recv_from(&mut buffer) {
            Ok((len, from)) => {
                node = Some(from);
                let outside = outside.lock().expect("nobody panicked");
                // What does not go is lost, as everything may be on this way.
                let _ = outside.send(&buffer[..len]);
            }
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                "{error}"
            ),
        }
        let Some(node) = node else { continue };
        let outside = outside.lock().expect("nobody panicked");
        while let Ok(len) = outside.recv(&mut buffer) {
            let _ = inside.send_to(&buffer[..len], node);
        }
    }
}

/// How often the router looks at its other side.
const POLL: Duration = Duration::from_millis(1);
