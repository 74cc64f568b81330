//! What devices and strangers send to the gateway's and the relay's ports.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use fieldgate_mqtt::{reason::ReasonCode, version::ProtocolVersion};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::{
    broker::publish,
    client::{Client, Received},
    ports,
    process::{command, run},
    site::{DEVICE, Site, device_password},
    wait::PATIENCE,
};

#[test]
fn garbage_at_the_ports_harms_nobody_else() {
    let mut site = Site::new().without_broker();
    site.start();
    site.wait_healthy();
    let mut good = log_in(&site, ProtocolVersion::V5, "good");
    let mut random = 7_u64;
    for round in 0..40 {
        let garbage: Vec<u8> = (0..257 * (round % 5 + 1))
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                random.to_be_bytes()[0]
            })
            .collect();
        // Pure noise, noise behind a CONNECT's first byte, a link's frame of the greatest length, and one of no kind.
        for (port, head) in [
            (site.mqtt, &[][..]),
            (site.mqtt, b"\x10\xff\xff\xff\x7f"),
            (site.mqtt, b"\x10\x0c\x00\x04MQTT\x04"),
            (site.link, &[]),
            (site.link, b"\xff\xff\xff\x01"),
            (site.link, b"\x00\x00\x05\x99"),
        ] {
            throw(port, head, &garbage);
        }
        let answer = good
            .publish_and_wait(round + 1, &topic(), b"21.5")
            .expect("the socket works");
        assert_eq!(answer, Received::PubAck(round + 1, ReasonCode::Success));
    }
    assert_eq!(site.wait_readings(40).len(), 40);
    site.wait_healthy();
    let status = site.gateway.status();
    let errors: u64 = shards(&status, "protocol_errors");
    assert!(errors >= 40, "only {errors} bad sessions were counted");
    // The strangers are gone from the relay: gateway and collector are the only neighbours.
    site.relay.wait_status("two links", |status| {
        status["network"]["links"]
            .as_array()
            .is_some_and(|links| links.len() == 2)
    });
}

/// Sends bytes to a port and waits until the other end has had enough, or the bytes are gone.
fn throw(port: SocketAddr, head: &[u8], garbage: &[u8]) {
    let mut stream = TcpStream::connect(port).expect("the port is open");
    // The other end may close at any byte.
    let _ = stream.write_all(head).and_then(|()| stream.write_all(garbage));
    let _ = stream.shutdown(std::net::Shutdown::Write);
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    let mut answer = [0; 512];
    while matches!(stream.read(&mut answer), Ok(1..)) {}
}

#[test]
fn a_malformed_packet_ends_that_session_only() {
    let mut site = Site::new().without_broker();
    site.gateway.start();
    let mut good = log_in(&site, ProtocolVersion::V311, "good");
    // PUBLISH with QoS 3; a topic with a wildcard; packet identifier 0; a remaining length of five bytes; SUBSCRIBE with wrong
    // flags; a second CONNECT; CONNACK, which only servers send.
    let malformed: [&[u8]; 7] = [
        b"\x36\x05\x00\x01a\x00\x01",
        b"\x30\x05\x00\x03a/#",
        b"\x32\x05\x00\x01a\x00\x00",
        b"\x30\xff\xff\xff\xff\x01",
        b"\x80\x06\x00\x01\x00\x01a\x00",
        b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a",
        b"\x20\x02\x00\x00",
    ];
    for (index, bytes) in malformed.into_iter().enumerate() {
        let mut old = log_in(&site, ProtocolVersion::V311, "bad-311");
        old.send_raw(bytes).expect("the socket works");
        assert_eq!(
            old.receive().expect("the socket works"),
            Received::End,
            "3.1.1, case {index}"
        );
        let mut new = log_in(&site, ProtocolVersion::V5, "bad-5");
        new.send_raw(bytes).expect("the socket works");
        let answer = new.receive().expect("the socket works");
        assert!(
            matches!(answer, Received::Disconnect(reason) if reason.is_failure()),
            "5.0, case {index}: {answer:?}"
        );
        assert_eq!(new.receive().expect("the socket works"), Received::End);
        assert_eq!(good.ping().expect("the socket works"), Received::PingResp);
    }
    let status = site.gateway.status();
    assert_eq!(shards(&status, "protocol_errors"), 14);
    assert_eq!(shards(&status, "clients"), 1);
}

#[test]
fn a_wrong_password_an_unknown_name_and_nobody_are_refused_alike() {
    let mut site = Site::new().without_broker();
    site.gateway.start();
    let logins = [
        Some((DEVICE, "wrong")),
        Some(("pump-8", site.password.as_str())),
        None,
    ];
    for login in logins {
        for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
            let mut client = Client::dial(site.mqtt, version).expect("the port is open");
            let answer = client.log_in("x", login).expect("the socket works");
            let Received::ConnAck(reason) = answer else {
                panic!("{login:?}: {answer:?}");
            };
            let refused = [ReasonCode::BadUserNameOrPassword, ReasonCode::NotAuthorized];
            assert!(refused.contains(&reason), "{login:?}: {reason:?}");
            assert_eq!(client.receive().expect("the socket works"), Received::End);
        }
    }
    // The stock client says what the standards call it.
    let arguments = [
        "-V", "5", "-q", "1", "-u", DEVICE, "-P", "wrong", "-t", "pump-7/x", "-m", "1",
    ];
    let ended = publish(site.mqtt, &arguments);
    assert_ne!(ended.code, 0);
    let told = ended.err.to_lowercase();
    assert!(
        told.contains("bad user name") || told.contains("not authori"),
        "{ended:?}"
    );
    let status = site.gateway.status();
    assert_eq!(shards(&status, "auth_failures"), 7);
    assert_eq!(status["journal"]["readings"], 0);
}

#[test]
fn a_device_publishes_where_its_entry_lets_it_and_nowhere_else() {
    let mut site = Site::new().without_broker();
    let (password, hash) = device_password("press-2");
    site.gateway.append(&format!(
        "\n[[mqtt.device]]\nname = \"press-2\"\nusername = \"p2\"\npassword_hash = \"{hash}\"\npublish = [\"hall/+/press\", \"press-2/#\"]\n"
    ));
    site.start();
    let mut client = Client::connect(site.mqtt, ProtocolVersion::V5, "c", Some(("p2", &password)))
        .expect("the gateway takes the device");
    let cases = [
        ("hall/3/press", ReasonCode::Success),
        ("press-2/a/b", ReasonCode::Success),
        ("hall/3/other", ReasonCode::NotAuthorized),
        ("pump-7/temperature", ReasonCode::NotAuthorized),
        ("$SYS/x", ReasonCode::NotAuthorized),
    ];
    for (packet, (topic, reason)) in (1..).zip(cases) {
        let answer = client
            .publish_and_wait(packet, topic, topic.as_bytes())
            .expect("the socket works");
        assert_eq!(answer, Received::PubAck(packet, reason), "{topic}");
    }
    let mut old = Client::connect(site.mqtt, ProtocolVersion::V311, "o", Some(("p2", &password)))
        .expect("the gateway takes the device");
    let answer = old
        .publish_and_wait(1, "pump-7/temperature", b"forged")
        .expect("the socket works");
    assert_eq!(answer, Received::End, "3.1.1 has no way to say no");
    let readings = site.wait_readings(2);
    let topics: Vec<_> = readings
        .iter()
        .map(|reading| reading["resource"].as_str())
        .collect();
    assert_eq!(topics, [Some("hall/3/press"), Some("press-2/a/b")]);
    assert!(readings.iter().all(|reading| reading["device"] == "press-2"));
}

#[test]
fn a_stock_client_publishes_over_tls_and_trusts_only_the_right_certificate() {
    let mut site = Site::new().without_broker();
    let (certificate, other) = (certificate(&site, "server"), certificate(&site, "other"));
    let tls = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    site.gateway.append(&format!(
        "\n[mqtt.tls]\nlisten = [\"{tls}\"]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n"
    ));
    site.start();
    for (version, protocol) in [("5", "tlsv1.3"), ("mqttv311", "tlsv1.2")] {
        let mut arguments = vec!["--cafile", &certificate, "--tls-version", protocol, "-V", version];
        arguments.extend(["-q", "1", "-t", "pump-7/tls", "-m", protocol]);
        arguments.extend(site.login());
        publish(tls, &arguments).expect(0);
    }
    let mut arguments = vec!["--cafile", &other, "-q", "1", "-t", "pump-7/tls", "-m", "never"];
    arguments.extend(site.login());
    assert_ne!(
        publish(tls, &arguments).code,
        0,
        "the client was satisfied with a foreign certificate"
    );
    // Plain MQTT at the TLS port is not understood, and does no harm.
    let mut plain = Client::dial(tls, ProtocolVersion::V5).expect("the port is open");
    assert!(!matches!(
        plain.log_in("plain", None),
        Ok(Received::ConnAck(ReasonCode::Success))
    ));
    let readings = site.wait_readings(2);
    let payloads: Vec<_> = readings
        .iter()
        .map(|reading| reading["payload"].as_str())
        .collect();
    assert_eq!(payloads, [Some("tlsv1.3"), Some("tlsv1.2")]);
}

/// Makes a certificate for 127.0.0.1 that signs itself, in the gateway's directory; returns its path.
fn certificate(site: &Site, name: &str) -> String {
    let path = |ending: &str| site.gateway.dir.join(format!("{name}.{ending}"));
    let (certificate, key) = (path("pem"), path("key"));
    let words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let mut make = command(&words);
    make.args([
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]);
    run(make.arg("-out").arg(&certificate).arg("-keyout").arg(key)).expect(0);
    certificate.to_str().expect("the path is text").to_owned()
}

#[test]
fn a_thousand_clients_at_once_publish_and_are_acknowledged() {
    raise_descriptor_limit();
    let mut site = Site::new().without_broker();
    site.gateway
        .edit("alarm_topics = ", "anonymous = true\nalarm_topics = ");
    site.start();
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|number| {
            let version = if number % 2 == 0 {
                ProtocolVersion::V5
            } else {
                ProtocolVersion::V311
            };
            Client::connect(site.mqtt, version, &format!("press-{number}"), None).expect("there is room")
        })
        .collect();
    let status = site.gateway.status();
    assert_eq!(shards(&status, "clients"), CLIENTS as u64);
    // All publish before the first waits for its answer.
    for (number, client) in clients.iter_mut().enumerate() {
        let topic = format!("press-{number}/count");
        client
            .publish(1, &topic, number.to_string().as_bytes(), false)
            .expect("the socket works");
    }
    for client in &mut clients {
        let answer = client.receive().expect("the socket works");
        assert_eq!(answer, Received::PubAck(1, ReasonCode::Success));
    }
    let readings = site.wait_readings(CLIENTS);
    let numbers: std::collections::BTreeSet<_> = readings
        .iter()
        .filter_map(|reading| reading["payload"].as_str())
        .collect();
    assert_eq!((readings.len(), numbers.len()), (CLIENTS, CLIENTS));
    drop(clients);
    site.gateway
        .wait_status("all gone", |status| shards(status, "clients") == 0);
}

/// Makes room for the sockets of this process.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("the limit can be raised to the maximum");
}

/// Adds a field of the status up over all shards.
fn shards(status: &serde_json::Value, field: &str) -> u64 {
    let shards = status["shards"].as_array().map_or(&[][..], Vec::as_slice);
    shards.iter().filter_map(|shard| shard[field].as_u64()).sum()
}

fn log_in(site: &Site, version: ProtocolVersion, client_id: &str) -> Client {
    let login = Some((DEVICE, site.password.as_str()));
    Client::connect(site.mqtt, version, client_id, login).expect("the gateway takes the device")
}

fn topic() -> String {
    format!("{DEVICE}/temperature")
}

/// Clients at the same time.
const CLIENTS: usize = 1000;
