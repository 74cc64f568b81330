//! Configuration files: any text gives settings or errors, never both, never a panic.

use std::path::Path;

use fieldgate_config::{Colour, load_str};

/// Reads the input as a configuration file and prints what is wrong with it.
pub fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let loaded = load_str("fuzz.toml", text, Path::new("/etc/fieldgate"), "host");
    assert_eq!(loaded.settings.is_some(), loaded.problems.error_count() == 0);
    let _ = loaded.problems.render_text(Colour::None, 100);
    let _ = loaded.problems.render_json();
}
