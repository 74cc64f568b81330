//! The text of a policy, for pointing into it.

use std::ops::Range;

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// A file's name and text as they may be shown.
#[derive(Debug)]
pub(crate) struct Source {
    name: String,
    /// As long as the file, byte for byte, so that spans fit both.
    text: String,
    /// Byte offset of the start of each line; never empty.
    line_starts: Vec<usize>,
}

impl Source {
    /// Takes a file.
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let text = shown(text);
        let line_starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            name: name.to_owned(),
            text,
            line_starts,
        }
    }

    /// Returns the name of the file as it was given.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns line and column of a byte offset, counted from 1, the column in characters.
    pub(crate) fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let offset = self.text.floor_char_boundary(offset);
        let (line, start) = self.line_of(offset);
        let before = self.text.get(start..offset).unwrap_or_default();
        (line + 1, before.chars().count() + 1)
    }

    /// Returns the index of the line that holds `offset`, and the offset of its start.
    fn line_of(&self, offset: usize) -> (usize, usize) {
        let line = self
            .line_starts
            .partition_point(|start| *start <= offset)
            .saturating_sub(1);
        (line, self.line_starts.get(line).copied().unwrap_or(0))
    }

    /// Returns the end of the line that holds `offset`, without its line end, but no more than `bytes_max` from `offset`.
    fn line_end(&self, offset: usize, bytes_max: usize) -> usize {
        let end = self.text.ceil_char_boundary(offset.saturating_add(bytes_max));
        let part = self.text.get(offset..end).unwrap_or_default();
        offset + part.find(['\n', '\r']).unwrap_or(part.len())
    }

    /// Cuts a range down to what can be shown: within its first line, and not endless.
    pub(crate) fn clamp(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.text.floor_char_boundary(span.start);
        let end = span.end.min(self.line_end(start, MARKED_BYTES_MAX));
        start..self.text.ceil_char_boundary(end.max(start))
    }
}

/// Gives the line of the span and no more, whatever context is asked for: a problem is about its own line. Of a line too
/// long to be read it gives the part around the span.
impl SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let span = self.clamp(&(span.offset()..span.offset().saturating_add(span.len())));
        let (line, line_start) = self.line_of(span.start);
        // No context is how the renderer asks for the place of the span itself.
        let is_place = lines_before == 0 && lines_after == 0;
        let range = if is_place {
            span
        } else {
            let start = line_start.max(span.start.saturating_sub(SHOWN_BYTES_BEFORE));
            self.text.ceil_char_boundary(start)..self.line_end(span.end, SHOWN_BYTES_AFTER)
        };
        let (_, column) = self.line_and_column(range.start);
        let data = self.text.get(range.clone()).ok_or(MietteError::OutOfBounds)?;
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            data.as_bytes(),
            SourceSpan::from(range),
            line,
            column - 1,
            1,
        )))
    }
}

/// Returns `text` at its length in bytes, without what a terminal would obey or what would show it in another order than the
/// one in which it is read.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if matches!(c, '\n' | '\r' | '\t') || !(c.is_control() || turns) {
            shown.push(c);
        } else {
            shown.extend(std::iter::repeat_n('?', c.len_utf8()));
        }
    }
    shown
}

/// Longest part of a line that is underlined, in bytes.
const MARKED_BYTES_MAX: usize = 120;
/// Bytes of a line shown before the underlined part.
const SHOWN_BYTES_BEFORE: usize = 160;
/// Bytes of a line shown after the underlined part.
const SHOWN_BYTES_AFTER: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_and_columns_count_from_one_in_characters() {
        let source = Source::new("f", "ab\nµé = 1\n");
        assert_eq!(source.line_and_column(0), (1, 1));
        assert_eq!(source.line_and_column(3), (2, 1));
        assert_eq!(source.line_and_column(5), (2, 2));
        assert_eq!(source.line_and_column(99), (3, 1));
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_shown() {
        assert_eq!(shown("a\t\u{1b}[2J\u{202e}b\r\n"), "a\t?[2J???b\r\n");
    }

    #[test]
    fn a_span_ends_with_its_line() {
        let source = Source::new("f", "permit (\r\n  principal);");
        assert_eq!(source.clamp(&(0..20)), 0..8);
        assert_eq!(source.clamp(&(12..99)), 12..23);
    }

    proptest! {
        #[test]
        fn any_span_of_any_text_can_be_read(text in "(\\PC|\n|\r|\u{1b}){0,400}", start in 0_usize..500, len in 0_usize..500, context in 0_usize..2) {
            let source = Source::new("f", &text);
            prop_assert_eq!(source.text.len(), text.len());
            let span = source.clamp(&(start..start + len));
            let contents = source.read_span(&SourceSpan::from(span), context, context).expect("within");
            prop_assert!(contents.data().len() <= 8 + MARKED_BYTES_MAX + SHOWN_BYTES_BEFORE + SHOWN_BYTES_AFTER);
            prop_assert!(std::str::from_utf8(contents.data()).is_ok());
            source.line_and_column(start);
        }
    }
}
