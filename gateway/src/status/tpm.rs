//! What a node tells of the TPM that holds its key.

use std::fmt::{self, Write as _};

use fieldgate_hsm::tpm::TpmDictionaryAttack;
use serde::{Deserialize, Serialize};

use super::duration;

/// The TPM's protection against guessing, which power cuts count towards; named as `fieldgate hsm tpm --json` does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TpmStatus {
    /// Keys that are protected do not work at all.
    pub(crate) in_lockout: bool,
    /// Failures that count now.
    pub(crate) failures: u32,
    /// Failures that bring lockout.
    pub(crate) failures_max: u32,
    /// Seconds of running after which one failure is forgiven; 0 forgives none.
    pub(crate) forgiven_every_secs: u32,
}

impl TpmStatus {
    /// Takes what the TPM says.
    pub(crate) const fn new(state: &TpmDictionaryAttack) -> Self {
        Self {
            in_lockout: state.in_lockout,
            failures: state.counter,
            failures_max: state.tries_max,
            forgiven_every_secs: state.interval_secs,
        }
    }

    /// Returns what an operator has to do, if anything.
    pub(crate) fn reason(&self) -> Option<String> {
        self.in_lockout.then(|| {
            format!(
                "the TPM is locked out: its keys work again when a failure is forgiven, one every {} s",
                self.forgiven_every_secs
            )
        })
    }

    /// Writes a line while there is something to see.
    pub(crate) fn write_text(&self, out: &mut String) -> fmt::Result {
        if self.failures == 0 && !self.in_lockout {
            return Ok(());
        }
        let lockout = if self.in_lockout { ", LOCKED OUT" } else { "" };
        let forgiven = match self.forgiven_every_secs {
            0 => "forgives none".to_owned(),
            secs => format!("forgives one every {}", duration(secs.into())),
        };
        writeln!(
            out,
            "             TPM counts {} of {} failures, {forgiven}{lockout}",
            self.failures, self.failures_max
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(status: &TpmStatus) -> String {
        let mut out = String::new();
        status
            .write_text(&mut out)
            .expect("writing to memory cannot fail");
        out
    }

    #[test]
    fn a_tpm_is_spoken_of_when_it_counts() {
        let mut status = TpmStatus {
            failures_max: 31,
            forgiven_every_secs: 600,
            ..TpmStatus::default()
        };
        assert_eq!((text(&status).as_str(), status.reason()), ("", None));
        status.failures = 3;
        assert!(
            text(&status).contains("TPM counts 3 of 31 failures, forgives one every"),
            "{}",
            text(&status)
        );
        assert_eq!(status.reason(), None);
        status.in_lockout = true;
        assert!(text(&status).ends_with(", LOCKED OUT\n"));
        assert!(
            status
                .reason()
                .is_some_and(|reason| reason.contains("locked out"))
        );
        status.forgiven_every_secs = 0;
        assert!(text(&status).contains("forgives none"));
    }
}
