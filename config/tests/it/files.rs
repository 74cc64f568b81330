//! Files that cannot be read, and where paths lead.

use std::path::Path;

use fieldgate_config::settings::Identity;
use fieldgate_config::{Severity, load};

fn only_problem(path: &Path) -> (String, String) {
    let loaded = load(path, "host");
    assert!(loaded.settings.is_none());
    let problems: Vec<_> = loaded.problems.iter().collect();
    let [problem] = problems.as_slice() else {
        panic!("{problems:?}")
    };
    assert_eq!(
        (problem.severity(), problem.line_and_column()),
        (Severity::Error, None)
    );
    assert_eq!(problem.file(), path.display().to_string());
    let message = problem.message().replace(&path.display().to_string(), "FILE");
    (message, problem.hint().to_owned())
}

#[test]
fn a_missing_file_is_a_problem_like_any_other() {
    let dir = tempfile::tempdir().expect("directory");
    let (message, hint) = only_problem(&dir.path().join("none.toml"));
    assert_eq!(
        message,
        "cannot read FILE: No such file or directory (os error 2)"
    );
    assert_eq!(
        hint,
        "examples for every role stand in /usr/share/doc/fieldgate/examples"
    );
}

#[test]
fn a_directory_is_a_problem_like_any_other() {
    let dir = tempfile::tempdir().expect("directory");
    assert_eq!(
        only_problem(dir.path()).0,
        "cannot read FILE: Is a directory (os error 21)"
    );
}

#[test]
fn bytes_that_are_no_text_are_told_with_their_line() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("latin1.toml");
    std::fs::write(&path, b"[node]\nname = \"w\xfcrzburg\"\n").expect("written");
    assert_eq!(
        only_problem(&path).0,
        "FILE is not UTF-8 text: bad bytes in line 2"
    );
}

#[test]
fn a_file_beyond_all_bounds_is_not_read() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("large.toml");
    let file = std::fs::File::create(&path).expect("created");
    // Sparse: it takes no space.
    file.set_len(1 << 40).expect("enlarged");
    assert_eq!(only_problem(&path).0, "FILE is larger than 16777216 bytes");
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("node.toml");
    let text = "[node]\nstate_dir = 'state'\n[identity]\nfile = '/keys/identity.key'\npassphrase = { file = 'pass' }\n\
                [mqtt]\nanonymous = true\nlisten = ['127.0.0.1:0']\n";
    std::fs::write(&path, text).expect("written");
    let settings = load(&path, "host").settings.expect("no errors");
    assert_eq!(settings.node.state_dir, dir.path().join("state"));
    assert_eq!(
        settings.journal.expect("a journal").dir,
        dir.path().join("state/journal")
    );
    let Identity::File { path, passphrase } = settings.identity else {
        panic!("a file")
    };
    assert_eq!(path, Path::new("/keys/identity.key"));
    assert_eq!(
        passphrase,
        fieldgate_config::settings::SecretSource::File(dir.path().join("pass"))
    );
}

#[test]
fn problems_are_named_by_the_file_as_it_was_given() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("node.toml");
    std::fs::write(&path, "\n\nnode = 1\n").expect("written");
    let json: serde_json::Value =
        serde_json::from_str(&load(&path, "host").problems.render_json()).expect("JSON");
    let last = json.as_array().and_then(|list| list.last()).expect("problems");
    assert_eq!(last["file"], path.display().to_string());
    assert_eq!((&last["line"], &last["column"]), (&3.into(), &8.into()));
}
