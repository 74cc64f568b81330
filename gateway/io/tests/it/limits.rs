//! Bounds: reaching one is counted, visible, and passes.

use std::{io::Read, net::TcpStream, process::Command, time::Duration};

use fieldgate_io::{Backend, CloseReason, Io, Settings, clock};

use super::{Script, Seen, client, listening, on_both_backends, send, settings};

on_both_backends!(
    connections_over_the_bound_are_refused,
    a_connection_that_queues_too_much_is_aborted,
    running_out_of_descriptors_pauses_accepting,
    a_deadline_ends_the_wait,
    a_window_gathers_what_comes_in_it,
);

fn quiet(_: &mut Io, _: &Seen) {}

fn connections_over_the_bound_are_refused(backend: Backend) {
    let (mut driver, _, addr) = listening(
        backend,
        Settings {
            connections_max: 4,
            ..settings()
        },
    );
    let mut script = Script::new(|io: &mut Io, seen: &Seen| {
        if let Seen::Accepted(_, id) = seen {
            send(io, *id, b"hi");
        }
    });
    let mut streams: Vec<_> = (0..6)
        .map(|_| TcpStream::connect(addr).expect("the kernel accepts"))
        .collect();
    script.run(&mut driver, |_, io| io.stats().accepted + io.stats().refused == 6);
    script.run(&mut driver, |_, io| io.stats().bytes_sent == 8);
    let stats = driver.io().stats();
    assert_eq!((stats.accepted, stats.refused, stats.connections), (4, 2, 4));
    assert_eq!(script.arrivals().len(), 4);
    let error = driver
        .io()
        .connect(addr, &fieldgate_io::ConnectOptions::default())
        .expect_err("no room");
    assert_eq!(error.kind(), std::io::ErrorKind::QuotaExceeded);
    // Who is accepted is greeted; who is refused gets nothing but the end.
    let mut gone = 0;
    for stream in &mut streams {
        let greeted = matches!(stream.read(&mut [0; 2]), Ok(count) if count > 0);
        gone += i32::from(!greeted);
    }
    assert_eq!(gone, 2);
    // One goes, one comes.
    driver.io().abort(script.arrivals()[0]);
    script.run(&mut driver, |_, io| io.stats().connections == 3);
    client(&mut driver, &mut script, addr);
    assert_eq!(driver.io().stats().connections, 4);
}

fn a_connection_that_queues_too_much_is_aborted(backend: Backend) {
    let settings = Settings {
        queued_bytes_max: 1 << 20,
        ..settings()
    };
    let (mut driver, _, addr) = listening(backend, settings);
    let mut script = Script::new(quiet);
    let (_stream, id) = client(&mut driver, &mut script, addr);
    send(driver.io(), id, &vec![0; (1 << 20) + 1]);
    script.run(&mut driver, |script, io| {
        script.end_of(id).is_some() && io.stats().connections == 0
    });
    assert_eq!(script.end_of(id), Some(CloseReason::Overrun));
    assert_eq!(driver.io().stats().overrun, 1);
}

/// Limits belong to a process, so this test runs itself in one with few descriptors.
fn running_out_of_descriptors_pauses_accepting(backend: Backend) {
    const CHILD: &str = "FIELDGATE_FEW_DESCRIPTORS";
    if std::env::var_os(CHILD).is_some() {
        return run_out_of_descriptors(backend);
    }
    let test = format!("limits::{backend}::running_out_of_descriptors_pauses_accepting");
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" --exact \"$1\""])
        .arg(std::env::current_exe().expect("this test has a path"))
        .arg(test)
        .env(CHILD, "1")
        .output()
        .expect("there is a shell");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn run_out_of_descriptors(backend: Backend) {
    let (mut driver, _, addr) = listening(backend, settings());
    let mut script = Script::new(quiet);
    let mut streams = Vec::new();
    // Each client takes one descriptor now and one when it is accepted; these leave no room for the latter.
    while let Ok(stream) = TcpStream::connect(addr) {
        streams.push(stream);
    }
    assert!(streams.len() > 30, "{}", streams.len());
    script.run(&mut driver, |_, io| io.stats().accept_pauses > 0);
    assert_eq!(driver.io().stats().accepted, 0);
    // It tries again now and then, but does not spin: at most ten times a second.
    let (begin, before) = (driver.io().now(), driver.io().stats().accept_pauses);
    while driver.io().now() < begin + 300_000_000 || driver.io().stats().accept_pauses == before {
        driver.turn(&mut script).expect("it waits");
    }
    let tenths = (driver.io().now() - begin) / 100_000_000;
    let tries = driver.io().stats().accept_pauses - before;
    assert!(
        tries <= tenths + 1,
        "{tries} tries in {tenths} tenths of a second"
    );
    // Descriptors come back, and with them the others.
    let spare = streams.len() / 2 + 1;
    streams.truncate(streams.len() - spare);
    let expected = streams.len();
    script.run(&mut driver, |script, _| script.arrivals().len() >= expected);
}

fn a_deadline_ends_the_wait(backend: Backend) {
    let (mut driver, _, _) = listening(backend, settings());
    let mut script = Script::new(quiet).patient(Duration::from_millis(5));
    driver.turn(&mut script).expect("the first comes at once");
    let before = driver.io().now();
    driver.turn(&mut script).expect("it waits");
    assert!(
        driver.io().now() - before >= 5_000_000,
        "the turn came before its deadline, without cause"
    );
    assert_eq!(script.turns, 2);
}

/// While messages keep coming one by one, there are no more turns than windows.
fn a_window_gathers_what_comes_in_it(backend: Backend) {
    const MESSAGES: usize = 300;
    const WINDOW: Duration = Duration::from_millis(10);
    let (mut driver, _, addr) = listening(backend, settings());
    let mut script = Script::new(quiet).patient(Duration::from_secs(10));
    let (stream, id) = client(&mut driver, &mut script, addr);
    script.coalesce = WINDOW;
    driver.io().resume_receive(id);
    let sender = std::thread::spawn(move || {
        use std::io::Write;
        let mut stream = stream;
        for _ in 0..MESSAGES {
            stream.write_all(&[7]).expect("open");
            let next = clock::monotonic() + 200_000;
            while clock::monotonic() < next {
                std::hint::spin_loop();
            }
        }
        stream
    });
    // The first turn still has the window of none.
    script.run(&mut driver, |script, _| !script.bytes(id).is_empty());
    let (turns, begin) = (script.turns, clock::monotonic());
    script.run(&mut driver, |script, _| script.bytes(id).len() == MESSAGES);
    let windows = (clock::monotonic() - begin) / 10_000_000;
    let turns = (script.turns - turns) as u64;
    assert!(turns <= windows + 2, "{turns} turns in {windows} windows");
    drop(sender.join().expect("it writes"));
}
