//! The right to become a member, as text that is carried by hand (PROTOCOL.md §10.3).

mod text;

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    crypto::{Secret, hmac_sha256, label16, sha256},
    entropy::Entropy,
    identity::{Identifier, SKEW_SECS},
    route,
    time::WallTime,
    wire::{Reader, WireError, put_bytes8},
};

use super::{TrustError, credential::check_text};

/// Ways to the authority in a ticket.
pub const WAYS_MAX: usize = 4;
/// Longest text form, in characters: what Bech32m protects against typing errors, and what a QR code takes.
pub const TICKET_TEXT_LEN_MAX: usize = 1000;

/// Bytes of the longest ticket whose text is no longer than [`TICKET_TEXT_LEN_MAX`]: less the human-readable part,
/// the separator and the checksum, 5 bits each character.
const TICKET_LEN_MAX: usize = (TICKET_TEXT_LEN_MAX - "fgticket1".len() - 6) * 5 / 8;
/// Version of the encoding.
const VERSION: u8 = 1;
const WAY_RELAY: u8 = 1;
const WAY_DIRECT: u8 = 2;
const LABEL_KEY: [u8; 16] = label16("FG1 ticket v1");

/// Why a text or a file is not a ticket that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// There is nothing.
    #[error("the ticket is empty")]
    Empty,
    /// It is longer than any ticket.
    #[error("the text has {len} characters, a ticket at most {TICKET_TEXT_LEN_MAX}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A character does not occur in tickets.
    #[error("character {at} is {found:?}, which does not occur in tickets")]
    Character {
        /// The character.
        found: char,
        /// Where it is, from 1; spaces do not count.
        at: usize,
    },
    /// Capital and small letters are mixed.
    #[error("the ticket has capital and small letters")]
    MixedCase,
    /// The checksum does not fit: mistyped, or not whole.
    #[error("the ticket is mistyped or not whole")]
    Mistyped,
    /// It is an identifier.
    #[error("the text is the identifier of a node, not a ticket")]
    Identifier,
    /// It is something else.
    #[error("the text is not a ticket: it does not begin with fgticket1")]
    OtherKind,
    /// A later version of fieldgate issued it.
    #[error("the ticket has version {got}, and this node knows version {want}")]
    NewerVersion {
        /// The version found.
        got: u8,
        /// The version we speak.
        want: u8,
    },
    /// The checksum fits, and the content is not what PROTOCOL.md §10.3 describes.
    #[error("the content of the ticket is malformed")]
    Content(#[from] TrustError),
    /// It has ended.
    #[error("the ticket was valid until {not_after}, and it is {now} (seconds since 1970)")]
    Expired {
        /// Its end.
        not_after: u64,
        /// The time here.
        now: u64,
    },
}

impl TicketError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Empty | Self::OtherKind => {
                "a ticket is the text `fieldgate ticket issue` prints: it begins with fgticket1"
            }
            Self::TooLong { .. } => "pass one ticket and nothing else",
            Self::Character { .. } => {
                "compare it with the original: tickets have no 1 after the first, no b, i, o"
            }
            Self::MixedCase => "type the ticket in small letters only, or in capitals only",
            Self::Mistyped => "copy the ticket again, whole, from `fieldgate ticket issue`",
            Self::Identifier => "ask the operator of the authority for a ticket; the identifier is no secret",
            Self::NewerVersion { .. } => "upgrade this node",
            Self::Content(_) => "issue a new ticket",
            Self::Expired { .. } => "ask for a new ticket, and check this node's clock",
        }
    }
}

/// How an authority is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Through a relay.
    Relay {
        /// The relay's `host:port`.
        address: String,
        /// Who the relay is.
        relay: Identifier,
        /// The name the authority holds there, 1 to 128 bytes.
        name: String,
    },
    /// Straight.
    Direct {
        /// The authority's `host:port`.
        address: String,
    },
}

impl Way {
    /// Returns the `host:port` to dial.
    #[must_use]
    pub fn address(&self) -> &str {
        match self {
            Self::Relay { address, .. } | Self::Direct { address } => address,
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, TrustError> {
        let way = match reader.u8("kind of way")? {
            WAY_RELAY => Self::Relay {
                address: reader.text8("address")?.to_owned(),
                relay: Identifier::from_bytes(reader.array("relay")?),
                name: reader.text8("name at the relay")?.to_owned(),
            },
            WAY_DIRECT => Self::Direct {
                address: reader.text8("address")?.to_owned(),
            },
            kind => {
                return Err(WireError::Value {
                    field: "kind of way",
                    value: u64::from(kind),
                }
                .into());
            }
        };
        way.check()?;
        Ok(way)
    }

    /// Call only after [`Way::check`]: it bounds the texts.
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Relay { address, relay, name } => {
                out.push(WAY_RELAY);
                put_bytes8(out, address.as_bytes());
                out.extend_from_slice(relay.as_bytes());
                put_bytes8(out, name.as_bytes());
            }
            Self::Direct { address } => {
                out.push(WAY_DIRECT);
                put_bytes8(out, address.as_bytes());
            }
        }
    }

    fn check(&self) -> Result<(), TrustError> {
        let address = self.address();
        check_text("address", address, 1, ADDRESS_LEN_MAX)?;
        let host_and_port = address.rsplit_once(':').filter(|(host, port)| {
            let host_is_one = !host.is_empty() && !host.contains(|found: char| found.is_whitespace());
            host_is_one && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if host_and_port.is_none() {
            return Err(TrustError::Address {
                address: address.to_owned(),
            });
        }
        match self {
            Self::Relay { name, .. } => check_text("name at the relay", name, 1, route::NAME_LEN_MAX),
            Self::Direct { .. } => Ok(()),
        }
    }
}

/// Longest address, in bytes: a host name has at most 253.
const ADDRESS_LEN_MAX: usize = 255;

/// A one-time right to enrol. Whoever has it can use it, so it is as secret as a password until it is used: it does not
/// print, it is wiped when dropped, and a copy is a visible decision.
///
/// ```text
/// u8 version (1) | 16 id | 16 secret | 32 authority's identifier | u64 not_after | u8 n (0..4), n × way
/// way = u8 1 | text8 address | 32 relay's identifier | text8 name the authority holds there
///     | u8 2 | text8 address
/// ```
/// The text form is Bech32m beginning with `fgticket1`: [`Ticket::to_text`], and `text.parse()`.
pub struct Ticket {
    id: [u8; 16],
    secret: TicketSecret,
    authority: Identifier,
    not_after: u64,
    ways: Vec<Way>,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct TicketSecret([u8; 16]);

impl Ticket {
    /// Draws a ticket of `authority` that ends at `not_after` (seconds since 1970).
    ///
    /// # Errors
    /// [`TrustError::Length`], [`TrustError::Text`] or [`TrustError::Address`] for ways that are too many, too long
    /// for the text form, or none.
    pub fn generate(
        entropy: &mut dyn Entropy,
        authority: Identifier,
        not_after: u64,
        ways: Vec<Way>,
    ) -> Result<Self, TrustError> {
        let mut ticket = Self {
            id: [0; 16],
            secret: TicketSecret([0; 16]),
            authority,
            not_after,
            ways,
        };
        entropy.fill(&mut ticket.id);
        entropy.fill(&mut ticket.secret.0);
        ticket.check()?;
        Ok(ticket)
    }

    /// Reads the encoding, which the text form holds.
    ///
    /// # Errors
    /// [`TicketError::NewerVersion`] or [`TicketError::Content`].
    pub fn decode(bytes: &[u8]) -> Result<Self, TicketError> {
        let mut reader = Reader::new(bytes);
        let got = reader.u8("ticket version").map_err(TrustError::from)?;
        if got > VERSION {
            return Err(TicketError::NewerVersion { got, want: VERSION });
        }
        Self::read(got, reader).map_err(TicketError::Content)
    }

    fn read(version: u8, mut reader: Reader<'_>) -> Result<Self, TrustError> {
        if version != VERSION {
            return Err(TrustError::Version {
                what: "ticket",
                got: version,
                want: VERSION,
            });
        }
        let mut ticket = Self {
            id: reader.array("ticket id")?,
            secret: TicketSecret(reader.array("ticket secret")?),
            authority: Identifier::from_bytes(reader.array("authority")?),
            not_after: reader.u64("not_after")?,
            ways: Vec::new(),
        };
        let count = usize::from(reader.u8("number of ways")?);
        check_ways(count)?;
        for _ in 0..count {
            ticket.ways.push(Way::read(&mut reader)?);
        }
        reader.finish()?;
        ticket.check()?;
        Ok(ticket)
    }

    /// Returns the encoding.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Room from the start: a vector that grows leaves copies of the secret behind.
        let mut out = Zeroizing::new(Vec::with_capacity(TICKET_LEN_MAX));
        out.push(VERSION);
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&self.secret.0);
        out.extend_from_slice(self.authority.as_bytes());
        out.extend_from_slice(&self.not_after.to_be_bytes());
        out.push(u8::try_from(self.ways.len()).unwrap_or(u8::MAX));
        for way in &self.ways {
            way.put(&mut out);
        }
        out
    }

    /// Returns the number the authority knows the ticket by. It is no secret.
    #[must_use]
    pub const fn id(&self) -> &[u8; 16] {
        &self.id
    }

    /// Returns who issued it.
    #[must_use]
    pub const fn authority(&self) -> Identifier {
        self.authority
    }

    /// Returns its end, in seconds since 1970.
    #[must_use]
    pub const fn not_after(&self) -> u64 {
        self.not_after
    }

    /// Returns how the authority is reached; none if the ticket is for enrolment by files.
    #[must_use]
    pub fn ways(&self) -> &[Way] {
        &self.ways
    }

    /// Returns what the authority keeps in the place of the secret.
    #[must_use]
    pub fn key(&self) -> TicketKey {
        TicketKey(Secret::new(sha256(&[&LABEL_KEY, &self.secret.0])))
    }

    /// Checks that the ticket has not ended, as far as `wall` can be believed.
    ///
    /// # Errors
    /// [`TicketError::Expired`].
    pub const fn check_time(&self, wall: WallTime) -> Result<(), TicketError> {
        if wall.is_surely_after(self.not_after.saturating_add(SKEW_SECS)) {
            return Err(TicketError::Expired {
                not_after: self.not_after,
                now: wall.unix_secs(),
            });
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TrustError> {
        check_ways(self.ways.len())?;
        self.ways.iter().try_for_each(Way::check)?;
        let len = self.encode().len();
        if len > TICKET_LEN_MAX {
            return Err(TrustError::Length {
                what: "ticket",
                len,
                min: 0,
                max: TICKET_LEN_MAX,
            });
        }
        Ok(())
    }
}

const fn check_ways(len: usize) -> Result<(), TrustError> {
    if len > WAYS_MAX {
        return Err(TrustError::Length {
            what: "ways",
            len,
            min: 0,
            max: WAYS_MAX,
        });
    }
    Ok(())
}

impl PartialEq for Ticket {
    /// Compares the secret in constant time.
    fn eq(&self, other: &Self) -> bool {
        let public = |ticket: &Self| (ticket.id, ticket.authority, ticket.not_after);
        bool::from(self.secret.0.ct_eq(&other.secret.0))
            && public(self) == public(other)
            && self.ways == other.ways
    }
}

impl Eq for Ticket {}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("id", &self.id)
            .field("authority", &self.authority)
            .field("not_after", &self.not_after)
            .field("ways", &self.ways)
            .finish_non_exhaustive()
    }
}

/// What an authority keeps of a ticket (PROTOCOL.md §10.3): proves that a request was made with it.
///
/// Wiped when dropped, compares in constant time, does not print.
#[derive(PartialEq, Eq)]
pub struct TicketKey(Secret);

impl TicketKey {
    /// Takes what [`TicketKey::as_bytes`] gave. The caller wipes its own copy.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Secret::new(bytes))
    }

    /// Returns the bytes, to be stored as safely as the authority's state is.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Returns HMAC-SHA-256 over the concatenation of `parts`.
    pub(super) fn mac(&self, parts: &[&[u8]]) -> Secret {
        hmac_sha256(self.0.as_bytes(), parts)
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(..)")
    }
}
