//! SOCKS 5: the side of whoever is asked for connections (RFC 1928, CONNECT only; RFC 1929).
//!
//! ```text
//!  Greeting ─▶ Login ─▶ Request ─▶ Done: the stream begins, after the reply
//!      └─────────────────▲   any ─▶ Done: refused
//! ```
//!
//! Takes no byte that is not its own: what follows the request belongs to the stream.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zeroize::Zeroize;

use super::ResetReason;
use crate::wire::Reader;

/// What to do for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocksOutput {
    /// Send this.
    Send(Vec<u8>),
    /// Connect it, and send a [`SocksReply`]. Nothing more comes.
    Connect(SocksRequest),
    /// Send what came before, and close. Nothing more comes.
    Refused(SocksRefusal),
}

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocksRequest {
    /// As whom it logged in; `None` if nobody had to.
    pub user: Option<String>,
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Why a client gets nothing. Always its fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocksRefusal {
    /// It speaks another version, or something else.
    #[error("it does not speak SOCKS 5")]
    Version,
    /// It offers no method that is wanted.
    #[error("it does not offer the way to log in that is wanted")]
    Method,
    /// User or password is wrong.
    #[error("user or password is wrong")]
    Login,
    /// It wants something else than a connection.
    #[error("it wants something else than CONNECT")]
    Command,
    /// It names the destination in an unknown form, or by a name that is none.
    #[error("it names no destination")]
    Address,
}

/// What becomes of a connection that was asked for (RFC 1928 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocksReply {
    /// It is there.
    Succeeded = 0,
    /// Some other fault.
    Failure = 1,
    /// The rules do not allow it.
    NotAllowed = 2,
    /// The destination does not answer.
    HostUnreachable = 4,
    /// There is no such command.
    Command = 7,
    /// There is no such form of address.
    AddressType = 8,
}

impl From<ResetReason> for SocksReply {
    fn from(reason: ResetReason) -> Self {
        match reason {
            ResetReason::NotAllowed => Self::NotAllowed,
            ResetReason::Unreachable => Self::HostUnreachable,
            ResetReason::Broken
            | ResetReason::Limit
            | ResetReason::Idle
            | ResetReason::Lost
            | ResetReason::Closed => Self::Failure,
        }
    }
}

impl SocksReply {
    /// Appends the reply. Where the connection begins is not told: it is another node.
    pub fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[VERSION, self as u8, 0, IPV4, 0, 0, 0, 0, 0, 0]);
    }
}

/// How far a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Greeting,
    Login,
    Request,
    Done,
}

/// One client, until it has said what it wants. Holds at most 513 bytes of it.
#[derive(Debug)]
pub struct SocksServer {
    wants_login: bool,
    stage: Stage,
    /// The message that is not complete.
    message: Vec<u8>,
    user: Option<String>,
}

impl Drop for SocksServer {
    fn drop(&mut self) {
        // A password may be in it.
        self.message.zeroize();
    }
}

impl SocksServer {
    /// Expects a client, which has to log in or not.
    #[must_use]
    pub fn new(wants_login: bool) -> Self {
        Self {
            wants_login,
            stage: Stage::Greeting,
            // Never grown: no copy of a password is left behind.
            message: Vec::with_capacity(MESSAGE_LEN_MAX),
            user: None,
        }
    }

    /// Takes bytes of the client, up to the end of what it wants; returns how many. `verify` says whether user and password are right,
    /// `tell` takes what to do.
    pub fn handle_bytes(
        &mut self,
        bytes: &[u8],
        verify: &mut dyn FnMut(&str, &[u8]) -> bool,
        tell: &mut dyn FnMut(SocksOutput),
    ) -> usize {
        let mut rest = bytes;
        while self.stage != Stage::Done {
            let missing = self.message_len().saturating_sub(self.message.len());
            let Some((now, later)) = rest.split_at_checked(missing) else {
                self.message.extend_from_slice(rest);
                rest = &[];
                break;
            };
            self.message.extend_from_slice(now);
            rest = later;
            if self.message.len() == self.message_len() {
                self.take_message(verify, tell);
                self.message.zeroize();
            }
        }
        bytes.len().saturating_sub(rest.len())
    }

    /// How long the message is that is being read, as far as its bytes tell: more of them may tell more.
    fn message_len(&self) -> usize {
        let byte = |at: usize| self.message.get(at).map(|byte| usize::from(*byte));
        match self.stage {
            // Whoever speaks something else may wait for an answer before it says more.
            Stage::Greeting if byte(0).is_some_and(|version| version != usize::from(VERSION)) => {
                self.message.len()
            }
            Stage::Greeting => byte(1).map_or(2, |methods| methods.saturating_add(2)),
            Stage::Login => {
                let user = byte(1).map_or(2, |user| user.saturating_add(3));
                let password = byte(user.saturating_sub(1)).filter(|_| self.message.len() > 1);
                password.map_or(user, |password| user.saturating_add(password))
            }
            Stage::Request => match (byte(3), byte(4)) {
                (Some(at), Some(len)) if at == usize::from(NAME) => len.saturating_add(7),
                (Some(at), _) if at == usize::from(NAME) => 5,
                (Some(at), _) if at == usize::from(IPV4) => 10,
                (Some(at), _) if at == usize::from(IPV6) => 22,
                (Some(_), _) | (None, _) => 4,
            },
            Stage::Done => 0,
        }
    }

    fn take_message(
        &mut self,
        verify: &mut dyn FnMut(&str, &[u8]) -> bool,
        tell: &mut dyn FnMut(SocksOutput),
    ) {
        match self.stage {
            Stage::Greeting => self.take_greeting(tell),
            Stage::Login => self.take_login(verify, tell),
            Stage::Request => {
                let output = self.read_request();
                self.stage = Stage::Done;
                if let SocksOutput::Refused(refusal) = &output {
                    let mut reply = Vec::new();
                    match refusal {
                        SocksRefusal::Command => SocksReply::Command.put(&mut reply),
                        SocksRefusal::Address => SocksReply::AddressType.put(&mut reply),
                        SocksRefusal::Version | SocksRefusal::Method | SocksRefusal::Login => {}
                    }
                    tell(SocksOutput::Send(reply));
                }
                tell(output);
            }
            Stage::Done => {}
        }
    }

    fn refuse(&mut self, refusal: SocksRefusal, tell: &mut dyn FnMut(SocksOutput)) {
        self.stage = Stage::Done;
        tell(SocksOutput::Refused(refusal));
    }

    fn take_greeting(&mut self, tell: &mut dyn FnMut(SocksOutput)) {
        if self.message.first() != Some(&VERSION) {
            return self.refuse(SocksRefusal::Version, tell);
        }
        let wanted = if self.wants_login {
            METHOD_LOGIN
        } else {
            METHOD_NONE
        };
        let offered = self.message.get(2..).unwrap_or_default();
        if offered.contains(&wanted) {
            tell(SocksOutput::Send(vec![VERSION, wanted]));
            self.stage = if self.wants_login {
                Stage::Login
            } else {
                Stage::Request
            };
        } else {
            tell(SocksOutput::Send(vec![VERSION, METHOD_UNACCEPTABLE]));
            self.refuse(SocksRefusal::Method, tell);
        }
    }

    fn take_login(&mut self, verify: &mut dyn FnMut(&str, &[u8]) -> bool, tell: &mut dyn FnMut(SocksOutput)) {
        let mut reader = Reader::new(&self.message);
        let fields = (|| {
            let version = reader.u8("version")?;
            let user = reader.bytes8("user")?;
            Ok::<_, crate::wire::WireError>((version, user, reader.bytes8("password")?))
        })();
        let user = match fields {
            Ok((LOGIN_VERSION, user, password)) => std::str::from_utf8(user)
                .ok()
                .filter(|user| verify(user, password)),
            Ok(_) | Err(_) => None,
        };
        self.user = user.map(ToOwned::to_owned);
        if self.user.is_some() {
            tell(SocksOutput::Send(vec![LOGIN_VERSION, 0]));
            self.stage = Stage::Request;
        } else {
            tell(SocksOutput::Send(vec![LOGIN_VERSION, 1]));
            self.refuse(SocksRefusal::Login, tell);
        }
    }

    fn read_request(&mut self) -> SocksOutput {
        let mut reader = Reader::new(&self.message);
        let fields = (|| {
            let version = reader.u8("version")?;
            let command = reader.u8("command")?;
            reader.u8("reserved")?;
            let host = match reader.u8("address type")? {
                IPV4 => Some(IpAddr::from(Ipv4Addr::from(reader.array::<4>("address")?)).to_string()),
                IPV6 => Some(IpAddr::from(Ipv6Addr::from(reader.array::<16>("address")?)).to_string()),
                NAME => host_name(reader.bytes8("name")?),
                _ => None,
            };
            let port = reader.u16("port").ok().filter(|port| *port > 0);
            Ok::<_, crate::wire::WireError>((version, command, host.zip(port)))
        })();
        match fields {
            Ok((VERSION, CONNECT, Some((host, port)))) => SocksOutput::Connect(SocksRequest {
                user: self.user.take(),
                host,
                port,
            }),
            Ok((VERSION, CONNECT, None)) => SocksOutput::Refused(SocksRefusal::Address),
            Ok((VERSION, ..)) => SocksOutput::Refused(SocksRefusal::Command),
            Ok(_) | Err(_) => SocksOutput::Refused(SocksRefusal::Version),
        }
    }
}

/// Takes a name as clients may write it: printable ASCII without what has a meaning between host and port.
fn host_name(bytes: &[u8]) -> Option<String> {
    let is_name = !bytes.is_empty()
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_graphic() && !b"[]/@\"\\".contains(byte));
    let name = std::str::from_utf8(bytes).ok()?;
    is_name.then(|| name.to_owned())
}

const VERSION: u8 = 5;
/// Version of the messages of RFC 1929.
const LOGIN_VERSION: u8 = 1;
const METHOD_NONE: u8 = 0;
const METHOD_LOGIN: u8 = 2;
const METHOD_UNACCEPTABLE: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
/// Longest message: a login with the longest user and password.
const MESSAGE_LEN_MAX: usize = 3 + 2 * 255;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds a server in pieces of `piece` bytes; returns what it told and how many bytes it took.
    fn feed(wants_login: bool, bytes: &[u8], piece: usize) -> (Vec<SocksOutput>, usize) {
        let mut server = SocksServer::new(wants_login);
        let mut told = Vec::new();
        let mut taken = 0;
        for piece in bytes.chunks(piece) {
            let mut verify = |user: &str, password: &[u8]| user == "ops" && password == b"secret";
            let count = server.handle_bytes(piece, &mut verify, &mut |output| told.push(output));
            taken += count;
            assert!(server.message.capacity() == MESSAGE_LEN_MAX, "it never grows");
            if count < piece.len() {
                break;
            }
        }
        (told, taken)
    }

    const NAMED: &[u8] = b"\x05\x01\x00\x03\x09plc.local\x01\xf6";

    fn connect(user: Option<&str>, host: &str, port: u16) -> SocksOutput {
        SocksOutput::Connect(SocksRequest {
            user: user.map(ToOwned::to_owned),
            host: host.to_owned(),
            port,
        })
    }

    #[test]
    fn a_client_is_taken_apart_however_its_bytes_come() {
        let bytes = [b"\x05\x02\x00\x01", NAMED, b"and the stream"].concat();
        for piece in 1..=bytes.len() {
            let (told, taken) = feed(false, &bytes, piece);
            let wanted = [SocksOutput::Send(vec![5, 0]), connect(None, "plc.local", 502)];
            assert_eq!(told, wanted, "{piece}");
            assert!((bytes.len() - 14..bytes.len() - 14 + piece).contains(&taken));
        }
        assert_eq!(feed(false, &bytes, 1000).1, bytes.len() - 14);
    }

    #[test]
    fn who_has_to_log_in_does() {
        let bytes = [b"\x05\x02\x00\x02", &b"\x01\x03ops\x06secret"[..], NAMED].concat();
        for piece in 1..=bytes.len() {
            let (told, taken) = feed(true, &bytes, piece);
            let wanted = [
                SocksOutput::Send(vec![5, 2]),
                SocksOutput::Send(vec![1, 0]),
                connect(Some("ops"), "plc.local", 502),
            ];
            assert_eq!(told, wanted);
            assert_eq!(taken, bytes.len());
        }
    }

    #[test]
    fn addresses_come_in_three_forms() {
        for (request, host) in [
            (&b"\x05\x01\x00\x01\x0a\x00\x00\x07\x00\x16"[..], "10.0.0.7"),
            (
                b"\x05\x01\x00\x04\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\x00\x16",
                "fd00::2",
            ),
            (b"\x05\x01\x00\x03\x01a\x00\x16", "a"),
        ] {
            let (told, _) = feed(false, &[b"\x05\x01\x00", request].concat(), 7);
            assert_eq!(told.last(), Some(&connect(None, host, 22)));
        }
    }

    #[test]
    fn whoever_is_refused_is_told_why() {
        let greeting = &b"\x05\x01\x00"[..];
        let request = |bytes: &[u8]| feed(false, &[greeting, bytes].concat(), 1).0;
        let reply = |code: u8| SocksOutput::Send(vec![5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
        let refused = SocksOutput::Refused;
        // BIND.
        let told = request(b"\x05\x02\x00\x01\x0a\x00\x00\x07\x00\x16");
        assert_eq!(told[1..], [reply(7), refused(SocksRefusal::Command)]);
        // No such form of address, a name of no letters, a name that is none, port 0.
        for bytes in [
            &b"\x05\x01\x00\x02"[..],
            b"\x05\x01\x00\x03\x00\x00\x16",
            b"\x05\x01\x00\x03\x03a b\x00\x16",
            b"\x05\x01\x00\x03\x01a\x00\x00",
        ] {
            let told = request(bytes);
            assert_eq!(told[1..], [reply(8), refused(SocksRefusal::Address)], "{bytes:?}");
        }
        let told = feed(true, b"\x05\x01\x00", 1).0;
        assert_eq!(
            told,
            [SocksOutput::Send(vec![5, 0xff]), refused(SocksRefusal::Method)]
        );
        for login in [
            &b"\x01\x03ops\x06sEcret"[..],
            b"\x01\x03opt\x06secret",
            b"\x02\x03ops\x06secret",
        ] {
            let told = feed(true, &[b"\x05\x01\x02", login].concat(), 5).0;
            assert_eq!(
                told[1..],
                [SocksOutput::Send(vec![1, 1]), refused(SocksRefusal::Login)]
            );
        }
        for other in [&b"GET / HTTP/1.1"[..], b"\x04\x01\x00"] {
            assert_eq!(feed(false, other, 3).0, [refused(SocksRefusal::Version)]);
        }
    }

    #[test]
    fn replies_say_why() {
        for (reason, code) in [
            (ResetReason::NotAllowed, 2),
            (ResetReason::Unreachable, 4),
            (ResetReason::Limit, 1),
        ] {
            let mut reply = Vec::new();
            SocksReply::from(reason).put(&mut reply);
            assert_eq!(reply, [5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_the_same_however_they_come(
            wants_login: bool,
            mut bytes in prop::collection::vec(prop_oneof![0_u8..6, any::<u8>()], 0..600),
            pieces in 1_usize..50,
            is_socks: bool,
        ) {
            if is_socks {
                bytes.splice(0..0, [5, 2, 0, 2]);
            }
            let (whole, taken) = feed(wants_login, &bytes, usize::MAX);
            prop_assert!(taken <= bytes.len());
            let (in_pieces, _) = feed(wants_login, &bytes, pieces);
            prop_assert_eq!(whole, in_pieces);
        }
    }
}
