//! Relays of one cluster: what is attached to one reaches what is attached to another, whatever is restarted meanwhile.
//!
//! The gateway is attached to relay A, the collector to relay C; relay B is in nobody's way. Readings go from A to C, and the streams
//! of a portal the other way.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
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
        bridged::{Bridged, inside},
        client::{Client, Received},
        node::Node,
        ports,
        site::{DEVICE, Site},
        wait::{PATIENCE, until},
    },
    sinks::nats_server::NatsServer,
};

/// A NATS server with what it is started from.
pub(crate) struct Server {
    pub(crate) dir: PathBuf,
    pub(crate) address: SocketAddr,
    more: String,
    machine: Option<String>,
    pub(crate) running: Option<NatsServer>,
}

impl Server {
    /// Starts it.
    pub(crate) fn start(&mut self) {
        let machine = self.machine.as_deref();
        self.running = Some(NatsServer::start_on(machine, &self.dir, self.address, &self.more));
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(&mut self) {
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
    /// The machines, if each has one: those of the relays with a NATS server each, the gateway's, the collector's.
    network: Option<Bridged>,
}

/// The machine of the gateway.
const GATEWAY: usize = 3;
/// The machine of the collector.
const COLLECTOR: usize = 4;

impl Fleet {
    /// Makes files and identities, for so many NATS servers, all on this machine.
    fn new(server_count: usize) -> Self {
        Self::on(None, server_count)
    }

    /// The same with five machines and three servers; the collector is at relay B, too, where it is not found at C.
    fn on_machines() -> Self {
        let fleet = Self::on(Some(Bridged::new(5)), 3);
        let [second, third] = [&fleet.ways[1], &fleet.ways[2]];
        let at = |way: &str| format!("{{ relay = {way}, name = \"collector-1\" }},");
        let collector = &fleet.site.collector;
        collector.edit(&at(third), &format!("{} {}", at(third), at(second)));
        collector.edit(
            &format!("via = \"gateway-1\"\nrelay = {third}"),
            &format!("via = \"gateway-1\"\nrelays = [{third}, {second}]"),
        );
        fleet
    }

    fn on(network: Option<Bridged>, server_count: usize) -> Self {
        let mut site = Site::new().without_broker();
        if let Some(network) = &network {
            let link = site.link.to_string();
            site.link.set_ip(network.address(0));
            for (machine, node) in [
                (0, &mut site.relay),
                (GATEWAY, &mut site.gateway),
                (COLLECTOR, &mut site.collector),
            ] {
                node.start_by(&network.on(machine));
                node.edit(&link, &site.link.to_string());
            }
        }
        let place = |machine: usize| match &network {
            Some(network) => network.address(machine),
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
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
        let others = [(1, "relay-2"), (2, "relay-3")].map(|(machine, name)| {
            let mut node = Node::new(site.dir(), name, address());
            if let Some(network) = &network {
                node.start_by(&network.on(machine));
            }
            let own = SocketAddr::from((place(machine), ports::free())).to_string();
            let text = text.replace(&link, &own).replace("relay-1", name);
            node.write(&text.replace(&site.relay.metrics.to_string(), &node.metrics.to_string()));
            let identifier = node.create_identity();
            ways.push(format!(
                "{{ address = \"{own}\", identifier = \"{identifier}\" }}"
            ));
            node
        });
        let servers = servers(site.dir(), network.as_ref(), server_count);
        let addresses: Vec<String> = servers
            .iter()
            .map(|server| format!("\"{}\"", server.address))
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
        let gateway = network.as_ref().map(|network| network.machine(GATEWAY));
        let (inlet, outlet) = (ports::free(), inside(gateway.as_deref(), echo));
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
            network,
        }
    }

    /// The machines.
    ///
    /// # Panics
    /// If there is but one.
    fn network(&self) -> &Bridged {
        self.network.as_ref().expect("the fleet has machines")
    }

    /// Does `work` on a machine, if there are several.
    fn inside<T: Send>(&self, machine: usize, work: impl FnOnce() -> T + Send) -> T {
        let machine = self.network.as_ref().map(|network| network.machine(machine));
        inside(machine.as_deref(), work)
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

    /// Waits until the relays have each other and the store.
    fn wait_healthy(&mut self) {
        for relay in 0..3 {
            self.relay(relay).wait_healthy();
        }
    }

    /// Ends the publisher; whatever was acknowledged must come to the end exactly once. Then the servers end.
    fn finish(&mut self, publisher: Publisher) {
        let count = publisher.end();
        assert_exact(&self.site.wait_readings(count as usize), count);
        for server in &mut self.servers {
            server.kill();
        }
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
        let inlet = self.inlet;
        let connect = move || TcpStream::connect(("127.0.0.1", inlet));
        let stream = self.inside(COLLECTOR, connect).expect("the inlet listens");
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

/// Plans NATS servers that are a cluster if there are several; each on its machine if there are some.
pub(crate) fn servers(dir: &Path, network: Option<&Bridged>, count: usize) -> Vec<Server> {
    let address = |index| {
        let place = network.map(|network| network.address(index));
        SocketAddr::from((place.unwrap_or_else(|| Ipv4Addr::LOCALHOST.into()), ports::free()))
    };
    let routes: Vec<SocketAddr> = (0..count).map(address).collect();
    let all: Vec<String> = routes.iter().map(|route| format!("\"nats://{route}\"")).collect();
    let servers = routes.iter().enumerate().map(|(index, route)| {
        // Servers and their clients notice within seconds that a cable is out.
        let cluster = format!(
            "ping_interval: \"3s\"\nserver_name: \"nats-{index}\"\n\
             cluster {{ name: \"test\", listen: \"{route}\", routes: [{}] }}",
            all.join(", ")
        );
        Server {
            dir: dir.join(format!("nats-{index}")),
            address: address(index),
            more: if count > 1 { cluster } else { String::new() },
            machine: network.map(|network| network.machine(index)),
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
        Self::start_on(None, site)
    }

    /// Starts it on a machine.
    fn start_on(machine: Option<String>, site: &Site) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU32::new(0));
        let (to, password) = (site.mqtt, site.password.clone());
        let (told, counter) = (Arc::clone(&ends), Arc::clone(&count));
        let thread = thread::spawn(move || {
            let login = Some((DEVICE, password.as_str()));
            let connect = || Client::connect(to, ProtocolVersion::V5, DEVICE, login);
            let mut client = inside(machine.as_deref(), connect).expect("it is known");
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

    /// Waits until more is acknowledged than was up to now.
    fn wait_taken(&self) {
        let wanted = self.count.load(Ordering::Relaxed) + 20;
        until("the gateway takes readings", || {
            match self.count.load(Ordering::Relaxed) {
                count if count >= wanted => Ok(()),
                count => Err(format!("{count} are acknowledged")),
            }
        });
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
    fleet.wait_healthy();
    publisher.wait_flow(&fleet.site);
    fleet.finish(publisher);
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
        fleet.wait_healthy();
        publisher.wait_flow(&fleet.site);
        round_trip(&mut stream, format!("after relay {relay}").as_bytes());
    }
    for server in 0..3 {
        fleet.servers[server].kill();
        publisher.wait_flow(&fleet.site);
        round_trip(&mut stream, format!("without server {server}").as_bytes());
        fleet.servers[server].start();
        fleet.wait_bucket();
        fleet.wait_healthy();
    }
    let count = publisher.end();
    assert_exact(&fleet.site.wait_readings(count as usize), count);
    let status = fleet.site.collector.try_status().expect("it runs");
    assert_eq!(status["portals"]["sessions"][0]["lost"], 0, "{status:#}");
    for server in &mut fleet.servers {
        server.kill();
    }
}

/// Waits until a relay says that it has no link to another.
fn wait_unlinked(fleet: &mut Fleet, relay: usize, to: usize) {
    let identifier = fleet.relay(to).identifier();
    fleet.relay(relay).wait_status("the link is down", |status| {
        let relays = status["cluster"]["relays"].as_array();
        relays.is_some_and(|relays| {
            let other = relays.iter().find(|relay| relay["relay"] == *identifier);
            other.is_some_and(|other| other["links"] == 0)
        })
    });
}

/// Waits until a relay says that its store is away.
fn wait_away(fleet: &mut Fleet, relay: usize) {
    let status = fleet.relay(relay).wait_status("the store is away", |status| {
        status["cluster"]["problem"].is_string()
    });
    assert_eq!(status["health"], "degraded", "{status:#}");
}

/// Waits until the relays have each other and the store, and the collector both its names.
fn wait_whole(fleet: &mut Fleet) {
    fleet.wait_bucket();
    wait_reached(fleet);
}

/// Waits until the relays have each other, and the collector both its names.
fn wait_reached(fleet: &mut Fleet) {
    fleet.wait_healthy();
    fleet.site.collector.wait_healthy();
    fleet.relay(0).wait_status("both have the name", |status| {
        let relays = status["cluster"]["relays"].as_array();
        relays.is_some_and(|relays| relays.iter().all(|relay| relay["names"] == 1))
    });
}

#[test]
fn a_cable_that_is_pulled_loses_no_reading_and_breaks_no_stream_that_has_another_way() {
    let mut fleet = Fleet::on_machines();
    fleet.start();
    wait_whole(&mut fleet);
    let gateway = fleet.network().machine(GATEWAY);
    let publisher = Publisher::start_on(Some(gateway), &fleet.site);
    publisher.wait_flow(&fleet.site);
    let mut stream = fleet.stream();
    round_trip(&mut stream, b"before");

    // Relay B is in nobody's way; at relay C is the collector, which has a way over B.
    for lost in [1, 2] {
        fleet.network().cut(lost);
        publisher.wait_flow(&fleet.site);
        round_trip(&mut stream, b"over the others");
        wait_unlinked(&mut fleet, 0, lost);
        // The two others are a majority: they keep the store. The one without says so.
        wait_away(&mut fleet, lost);
        publisher.wait_flow(&fleet.site);
        round_trip(&mut stream, b"when everybody knows");
        fleet.network().mend(lost);
        wait_whole(&mut fleet);
        publisher.wait_flow(&fleet.site);
        round_trip(&mut stream, b"whole again");
    }
    let status = fleet.site.collector.status();
    assert_eq!(status["portals"]["sessions"][0]["lost"], 0, "{status:#}");

    // The gateway's relay: there is no way, and readings wait in the gateway.
    fleet.network().cut(0);
    wait_away(&mut fleet, 0);
    publisher.wait_taken();
    fleet.network().mend(0);
    wait_whole(&mut fleet);
    publisher.wait_flow(&fleet.site);
    fleet.finish(publisher);
}

#[test]
fn machines_that_are_lost_one_after_the_other_lose_no_reading_and_break_no_stream() {
    let mut fleet = Fleet::on_machines();
    fleet.start();
    wait_whole(&mut fleet);
    let gateway = fleet.network().machine(GATEWAY);
    let publisher = Publisher::start_on(Some(gateway), &fleet.site);
    publisher.wait_flow(&fleet.site);
    let mut stream = fleet.stream();
    round_trip(&mut stream, b"before");
    // The gateway's relay comes last: without it there is no way for streams.
    for lost in [1, 2, 0] {
        fleet.servers[lost].kill();
        publisher.wait_flow(&fleet.site);
        round_trip(&mut stream, b"without the server");
        if lost == 0 {
            let status = fleet.site.collector.status();
            assert_eq!(status["portals"]["sessions"][0]["lost"], 0, "{status:#}");
        }
        fleet.relay(lost).kill();
        if lost == 0 {
            publisher.wait_taken();
        } else {
            publisher.wait_flow(&fleet.site);
            round_trip(&mut stream, b"without the machine");
        }
        fleet.relay(lost).start();
        fleet.servers[lost].start();
        wait_whole(&mut fleet);
        publisher.wait_flow(&fleet.site);
    }
    fleet.finish(publisher);
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
        // Both names are there again before the other relay goes.
        wait_reached(&mut fleet);
        publisher.wait_flow(&fleet.site);
    }
    fleet.finish(publisher);
}
