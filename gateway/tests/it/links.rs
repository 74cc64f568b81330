//! Links over WebSockets: with TLS, through a proxy, and in a race with TCP; over QUIC; over UNIX sockets.

mod local;
mod quic;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::Value;

use crate::harness::{
    broker::publish,
    node::{Node, text},
    pki::Pki,
    ports,
    site::{DEVICE, Site},
};

/// A site whose relay listens for WebSockets too, and its addresses for those with and without TLS.
fn site() -> (Site, String, Pki) {
    let site = Site::new().without_broker();
    let pki = Pki::new(site.dir(), "links");
    let own = pki.server("relay");
    let port = ports::free();
    site.relay.append(&format!(
        "[link.websocket]\nlisten = [\"127.0.0.1:{port}\"]\ncertificate = \"{}\"\nkey = \"{}\"\npath = \"/links\"\n",
        own.certificate, own.key
    ));
    (site, format!("wss://127.0.0.1:{port}/links"), pki)
}

/// Starts the relay first, so that no address fails because nobody listens yet.
fn start(site: &mut Site) {
    site.relay.start();
    site.collector.start();
    site.gateway.start();
}

/// Has a node dial the relay at other addresses.
fn dial(site: &Site, node: &Node, address: &str, also: &str) {
    node.edit(
        &format!("address = \"{}\"", site.link),
        &format!("address = \"{address}\", also = [{also}]"),
    );
}

/// Publishes one reading and waits until it is behind the collector.
fn carry(site: &Site, payload: &str) {
    publish_one(site, payload);
    let readings = site.wait_readings(1);
    assert_eq!(readings[0]["payload"], payload);
}

fn publish_one(site: &Site, payload: &str) {
    let topic = format!("{DEVICE}/temperature");
    let mut arguments = vec!["-q", "1", "-t", &topic, "-m", payload];
    arguments.extend(site.login());
    publish(site.mqtt, &arguments).expect(0);
}

/// Waits until a node's only link is up, and returns it.
fn link(node: &Node) -> Value {
    let status = node.wait_status("link up", |status| status["network"]["links"][0]["state"] == "up");
    status["network"]["links"][0].clone()
}

#[test]
fn readings_travel_over_tls_and_through_a_proxy() {
    let (mut site, wss, pki) = site();
    let proxy = Proxy::start();
    let ca = format!("[link.websocket]\nca = \"{}\"\n", pki.ca());
    dial(&site, &site.gateway, &wss, "");
    site.gateway.append(&ca);
    dial(&site, &site.collector, &wss, "");
    site.collector.write_secret("proxy-password", b"open sesame");
    site.collector.append(&format!(
        "{ca}proxy = \"http://{}\"\nproxy_username = \"Aladdin\"\nproxy_password = {{ file = \"proxy-password\" }}\n",
        proxy.address
    ));
    start(&mut site);
    carry(&site, "21.5");

    let direct = link(&site.gateway);
    assert!(text(&direct, "peer").starts_with(&wss), "{direct}");
    assert_eq!(direct["chosen"], "its only address");
    let proxied = link(&site.collector);
    let by = format!("{wss} by proxy {}", proxy.address);
    assert_eq!(proxied["peer"], by.as_str());
    let status = site.relay.wait_status("two links", |status| {
        status["network"]["links"]
            .as_array()
            .is_some_and(|links| links.len() == 2)
    });
    for link in status["network"]["links"].as_array().expect("two links") {
        assert!(text(link, "peer").ends_with(" over WebSocket"), "{link}");
    }
    let asked = proxy.asked.lock().expect("nobody panicked").clone();
    let target = wss.trim_start_matches("wss://").trim_end_matches("/links");
    assert!(
        asked.starts_with(&format!("CONNECT {target} HTTP/1.1\r\n")),
        "{asked}"
    );
    assert!(
        asked.contains("Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        "{asked}"
    );
    site.gateway.stop();
    site.collector.stop();
    site.relay.stop();
}

#[test]
fn the_first_address_that_answers_is_kept() {
    let (mut site, wss, pki) = site();
    let ca = format!("[link.websocket]\nca = \"{}\"\n", pki.ca());
    // Takes connections and says nothing: a WebSocket never opens there.
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let silent = format!("wss://{}/", listener.local_addr().expect("it is bound"));
    let tcp = site.link.to_string();
    dial(&site, &site.gateway, &silent, &format!("\"{tcp}\""));
    site.gateway.append(&ca);
    // Nobody listens on that port of this address.
    let closed = format!("127.7.7.7:{}", ports::free());
    dial(&site, &site.collector, &closed, &format!("\"{wss}\""));
    site.collector.append(&ca);
    start(&mut site);
    carry(&site, "22.5");
    let kept = link(&site.gateway);
    assert_eq!(kept["peer"], tcp.as_str());
    assert_eq!(kept["chosen"], format!("answered before {silent}").as_str());
    let other = link(&site.collector);
    assert!(text(&other, "peer").starts_with(&wss), "{other}");
    let why = text(&other, "chosen");
    assert!(why.starts_with(&format!("another failed: {closed}: ")), "{why}");
    site.gateway.stop();
    site.collector.stop();
    site.relay.stop();
}

#[test]
fn a_certificate_of_a_stranger_is_not_taken() {
    let (mut site, wss, _) = site();
    let stranger = Pki::new(site.dir(), "stranger");
    dial(&site, &site.gateway, &wss, "");
    site.gateway
        .append(&format!("[link.websocket]\nca = \"{}\"\n", stranger.ca()));
    start(&mut site);
    site.gateway.wait_status("failed dials", |status| {
        status["network"]["dials_failed"]
            .as_u64()
            .is_some_and(|count| count > 0)
    });
    let status = site.gateway.try_status().expect("it runs");
    assert!(
        status["network"]["links"].as_array().is_none_or(Vec::is_empty),
        "{status:#}"
    );
    site.gateway.stop();
    site.collector.stop();
    site.relay.stop();
}

/// An HTTP proxy that lets everything through, and keeps the first request.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<String>>,
}

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("it is bound");
        let asked = Arc::new(Mutex::new(String::new()));
        let first = Arc::clone(&asked);
        // Ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let first = Arc::clone(&first);
                thread::spawn(move || tunnel(client, &first));
            }
        });
        Self { address, asked }
    }
}

fn tunnel(mut client: TcpStream, first: &Mutex<String>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match client.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).expect("a request is text");
    let target = head.split(' ').nth(1).expect("a target").to_owned();
    let mut asked = first.lock().expect("nobody panicked");
    if asked.is_empty() {
        *asked = head;
    }
    drop(asked);
    let Ok(mut server) = TcpStream::connect(target) else {
        // The relay may not listen yet; the client tries again.
        let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
        return;
    };
    let established = client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
    let (Ok(()), Ok(mut from_client), Ok(mut to_server)) =
        (established, client.try_clone(), server.try_clone())
    else {
        return;
    };
    let up = thread::spawn(move || drop(std::io::copy(&mut from_client, &mut to_server)));
    drop(std::io::copy(&mut server, &mut client));
    drop(client.shutdown(std::net::Shutdown::Both));
    drop(up.join());
}
