use proptest::prelude::*;

use super::*;

/// A socket of the server's, and one of each client's.
const SOCKET: u64 = 7;

fn server_address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 4433))
}

fn client_address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 50_000))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the library's clock has no other beginning; the tests make up what follows"
)]
fn epoch() -> std::time::Instant {
    std::time::Instant::now()
}

fn endpoint(accepted_max: usize) -> Endpoint {
    Endpoint::new(&Settings {
        accepted_max,
        reset_key: [7; 32],
        epoch: epoch(),
    })
    .expect("TLS works")
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("it is short").to_be_bytes();
    [&len[1..], &[kind], body].concat()
}

fn frames(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let len = 4 + u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        let (frame, behind) = rest.split_at(len);
        frames.push(frame.to_vec());
        rest = behind;
    }
    frames
}

/// A server and a client, and the network between them: one round of it takes a millisecond.
struct Net {
    now: Instant,
    server: Endpoint,
    client: Endpoint,
    /// Where the server sees the client.
    client_at: SocketAddr,
    /// Each datagram with this number, counted from the start, is lost.
    lose_every: Option<u64>,
    /// Datagrams that pass in a round, in each direction.
    rate: usize,
    carried: u64,
    to_server: VecDeque<Vec<u8>>,
    to_client: VecDeque<(SocketAddr, Vec<u8>)>,
    bytes_to_server: usize,
    bytes_to_client: usize,
    server_told: Vec<Output>,
    client_told: Vec<Output>,
}

impl Net {
    fn new() -> Self {
        Self {
            now: Instant::START,
            server: endpoint(100),
            client: endpoint(0),
            client_at: client_address(),
            lose_every: None,
            rate: usize::MAX,
            carried: 0,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            bytes_to_server: 0,
            bytes_to_client: 0,
            server_told: Vec::new(),
            client_told: Vec::new(),
        }
    }

    /// A net with one open connection, as the client and as the server know it.
    fn open() -> (Self, LinkId, LinkId) {
        let mut net = Self::new();
        let id = net.dial();
        net.run(|net| !net.server_told.is_empty() && !net.client_told.is_empty());
        let Some(Output::Opened { id: accepted, .. }) = net.server_told.pop() else {
            panic!("the server knows of nothing");
        };
        assert_eq!(
            net.client_told.pop(),
            Some(Output::Opened {
                id,
                dialled: true,
                remote: server_address()
            })
        );
        (net, id, accepted)
    }

    fn dial(&mut self) -> LinkId {
        let dial = Dial {
            socket: SOCKET,
            remote: server_address(),
        };
        self.client.dial(self.now, dial).expect("there may be somebody")
    }

    fn round(&mut self) {
        let now = self.now;
        let (to_server, to_client) = (&mut self.to_server, &mut self.to_client);
        let (bytes_to_server, bytes_to_client) = (&mut self.bytes_to_server, &mut self.bytes_to_client);
        let (carried, lose_every) = (&mut self.carried, self.lose_every);
        let mut is_lost = || {
            *carried += 1;
            lose_every.is_some_and(|every| carried.is_multiple_of(every))
        };
        self.client.process(now);
        self.client.flush(now, &mut |datagram| {
            assert_eq!((datagram.socket, datagram.remote), (SOCKET, server_address()));
            *bytes_to_server += datagram.bytes.len();
            if !is_lost() {
                to_server.push_back(datagram.bytes.to_vec());
            }
            true
        });
        self.server.process(now);
        self.server.flush(now, &mut |datagram| {
            *bytes_to_client += datagram.bytes.len();
            if !is_lost() {
                to_client.push_back((datagram.remote, datagram.bytes.to_vec()));
            }
            true
        });
        for bytes in to_server.drain(..self.rate.min(to_server.len())) {
            let datagram = Datagram {
                socket: SOCKET,
                remote: self.client_at,
                local: None,
                bytes: &bytes,
            };
            self.server.handle_datagram(now, &datagram, true);
        }
        for (remote, bytes) in to_client.drain(..self.rate.min(to_client.len())) {
            let datagram = Datagram {
                socket: SOCKET,
                remote: server_address(),
                local: None,
                bytes: &bytes,
            };
            // What goes to an address that the client has left does not come.
            if remote == self.client_at {
                self.client.handle_datagram(now, &datagram, false);
            }
        }
        self.client.process(now);
        self.server.process(now);
        self.client_told
            .extend(std::iter::from_fn(|| self.client.poll_output()));
        self.server_told
            .extend(std::iter::from_fn(|| self.server.poll_output()));
        self.now = now + Duration::from_millis(1);
    }

    /// Runs until something holds.
    fn run(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..200_000 {
            if done(self) {
                return;
            }
            self.round();
        }
        panic!("it never happens: {:?} {:?}", self.client_told, self.server_told);
    }

    fn received_by_server(&self) -> Vec<Vec<u8>> {
        received(&self.server_told)
    }
}

fn received(told: &[Output]) -> Vec<Vec<u8>> {
    let pieces = told.iter().filter_map(|output| match output {
        Output::Received { frames, .. } => Some(frames.as_slice()),
        Output::Opened { .. } | Output::Moved { .. } | Output::Closed { .. } => None,
    });
    frames(&pieces.collect::<Vec<_>>().concat())
}

fn closed(told: &[Output]) -> Option<(bool, &str)> {
    told.iter().find_map(|output| match output {
        Output::Closed { was_open, reason, .. } => Some((*was_open, reason.as_str())),
        Output::Opened { .. } | Output::Received { .. } | Output::Moved { .. } => None,
    })
}

#[test]
fn frames_travel_both_ways_and_all_arrive_although_many_datagrams_are_lost() {
    let (mut net, client, server) = Net::open();
    net.lose_every = Some(7);
    let body = vec![5; 3000];
    let sent: Vec<_> = (0..200_u8)
        .map(|number| frame(if number == 0 { 1 } else { 0x10 | (number % 3) }, &body))
        .collect();
    for frame in &sent {
        net.client.write(client, frame);
    }
    net.server.write(server, &frame(1, b"hello"));
    net.run(|net| net.received_by_server().len() == 200 && received(&net.client_told).len() == 1);
    let of = |class: u8, frames: &[Vec<u8>]| -> usize {
        let all = frames.iter().skip(1);
        all.filter(|frame| frame[3] == 0x10 | class).count()
    };
    let received = net.received_by_server();
    assert_eq!(received[0], sent[0]);
    for class in 0..3 {
        assert_eq!(of(class, &received), of(class, &sent));
    }
    assert_eq!(net.client.queued_bytes(client), 0);
}

#[test]
fn the_server_answers_a_stranger_with_no_more_than_three_times_what_came() {
    let mut net = Net::new();
    net.dial();
    // The post-quantum key needs more than one datagram.
    net.round();
    assert!(net.bytes_to_server >= 2 * 1200, "{}", net.bytes_to_server);
    // Nothing of what the server says arrives, so it never learns that the address is true.
    for _ in 0..20_000 {
        net.to_client.clear();
        let now = net.now;
        net.server.process(now);
        let bytes = &mut net.bytes_to_client;
        net.server.flush(now, &mut |datagram| {
            *bytes += datagram.bytes.len();
            true
        });
        net.now = now + Duration::from_millis(1);
        assert!(
            // RFC 9000 §8.1; the library lets the datagram go with which it comes to the limit.
            net.bytes_to_client < 3 * net.bytes_to_server + 1200,
            "{} for {} at {}",
            net.bytes_to_client,
            net.bytes_to_server,
            net.now
        );
    }
    assert!(net.bytes_to_client > 0);
    while let Some(output) = net.server.poll_output() {
        net.server_told.push(output);
    }
    assert_eq!(
        closed(&net.server_told),
        Some((false, "the handshake did not end in time"))
    );
    assert_eq!(net.server.stats().failed, 1);
}

#[test]
fn a_client_that_moves_keeps_its_connection() {
    let (mut net, client, server) = Net::open();
    net.client.write(client, &frame(1, b"hello"));
    net.run(|net| net.received_by_server().len() == 1);
    net.client_at = SocketAddr::from(([192, 168, 9, 9], 1234));
    net.client.write(client, &frame(0x11, b"from elsewhere"));
    net.run(|net| {
        net.server_told.contains(&Output::Moved {
            id: server,
            remote: net.client_at,
        })
    });
    net.server.write(server, &frame(1, b"hello"));
    net.server.write(server, &frame(0x12, &[9; 60_000]));
    net.run(|net| net.received_by_server().len() == 2 && received(&net.client_told).len() == 2);
    assert_eq!(net.server.stats().moved, 1);
    assert_eq!(closed(&net.client_told), None);
}

#[test]
fn an_alarm_overtakes_bulk() {
    let (mut net, client, _) = Net::open();
    net.client.write(client, &frame(1, b"hello"));
    net.run(|net| net.received_by_server().len() == 1);
    net.server_told.clear();
    // A slow network: 12 Mbit/s.
    net.rate = 1;
    let bulk = frame(0x12, &[1; 10_000]);
    for _ in 0..400 {
        net.client.write(client, &bulk);
    }
    net.run(|net| net.received_by_server().len() == 3);
    assert!(net.client.queued_bytes(client) > 1_000_000, "most waits");
    net.client.write(client, &frame(0x10, b"fire"));
    net.run(|net| net.received_by_server().iter().any(|frame| frame[3] == 0x10));
    let before = net.received_by_server().len();
    // Only what was on its way already comes before it.
    assert!(before < 60, "{before} frames came first");
    net.rate = usize::MAX;
    net.run(|net| net.received_by_server().len() == 401);
}

#[test]
fn what_was_written_before_a_close_arrives() {
    let (mut net, client, _) = Net::open();
    net.rate = 3;
    net.client.write(client, &frame(1, b"hello"));
    for _ in 0..30 {
        net.client.write(client, &frame(0x12, &[1; 10_000]));
    }
    net.client.close(net.now, client);
    assert!(!net.client.is_open(client));
    net.run(|net| closed(&net.server_told).is_some());
    assert_eq!(net.received_by_server().len(), 31);
    assert_eq!(
        closed(&net.server_told),
        Some((true, "the other side ended the link"))
    );
    assert_eq!(closed(&net.client_told), None, "who closes knows");
    net.run(|net| net.client.connections.is_empty() && net.server.connections.is_empty());
    assert_eq!(net.server.accepted, 0);
    assert!(net.server.timers.is_empty() && net.server.by_handle.is_empty());
}

#[test]
fn the_other_side_hears_of_the_end_of_a_node_at_once() {
    let (mut net, ..) = Net::open();
    let before = net.now;
    net.server.abort_all(before);
    net.run(|net| closed(&net.client_told).is_some());
    assert_eq!(
        closed(&net.client_told),
        Some((true, "the other side closed the connection"))
    );
    assert!(net.now - before < Duration::from_millis(100));
}

#[test]
fn a_server_that_has_begun_anew_says_so() {
    let (mut net, client, _) = Net::open();
    net.server = endpoint(100);
    // A reset has to be shorter than what it answers.
    net.client.write(client, &frame(1, &[0; 200]));
    net.run(|net| closed(&net.client_told).is_some());
    assert_eq!(
        closed(&net.client_told),
        Some((true, "the other side has begun anew"))
    );
}

#[test]
fn silence_ends_a_connection() {
    let (mut net, client, _) = Net::open();
    net.rate = 0;
    net.client.write(client, &frame(2, b"ping"));
    let before = net.now;
    net.run(|net| closed(&net.client_told).is_some());
    assert_eq!(closed(&net.client_told), Some((true, "no answer")));
    assert!(net.now - before <= Duration::from_secs(31));
}

#[test]
fn a_dial_that_nobody_answers_ends() {
    let mut net = Net::new();
    net.rate = 0;
    net.dial();
    net.run(|net| closed(&net.client_told).is_some());
    assert_eq!(
        closed(&net.client_told),
        Some((false, "the handshake did not end in time"))
    );
    assert!(net.now - Instant::START <= OPENING_TIME_MAX + Duration::from_secs(1));
    assert_eq!(net.client.stats().failed, 0, "it counts what others began");
}

#[test]
fn a_client_with_the_classical_exchange_only_gets_nowhere() {
    let mut net = Net::new();
    net.client.client = ClientConfig::new(Arc::new(tls::classical_client()));
    net.dial();
    net.run(|net| closed(&net.client_told).is_some());
    assert!(matches!(closed(&net.client_told), Some((false, _))));
    assert!(
        !net.server_told
            .iter()
            .any(|output| matches!(output, Output::Opened { .. }))
    );
}

/// The first datagrams of clients at as many addresses, of which none exists.
fn flood(net: &mut Net, count: u16) {
    for port in 1..=count {
        let mut client = endpoint(0);
        let dial = Dial {
            socket: SOCKET,
            remote: server_address(),
        };
        client.dial(net.now, dial).expect("there may be somebody");
        client.process(net.now);
        let server = &mut net.server;
        let now = net.now;
        client.flush(now, &mut |datagram| {
            let from = Datagram {
                socket: SOCKET,
                remote: SocketAddr::from(([10, 9, 9, 9], port)),
                local: None,
                bytes: datagram.bytes,
            };
            server.handle_datagram(now, &from, true);
            true
        });
    }
}

#[test]
fn in_a_flood_strangers_have_to_prove_their_address_and_a_true_one_gets_in() {
    let mut net = Net::new();
    flood(&mut net, 100);
    assert_eq!(net.server.opening.len(), RETRY_ABOVE);
    assert_eq!(net.server.connections.len(), RETRY_ABOVE);
    assert!(net.server.stats().retried >= 36);
    let before = net.server.stats().retried;
    net.dial();
    net.run(|net| !net.client_told.is_empty());
    assert!(matches!(net.client_told[0], Output::Opened { .. }));
    assert!(net.server.stats().retried > before);
    // The others are forgotten in time.
    net.run(|net| net.server.opening.is_empty());
    assert_eq!(net.server.stats().failed, RETRY_ABOVE as u64);
}

#[test]
fn there_are_no_more_connections_than_there_may_be() {
    let mut net = Net::new();
    net.server = endpoint(1);
    flood(&mut net, 1);
    net.dial();
    net.run(|net| !net.client_told.is_empty());
    assert!(matches!(closed(&net.client_told), Some((false, _))));
    // The key needs two datagrams, and nothing was kept of the first.
    assert!(net.server.stats().refused >= 1);
    assert_eq!(net.server.connections.len(), 1);
}

#[test]
fn nobody_connects_through_a_socket_that_does_not_listen() {
    let mut net = Net::new();
    net.dial();
    net.client.process(net.now);
    let (now, server) = (net.now, &mut net.server);
    net.client.flush(now, &mut |datagram| {
        server.handle_datagram(now, &datagram, false);
        true
    });
    assert!(server.connections.is_empty() && server.responses.is_empty());
}

#[test]
fn a_full_socket_is_left_alone_until_it_has_room() {
    let (mut net, client, _) = Net::open();
    net.client.write(client, &frame(1, b"hello"));
    net.client.process(net.now);
    let mut tries = 0;
    net.client.flush(net.now, &mut |_| {
        tries += 1;
        false
    });
    net.client.flush(net.now, &mut |_| panic!("it is full"));
    assert_eq!(tries, 1);
    assert_ne!(
        net.client.poll_timeout(),
        Some(Instant::START),
        "it does not spin"
    );
    net.client.handle_drained(SOCKET);
    net.run(|net| net.received_by_server().len() == 1);
}

#[test]
fn frames_before_the_hello_wait_for_it() {
    let (mut net, client, _) = Net::open();
    net.client.write(client, &frame(0x12, b"too early"));
    for _ in 0..100 {
        net.round();
    }
    assert!(net.received_by_server().is_empty());
    net.client.write(client, &frame(1, b"hello"));
    net.run(|net| net.received_by_server().len() == 2);
    assert_eq!(net.received_by_server()[0][3], 1);
}

#[test]
fn a_side_that_sends_what_is_no_frame_is_cut_off() {
    let (mut net, client, _) = Net::open();
    net.client.write(client, &[0xff, 0xff, 0xff, 1, 0]);
    net.run(|net| closed(&net.server_told).is_some() && closed(&net.client_told).is_some());
    assert_eq!(closed(&net.server_told), Some((true, "a frame is too long")));
}

proptest! {
    #[test]
    fn any_datagram_is_survived(datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1500), 1..8)) {
        let mut server = endpoint(10);
        for bytes in &datagrams {
            let datagram = Datagram { socket: SOCKET, remote: client_address(), local: None, bytes };
            server.handle_datagram(Instant::START, &datagram, true);
            server.process(Instant::START);
            server.flush(Instant::START, &mut |_| true);
        }
        prop_assert!(server.connections.is_empty());
    }
}
