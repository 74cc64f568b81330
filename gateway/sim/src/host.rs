//! A host: a node with what surrounds it, through all its lives.

use std::{collections::BTreeMap, time::Duration};

use fieldgate_proto::{
    node::{ConnectionKey, Event, NoSink, Node, NodeSettings, Output, RecordSource, SourceIndex, Wire},
    time::{Instant, Now},
};

use crate::{
    dice::Dice,
    gateway::{GatewayDisk, JournalHost},
    member::Member,
    model::{self, Model},
    report::Report,
    scenario::{Clock, EPOCH_SECS, Scenario},
    sink::{ForbiddenSink, Sink, SinkPort, SourceKey, Store},
};

/// What a host is for.
#[derive(Debug)]
pub(crate) enum Role {
    Gateway(GatewayDisk),
    Relay,
    Collector(Store),
    /// Claims the collector's name, and delivers readings of its own.
    Impostor,
}

/// A host, running or not.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) member: Member,
    pub(crate) dice: Dice,
    pub(crate) clock: Clock,
    /// Where its neighbours are.
    pub(crate) dials: Vec<usize>,
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
}

impl Host {
    pub(crate) fn new(name: String, role: Role, mut dice: Dice, settings: NodeSettings) -> Self {
        let member = Member::new(&mut dice, EPOCH_SECS);
        Self {
            name,
            role,
            member,
            dice,
            clock: Clock::RIGHT,
            dials: Vec::new(),
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
                let mut fresh_id = [0; 16];
                fieldgate_proto::entropy::Entropy::fill(&mut self.dice, &mut fresh_id);
                let identity = (self.member.identifier(), fresh_id);
                let host = JournalHost::recover(files, scenario.journal, identity, model);
                for uplink in &mut settings.uplinks {
                    uplink.journal = *host.journal.id();
                    uplink.first = host.journal.first_available();
                    uplink.available = host.journal.committed();
                }
                journal = Some(host);
            }
            Role::Collector(store) => {
                if let Some(collect) = &mut settings.collect {
                    collect.positions = store.clone();
                }
                model.collector_started();
                sink = Some(Sink::new(scenario.sink.clone()));
            }
            Role::Relay | Role::Impostor => {}
        }
        let local = self.member.local(&mut self.dice, true_secs(at));
        let now = self.now(at);
        let node = Node::new(now, &mut self.dice, settings, local);
        self.machine = Some(Machine {
            node,
            buffers: Buffers::default(),
            journal,
            sink,
        });
    }

    /// Returns the time as the host knows it.
    pub(crate) fn now(&self, at: u64) -> Now {
        Now {
            instant: Instant::from_nanos(at - self.booted),
            wall: self.clock.at(Duration::from_nanos(at)),
        }
    }

    /// Returns when the host wants to be called, in nanoseconds of the simulation.
    pub(crate) fn wakes_at(&self) -> Option<u64> {
        let machine = self.machine.as_ref()?;
        Some(machine.poll_timeout()?.as_nanos().saturating_add(self.booted))
    }

    /// Gives a new purpose key to the running node.
    pub(crate) fn renew(&mut self, at: u64) {
        let local = self.member.local(&mut self.dice, true_secs(at));
        if let Some(machine) = &mut self.machine {
            machine.node.set_local(local);
        }
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
        let Some(machine) = &mut self.machine else { return };
        let (node, buffers) = (&mut machine.node, &mut machine.buffers);
        match (&self.role, &mut machine.sink) {
            (Role::Collector(_), Some(sink)) => {
                let mut port = SinkPort { sink, model };
                node.handle_bytes(now, &mut self.dice, key, bytes, buffers, &mut port);
            }
            (Role::Impostor, _) => {
                let mut port = ForbiddenSink(model);
                node.handle_bytes(now, &mut self.dice, key, bytes, buffers, &mut port);
            }
            _ => node.handle_bytes(now, &mut self.dice, key, bytes, buffers, &mut NoSink),
        }
    }

    /// Takes the sink's word for a source.
    pub(crate) fn handle_confirmed(&mut self, source: SourceIndex, up_to: u64) {
        let Some(machine) = &mut self.machine else { return };
        let Some(sink) = &mut machine.sink else { return };
        sink.confirmed();
        machine.node.handle_sinks_committed(source, up_to);
        if sink.is_idle() {
            machine.node.handle_sinks_idle();
        }
    }

    /// Does what is due and what waits, until the next deadline lies ahead.
    pub(crate) fn end_turn(&mut self, at: u64, model: &mut Model) -> Wishes {
        let now = self.now(at);
        let mut wishes = Wishes::default();
        for _ in 0..ROUNDS_MAX {
            self.turn(now, model, &mut wishes);
            let Some(machine) = &self.machine else { break };
            if machine
                .poll_timeout()
                .is_none_or(|deadline| deadline > now.instant)
            {
                break;
            }
        }
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
    fn turn(&mut self, now: Now, model: &mut Model, wishes: &mut Wishes) {
        let Some(machine) = &mut self.machine else { return };
        let Machine {
            node,
            buffers,
            journal,
            sink,
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
            node.set_sinks_accepting(sink.told_accepting);
        }
        drain(node, now.instant, journal.as_mut(), model, wishes);
        match (&mut self.role, journal) {
            (Role::Gateway(files), Some(journal)) => {
                run_journal(node, now, journal, files, model);
                node.flush(now, &mut self.dice, buffers, Some(&mut journal.journal));
                drain(node, now.instant, Some(journal), model, wishes);
                run_journal(node, now, journal, files, model);
            }
            (Role::Impostor, _) => {
                node.flush(now, &mut self.dice, buffers, Some(&mut Forged));
                drain(node, now.instant, None, model, wishes);
            }
            _ => {
                node.flush(now, &mut self.dice, buffers, None);
                drain(node, now.instant, None, model, wishes);
            }
        }
    }

    /// Checks what has a bound.
    pub(crate) fn check_bounds(&self, hosts: usize, model: &mut Model) {
        let Some(machine) = &self.machine else { return };
        model.note(model::check_node(
            &self.name,
            &machine.node,
            &machine.buffers,
            hosts,
        ));
        if let (Role::Gateway(files), Some(journal)) = (&self.role, &machine.journal) {
            let on_disk = files.disk.bytes();
            model.note(model::check_journal(&self.name, &journal.journal, on_disk));
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
        report.refused_peers += machine.node.stats().unauthorised;
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
        }
    }

    /// Returns the key of the journal, if the host is a running gateway.
    pub(crate) fn journal_key(&self) -> Option<SourceKey> {
        self.machine.as_ref()?.journal.as_ref().map(|journal| journal.key)
    }
}

impl Machine {
    fn poll_timeout(&self) -> Option<Instant> {
        let journal = self.journal.as_ref().and_then(JournalHost::poll_timeout);
        [self.node.poll_timeout(), journal].into_iter().flatten().min()
    }
}

fn run_journal(
    node: &mut Node,
    now: Now,
    journal: &mut JournalHost,
    files: &mut GatewayDisk,
    model: &mut Model,
) {
    if let Some(committed) = journal.execute(now.instant, files, model) {
        node.handle_available(now, journal.journal.first_available(), committed);
    }
}

/// Deals with what the node has to say.
fn drain(
    node: &mut Node,
    now: Instant,
    mut journal: Option<&mut JournalHost>,
    model: &mut Model,
    wishes: &mut Wishes,
) {
    while let Some(output) = node.poll_output() {
        match output {
            Output::Dial { neighbour } => wishes.dials.push(neighbour),
            Output::CloseConnection { connection } => wishes.closes.push(connection),
            Output::Released { up_to } => {
                if let Some(journal) = &mut journal {
                    model.released(journal.key, up_to);
                    journal.journal.handle_released(now, up_to);
                }
            }
            Output::Event(event) => {
                check_event(node, &event, model);
                wishes.events.push(event);
            }
            other @ (Output::Authorise(_)
            | Output::Sign { .. }
            | Output::Authority(_)
            | Output::Asked { .. }
            | Output::Save { .. }
            | Output::Time(_)
            | Output::PeerTime { .. }) => panic!("a node with lists and without authority said {other:?}"),
        }
    }
}

/// Compares what an operator would be told with what can have happened.
fn check_event(node: &Node, event: &Event, model: &mut Model) {
    if let Event::SetBack { committed, .. } = event {
        model.set_back(&format!("collector has {committed}"));
    } else if let Event::SourceSetBack { source } = event {
        model.set_back(&format!("source {}", source.0));
    } else if let Event::ReadingsMissing { source, first, last } = event
        && let Some(view) = node.sources().find(|view| view.info.index == *source)
    {
        model.missing((view.info.gateway, view.info.journal), *first, *last);
    }
}

/// The impostor's journal: readings nobody gave it.
struct Forged;

impl RecordSource for Forged {
    fn copy_records(
        &mut self,
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
