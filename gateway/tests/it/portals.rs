//! Portals: socket clients reach what is behind a gateway, over one of two relays.
//!
//! `desk` has the inlets, `hall` the outlets; neither is reached by the other but through a relay.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    node::{Node, json},
    ports,
    site::{backend, private_dir},
    wait::{PATIENCE, until},
};

mod changing;
mod flows;
mod kinds;
mod serial;

/// Names of the outlets, each with an inlet of the same name.
const OUTLETS: [&str; 4] = ["echo", "private", "locked", "dead"];

struct Portals {
    desk: Node,
    relays: [Node; 2],
    hall: Node,
    /// Where the inlets listen, by name.
    inlets: Vec<(&'static str, u16)>,
    /// What the outlet `dead` leads to: nobody listens there.
    dead: u16,
    /// The keys of an inlet that say who has the outlet, and by which way.
    way: String,
    /// Who has the inlets.
    desk_id: String,
    dir: TempDir,
}

impl Portals {
    /// Makes files and identities; the outlet `echo` leads to `server`.
    fn new(server: u16) -> Self {
        let dir = private_dir();
        let address = || SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let node = |name: &str| {
            let node = Node::new(dir.path(), name, address());
            node.write(&head(&node));
            let identifier = node.create_identity();
            (node, identifier)
        };
        let ((desk, desk_id), (hall, hall_id)) = (node("desk"), node("hall"));
        let relays = [node("relay-1"), node("relay-2")].map(|(relay, identifier)| {
            let link = address();
            relay.append(&format!(
                "[link.tcp]\nlisten = [\"{link}\"]\n\
                 [[relay.member]]\nname = \"hall\"\nidentifier = \"{hall_id}\"\nhold = [\"hall\"]\n\
                 [[relay.member]]\nname = \"desk\"\nidentifier = \"{desk_id}\"\nreach = [\"hall\"]\n"
            ));
            let way = format!("{{ address = \"{link}\", identifier = \"{identifier}\" }}");
            (relay, way)
        });
        let [(first, first_way), (second, second_way)] = relays;
        let dead = ports::free();
        hall.append(&hall_file(&desk_id, [&first_way, &second_way], (server, dead)));
        std::fs::write(hall.dir.join("policy.cedar"), POLICY).expect("the directory is ours");
        let mut inlets = Vec::new();
        for name in OUTLETS.into_iter().chain(["nothing", "closed", "idle"]) {
            let (port, outlet, more) = match name {
                "closed" => (ports::free(), "echo", "allow = [\"10.0.0.0/8\", \"127.0.0.2\"]\n"),
                "idle" => (ports::free(), "echo", "idle_secs = 10\n"),
                outlet => (ports::free(), outlet, ""),
            };
            desk.append(&format!(
                "[[portal.inlet]]\nname = \"{name}\"\nlisten = \"127.0.0.1:{port}\"\nnode = \"{hall_id}\"\noutlet = \"{outlet}\"\n\
                 via = \"hall\"\nrelays = [{first_way}, {second_way}]\n{more}"
            ));
            inlets.push((name, port));
        }
        Self {
            desk,
            relays: [first, second],
            hall,
            inlets,
            dead,
            way: format!("node = \"{hall_id}\"\nvia = \"hall\"\nrelays = [{first_way}, {second_way}]\n"),
            desk_id,
            dir,
        }
    }

    /// Makes them, starts them, and waits until streams can be carried.
    fn started(server: u16) -> Self {
        let mut portals = Self::new(server);
        portals.start();
        portals
    }

    /// Starts them, and waits until streams can be carried.
    fn start(&mut self) {
        for relay in &mut self.relays {
            relay.spawn();
        }
        self.hall.spawn();
        self.desk.spawn();
        for node in self.relays.iter_mut().chain([&mut self.hall, &mut self.desk]) {
            node.wait_ready();
        }
        self.wait_up();
    }

    /// Adds an outlet to the file of `hall` that `desk` may use; `more` says what it leads to.
    fn add_outlet(&self, name: &str, more: &str) {
        let allow = &self.desk_id;
        self.hall.append(&format!(
            "[[portal.outlet]]\nname = \"{name}\"\nallow = [\"{allow}\"]\n{more}\n"
        ));
    }

    /// Adds an inlet to the file of `desk`; returns its port.
    fn add_inlet(&mut self, name: &'static str, outlet: &str, more: &str) -> u16 {
        let port = ports::free();
        self.inlets.push((name, port));
        self.add_listener(name, &format!("127.0.0.1:{port}"), outlet, more);
        port
    }

    fn add_listener(&self, name: &str, listen: &str, outlet: &str, more: &str) {
        let way = &self.way;
        self.desk.append(&format!(
            "[[portal.inlet]]\nname = \"{name}\"\nlisten = \"{listen}\"\noutlet = \"{outlet}\"\n{way}{more}\n"
        ));
    }

    fn wait_up(&self) -> Value {
        self.desk.wait_status("session up", |status| {
            status["portals"]["sessions"][0]["state"] == "up"
        })
    }

    fn connect(&self, inlet: &str) -> TcpStream {
        let port = self
            .inlets
            .iter()
            .find(|(name, _)| *name == inlet)
            .expect(inlet)
            .1;
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the inlet listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("it is a socket");
        stream
    }

    /// Returns what the status of a node says of one of its portals.
    fn portal(node: &Node, kind: &str, name: &str) -> Value {
        let status = node.status();
        let ends = status["portals"][kind].as_array().expect("a list");
        let end = ends.iter().find(|end| end["name"] == name);
        end.unwrap_or_else(|| panic!("no {name} in {status:#}")).clone()
    }
}

fn head(node: &Node) -> String {
    format!(
        "[node]\nname = \"{}\"\nstate_dir = \"state\"\ncontrol_socket = \"control.sock\"\nio = \"{}\"\n\
         [identity]\nfile = \"identity.key\"\npassphrase = {{ file = \"passphrase\" }}\n\
         [metrics]\nlisten = \"{}\"\n",
        node.name,
        backend(),
        node.metrics
    )
}

/// The rest of the file of the node with the outlets. `echo` is a name, the others are addresses.
fn hall_file(desk: &str, relays: [&str; 2], (server, dead): (u16, u16)) -> String {
    let mut text = format!(
        "[trust]\npolicy = \"policy.cedar\"\n\
         [portal]\nregister = [{{ relay = {}, name = \"hall\" }}, {{ relay = {}, name = \"hall\" }}]\n",
        relays[0], relays[1]
    );
    for name in OUTLETS {
        let (address, allow) = match name {
            "echo" => (format!("localhost:{server}"), desk),
            "dead" => (format!("127.0.0.1:{dead}"), desk),
            "private" => (format!("127.0.0.1:{server}"), NOBODY),
            _ => (format!("127.0.0.1:{server}"), desk),
        };
        text += &format!(
            "[[portal.outlet]]\nname = \"{name}\"\naddress = \"{address}\"\nallow = [\"{allow}\"]\n"
        );
    }
    text
}

/// Serves each connection on a thread of its own, until the test's process ends. Returns the port.
pub(crate) fn serve(each: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let each = each.clone();
            thread::spawn(move || each(stream));
        }
    });
    port
}

/// Gives everything back, and ends when the other side has.
pub(crate) fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    // The peer may have reset it.
    let _ = stream.shutdown(Shutdown::Write);
}

/// The byte that stands at a place of every stream of these tests.
pub(crate) fn byte_at(place: usize) -> u8 {
    let mixed = place.wrapping_mul(0x9E37_79B9) >> 11;
    u8::try_from(mixed & 0xff).expect("eight bits")
}

/// Writes `count` bytes on a thread of its own, and ends that direction.
pub(crate) fn write_all(stream: &TcpStream, count: usize) -> JoinHandle<()> {
    let mut stream = stream.try_clone().expect("descriptors are left");
    thread::spawn(move || {
        let mut place = 0;
        while place < count {
            let next = (place + (48 << 10)).min(count);
            let piece: Vec<u8> = (place..next).map(byte_at).collect();
            stream.write_all(&piece).expect("the stream takes it");
            place = next;
        }
        stream.shutdown(Shutdown::Write).expect("the stream is open");
    })
}

/// Reads to the end and compares every byte; calls `at` with each place it has come to. Returns how many there were.
pub(crate) fn read_all(stream: &mut TcpStream, mut at: impl FnMut(usize)) -> usize {
    let mut buffer = vec![0; 64 << 10];
    let mut place = 0;
    loop {
        let count = stream.read(&mut buffer).expect("the stream goes on");
        if count == 0 {
            return place;
        }
        for byte in &buffer[..count] {
            assert_eq!(*byte, byte_at(place), "at {place}");
            place += 1;
        }
        at(place);
    }
}

pub(crate) fn round_trip(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(message).expect("the stream takes it");
    let mut back = vec![0; message.len()];
    stream.read_exact(&mut back).expect("it comes back");
    assert_eq!(back, message);
}

/// Waits for the reset of a stream.
pub(crate) fn wait_reset(stream: &mut TcpStream) {
    let mut buffer = [0; 64];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => panic!("the stream ended without a reset"),
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                return;
            }
        }
    }
}

#[test]
fn streams_reach_what_is_behind_the_gateway_and_end_one_direction_at_a_time() {
    // Answers only when it has heard all: how much that was.
    let server = serve(|mut stream| {
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).is_ok() {
            let _ = write!(stream, "{} bytes", all.len());
        }
    });
    let mut portals = Portals::started(server);
    let mut stream = portals.connect("echo");
    let origin = stream.local_addr().expect("it is bound").to_string();
    stream.write_all(&[7; 300_000]).expect("the stream takes it");
    stream.shutdown(Shutdown::Write).expect("it is open");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("the answer comes after our end");
    assert_eq!(answer, "300000 bytes");
    // Both nodes say who it was, whereto, and how much.
    for (node, kind, bytes) in [
        (
            &mut portals.desk,
            "inlet",
            "bytes_from_socket=300000 bytes_to_socket=12",
        ),
        (
            &mut portals.hall,
            "outlet",
            "bytes_from_socket=12 bytes_to_socket=300000",
        ),
    ] {
        let line = node.process().wait_for_text("portal stream ended");
        for wanted in [
            kind,
            "portal=\"echo\"",
            &origin,
            bytes,
            "reason=\"finished\"",
            "peer=\"fg1",
        ] {
            assert!(line.contains(wanted), "no {wanted} in {line}");
        }
    }
    let listed = portals.desk.run(&["portal", "list", "--json"]).expect(0);
    let listed = json(&listed.out);
    assert_eq!(listed["sessions"][0]["bytes_sent"], 300_000);
    assert_eq!(listed["inlets"][0]["streams_total"], 1);
    let shown = portals.hall.run(&["portal", "list"]).expect(0);
    assert!(
        shown.out.contains("outlet     echo to localhost:"),
        "{}",
        shown.out
    );
    let status = portals.desk.wait_healthy();
    assert_eq!(status["roles"], serde_json::json!(["inlet"]));
    let none = portals.relays[0].run(&["portal", "list"]).expect(1);
    assert!(none.err.contains("this node has no portals"), "{}", none.err);
    portals.desk.stop();
    portals.hall.stop();
}

#[test]
fn two_hundred_streams_live_side_by_side_and_leave_nothing_behind() {
    let portals = Portals::started(serve(echo));
    let mut streams: Vec<TcpStream> = (0..200).map(|_| portals.connect("echo")).collect();
    for (index, stream) in streams.iter_mut().enumerate() {
        let message: Vec<u8> = (index..index + 4096).map(byte_at).collect();
        round_trip(stream, &message);
    }
    let hall = Portals::portal(&portals.hall, "outlets", "echo");
    assert_eq!((&hall["streams"], &hall["refused"]), (&200.into(), &0.into()));
    assert!(portals.desk.samples().sum("fieldgate_portal_streams") > 199.5);
    // Half of them end well, and half do not: dropped with something unread they are reset.
    for (index, stream) in streams.iter_mut().enumerate() {
        if index % 2 == 0 {
            stream.shutdown(Shutdown::Write).expect("it is open");
            assert_eq!(stream.read(&mut [0]).expect("it ends"), 0);
        } else {
            stream.write_all(b"unread").expect("the stream takes it");
        }
    }
    for stream in &streams[1..] {
        // What is unread when it is dropped makes the kernel send a reset.
        let _ = stream.peek(&mut [0]);
    }
    drop(streams);
    for node in [&portals.desk, &portals.hall] {
        node.wait_status("no streams", |status| {
            let session = &status["portals"]["sessions"][0];
            session["streams"] == 0 && session["bytes_kept"] == 0
        });
    }
}

#[test]
fn a_stream_survives_the_death_of_each_relay() {
    const BYTES: usize = 50_000_000;
    let mut portals = Portals::started(serve(echo));
    let mut stream = portals.connect("echo");
    let writer = write_all(&stream, BYTES);
    let (places, progress): (Sender<usize>, Receiver<usize>) = channel();
    let reader = thread::spawn(move || {
        read_all(&mut stream, |place| {
            // Nobody listens any more once the relays have died.
            let _ = places.send(place);
        })
    });
    let wait_for = |least: usize| {
        while progress.recv_timeout(PATIENCE).expect("the stream goes on") < least {}
    };
    for (dies, at) in [(0, 10_000_000), (1, 30_000_000)] {
        wait_for(at);
        portals.relays[dies].kill();
        // The other is there, and the stream goes on over it.
        wait_for(at + 10_000_000);
        portals.relays[dies].start();
        portals.hall.wait_status("registered again", |status| {
            status["network"]["registered"]
                .as_array()
                .is_some_and(|names| names.len() >= 2)
                || status["network"]["links"]
                    .as_array()
                    .is_some_and(|links| links.iter().filter(|link| link["state"] == "up").count() == 2)
        });
    }
    writer.join().expect("everything was taken");
    assert_eq!(reader.join().expect("every byte is right"), BYTES);
    let status = portals.wait_up();
    let session = &status["portals"]["sessions"][0];
    assert_eq!(session["lost"], 0, "{session:#}");
    assert!(
        session["resumed"].as_u64().is_some_and(|resumed| resumed >= 1),
        "{session:#}"
    );
}

#[test]
fn who_is_not_allowed_gets_a_reset_and_so_does_who_finds_nobody() {
    let portals = Portals::started(serve(echo));
    for inlet in ["private", "locked", "nothing", "dead", "closed"] {
        wait_reset(&mut portals.connect(inlet));
    }
    let refused = |node, kind, name| Portals::portal(node, kind, name)["refused"].clone();
    for outlet in ["private", "locked", "dead"] {
        assert_eq!(refused(&portals.hall, "outlets", outlet), 1, "{outlet}");
        assert_eq!(refused(&portals.desk, "inlets", outlet), 1, "{outlet}");
    }
    assert_eq!(refused(&portals.desk, "inlets", "closed"), 1);
    assert_eq!(portals.hall.status()["portals"]["unknown_outlets"], 1);
    // Nobody of them has reached the server, and the one who may still does.
    round_trip(&mut portals.connect("echo"), b"still here");
    // When somebody listens there, it is reached.
    let listener = TcpListener::bind(("127.0.0.1", portals.dead)).expect("nobody listens there");
    let mut stream = portals.connect("dead");
    let (mut server, _) = listener.accept().expect("it is connected");
    stream.write_all(b"knock").expect("the stream takes it");
    let mut heard = [0; 5];
    server.read_exact(&mut heard).expect("it arrives");
    assert_eq!(&heard, b"knock");
}

#[test]
fn a_gateway_that_dies_resets_its_streams_and_later_ones_work() {
    let mut portals = Portals::started(serve(echo));
    let mut stream = portals.connect("echo");
    round_trip(&mut stream, b"before");
    portals.hall.kill();
    portals.hall.start();
    wait_reset(&mut stream);
    portals.wait_up();
    let mut stream = portals.connect("echo");
    round_trip(&mut stream, b"after");
    // One that is stopped says so at once.
    portals.hall.stop();
    wait_reset(&mut stream);
}

#[test]
fn a_stream_that_nobody_reads_holds_up_no_other() {
    const BYTES: usize = 40_000_000;
    let (go, wait) = channel::<()>();
    let (done, counted) = channel::<usize>();
    let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
    let server = serve(move |mut stream| {
        let mut first = [0];
        if stream.peek(&mut first).is_err() || first[0] != byte_at(0) {
            return echo(stream);
        }
        let wait = wait.lock().expect("nobody panicked");
        wait.recv().expect("the test goes on");
        let end = read_all(&mut stream, |place| {
            let _ = done.send(place);
        });
        let _ = done.send(end);
    });
    let portals = Portals::started(server);
    let stalled = portals.connect("echo");
    let writer = write_all(&stalled, BYTES);
    // The first megabyte is credit that needs no reader.
    portals.desk.wait_status("the stream is full", |status| {
        let sent = status["portals"]["sessions"][0]["bytes_sent"].as_u64();
        sent.is_some_and(|sent| sent > 1_000_000)
    });
    let other = [byte_at(0) ^ 1; 1000];
    let mut live = portals.connect("echo");
    for _ in 0..100 {
        round_trip(&mut live, &other);
    }
    assert!(!writer.is_finished(), "it was taken although nobody reads it");
    go.send(()).expect("the server waits");
    while counted.recv_timeout(PATIENCE).expect("it arrives") < BYTES {}
    writer.join().expect("everything was taken");
}

#[test]
fn a_stream_without_traffic_is_ended() {
    let portals = Portals::started(serve(echo));
    let mut idle = portals.connect("idle");
    let mut live = portals.connect("echo");
    round_trip(&mut idle, b"once");
    wait_reset(&mut idle);
    round_trip(&mut live, b"still here");
    until("the outlet has heard of it", || {
        let streams = Portals::portal(&portals.hall, "outlets", "echo")["streams"].clone();
        if streams == 1 {
            Ok(())
        } else {
            Err(streams.to_string())
        }
    });
}

const NOBODY: &str = "fg1xr2mk6wxjjy9cc6d7lugvmrgnwqrhxy0qt0ljyqr7pu02n2fhc7qmqahhc";
const POLICY: &str = "@id(\"named\") permit (principal, action, resource) when { principal.named && context.granted };\n\
    @id(\"locked\") forbid (principal, action == Fieldgate::Action::\"openPortal\", resource == Fieldgate::Portal::\"locked\");\n";
