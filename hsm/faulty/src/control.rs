//! The control file: what a test asks for.

use std::time::Duration;

use cryptoki_sys::{
    CK_FLAGS, CK_MECHANISM_TYPE, CK_RV, CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED,
    CKF_WRITE_PROTECTED,
};

/// What a control file asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    /// Faults of calls, in the order of their lines.
    pub(crate) faults: Vec<Fault>,
    /// No slot holds a token.
    pub(crate) token_vanished: bool,
    /// Flags that `C_GetTokenInfo` shows too.
    pub(crate) flags: CK_FLAGS,
    /// Mechanisms that are not offered.
    pub(crate) removed: Vec<CK_MECHANISM_TYPE>,
    /// Searches find their first match twice.
    pub(crate) keys_doubled: bool,
}

/// A fault of some call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Name of the function in lower case without `c_`, or `*`.
    call: String,
    pub(crate) action: Action,
    /// Calls that are spared first.
    after: u64,
    /// How often it happens then.
    times: u64,
}

/// What happens in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Delay(Duration),
    Fail(CK_RV),
    Hang,
    Crash,
    Garbage,
    Short,
}

/// Why a control file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the control file, `{text}`: {problem}")]
pub(crate) struct ControlError {
    /// Counted from 1.
    line: usize,
    text: String,
    problem: &'static str,
}

impl Control {
    /// Reads a control file.
    pub(crate) fn parse(text: &str) -> Result<Self, ControlError> {
        let mut control = Self::default();
        for (index, line) in text.lines().enumerate() {
            let before_comment = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = before_comment.split_whitespace().collect();
            control.add(&words).map_err(|problem| ControlError {
                line: index.saturating_add(1),
                text: line.to_owned(),
                problem,
            })?;
        }
        Ok(control)
    }

    fn add(&mut self, words: &[&str]) -> Result<(), &'static str> {
        match *words {
            [] => {}
            ["token", "vanish"] => self.token_vanished = true,
            ["keys", "double"] => self.keys_doubled = true,
            ["flags", flag] => self.flags |= token_flag(flag).ok_or("there is no such flag")?,
            ["mechanism", "remove", number] => self.removed.push(value(number)?),
            [call, ref action @ ..] => self.faults.push(Fault::parse(call, action)?),
        }
        Ok(())
    }
}

impl Fault {
    fn parse(call: &str, words: &[&str]) -> Result<Self, &'static str> {
        let call = call.to_ascii_lowercase();
        if call != "*" && !CALLS.iter().any(|name| name.eq_ignore_ascii_case(&call)) {
            return Err("there is no such call");
        }
        let (action, mut rest) = match words {
            ["delay", milliseconds, rest @ ..] => {
                (Action::Delay(Duration::from_millis(number(milliseconds)?)), rest)
            }
            ["fail", return_value, rest @ ..] => (Action::Fail(value(return_value)?), rest),
            ["hang", rest @ ..] => (Action::Hang, rest),
            ["crash", rest @ ..] => (Action::Crash, rest),
            ["garbage", rest @ ..] if call == "sign" => (Action::Garbage, rest),
            ["short", rest @ ..] if call == "sign" => (Action::Short, rest),
            _ => return Err("there is no such fault"),
        };
        let mut fault = Self {
            call,
            action,
            after: 0,
            times: u64::MAX,
        };
        while let [word, count, others @ ..] = rest {
            match *word {
                "after" => fault.after = number(count)?,
                "times" => fault.times = number(count)?,
                _ => return Err("only `after` and `times` can follow a fault"),
            }
            rest = others;
        }
        if rest.is_empty() {
            Ok(fault)
        } else {
            Err("a number is missing at the end")
        }
    }

    /// Says whether the fault concerns a call, such as `C_Sign`.
    pub(crate) fn concerns(&self, name: &str) -> bool {
        let name = name.strip_prefix("C_").unwrap_or(name);
        self.call == "*" || self.call.eq_ignore_ascii_case(name)
    }

    /// Says whether the fault happens in a call that it concerns, `earlier` of which there were before.
    pub(crate) const fn happens(&self, earlier: u64) -> bool {
        match earlier.checked_sub(self.after) {
            Some(happened) => happened < self.times,
            None => false,
        }
    }
}

fn token_flag(name: &str) -> Option<CK_FLAGS> {
    match name {
        "count-low" => Some(CKF_USER_PIN_COUNT_LOW),
        "final-try" => Some(CKF_USER_PIN_FINAL_TRY),
        "locked" => Some(CKF_USER_PIN_LOCKED),
        "write-protected" => Some(CKF_WRITE_PROTECTED),
        _ => None,
    }
}

/// Reads a number, in hexadecimal digits after `0x`.
fn number(word: &str) -> Result<u64, &'static str> {
    let read = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    read.map_err(|_| "this is not a number")
}

/// Reads a number of the size that the interface has for all its numbers.
fn value<T: TryFrom<u64>>(word: &str) -> Result<T, &'static str> {
    T::try_from(number(word)?).map_err(|_| "the number is too large")
}

/// Names of all calls, without `C_`.
pub(crate) const CALLS: [&str; 67] = [
    "Initialize",
    "Finalize",
    "GetInfo",
    "GetSlotList",
    "GetSlotInfo",
    "GetTokenInfo",
    "GetMechanismList",
    "GetMechanismInfo",
    "InitToken",
    "InitPIN",
    "SetPIN",
    "OpenSession",
    "CloseSession",
    "CloseAllSessions",
    "GetSessionInfo",
    "GetOperationState",
    "SetOperationState",
    "Login",
    "Logout",
    "CreateObject",
    "CopyObject",
    "DestroyObject",
    "GetObjectSize",
    "GetAttributeValue",
    "SetAttributeValue",
    "FindObjectsInit",
    "FindObjects",
    "FindObjectsFinal",
    "EncryptInit",
    "Encrypt",
    "EncryptUpdate",
    "EncryptFinal",
    "DecryptInit",
    "Decrypt",
    "DecryptUpdate",
    "DecryptFinal",
    "DigestInit",
    "Digest",
    "DigestUpdate",
    "DigestKey",
    "DigestFinal",
    "SignInit",
    "Sign",
    "SignUpdate",
    "SignFinal",
    "SignRecoverInit",
    "SignRecover",
    "VerifyInit",
    "Verify",
    "VerifyUpdate",
    "VerifyFinal",
    "VerifyRecoverInit",
    "VerifyRecover",
    "DigestEncryptUpdate",
    "DecryptDigestUpdate",
    "SignEncryptUpdate",
    "DecryptVerifyUpdate",
    "GenerateKey",
    "GenerateKeyPair",
    "WrapKey",
    "UnwrapKey",
    "DeriveKey",
    "SeedRandom",
    "GenerateRandom",
    "GetFunctionStatus",
    "CancelFunction",
    "WaitForSlotEvent",
];

#[cfg(test)]
mod tests;
