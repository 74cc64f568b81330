//! Inlets and outlets that come and go by command while their nodes run.

use std::io::{ErrorKind, Read as _, Write as _};

use super::{Portals, TcpStream, echo, serve};
use crate::harness::{
    node::Node,
    ports,
    process::{Ended, run},
    wait::{PATIENCE, until},
};

impl Portals {
    /// Runs a command about a node's portals.
    fn order(node: &Node, words: &[&str]) -> Ended {
        run(&mut node.command(&[&["portal"], words].concat()))
    }

    /// Words that say by which way `hall` is reached.
    fn way_words(&self) -> Vec<String> {
        let between = |text: &str, from: &str, to: &str| {
            let (_, rest) = text.split_once(from).expect("it is written");
            rest.split_once(to).expect("it is written").0.to_owned()
        };
        let hall = between(&self.way, "node = \"", "\"");
        let mut words = vec!["--node".to_owned(), hall, "--via".to_owned(), "hall".to_owned()];
        for relay in self.way.split("address = ").skip(1) {
            let (address, identifier) = (
                between(relay, "\"", "\""),
                between(relay, "identifier = \"", "\""),
            );
            words.extend(["--relay".to_owned(), format!("{address},{identifier}")]);
        }
        words
    }

    /// Adds an inlet to `desk` that leads to an outlet; returns its port.
    fn add_by_command(&self, name: &str, outlet: &str, more: &[&str]) -> (u16, Ended) {
        let port = ports::free();
        let (listen, way) = (format!("127.0.0.1:{port}"), self.way_words());
        let mut words = vec!["inlet", "add", name, "--listen", &listen, "--outlet", outlet];
        words.extend(way.iter().map(String::as_str));
        words.extend(more);
        (port, Self::order(&self.desk, &words))
    }

    fn add_outlet_by_command(&self, name: &str, server: u16) {
        let address = format!("127.0.0.1:{server}");
        let words = [
            "outlet",
            "add",
            name,
            "--address",
            &address,
            "--allow",
            &self.desk_id,
        ];
        Self::order(&self.hall, &words).expect(0);
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the inlet listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    stream
}

fn round_trip(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(message).expect("the stream takes it");
    let mut back = vec![0; message.len()];
    stream.read_exact(&mut back).expect("it comes back");
    assert_eq!(back, message);
}

/// Waits until a node shows no portal of this name.
fn wait_gone(node: &Node, kind: &str, name: &str) {
    node.wait_status("it is gone", |status| {
        let all = status["portals"][kind].as_array();
        all.is_none_or(|all| all.iter().all(|portal| portal["name"] != *name))
    });
}

#[test]
fn inlets_and_outlets_come_and_go_while_their_nodes_run() {
    let server = serve(echo);
    let mut portals = Portals::started(server);
    let mut old = portals.connect("echo");
    round_trip(&mut old, b"before");

    portals.add_outlet_by_command("late", server);
    let (port, added) = portals.add_by_command("late", "late", &["--set", "streams_max = 2", "--keep"]);
    let added = added.expect(0);
    assert!(added.out.contains(&format!("127.0.0.1:{port}")), "{added:?}");
    let mut stream = connect(port);
    round_trip(&mut stream, b"through both");
    let origin = |node: &Node, kind: &str, name: &str| Portals::portal(node, kind, name)["origin"].clone();
    assert_eq!(origin(&portals.desk, "inlets", "late"), "command, kept");
    assert_eq!(origin(&portals.hall, "outlets", "late"), "command");
    assert_eq!(origin(&portals.desk, "inlets", "echo"), "file");
    let listed = Portals::order(&portals.desk, &["list"]).expect(0);
    assert!(listed.out.contains("(command, kept)"), "{listed:?}");

    // An outlet that goes ends its streams.
    Portals::order(&portals.hall, &["outlet", "remove", "late"]).expect(0);
    let ended = stream.read(&mut [0]);
    assert!(
        matches!(&ended, Ok(0))
            || ended
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
        "{ended:?}"
    );
    wait_gone(&portals.hall, "outlets", "late");
    portals.add_outlet_by_command("late", server);
    let mut stream = connect(port);
    round_trip(&mut stream, b"and again");

    // After a restart there is what was kept.
    portals.desk.stop();
    portals.desk.start();
    portals.wait_up();
    assert_eq!(origin(&portals.desk, "inlets", "late"), "command, kept");
    let mut stream = connect(port);
    round_trip(&mut stream, b"after the restart");

    // Of an inlet that goes the streams go on.
    Portals::order(&portals.desk, &["inlet", "remove", "late"]).expect(0);
    until("nobody gets in", || {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(_) => Err("somebody does".to_owned()),
            Err(_) => Ok(()),
        }
    });
    round_trip(&mut stream, b"still");
    assert_eq!(origin(&portals.desk, "inlets", "late"), "removed");
    drop(stream);
    wait_gone(&portals.desk, "inlets", "late");

    // Unless they are not to.
    let (port, added) = portals.add_by_command("short", "late", &[]);
    added.expect(0);
    let mut stream = connect(port);
    round_trip(&mut stream, b"for now");
    Portals::order(&portals.desk, &["inlet", "remove", "short", "--now"]).expect(0);
    assert!(!matches!(stream.read(&mut [0]), Ok(1..)));
    wait_gone(&portals.desk, "inlets", "short");
    portals.desk.stop();
    portals.desk.start();
    portals.wait_up();
    wait_gone(&portals.desk, "inlets", "late");
    portals.hall.stop();
    portals.hall.start();
    wait_gone(&portals.hall, "outlets", "late");
}

#[test]
fn what_is_wrong_with_a_portal_by_command_is_said_and_changes_nothing() {
    let portals = Portals::started(serve(echo));
    let (port, refused) = portals.add_by_command("echo", "echo", &["--set", "streams_max = 0"]);
    let refused = refused.expect(1);
    assert!(
        refused.err.contains("streams_max") && refused.err.contains("a name"),
        "{refused:?}"
    );
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());

    let taken = portals.inlets[0].1.to_string();
    let listen = format!("listen = \"127.0.0.1:{taken}\"");
    let (_, refused) = portals.add_by_command("other", "echo", &["--set", &listen]);
    assert!(refused.expect(1).err.contains("listen"), "it stands twice");

    let refused = Portals::order(&portals.desk, &["inlet", "remove", "echo"]).expect(1);
    assert!(refused.err.contains("those of the file"), "{refused:?}");
    let nobody = format!("127.0.0.1:{},{}", ports::free(), portals.desk_id);
    let mut words = vec![
        "inlet",
        "add",
        "far",
        "--listen",
        "127.0.0.1:0",
        "--outlet",
        "echo",
    ];
    words.extend(["--node", &portals.desk_id, "--via", "hall", "--relay", &nobody]);
    let refused = Portals::order(&portals.desk, &words).expect(1);
    assert!(refused.err.contains("no link to"), "{refused:?}");
    let status = portals.desk.status();
    let inlets = status["portals"]["inlets"].as_array().expect("a list");
    assert_eq!(inlets.len(), portals.inlets.len());
}
