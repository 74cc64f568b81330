//! The table of keys as a page for people.

use std::fmt::Write;

use crate::spec::{Form, Presence, Spec, Style, flow};

/// Returns the reference in Markdown.
pub(crate) fn render(root: &Spec, secret: &Spec) -> String {
    let mut page = INTRODUCTION.to_owned();
    table(&mut page, "", root);
    page.push_str("\n## Secrets\n\n");
    let _: std::fmt::Result = writeln!(page, "{}", flow(secret.doc));
    keys(&mut page, secret);
    page
}

/// Writes a table and those within it, depth first.
fn table(page: &mut String, path: &str, spec: &Spec) {
    if path.is_empty() {
        page.push_str("\n## Sections\n");
    }
    keys(page, spec);
    for key in &spec.keys {
        let inner = if path.is_empty() {
            key.name.to_owned()
        } else {
            format!("{path}.{}", key.name)
        };
        let (spec, heading) = match &key.form {
            Form::Table(spec, Style::Header) => (spec, format!("`[{inner}]`")),
            Form::Tables {
                spec,
                style: Style::Header,
                ..
            } => (spec, format!("`[[{inner}]]`")),
            Form::Table(spec, Style::Inline) => (spec, format!("`{} = {{ … }}` in `{path}`", key.name)),
            Form::Tables {
                spec,
                style: Style::Inline,
                ..
            } => (spec, format!("`{} = [{{ … }}, …]` in `{path}`", key.name)),
            Form::Boolean
            | Form::Integer { .. }
            | Form::Size { .. }
            | Form::Choice(_)
            | Form::Text { .. }
            | Form::Number
            | Form::Scalar
            | Form::List { .. }
            | Form::Secret(_)
            | Form::Attributes { .. } => continue,
        };
        let _: std::fmt::Result = write!(page, "\n## {heading}\n\n{}\n", flow(spec.doc));
        table(page, &inner, spec);
    }
}

/// Writes the keys of one table.
fn keys(page: &mut String, spec: &Spec) {
    for (rule, names) in [("exactly", spec.exactly_one), ("at most", spec.at_most_one)] {
        if !names.is_empty() {
            let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            let _: std::fmt::Result = write!(page, "\nTakes {rule} one of {}.\n", names.join(", "));
        }
    }
    page.push_str("\n| key | value | default | meaning |\n|---|---|---|---|\n");
    for key in &spec.keys {
        let default = match key.presence {
            Presence::Required => "required".to_owned(),
            // An empty table stands for the defaults of its keys, which are listed there.
            Presence::Default("{}") => "as below".to_owned(),
            Presence::Default(text) => format!("`{text}`"),
            Presence::Optional(text) => text.to_owned(),
        };
        let default = match key.when.words() {
            Some(condition) => format!("{default} ({condition})"),
            None => default,
        };
        let cells = [
            format!("`{}`", key.name),
            key.form.words(),
            default,
            flow(key.doc),
        ];
        let _: std::fmt::Result = writeln!(
            page,
            "| {} |",
            cells.map(|cell| cell.replace('|', "\\|")).join(" | ")
        );
    }
}

const INTRODUCTION: &str = "\
# Configuration reference

One TOML file says what a node is; `fieldgate check FILE` says everything that is wrong with it and starts nothing. A
section switches its function on, and unknown keys are errors. This page is made by `fieldgate config reference`.

- **Sizes** are whole bytes, or text with `B`, `KiB`, `MiB`, `GiB` or `TiB`: `\"64 KiB\"`. They count in steps of 1024.
- **Times** are whole numbers in the unit at the end of the key: `_ms` milliseconds, `_secs` seconds.
- **Paths** that do not start with `/` are relative to the directory of the file.
- **Identifiers** are what `fieldgate identity show` prints, `fg1…`; typing errors in them are found.
- **Secrets** never stand in the file; it says where they are, see at the end.
";
