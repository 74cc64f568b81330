//! The best known load: iperf3 at both ends of a tunnel.

use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;

use super::server::Server;
use crate::failure::Failure;
use crate::place::Place;
use crate::process::{Running, complete};

/// What is read of a client's report.
#[derive(Deserialize)]
struct Said {
    end: End,
}

#[derive(Deserialize)]
struct End {
    sum_received: Sum,
}

#[derive(Deserialize)]
struct Sum {
    bits_per_second: f64,
}

/// Runs an iperf3 server where the tunnel's server is, and a client through the tunnel, one stream with 64 KiB per write. Returns what
/// arrived, in Gbit/s; the first second does not count.
pub(super) fn run(
    near: &Place,
    entry: SocketAddr,
    server: &mut Server,
    folder: &Path,
    seconds: u64,
) -> Result<f64, Failure> {
    let report = server.make_way(|far, address| {
        let mut command = far.command("iperf3");
        command
            .args(["--server", "--port"])
            .arg(address.port().to_string());
        if !address.ip().is_unspecified() {
            command.arg("--bind").arg(address.ip().to_string());
        }
        let mut serving = Running::start("iperf3", &mut command, folder)?;
        // It takes the connection that looks whether it listens for a client that went away, and goes on.
        serving.await_listener_at(far, address)?;
        let mut client = near.command("iperf3");
        client.args(["--json", "--length", "64K", "--omit", "1"]);
        client.arg("--time").arg(seconds.to_string());
        client.arg("--client").arg(entry.ip().to_string());
        client.arg("--port").arg(entry.port().to_string());
        let report = complete(&mut client)?;
        serving.stop()?;
        Ok(report)
    })?;
    let said: Said = serde_json::from_slice(&report).map_err(|error| Failure::Format {
        what: "the report of iperf3".to_owned(),
        problem: error.to_string(),
    })?;
    Ok(said.end.sum_received.bits_per_second / 1e9)
}
