//! Links over UNIX sockets.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::{carry, dial, link, start};
use crate::harness::{node::text, site::Site};

#[test]
fn nodes_of_one_machine_meet_at_a_socket() {
    let mut site = Site::new().without_broker();
    let path = site.dir().join("link.sock");
    let shown = path.display().to_string();
    site.relay
        .append(&format!("[link.unix]\nlisten = \"{shown}\"\nmode = \"0600\"\n"));
    let address = format!("unix:{shown}");
    dial(&site, &site.gateway, &address, "");
    // Nobody listens at the first of these.
    dial(
        &site,
        &site.collector,
        &format!("{address}.none"),
        &format!("\"{address}\""),
    );
    start(&mut site);
    carry(&site, "21.5");
    let mode = fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let dialled = link(&site.gateway);
    assert_eq!(dialled["peer"], address.as_str());
    assert_eq!(dialled["chosen"], "its only address");
    let other = link(&site.collector);
    assert_eq!(other["peer"], address.as_str());
    let why = text(&other, "chosen");
    assert!(
        why.starts_with(&format!("another failed: {address}.none: ")),
        "{why}"
    );
    let status = site.relay.wait_status("two links", |status| {
        status["network"]["links"]
            .as_array()
            .is_some_and(|links| links.len() == 2)
    });
    for link in status["network"]["links"].as_array().expect("two links") {
        let peer = text(link, "peer");
        assert!(
            peer.starts_with("process ") && peer.ends_with(" over UNIX socket"),
            "{peer}"
        );
    }
    site.gateway.stop();
    site.collector.stop();
    site.relay.stop();
    assert!(!path.exists(), "the relay removes what it made");
}
