//! Whoever sits on a wire, or runs a relay, and means ill.
//!
//! It sees whole frames on their way and knows the protocol, but no key of anybody else. It never looks at what it cannot
//! understand: which byte it changes depends on lengths and on its dice alone.

use std::collections::{BTreeMap, VecDeque};

use crate::dice::Dice;

/// Something an attacker does to frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Changes a bit.
    Flip,
    /// Sends again what passed long ago, also from before a connection or a node was replaced.
    Replay,
    /// Lets later frames overtake.
    Reorder,
    /// Swallows frames.
    Drop,
    /// Sends frames twice.
    Duplicate,
    /// Makes up frames, with labels and routes it guesses or has seen.
    Inject,
    /// Puts what belongs to one label under another.
    Swap,
    /// Keeps everything back for a while.
    HoldBack,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Flip,
        Self::Replay,
        Self::Reorder,
        Self::Drop,
        Self::Duplicate,
        Self::Inject,
        Self::Swap,
        Self::HoldBack,
    ];
}

/// A direction of a wire: from a host to a host. It outlives connections.
pub(crate) type Direction = (usize, usize);

/// The attacker on all wires it has.
#[derive(Debug)]
pub(crate) struct Attacker {
    verbs: Vec<Verb>,
    one_in: u64,
    dice: Dice,
    /// Names of relays, for routes that go round; empty where there is one relay.
    relays: Vec<String>,
    memory: BTreeMap<Direction, Memory>,
    /// How often each verb was carried out on a frame that carries somebody's payload.
    pub(crate) done: BTreeMap<Verb, u64>,
}

/// What it remembers of a direction.
#[derive(Debug, Default)]
struct Memory {
    frames: VecDeque<Vec<u8>>,
    labels: VecDeque<[u8; LABEL_LEN]>,
}

/// What is to become of the bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// To be sent now.
    pub(crate) now: Vec<u8>,
    /// From now on everything is kept back for a while.
    pub(crate) hold_back: bool,
    /// To be sent behind what comes next.
    pub(crate) behind: Vec<u8>,
}

impl Attacker {
    pub(crate) fn new(verbs: &[Verb], one_in: u64, dice: Dice) -> Self {
        Self {
            verbs: verbs.to_vec(),
            one_in,
            dice,
            relays: Vec::new(),
            memory: BTreeMap::new(),
            done: BTreeMap::new(),
        }
    }

    /// Tells it the names of relays that forward to each other.
    pub(crate) fn with_relays(mut self, relays: Vec<String>) -> Self {
        self.relays = relays;
        self
    }

    /// Listens without doing anything, so that there is something to replay later.
    pub(crate) fn listen(&mut self, direction: Direction, bytes: &[u8]) {
        for frame in frames(bytes) {
            self.remember(direction, frame);
        }
    }

    /// Takes whole frames that are about to be sent, and says what is sent instead.
    pub(crate) fn attack(&mut self, direction: Direction, bytes: &[u8]) -> Verdict {
        let mut verdict = Verdict::default();
        let mut overtaken: Vec<u8> = Vec::new();
        for frame in frames(bytes) {
            if self.dice.one_in(self.one_in) {
                let verb = self.dice.pick(&self.verbs);
                self.carry_out(verb, direction, frame, &mut verdict, &mut overtaken);
            } else {
                verdict.now.extend_from_slice(frame);
                verdict.now.append(&mut overtaken);
            }
            self.remember(direction, frame);
        }
        verdict.behind = overtaken;
        verdict
    }

    fn carry_out(
        &mut self,
        verb: Verb,
        direction: Direction,
        frame: &[u8],
        verdict: &mut Verdict,
        overtaken: &mut Vec<u8>,
    ) {
        let mut carried_out = is_payload(frame);
        match verb {
            Verb::Flip => {
                let mut changed = frame.to_vec();
                // Mostly what is carried, for a broken frame header only closes the link.
                let from = if self.dice.one_in(10) {
                    0
                } else {
                    payload_start(frame)
                };
                let at = from + self.dice.index(changed.len().saturating_sub(from));
                if let Some(byte) = changed.get_mut(at) {
                    *byte ^= 1 << self.dice.below(8);
                }
                verdict.now.extend_from_slice(&changed);
            }
            Verb::Drop => {}
            Verb::Duplicate => {
                verdict.now.extend_from_slice(frame);
                verdict.now.extend_from_slice(frame);
            }
            Verb::Reorder => overtaken.extend_from_slice(frame),
            Verb::HoldBack => {
                verdict.now.extend_from_slice(frame);
                verdict.hold_back = true;
            }
            Verb::Replay => {
                verdict.now.extend_from_slice(frame);
                let old = self.recall(direction);
                carried_out = old.as_deref().is_some_and(is_payload);
                verdict.now.extend_from_slice(&old.unwrap_or_default());
            }
            Verb::Inject => {
                let made_up = self.make_up(direction, frame);
                verdict.now.extend_from_slice(&made_up);
                verdict.now.extend_from_slice(frame);
                carried_out = true;
            }
            Verb::Swap => match self.swapped(direction, frame) {
                Some(swapped) => verdict.now.extend_from_slice(&swapped),
                None => {
                    carried_out = false;
                    verdict.now.extend_from_slice(frame);
                }
            },
        }
        if carried_out {
            *self.done.entry(verb).or_default() += 1;
        }
    }

    /// Returns a frame that passed in this direction, or in any other.
    fn recall(&mut self, direction: Direction) -> Option<Vec<u8>> {
        let direction = if self.dice.one_in(4) {
            let known: Vec<Direction> = self.memory.keys().copied().collect();
            known.get(self.dice.index(known.len())).copied()?
        } else {
            direction
        };
        let frames = &self.memory.get(&direction)?.frames;
        frames.get(self.dice.index(frames.len())).cloned()
    }

    /// Returns a label that passed in this direction, or one near it, or any small number.
    fn guess_label(&mut self, direction: Direction) -> [u8; LABEL_LEN] {
        let seen = self.memory.get(&direction).map(|memory| &memory.labels);
        let seen = seen.and_then(|labels| labels.get(self.dice.index(labels.len())).copied());
        match (seen, self.dice.below(4)) {
            (Some(label), 0 | 1) => label,
            (Some(label), 2) => u32::from_be_bytes(label).wrapping_add(1).to_be_bytes(),
            _ => u32::try_from(self.dice.below(64)).unwrap_or(0).to_be_bytes(),
        }
    }

    /// Makes up a frame that could pass here.
    fn make_up(&mut self, direction: Direction, model: &[u8]) -> Vec<u8> {
        let label = self.guess_label(direction);
        let payload: Vec<u8> = if self.dice.one_in(2) {
            model.get(payload_start(model)..).unwrap_or_default().to_vec()
        } else {
            let first = self.dice.pick(&[0x11, 0x12, 0x13, 0x1c, 0x40, 0x44, 0x7f]);
            let mut payload = vec![first];
            let len = self.dice.between(0, 200);
            payload.extend((0..len).map(|_| self.dice.roll().to_be_bytes()[0]));
            payload
        };
        let kinds = if self.relays.is_empty() { 4 } else { 6 };
        match self.dice.below(kinds) {
            0 => frame(KIND_LABEL_GONE, &[&label]),
            1 => frame(KIND_DATA | 1, &[&label, &payload]),
            2 => {
                let offered = self.guess_label(direction);
                frame(KIND_DATA_OFFER | 1, &[&label, &offered, &payload])
            }
            4 | 5 => self.round_trip(&payload),
            _ => {
                let onward = self.dice.pick(&["uplink", "registrar", "flow-0000000000000000"]);
                let conversation = format!("flow-{:016x}", self.dice.roll());
                frame(
                    KIND_ROUTED | 1,
                    &[
                        &[8],
                        &[0; LABEL_LEN],
                        &route(onward),
                        &route(&conversation),
                        &payload,
                    ],
                )
            }
        }
    }

    /// Makes up a frame whose route leads through the same relays again and again.
    fn round_trip(&mut self, payload: &[u8]) -> Vec<u8> {
        // One that ends here, for it may go no further, or one that would go on and on.
        let (names, hops) = if self.dice.one_in(2) {
            (1, 0)
        } else {
            (
                self.dice.between(2, ADDRESSES_MAX - 1),
                self.dice.between(1, ADDRESSES_MAX),
            )
        };
        let mut onward = vec![u8::try_from(names + 1).unwrap_or(u8::MAX)];
        for _ in 0..names {
            let name = self.dice.pick(&self.relays);
            onward.extend([ADDRESS_NAME, u8::try_from(name.len()).unwrap_or(u8::MAX)]);
            onward.extend_from_slice(name.as_bytes());
        }
        onward.extend_from_slice(route("uplink").get(1..).unwrap_or_default());
        let hops = u8::try_from(hops).unwrap_or(u8::MAX);
        let conversation = format!("flow-{:016x}", self.dice.roll());
        let (back, none) = (route(&conversation), [0; LABEL_LEN]);
        frame(KIND_ROUTED | 1, &[&[hops], &none, &onward, &back, payload])
    }

    /// Returns the frame with the label of another conversation in this direction, or with what went somewhere else.
    fn swapped(&mut self, direction: Direction, frame: &[u8]) -> Option<Vec<u8>> {
        let label = label(frame)?;
        let mut swapped = frame.to_vec();
        let others = self.memory.get(&direction).map(|memory| memory.labels.iter());
        let others: Vec<[u8; LABEL_LEN]> = others
            .into_iter()
            .flatten()
            .filter(|other| **other != label)
            .copied()
            .collect();
        if let Some(other) = others.get(self.dice.index(others.len()))
            && self.dice.one_in(2)
        {
            swapped
                .get_mut(HEADER_LEN..HEADER_LEN + LABEL_LEN)?
                .copy_from_slice(other);
            return Some(swapped);
        }
        let elsewhere = self.memory.iter().filter(|(other, _)| **other != direction);
        let foreign: Vec<&Vec<u8>> = elsewhere
            .flat_map(|(_, memory)| &memory.frames)
            .filter(|frame| self::label(frame).is_some())
            .collect();
        let foreign = foreign.get(self.dice.index(foreign.len()))?;
        let payload = foreign.get(payload_start(foreign)..)?;
        Some(self::frame(kind(frame), &[&label, payload]))
    }

    fn remember(&mut self, direction: Direction, frame: &[u8]) {
        let memory = self.memory.entry(direction).or_default();
        if let Some(label) = label(frame)
            && !memory.labels.contains(&label)
        {
            memory.labels.push_back(label);
            if memory.labels.len() > LABELS_REMEMBERED {
                memory.labels.pop_front();
            }
        }
        if is_payload(frame) {
            memory.frames.push_back(frame.to_vec());
            if memory.frames.len() > FRAMES_REMEMBERED {
                // Some of the oldest are kept: handshakes of channels long gone.
                let index = self.dice.index(memory.frames.len() / 2);
                memory.frames.remove(index);
            }
        }
    }
}

/// Cuts bytes into whole frames (PROTOCOL.md §3.1); nodes never hand over anything else.
pub(crate) fn frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let [high, middle, low, _] = *bytes.first_chunk::<HEADER_LEN>()?;
        let len = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let (frame, rest) = bytes
            .split_at_checked(HEADER_LEN + len)
            .expect("a node sends whole frames");
        bytes = rest;
        Some(frame)
    })
}

/// Returns how many frames begin in bytes that may have been changed on the way.
pub(crate) fn frames_in(mut bytes: &[u8]) -> u64 {
    let mut count = 0;
    while let Some([high, middle, low, _]) = bytes.first_chunk::<HEADER_LEN>() {
        let len = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
        bytes = bytes.get(HEADER_LEN + len..).unwrap_or_default();
        count += 1;
    }
    count
}

fn kind(frame: &[u8]) -> u8 {
    frame.get(HEADER_LEN - 1).copied().unwrap_or(0)
}

/// Whether the frame carries something between end points: Data, `DataOffer`, Routed.
fn is_payload(frame: &[u8]) -> bool {
    kind(frame) >= KIND_DATA
}

/// Returns where what is carried begins; routes count as carried.
fn payload_start(frame: &[u8]) -> usize {
    let start = match kind(frame) & 0xf0 {
        KIND_DATA => HEADER_LEN + LABEL_LEN,
        KIND_DATA_OFFER => HEADER_LEN + 2 * LABEL_LEN,
        _ => HEADER_LEN,
    };
    start.min(frame.len().saturating_sub(1))
}

/// Returns the label of a Data frame.
fn label(frame: &[u8]) -> Option<[u8; LABEL_LEN]> {
    let has_label = kind(frame) & 0xf0 == KIND_DATA;
    has_label.then(|| frame.get(HEADER_LEN..)?.first_chunk().copied())?
}

fn frame(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let [.., high, middle, low] = body.len().to_be_bytes();
    let mut frame = vec![high, middle, low, kind];
    frame.extend_from_slice(&body);
    frame
}

/// Returns the route that consists of one service.
fn route(service: &str) -> Vec<u8> {
    let mut route = vec![1, ADDRESS_SERVICE];
    route.push(u8::try_from(service.len()).unwrap_or(u8::MAX));
    route.extend_from_slice(service.as_bytes());
    route
}

/// Length and kind in front of each frame.
const HEADER_LEN: usize = 4;
const LABEL_LEN: usize = 4;
const KIND_LABEL_GONE: u8 = 0x04;
const KIND_DATA: u8 = 0x10;
const KIND_DATA_OFFER: u8 = 0x20;
const KIND_ROUTED: u8 = 0x30;
const ADDRESS_NAME: u8 = 1;
const ADDRESS_SERVICE: u8 = 2;
const ADDRESSES_MAX: u64 = 8;
const FRAMES_REMEMBERED: usize = 64;
const LABELS_REMEMBERED: usize = 16;

#[cfg(test)]
mod tests {
    use fieldgate_proto::link::{Class, Frame, Label, put_data, put_ping};

    use super::*;

    const DIRECTION: Direction = (1, 0);

    fn data(label: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_data(&mut out, Class::Normal, Label::new(label).unwrap(), payload, 1000).unwrap();
        out
    }

    fn attacker(verb: Verb) -> Attacker {
        Attacker::new(&[verb], 1, Dice::new(5))
    }

    #[test]
    fn what_it_makes_up_are_frames_that_a_link_takes() {
        let mut attacker = attacker(Verb::Inject);
        attacker.listen(DIRECTION, &data(7, b"genuine"));
        let mut kinds = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let made_up = attacker.make_up(DIRECTION, &data(7, b"genuine"));
            let mut all = frames(&made_up);
            let mut body = all.next().unwrap()[HEADER_LEN..].to_vec();
            assert!(all.next().is_none());
            kinds.insert(kind(&made_up));
            match Frame::decode(kind(&made_up), &mut body) {
                Ok(_) => {}
                // Label 0 and an offer of 0 are malformed: guesses may be.
                Err(error) => assert!(!error.closes_link(), "{error:?}"),
            }
        }
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), [0x04, 0x11, 0x21, 0x31]);
    }

    #[test]
    fn each_verb_does_what_its_name_says() {
        let (one, two, three) = (data(1, b"one"), data(2, b"two"), data(3, b"three"));
        let all = [one.clone(), two.clone(), three.clone()].concat();
        let result = |verb| {
            let mut attacker = attacker(verb);
            attacker.listen(DIRECTION, &data(9, b"before"));
            let verdict = attacker.attack(DIRECTION, &all);
            (verdict, attacker.done[&verb])
        };
        assert_eq!(result(Verb::Drop).0, Verdict::default());
        let (flipped, count) = result(Verb::Flip);
        assert_eq!((flipped.now.len(), count), (all.len(), 3));
        let bits = flipped.now.iter().zip(&all).map(|(a, b)| (a ^ b).count_ones());
        assert_eq!(bits.sum::<u32>(), 3);
        let (doubled, _) = result(Verb::Duplicate);
        assert_eq!(
            doubled.now,
            [&one, &one, &two, &two, &three, &three]
                .map(Vec::as_slice)
                .concat()
        );
        let (replayed, _) = result(Verb::Replay);
        assert_eq!(frames(&replayed.now).count(), 6);
        assert!(result(Verb::HoldBack).0.hold_back);
        let (injected, _) = result(Verb::Inject);
        assert_eq!(frames(&injected.now).count(), 6);
    }

    #[test]
    fn swapped_frames_have_another_label_or_what_went_elsewhere() {
        let mut attacker = attacker(Verb::Swap);
        let genuine = data(1, b"one");
        assert_eq!(
            attacker.attack(DIRECTION, &genuine).now,
            genuine,
            "there is nothing to swap with"
        );
        assert!(attacker.done.is_empty());
        attacker.listen(DIRECTION, &data(2, b"two"));
        attacker.listen((1, 7), &data(9, b"elsewhere"));
        let outcomes: std::collections::BTreeSet<Vec<u8>> = (0..50)
            .map(|_| attacker.attack(DIRECTION, &genuine).now)
            .collect();
        let wanted = [data(2, b"one"), data(1, b"elsewhere")];
        assert_eq!(outcomes, wanted.into_iter().collect());
    }

    #[test]
    fn reordered_frames_come_behind_the_next() {
        let mut attacker = attacker(Verb::Reorder);
        let verdict = attacker.attack(DIRECTION, &data(1, b"one"));
        assert_eq!((verdict.now.len(), verdict.behind), (0, data(1, b"one")));
        attacker.one_in = 0;
        assert_eq!(attacker.attack(DIRECTION, &data(2, b"two")).now, data(2, b"two"));
    }

    #[test]
    fn frames_of_the_link_itself_do_not_count_as_attacked() {
        let mut attacker = attacker(Verb::Drop);
        let mut ping = Vec::new();
        put_ping(&mut ping, 1);
        attacker.attack(DIRECTION, &ping);
        assert!(attacker.done.is_empty());
    }
}
