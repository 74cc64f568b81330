//! NATS JetStream.

use std::{collections::BTreeSet, fs, time::Duration};

use async_nats::jetstream::stream::Config;

use super::{
    absent_broker, assert_each_once,
    nats_server::{NatsServer, Stored},
    positions_file, publish_each, publish_numbers, site_with, wait_drained, wait_sink,
};
use crate::harness::{
    ports,
    site::{DEVICE, Site},
    wait::{Stopwatch, until},
};

fn sink(port: u16, more: &str) -> String {
    format!(
        "[[collector.sink]]\nkind = \"nats\"\naddress = \"127.0.0.1:{port}\"\nstream = \"READINGS\"\n{more}\n"
    )
}

fn wait_messages(server: &NatsServer, count: usize) -> Vec<Stored> {
    until(&format!("{count} messages in the stream"), || {
        let info = server.info("READINGS");
        let messages = info.map_or(0, |info| info.state.messages);
        if messages >= count as u64 {
            Ok(())
        } else {
            Err(format!("there are {messages}"))
        }
    });
    server.messages("READINGS")
}

/// Asserts that the stream has each number once, and each id once.
fn assert_exact(messages: Vec<Stored>, count: u32) {
    let ids: BTreeSet<&String> = messages.iter().map(|message| &message.id).collect();
    assert_eq!(ids.len(), messages.len(), "an id stands there twice");
    assert_each_once(
        messages.into_iter().map(|message| message.payload).collect(),
        count,
    );
}

#[test]
fn a_killed_server_has_every_reading_once_when_it_is_back_and_says_what_its_word_is_worth() {
    let port = ports::free();
    let mut site = site_with(&sink(port, "[collector.sink.create]"));
    let server = NatsServer::start(site.dir(), port, "");
    site.start();
    publish_numbers(&site, 0..40);
    let messages = wait_messages(&server, 40);
    assert_eq!(messages[0].subject, format!("fieldgate.gateway-1.{DEVICE}.count"));
    wait_drained(&site);
    let status = wait_sink(&site.collector, 0, "taking", |sink| sink["state"] == "taking");
    let notice = status["notices"][0].as_str().expect("a notice").to_owned();
    assert!(notice.contains("acknowledges before fsync"), "{notice}");
    site.collector
        .process()
        .wait_for_text("acknowledges before fsync");
    let shown = site.collector.run(&["status"]).expect(0).out;
    assert!(shown.contains("acknowledges before fsync"), "{shown}");

    // Killed while readings come.
    server.kill();
    publish_numbers(&site, 40..80);
    let away = wait_sink(&site.collector, 0, "away", |sink| {
        sink["state"] == "away" && sink["waiting_bytes"].as_u64() > Some(0)
    });
    assert!(
        away["last_error"].is_string() && away["errors"].as_u64() > Some(0),
        "{away}"
    );
    let health = site.collector.status();
    assert_eq!(health["health"], "degraded");
    assert!(site.collector.samples().sum("fieldgate_sink_reachable") == 0.0);

    let server = NatsServer::start(site.dir(), port, "");
    wait_drained(&site);
    assert_exact(wait_messages(&server, 80), 80);
    site.collector.wait_healthy();
    server.kill();
}

#[test]
fn beyond_the_servers_window_what_the_stream_has_is_not_published_again() {
    let port = ports::free();
    let create = "[collector.sink.create]\nduplicate_window_secs = 1";
    let mut site = site_with("");
    // The other sink takes nothing, so the gateway keeps everything and delivers it again.
    site.collector
        .append(&(sink(port, create) + &absent_broker(&site)));
    let server = NatsServer::start(site.dir(), port, "");
    site.start();
    publish_numbers(&site, 0..10);
    wait_messages(&server, 10);
    // That the stream has them is not yet known to the sink.
    wait_sink(&site.collector, 0, "confirmed", |sink| sink["confirmed"] == 10);
    site.collector.stop();
    let backup = fs::read(positions_file(&site, "nats")).expect("positions are kept");
    site.collector.start();
    publish_numbers(&site, 10..30);
    wait_messages(&server, 30);
    let stored = Stopwatch::start();
    site.collector.kill();
    until("the window has passed", || {
        if stored.elapsed() > Duration::from_millis(1_500) {
            Ok(())
        } else {
            Err(String::new())
        }
    });
    // Restored from an older backup.
    fs::write(positions_file(&site, "nats"), backup).expect("the file is ours");
    site.collector.start();
    publish_numbers(&site, 30..40);
    assert_exact(wait_messages(&server, 40), 40);
    let status = wait_sink(&site.collector, 0, "copies counted", |sink| {
        sink["waiting_bytes"] == 0
    });
    assert_eq!(status["duplicates"], 30, "{status}");
    assert_eq!(status["confirmed"], 10, "{status}");

    // Without positions at all: the whole stream is read back.
    site.collector.kill();
    fs::remove_file(positions_file(&site, "nats")).expect("the file is ours");
    site.collector.start();
    publish_numbers(&site, 40..50);
    assert_exact(wait_messages(&server, 50), 50);
    server.kill();
}

#[test]
fn a_stream_that_is_not_there_or_takes_no_more_keeps_readings_with_the_gateway() {
    let port = ports::free();
    let mut site = site_with(&sink(port, ""));
    let server = NatsServer::start(site.dir(), port, "");
    site.start();
    publish_numbers(&site, 0..5);
    let status = wait_sink(&site.collector, 0, "refused", |sink| sink["state"] == "refused");
    assert!(
        status["last_error"]
            .as_str()
            .is_some_and(|error| error.contains("[collector.sink.create]")),
        "{status}"
    );
    server.create(Config {
        name: "READINGS".to_owned(),
        subjects: vec!["fieldgate.>".to_owned()],
        max_messages: 5,
        discard: async_nats::jetstream::stream::DiscardPolicy::New,
        ..Config::default()
    });
    wait_messages(&server, 5);
    wait_drained(&site);
    publish_numbers(&site, 5..8);
    let status = wait_sink(&site.collector, 0, "full", |sink| sink["state"] == "refused");
    assert!(
        status["last_error"]
            .as_str()
            .is_some_and(|error| error.contains("maximum messages")),
        "{status}"
    );
    // A new stream in its place is another one: it gets what the gateway still has, and the operator is told.
    server.delete("READINGS");
    server.create(Config {
        name: "READINGS".to_owned(),
        subjects: vec!["fieldgate.>".to_owned()],
        ..Config::default()
    });
    wait_drained(&site);
    let payloads: Vec<String> = wait_messages(&server, 3)
        .into_iter()
        .map(|message| message.payload)
        .collect();
    assert_eq!(payloads, ["5", "6", "7"]);
    let status = wait_sink(&site.collector, 0, "taking", |sink| sink["state"] == "taking");
    assert!(
        status["warnings"][0]
            .as_str()
            .is_some_and(|text| text.contains("created again")),
        "{status}"
    );
    server.kill();
}

#[test]
fn a_message_that_is_too_large_goes_aside_and_the_others_go_on() {
    let port = ports::free();
    let mut site = site_with(&sink(
        port,
        "on_rejected = \"set-aside\"\n[collector.sink.create]",
    ));
    let server = NatsServer::start(site.dir(), port, "max_payload: 4096");
    site.start();
    publish_each(&site, ["0".to_owned(), "x".repeat(5_000), "1".to_owned()]);
    wait_drained(&site);
    assert_exact(wait_messages(&server, 2), 2);
    let status = wait_sink(&site.collector, 0, "put aside", |sink| sink["set_aside"] == 1);
    assert!(
        status["warnings"][0]
            .as_str()
            .is_some_and(|text| text.contains("put aside")),
        "{status}"
    );
    let aside = fs::read_to_string(
        site.collector
            .dir
            .join("state/collector/sink-nats.rejected.jsonl"),
    );
    let aside: serde_json::Value =
        serde_json::from_str(&aside.expect("the file is there")).expect("one line of JSON");
    assert_eq!(aside["payload"], "x".repeat(5_000));
    assert!(
        aside["refused"]
            .as_str()
            .is_some_and(|reason| reason.contains("4096")),
        "{aside}"
    );
    server.kill();
}

#[test]
fn a_login_that_is_refused_is_told_without_the_secret() {
    let port = ports::free();
    let mut site = site_with(&sink(
        port,
        "username = \"u\"\npassword = { file = \"nats-password\" }\n[collector.sink.create]",
    ));
    site.collector.write_secret("nats-password", b"wrong-Gehe1m");
    let server = NatsServer::start(site.dir(), port, "authorization { user: u, password: right }");
    site.start();
    let status = wait_sink(&site.collector, 0, "away", |sink| sink["last_error"].is_string());
    let printed = site.collector.process().printed();
    assert!(
        status["last_error"]
            .as_str()
            .is_some_and(|error| error.to_lowercase().contains("authorization")),
        "{status}"
    );
    assert!(!printed.contains("Gehe1m") && !status.to_string().contains("Gehe1m"));
    // Put right without a restart of the collector.
    site.collector.write_secret("nats-password", b"right");
    publish_numbers(&site, 0..3);
    wait_drained(&site);
    server.kill();
    let _: &Site = &site;
}
