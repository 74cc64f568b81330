//! The rival: one mosquitto bridging to another over TLS.
//!
//! ```text
//! devices ─▶ mosquitto "near" ══TLS, bridge══▶ mosquitto "far" ─▶ subscriber
//! ```
//! Set up for speed: no limits on queues and packets in flight, no persistence, TCP_NODELAY.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::System;
use crate::clock::Window;
use crate::consumer::Consumer;
use crate::failure::Failure;
use crate::latency::Latencies;
use crate::process::{Running, complete, free_address};

/// Two brokers and a subscriber.
pub(crate) struct Bridge {
    devices: SocketAddr,
    processes: Vec<Running>,
    consumer: Consumer,
}

impl Bridge {
    /// Starts both brokers in `folder` and subscribes to the far one.
    pub(crate) fn start(folder: &Path, window: Arc<Window>) -> Result<Self, Failure> {
        certificate(folder)?;
        let (devices, tls, subscribers) = (free_address()?, free_address()?, free_address()?);
        write(&folder.join("far.conf"), &far_config(folder, tls, subscribers))?;
        write(&folder.join("near.conf"), &near_config(folder, devices, tls))?;
        let mut far = broker("far", folder)?;
        far.await_listener(subscribers)?;
        let consumer = Consumer::subscribe(subscribers, window)?;
        let mut near = broker("near", folder)?;
        near.await_listener(devices)?;
        Ok(Self {
            devices,
            processes: vec![near, far],
            consumer,
        })
    }
}

impl System for Bridge {
    fn devices(&self) -> SocketAddr {
        self.devices
    }

    fn processes(&mut self) -> &mut [Running] {
        &mut self.processes
    }

    fn delivered(&self) -> Result<u64, Failure> {
        Ok(self.consumer.delivered())
    }

    fn finish(self: Box<Self>) -> Result<Option<Latencies>, Failure> {
        let latencies = self.consumer.finish()?;
        for process in self.processes {
            process.stop()?;
        }
        Ok(Some(latencies))
    }
}

fn broker(name: &'static str, folder: &Path) -> Result<Running, Failure> {
    // Debian puts the broker where only root's path looks.
    let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let mut command = Command::new(program.unwrap_or("mosquitto"));
    Running::start(
        name,
        command.arg("-c").arg(folder.join(format!("{name}.conf"))),
        folder,
    )
}

/// Makes a certificate that signs itself, for both ends of the bridge.
fn certificate(folder: &Path) -> Result<(), Failure> {
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]);
    openssl.args(["-days", "2", "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    openssl
        .arg("-keyout")
        .arg(folder.join(KEY))
        .arg("-out")
        .arg(folder.join(CERTIFICATE));
    complete(&mut openssl).map(drop)
}

fn far_config(folder: &Path, tls: SocketAddr, subscribers: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "{COMMON}\
         listener {tls_port} 127.0.0.1\n\
         certfile {folder}/{CERTIFICATE}\n\
         keyfile {folder}/{KEY}\n\
         listener {subscriber_port} 127.0.0.1\n",
        tls_port = tls.port(),
        subscriber_port = subscribers.port(),
    )
}

fn near_config(folder: &Path, devices: SocketAddr, tls: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "{COMMON}\
         listener {port} 127.0.0.1\n\
         connection uplink\n\
         address {tls}\n\
         topic # out 1\n\
         bridge_cafile {folder}/{CERTIFICATE}\n\
         bridge_protocol_version mqttv311\n\
         cleansession true\n\
         notifications false\n\
         restart_timeout 1\n",
        port = devices.port(),
    )
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(Failure::io(format!("writing {}", path.display())))
}

/// As root the broker would change to a user that cannot read the private folder.
const COMMON: &str = "user root\n\
                      per_listener_settings false\n\
                      allow_anonymous true\n\
                      persistence false\n\
                      max_inflight_messages 0\n\
                      max_queued_messages 0\n\
                      set_tcp_nodelay true\n\
                      log_type error\n\
                      log_type warning\n";
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";
