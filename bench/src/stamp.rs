//! Time stamps inside payloads.
//!
//! ```text
//! payload = "FGB1t=" | 16 hexadecimal digits: nanoseconds of the monotonic clock | "x" to the wanted size
//! ```
//! Text, so that a stamp survives JSON, and marked, so that it is found in any envelope.

/// Size of a payload that holds nothing but its stamp, in bytes.
pub(crate) const STAMP_BYTES: usize = MARK.len() + DIGITS;

const MARK: &[u8; 6] = b"FGB1t=";
const DIGITS: usize = 16;

/// Makes a payload of `size` bytes, at least [`STAMP_BYTES`], with a zero stamp at its start, which says that it is not timed.
pub(crate) fn payload(size: usize) -> Vec<u8> {
    let mut payload = Vec::with_capacity(size.max(STAMP_BYTES));
    payload.extend_from_slice(MARK);
    payload.resize(STAMP_BYTES, b'0');
    payload.resize(size.max(STAMP_BYTES), b'x');
    payload
}

/// Writes `time` into the stamp at the start of `payload`; a shorter slice keeps what it has.
pub(crate) fn write(payload: &mut [u8], time: u64) {
    let Some(digits) = payload.get_mut(MARK.len()..STAMP_BYTES) else {
        return;
    };
    for (index, digit) in digits.iter_mut().rev().enumerate() {
        let nibble = (time >> (index * 4)) & 0xf;
        *digit = HEX[usize::try_from(nibble).unwrap_or(0)];
    }
}

/// Finds the first stamp in `bytes`.
pub(crate) fn find(bytes: &[u8]) -> Option<u64> {
    let mut from = 0;
    loop {
        let rest = bytes.get(from..)?;
        let at = rest.iter().position(|byte| *byte == MARK[0])?;
        let candidate = rest.get(at..)?;
        if candidate.starts_with(MARK) {
            let digits = candidate.get(MARK.len()..STAMP_BYTES)?;
            if let Some(time) = parse(digits) {
                return Some(time);
            }
        }
        from += at + 1;
    }
}

fn parse(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |time: u64, digit| {
        let value = char::from(*digit).to_digit(16)?;
        Some(time << 4 | u64::from(value))
    })
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{STAMP_BYTES, find, payload, write};

    #[test]
    fn a_payload_has_the_wanted_size_but_always_room_for_its_stamp() {
        assert_eq!(payload(100).len(), 100);
        assert_eq!(payload(3).len(), STAMP_BYTES);
    }

    #[test]
    fn a_broken_stamp_is_passed_over() {
        assert_eq!(find(b"FGB1t=00000000000000zzFGB1t=000000000000000a"), Some(10));
        assert_eq!(find(b"FGB1t=0000"), None);
        assert_eq!(find(b"FFFF"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_found_in_any_envelope(time: u64, before in "[a-z{\":]{0,40}", size in 0..200usize) {
            let mut stamped = payload(size);
            write(&mut stamped, time);
            let mut envelope = before.into_bytes();
            envelope.extend_from_slice(&stamped);
            prop_assert_eq!(find(&envelope), Some(time));
        }

        #[test]
        fn any_bytes_are_searched_without_panic(bytes: Vec<u8>) {
            let _ = find(&bytes);
        }
    }
}
