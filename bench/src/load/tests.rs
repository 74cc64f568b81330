use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};

use super::*;

/// An MQTT server for one client that answers each packet with what `answer` says, until the client leaves.
fn server(answer: fn(&Packet<'_>, &mut Vec<u8>)) -> (SocketAddr, JoinHandle<Vec<u64>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut inbox, mut scratch, mut stamps) = (Inbox::default(), [0; 4096], Vec::new());
        loop {
            let read = stream.read(&mut scratch).unwrap_or(0);
            if read == 0 {
                return stamps;
            }
            let mut out = Vec::new();
            let seen = inbox.feed(&scratch[..read], |packet| {
                stamps.extend(stamp::find(packet.body));
                answer(&packet, &mut out);
                Ok::<(), TooLong>(())
            });
            if seen.is_err() || stream.write_all(&out).is_err() {
                return stamps;
            }
        }
    });
    (address, thread)
}

fn acknowledge(packet: &Packet<'_>, out: &mut Vec<u8>) {
    match packet.kind() {
        kind::CONNECT => packet::put_connack(out, packet),
        kind::PUBLISH => packet::put_puback(out, packet.packet_identifier().unwrap()),
        _ => {}
    }
}

fn settings(address: SocketAddr, rate: Option<u32>) -> Settings {
    Settings {
        window: 4,
        payload_bytes: 100,
        ..Settings::new(address, 1, rate)
    }
}

/// Runs the generator until `enough` publishes are acknowledged.
fn run(settings: Settings, enough: u64) -> Result<Report, Failure> {
    let window = Window::new();
    window.open(0);
    let progress = Progress::default();
    let load = Load::connect(settings)?;
    thread::scope(|scope| {
        let generator = scope.spawn(|| load.run(&window, &progress));
        while progress.acked() < enough && !generator.is_finished() {
            thread::yield_now();
        }
        progress.stop();
        generator.join().unwrap()
    })
}

#[test]
fn a_closed_loop_gets_every_publish_acknowledged_and_timed() {
    let (address, server) = server(acknowledge);
    let report = run(settings(address, None), 100).unwrap();
    let stamps = server.join().unwrap();
    assert!(report.acked >= 100);
    assert_eq!(report.sent, report.acked);
    assert_eq!(u64::try_from(stamps.len()).unwrap(), report.sent);
    assert_eq!(report.latencies.summary().unwrap().count, report.acked);
    assert!(stamps.is_sorted() && stamps[0] > 0);
}

#[test]
fn an_open_loop_keeps_its_rate_within_the_window() {
    let (address, server) = server(acknowledge);
    let before = clock::now();
    let report = run(settings(address, Some(1000)), 50).unwrap();
    let took = clock::now() - before;
    drop(server.join());
    assert!(report.acked >= 50);
    assert!(report.sent <= took * 1000 / 1_000_000_000 + 1);
}

#[test]
fn a_refused_client_ends_the_run_with_its_code() {
    let (address, _) = server(|_, out| out.extend_from_slice(&[kind::CONNACK, 2, 0, 5]));
    let Err(failure) = run(settings(address, None), 1) else {
        panic!("refused client published")
    };
    assert_eq!(failure.to_string(), "device-00000: was refused with code 5");
}

#[test]
fn an_acknowledgement_of_nothing_ends_the_run() {
    let (address, _) = server(|packet, out| match packet.kind() {
        kind::CONNECT => packet::put_connack(out, packet),
        _ => packet::put_puback(out, 5),
    });
    let Err(failure) = run(settings(address, None), 1) else {
        panic!("a wrong PUBACK was taken")
    };
    assert!(failure.to_string().contains("not in use"), "{failure}");
}

#[test]
fn a_second_acknowledgement_ends_the_run() {
    let (address, _) = server(|packet, out| {
        acknowledge(packet, out);
        if packet.kind() == kind::PUBLISH {
            acknowledge(packet, out);
        }
    });
    let Err(failure) = run(settings(address, Some(100)), 10) else {
        panic!("a double PUBACK was taken")
    };
    assert!(failure.to_string().contains("twice"), "{failure}");
}
