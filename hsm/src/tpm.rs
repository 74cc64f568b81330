//! Keeping a TPM 2.0 out of dictionary-attack lockout.
//!
//! A TPM counts failed authorisations, and it counts a power cut as one: it cannot know whether the power was taken
//! away to hide a wrong guess (TPM 2.0 Library Part 1 §19.8.6). With the limits many parts come with, three or ten power
//! cuts make an identity key unusable for hours. Three things prevent that:
//!
//! - [`set_limits`] at provisioning: 31 tries, one forgiven every ten minutes;
//! - [`shutdown_orderly`] before the power goes, and whenever the key will not be used for long: what was orderly
//!   does not count;
//! - [`read`] for metrics and `doctor`, so that a counter that climbs is seen before it matters.
//!
//! The commands are few and simple enough to be spoken here, without a TPM software stack. They go to the resource
//! manager in the kernel, `/dev/tpmrm0`, or to the UNIX socket of a software TPM.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::error::OsError;
use crate::secret::Secret;

mod wire;

use wire::{AnswerError, Property};

/// What a TPM says about its protection against guessing (TPM 2.0 Library Part 2 §6.13, `TPM_PT_VAR`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TpmDictionaryAttack {
    /// `TPMA_PERMANENT.inLockout`: keys that are protected do not work at all.
    pub in_lockout: bool,
    /// `TPM_PT_LOCKOUT_COUNTER`: failures that count now; lockout begins when it reaches `tries_max`.
    pub counter: u32,
    /// `TPM_PT_MAX_AUTH_FAIL`: failures that bring lockout.
    pub tries_max: u32,
    /// `TPM_PT_LOCKOUT_INTERVAL`: seconds of running after which one failure is forgiven; 0 forgives none and switches
    /// the protection off.
    pub interval_secs: u32,
    /// `TPM_PT_LOCKOUT_RECOVERY`: seconds for which the lockout authorisation itself is refused after it was given
    /// wrongly; 0 means until the next start.
    pub recovery_secs: u32,
    /// `TPMA_PERMANENT.lockoutAuthSet`: changing the limits needs an authorisation.
    pub needs_authorization: bool,
}

/// Why a TPM could not be asked, or did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TpmError {
    /// The device or socket cannot be opened.
    #[error("TPM {} cannot be opened", path.display())]
    Open {
        /// The device or socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: OsError,
    },
    /// The path is neither a device nor a socket.
    #[error("{} is neither a TPM device nor the socket of a software TPM", path.display())]
    NoTpm {
        /// The path.
        path: PathBuf,
    },
    /// Writing the command or reading the answer failed.
    #[error("{command} was not answered")]
    NoAnswer {
        /// The command.
        command: TpmCommand,
        /// What the system said.
        #[source]
        cause: OsError,
    },
    /// The answer has a form that no TPM gives.
    #[error("the answer to {command} cannot be understood: {problem}")]
    Answer {
        /// The command.
        command: TpmCommand,
        /// What is wrong with it.
        problem: String,
    },
    /// The TPM returned an error (TPM 2.0 Library Part 2 §6.6, `TPM_RC`).
    #[error("{command} returned {code:#05x}")]
    Refused {
        /// The command.
        command: TpmCommand,
        /// The response code.
        code: u32,
    },
    /// The lockout authorisation is set, and none was given. It was not tried with an empty one.
    #[error("{command} needs the lockout authorisation, which is set and was not given")]
    AuthorizationMissing {
        /// The command.
        command: TpmCommand,
    },
    /// The lockout authorisation was wrong, or is refused for a while after it was wrong before.
    #[error("{command} returned {code:#05x}: the lockout authorisation is wrong or blocked")]
    AuthorizationRefused {
        /// The command.
        command: TpmCommand,
        /// The response code.
        code: u32,
    },
}

impl TpmError {
    /// Returns what an operator can do about it. No wildcard arm: a new variant must bring a hint.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Open { .. } => {
                "check that the TPM is enabled in the firmware and that the user of fieldgate is in the group tss"
            }
            Self::NoTpm { .. } => "name the kernel's resource manager, /dev/tpmrm0",
            Self::NoAnswer { .. } => {
                "check the kernel's log for messages of the TPM driver, and that no other program holds the device"
            }
            Self::Answer { .. } => "check that the device is a TPM 2.0: version 1.2 speaks another language",
            Self::Refused { .. } => "look the code up with tpm2_rc_decode",
            Self::AuthorizationMissing { .. } => {
                "give the lockout authorisation that was set when the TPM was taken into use"
            }
            Self::AuthorizationRefused { .. } => {
                "do not try again before its recovery time is over (24 h by default), then with the right one"
            }
        }
    }
}

/// A command of the TPM 2.0 Library, Part 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TpmCommand {
    /// §30.2, reads properties.
    GetCapability,
    /// §25.2, sets the counter to 0.
    DictionaryAttackLockReset,
    /// §25.3, sets the limits.
    DictionaryAttackParameters,
    /// §9.4, prepares for the loss of power.
    Shutdown,
}

impl fmt::Display for TpmCommand {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::GetCapability => "TPM2_GetCapability",
            Self::DictionaryAttackLockReset => "TPM2_DictionaryAttackLockReset",
            Self::DictionaryAttackParameters => "TPM2_DictionaryAttackParameters",
            Self::Shutdown => "TPM2_Shutdown",
        })
    }
}

/// Reads counter and limits (TPM 2.0 Library Part 3 §30.2). Changes nothing and needs no authorisation.
///
/// # Errors
/// Every [`TpmError`] but those about the authorisation.
pub fn read(path: &Path) -> Result<TpmDictionaryAttack, TpmError> {
    Connection::open(path)?.read()
}

/// Sets the limits that field devices need (TPM 2.0 Library Part 3 §25.3): [`TRIES_MAX`], [`INTERVAL_SECS`] and
/// [`RECOVERY_SECS`]. Returns what the TPM has afterwards.
///
/// # Errors
/// [`TpmError::AuthorizationMissing`] before anything is tried: a wrong authorisation is refused for a day afterwards,
/// so it is given at most once. [`TpmError::AuthorizationRefused`] when it was wrong.
pub fn set_limits(path: &Path, authorization: Option<&Secret>) -> Result<TpmDictionaryAttack, TpmError> {
    let mut connection = Connection::open(path)?;
    let command = TpmCommand::DictionaryAttackParameters;
    connection.call_authorized(command, authorization, |authorization| {
        wire::dictionary_attack_parameters(authorization, TRIES_MAX, INTERVAL_SECS, RECOVERY_SECS)
    })?;
    connection.read()
}

/// Ends a lockout: sets the counter to 0 (TPM 2.0 Library Part 3 §25.2). Returns what the TPM has afterwards.
///
/// # Errors
/// As [`set_limits`].
pub fn end_lockout(path: &Path, authorization: Option<&Secret>) -> Result<TpmDictionaryAttack, TpmError> {
    let mut connection = Connection::open(path)?;
    let command = TpmCommand::DictionaryAttackLockReset;
    connection.call_authorized(command, authorization, wire::dictionary_attack_lock_reset)?;
    connection.read()
}

/// Tells the TPM that the power may go now (`TPM2_Shutdown(CLEAR)`, TPM 2.0 Library Part 3 §9.4).
///
/// The TPM goes on working. What is used afterwards makes the next power cut count again, so this is called when the
/// key will rest: when the service stops, and after each renewal that is followed by hours without a signature. It writes to
/// the TPM's non-volatile memory; do not call it for each signature.
///
/// # Errors
/// Every [`TpmError`] but those about the authorisation.
pub fn shutdown_orderly(path: &Path) -> Result<(), TpmError> {
    Connection::open(path)?.call(TpmCommand::Shutdown, &wire::shutdown_clear())?;
    Ok(())
}

/// Failures that bring lockout, as [`set_limits`] sets them: as many power cuts within five hours.
pub const TRIES_MAX: u32 = 31;
/// Seconds after which one failure is forgiven, as [`set_limits`] sets them. 31 guesses and 6 more in each hour are of no use
/// against a random PIN.
pub const INTERVAL_SECS: u32 = 600;
/// Seconds for which a wrong lockout authorisation blocks itself, as [`set_limits`] sets them.
pub const RECOVERY_SECS: u32 = 86_400;

/// A way to a TPM. It is opened for one purpose and closed again: a software TPM serves one connection at a time.
enum Connection {
    Device(File),
    Socket(UnixStream),
}

impl Connection {
    fn open(path: &Path) -> Result<Self, TpmError> {
        let failed = |error: io::Error| TpmError::Open {
            path: path.to_owned(),
            cause: error.into(),
        };
        let kind = fs::metadata(path).map_err(failed)?.file_type();
        if kind.is_socket() {
            let stream = UnixStream::connect(path).map_err(failed)?;
            stream.set_read_timeout(Some(ANSWER_WITHIN)).map_err(failed)?;
            stream.set_write_timeout(Some(ANSWER_WITHIN)).map_err(failed)?;
            Ok(Self::Socket(stream))
        } else if kind.is_char_device() {
            // The driver has time limits of its own for every command.
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .map_err(failed)?;
            Ok(Self::Device(file))
        } else {
            Err(TpmError::NoTpm {
                path: path.to_owned(),
            })
        }
    }

    fn read(&mut self) -> Result<TpmDictionaryAttack, TpmError> {
        let command = TpmCommand::GetCapability;
        let answer = self.call(command, &wire::variable_properties())?;
        let answered = |problem: AnswerError| TpmError::Answer {
            command,
            problem: problem.to_string(),
        };
        let properties = wire::properties(&answer).map_err(answered)?;
        let value = |property| wire::value_of(&properties, property).map_err(answered);
        let permanent = value(Property::Permanent)?;
        Ok(TpmDictionaryAttack {
            in_lockout: permanent & IN_LOCKOUT != 0,
            counter: value(Property::LockoutCounter)?,
            tries_max: value(Property::MaxAuthFail)?,
            interval_secs: value(Property::LockoutInterval)?,
            recovery_secs: value(Property::LockoutRecovery)?,
            needs_authorization: permanent & LOCKOUT_AUTH_SET != 0,
        })
    }

    /// Makes a call with the lockout authorisation, at most once with a wrong one.
    fn call_authorized(
        &mut self,
        command: TpmCommand,
        authorization: Option<&Secret>,
        encode: impl FnOnce(&[u8]) -> Result<Zeroizing<Vec<u8>>, AnswerError>,
    ) -> Result<(), TpmError> {
        if authorization.is_none() && self.read()?.needs_authorization {
            return Err(TpmError::AuthorizationMissing { command });
        }
        let authorization = authorization.map_or(&[][..], Secret::expose);
        let bytes = encode(authorization).map_err(|problem| TpmError::Answer {
            command,
            problem: problem.to_string(),
        })?;
        match self.call(command, &bytes) {
            Ok(_) => Ok(()),
            Err(TpmError::Refused { command, code }) if wire::is_about_authorization(code) => {
                Err(TpmError::AuthorizationRefused { command, code })
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a command and returns the parameters of its answer.
    fn call(&mut self, command: TpmCommand, bytes: &[u8]) -> Result<Vec<u8>, TpmError> {
        let answer = self.exchange(bytes).map_err(|error| TpmError::NoAnswer {
            command,
            cause: error.into(),
        })?;
        let (code, parameters) = wire::answer(&answer).map_err(|problem| TpmError::Answer {
            command,
            problem: problem.to_string(),
        })?;
        match code {
            0 => Ok(parameters.to_vec()),
            code => Err(TpmError::Refused { command, code }),
        }
    }

    /// Writes a command at once, as the device wants it, and reads until the answer is as long as it says.
    fn exchange(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; wire::ANSWER_BYTES_MAX];
        let mut have = 0;
        match self {
            Self::Device(file) => file.write_all(command)?,
            Self::Socket(stream) => stream.write_all(command)?,
        }
        loop {
            let free = buffer.get_mut(have..).unwrap_or_default();
            let read = match self {
                Self::Device(file) => file.read(free)?,
                Self::Socket(stream) => stream.read(free)?,
            };
            have = have.saturating_add(read);
            let so_far = buffer.get(..have).unwrap_or_default();
            // An answer that is longer than the buffer ends with a read of nothing, and is refused by its length.
            if read == 0 || wire::is_complete(so_far) {
                return Ok(so_far.to_vec());
            }
        }
    }
}

/// Time a software TPM has for an answer; the commands here take none of them long.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// `TPMA_PERMANENT` (TPM 2.0 Library Part 2 §8.6).
const LOCKOUT_AUTH_SET: u32 = 1 << 2;
/// The same.
const IN_LOCKOUT: u32 = 1 << 9;
