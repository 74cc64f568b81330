//! Words in policies that Cedar takes for any text, while fieldgate uses a few only: a misspelt one never matches, and a rule
//! that was to forbid something silently does not.

use fieldgate_proto::identity::Identifier;

use crate::{
    lexer::{Token, TokenKind},
    problem::{Draft, Findings},
    request::{KeyStorage, LinkKind, Revocation, TimeQuality, Weekday},
    rules::RuleText,
};

/// Finds identifiers with typing errors, and comparisons with words that do not exist.
pub(crate) fn examine(text: &str, rule: &RuleText, findings: &mut Findings) {
    let tokens = Tokens {
        text,
        tokens: &rule.tokens,
    };
    for at in 0..rule.tokens.len() {
        if tokens.read(at, ["Fieldgate", "::", "Node", "::"]) {
            examine_identifier(&tokens, at + 4, findings);
        }
        for attribute in &ATTRIBUTES {
            if tokens.read(at, [attribute.of, ".", attribute.name]) {
                examine_comparison(&tokens, at, attribute, findings);
            }
        }
    }
}

fn examine_identifier(tokens: &Tokens<'_>, at: usize, findings: &mut Findings) {
    let Some((token, id)) = tokens.literal(at) else {
        return;
    };
    if let Err(error) = id.parse::<Identifier>() {
        let message = format!("{id:?} names no node: {error}");
        findings.push(Draft::error(&message, error.hint()).at(token.span(), "this identifier"));
        return;
    }
    if id.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let help = "write identifiers in small letters; policies compare them letter by letter";
        let message = format!("{id:?} never matches: it is written in capitals");
        findings.push(Draft::error(&message, help).at(token.span(), "this identifier"));
    }
}

/// Looks at what the attribute that begins at token `at` is compared with: `a.b == "x"`, `"x" == a.b`, `["x", "y"].contains(a.b)`.
fn examine_comparison(tokens: &Tokens<'_>, at: usize, attribute: &Attribute, findings: &mut Findings) {
    let is_comparison = |at: usize| matches!(tokens.at(at), "==" | "!=");
    let mut literals = Vec::new();
    if is_comparison(at + 3) {
        literals.extend(tokens.literal(at + 4));
    }
    if let Some(before) = at.checked_sub(2)
        && is_comparison(before + 1)
    {
        literals.extend(tokens.literal(before));
    }
    if let Some(bracket) = at.checked_sub(4)
        && tokens.read(bracket, ["]", ".", "contains", "("])
    {
        for before in (0..bracket).rev() {
            match tokens.at(before) {
                "," => {}
                _ => match tokens.literal(before) {
                    Some(literal) => literals.push(literal),
                    None => break,
                },
            }
        }
    }
    for (token, word) in literals {
        if !(attribute.words)().contains(&word) {
            let message = format!("{}.{} is never {word:?}", attribute.of, attribute.name);
            let help = format!("write one of: {}", (attribute.words)().join(", "));
            findings.push(Draft::error(&message, help).at(token.span(), "this word"));
        }
    }
}

/// An attribute that takes a few words only.
struct Attribute {
    of: &'static str,
    name: &'static str,
    words: fn() -> Vec<&'static str>,
}

const ATTRIBUTES: [Attribute; 5] = [
    Attribute {
        of: "context",
        name: "weekday",
        words: || Weekday::ALL.iter().map(|word| word.as_str()).collect(),
    },
    Attribute {
        of: "context",
        name: "timeQuality",
        words: || TimeQuality::ALL.iter().map(|word| word.as_str()).collect(),
    },
    Attribute {
        of: "context",
        name: "link",
        words: || LinkKind::ALL.iter().map(|word| word.as_str()).collect(),
    },
    Attribute {
        of: "context",
        name: "revocation",
        words: || Revocation::ALL.iter().map(|word| word.as_str()).collect(),
    },
    Attribute {
        of: "principal",
        name: "key",
        words: || KeyStorage::ALL.iter().map(|word| word.as_str()).collect(),
    },
];

/// The tokens of a rule, for looking ahead and back.
struct Tokens<'a> {
    text: &'a str,
    tokens: &'a [Token],
}

impl<'a> Tokens<'a> {
    /// Returns the characters of one token, none beyond the ends.
    fn at(&self, at: usize) -> &'a str {
        self.tokens
            .get(at)
            .map(|token| token.of(self.text))
            .unwrap_or_default()
    }

    /// Returns whether `words` stand from `at` on.
    fn read<const N: usize>(&self, at: usize, words: [&str; N]) -> bool {
        words
            .iter()
            .enumerate()
            .all(|(ahead, word)| self.at(at + ahead) == *word)
    }

    /// Returns the content of a string; one with escapes is nothing this module knows about.
    fn literal(&self, at: usize) -> Option<(Token, &'a str)> {
        let token = *self.tokens.get(at)?;
        let content = token.of(self.text).strip_prefix('"')?.strip_suffix('"')?;
        (token.kind == TokenKind::Text && !content.contains('\\')).then_some((token, content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::split;

    fn problems(text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        for rule in split(text, &mut findings) {
            examine(text, &rule, &mut findings);
        }
        let problems = findings.finish("f", text);
        problems
            .iter()
            .map(|problem| problem.message().to_owned())
            .collect()
    }

    #[test]
    fn words_that_never_match_are_found_on_either_side_and_in_lists() {
        for (text, words) in [
            ("context.timeQuality == \"synchronized\";", vec!["synchronized"]),
            ("\"sync\" != context . timeQuality;", vec!["sync"]),
            (
                "[\"tcp\", \"udp\", \"http\"].contains(context.link);",
                vec!["udp", "http"],
            ),
            (
                "context.revocation == \"old\" || principal.key == \"hsm\";",
                vec!["old", "hsm"],
            ),
        ] {
            let found = problems(text);
            assert_eq!(found.len(), words.len(), "{text}: {found:?}");
            for (message, word) in found.iter().zip(words) {
                assert!(message.contains(&format!("is never {word:?}")), "{message}");
            }
        }
    }

    #[test]
    fn words_that_match_and_other_attributes_are_let_through() {
        for text in [
            "context.timeQuality == \"authority\" && [\"tcp\", \"quic\"].contains(context.link);",
            "resource.kind == \"anything\" && principal.name != \"hsm\" && principal.getTag(\"key\") == \"hsm\";",
            "\"file\" == principal.key && context.revocation != \"none\";",
        ] {
            assert_eq!(problems(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn an_identifier_with_a_typing_error_is_found() {
        let good = Identifier::from_bytes([9; 32]).to_string();
        let node = |id: &str| format!("principal == Fieldgate::Node::\"{id}\";");
        assert_eq!(problems(&node(&good)), [""; 0]);
        let typo = good.replace(&good[20..22], if &good[20..22] == "qq" { "pp" } else { "qq" });
        for bad in [typo.as_str(), "press-gateway", "", &good.to_uppercase()] {
            assert_eq!(problems(&node(bad)).len(), 1, "{bad}");
        }
    }
}
