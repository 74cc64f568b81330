//! Frames inside a record (PROTOCOL.md §5.1).

use crate::wire::{Reader, WireError, put_bytes16};

/// Fills the rest of a plaintext with zeros.
pub(super) const PADDING: u8 = 0x00;
/// Asks for a Pong with the same number.
pub(super) const PING: u8 = 0x01;
/// Answers a Ping.
pub(super) const PONG: u8 = 0x02;
/// Ends the channel.
pub(super) const CLOSE: u8 = 0x03;
/// Begins a new generation.
pub(super) const REKEY1: u8 = 0x04;
/// Answers Rekey1.
pub(super) const REKEY2: u8 = 0x05;
/// Asks the initiator to begin a new generation.
pub(super) const REKEY_PLEASE: u8 = 0x06;
/// Presents a credential, in place of the one before.
pub(super) const CREDENTIAL: u8 = 0x07;
/// Demands a live proof.
pub(super) const PROOF_PLEASE: u8 = 0x08;
/// Answers it.
pub(super) const PROOF: u8 = 0x09;
/// First kind that is not the channel's own business. [`Channels`](super::Channels) has dealt with every
/// frame below by the time it hands a plaintext out.
pub const FIRST_APPLICATION_KIND: u8 = 0x10;

/// Why the plaintext of a record is not a sequence of frames. Always the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame ends early or has a bad length.
    #[error("malformed frame")]
    Wire(#[from] WireError),
    /// Padding holds something.
    #[error("padding is not zero")]
    Padding,
    /// A frame of the channel's own has a body of another length than it should.
    #[error("frame of kind {kind:#04x} has {len} bytes")]
    Length {
        /// The kind.
        kind: u8,
        /// Bytes of its body.
        len: usize,
    },
}

impl FrameError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Wire(_) | Self::Padding | Self::Length { .. } => "upgrade the older of the two nodes",
        }
    }
}

/// Iterates over the frames of a plaintext as kind and body; ends after the first error.
#[must_use]
pub const fn frames(plaintext: &[u8]) -> Frames<'_> {
    Frames {
        reader: Reader::new(plaintext),
    }
}

/// See [`frames`].
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<(u8, &'a [u8]), FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let frame = take(&mut self.reader);
        if !matches!(frame, Ok(Some(_))) {
            self.reader = Reader::new(&[]);
        }
        frame.transpose()
    }
}

fn take<'a>(reader: &mut Reader<'a>) -> Result<Option<(u8, &'a [u8])>, FrameError> {
    let kind = reader.u8("frame kind")?;
    if kind == PADDING {
        return if reader.rest().iter().all(|byte| *byte == 0) {
            Ok(None)
        } else {
            Err(FrameError::Padding)
        };
    }
    Ok(Some((kind, reader.bytes16("frame")?)))
}

/// Appends a frame to the plaintext being built at the end of `out`.
///
/// # Panics
/// If `body` is longer than 65,535 bytes.
pub fn put_frame(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    put_bytes16(out, body);
}

/// Where a frame begun in a buffer starts; give it to [`finish_frame`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the frame has no length until it is finished"]
pub struct FrameMark(usize);

/// Begins a frame at the end of `out`; the caller appends the body and finishes the frame.
pub fn begin_frame(out: &mut Vec<u8>, kind: u8) -> FrameMark {
    out.extend_from_slice(&[kind, 0, 0]);
    FrameMark(out.len())
}

/// Writes the length of the frame begun at `mark`; everything appended to `out` since is its body.
///
/// # Panics
/// If the body is longer than 65,535 bytes or `out` was shortened since.
#[expect(clippy::needless_pass_by_value, reason = "a mark is used once")]
pub fn finish_frame(out: &mut [u8], mark: FrameMark) {
    let len = out
        .len()
        .checked_sub(mark.0)
        .and_then(|len| u16::try_from(len).ok());
    let len = len.expect("callers keep the body within 65,535 bytes");
    let field = mark.0.checked_sub(2).and_then(|at| out.get_mut(at..mark.0));
    field
        .expect("a mark stands behind the length it is for")
        .copy_from_slice(&len.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn padding_ends_the_frames() {
        let mut plaintext = Vec::new();
        put_frame(&mut plaintext, PING, &[1; 8]);
        plaintext.extend_from_slice(&[0; 50]);
        let all = frames(&plaintext).collect::<Result<Vec<_>, _>>();
        assert_eq!(all, Ok(vec![(PING, [1; 8].as_slice())]));
    }

    #[test]
    fn padding_that_hides_something_is_refused() {
        assert_eq!(frames(&[0, 0, 1]).next(), Some(Err(FrameError::Padding)));
    }

    #[test]
    fn a_frame_longer_than_the_rest_ends_the_iteration() {
        let mut frames = frames(&[0x20, 0, 3, 1, 2]);
        assert!(matches!(
            frames.next(),
            Some(Err(FrameError::Wire(WireError::Truncated {
                need: 3,
                have: 2,
                ..
            })))
        ));
        assert_eq!(frames.next(), None);
    }

    proptest! {
        #[test]
        fn frames_come_back(
            sent in prop::collection::vec((1..=u8::MAX, prop::collection::vec(any::<u8>(), 0..100)), 0..20),
            padding in 0..50_usize,
        ) {
            let mut plaintext = Vec::new();
            for (kind, body) in &sent {
                put_frame(&mut plaintext, *kind, body);
            }
            plaintext.resize(plaintext.len() + padding, 0);
            let got = frames(&plaintext).collect::<Result<Vec<_>, _>>();
            prop_assert_eq!(got, Ok(sent.iter().map(|(kind, body)| (*kind, body.as_slice())).collect()));
        }

        #[test]
        fn any_bytes_are_frames_or_refused(bytes: Vec<u8>) {
            let count = frames(&bytes).take_while(Result::is_ok).count();
            prop_assert!(count <= bytes.len());
        }
    }
}
