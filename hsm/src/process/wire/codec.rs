//! Reading and writing plain values.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::{FRAME_BYTES_MAX, FRAME_BYTES_MIN, VERSION, WireError, check_length, texts};
use crate::pkcs11::{KeyOrigin, KeySummary, Recoveries, TokenState};
use crate::process::SandboxReport;
use crate::secret::{Secret, SecretSource};
use crate::settings::{SandboxSettings, Settings};
use crate::signer::{Algorithm, PublicKey};
use crate::uri::Pkcs11Uri;

/// A value with a form on the wire.
pub(super) trait Wire: Sized {
    fn put(&self, writer: &mut Writer);
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError>;
}

/// A frame in the making.
pub(super) struct Writer {
    /// Never grows beyond the room it began with, so that no copy of a secret stays behind.
    bytes: Zeroizing<Vec<u8>>,
    /// Bytes that were to be written, those that found no room included.
    wanted: usize,
}

impl Writer {
    pub(super) fn new(kind: u8, id: u32) -> Self {
        let mut writer = Self {
            bytes: Zeroizing::new(Vec::with_capacity(LENGTH_BYTES.saturating_add(FRAME_BYTES_MAX))),
            wanted: 0,
        };
        writer.raw(&[0; LENGTH_BYTES]);
        writer.raw(&[VERSION, kind]);
        writer.raw(&id.to_be_bytes());
        writer
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.wanted = self.wanted.saturating_add(bytes.len());
        if self.wanted <= self.bytes.capacity() {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn length(&mut self, length: usize) {
        // What does not fit 32 bits does not fit the frame either, and is refused at the end.
        self.raw(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }

    /// Ends the frame by writing its length into its beginning.
    pub(super) fn finish(mut self) -> Result<Zeroizing<Vec<u8>>, WireError> {
        let length = self.wanted.saturating_sub(LENGTH_BYTES);
        check_length(length)?;
        let number = u32::try_from(length).map_err(|_| WireError::Length {
            have: length,
            min: FRAME_BYTES_MIN,
            max: FRAME_BYTES_MAX,
        })?;
        for (to, from) in self.bytes.iter_mut().zip(number.to_be_bytes()) {
            *to = from;
        }
        Ok(self.bytes)
    }
}

/// A frame being read.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// How many values stand within values of their own kind at this point.
    depth: u8,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            depth: 0,
        }
    }

    fn raw(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let missing = length.saturating_sub(self.rest.len());
        let (bytes, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(WireError::Truncated { missing })?;
        self.rest = rest;
        Ok(bytes)
    }

    fn length(&mut self) -> Result<usize, WireError> {
        let length = u32::take(self)?;
        // Every element has a byte at least, so a length beyond the rest is wrong whatever it counts.
        match usize::try_from(length) {
            Ok(length) if length <= self.rest.len() => Ok(length),
            Ok(length) => Err(WireError::Truncated {
                missing: length.saturating_sub(self.rest.len()),
            }),
            Err(_) => Err(WireError::Truncated { missing: usize::MAX }),
        }
    }

    /// Sees that nothing follows.
    pub(super) const fn end(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(WireError::Trailing {
            bytes: self.rest.len(),
        })
    }
}

/// Gives a structure its form: its fields in the order named.
macro_rules! wire_struct {
    ($type:ident { $($field:ident),* $(,)? }) => {
        impl $crate::process::wire::codec::Wire for $type {
            fn put(&self, writer: &mut $crate::process::wire::codec::Writer) {
                $( $crate::process::wire::codec::Wire::put(&self.$field, writer); )*
            }

            fn take(
                reader: &mut $crate::process::wire::codec::Reader<'_>,
            ) -> Result<Self, $crate::process::wire::WireError> {
                Ok(Self { $( $field: $crate::process::wire::codec::Wire::take(reader)?, )* })
            }
        }
    };
}
pub(super) use wire_struct;

/// Gives an enumeration its form: the number of the variant, then its fields in the order named.
macro_rules! wire_enum {
    ($type:ident, $what:literal {
        $( $code:literal => $variant:ident $( { $($field:ident),* $(,)? } )? $( ( $item:ident ) )? ),* $(,)?
    }) => {
        impl $crate::process::wire::codec::Wire for $type {
            fn put(&self, writer: &mut $crate::process::wire::codec::Writer) {
                match self {
                    $( Self::$variant $( { $($field),* } )? $( ($item) )? => {
                        <u8 as $crate::process::wire::codec::Wire>::put(&$code, writer);
                        $( $( $crate::process::wire::codec::Wire::put($field, writer); )* )?
                        $( $crate::process::wire::codec::Wire::put($item, writer); )?
                    } )*
                }
            }

            fn take(
                reader: &mut $crate::process::wire::codec::Reader<'_>,
            ) -> Result<Self, $crate::process::wire::WireError> {
                let code: u8 = $crate::process::wire::codec::Wire::take(reader)?;
                Ok(match code {
                    $( $code => Self::$variant
                        $( { $($field: $crate::process::wire::codec::Wire::take(reader)?),* } )?
                        $( ({ let $item = $crate::process::wire::codec::Wire::take(reader)?; $item }) )?,
                    )*
                    got => {
                        return Err($crate::process::wire::WireError::Value { what: $what, got: got.into() });
                    }
                })
            }
        }
    };
}
pub(super) use wire_enum;

/// Gives a number its big-endian form.
macro_rules! wire_number {
    ($($type:ident),*) => {
        $(
            impl Wire for $type {
                fn put(&self, writer: &mut Writer) {
                    writer.raw(&self.to_be_bytes());
                }

                fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
                    Ok(Self::from_be_bytes(Wire::take(reader)?))
                }
            }
        )*
    };
}

wire_number!(u8, u32, i32, u64);

impl<const N: usize> Wire for [u8; N] {
    fn put(&self, writer: &mut Writer) {
        writer.raw(self);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let bytes = reader.raw(N)?;
        Self::try_from(bytes).map_err(|_| WireError::Truncated { missing: N })
    }
}

impl Wire for usize {
    fn put(&self, writer: &mut Writer) {
        u64::try_from(*self).unwrap_or(u64::MAX).put(writer);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let got = u64::take(reader)?;
        Self::try_from(got).map_err(|_| WireError::Value { what: "size", got })
    }
}

impl Wire for bool {
    fn put(&self, writer: &mut Writer) {
        u8::from(*self).put(writer);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match u8::take(reader)? {
            0 => Ok(false),
            1 => Ok(true),
            got => Err(WireError::Value {
                what: "truth value",
                got: got.into(),
            }),
        }
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, writer: &mut Writer) {
        self.is_some().put(writer);
        if let Some(value) = self {
            value.put(writer);
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match bool::take(reader)? {
            true => Some(T::take(reader)?),
            false => None,
        })
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, writer: &mut Writer) {
        writer.length(self.len());
        for value in self {
            value.put(writer);
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let length = reader.length()?;
        (0..length).map(|_| T::take(reader)).collect()
    }
}

impl<T: Wire> Wire for Box<T> {
    fn put(&self, writer: &mut Writer) {
        T::put(self, writer);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        if reader.depth >= DEPTH_MAX {
            return Err(WireError::Depth);
        }
        reader.depth = reader.depth.saturating_add(1);
        let value = T::take(reader)?;
        reader.depth = reader.depth.saturating_sub(1);
        Ok(Self::new(value))
    }
}

impl Wire for String {
    fn put(&self, writer: &mut Writer) {
        writer.length(self.len());
        writer.raw(self.as_bytes());
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let length = reader.length()?;
        let text = str::from_utf8(reader.raw(length)?).map_err(|_| WireError::Utf8)?;
        Ok(text.to_owned())
    }
}

impl Wire for &'static str {
    fn put(&self, writer: &mut Writer) {
        writer.length(self.len());
        writer.raw(self.as_bytes());
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        texts::fixed(&String::take(reader)?)
    }
}

impl Wire for PathBuf {
    fn put(&self, writer: &mut Writer) {
        let bytes = self.as_os_str().as_bytes();
        writer.length(bytes.len());
        writer.raw(bytes);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let length = reader.length()?;
        Ok(OsString::from_vec(reader.raw(length)?.to_vec()).into())
    }
}

impl Wire for Duration {
    fn put(&self, writer: &mut Writer) {
        self.as_secs().put(writer);
        self.subsec_nanos().put(writer);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let seconds = u64::take(reader)?;
        let nanos = u32::take(reader)?;
        if nanos >= 1_000_000_000 {
            return Err(WireError::Value {
                what: "part of a second",
                got: nanos.into(),
            });
        }
        Ok(Self::new(seconds, nanos))
    }
}

impl Wire for Secret {
    fn put(&self, writer: &mut Writer) {
        writer.length(self.expose().len());
        writer.raw(self.expose());
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let length = reader.length()?;
        Ok(Self::new(reader.raw(length)?.to_vec()))
    }
}

impl Wire for Algorithm {
    fn put(&self, writer: &mut Writer) {
        self.code().put(writer);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let got = u8::take(reader)?;
        Self::from_code(got).ok_or_else(|| WireError::Value {
            what: "algorithm",
            got: got.into(),
        })
    }
}

impl Wire for PublicKey {
    fn put(&self, writer: &mut Writer) {
        self.algorithm().put(writer);
        writer.raw(self.as_bytes());
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match Algorithm::take(reader)? {
            Algorithm::P256 => {
                let point: [u8; 65] = Wire::take(reader)?;
                let [form, ..] = point;
                Self::from_bytes(Algorithm::P256, &point).ok_or_else(|| WireError::Value {
                    what: "form of a public key",
                    got: form.into(),
                })
            }
            Algorithm::Ed25519 => Ok(Self::Ed25519(Wire::take(reader)?)),
        }
    }
}

impl Wire for Pkcs11Uri {
    fn put(&self, writer: &mut Writer) {
        self.to_string().put(writer);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        String::take(reader)?.parse().map_err(|_| WireError::Uri)
    }
}

wire_enum!(SecretSource, "place of a secret" {
    1 => Credential(name),
    2 => File(path),
    3 => Environment(variable),
});
wire_struct!(SandboxSettings {
    extra_paths,
    network,
    environment
});
wire_enum!(Settings, "kind of signer" {
    1 => Pkcs11 { module, uri, pin, sandbox },
    2 => File { path, key },
});
wire_enum!(SandboxReport, "report of a sandbox" {
    1 => Full,
    2 => Partial(gaps),
});
wire_struct!(KeyOrigin {
    local,
    never_extractable,
    always_sensitive
});
wire_struct!(KeySummary {
    uri,
    public_key,
    problem
});
wire_struct!(Recoveries {
    key,
    session,
    login,
    module,
    failed
});
wire_struct!(TokenState {
    uri,
    pin_state,
    is_write_protected
});

/// Bytes of a frame's length.
pub(super) const LENGTH_BYTES: usize = 4;
/// Most causes of causes in an error; this program makes two.
const DEPTH_MAX: u8 = 4;
