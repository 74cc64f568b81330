//! The text of a file, for pointing into it.

use std::ops::Range;

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// A file's name and text, with the secrets in it blotted out.
#[derive(Debug)]
pub(crate) struct Source {
    name: String,
    /// As long as the file, byte for byte, so that spans fit both.
    text: String,
    /// Byte offset of the start of each line; never empty.
    line_starts: Vec<usize>,
}

impl Source {
    /// Takes a file, blotting out `secrets` and control characters, which a terminal would obey.
    pub(crate) fn new(name: &str, text: &str, secrets: &[Range<usize>]) -> Self {
        let mut shown = String::with_capacity(text.len());
        let mut secrets: Vec<_> = secrets.to_vec();
        secrets.sort_by_key(|range| range.start);
        let mut secrets = secrets.into_iter().peekable();
        let mut hidden_until = 0;
        for (at, c) in text.char_indices() {
            while let Some(range) = secrets.next_if(|range| range.start <= at) {
                hidden_until = hidden_until.max(range.end);
            }
            let is_end_of_line = matches!(c, '\n' | '\r');
            if is_end_of_line || (c == '\t' && at >= hidden_until) {
                shown.push(c);
            } else if at < hidden_until {
                shown.extend(std::iter::repeat_n('*', c.len_utf8()));
            } else if c.is_control() {
                shown.extend(std::iter::repeat_n('?', c.len_utf8()));
            } else {
                shown.push(c);
            }
        }
        let line_starts = std::iter::once(0)
            .chain(shown.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            name: name.to_owned(),
            text: shown,
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

    /// Moves a range to lie within the text and on character boundaries.
    pub(crate) fn clamp(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.text.floor_char_boundary(span.start);
        let end = self
            .text
            .ceil_char_boundary(span.end.clamp(start, self.text.len()));
        start..end
    }
}

/// Gives whole lines, those of the span and no more, whatever context is asked for: a problem is about its own line, and
/// the neighbours of twelve problems would bury them.
impl SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let span = self.clamp(&(span.offset()..span.offset() + span.len()));
        let (line, line_start) = self.line_of(span.start);
        let last = if span.is_empty() { span.start } else { span.end - 1 };
        let (last_line, _) = self.line_of(last);
        let line_count = last_line - line + 1;
        // No context is how the renderer asks for the place of the span itself.
        let is_place = lines_before == 0 && lines_after == 0;
        let (start, end) = if is_place {
            (span.start, span.end)
        } else {
            (
                line_start,
                self.line_starts
                    .get(last_line + 1)
                    .copied()
                    .unwrap_or(self.text.len()),
            )
        };
        let (_, column) = self.line_and_column(start);
        let data = self
            .text
            .get(start..end)
            .ok_or(MietteError::OutOfBounds)?
            .as_bytes();
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            data,
            SourceSpan::from(start..end),
            line,
            column - 1,
            line_count,
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_and_columns_count_from_one_in_characters() {
        let source = Source::new("f", "ab\nµé = 1\n", &[]);
        assert_eq!(source.line_and_column(0), (1, 1));
        assert_eq!(source.line_and_column(3), (2, 1));
        assert_eq!(source.line_and_column(5), (2, 2));
        assert_eq!(source.line_and_column(10), (2, 6));
        assert_eq!(source.line_and_column(99), (3, 1));
    }

    #[test]
    fn secrets_and_control_characters_are_blotted_out_at_their_length() {
        let text = "pin = 'µ12'\t\u{1b}[2J\r\n";
        let at = text.find('\'').expect("quote");
        let source = Source::new("f", text, std::slice::from_ref(&(at..at + 6)));
        assert_eq!(source.text, "pin = ******\t?[2J\r\n");
    }

    proptest! {
        #[test]
        fn any_span_of_any_text_can_be_read(text in "(\\PC|\n|\r|\u{1b}){0,60}", start: usize, len in 0_usize..80, context in 0_usize..2) {
            let start = start % 80;
            let source = Source::new("f", &text, std::slice::from_ref(&(start / 2..start)));
            prop_assert_eq!(source.text.len(), text.len());
            let contents = source.read_span(&SourceSpan::from((start, len)), context, context).expect("within");
            prop_assert!(std::str::from_utf8(contents.data()).is_ok());
            source.line_and_column(start);
        }
    }
}
