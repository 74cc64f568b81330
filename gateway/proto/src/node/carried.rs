//! Links inside channels: a relay behind another is authenticated by whoever uses it, and the one before sees nothing but where the
//! channel leads (PROTOCOL.md §3.6).
//!
//! ```text
//!  gateway ══ link ══ relay a ══ link ══ relay b ══ link ══ collector
//!     ╚═══════ channel that carries a link ═══╝                ║       the link in it is one as any other: Hello, registrar, labels
//!     ╚═══════════════ channel over that link ═════════════════╝
//! ```
//!
//! Records may be lost on the way, and with them whole frames, as on a congested link. Only Hello must arrive: who opened the
//! channel repeats it until the other's comes, which answers each.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    ConnectionKey, Links, NeighbourState, Node, Output, ReadingSink, Use, Wire, connection::Connection,
    settings::LINK,
};
use crate::{
    channel::{ChannelId, CloseCode, PLAINTEXT_LEN_MAX, RECORD_OVERHEAD_MAX, begin_frame, finish_frame},
    entropy::Entropy,
    link::{Class, FRAME_HEADER_LEN, Link, LinkSettings},
    route::{Address, FlowId, LinkWriter as _, Route},
    time::{Instant, Now},
};

/// Frames of a link, whole, one after the other.
pub(super) const LINK_FRAMES: u8 = 0x50;

/// Links inside each other: as many relays behind the first one can be authenticated.
pub const CARRIED_DEPTH_MAX: u8 = 3;

/// One link that lies in a channel.
#[derive(Debug)]
pub(super) struct Carried {
    channel: ChannelId,
    flow: FlowId,
    /// The caller's connection that all of it goes over in the end.
    below: ConnectionKey,
    /// Links that lie in one another, this one included.
    depth: u8,
    /// This side's Hello, as it stands on a link.
    hello: Vec<u8>,
    /// The other side's Hello came.
    is_greeted: bool,
    /// When Hello is said again; `None` at the side that answers, and once it was answered.
    hello_at: Option<Instant>,
    /// Frames that wait to be sealed.
    out: Vec<u8>,
}

/// The links of this node that lie in channels.
///
/// Invariant: every link of `by_key` is in `by_channel` by its channel.
#[derive(Debug, Default)]
pub(super) struct CarriedLinks {
    by_key: BTreeMap<ConnectionKey, Carried>,
    by_channel: BTreeMap<ChannelId, ConnectionKey>,
    last: u64,
    /// Links to which something was written since the last flush.
    dirty: BTreeSet<ConnectionKey>,
}

impl CarriedLinks {
    /// Returns whether the connection is one of these. The caller's numbers are smaller.
    pub(super) const fn is_one(key: ConnectionKey) -> bool {
        key.0 & MARK != 0
    }

    /// Returns the buffer to which frames for a link are appended.
    pub(super) fn buffer(&mut self, key: ConnectionKey) -> Option<&mut Vec<u8>> {
        let carried = self.by_key.get_mut(&key)?;
        self.dirty.insert(key);
        Some(&mut carried.out)
    }

    /// Returns how many bytes wait, those of the connection below included.
    pub(super) fn queued_bytes(&self, key: ConnectionKey, wire: &dyn Wire) -> usize {
        self.by_key.get(&key).map_or(0, |carried| {
            carried.out.len().saturating_add(wire.queued_bytes(carried.below))
        })
    }

    /// Returns the caller's connection that a link goes over.
    pub(super) fn below(&self, key: ConnectionKey) -> Option<ConnectionKey> {
        self.by_key.get(&key).map(|carried| carried.below)
    }

    fn remove(&mut self, key: ConnectionKey) -> Option<ChannelId> {
        self.dirty.remove(&key);
        let carried = self.by_key.remove(&key)?;
        self.by_channel.remove(&carried.channel);
        Some(carried.channel)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.by_key.values().filter_map(|carried| carried.hello_at).min()
    }
}

/// A buffer of a connection, of the caller's or of a link in a channel.
pub(super) fn buffer<'b>(
    carried: &'b mut CarriedLinks,
    wire: &'b mut dyn Wire,
    key: ConnectionKey,
) -> Option<&'b mut Vec<u8>> {
    if CarriedLinks::is_one(key) {
        carried.buffer(key)
    } else {
        wire.buffer(key)
    }
}

impl Node {
    /// Opens the channel that a neighbour's link lies in, if the way there is ready.
    pub(super) fn dial_carried(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        index: usize,
        wire: &mut dyn Wire,
    ) {
        let neighbour = &self.neighbours[index];
        let (Some(way), Some(relay)) = (neighbour.over.clone(), neighbour.relay) else {
            return;
        };
        let used_for = Use::Carrier {
            neighbour: Some(index),
        };
        let whom = (relay, neighbour.pq, used_for);
        let names = way.names.iter().map(|name| Address::Name(name));
        let route = Route::new(names.chain([Address::Service(LINK)]))
            .expect("checked names and a service make a route");
        let opened = self
            .ready_link(way.neighbour)
            .and_then(|link| self.open_channel(now, entropy, (link, &route), whom, wire));
        let neighbour = &mut self.neighbours[index];
        match opened {
            Some((channel, _)) => {
                neighbour.state = NeighbourState::Dialling;
                neighbour.carrier = Some(channel);
            }
            // Whoever is ready wakes those that wait for it.
            None => {
                neighbour.state = NeighbourState::Down {
                    retry_at: now.instant + WAIT_FOR_WAY,
                }
            }
        }
    }

    /// Has neighbours tried now whose links lie in channels.
    pub(super) fn wake_carried(&mut self, now: Now) {
        for neighbour in &mut self.neighbours {
            if let (Some(_), NeighbourState::Down { retry_at }) = (&neighbour.over, &mut neighbour.state) {
                *retry_at = (*retry_at).min(now.instant);
            }
        }
    }

    /// A channel for a link is up, and both sides may: the link begins. False if it lies in too many others.
    pub(super) fn carrier_established(
        &mut self,
        now: Now,
        channel: ChannelId,
        neighbour: Option<usize>,
        wire: &mut dyn Wire,
    ) -> bool {
        let Some(flow) = self.by_channel.get(&channel).map(|entry| entry.flow) else {
            return false;
        };
        let link = self.router.link_of(flow);
        let Some(on) = link.and_then(|link| *self.connection_of.get(link.index())?) else {
            return false;
        };
        let (below, depth) = match self.carried.by_key.get(&on) {
            Some(outer) => (outer.below, outer.depth.saturating_add(1)),
            None => (on, 1),
        };
        // Records inside are padded where that is wanted; padded again they would not fit.
        if depth > CARRIED_DEPTH_MAX || self.channels.stop_padding(channel).is_err() {
            return false;
        }
        let settings = LinkSettings {
            frame_len_max: frame_len_max(depth),
            ..self.link_settings.clone()
        };
        let mut hello = Vec::new();
        let link = Link::new(now.instant, &settings, &mut hello);
        self.carried.last = self.carried.last.saturating_add(1);
        let key = ConnectionKey(MARK | self.carried.last);
        let carried = Carried {
            channel,
            flow,
            below,
            depth,
            hello,
            is_greeted: false,
            hello_at: neighbour.map(|_| now.instant + HELLO_EVERY),
            out: Vec::new(),
        };
        self.carried.by_key.insert(key, carried);
        self.carried.by_channel.insert(channel, key);
        self.connections.insert(
            key,
            Box::new(Connection {
                link: Some(link),
                id: None,
                neighbour,
                address: None,
            }),
        );
        match neighbour {
            Some(neighbour) => {
                self.neighbours[neighbour].state = NeighbourState::Greeting { connection: key };
                self.say_hello(now, key, wire);
            }
            None => self.set_use(channel, Use::Carrier { neighbour: None }),
        }
        true
    }

    /// The channel that carried a link is gone.
    pub(super) fn carrier_closed(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        channel: ChannelId,
        neighbour: Option<usize>,
        wire: &mut dyn Wire,
    ) {
        if let Some(key) = self.carried.by_channel.get(&channel).copied() {
            self.carried.remove(key);
            self.forget_connection(now, entropy, key, wire);
        } else if let Some(neighbour) = neighbour.and_then(|index| self.neighbours.get_mut(index))
            && neighbour.carrier == Some(channel)
        {
            neighbour.handle_failure(now.instant, entropy);
        }
    }

    /// Closes a connection that was forgotten: the caller's, or the channel that one lies in.
    pub(super) fn close_connection(&mut self, connection: ConnectionKey) {
        if !CarriedLinks::is_one(connection) {
            self.outputs.push_back(Output::CloseConnection { connection });
        } else if let Some(channel) = self.carried.remove(connection) {
            self.close_channel(channel, CloseCode::DONE);
        }
    }

    /// Takes frames of a link that lies in a channel; false if they are malformed.
    pub(super) fn carrier_frame(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        channel: ChannelId,
        (kind, body): (u8, &[u8]),
        wire: &mut dyn Wire,
        sink: &mut dyn ReadingSink,
    ) -> bool {
        if kind != LINK_FRAMES {
            return false;
        }
        let Some(key) = self.carried.by_channel.get(&channel).copied() else {
            return true;
        };
        // Records inside are opened in place, and what is here is borrowed from the one around them.
        let mut frames = Vec::with_capacity(body.len());
        let mut rest = body;
        let mut says_hello = false;
        while !rest.is_empty() {
            let Some((frame, later)) = split_frame(rest) else {
                return false;
            };
            rest = later;
            let Some(carried) = self.carried.by_key.get_mut(&key) else {
                return true;
            };
            if kind_of(frame) == Some(HELLO) {
                says_hello = true;
                if std::mem::replace(&mut carried.is_greeted, true) {
                    continue;
                }
                carried.hello_at = None;
            } else if !carried.is_greeted {
                // It overtook the Hello before it.
                continue;
            }
            frames.extend_from_slice(frame);
        }
        let answers = self
            .connections
            .get(&key)
            .is_some_and(|connection| connection.neighbour.is_none());
        if says_hello && answers {
            self.say_hello(now, key, wire);
        }
        self.handle_bytes(now, entropy, key, &mut frames, wire, sink);
        true
    }

    /// Says Hello again where it was not answered.
    pub(super) fn time_out_carried(&mut self, now: Now, wire: &mut dyn Wire) {
        let mut due = Vec::new();
        for (key, carried) in &mut self.carried.by_key {
            if let Some(at) = carried.hello_at.as_mut().filter(|at| now.instant >= **at) {
                *at = now.instant + HELLO_EVERY;
                due.push(*key);
            }
        }
        for key in due {
            self.say_hello(now, key, wire);
        }
    }

    fn say_hello(&mut self, now: Now, key: ConnectionKey, wire: &mut dyn Wire) {
        let Some(carried) = self.carried.by_key.get_mut(&key) else {
            return;
        };
        let hello = std::mem::take(&mut carried.hello);
        let to = (carried.channel, carried.flow);
        self.seal_frames(now, to, Class::Normal, &hello, wire);
        if let Some(carried) = self.carried.by_key.get_mut(&key) {
            carried.hello = hello;
        }
    }

    /// Seals what waits on links inside channels, the innermost first, as far as the connections below take it.
    pub(super) fn flush_carried(&mut self, now: Now, wire: &mut dyn Wire) {
        // A link is younger than the one it lies in.
        while let Some(key) = self.carried.dirty.pop_last() {
            let Some(carried) = self.carried.by_key.get_mut(&key).filter(|one| one.is_greeted) else {
                continue;
            };
            let (channel, flow, below) = (carried.channel, carried.flow, carried.below);
            let mut frames = std::mem::take(&mut carried.out);
            let mut sealed = 0;
            while let Some((class, piece)) = frames
                .get(sealed..)
                .and_then(|rest| next_piece(rest, self.frames_len_max(flow)))
            {
                if wire.queued_bytes(below) >= BELOW_BYTES_MAX {
                    break;
                }
                let end = sealed.saturating_add(piece);
                let bytes = frames.get(sealed..end).unwrap_or_default();
                self.seal_frames(now, (channel, flow), class, bytes, wire);
                sealed = end;
            }
            frames.drain(..sealed);
            if let Some(carried) = self.carried.by_key.get_mut(&key) {
                carried.out = frames;
            }
        }
        let waiting = self.carried.by_key.iter();
        let waiting = waiting.filter(|(_, one)| one.is_greeted && !one.out.is_empty());
        self.carried.dirty = waiting.map(|(key, _)| *key).collect();
    }

    /// Bytes of frames that fit into a record of a flow.
    fn frames_len_max(&self, flow: FlowId) -> usize {
        let room = self.router.payload_len_max(flow).unwrap_or(0);
        room.saturating_sub(RECORD_OVERHEAD_MAX)
            .min(PLAINTEXT_LEN_MAX)
            .saturating_sub(CHANNEL_FRAME_HEAD_LEN)
    }

    /// Seals frames of a link as one record of the channel that it lies in.
    fn seal_frames(
        &mut self,
        now: Now,
        (channel, flow): (ChannelId, FlowId),
        class: Class,
        frames: &[u8],
        wire: &mut dyn Wire,
    ) {
        // What does not fit is lost, as on a link that is congested; nobody who keeps to Hello sends it.
        if frames.len() > self.frames_len_max(flow) {
            return;
        }
        let Some(link) = self.router.link_of(flow) else {
            return;
        };
        let mut links = Links {
            connection_of: &self.connection_of,
            carried: &mut self.carried,
            wire,
        };
        let Some(out) = links.buffer(link) else { return };
        let Ok(mark) = self.router.begin(now.instant, flow, class, out) else {
            return;
        };
        let sealed = self.channels.begin(channel, out).and_then(|start| {
            let head = begin_frame(out, LINK_FRAMES);
            out.extend_from_slice(frames);
            finish_frame(out, head);
            self.channels.finish(now.instant, channel, out, start)
        });
        match sealed {
            Ok(()) => drop(self.router.finish(flow, out, mark)),
            Err(_) => self.router.abandon(out, mark),
        }
    }
}

/// Largest frame, by its body, of a link that lies in so many channels: a record around it has room for 65,536 bytes.
fn frame_len_max(depth: u8) -> usize {
    let overhead = usize::from(depth).saturating_mul(PER_DEPTH);
    PLAINTEXT_LEN_MAX.saturating_sub(overhead)
}

/// Takes the first frame of a link off, head included; `None` if it is cut off.
fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let [a, b, c, ..] = bytes else { return None };
    let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).ok()?;
    bytes.split_at_checked(length.checked_add(FRAME_HEADER_LEN)?)
}

fn kind_of(frame: &[u8]) -> Option<u8> {
    frame.get(3).copied()
}

/// Returns the class of the first frames and how many bytes of them, all of that class, go into one record.
fn next_piece(frames: &[u8], len_max: usize) -> Option<(Class, usize)> {
    let mut class = None;
    let mut taken = 0_usize;
    let mut rest = frames;
    while let Some((frame, later)) = split_frame(rest) {
        let of = class_of(kind_of(frame)?);
        let longer = taken.saturating_add(frame.len());
        if taken > 0 && (longer > len_max || class != Some(of)) {
            break;
        }
        class = Some(of);
        taken = longer;
        rest = later;
    }
    Some((class?, taken))
}

/// The class of a link's frame by its kind; what links say to each other goes before readings.
fn class_of(kind: u8) -> Class {
    match kind >> 4 {
        0 => Class::Alarm,
        _ => Class::from_bits(kind & 0x0f).unwrap_or(Class::Normal),
    }
}

/// Marks the numbers of connections that are links in channels.
const MARK: u64 = 1 << 63;
/// Kind of Hello on a link (PROTOCOL.md §3.1).
const HELLO: u8 = 0x01;
/// Between two Hellos.
const HELLO_EVERY: Duration = Duration::from_secs(1);
/// How long a neighbour waits for the way to it, unless it is woken.
const WAIT_FOR_WAY: Duration = Duration::from_secs(60);
/// Bytes that wait on the connection below from which on nothing more is sealed for it.
const BELOW_BYTES_MAX: usize = 256 << 10;
/// Kind and length of a frame in a record.
const CHANNEL_FRAME_HEAD_LEN: usize = 3;
/// What each channel around a link takes off its frames: the heads of the frame in the record, of the frame in it, its two labels, and
/// what sealing adds.
const PER_DEPTH: usize = CHANNEL_FRAME_HEAD_LEN + FRAME_HEADER_LEN + 8 + RECORD_OVERHEAD_MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, len: usize) -> Vec<u8> {
        let mut frame = u32::try_from(len).unwrap().to_be_bytes()[1..].to_vec();
        frame.push(kind);
        frame.resize(4 + len, 7);
        frame
    }

    #[test]
    fn frames_of_one_class_share_a_record_while_they_fit() {
        let frames = [
            frame(0x02, 8),
            frame(0x10, 3),
            frame(0x11, 5),
            frame(0x31, 60),
            frame(0x12, 1),
        ]
        .concat();
        let mut rest = frames.as_slice();
        let mut pieces = Vec::new();
        while let Some((class, piece)) = next_piece(rest, 40) {
            pieces.push((class, piece));
            rest = &rest[piece..];
        }
        assert_eq!(
            pieces,
            [
                (Class::Alarm, 12 + 7),
                (Class::Normal, 9),
                // Longer than fits: it is lost alone.
                (Class::Normal, 64),
                (Class::Bulk, 5)
            ]
        );
    }

    #[test]
    fn the_longest_frame_of_each_depth_fits_the_record_around_it() {
        // Depth 1 lies in a record over an ordinary link, the others in one over the link before.
        let mut room = PLAINTEXT_LEN_MAX;
        for depth in 1..=CARRIED_DEPTH_MAX {
            let body = frame_len_max(depth);
            assert!(
                CHANNEL_FRAME_HEAD_LEN + FRAME_HEADER_LEN + body <= room,
                "{depth}"
            );
            room = body - 8 - RECORD_OVERHEAD_MAX;
        }
        assert!(crate::channel::PLAINTEXT_CARRIED_MAX <= room);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_taken_apart_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = bytes.as_slice();
            let mut taken = 0;
            while let Some((frame, later)) = split_frame(rest) {
                taken += frame.len();
                rest = later;
            }
            prop_assert_eq!(taken + rest.len(), bytes.len());
        }
    }
}
