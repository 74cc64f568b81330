//! Cutting a byte stream into frames without copying.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::frame::{FRAME_HEADER_LEN, FRAME_LEN_MAX, FrameError};

/// A frame whose body is not read yet.
#[derive(Debug, PartialEq, Eq)]
pub struct RawFrame<'a> {
    /// The kind byte.
    pub kind: u8,
    /// The body, in the buffer the bytes were received in, or in the reader's if it came in pieces.
    pub body: &'a mut [u8],
}

/// Cuts the bytes of one connection into frames.
///
/// Whole frames come out as slices of the buffer they were received in; only a frame that came in pieces is put
/// together in a buffer of the reader, which grows with what arrived and never with what a length announces.
#[derive(Debug)]
pub struct FrameReader {
    tail: Vec<u8>,
    len_max: usize,
    broken: bool,
}

impl FrameReader {
    /// Starts at the beginning of a stream whose frames have at most `len_max` bytes of body.
    #[must_use]
    pub const fn new(len_max: usize) -> Self {
        Self {
            tail: Vec::new(),
            len_max,
            broken: false,
        }
    }

    /// Takes received bytes; the frames in them come out of the result, which must be asked until it gives `None`.
    ///
    /// If it is not, or gave an error, the stream is broken and nothing comes out of it any more.
    pub const fn read<'a>(&'a mut self, bytes: &'a mut [u8]) -> RawFrames<'a> {
        let ended = self.broken;
        // Cleared at the end of the bytes: bytes nobody asked for leave a hole in the stream.
        self.broken = true;
        RawFrames {
            reader: self,
            bytes,
            at: 0,
            in_tail: false,
            ended,
        }
    }

    /// Gives back memory if no frame is incomplete.
    pub fn shrink(&mut self) {
        if self.tail.is_empty() {
            self.tail = Vec::new();
        }
    }
}

impl Default for FrameReader {
    /// Starts a stream with the largest frames the protocol has.
    fn default() -> Self {
        Self::new(FRAME_LEN_MAX)
    }
}

/// The frames in bytes just received; see [`FrameReader::read`].
#[derive(Debug)]
pub struct RawFrames<'a> {
    reader: &'a mut FrameReader,
    bytes: &'a mut [u8],
    /// How many of `bytes` have been used.
    at: usize,
    /// Whether the tail holds a frame that was handed out.
    in_tail: bool,
    ended: bool,
}

impl RawFrames<'_> {
    /// Changes the longest body accepted, from the next frame on.
    pub const fn set_len_max(&mut self, len_max: usize) {
        self.reader.len_max = len_max;
    }

    /// Returns the kind of the next whole frame, `None` if there is none in the bytes.
    ///
    /// # Errors
    /// [`FrameError::TooLong`]: the stream cannot go on.
    pub fn peek_kind(&mut self) -> Result<Option<u8>, FrameError> {
        self.locate().map(|found| found.map(|(kind, _)| kind))
    }

    /// Takes the next frame, `None` if the rest of the bytes is an incomplete one, which is kept for later.
    ///
    /// # Errors
    /// [`FrameError::TooLong`]: the stream cannot go on.
    pub fn next_frame(&mut self) -> Result<Option<RawFrame<'_>>, FrameError> {
        let Some((kind, len)) = self.locate()? else {
            return Ok(None);
        };
        let frame_len = len.saturating_add(FRAME_HEADER_LEN);
        if !self.reader.tail.is_empty() {
            self.in_tail = true;
            let body = self.reader.tail.get_mut(FRAME_HEADER_LEN..).unwrap_or_default();
            return Ok(Some(RawFrame { kind, body }));
        }
        let start = self.at.saturating_add(FRAME_HEADER_LEN);
        self.at = self.at.saturating_add(frame_len);
        let body = self.bytes.get_mut(start..self.at).unwrap_or_default();
        Ok(Some(RawFrame { kind, body }))
    }

    /// Makes the next frame whole, in the tail or in `bytes`, and returns its kind and the length of its body.
    fn locate(&mut self) -> Result<Option<(u8, usize)>, FrameError> {
        if self.ended {
            return Ok(None);
        }
        if self.in_tail {
            self.reader.tail.clear();
            self.in_tail = false;
        }
        if !self.reader.tail.is_empty() {
            self.fill_tail(FRAME_HEADER_LEN);
            let Some((kind, len)) = self.header(&self.reader.tail)? else {
                return Ok(self.end());
            };
            let frame_len = len.saturating_add(FRAME_HEADER_LEN);
            self.fill_tail(frame_len);
            if self.reader.tail.len() < frame_len {
                return Ok(self.end());
            }
            return Ok(Some((kind, len)));
        }
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match self.header(rest)? {
            Some((kind, len)) if rest.len() >= len.saturating_add(FRAME_HEADER_LEN) => Ok(Some((kind, len))),
            _ => {
                self.reader.tail.extend_from_slice(rest);
                self.at = self.bytes.len();
                Ok(self.end())
            }
        }
    }

    /// Moves bytes into the tail until it has `len` or no more are there.
    fn fill_tail(&mut self, len: usize) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let missing = len.saturating_sub(self.reader.tail.len()).min(rest.len());
        self.reader
            .tail
            .extend_from_slice(rest.get(..missing).unwrap_or_default());
        self.at = self.at.saturating_add(missing);
    }

    /// Returns kind and length of body of the frame `bytes` begins with, `None` if its header is incomplete.
    fn header(&self, bytes: &[u8]) -> Result<Option<(u8, usize)>, FrameError> {
        let Some([high, middle, low, kind]) = bytes.first_chunk::<FRAME_HEADER_LEN>() else {
            return Ok(None);
        };
        let len = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
        let max = self.reader.len_max;
        if len > max {
            Err(FrameError::TooLong { len, max })
        } else {
            Ok(Some((*kind, len)))
        }
    }

    /// Notes that all bytes were used, so that the stream goes on with the next.
    const fn end(&mut self) -> Option<(u8, usize)> {
        self.ended = true;
        self.reader.broken = false;
        None
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
