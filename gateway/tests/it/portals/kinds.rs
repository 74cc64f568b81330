//! Kinds of ends that a portal can have.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    process::Command,
};

use super::*;

#[test]
fn unix_sockets_are_both_ends_of_a_stream() {
    let mut portals = Portals::new(ports::free());
    let (near, far) = (
        portals.dir.path().join("near.sock"),
        portals.dir.path().join("far.sock"),
    );
    let server = UnixListener::bind(&far).expect("the directory is ours");
    portals.add_outlet("far", &format!("address = \"unix:{}\"", far.display()));
    portals.add_listener(
        "near",
        &format!("unix:{}", near.display()),
        "far",
        "mode = \"0640\"",
    );
    // Left behind by a process that was killed.
    drop(UnixListener::bind(&near).expect("the directory is ours"));
    portals.start();
    let mode = fs::metadata(&near)
        .expect("the inlet listens")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    let mut client = UnixStream::connect(&near).expect("the inlet listens");
    client.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    let (mut served, _) = server.accept().expect("the outlet connects");
    client.write_all(&[7; 100_000]).expect("the stream takes it");
    client.shutdown(Shutdown::Write).expect("it is open");
    let mut all = Vec::new();
    served.read_to_end(&mut all).expect("it arrives");
    assert_eq!(all, [7; 100_000]);
    served
        .write_all(b"after the end")
        .expect("the other direction is open");
    drop(served);
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("it comes");
    assert_eq!(answer, "after the end");
    let user = format!("user=\"uid:{}\"", rustix::process::geteuid().as_raw());
    for node in [&mut portals.desk, &mut portals.hall] {
        let line = node.process().wait_for_text("portal stream ended");
        assert!(
            line.contains(&user) && line.contains("origin=\"unix:process="),
            "{line}"
        );
    }
    let shown = portals.desk.run(&["portal", "list"]).expect(0);
    assert!(
        shown.out.contains(&format!("near on unix:{}", near.display())),
        "{}",
        shown.out
    );
    // Nobody listens any more behind the outlet.
    drop(server);
    let mut refused = UnixStream::connect(&near).expect("the inlet listens");
    refused.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    // A UNIX socket knows no reset: it just ends.
    assert_eq!(refused.read(&mut [0]).unwrap_or(0), 0);
    portals.desk.stop();
    assert!(!near.exists(), "the file goes with the inlet");
}

/// Reads to the end, and gives everything back.
fn say_back(mut stream: TcpStream) {
    let mut all = Vec::new();
    if stream.read_to_end(&mut all).is_ok() {
        let _ = stream.write_all(&all);
    }
}

/// A PROXY header of version 2 for somebody at an address.
fn binary_header(source: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend_from_slice(&source.octets());
    header.extend_from_slice(&[192, 0, 2, 1]);
    header.extend_from_slice(&port.to_be_bytes());
    header.extend_from_slice(&[1, 0xbb]);
    header
}

#[test]
fn who_is_behind_a_load_balancer_is_told_to_what_is_behind_the_outlet() {
    let server = serve(say_back);
    let mut portals = Portals::new(server);
    portals.add_outlet(
        "told",
        &format!("address = \"127.0.0.1:{server}\"\nsend_proxy = \"v1\""),
    );
    portals.add_inlet(
        "balanced",
        "told",
        "accept_proxy_from = [\"127.0.0.1\"]\nallow = [\"192.0.2.0/24\"]",
    );
    portals.add_inlet("plain", "told", "");
    portals.start();
    let hear = |mut stream: TcpStream| {
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut back = String::new();
        stream.read_to_string(&mut back).expect("it comes back");
        back
    };
    // The header comes in two pieces, the second with the first bytes of the stream.
    let mut stream = portals.connect("balanced");
    let header = binary_header(Ipv4Addr::new(192, 0, 2, 7), 4711);
    stream.write_all(&header[..10]).expect("the stream takes it");
    stream
        .write_all(&[&header[10..], b"hello"].concat())
        .expect("the stream takes it");
    assert_eq!(
        hear(stream),
        format!("PROXY TCP4 192.0.2.7 127.0.0.1 4711 {server}\r\nhello")
    );
    let line = portals.hall.process().wait_for_text("portal stream ended");
    assert!(line.contains("origin=\"192.0.2.7:4711\""), "{line}");
    // Without a load balancer it is whoever connected.
    let mut stream = portals.connect("plain");
    let port = stream.local_addr().expect("it is bound").port();
    stream.write_all(b"hi").expect("the stream takes it");
    assert_eq!(
        hear(stream),
        format!("PROXY TCP4 127.0.0.1 127.0.0.1 {port} {server}\r\nhi")
    );
    // Somebody who is not allowed, and a load balancer that says nothing of the kind.
    for first in [
        binary_header(Ipv4Addr::new(198, 51, 100, 1), 4711),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        let mut stream = portals.connect("balanced");
        stream.write_all(&first).expect("the stream takes it");
        wait_reset(&mut stream);
    }
    let balanced = Portals::portal(&portals.desk, "inlets", "balanced");
    assert_eq!(
        (&balanced["refused"], &balanced["streams_total"]),
        (&2.into(), &1.into())
    );
}

/// Answers one request of HTTP.
fn answer_http(mut stream: TcpStream) {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(count @ 1..) => request.extend_from_slice(&piece[..count]),
            Ok(_) | Err(_) => return,
        }
    }
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 7\r\n\r\nreached");
}

/// What curl gets through an inlet for SOCKS: its exit code and the body.
fn curl(proxy: &str, url: &str) -> (Option<i32>, String) {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "120",
            "--proxy",
            proxy,
            url,
        ])
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .output()
        .expect("install curl: apt-get install curl");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn clients_of_socks_go_where_the_outlet_allows() {
    let (server, other) = (serve(answer_http), serve(answer_http));
    let mut portals = Portals::new(server);
    portals.add_outlet("anywhere", &format!("targets = [\"127.0.0.0/8:{server}\"]"));
    portals.desk.write_secret("ops.password", b"pass-word");
    let users = "socks = { users = [{ name = \"ops\", password = { file = \"ops.password\" } }] }";
    let locked = portals.add_inlet("socks", "anywhere", users);
    let open = portals.add_inlet("open-socks", "anywhere", "socks = {}");
    let wrong = portals.add_inlet("wrong-socks", "echo", "socks = {}");
    portals.start();
    let reached = (Some(0), "reached".to_owned());
    let user = format!("socks5h://ops:pass-word@127.0.0.1:{locked}");
    // The outlet's node looks the name up; of its addresses only those count that are allowed.
    assert_eq!(curl(&user, &format!("http://localhost:{server}/")), reached);
    assert_eq!(curl(&user, &format!("http://127.0.0.1:{server}/")), reached);
    let nobody = format!("socks5h://127.0.0.1:{open}");
    assert_eq!(curl(&nobody, &format!("http://127.0.0.1:{server}/")), reached);
    let line = portals.hall.process().wait_for_text("user=\"ops\"");
    assert!(
        line.contains(&format!("destination=\"localhost:{server}\"")),
        "{line}"
    );
    // 97: the proxy refuses.
    let refused = Some(97);
    for (proxy, url) in [
        (user.clone(), format!("http://127.0.0.1:{other}/")),
        (user.clone(), format!("http://[::1]:{server}/")),
        (
            user.replace("pass-word", "password"),
            format!("http://127.0.0.1:{server}/"),
        ),
        (
            user.replace("ops:pass-word@", ""),
            format!("http://127.0.0.1:{server}/"),
        ),
        (
            format!("socks5h://127.0.0.1:{wrong}"),
            format!("http://127.0.0.1:{server}/"),
        ),
    ] {
        let (code, text) = curl(&proxy, &url);
        assert_eq!(code, refused, "{proxy} {url}: {text}");
    }
    let refused = |node: &Node, kind, name| Portals::portal(node, kind, name)["refused"].clone();
    assert_eq!(refused(&portals.hall, "outlets", "anywhere"), 2);
    assert_eq!(refused(&portals.desk, "inlets", "socks"), 4);
    assert_eq!(
        refused(&portals.hall, "outlets", "echo"),
        1,
        "an outlet with an address is asked for none"
    );
    // A client that does not wait for the answers.
    let mut hasty = portals.connect("open-socks");
    let request = [
        &b"\x05\x01\x00\x05\x01\x00\x01\x7f\0\0\x01"[..],
        &server.to_be_bytes(),
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    hasty.write_all(&request.concat()).expect("the stream takes it");
    let mut answer = Vec::new();
    hasty.read_to_end(&mut answer).expect("it ends");
    assert!(answer.starts_with(b"\x05\x00\x05\x00\x00\x01\0\0\0\0\0\0HTTP/1.1 200"));
    assert!(answer.ends_with(b"reached"));
    // What destinations there are is shown.
    let shown = portals.hall.run(&["portal", "list"]).expect(0);
    assert!(
        shown.out.contains(&format!("anywhere to 127.0.0.0/8:{server}")),
        "{}",
        shown.out
    );
}

#[test]
fn every_stream_is_in_the_audit_file_and_the_files_are_bounded() {
    const STREAMS: usize = 30;
    let mut portals = Portals::new(serve(echo));
    portals
        .desk
        .append("[portal.audit]\nfile = \"audit.jsonl\"\nbytes_max = \"4 KiB\"\nfiles_max = 2\n");
    portals.hall.append("[portal.audit]\nfile = \"audit.jsonl\"\n");
    portals.start();
    for _ in 0..STREAMS {
        let mut stream = portals.connect("echo");
        round_trip(&mut stream, b"hello");
        stream.shutdown(Shutdown::Write).expect("it is open");
        assert_eq!(stream.read(&mut [0]).expect("it ends"), 0);
    }
    wait_reset(&mut portals.connect("locked"));
    for node in [&portals.desk, &portals.hall] {
        node.wait_status("every line is written", |status| {
            status["portals"]["audit"]["written"] == 2 * STREAMS + 1
        });
    }
    let read = |node: &Node, name: &str| -> Vec<Value> {
        let text = fs::read_to_string(node.dir.join(name)).expect("it is there");
        text.lines().map(json).collect()
    };
    let all = read(&portals.hall, "audit.jsonl");
    let events = |event: &str| all.iter().filter(|line| line["event"] == event).count();
    assert_eq!(
        (events("opened"), events("ended"), events("refused")),
        (STREAMS, STREAMS, 1)
    );
    for line in all.iter().filter(|line| line["event"] == "ended") {
        assert_eq!(
            (&line["portal"], &line["reason"]),
            (&"echo".into(), &"finished".into())
        );
        assert_eq!(
            (&line["bytes_from_socket"], &line["bytes_to_socket"]),
            (&5.into(), &5.into())
        );
        assert!(
            line["origin"]
                .as_str()
                .is_some_and(|origin| origin.starts_with("127.0.0.1:"))
        );
        assert!(line["peer"].as_str().is_some_and(|peer| peer.starts_with("fg1")));
    }
    let (last, before) = (
        read(&portals.desk, "audit.jsonl"),
        read(&portals.desk, "audit.jsonl.1"),
    );
    assert_eq!(last.last().expect("there are lines")["event"], "refused");
    assert!(!before.is_empty() && last.len() + before.len() < 2 * STREAMS);
    for name in ["audit.jsonl", "audit.jsonl.1"] {
        let length = fs::metadata(portals.desk.dir.join(name))
            .expect("it is there")
            .len();
        assert!(length <= 4 << 10, "{name} has {length} bytes");
    }
    assert!(!portals.desk.dir.join("audit.jsonl.2").exists());
    assert!(portals.desk.samples().sum("fieldgate_portal_audit_written_total") > 60.5);
}
