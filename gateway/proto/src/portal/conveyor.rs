//! Packets of items, in order and each once, over channels that lose some and end at any time.
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use std::{collections::VecDeque, time::Duration};

use super::{
    frame::{DATA_HEAD_LEN, ITEM_LEN_MAX, Item, Items, PACKET_HEAD_LEN, PortalError, put_packet, put_taken},
    stream::StreamId,
};
use crate::{
    channel::PLAINTEXT_CARRIED_MAX,
    delivery::window::Window,
    link::{Class, RoundTrip},
    time::Instant,
};

/// Carries packets both ways.
///
/// ```text
///  put ─▶ filling ─full, or flushed─▶ packets ─write─▶ on their way ─Taken─▶ forgotten
///                                        ▲                │
///                                        └─ silence, two Taken without news, another channel ─┘
/// ```
///
/// Invariants: `packets` holds the sequences from `taken + 1` on without a hole; `taken < next ≤ taken + 1 + packets.len()`;
/// `bytes` is the sum over `packets` and `filling`.
#[derive(Debug)]
pub(super) struct Conveyor {
    packets: VecDeque<Vec<u8>>,
    filling: Vec<u8>,
    bytes: usize,
    /// The other side has taken everything up to here.
    taken: u64,
    /// Sequence of the packet that is sent next.
    next: u64,
    /// Highest sequence sent in this channel.
    sent: u64,
    /// Highest sequence sent in any.
    said: u64,
    window: Window,
    round_trip: RoundTrip,
    wait: Duration,
    deadline: Option<Instant>,
    /// A packet that was sent once, and when (RFC 6298 §3).
    timed: Option<(u64, Instant)>,
    /// Taken from the other side.
    received: u64,
    is_taken_due: bool,
    /// A packet came behind a gap, and the other side was not told.
    is_gap_due: bool,
    /// Buffers to fill again.
    spare: Vec<Vec<u8>>,
    went_back: u64,
    duplicates: u64,
}

impl Conveyor {
    pub(super) fn new() -> Self {
        Self {
            packets: VecDeque::new(),
            filling: Vec::new(),
            bytes: 0,
            taken: 0,
            next: 1,
            sent: 0,
            said: 0,
            window: Window::new(),
            round_trip: RoundTrip::default(),
            wait: WAIT_FIRST,
            deadline: None,
            timed: None,
            received: 0,
            is_taken_due: false,
            is_gap_due: false,
            spare: Vec::new(),
            went_back: 0,
            duplicates: 0,
        }
    }

    /// Returns how many packets of the other side were taken.
    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    pub(super) const fn went_back(&self) -> u64 {
        self.went_back
    }

    pub(super) const fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Returns the bytes that are kept until the other side has taken them.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) const fn round_trip(&self) -> &RoundTrip {
        &self.round_trip
    }

    /// Returns how many bytes of one stream fit at the moment. What was not sent yet is kept short, so that what is said next does
    /// not wait behind it.
    pub(super) fn room(&self) -> usize {
        let kept = BYTES_MAX.saturating_sub(self.bytes);
        let unsent = self.unsent_bytes();
        if unsent >= UNSENT_MAX || kept <= ITEM_LEN_MAX {
            return 0;
        }
        // What is left of the packet that is being filled, so that a long run of bytes makes no short packets in between.
        let left = PACKET_ITEMS_MAX.saturating_sub(self.filling.len());
        let packet = if left >= DATA_LEN_WORTH {
            left
        } else {
            PACKET_ITEMS_MAX
        };
        kept.min(packet).saturating_sub(DATA_HEAD_LEN)
    }

    /// Returns whether so little waits to be sent that a whole receive of a caller finds room behind it.
    pub(super) fn is_ready(&self) -> bool {
        self.room() > 0 && self.unsent_bytes() <= PACKET_ITEMS_MAX
    }

    /// Returns the bytes that wait to be sent.
    fn unsent_bytes(&self) -> usize {
        let sent = usize::try_from(self.next.saturating_sub(self.taken).saturating_sub(1));
        let waiting = self.packets.iter().skip(sent.unwrap_or(usize::MAX));
        waiting.fold(self.filling.len(), |sum, packet| sum.saturating_add(packet.len()))
    }

    /// Takes an item; control items always fit, as there are only so many for each stream.
    pub(super) fn put(&mut self, stream: StreamId, item: &Item<'_>) {
        let length = match item {
            Item::Data(bytes) => bytes.len().saturating_add(DATA_HEAD_LEN),
            Item::Open(_) | Item::Opened | Item::Credit(_) | Item::Finish | Item::Reset(_) => ITEM_LEN_MAX,
        };
        if self.filling.len().saturating_add(length) > PACKET_ITEMS_MAX {
            self.close_packet();
        }
        let before = self.filling.len();
        item.put(stream, &mut self.filling);
        self.bytes = self
            .bytes
            .saturating_add(self.filling.len().saturating_sub(before));
    }

    fn close_packet(&mut self) {
        if !self.filling.is_empty() {
            let fresh = self.spare.pop().unwrap_or_default();
            self.packets
                .push_back(std::mem::replace(&mut self.filling, fresh));
        }
    }

    /// Begins anew in another channel, after the other side has said how much it has taken.
    pub(super) fn restart(&mut self, taken: u64) -> Restart {
        if taken < self.taken {
            return Restart::Stale;
        }
        if taken > self.last() {
            return Restart::Impossible;
        }
        self.forget(taken);
        self.next = taken.saturating_add(1);
        self.sent = taken;
        self.window = Window::new();
        self.round_trip = RoundTrip::default();
        self.wait = WAIT_FIRST;
        self.deadline = None;
        self.timed = None;
        self.is_taken_due = false;
        self.is_gap_due = false;
        Restart::Done
    }

    /// Returns the sequence of the last packet that is not being filled any more.
    fn last(&self) -> u64 {
        self.taken.saturating_add(self.packets.len() as u64)
    }

    /// Forgets what the other side has taken.
    fn forget(&mut self, taken: u64) {
        while self.taken < taken {
            let Some(mut packet) = self.packets.pop_front() else {
                break;
            };
            self.taken = self.taken.saturating_add(1);
            self.bytes = self.bytes.saturating_sub(packet.len());
            if self.spare.len() < SPARE_MAX {
                packet.clear();
                self.spare.push(packet);
            }
        }
        self.next = self.next.max(self.taken.saturating_add(1));
    }

    /// Takes the news that the other side has taken everything up to `taken`.
    pub(super) fn handle_taken(&mut self, now: Instant, taken: u64) -> Result<(), PortalError> {
        // What was sent before going back, or in another channel, may have arrived all the same.
        let max = self.last();
        if taken > max {
            return Err(PortalError::Range {
                what: "packets taken",
                value: taken,
                max,
            });
        }
        if taken < self.taken {
            // Overtaken on the way.
            return Ok(());
        }
        if taken == self.taken {
            let last = self.next.saturating_sub(1);
            if self.window.handle_duplicate(Class::Normal, taken, last) {
                self.go_back();
                self.arm(now);
            }
            return Ok(());
        }
        self.forget(taken);
        self.window.handle_received(Class::Normal, taken);
        if let Some((_, since)) = self.timed.take_if(|(sequence, _)| *sequence <= taken) {
            self.round_trip.record(now - since);
            let timeout = self.round_trip.timeout().unwrap_or(WAIT_FIRST);
            self.wait = timeout.clamp(WAIT_MIN, WAIT_MAX);
        }
        self.deadline = None;
        self.arm(now);
        Ok(())
    }

    /// Takes the sequence of a packet that came; true if its items are to be taken now.
    pub(super) fn handle_packet(&mut self, sequence: u64) -> bool {
        self.is_taken_due = true;
        if sequence != self.received.saturating_add(1) {
            self.is_gap_due |= sequence > self.received;
            self.duplicates = self
                .duplicates
                .saturating_add(u64::from(sequence <= self.received));
            return false;
        }
        self.received = sequence;
        true
    }

    /// Shows the items that were never sent, in order: of those the other side cannot know.
    pub(super) fn for_each_unsaid(&self, mut show: impl FnMut(StreamId, &Item<'_>)) {
        let said = usize::try_from(self.said.saturating_sub(self.taken)).unwrap_or(usize::MAX);
        let packets = self.packets.iter().skip(said);
        for packet in packets.chain([&self.filling]) {
            let mut items = Items::new(packet);
            while let Ok(Some((stream, item))) = items.next_item() {
                show(stream, &item);
            }
        }
    }

    /// Returns whether [`write`](Self::write) has something to append.
    pub(super) fn has_something(&self) -> bool {
        self.is_taken_due || (self.has_unsent() && !self.window.is_full(Class::Normal))
    }

    fn has_unsent(&self) -> bool {
        self.next <= self.last() || !self.filling.is_empty()
    }

    /// Appends an acknowledgement, if one is due, and twice more behind a gap, and a packet, if one may be sent: [`RECORD_MAX`] bytes at the most. Returns whether
    /// there was anything.
    pub(super) fn write(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        if std::mem::take(&mut self.is_taken_due) {
            put_taken(out, self.received);
        }
        // Said twice without news it is a sign of loss, even if nothing more comes that could be answered.
        if std::mem::take(&mut self.is_gap_due) {
            put_taken(out, self.received);
            put_taken(out, self.received);
        }
        if self.has_unsent() && !self.window.is_full(Class::Normal) {
            let index = usize::try_from(self.next.saturating_sub(self.taken).saturating_sub(1));
            let index = index.unwrap_or(usize::MAX);
            if index == self.packets.len() {
                self.close_packet();
            }
            if let Some(packet) = self.packets.get(index) {
                put_packet(out, self.next, packet);
                let bytes = packet.len().saturating_add(PACKET_HEAD_LEN);
                self.window.handle_sent(Class::Normal, self.next, bytes);
                if self.next > self.sent && self.timed.is_none() {
                    self.timed = Some((self.next, now));
                }
                self.sent = self.sent.max(self.next);
                self.said = self.said.max(self.next);
                self.next = self.next.saturating_add(1);
                self.arm(now);
            }
        }
        out.len() > before
    }

    /// Goes back where the other side has been silent for too long.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.deadline = None;
        self.wait = self.wait.saturating_mul(2).min(WAIT_MAX);
        self.window.handle_silence(Class::Normal, self.taken);
        self.go_back();
    }

    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    fn go_back(&mut self) {
        self.next = self.taken.saturating_add(1);
        self.timed = None;
        self.deadline = None;
        self.went_back = self.went_back.saturating_add(1);
    }

    /// Starts the retransmission time if something is on its way.
    fn arm(&mut self, now: Instant) {
        if self.next > self.taken.saturating_add(1) {
            self.deadline.get_or_insert(now + self.wait);
        }
    }
}

/// What became of [`Conveyor::restart`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    /// It goes on from there.
    Done,
    /// The other side has said since that it has more: this is old, and nothing has changed.
    Stale,
    /// The other side has more than there ever was.
    Impossible,
}

/// Bytes of items in a packet at the most: with its head and acknowledgements it fits a record.
pub(super) const PACKET_ITEMS_MAX: usize = 65_000;
/// Plaintext that [`Conveyor::write`] appends at the most.
pub(super) const RECORD_MAX: usize = PACKET_ITEMS_MAX + 4 * PACKET_HEAD_LEN;
const _: () = assert!(RECORD_MAX <= PLAINTEXT_CARRIED_MAX);
/// Bytes kept until they are taken: as much as is on its way at 1 Gbit/s in an eighth of a second. A bound for data; the few bytes
/// that open, credit and end streams are bounded by the number of streams.
pub(super) const BYTES_MAX: usize = 16 << 20;
/// Bytes that wait to be sent beyond which no more data is taken: one packet, and what a receive of 256 KiB brings.
const UNSENT_MAX: usize = 5 * PACKET_ITEMS_MAX + (4 << 10);
/// Room in a packet below which data goes into the next one instead of being cut.
const DATA_LEN_WORTH: usize = 1 << 10;
/// Buffers kept for packets to come: as many as are on their way in a stream at full speed.
const SPARE_MAX: usize = 32;
/// Wait for the first acknowledgement in a channel (RFC 6298 §2.1).
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// Shorter than RFC 6298 §2.4 wants, as TCP stacks have it: a stream stands still meanwhile.
const WAIT_MIN: Duration = Duration::from_millis(200);
const WAIT_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::portal::frame::split_packet;

    const STREAM: StreamId = StreamId::new(1);

    /// Gives a conveyor bytes as a session does.
    fn fill(conveyor: &mut Conveyor, mut count: usize) -> usize {
        let bytes = vec![7; PACKET_ITEMS_MAX];
        let before = count;
        while count > 0 && conveyor.room() > 0 {
            let piece = conveyor.room().min(count);
            conveyor.put(
                STREAM,
                &Item::Data(bytes.get(..piece).expect("room is less than a packet")),
            );
            count -= piece;
        }
        before - count
    }

    /// Takes a record apart: sequences of packets, and what was said to be taken.
    fn frames(mut record: &[u8]) -> (Vec<u64>, Vec<u64>) {
        let (mut packets, mut taken) = (Vec::new(), Vec::new());
        while let [kind, high, low, body @ ..] = record {
            let (body, later) = body.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            match *kind {
                super::super::frame::PACKET => packets.push(split_packet(body).expect("whole").0),
                _ => taken.push(super::super::frame::decode_taken(body).expect("whole")),
            }
            record = later;
        }
        (packets, taken)
    }

    #[test]
    fn a_long_run_of_bytes_fills_packets() {
        let mut conveyor = Conveyor::new();
        let given: usize = (0..4).map(|_| fill(&mut conveyor, 1 << 16)).sum();
        assert!(given > 3 << 16, "{given}");
        assert!(
            conveyor
                .packets
                .iter()
                .all(|packet| packet.len() > PACKET_ITEMS_MAX - DATA_LEN_WORTH),
            "{:?}",
            conveyor.packets.iter().map(Vec::len).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_gap_is_noticed_without_waiting() {
        let (mut sender, mut receiver) = (Conveyor::new(), Conveyor::new());
        let now = Instant::START;
        let mut records = Vec::new();
        for _ in 0..3 {
            fill(&mut sender, 100);
            let mut record = Vec::new();
            assert!(sender.write(now, &mut record));
            records.push(record);
        }
        // The second is lost, and the third was the last that the window let out.
        for index in [0, 2] {
            for sequence in frames(&records[index]).0 {
                assert_eq!(receiver.handle_packet(sequence), index == 0);
            }
        }
        let mut answer = Vec::new();
        assert!(receiver.write(now, &mut answer));
        let (_, taken) = frames(&answer);
        assert_eq!(taken, [1, 1, 1]);
        for taken in taken {
            sender.handle_taken(now, taken).expect("it was sent");
        }
        assert_eq!(sender.went_back(), 1);
        let mut again = Vec::new();
        assert!(sender.write(now, &mut again));
        assert_eq!(frames(&again).0, [2]);
        // Without a gap it is said once.
        assert!(receiver.handle_packet(2));
        let mut answer = Vec::new();
        assert!(receiver.write(now, &mut answer));
        assert_eq!(frames(&answer).1, [2]);
    }
}
