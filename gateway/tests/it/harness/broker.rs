//! Debian's mosquitto, and its clients.

use std::{fs, net::SocketAddr, path::Path};

use super::process::{CLIENT_TIME, Ended, Process, command, run};

/// A broker on a port of 127.0.0.1.
pub(crate) struct Broker {
    process: Process,
}

impl Broker {
    /// Starts it; files go to `dir`.
    ///
    /// # Panics
    /// If it does not run.
    pub(crate) fn start(dir: &Path, port: u16) -> Self {
        Self::start_by(&[], dir, port)
    }

    /// Starts it by a program such as `ip netns exec NAME`.
    ///
    /// # Panics
    /// If it does not run.
    pub(crate) fn start_by(by: &[&str], dir: &Path, port: u16) -> Self {
        let file = dir.join("mosquitto.conf");
        // Nothing may be thrown away for a subscriber that is slow: what arrives at the broker is counted behind it.
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n\
             max_queued_messages 0\nlog_dest stderr\nlog_type all\n"
        );
        fs::write(&file, text).expect("the directory is ours");
        let mut words = by.to_vec();
        words.extend([BROKER, "-c", file.to_str().expect("the path is text")]);
        let mut process = Process::spawn("mosquitto", &mut command(&words));
        process.wait_for_text("running");
        Self { process }
    }

    /// Stops it.
    pub(crate) fn stop(mut self) {
        self.process.stop();
    }
}

/// Subscribes to everything with the stock client and waits until the broker has granted it. Each message is one line:
/// topic, user properties, payload.
///
/// # Panics
/// If it does not run.
pub(crate) fn subscribe_by(by: &[&str], port: u16) -> Process {
    let port = port.to_string();
    let mut words = by.to_vec();
    words.extend(["stdbuf", "-oL"]);
    words.extend(["mosquitto_sub", "-V", "5", "-h", "127.0.0.1", "-p", &port]);
    words.extend(["-q", "1", "-t", "#", "-F", "%t %P %p", "-d"]);
    let mut subscriber = Process::spawn("mosquitto_sub", &mut command(&words));
    subscriber.wait_for_text("Subscribed");
    subscriber
}

/// Publishes with the stock client, which ends with 0 after the PUBACK.
pub(crate) fn publish(to: SocketAddr, arguments: &[&str]) -> Ended {
    publish_by(&[], to, arguments)
}

/// Publishes with the stock client, started by a program such as `ip netns exec NAME`.
pub(crate) fn publish_by(by: &[&str], to: SocketAddr, arguments: &[&str]) -> Ended {
    let (host, port) = (to.ip().to_string(), to.port().to_string());
    let limit = CLIENT_TIME.as_secs().to_string();
    let mut words = by.to_vec();
    words.extend(["timeout", &limit, "mosquitto_pub", "-h", &host, "-p", &port]);
    words.extend(arguments);
    run(&mut command(&words))
}

const BROKER: &str = "/usr/sbin/mosquitto";
