//! A host: a node with what surrounds it, through all its lives.

use std::{collections::BTreeMap, time::Duration};

use fieldgate_proto::{
    channel::ChannelId,
    delivery::PerLane,
    identity::Identifier,
    link::Class,
    node::{
        Access, AuthorityAnswer, AuthorityRequest, ConnectionKey, Event, NoSink, Node, NodeSettings, Output,
        ReadingSink, RecordSource, SourceIndex, Verdict, Wire,
    },
    route::DropReason,
    time::{Instant, Now, WallTime},
    trust::{SavedPart, Trust},
};

use crate::{
    authority::Authority,
    dice::Dice,
    gateway::{GatewayDisk, JournalHost},
    member::Member,
    model::{self, Model, Server},
    report::Report,
    scenario::{Clock, EPOCH_SECS, Scenario},
    sink::{ForbiddenSink, Sink, SinkPort, SourceKey, Store},
    streams::{Arrivals, Port, Streams},
    trusting::HostTrust,
};

/// What a host is for.
#[expect(
    clippy::large_enum_variant,
    reason = "a world has a handful of hosts, and each has one for as long as it lives"
)]
#[derive(Debug)]
pub(crate) enum Role {
    Gateway(GatewayDisk),
    Relay,
    Collector(Store),
    Authority(Box<Authority>),
    /// Claims the collector's name, and delivers readings of its own.
    Impostor,
}

/// A host, running or not.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    /// Its number among the hosts.
    number: usize,
    pub(crate) role: Role,
    pub(crate) member: Member,
    /// Whom it trusts, where there is an authority.
    pub(crate) trust: Option<HostTrust>,
    pub(crate) dice: Dice,
    pub(crate) clock: Clock,
    /// By how many millionths its clock goes fast.
    pub(crate) drift: i64,
    /// Where its neighbours are.
    pub(crate) dials: Vec<usize>,
    /// Where its inlets lead, and whose streams lead here.
    pub(crate) inlets: Vec<usize>,
    pub(crate) outlets: BTreeMap<Identifier, usize>,
    settings: NodeSettings,
    /// When its present life began, in nanoseconds of the simulation.
    booted: u64,
    /// Grows with every life, so that what was meant for another is told apart.
    pub(crate) life: u32,
    pub(crate) machine: Option<Machine>,
}

/// What lives from a start to a stop.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) node: Node,
    pub(crate) buffers: Buffers,
    pub(crate) journal: Option<JournalHost>,
    pub(crate) sink: Option<Sink>,
    pub(crate) streams: Option<Streams>,
}

/// The send buffers of a node, and what waits behind them.
#[derive(Debug, Default)]
pub(crate) struct Buffers(BTreeMap<ConnectionKey, Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    fresh: Vec<u8>,
    queued: usize,
}

impl Buffers {
    pub(crate) fn open(&mut self, key: ConnectionKey) {
        self.0.insert(key, Waiting::default());
    }

    pub(crate) fn close(&mut self, key: ConnectionKey) {
        self.0.remove(&key);
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = ConnectionKey> + '_ {
        self.0.keys().copied()
    }

    /// Takes what was written since the last call, by connection.
    pub(crate) fn take_fresh(&mut self) -> Vec<(ConnectionKey, Vec<u8>)> {
        let fresh = self.0.iter_mut().filter(|(_, waiting)| !waiting.fresh.is_empty());
        fresh
            .map(|(key, waiting)| (*key, std::mem::take(&mut waiting.fresh)))
            .collect()
    }

    /// Notes how many bytes wait behind the buffer.
    pub(crate) fn set_queued(&mut self, key: ConnectionKey, queued: usize) {
        if let Some(waiting) = self.0.get_mut(&key) {
            waiting.queued = queued;
        }
    }
}

impl Wire for Buffers {
    fn buffer(&mut self, connection: ConnectionKey) -> Option<&mut Vec<u8>> {
        self.0.get_mut(&connection).map(|waiting| &mut waiting.fresh)
    }

    fn queued_bytes(&self, connection: ConnectionKey) -> usize {
        self.0
            .get(&connection)
            .map_or(0, |waiting| waiting.fresh.len() + waiting.queued)
    }
}

/// What a host wants from the network.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) dials: Vec<usize>,
    pub(crate) closes: Vec<ConnectionKey>,
    pub(crate) events: Vec<Event>,
    /// Peers to be decided about.
    pub(crate) accesses: Vec<Access>,
    /// What the token is to sign.
    pub(crate) signs: Vec<(ChannelId, Vec<u8>)>,
    /// What the authority is asked.
    pub(crate) requests: Vec<AuthorityRequest>,
    /// What the authority says that the time is.
    pub(crate) times: Vec<WallTime>,
    saves: Vec<(SavedPart, Vec<u8>)>,
}

impl Host {
    pub(crate) fn new(
        name: String,
        number: usize,
        role: Role,
        mut dice: Dice,
        settings: NodeSettings,
    ) -> Self {
        let member = Member::new(&mut dice, EPOCH_SECS);
        Self {
            name,
            number,
            role,
            member,
            trust: None,
            dice,
            clock: Clock::RIGHT,
            drift: 0,
            dials: Vec::new(),
            inlets: Vec::new(),
            outlets: BTreeMap::new(),
            settings,
            booted: 0,
            life: 0,
            machine: None,
        }
    }

    pub(crate) const fn settings_mut(&mut self) -> &mut NodeSettings {
        &mut self.settings
    }

    /// Begins a life.
    pub(crate) fn start(&mut self, at: u64, scenario: &Scenario, model: &mut Model) {
        self.booted = at;
        self.life += 1;
        let mut settings = self.settings.clone();
        let mut journal = None;
        let mut sink = None;
        match &mut self.role {
            Role::Gateway(files) => {
                let identity = (self.member.identifier(), settings.uplinks.len(), &mut self.dice);
                let host = JournalHost::recover(files, &scenario.journal, identity, model);
                for (index, uplink) in settings.uplinks.iter_mut().enumerate() {
                    uplink.lanes = host.lane_settings(index);
                }
                journal = Some(host);
            }
            Role::Collector(store) => {
                if let Some(collect) = &mut settings.collect {
                    collect.positions = store.clone();
                }
                model.collector_started(self.number);
                sink = Some(Sink::new(scenario.sink.clone()));
            }
            Role::Authority(authority) => authority.start(&mut self.member, &mut self.dice, true_secs(at)),
            Role::Relay | Role::Impostor => {}
        }
        let local = self.member.local(&mut self.dice, true_secs(at));
        let now = self.now(at);
        let mut node = Node::new(now, &mut self.dice, settings, local);
        if let Some(HostTrust { settings, saved, .. }) = &self.trust {
            let trust = Trust::new(self.member.identifier(), *settings, saved);
            node = node.trusting(trust.expect("a disk gives back what was put on it"));
        }
        let has_streams = !self.inlets.is_empty() || !self.outlets.is_empty();
        let plan = scenario.streams.as_ref().filter(|_| has_streams);
        let streams = plan.map(|plan| {
            let (dice, host) = (self.dice.fork(), (self.number, now.instant));
            Streams::new(plan, dice, host, &self.inlets, self.outlets.clone())
        });
        self.machine = Some(Machine {
            node,
            buffers: Buffers::default(),
            journal,
            sink,
            streams,
        });
    }

    /// Returns the time as the host knows it.
    pub(crate) fn now(&self, at: u64) -> Now {
        Now {
            instant: Instant::from_nanos(self.ticks(at - self.booted)),
            wall: self.clock.at(Duration::from_nanos(self.ticks(at))),
        }
    }

    /// Returns when the host wants to be called, in nanoseconds of the simulation.
    pub(crate) fn wakes_at(&self) -> Option<u64> {
        let machine = self.machine.as_ref()?;
        let ticks = u128::from(machine.poll_timeout()?.as_nanos());
        let nanos = (ticks * MILLION).div_ceil(self.rate());
        Some(
            u64::try_from(nanos)
                .unwrap_or(u64::MAX)
                .saturating_add(self.booted),
        )
    }

    /// Returns how long its clock says that some nanoseconds took.
    fn ticks(&self, nanos: u64) -> u64 {
        u64::try_from(u128::from(nanos) * self.rate() / MILLION).unwrap_or(u64::MAX)
    }

    fn rate(&self) -> u128 {
        MILLION.saturating_add_signed(i128::from(self.drift))
    }

    /// Returns who is at work, for the model.
    pub(crate) fn server(&self, at: u64) -> Server {
        Server {
            host: self.number,
            wall: self.now(at).wall,
            at,
        }
    }

    /// Takes a decision about a peer.
    pub(crate) fn handle_verdict(&mut self, at: u64, attempt: u64, verdict: Verdict, model: &mut Model) {
        let now = self.now(at);
        model.server = Some(self.server(at));
        let Some(machine) = &mut self.machine else { return };
        let (node, buffers) = (&mut machine.node, &mut machine.buffers);
        match &mut machine.sink {
            Some(sink) => {
                let mut port = SinkPort {
                    sink,
                    collector: self.number,
                    model,
                };
                node.handle_verdict(now, &mut self.dice, attempt, verdict, buffers, &mut port);
            }
            None => node.handle_verdict(now, &mut self.dice, attempt, verdict, buffers, &mut NoSink),
        }
    }

    /// Lets the token sign.
    pub(crate) fn handle_sign(&mut self, at: u64, channel: ChannelId, message: &[u8]) {
        let now = self.now(at);
        let signature = self.member.sign(message);
        let Some(machine) = &mut self.machine else { return };
        let (node, buffers) = (&mut machine.node, &mut machine.buffers);
        node.handle_signature(now, &mut self.dice, channel, Some(signature), buffers);
    }

    /// Answers a request, if this is the authority; with a refusal if it is to be denied.
    pub(crate) fn answer(&mut self, at: u64, request: &AuthorityRequest, denied: bool, model: &mut Model) {
        let now = self.now(at);
        let (Role::Authority(authority), Some(machine)) = (&mut self.role, &mut self.machine) else {
            return;
        };
        let answer = if denied {
            AuthorityAnswer::Denied
        } else {
            authority.answer(&self.member, now.wall, request, model)
        };
        let (channel, number) = (request.channel, request.request);
        machine
            .node
            .handle_authority_answer(now, channel, number, &answer, &mut machine.buffers);
    }

    /// Makes and publishes the next list of the revoked, if this is the authority and it runs.
    pub(crate) fn publish_list(&mut self, at: u64, model: &mut Model) {
        let now = self.now(at);
        let (Role::Authority(authority), Some(machine)) = (&mut self.role, &mut self.machine) else {
            return;
        };
        if let Some(list) = authority.list(&self.member, now.wall, model) {
            machine
                .node
                .publish_status(now, &list, &mut machine.buffers)
                .expect("the authority's own list is good");
        }
    }

    /// Asks for a credential unless this host has one, which is returned; `None` if it has no ticket.
    pub(crate) fn enrol(&mut self, at: u64) -> Option<bool> {
        let now = self.now(at);
        let trust = self.trust.as_ref().filter(|trust| trust.ticket.is_some())?;
        if trust.saved.own.is_some() {
            return Some(true);
        }
        let request = trust.request(&self.member, &mut self.dice, now.wall.unix_secs());
        if let (Some(request), Some(machine)) = (request, &mut self.machine) {
            machine.node.enrol(now, 1, request, &mut machine.buffers);
        }
        Some(false)
    }

    /// Returns the number of the list it has, if it runs and trusts anybody.
    pub(crate) fn list_number(&self, at: u64) -> Option<u64> {
        let view = self.machine.as_ref()?.node.trust_view(self.now(at))?;
        Some(view.list_number)
    }

    /// Gives a new purpose key to the running node.
    pub(crate) fn renew(&mut self, at: u64) {
        let local = self.member.local(&mut self.dice, true_secs(at));
        if let Some(machine) = &mut self.machine {
            machine.node.set_local(local);
        }
    }

    /// Has the members of a running relay leave it.
    pub(crate) fn drain(&mut self, at: u64, within: Duration) {
        let now = self.now(at);
        if let Some(machine) = &mut self.machine {
            machine.node.drain(now, within);
        }
    }

    /// Takes that back.
    pub(crate) fn undrain(&mut self, at: u64) {
        let now = self.now(at);
        if let Some(machine) = &mut self.machine {
            machine.node.undrain(now, &mut machine.buffers);
        }
    }

    /// Returns how many members are left at a relay that is being drained, and whether some may still leave.
    pub(crate) fn members_left(&self) -> Option<(usize, bool)> {
        let view = self.machine.as_ref()?.node.drain_view(0)?;
        Some((view.left, view.is_waiting))
    }

    pub(crate) fn handle_connected(&mut self, at: u64, key: ConnectionKey, neighbour: Option<usize>) {
        let now = self.now(at);
        if let Some(machine) = &mut self.machine {
            machine.buffers.open(key);
            machine
                .node
                .handle_connected(now, key, neighbour, &mut machine.buffers);
        }
    }

    pub(crate) fn handle_disconnected(&mut self, at: u64, key: ConnectionKey) {
        let now = self.now(at);
        if let Some(machine) = &mut self.machine {
            machine.buffers.close(key);
            machine
                .node
                .handle_disconnected(now, &mut self.dice, key, &mut machine.buffers);
        }
    }

    pub(crate) fn handle_dial_failed(&mut self, at: u64, neighbour: usize) {
        let now = self.now(at);
        if let Some(machine) = &mut self.machine {
            machine.node.handle_dial_failed(now, &mut self.dice, neighbour);
        }
    }

    pub(crate) fn handle_bytes(&mut self, at: u64, key: ConnectionKey, bytes: &mut [u8], model: &mut Model) {
        let now = self.now(at);
        model.server = Some(self.server(at));
        let Some(machine) = &mut self.machine else { return };
        let (node, buffers) = (&mut machine.node, &mut machine.buffers);
        let mut none = Arrivals::default();
        let arrivals = machine
            .streams
            .as_mut()
            .map_or(&mut none, |streams| &mut streams.arrivals);
        let (mut for_sink, mut forbidden);
        let readings: &mut dyn ReadingSink = match (&self.role, &mut machine.sink) {
            (Role::Collector(_), Some(sink)) => {
                for_sink = SinkPort {
                    sink,
                    collector: self.number,
                    model,
                };
                &mut for_sink
            }
            (Role::Impostor, _) => {
                forbidden = ForbiddenSink(model);
                &mut forbidden
            }
            _ => &mut NoSink,
        };
        let mut port = Port { readings, arrivals };
        node.handle_bytes(now, &mut self.dice, key, bytes, buffers, &mut port);
    }

    /// Takes the sink's word for a source.
    pub(crate) fn handle_confirmed(&mut self, source: SourceIndex, up_to: u64) {
        let Some(machine) = &mut self.machine else { return };
        machine.node.handle_sinks_committed(source, up_to);
    }

    /// Does what is due and what waits, until the next deadline lies ahead.
    pub(crate) fn end_turn(&mut self, at: u64, model: &mut Model) -> Wishes {
        let now = self.now(at);
        let mut wishes = Wishes::default();
        for _ in 0..ROUNDS_MAX {
            self.turn((now, at), model, &mut wishes);
            let Some(machine) = &self.machine else { break };
            if machine
                .poll_timeout()
                .is_none_or(|deadline| deadline > now.instant)
            {
                break;
            }
        }
        if let Some(trust) = &mut self.trust {
            for (what, bytes) in wishes.saves.drain(..) {
                trust.save(what, bytes);
            }
        }
        self.check_trust(at, model);
        if let Some(machine) = &self.machine {
            let journal = machine.journal.as_ref().and_then(JournalHost::poll_timeout);
            let deadlines = [("node", machine.node.poll_timeout()), ("journal", journal)];
            for (what, deadline) in deadlines {
                let name = (self.name.as_str(), what);
                model.note(model::invariant_deadlines_lie_ahead(name, now.instant, deadline));
            }
        }
        wishes
    }

    /// One turn of the event loop, in the order of the real one.
    fn turn(&mut self, (now, at): (Now, u64), model: &mut Model, wishes: &mut Wishes) {
        let Some(machine) = &mut self.machine else { return };
        let Machine {
            node,
            buffers,
            journal,
            sink,
            streams,
        } = machine;
        if node
            .poll_timeout()
            .is_some_and(|deadline| now.instant >= deadline)
        {
            node.handle_timeout(now, &mut self.dice, buffers);
        }
        if let Some(sink) = sink
            && sink.told_accepting != sink.accepts()
        {
            sink.told_accepting = sink.accepts();
            for lane in Class::ALL {
                node.set_sinks_accepting(lane, sink.told_accepting);
            }
        }
        drain(node, now.instant, (self.number, journal.as_mut()), model, wishes);
        if let Some(streams) = streams {
            streams.turn((now.instant, at), node, model);
        }
        match (&mut self.role, journal) {
            (Role::Gateway(files), Some(journal)) => {
                run_journal(node, now, journal, files, model);
                node.flush(now, &mut self.dice, buffers, Some(&mut journal.journal));
                drain(node, now.instant, (self.number, Some(journal)), model, wishes);
                run_journal(node, now, journal, files, model);
            }
            (Role::Impostor, _) => {
                node.flush(now, &mut self.dice, buffers, Some(&mut Forged));
                drain(node, now.instant, (self.number, None), model, wishes);
            }
            _ => {
                node.flush(now, &mut self.dice, buffers, None);
                drain(node, now.instant, (self.number, None), model, wishes);
            }
        }
    }

    /// Checks whom it serves, and which list it has.
    fn check_trust(&self, at: u64, model: &mut Model) {
        let Some(number) = self.list_number(at) else {
            return;
        };
        let check = model.trust.holds(self.number, number, at);
        model.note(check);
        let Some(machine) = &self.machine else { return };
        let attached = machine
            .node
            .connections()
            .filter_map(|connection| connection.member);
        let sources = machine.node.sources().filter(|source| source.connected);
        let served: Vec<_> = attached
            .chain(sources.map(|source| source.info.gateway))
            .collect();
        for peer in served {
            let check = model.trust.not_revoked(self.number, &peer);
            model.note(check);
        }
    }

    /// Checks what has a bound.
    pub(crate) fn check_bounds(&self, (hosts, is_attacked): (usize, bool), model: &mut Model) {
        let Some(machine) = &self.machine else { return };
        model.note(model::check_node(
            &self.name,
            &machine.node,
            &machine.buffers,
            (hosts, is_attacked),
        ));
        if let (Role::Gateway(files), Some(journal)) = (&self.role, &machine.journal) {
            for (lane, journal) in journal.journal.iter() {
                let on_disk = files.disk.bytes(lane);
                model.note(model::check_journal(&self.name, journal, on_disk));
            }
        }
    }

    /// Ends a life, and adds what the node counted to the report.
    pub(crate) fn stop(&mut self, report: &mut Report) {
        let Some(machine) = self.machine.take() else {
            return;
        };
        let channels = machine.node.channel_stats();
        let refused = [
            channels.records_forged,
            channels.records_replayed,
            channels.records_unknown,
        ];
        report.established += channels.established;
        report.rekeys += channels.rekeys;
        report.forwarded += machine.node.router_stats().frames_forwarded.iter().sum::<u64>();
        for reason in DropReason::ALL {
            let count = machine.node.router_stats().dropped(reason);
            if count > 0 {
                *report.dropped.entry(reason.name()).or_default() += count;
            }
        }
        for view in machine.node.portals() {
            let stats = view.session.stats();
            report.streams.resumed += stats.resumed;
            report.streams.lost += stats.lost;
            report.streams.went_back += stats.went_back;
            report.streams.duplicates += stats.duplicates;
        }
        let stats = machine.node.stats();
        report.refused_peers += stats.unauthorised;
        report.trust.credentials_refused += stats.credentials_refused;
        report.trust.lists_refused += stats.lists_refused;
        report.trust.proofs += channels.proofs_verified;
        if matches!(self.role, Role::Impostor) {
            report.impostor_messages += channels.wrong_mac1;
        }
        let sums = report.records_refused.iter_mut().zip(refused);
        sums.for_each(|(sum, part)| *sum += part);
        for source in machine.node.sources() {
            report.duplicates += source.stats.duplicates;
            report.out_of_order += source.stats.out_of_order;
        }
        if let Some(sink) = &machine.sink {
            report.held_back += sink.held_back;
        }
        if let Some(journal) = &machine.journal {
            report.refused += journal.refused;
            report.discarded += journal.discarded;
        }
    }

    /// Returns the keys of the lanes, if the host is a running gateway.
    pub(crate) fn journal_keys(&self) -> Option<PerLane<SourceKey>> {
        self.machine
            .as_ref()?
            .journal
            .as_ref()
            .map(|journal| journal.keys)
    }
}

impl Machine {
    fn poll_timeout(&self) -> Option<Instant> {
        let journal = self.journal.as_ref().and_then(JournalHost::poll_timeout);
        let streams = self.streams.as_ref().and_then(Streams::poll_timeout);
        let all = [self.node.poll_timeout(), journal, streams];
        all.into_iter().flatten().min()
    }
}

fn run_journal(
    node: &mut Node,
    now: Now,
    journal: &mut JournalHost,
    files: &mut GatewayDisk,
    model: &mut Model,
) {
    let committed = journal.execute(now, files, model);
    for (lane, committed) in committed.iter() {
        if let Some(committed) = committed {
            let first = journal.journal.lane(lane).first_available();
            node.handle_available(now, lane, first, *committed);
        }
    }
}

/// Deals with what the node has to say.
fn drain(
    node: &mut Node,
    now: Instant,
    (host, mut journal): (usize, Option<&mut JournalHost>),
    model: &mut Model,
    wishes: &mut Wishes,
) {
    while let Some(output) = node.poll_output() {
        match output {
            Output::Dial { neighbour } => wishes.dials.push(neighbour),
            Output::CloseConnection { connection } => wishes.closes.push(connection),
            Output::Released { uplink, lane, up_to } => {
                if let Some(journal) = &mut journal {
                    model.released(uplink, journal.keys[lane], up_to);
                    journal.journal.handle_released(now, lane, uplink, up_to);
                }
            }
            Output::Event(event) => {
                check_event(host, &event, model);
                wishes.events.push(event);
            }
            Output::Authorise(access) => wishes.accesses.push(*access),
            Output::Sign { channel, message } => wishes.signs.push((channel, message)),
            Output::Authority(request) => wishes.requests.push(*request),
            Output::Save { what, bytes } => wishes.saves.push((what, bytes.to_vec())),
            Output::Time(wall) => wishes.times.push(wall),
            // A request is repeated until there is a credential, and what a peer says about the time is believed by nobody here.
            Output::DialDirect { .. }
            | Output::Punch { .. }
            | Output::Asked { .. }
            | Output::Forgotten(_)
            | Output::AuthoriseCommand(_)
            | Output::Executor(_)
            | Output::Commander(_) => {}
        }
    }
}

/// Compares what an operator would be told with what can have happened.
fn check_event(host: usize, event: &Event, model: &mut Model) {
    if let Event::SetBack { lane, committed, .. } = event {
        model.set_back(&format!("collector has {committed} of {}", lane.name()));
    } else if let Event::SourceSetBack { source } = event {
        model.set_back(&format!("source {}", source.0));
    } else if let Event::Forgotten {
        confirmed, received, ..
    } = event
    {
        model.forgotten(host, *confirmed, *received);
    } else if let Event::CollectorSetBack {
        uplink,
        confirmed,
        committed,
        ..
    } = event
    {
        model.told_of_restore(*uplink, *confirmed, *committed);
    }
}

/// The impostor's journal: readings nobody gave it.
struct Forged;

impl RecordSource for Forged {
    fn copy_records(
        &mut self,
        _lane: Class,
        _from: u64,
        _bytes_max: usize,
        _count_max: u64,
        out: &mut Vec<u8>,
    ) -> fieldgate_proto::node::Copied {
        fieldgate_proto::wire::put_bytes_varint(out, b"forged");
        fieldgate_proto::node::Copied::Records(1)
    }
}

fn true_secs(at: u64) -> u64 {
    EPOCH_SECS + Duration::from_nanos(at).as_secs()
}

/// Turns at one instant: something that is due may make something else due.
const ROUNDS_MAX: usize = 4;
const MILLION: u128 = 1_000_000;
