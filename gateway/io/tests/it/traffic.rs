//! Many connections at once that do everything at random times; each byte must arrive once and in order.

use std::collections::BTreeMap;

use fieldgate_io::{
    Backend, BufferClass, CloseReason, ConnectOptions, ConnectionId, Io, ListenOptions, Settings,
};

use super::{Script, Seen, driver, on_both_backends, pattern, settings};

on_both_backends!(random_traffic_arrives_intact);

/// One end of a connection.
#[derive(Default)]
struct End {
    /// The stream it sends; the first eight bytes it receives name the one it gets.
    stream: u64,
    to_send: usize,
    sent: usize,
    received: usize,
    /// Up to eight bytes that name the stream that is received.
    name: Vec<u8>,
    paused: bool,
}

/// A small generator, so that a seed is a run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn size(&mut self, bound: u64) -> usize {
        usize::try_from(self.below(bound)).expect("small")
    }
}

struct Traffic {
    random: Random,
    ends: BTreeMap<ConnectionId, End>,
    streams: u64,
    intact: usize,
}

impl Traffic {
    fn begin(&mut self, io: &mut Io, id: ConnectionId) {
        self.streams += 1;
        let size = if self.random.below(4) == 0 {
            3 << 20
        } else {
            20_000
        };
        let end = End {
            stream: self.streams,
            to_send: self.random.size(size),
            ..End::default()
        };
        io.send_buffer(id)
            .expect("fresh")
            .extend_from_slice(&end.stream.to_be_bytes());
        io.send_buffer(id)
            .expect("fresh")
            .extend_from_slice(&(end.to_send as u64).to_be_bytes());
        self.ends.insert(id, end);
        self.fill(io, id);
    }

    /// Sends a piece, and ends the stream after the last.
    fn fill(&mut self, io: &mut Io, id: ConnectionId) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        while end.sent < end.to_send && !io.is_congested(id) {
            let count = (1 + self.random.size(100_000)).min(end.to_send - end.sent);
            let Some(buffer) = io.send_buffer(id) else { return };
            buffer.extend_from_slice(&pattern(end.stream, end.sent, count));
            end.sent += count;
            if self.random.below(3) == 0 {
                break;
            }
        }
        if end.sent == end.to_send {
            io.finish(id);
        }
    }

    fn receive(&mut self, io: &mut Io, id: ConnectionId, bytes: &[u8]) {
        let end = self.ends.get_mut(&id).expect("it was announced");
        assert!(!end.paused, "received although paused");
        let head = bytes.len().min(16 - end.name.len());
        end.name.extend_from_slice(&bytes[..head]);
        let rest = &bytes[head..];
        if !rest.is_empty() {
            let stream = u64::from_be_bytes(end.name[..8].try_into().expect("eight"));
            assert!(
                rest == pattern(stream, end.received, rest.len()),
                "stream {stream} at {}",
                end.received
            );
            end.received += rest.len();
        }
        if self.random.below(5) == 0 {
            end.paused = true;
            io.pause_receive(id);
        }
    }

    fn end(&mut self, id: ConnectionId) {
        let end = self.ends.get_mut(&id).expect("it was announced");
        let announced = u64::from_be_bytes(end.name[8..].try_into().expect("eight"));
        assert_eq!(end.received as u64, announced, "the stream ended early");
        self.intact += 1;
    }

    /// Once a turn: goes on sending, wakes the paused, closes what is done.
    fn turn(&mut self, io: &mut Io) {
        let ids: Vec<_> = self.ends.keys().copied().collect();
        for id in ids {
            self.fill(io, id);
            let end = self.ends.get_mut(&id).expect("listed");
            if end.paused && self.random.below(2) == 0 {
                end.paused = false;
                io.resume_receive(id);
            }
        }
    }
}

fn random_traffic_arrives_intact(backend: Backend) {
    for seed in 1..=4 {
        let settings = Settings {
            device_buffers: 16,
            link_buffers: 8,
            high_water: 64 << 10,
            low_water: 16 << 10,
            ..settings()
        };
        let mut driver = driver(backend, settings);
        let mut traffic = Traffic {
            random: Random(seed * 0x9e37_79b9),
            ends: BTreeMap::new(),
            streams: seed << 32,
            intact: 0,
        };
        let dialled = 40;
        for number in 0..4 {
            let class = if number % 2 == 0 {
                BufferClass::Device
            } else {
                BufferClass::Link
            };
            let options = ListenOptions {
                class,
                ..ListenOptions::default()
            };
            let (_, addr) = driver
                .io()
                .listen(([127, 0, 0, 1], 0).into(), &options)
                .expect("loopback");
            for _ in 0..dialled / 4 {
                let id = driver
                    .io()
                    .connect(addr, &ConnectOptions::default())
                    .expect("a socket");
                traffic.begin(driver.io(), id);
            }
        }
        let mut intact = 0;
        let mut script = Script::new(|io: &mut Io, seen: &Seen| match seen {
            Seen::Accepted(_, id) => traffic.begin(io, *id),
            Seen::Connected(_, result) => assert_eq!(*result, Ok(())),
            Seen::Received(id, bytes) => traffic.receive(io, *id, bytes),
            Seen::Ended(id) => {
                traffic.end(*id);
                intact += 1;
            }
            Seen::Drained(id) => traffic.fill(io, *id),
            Seen::TurnEnded => traffic.turn(io),
            Seen::Closed(id, reason) => panic!("{id} closed by itself: {reason:?}"),
            Seen::Written(..)
            | Seen::Woken
            | Seen::Datagram(..)
            | Seen::DatagramsDrained(_)
            | Seen::DatagramFailed(..) => {}
        });
        script.run(&mut driver, |script, _| {
            script.count(|seen| matches!(seen, Seen::Ended(_))) == 2 * dialled
        });
        let ids: Vec<_> = script.arrivals();
        drop(script);
        assert_eq!(traffic.intact, 2 * dialled);
        assert_eq!(intact, 2 * dialled);
        // All have ended their streams, so all close as soon as they are asked to.
        let all: Vec<_> = traffic.ends.keys().copied().collect();
        assert_eq!((ids.len(), all.len()), (dialled, 2 * dialled));
        for id in all {
            driver.io().close(id);
        }
        let mut script = Script::new(|_: &mut Io, _: &Seen| {});
        script.run(&mut driver, |script, io| {
            io.stats().connections == 0
                && script.count(|seen| matches!(seen, Seen::Closed(_, CloseReason::Peer))) == 2 * dialled
        });
    }
}
