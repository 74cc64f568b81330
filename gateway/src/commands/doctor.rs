//! `fieldgate doctor`: looks at everything a node needs, one line each, and says what to do.
//!
//! It starts no node and changes nothing but for a file in the state directory that is gone at once. It logs in to the token
//! once at the most, and not at all with a PIN that was refused before.

use std::path::Path;

use fieldgate_config::{Loaded, Severity, settings::Settings};
use serde::Serialize;

use super::{Failure, print, print_json};
use crate::{cli::DoctorArgs, control, status::NodeStatus};

mod child;
mod disk;
pub(super) mod key;
mod machine;
mod node;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not as well or not as safely as it could.
    Warn,
    /// The node would not start, or not do what its file says.
    Fail,
    /// It does not matter to this node.
    Unused,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Unused => "-",
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// What was looked at.
    check: &'static str,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cure: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Ok,
            found: found.into(),
            cure: None,
        }
    }

    fn unused(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Unused,
            ..Self::ok(check, found)
        }
    }

    fn warn(check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warn,
            cure: Some(cure.into()),
            ..Self::ok(check, found)
        }
    }

    fn fail(check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::warn(check, found, cure)
        }
    }

    /// Returns the line for people.
    fn line(&self) -> String {
        let cure = self.cure.as_ref().map(|cure| format!("; {cure}"));
        let (verdict, check) = (self.verdict.word(), self.check);
        // A message of a module may have lines of its own.
        let found = self.found.replace(['\n', '\r'], " ");
        format!("{verdict:<5} {check:<12} {found}{}\n", cure.unwrap_or_default())
    }
}

pub(super) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let findings = examine(&args.config);
    if args.json {
        print_json(&findings)?;
    } else {
        let lines: String = findings.iter().map(Finding::line).collect();
        print(&(lines + &summary(&findings)))?;
    }
    if count(&findings, Verdict::Fail) == 0 {
        Ok(())
    } else {
        Err(Failure::silent(1))
    }
}

fn examine(path: &Path) -> Vec<Finding> {
    let loaded = fieldgate_config::load(path, "fieldgate");
    let mut findings = vec![file(path, &loaded)];
    let Some(settings) = &loaded.settings else {
        findings.extend(machine::examine(None));
        return findings;
    };
    let status = control::ask_status(&settings.node.control_socket);
    let running = status.as_ref().ok();
    findings.extend(disk::examine(settings));
    findings.extend(key::examine(settings));
    findings.extend(machine::examine(Some(settings)));
    findings.extend(node::examine(settings, &status));
    findings.push(authority(settings, running));
    findings
}

fn file(path: &Path, loaded: &Loaded) -> Finding {
    let errors = loaded.problems.error_count();
    let warnings = loaded
        .problems
        .iter()
        .filter(|problem| problem.severity() == Severity::Warning)
        .count();
    let name = path.display();
    let cure = format!("see `fieldgate check {name}`");
    match (errors, warnings) {
        (0, 0) => Finding::ok("file", name.to_string()),
        (0, _) => Finding::warn("file", format!("{name}: {}", counted(warnings, "warning")), cure),
        _ => Finding::fail("file", format!("{name}: {}", counted(errors, "error")), cure),
    }
}

/// Returns "1 error", "2 errors".
fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// Tells what the running node knows of its authority.
fn authority(settings: &Settings, running: Option<&NodeStatus>) -> Finding {
    const CHECK: &str = "authority";
    if settings.trust.is_none() && settings.authority.is_none() {
        return Finding::unused(CHECK, "the file has neither [trust] nor [authority]");
    }
    let Some(status) = running else {
        return Finding::unused(CHECK, "only a running node knows, and none is running");
    };
    let trust = serde_json::to_value(status)
        .ok()
        .and_then(|status| status.get("trust").cloned());
    trust.map_or_else(
        || {
            Finding::warn(
                CHECK,
                "the running node does not tell",
                "see that node and command are of the same version",
            )
        },
        |trust| node::authority(CHECK, &trust),
    )
}

fn count(findings: &[Finding], verdict: Verdict) -> usize {
    findings
        .iter()
        .filter(|finding| finding.verdict == verdict)
        .count()
}

fn summary(findings: &[Finding]) -> String {
    let looked = findings.len() - count(findings, Verdict::Unused);
    let (warnings, failures) = (count(findings, Verdict::Warn), count(findings, Verdict::Fail));
    if warnings + failures == 0 {
        return format!("\n{looked} checks, all good\n");
    }
    format!("\n{looked} checks: {failures} failed, {warnings} with warnings\n")
}

/// Returns a number of bytes as people read it.
fn bytes_text(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = UNITS.into_iter().find(|(_, factor)| bytes >= *factor);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(name, factor)| {
            let tenths = u128::from(bytes) * 10 / u128::from(factor);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        },
    )
}

#[cfg(test)]
mod tests;
