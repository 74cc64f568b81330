//! Why a packet cannot be written, and the frame around what is written.

use crate::field::VARIABLE_BYTE_INTEGER_MAX;

/// Why a packet cannot be encoded. Always the caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A field is longer than its length can say; in bytes.
    #[error("{field} has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// Its length.
        len: usize,
        /// The largest length.
        max: usize,
    },
    /// The packet would break a rule of the standard.
    #[error("{what}")]
    Rule {
        /// The rule, with its section.
        what: &'static str,
    },
}

impl EncodeError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "send less in one message",
            Self::Rule { .. } => "report this as an error of fieldgate",
        }
    }
}

/// Appends a packet: first byte, remaining length, then what `body` appends. On an error `out` is unchanged.
pub(crate) fn put_packet(
    out: &mut Vec<u8>,
    first: u8,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.push(first);
    let result = put_with_length(out, "packet", body);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Appends what `body` appends, behind its length as a variable byte integer.
pub(crate) fn put_with_length(
    out: &mut Vec<u8>,
    field: &'static str,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    body(out)?;
    let len = out.len() - start;
    let max = VARIABLE_BYTE_INTEGER_MAX as usize;
    let Some(value) = u32::try_from(len)
        .ok()
        .filter(|value| *value <= VARIABLE_BYTE_INTEGER_MAX)
    else {
        return Err(EncodeError::TooLong { field, len, max });
    };
    // The length's own size is known only now: it is written behind the body and rotated to the front.
    let before = out.len();
    crate::field::put_variable_byte_integer(out, value);
    let length_len = out.len() - before;
    if let Some(section) = out.get_mut(start..) {
        section.rotate_right(length_len);
    }
    Ok(())
}
