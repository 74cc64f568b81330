//! Bytes: all of them, once, in order, whatever the peer does.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    thread,
};

use fieldgate_io::{Backend, BufferClass, CloseReason, Io, ListenOptions, Settings};

use super::{Script, Seen, client, driver, listening, on_both_backends, pattern, send, settings};

on_both_backends!(
    a_thousand_connections_are_echoed,
    a_half_closed_peer_gets_its_answer,
    large_sends_arrive_whole,
    a_slow_reader_is_not_overrun,
    paused_connections_receive_nothing_and_lose_nothing,
    the_end_of_a_paused_stream_waits,
    one_fast_peer_has_its_share_of_a_turn,
    small_messages_of_one_turn_leave_in_one_send,
    buffers_run_out_and_come_back,
);

fn echo(io: &mut Io, seen: &Seen) {
    match seen {
        Seen::Received(id, bytes) => send(io, *id, bytes),
        Seen::Ended(id) => io.close(*id),
        _ => {}
    }
}

fn a_thousand_connections_are_echoed(backend: Backend) {
    const CLIENTS: usize = 1000;
    fieldgate_io::process::raise_descriptor_limit().expect("allowed");
    let (mut driver, _, addr) = listening(backend, settings());
    let clients = thread::spawn(move || {
        let mut streams: Vec<TcpStream> = (0..CLIENTS)
            .map(|_| TcpStream::connect(addr).expect("it is accepted"))
            .collect();
        for round in 0..5 {
            for (number, stream) in (0_u64..).zip(&mut streams) {
                stream
                    .write_all(&pattern(number, round * 100, 100))
                    .expect("open");
            }
            for (number, stream) in (0_u64..).zip(&mut streams) {
                let mut answer = [0; 100];
                stream.read_exact(&mut answer).expect("open");
                assert_eq!(answer.as_slice(), pattern(number, round * 100, 100));
            }
        }
    });
    let mut script = Script::new(echo);
    script.run(&mut driver, |script, _| {
        script.count(|seen| matches!(seen, Seen::Closed(..))) == CLIENTS
    });
    clients.join().expect("every answer is right");
    let stats = driver.io().stats();
    assert_eq!((stats.accepted, stats.refused), (CLIENTS as u64, 0));
    assert_eq!((stats.bytes_received, stats.bytes_sent), (500_000, 500_000));
    let reasons = script.count(|seen| matches!(seen, Seen::Closed(_, CloseReason::Peer)));
    assert_eq!(reasons, CLIENTS);
    script.run(&mut driver, |_, io| io.stats().connections == 0);
}

fn a_half_closed_peer_gets_its_answer(backend: Backend) {
    let (mut driver, _, addr) = listening(backend, settings());
    let mut script = Script::new(|io: &mut Io, seen: &Seen| {
        if let Seen::Ended(id) = seen {
            send(io, *id, b"the answer comes after your end");
            io.finish(*id);
            assert!(io.send_buffer(*id).is_none(), "finished");
        }
    });
    let (mut stream, id) = client(&mut driver, &mut script, addr);
    stream.write_all(b"question").expect("open");
    stream.shutdown(Shutdown::Write).expect("open");
    let reader = thread::spawn(move || {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("no reset");
        answer
    });
    script.run(&mut driver, |script, io| {
        script.seen.contains(&Seen::Ended(id)) && io.queued_bytes(id) == 0
    });
    script.run(&mut driver, |_, _| reader.is_finished());
    assert_eq!(
        reader.join().expect("it reads"),
        "the answer comes after your end"
    );
    assert_eq!(script.bytes(id), b"question");
    // Both streams are ended, but the connection is the handler's until it closes it.
    assert_eq!(script.end_of(id), None);
    driver.io().close(id);
    script.run(&mut driver, |script, _| script.end_of(id).is_some());
    assert_eq!(script.end_of(id), Some(CloseReason::Peer));
}

fn large_sends_arrive_whole(backend: Backend) {
    const SIZE: usize = 12 << 20;
    let (mut driver, _, addr) = listening(backend, settings());
    let mut script = Script::new(|_: &mut Io, _: &Seen| {});
    let (mut stream, id) = client(&mut driver, &mut script, addr);
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("no reset");
        bytes
    });
    send(driver.io(), id, &pattern(1, 0, SIZE));
    assert_eq!(driver.io().queued_bytes(id), SIZE);
    driver.io().close(id);
    script.run(&mut driver, |script, _| script.end_of(id).is_some());
    assert_eq!(script.end_of(id), Some(CloseReason::Local));
    assert!(
        reader.join().expect("it reads") == pattern(1, 0, SIZE),
        "the bytes are not those sent"
    );
}

fn a_slow_reader_is_not_overrun(backend: Backend) {
    const SIZE: usize = 24 << 20;
    const CHUNK: usize = 100_000;
    let settings = settings();
    let high_water = settings.high_water;
    let (mut driver, _, addr) = listening(backend, settings);
    let mut sent = 0;
    let mut fill = move |io: &mut Io, id| {
        while sent < SIZE && !io.is_congested(id) {
            let count = CHUNK.min(SIZE - sent);
            send(io, id, &pattern(2, sent, count));
            sent += count;
            assert!(
                io.queued_bytes(id) <= high_water + CHUNK,
                "more is queued than back-pressure allows"
            );
        }
        if sent == SIZE {
            io.close(id);
        }
    };
    let mut script = Script::new(move |io: &mut Io, seen: &Seen| match seen {
        Seen::Accepted(_, id) | Seen::Drained(id) => fill(io, *id),
        _ => {}
    });
    let (mut stream, id) = client(&mut driver, &mut script, addr);
    // Nobody reads: the kernel's buffers fill, and then nothing moves any more.
    let mut still = 0;
    while still < 3 {
        let before = driver.io().stats().bytes_sent;
        for _ in 0..3 {
            driver.turn(&mut script).expect("it waits");
        }
        still = if driver.io().stats().bytes_sent == before {
            still + 1
        } else {
            0
        };
    }
    assert!(driver.io().is_congested(id));
    assert_eq!(script.end_of(id), None);
    let reader = thread::spawn(move || {
        let (mut bytes, mut piece) = (Vec::new(), vec![0; 7777]);
        while let Ok(count) = stream.read(&mut piece)
            && count > 0
        {
            bytes.extend_from_slice(&piece[..count]);
        }
        bytes
    });
    script.run(&mut driver, |script, _| script.end_of(id).is_some());
    assert_eq!(script.end_of(id), Some(CloseReason::Local));
    assert!(script.count(|seen| matches!(seen, Seen::Drained(_))) > 10);
    assert!(
        reader.join().expect("it reads") == pattern(2, 0, SIZE),
        "the bytes are not those sent"
    );
}

fn paused_connections_receive_nothing_and_lose_nothing(backend: Backend) {
    const SIZE: usize = 6 << 20;
    let (mut driver, _, addr) = listening(backend, settings());
    let mut script = Script::new(|io: &mut Io, seen: &Seen| match seen {
        Seen::Received(id, _) => io.pause_receive(*id),
        Seen::Ended(id) => io.close(*id),
        _ => {}
    });
    let (mut stream, id) = client(&mut driver, &mut script, addr);
    let writer = thread::spawn(move || {
        stream.write_all(&pattern(3, 0, SIZE)).expect("no reset");
    });
    let mut rounds = 0;
    while script.end_of(id).is_none() {
        let received = script.count(|seen| matches!(seen, Seen::Received(..)));
        for _ in 0..3 {
            driver.turn(&mut script).expect("it waits");
        }
        let more = script.count(|seen| matches!(seen, Seen::Received(..))) - received;
        assert!(more <= 1, "received {more} times although paused after the first");
        driver.io().resume_receive(id);
        rounds += 1;
        assert!(rounds < 100_000, "stuck");
        if rounds == 50 {
            // That it holds is seen; now let it flow.
            break;
        }
    }
    drop(script.bytes(id));
    let before = script.bytes(id);
    let mut rest = Script::new(|io: &mut Io, seen: &Seen| {
        if let Seen::Ended(id) = seen {
            io.close(*id);
        }
    });
    driver.io().resume_receive(id);
    rest.run(&mut driver, |rest, _| {
        script.end_of(id).is_some() || rest.end_of(id).is_some()
    });
    writer.join().expect("it writes");
    let all = [before, rest.bytes(id)].concat();
    assert!(
        all == pattern(3, 0, SIZE),
        "{} of {SIZE} bytes, or others than were sent",
        all.len()
    );
}

fn the_end_of_a_paused_stream_waits(backend: Backend) {
    let (mut driver, _, addr) = listening(backend, settings());
    let mut script = Script::new(|io: &mut Io, seen: &Seen| {
        if let Seen::Accepted(_, id) = seen {
            io.pause_receive(*id);
        }
    });
    let (mut stream, id) = client(&mut driver, &mut script, addr);
    stream.write_all(b"all I had to say").expect("open");
    drop(stream);
    for _ in 0..5 {
        driver.turn(&mut script).expect("it waits");
    }
    assert!(script.bytes(id).is_empty());
    assert!(!script.seen.contains(&Seen::Ended(id)));
    driver.io().resume_receive(id);
    script.run(&mut driver, |script, _| script.seen.contains(&Seen::Ended(id)));
    assert_eq!(script.bytes(id), b"all I had to say");
    assert_eq!(script.count(|seen| *seen == Seen::Ended(id)), 1);
}

fn one_fast_peer_has_its_share_of_a_turn(backend: Backend) {
    const SIZE: usize = 20 << 20;
    for class in [BufferClass::Device, BufferClass::Link] {
        let mut driver = driver(backend, settings());
        let options = ListenOptions {
            class,
            ..ListenOptions::default()
        };
        let (_, addr) = driver
            .io()
            .listen(([127, 0, 0, 1], 0).into(), &options)
            .expect("loopback");
        let mut this_turn = 0;
        let most = class.turn_bytes_max() + 64 * 1024;
        let mut script = Script::new(move |io: &mut Io, seen: &Seen| match seen {
            Seen::Received(_, bytes) => {
                this_turn += bytes.len();
                assert!(
                    this_turn <= most,
                    "{this_turn} bytes of one connection in one turn"
                );
            }
            Seen::TurnEnded => this_turn = 0,
            Seen::Ended(id) => io.close(*id),
            _ => {}
        });
        let (mut stream, id) = client(&mut driver, &mut script, addr);
        let writer = thread::spawn(move || stream.write_all(&pattern(4, 0, SIZE)).expect("no reset"));
        script.run(&mut driver, |script, _| script.end_of(id).is_some());
        writer.join().expect("it writes");
        assert!(
            script.bytes(id) == pattern(4, 0, SIZE),
            "the bytes are not those sent"
        );
    }
}

fn small_messages_of_one_turn_leave_in_one_send(backend: Backend) {
    let (mut driver, _, addr) = listening(backend, settings());
    let mut script = Script::new(|_: &mut Io, _: &Seen| {});
    let (mut stream, id) = client(&mut driver, &mut script, addr);
    let before = driver.io().stats();
    for number in 0..1000 {
        send(driver.io(), id, &pattern(5, number * 10, 10));
    }
    script.run(&mut driver, |_, io| io.queued_bytes(id) == 0);
    assert_eq!(driver.io().stats().sends - before.sends, 1);
    let mut bytes = vec![0; 10_000];
    stream.read_exact(&mut bytes).expect("they were sent");
    assert_eq!(bytes, pattern(5, 0, 10_000));
}

/// More connections bring bytes at once than the ring has buffers for.
fn buffers_run_out_and_come_back(backend: Backend) {
    let settings = Settings {
        device_buffers: 8,
        ..settings()
    };
    let (mut driver, _, addr) = listening(backend, settings);
    let mut script = Script::new(echo);
    let mut clients: Vec<_> = (0..100).map(|_| client(&mut driver, &mut script, addr)).collect();
    for (number, (stream, _)) in (0_u64..).zip(&mut clients) {
        stream.write_all(&pattern(number, 0, 10_000)).expect("open");
    }
    script.run(&mut driver, |_, io| io.stats().bytes_sent == 1_000_000);
    for (number, (stream, id)) in (0_u64..).zip(&mut clients) {
        let mut answer = vec![0; 10_000];
        stream.read_exact(&mut answer).expect("open");
        assert_eq!(answer, pattern(number, 0, 10_000));
        assert_eq!(script.bytes(*id), answer);
    }
    if backend == Backend::Uring {
        assert!(driver.io().stats().buffers_exhausted > 0);
    }
}
