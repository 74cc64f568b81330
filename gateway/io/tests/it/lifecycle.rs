//! Connections: how they begin, how they end, and what is left of them.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use fieldgate_io::{
    Backend, BackendChoice, BufferClass, CloseReason, ConnectOptions, Driver, Io, ListenOptions, Settings,
    Waker,
};

use rustix::event::{PollFd, PollFlags, poll};

use super::{
    Progress, Script, Seen, client, driver, listen_at, listening, on_both_backends, own_host, pattern, send,
    settings,
};

on_both_backends!(
    a_reset_is_told,
    an_abort_resets_the_peer,
    closing_delivers_the_last_words_despite_unread_bytes,
    closing_does_not_wait_for_ever,
    stale_names_are_harmless,
    connects_and_talks_to_itself,
    bytes_that_come_with_the_connection_are_told_after_it,
    a_refused_connect_is_told,
    a_connect_takes_no_longer_than_allowed,
    listeners_share_an_address,
    no_connection_comes_after_unlisten,
    a_handler_may_close_at_once,
    dropping_the_driver_gives_everything_back,
    a_waker_serves_one_driver_at_a_time,
);

fn quiet(_: &mut Io, _: &Seen) {}

fn a_reset_is_told(backend: Backend) {
    let (mut driver, _, addr) = listening(backend, settings());
    let mut script = Script::new(quiet);
    let (stream, id) = client(&mut driver, &mut script, addr);
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("open");
    drop(stream);
    script.run(&mut driver, |script, _| script.end_of(id).is_some());
    assert_eq!(script.end_of(id), Some(CloseReason::Reset));
    script.run(&mut driver, |_, io| io.stats().connections == 0);
}

fn an_abort_resets_the_peer(backend: Backend) {
    let (mut driver, _, addr) = listening(backend, settings());
    let mut script = Script::new(quiet);
    let (mut stream, id) = client(&mut driver, &mut script, addr);
    send(driver.io(), id, b"never sent");
    driver.io().abort(id);
    assert!(driver.io().send_buffer(id).is_none());
    script.run(&mut driver, |script, io| {
        script.end_of(id).is_some() && io.stats().connections == 0
    });
    assert_eq!(script.end_of(id), Some(CloseReason::Aborted));
    let error = stream.read(&mut [0; 100]).expect_err("reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

fn closing_delivers_the_last_words_despite_unread_bytes(backend: Backend) {
    let (mut driver, _, addr) = listening(backend, settings());
    let mut script = Script::new(|io: &mut Io, seen: &Seen| {
        if let Seen::Accepted(_, id) = seen {
            io.pause_receive(*id);
        }
    });
    let (mut stream, id) = client(&mut driver, &mut script, addr);
    stream.write_all(&pattern(1, 0, 100_000)).expect("open");
    for _ in 0..3 {
        driver.turn(&mut script).expect("it waits");
    }
    send(driver.io(), id, b"you talk too much");
    driver.io().close(id);
    assert!(driver.io().send_buffer(id).is_none());
    let reader = thread::spawn(move || {
        let mut words = String::new();
        stream
            .read_to_string(&mut words)
            .expect("no reset, although the server has not read everything");
        // Still talking after the answer.
        stream
            .write_all(&[1; 1000])
            .expect("the server is still there to throw it away");
        words
    });
    script.run(&mut driver, |script, _| script.end_of(id).is_some());
    assert_eq!(reader.join().expect("it reads"), "you talk too much");
    assert_eq!(script.end_of(id), Some(CloseReason::Local));
    assert!(script.bytes(id).is_empty(), "nothing is received after closing");
}

fn closing_does_not_wait_for_ever(backend: Backend) {
    let settings = Settings {
        close_timeout: Duration::from_millis(50),
        ..settings()
    };
    let (mut driver, _, addr) = listening(backend, settings);
    let mut script = Script::new(quiet);
    // One peer takes what it gets but does not close, the other does not even take it.
    let (_silent, first) = client(&mut driver, &mut script, addr);
    let (_stuck, second) = client(&mut driver, &mut script, addr);
    send(driver.io(), first, b"goodbye");
    driver.io().close(first);
    send(driver.io(), second, &vec![0; 15 << 20]);
    driver.io().close(second);
    script.run(&mut driver, |script, _| {
        script.end_of(first).is_some() && script.end_of(second).is_some()
    });
    assert_eq!(script.end_of(first), Some(CloseReason::Local));
    assert_eq!(script.end_of(second), Some(CloseReason::Unflushed));
    script.run(&mut driver, |_, io| io.stats().connections == 0);
}

fn stale_names_are_harmless(backend: Backend) {
    let (mut driver, _, addr) = listening(
        backend,
        Settings {
            connections_max: 1,
            ..settings()
        },
    );
    let mut script = Script::new(quiet);
    let (stream, old) = client(&mut driver, &mut script, addr);
    driver.io().abort(old);
    drop(stream);
    script.run(&mut driver, |_, io| io.stats().connections == 0);
    let (mut stream, new) = client(&mut driver, &mut script, addr);
    assert_ne!(old, new);
    let io = driver.io();
    assert!(io.send_buffer(old).is_none());
    assert_eq!(
        (io.queued_bytes(old), io.is_open(old), io.is_congested(old)),
        (0, false, false)
    );
    io.close(old);
    io.abort(old);
    io.finish(old);
    io.pause_receive(old);
    io.resume_receive(old);
    stream.write_all(b"still here").expect("open");
    script.run(&mut driver, |script, _| script.bytes(new) == b"still here");
    assert_eq!(script.end_of(new), None);
    assert_eq!(
        script.count(|seen| matches!(seen, Seen::Closed(id, _) if *id == old)),
        1
    );
}

fn connects_and_talks_to_itself(backend: Backend) {
    let mut driver = driver(backend, settings());
    for any in [
        SocketAddr::from(([127, 0, 0, 1], 0)),
        SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0)),
    ] {
        let (_, addr) = driver
            .io()
            .listen(any, &ListenOptions::default())
            .expect("loopback");
        let dialled = driver
            .io()
            .connect(addr, &ConnectOptions::default())
            .expect("a socket");
        assert!(!driver.io().is_open(dialled));
        // What is written before it is connected goes out first.
        send(driver.io(), dialled, b"early, ");
        let mut script = Script::new(|io: &mut Io, seen: &Seen| match seen {
            Seen::Connected(id, Ok(())) => send(io, *id, b"late"),
            Seen::Received(id, bytes) if bytes.ends_with(b"late") => {
                send(io, *id, b"heard");
                io.close(*id);
            }
            Seen::Ended(id) => io.close(*id),
            _ => {}
        });
        script.run(&mut driver, |script, _| {
            script.count(|seen| matches!(seen, Seen::Closed(..))) == 2
        });
        assert!(script.seen.contains(&Seen::Connected(dialled, Ok(()))));
        assert_eq!(script.bytes(dialled), b"heard");
        assert_eq!(script.end_of(dialled), Some(CloseReason::Peer));
        let server = script.arrivals()[0];
        assert_eq!(script.bytes(server), b"early, late");
        assert_eq!(script.end_of(server), Some(CloseReason::Local));
    }
}

fn bytes_that_come_with_the_connection_are_told_after_it(backend: Backend) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let addr = listener.local_addr().expect("bound");
    let peer = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.write_all(b"hello").expect("open");
        stream
    });
    let mut driver = driver(backend, settings());
    let mut script = Script::new(quiet);
    // The driver looks only after the peer has had time to speak.
    script.coalesce = Duration::from_millis(50);
    driver.turn(&mut script).expect("the kernel lets us wait");
    let id = driver
        .io()
        .connect(addr, &ConnectOptions::default())
        .expect("a socket");
    script.run(&mut driver, |script, _| script.bytes(id) == b"hello");
    let told: Vec<&Seen> = script.seen.iter().collect();
    assert_eq!(
        told,
        [
            &Seen::Connected(id, Ok(())),
            &Seen::Received(id, b"hello".to_vec())
        ]
    );
    drop(peer.join().expect("the peer spoke"));
}

/// A socket at a port of its own.
fn bound() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .expect("loopback");
    let addr = socket.local_addr().expect("bound");
    (socket, addr.as_socket().expect("an IP address"))
}

fn a_refused_connect_is_told(backend: Backend) {
    let mut driver = driver(backend, settings());
    // Bound, so that nobody else gets the port, but not listening.
    let (_deaf, addr) = bound();
    let id = driver
        .io()
        .connect(addr, &ConnectOptions::default())
        .expect("a socket");
    send(driver.io(), id, b"anyone?");
    let mut script = Script::new(quiet);
    script.run(&mut driver, |script, io| {
        !script.seen.is_empty() && io.stats().connections == 0
    });
    assert_eq!(
        script.seen,
        [Seen::Connected(id, Err(ErrorKind::ConnectionRefused))]
    );
}

fn a_connect_takes_no_longer_than_allowed(backend: Backend) {
    let mut driver = driver(backend, settings());
    // A listener with a full queue does not answer.
    let (silent, addr) = bound();
    silent.listen(0).expect("bound");
    let _first = TcpStream::connect(addr).expect("there is room for one");
    // The client may be told before the listener, whose queue is full only then.
    let mut descriptors = [PollFd::new(&silent, PollFlags::IN)];
    poll(&mut descriptors, None).expect("it waits");
    let options = ConnectOptions {
        class: BufferClass::Link,
        timeout: Duration::from_millis(50),
        ..ConnectOptions::default()
    };
    let slow = driver.io().connect(addr, &options).expect("a socket");
    let patient = ConnectOptions {
        timeout: Duration::from_secs(600),
        ..options
    };
    let given_up = driver.io().connect(addr, &patient).expect("a socket");
    let mut script = Script::new(quiet);
    driver.turn(&mut script).expect("it waits");
    driver.io().close(given_up);
    script.run(&mut driver, |script, io| {
        script.seen.len() == 2 && io.stats().connections == 0
    });
    assert!(
        script
            .seen
            .contains(&Seen::Connected(slow, Err(ErrorKind::TimedOut)))
    );
    assert!(
        script
            .seen
            .contains(&Seen::Connected(given_up, Err(ErrorKind::ConnectionAborted)))
    );
}

fn listeners_share_an_address(backend: Backend) {
    let (mut first, mut second) = (driver(backend, settings()), driver(backend, settings()));
    let options = ListenOptions {
        reuse_port: true,
        ..ListenOptions::default()
    };
    let (_, addr) = first
        .io()
        .listen(([127, 0, 0, 1], 0).into(), &options)
        .expect("loopback");
    let (_, same) = second.io().listen(addr, &options).expect("shared");
    assert_eq!(addr, same);
    let error = second
        .io()
        .listen(addr, &ListenOptions::default())
        .expect_err("not shared");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let _streams: Vec<_> = (0..60)
        .map(|_| TcpStream::connect(addr).expect("accepted"))
        .collect();
    let (mut one, mut two) = (Script::new(quiet), Script::new(quiet));
    let mut rounds = 0;
    while one.arrivals().len() + two.arrivals().len() < 60 {
        first.turn(&mut one).expect("it waits");
        second.turn(&mut two).expect("it waits");
        rounds += 1;
        assert!(rounds < 1000, "stuck");
    }
    assert!(
        !one.arrivals().is_empty() && !two.arrivals().is_empty(),
        "the kernel spreads them"
    );
}

/// Waits until nobody listens. A program that another test is starting may have a copy of the listener for a moment.
fn wait_until_refused(addr: SocketAddr) {
    let mut progress = Progress::default();
    let error = loop {
        match TcpStream::connect(addr) {
            Ok(_) => assert!(progress.goes_on(0), "somebody listens"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

fn no_connection_comes_after_unlisten(backend: Backend) {
    let mut driver = driver(backend, settings());
    let (listener, addr) = listen_at(&mut driver, own_host(backend, 0));
    let mut script = Script::new(quiet);
    let (mut stream, id) = client(&mut driver, &mut script, addr);
    driver.io().unlisten(listener);
    for _ in 0..3 {
        driver.turn(&mut script).expect("it waits");
    }
    wait_until_refused(addr);
    stream.write_all(b"I stay").expect("open");
    script.run(&mut driver, |script, _| script.bytes(id) == b"I stay");
    // The address is free again.
    driver.io().listen(addr, &ListenOptions::default()).expect("free");
}

fn a_handler_may_close_at_once(backend: Backend) {
    let (mut driver, _, addr) = listening(backend, settings());
    let mut script = Script::new(|io: &mut Io, seen: &Seen| {
        if let Seen::Accepted(_, id) = seen {
            send(io, *id, b"full");
            io.close(*id);
            io.close(*id);
        }
    });
    let mut stream = TcpStream::connect(addr).expect("queued");
    let reader = thread::spawn(move || {
        let mut words = String::new();
        stream.read_to_string(&mut words).expect("no reset");
        words
    });
    script.run(&mut driver, |script, _| {
        script.count(|seen| matches!(seen, Seen::Closed(..))) == 1
    });
    assert_eq!(reader.join().expect("it reads"), "full");
}

fn dropping_the_driver_gives_everything_back(backend: Backend) {
    let waker = Waker::new().expect("a descriptor");
    let directory = tempfile::tempdir().expect("room for a directory");
    let file = std::fs::File::create(directory.path().join("journal")).expect("writable");
    let file = fieldgate_io::storage::FileRef::new(file);
    for round in 0..20 {
        let mut driver = Driver::new(backend, settings(), &waker).expect("the backend works");
        let (_, addr) = listen_at(&mut driver, own_host(backend, 1));
        let mut script = Script::new(quiet);
        let mut clients: Vec<_> = (0..10).map(|_| client(&mut driver, &mut script, addr)).collect();
        // A send the peer does not take, a paused receive, an aborted connection, a connect, a write, bytes not yet read.
        send(driver.io(), clients[0].1, &vec![1; 8 << 20]);
        driver.io().pause_receive(clients[1].1);
        driver.io().abort(clients[2].1);
        driver
            .io()
            .connect(addr, &ConnectOptions::default())
            .expect("a socket");
        driver
            .io()
            .write_durable(&file, 0, pattern(round, 0, 1 << 16), round)
            .expect("room for one");
        if round % 2 == 0 {
            driver.turn(&mut script).expect("it waits");
        }
        // The peer of the aborted one hears of it now or when it reads, but only once.
        let told: Vec<_> = clients
            .iter_mut()
            .map(|(stream, _)| stream.write(&[2; 1000]).is_err())
            .collect();
        if round % 3 == 0 {
            driver.turn(&mut script).expect("it waits");
        }
        drop(driver);
        for ((mut stream, _), told) in clients.into_iter().zip(told) {
            let result = stream.read_to_end(&mut Vec::new());
            let reset = matches!(&result, Err(error) if error.kind() == ErrorKind::ConnectionReset);
            assert!(reset || told, "what is open is aborted: {result:?}");
        }
        wait_until_refused(addr);
    }
}

fn a_waker_serves_one_driver_at_a_time(backend: Backend) {
    let waker = Waker::new().expect("a descriptor");
    let driver = Driver::new(backend, settings(), &waker).expect("the first");
    let error = Driver::new(backend, settings(), &waker).expect_err("in use");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    drop(driver);
    let error = Driver::new(
        backend,
        Settings {
            connections_max: 0,
            ..settings()
        },
        &waker,
    );
    assert_eq!(error.expect_err("it cannot work").kind(), ErrorKind::InvalidInput);
    let error = Driver::new(backend, settings(), &Waker::callback(|| {})).expect_err("no shard's");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    Driver::new(backend, settings(), &waker).expect("free again");
}

#[test]
fn epoll_is_selected_when_configured() {
    let selected = Backend::select(BackendChoice::Epoll).expect("epoll is everywhere");
    assert_eq!(
        (selected.backend, selected.reason.as_str()),
        (Backend::Epoll, "configured")
    );
}
