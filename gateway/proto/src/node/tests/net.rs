//! Nodes and the pipes between them, and what answers them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::{super::*, fleet::TestAuthority};
use crate::{
    channel::PqPolicy,
    crypto::{X25519Secret, sha256},
    delivery::{LaneSettings, PerLane, Shares, key_tag},
    identity::{
        AttestationDraft, ChangeDraft, ChangeHistory, Identifier, KeyAlgorithm, PublicKey, SignedAttestation,
        tests::Seeded,
    },
    relay::{MemberRights, RelaySettings},
    seal::{Extent, SealKey, SealKeyDraft, merkle, reading_leaf},
    time::{ClockQuality, WallTime},
    trust::{Saved, SavedPart},
    wire::{Reader, put_bytes_varint},
};

/// 2026-01-01.
pub(super) const EPOCH_SECS: u64 = 1_767_225_600;

/// An identity with its key in memory.
pub(super) struct Signer {
    pub(super) key: EcdsaKeyPair,
    pub(super) history: ChangeHistory,
}

impl Signer {
    pub(super) fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let public = PublicKey::new(KeyAlgorithm::EcdsaP256, key.public_key().as_ref(), 0).unwrap();
        let draft = ChangeDraft::first(public, EPOCH_SECS);
        let signature = sign(&key, &draft.message());
        let history = draft.finish(signature, None).unwrap();
        Self { key, history }
    }

    pub(super) fn identifier(&self) -> Identifier {
        self.history.identifier()
    }

    pub(super) fn local(&self, entropy: &mut dyn Entropy) -> LocalIdentity {
        let secret = X25519Secret::generate(entropy);
        let draft = AttestationDraft::new(&self.history, *secret.public(), EPOCH_SECS, 86_400, 1).unwrap();
        let signature = sign(&self.key, &draft.message());
        let attestation: SignedAttestation = draft.finish(signature, &self.history).unwrap();
        LocalIdentity::new(&self.history, &attestation, secret).unwrap()
    }

    /// Makes a key for seals, good for `lifetime_secs` from the beginning on.
    pub(super) fn seal_key(&self, entropy: &mut dyn Entropy, lifetime_secs: u64) -> SealKey {
        let draft = SealKeyDraft::new(entropy, &self.history, EPOCH_SECS, lifetime_secs, 2).unwrap();
        let signature = sign(&self.key, &draft.message());
        draft.finish(signature, &self.history).unwrap()
    }
}

pub(super) fn sign(key: &EcdsaKeyPair, message: &[u8]) -> [u8; 64] {
    let signature = key.sign(&aws_lc_rs::rand::SystemRandom::new(), message).unwrap();
    signature.as_ref().try_into().unwrap()
}

/// Send buffers of one node's connections.
#[derive(Default)]
pub(super) struct Buffers(pub(super) BTreeMap<ConnectionKey, Vec<u8>>);

impl Wire for Buffers {
    fn buffer(&mut self, connection: ConnectionKey) -> Option<&mut Vec<u8>> {
        self.0.get_mut(&connection)
    }

    fn queued_bytes(&self, connection: ConnectionKey) -> usize {
        self.0.get(&connection).map_or(0, Vec::len)
    }
}

/// A journal in memory: reading n has the sequence n.
#[derive(Default)]
pub(super) struct Readings(pub(super) Vec<Vec<u8>>);

impl RecordSource for Readings {
    fn copy_records(
        &mut self,
        lane: Class,
        from: u64,
        bytes_max: usize,
        count_max: u64,
        out: &mut Vec<u8>,
    ) -> Copied {
        assert_eq!(lane, Class::Normal, "the other lanes have nothing");
        let start = out.len();
        let mut copied = 0;
        let first = usize::try_from(from - 1).unwrap();
        for reading in self
            .0
            .iter()
            .skip(first)
            .take(usize::try_from(count_max).unwrap())
        {
            if out.len() - start + reading.len() + 8 > bytes_max {
                break;
            }
            put_bytes_varint(out, reading);
            copied += 1;
        }
        Copied::Records(copied)
    }
}

#[derive(Default)]
pub(super) struct Taken(pub(super) Vec<Vec<u8>>, pub(super) Seals, pub(super) Streams);

/// What came out of streams.
pub(super) type Streams = BTreeMap<(PortalKey, StreamId), Vec<u8>>;

/// What a sink has seen of seals.
#[derive(Default)]
pub(super) struct Seals {
    /// Attestations of the keys shown, in order.
    pub(super) keys: Vec<Vec<u8>>,
    /// The gateway's history.
    pub(super) history: Vec<u8>,
    /// Readings in batches whose seal holds, by the number of the key.
    pub(super) proved: BTreeMap<usize, u64>,
    /// Readings in batches without a seal.
    pub(super) unsealed: u64,
}

impl Seals {
    fn check(&mut self, journal: [u8; 16], batch: &Batch<'_>) {
        let Some(sealed) = &batch.seal else {
            self.unsealed += batch.count;
            return;
        };
        let number = self
            .keys
            .iter()
            .position(|key| key_tag(&sha256(&[key])) == sealed.key_tag)
            .expect("the key was shown before");
        let attestation = SignedAttestation::decode(&self.keys[number]).unwrap();
        let history = ChangeHistory::decode(&self.history).unwrap();
        attestation.verify_readings_key(&history).unwrap();
        let mut leaves = Vec::new();
        for readings in [sealed.skipped, batch.readings] {
            let mut reader = Reader::new(readings);
            while !reader.is_empty() {
                let sequence = sealed.first + leaves.len() as u64;
                leaves.push(reading_leaf(
                    &journal,
                    sequence,
                    reader.bytes_varint("reading").unwrap(),
                ));
            }
        }
        let extent = Extent {
            journal,
            first: sealed.first,
            count: leaves.len() as u64,
        };
        assert_eq!(extent.first + extent.count, batch.first + batch.count);
        let root = merkle::root(&mut leaves).unwrap();
        let public = attestation.attestation().public_key;
        sealed
            .seal
            .verify(&public, &attestation.hash(), &extent, &root)
            .unwrap();
        *self.proved.entry(number).or_default() += batch.count;
    }
}

impl ReadingSink for Taken {
    fn accept(&mut self, source: &SourceInfo, batch: Batch<'_>) -> bool {
        assert_eq!(batch.first, self.0.len() as u64 + 1, "in order and each once");
        self.1.check(source.journal, &batch);
        let mut reader = Reader::new(batch.readings);
        for _ in 0..batch.count {
            self.0.push(reader.bytes_varint("reading").unwrap().to_vec());
        }
        true
    }

    fn gap(&mut self, _source: &SourceInfo, lost: &Lost) -> bool {
        panic!("nothing is lost here: {lost:?}");
    }

    fn portal_data(&mut self, portal: PortalKey, stream: StreamId, bytes: &[u8]) {
        self.2
            .entry((portal, stream))
            .or_default()
            .extend_from_slice(bytes);
    }

    fn seal_key(&mut self, _gateway: &Identifier, key: ShownKey<'_>) {
        if !self.1.keys.iter().any(|known| known == key.attestation) {
            self.1.keys.push(key.attestation.to_vec());
            self.1.history = key.history.to_vec();
        }
    }
}

/// One node with what surrounds it.
pub(super) struct Host {
    pub(super) node: Node,
    pub(super) buffers: Buffers,
    pub(super) journal: Readings,
    pub(super) sink: Taken,
    pub(super) events: Vec<Event>,
    /// What it wants of its caller, and nobody has answered.
    pub(super) outputs: Vec<Output>,
    pub(super) released: u64,
    pub(super) signer: Signer,
    pub(super) clock: TestClock,
    /// Decides; nobody does if there is none.
    pub(super) policy: Option<Policy>,
    /// Whom it was asked to decide about.
    pub(super) asked: Vec<Access>,
    pub(super) authority: Option<Box<TestAuthority>>,
    /// Whether its token signs live proofs.
    pub(super) signs: bool,
    pub(super) saved: Saved,
}

/// Lanes of which the normal one has so many readings.
pub(super) fn lanes(readings: usize) -> PerLane<LaneSettings> {
    PerLane::from_fn(|lane| LaneSettings {
        journal: [4 + lane.bits(); 16],
        first: 1,
        available: if lane == Class::Normal { readings as u64 } else { 0 },
        confirmed: 0,
    })
}

/// Decides about a peer; `None`: not yet.
pub(super) type Policy = Box<dyn Fn(&Access) -> Option<Verdict>>;

/// What a host thinks of the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct TestClock {
    pub(super) ahead_millis: i64,
    pub(super) quality: ClockQuality,
}

impl TestClock {
    pub(super) const RIGHT: Self = Self {
        ahead_millis: 0,
        quality: ClockQuality::Synchronised,
    };

    fn at(self, mut now: Now) -> Now {
        now.wall.unix_millis = now.wall.unix_millis.saturating_add_signed(self.ahead_millis);
        now.wall.quality = self.quality;
        now
    }
}

impl Host {
    pub(super) fn new(node: Node, signer: Signer, journal: Readings) -> Self {
        Self {
            node,
            buffers: Buffers::default(),
            journal,
            sink: Taken::default(),
            events: Vec::new(),
            outputs: Vec::new(),
            released: 0,
            signer,
            clock: TestClock::RIGHT,
            policy: None,
            asked: Vec::new(),
            authority: None,
            signs: true,
            saved: Saved::default(),
        }
    }

    /// Answers what the node wants of its caller, as far as it is to be answered.
    fn answer(&mut self, now: Now, entropy: &mut dyn Entropy, output: Output) {
        match output {
            Output::Authorise(access) => {
                let verdict = self.policy.as_ref().and_then(|policy| policy(&access));
                self.asked.push((*access).clone());
                if let Some(verdict) = verdict {
                    self.decide(now, entropy, access.attempt, verdict);
                }
            }
            Output::Sign { channel, message } if self.signs => {
                let signature = sign(&self.signer.key, &message);
                self.node
                    .handle_signature(now, entropy, channel, Some(signature), &mut self.buffers);
            }
            Output::Authority(request) => {
                let authority = self.authority.as_mut().expect("only an authority is asked");
                if let Some(answer) = authority.answer(now, &request) {
                    self.node.handle_authority_answer(
                        now,
                        request.channel,
                        request.request,
                        &answer,
                        &mut self.buffers,
                    );
                }
            }
            Output::Save { what, bytes } => {
                let bytes = Some(bytes.to_vec());
                match what {
                    SavedPart::History => self.saved.history = bytes,
                    SavedPart::Status => self.saved.status = bytes,
                    SavedPart::Own => self.saved.own = bytes,
                }
            }
            other @ (Output::Sign { .. }
            | Output::Asked { .. }
            | Output::Forgotten(_)
            | Output::Time(_)
            | Output::AuthoriseCommand(_)
            | Output::Executor(_)
            | Output::Commander(_)) => self.outputs.push(other),
            Output::Dial { .. }
            | Output::DialDirect { .. }
            | Output::Punch { .. }
            | Output::CloseConnection { .. }
            | Output::Released { .. }
            | Output::Event(_) => unreachable!("the network deals with {output:?}"),
        }
    }

    pub(super) fn decide(&mut self, now: Now, entropy: &mut dyn Entropy, attempt: u64, verdict: Verdict) {
        self.node
            .handle_verdict(now, entropy, attempt, verdict, &mut self.buffers, &mut self.sink);
    }

    /// Returns the channel whose use is of this kind, the newest if there are several.
    pub(super) fn channel(&self, is_it: impl Fn(Use) -> bool) -> ChannelId {
        let mut found = self
            .node
            .by_channel
            .iter()
            .filter(|(_, entry)| is_it(entry.used_for));
        *found.next_back().expect("there is such a channel").0
    }

    /// Returns the channel with this peer.
    pub(super) fn channel_with(&self, peer: Identifier) -> Option<ChannelId> {
        let mut found = self.node.known.iter().filter(|(_, known)| known.peer == peer);
        found.next().map(|(channel, _)| *channel)
    }

    /// Returns what became of its requests.
    pub(super) fn answers(&self) -> Vec<(u64, Asked)> {
        let asked = self.outputs.iter().filter_map(|output| {
            let Output::Asked { id, asked } = output else {
                return None;
            };
            Some((*id, asked.clone()))
        });
        asked.collect()
    }

    pub(super) fn count(&self, is_it: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| is_it(event)).count()
    }
}

/// Hosts and the pipes between them.
pub(super) struct Net {
    pub(super) now: Now,
    pub(super) entropy: Seeded,
    pub(super) hosts: Vec<Host>,
    /// By host and connection: the host and connection at the other end.
    pub(super) pipes: BTreeMap<(usize, ConnectionKey), (usize, ConnectionKey)>,
    /// By host and neighbour: the host behind it.
    pub(super) dials: BTreeMap<(usize, usize), usize>,
    next_connection: u64,
    /// What the relay's neighbours saw on the wire, for a look at what is in clear.
    pub(super) tapped: Vec<u8>,
    /// Changes bytes on their way out of the relay.
    pub(super) tamper: Option<fn(&mut Vec<u8>)>,
    /// Connections over which nothing moves, by the end that sends.
    pub(super) stalled: BTreeSet<(usize, ConnectionKey)>,
    /// What is sent from the first of these hosts to the second is lost.
    pub(super) muted: BTreeSet<(usize, usize)>,
    /// Who is found at which address without a relay.
    pub(super) addresses: BTreeMap<SocketAddr, usize>,
    /// Addresses that were dialled so, one attempt after the other.
    pub(super) dialled: Vec<Vec<SocketAddr>>,
    /// Which host sent something to which addresses.
    pub(super) punched: Vec<(usize, Vec<SocketAddr>)>,
    /// Bytes carried from the first host to the second.
    pub(super) carried: BTreeMap<(usize, usize), usize>,
}

pub(super) const GATEWAY: usize = 0;
pub(super) const RELAY: usize = 1;
pub(super) const COLLECTOR: usize = 2;

impl Net {
    pub(super) fn now_of(secs: u64) -> Now {
        Now {
            instant: Instant::from_nanos(secs * 1_000_000_000),
            wall: WallTime {
                unix_millis: (EPOCH_SECS + 60 + secs) * 1000,
                quality: ClockQuality::Synchronised,
            },
        }
    }

    /// A gateway and a collector that dial a relay, with `readings` in the gateway's journal.
    pub(super) fn new(
        readings: usize,
        adjust: impl FnOnce(&mut NodeSettings, &mut NodeSettings, &mut NodeSettings),
    ) -> Self {
        let mut entropy = Seeded::new(7);
        let now = Self::now_of(0);
        let signers = [Signer::new(), Signer::new(), Signer::new()];
        let journal = Readings(
            (0..readings)
                .map(|n| format!("secret reading {n}").into_bytes())
                .collect(),
        );
        let to_relay = |names: &[&str]| NeighbourSettings {
            relay: Some(signers[RELAY].identifier()),
            pq: PqPolicy::Required,
            registrations: names
                .iter()
                .map(|name| RegistrationSettings {
                    name: (*name).to_owned(),
                })
                .collect(),
            forwarding: None,
        };
        let mut gateway = NodeSettings::new("gateway");
        gateway.neighbours = vec![to_relay(&[])];
        gateway.uplinks = vec![UplinkSettings {
            collector: signers[COLLECTOR].identifier(),
            pq: PqPolicy::Required,
            live_proof: false,
            ways: vec![WaySettings::relayed(0, "plant")],
            latency: Duration::ZERO,
            lanes: lanes(readings),
            shares: Shares::default(),
            verifiable: true,
        }];
        let mut relay = NodeSettings::new("relay");
        let rights = |hold: &[&str], reach: &[&str]| MemberRights {
            names: hold.iter().map(|name| name.parse().unwrap()).collect(),
            reach: reach.iter().map(|name| name.parse().unwrap()).collect(),
        };
        relay.relay = Some(RelaySettings {
            members: BTreeMap::from([
                (signers[GATEWAY].identifier(), rights(&[], &["plant"])),
                (signers[COLLECTOR].identifier(), rights(&["plant"], &[])),
            ]),
            ..RelaySettings::default()
        });
        let mut collector = NodeSettings::new("collector");
        collector.neighbours = vec![to_relay(&["plant"])];
        collector.collect = Some(CollectSettings {
            gateways: BTreeSet::from([signers[GATEWAY].identifier()]),
            ..CollectSettings::default()
        });
        adjust(&mut gateway, &mut relay, &mut collector);
        let mut journals = vec![journal, Readings::default(), Readings::default()].into_iter();
        let hosts = [gateway, relay, collector]
            .into_iter()
            .zip(signers)
            .map(|(settings, signer)| {
                let local = signer.local(&mut entropy);
                let node = Node::new(now, &mut entropy, settings, local);
                Host::new(node, signer, journals.next().unwrap())
            });
        let hosts = hosts.collect();
        let dials = BTreeMap::from([((GATEWAY, 0), RELAY), ((COLLECTOR, 0), RELAY)]);
        Self::of(now, entropy, hosts, dials)
    }

    pub(super) fn of(
        now: Now,
        entropy: Seeded,
        hosts: Vec<Host>,
        dials: BTreeMap<(usize, usize), usize>,
    ) -> Self {
        Self {
            now,
            entropy,
            hosts,
            pipes: BTreeMap::new(),
            dials,
            next_connection: 1,
            tapped: Vec::new(),
            tamper: None,
            stalled: BTreeSet::new(),
            muted: BTreeSet::new(),
            addresses: BTreeMap::new(),
            dialled: Vec::new(),
            punched: Vec::new(),
            carried: BTreeMap::new(),
        }
    }

    pub(super) fn connect(&mut self, from: usize, neighbour: usize, to: usize) {
        let keys = [
            ConnectionKey(self.next_connection),
            ConnectionKey(self.next_connection + 1),
        ];
        self.next_connection += 2;
        self.pipes.insert((from, keys[0]), (to, keys[1]));
        self.pipes.insert((to, keys[1]), (from, keys[0]));
        for (host, key, neighbour) in [(from, keys[0], Some(neighbour)), (to, keys[1], None)] {
            let host = &mut self.hosts[host];
            host.buffers.0.insert(key, Vec::new());
            host.node
                .handle_connected(self.now, key, neighbour, &mut host.buffers);
        }
    }

    pub(super) fn disconnect(&mut self, host: usize, key: ConnectionKey) {
        let Some(other) = self.pipes.remove(&(host, key)) else {
            return;
        };
        self.pipes.remove(&other);
        for (host, key) in [(host, key), other] {
            let host = &mut self.hosts[host];
            host.buffers.0.remove(&key);
            host.node
                .handle_disconnected(self.now, &mut self.entropy, key, &mut host.buffers);
        }
    }

    /// Runs every node until nothing moves at this instant.
    pub(super) fn settle(&mut self) {
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < 10_000, "the nodes talk for ever");
            let mut moved = false;
            for index in 0..self.hosts.len() {
                let host = &mut self.hosts[index];
                let now = host.clock.at(self.now);
                host.node
                    .handle_timeout(now, &mut self.entropy, &mut host.buffers);
                host.node
                    .flush(now, &mut self.entropy, &mut host.buffers, Some(&mut host.journal));
                let mut dials = Vec::new();
                let mut closes = Vec::new();
                while let Some(output) = host.node.poll_output() {
                    match output {
                        Output::Dial { neighbour } => dials.push((neighbour, None)),
                        Output::DialDirect { neighbour, addresses } => {
                            let found = addresses.iter().find_map(|address| self.addresses.get(address));
                            dials.push((neighbour, Some(found.copied())));
                            self.dialled.push(addresses);
                        }
                        Output::Punch { addresses } => self.punched.push((index, addresses)),
                        Output::CloseConnection { connection } => closes.push(connection),
                        Output::Released {
                            lane: Class::Normal,
                            up_to,
                            ..
                        } => host.released = up_to,
                        Output::Released { up_to, .. } => assert_eq!(up_to, 0),
                        Output::Event(event) => host.events.push(event),
                        other @ (Output::Authorise(_)
                        | Output::Sign { .. }
                        | Output::Authority(_)
                        | Output::Asked { .. }
                        | Output::Save { .. }
                        | Output::Forgotten(_)
                        | Output::Time(_)
                        | Output::AuthoriseCommand(_)
                        | Output::Executor(_)
                        | Output::Commander(_)) => host.answer(now, &mut self.entropy, other),
                    }
                }
                for (neighbour, direct) in dials {
                    moved = true;
                    let to = direct.unwrap_or_else(|| self.dials.get(&(index, neighbour)).copied());
                    match to {
                        Some(to) => self.connect(index, neighbour, to),
                        None => {
                            self.hosts[index]
                                .node
                                .handle_dial_failed(self.now, &mut self.entropy, neighbour)
                        }
                    }
                }
                for connection in closes {
                    moved = true;
                    self.disconnect(index, connection);
                }
            }
            moved |= self.carry();
            if !moved {
                return;
            }
        }
    }

    /// Carries what is in the buffers to the other ends; says whether there was anything.
    fn carry(&mut self) -> bool {
        let mut in_transit = VecDeque::new();
        for (&(from, key), &(to, other)) in &self.pipes {
            if let Some(buffer) = self.hosts[from]
                .buffers
                .0
                .get_mut(&key)
                .filter(|buffer| !buffer.is_empty() && !self.stalled.contains(&(from, key)))
            {
                in_transit.push_back((from, to, other, std::mem::take(buffer)));
            }
        }
        let moved = !in_transit.is_empty();
        for (from, to, key, mut bytes) in in_transit {
            if self.muted.contains(&(from, to)) {
                continue;
            }
            *self.carried.entry((from, to)).or_default() += bytes.len();
            if from == RELAY {
                self.tapped.extend_from_slice(&bytes);
                if let Some(tamper) = self.tamper {
                    tamper(&mut bytes);
                }
            }
            let host = &mut self.hosts[to];
            host.node.handle_bytes(
                host.clock.at(self.now),
                &mut self.entropy,
                key,
                &mut bytes,
                &mut host.buffers,
                &mut host.sink,
            );
            let taken = host.sink.0.len() as u64;
            let sources = host.node.sources().map(|view| view.info);
            let normal = sources.filter(|info| info.lane == Class::Normal).last();
            if let Some(info) = normal.filter(|_| taken > 0) {
                host.node.handle_sinks_committed(info.index, taken);
            }
        }
        moved
    }

    pub(super) fn pass(&mut self, secs: u64) {
        for _ in 0..secs {
            let elapsed = self.now.instant.as_nanos() / 1_000_000_000 + 1;
            self.now = Self::now_of(elapsed);
            self.settle();
        }
    }

    /// The same in steps of ten milliseconds.
    pub(super) fn pass_millis(&mut self, millis: u64) {
        for _ in 0..millis / 10 {
            self.now.instant = self.now.instant + Duration::from_millis(10);
            self.settle();
        }
    }

    /// Lets the gateway's devices publish `count` readings more.
    pub(super) fn add_readings(&mut self, count: usize) {
        let gateway = &mut self.hosts[GATEWAY];
        let before = gateway.journal.0.len();
        let more = (before..before + count).map(|n| format!("secret reading {n}").into_bytes());
        gateway.journal.0.extend(more);
        let available = gateway.journal.0.len() as u64;
        gateway
            .node
            .handle_available(self.now, Class::Normal, 1, available);
    }

    pub(super) fn delivered(&self) -> usize {
        self.hosts[COLLECTOR].sink.0.len()
    }

    /// Returns the time as a host knows it.
    pub(super) fn now_at(&self, host: usize) -> Now {
        self.hosts[host].clock.at(self.now)
    }

    /// Returns the connection between two hosts as the first knows it.
    pub(super) fn connection(&self, from: usize, to: usize) -> ConnectionKey {
        let mut found = self
            .pipes
            .iter()
            .filter(|((one, _), (other, _))| (*one, *other) == (from, to));
        found.next_back().expect("they are connected").0.1
    }

    /// Has a host say something in a channel, whatever its node would say.
    pub(super) fn say(&mut self, from: usize, channel: ChannelId, frames: &[u8]) {
        let now = self.now_at(from);
        let host = &mut self.hosts[from];
        host.node.send_frames(now, channel, frames, &mut host.buffers);
    }
}
