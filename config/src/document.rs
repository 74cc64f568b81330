//! TOML into tables.

use std::ops::Range;

use toml::de::DeTable;

use crate::problem::{Draft, Findings};
use crate::reader::is_secret_name;

/// Parses a file. Duplicate keys are told and the first of each is taken, so that the rest is checked as well; after any
/// other fault of the syntax nothing that follows can be trusted, so that one fault is all that is told.
pub(crate) fn parse<'t>(text: &'t str, findings: &mut Findings) -> Option<DeTable<'t>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Some(table.into_inner());
    }
    hide_secrets(text, findings);
    let (duplicates, mut others): (Vec<_>, Vec<_>) =
        errors.into_iter().partition(|error| error.message() == DUPLICATE);
    others.sort_by_key(|error| error.span().map(|span| span.start));
    if let Some(error) = others.first() {
        let draft = Draft::error(format!("the file is not TOML: {}", error.message()));
        let help = "texts stand in quotes, lists in [ ], tables in { }, and each key on a line of its own";
        findings.push(draft.at(Some(visible(error.span(), text)), "here").help(help));
        return None;
    }
    for error in duplicates {
        let name = error.span().and_then(|span| text.get(span)).unwrap_or_default();
        let draft = Draft::error(format!("`{}` stands in the file twice", name.escape_debug()));
        findings.push(
            draft
                .at(error.span(), "again here")
                .help("keep one; for several of a kind write [[…]] with two brackets"),
        );
    }
    Some(table.into_inner())
}

/// Returns a span that can be pointed at: the end of the file is none, the last character is.
fn visible(span: Option<Range<usize>>, text: &str) -> Range<usize> {
    let end = text.trim_end().len();
    let span = span.unwrap_or(0..0);
    if span.start < end {
        span
    } else {
        text.floor_char_boundary(end.saturating_sub(1))..end
    }
}

/// Hides what looks like a secret by the words alone: of a file with faults there is no tree to go by.
fn hide_secrets(text: &str, findings: &mut Findings) {
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        let value = line
            .split_once('=')
            .filter(|(key, _)| is_secret_name(key.trim()))
            .map(|(_, value)| value);
        if let Some(value) = value {
            let start = line_start + line.len() - value.len();
            let opened = ["\"\"\"", "'''"]
                .into_iter()
                .find(|quotes| value.trim_start().starts_with(quotes));
            if let Some(quotes) = opened {
                let body = start + value.len() - value.trim_start().len() + quotes.len();
                let end = text
                    .get(body..)
                    .and_then(|rest| rest.find(quotes))
                    .map_or(text.len(), |len| body + len);
                findings.hide(Some(body..end));
            }
            // What gives the line its form stays, for the fault may lie there.
            let hidden = value
                .char_indices()
                .filter(|(_, c)| !"{}[]=,\"' \t\r\n".contains(*c));
            hidden.for_each(|(at, c)| findings.hide(Some(start + at..start + at + c.len_utf8())));
        }
        line_start += line.len();
    }
}

/// What the parser calls a key that stands there twice; the tests see to it that it still does.
const DUPLICATE: &str = "duplicate key";
