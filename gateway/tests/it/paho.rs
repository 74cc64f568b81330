//! The Eclipse Paho client as a second stock client.

use std::path::Path;

use crate::harness::{
    process::{CLIENT_TIME, command, run},
    site::Site,
};

#[test]
fn paho_publishes_by_both_versions_and_qualities() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = here.join("../target/python/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run `cargo xtask setup`, which installs paho-mqtt there",
        python.display()
    );
    let mut site = Site::new().without_broker();
    site.gateway
        .edit("alarm_topics = ", "anonymous = true\nalarm_topics = ");
    site.start();
    let mut expected = Vec::new();
    for (version, qos) in [("4", "0"), ("4", "1"), ("5", "0"), ("5", "1")] {
        let payloads = ["a", "b", "c"].map(|part| format!("{version}-{qos}-{part}"));
        let limit = CLIENT_TIME.as_secs().to_string();
        let mut paho = command(&["timeout", &limit]);
        paho.arg(&python).arg(here.join("tests/it/publish.py"));
        paho.args([site.mqtt.ip().to_string(), site.mqtt.port().to_string()]);
        paho.args([version, qos, "press-1", "press-1/temperature"])
            .args(&payloads);
        let ended = run(&mut paho).expect(0);
        assert!(ended.out.starts_with("connected: Success\n"), "{ended:?}");
        assert_eq!(ended.out.matches("published: Success\n").count(), 3, "{ended:?}");
        expected.extend(payloads);
        // Sent at QoS 0 is not read yet, and the next client has the same name.
        site.wait_readings(expected.len());
    }
    let readings = site.wait_readings(expected.len());
    let payloads: Vec<_> = readings
        .iter()
        .filter_map(|reading| reading["payload"].as_str())
        .collect();
    assert_eq!(payloads, expected);
}
