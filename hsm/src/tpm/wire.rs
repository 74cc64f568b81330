//! The bytes of TPM commands and answers (TPM 2.0 Library Part 1 §18, Part 3 §5). All numbers are big-endian.
//!
//! ```text
//!  command:  tag u16 | size u32 | code u32 | [handle u32 | size of authorisations u32 | authorisations] | parameters
//!  answer:   tag u16 | size u32 | code u32 | parameters
//! ```

use zeroize::Zeroizing;

/// Why an answer cannot be understood, or a command not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("it ends at byte {have}, but {field} needs {need}")]
    Truncated {
        field: &'static str,
        need: usize,
        have: usize,
    },
    #[error("it says that it has {said} bytes and has {have}")]
    Size { said: u32, have: usize },
    #[error("its tag is {0:#06x}")]
    Tag(u16),
    #[error("it is about capability {0} instead of 6")]
    Capability(u32),
    #[error("it names {0} properties, more than one answer can hold")]
    Count(u32),
    #[error("it does not name the property {0:#x}")]
    Absent(u32),
    #[error("an authorisation of {have} bytes is given, {max} are allowed")]
    Authorization { have: usize, max: usize },
}

/// A property that is read (TPM 2.0 Library Part 2 §6.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Property {
    /// `TPM_PT_PERMANENT`.
    Permanent,
    /// `TPM_PT_LOCKOUT_COUNTER`.
    LockoutCounter,
    /// `TPM_PT_MAX_AUTH_FAIL`.
    MaxAuthFail,
    /// `TPM_PT_LOCKOUT_INTERVAL`.
    LockoutInterval,
    /// `TPM_PT_LOCKOUT_RECOVERY`.
    LockoutRecovery,
}

impl Property {
    const fn code(self) -> u32 {
        match self {
            Self::Permanent => 0x200,
            Self::LockoutCounter => 0x20e,
            Self::MaxAuthFail => 0x20f,
            Self::LockoutInterval => 0x210,
            Self::LockoutRecovery => 0x211,
        }
    }
}

/// Writes `TPM2_GetCapability(TPM_CAP_TPM_PROPERTIES)` for all variable properties up to the last one that is read.
pub(super) fn variable_properties() -> Zeroizing<Vec<u8>> {
    let first = Property::Permanent.code();
    let count = Property::LockoutRecovery
        .code()
        .saturating_sub(first)
        .saturating_add(1);
    let numbers = [CAP_TPM_PROPERTIES, first, count];
    command(ST_NO_SESSIONS, CC_GET_CAPABILITY, &[], &numbers_of(&numbers))
}

/// Writes `TPM2_DictionaryAttackParameters`.
pub(super) fn dictionary_attack_parameters(
    authorization: &[u8],
    tries_max: u32,
    interval_secs: u32,
    recovery_secs: u32,
) -> Result<Zeroizing<Vec<u8>>, AnswerError> {
    let authorization = lockout_authorization(authorization)?;
    let parameters = numbers_of(&[tries_max, interval_secs, recovery_secs]);
    let code = CC_DICTIONARY_ATTACK_PARAMETERS;
    Ok(command(ST_SESSIONS, code, &authorization, &parameters))
}

/// Writes `TPM2_DictionaryAttackLockReset`.
pub(super) fn dictionary_attack_lock_reset(authorization: &[u8]) -> Result<Zeroizing<Vec<u8>>, AnswerError> {
    let authorization = lockout_authorization(authorization)?;
    let code = CC_DICTIONARY_ATTACK_LOCK_RESET;
    Ok(command(ST_SESSIONS, code, &authorization, &[]))
}

/// Writes `TPM2_Shutdown(TPM_SU_CLEAR)`.
pub(super) fn shutdown_clear() -> Zeroizing<Vec<u8>> {
    command(ST_NO_SESSIONS, CC_SHUTDOWN, &[], &SU_CLEAR.to_be_bytes())
}

/// Writes the lockout hierarchy's handle and its password: `handle | size | TPM_RS_PW | no nonce | attributes | password`
/// (TPM 2.0 Library Part 1 §19.4).
fn lockout_authorization(password: &[u8]) -> Result<Zeroizing<Vec<u8>>, AnswerError> {
    let too_long = AnswerError::Authorization {
        have: password.len(),
        max: AUTHORIZATION_BYTES_MAX,
    };
    if password.len() > AUTHORIZATION_BYTES_MAX {
        return Err(too_long);
    }
    let length = u16::try_from(password.len()).map_err(|_| too_long)?;
    let size = u32::from(length).saturating_add(9);
    // All its room at once, so that no copy of the password is left behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(COMMAND_BYTES_MAX));
    bytes.extend_from_slice(&RH_LOCKOUT.to_be_bytes());
    bytes.extend_from_slice(&size.to_be_bytes());
    bytes.extend_from_slice(&RS_PW.to_be_bytes());
    bytes.extend_from_slice(&0_u16.to_be_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(password);
    Ok(bytes)
}

fn command(tag: u16, code: u32, authorization: &[u8], parameters: &[u8]) -> Zeroizing<Vec<u8>> {
    let length = HEADER_BYTES
        .saturating_add(authorization.len())
        .saturating_add(parameters.len());
    let size = u32::try_from(length).expect("commands have a few dozen bytes and an authorisation of 64");
    let mut bytes = Zeroizing::new(Vec::with_capacity(COMMAND_BYTES_MAX));
    bytes.extend_from_slice(&tag.to_be_bytes());
    bytes.extend_from_slice(&size.to_be_bytes());
    bytes.extend_from_slice(&code.to_be_bytes());
    bytes.extend_from_slice(authorization);
    bytes.extend_from_slice(parameters);
    bytes
}

fn numbers_of(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// Says whether an answer is as long as its header says.
pub(super) fn is_complete(bytes: &[u8]) -> bool {
    let mut reader = Reader(bytes);
    let header = reader.u16("the tag").and_then(|_| reader.u32("the size"));
    header.is_ok_and(|size| usize::try_from(size).is_ok_and(|size| bytes.len() >= size))
}

/// Takes an answer apart: response code and parameters.
pub(super) fn answer(bytes: &[u8]) -> Result<(u32, &[u8]), AnswerError> {
    let mut reader = Reader(bytes);
    let tag = reader.u16("the tag")?;
    let size = reader.u32("the size")?;
    let code = reader.u32("the response code")?;
    if usize::try_from(size) != Ok(bytes.len()) {
        return Err(AnswerError::Size {
            said: size,
            have: bytes.len(),
        });
    }
    // An error has no sessions whatever the command had; a TPM 1.2 answers with a tag of its own.
    match tag {
        ST_NO_SESSIONS | ST_SESSIONS => Ok((code, reader.0)),
        tag => Err(AnswerError::Tag(tag)),
    }
}

/// Reads the parameters of an answer to [`variable_properties`]:
/// `more u8 | capability u32 | count u32 | count × (property u32 | value u32)`.
pub(super) fn properties(parameters: &[u8]) -> Result<Vec<(u32, u32)>, AnswerError> {
    let mut reader = Reader(parameters);
    reader.u8("the note that there are more")?;
    let capability = reader.u32("the capability")?;
    if capability != CAP_TPM_PROPERTIES {
        return Err(AnswerError::Capability(capability));
    }
    let count = reader.u32("the count of properties")?;
    if count > PROPERTIES_MAX {
        return Err(AnswerError::Count(count));
    }
    (0..count)
        .map(|_| Ok((reader.u32("a property")?, reader.u32("the value of a property")?)))
        .collect()
}

/// Returns the value of a property.
pub(super) fn value_of(properties: &[(u32, u32)], property: Property) -> Result<u32, AnswerError> {
    let code = property.code();
    let found = properties.iter().find(|(property, _)| *property == code);
    found.map(|(_, value)| *value).ok_or(AnswerError::Absent(code))
}

/// Says whether a response code is about an authorisation that is wrong or blocked (TPM 2.0 Library Part 2 §6.6).
pub(super) const fn is_about_authorization(code: u32) -> bool {
    if code == RC_LOCKOUT {
        return true;
    }
    // Format one: bit 7 is set, bits 8 to 11 name the session, bit 6 a parameter.
    let is_format_one = code & 0x80 != 0;
    is_format_one && matches!(code & 0xbf, RC_AUTH_FAIL | RC_BAD_AUTH)
}

/// Reads numbers off the front of bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], AnswerError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(AnswerError::Truncated {
            field,
            need: N,
            have: self.0.len(),
        })?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, AnswerError> {
        self.take(field).map(u8::from_be_bytes)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, AnswerError> {
        self.take(field).map(u16::from_be_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, AnswerError> {
        self.take(field).map(u32::from_be_bytes)
    }
}

/// Longest answer that is read; those to the commands here have less than 200 bytes.
pub(super) const ANSWER_BYTES_MAX: usize = 4096;

/// Longest command that is written.
const COMMAND_BYTES_MAX: usize = 128;
/// Longest password: that of the largest hash a TPM has.
const AUTHORIZATION_BYTES_MAX: usize = 64;
/// Most properties in one answer (`MAX_TPM_PROPERTIES`, TPM 2.0 Library Part 2 §10.8).
const PROPERTIES_MAX: u32 = 127;
const HEADER_BYTES: usize = 10;
const ST_NO_SESSIONS: u16 = 0x8001;
const ST_SESSIONS: u16 = 0x8002;
const CC_DICTIONARY_ATTACK_LOCK_RESET: u32 = 0x139;
const CC_DICTIONARY_ATTACK_PARAMETERS: u32 = 0x13a;
const CC_SHUTDOWN: u32 = 0x145;
const CC_GET_CAPABILITY: u32 = 0x17a;
const CAP_TPM_PROPERTIES: u32 = 6;
const SU_CLEAR: u16 = 0;
const RH_LOCKOUT: u32 = 0x4000_000a;
const RS_PW: u32 = 0x4000_0009;
const RC_LOCKOUT: u32 = 0x921;
const RC_AUTH_FAIL: u32 = 0x8e;
const RC_BAD_AUTH: u32 = 0xa2;

#[cfg(test)]
mod tests;
