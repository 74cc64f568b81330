//! Finding one value in JSON (RFC 8259) without building anything.
//!
//! What stands before the value has to be well-formed as far as it takes to pass over it; what stands behind is not looked at.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

/// A value that is no object and no array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Number(f64),
    Text(Text<'a>),
}

/// A text as it stands between its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text<'a>(&'a str);

impl Text<'_> {
    /// Returns whether it says `wanted`, escapes resolved.
    pub(super) fn equals(&self, wanted: &str) -> bool {
        if !self.0.contains('\\') {
            return self.0 == wanted;
        }
        let mut wanted = wanted.chars();
        let mut rest = self.0.chars();
        loop {
            let char = match rest.next() {
                Some('\\') => match unescape(&mut rest) {
                    Some(char) => char,
                    None => return false,
                },
                Some(char) => char,
                None => return wanted.next().is_none(),
            };
            if wanted.next() != Some(char) {
                return false;
            }
        }
    }
}

/// Resolves an escape behind its backslash (RFC 8259 §7).
fn unescape(rest: &mut std::str::Chars<'_>) -> Option<char> {
    Some(match rest.next()? {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => {
            let unit = unit(rest)?;
            if !(0xd800..0xdc00).contains(&unit) {
                return char::from_u32(unit);
            }
            // The first half of a pair.
            let follows = rest.next()? == '\\' && rest.next()? == 'u';
            let second = unit_behind(follows, rest)?;
            let mut pair = char::decode_utf16([u16::try_from(unit).ok()?, u16::try_from(second).ok()?]);
            pair.next()?.ok()?
        }
        char @ ('"' | '\\' | '/') => char,
        _ => return None,
    })
}

fn unit_behind(follows: bool, rest: &mut std::str::Chars<'_>) -> Option<u32> {
    if follows { unit(rest) } else { None }
}

/// Reads four hexadecimal digits.
fn unit(rest: &mut std::str::Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0_u32, |unit, _| {
        let digit = rest.next()?.to_digit(16)?;
        Some(unit << 4 | digit)
    })
}

/// Returns the scalar at `path`; of names that stand twice in an object the first counts.
pub(super) fn find<'a>(json: &'a [u8], path: &[Box<str>]) -> Option<Scalar<'a>> {
    let text = std::str::from_utf8(json).ok()?;
    let mut scanner = Scanner { rest: text };
    for step in path {
        scanner.enter(step)?;
    }
    scanner.scalar()
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, token: char) -> Option<()> {
        self.skip_space();
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_space();
        self.rest.chars().next()
    }

    /// Goes to the member or element that `step` names, of the object or array that comes next.
    fn enter(&mut self, step: &str) -> Option<()> {
        match self.peek()? {
            '{' => {
                self.take('{')?;
                loop {
                    let name = self.text()?;
                    self.take(':')?;
                    if name.equals(step) {
                        return Some(());
                    }
                    self.skip_value()?;
                    // Behind the last member there is no comma, so there is no such member.
                    self.take(',')?;
                }
            }
            '[' => {
                // Neither `01` nor `+1` is an index (RFC 6901 §4).
                let is_index = step == "0" || step.starts_with(|first: char| ('1'..='9').contains(&first));
                let index: usize = step.parse().ok().filter(|_| is_index)?;
                self.take('[')?;
                if self.peek()? == ']' {
                    return None;
                }
                for _ in 0..index {
                    self.skip_value()?;
                    self.take(',')?;
                }
                Some(())
            }
            _ => None,
        }
    }

    fn scalar(&mut self) -> Option<Scalar<'a>> {
        match self.peek()? {
            '"' => self.text().map(Scalar::Text),
            '{' | '[' => None,
            _ => {
                let word = self.word();
                match word {
                    "null" => Some(Scalar::Null),
                    "true" => Some(Scalar::Bool(true)),
                    "false" => Some(Scalar::Bool(false)),
                    number => parse_number(number).map(Scalar::Number),
                }
            }
        }
    }

    /// Takes everything up to what ends a number or a literal.
    fn word(&mut self) -> &'a str {
        let end = self
            .rest
            .find([',', ']', '}', ' ', '\t', '\n', '\r'])
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        word
    }

    fn text(&mut self) -> Option<Text<'a>> {
        self.take('"')?;
        let mut escaped = false;
        let end = self.rest.find(|char| {
            let is_end = char == '"' && !escaped;
            escaped = char == '\\' && !escaped;
            is_end
        })?;
        let (text, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.strip_prefix('"')?;
        Some(Text(text))
    }

    /// Passes over a value, however it is nested: brackets are counted, texts are not looked into.
    fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                '"' => drop(self.text()?),
                open @ ('{' | '[') => {
                    self.take(open)?;
                    depth = depth.saturating_add(1);
                    continue;
                }
                close @ ('}' | ']') if depth > 0 => {
                    self.take(close)?;
                    depth = depth.saturating_sub(1);
                }
                separator @ (',' | ':') if depth > 0 => {
                    self.take(separator)?;
                    continue;
                }
                '}' | ']' | ',' | ':' => return None,
                _ => {
                    self.word();
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

/// Reads a number of JSON; Rust takes more than JSON does, such as `inf`, `+1` and `.5`.
fn parse_number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let begins = digits.starts_with(|first: char| first.is_ascii_digit());
    let number: f64 = text.parse().ok().filter(|_| begins)?;
    number.is_finite().then_some(number)
}
