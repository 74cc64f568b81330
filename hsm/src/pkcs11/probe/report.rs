//! What a module has to offer, tried out, as a table.

use std::fmt::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::{Probe, SlotSummary, TokenSummary, probe};
use crate::error::{CallError, Error};
use crate::pkcs11::probe::trial;
use crate::secret::SecretSource;
use crate::uri::Pkcs11Uri;

/// Whether objects may be made on a token to see what it can do.
#[derive(Clone, Copy, Debug)]
pub enum Trial<'a> {
    /// Nothing is made, and no PIN is needed.
    No,
    /// The PIN is given once. Objects are made whose label begins with `fieldgate-probe-`, and all are destroyed again.
    Yes {
        /// Which token.
        uri: &'a Pkcs11Uri,
        /// Where its user PIN is found.
        pin: &'a SecretSource,
    },
}

/// What a module shows without a login, and what a token does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// What is shown without a login.
    pub probe: Probe,
    /// What was tried out, if that was allowed.
    pub trials: Option<TokenTrials>,
}

/// What one token did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenTrials {
    /// A URI of the token.
    pub token: Pkcs11Uri,
    /// Label that all objects had: `fieldgate-probe-` and 16 random hexadecimal digits.
    pub label: String,
    /// One row for each thing that was tried, in a fixed order.
    pub rows: Vec<TrialRow>,
    /// Time for a signature with ECDSA P-256 in one session; `None` if it does not sign.
    pub signing: Option<SignLatency>,
    /// Objects of this trial that could not be destroyed: remove them with
    /// `pkcs11-tool --delete-object --label <label>`.
    pub left_behind: usize,
    /// Objects of earlier trials that were found. They are not touched.
    pub left_earlier: usize,
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialRow {
    /// What.
    pub what: &'static str,
    /// What came of it.
    pub outcome: TrialOutcome,
}

/// What came of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrialOutcome {
    /// It works, and the result was checked.
    Works {
        /// What is worth knowing about how; may be empty.
        detail: String,
    },
    /// The token does not offer the mechanism; nothing was called.
    NotOffered {
        /// The mechanism.
        mechanism: &'static str,
    },
    /// The token does something else.
    No {
        /// What.
        instead: &'static str,
    },
    /// A call failed.
    Failed {
        /// The call.
        cause: CallError,
    },
    /// All calls succeeded and the result is wrong.
    Wrong {
        /// What is wrong with it.
        problem: String,
    },
    /// It needs something that did not work before.
    Skipped {
        /// What it needs.
        needs: &'static str,
    },
}

impl fmt::Display for TrialOutcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works { detail } if detail.is_empty() => formatter.write_str("yes"),
            Self::Works { detail } => write!(formatter, "yes: {detail}"),
            Self::NotOffered { mechanism } => write!(formatter, "no: {mechanism} is not offered"),
            Self::No { instead } => write!(formatter, "no: {instead}"),
            Self::Failed { cause } => write!(formatter, "**no**: {cause}"),
            Self::Wrong { problem } => write!(formatter, "**wrong**: {problem}"),
            Self::Skipped { needs } => write!(formatter, "not tried: needs {needs}"),
        }
    }
}

/// Times of one operation, repeated one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignLatency {
    /// How often it was measured.
    pub count: usize,
    /// Half of them took no longer.
    pub median: Duration,
    /// 99 of 100 took no longer; of fewer than 100 that is the longest.
    pub p99: Duration,
}

impl SignLatency {
    /// Makes it of single times; `None` of none.
    pub(super) fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let count = times.len();
        // The smallest time that at least this many of 100 do not exceed.
        let percentile = |hundredths: usize| {
            let rank = count.checked_mul(hundredths)?.div_ceil(100);
            times.get(rank.checked_sub(1)?).copied()
        };
        Some(Self {
            count,
            median: percentile(50)?,
            p99: percentile(99)?,
        })
    }
}

/// Whether serial numbers of tokens stand in a report that others will read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serials {
    /// They are replaced by a note.
    LeftOut,
    /// They are shown.
    Shown,
}

/// Looks at a module and, if that is allowed, tries out a token.
///
/// A trial makes session objects, and on the token one P-256 key and one Ed25519 key; whatever comes of them, they are
/// destroyed at its end. No existing object is used or changed.
///
/// # Errors
/// Those of [`probe`]; with a trial also those of finding the token, of its PIN, which is tried at most once, and
/// [`Error::WriteProtected`]. What fails afterwards is a row of the report.
pub fn probe_report(module: &Path, trial: Trial<'_>) -> Result<ProbeReport, Error> {
    let probe = probe(module)?;
    let trials = match trial {
        Trial::No => None,
        Trial::Yes { uri, pin } => Some(trial::run(module, uri, pin)?),
    };
    Ok(ProbeReport { probe, trials })
}

impl ProbeReport {
    /// Renders the report as Markdown that can be pasted into a message.
    pub fn to_markdown(&self, serials: Serials) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text, serials);
        text
    }

    fn write(&self, out: &mut String, serials: Serials) -> fmt::Result {
        writeln!(out, "### PKCS#11 module\n\n| | |\n|---|---|")?;
        match &self.probe.library {
            Some(library) => {
                let (major, minor) = library.version;
                row(
                    out,
                    "library",
                    &format!("{} {major}.{minor}", library.description),
                )?;
                row(out, "manufacturer", &library.manufacturer)?;
                let (major, minor) = library.cryptoki_version;
                row(out, "PKCS#11", &format!("{major}.{minor}"))?;
            }
            None => row(out, "library", "says nothing about itself")?,
        }
        for slot in &self.probe.slots {
            write_slot(out, slot, serials)?;
        }
        if let Some(trials) = &self.trials {
            trials.write(out)?;
        }
        match serials {
            Serials::LeftOut => writeln!(out, "\nSerial numbers are left out."),
            Serials::Shown => Ok(()),
        }
    }
}

fn write_slot(out: &mut String, slot: &SlotSummary, serials: Serials) -> fmt::Result {
    writeln!(out, "\n### Slot {:#x}\n\n| | |\n|---|---|", slot.slot_id)?;
    // Some modules write the serial number of the token into the description of its slot.
    let hidden = slot
        .token
        .as_ref()
        .and_then(|token| token.uri.serial.as_deref())
        .filter(|serial| serials == Serials::LeftOut && !serial.is_empty());
    let description = match hidden {
        Some(serial) => slot.description.replace(serial, "…"),
        None => slot.description.clone(),
    };
    row(out, "description", &description)?;
    row(out, "manufacturer", &slot.manufacturer)?;
    if let Some(problem) = &slot.problem {
        row(out, "problem", &problem.to_string())?;
    }
    match &slot.token {
        Some(token) => write_token(out, token, serials),
        None => row(out, "token", "none"),
    }
}

fn write_token(out: &mut String, token: &TokenSummary, serials: Serials) -> fmt::Result {
    let uri = &token.uri;
    row(out, "token", uri.token.as_deref().unwrap_or("without a label"))?;
    row(
        out,
        "token manufacturer",
        uri.manufacturer.as_deref().unwrap_or_default(),
    )?;
    row(out, "token model", uri.model.as_deref().unwrap_or_default())?;
    if let (Serials::Shown, Some(serial)) = (serials, &uri.serial) {
        row(out, "token serial", serial)?;
    }
    let flags = [
        (token.is_initialized, "initialised"),
        (token.is_write_protected, "write-protected"),
        (token.needs_login, "login needed"),
        (token.has_user_pin, "user PIN set"),
        (token.has_pin_pad, "PIN pad"),
    ];
    let flags: Vec<&str> = flags
        .into_iter()
        .filter_map(|(is_set, name)| is_set.then_some(name))
        .collect();
    row(out, "flags", &flags.join(", "))?;
    if let Some(state) = token.pin_state {
        row(out, "user PIN", &state.to_string())?;
    }
    row(out, "mechanisms", &token.mechanisms.join(", "))
}

impl TokenTrials {
    fn write(&self, out: &mut String) -> fmt::Result {
        let name = self.token.token.as_deref().unwrap_or("without a label");
        writeln!(
            out,
            "\n### Tried out on token {}\n\n| operation | result |\n|---|---|",
            cell(name)
        )?;
        for TrialRow { what, outcome } in &self.rows {
            row(out, what, &outcome.to_string())?;
        }
        if let Some(latency) = &self.signing {
            let what = "ECDSA P-256 signature, one session";
            let text = format!(
                "median {}, 99 % within {} (n = {})",
                time(latency.median),
                time(latency.p99),
                latency.count
            );
            row(out, what, &text)?;
        }
        if self.left_behind > 0 {
            let text = format!(
                "{} could not be removed: pkcs11-tool --delete-object --label {}",
                self.left_behind, self.label
            );
            row(out, "objects of this trial", &text)?;
        }
        if self.left_earlier > 0 {
            let text = format!("{} whose label begins with {}", self.left_earlier, trial::LABEL);
            row(out, "objects of earlier trials", &text)?;
        }
        Ok(())
    }
}

fn row(out: &mut String, what: &str, value: &str) -> fmt::Result {
    writeln!(out, "| {} | {} |", cell(what), cell(value))
}

/// Makes text fit into a cell: a module's texts may hold anything.
fn cell(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let escape = matches!(character, '|' | '<' | '`' | '\\');
            let shown = if character.is_control() { ' ' } else { character };
            escape.then_some('\\').into_iter().chain([shown])
        })
        .collect()
}

/// Renders a time with a unit that leaves two to four digits.
pub(super) fn time(duration: Duration) -> String {
    if duration < Duration::from_millis(10) {
        format!("{} µs", duration.as_micros())
    } else {
        format!("{} ms", duration.as_millis())
    }
}

#[cfg(test)]
mod tests;
