//! Routes as text: `name:plant/service:uplink`.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use super::{ADDRESSES_MAX, Address, LinkAddress, Route, RouteError, RouteRef};

/// Writes `name:plant`; what would be taken for syntax, and control characters, are percent-encoded.
impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => {
                f.write_str("name:")?;
                for c in name.chars() {
                    if c == '/' || c == '%' || c.is_control() {
                        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                            write!(f, "%{byte:02x}")?;
                        }
                    } else {
                        f.write_char(c)?;
                    }
                }
                Ok(())
            }
            Self::Service(service) => write!(f, "service:{service}"),
            Self::Link(link) => write!(f, "link:{link}"),
        }
    }
}

impl fmt::Display for RouteRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.addresses().enumerate() {
            if index > 0 {
                f.write_char('/')?;
            }
            write!(f, "{address}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for RouteRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Route({self})")
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.as_ref(), f)
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.as_ref(), f)
    }
}

impl FromStr for Route {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, RouteError> {
        if text.is_empty() {
            return Self::new([]);
        }
        let mut decoded = Vec::new();
        for part in text.split('/') {
            let syntax = || RouteError::Syntax {
                part: part.to_owned(),
            };
            let (kind, value) = part.split_once(':').ok_or_else(syntax)?;
            if decoded.len() == ADDRESSES_MAX {
                return Err(RouteError::TooMany);
            }
            decoded.push((kind, percent_decode(value).ok_or_else(syntax)?, syntax()));
        }
        let addresses = decoded.iter().map(|(kind, value, syntax)| match *kind {
            "name" => Ok(Address::Name(value)),
            "service" => Ok(Address::Service(value)),
            "link" if value.len() == 16 && value.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                let number = u64::from_str_radix(value, 16).map_err(|_| syntax.clone())?;
                Ok(Address::Link(LinkAddress(number.to_be_bytes())))
            }
            _ => Err(syntax.clone()),
        });
        Self::new(addresses.collect::<Result<Vec<_>, _>>()?)
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = behind;
            continue;
        }
        let (digits, behind) = behind.split_first_chunk::<2>()?;
        let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
        bytes.push(u8::try_from(high? << 4 | low?).ok()?);
        rest = behind;
    }
    String::from_utf8(bytes).ok()
}
