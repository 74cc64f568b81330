//! Clients of other languages, told what to do by lines of JSON: `tests/interop/client.py` and `client.mjs`.
//!
//! In goes one object per line, `{"do": "connect" | "subscribe" | "publish" | "disconnect", …}` with the fields of [`Place`] or
//! [`Message`], or `filter` and `qos`. Out comes `{"is": "connected", "present": …}`, `{"is": "subscribed", "code": …}`,
//! `{"is": "published"}`, `{"is": "disconnected"}`, `{"is": "refused", "why": …}`, and for each message that arrives
//! `{"is": "message", …}` with the fields of [`Message`].

use std::{
    collections::VecDeque,
    io::Write as _,
    path::{Path, PathBuf},
    process::{ChildStdin, Command},
};

use serde_json::{Value, json};

use super::client::{Client, Message, Place};
use crate::harness::process::Process;

/// A client in a process of its own.
pub(super) struct Driven {
    name: &'static str,
    process: Option<(Process, ChildStdin)>,
    early: VecDeque<Message>,
}

impl Driven {
    /// A client of that name; it starts when it connects.
    pub(super) const fn new(name: &'static str) -> Self {
        Self {
            name,
            process: None,
            early: VecDeque::new(),
        }
    }

    fn tell(&mut self, what: &str, mut wish: Value) {
        let (_, input) = self.process.as_mut().expect("it is connected");
        wish["do"] = what.into();
        writeln!(input, "{wish}").expect("the client reads");
    }

    /// Waits for a line of that kind; messages before it stay to be taken.
    fn wait(&mut self, kind: &str) -> Value {
        let (process, _) = self.process.as_mut().expect("it is connected");
        let early = &mut self.early;
        process.wait_for(kind, |line| {
            let said: Value = serde_json::from_str(line).ok()?;
            assert_ne!(said["is"], "refused", "{line}");
            if said["is"] == kind {
                return Some(said);
            }
            if said["is"] == "message" {
                early.push_back(serde_json::from_value(said).expect("a message has all fields"));
            }
            None
        })
    }
}

impl Client for Driven {
    fn connect(&mut self, place: &Place) -> Option<bool> {
        self.process = Some(Process::spawn_with_input(self.name, &mut command(self.name)));
        self.early.clear();
        self.tell("connect", json!(place));
        self.wait("connected")["present"].as_bool()
    }

    fn subscribe(&mut self, filter: &str, qos: u8) {
        self.tell("subscribe", json!({ "filter": filter, "qos": qos }));
        assert_eq!(self.wait("subscribed")["code"], qos, "{filter}");
    }

    fn publish(&mut self, message: &Message) {
        self.tell("publish", json!(message));
        self.wait("published");
    }

    fn message(&mut self) -> Message {
        if let Some(early) = self.early.pop_front() {
            return early;
        }
        serde_json::from_value(self.wait("message")).expect("a message has all fields")
    }

    fn disconnect(&mut self) {
        self.tell("disconnect", json!({}));
        self.wait("disconnected");
        self.process = None;
    }

    fn vanish(&mut self) {
        let (mut process, _) = self.process.take().expect("it is connected");
        process.kill();
    }
}

/// The program of a client.
fn command(name: &str) -> Command {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    if name == "MQTT.js" {
        let modules = installed("node/node_modules");
        let mut command = Command::new("node");
        command.arg(here.join("client.mjs")).env("NODE_MODULES", modules);
        return command;
    }
    let mut command = Command::new(installed("python/bin/python"));
    command.arg(here.join("client.py")).arg(name);
    command
}

/// Something that `cargo xtask setup` installs below `target`.
///
/// # Panics
/// If it is not there.
pub(super) fn installed(path: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let found = target.join(path);
    assert!(
        found.exists(),
        "{} is missing: run `cargo xtask setup`, which installs it",
        found.display()
    );
    found
}
