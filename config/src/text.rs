//! The texts of the file that mean something, and what is demanded of them.

use std::net::SocketAddr;

use fieldgate_proto::identity::{Identifier, IdentifierError};
use fieldgate_proto::relay::NamePattern;

use crate::address::{HostPort, HostPortError, LinkAddress, LinkAddressError, Network, NetworkError};
use crate::settings::PasswordHash;
use crate::shape::{Refusal, Text};
use crate::target::{
    InletAddress, OutletAddress, SocketPathError, TargetPattern, TargetPatternError, socket_path,
};
use crate::template::{TemplateError, TopicPattern, TopicTemplate};
use crate::url::{HttpUrl, HttpUrlError};

mod listener;
mod pkcs11;

pub(crate) use listener::{COMMON_NAME, DNS_NAME, FINGERPRINT, ORIGIN, PSK_IDENTITY, URL_PATH};
pub(crate) use pkcs11::PKCS11_URI;

/// Name of a node or of something only this file talks about.
pub(crate) const NAME: Text<String> = Text {
    what: "a name of 1 to 63 of `a-z`, `0-9`, `-`",
    parse: parse_name,
};

fn parse_name(text: &str) -> Result<String, Refusal> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new(
            "is not a name",
            "use 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end",
        ))
    }
}

pub(crate) fn is_name(text: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Longest name: that of a DNS label.
pub(crate) const NAME_LEN_MAX: usize = 63;

/// Name of a device.
pub(crate) const DEVICE_NAME: Text<String> = Text {
    what: "a name of 1 to 64 of `A-Z`, `a-z`, `0-9`, `.`, `_`, `:`, `-`",
    parse: parse_device_name,
};

fn parse_device_name(text: &str) -> Result<String, Refusal> {
    let fits = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'));
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new(
            "is not a device name",
            "use 1 to 64 letters, digits, dots, underscores, colons and hyphens",
        ))
    }
}

/// Name of a device, or the beginning of names.
pub(crate) const DEVICE_PATTERN: Text<String> = Text {
    what: "a device name, or the beginning of names and `*`",
    parse: parse_device_pattern,
};

fn parse_device_pattern(text: &str) -> Result<String, Refusal> {
    let beginning = text.strip_suffix('*');
    match beginning {
        Some("") => Ok(text.to_owned()),
        Some(beginning) => parse_device_name(beginning).map(|_| text.to_owned()),
        None => parse_device_name(text),
    }
}

/// MIME type.
pub(crate) const CONTENT_TYPE: Text<String> = Text {
    what: "a MIME type such as `application/json`",
    parse: parse_content_type,
};

fn parse_content_type(text: &str) -> Result<String, Refusal> {
    let is_token = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    let fits = text.len() <= 255
        && text
            .split_once('/')
            .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new(
            "is not a MIME type",
            "write type and subtype without parameters: \"application/json\"",
        ))
    }
}

/// Where a value stands in JSON.
pub(crate) const JSON_PATH: Text<String> = Text {
    what: "a path into JSON (RFC 6901) such as `/level`",
    parse: parse_json_path,
};

fn parse_json_path(text: &str) -> Result<String, Refusal> {
    let reason = if !text.is_empty() && !text.starts_with('/') {
        "does not begin with `/`"
    } else if text
        .split('~')
        .skip(1)
        .any(|behind| !behind.starts_with(['0', '1']))
    {
        "has a `~` that is neither `~0` nor `~1`"
    } else if text.matches('/').count() > JSON_STEPS_MAX {
        "has more than 8 steps"
    } else if text.len() > 256 {
        "is longer than 256 bytes"
    } else {
        return Ok(text.to_owned());
    };
    Err(Refusal::new(
        reason,
        "write the names on the way there: \"/level\", \"/status/0/code\"; `~` in a name is written ~0, and `/` is written ~1",
    ))
}

/// Steps of a path into JSON.
const JSON_STEPS_MAX: usize = 8;

/// Name at a relay.
pub(crate) const RELAY_NAME: Text<String> = Text {
    what: "a name at the relay, 1 to 128 bytes without spaces and `*`",
    parse: parse_relay_name,
};

fn parse_relay_name(text: &str) -> Result<String, Refusal> {
    if text.contains('*') {
        return Err(Refusal::new(
            "has a wildcard",
            "write the one name; wildcards are for `hold` and `reach` at the relay",
        ));
    }
    let fits = (1..=128).contains(&text.len()) && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new(
            "is not a name at a relay",
            "use 1 to 128 bytes without spaces, such as \"collector-1\"",
        ))
    }
}

/// Names at a relay.
pub(crate) const NAME_PATTERN: Text<NamePattern> = Text {
    what: "a name at the relay, or the beginning of names and a `*`",
    parse: parse_name_pattern,
};

fn parse_name_pattern(text: &str) -> Result<NamePattern, Refusal> {
    let pattern = text
        .parse()
        .ok()
        .filter(|_| !text.chars().any(|c| c.is_whitespace() || c.is_control()));
    pattern.ok_or_else(|| {
        let help = "use 1 to 128 bytes without spaces, such as \"collector-1\", or a beginning and one * at the end: \"plant-*\"";
        Refusal::new("is neither a name at a relay nor a beginning of names", help)
    })
}

/// Free text for a broker or a device.
pub(crate) const USERNAME: Text<String> = Text {
    what: "text of 1 to 255 bytes",
    parse: parse_username,
};

fn parse_username(text: &str) -> Result<String, Refusal> {
    if (1..=255).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new(
            "is empty, too long or has control characters",
            "use 1 to 255 bytes of text",
        ))
    }
}

/// MQTT client identifier.
pub(crate) const CLIENT_ID: Text<String> = Text {
    what: "text of 1 to 255 bytes",
    parse: parse_username,
};

/// Identifier of a node.
pub(crate) const IDENTIFIER: Text<Identifier> = Text {
    what: "an identifier, `fg1…`",
    parse: parse_identifier,
};

fn parse_identifier(text: &str) -> Result<Identifier, Refusal> {
    // Bech32 takes capitals as well, but then one identifier could stand in two texts.
    let parsed = if text.starts_with("fg1") {
        text.parse()
    } else {
        Err(IdentifierError::Prefix)
    };
    parsed.map_err(|error: IdentifierError| {
        let reason = match error {
            IdentifierError::Checksum => "has a typing error".to_owned(),
            IdentifierError::Prefix => "does not start with `fg1`".to_owned(),
            IdentifierError::Length { got } => format!("holds {got} bytes, not 32"),
        };
        Refusal::new(reason, error.hint())
    })
}

/// Where to connect to.
pub(crate) const HOST_PORT: Text<HostPort> = Text {
    what: "`host:port`, the host a name or an IP address",
    parse: parse_host_port,
};

fn parse_host_port(text: &str) -> Result<HostPort, Refusal> {
    text.parse().map_err(|error: HostPortError| {
        let hint = match error {
            HostPortError::NoPort => {
                "write host:port, such as \"relay.example.net:4433\" or \"[fd00::2]:4433\""
            }
            HostPortError::Port => "choose a port from 1 to 65535",
            HostPortError::Host => "write a host name, an IPv4 address, or an IPv6 address in brackets",
        };
        Refusal::new(error.to_string(), hint)
    })
}

/// Where another node takes links.
pub(crate) const LINK_ADDRESS: Text<LinkAddress> = Text {
    what: "`host:port`, the host a name or an IP address, `quic://host:port`, `wss://host/path`, or `unix:/path`",
    parse: |text| {
        text.parse()
            .map_err(|error: LinkAddressError| Refusal::new(error.to_string(), error.hint()))
    },
};

/// An HTTP proxy.
pub(crate) const PROXY: Text<HostPort> = Text {
    what: "an HTTP proxy, `http://host:port`",
    parse: |text| {
        let hint = "write \"http://proxy.example.net:3128\"; user name and password have keys of their own";
        let rest = text
            .strip_prefix("http://")
            .ok_or_else(|| Refusal::new("does not begin with `http://`", hint))?;
        let address: Result<HostPort, HostPortError> = rest.strip_suffix('/').unwrap_or(rest).parse();
        address.map_err(|error| Refusal::new(error.to_string(), hint))
    },
};

/// User name for a proxy.
pub(crate) const PROXY_USERNAME: Text<String> = Text {
    what: "text of 1 to 128 bytes without a colon",
    parse: |text| {
        // RFC 7617 §2: a colon ends the user name.
        if (1..=128).contains(&text.len()) && !text.contains(':') && !text.chars().any(char::is_control) {
            Ok(text.to_owned())
        } else {
            Err(Refusal::new(
                "is empty, too long, or has a colon or control characters",
                "write the user name alone; the password goes into `proxy_password`",
            ))
        }
    },
};

/// A range of addresses.
pub(crate) const NETWORK: Text<Network> = Text {
    what: "a network, `IP address/prefix length`, or an IP address",
    parse: parse_network,
};

fn parse_network(text: &str) -> Result<Network, Refusal> {
    text.parse().map_err(|error: NetworkError| {
        let hint = match error {
            NetworkError::Address => {
                "write a network such as \"10.77.0.0/24\" or \"fd00::/8\", or an address such as \"10.77.0.5\"".to_owned()
            }
            NetworkError::PrefixLen { max } => {
                format!("write the number of bits that the addresses share, 0..={max}, such as \"10.77.0.0/24\"")
            }
            NetworkError::Host { network } => {
                format!("write \"{network}\" for the network, or the address without a slash for itself alone")
            }
        };
        Refusal::new(error.to_string(), hint)
    })
}

/// Where to listen.
pub(crate) const LISTEN: Text<SocketAddr> = Text {
    what: "`IP address:port`, port 0 for one the system chooses",
    parse: parse_listen,
};

fn parse_listen(text: &str) -> Result<SocketAddr, Refusal> {
    text.parse().map_err(|_| {
        Refusal::new(
            "is not an IP address and a port",
            "write an address of this machine, such as \"10.77.0.1:1883\"; \"0.0.0.0:1883\" is all IPv4 and \"[::]:1883\" all \
             IPv6 ones",
        )
    })
}

/// Where an inlet listens.
pub(crate) const INLET_ADDRESS: Text<InletAddress> = Text {
    what: "`IP address:port`, `udp:` before that, or `unix:` and an absolute path",
    parse: parse_inlet_address,
};

fn parse_inlet_address(text: &str) -> Result<InletAddress, Refusal> {
    if let Some(path) = text.strip_prefix("unix:") {
        parse_socket_path(path).map(InletAddress::Unix)
    } else if let Some(address) = text.strip_prefix("udp:") {
        parse_listen(address).map(InletAddress::Udp)
    } else {
        parse_listen(text).map(InletAddress::Tcp)
    }
}

/// What an outlet leads to.
pub(crate) const OUTLET_ADDRESS: Text<OutletAddress> = Text {
    what: "`host:port`, `udp:` before that, `unix:` and an absolute path, or `serial:` and the path of a device",
    parse: parse_outlet_address,
};

fn parse_outlet_address(text: &str) -> Result<OutletAddress, Refusal> {
    if let Some(path) = text.strip_prefix("unix:") {
        parse_socket_path(path).map(OutletAddress::Unix)
    } else if let Some(path) = text.strip_prefix("serial:") {
        parse_device_path(path).map(OutletAddress::Serial)
    } else if let Some(address) = text.strip_prefix("udp:") {
        parse_host_port(address).map(OutletAddress::Udp)
    } else {
        parse_host_port(text).map(OutletAddress::Tcp)
    }
}

fn parse_device_path(path: &str) -> Result<std::path::PathBuf, Refusal> {
    let device = std::path::PathBuf::from(path);
    if !device.is_absolute() || path.contains('\0') || path.ends_with('/') {
        return Err(Refusal::new(
            "is no absolute path of a device",
            "write the device, such as \"serial:/dev/ttyUSB0\"; /dev/serial/by-id has names that stay",
        ));
    }
    Ok(device)
}

fn parse_socket_path(path: &str) -> Result<std::path::PathBuf, Refusal> {
    socket_path(path).map_err(|error| {
        let help = match error {
            SocketPathError::Relative | SocketPathError::NoFile => {
                "write where the socket stands, such as \"unix:/run/fieldgate/plc.sock\""
            }
            SocketPathError::Long { .. } => "choose a shorter path",
        };
        Refusal::new(error.to_string(), help)
    })
}

/// Permissions of a socket's file.
pub(crate) const SOCKET_MODE: Text<u32> = Text {
    what: "permissions in octal digits, such as `\"0660\"`",
    parse: parse_socket_mode,
};

fn parse_socket_mode(text: &str) -> Result<u32, Refusal> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(text, 8).ok();
    mode.filter(|mode| is_octal && *mode <= 0o777).ok_or_else(|| {
        Refusal::new(
            "is not three octal digits",
            "write \"0600\" for this user alone, \"0660\" for its group too, \"0666\" for everybody on this machine",
        )
    })
}

/// Destinations of an outlet.
pub(crate) const TARGET: Text<TargetPattern> = Text {
    what: "`host:ports`: a network, a name with `*`, or `*`; a port, a range, or `*`",
    parse: parse_target,
};

fn parse_target(text: &str) -> Result<TargetPattern, Refusal> {
    text.parse().map_err(|error: TargetPatternError| {
        let help = match error {
            TargetPatternError::NoPort | TargetPatternError::Port => {
                "write host:port such as \"10.0.0.0/8:22\", \"[fd00::/8]:443\" or \"plc-*.local:502\"; a range is 8000-8100, \
                 and * is every port"
            }
            TargetPatternError::Host | TargetPatternError::HostBits => {
                "write a network such as 10.0.0.0/8, an IPv6 one in brackets, a name such as plc-*.local, or * for every host"
            }
        };
        Refusal::new(error.to_string(), help)
    })
}

/// Where to listen on this machine only.
pub(crate) const LISTEN_LOOPBACK: Text<SocketAddr> = Text {
    what: "`loopback address:port`, port 0 for one the system chooses",
    parse: parse_listen_loopback,
};

fn parse_listen_loopback(text: &str) -> Result<SocketAddr, Refusal> {
    let address = parse_listen(text)?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(Refusal::new(
            "is not a loopback address",
            format!(
                "write \"127.0.0.1:{0}\" or \"[::1]:{0}\": it has no access control; put a proxy that has in front",
                address.port()
            ),
        ))
    }
}

/// An MQTT topic filter (MQTT 5.0 §4.7).
pub(crate) const TOPIC_FILTER: Text<String> = Text {
    what: "an MQTT topic filter of at most 1024 bytes",
    parse: parse_topic_filter,
};

fn parse_topic_filter(text: &str) -> Result<String, Refusal> {
    let help = "levels are separated by /; + stands for one whole level, # for the rest and comes last: \"hall/+/temp\", \"hall/#\"";
    let levels: Vec<&str> = text.split('/').collect();
    let reason = if text.is_empty() {
        "is empty"
    } else if text.len() > 1024 {
        "is longer than 1024 bytes"
    } else if text.chars().any(char::is_control) {
        "has a control character"
    } else if levels.iter().any(|level| level.contains('+') && *level != "+") {
        "has a + that is not a whole level"
    } else if levels
        .iter()
        .enumerate()
        .any(|(at, level)| level.contains('#') && (*level != "#" || at + 1 < levels.len()))
    {
        "has a # that is not the last level"
    } else if levels.first() == Some(&"$share") {
        "is a shared subscription, to which nobody publishes"
    } else {
        return Ok(text.to_owned());
    };
    Err(Refusal::new(reason, help))
}

/// The topic of readings at a sink.
pub(crate) const TOPIC_TEMPLATE: Text<TopicTemplate> = Text {
    what: "a topic with the variables `{gateway}`, `{device}`, `{resource}`, `{path}`, `{class}`, at most 1024 bytes",
    parse: parse_topic_template,
};

/// The topic of renamed readings; which variables there are is known only together with the pattern.
pub(crate) const TOPIC_TO: Text<String> = Text {
    what: "a topic with the variables of `topic` and the names in `from`, at most 1024 bytes",
    parse: parse_topic_to,
};

/// Resources that are renamed.
pub(crate) const TOPIC_PATTERN: Text<TopicPattern> = Text {
    what: "a topic filter with `{name}` for `+` and `{name...}` for `#`, at most 1024 bytes",
    parse: parse_topic_pattern,
};

/// The first levels of topics, which others follow.
pub(crate) const TOPIC_ROOT: Text<String> = Text {
    what: "the first levels of a topic, at most 256 bytes",
    parse: parse_topic_root,
};

fn parse_topic_root(text: &str) -> Result<String, Refusal> {
    let reason = if text.is_empty() {
        "is empty"
    } else if text.len() > 256 {
        "is longer than 256 bytes"
    } else if text.chars().any(|c| c.is_control() || matches!(c, '+' | '#')) {
        "has a control character, + or #"
    } else if text.starts_with('$') {
        "begins with $, which belongs to the broker"
    } else if text.split('/').any(str::is_empty) {
        "has an empty level"
    } else {
        return Ok(text.to_owned());
    };
    Err(Refusal::new(
        reason,
        "write its levels with / between, like \"fieldgate/command\"",
    ))
}

fn parse_topic_template(text: &str) -> Result<TopicTemplate, Refusal> {
    parse_topic_to(text)?
        .parse()
        .map_err(|error: TemplateError| Refusal::new(error.to_string(), template_help(&error)))
}

fn parse_topic_to(text: &str) -> Result<String, Refusal> {
    if text.len() > 1024 {
        return Err(Refusal::new("is longer than 1024 bytes", "choose a shorter one"));
    }
    Ok(text.to_owned())
}

fn parse_topic_pattern(text: &str) -> Result<TopicPattern, Refusal> {
    parse_topic_to(text)?
        .parse()
        .map_err(|error: TemplateError| Refusal::new(error.to_string(), template_help(&error)))
}

/// Returns what can be done about a fault in a template or pattern.
pub(crate) fn template_help(error: &TemplateError) -> String {
    match error {
        TemplateError::Variable { name } => {
            match crate::suggest::nearest(name, &["gateway", "device", "resource", "path", "class"]) {
                Some(meant) => format!("did you mean {{{meant}}}?"),
                None => "the variables are {gateway}, {device}, {resource}, {path} and {class}, and in a rename the names \
                         in its `from`"
                    .to_owned(),
            }
        }
        TemplateError::Empty | TemplateError::Brace => {
            "write a topic such as \"{gateway}/{device}/{resource}\"".to_owned()
        }
        TemplateError::Character { .. } => "take it out; + and # are for topic filters".to_owned(),
        TemplateError::Level { .. } => {
            "+ and {name} stand for one whole level, # and {name...} for the rest and come last: \"line/{line}/#\"".to_owned()
        }
        TemplateError::Name { .. } => {
            "use 1 to 32 of `a-z0-9_`, each name once, and none of the variables of `topic`".to_owned()
        }
    }
}

/// Where batches are posted.
pub(crate) const HTTP_URL: Text<HttpUrl> = Text {
    what: "an `http://` or `https://` URL of at most 1024 bytes",
    parse: parse_http_url,
};

fn parse_http_url(text: &str) -> Result<HttpUrl, Refusal> {
    parse_topic_to(text)?
        .parse()
        .map_err(|error: HttpUrlError| match error {
            HttpUrlError::User => Refusal::secret(error.to_string(), error.hint()),
            HttpUrlError::Scheme | HttpUrlError::Host | HttpUrlError::Character { .. } => {
                Refusal::new(error.to_string(), error.hint())
            }
        })
}

/// Name of a JetStream stream.
pub(crate) const STREAM: Text<String> = Text {
    what: "a name of 1 to 255 of `A-Z`, `a-z`, `0-9`, `-`, `_`",
    parse: parse_stream,
};

fn parse_stream(text: &str) -> Result<String, Refusal> {
    let fits = (1..=255).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new(
            "is not the name of a stream",
            "use 1 to 255 letters, digits, hyphens and underscores",
        ))
    }
}

/// Stored form of a device's password.
pub(crate) const PASSWORD_HASH: Text<PasswordHash> = Text {
    what: "a password hash, `pbkdf2-sha256$<iterations>$<salt>$<hash>`",
    parse: parse_password_hash,
};

fn parse_password_hash(text: &str) -> Result<PasswordHash, Refusal> {
    let refuse = |reason: &str| {
        let help = "`fieldgate device password NAME` makes a password and prints this line; the password itself must not \
                    stand here";
        Err(Refusal::secret(reason, help))
    };
    let parts: Vec<&str> = text.split('$').collect();
    let (scheme, iterations, salt, keys) = match parts.as_slice() {
        [scheme, iterations, salt, keys @ ..] if (1..=2).contains(&keys.len()) => {
            (*scheme, *iterations, *salt, keys)
        }
        _ => return refuse("is not a password hash"),
    };
    match (scheme, keys.len()) {
        ("pbkdf2-sha256", 1) | ("scram-sha-256", 2) => {}
        ("pbkdf2-sha256" | "scram-sha-256", _) => return refuse("is not a password hash"),
        _ => return refuse("is hashed in a way fieldgate does not know"),
    }
    let is_number = !iterations.starts_with('0') && iterations.bytes().all(|b| b.is_ascii_digit());
    if !is_number
        || !iterations
            .parse::<u32>()
            .is_ok_and(|n| (1..=ITERATIONS_MAX).contains(&n))
    {
        return refuse("has an iteration count outside 1..=1000000");
    }
    if !base64_len(salt).is_some_and(|len| (8..=64).contains(&len)) {
        return refuse("has a salt that is not 8 to 64 bytes of Base64");
    }
    if keys.iter().any(|key| base64_len(key) != Some(32)) {
        return refuse("has a hash that is not 32 bytes of Base64");
    }
    Ok(PasswordHash(text.to_owned()))
}

/// Most rounds a connect may cost.
const ITERATIONS_MAX: u32 = 1_000_000;

/// Returns the number of bytes a Base64 text stands for (RFC 4648 §4), without padding and with unused bits zero, so that
/// there is one text for each value.
fn base64_len(text: &str) -> Option<usize> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let values: Option<Vec<usize>> = text.chars().map(|c| DIGITS.find(c)).collect();
    let values = values?;
    let last = values.last().copied().unwrap_or(0);
    let is_canonical = match values.len() % 4 {
        0 => true,
        2 => last.is_multiple_of(16),
        3 => last.is_multiple_of(4),
        _ => false,
    };
    is_canonical.then_some(values.len() * 3 / 4)
}

/// Name of a systemd credential.
pub(crate) const CREDENTIAL: Text<String> = Text {
    what: "the name of a systemd credential",
    parse: parse_credential,
};

fn parse_credential(text: &str) -> Result<String, Refusal> {
    // What systemd takes (systemd.exec(5), LoadCredential=): a valid file name.
    let fits = (1..=255).contains(&text.len())
        && !matches!(text, "." | "..")
        && !text.chars().any(|c| c == '/' || c == ':' || c.is_control());
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new(
            "is not the name of a credential",
            "write the name that LoadCredentialEncrypted= of the unit gives it, without a path",
        ))
    }
}

/// Name of an environment variable.
pub(crate) const VARIABLE: Text<String> = Text {
    what: "the name of an environment variable",
    parse: parse_variable,
};

fn parse_variable(text: &str) -> Result<String, Refusal> {
    let fits = (1..=255).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !text.starts_with(|c: char| c.is_ascii_digit());
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new(
            "is not the name of an environment variable",
            "use letters, digits and underscores, no $ in front",
        ))
    }
}

#[cfg(test)]
mod tests;
