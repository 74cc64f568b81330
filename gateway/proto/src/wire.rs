//! Reading and writing the primitive fields of PROTOCOL.md §1.

/// Why bytes from a peer could not be read. Always the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The input ends before the field does; lengths in bytes.
    #[error("{field} needs {need} bytes, {have} are left")]
    Truncated {
        /// Which field.
        field: &'static str,
        /// Bytes the field needs.
        need: usize,
        /// Bytes left.
        have: usize,
    },
    /// Bytes follow the last field.
    #[error("{extra} bytes follow the end")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// The value is not one this field can have.
    #[error("{field} has the value {value}, which is not allowed")]
    Value {
        /// Which field.
        field: &'static str,
        /// The value found.
        value: u64,
    },
    /// A text is not UTF-8.
    #[error("{field} is not UTF-8")]
    Utf8 {
        /// Which field.
        field: &'static str,
    },
}

/// The largest value of a variable-length integer (RFC 9000 §16).
pub const VARINT_MAX: u64 = (1 << 62) - 1;

/// A cursor over bytes from outside; never reads past the end, never allocates.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns the bytes not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Returns whether everything has been read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes `len` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if fewer are left.
    pub fn bytes(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], WireError> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return Err(WireError::Truncated {
                field,
                need: len,
                have: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(head)
    }

    /// Takes an array of `N` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if fewer are left.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WireError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(WireError::Truncated {
                field,
                need: N,
                have: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(*head)
    }

    /// Takes a `u8`.
    ///
    /// # Errors
    /// [`WireError::Truncated`] at the end.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    /// Takes a big-endian `u16`.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if fewer than 2 bytes are left.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    /// Takes a big-endian `u32`.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if fewer than 4 bytes are left.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    /// Takes a big-endian `u64`.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if fewer than 8 bytes are left.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    /// Takes a variable-length integer in its shortest form (RFC 9000 §16).
    ///
    /// # Errors
    /// [`WireError::Truncated`], or [`WireError::Value`] for a form longer than needed.
    pub fn varint(&mut self, field: &'static str) -> Result<u64, WireError> {
        let Some(first) = self.rest.first() else {
            return Err(WireError::Truncated {
                field,
                need: 1,
                have: 0,
            });
        };
        let len = 1_usize << (first >> 6);
        let bytes = self.bytes(field, len)?;
        let value = bytes
            .iter()
            .fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
            & (VARINT_MAX >> (8 * (8 - len)));
        if varint_len(value) != len {
            return Err(WireError::Value { field, value });
        }
        Ok(value)
    }

    /// Takes bytes behind a `u8` length.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if the input ends before.
    pub fn bytes8(&mut self, field: &'static str) -> Result<&'a [u8], WireError> {
        let len = self.u8(field)?;
        self.bytes(field, usize::from(len))
    }

    /// Takes bytes behind a `u16` length.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if the input ends before.
    pub fn bytes16(&mut self, field: &'static str) -> Result<&'a [u8], WireError> {
        let len = self.u16(field)?;
        self.bytes(field, usize::from(len))
    }

    /// Takes bytes behind a variable-length length.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if the input ends before, [`WireError::Value`] for a bad length.
    pub fn bytes_varint(&mut self, field: &'static str) -> Result<&'a [u8], WireError> {
        let len = self.varint(field)?;
        let len = usize::try_from(len).map_err(|_| WireError::Value { field, value: len })?;
        self.bytes(field, len)
    }

    /// Takes UTF-8 text behind a `u8` length.
    ///
    /// # Errors
    /// [`WireError::Truncated`] or [`WireError::Utf8`].
    pub fn text8(&mut self, field: &'static str) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes8(field)?).map_err(|_| WireError::Utf8 { field })
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`WireError::Trailing`] if bytes are left.
    pub const fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing {
                extra: self.rest.len(),
            })
        }
    }
}

/// Returns the bytes that `value` takes as a variable-length integer: 1, 2, 4 or 8.
#[must_use]
pub const fn varint_len(value: u64) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

/// Appends `value` as a variable-length integer (RFC 9000 §16).
///
/// # Panics
/// If `value` exceeds [`VARINT_MAX`]: every caller writes lengths and counters of its own.
pub fn put_varint(out: &mut Vec<u8>, value: u64) {
    assert!(
        value <= VARINT_MAX,
        "{value} does not fit a variable-length integer"
    );
    let bytes = value.to_be_bytes();
    match varint_len(value) {
        1 => out.push(bytes[7]),
        2 => out.extend_from_slice(&[bytes[6] | 0x40, bytes[7]]),
        4 => out.extend_from_slice(&[bytes[4] | 0x80, bytes[5], bytes[6], bytes[7]]),
        _ => {
            out.push(bytes[0] | 0xc0);
            out.extend_from_slice(&bytes[1..]);
        }
    }
}

/// Appends `bytes` behind a `u8` length.
///
/// # Panics
/// If `bytes` is longer than 255: callers check what comes from outside.
pub fn put_bytes8(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(u8::try_from(bytes.len()).expect("callers keep the field within 255 bytes"));
    out.extend_from_slice(bytes);
}

/// Appends `bytes` behind a `u16` length.
///
/// # Panics
/// If `bytes` is longer than 65,535: callers check what comes from outside.
pub fn put_bytes16(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).expect("callers keep the field within 65,535 bytes");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends `bytes` behind a variable-length length.
pub fn put_bytes_varint(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 9000 §A.1, the examples of the sample decoding algorithm.
    #[test]
    fn decodes_the_examples_of_rfc_9000() {
        let cases: [(&[u8], u64); 4] = [
            (
                &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c],
                151_288_809_941_952_652,
            ),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ];
        for (bytes, value) in cases {
            assert_eq!(Reader::new(bytes).varint("x"), Ok(value));
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn refuses_a_varint_longer_than_needed() {
        assert_eq!(
            Reader::new(&[0x40, 0x25]).varint("x"),
            Err(WireError::Value {
                field: "x",
                value: 37
            })
        );
    }

    proptest! {
        #[test]
        fn varints_come_back(value in 0..=VARINT_MAX) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint("x"), Ok(value));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            let _ = reader.varint("x");
            let _ = reader.bytes8("x");
            let _ = reader.text8("x");
            let _ = reader.bytes_varint("x");
        }
    }
}
