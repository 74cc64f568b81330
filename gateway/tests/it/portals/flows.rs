//! Datagrams through portals.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use super::*;

/// Gives every datagram back to whoever sent it, with its own port behind it, until the test's process ends. Returns that port.
fn serve_datagrams() -> u16 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let port = socket.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            // Whoever asked may be gone.
            let _ = socket.send_to(&buffer[..count], from);
        }
    });
    port
}

/// A client of an inlet's port.
fn client(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    socket
        .connect((Ipv4Addr::LOCALHOST, port))
        .expect("it is a port of this machine");
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("it is a socket");
    socket
}

/// Sends a datagram and waits until it comes back. As clients of UDP have to, it asks again when there is no answer; what comes of
/// earlier questions is passed over.
fn exchange(client: &UdpSocket, message: &[u8]) {
    let mut buffer = vec![0; 1 << 16];
    until("the datagram comes back", || {
        // The kernel tells of a port on which nobody listened yet.
        client.send(message).map_err(|error| error.to_string())?;
        loop {
            let count = client.recv(&mut buffer).map_err(|error| error.to_string())?;
            if buffer[..count] == *message {
                return Ok(());
            }
        }
    });
}

impl Portals {
    /// Adds an inlet for datagrams to the file of `desk`; returns its port.
    fn add_flows(&self, name: &str, outlet: &str, more: &str) -> u16 {
        let port = ports::free();
        self.add_listener(name, &format!("udp:127.0.0.1:{port}"), outlet, more);
        port
    }

    /// Waits until the status of one of a node's portals is as wanted.
    fn wait_portal(node: &Node, kind: &str, name: &str, want: impl Fn(&Value) -> bool) -> Value {
        until("portals are as they should be", || {
            let end = Self::portal(node, kind, name);
            if want(&end) { Ok(end) } else { Err(end.to_string()) }
        })
    }
}

#[test]
fn datagrams_stay_whole_and_go_on_over_the_other_relay() {
    let server = serve_datagrams();
    let mut portals = Portals::new(ports::free());
    portals.add_outlet("ntp", &format!("address = \"udp:localhost:{server}\""));
    let port = portals.add_flows("ntp", "ntp", "");
    portals.start();
    let (first, second) = (client(port), client(port));
    // The longest that there is, one without content, and what is usual.
    for length in [1, 48, 1_400, 65_507, 0] {
        let message: Vec<u8> = (0..length).map(byte_at).collect();
        exchange(&first, &message);
    }
    exchange(&second, b"somebody else");
    let origin = second.local_addr().expect("it is bound").to_string();
    for node in [&mut portals.desk, &mut portals.hall] {
        node.process().wait_for("the flow in the audit", |line| {
            let is_it = line.contains("portal stream open") && line.contains(&origin);
            is_it.then_some(())
        });
    }
    for (node, kind) in [(&portals.desk, "inlets"), (&portals.hall, "outlets")] {
        let end = Portals::portal(node, kind, "ntp");
        assert_eq!(
            (&end["streams"], &end["streams_total"]),
            (&2.into(), &2.into()),
            "{end:#}"
        );
        assert!(end["datagrams"]["passed"].as_u64() >= Some(12), "{end:#}");
    }
    // The relay that is preferred is gone; both flows go on.
    portals.relays[0].kill();
    exchange(&first, b"on another way");
    exchange(&second, b"this one as well");
    let end = Portals::portal(&portals.hall, "outlets", "ntp");
    assert_eq!(end["streams_total"], 2, "{end:#}");
    assert!(portals.hall.samples().sum("fieldgate_portal_datagrams_total") >= 12.0);
}

#[test]
fn flows_are_for_those_who_may_and_for_what_takes_datagrams() {
    let server = serve_datagrams();
    let tcp = serve(echo);
    let mut portals = Portals::new(tcp);
    portals.add_outlet(
        "ntp",
        &format!("address = \"udp:127.0.0.1:{server}\"\nstreams_max = 1"),
    );
    let closed = portals.add_flows("closed-flows", "ntp", "allow = [\"10.0.0.0/8\"]");
    let wrong = portals.add_flows("wrong-flows", "echo", "");
    let port = portals.add_flows("ntp", "ntp", "");
    portals.add_inlet("wrong-streams", "ntp", "");
    portals.start();
    for port in [closed, wrong] {
        client(port).send(b"hello").expect("the kernel takes it");
    }
    let refused = |end: &Value| end["refused"] == 1 && end["datagrams"]["dropped"].as_u64() >= Some(1);
    Portals::wait_portal(&portals.desk, "inlets", "closed-flows", refused);
    Portals::wait_portal(&portals.desk, "inlets", "wrong-flows", |end| end["refused"] == 1);
    // Bytes of a stream are no datagrams.
    wait_reset(&mut portals.connect("wrong-streams"));
    // The second flow is one too many.
    exchange(&client(port), b"first");
    client(port).send(b"second").expect("the kernel takes it");
    Portals::wait_portal(&portals.hall, "outlets", "ntp", |end| {
        end["refused"].as_u64() >= Some(2)
    });
    // Streams are as they were.
    round_trip(&mut portals.connect("echo"), b"still here");
    let shown = portals.desk.run(&["portal", "list"]).expect(0);
    assert!(
        shown.out.contains(&format!("ntp on udp:127.0.0.1:{port}")),
        "{}",
        shown.out
    );
}
