//! The listeners beside plain MQTT, with stock clients: certificates, pre-shared keys, WebSockets.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
};

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use openssl::ssl::{Ssl, SslContextBuilder, SslMethod, SslStream};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};

use crate::harness::{
    broker::publish,
    client::{Client, Received},
    pki::{Certified, Pki},
    ports,
    process::{CLIENT_TIME, Ended, command, run},
    site::{DEVICE, Site},
    wait::{PATIENCE, Stopwatch},
};
use fieldgate_mqtt::{reason::ReasonCode, version::ProtocolVersion};

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

/// Publishes with mosquitto's client and a certificate.
fn publish_as(to: SocketAddr, ca: &str, device: Option<&Certified>, more: &[&str]) -> Ended {
    let mut arguments = vec!["--cafile", ca, "-q", "1"];
    if let Some(device) = device {
        arguments.extend(["--cert", &device.certificate, "--key", &device.key]);
    }
    arguments.extend(more);
    publish(to, &arguments)
}

fn payloads(site: &Site, count: usize) -> Vec<(String, String)> {
    site.wait_readings(count)
        .iter()
        .map(|reading| {
            let text = |field: &str| reading[field].as_str().unwrap_or_default().to_owned();
            (text("device"), text("payload"))
        })
        .collect()
}

#[test]
fn a_device_is_known_by_its_certificate() {
    let mut site = Site::new().without_broker();
    let dir = site.gateway.dir.clone();
    let (pki, stranger) = (Pki::new(&dir, "plant"), Pki::new(&dir, "stranger"));
    pki.server("server");
    let by_name = pki.device("a", "press-1", &[], 1);
    let by_dns = pki.device("b", "whatever", &["press-2.plant.example"], 2);
    let by_hash = pki.device("c", "whatever", &[], 3);
    let revoked = pki.device("d", "press-1", &[], 4);
    let unknown = pki.device("e", "press-9", &[], 5);
    let expired = pki.expired_device("f", "press-1");
    let foreign = stranger.device("g", "press-1", &[], 1);
    pki.revoke("plant.crl", &[4, 77]);
    let hash: String = digest::digest(&digest::SHA256, &by_hash.der)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02X}:"))
        .collect();
    let tls = address();
    site.gateway.append(&format!(
        "\n[mqtt.tls]\nlisten = [\"{tls}\"]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"plant.pem\"\nclient_crl = \"plant.crl\"\n\
         \n[[mqtt.device]]\nname = \"press-1\"\ncertificate = {{ subject_cn = \"press-1\" }}\n\
         \n[[mqtt.device]]\nname = \"press-2\"\ncertificate = {{ san_dns = \"press-2.plant.example\" }}\n\
         \n[[mqtt.device]]\nname = \"press-3\"\ncertificate = {{ sha256 = \"{}\" }}\n",
        hash.trim_end_matches(':')
    ));
    site.start();
    let ca = pki.ca();
    for (name, device, version) in [
        ("press-1", &by_name, "tlsv1.3"),
        ("press-1", &by_name, "tlsv1.2"),
        ("press-2", &by_dns, "tlsv1.3"),
        ("press-3", &by_hash, "tlsv1.2"),
    ] {
        let topic = format!("{name}/t");
        publish_as(
            tls,
            &ca,
            Some(device),
            &["--tls-version", version, "-t", &topic, "-m", version],
        )
        .expect(0);
    }
    // The certificate says who it is, whatever CONNECT says.
    let wrong = ["-u", DEVICE, "-P", "wrong", "-t", "press-1/t", "-m", "named"];
    publish_as(tls, &ca, Some(&by_name), &wrong).expect(0);
    for refused in [
        Some(&revoked),
        Some(&unknown),
        Some(&expired),
        Some(&foreign),
        None,
    ] {
        for version in ["tlsv1.2", "tlsv1.3"] {
            let more = [
                "--tls-version",
                version,
                "-t",
                "press-1/t",
                "-m",
                "never",
                "-u",
                DEVICE,
                "-P",
                &site.password,
            ];
            let ended = publish_as(tls, &ca, refused, &more);
            assert_ne!(ended.code, 0, "{refused:?}: {ended:?}");
        }
    }
    let readings = payloads(&site, 5);
    let expected = [
        ("press-1", "tlsv1.3"),
        ("press-1", "tlsv1.2"),
        ("press-2", "tlsv1.3"),
        ("press-3", "tlsv1.2"),
        ("press-1", "named"),
    ];
    assert_eq!(
        readings,
        expected.map(|(device, payload)| (device.to_owned(), payload.to_owned()))
    );
    // Who looks for the reason finds it.
    let gateway = site.gateway.process();
    gateway.wait_for("the revoked one", |line| {
        (line.contains("certificate of a device refused") && line.contains("Revoked")).then_some(())
    });
    gateway.wait_for("the unknown one", |line| {
        (line.contains("press-9") && line.contains("no [[mqtt.device]] stands for it")).then_some(())
    });
}

#[test]
fn a_password_does_where_certificates_are_optional_and_a_strange_certificate_does_not() {
    let mut site = Site::new().without_broker();
    let dir = site.gateway.dir.clone();
    let pki = Pki::new(&dir, "plant");
    pki.server("server");
    let known = pki.device("a", "press-1", &[], 1);
    let unknown = pki.device("b", "press-9", &[], 2);
    let tls = address();
    site.gateway.append(&format!(
        "\n[mqtt.tls]\nlisten = [\"{tls}\"]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"plant.pem\"\nclient_auth = \"optional\"\n\
         \n[[mqtt.device]]\nname = \"press-1\"\ncertificate = {{ subject_cn = \"press-1\" }}\n"
    ));
    site.start();
    let ca = pki.ca();
    publish_as(tls, &ca, Some(&known), &["-t", "press-1/t", "-m", "certificate"]).expect(0);
    let login = [
        "-u",
        DEVICE,
        "-P",
        &site.password,
        "-t",
        "pump-7/t",
        "-m",
        "password",
    ];
    publish_as(tls, &ca, None, &login).expect(0);
    assert_ne!(publish_as(tls, &ca, Some(&unknown), &login).code, 0);
    assert_ne!(
        publish_as(tls, &ca, None, &["-t", "press-1/t", "-m", "never"]).code,
        0
    );
    // Nobody logs in by the name of a device that has only a certificate, and not on the plain port either.
    let name_only = [
        "-u",
        "press-1",
        "-P",
        "",
        "-q",
        "1",
        "-t",
        "press-1/t",
        "-m",
        "never",
    ];
    assert_ne!(publish(site.mqtt, &name_only).code, 0);
    let readings = payloads(&site, 2);
    assert_eq!(readings[0], ("press-1".to_owned(), "certificate".to_owned()));
    assert_eq!(readings[1], ("pump-7".to_owned(), "password".to_owned()));
}

#[test]
fn a_certificate_that_is_revoked_later_is_refused_without_a_restart() {
    let mut site = Site::new().without_broker();
    let dir = site.gateway.dir.clone();
    let pki = Pki::new(&dir, "plant");
    pki.server("server");
    let device = pki.device("a", "press-1", &[], 9);
    pki.revoke("plant.crl", &[]);
    let tls = address();
    site.gateway.append(&format!(
        "\n[mqtt.tls]\nlisten = [\"{tls}\"]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"plant.pem\"\nclient_crl = \"plant.crl\"\n\
         \n[[mqtt.device]]\nname = \"press-1\"\ncertificate = {{ subject_cn = \"press-1\" }}\n"
    ));
    site.gateway.start();
    let message = ["-t", "press-1/t", "-m", "21"];
    publish_as(tls, &pki.ca(), Some(&device), &message).expect(0);
    // A list that cannot be read changes nothing and is told.
    std::fs::write(dir.join("plant.crl"), "no list").expect("the directory is ours");
    site.gateway.process().wait_for_text("changed files not taken");
    publish_as(tls, &pki.ca(), Some(&device), &message).expect(0);
    pki.revoke("plant.crl", &[9]);
    site.gateway.process().wait_for_text("changed files taken");
    assert_ne!(publish_as(tls, &pki.ca(), Some(&device), &message).code, 0);
}

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn psk_site() -> (Site, SocketAddr) {
    let site = Site::new().without_broker();
    let psk = address();
    site.gateway.write_secret("press-1.psk", KEY.as_bytes());
    site.gateway.append(&format!(
        "\n[mqtt.psk]\nlisten = [\"{psk}\"]\n\n[[mqtt.device]]\nname = \"press-1\"\n\
         psk = {{ identity = \"first press\", key = {{ file = \"press-1.psk\" }} }}\n"
    ));
    (site, psk)
}

#[test]
fn a_device_is_known_by_its_pre_shared_key() {
    let (mut site, psk) = psk_site();
    site.start();
    let say = |identity: &str, key: &str, version: &str| {
        let message = [
            "--psk",
            key,
            "--psk-identity",
            identity,
            "--tls-version",
            version,
            "-q",
            "1",
        ];
        publish(psk, &[&message[..], &["-t", "press-1/t", "-m", version]].concat())
    };
    for version in ["tlsv1.2", "tlsv1.3"] {
        say("first press", KEY, version).expect(0);
        let wrong = say("first press", &KEY.replace("00", "01"), version);
        let unknown = say("second press", KEY, version);
        // To the stock client both are the same; how it says so depends on the moment.
        for refused in [wrong, unknown] {
            assert_ne!(refused.code, 0, "{refused:?}");
            assert!(refused.err.contains("A TLS error occurred"), "{refused:?}");
        }
    }
    let readings = payloads(&site, 2);
    assert!(
        readings.iter().all(|(device, _)| device == "press-1"),
        "{readings:?}"
    );
    // The key is nowhere to be seen.
    let printed = site.gateway.process().output().join("\n");
    assert!(!printed.contains(KEY) && !printed.to_lowercase().contains("00112233"));
}

#[test]
fn a_key_that_is_none_refuses_to_start_and_is_not_shown() {
    let (mut site, _) = psk_site();
    site.gateway
        .write_secret("press-1.psk", b"correct horse battery staple");
    site.gateway.spawn();
    let gateway = site.gateway.process();
    assert!(!gateway.wait().success());
    let printed = gateway.output().join("\n");
    assert!(
        printed.contains("psk of the device press-1") && printed.contains("openssl rand -hex 32"),
        "{printed}"
    );
    assert!(!printed.contains("horse"), "{printed}");
}

/// Runs the Paho client over a transport.
fn paho(url: &str, more: &[&str]) -> Ended {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = here.join("../target/python/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run `cargo xtask setup`, which installs paho-mqtt there",
        python.display()
    );
    let limit = CLIENT_TIME.as_secs().to_string();
    let mut client = command(&["timeout", &limit]);
    client.arg(&python).arg(here.join("tests/it/mqtt_over.py"));
    run(client.args([url, "paho"]).args(more))
}

#[test]
fn paho_speaks_through_web_sockets_with_and_without_tls() {
    let mut site = Site::new().without_broker();
    let dir = site.gateway.dir.clone();
    let pki = Pki::new(&dir, "plant");
    pki.server("server");
    let device = pki.device("a", "press-1", &[], 1);
    let (ws, wss) = (address(), address());
    site.gateway.append(&format!(
        "\n[mqtt.websocket]\nlisten = [\"{ws}\"]\n\
         \n[mqtt.websocket.tls]\nlisten = [\"{wss}\"]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"plant.pem\"\nclient_auth = \"optional\"\n\
         \n[[mqtt.device]]\nname = \"press-1\"\ncertificate = {{ subject_cn = \"press-1\" }}\n"
    ));
    site.start();
    let login = ["--login", DEVICE, &site.password];
    let large = "x".repeat(40_000);
    let plain = paho(
        &format!("ws://{ws}/mqtt"),
        &[&["pump-7/t", "plain"][..], &login].concat(),
    );
    let big = paho(
        &format!("ws://{ws}/mqtt"),
        &[&["pump-7/t", &large][..], &login].concat(),
    );
    let ca = pki.ca();
    let tls = paho(
        &format!("wss://{wss}/mqtt"),
        &[&["pump-7/t", "tls", &ca][..], &login].concat(),
    );
    let certificate = ["press-1/t", "certificate", &ca, &device.certificate, &device.key];
    let proven = paho(&format!("wss://{wss}/mqtt"), &certificate);
    for ended in [plain, big, tls, proven] {
        let ended = ended.expect(0);
        assert!(
            ended
                .out
                .starts_with("connected: Success\nsubscribed: Granted QoS 1\nreceived: "),
            "{ended:?}"
        );
    }
    assert_ne!(
        paho(
            &format!("ws://{ws}/other"),
            &[&["pump-7/t", "never"][..], &login].concat()
        )
        .code,
        0
    );
    let refused = paho(
        &format!("ws://{ws}/mqtt"),
        &["pump-7/t", "never", "--login", DEVICE, "wrong"],
    );
    assert!(!refused.out.contains("connected: Success"), "{refused:?}");
    let readings = payloads(&site, 4);
    let devices: Vec<_> = readings.iter().map(|(device, _)| device.as_str()).collect();
    assert_eq!(devices, ["pump-7", "pump-7", "pump-7", "press-1"]);
    assert_eq!(readings[1].1, large);
}

/// A request for an upgrade, as browsers send it.
const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// CONNECT of MQTT 3.1.1, clean session, client identifier `w`.
const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01w";

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let len = u8::try_from(payload.len()).expect("short frames only");
    assert!(len < 126);
    let mut bytes = vec![first, 0x80 | len];
    bytes.extend_from_slice(&mask);
    bytes.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

/// Sends bytes, portion by portion, and returns everything that comes until the other end closes.
fn converse(to: SocketAddr, portions: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).expect("the port is open");
    stream.set_nodelay(true).expect("it is a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    for portion in portions {
        // The other end may close at any byte.
        if stream.write_all(portion).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        answer.extend_from_slice(&piece[..count]);
    }
    answer
}

#[test]
fn web_sockets_keep_to_the_standard_on_the_wire() {
    let mut site = Site::new().without_broker();
    let ws = address();
    site.gateway.edit(
        "alarm_topics = ",
        "anonymous = true\nconnect_timeout_secs = 60\nalarm_topics = ",
    );
    site.gateway.append(&format!(
        "\n[mqtt.websocket]\nlisten = [\"{ws}\"]\norigins = [\"https://panel.example.net\"]\n"
    ));
    site.gateway.start();
    let request = REQUEST.as_bytes();
    // CONNECT in three fragments with a ping between them, then PINGREQ and DISCONNECT in one frame; all of it byte by byte.
    let bytes = [
        request,
        &frame(0x02, &CONNECT[..5]),
        &frame(0x89, b"beat"),
        &frame(0x00, &CONNECT[5..6]),
        &frame(0x80, &CONNECT[6..]),
        &frame(0x82, b"\xc0\x00\xe0\x00"),
    ]
    .concat();
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    for portions in [&[&bytes[..]][..], &single] {
        let answer = converse(ws, portions);
        let head = answer
            .windows(4)
            .position(|end| end == b"\r\n\r\n")
            .expect("an answer")
            + 4;
        assert!(answer.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
        let frames = &answer[head..];
        let has = |part: &[u8]| frames.windows(part.len()).any(|window| window == part);
        assert!(has(b"\x8a\x04beat"), "{frames:?}");
        assert!(has(b"\x20\x02\x00\x00") && has(b"\xd0\x00"), "{frames:?}");
        assert!(frames.ends_with(b"\x88\x02\x03\xe8"), "{frames:?}");
    }
    for (more, code) in [
        (frame(0x81, b"text"), 1003_u16),
        (vec![0x82, 0x01, 0x10], 1002),
        (frame(0xc2, b"x"), 1002),
        (vec![0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], 1009),
        (frame(0x88, &[0x03, 0xe9]), 1001),
    ] {
        let answer = converse(ws, &[request, &more]);
        let [high, low] = code.to_be_bytes();
        assert!(answer.ends_with(&[0x88, 2, high, low]), "{code}: {answer:?}");
    }
    let web = |from: &str, to: &str| {
        let answer = converse(ws, &[REQUEST.replacen(from, to, 1).as_bytes()]);
        String::from_utf8_lossy(&answer)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(web("/mqtt", "/"), "HTTP/1.1 404 Not Found");
    assert_eq!(web("Upgrade: websocket\r\n", ""), "HTTP/1.1 426 Upgrade Required");
    assert_eq!(
        web("Protocol: mqtt", "Protocol: chat"),
        "HTTP/1.1 400 Bad Request"
    );
    assert_eq!(
        web("Host", "Origin: https://evil.example\r\nHost"),
        "HTTP/1.1 403 Forbidden"
    );
    assert_eq!(
        web(
            "Host",
            "Origin: https://panel.example.net\r\nConnection: close\r\nHost:\r\nHost"
        ),
        "HTTP/1.1 400 Bad Request"
    );
}

#[test]
fn garbage_in_any_phase_of_a_handshake_harms_nobody_else() {
    let (mut site, psk) = psk_site();
    let dir = site.gateway.dir.clone();
    let pki = Pki::new(&dir, "plant");
    pki.server("server");
    let (tls, ws) = (address(), address());
    site.gateway.append(&format!(
        "\n[mqtt.websocket]\nlisten = [\"{ws}\"]\n\
         \n[mqtt.tls]\nlisten = [\"{tls}\"]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n"
    ));
    site.gateway.start();
    let login = Some((DEVICE, site.password.as_str()));
    let mut good =
        Client::connect(site.mqtt, ProtocolVersion::V5, "good", login).expect("the gateway takes the device");
    let hello = client_hello(&pki);
    let mut random = 11_u64;
    let mut noise = |len: usize| -> Vec<u8> {
        std::iter::repeat_with(|| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            random.to_be_bytes()[0]
        })
        .take(len)
        .collect()
    };
    let mut connected = REQUEST.as_bytes().to_vec();
    connected.extend(frame(0x82, CONNECT));
    for round in 0..30 {
        let tail = noise(50 + round * 97);
        let cut = hello.len() * round / 29;
        // Noise alone, in the middle of a hello, behind a whole one, and as records of the right form.
        let record = [&[23, 3, 3, 0, 200][..], &noise(200)].concat();
        for to in [tls, psk] {
            converse_and_leave(to, &[&tail]);
            converse_and_leave(to, &[&hello[..cut], &tail]);
            converse_and_leave(to, &[&hello, &record]);
        }
        let cut = connected.len() * round / 29;
        converse_and_leave(ws, &[&connected[..cut], &tail]);
        let id = u16::try_from(round + 1).expect("a few rounds");
        let answer = good
            .publish_and_wait(id, "pump-7/t", b"21.5")
            .expect("the socket works");
        assert_eq!(answer, Received::PubAck(id, ReasonCode::Success));
    }
    site.gateway
        .wait_status("the strangers gone", |status| shards(status, "clients") == 1);
}

/// Sends bytes, says that no more come, and waits for the end.
fn converse_and_leave(to: SocketAddr, portions: &[&[u8]]) {
    let mut stream = TcpStream::connect(to).expect("the port is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    for portion in portions {
        // The other end may close at any byte.
        let _ = stream.write_all(portion);
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut piece = [0; 4096];
    while matches!(stream.read(&mut piece), Ok(1..)) {}
}

/// What a TLS client says first.
fn client_hello(pki: &Pki) -> Vec<u8> {
    let mut hello = Vec::new();
    let mut connection = tls_connection(pki);
    connection.write_tls(&mut hello).expect("it is memory");
    assert!(hello.len() > 100);
    hello
}

fn tls_connection(pki: &Pki) -> rustls::ClientConnection {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(pki.ca()).expect("it was just written"))
        .expect("it is an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    rustls::ClientConnection::new(Arc::new(config), name).expect("it is well configured")
}

#[test]
fn a_slow_handshake_ends_with_the_time_for_connect() {
    let (mut site, psk) = psk_site();
    let dir = site.gateway.dir.clone();
    let pki = Pki::new(&dir, "plant");
    pki.server("server");
    let (tls, ws) = (address(), address());
    site.gateway
        .edit("alarm_topics = ", "connect_timeout_secs = 1\nalarm_topics = ");
    site.gateway.append(&format!(
        "\n[mqtt.websocket]\nlisten = [\"{ws}\"]\n\
         \n[mqtt.tls]\nlisten = [\"{tls}\"]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n"
    ));
    site.gateway.start();
    let hello = client_hello(&pki);
    let pings: Vec<u8> = [
        REQUEST.as_bytes().to_vec(),
        frame(0x89, b"ping"),
        frame(0x82, &CONNECT[..7]),
    ]
    .concat();
    let clock = Stopwatch::start();
    let slow: Vec<_> = [
        (tls, &hello[..40]),
        (tls, &hello[..]),
        (psk, &hello[..40]),
        (ws, &REQUEST.as_bytes()[..30]),
        (ws, REQUEST.as_bytes()),
        (ws, &pings),
        (site.mqtt, &CONNECT[..7]),
    ]
    .into_iter()
    .map(|(to, start)| {
        let start = start.to_vec();
        std::thread::spawn(move || converse(to, &[&start]))
    })
    .collect();
    for waiting in slow {
        waiting.join().expect("it only reads");
    }
    let elapsed = clock.elapsed();
    assert!(elapsed.as_millis() >= 900, "they were given {elapsed:?}");
    site.gateway
        .wait_status("nobody left", |status| shards(status, "clients") == 0);
    // Bytes without end that never become MQTT end it before the time.
    let flood: Vec<u8> = [REQUEST.as_bytes().to_vec(), frame(0x89, &[7; 120]).repeat(2_000)].concat();
    let answer = converse(ws, &[&flood]);
    assert!(answer.len() < 128 << 10, "{} bytes were answered", answer.len());
}

#[test]
fn a_thousand_half_open_handshakes_shut_nobody_out() {
    let mut site = Site::new().without_broker();
    let dir = site.gateway.dir.clone();
    let pki = Pki::new(&dir, "plant");
    pki.server("server");
    let tls = address();
    site.gateway.edit(
        "alarm_topics = ",
        "clients_max = 300\nconnects_per_second_max = 0\nconnect_timeout_secs = 60\nalarm_topics = ",
    );
    site.gateway.append(&format!(
        "\n[mqtt.tls]\nlisten = [\"{tls}\"]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n"
    ));
    site.start();
    let before = resident_kib(&mut site);
    let hello = client_hello(&pki);
    let half_open: Vec<TcpStream> = (0..1000)
        .map(|_| {
            let mut stream = TcpStream::connect(tls).expect("the port is open");
            // The gateway may have closed this one for a newer one.
            let _ = stream.write_all(&hello[..hello.len() / 2]);
            stream
        })
        .collect();
    let login = [
        "-t",
        "pump-7/t",
        "-m",
        "in time",
        "-u",
        DEVICE,
        "-P",
        &site.password,
    ];
    publish_as(tls, &pki.ca(), None, &login).expect(0);
    let status = site.gateway.wait_status("most were refused", |status| {
        (1..=190).contains(&shards(status, "clients")) && shards(status, "refused") >= 800
    });
    let clients = shards(&status, "clients");
    let after = resident_kib(&mut site);
    println!(
        "{clients} half-open TLS connections take {} KiB",
        after.saturating_sub(before)
    );
    drop(half_open);
    assert_eq!(payloads(&site, 1), [("pump-7".to_owned(), "in time".to_owned())]);
}

#[test]
fn an_idle_device_behind_tls_takes_little_memory() {
    let (mut site, psk) = psk_site();
    let dir = site.gateway.dir.clone();
    let pki = Pki::new(&dir, "plant");
    pki.server("server");
    let tls = address();
    site.gateway.edit(
        "alarm_topics = ",
        "anonymous = true\nconnects_per_second_max = 0\nalarm_topics = ",
    );
    site.gateway.append(&format!(
        "\n[mqtt.tls]\nlisten = [\"{tls}\"]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n"
    ));
    site.gateway.start();
    let by_certificate = memory_of_each(&mut site, || connect_tls(&pki, tls));
    let by_key = memory_of_each(&mut site, || connect_psk(psk));
    println!("an idle connection takes {by_certificate} KiB with TLS, {by_key} KiB with TLS-PSK");
    assert!(
        by_certificate < 40 && by_key < 60,
        "{by_certificate} KiB, {by_key} KiB"
    );
}

/// Opens connections, and closes them; returns how much memory each takes at the gateway, in KiB.
fn memory_of_each<C>(site: &mut Site, mut connect: impl FnMut() -> C) -> u64 {
    // The first ones pay for what all share.
    let mut open: Vec<C> = (0..20).map(|_| connect()).collect();
    let before = resident_kib(site);
    open.extend((0..IDLE).map(|_| connect()));
    let each = resident_kib(site).saturating_sub(before) / IDLE;
    let status = site.gateway.status();
    assert_eq!(shards(&status, "clients"), IDLE + 20);
    drop(open);
    site.gateway
        .wait_status("all gone", |status| shards(status, "clients") == 0);
    each
}

/// Connects with a pre-shared key and waits for CONNACK.
fn connect_psk(to: SocketAddr) -> SslStream<TcpStream> {
    let mut builder = SslContextBuilder::new(SslMethod::tls_client()).expect("there is memory");
    builder.set_psk_client_callback(|_, _, identity, key| {
        let name = b"first press\0";
        identity[..name.len()].copy_from_slice(name);
        let bytes = HEXLOWER.decode(KEY.as_bytes()).expect("hexadecimal digits");
        key[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    });
    let stream = TcpStream::connect(to).expect("the port is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    let ssl = Ssl::new(&builder.build()).expect("there is memory");
    let mut stream = SslStream::new(ssl, stream).expect("there is memory");
    stream.connect().expect("the gateway knows the key");
    greet(&mut stream);
    stream
}

/// Sends CONNECT and waits for CONNACK.
fn greet(stream: &mut (impl std::io::Read + std::io::Write)) {
    stream
        .write_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")
        .expect("the gateway listens");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("the gateway answers");
    assert_eq!(answer, [0x20, 2, 0, 0]);
}

/// Connections whose memory is measured.
const IDLE: u64 = 300;

/// Connects over TLS and waits for CONNACK.
fn connect_tls(pki: &Pki, to: SocketAddr) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    let stream = TcpStream::connect(to).expect("the port is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    let mut stream = rustls::StreamOwned::new(tls_connection(pki), stream);
    greet(&mut stream);
    stream
}

/// Memory that the gateway's process has to itself, in KiB.
fn resident_kib(site: &mut Site) -> u64 {
    let pid = site.gateway.process().pid().as_raw_nonzero();
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"))
        .expect("the kernel says so");
    let number = line.trim().trim_end_matches(" kB");
    number.parse().expect("it is a number")
}

/// Adds a field of the status up over all shards.
fn shards(status: &serde_json::Value, field: &str) -> u64 {
    let shards = status["shards"].as_array().map_or(&[][..], Vec::as_slice);
    shards.iter().filter_map(|shard| shard[field].as_u64()).sum()
}
