//! The running node, or the room it would need: control socket, ports, authority.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::Path,
};

use fieldgate_config::settings::Settings;
use serde_json::Value;

use super::Finding;
use crate::status::{Health, NodeStatus};

pub(super) fn examine(settings: &Settings, status: &io::Result<NodeStatus>) -> Vec<Finding> {
    let mut findings = vec![control_socket(&settings.node.control_socket, status)];
    if let Ok(status) = status {
        findings.push(health(status));
    }
    let is_running = status.is_ok();
    findings.extend(
        listeners(settings)
            .into_iter()
            .map(|(name, address)| port(name, address, is_running)),
    );
    findings
}

fn control_socket(path: &Path, status: &io::Result<NodeStatus>) -> Finding {
    let error = match status {
        Ok(status) => {
            return Finding::ok(
                NODE,
                format!("{} has run for {} s", status.name, status.uptime_secs),
            );
        }
        Err(error) => error,
    };
    let (name, kind) = (path.display(), error.kind());
    if kind == io::ErrorKind::NotFound {
        no_socket(path.parent().unwrap_or_else(|| Path::new("/")))
    } else if kind == io::ErrorKind::ConnectionRefused {
        Finding::unused(
            NODE,
            format!("none runs; {name} is left over and replaced at the next start"),
        )
    } else if kind == io::ErrorKind::PermissionDenied {
        Finding::fail(
            NODE,
            format!("{name} may not be opened"),
            "run this as the user of the service or a member of its group",
        )
    } else {
        Finding::fail(NODE, error.to_string(), "see its log, and restart it if it hangs")
    }
}

/// Judges the directory in which a node would make its socket.
fn no_socket(directory: &Path) -> Finding {
    if directory.is_dir() && tempfile::tempfile_in(directory).is_err() {
        let cure = "run this as the user of the service, or give that user the directory";
        return Finding::fail(NODE, format!("{} cannot be written", directory.display()), cure);
    }
    Finding::unused(NODE, "none runs")
}

fn health(status: &NodeStatus) -> Finding {
    match status.health {
        Health::Healthy => Finding::ok("health", "healthy"),
        Health::Degraded => Finding::warn("health", status.reasons.join("; "), "see `fieldgate status`"),
    }
}

/// Returns the addresses the file listens on, each with the key it stands under.
fn listeners(settings: &Settings) -> Vec<(&'static str, SocketAddr)> {
    let mqtt = settings.mqtt.iter().flat_map(|mqtt| {
        let plain = mqtt.listen.iter().map(|address| ("mqtt.listen", *address));
        let tls = mqtt.tls.iter().flat_map(|tls| &tls.listen);
        plain.chain(tls.map(|address| ("mqtt.tls.listen", *address)))
    });
    let link = settings.link_tcp.iter().flat_map(|link| &link.listen);
    let metrics = settings
        .metrics
        .iter()
        .map(|metrics| ("metrics.listen", metrics.listen));
    let websocket = settings.link_websocket.iter().flat_map(|link| &link.listen);
    let quic = settings.link_quic.iter().flat_map(|link| &link.listen);
    mqtt.chain(quic.map(|address| (QUIC, *address)))
        .chain(link.map(|address| ("link.tcp.listen", *address)))
        .chain(websocket.map(|address| ("link.websocket.listen", *address)))
        .chain(metrics)
        .filter(|(_, address)| address.port() != 0)
        .collect()
}

fn port(key: &str, address: SocketAddr, is_running: bool) -> Finding {
    let found = format!("{address} (`{key}`)");
    let bound = if key == QUIC {
        UdpSocket::bind(address).map(drop)
    } else {
        TcpListener::bind(address).map(drop)
    };
    let kind = match bound {
        Ok(()) if is_running => {
            let cure = "it runs with another file; restart it";
            return Finding::warn(PORT, format!("{found} is free, though a node runs"), cure);
        }
        Ok(()) => return Finding::ok(PORT, format!("{found} is free")),
        Err(error) => error.kind(),
    };
    if kind == io::ErrorKind::AddrInUse && is_running {
        Finding::ok(PORT, format!("{found} is held by the running node"))
    } else if kind == io::ErrorKind::AddrInUse {
        Finding::fail(
            PORT,
            format!("{found} is taken by another program"),
            format!(
                "`ss -ltunp sport = :{}` names it; stop it or choose another port",
                address.port()
            ),
        )
    } else if kind == io::ErrorKind::AddrNotAvailable {
        Finding::fail(
            PORT,
            format!("{found}: this machine does not have that address"),
            "choose one of its own, or let the service start after the network (network-online.target)",
        )
    } else if kind == io::ErrorKind::PermissionDenied {
        Finding::fail(
            PORT,
            format!("{found} is not allowed"),
            "ports below 1024 need AmbientCapabilities=CAP_NET_BIND_SERVICE",
        )
    } else {
        Finding::fail(PORT, format!("{found}: {kind}"), "choose another address")
    }
}

/// Judges what a node tells of its authority: `connected`, `credential_secs` (of life left), `list` (`fresh`, `stale`,
/// `lapsed`, `none`).
pub(super) fn authority(check: &'static str, trust: &Value) -> Finding {
    let is_connected = trust["connected"].as_bool() == Some(true);
    let credential_secs = trust["credential_secs"].as_u64();
    let list = trust["list"].as_str().unwrap_or("unknown");
    let reach = if is_connected { "reached" } else { "not reached" };
    let credential = credential_secs.map_or_else(
        || "no credential".to_owned(),
        |secs| format!("credential for {} h", secs / 3_600),
    );
    let found = format!("{reach}, {credential}, list of the revoked {list}");
    if list == "lapsed" {
        let cure =
            "the grace time is over: bring the node to its authority, or the answer by `fieldgate enroll`";
        return Finding::fail(check, found, cure);
    }
    if credential_secs.unwrap_or(0) == 0 {
        return Finding::fail(check, found, "`fieldgate enroll` with a ticket of the authority");
    }
    if !is_connected || list != "fresh" {
        return Finding::warn(
            check,
            found,
            "see that the authority runs and the relay on the way; the grace time runs",
        );
    }
    Finding::ok(check, found)
}

const NODE: &str = "node";
const PORT: &str = "port";

/// The only key whose addresses are of UDP.
const QUIC: &str = "link.quic.listen";

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::commands::doctor::Verdict;

    #[test]
    fn ports_are_free_or_taken() {
        // An address that no other test uses: what is given back here stays free.
        let taken = TcpListener::bind("127.77.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(port("k", address, false).verdict, Verdict::Fail);
        assert_eq!(port("k", address, true).verdict, Verdict::Ok);
        drop(taken);
        // A program that another test is starting may still have a copy of the socket.
        for (is_running, verdict) in [(false, Verdict::Ok), (true, Verdict::Warn)] {
            while port("k", address, is_running).verdict != verdict {
                thread::yield_now();
            }
        }
        // TEST-NET-1 of RFC 5737 belongs to no machine.
        let foreign = port("k", "192.0.2.1:4433".parse().unwrap(), false);
        assert_eq!(foreign.verdict, Verdict::Fail);
    }

    #[test]
    fn a_socket_says_whether_a_node_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let verdict = |kind: io::ErrorKind| control_socket(&path, &Err(kind.into())).verdict;
        assert_eq!(verdict(io::ErrorKind::NotFound), Verdict::Unused);
        assert_eq!(verdict(io::ErrorKind::ConnectionRefused), Verdict::Unused);
        assert_eq!(verdict(io::ErrorKind::PermissionDenied), Verdict::Fail);
        assert_eq!(verdict(io::ErrorKind::TimedOut), Verdict::Fail);
        let status = NodeStatus {
            name: "hall-3".into(),
            ..NodeStatus::default()
        };
        assert_eq!(control_socket(&path, &Ok(status)).verdict, Verdict::Ok);
    }

    #[test]
    fn an_authority_is_judged_by_what_the_node_tells() {
        let judge = |text: &str| authority("authority", &serde_json::from_str(text).unwrap()).verdict;
        let good = r#"{"connected":true,"credential_secs":7200,"list":"fresh"}"#;
        assert_eq!(judge(good), Verdict::Ok);
        assert_eq!(judge(&good.replace("true", "false")), Verdict::Warn);
        assert_eq!(judge(&good.replace("fresh", "stale")), Verdict::Warn);
        assert_eq!(judge(&good.replace("fresh", "lapsed")), Verdict::Fail);
        assert_eq!(judge(&good.replace("7200", "0")), Verdict::Fail);
        assert_eq!(judge("{}"), Verdict::Fail);
    }
}
