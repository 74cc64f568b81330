//! The collector: gateways' journals and how far each has come.

use std::collections::BTreeMap;

use super::{CollectSettings, Event, Node, ReadingSink, Use, Wire};
use crate::{
    channel::{ChannelId, CloseCode},
    delivery::{JournalId, OFFER, Offer, Offered, Receiver, ReceiverStats},
    identity::Identifier,
    time::{Instant, Now},
};

/// A source within this node: one journal of one gateway, numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceIndex(pub u32);

/// Whose journal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// Its number.
    pub index: SourceIndex,
    /// Whose readings.
    pub gateway: Identifier,
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
    /// Whether a channel is up.
    pub connected: bool,
    /// Highest sequence received in order.
    pub received: u64,
    /// Highest sequence every sink confirmed.
    pub committed: u64,
    /// Counters.
    pub stats: ReceiverStats,
}

/// One journal and its channel.
#[derive(Debug)]
struct Source {
    info: SourceInfo,
    receiver: Receiver,
    /// The channel it is delivered in, with its order among all.
    channel: Option<(ChannelId, u64)>,
}

#[derive(Debug)]
pub(super) struct Collector {
    settings: CollectSettings,
    sources: Vec<Source>,
    by_journal: BTreeMap<(Identifier, JournalId), SourceIndex>,
    /// Sources with frames to write, so that a turn costs nothing for the others.
    pending: Vec<SourceIndex>,
    /// Channels of gateways established so far.
    admitted: u64,
}

impl Collector {
    pub(super) const fn new(settings: CollectSettings) -> Self {
        Self {
            settings,
            sources: Vec::new(),
            by_journal: BTreeMap::new(),
            pending: Vec::new(),
            admitted: 0,
        }
    }

    /// Returns whether the settings name `gateway`.
    pub(super) fn is_listed(&self, gateway: &Identifier) -> bool {
        self.settings.gateways.contains(gateway)
    }

    /// Admits a channel of a gateway, and returns its order among all.
    pub(super) const fn admit(&mut self) -> u64 {
        self.admitted += 1;
        self.admitted
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

    /// Returns the source of a journal, making it if it is new; `None` if there are too many.
    fn open(
        &mut self,
        gateway: Identifier,
        journal: JournalId,
        neighbour: Option<usize>,
    ) -> Option<(SourceIndex, bool)> {
        if let Some(index) = self.by_journal.get(&(gateway, journal)) {
            return Some((*index, false));
        }
        let index = SourceIndex(
            u32::try_from(self.sources.len())
                .ok()
                .filter(|len| *len < SOURCES_MAX)?,
        );
        let committed = self
            .settings
            .positions
            .get(&(gateway, journal))
            .copied()
            .unwrap_or(0);
        let receiver = Receiver::new(self.settings.receiver, journal, committed);
        let info = SourceInfo {
            index,
            gateway,
            journal,
            neighbour,
        };
        self.sources.push(Source {
            info,
            receiver,
            channel: None,
        });
        self.by_journal.insert((gateway, journal), index);
        Some((index, true))
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

    /// Takes the word of the sinks that nothing handed to them is unconfirmed: sequences that were lost behind the last
    /// reading are settled with it.
    pub fn handle_sinks_idle(&mut self) {
        let Some(collector) = &mut self.collector else {
            return;
        };
        for source in &mut collector.sources {
            source.receiver.handle_all_committed();
            if source.receiver.has_frames() {
                collector.pending.push(source.info.index);
            }
        }
    }

    /// Says whether the sinks take more at the moment. Closed, no gateway gets new credit.
    pub fn set_sinks_accepting(&mut self, accepting: bool) {
        let Some(collector) = &mut self.collector else {
            return;
        };
        for source in &mut collector.sources {
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
        (source, order): (Option<SourceIndex>, u64),
        (kind, body): (u8, &[u8]),
        sink: &mut dyn ReadingSink,
    ) -> bool {
        if kind == OFFER {
            return self.gateway_offer(channel, order, body);
        }
        let Some(collector) = &mut self.collector else {
            return false;
        };
        let Some(index) = source else { return false };
        let Some(entry) = collector.source_mut(index) else {
            return false;
        };
        if entry.channel != Some((channel, order)) {
            // The gateway has opened another channel since; this one's readings come again there.
            return true;
        }
        let info = entry.info;
        let taken = entry
            .receiver
            .handle_frame(now.instant, kind, body, |batch| sink.accept(&info, batch))
            .is_ok();
        if entry.receiver.has_frames() {
            collector.pending.push(index);
        }
        taken
    }

    fn gateway_offer(&mut self, channel: ChannelId, order: u64, body: &[u8]) -> bool {
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
        let Some((index, new)) = collector.open(peer, offer.journal, neighbour) else {
            return false;
        };
        let Some(source) = collector.source_mut(index) else {
            return false;
        };
        let before = source.channel.filter(|(before, _)| *before != channel);
        if before.is_some_and(|(_, before)| before > order) {
            // What was on its way in a channel that the gateway has given up; the one it opened since stays in use.
            return true;
        }
        if before.is_some() {
            source.receiver.handle_down();
        }
        source.info.neighbour = neighbour;
        source.channel = Some((channel, order));
        let offered = source.receiver.handle_offer(&offer);
        collector.pending.push(index);
        if let Some(entry) = self.by_channel.get_mut(&channel) {
            entry.used_for = Use::Gateway {
                source: Some(index),
                order,
            };
        }
        if let Some((before, _)) = before {
            // The gateway has one channel only: it could not say any more that it closed this one.
            self.close_channel(before, CloseCode::REPLACED);
        }
        if new {
            self.event(Event::SourceOpened { source: index });
        }
        match offered {
            Ok(Offered::Continues) => true,
            Ok(Offered::Missing { first, last }) => {
                self.event(Event::ReadingsMissing {
                    source: index,
                    first,
                    last,
                });
                true
            }
            Ok(Offered::SetBack) => {
                self.event(Event::SourceSetBack { source: index });
                true
            }
            Err(_) => false,
        }
    }

    /// Notes that a gateway's channel is gone.
    pub(super) fn gateway_closed(&mut self, channel: ChannelId, source: SourceIndex) {
        let Some(entry) = self
            .collector
            .as_mut()
            .and_then(|collector| collector.source_mut(source))
        else {
            return;
        };
        if entry.channel.is_some_and(|(current, _)| current == channel) {
            entry.channel = None;
            entry.receiver.handle_down();
        }
    }

    /// Seals acknowledgements that wait.
    pub(super) fn flush_sources(&mut self, now: Now, wire: &mut dyn Wire) {
        while let Some((index, collector)) = self
            .collector
            .as_mut()
            .and_then(|collector| Some((collector.pending.pop()?, collector)))
        {
            let Some(source) = collector.source_mut(index) else {
                continue;
            };
            let Some((channel, _)) = source.channel else {
                continue;
            };
            if !source.receiver.has_frames() {
                continue;
            }
            let mut frames = std::mem::take(&mut self.scratch);
            frames.clear();
            source.receiver.write_frames(&mut frames);
            self.send_frames(now, channel, &frames, wire);
            self.scratch = frames;
        }
    }

    /// Returns what can be seen of each source.
    pub fn sources(&self) -> impl Iterator<Item = SourceView> + '_ {
        self.collector
            .iter()
            .flat_map(|collector| &collector.sources)
            .map(|source| SourceView {
                info: source.info,
                connected: source.channel.is_some(),
                received: source.receiver.received(),
                committed: source.receiver.committed(),
                stats: source.receiver.stats(),
            })
    }
}

/// Journals that a collector knows at the same time: a gateway has one, a few if its disk was replaced.
const SOURCES_MAX: u32 = 65_536;
