//! HTTP.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{
    absent_broker, assert_each_once,
    http_server::{HttpServer, Posted, Reaction},
    positions_file, publish_each, publish_numbers, site_with, wait_drained, wait_sink,
};
use crate::harness::{ports, wait::until};

fn sink(port: u16, more: &str) -> String {
    format!(
        "[[collector.sink]]\nkind = \"http\"\nurl = \"http://127.0.0.1:{port}/in?x=y\"\nlinger_ms = 5\n{more}\n"
    )
}

fn records(posted: &Posted) -> Vec<Value> {
    serde_json::from_slice(&posted.body).expect("a JSON array")
}

/// The payloads of everything kept, by records.
fn payloads<'p>(posted: impl IntoIterator<Item = &'p Posted>, field: &str) -> Vec<String> {
    let records = posted.into_iter().flat_map(records);
    records
        .map(|record| record[field].as_str().expect("text").to_owned())
        .collect()
}

fn wait_kept(server: &HttpServer, count: usize, field: &str) -> BTreeMap<String, Posted> {
    until(&format!("{count} records kept"), || {
        let kept = server.kept();
        let have = payloads(kept.values(), field).len();
        if have >= count {
            Ok(kept)
        } else {
            Err(format!("there are {have}"))
        }
    })
}

#[test]
fn answers_that_are_lost_and_processes_that_are_killed_repeat_the_same_request() {
    let port = ports::free();
    let mut site = site_with(&sink(port, ""));
    let server = HttpServer::start(port);
    site.start();
    publish_numbers(&site, 0..20);
    wait_drained(&site);
    server.react(Reaction::TakeAndVanish);
    publish_numbers(&site, 20..25);
    wait_sink(&site.collector, 0, "away", |sink| sink["state"] == "away");
    // More comes while the request is open, and the collector is killed in the middle of it.
    publish_numbers(&site, 25..40);
    site.collector.kill();
    site.collector.start();
    let before = server.seen().len();
    until("repeated after the restart", || {
        if server.seen().len() > before + 1 {
            Ok(())
        } else {
            Err(String::new())
        }
    });
    server.react(Reaction::Take);
    wait_drained(&site);
    let mut by_key: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for posted in server.seen() {
        let key = posted.headers["idempotency-key"].clone();
        assert!(key.starts_with("\"fg1") && key.ends_with('"'), "{key}");
        by_key.entry(key).or_default().insert(posted.body);
    }
    assert!(server.seen().len() > by_key.len(), "nothing was repeated");
    assert!(
        by_key.values().all(|bodies| bodies.len() == 1),
        "a key with two contents"
    );
    assert_each_once(payloads(server.kept().values(), "payload"), 40);

    // The server away, and back.
    server.stop();
    publish_numbers(&site, 40..50);
    wait_sink(&site.collector, 0, "away", |sink| sink["state"] == "away");
    let server = HttpServer::start(port);
    wait_drained(&site);
    site.collector.wait_healthy();
    assert_eq!(payloads(server.kept().values(), "payload").len(), 10);
}

#[test]
fn only_the_reading_that_is_refused_goes_aside() {
    let port = ports::free();
    let more =
        "format = \"cloudevents\"\non_rejected = \"set-aside\"\n[collector.sink.set]\nsite = \"north\"";
    let mut site = site_with(&sink(port, more));
    let server = HttpServer::start(port);
    server.react(Reaction::Refuse(503));
    site.start();
    let texts = (0..30).map(|number| {
        if number == 17 {
            "poison".to_owned()
        } else {
            number.to_string()
        }
    });
    publish_each(&site, texts);
    wait_sink(&site.collector, 0, "away", |sink| sink["state"] == "away");
    server.react(Reaction::RefuseText("poison"));
    wait_drained(&site);
    let kept = wait_kept(&server, 29, "data");
    let mut wanted: Vec<String> = (0..30)
        .filter(|number| *number != 17)
        .map(|number| number.to_string())
        .collect();
    let mut have = payloads(kept.values(), "data");
    wanted.sort();
    have.sort();
    assert_eq!(have, wanted);
    let first = kept.values().next().expect("a request");
    assert_eq!(
        first.headers["content-type"],
        "application/cloudevents-batch+json"
    );
    let event = &records(first)[0];
    assert_eq!(
        (&event["specversion"], &event["site"]),
        (&"1.0".into(), &"north".into())
    );
    let status = wait_sink(&site.collector, 0, "put aside", |sink| sink["set_aside"] == 1);
    assert_eq!(status["confirmed"], 29, "{status}");
    let aside = fs::read_to_string(
        site.collector
            .dir
            .join("state/collector/sink-http.rejected.jsonl"),
    );
    let aside: Value = serde_json::from_str(&aside.expect("the file is there")).expect("one line of JSON");
    assert_eq!(aside["payload"], "poison");
    assert!(
        aside["refused"]
            .as_str()
            .is_some_and(|reason| reason.contains("400")),
        "{aside}"
    );
}

#[test]
fn a_reading_that_is_refused_stops_the_sink_unless_the_file_says_otherwise() {
    let port = ports::free();
    let mut site = site_with(&sink(port, "token = { file = \"token\" }\ngzip = true"));
    site.collector.write_secret("token", b"Gehe1m-1");
    let server = HttpServer::start(port);
    server.react(Reaction::Refuse(401));
    site.start();
    publish_each(&site, ["0".to_owned(), "poison".to_owned(), "1".to_owned()]);
    let status = wait_sink(&site.collector, 0, "refused", |sink| sink["state"] == "refused");
    assert!(
        status["last_error"]
            .as_str()
            .is_some_and(|error| error.contains("401")),
        "{status}"
    );
    assert!(!site.collector.process().printed().contains("Gehe1m"));
    // Another token is taken without a restart.
    site.collector.write_secret("token", b"Gehe1m-2");
    until("the new token", || {
        let last = server.seen().pop().expect("a request");
        match last.headers["authorization"].as_str() {
            "Bearer Gehe1m-2" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    let posted = server.seen().pop().expect("a request");
    assert_eq!(posted.headers["content-encoding"], "gzip");
    assert!(gunzip(&posted.body).contains("\"payload\""));
    // Refused for good, it stays at the head; what came before it goes through.
    server.react(Reaction::Refuse(422));
    let status = wait_sink(&site.collector, 0, "stopped", |sink| {
        sink["last_error"]
            .as_str()
            .is_some_and(|error| error.contains("422"))
    });
    assert_eq!(
        (&status["set_aside"], &status["confirmed"]),
        (&0.into(), &0.into())
    );
    server.react(Reaction::Take);
    wait_drained(&site);
    assert!(
        !site
            .collector
            .dir
            .join("state/collector/sink-http.rejected.jsonl")
            .exists()
    );
}

#[test]
fn after_an_old_backup_the_ids_tell_copies() {
    let port = ports::free();
    let mut site = site_with("");
    // The other sink takes nothing, so the gateway keeps everything and delivers it again.
    site.collector.append(&(sink(port, "") + &absent_broker(&site)));
    let server = HttpServer::start(port);
    site.start();
    publish_numbers(&site, 0..10);
    wait_kept(&server, 10, "payload");
    // That the server has them is not yet known to the sink.
    wait_sink(&site.collector, 0, "confirmed", |sink| sink["confirmed"] == 10);
    site.collector.stop();
    let backup = fs::read(positions_file(&site, "http")).expect("positions are kept");
    site.collector.start();
    publish_numbers(&site, 10..25);
    wait_kept(&server, 25, "payload");
    site.collector.kill();
    fs::write(positions_file(&site, "http"), backup).expect("the file is ours");
    site.collector.start();
    publish_numbers(&site, 25..30);
    wait_sink(&site.collector, 0, "all posted", |sink| sink["confirmed"] == 20);
    let mut by_id = BTreeMap::new();
    for record in server.kept().values().flat_map(records) {
        let payload = record["payload"].as_str().expect("text").to_owned();
        let before = by_id.insert(record["id"].as_str().expect("an id").to_owned(), payload.clone());
        assert!(
            before.is_none_or(|before| before == payload),
            "an id with two meanings"
        );
    }
    assert_each_once(by_id.into_values().collect(), 30);
}

fn gunzip(bytes: &[u8]) -> String {
    let mut child = Command::new("gzip")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gzip is part of every Debian");
    child
        .stdin
        .take()
        .expect("it is piped")
        .write_all(bytes)
        .expect("it reads");
    let out = child.wait_with_output().expect("it ends");
    assert!(out.status.success());
    String::from_utf8(out.stdout).expect("text")
}
