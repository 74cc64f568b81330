//! The text form of identifiers.

use std::fmt;
use std::str::FromStr;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};

/// The identifier of a node: the SHA-256 of its first identity change (`PROTOCOL.md` §2.1).
///
/// Its text form is Bech32m (BIP 350) with the human-readable part `fg`, in lower case: `fg1…`, 61 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier([u8; Self::LEN]);

impl Identifier {
    /// Size in bytes.
    pub const LEN: usize = 32;

    /// Takes the 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bech32::encode_lower_to_fmt::<Bech32m, _>(f, HRP, &self.0).map_err(|_| fmt::Error)
    }
}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identifier({self})")
    }
}

/// Why a text is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// It does not start as identifiers do.
    #[error("does not start with `fg1`")]
    Prefix,
    /// A character that Bech32m does not use, or mixed case.
    #[error("contains a character that identifiers do not have")]
    Character,
    /// The checksum is wrong.
    #[error("has a typing error: its checksum does not match")]
    Checksum,
    /// It is intact but of another size, in bytes.
    #[error("holds {have} bytes, not 32")]
    Length {
        /// Bytes it holds.
        have: usize,
    },
}

impl IdentifierError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Prefix => {
                "`fieldgate identity show` on the other node prints its identifier; it looks like `fg1qy352…`"
            }
            Self::Character => {
                "identifiers have lower-case letters and digits, without 1, b, i and o after `fg1`"
            }
            Self::Checksum | Self::Length { .. } => {
                "copy the whole identifier again from `fieldgate identity show` on the other node"
            }
        }
    }
}

impl FromStr for Identifier {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        let rest = text.strip_prefix("fg1").ok_or(IdentifierError::Prefix)?;
        if !rest.chars().all(|c| ALPHABET.contains(c)) {
            return Err(IdentifierError::Character);
        }
        let checked = CheckedHrpstring::new::<Bech32m>(text).map_err(|_| IdentifierError::Checksum)?;
        let bytes: Vec<u8> = checked.byte_iter().collect();
        let have = bytes.len();
        let bytes = bytes.try_into().map_err(|_| IdentifierError::Length { have })?;
        let identifier = Self(bytes);
        // Four bits of padding are left over; only zeros are the text form, or one identifier would have several.
        if identifier.to_string() == text {
            Ok(identifier)
        } else {
            Err(IdentifierError::Checksum)
        }
    }
}

/// Human-readable part.
const HRP: Hrp = Hrp::parse_unchecked("fg");
/// Characters of the data part (BIP 173).
const ALPHABET: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_form_is_61_lower_case_characters() {
        let text = Identifier::from_bytes([7; 32]).to_string();
        assert_eq!(text.len(), 61);
        assert!(
            text.starts_with("fg1") && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        );
    }

    #[test]
    fn each_fault_has_its_own_error() {
        let good = Identifier::from_bytes([7; 32]).to_string();
        assert_eq!("bc1abc".parse::<Identifier>(), Err(IdentifierError::Prefix));
        assert_eq!(
            good.to_uppercase().parse::<Identifier>(),
            Err(IdentifierError::Prefix)
        );
        assert_eq!(
            format!("{good}B").parse::<Identifier>(),
            Err(IdentifierError::Character)
        );
        assert_eq!(good[..60].parse::<Identifier>(), Err(IdentifierError::Checksum));
        let short = bech32::encode::<Bech32m>(HRP, &[1; 20]).expect("20 bytes fit");
        assert_eq!(
            short.parse::<Identifier>(),
            Err(IdentifierError::Length { have: 20 })
        );
        let other_checksum = bech32::encode::<bech32::Bech32>(HRP, &[7; 32]).expect("32 bytes fit");
        assert_eq!(
            other_checksum.parse::<Identifier>(),
            Err(IdentifierError::Checksum)
        );
    }

    proptest! {
        #[test]
        fn round_trip(bytes: [u8; 32]) {
            let identifier = Identifier::from_bytes(bytes);
            prop_assert_eq!(identifier.to_string().parse(), Ok(identifier));
        }

        #[test]
        fn every_single_typing_error_is_found(bytes: [u8; 32], at in 3_usize..61, to in 0_usize..32) {
            let text = Identifier::from_bytes(bytes).to_string();
            let letter = &ALPHABET[to..=to];
            prop_assume!(&text[at..=at] != letter);
            let wrong = format!("{}{letter}{}", &text[..at], &text[at + 1..]);
            prop_assert!(wrong.parse::<Identifier>().is_err());
        }

        #[test]
        fn any_text_is_refused_or_is_the_text_form(text in "\\PC{0,80}") {
            if let Ok(identifier) = text.parse::<Identifier>() {
                prop_assert_eq!(identifier.to_string(), text);
            }
        }
    }
}
