//! Datagrams in a stream: what goes between two nodes for one pair of UDP addresses (PROTOCOL.md §15).
//!
//! `datagram = u16 length | bytes`, one after the other, in whatever pieces the stream has them.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

/// What a stream of datagrams asks for as its target: whoever knows of none refuses that.
pub const FLOW_TARGET: &str = "udp";

/// Longest datagram that there can be, in bytes.
pub const DATAGRAM_LEN_MAX: usize = u16::MAX as usize;

/// Appends one datagram; false if it is longer than [`DATAGRAM_LEN_MAX`].
pub fn put_datagram(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(length) = u16::try_from(bytes.len()) else {
        return false;
    };
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    true
}

/// Puts the datagrams of a stream together. Holds at most one that is not complete.
#[derive(Debug, Default)]
pub struct Datagrams {
    /// The beginning of one, with its length.
    begun: Vec<u8>,
}

impl Datagrams {
    /// Takes bytes of the stream; calls `each` with every datagram that is complete with them.
    pub fn handle_bytes(&mut self, bytes: &[u8], each: &mut dyn FnMut(&[u8])) {
        let mut rest = bytes;
        while !self.begun.is_empty() && !rest.is_empty() {
            // First its length, then as much as that says.
            let whole = length_of(&self.begun).map_or(HEAD_LEN, |length| HEAD_LEN.saturating_add(length));
            let missing = whole.saturating_sub(self.begun.len());
            let (now, later) = rest.split_at_checked(missing).unwrap_or((rest, &[]));
            self.begun.extend_from_slice(now);
            rest = later;
            if let Some((datagram, [])) = split(&self.begun) {
                each(datagram);
                self.begun.clear();
                self.begun.shrink_to(KEPT_MAX);
            }
        }
        while let Some((datagram, later)) = split(rest) {
            each(datagram);
            rest = later;
        }
        self.begun.extend_from_slice(rest);
    }
}

fn length_of(bytes: &[u8]) -> Option<usize> {
    let head = bytes.first_chunk::<HEAD_LEN>()?;
    Some(usize::from(u16::from_be_bytes(*head)))
}

/// Takes the first datagram off, if it is complete.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = length_of(bytes)?;
    bytes.get(HEAD_LEN..)?.split_at_checked(length)
}

/// Bytes before a datagram.
const HEAD_LEN: usize = 2;
/// Memory kept for the next one.
const KEPT_MAX: usize = 2 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_too_long_is_not_written() {
        let mut out = Vec::new();
        assert!(put_datagram(&[7; DATAGRAM_LEN_MAX], &mut out));
        assert_eq!(out.len(), DATAGRAM_LEN_MAX + 2);
        assert!(!put_datagram(&[7; DATAGRAM_LEN_MAX + 1], &mut out));
        assert_eq!(out.len(), DATAGRAM_LEN_MAX + 2);
    }

    #[test]
    fn memory_of_a_long_one_is_given_back() {
        let mut datagrams = Datagrams::default();
        let mut bytes = Vec::new();
        put_datagram(&[7; DATAGRAM_LEN_MAX], &mut bytes);
        let mut count = 0;
        for byte in bytes.chunks(1_000) {
            datagrams.handle_bytes(byte, &mut |_| count += 1);
        }
        assert_eq!(count, 1);
        assert!(datagrams.begun.capacity() <= KEPT_MAX);
    }

    proptest! {
        #[test]
        fn datagrams_stay_whole_in_whatever_pieces_they_come(
            datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
            piece in 1_usize..400,
        ) {
            let mut bytes = Vec::new();
            for datagram in &datagrams {
                prop_assert!(put_datagram(datagram, &mut bytes));
            }
            let mut came: Vec<Vec<u8>> = Vec::new();
            let mut reader = Datagrams::default();
            for piece in bytes.chunks(piece) {
                reader.handle_bytes(piece, &mut |datagram| came.push(datagram.to_vec()));
            }
            prop_assert_eq!(came, datagrams);
            prop_assert!(reader.begun.is_empty());
        }
    }
}
