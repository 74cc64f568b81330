//! The name of an identity.

use std::{fmt, str::FromStr};

use bech32::{Bech32m, Hrp, primitives::decode::CheckedHrpstring};

/// The hash of an identity's first change: 32 bytes, written as Bech32m (BIP 350) beginning with `fg1`.
///
/// ```
/// use fieldgate_proto::identity::Identifier;
///
/// let text = Identifier::from_bytes([7; 32]).to_string();
/// assert!(text.starts_with("fg1"));
/// assert_eq!(text.parse(), Ok(Identifier::from_bytes([7; 32])));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier([u8; 32]);

/// Why a text is not an identifier. Always a typing or copying error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// The checksum does not fit, or a character does not exist in Bech32.
    #[error("identifier has a typing error")]
    Checksum,
    /// The text is Bech32m of something else.
    #[error("text is not an identifier: it does not start with fg1")]
    Prefix,
    /// The text is too short or too long.
    #[error("identifier holds {got} bytes, not 32")]
    Length {
        /// Bytes it holds.
        got: usize,
    },
}

impl IdentifierError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Checksum => "copy the identifier again, whole, from `fieldgate identity show`",
            Self::Prefix | Self::Length { .. } => {
                "an identifier is the text `fieldgate identity show` prints: fg1 and 58 more characters"
            }
        }
    }
}

/// Human-readable part of the text form.
const PREFIX: Hrp = Hrp::parse_unchecked("fg");

impl Identifier {
    /// Takes the hash.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 32 bytes are far below the length limit of the code, the only other error.
        bech32::encode_lower_to_fmt::<Bech32m, _>(f, PREFIX, &self.0).map_err(|_| fmt::Error)
    }
}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Identifier {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        let checked = CheckedHrpstring::new::<Bech32m>(text).map_err(|_| IdentifierError::Checksum)?;
        if checked.hrp() != PREFIX {
            return Err(IdentifierError::Prefix);
        }
        let mut bytes = [0; 32];
        let mut got = 0;
        for byte in checked.byte_iter() {
            if let Some(slot) = bytes.get_mut(got) {
                *slot = byte;
            }
            got += 1;
        }
        let identifier = Self(bytes);
        // One text per identifier: a text with other padding bits or in capitals would pass the checksum.
        if got != 32 {
            return Err(IdentifierError::Length { got });
        }
        if !identifier.to_string().eq_ignore_ascii_case(text) {
            return Err(IdentifierError::Checksum);
        }
        Ok(identifier)
    }
}
