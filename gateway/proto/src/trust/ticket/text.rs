//! The text form of a ticket: Bech32m (BIP 350), and what is wrong with a text that is none.

use std::{fmt, str::FromStr};

use bech32::{Bech32m, Hrp, primitives::decode::CheckedHrpstring};
use zeroize::Zeroizing;

use super::{TICKET_LEN_MAX, TICKET_TEXT_LEN_MAX, Ticket, TicketError};

/// Human-readable part.
const PREFIX: Hrp = Hrp::parse_unchecked("fgticket");
/// The human-readable part with the separator.
const BEGINNING: &str = "fgticket1";
/// What an identifier begins with.
const IDENTIFIER_BEGINNING: &str = "fg1";
/// The characters behind the separator (BIP 173).
const ALPHABET: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";

impl Ticket {
    /// Returns the text form in small letters.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        // Room from the start: a string that grows leaves copies of the secret behind.
        let mut text = Zeroizing::new(String::with_capacity(TICKET_TEXT_LEN_MAX));
        self.write_to(&mut *text);
        text
    }

    /// Returns the text form in capital letters, which take less room in a QR code (alphanumeric mode).
    #[must_use]
    pub fn to_capitals(&self) -> Zeroizing<String> {
        let mut text = self.to_text();
        text.make_ascii_uppercase();
        text
    }

    fn write_to(&self, text: &mut dyn fmt::Write) {
        struct Writer<'a>(&'a mut dyn fmt::Write);
        impl fmt::Write for Writer<'_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.write_str(text)
            }
        }
        bech32::encode_lower_to_fmt::<Bech32m, _>(&mut Writer(text), PREFIX, &self.encode())
            .expect("a ticket is short enough for Bech32m, and strings take all text");
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    /// Reads the text form in small or capital letters. Spaces and line ends do not count, wherever they are: chat
    /// programs and terminals break long lines.
    fn from_str(text: &str) -> Result<Self, TicketError> {
        let mut compact = Zeroizing::new(String::with_capacity(TICKET_TEXT_LEN_MAX));
        for (at, found) in text.chars().filter(|found| !found.is_whitespace()).enumerate() {
            if at == TICKET_TEXT_LEN_MAX {
                return Err(TicketError::TooLong { len: text.len() });
            }
            if !found.is_ascii_graphic() {
                return Err(TicketError::Character {
                    found,
                    at: at.saturating_add(1),
                });
            }
            compact.push(found);
        }
        if compact.is_empty() {
            return Err(TicketError::Empty);
        }
        let checked = match CheckedHrpstring::new::<Bech32m>(&compact) {
            Ok(checked) if checked.hrp() == PREFIX => checked,
            Ok(checked) if checked.hrp() == Hrp::parse_unchecked("fg") => {
                return Err(TicketError::Identifier);
            }
            Ok(_) => return Err(TicketError::OtherKind),
            Err(_) => return Err(what_is_wrong(&mut compact)),
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(TICKET_LEN_MAX.saturating_add(1)));
        bytes.extend(checked.byte_iter().take(TICKET_LEN_MAX.saturating_add(1)));
        let ticket = Self::decode(&bytes)?;
        // One text per ticket: one with other padding bits would pass the checksum.
        if !ticket.to_text().eq_ignore_ascii_case(&compact) {
            return Err(TicketError::Mistyped);
        }
        Ok(ticket)
    }
}

/// Says what is wrong with a text of printable ASCII that is not Bech32m.
fn what_is_wrong(text: &mut Zeroizing<String>) -> TicketError {
    let (capitals, small) = (
        text.contains(|found: char| found.is_ascii_uppercase()),
        text.contains(|found: char| found.is_ascii_lowercase()),
    );
    text.make_ascii_lowercase();
    let Some(data) = text.strip_prefix(BEGINNING) else {
        return if text.starts_with(IDENTIFIER_BEGINNING) {
            TicketError::Identifier
        } else {
            TicketError::OtherKind
        };
    };
    let stranger = data.char_indices().find(|(_, found)| !ALPHABET.contains(*found));
    match stranger {
        Some((at, found)) => TicketError::Character {
            found,
            at: at.saturating_add(BEGINNING.len()).saturating_add(1),
        },
        None if capitals && small => TicketError::MixedCase,
        None => TicketError::Mistyped,
    }
}
