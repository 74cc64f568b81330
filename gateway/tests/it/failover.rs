//! A relay that stops answering without a word, as if somebody had pulled its cable: what goes over it goes on over the other.

use std::{net::SocketAddr, net::TcpStream, thread};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    harness::{
        broker::publish,
        node::Node,
        ports,
        site::{DEVICE, Site, backend},
        wait::PATIENCE,
    },
    portals::{echo, read_all, serve, write_all},
};

/// A site with two relays, and streams from the collector's node to something behind the gateway.
pub(crate) struct Twins {
    pub(crate) site: Site,
    pub(crate) second: Node,
    /// Where the two relays take links.
    links: [SocketAddr; 2],
    pub(crate) inlet: SocketAddr,
}

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

impl Twins {
    pub(crate) fn started() -> Self {
        let site = Site::new().without_broker();
        let [gateway, first, collector] = [&site.gateway, &site.relay, &site.collector].map(Node::identifier);
        let (links, inlet) = ([site.link, address()], address());
        let second = Node::new(site.dir(), "relay-2", address());
        second.write(&format!(
            "[node]\nname = \"relay-2\"\nstate_dir = \"state\"\ncontrol_socket = \"control.sock\"\nio = \"{}\"\n\
             [identity]\nfile = \"identity.key\"\npassphrase = {{ file = \"passphrase\" }}\n\
             [metrics]\nlisten = \"{}\"\n[link.tcp]\nlisten = [\"{}\"]\n\
             [[relay.member]]\nname = \"gateway-1\"\nidentifier = \"{gateway}\"\nhold = [\"gateway-1\"]\nreach = [\"collector-1\"]\n\
             [[relay.member]]\nname = \"collector-1\"\nidentifier = \"{collector}\"\nhold = [\"collector-1\"]\nreach = [\"gateway-1\"]\n",
            backend(),
            second.metrics,
            links[1]
        ));
        let other = second.create_identity();
        let ways = [(links[0], &first), (links[1], &other)]
            .map(|(link, identifier)| format!("{{ address = \"{link}\", identifier = \"{identifier}\" }}"));
        site.relay.edit(
            "reach = [\"collector-1\"]",
            "hold = [\"gateway-1\"]\nreach = [\"collector-1\"]",
        );
        site.relay.edit(
            "\nhold = [\"collector-1\"]",
            "\nhold = [\"collector-1\"]\nreach = [\"gateway-1\"]",
        );
        let [one, two] = &ways;
        let registered = |name: &str| {
            format!(
                "register = [{{ relay = {one}, name = \"{name}\" }}, {{ relay = {two}, name = \"{name}\" }}]\n"
            )
        };
        site.gateway
            .edit(&format!("relay = {one}"), &format!("relays = [{one}, {two}]"));
        site.gateway.append(&format!(
            "[portal]\n{}[[portal.outlet]]\nname = \"echo\"\naddress = \"127.0.0.1:{}\"\nallow = [\"{collector}\"]\n",
            registered("gateway-1"),
            serve(echo)
        ));
        site.collector.edit(
            &format!("{{ relay = {one}, name = \"collector-1\" }}"),
            &format!(
                "{{ relay = {one}, name = \"collector-1\" }}, {{ relay = {two}, name = \"collector-1\" }}"
            ),
        );
        site.collector.append(&format!(
            "[[portal.inlet]]\nname = \"echo\"\nlisten = \"{inlet}\"\nnode = \"{gateway}\"\noutlet = \"echo\"\n\
             via = \"gateway-1\"\nrelays = [{one}, {two}]\n"
        ));
        let mut twins = Self {
            site,
            second,
            links,
            inlet,
        };
        twins.second.start();
        twins.site.start();
        twins
    }

    pub(crate) fn publish(&self, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let (topic, payload) = (format!("{DEVICE}/count"), number.to_string());
            let mut arguments = vec!["-q", "1", "-t", &topic, "-m", &payload];
            arguments.extend(self.site.login());
            publish(self.site.mqtt, &arguments).expect(0);
        }
    }

    /// Waits for so many readings behind the collector: each once, in order.
    pub(crate) fn delivers(&self, count: usize) {
        let readings = self.site.wait_readings(count);
        assert_eq!(readings.len(), count);
        for (number, reading) in readings.iter().enumerate() {
            assert_eq!(reading["payload"], number.to_string(), "{reading}");
        }
    }

    /// Waits until one way of a node is in use and the other in reserve; returns the number of the relay in use.
    pub(crate) fn wait_paired(&self, node: &Node) -> usize {
        let status = node.wait_status("a path in use and one in reserve", |status| {
            let paths = &status["network"]["paths"][0]["paths"];
            let mut states = [state(&paths[0]), state(&paths[1])];
            states.sort_unstable();
            states == ["active", "standby"]
        });
        let paths = &status["network"]["paths"][0]["paths"];
        let active = if state(&paths[0]) == "active" {
            &paths[0]
        } else {
            &paths[1]
        };
        let by = active["by"].as_str().expect("an address");
        usize::from(by != self.links[0].to_string())
    }

    /// Returns one of the two relays.
    pub(crate) fn relay(&mut self, relay: usize) -> &mut Node {
        if relay == 0 {
            &mut self.site.relay
        } else {
            &mut self.second
        }
    }

    fn signal(&mut self, relay: usize, signal: Signal) {
        self.relay(relay).process().signal(signal);
    }
}

pub(crate) fn state(path: &Value) -> &str {
    path["state"].as_str().unwrap_or_default()
}

#[test]
fn a_stream_and_readings_go_on_over_the_other_relay_while_one_is_stopped() {
    const BYTES: usize = 30_000_000;
    let mut twins = Twins::started();
    twins.publish(0..3);
    twins.delivers(3);
    twins.wait_paired(&twins.site.gateway);
    let mut published = 3;
    // The one that the streams use, and then the other, so that they come back to the channel they had first.
    for _ in 0..2 {
        let active = twins.wait_paired(&twins.site.collector);
        let mut stream = TcpStream::connect(twins.inlet).expect("the inlet listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("it is a socket");
        let writer = write_all(&stream, BYTES);
        let (begun, begins) = std::sync::mpsc::channel();
        let reader = thread::spawn(move || {
            read_all(&mut stream, |place| {
                // Nobody listens once it was told.
                let _ = begun.send(place);
            })
        });
        begins.recv_timeout(PATIENCE).expect("the stream flows");
        twins.signal(active, Signal::STOP);
        // All of it comes back although the relay it began over stands still.
        writer.join().expect("everything was taken");
        assert_eq!(reader.join().expect("every byte is right"), BYTES);
        twins.publish(published..published + 3);
        published += 3;
        twins.delivers(published);
        twins.signal(active, Signal::CONT);
        for node in [&twins.site.gateway, &twins.site.collector] {
            // The one that stood still is heard again.
            twins.wait_paired(node);
        }
    }
    let status = twins.site.collector.wait_healthy();
    let session = &status["portals"]["sessions"][0];
    assert_eq!(session["lost"], 0, "{session:#}");
    let changes = twins.site.collector.samples().sum("fieldgate_path_changes_total");
    assert!(changes >= 2.0, "{changes}");
    twins.delivers(published);
}
