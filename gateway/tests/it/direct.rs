//! Paths without a relay: on one machine, and between two networks behind routers that translate addresses.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    thread,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    broker::{publish, publish_by},
    node::{Node, text},
    ports,
    process::{Process, command, run},
    site::{DEVICE, EXAMPLE_METRICS, EXAMPLE_RELAY, Site, placed, private_dir, sealed},
    wait::PATIENCE,
};

/// Has gateway and collector dial the relay over QUIC and leave it when they can.
fn want_direct(site: &Site, before: &str, quic: SocketAddr) {
    site.relay
        .append(&format!("[link.quic]\nlisten = [\"{quic}\"]\n"));
    for node in [&site.gateway, &site.collector] {
        node.edit(
            &format!("address = \"{before}\""),
            &format!("address = \"quic://{quic}\""),
        );
    }
    site.gateway
        .edit("[[uplink]]\n", "[[uplink]]\ndirect_path = true\n");
    site.collector
        .edit("[collector]\n", "[collector]\ndirect_path = true\n");
}

/// Returns the ways of the uplink, or of the portals, of a status.
fn paths<'s>(status: &'s Value, kind: &str) -> &'s Value {
    let all = status["network"]["paths"].as_array();
    let found = all.into_iter().flatten().find(|paths| paths["kind"] == kind);
    found.unwrap_or(&Value::Null)
}

/// Returns whether a direct path is up and in use, or up and not.
fn is_direct(status: &Value, kind: &str, in_use: bool) -> bool {
    let paths = paths(status, kind);
    let state = if in_use { "active" } else { "standby" };
    let ways = paths["paths"].as_array();
    let direct = ways.into_iter().flatten().find(|path| path["by"] == "direct");
    paths["direct"]["state"] == "up" && direct.is_some_and(|path| path["state"] == state)
}

fn publish_one(site: &Site, words: &[&str], payload: &str) {
    let topic = format!("{DEVICE}/temperature");
    let mut arguments = vec!["-q", "1", "-t", &topic, "-m", payload];
    arguments.extend(site.login());
    if words.is_empty() {
        publish(site.mqtt, &arguments).expect(0);
    } else {
        publish_by(words, site.mqtt, &arguments).expect(0);
    }
}

/// Publishes one more reading, and waits until it is behind the collector.
fn carry(site: &Site, words: &[&str], count: usize) {
    let payload = format!("{count}.5");
    publish_one(site, words, &payload);
    let readings = site.wait_readings(count);
    assert_eq!(readings.len(), count, "none comes twice");
    assert_eq!(readings[count - 1]["payload"], payload.as_str());
}

fn stop(site: &mut Site) {
    site.gateway.stop();
    site.collector.stop();
    site.relay.stop();
}

#[test]
fn readings_and_streams_go_on_without_the_relay_that_brought_the_two_together() {
    let mut site = Site::new().without_broker();
    let quic = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let relay = site.relay.identifier();
    want_direct(&site, &site.link.to_string(), quic);
    let echo = echo();
    let inlet = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    site.gateway.append(&format!(
        "[[portal.inlet]]\nname = \"echo\"\nlisten = \"{inlet}\"\nnode = \"{}\"\noutlet = \"echo\"\nvia = \"collector-1\"\n\
         relay = {{ address = \"quic://{quic}\", identifier = \"{relay}\" }}\ndirect_path = true\n",
        site.collector.identifier()
    ));
    site.collector.append(&format!(
        "[portal]\ndirect_path = true\n\
         register = [{{ relay = {{ address = \"quic://{quic}\", identifier = \"{relay}\" }}, name = \"collector-1\" }}]\n\
         [[portal.outlet]]\nname = \"echo\"\naddress = \"{echo}\"\nallow = [\"{}\"]\n",
        site.gateway.identifier()
    ));
    for node in [&site.gateway, &site.collector] {
        node.append("[link.direct]\nallow = [\"127.0.0.0/8\"]\n");
    }
    site.start();
    carry(&site, &[], 1);
    let both = |status: &Value| is_direct(status, "uplink", true) && is_direct(status, "portals", true);
    let status = site.gateway.wait_status("two direct paths", both);
    let peer = text(&paths(&status, "uplink")["direct"], "peer");
    assert!(peer.starts_with("quic://127.0.0.1:"), "{peer}");
    assert_eq!(status["uplinks"][0]["via"], "direct");
    let mut stream = TcpStream::connect(inlet).expect("the inlet listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    is_echoed(&mut stream, b"over the path");
    let told = site.collector.status();
    assert!(
        told["network"]["direct"]["answered"].as_u64() >= Some(2),
        "{told:#}"
    );
    let up = site.gateway.samples().sum("fieldgate_direct_path_up");
    assert!((up - 2.0).abs() < f64::EPSILON, "{up} are up");

    site.relay.kill();
    carry(&site, &[], 2);
    is_echoed(&mut stream, b"and still there");
    site.relay.start();
    let back = |status: &Value| {
        let ways = paths(status, "uplink")["paths"].as_array();
        both(status) && ways.is_some_and(|ways| ways[0]["state"] == "standby")
    };
    site.gateway.wait_status("the relay in reserve", back);
    carry(&site, &[], 3);
    is_echoed(&mut stream, b"to the end");
    drop(stream);
    stop(&mut site);
}

/// Takes one connection and sends back what comes.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("it is bound");
    // Ends with the test's process.
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    });
    address
}

fn is_echoed(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("the stream is open");
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).expect("the stream is open");
    assert_eq!(back, bytes);
}

#[test]
fn two_nodes_behind_routers_find_a_path_and_come_back_to_the_relay_when_it_is_cut() {
    let mut apart = Apart::new();
    let mut site = site(&apart);
    site.start();
    let on = apart.on("g");
    let words: Vec<&str> = on.iter().map(String::as_str).collect();
    carry(&site, &words, 1);
    let status = site
        .gateway
        .wait_status("a direct path", |status| is_direct(status, "uplink", true));
    let peer = text(&paths(&status, "uplink")["direct"], "peer");
    assert!(
        peer.contains(OUTSIDE[1]),
        "{peer} is not the other network's router"
    );
    carry(&site, &words, 2);

    apart.cut(true);
    carry(&site, &words, 3);
    site.gateway.wait_status("the path is given up", |status| {
        paths(status, "uplink")["direct"]["failure"] == "broken"
    });
    carry(&site, &words, 4);
    apart.cut(false);
    site.gateway
        .wait_status("the path again", |status| is_direct(status, "uplink", true));
    carry(&site, &words, 5);
    stop(&mut site);
}

/// Lays gateway, relay and collector out on their machines.
fn site(apart: &Apart) -> Site {
    let dir = private_dir();
    let metrics: SocketAddr = EXAMPLE_METRICS.parse().expect("it is an address");
    let names = [("gateway-1", "g"), ("relay-1", "r"), ("collector-1", "c")];
    let nodes = names.map(|(name, machine)| {
        let mut node = Node::new(dir.path(), name, metrics);
        let on = apart.on(machine);
        node.start_by(&on.iter().map(String::as_str).collect::<Vec<_>>());
        node
    });
    let relay: SocketAddr = format!("{RELAY}:4433").parse().expect("it is an address");
    let mqtt: SocketAddr = "127.0.0.1:1883".parse().expect("it is an address");
    let site = Site::of(dir, nodes, mqtt, relay, 1883);
    for (node, example) in site.nodes() {
        node.write(&sealed(&placed(example)));
    }
    site.gateway.edit("10.77.0.1:1883", &mqtt.to_string());
    site.relay.edit(EXAMPLE_RELAY, &relay.to_string());
    let site = site.finish().without_broker();
    want_direct(&site, EXAMPLE_RELAY, relay);
    site
}

/// Two private networks with the same addresses, a router in front of each, and a machine between the routers that is the rest of
/// the world, and the relay. Needs root.
struct Apart {
    routers: Vec<Process>,
}

impl Apart {
    fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "network namespaces need root: run the tests as root, or in a container that has CAP_NET_ADMIN and CAP_SYS_ADMIN"
        );
        let mut apart = Self { routers: Vec::new() };
        for machine in MACHINES {
            ip(&["netns", "add", &name(machine)]);
            ip(&["-n", &name(machine), "link", "set", "lo", "up"]);
        }
        let world = name("r");
        ip(&[
            "-n",
            &world,
            "address",
            "add",
            &format!("{RELAY}/32"),
            "dev",
            "lo",
        ]);
        apart.run("r", &["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]);
        for ((node, router), outside) in [("g", "a"), ("c", "b")].into_iter().zip(OUTSIDE) {
            let (node, router) = (name(node), name(router));
            cable((&node, "eth0", "10.1.0.2/24"), (&router, "in0", "10.1.0.1/24"));
            ip(&["-n", &node, "route", "add", "default", "via", "10.1.0.1"]);
            let far = format!("to{}", outside.replace('.', ""));
            cable(
                (&router, "out0", &format!("{outside}/32")),
                (&world, &far, "100.64.0.1/32"),
            );
            ip(&["-n", &router, "route", "add", "100.64.0.1", "dev", "out0"]);
            ip(&[
                "-n",
                &router,
                "route",
                "add",
                "default",
                "via",
                "100.64.0.1",
                "dev",
                "out0",
            ]);
            ip(&["-n", &world, "route", "add", outside, "dev", &far]);
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/direct/nat.py");
        let script = script.to_str().expect("the path is text");
        for (machine, outside) in ["a", "b"].into_iter().zip(OUTSIDE) {
            let on = apart.on(machine);
            let mut words: Vec<&str> = on.iter().map(String::as_str).collect();
            words.extend(["python3", script, "in0", outside, RELAY]);
            let mut router = Process::spawn("the router", &mut command(&words));
            router.wait_for_text("routing");
            apart.routers.push(router);
        }
        apart
    }

    /// Words that start a program on a machine.
    fn on(&self, machine: &str) -> [String; 4] {
        ["ip", "netns", "exec"]
            .map(str::to_owned)
            .into_iter()
            .chain([name(machine)])
            .collect::<Vec<_>>()
            .try_into()
            .expect("there are four")
    }

    fn run(&self, machine: &str, program: &[&str]) {
        let on = self.on(machine);
        let mut words: Vec<&str> = on.iter().map(String::as_str).collect();
        words.extend(program);
        run(&mut command(&words)).expect(0);
    }

    /// Has the routers let nothing pass but what goes to the relay or comes from there, or everything again.
    fn cut(&mut self, cut: bool) {
        for router in &self.routers {
            router.signal(if cut { Signal::USR1 } else { Signal::USR2 });
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        for router in &mut self.routers {
            router.kill();
        }
        for machine in MACHINES {
            // One that was not made yet is not there to remove; the cables go with their ends.
            let _ = run(&mut command(&["ip", "netns", "del", &name(machine)]));
        }
    }
}

/// Connects two machines: name, device, address.
fn cable(one: (&str, &str, &str), other: (&str, &str, &str)) {
    ip(&[
        "link", "add", one.1, "netns", one.0, "type", "veth", "peer", "name", other.1, "netns", other.0,
    ]);
    for (machine, device, address) in [one, other] {
        ip(&["-n", machine, "address", "add", address, "dev", device]);
        ip(&["-n", machine, "link", "set", device, "up"]);
    }
}

fn name(machine: &str) -> String {
    format!("fgd{}{machine}", std::process::id())
}

fn ip(words: &[&str]) {
    run(command(&["ip"]).args(words)).expect(0);
}

/// Gateway, its router, the rest of the world, the other router, collector.
const MACHINES: [&str; 5] = ["g", "a", "r", "b", "c"];
const RELAY: &str = "203.0.113.1";
/// Addresses of the routers.
const OUTSIDE: [&str; 2] = ["192.0.2.1", "198.51.100.1"];
