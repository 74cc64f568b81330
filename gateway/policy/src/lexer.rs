//! The words of a policy text, cut exactly as Cedar's own lexer cuts them.
//!
//! Rules are told apart, measured and searched here before Cedar's parser, which is recursive, sees them.

use std::ops::Range;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A keyword, a name.
    Word,
    /// A string in quotes.
    Text,
    /// A number.
    Number,
    /// A bracket, an operator, a separator.
    Mark,
    /// A quote without its end; reaches to the end of the text.
    Unclosed,
    /// A character that Cedar does not know.
    Unknown,
}

/// A token and where it stands, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Token {
    /// Returns where it stands.
    pub(crate) const fn span(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Returns its characters, `text` being what it was cut from.
    pub(crate) fn of<'a>(&self, text: &'a str) -> &'a str {
        text.get(self.span()).unwrap_or_default()
    }
}

/// Cuts a text into tokens; spaces and comments are left out.
#[derive(Clone, Debug)]
pub(crate) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    /// Begins at the start of `text`.
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_spaces_and_comments(&mut self) {
        loop {
            let rest = self.rest();
            let text = rest.trim_start();
            self.at += rest.len() - text.len();
            if !text.starts_with("//") {
                return;
            }
            self.at += text.find(['\n', '\r']).unwrap_or(text.len());
        }
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.skip_spaces_and_comments();
        let rest = self.rest();
        let first = rest.chars().next()?;
        let (kind, len) = match first {
            '"' => quoted(rest),
            'a'..='z' | 'A'..='Z' | '_' => {
                let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                (TokenKind::Word, len.unwrap_or(rest.len()))
            }
            '0'..='9' => {
                let len = rest.find(|c: char| !c.is_ascii_digit());
                (TokenKind::Number, len.unwrap_or(rest.len()))
            }
            _ if PAIRS.iter().any(|pair| rest.starts_with(pair)) => (TokenKind::Mark, 2),
            _ if MARKS.contains(first) => (TokenKind::Mark, 1),
            _ => (TokenKind::Unknown, first.len_utf8()),
        };
        let start = self.at;
        self.at += len;
        Some(Token {
            kind,
            start,
            end: self.at,
        })
    }
}

/// Measures the string that `rest` begins with: up to the next quote that no backslash stands before. A backslash takes any
/// character with it but a line feed, which no string can hold after one.
fn quoted(rest: &str) -> (TokenKind, usize) {
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (TokenKind::Text, at + 1),
            '\\' if matches!(chars.next(), None | Some((_, '\n'))) => break,
            _ => {}
        }
    }
    (TokenKind::Unclosed, rest.len())
}

/// Marks of two characters; the longest wins.
const PAIRS: [&str; 7] = ["::", "==", "!=", "<=", ">=", "||", "&&"];
/// Marks of one character.
const MARKS: &str = "@.,;:(){}[]<>+-*/%!=";

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<&str> {
        Lexer::new(text).map(|token| token.of(text)).collect()
    }

    #[test]
    fn comments_and_spaces_are_left_out() {
        assert_eq!(cut("a // \" ; \n b//x\rc\u{2003}d // e"), ["a", "b", "c", "d"]);
    }

    #[test]
    fn strings_hold_escaped_quotes_and_line_ends() {
        assert_eq!(cut(r#""a;\"//b" c"#), [r#""a;\"//b""#, "c"]);
        assert_eq!(cut("\"a\nb\";"), ["\"a\nb\"", ";"]);
    }

    #[test]
    fn a_string_without_end_takes_the_rest() {
        for text in ["\"a; b", "\"a\\", "\"a\\\n\";"] {
            let tokens: Vec<_> = Lexer::new(text).collect();
            assert_eq!(tokens.len(), 1, "{text:?}");
            assert_eq!((tokens[0].kind, tokens[0].end), (TokenKind::Unclosed, text.len()));
        }
    }

    #[test]
    fn the_longest_mark_wins() {
        assert_eq!(
            cut("a::b==c!=!d<=e&&f&g"),
            [
                "a", "::", "b", "==", "c", "!=", "!", "d", "<=", "e", "&&", "f", "&", "g"
            ]
        );
    }
}
