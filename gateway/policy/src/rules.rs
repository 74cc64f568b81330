//! A policy text cut into its rules, within bounds.
//!
//! Cedar's parser, type checker and evaluator call themselves for every level of an expression, and a text of a few kilobytes can
//! make them run out of stack, which ends the process. So depth and length of each rule are measured first.

use std::ops::Range;

use crate::{
    lexer::{Lexer, Token, TokenKind},
    problem::{Draft, Findings},
};

/// Rules in one policy.
pub const RULES_MAX: usize = 10_000;

/// One rule as it stands in the text, from its first word to its semicolon.
#[derive(Clone, Debug)]
pub(crate) struct RuleText {
    /// Where it stands, in bytes.
    pub(crate) span: Range<usize>,
    /// Its tokens, the semicolon included; positions count from the start of the whole text.
    pub(crate) tokens: Vec<Token>,
}

/// Cuts `text` into rules. What cannot be cut, or is beyond a bound, is left out and stands in `findings`.
pub(crate) fn split(text: &str, findings: &mut Findings) -> Vec<RuleText> {
    let mut rules = Vec::new();
    let mut tokens: Vec<Token> = Vec::new();
    for token in Lexer::new(text) {
        if token.kind == TokenKind::Unclosed {
            let help = "end it with a double quote; a double quote within it is written \\\"";
            findings.push(Draft::error("a text has no end", help).at(token.span(), "it begins here"));
            return rules;
        }
        tokens.push(token);
        if token.of(text) != ";" {
            continue;
        }
        if rules.len() == RULES_MAX {
            let help = "name groups or attributes instead of single nodes";
            let message = format!("there are more than {RULES_MAX} rules");
            findings.push(Draft::error(&message, help).at(token.span(), "this one is too many"));
            return rules;
        }
        let tokens = std::mem::take(&mut tokens);
        let start = tokens.first().map_or(token.start, |first| first.start);
        let rule = RuleText {
            span: start..token.end,
            tokens,
        };
        if is_within_bounds(text, &rule, findings) {
            rules.push(rule);
        }
    }
    if let Some(first) = tokens.first() {
        let help = "end each rule with a semicolon";
        findings.push(Draft::error("a rule has no end", help).at(first.span(), "it begins here"));
    }
    rules
}

fn is_within_bounds(text: &str, rule: &RuleText, findings: &mut Findings) -> bool {
    let length = rule.span.len();
    if length > RULE_BYTES_MAX {
        let message = format!("the rule has {length} bytes, more than {RULE_BYTES_MAX}");
        let help = "name groups or attributes instead of single nodes, or make several rules of it";
        findings.push(Draft::error(&message, help).at(rule.span.clone(), "this rule"));
        return false;
    }
    let mut depth = 0_usize;
    let mut operators = 0_usize;
    for token in &rule.tokens {
        match token.of(text) {
            "(" | "[" | "{" => {
                depth += 1;
                operators += usize::from(token.of(text) == "[");
            }
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            word => operators += usize::from(OPERATORS.contains(&word)),
        }
        let (message, bound) = if depth > DEPTH_MAX {
            ("brackets stand in brackets", DEPTH_MAX)
        } else if operators > OPERATORS_MAX {
            ("the rule strings together operators", OPERATORS_MAX)
        } else {
            continue;
        };
        let message = format!("{message}, more than {bound}");
        let help = "make several rules of it; for lists of nodes write `principal in [ … ]` or name a group";
        findings.push(Draft::error(&message, help).at(token.span(), "too many here"));
        return false;
    }
    true
}

/// Bytes of one rule: room for a list of 150 nodes. Cedar's recovery from errors takes time that grows with the square of it.
const RULE_BYTES_MAX: usize = 16 * 1024;
/// Brackets within brackets. Each level costs Cedar's parser about 2 KiB of stack.
const DEPTH_MAX: usize = 32;
/// Operators of one rule. Each can be one more level for the evaluator, at about 4 KiB of stack; threads have 2 MiB.
const OPERATORS_MAX: usize = 256;
/// What can stand in a chain without brackets, and is nested by the parser.
const OPERATORS: [&str; 14] = [
    "&&", "||", "+", "-", "*", ".", "!", "if", "when", "unless", "has", "like", "is", "in",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> (Vec<&str>, Vec<String>) {
        let mut findings = Findings::default();
        let rules = split(text, &mut findings);
        let rules = rules
            .iter()
            .map(|rule| text.get(rule.span.clone()).expect("within"));
        let problems = findings.finish("f", text);
        (
            rules.collect(),
            problems
                .iter()
                .map(|problem| problem.message().to_owned())
                .collect(),
        )
    }

    #[test]
    fn rules_begin_after_comments_and_end_with_semicolons() {
        let (rules, problems) = rules("// a;\npermit (x); // b;\n @id(\"c;\") forbid // d;\n;\n// e");
        assert_eq!(rules, ["permit (x);", "@id(\"c;\") forbid // d;\n;"]);
        assert_eq!(problems, [""; 0]);
    }

    #[test]
    fn what_has_no_end_is_a_problem() {
        assert_eq!(rules("a; b"), (vec!["a;"], vec!["a rule has no end".to_owned()]));
        assert_eq!(
            rules("a; b \"c;"),
            (vec!["a;"], vec!["a text has no end".to_owned()])
        );
    }

    #[test]
    fn bounds_are_exact() {
        let nested = |depth: usize| format!("{}{};", "(".repeat(depth), ")".repeat(depth));
        let chain = |count: usize| format!("a{};", " && a".repeat(count));
        let long = |bytes: usize| format!("{};", "a".repeat(bytes - 1));
        for (good, bad) in [
            (nested(DEPTH_MAX), nested(DEPTH_MAX + 1)),
            (chain(OPERATORS_MAX), chain(OPERATORS_MAX + 1)),
            (long(RULE_BYTES_MAX), long(RULE_BYTES_MAX + 1)),
        ] {
            let (cut, problems) = rules(&good);
            assert_eq!((cut.len(), problems.len()), (1, 0));
            let (cut, problems) = rules(&bad);
            assert_eq!((cut.len(), problems.len()), (0, 1));
        }
        let text = "a;".repeat(RULES_MAX);
        let (cut, problems) = rules(&text);
        assert_eq!((cut.len(), problems.len()), (RULES_MAX, 0));
        let text = "a;".repeat(RULES_MAX + 1);
        let (cut, problems) = rules(&text);
        assert_eq!((cut.len(), problems.len()), (RULES_MAX, 1));
    }
}
