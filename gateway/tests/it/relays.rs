//! Two relays in a row: the gateway is attached to the first, the collector to the second, which the first dials.

use std::net::{SocketAddr, TcpStream};

use crate::{
    harness::{
        broker::publish,
        node::Node,
        ports,
        site::{DEVICE, Site, backend},
        wait::PATIENCE,
    },
    portals::{echo, round_trip, serve},
};

struct Chain {
    site: Site,
    second: Node,
    /// Where the collector's inlet to the gateway's outlet listens.
    inlet: SocketAddr,
}

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

impl Chain {
    /// `carried`: the gateway authenticates the second relay itself, and the first has no right there but its name.
    fn new(carried: bool) -> Self {
        let site = Site::new().without_broker();
        let [gateway, first, collector] = [&site.gateway, &site.relay, &site.collector].map(Node::identifier);
        let (link, inlet) = (address(), address());
        let second = Node::new(site.dir(), "relay-2", address());
        let (relay_reach, member) = if carried {
            let member = format!(
                "[[relay.member]]\nname = \"gateway-1\"\nidentifier = \"{gateway}\"\nhold = []\nreach = [\"collector-1\"]\n"
            );
            ("", member)
        } else {
            ("\"collector-1\"", String::new())
        };
        second.write(&format!(
            "[node]\nname = \"relay-2\"\nstate_dir = \"state\"\ncontrol_socket = \"control.sock\"\nio = \"{}\"\n\
             [identity]\nfile = \"identity.key\"\npassphrase = {{ file = \"passphrase\" }}\n\
             [metrics]\nlisten = \"{}\"\n[link.tcp]\nlisten = [\"{link}\"]\n\
             [[relay.member]]\nname = \"relay-1\"\nidentifier = \"{first}\"\nhold = [\"relay-a\"]\nreach = [{relay_reach}]\n{member}\
             [[relay.member]]\nname = \"collector-1\"\nidentifier = \"{collector}\"\nhold = [\"collector-1\"]\nreach = [\"relay-a\"]\n",
            backend(),
            second.metrics
        ));
        let other = second.create_identity();
        site.relay.edit(
            "reach = [\"collector-1\"]",
            "hold = [\"gateway-1\"]\nreach = [\"relay-b\"]",
        );
        site.relay.append(&format!(
            "[[relay.neighbour]]\nname = \"relay-b\"\naddress = \"{link}\"\nidentifier = \"{other}\"\n\
             register = [\"relay-a\"]\nreach = [\"gateway-1\"]\n"
        ));
        let way = format!("identifier = \"{first}\" }}");
        let known = if carried {
            format!(", through_identifiers = [\"{other}\"]")
        } else {
            String::new()
        };
        let longer = format!("identifier = \"{first}\", through = [\"relay-b\"]{known} }}");
        site.gateway.edit(&way, &longer);
        site.gateway.append(&format!(
            "[portal]\nregister = [{{ relay = {{ address = \"{}\", identifier = \"{first}\" }}, name = \"gateway-1\" }}]\n\
             [[portal.outlet]]\nname = \"echo\"\naddress = \"127.0.0.1:{}\"\nallow = [\"{collector}\"]\n",
            site.link,
            serve(echo)
        ));
        site.collector.edit(&site.link.to_string(), &link.to_string());
        site.collector.edit(&first, &other);
        site.collector.append(&format!(
            "[[portal.inlet]]\nname = \"echo\"\nlisten = \"{inlet}\"\nnode = \"{gateway}\"\noutlet = \"echo\"\n\
             via = \"gateway-1\"\n\
             relay = {{ address = \"{link}\", identifier = \"{other}\", through = [\"relay-a\"] }}\n"
        ));
        Self { site, second, inlet }
    }

    fn publish(&self, number: usize) {
        let (topic, payload) = (format!("{DEVICE}/count"), number.to_string());
        let mut arguments = vec!["-q", "1", "-t", &topic, "-m", &payload];
        arguments.extend(self.site.login());
        publish(self.site.mqtt, &arguments).expect(0);
    }

    /// Publishes until so many readings have been published in all, and waits for them behind the collector.
    fn delivers(&self, numbers: std::ops::Range<usize>) {
        let count = numbers.end;
        for number in numbers {
            self.publish(number);
        }
        let readings = self.site.wait_readings(count);
        for (number, reading) in readings.iter().enumerate() {
            assert_eq!(reading["payload"], number.to_string(), "{reading}");
        }
    }
}

#[test]
fn readings_and_streams_cross_two_relays_in_both_directions() {
    let mut chain = Chain::new(false);
    chain.second.start();
    chain.site.start();
    chain.delivers(0..3);
    chain.site.wait_healthy();
    let status = chain.site.relay.wait_healthy();
    let relay = &status["network"]["relays"][0];
    assert_eq!(
        (&relay["name"], &relay["state"]),
        (&"relay-b".into(), &"forwarding".into())
    );
    assert_eq!(relay["registered"], serde_json::json!(["relay-a"]));
    assert!(chain.site.relay.samples().sum("fieldgate_relay_neighbour_up") > 0.5);

    let mut stream = TcpStream::connect(chain.inlet).expect("the inlet listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    round_trip(&mut stream, b"the valve opens at noon");
    assert!(
        chain
            .second
            .samples()
            .sum("fieldgate_relay_forwarded_frames_total")
            > 0.0
    );

    // The relay in the middle starts again: it dials, attaches and registers again, and everything goes on.
    chain.site.relay.kill();
    chain.publish(3);
    chain.site.relay.start();
    round_trip(&mut stream, b"and closes at one");
    chain.delivers(4..6);
    chain.site.wait_healthy();
    chain.second.stop();
    let status = chain.site.relay.wait_status("degraded", |status| {
        status["reasons"].as_array().is_some_and(|reasons| {
            reasons.iter().any(|reason| {
                reason
                    .as_str()
                    .is_some_and(|reason| reason.contains("relay relay-b at"))
            })
        })
    });
    assert_eq!(status["health"], "degraded");
}

#[test]
fn a_relay_behind_another_is_authenticated_in_a_channel_of_its_own() {
    let mut chain = Chain::new(true);
    chain.second.start();
    chain.site.start();
    chain.delivers(0..3);
    chain.site.wait_healthy();
    let gateway = chain.site.gateway.identifier();
    let is_carried = |link: &serde_json::Value| {
        link["member"] == gateway.as_str()
            && link["peer"]
                .as_str()
                .is_some_and(|peer| peer.starts_with("in a channel over"))
    };
    let status = chain.second.wait_status("healthy", |status| {
        status["network"]["links"]
            .as_array()
            .is_some_and(|links| links.iter().any(is_carried))
    });
    assert_eq!(status["health"], "healthy");

    // The link goes with what it lies on, and comes back with it.
    chain.site.relay.kill();
    chain.publish(3);
    chain.site.relay.start();
    chain.delivers(4..6);
    chain.second.kill();
    chain.publish(6);
    chain.second.start();
    chain.delivers(7..9);
}
