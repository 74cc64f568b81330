//! Addresses and routes.
//!
//! ```text
//! route   = u8 count (0..8) | count × address
//! address = u8 type | bytes8 value
//! ```

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod text;

use std::fmt;

use crate::wire::{Reader, WireError, put_bytes8};

/// Most addresses in a route.
pub const ADDRESSES_MAX: usize = 8;
/// Longest name registered at a relay, in bytes of UTF-8.
pub const NAME_LEN_MAX: usize = 128;
/// Longest name of a service, in bytes.
pub const SERVICE_LEN_MAX: usize = 32;

const TYPE_NAME: u8 = 1;
const TYPE_SERVICE: u8 = 2;
const TYPE_LINK: u8 = 3;

/// Why a route could not be made from text or parts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A name is empty or too long; in bytes.
    #[error("name of {len} bytes, outside 1..={NAME_LEN_MAX}")]
    NameLen {
        /// Its length.
        len: usize,
    },
    /// A service is empty or too long; in bytes.
    #[error("service of {len} bytes, outside 1..={SERVICE_LEN_MAX}")]
    ServiceLen {
        /// Its length.
        len: usize,
    },
    /// A service has a character other than a-z, 0-9 and `-`.
    #[error("service has the character {found:?}")]
    ServiceChar {
        /// The character.
        found: char,
    },
    /// The route has too many addresses.
    #[error("route has more than {ADDRESSES_MAX} addresses")]
    TooMany,
    /// The same name or link stands in the route twice: a loop.
    #[error("address {address} stands in the route twice")]
    Duplicate {
        /// The address, as text.
        address: String,
    },
    /// The text does not have the form `type:value/type:value`.
    #[error("{part:?} is not an address")]
    Syntax {
        /// The part of the text.
        part: String,
    },
}

impl RouteError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::NameLen { .. } => "use a name of 1 to 128 bytes",
            Self::ServiceLen { .. } => "use a service of 1 to 32 characters",
            Self::ServiceChar { .. } => "a service has only the characters a-z, 0-9 and -",
            Self::TooMany => "use fewer relays in a row: a route has at most 8 addresses",
            Self::Duplicate { .. } => "name each relay once",
            Self::Syntax { .. } => "write a route like name:plant/service:uplink",
        }
    }
}

/// A link of the node that holds the address, drawn at random when the link came up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkAddress(pub [u8; 8]);

impl fmt::Display for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkAddress({self})")
    }
}

/// One address of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address<'a> {
    /// A name registered at a relay, 1 to 128 bytes.
    Name(&'a str),
    /// A worker of the node that holds the address, 1 to 32 of a-z, 0-9, `-`.
    Service(&'a str),
    /// A link of the node that holds the address.
    Link(LinkAddress),
}

impl<'a> Address<'a> {
    /// Reads an address.
    ///
    /// # Errors
    /// [`WireError`] for an unknown type or a value outside its bounds.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        match reader.u8("address type")? {
            TYPE_NAME => {
                let name = reader.text8("name")?;
                check_name(name).map_err(|_| WireError::Value {
                    field: "length of a name",
                    value: name.len() as u64,
                })?;
                Ok(Self::Name(name))
            }
            TYPE_SERVICE => {
                let service = reader.text8("service")?;
                match check_service(service) {
                    Ok(()) => Ok(Self::Service(service)),
                    Err(RouteError::ServiceChar { found }) => Err(WireError::Value {
                        field: "character of a service",
                        value: u64::from(u32::from(found)),
                    }),
                    Err(_) => Err(WireError::Value {
                        field: "length of a service",
                        value: service.len() as u64,
                    }),
                }
            }
            TYPE_LINK => {
                let value = reader.bytes8("link address")?;
                let bytes = <[u8; 8]>::try_from(value).map_err(|_| WireError::Value {
                    field: "length of a link address",
                    value: value.len() as u64,
                })?;
                Ok(Self::Link(LinkAddress(bytes)))
            }
            other => Err(WireError::Value {
                field: "address type",
                value: u64::from(other),
            }),
        }
    }

    /// Appends the address; its value was checked when it was made.
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Name(name) => {
                out.push(TYPE_NAME);
                put_bytes8(out, name.as_bytes());
            }
            Self::Service(service) => {
                out.push(TYPE_SERVICE);
                put_bytes8(out, service.as_bytes());
            }
            Self::Link(LinkAddress(bytes)) => {
                out.push(TYPE_LINK);
                put_bytes8(out, bytes);
            }
        }
    }

    /// Checks that the value is one the address can have.
    ///
    /// # Errors
    /// [`RouteError`] naming the bound.
    pub fn check(&self) -> Result<(), RouteError> {
        match self {
            Self::Name(name) => check_name(name),
            Self::Service(service) => check_service(service),
            Self::Link(_) => Ok(()),
        }
    }
}

const fn check_name(name: &str) -> Result<(), RouteError> {
    match name.len() {
        1..=NAME_LEN_MAX => Ok(()),
        len => Err(RouteError::NameLen { len }),
    }
}

fn check_service(service: &str) -> Result<(), RouteError> {
    if !(1..=SERVICE_LEN_MAX).contains(&service.len()) {
        return Err(RouteError::ServiceLen { len: service.len() });
    }
    match service
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-'))
    {
        Some(found) => Err(RouteError::ServiceChar { found }),
        None => Ok(()),
    }
}

/// A route whose encoding has been checked, borrowed from a frame or a [`Route`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteRef<'a> {
    count: u8,
    /// `count` valid addresses, nothing else.
    addresses: &'a [u8],
}

impl<'a> RouteRef<'a> {
    /// The route without any address.
    pub const EMPTY: Self = Self {
        count: 0,
        addresses: &[],
    };

    /// Reads a route and checks every address in it.
    ///
    /// # Errors
    /// [`WireError`] for more than 8 addresses or a bad one.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let count = reader.u8("address count")?;
        if usize::from(count) > ADDRESSES_MAX {
            return Err(WireError::Value {
                field: "address count",
                value: u64::from(count),
            });
        }
        let start = reader.rest();
        for _ in 0..count {
            Address::read(reader)?;
        }
        let len = start.len().saturating_sub(reader.rest().len());
        Ok(Self {
            count,
            addresses: start.get(..len).unwrap_or_default(),
        })
    }

    /// Returns how many addresses there are, 0 to 8.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Returns whether there is no address.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the addresses in order.
    #[must_use]
    pub const fn addresses(&self) -> Addresses<'a> {
        Addresses {
            reader: Reader::new(self.addresses),
        }
    }

    /// Returns the addresses' encoding without the count; two routes are equal exactly if these are.
    pub(super) const fn encoded(&self) -> &'a [u8] {
        self.addresses
    }

    /// Returns the first address and the route behind it.
    #[must_use]
    pub fn split_first(&self) -> Option<(Address<'a>, Self)> {
        let mut addresses = self.addresses();
        let first = addresses.next()?;
        Some((
            first,
            Self {
                count: self.count.saturating_sub(1),
                addresses: addresses.reader.rest(),
            },
        ))
    }

    /// Returns the last address.
    #[must_use]
    pub fn last(&self) -> Option<Address<'a>> {
        self.addresses().last()
    }

    /// Returns the first name or link that stands in the route a second time: the mark of a loop.
    #[must_use]
    pub fn duplicate(&self) -> Option<Address<'a>> {
        // At most 8 addresses: 28 comparisons, and no allocation.
        self.addresses().enumerate().find_map(|(index, address)| {
            let again = self.addresses().take(index).any(|earlier| earlier == address);
            (again && !matches!(address, Address::Service(_))).then_some(address)
        })
    }

    /// Returns whether `link` stands in the route.
    #[must_use]
    pub fn contains_link(&self, link: LinkAddress) -> bool {
        self.addresses().any(|address| address == Address::Link(link))
    }

    /// Appends the route's encoding.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.push(self.count);
        out.extend_from_slice(self.addresses);
    }

    /// Appends the encoding of this route with `link` in front.
    ///
    /// The result may have one address more than a route on the wire; callers that send it check [`RouteRef::len`].
    pub fn put_behind(&self, link: LinkAddress, out: &mut Vec<u8>) {
        out.push(self.count.saturating_add(1));
        Address::Link(link).put(out);
        out.extend_from_slice(self.addresses);
    }

    /// Returns the route with storage of its own.
    #[must_use]
    pub fn to_route(&self) -> Route {
        Route {
            count: self.count,
            addresses: self.addresses.into(),
        }
    }
}

/// The addresses of a route in order; see [`RouteRef::addresses`].
#[derive(Clone, Debug)]
pub struct Addresses<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Addresses<'a> {
    type Item = Address<'a>;

    fn next(&mut self) -> Option<Address<'a>> {
        // Checked when the route was read, so an error can only be the end.
        Address::read(&mut self.reader).ok()
    }
}

/// A list of at most 8 addresses, at most 1,041 bytes encoded.
///
/// As text: `name:plant/service:uplink`; the empty route is the empty text. In names `/`, `%` and control characters
/// are written as `%` and two hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    count: u8,
    addresses: Box<[u8]>,
}

impl Route {
    /// Makes a route.
    ///
    /// # Errors
    /// [`RouteError`] for a bad address, too many, or one that comes twice.
    pub fn new<'a>(addresses: impl IntoIterator<Item = Address<'a>>) -> Result<Self, RouteError> {
        let mut count: u8 = 0;
        let mut bytes = Vec::new();
        for address in addresses {
            address.check()?;
            if usize::from(count) == ADDRESSES_MAX {
                return Err(RouteError::TooMany);
            }
            count = count.saturating_add(1);
            address.put(&mut bytes);
        }
        let route = Self {
            count,
            addresses: bytes.into_boxed_slice(),
        };
        match route.as_ref().duplicate() {
            Some(address) => Err(RouteError::Duplicate {
                address: address.to_string(),
            }),
            None => Ok(route),
        }
    }

    /// Returns a view of the route.
    #[must_use]
    pub const fn as_ref(&self) -> RouteRef<'_> {
        RouteRef {
            count: self.count,
            addresses: &self.addresses,
        }
    }
}

/// How many times a frame may still be forwarded, 0 to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HopLimit(u8);

impl HopLimit {
    /// What a sender starts with.
    pub const MAX: Self = Self(8);

    /// Returns the limit, if it is one a frame can have.
    #[must_use]
    pub const fn new(hops: u8) -> Option<Self> {
        if hops <= Self::MAX.0 {
            Some(Self(hops))
        } else {
            None
        }
    }

    /// Returns the number on the wire.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Returns the limit after one more hop, `None` if there must not be one.
    #[must_use]
    pub const fn decrement(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(hops) => Some(Self(hops)),
            None => None,
        }
    }

    /// Reads a hop limit.
    ///
    /// # Errors
    /// [`WireError`] if it is larger than 8.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let hops = reader.u8("hop limit")?;
        Self::new(hops).ok_or_else(|| WireError::Value {
            field: "hop limit",
            value: u64::from(hops),
        })
    }
}

#[cfg(test)]
mod tests;
