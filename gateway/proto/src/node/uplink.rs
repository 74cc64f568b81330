//! Delivery of the journal to a collector: the way there, the channel, and what is sent in it.

use std::collections::BTreeSet;

use super::{
    Copied, Event, Links, Node, Output, PathOwner, PathReason, PathView, RecordSource, UplinkSettings, Use,
    Wire,
    failover::Failover,
    settings::{UPLINK, direct_way},
    way::{Attempts, BACKOFF, Destination},
};
use crate::{
    channel::{ChannelId, PLAINTEXT_CARRIED_MAX, PLAINTEXT_LEN_MAX, RECORD_OVERHEAD_MAX},
    delivery::{Allowed, BatchWriter, LaneView, PerLane, SEAL_KEY_SEEN, Sender, SenderEvent},
    entropy::Entropy,
    link::Class,
    route::{FlowId, LinkWriter as _, Router},
    time::{Instant, Now},
};

/// An uplink.
///
/// ```text
///  Waiting ──a way's neighbour is ready──▶ Connecting ──Established──▶ Up
///     ▲  (not before `retry_at`)            │                          │
///     └──────── channel closed, flow lost: next way, back-off ─────────┘
/// ```
#[derive(Debug)]
pub(super) struct Uplink {
    pub(super) settings: UplinkSettings,
    pub(super) state: UplinkState,
    pub(super) channel: Option<(ChannelId, FlowId)>,
    pub(super) sender: Sender,
    pub(super) attempts: Attempts,
    pub(super) failover: Failover,
    company: Company,
    yielding: Option<Yielding>,
    /// Whether the collector has said in this channel that it has the key that batches are sealed with.
    pub(super) key_seen: bool,
}

/// Less urgent lanes leave the way to one whose records are being read from disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Yielding {
    /// The lane that they wait for.
    to: Class,
    /// Until when at the most; `None` once that is over: a disk may be slow.
    until: Option<Instant>,
}

/// Whether readings that may be sent wait for more to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Company {
    /// There are none.
    Nobody,
    /// Since then.
    Awaited(Instant),
    /// No more: what keeps them is the link or the disk, and whoever ends that brings the next turn. A deadline in the past
    /// would have the caller turn without end until then.
    Enough,
}

/// Where an uplink stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkState {
    /// No neighbour on any way is ready, or the last attempt failed a moment ago.
    Waiting,
    /// The handshake with the collector is under way.
    Connecting,
    /// The channel is up.
    Up,
}

/// What can be seen of an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UplinkView {
    /// Where it stands.
    pub state: UplinkState,
    /// Index of the neighbour it goes by, or would next.
    pub neighbour: usize,
    /// What can be seen of each lane.
    pub lanes: PerLane<LaneView>,
}

impl Uplink {
    pub(super) fn new(now: Instant, settings: UplinkSettings, on_demand: &BTreeSet<usize>, run: u64) -> Self {
        let direct = direct_way(&settings.ways, on_demand);
        let mut sender = Sender::new(&settings.lanes, settings.shares);
        sender.set_run(run);
        Self {
            settings,
            state: UplinkState::Waiting,
            channel: None,
            sender,
            attempts: Attempts::new(now, BACKOFF),
            failover: Failover::new(now, direct),
            company: Company::Nobody,
            yielding: None,
            key_seen: false,
        }
    }

    /// Returns the channel, whether it is up or not.
    pub(super) fn channel(&self) -> Option<ChannelId> {
        self.channel.map(|(channel, _)| channel)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let sealing = match self.company {
            Company::Awaited(since) => Some(since + self.settings.latency),
            Company::Nobody | Company::Enough => None,
        };
        let yielding = self.yielding.and_then(|yielding| yielding.until);
        let has_choice = self.state == UplinkState::Up && self.settings.ways.len() > 1;
        [
            self.failover.poll_timeout(has_choice, self.expectation()),
            self.attempts.retry_at,
            self.sender.poll_timeout(),
            sealing,
            yielding,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Notes that the channel is gone, and tries the next way after a while.
    fn handle_failure(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        self.state = UplinkState::Waiting;
        self.channel = None;
        self.sender.handle_down();
        self.company = Company::Nobody;
        self.yielding = None;
        self.attempts
            .handle_failure(now, entropy, self.settings.ways.len());
    }

    /// Ends the patience of lanes that yield, if its time has come.
    fn lose_patience(&mut self, now: Instant) {
        if let Some(yielding) = &mut self.yielding {
            yielding.until.take_if(|until| now >= *until);
        }
    }

    /// Returns whether a lane leaves the way to a more urgent one, which was `absent` just now when its turn was. A lane that is
    /// owed its share had its turn before.
    pub(super) fn yields(&self, lane: Class, absent: &PerLane<bool>) -> bool {
        self.yielding
            .is_some_and(|yielding| yielding.to < lane && absent[yielding.to] && yielding.until.is_some())
    }

    /// Notes that a lane's records have to be read from disk.
    pub(super) fn handle_absent(&mut self, now: Instant, lane: Class) {
        if self.yielding.is_none_or(|yielding| lane < yielding.to) {
            self.yielding = Some(Yielding {
                to: lane,
                until: Some(now + YIELD_TIME_MAX),
            });
        }
    }

    /// Notes that a lane's records are there.
    pub(super) fn handle_present(&mut self, lane: Class) {
        self.yielding.take_if(|yielding| yielding.to == lane);
    }

    /// Returns whether a record should be sealed now rather than wait for more.
    fn is_ripe(&mut self, now: Instant) -> bool {
        let count: u64 = Class::ALL.into_iter().map(|lane| self.sender.ready(lane)).sum();
        if count == 0 {
            self.company = Company::Nobody;
            return false;
        }
        // Alarms wait for nobody, and what is there goes with them.
        let enough = count >= COMPANY
            || self.sender.ready(Class::Alarm) > 0
            || match self.company {
                Company::Nobody => self.settings.latency.is_zero(),
                Company::Awaited(since) => now >= since + self.settings.latency,
                Company::Enough => true,
            };
        self.company = match self.company {
            _ if enough => Company::Enough,
            Company::Awaited(since) => Company::Awaited(since),
            Company::Nobody | Company::Enough => Company::Awaited(now),
        };
        enough
    }
}

impl Node {
    /// Takes the news that a lane of the journal has records up to `available` on stable storage, and that `first` is the oldest
    /// sequence that some collector still has to hear of.
    pub fn handle_available(&mut self, now: Now, lane: Class, first: u64, available: u64) {
        for uplink in &mut self.uplinks {
            uplink
                .sender
                .handle_available(now.instant, lane, first, available);
        }
    }

    /// Opens channels that are missing and whose way is ready.
    pub(super) fn time_out_uplinks(&mut self, now: Now, entropy: &mut dyn Entropy, wire: &mut dyn Wire) {
        for index in 0..self.uplinks.len() {
            self.uplinks[index].sender.handle_timeout(now.instant);
            self.uplinks[index].lose_patience(now.instant);
            let uplink = &self.uplinks[index];
            if uplink.state == UplinkState::Waiting && uplink.attempts.is_due(now.instant) {
                self.connect_uplink(now, entropy, index, wire);
            }
            self.time_out_paths(now, entropy, PathOwner::Uplink(index), wire);
        }
    }

    /// Begins the handshake with the collector, if a way to it is ready.
    fn connect_uplink(&mut self, now: Now, entropy: &mut dyn Entropy, index: usize, wire: &mut dyn Wire) {
        let uplink = &mut self.uplinks[index];
        let mut attempts = std::mem::replace(&mut uplink.attempts, Attempts::new(now.instant, BACKOFF));
        let ways = std::mem::take(&mut uplink.settings.ways);
        let destination = Destination {
            peer: uplink.settings.collector,
            pq: uplink.settings.pq,
            service: UPLINK,
            used_for: Use::Uplink { uplink: index },
            ways: &ways,
        };
        let opened = self.open_way(now, entropy, destination, &mut attempts, wire);
        let uplink = &mut self.uplinks[index];
        (uplink.attempts, uplink.settings.ways) = (attempts, ways);
        if opened.is_some() {
            uplink.state = UplinkState::Connecting;
            uplink.channel = opened;
            let ways = uplink.settings.ways.len();
            uplink.failover.handle_begun(now.instant, ways);
        }
    }

    /// Lets uplinks that wait for a way look again.
    pub(super) fn wake_uplinks(&mut self, now: Now) {
        for uplink in &mut self.uplinks {
            match uplink.state {
                UplinkState::Waiting => _ = uplink.attempts.retry_at.get_or_insert(now.instant),
                UplinkState::Connecting | UplinkState::Up => uplink.failover.wake(now.instant),
            }
        }
    }

    pub(super) fn uplink_established(&mut self, now: Now, index: usize, channel: ChannelId) {
        let uplink = &mut self.uplinks[index];
        if uplink.failover.handle_reserve_up(now.instant, channel) {
            if uplink.state == UplinkState::Up {
                return;
            }
            uplink
                .failover
                .prefer_reserve(now.instant, &mut uplink.channel, &mut uplink.attempts);
        }
        uplink.failover.handle_up(now.instant);
        uplink.state = UplinkState::Up;
        uplink.attempts.backoff.handle_success(now.instant);
        uplink.sender.handle_up(now.instant);
        uplink.key_seen = false;
        let neighbour = uplink.settings.ways[uplink.attempts.way].neighbour;
        self.event(Event::UplinkUp {
            uplink: index,
            neighbour,
        });
        self.commands_up(now, index);
    }

    /// Goes on in another channel that is up already: what is on its way in the one before counts as not sent.
    pub(super) fn uplink_moved(&mut self, now: Now, index: usize) {
        let uplink = &mut self.uplinks[index];
        uplink.sender.handle_down();
        uplink.sender.handle_up(now.instant);
        uplink.key_seen = false;
        self.commands_up(now, index);
    }

    pub(super) fn uplink_closed(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        index: usize,
        channel: ChannelId,
    ) {
        let uplink = &mut self.uplinks[index];
        let ways = uplink.settings.ways.len();
        let was_reserve = uplink
            .failover
            .handle_reserve_closed(now.instant, entropy, channel, ways);
        if was_reserve {
            return;
        }
        let was_up = uplink.state == UplinkState::Up;
        let from = uplink.attempts.way;
        let reserve = uplink
            .failover
            .take_reserve(now.instant, entropy, &mut uplink.attempts, ways);
        if let Some((channel, flow, is_up)) = reserve {
            uplink.channel = Some((channel, flow));
            let neighbour = |way: usize| uplink.settings.ways.get(way).map_or(0, |way| way.neighbour);
            let (from, to) = (neighbour(from), neighbour(uplink.attempts.way));
            if is_up {
                self.event(Event::PathChanged {
                    owner: PathOwner::Uplink(index),
                    from,
                    to,
                    reason: PathReason::Closed,
                });
                self.uplink_moved(now, index);
                return;
            }
            uplink.state = UplinkState::Connecting;
            uplink.sender.handle_down();
            uplink.company = Company::Nobody;
            uplink.yielding = None;
            if was_up {
                self.event(Event::UplinkDown { uplink: index });
                self.commands_down(index);
            }
            return;
        }
        self.uplinks[index].handle_failure(now.instant, entropy);
        if was_up {
            self.event(Event::UplinkDown { uplink: index });
            self.commands_down(index);
        }
    }

    /// Takes a frame of the collector; false if it is bad.
    pub(super) fn uplink_frame(&mut self, now: Now, index: usize, kind: u8, body: &[u8]) -> bool {
        if kind == SEAL_KEY_SEEN {
            return self.key_seen(index, body);
        }
        match self.uplinks[index].sender.handle_frame(now.instant, kind, body) {
            Ok(SenderEvent::None) => {}
            Ok(SenderEvent::Released { lane, up_to }) => self.outputs.push_back(Output::Released {
                uplink: index,
                lane,
                up_to,
            }),
            Ok(SenderEvent::SetBack { lane, committed }) => self.event(Event::SetBack {
                uplink: index,
                lane,
                committed,
            }),
            Ok(SenderEvent::CollectorSetBack {
                lane,
                confirmed,
                committed,
            }) => self.event(Event::CollectorSetBack {
                uplink: index,
                lane,
                confirmed,
                committed,
            }),
            Err(_) => return false,
        }
        true
    }

    /// Seals readings into the send buffers, as far as collectors, links and the journal allow.
    pub(super) fn flush_uplinks(&mut self, now: Now, wire: &mut dyn Wire, journal: &mut dyn RecordSource) {
        for index in 0..self.uplinks.len() {
            let Some((channel, flow)) = self.uplinks[index].channel else {
                continue;
            };
            if self.uplinks[index].state != UplinkState::Up {
                continue;
            }
            for lane in Class::ALL {
                self.flush_frames(now, index, (channel, lane), wire);
            }
            if !self.uplinks[index].is_ripe(now.instant) {
                continue;
            }
            // Lanes whose records have to be read from disk first.
            let mut absent = PerLane::default();
            while self.flush_batch(now, index, (channel, flow), &mut absent, wire, journal) {}
        }
    }

    /// Seals what a lane has to say beside readings.
    fn flush_frames(
        &mut self,
        now: Now,
        index: usize,
        (channel, lane): (ChannelId, Class),
        wire: &mut dyn Wire,
    ) {
        if !self.uplinks[index].sender.has_frames(lane) {
            return;
        }
        let mut frames = std::mem::take(&mut self.scratch);
        frames.clear();
        self.uplinks[index].sender.write_frames(lane, &mut frames);
        self.send_frames_of(now, (channel, lane), &frames, wire);
        self.scratch = frames;
    }

    /// Seals one record of readings, in the class of their lane; false if there is nothing more to do for now.
    fn flush_batch(
        &mut self,
        now: Now,
        index: usize,
        (channel, flow): (ChannelId, FlowId),
        absent: &mut PerLane<bool>,
        wire: &mut dyn Wire,
        journal: &mut dyn RecordSource,
    ) -> bool {
        let uplink = &mut self.uplinks[index];
        let Some(Allowed { lane, first, count }) = uplink.sender.next(absent) else {
            if !absent.0.contains(&true) {
                uplink.company = Company::Nobody;
            }
            return false;
        };
        if uplink.yields(lane, absent) {
            return false;
        }
        let record_len_max = record_len_max(&self.router, flow);
        // With the longest reading beside it, the key would not fit everywhere.
        let shows_apart = record_len_max < PLAINTEXT_LEN_MAX && self.shows_key(now, index);
        if shows_apart {
            let shown = self.proving.shown().to_vec();
            self.send_frames_of(now, (channel, lane), &shown, wire);
        }
        let uplink = &mut self.uplinks[index];
        let mut links = Links {
            connection_of: &self.connection_of,
            carried: &mut self.carried,
            wire,
        };
        let Some(link) = self.router.link_of(flow) else {
            return false;
        };
        if links.queued_bytes(link) >= link_bytes_max(lane) {
            return false;
        }
        let Some(out) = links.buffer(link) else {
            return false;
        };
        let before = out.len();
        let Ok(mark) = self.router.begin(now.instant, flow, lane, out) else {
            return false;
        };
        let Ok(start) = self.channels.begin(channel, out) else {
            self.router.abandon(out, mark);
            return false;
        };
        let sealed = uplink.settings.verifiable && self.proving.is_usable(now.instant);
        let (writer, room) = if sealed {
            let shown = if uplink.key_seen || shows_apart {
                &[]
            } else {
                self.proving.shown()
            };
            out.extend_from_slice(shown);
            (
                BatchWriter::begin_sealed(out, lane, first),
                record_len_max - BatchWriter::OVERHEAD_SEALED - shown.len(),
            )
        } else {
            (
                BatchWriter::begin(out, lane, first),
                record_len_max - BatchWriter::OVERHEAD,
            )
        };
        match journal.copy_records(lane, first, room, count.min(u64::from(u16::MAX)), out) {
            Copied::Records(copied) => {
                let count = u16::try_from(copied).expect("no more were asked for");
                if sealed {
                    let journal = uplink.settings.lanes[lane].journal;
                    let readings = writer.readings(out);
                    let Some((key_tag, seal)) =
                        self.proving.seal(now.instant, journal, (first, copied), readings)
                    else {
                        self.router.abandon(out, mark);
                        return false;
                    };
                    writer.finish_sealed(out, count, key_tag, &seal);
                } else {
                    writer.finish(out, count);
                }
                if self.channels.finish(now.instant, channel, out, start).is_err() {
                    self.router.abandon(out, mark);
                    return false;
                }
                let bytes = out.len() - before;
                if self.router.finish(flow, out, mark).is_err() {
                    return false;
                }
                uplink.sender.handle_sent(now.instant, lane, copied, bytes);
                uplink.handle_present(lane);
                true
            }
            Copied::NotYet => {
                self.router.abandon(out, mark);
                absent[lane] = true;
                uplink.handle_absent(now.instant, lane);
                true
            }
            lost @ Copied::Lost { .. } => {
                self.router.abandon(out, mark);
                uplink.sender.handle_lost(now.instant, lane, lost);
                uplink.handle_present(lane);
                self.flush_frames(now, index, (channel, lane), wire);
                true
            }
        }
    }

    /// Returns whether the collector of an uplink has to be shown the key of the seals.
    fn shows_key(&self, now: Now, index: usize) -> bool {
        self.uplinks.get(index).is_some_and(|uplink| {
            uplink.settings.verifiable && !uplink.key_seen && self.proving.is_usable(now.instant)
        })
    }

    /// Returns what can be seen of the ways of an uplink, or of the inlets that lead to one node, and how often another was taken
    /// into use while the other end could be reached.
    #[must_use]
    pub fn paths(&self, now: Instant, owner: PathOwner) -> (Vec<PathView>, u64) {
        match owner {
            PathOwner::Uplink(index) => self.uplinks.get(index).map(|uplink| {
                let active = (uplink.attempts.way, uplink.state == UplinkState::Up);
                let views = uplink.failover.views(now, &uplink.settings.ways, active);
                (views, uplink.failover.switches())
            }),
            PathOwner::Inlet(index) => self.portals.paths(now, index),
        }
        .unwrap_or_default()
    }

    /// Returns what can be seen of each uplink, in the order of the settings.
    pub fn uplinks(&self) -> impl Iterator<Item = UplinkView> + '_ {
        self.uplinks.iter().map(|uplink| UplinkView {
            state: uplink.state,
            neighbour: uplink
                .settings
                .ways
                .get(uplink.attempts.way)
                .map_or(0, |way| way.neighbour),
            lanes: uplink.sender.lanes(),
        })
    }
}

/// Longest time that less urgent lanes wait for the disk of a more urgent one.
const YIELD_TIME_MAX: std::time::Duration = std::time::Duration::from_millis(250);
/// Readings that are company enough for a record to be sealed without waiting for more.
const COMPANY: u64 = 256;

/// Returns how much plaintext a record of a conversation can have: less where its link lies in channels.
fn record_len_max(router: &Router, flow: FlowId) -> usize {
    let room = router.payload_len_max(flow).unwrap_or(0);
    if room >= PLAINTEXT_LEN_MAX + RECORD_OVERHEAD_MAX {
        PLAINTEXT_LEN_MAX
    } else {
        PLAINTEXT_CARRIED_MAX
    }
}

/// Returns the bytes queued on a link from which on nothing more of a lane is sealed for it: what is sealed cannot be overtaken any
/// more. Alarms find some room behind what others may fill.
const fn link_bytes_max(lane: Class) -> usize {
    match lane {
        Class::Alarm => 256 << 10,
        Class::Normal | Class::Bulk => 192 << 10,
    }
}
