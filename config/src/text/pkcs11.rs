//! PKCS#11 URIs (RFC 7512), as far as the file can be wrong about them.

use crate::shape::{Refusal, Text};

/// Which token and key.
pub(crate) const PKCS11_URI: Text<String> = Text {
    what: "a PKCS#11 URI, `pkcs11:token=…;object=…`",
    parse,
};

fn parse(text: &str) -> Result<String, Refusal> {
    // Before everything else, so that no other fault shows a URI that holds a PIN.
    if text.to_ascii_lowercase().contains("pin-value") {
        return Err(Refusal::secret(
            "holds the PIN itself (pin-value)",
            "take pin-value out and say where the PIN is: pin = { credential = \"fieldgate-pin\" }; and change the PIN, as it \
             has been written down",
        ));
    }
    let example = "write it as `p11tool --list-tokens` prints it and add the key: pkcs11:token=fieldgate;object=identity";
    let refuse = |reason: String| Err(Refusal::new(reason, example));
    if text.len() > LEN_MAX {
        return refuse(format!("is longer than {LEN_MAX} bytes"));
    }
    let Some(rest) = text.strip_prefix("pkcs11:") else {
        return refuse("does not start with `pkcs11:`".to_owned());
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut seen = Vec::new();
    for attribute in path.split(';').filter(|_| !path.is_empty()) {
        let (name, value) = split(attribute)?;
        if !PATH_ATTRIBUTES.contains(&name) {
            let meant = crate::suggest::nearest(name, &PATH_ATTRIBUTES).map_or_else(
                || format!("the attributes are {}", PATH_ATTRIBUTES.join(", ")),
                |meant| format!("did you mean {meant}?"),
            );
            return Err(Refusal::new(format!("has the unknown attribute {name:?}"), meant));
        }
        if seen.contains(&name) {
            return refuse(format!("has the attribute {name} twice"));
        }
        seen.push(name);
        check_value(name, value, b"&")?;
    }
    if !path
        .split(';')
        .any(|attribute| attribute.starts_with("object=") || attribute.starts_with("id="))
    {
        return Err(Refusal::new(
            "does not say which key",
            "add ;object=<label of the key> or ;id=<its id, percent-encoded>; `pkcs11-tool --list-objects` shows them",
        ));
    }
    // What the query could say has keys of its own, so one attribute of it is one too many.
    if let Some(attribute) = query.split('&').find(|_| !query.is_empty()) {
        let (name, value) = split(attribute)?;
        check_value(name, value, b"/?|")?;
        let cure = match name {
            "pin-source" => "take it out and write pin = { file = \"…\" } beside `pkcs11`",
            "module-path" => "take it out and write module = \"…\" beside `pkcs11`",
            _ => "take it out: module and PIN have keys of their own beside `pkcs11`",
        };
        return Err(Refusal::new(format!("has the query attribute {name:?}"), cure));
    }
    Ok(text.to_owned())
}

fn split(attribute: &str) -> Result<(&str, &str), Refusal> {
    attribute
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| {
            Refusal::new(
                format!("has the part {attribute:?}, which is not name=value"),
                "separate attributes by ; and encode a ; within a value as %3B",
            )
        })
}

/// Refuses a value that is not in the character set or means nothing.
fn check_value(name: &str, value: &str, also_plain: &[u8]) -> Result<(), Refusal> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
            let (high, low) = (digit(), digit());
            let Some(byte) = high
                .zip(low)
                .and_then(|(high, low)| u8::try_from(high * 16 + low).ok())
            else {
                let reason = format!("has a % in {name} without two hexadecimal digits after it");
                return Err(Refusal::new(reason, "encode a % itself as %25"));
            };
            decoded.push(byte);
        } else if byte.is_ascii_alphanumeric() || PLAIN.contains(&byte) || also_plain.contains(&byte) {
            decoded.push(byte);
        } else {
            let encoded = if byte.is_ascii() {
                format!(": %{byte:02X}")
            } else {
                String::new()
            };
            let reason = format!("has a character in {name} that must be percent-encoded");
            return Err(Refusal::new(
                reason,
                format!("encode it{encoded} (a space is %20)"),
            ));
        }
    }
    if name == "id" {
        return Ok(());
    }
    let Ok(decoded) = String::from_utf8(decoded) else {
        let help = "only id can hold any bytes; encode text as UTF-8";
        return Err(Refusal::new(
            format!("has a value of {name} that is not UTF-8"),
            help,
        ));
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match name {
        "type" if decoded != "private" => Err(Refusal::new(
            "does not mean a private key",
            "write type=private, or leave type out",
        )),
        "slot-id" if !(is_number(&decoded) && decoded.parse::<u64>().is_ok()) => Err(Refusal::new(
            "has a slot-id that is not a number",
            "better name the token, as slot numbers change: token=…",
        )),
        "library-version"
            if !decoded
                .split('.')
                .all(|part| is_number(part) && part.parse::<u8>().is_ok())
                || decoded.split('.').count() > 2 =>
        {
            let help = "write one or two numbers up to 255, as in 2.6, or leave it out";
            Err(Refusal::new("has a library-version that is not a version", help))
        }
        _ => Ok(()),
    }
}

/// Attributes of the path (RFC 7512 §2.3).
const PATH_ATTRIBUTES: [&str; 13] = [
    "token",
    "object",
    "id",
    "manufacturer",
    "model",
    "serial",
    "type",
    "slot-id",
    "slot-description",
    "slot-manufacturer",
    "library-description",
    "library-manufacturer",
    "library-version",
];

/// `unreserved` and `pk11-res-avail` beside letters and digits (RFC 7512 §2.3).
const PLAIN: &[u8] = b"-._~:[]@!$'()*+,=";

/// Longest URI that is taken, in bytes.
const LEN_MAX: usize = 1_024;
