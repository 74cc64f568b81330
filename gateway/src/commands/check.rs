//! `fieldgate check`, and how every other command reads a file.

use std::{io::IsTerminal as _, io::Write as _, path::Path};

use fieldgate_config::{Colour, Loaded, Severity, settings::Settings};

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

fn load(path: &Path) -> Loaded {
    fieldgate_config::load(path, &host_name())
}

/// Returns the name of this machine, `fieldgate` where it has none.
fn host_name() -> String {
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

/// Columns that diagnostics are wrapped at.
const WIDTH: usize = 110;
