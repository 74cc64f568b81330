//! MQTT brokers.

use std::{fs, path::Path};

use super::{publish_numbers, site_with, wait_drained, wait_sink};
use crate::harness::{
    ports,
    process::{Process, command, run},
    site::DEVICE,
};

#[test]
fn a_broker_that_wants_certificate_and_password_is_reached_by_tls_and_again_after_it_was_killed() {
    let port = ports::free();
    let sink = format!(
        "[[collector.sink]]\nkind = \"mqtt\"\naddress = \"localhost:{port}\"\nusername = \"u\"\npassword = {{ file = \"pw\" }}\n\
         [collector.sink.set]\nsite = \"north\"\n\
         [collector.sink.tls]\nca = \"ca.pem\"\ncertificate = \"own.pem\"\nkey = \"own.key\"\n\
         [[collector.sink.rename]]\nfrom = \"+/{{what}}\"\nto = \"site/{{gateway}}/{{what}}/of/{{device}}\"\n"
    );
    let mut site = site_with(&sink);
    certificates(&site.collector.dir);
    site.collector.write_secret("pw", b"right");
    let broker = broker(&site.collector.dir, port);
    let mut subscriber = subscribe(&site.collector.dir, port, "5", "%t %P %C %p");
    site.start();
    publish_numbers(&site, 0..3);
    let line = subscriber.wait_for_text("fieldgate-id:");
    assert!(
        line.starts_with(&format!("site/gateway-1/count/of/{DEVICE} ")),
        "{line}"
    );
    assert!(
        line.contains("fieldgate-class:normal") && line.contains("site:north") && line.ends_with(" 0"),
        "{line}"
    );
    wait_drained(&site);
    site.collector.wait_healthy();
    kill(broker);
    publish_numbers(&site, 3..6);
    wait_sink(&site.collector, 0, "away", |sink| sink["state"] == "away");
    let broker = self::broker(&site.collector.dir, port);
    let mut subscriber = subscribe(&site.collector.dir, port, "5", "%t %P %C %p");
    // What the first subscriber may have missed comes again as it was not acknowledged; the last one does in any case.
    wait_drained(&site);
    publish_numbers(&site, 6..7);
    subscriber.wait_for("the last number", |line| line.ends_with(" 6").then_some(()));

    // A broker that is somebody else is told, and gets nothing.
    fs::copy(
        site.collector.dir.join("other-ca.pem"),
        site.collector.dir.join("ca.pem"),
    )
    .expect("the files are ours");
    site.collector.stop();
    site.collector.start();
    let status = wait_sink(&site.collector, 0, "away", |sink| sink["last_error"].is_string());
    assert!(
        status["last_error"]
            .as_str()
            .is_some_and(|error| error.contains("TLS with localhost")),
        "{status}"
    );
    kill(broker);
}

#[test]
fn an_old_broker_gets_records_that_hold_the_id() {
    let port = ports::free();
    let sink = format!(
        "[[collector.sink]]\nkind = \"mqtt\"\naddress = \"127.0.0.1:{port}\"\nprotocol = \"3.1.1\"\nformat = \"json\"\n\
         fields = [\"payload\", \"device\"]\ntopic = \"all/{{class}}/{{path}}\"\n"
    );
    let mut site = site_with(&sink);
    let broker = crate::harness::broker::Broker::start(site.dir(), port);
    let port = port.to_string();
    let words = [
        "stdbuf",
        "-oL",
        "mosquitto_sub",
        "-V",
        "311",
        "-p",
        &port,
        "-q",
        "1",
        "-t",
        "all/#",
        "-F",
        "%t %p",
        "-d",
    ];
    let mut subscriber = Process::spawn("mosquitto_sub", &mut command(&words));
    subscriber.wait_for_text("Subscribed");
    site.start();
    publish_numbers(&site, 0..2);
    let line = subscriber.wait_for("a message", |line| {
        line.starts_with("all/").then(|| line.to_owned())
    });
    let (topic, payload) = line.split_once(' ').expect("topic and payload");
    assert_eq!(
        topic,
        format!("all/normal/{DEVICE}/count"),
        "the device stands there once"
    );
    let record: serde_json::Value = serde_json::from_str(payload).expect("JSON");
    assert_eq!(
        (&record["device"], &record["payload"]),
        (&DEVICE.into(), &"0".into())
    );
    assert!(record["id"].as_str().is_some_and(|id| id.starts_with("fg1")));
    assert_eq!(record.as_object().map(serde_json::Map::len), Some(3));
    wait_drained(&site);
    broker.stop();
}

/// Starts mosquitto with TLS, certificates of clients and a password.
fn broker(dir: &Path, port: u16) -> Process {
    let passwords = dir.join("passwords");
    run(command(&["mosquitto_passwd", "-b", "-c"])
        .arg(&passwords)
        .args(["u", "right"]))
    .expect(0);
    let file = dir.join("broker.conf");
    let at = |name: &str| dir.join(name).display().to_string();
    let text = format!(
        "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\npersistence false\nuser root\n\
         cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nlog_dest stderr\nlog_type all\n",
        passwords.display(),
        at("real-ca.pem"),
        at("broker.pem"),
        at("broker.key"),
    );
    fs::write(&file, text).expect("the directory is ours");
    let words = [
        "/usr/sbin/mosquitto",
        "-c",
        file.to_str().expect("the path is text"),
    ];
    let mut process = Process::spawn("mosquitto", &mut command(&words));
    process.wait_for_text("running");
    process
}

fn kill(mut broker: Process) {
    broker.kill();
}

fn subscribe(dir: &Path, port: u16, version: &str, format: &str) -> Process {
    let port = port.to_string();
    let mut subscribe = command(&[
        "stdbuf",
        "-oL",
        "mosquitto_sub",
        "-V",
        version,
        "-h",
        "localhost",
        "-p",
        &port,
    ]);
    subscribe.args([
        "-q", "1", "-t", "site/#", "-F", format, "-d", "-u", "u", "-P", "right",
    ]);
    subscribe.arg("--cafile").arg(dir.join("real-ca.pem"));
    subscribe
        .arg("--cert")
        .arg(dir.join("own.pem"))
        .arg("--key")
        .arg(dir.join("own.key"));
    let mut subscriber = Process::spawn("mosquitto_sub", &mut subscribe);
    subscriber.wait_for_text("Subscribed");
    subscriber
}

/// Makes two authorities, and certificates of the first for the broker and the collector.
fn certificates(dir: &Path) {
    let openssl = |line: &str| {
        let mut words = vec!["openssl"];
        words.extend(line.split(' '));
        run(command(&words).current_dir(dir)).expect(0);
    };
    for name in ["real-ca", "other-ca"] {
        openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.pem -subj /CN={name} -days 2"
        ));
    }
    fs::write(
        dir.join("ext"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
    )
    .expect("the directory is ours");
    for name in ["broker", "own"] {
        openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA real-ca.pem -CAkey real-ca.key -CAcreateserial -extfile ext -out {name}.pem -days 2"
        ));
    }
    fs::copy(dir.join("real-ca.pem"), dir.join("ca.pem")).expect("the directory is ours");
}
