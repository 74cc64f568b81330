//! Relays of one cluster: what is attached to one reaches what is attached to another, whatever is restarted meanwhile.
//!
//! The gateway is attached to relay A, the collector to relay C; relay B is in nobody's way. Readings go from A to C, and the streams
//! of a portal the other way.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
};

use fieldgate_mqtt::{reason::ReasonCode, version::ProtocolVersion};
use serde_json::Value;

use crate::{
    harness::{
        client::{Client, Received},
        node::Node,
        ports,
        site::{DEVICE, Site},
        wait::{PATIENCE, until},
    },
    sinks::nats_server::NatsServer,
};

/// A NATS server with what it is started from.
struct Server {
    dir: PathBuf,
    port: u16,
    more: String,
    running: Option<NatsServer>,
}

impl Server {
    fn start(&mut self) {
        self.running = Some(NatsServer::start(&self.dir, self.port, &self.more));
    }

    fn kill(&mut self) {
        self.running.take().expect("it runs").kill();
    }
}

struct Fleet {
    /// Its relay is A.
    site: Site,
    /// B and C.
    others: [Node; 2],
    servers: Vec<Server>,
    /// Address and identifier of each relay, as files have them.
    ways: Vec<String>,
    /// Where the portal's inlet listens.
    inlet: u16,
}

impl Fleet {
    /// Makes files and identities, for so many NATS servers.
    fn new(server_count: usize) -> Self {
        let site = Site::new().without_broker();
        let address = || SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let [gateway_id, relay_id, collector_id] =
            [&site.gateway, &site.relay, &site.collector].map(Node::identifier);
        let link = site.link.to_string();
        site.relay.edit(
            "hold = [\"collector-1\"]",
            "hold = [\"collector-1\"]\nreach = [\"gateway-1\"]",
        );
        site.relay.edit(
            "reach = [\"collector-1\"]",
            "reach = [\"collector-1\"]\nhold = [\"gateway-1\"]",
        );
        let text = std::fs::read_to_string(&site.relay.config).expect("it was written");
        let mut ways = vec![format!("{{ address = \"{link}\", identifier = \"{relay_id}\" }}")];
        let others = ["relay-2", "relay-3"].map(|name| {
            let node = Node::new(site.dir(), name, address());
            let own = address().to_string();
            let text = text.replace(&link, &own).replace("relay-1", name);
            node.write(&text.replace(&site.relay.metrics.to_string(), &node.metrics.to_string()));
            let identifier = node.create_identity();
            ways.push(format!(
                "{{ address = \"{own}\", identifier = \"{identifier}\" }}"
            ));
            node
        });
        let servers = servers(&site, server_count);
        let addresses: Vec<String> = servers
            .iter()
            .map(|server| format!("\"127.0.0.1:{}\"", server.port))
            .collect();
        for relay in [&site.relay, &others[0], &others[1]] {
            relay.append(&format!(
                "[relay.cluster]\nrelays = [{}]\nservers = [{}]\nreplicas = {server_count}\n",
                ways.join(", "),
                addresses.join(", ")
            ));
        }
        // The collector is at the third relay.
        site.collector.edit(
            &format!("{{ address = \"{link}\", identifier = \"{relay_id}\" }}"),
            &ways[2],
        );
        let (inlet, outlet) = (ports::free(), echo());
        site.gateway.append(&format!(
            "[portal]\nregister = [{{ relay = {}, name = \"gateway-1\" }}]\n\
             [[portal.outlet]]\nname = \"echo\"\naddress = \"127.0.0.1:{outlet}\"\nallow = [\"{collector_id}\"]\n",
            ways[0]
        ));
        site.collector.append(&format!(
            "[[portal.inlet]]\nname = \"echo\"\nlisten = \"127.0.0.1:{inlet}\"\nnode = \"{gateway_id}\"\n\
             outlet = \"echo\"\nvia = \"gateway-1\"\nrelay = {}\n",
            ways[2]
        ));
        Self {
            site,
            others,
            servers,
            ways,
            inlet,
        }
    }

    /// Starts everything, and waits until the relays know of each other.
    fn start(&mut self) {
        for server in &mut self.servers {
            server.start();
        }
        for relay in 0..3 {
            self.relay(relay).spawn();
        }
        self.site.collector.spawn();
        self.site.gateway.spawn();
        for relay in 0..3 {
            self.relay(relay).wait_ready();
            self.relay(relay).wait_healthy();
        }
        self.site.collector.wait_ready();
        self.site.gateway.wait_ready();
    }

    fn relay(&mut self, index: usize) -> &mut Node {
        match index {
            0 => &mut self.site.relay,
            other => &mut self.others[other - 1],
        }
    }

    /// Opens a stream through the portal.
    fn stream(&self) -> TcpStream {
        self.site.collector.wait_status("session up", |status| {
            status["portals"]["sessions"][0]["state"] == "up"
        });
        let stream = TcpStream::connect(("127.0.0.1", self.inlet)).expect("the inlet listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("it is a socket");
        stream
    }

    /// Waits until the bucket is on every server, and each has everything.
    fn wait_bucket(&self) {
        until("every server has the bucket", || {
            for server in &self.servers {
                let running = server.running.as_ref().ok_or("a server is down")?;
                let info = running.info_now("KV_fieldgate-relays").ok_or("no bucket")?;
                let cluster = info.cluster.ok_or("no cluster")?;
                let current = cluster
                    .replicas
                    .iter()
                    .filter(|peer| peer.current && !peer.offline);
                if cluster.leader.is_none() || current.count() + 1 < self.servers.len() {
                    return Err("a server is behind".to_owned());
                }
            }
            Ok(())
        });
    }
}

/// Plans NATS servers that are a cluster if there are several.
fn servers(site: &Site, count: usize) -> Vec<Server> {
    let routes: Vec<u16> = (0..count).map(|_| ports::free()).collect();
    let all: Vec<String> = routes
        .iter()
        .map(|port| format!("\"nats://127.0.0.1:{port}\""))
        .collect();
    let servers = routes.iter().enumerate().map(|(index, route)| {
        let cluster = format!(
            "server_name: \"nats-{index}\"\ncluster {{ name: \"test\", listen: \"127.0.0.1:{route}\", routes: [{}] }}",
            all.join(", ")
        );
        Server {
            dir: site.dir().join(format!("nats-{index}")),
            port: ports::free(),
            more: if count > 1 { cluster } else { String::new() },
            running: None,
        }
    });
    servers.collect()
}

/// Serves each connection on a thread of its own until the test's process ends, and gives everything back. Returns the port.
fn echo() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

fn round_trip(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(message).expect("the stream takes it");
    let mut back = vec![0; message.len()];
    stream.read_exact(&mut back).expect("it comes back");
    assert_eq!(back, message);
}

/// Publishes numbers from 0 on, each after the one before was acknowledged, until it is told to end.
struct Publisher {
    ends: Arc<AtomicBool>,
    count: Arc<AtomicU32>,
    thread: JoinHandle<u32>,
}

impl Publisher {
    fn start(site: &Site) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU32::new(0));
        let (to, password) = (site.mqtt, site.password.clone());
        let (told, counter) = (Arc::clone(&ends), Arc::clone(&count));
        let thread = thread::spawn(move || {
            let login = Some((DEVICE, password.as_str()));
            let mut client = Client::connect(to, ProtocolVersion::V5, DEVICE, login).expect("it is known");
            let topic = format!("{DEVICE}/count");
            let mut number = 0_u32;
            while !told.load(Ordering::Relaxed) {
                let packet = u16::try_from(number % 60_000 + 1).expect("it is small");
                let answer = client.publish_and_wait(packet, &topic, number.to_string().as_bytes());
                assert_eq!(
                    answer.expect("the socket works"),
                    Received::PubAck(packet, ReasonCode::Success)
                );
                number += 1;
                counter.store(number, Ordering::Relaxed);
            }
            number
        });
        Self { ends, count, thread }
    }

    /// Waits until what was acknowledged up to now has been delivered, and more has come since.
    fn wait_flow(&self, site: &Site) {
        let now = self.count.load(Ordering::Relaxed) as usize;
        site.wait_readings(now + 20);
    }

    fn end(self) -> u32 {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("every reading was acknowledged")
    }
}

/// Asserts that the file has each number up to `count` once and in order.
fn assert_exact(readings: &[Value], count: u32) {
    let payloads: Vec<&str> = readings
        .iter()
        .filter_map(|reading| reading["payload"].as_str())
        .collect();
    let wanted: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    assert_eq!(payloads, wanted);
}

#[test]
fn a_gateway_at_one_relay_reaches_a_collector_at_another_also_while_the_store_is_away() {
    let mut fleet = Fleet::new(1);
    fleet.start();
    let publisher = Publisher::start(&fleet.site);
    publisher.wait_flow(&fleet.site);
    let status = fleet.relay(0).wait_status("names of the third relay", |status| {
        let relays = status["cluster"]["relays"].as_array();
        relays.is_some_and(|relays| relays.iter().any(|relay| relay["names"] == 1))
            && status["cluster"]["names_here"] == 1
            && status["cluster"]["unsettled"] == 0
    });
    assert_eq!(status["cluster"]["conflicts"], 0, "{status:#}");
    let mut stream = fleet.stream();
    round_trip(&mut stream, b"there and back");

    fleet.servers[0].kill();
    for relay in 0..3 {
        let status = fleet.relay(relay).wait_status("the store is away", |status| {
            status["cluster"]["problem"].is_string()
        });
        let reasons = status["reasons"].to_string();
        assert!(reasons.contains("the store is not reached"), "{reasons}");
    }
    assert!(fleet.relay(0).samples().sum("fieldgate_cluster_store_up") == 0.0);
    publisher.wait_flow(&fleet.site);
    round_trip(&mut stream, b"without the store");
    // A new channel is found its way, too.
    fleet.site.collector.stop();
    fleet.site.collector.start();
    publisher.wait_flow(&fleet.site);

    fleet.servers[0].start();
    for relay in 0..3 {
        fleet.relay(relay).wait_healthy();
    }
    publisher.wait_flow(&fleet.site);
    let count = publisher.end();
    assert_exact(&fleet.site.wait_readings(count as usize), count);
    fleet.servers[0].kill();
}

#[test]
fn a_rolling_restart_of_relays_and_servers_loses_no_reading_and_breaks_no_stream() {
    let mut fleet = Fleet::new(3);
    fleet.start();
    fleet.wait_bucket();
    let publisher = Publisher::start(&fleet.site);
    publisher.wait_flow(&fleet.site);
    let mut stream = fleet.stream();
    round_trip(&mut stream, b"before");
    for relay in 0..3 {
        fleet.relay(relay).stop();
        fleet.relay(relay).start();
        for other in 0..3 {
            fleet.relay(other).wait_healthy();
        }
        publisher.wait_flow(&fleet.site);
        round_trip(&mut stream, format!("after relay {relay}").as_bytes());
    }
    for server in 0..3 {
        fleet.servers[server].kill();
        publisher.wait_flow(&fleet.site);
        round_trip(&mut stream, format!("without server {server}").as_bytes());
        fleet.servers[server].start();
        fleet.wait_bucket();
        for relay in 0..3 {
            fleet.relay(relay).wait_healthy();
        }
    }
    let count = publisher.end();
    assert_exact(&fleet.site.wait_readings(count as usize), count);
    let status = fleet.site.collector.try_status().expect("it runs");
    assert_eq!(status["portals"]["sessions"][0]["lost"], 0, "{status:#}");
    for server in &mut fleet.servers {
        server.kill();
    }
}

#[test]
fn when_the_relay_of_the_collector_is_killed_it_is_reached_at_its_other() {
    let mut fleet = Fleet::new(1);
    let at = |way: &str| format!("{{ relay = {way}, name = \"collector-1\" }},");
    let (second, third) = (at(&fleet.ways[1]), at(&fleet.ways[2]));
    fleet.site.collector.edit(&third, &format!("{third} {second}"));
    fleet.start();
    let publisher = Publisher::start(&fleet.site);
    publisher.wait_flow(&fleet.site);
    for lost in [2, 1] {
        fleet.relay(lost).kill();
        let status = fleet.relay(0).wait_status("the link is down", |status| {
            let relays = status["cluster"]["relays"].as_array();
            relays.is_some_and(|relays| relays.iter().any(|relay| relay["links"] == 0))
        });
        assert!(
            status["reasons"].to_string().contains("no link to relay"),
            "{status:#}"
        );
        publisher.wait_flow(&fleet.site);
        fleet.relay(lost).start();
        for relay in 0..3 {
            fleet.relay(relay).wait_healthy();
        }
        // Both names are there again before the other relay goes.
        fleet.site.collector.wait_healthy();
        fleet.relay(0).wait_status("both have the name", |status| {
            let relays = status["cluster"]["relays"].as_array();
            relays.is_some_and(|relays| relays.iter().all(|relay| relay["names"] == 1))
        });
        publisher.wait_flow(&fleet.site);
    }
    let count = publisher.end();
    assert_exact(&fleet.site.wait_readings(count as usize), count);
    fleet.servers[0].kill();
}
