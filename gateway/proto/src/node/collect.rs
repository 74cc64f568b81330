//! The collector: gateways, the lanes of their journals, and how far each has come.

use std::collections::BTreeMap;

use super::{CollectSettings, Event, Node, ReadingSink, Use, Wire};
use crate::{
    channel::{ChannelId, CloseCode},
    delivery::{Arrival, JournalId, OFFER, Offer, Offered, PerLane, Receiver, ReceiverStats, Term, lane_of},
    identity::Identifier,
    link::Class,
    time::{Instant, Now},
};

/// A source within this node: one lane of one gateway's journal, numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceIndex(pub u32);

/// Whose journal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// Its number.
    pub index: SourceIndex,
    /// Whose readings.
    pub gateway: Identifier,
    /// Of which class.
    pub lane: Class,
    /// Which of the gateway's journals.
    pub journal: JournalId,
    /// Index of the neighbour its channel comes by; `None` if the gateway dialled this node.
    pub neighbour: Option<usize>,
}

/// What can be seen of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceView {
    /// Whose journal.
    pub info: SourceInfo,
    /// Whether a channel is up, and it was offered there.
    pub connected: bool,
    /// Highest sequence received in order.
    pub received: u64,
    /// Highest sequence every sink confirmed.
    pub committed: u64,
    /// What is not as it should be.
    pub trouble: Option<Trouble>,
    /// Counters.
    pub stats: ReceiverStats,
}

/// A position that does not fit what the other side says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The gateway's journal is older than what was received of it: its disk was set back. It sends nothing.
    GatewaySetBack,
    /// This collector had confirmed more than it knew of when the gateway offered: it was set back. What the gateway still had
    /// came again.
    Forgotten {
        /// What it had confirmed.
        confirmed: u64,
        /// What it knew of.
        received: u64,
    },
}

/// One lane of a journal.
#[derive(Debug)]
struct Source {
    info: SourceInfo,
    /// Its gateway's place.
    gateway: usize,
    receiver: Receiver,
    trouble: Option<Trouble>,
}

/// A gateway and its channel.
#[derive(Debug)]
struct Gateway {
    /// The channel it delivers in.
    channel: Option<InUse>,
    /// All of its channels, with their order among all: it may keep one in reserve.
    channels: Vec<(ChannelId, u64)>,
    /// What was offered in it.
    lanes: PerLane<Option<SourceIndex>>,
    /// Journals of it that are known.
    sources: u32,
}

/// A channel in which a gateway delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InUse {
    channel: ChannelId,
    order: u64,
    term: Term,
}

impl InUse {
    /// Returns whether what is offered in `other` counts. Of one run of the gateway the terms say so; of another, which channel was
    /// established later.
    fn yields_to(&self, other: &Self) -> bool {
        if self.term.run != other.term.run {
            return other.order > self.order;
        }
        other.term.number > self.term.number
            || (other.term.number == self.term.number && other.channel == self.channel)
    }
}

#[derive(Debug)]
pub(super) struct Collector {
    settings: CollectSettings,
    sources: Vec<Source>,
    gateways: Vec<Gateway>,
    by_gateway: BTreeMap<Identifier, usize>,
    by_journal: BTreeMap<(Identifier, JournalId), SourceIndex>,
    /// Sources with frames to write, so that a turn costs nothing for the others.
    pending: Vec<SourceIndex>,
    /// What the sinks said last.
    accepting: PerLane<bool>,
    /// Channels of gateways established so far.
    admitted: u64,
}

impl Collector {
    pub(super) const fn new(settings: CollectSettings) -> Self {
        Self {
            settings,
            sources: Vec::new(),
            gateways: Vec::new(),
            by_gateway: BTreeMap::new(),
            by_journal: BTreeMap::new(),
            pending: Vec::new(),
            accepting: PerLane([true; 3]),
            admitted: 0,
        }
    }

    /// Returns whether the settings name `gateway`.
    pub(super) fn is_listed(&self, gateway: &Identifier) -> bool {
        self.settings.gateways.contains(gateway)
    }

    /// Admits a channel of a gateway. Returns its gateway's place, its order among all, and a channel that has to go for it.
    pub(super) fn admit(
        &mut self,
        channel: ChannelId,
        peer: Identifier,
    ) -> (Option<usize>, u64, Option<ChannelId>) {
        self.admitted += 1;
        let gateway = self.gateway(peer);
        let before = self.gateways.get_mut(gateway).and_then(|entry| {
            entry.channels.push((channel, self.admitted));
            if entry.channels.len() <= CHANNELS_PER_GATEWAY_MAX {
                return None;
            }
            let in_use = entry.channel.map(|in_use| in_use.channel);
            let oldest = entry
                .channels
                .iter()
                .position(|(other, _)| Some(*other) != in_use)?;
            Some(entry.channels.remove(oldest).0)
        });
        (Some(gateway), self.admitted, before)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.sources
            .iter()
            .filter_map(|source| source.receiver.poll_timeout())
            .min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for source in &mut self.sources {
            source.receiver.handle_timeout(now);
            if source.receiver.has_frames() {
                self.pending.push(source.info.index);
            }
        }
    }

    fn source_mut(&mut self, index: SourceIndex) -> Option<&mut Source> {
        self.sources.get_mut(index.0 as usize)
    }

    /// Returns the channel that a source is delivered in.
    fn channel_of(&self, source: &Source) -> Option<ChannelId> {
        let gateway = self.gateways.get(source.gateway)?;
        let channel = gateway.channel?.channel;
        (gateway.lanes[source.info.lane] == Some(source.info.index)).then_some(channel)
    }

    /// Returns a gateway's place, making it one if it is new.
    fn gateway(&mut self, identifier: Identifier) -> usize {
        *self.by_gateway.entry(identifier).or_insert_with(|| {
            self.gateways.push(Gateway {
                channel: None,
                channels: Vec::new(),
                lanes: PerLane::default(),
                sources: 0,
            });
            self.gateways.len() - 1
        })
    }

    /// Returns the source of a lane, making it if it is new; `None` if there are too many, or the journal is another lane's.
    fn open(&mut self, gateway: usize, identifier: Identifier, offer: &Offer) -> Option<(SourceIndex, bool)> {
        let key = (identifier, offer.journal);
        if let Some(index) = self.by_journal.get(&key).copied() {
            let source = self.source_mut(index)?;
            return (source.info.lane == offer.lane).then_some((index, false));
        }
        let count = u32::try_from(self.sources.len()).ok()?;
        let of_gateway = self.gateways.get_mut(gateway)?;
        if count >= SOURCES_MAX || of_gateway.sources >= SOURCES_PER_GATEWAY_MAX {
            return None;
        }
        of_gateway.sources += 1;
        let index = SourceIndex(count);
        let committed = self.settings.positions.get(&key).copied().unwrap_or(0);
        let mut receiver = Receiver::new(self.settings.receiver, offer.lane, offer.journal, committed);
        receiver.set_accepting(self.accepting[offer.lane]);
        self.sources.push(Source {
            info: SourceInfo {
                index,
                gateway: identifier,
                lane: offer.lane,
                journal: offer.journal,
                neighbour: None,
            },
            gateway,
            receiver,
            trouble: None,
        });
        self.by_journal.insert(key, index);
        Some((index, true))
    }

    /// Gives a gateway's lanes to a channel that counts more than the one in use. Returns whether that is news, and the channels
    /// that an earlier run of the gateway has left behind.
    fn take_over(&mut self, gateway: usize, channel: InUse) -> (bool, Vec<ChannelId>) {
        let Some(entry) = self.gateways.get_mut(gateway) else {
            return (false, Vec::new());
        };
        let before = entry.channel.replace(channel);
        if before == Some(channel) {
            return (false, Vec::new());
        }
        let mut left = Vec::new();
        if before.is_some_and(|before| before.term.run != channel.term.run) {
            entry.channels.retain(|(other, order)| {
                let stays = *order >= channel.order;
                if !stays {
                    left.push(*other);
                }
                stays
            });
        }
        self.close_lanes(gateway);
        (true, left)
    }

    /// Notes that nothing of a gateway is offered any more.
    fn close_lanes(&mut self, gateway: usize) {
        let Some(entry) = self.gateways.get_mut(gateway) else {
            return;
        };
        let lanes = std::mem::take(&mut entry.lanes);
        for index in lanes.0.into_iter().flatten() {
            if let Some(source) = self.source_mut(index) {
                source.receiver.handle_down();
            }
        }
    }
}

impl Node {
    /// Takes the word of every sink that everything of a source up to `up_to` is safe.
    pub fn handle_sinks_committed(&mut self, source: SourceIndex, up_to: u64) {
        let Some(collector) = &mut self.collector else {
            return;
        };
        let Some(entry) = collector.source_mut(source) else {
            return;
        };
        entry.receiver.handle_committed(up_to);
        if entry.receiver.has_frames() {
            collector.pending.push(source);
        }
    }

    /// Says whether the sinks take more of a lane at the moment. Closed, no gateway gets new credit for it.
    pub fn set_sinks_accepting(&mut self, lane: Class, accepting: bool) {
        let Some(collector) = &mut self.collector else {
            return;
        };
        if std::mem::replace(&mut collector.accepting[lane], accepting) == accepting {
            return;
        }
        let sources = &mut collector.sources;
        for source in sources.iter_mut().filter(|source| source.info.lane == lane) {
            source.receiver.set_accepting(accepting);
            if source.receiver.has_frames() {
                collector.pending.push(source.info.index);
            }
        }
    }

    /// Takes a frame of a gateway; false if it is bad.
    pub(super) fn gateway_frame(
        &mut self,
        now: Now,
        channel: ChannelId,
        (gateway, order): (Option<usize>, u64),
        (kind, body): (u8, &[u8]),
        sink: &mut dyn ReadingSink,
    ) -> bool {
        if kind == OFFER {
            return self.gateway_offer(now, (channel, order), body);
        }
        let Some(collector) = &mut self.collector else {
            return false;
        };
        let Some(entry) = gateway.and_then(|gateway| collector.gateways.get(gateway)) else {
            return false;
        };
        if entry.channel.is_none_or(|in_use| in_use.channel != channel) {
            // The gateway has another channel in use; this one's readings come again there.
            return true;
        }
        let index = lane_of(body).ok().and_then(|lane| entry.lanes[lane]);
        let Some(source) = index.and_then(|index| collector.source_mut(index)) else {
            return false;
        };
        let info = source.info;
        let mut told = None;
        let taken = source
            .receiver
            .handle_frame(now.instant, kind, body, |arrival| match arrival {
                Arrival::Readings(batch) => sink.accept(&info, batch),
                Arrival::Gap(lost) => {
                    let taken = sink.gap(&info, &lost);
                    told = taken.then_some(lost);
                    taken
                }
            })
            .is_ok();
        if source.receiver.has_frames() {
            collector.pending.push(info.index);
        }
        if let Some(lost) = told {
            self.event(Event::ReadingsLost {
                source: info.index,
                lost,
            });
        }
        taken
    }

    fn gateway_offer(&mut self, now: Now, (channel, order): (ChannelId, u64), body: &[u8]) -> bool {
        let Some(peer) = self.channels.peer(channel) else {
            return false;
        };
        let neighbour = self.neighbour_of(channel);
        let Some(collector) = &mut self.collector else {
            return false;
        };
        let Ok(offer) = Offer::decode(body) else {
            return false;
        };
        let gateway = collector.gateway(peer);
        let in_use = collector.gateways.get(gateway).and_then(|entry| entry.channel);
        let offered_in = InUse {
            channel,
            order,
            term: offer.term,
        };
        if in_use.is_some_and(|in_use| !in_use.yields_to(&offered_in)) {
            // What was on its way in a channel that the gateway has left; the one it took since stays in use.
            return true;
        }
        let Some((index, new)) = collector.open(gateway, peer, &offer) else {
            return false;
        };
        let (is_news, left) = collector.take_over(gateway, offered_in);
        if let Some(entry) = collector.gateways.get_mut(gateway) {
            let other = entry.lanes[offer.lane]
                .replace(index)
                .filter(|other| *other != index);
            if let Some(other) = other.and_then(|other| collector.source_mut(other)) {
                other.receiver.handle_down();
            }
        }
        let Some(source) = collector.source_mut(index) else {
            return false;
        };
        source.info.neighbour = neighbour;
        let offered = source.receiver.handle_offer(&offer);
        let event = match offered {
            Ok(Offered::SetBack) => {
                source.trouble = Some(Trouble::GatewaySetBack);
                Some(Event::SourceSetBack { source: index })
            }
            // It is so in every channel until it has caught up, and told once.
            Ok(Offered::Forgotten { confirmed, received })
                if !matches!(source.trouble, Some(Trouble::Forgotten { .. })) =>
            {
                source.trouble = Some(Trouble::Forgotten { confirmed, received });
                Some(Event::Forgotten {
                    source: index,
                    confirmed,
                    received,
                })
            }
            Ok(Offered::Continues | Offered::Forgotten { .. }) | Err(_) => None,
        };
        collector.pending.push(index);
        self.set_use(
            channel,
            Use::Gateway {
                gateway: Some(gateway),
                order,
            },
        );
        if is_news {
            self.note_gateway(now, channel);
        }
        for before in left {
            // The gateway was restarted: it could not say any more that it closed this one.
            self.close_channel(before, CloseCode::REPLACED);
        }
        if new {
            self.event(Event::SourceOpened { source: index });
        }
        if let Some(event) = event {
            self.event(event);
        }
        offered.is_ok()
    }

    /// Notes that a gateway's channel is gone.
    pub(super) fn gateway_closed(&mut self, channel: ChannelId, gateway: usize) {
        let Some(collector) = &mut self.collector else {
            return;
        };
        let Some(entry) = collector.gateways.get_mut(gateway) else {
            return;
        };
        entry.channels.retain(|(other, _)| *other != channel);
        if entry.channel.is_some_and(|in_use| in_use.channel == channel) {
            entry.channel = None;
            collector.close_lanes(gateway);
        }
    }

    /// Seals acknowledgements that wait, each in the class of its lane.
    pub(super) fn flush_sources(&mut self, now: Now, wire: &mut dyn Wire) {
        while let Some((index, collector)) = self
            .collector
            .as_mut()
            .and_then(|collector| Some((collector.pending.pop()?, collector)))
        {
            let source = collector.sources.get(index.0 as usize);
            let channel = source.and_then(|source| collector.channel_of(source));
            let (Some(channel), Some(source)) = (channel, collector.source_mut(index)) else {
                continue;
            };
            if !source.receiver.has_frames() {
                continue;
            }
            let lane = source.info.lane;
            let mut frames = std::mem::take(&mut self.scratch);
            frames.clear();
            source.receiver.write_frames(&mut frames);
            self.send_frames_of(now, (channel, lane), &frames, wire);
            self.scratch = frames;
        }
    }

    /// Returns what can be seen of each source.
    pub fn sources(&self) -> impl Iterator<Item = SourceView> + '_ {
        self.collector.iter().flat_map(|collector| {
            collector.sources.iter().map(|source| SourceView {
                info: source.info,
                connected: collector.channel_of(source).is_some(),
                received: source.receiver.received(),
                committed: source.receiver.committed(),
                trouble: source.trouble,
                stats: source.receiver.stats(),
            })
        })
    }
}

/// Sources that a collector knows at the same time: a gateway has three, some more if its disk was replaced.
const SOURCES_MAX: u32 = 3 * 65_536;
/// Channels of one gateway: the one in use, one in reserve, and some that it has lost and could not close.
const CHANNELS_PER_GATEWAY_MAX: usize = 4;
/// Journals of one gateway that are known at the same time.
const SOURCES_PER_GATEWAY_MAX: u32 = 96;
