//! PKCS#11 URIs (RFC 7512): which token, which key.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::Error;
use crate::secret::SecretSource;

/// Class of an object, as the URI attribute `type` names it (RFC 7512 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectType {
    /// `CKO_PUBLIC_KEY`.
    Public,
    /// `CKO_PRIVATE_KEY`.
    Private,
    /// `CKO_CERTIFICATE`.
    Certificate,
    /// `CKO_SECRET_KEY`.
    SecretKey,
    /// `CKO_DATA`.
    Data,
}

impl ObjectType {
    const ALL: [Self; 5] = [
        Self::Public,
        Self::Private,
        Self::Certificate,
        Self::SecretKey,
        Self::Data,
    ];

    /// Returns the word of the URI.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Certificate => "cert",
            Self::SecretKey => "secret-key",
            Self::Data => "data",
        }
    }
}

/// A PKCS#11 URI. Attributes that are absent match anything.
///
/// `Display` writes the attributes in a fixed order with the encoding RFC 7512 §2.3 recommends, and parsing
/// that gives an equal value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pkcs11Uri {
    /// Label of the token.
    pub token: Option<String>,
    /// Maker of the token.
    pub manufacturer: Option<String>,
    /// Serial number of the token.
    pub serial: Option<String>,
    /// Model of the token.
    pub model: Option<String>,
    /// Maker of the module.
    pub library_manufacturer: Option<String>,
    /// Description of the module.
    pub library_description: Option<String>,
    /// Version of the module, major and minor.
    pub library_version: Option<(u8, u8)>,
    /// Maker of the slot.
    pub slot_manufacturer: Option<String>,
    /// Description of the slot.
    pub slot_description: Option<String>,
    /// Number of the slot; many modules give a token another one after each start.
    pub slot_id: Option<u64>,
    /// Label of the object (`CKA_LABEL`).
    pub object: Option<String>,
    /// Identifier of the object (`CKA_ID`), any bytes.
    pub id: Option<Vec<u8>>,
    /// Class of the object (`CKA_CLASS`).
    pub object_type: Option<ObjectType>,
    /// Attributes of the path that the RFC does not know. Nothing matches a URI that has any (RFC 7512 §2.4).
    pub vendor: BTreeMap<String, String>,
    /// Where the PIN is found: a `file:` URI or a path (query attribute `pin-source`).
    pub pin_source: Option<String>,
    /// Path of the module (query attribute `module-path`).
    pub module_path: Option<PathBuf>,
    /// Name of the module without affixes of the system (query attribute `module-name`).
    pub module_name: Option<String>,
    /// Attributes of the query that the RFC does not know; they are ignored (RFC 7512 §2.4). May repeat.
    pub vendor_query: Vec<(String, String)>,
}

/// Why a text is no PKCS#11 URI that can be used. No variant holds a value of the URI, which could be a PIN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// The text does not begin with `pkcs11:`.
    #[error("a PKCS#11 URI begins with `pkcs11:`")]
    Scheme,
    /// The text is longer than any URI.
    #[error("the URI has {have} bytes, more than {max}")]
    TooLong {
        /// Bytes given.
        have: usize,
        /// The limit.
        max: usize,
    },
    /// An attribute has no `=`, or a name with characters that names do not have.
    #[error("the attribute at byte {position} is not of the form name=value")]
    Attribute {
        /// Where it begins, in bytes from the start.
        position: usize,
    },
    /// A character has to be percent-encoded.
    #[error("the character at byte {position} has to be percent-encoded")]
    Character {
        /// Where it is, in bytes from the start.
        position: usize,
    },
    /// A percent sign is not followed by two hexadecimal digits.
    #[error("the percent sign at byte {position} is not followed by two hexadecimal digits")]
    Percent {
        /// Where it is, in bytes from the start.
        position: usize,
    },
    /// A text attribute is not UTF-8 once decoded.
    #[error("the value of {name} is not UTF-8")]
    Utf8 {
        /// The attribute.
        name: String,
    },
    /// An attribute stands there twice.
    #[error("{name} stands there twice")]
    Repeated {
        /// The attribute.
        name: String,
    },
    /// The value of an attribute is not one of those it may have.
    #[error("the value of {name} is not {expected}")]
    Value {
        /// The attribute.
        name: &'static str,
        /// What it may be.
        expected: &'static str,
    },
    /// The URI holds the PIN itself.
    #[error("the URI holds the PIN itself (pin-value)")]
    PinValue,
    /// The PIN would come out of a program.
    #[error("pin-source names a program to run")]
    PinCommand,
    /// The PIN source is a URI of another scheme than `file:`, or of another host.
    #[error("pin-source is not a path or a `file:` URI of this machine")]
    PinSource,
}

impl UriError {
    /// Returns what an operator can do about it.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Scheme | Self::Attribute { .. } => {
                "write it like pkcs11:token=my-token;object=my-key;type=private"
            }
            Self::TooLong { .. } => "name the token and the key, nothing more",
            Self::Character { .. } | Self::Percent { .. } => {
                "write each byte that is not a letter, a digit or one of -._~ as % and two hexadecimal digits: a space is %20"
            }
            Self::Utf8 { .. } => "percent-encode the UTF-8 bytes of the text; only id= takes other bytes",
            Self::Repeated { .. } => "keep one of the two",
            Self::Value { .. } => "correct the value, or leave the attribute out",
            Self::PinValue => {
                "remove pin-value and name where the PIN is found: pin = { credential = \"hsm-pin\" }, or pin-source=file:/path in the URI"
            }
            Self::PinCommand => "put the PIN into a systemd credential or a file and name that",
            Self::PinSource => "write pin-source=file:/path",
        }
    }
}

impl Pkcs11Uri {
    /// Returns the place of the PIN that the URI names, if it names one.
    ///
    /// # Errors
    /// [`UriError::PinCommand`] for `|program`, [`UriError::PinSource`] for what is no local file.
    pub fn pin_secret(&self) -> Result<Option<SecretSource>, UriError> {
        let Some(source) = self.pin_source.as_deref() else {
            return Ok(None);
        };
        if source.starts_with('|') {
            return Err(UriError::PinCommand);
        }
        let path = match source.split_once(':') {
            Some(("file", rest)) => match rest.strip_prefix("//") {
                // An empty or local authority (RFC 8089 §2), then the path.
                Some(authority) => authority.strip_prefix("localhost").unwrap_or(authority),
                None => rest,
            },
            Some(_) => return Err(UriError::PinSource),
            None => source,
        };
        if !path.starts_with('/') {
            return Err(UriError::PinSource);
        }
        Ok(Some(SecretSource::File(PathBuf::from(path))))
    }

    /// Refuses a URI that cannot mean a private key on a token.
    pub(crate) fn require_private_key(&self) -> Result<(), Error> {
        let reason = if !self.vendor.is_empty() {
            "it has an attribute that RFC 7512 does not know, so nothing matches it"
        } else if self.object_type.is_some_and(|class| class != ObjectType::Private) {
            "its type is not `private`"
        } else {
            return Ok(());
        };
        Err(Error::UriUnsuitable {
            uri: self.to_string(),
            reason,
        })
    }

    /// Puts one attribute of the path in its place.
    fn set_path(&mut self, name: &str, value: Vec<u8>) -> Result<(), UriError> {
        let repeated = || UriError::Repeated {
            name: name.to_owned(),
        };
        if name == "id" {
            return if self.id.replace(value).is_some() {
                Err(repeated())
            } else {
                Ok(())
            };
        }
        let value = String::from_utf8(value).map_err(|_| UriError::Utf8 {
            name: name.to_owned(),
        })?;
        let is_repeated = match name {
            "token" => self.token.replace(value).is_some(),
            "manufacturer" => self.manufacturer.replace(value).is_some(),
            "serial" => self.serial.replace(value).is_some(),
            "model" => self.model.replace(value).is_some(),
            "library-manufacturer" => self.library_manufacturer.replace(value).is_some(),
            "library-description" => self.library_description.replace(value).is_some(),
            "library-version" => self.library_version.replace(parse_version(&value)?).is_some(),
            "slot-manufacturer" => self.slot_manufacturer.replace(value).is_some(),
            "slot-description" => self.slot_description.replace(value).is_some(),
            "slot-id" => self.slot_id.replace(parse_slot_id(&value)?).is_some(),
            "object" => self.object.replace(value).is_some(),
            "type" => self.object_type.replace(parse_type(&value)?).is_some(),
            _ => self.vendor.insert(name.to_owned(), value).is_some(),
        };
        if is_repeated { Err(repeated()) } else { Ok(()) }
    }

    /// Puts one attribute of the query in its place.
    fn set_query(&mut self, name: &str, value: Vec<u8>) -> Result<(), UriError> {
        if name == "pin-value" {
            zeroize::Zeroizing::new(value);
            return Err(UriError::PinValue);
        }
        let value = String::from_utf8(value).map_err(|_| UriError::Utf8 {
            name: name.to_owned(),
        })?;
        let is_repeated = match name {
            "pin-source" => self.pin_source.replace(value).is_some(),
            "module-path" => self.module_path.replace(PathBuf::from(value)).is_some(),
            "module-name" => self.module_name.replace(value).is_some(),
            _ => {
                self.vendor_query.push((name.to_owned(), value));
                false
            }
        };
        if is_repeated {
            Err(UriError::Repeated {
                name: name.to_owned(),
            })
        } else {
            Ok(())
        }
    }
}

impl FromStr for Pkcs11Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        if text.len() > URI_BYTES_MAX {
            return Err(UriError::TooLong {
                have: text.len(),
                max: URI_BYTES_MAX,
            });
        }
        let (scheme, rest) = text.split_once(':').ok_or(UriError::Scheme)?;
        // Schemes are compared without regard to case (RFC 3986 §3.1).
        if !scheme.eq_ignore_ascii_case("pkcs11") {
            return Err(UriError::Scheme);
        }
        let path_start = scheme.len().saturating_add(1);
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let mut uri = Self::default();
        for attribute in attributes(path, ';', path_start) {
            let (name, value) = attribute?.decode(is_path_character)?;
            uri.set_path(name, value)?;
        }
        if let Some(query) = query {
            let query_start = path_start.saturating_add(path.len()).saturating_add(1);
            for attribute in attributes(query, '&', query_start) {
                let (name, value) = attribute?.decode(is_query_character)?;
                uri.set_query(name, value)?;
            }
        }
        Ok(uri)
    }
}

/// One `name=value`, not yet decoded.
struct RawAttribute<'a> {
    name: &'a str,
    value: &'a str,
    /// Where the value begins in the whole URI.
    value_position: usize,
}

impl<'a> RawAttribute<'a> {
    fn decode(self, is_plain: fn(u8) -> bool) -> Result<(&'a str, Vec<u8>), UriError> {
        let mut decoded = Vec::with_capacity(self.value.len());
        let mut bytes = self.value.bytes().enumerate();
        while let Some((offset, byte)) = bytes.next() {
            let position = self.value_position.saturating_add(offset);
            if byte == b'%' {
                let mut digit = || bytes.next().and_then(|(_, digit)| char::from(digit).to_digit(16));
                let (high, low) = (digit(), digit());
                let value = high
                    .zip(low)
                    .and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
                decoded.push(value.ok_or(UriError::Percent { position })?);
            } else if is_plain(byte) {
                decoded.push(byte);
            } else {
                return Err(UriError::Character { position });
            }
        }
        Ok((self.name, decoded))
    }
}

/// Splits a path or a query into its attributes; an empty one has none.
fn attributes(
    text: &str,
    separator: char,
    start: usize,
) -> impl Iterator<Item = Result<RawAttribute<'_>, UriError>> {
    let mut position = start;
    // Without attributes the split would give one empty piece.
    let pieces = if text.is_empty() {
        None
    } else {
        Some(text.split(separator))
    };
    pieces.into_iter().flatten().map(move |piece| {
        let piece_position = position;
        position = position.saturating_add(piece.len()).saturating_add(1);
        let refused = UriError::Attribute {
            position: piece_position,
        };
        let Some((name, value)) = piece.split_once('=') else {
            return Err(refused);
        };
        let is_name_character = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || !name.bytes().all(is_name_character) {
            return Err(refused);
        }
        let value_position = piece_position.saturating_add(name.len()).saturating_add(1);
        Ok(RawAttribute {
            name,
            value,
            value_position,
        })
    })
}

/// Characters that stand for themselves anywhere: `unreserved` and `pk11-res-avail` (RFC 7512 §2.3).
const fn is_common_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') || is_available_reserved(byte)
}

/// `pk11-res-avail` (RFC 7512 §2.3).
const fn is_available_reserved(byte: u8) -> bool {
    matches!(
        byte,
        b':' | b'[' | b']' | b'@' | b'!' | b'$' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'='
    )
}

/// `pk11-pchar` without the percent sign.
const fn is_path_character(byte: u8) -> bool {
    is_common_character(byte) || byte == b'&'
}

/// `pk11-qchar` without the percent sign.
const fn is_query_character(byte: u8) -> bool {
    is_common_character(byte) || matches!(byte, b'/' | b'?' | b'|')
}

fn parse_version(value: &str) -> Result<(u8, u8), UriError> {
    let refused = UriError::Value {
        name: "library-version",
        expected: "a number or two with a point between, up to 255",
    };
    let (major, minor) = value.split_once('.').unwrap_or((value, "0"));
    let number = |digits: &str| {
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse::<u8>().ok())
            .flatten()
    };
    number(major).zip(number(minor)).ok_or(refused)
}

fn parse_slot_id(value: &str) -> Result<u64, UriError> {
    let refused = UriError::Value {
        name: "slot-id",
        expected: "a decimal number",
    };
    if !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused);
    }
    value.parse().map_err(|_| refused)
}

fn parse_type(value: &str) -> Result<ObjectType, UriError> {
    ObjectType::ALL
        .into_iter()
        .find(|class| class.name() == value)
        .ok_or(UriError::Value {
            name: "type",
            expected: "one of public, private, cert, secret-key, data",
        })
}

impl fmt::Display for Pkcs11Uri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("pkcs11:")?;
        let mut path = Component {
            formatter,
            separator: "",
            following: ";",
            is_plain: is_path_character,
        };
        path.text("library-manufacturer", self.library_manufacturer.as_deref())?;
        path.text("library-description", self.library_description.as_deref())?;
        if let Some((major, minor)) = self.library_version {
            path.text("library-version", Some(&format!("{major}.{minor}")))?;
        }
        path.text("slot-manufacturer", self.slot_manufacturer.as_deref())?;
        path.text("slot-description", self.slot_description.as_deref())?;
        if let Some(slot_id) = self.slot_id {
            path.text("slot-id", Some(&slot_id.to_string()))?;
        }
        path.text("token", self.token.as_deref())?;
        path.text("manufacturer", self.manufacturer.as_deref())?;
        path.text("serial", self.serial.as_deref())?;
        path.text("model", self.model.as_deref())?;
        path.text("object", self.object.as_deref())?;
        if let Some(id) = &self.id {
            // RFC 7512 §2.3 recommends to encode all of `id`, as it is binary.
            path.is_plain = |_| false;
            path.attribute("id", id)?;
            path.is_plain = is_path_character;
        }
        path.text("type", self.object_type.map(ObjectType::name))?;
        for (name, value) in &self.vendor {
            path.text(name, Some(value))?;
        }
        let mut query = Component {
            formatter,
            separator: "?",
            following: "&",
            is_plain: is_query_character,
        };
        query.text("pin-source", self.pin_source.as_deref())?;
        let module_path = self.module_path.as_ref().map(|path| path.to_string_lossy());
        query.text("module-path", module_path.as_deref())?;
        query.text("module-name", self.module_name.as_deref())?;
        for (name, value) in &self.vendor_query {
            query.text(name, Some(value))?;
        }
        Ok(())
    }
}

/// Writes the attributes of a path or a query.
struct Component<'a, 'b> {
    formatter: &'a mut fmt::Formatter<'b>,
    /// Stands before the next attribute.
    separator: &'static str,
    /// Stands before all attributes after the first.
    following: &'static str,
    is_plain: fn(u8) -> bool,
}

impl Component<'_, '_> {
    fn text(&mut self, name: &str, value: Option<&str>) -> fmt::Result {
        match value {
            Some(value) => self.attribute(name, value.as_bytes()),
            None => Ok(()),
        }
    }

    fn attribute(&mut self, name: &str, value: &[u8]) -> fmt::Result {
        write!(self.formatter, "{}{name}=", self.separator)?;
        self.separator = self.following;
        for &byte in value {
            if (self.is_plain)(byte) {
                write!(self.formatter, "{}", char::from(byte))?;
            } else {
                write!(self.formatter, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// Longest URI in bytes: every text of PKCS#11 has at most 64 bytes, so this is ample.
const URI_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests;
