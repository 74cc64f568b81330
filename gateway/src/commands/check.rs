//! `fieldgate check`, and how every other command reads a file.

use std::{io::IsTerminal as _, io::Write as _, path::Path};

use fieldgate_config::{
    Colour, Loaded, Problem, Severity,
    settings::{OwnIdentity, Settings},
};

use super::{Failure, print};
use crate::cli::CheckArgs;

pub(super) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let loaded = load(&args.file);
    let errors = loaded.problems.error_count();
    if args.json {
        let mut text = loaded.problems.render_json();
        text.push('\n');
        print(&text)?;
    } else {
        show(&loaded);
        if errors == 0 {
            print(&format!("{}: good{}\n", args.file.display(), warnings(&loaded)))?;
        }
    }
    if errors == 0 {
        Ok(())
    } else {
        Err(Failure::silent(2))
    }
}

/// Reads a file for a command that needs it; problems are printed.
///
/// # Errors
/// Exit code 2 if the file has errors.
pub(crate) fn settings(path: &Path) -> Result<Settings, Failure> {
    let loaded = load(path);
    show(&loaded);
    loaded.settings.ok_or_else(|| Failure::silent(2))
}

/// Reads what a file says of the node itself and its identity. Problems of other sections, which may name peers that are not
/// known before this command has been run everywhere, are told and keep nobody from going on.
///
/// # Errors
/// Exit code 2 if the file has errors in `[node]` or `[identity]`.
pub(crate) fn own_identity(path: &Path) -> Result<OwnIdentity, Failure> {
    let mut loaded = load(path);
    let errors = loaded.problems.error_count();
    match loaded.own_identity.take() {
        Some(own) if errors > 0 => {
            let note = elsewhere(path, loaded.problems.iter());
            // With standard error gone there is nobody to tell, and it is no failure of this command.
            let _ = std::io::stderr().lock().write_all(note.as_bytes());
            Ok(own)
        }
        own => {
            show(&loaded);
            own.ok_or_else(|| Failure::silent(2))
        }
    }
}

/// Writes a note on errors that the identity does not mind, a line for each, and on warnings about itself.
fn elsewhere<'p>(path: &Path, problems: impl Iterator<Item = &'p Problem>) -> String {
    let told: Vec<&Problem> = problems
        .filter(|problem| problem.severity() == Severity::Error || problem.is_about(&["node", "identity"]))
        .collect();
    let mut note = format!(
        "note: a node would not start with {} yet; its identity does not need what is wrong:\n",
        path.display()
    );
    for problem in told.iter().take(NOTED_MAX) {
        let line = problem
            .line_and_column()
            .map_or_else(String::new, |(line, _)| format!("line {line}: "));
        note.push_str(&format!("  {line}{problem}\n"));
    }
    if told.len() > NOTED_MAX {
        note.push_str(&format!("  and {} more\n", told.len() - NOTED_MAX));
    }
    note.push_str(&format!(
        " help: `fieldgate check {}` says what to do about each\n",
        path.display()
    ));
    note
}

fn load(path: &Path) -> Loaded {
    fieldgate_config::load(path, &host_name())
}

/// Returns the name of this machine, `fieldgate` where it has none.
pub(super) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        "fieldgate".to_owned()
    } else {
        name.to_owned()
    }
}

fn show(loaded: &Loaded) {
    if loaded.problems.iter().next().is_none() {
        return;
    }
    let mut out = std::io::stderr().lock();
    let colour = if std::io::stderr().is_terminal() {
        Colour::Ansi
    } else {
        Colour::None
    };
    // With standard error gone there is nobody to tell; the exit code still says it.
    let _ = out.write_all(loaded.problems.render_text(colour, WIDTH).as_bytes());
}

fn warnings(loaded: &Loaded) -> String {
    match loaded
        .problems
        .iter()
        .filter(|problem| problem.severity() == Severity::Warning)
        .count()
    {
        0 => String::new(),
        1 => ", with 1 warning".to_owned(),
        count => format!(", with {count} warnings"),
    }
}

/// Problems that a note tells one by one.
const NOTED_MAX: usize = 8;
/// Columns that diagnostics are wrapped at.
const WIDTH: usize = 110;
