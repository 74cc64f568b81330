//! Public test suites, run unchanged against gateways by `cargo xtask suites`: they wait for seconds, and no longer, so they want a machine
//! of their own. What each is known to end with stands in `tests/interop`.

use std::path::{Path, PathBuf};

use super::driven::installed;
use crate::harness::{
    process::{command, run},
    site::Site,
};

mod mosquitto;

#[test]
fn the_suite_of_paho_ends_as_known() {
    let mut site = site();
    site.gateway.start();
    let mut suite = command(&["timeout", "300"]);
    suite.arg(installed("python/bin/python"));
    suite.args(["-W", "ignore", "-m", "unittest", "-v", "test_mqttv5"]);
    suite.current_dir(installed("suites/paho/tests"));
    suite.env("PYTHONPATH", ours().join("paho"));
    suite.env("INTEROP_PORT", site.mqtt.port().to_string());
    let ended = run(&mut suite);
    let failed: Vec<&str> = ended
        .err
        .lines()
        .filter_map(|line| {
            line.strip_prefix("FAIL: ")
                .or_else(|| line.strip_prefix("ERROR: "))
        })
        .map(|name| name.split(' ').next().unwrap_or(name))
        .collect();
    // Its own broker refuses one certain topic, and here nobody has forbidden it.
    assert_eq!(failed, ["test_subscribe_failure"], "{}", ended.err);
    assert!(ended.err.contains("\nRan 21 tests in "), "{}", ended.err);
    site.gateway.status();
}

/// A gateway for suites: anybody may do anything, sessions are kept for as long as they want, and no test waits for the disk.
fn site() -> Site {
    let site = Site::new().without_broker();
    site.gateway.edit(
        "alarm_topics = ",
        "anonymous = true\nconnects_per_second_max = 0\nsession_expiry_max_secs = 4294967295\nalarm_topics = ",
    );
    site.gateway.edit(
        "bytes_max = \"1 GiB\"\n",
        "bytes_max = \"1 GiB\"\ndurable = false\n",
    );
    site
}

fn ours() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}
