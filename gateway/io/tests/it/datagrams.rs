//! Datagrams: whole, from whom they came, as many as come; and what happens when they do not get through.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use fieldgate_io::{Backend, DatagramId, DatagramOptions, DatagramPath, Driver, Io, Settings};

use super::{Script, Seen, driver, on_both_backends, pattern};

on_both_backends!(
    datagrams_are_echoed_whole,
    many_senders_are_told_apart,
    an_answer_leaves_from_the_address_that_was_asked,
    both_families_share_a_port,
    a_full_queue_refuses_and_tells_when_it_is_empty,
    nobody_there_is_told_and_does_no_harm,
    what_is_too_long_fails_alone,
    a_socket_with_one_remote_hears_only_that,
    names_of_closed_sockets_are_harmless,
    a_closed_port_is_free_again,
    sockets_over_the_bound_are_refused,
    a_flood_leaves_room_for_others,
    dropping_the_driver_closes_sockets,
);

/// Sends back what comes, the way it came.
fn echo(io: &mut Io, seen: &Seen) {
    if let Seen::Datagram(id, path, bytes) = seen {
        assert!(io.send_datagram(*id, *path, bytes));
    }
}

fn quiet(_: &mut Io, _: &Seen) {}

fn bound(driver: &mut Driver, addr: &str, options: &DatagramOptions) -> (DatagramId, SocketAddr) {
    let addr = addr.parse().expect("an address");
    let (id, local) = driver.io().bind_datagrams(addr, options).expect("loopback");
    assert_ne!(local.port(), 0);
    (id, local)
}

/// A socket of the other side that does not wait for ever.
fn peer(addr: &str) -> UdpSocket {
    let socket = UdpSocket::bind(addr).expect("loopback");
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("it is a socket");
    socket
}

fn received(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = vec![0; 70_000];
    let (length, from) = socket.recv_from(&mut bytes).expect("an answer comes");
    bytes.truncate(length);
    (bytes, from)
}

fn datagrams(seen: &Seen) -> bool {
    matches!(seen, Seen::Datagram(..))
}

fn datagrams_are_echoed_whole(backend: Backend) {
    let mut driver = driver(backend, Settings::default());
    let (_, addr) = bound(&mut driver, "127.0.0.1:0", &DatagramOptions::default());
    let client = peer("127.0.0.1:0");
    let mut script = Script::new(echo);
    // The longest that IPv4 has, the shortest there is, and what lies between.
    for (number, length) in [0, 1, 1200, 65_507, 9000].into_iter().enumerate() {
        let sent = pattern(9, number, length);
        assert_eq!(client.send_to(&sent, addr).expect("it is sent"), length);
        script.run(&mut driver, |_, io| {
            io.stats().datagrams_sent == number as u64 + 1
        });
        let (bytes, from) = received(&client);
        assert!(bytes == sent, "{} bytes instead of {length}", bytes.len());
        assert_eq!(from, addr);
    }
    let stats = driver.io().stats();
    assert_eq!((stats.datagrams_received, stats.datagrams_failed), (5, 0));
    assert_eq!(stats.bytes_received, stats.bytes_sent);
}

fn many_senders_are_told_apart(backend: Backend) {
    const SENDERS: usize = 20;
    // All of them together fit into what any kernel keeps for a socket.
    const EACH: usize = 15;
    let mut driver = driver(backend, Settings::default());
    let (_, addr) = bound(&mut driver, "[::1]:0", &DatagramOptions::default());
    let clients: Vec<_> = (0..SENDERS).map(|_| peer("[::1]:0")).collect();
    for round in 0..EACH {
        for (number, client) in (0_u64..).zip(&clients) {
            client
                .send_to(&pattern(number, round, 100), addr)
                .expect("it is sent");
        }
    }
    let mut script = Script::new(echo);
    script.run(&mut driver, |_, io| {
        io.stats().datagrams_sent == (SENDERS * EACH) as u64
    });
    for (number, client) in (0_u64..).zip(&clients) {
        let own = client.local_addr().expect("it is bound");
        let from_it = script.count(|seen| matches!(seen, Seen::Datagram(_, path, _) if path.remote == own));
        assert_eq!(from_it, EACH);
        for round in 0..EACH {
            assert_eq!(received(client).0, pattern(number, round, 100));
        }
    }
}

fn an_answer_leaves_from_the_address_that_was_asked(backend: Backend) {
    let mut driver = driver(backend, Settings::default());
    let (id, local) = bound(&mut driver, "0.0.0.0:0", &DatagramOptions::default());
    let client = peer("127.0.0.1:0");
    let mut script = Script::new(echo);
    for asked in [[127, 0, 0, 1], [127, 0, 0, 77]] {
        let asked = SocketAddr::from((asked, local.port()));
        client.send_to(b"who are you?", asked).expect("it is sent");
        let before = script.count(datagrams);
        script.run(&mut driver, |script, _| script.count(datagrams) > before);
        let Some(Seen::Datagram(_, path, _)) = script.seen.last() else {
            panic!("{:?}", script.seen.last());
        };
        assert_eq!(path.local, Some(asked.ip()));
        assert_eq!(path.remote, client.local_addr().expect("it is bound"));
        script.run(&mut driver, |script, io| {
            io.stats().datagrams_sent == script.count(datagrams) as u64
        });
        // Without the way it came, the kernel would answer from 127.0.0.1.
        assert_eq!(received(&client).1, asked);
    }
    let path = DatagramPath {
        remote: client.local_addr().expect("it is bound"),
        local: Some(IpAddr::from([192, 0, 2, 1])),
    };
    assert!(driver.io().send_datagram(id, path, b"not from here"));
    script.run(&mut driver, |script, _| {
        script.seen.iter().any(
            |seen| matches!(seen, Seen::DatagramFailed(socket, Some(remote), _) if *socket == id && *remote == path.remote),
        )
    });
}

fn both_families_share_a_port(backend: Backend) {
    let mut driver = driver(backend, Settings::default());
    let (v4, local) = bound(&mut driver, "0.0.0.0:0", &DatagramOptions::default());
    let wildcard = format!("[::]:{}", local.port());
    let (v6, _) = bound(&mut driver, &wildcard, &DatagramOptions::default());
    let mut script = Script::new(echo);
    for (addr, id) in [("127.0.0.1", v4), ("[::1]", v6)] {
        let client = peer(&format!("{addr}:0"));
        let to: SocketAddr = format!("{addr}:{}", local.port()).parse().expect("an address");
        client.send_to(b"hello", to).expect("it is sent");
        let asked = DatagramPath {
            remote: client.local_addr().expect("it is bound"),
            local: Some(to.ip()),
        };
        let expected = Seen::Datagram(id, asked, b"hello".to_vec());
        script.run(&mut driver, |script, io| {
            script.seen.contains(&expected) && io.stats().datagrams_sent == script.count(datagrams) as u64
        });
        assert_eq!(received(&client), (b"hello".to_vec(), to));
    }
}

fn a_full_queue_refuses_and_tells_when_it_is_empty(backend: Backend) {
    let mut driver = driver(backend, Settings::default());
    let (id, _) = bound(&mut driver, "127.0.0.1:0", &DatagramOptions::default());
    let sink = peer("127.0.0.1:0");
    let to = DatagramPath::from(sink.local_addr().expect("it is bound"));
    let taken = (0..2 * Io::DATAGRAMS_QUEUED_MAX)
        .filter(|_| driver.io().send_datagram(id, to, b"one of many"))
        .count();
    assert_eq!(taken, Io::DATAGRAMS_QUEUED_MAX);
    let mut script = Script::new(quiet);
    script.run(&mut driver, |script, _| {
        script.seen.contains(&Seen::DatagramsDrained(id))
    });
    let stats = driver.io().stats();
    assert_eq!(stats.datagrams_sent, taken as u64);
    assert_eq!(stats.datagrams_refused, taken as u64);
    assert!(driver.io().send_datagram(id, to, b"there is room"));
    assert!(!driver.io().send_datagram(id, to, &[0; Io::DATAGRAM_MAX + 1]));
}

fn nobody_there_is_told_and_does_no_harm(backend: Backend) {
    let mut driver = driver(backend, Settings::default());
    // A socket that listens to itself only: to others it is as if nobody were there, and the port stays taken.
    let other = peer("127.0.0.1:0");
    let remote = other.local_addr().expect("it is bound");
    other.connect(remote).expect("loopback");
    let options = DatagramOptions {
        remote: Some(remote),
        ..DatagramOptions::default()
    };
    let (id, local) = bound(&mut driver, "127.0.0.1:0", &options);
    assert!(driver.io().send_datagram(id, remote.into(), b"anybody?"));
    let mut script = Script::new(quiet);
    let refused = |seen: &Seen| matches!(seen, Seen::DatagramFailed(_, _, kind) if *kind == ErrorKind::ConnectionRefused);
    script.run(&mut driver, |script, _| script.count(refused) > 0);
    // When somebody is there, the same socket goes on.
    other.connect(local).expect("loopback");
    other.send(b"now I am").expect("it is sent");
    script.run(&mut driver, |script, _| script.count(datagrams) == 1);
}

fn what_is_too_long_fails_alone(backend: Backend) {
    let mut driver = driver(backend, Settings::default());
    let (id, _) = bound(&mut driver, "127.0.0.1:0", &DatagramOptions::default());
    let sink = peer("127.0.0.1:0");
    let to = DatagramPath::from(sink.local_addr().expect("it is bound"));
    // Longer than IPv4 can say, shorter than our bound.
    assert!(driver.io().send_datagram(id, to, b"before"));
    assert!(driver.io().send_datagram(id, to, &[0; 65_520]));
    assert!(driver.io().send_datagram(id, to, b"after"));
    let mut script = Script::new(quiet);
    script.run(&mut driver, |script, _| {
        script.count(|seen| matches!(seen, Seen::DatagramFailed(socket, Some(_), _) if *socket == id)) == 1
    });
    assert_eq!(received(&sink).0, b"before");
    assert_eq!(received(&sink).0, b"after");
    let stats = driver.io().stats();
    assert_eq!((stats.datagrams_sent, stats.datagrams_failed), (2, 1));
}

fn a_socket_with_one_remote_hears_only_that(backend: Backend) {
    let mut driver = driver(backend, Settings::default());
    let friend = peer("127.0.0.1:0");
    let stranger = peer("127.0.0.1:0");
    let options = DatagramOptions {
        remote: Some(friend.local_addr().expect("it is bound")),
        ..DatagramOptions::default()
    };
    let (_, local) = bound(&mut driver, "127.0.0.1:0", &options);
    stranger.send_to(b"let me in", local).expect("it is sent");
    friend.send_to(b"it is me", local).expect("it is sent");
    let mut script = Script::new(echo);
    script.run(&mut driver, |_, io| io.stats().datagrams_sent == 1);
    assert_eq!(received(&friend).0, b"it is me");
    assert_eq!(script.count(datagrams), 1);
}

fn names_of_closed_sockets_are_harmless(backend: Backend) {
    let mut driver = driver(backend, Settings::default());
    let client = peer("127.0.0.1:0");
    let to = DatagramPath::from(client.local_addr().expect("it is bound"));
    let (old, local) = bound(&mut driver, "127.0.0.1:0", &DatagramOptions::default());
    let mut script = Script::new(quiet);
    driver.turn(&mut script).expect("it waits");
    assert!(driver.io().send_datagram(old, to, b"last words"));
    driver.io().unbind_datagrams(old);
    assert_eq!(received(&client).0, b"last words");
    client.send_to(b"too late", local).expect("it is sent");
    assert!(!driver.io().send_datagram(old, to, b"from the grave"));
    let (new, _) = bound(&mut driver, "127.0.0.1:0", &DatagramOptions::default());
    assert_ne!(old, new);
    driver.io().unbind_datagrams(old);
    assert!(driver.io().send_datagram(new, to, b"I am new"));
    script.run(&mut driver, |_, io| io.stats().datagrams_sent == 2);
    assert_eq!(received(&client).0, b"I am new");
    assert_eq!(script.count(datagrams), 0, "nothing comes after closing");
}

fn a_closed_port_is_free_again(backend: Backend) {
    let mut driver = driver(backend, Settings::default());
    let mut script = Script::new(quiet);
    // An address of its own, so that no other test is given the port meanwhile.
    let (mut id, local) = bound(&mut driver, "127.9.0.1:0", &DatagramOptions::default());
    for _ in 0..20 {
        driver.turn(&mut script).expect("it waits");
        driver.io().unbind_datagrams(id);
        script.run(&mut driver, |_, io| io.stats().datagram_sockets == 0);
        let options = DatagramOptions::default();
        (id, _) = driver
            .io()
            .bind_datagrams(local, &options)
            .expect("the port is free");
    }
}

fn sockets_over_the_bound_are_refused(backend: Backend) {
    let settings = Settings {
        datagram_sockets_max: 3,
        ..Settings::default()
    };
    let mut driver = driver(backend, settings);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = DatagramOptions::default();
    let all: Vec<_> = (0..5)
        .map(|_| {
            driver
                .io()
                .bind_datagrams(any, &options)
                .map_err(|error| error.kind())
        })
        .collect();
    assert!(all[..3].iter().all(Result::is_ok), "{all:?}");
    assert!(all[3..].iter().all(|one| *one == Err(ErrorKind::QuotaExceeded)));
    let (id, _) = all[0].expect("the first was bound");
    driver.io().unbind_datagrams(id);
    let mut script = Script::new(quiet);
    script.run(&mut driver, |_, io| io.stats().datagram_sockets == 2);
    bound(&mut driver, "127.0.0.1:0", &options);
}

/// One socket has more to receive than its share; another is heard in the same turns.
fn a_flood_leaves_room_for_others(backend: Backend) {
    // More than one turn takes, less than any kernel keeps for a socket.
    const FLOOD: usize = 400;
    let mut driver = driver(backend, Settings::default());
    let options = DatagramOptions::default();
    let (loud, loud_addr) = bound(&mut driver, "127.0.0.1:0", &options);
    let (_, quiet_addr) = bound(&mut driver, "127.0.0.1:0", &options);
    let client = peer("127.0.0.1:0");
    for _ in 0..FLOOD {
        client.send_to(b"x", loud_addr).expect("it is sent");
    }
    client.send_to(b"and me?", quiet_addr).expect("it is sent");
    let mut this_turn = 0;
    let mut script = Script::new(move |_: &mut Io, seen: &Seen| match seen {
        Seen::Datagram(id, ..) if *id == loud => {
            this_turn += 1;
            assert!(
                this_turn <= 256,
                "{this_turn} datagrams of one socket in one turn"
            );
        }
        Seen::TurnEnded => this_turn = 0,
        _ => {}
    });
    script.run(&mut driver, |script, _| {
        script.count(|seen| matches!(seen, Seen::Datagram(id, ..) if *id != loud)) == 1
    });
    script.run(&mut driver, |script, _| script.count(datagrams) == FLOOD + 1);
}

fn dropping_the_driver_closes_sockets(backend: Backend) {
    let mut driver = driver(backend, Settings::default());
    let (_, local) = bound(&mut driver, "127.9.0.2:0", &DatagramOptions::default());
    let mut script = Script::new(quiet);
    driver.turn(&mut script).expect("it waits");
    drop(driver);
    UdpSocket::bind(local).expect("the port is free");
}
