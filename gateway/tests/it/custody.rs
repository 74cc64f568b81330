//! Custody: whatever was acknowledged arrives, though each of the three processes is killed again and again.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::Duration,
};

use fieldgate_mqtt::{reason::ReasonCode, version::ProtocolVersion};

use crate::harness::{
    broker::{Broker, subscribe_by},
    client::{Client, Received},
    node::{Node, text},
    process::Process,
    site::Site,
    wait::{Deadline, PATIENCE, Stopwatch, until},
};

#[test]
fn every_acknowledged_number_arrives_and_none_twice_while_each_process_is_killed() {
    let took = Stopwatch::start();
    let seed = seed();
    let mut random = Random(seed);
    let mut site = site_for_many_clients();
    let broker = Broker::start(site.dir(), site.broker);
    let mut subscriber = subscribe_by(&[], site.broker);
    site.start();

    let score = Arc::new(Score::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|index| Publisher::start(index, site.mqtt, &score))
        .collect();
    let (kills, mut recoveries) = kill_at_random(&mut site, &score, &mut random);
    score.with(|tally| tally.ending = true);
    let acknowledged: BTreeSet<String> = clients
        .into_iter()
        .flat_map(|client| client.join().expect("a client found something wrong"))
        .collect();

    let drained = Stopwatch::start();
    site.gateway.wait_status("journal drained", |status| {
        status["journal"]["readings"] == 0 && status["uplinks"][0]["in_flight"] == 0
    });
    let lines = lines_by_id(&site);
    let delivered: BTreeSet<&String> = lines.values().collect();
    let missing: Vec<_> = acknowledged
        .iter()
        .filter(|number| !delivered.contains(number))
        .collect();
    assert!(
        missing.is_empty(),
        "acknowledged and not in the file: {missing:?}"
    );
    let copies = wait_for_copies(&mut subscriber, &acknowledged, &lines);
    recoveries.sort_unstable();
    let summary = format!(
        "custody: {} kills (gateway {}, relay {}, collector {}), {} acknowledged, {} lines, {} copies beyond the first at the broker, \
         {} connections, delivering again within {:.1} s at the median and {:.1} s at the most, drained in {:.1} s, {:.1} s in all, seed {seed}\n",
        kills.iter().sum::<usize>(),
        kills[0],
        kills[1],
        kills[2],
        acknowledged.len(),
        lines.len(),
        copies,
        score.with(|tally| tally.connections),
        recoveries[recoveries.len() / 2].as_secs_f32(),
        recoveries[recoveries.len() - 1].as_secs_f32(),
        drained.elapsed().as_secs_f32(),
        took.elapsed().as_secs_f32(),
    );
    // Past the capture of the test runner: the figures are wanted when all went well, too.
    let _ = std::io::stderr().write_all(summary.as_bytes());
    site.gateway.stop();
    site.collector.stop();
    site.relay.stop();
    broker.stop();
}

/// The example site with anonymous clients, as every client has a client identifier of its own and no account.
fn site_for_many_clients() -> Site {
    let site = Site::new();
    site.gateway
        .edit("alarm_topics = ", "anonymous = true\nalarm_topics = ");
    site
}

/// Kills one of the three after a random number of acknowledgements, [`KILLS`] times; returns how often each,
/// and how long the way took to deliver again where that was waited for.
///
/// Every few kills it waits until readings come out at the other end as well, so that not all of them hit a way that is just
/// being built.
fn kill_at_random(site: &mut Site, score: &Score, random: &mut Random) -> ([usize; 3], Vec<Duration>) {
    let mut kills = [0; 3];
    let mut recoveries = Vec::new();
    for round in 0..KILLS {
        let acknowledged = score.with(|tally| tally.acknowledged);
        let wanted = acknowledged + 1 + random.below(ACKNOWLEDGED_PER_KILL_MAX);
        score.with(|tally| tally.allowed = wanted + SURPLUS);
        score.wait(|tally| tally.acknowledged >= wanted);
        if round % DELIVERED_EVERY == 0 {
            let have = site.readings_file().metadata().map_or(0, |file| file.len());
            let waited = Stopwatch::start();
            until("the file grows", || {
                let now = site.readings_file().metadata().map_or(0, |file| file.len());
                if now > have {
                    return Ok(());
                }
                // Whoever has nothing to send brings nothing to the file.
                score.with(|tally| tally.allowed += 1);
                Err(format!("it has {now} bytes"))
            });
            recoveries.push(waited.elapsed());
        }
        let victim = usize::try_from(random.below(3)).expect("it is below 3");
        kills[victim] += 1;
        restart(match victim {
            0 => &mut site.gateway,
            1 => &mut site.relay,
            _ => &mut site.collector,
        });
        if victim == 0 {
            score.with(|tally| tally.generation += 1);
        }
    }
    (kills, recoveries)
}

/// Kills and starts again. The next kill may come before the node is ready.
fn restart(node: &mut Node) {
    // It must not have ended by itself: that would be a crash.
    let process = node.process();
    assert!(!process.has_ended(), "it ended by itself: {}", process.printed());
    node.kill();
    node.spawn();
}

/// Every line of the file: the number by the id of the reading.
///
/// # Panics
/// If an id stands there twice.
fn lines_by_id(site: &Site) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    for line in site.readings() {
        let before = lines.insert(text(&line, "id"), text(&line, "payload"));
        assert_eq!(before, None, "twice in the file: {line}");
    }
    lines
}

/// Waits until every acknowledged number came out of the broker; returns how many copies there were beyond the first.
///
/// # Panics
/// If a copy has no id, or another one than in the file.
fn wait_for_copies(
    subscriber: &mut Process,
    acknowledged: &BTreeSet<String>,
    lines: &BTreeMap<String, String>,
) -> usize {
    let mut missing: BTreeSet<&String> = acknowledged.iter().collect();
    let mut ids = BTreeMap::<String, usize>::new();
    let mut take = |line: &str, missing: &mut BTreeSet<&String>| {
        if !line.starts_with("gateway-1/") {
            return;
        }
        let mut words = line.split(' ');
        let id = words.find_map(|word| word.strip_prefix("fieldgate-id:"));
        let number = words.next_back().expect("a payload").to_owned();
        let id = id.unwrap_or_else(|| panic!("a copy without id: {line}"));
        assert_eq!(lines.get(id), Some(&number), "not what the file has: {line}");
        missing.remove(&number);
        *ids.entry(id.to_owned()).or_default() += 1;
    };
    let mut looked = 0;
    until("every acknowledged number at the broker", || {
        for line in subscriber.output().iter().skip(looked) {
            looked += 1;
            take(line, &mut missing);
        }
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{} are missing: {missing:?}", missing.len()))
        }
    });
    ids.values().map(|count| count - 1).sum()
}

/// What clients and the killing thread tell each other.
#[derive(Default)]
struct Score {
    tally: Mutex<Tally>,
    changed: Condvar,
}

#[derive(Default)]
struct Tally {
    /// Numbers acknowledged, over all clients.
    acknowledged: u64,
    /// Numbers published for the first time, over all clients.
    published: u64,
    /// How many may be.
    allowed: u64,
    /// Counts the starts of the gateway.
    generation: u64,
    /// Connections made.
    connections: u64,
    /// No more new numbers; end when all are acknowledged.
    ending: bool,
}

impl Score {
    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no thread panics with the lock")
    }

    /// Changes the tally and wakes whoever waits for it.
    fn with<T>(&self, change: impl FnOnce(&mut Tally) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.notify_all();
        changed
    }

    /// Waits until `want` holds.
    fn wait(&self, mut want: impl FnMut(&Tally) -> bool) {
        let deadline = Deadline::after(PATIENCE);
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), deadline.left(), |tally| !want(tally));
        let (tally, timeout) = waited.expect("no thread panics with the lock");
        assert!(
            !timeout.timed_out(),
            "nothing happens any more: {} acknowledged of {} published, {} allowed",
            tally.acknowledged,
            tally.published,
            tally.allowed
        );
    }
}

/// A client that publishes numbers and remembers which were acknowledged.
struct Publisher {
    index: usize,
    to: SocketAddr,
    score: Arc<Score>,
    /// Numbers without acknowledgement, by packet identifier.
    waiting: BTreeMap<u16, u64>,
    acknowledged: Vec<String>,
    next: u64,
}

impl Publisher {
    fn start(index: usize, to: SocketAddr, score: &Arc<Score>) -> JoinHandle<Vec<String>> {
        let publisher = Self {
            index,
            to,
            score: Arc::clone(score),
            waiting: BTreeMap::new(),
            acknowledged: Vec::new(),
            next: 0,
        };
        thread::spawn(move || publisher.run())
    }

    fn run(mut self) -> Vec<String> {
        loop {
            let generation = self.score.with(|tally| tally.generation);
            // A connection ends with the gateway; what was not acknowledged is published again in the next.
            if self.converse().is_ok() {
                return self.acknowledged;
            }
            self.wait_to_reconnect(generation);
        }
    }

    /// Waits until the gateway was started again, or a moment: it may be there and not listen yet.
    fn wait_to_reconnect(&self, generation: u64) {
        let wait = Duration::from_millis(20);
        let waited = self
            .score
            .changed
            .wait_timeout_while(self.score.lock(), wait, |tally| tally.generation == generation);
        drop(waited.expect("no thread panics with the lock"));
    }

    fn number(&self, number: u64) -> String {
        format!("{}-{number}", self.index)
    }

    /// Publishes over one connection until everything is done.
    fn converse(&mut self) -> std::io::Result<()> {
        let version = if self.index.is_multiple_of(2) {
            ProtocolVersion::V5
        } else {
            ProtocolVersion::V311
        };
        let name = format!("press-{}", self.index);
        let mut client = Client::connect(self.to, version, &name, None)?;
        self.score.with(|tally| tally.connections += 1);
        let topic = format!("{name}/count");
        for (packet, number) in &self.waiting {
            client.publish(*packet, &topic, self.number(*number).as_bytes(), true)?;
        }
        loop {
            while self.waiting.len() < WINDOW && self.may_publish() {
                let number = self.next;
                self.next += 1;
                let packet = u16::try_from(number % 60_000 + 1).expect("it is below 60,001");
                self.waiting.insert(packet, number);
                client.publish(packet, &topic, self.number(number).as_bytes(), false)?;
            }
            if self.waiting.is_empty() {
                if self.score.with(|tally| tally.ending) {
                    return Ok(());
                }
                self.wait_for_more();
                continue;
            }
            match client.receive()? {
                Received::PubAck(packet, ReasonCode::Success) => {
                    let number = self.waiting.remove(&packet).expect("it was published");
                    self.acknowledged.push(self.number(number));
                    self.score.with(|tally| tally.acknowledged += 1);
                }
                Received::End => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                other => panic!("an acknowledgement was expected, not {other:?}"),
            }
        }
    }

    fn may_publish(&self) -> bool {
        self.score.with(|tally| {
            let may = !tally.ending && tally.published < tally.allowed;
            tally.published += u64::from(may);
            may
        })
    }

    fn wait_for_more(&self) {
        self.score
            .wait(|tally| tally.ending || tally.published < tally.allowed);
    }
}

/// A generator that gives the same for the same seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// The seed of this run; `FIELDGATE_CUSTODY_SEED` chooses another.
fn seed() -> u64 {
    let chosen = std::env::var("FIELDGATE_CUSTODY_SEED").ok();
    chosen.and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// How often a process is killed in all.
const KILLS: u64 = 210;
/// Clients that publish.
const CLIENTS: usize = 6;
/// Publishes of one client without acknowledgement.
const WINDOW: usize = 8;
/// Acknowledgements between two kills, at the most.
const ACKNOWLEDGED_PER_KILL_MAX: u64 = 120;
/// Numbers that may be published beyond those a kill waits for, so that a kill hits clients in the middle of it.
const SURPLUS: u64 = 60;
/// After so many kills the next one waits until readings come out of the collector.
const DELIVERED_EVERY: u64 = 3;
