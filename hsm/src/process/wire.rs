//! What a node and its token worker say to each other.
//!
//! ```text
//!  frame = u32 length | u8 version (1) | u8 kind | u32 id | body        length counts from the version on; at most 262,144
//!
//!  node ──Configure──▶ worker      worker ──Hello──────────────────────▶ node   once, before anything else
//!       ──Sign───────▶             ◀──LoginBegun, LoginDone── as they happen
//!       ──Keys───────▶             ──Opened, Destroyed, Unwrapped, Signed, Keys, Statistics──▶   with the request's id
//!       ──Statistics─▶             ──Failed────────────────────────────▶
//!       ──Stop───────▶
//! ```
//!
//! Integers are big-endian. A text, a path and a list begin with a `u32` that counts bytes or elements, an optional value
//! with a `u8` that is 0 or 1, one of several with a `u8` that says which. Nothing may follow a body. Both sides are the
//! same program; a version that differs means that it was replaced while it ran. The worker runs a vendor's code, so the
//! node believes nothing of what it says: it decodes within bounds and verifies every signature.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::error::Error;
use crate::pkcs11::{KeyOrigin, KeySummary, LowCount, Recoveries, TokenState, WrappedSecret};
use crate::secret::Secret;
use crate::settings::Settings;
use crate::signer::{Algorithm, PublicKey, Signature};

use super::SandboxReport;

mod codec;
mod errors;
mod texts;

use codec::{Reader, Wire, Writer, wire_enum, wire_struct};

/// The version of this protocol.
pub const VERSION: u8 = 1;

/// Largest value of a frame's length.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

/// Smallest value of a frame's length: version, kind and id.
pub const FRAME_BYTES_MIN: usize = 6;

/// What a node asks of its worker.
#[derive(Debug, PartialEq, Eq)]
pub struct WorkerRequest {
    /// Comes back in the answer.
    pub id: u32,
    /// What is asked.
    pub body: RequestBody,
}

/// The kinds of requests.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one is alive at a time")]
pub enum RequestBody {
    /// Sets the worker up; the first request and the only one of its kind. Answered by Opened, Destroyed, Unwrapped or
    /// Failed.
    Configure(Configuration),
    /// Asks for a signature of these bytes. Answered by Signed or Failed.
    Sign(Vec<u8>),
    /// Asks for the keys that match. Answered by Keys or Failed.
    Keys,
    /// Asks what was done so far and how the token is. Answered by Statistics.
    Statistics,
    /// Ends the worker. Not answered.
    Stop,
}

/// All that a worker has to know.
#[derive(Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Where the key is.
    pub settings: Settings,
    /// The PIN, the passphrase or the sealing key.
    pub secret: Secret,
    /// What to do there.
    pub task: Task,
    /// Whether the PIN may be tried although the token warns.
    pub low_count: LowCount,
    /// A directory of the node that must stay closed to the worker; it tries and says so.
    pub closed: Option<PathBuf>,
}

/// What a worker does before it serves signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Opens the key with this public key; with `None` exactly one key must match.
    Open(Option<PublicKey>),
    /// Makes a key on a token, and opens it.
    Create(Algorithm),
    /// Makes a successor of the key `current` on a token, and opens it.
    CreateNext {
        /// Public key of the one whose successor is made.
        current: PublicKey,
        /// Kind of the new one.
        algorithm: Algorithm,
    },
    /// Removes the key with this public key from a token; signatures there are none.
    Destroy(PublicKey),
    /// Opens a secret that a key of the token has wrapped; without one draws and wraps it. Signatures there are none.
    Unwrap(Option<Vec<u8>>),
}

/// What a worker tells its node.
#[derive(Debug, PartialEq, Eq)]
pub struct WorkerAnswer {
    /// The number of the request, 0 for what was not asked for.
    pub id: u32,
    /// What is told.
    pub body: AnswerBody,
}

/// The kinds of answers.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one is alive at a time")]
pub enum AnswerBody {
    /// The worker is there.
    Hello {
        /// Version of its program.
        software: String,
    },
    /// The PIN is about to be given to the token.
    LoginBegun,
    /// The token has answered to that.
    LoginDone(LoginOutcome),
    /// The key is open.
    Opened(Opened),
    /// The key is no more.
    Destroyed,
    /// A secret that was wrapped.
    Unwrapped(WrappedSecret),
    /// A signature.
    Signed(Signature),
    /// Why there is no other answer.
    Failed(Error),
    /// The keys that match.
    Keys(Vec<KeySummary>),
    /// What was done so far.
    Statistics(WorkerStatistics),
}

/// How a token has answered to a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginOutcome {
    /// It took the PIN.
    Accepted,
    /// It refused the PIN.
    Refused(RefusedPin),
    /// It said something else.
    Other,
}

/// What is left of a PIN that a token has refused: enough to know it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedPin {
    /// Drawn anew for each.
    pub salt: [u8; 16],
    /// PBKDF2-HMAC-SHA-256 (RFC 8018 §5.2) of the PIN.
    pub hash: [u8; 32],
}

/// The key that was opened, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its public key.
    pub public_key: PublicKey,
    /// Where it is.
    pub location: String,
    /// What the token says about how it came to be; `None` for a file.
    pub origin: Option<KeyOrigin>,
    /// Description and version of the module; `None` for a file and for a module that does not say.
    pub module: Option<String>,
    /// What confines the worker.
    pub sandbox: SandboxReport,
}

/// What a worker has done, and how its token is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerStatistics {
    /// How often each rung of the recovery ladder brought the token back.
    pub recoveries: Recoveries,
    /// The token; `None` for a file and while there is none.
    pub token: Option<TokenState>,
}

/// Why bytes from the other side are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The frame ends before its content does.
    #[error("a frame ends {missing} bytes early")]
    Truncated {
        /// Bytes that are missing at least.
        missing: usize,
    },
    /// The length is one that no frame has.
    #[error("a frame has {have} bytes, outside {min}..={max}")]
    Length {
        /// Bytes given.
        have: usize,
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
    /// The other side speaks another version.
    #[error("the other side speaks version {got} of the worker protocol, this one version {want}")]
    Version {
        /// Its version.
        got: u8,
        /// Ours.
        want: u8,
    },
    /// A number stands for nothing.
    #[error("{got} is no {what}")]
    Value {
        /// What it should be.
        what: &'static str,
        /// The number.
        got: u64,
    },
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Utf8,
    /// A PKCS#11 URI is not valid.
    #[error("a PKCS#11 URI is not valid")]
    Uri,
    /// Bytes follow the body.
    #[error("{bytes} bytes follow the end of a frame's content")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// An error has causes of causes beyond all need.
    #[error("an error is nested too deeply")]
    Depth,
    /// More fixed texts than this program has.
    #[error("there are more fixed texts than any program has")]
    Texts,
    /// An answer that does not fit what was asked.
    #[error("the answer does not fit the request")]
    Unexpected,
}

impl WireError {
    /// Returns what an operator can do about it. No wildcard arm: a new variant must bring a hint.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Version { .. } => "the binary was replaced while it was running: restart the node",
            Self::Truncated { .. }
            | Self::Length { .. }
            | Self::Value { .. }
            | Self::Utf8
            | Self::Uri
            | Self::Trailing { .. }
            | Self::Depth
            | Self::Texts
            | Self::Unexpected => {
                "restart the node; if that does not help, the module damages the worker's memory: report it to its maker"
            }
        }
    }
}

/// Decodes a request: a frame without its length.
///
/// # Errors
/// [`WireError`]; nothing is believed before all of it was read.
pub fn decode_request(frame: &[u8]) -> Result<WorkerRequest, WireError> {
    let (mut reader, kind, id) = open(frame)?;
    let body = match kind {
        CONFIGURE => RequestBody::Configure(Wire::take(&mut reader)?),
        SIGN => RequestBody::Sign(Wire::take(&mut reader)?),
        KEYS => RequestBody::Keys,
        STATISTICS => RequestBody::Statistics,
        STOP => RequestBody::Stop,
        got => return Err(unknown("kind of request", got)),
    };
    reader.end()?;
    Ok(WorkerRequest { id, body })
}

/// Decodes an answer: a frame without its length.
///
/// # Errors
/// [`WireError`]; nothing is believed before all of it was read.
pub fn decode_answer(frame: &[u8]) -> Result<WorkerAnswer, WireError> {
    let (mut reader, kind, id) = open(frame)?;
    let body = match kind {
        HELLO => AnswerBody::Hello {
            software: Wire::take(&mut reader)?,
        },
        LOGIN_BEGUN => AnswerBody::LoginBegun,
        LOGIN_DONE => AnswerBody::LoginDone(Wire::take(&mut reader)?),
        OPENED => AnswerBody::Opened(Wire::take(&mut reader)?),
        DESTROYED => AnswerBody::Destroyed,
        UNWRAPPED => AnswerBody::Unwrapped(Wire::take(&mut reader)?),
        SIGNED => AnswerBody::Signed(Wire::take(&mut reader)?),
        FAILED => AnswerBody::Failed(Wire::take(&mut reader)?),
        KEYS_ANSWER => AnswerBody::Keys(Wire::take(&mut reader)?),
        STATISTICS_ANSWER => AnswerBody::Statistics(Wire::take(&mut reader)?),
        got => return Err(unknown("kind of answer", got)),
    };
    reader.end()?;
    Ok(WorkerAnswer { id, body })
}

/// Encodes a request as a whole frame, length included. The bytes may hold the PIN; they are wiped on drop.
///
/// # Errors
/// [`WireError::Length`] for one that no frame can hold.
pub fn encode_request(request: &WorkerRequest) -> Result<Zeroizing<Vec<u8>>, WireError> {
    let kind = match &request.body {
        RequestBody::Configure(_) => CONFIGURE,
        RequestBody::Sign(_) => SIGN,
        RequestBody::Keys => KEYS,
        RequestBody::Statistics => STATISTICS,
        RequestBody::Stop => STOP,
    };
    let mut writer = Writer::new(kind, request.id);
    match &request.body {
        RequestBody::Configure(configuration) => configuration.put(&mut writer),
        RequestBody::Sign(message) => message.put(&mut writer),
        RequestBody::Keys | RequestBody::Statistics | RequestBody::Stop => {}
    }
    writer.finish()
}

/// Encodes an answer as a whole frame, length included.
///
/// # Errors
/// [`WireError::Length`] for one that no frame can hold.
pub fn encode_answer(answer: &WorkerAnswer) -> Result<Zeroizing<Vec<u8>>, WireError> {
    let kind = match &answer.body {
        AnswerBody::Hello { .. } => HELLO,
        AnswerBody::LoginBegun => LOGIN_BEGUN,
        AnswerBody::LoginDone(_) => LOGIN_DONE,
        AnswerBody::Opened(_) => OPENED,
        AnswerBody::Destroyed => DESTROYED,
        AnswerBody::Unwrapped(_) => UNWRAPPED,
        AnswerBody::Signed(_) => SIGNED,
        AnswerBody::Failed(_) => FAILED,
        AnswerBody::Keys(_) => KEYS_ANSWER,
        AnswerBody::Statistics(_) => STATISTICS_ANSWER,
    };
    let mut writer = Writer::new(kind, answer.id);
    match &answer.body {
        AnswerBody::Hello { software } => software.put(&mut writer),
        AnswerBody::LoginBegun | AnswerBody::Destroyed => {}
        AnswerBody::LoginDone(outcome) => outcome.put(&mut writer),
        AnswerBody::Opened(opened) => opened.put(&mut writer),
        AnswerBody::Unwrapped(unwrapped) => unwrapped.put(&mut writer),
        AnswerBody::Signed(signature) => signature.put(&mut writer),
        AnswerBody::Failed(error) => error.put(&mut writer),
        AnswerBody::Keys(keys) => keys.put(&mut writer),
        AnswerBody::Statistics(statistics) => statistics.put(&mut writer),
    }
    writer.finish()
}

/// Reads what every frame begins with.
fn open(frame: &[u8]) -> Result<(Reader<'_>, u8, u32), WireError> {
    let mut reader = Reader::new(frame);
    let got = u8::take(&mut reader)?;
    if got != VERSION {
        return Err(WireError::Version { got, want: VERSION });
    }
    check_length(frame.len())?;
    let kind = u8::take(&mut reader)?;
    let id = u32::take(&mut reader)?;
    Ok((reader, kind, id))
}

/// Says whether a frame may have that length.
pub(super) const fn check_length(have: usize) -> Result<(), WireError> {
    if have < FRAME_BYTES_MIN || have > FRAME_BYTES_MAX {
        return Err(WireError::Length {
            have,
            min: FRAME_BYTES_MIN,
            max: FRAME_BYTES_MAX,
        });
    }
    Ok(())
}

fn unknown(what: &'static str, got: u8) -> WireError {
    WireError::Value {
        what,
        got: got.into(),
    }
}

wire_struct!(Configuration {
    settings,
    secret,
    task,
    low_count,
    closed
});
wire_enum!(Task, "task of a worker" {
    1 => Open(wanted),
    2 => Create(algorithm),
    3 => CreateNext { current, algorithm },
    4 => Destroy(public_key),
    5 => Unwrap(wrapped),
});
wire_enum!(LowCount, "way with a warning" {
    1 => Stop,
    2 => TryOnce,
});
wire_enum!(LoginOutcome, "outcome of a login" {
    1 => Accepted,
    2 => Refused(pin),
    3 => Other,
});
wire_struct!(RefusedPin { salt, hash });
wire_struct!(WrappedSecret { wrapped, secret });
wire_struct!(Opened {
    public_key,
    location,
    origin,
    module,
    sandbox
});
wire_struct!(WorkerStatistics { recoveries, token });

const CONFIGURE: u8 = 0x01;
const SIGN: u8 = 0x02;
const KEYS: u8 = 0x03;
const STATISTICS: u8 = 0x04;
const STOP: u8 = 0x05;
const HELLO: u8 = 0x80;
const LOGIN_BEGUN: u8 = 0x81;
const LOGIN_DONE: u8 = 0x82;
const OPENED: u8 = 0x83;
const SIGNED: u8 = 0x84;
const FAILED: u8 = 0x85;
const KEYS_ANSWER: u8 = 0x86;
const STATISTICS_ANSWER: u8 = 0x87;
const DESTROYED: u8 = 0x88;
const UNWRAPPED: u8 = 0x89;

#[cfg(test)]
mod tests;
