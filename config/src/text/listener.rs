//! What listeners for devices want of certificates, keys and requests.

use crate::shape::{Refusal, Text};

/// Common name of a certificate's subject.
pub(crate) const COMMON_NAME: Text<String> = Text {
    what: "text of 1 to 64 characters",
    parse: parse_common_name,
};

fn parse_common_name(text: &str) -> Result<String, Refusal> {
    // RFC 5280, ub-common-name.
    if (1..=64).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new(
            "is empty, too long or has control characters",
            "write what `openssl x509 -noout -subject` shows behind CN",
        ))
    }
}

/// A DNS name in a certificate.
pub(crate) const DNS_NAME: Text<String> = Text {
    what: "a DNS name",
    parse: parse_dns_name,
};

fn parse_dns_name(text: &str) -> Result<String, Refusal> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if text.len() <= 253 && text.split('.').all(is_label) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(Refusal::new(
            "is not a DNS name",
            "write the one name in full, such as \"pump-7.hall-3.example\", without wildcards",
        ))
    }
}

/// SHA-256 of a certificate.
pub(crate) const FINGERPRINT: Text<[u8; 32]> = Text {
    what: "64 hexadecimal digits",
    parse: parse_fingerprint,
};

fn parse_fingerprint(text: &str) -> Result<[u8; 32], Refusal> {
    let refusal = || {
        Refusal::new(
            "is not a SHA-256 in hexadecimal digits",
            "write what `openssl x509 -noout -fingerprint -sha256` prints behind the =",
        )
    };
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| *byte != b':')
        .map(|byte| {
            char::from(byte)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect::<Option<_>>()
        .ok_or_else(refusal)?;
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
        .collect();
    if digits.len() == 64 {
        bytes.try_into().map_err(|_| refusal())
    } else {
        Err(refusal())
    }
}

/// Identity of a pre-shared key.
pub(crate) const PSK_IDENTITY: Text<String> = Text {
    what: "text of 1 to 128 bytes",
    parse: parse_psk_identity,
};

fn parse_psk_identity(text: &str) -> Result<String, Refusal> {
    // RFC 4279 §5.3: what implementations must take.
    if (1..=128).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new(
            "is empty, too long or has control characters",
            "use 1 to 128 bytes of text, such as the name of the device",
        ))
    }
}

/// Path of a request.
pub(crate) const URL_PATH: Text<String> = Text {
    what: "a path that begins with `/`",
    parse: parse_url_path,
};

fn parse_url_path(text: &str) -> Result<String, Refusal> {
    let fits = text.starts_with('/')
        && text.len() <= 255
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'"' | b'<' | b'>' | b'\\'));
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new(
            "is not the path of a URL",
            "begin with / and use at most 255 visible characters without ? and #, such as \"/mqtt\"",
        ))
    }
}

/// Origin of a web page (RFC 6454 §6.2).
pub(crate) const ORIGIN: Text<String> = Text {
    what: "an origin, `scheme://host` or `scheme://host:port`",
    parse: parse_origin,
};

fn parse_origin(text: &str) -> Result<String, Refusal> {
    let host = text
        .split_once("://")
        .filter(|(scheme, _)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        })
        .map(|(_, host)| host);
    let fits = |host: &str| {
        !host.is_empty()
            && text.len() <= 255
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'[' | b']'))
    };
    if host.is_some_and(fits) {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new(
            "is not an origin",
            "write scheme and host as browsers do, without a path: \"https://panel.example.net\"",
        ))
    }
}
