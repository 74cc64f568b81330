//! Frames of a link on the streams of a connection: which stream a frame leaves on, and whole frames out of what comes.
//!
//! | stream of its sender | frames |
//! |---|---|
//! | 0 | those of the link itself, and alarms |
//! | 1 | normal |
//! | 2 | bulk |

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::ops::Range;

use fieldgate_proto::link::{Class, FRAME_HEADER_LEN, FrameError, FrameReader};

/// Streams in one direction.
pub(crate) const LANES: usize = 3;

/// Returns the stream for frames of this kind (PROTOCOL.md §3.1).
const fn lane_of(kind: u8) -> usize {
    match (kind >> 4, Class::from_bits(kind & 0x0f)) {
        (1..=3, Some(class)) => class as usize,
        _ => 0,
    }
}

/// Cuts whole frames into pieces that leave on one stream each, as long as possible. What is no whole frame at the end goes with
/// the first stream; the node never writes such.
pub(crate) fn pieces(frames: &[u8]) -> impl Iterator<Item = (usize, Range<usize>)> {
    let mut at = 0_usize;
    std::iter::from_fn(move || {
        let (lane, mut end) = frame_at(frames, at)?;
        while let Some((next, next_end)) = frame_at(frames, end)
            && next == lane
        {
            end = next_end;
        }
        let start = std::mem::replace(&mut at, end);
        Some((lane, start..end))
    })
}

/// Returns the stream of the frame at `at`, and where it ends.
fn frame_at(frames: &[u8], at: usize) -> Option<(usize, usize)> {
    match frames.get(at..)? {
        [] => None,
        [high, middle, low, kind, ..] => {
            let len = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            let end = at.saturating_add(FRAME_HEADER_LEN).saturating_add(len);
            Some((lane_of(*kind), end.min(frames.len())))
        }
        [..] => Some((0, frames.len())),
    }
}

/// Puts what comes on the streams together again.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    readers: [FrameReader; LANES],
    /// The first frame of the first stream has come: the Hello, before which nothing else may.
    begun: bool,
}

impl Incoming {
    /// Returns whether bytes of this stream may be taken yet.
    pub(crate) const fn takes(&self, lane: usize) -> bool {
        lane == 0 || self.begun
    }

    /// Takes bytes of one stream and appends the frames that are whole by them to `frames`.
    ///
    /// # Errors
    /// [`FrameError::TooLong`]: the stream cannot go on.
    pub(crate) fn receive(
        &mut self,
        lane: usize,
        bytes: &mut [u8],
        frames: &mut Vec<u8>,
    ) -> Result<(), FrameError> {
        let Some(reader) = self.readers.get_mut(lane) else {
            return Ok(());
        };
        let mut read = reader.read(bytes);
        while let Some(frame) = read.next_frame()? {
            self.begun |= lane == 0;
            let len = u32::try_from(frame.body.len()).unwrap_or(u32::MAX).to_be_bytes();
            frames.extend_from_slice(len.get(1..).unwrap_or_default());
            frames.push(frame.kind);
            frames.extend_from_slice(frame.body);
        }
        reader.shrink();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len()).expect("it is short").to_be_bytes();
        [&len[1..], &[kind], body].concat()
    }

    #[test]
    fn each_class_has_its_stream() {
        for (kind, lane) in [
            (0x01, 0),
            (0x04, 0),
            (0x10, 0),
            (0x11, 1),
            (0x22, 2),
            (0x31, 1),
            (0x13, 0),
            (0x41, 0),
        ] {
            assert_eq!(lane_of(kind), lane, "{kind:#x}");
        }
        let frames = [
            frame(1, b"hello"),
            frame(0x10, b"alarm"),
            frame(0x12, b"bulk"),
            frame(0x12, b""),
        ]
        .concat();
        let cut: Vec<_> = pieces(&frames).collect();
        assert_eq!(cut, [(0, 0..18), (2, 18..30)]);
    }

    #[test]
    fn nothing_comes_before_the_first_frame() {
        let mut incoming = Incoming::default();
        assert!(incoming.takes(0) && !incoming.takes(1) && !incoming.takes(2));
        let mut frames = Vec::new();
        let mut hello = frame(1, b"hello");
        let (first, rest) = hello.split_at_mut(5);
        incoming.receive(0, first, &mut frames).expect("it is short");
        assert!(!incoming.takes(1) && frames.is_empty());
        incoming.receive(0, rest, &mut frames).expect("it is short");
        assert!(incoming.takes(1) && incoming.takes(2));
        assert_eq!(frames, frame(1, b"hello"));
    }

    #[test]
    fn a_frame_that_is_too_long_ends_it() {
        let mut incoming = Incoming::default();
        assert!(
            incoming
                .receive(0, &mut [0xff, 0xff, 0xff, 1], &mut Vec::new())
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn frames_come_out_whole_and_those_of_a_class_in_order(
            bodies in proptest::collection::vec((0_u8..3, proptest::collection::vec(any::<u8>(), 0..40)), 1..20),
            cut in 1_usize..50,
        ) {
            let sent: Vec<_> = bodies.iter().map(|(class, body)| frame(0x10 | class, body)).collect();
            let all = sent.concat();
            let mut lanes: [Vec<u8>; LANES] = Default::default();
            for (lane, range) in pieces(&all) {
                lanes[lane].extend_from_slice(&all[range]);
            }
            let mut incoming = Incoming::default();
            for (lane, bytes) in lanes.iter_mut().enumerate() {
                let mut frames = Vec::new();
                for piece in bytes.chunks_mut(cut) {
                    incoming.receive(lane, piece, &mut frames).expect("they are short");
                }
                let wanted: Vec<u8> = bodies.iter().zip(&sent)
                    .filter(|((class, _), _)| usize::from(*class) == lane)
                    .flat_map(|(_, frame)| frame.clone())
                    .collect();
                prop_assert_eq!(frames, wanted);
            }
        }

        #[test]
        fn any_bytes_are_cut_into_what_they_are_and_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut joined = Vec::new();
            for (lane, range) in pieces(&bytes) {
                prop_assert!(lane < LANES && !range.is_empty());
                joined.extend_from_slice(&bytes[range]);
            }
            prop_assert_eq!(&joined, &bytes);
            let mut frames = Vec::new();
            let _ = Incoming::default().receive(0, &mut bytes, &mut frames);
            prop_assert!(frames.len() <= joined.len());
        }
    }
}
