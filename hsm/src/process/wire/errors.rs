//! The form of errors: whole, so that a person reads the same words as if there were no worker process.

use std::io;

use super::WireError;
use super::codec::{Reader, Wire, Writer, wire_enum, wire_struct};
use crate::error::{CallError, Error, KeyProblem, OsError, PinState, Stage, WorkerEnd};
use crate::file::SealError;
use crate::uri::UriError;

wire_enum!(Error, "kind of error" {
    1 => Uri(problem),
    2 => UriUnsuitable { uri, reason },
    3 => Contradiction { what, first, second },
    4 => Missing { what },
    5 => CredentialsDirectory { name },
    6 => CredentialName { name },
    7 => SecretUnreadable { secret, cause },
    8 => SecretVariable { variable },
    9 => SecretEmpty { secret },
    10 => SecretTooLong { secret, bytes_max },
    11 => Exposed { path, mode },
    12 => Owner { path, owner, user },
    13 => FileExists { path },
    14 => FileUnreadable { path, cause },
    15 => FileUnwritable { path, cause },
    16 => FileDamaged { path, problem },
    17 => WrongKey { path },
    18 => KeyTooShort { have, min },
    19 => ModuleLoad { module, cause },
    20 => Module { module, cause },
    21 => TokenNotFound { uri, offered },
    22 => TokenAmbiguous { uri, offered },
    23 => Mechanism { token, mechanism, offered },
    24 => WriteProtected { token },
    25 => PinPad { token },
    26 => PinUnset { token },
    27 => PinBlocked { token, state },
    28 => PinRefused { token, secret, cause },
    29 => PinRefusedBefore { secret, marker },
    30 => LoginDeadly { deaths, marker },
    31 => PinMarker { path, cause },
    32 => KeyNotFound { uri, offered },
    33 => KeyAmbiguous { uri, offered },
    34 => KeyNotWanted { place, wanted, offered },
    35 => KeyUnsuitable { key, problem },
    36 => PublicKeyMissing { key },
    37 => SignatureInvalid { key },
    38 => SignatureLength { have },
    39 => LabelTaken { token, label },
    40 => Label { have, max },
    41 => Call { token, cause },
    42 => Unavailable { key, retry_after, cause },
    43 => Crypto { operation },
    44 => PrivateKey,
    45 => TimedOut { after, stage },
    46 => QueueFull { limit },
    47 => Stopped,
    48 => Thread(cause),
    49 => WorkerStart { program, cause },
    50 => WorkerEnded { how },
    51 => WorkerProtocol(problem),
    52 => NotUnwrapped { key },
});
wire_enum!(UriError, "problem of a URI" {
    1 => Scheme,
    2 => TooLong { have, max },
    3 => Attribute { position },
    4 => Character { position },
    5 => Percent { position },
    6 => Utf8 { name },
    7 => Repeated { name },
    8 => Value { name, expected },
    9 => PinValue,
    10 => PinCommand,
    11 => PinSource,
});
wire_enum!(SealError, "problem of a key file" {
    1 => Length { have },
    2 => Magic,
    3 => Checksum,
    4 => Version { got },
    5 => Algorithm { got },
    6 => Derivation { got },
    7 => Cost { what, got, min, max },
    8 => Memory { kib },
    9 => Halves,
});
wire_enum!(KeyProblem, "problem of a key" {
    1 => NotSensitive,
    2 => Extractable,
    3 => CannotSign,
    4 => AlwaysAuthenticate,
    5 => Unreported(attribute),
    6 => Type(found),
    7 => Curve(found),
});
wire_enum!(PinState, "state of a PIN" {
    1 => Locked,
    2 => FinalTry,
    3 => CountLow,
});
wire_enum!(Stage, "stage of a request" {
    1 => Opening,
    2 => Queued,
    3 => Signing,
    4 => Waiting(problem),
});
wire_enum!(WorkerEnd, "end of a worker" {
    1 => Signal(signal),
    2 => Exited(code),
    3 => Silent(time),
    4 => Confused,
});
wire_enum!(WireError, "problem of a frame" {
    1 => Truncated { missing },
    2 => Length { have, min, max },
    3 => Version { got, want },
    4 => Value { what, got },
    5 => Utf8,
    6 => Uri,
    7 => Trailing { bytes },
    8 => Depth,
    9 => Texts,
    10 => Unexpected,
});
wire_struct!(CallError { function, code });

impl Wire for OsError {
    fn put(&self, writer: &mut Writer) {
        let code = KINDS
            .iter()
            .find(|(_, kind)| *kind == self.kind)
            .map_or(OTHER, |(code, _)| *code);
        code.put(writer);
        self.message.put(writer);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let got = u8::take(reader)?;
        let kind = match KINDS.iter().find(|(code, _)| *code == got) {
            Some((_, kind)) => *kind,
            None if got == OTHER => io::ErrorKind::Other,
            None => {
                return Err(WireError::Value {
                    what: "class of failure",
                    got: got.into(),
                });
            }
        };
        let message = String::take(reader)?;
        Ok(Self { kind, message })
    }
}

/// The classes of failures that anybody tells apart; the message says the rest.
const KINDS: [(u8, io::ErrorKind); 12] = [
    (1, io::ErrorKind::NotFound),
    (2, io::ErrorKind::PermissionDenied),
    (3, io::ErrorKind::AlreadyExists),
    (4, io::ErrorKind::InvalidInput),
    (5, io::ErrorKind::InvalidData),
    (6, io::ErrorKind::TimedOut),
    (7, io::ErrorKind::Interrupted),
    (8, io::ErrorKind::StorageFull),
    (9, io::ErrorKind::ReadOnlyFilesystem),
    (10, io::ErrorKind::OutOfMemory),
    (11, io::ErrorKind::Unsupported),
    (12, io::ErrorKind::UnexpectedEof),
];
/// Every other class.
const OTHER: u8 = 0;
