//! The conditions of a rule taken apart, to say which of them does not hold.

use std::ops::Range;

use crate::lexer::{Lexer, Token};

/// A `when { … }` or `unless { … }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clause {
    /// Whether it is an `unless`.
    pub(crate) is_unless: bool,
    /// Where its expression stands in the rule, in bytes.
    pub(crate) expression: Range<usize>,
    /// The parts that `&&` joins, in their order; the whole expression if it is joined in another way.
    pub(crate) conjuncts: Vec<Range<usize>>,
}

/// Finds the clauses of one rule, which Cedar's parser takes.
pub(crate) fn clauses(rule: &str) -> Vec<Clause> {
    let mut clauses = Vec::new();
    let mut depth = 0_usize;
    let mut open: Option<(bool, Vec<Token>)> = None;
    let mut before = "";
    for token in Lexer::new(rule) {
        let word = token.of(rule);
        if word == "}"
            && depth == 1
            && let Some((is_unless, tokens)) = open.take()
        {
            clauses.extend(clause(rule, is_unless, &tokens));
        }
        if let Some((_, tokens)) = &mut open {
            tokens.push(token);
        }
        match word {
            "(" | "[" | "{" => {
                if word == "{" && depth == 0 && matches!(before, "when" | "unless") {
                    open = Some((before == "unless", Vec::new()));
                }
                depth += 1;
            }
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        before = word;
    }
    clauses
}

/// Takes one clause apart; `tokens` are those between its braces.
fn clause(rule: &str, is_unless: bool, tokens: &[Token]) -> Option<Clause> {
    let expression = tokens.first()?.start..tokens.last()?.end;
    let mut depth = 0_usize;
    let mut conjuncts = Vec::new();
    let mut part: Option<Range<usize>> = None;
    for token in tokens {
        let word = token.of(rule);
        match word {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            // Weaker than `&&`: what stands around it is no conjunct of the whole.
            "||" | "if" if depth == 0 => {
                return Some(Clause {
                    is_unless,
                    conjuncts: vec![expression.clone()],
                    expression,
                });
            }
            "&&" if depth == 0 => {
                conjuncts.extend(part.take());
                continue;
            }
            _ => {}
        }
        part = Some(part.map_or(token.start, |part| part.start)..token.end);
    }
    conjuncts.extend(part);
    Some(Clause {
        is_unless,
        expression,
        conjuncts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(rule: &str) -> Vec<(bool, Vec<&str>)> {
        let clauses = clauses(rule);
        let parts = clauses.iter().map(|clause| {
            let conjuncts = clause.conjuncts.iter().map(|part| &rule[part.clone()]);
            (clause.is_unless, conjuncts.collect())
        });
        parts.collect()
    }

    #[test]
    fn conjuncts_are_cut_at_the_outermost_level_only() {
        assert_eq!(
            parts("permit (principal, action, resource) when { a && (b && c) && d.e(\"&&\") };"),
            [(false, vec!["a", "(b && c)", "d.e(\"&&\")"])]
        );
    }

    #[test]
    fn what_is_not_joined_by_and_stays_whole() {
        for whole in ["a && b || c", "if a then b && c else d", "a || b && c"] {
            let rule = format!("permit (principal, action, resource) when {{ {whole} }};");
            assert_eq!(parts(&rule), [(false, vec![whole])]);
        }
    }

    #[test]
    fn every_clause_is_found_and_annotations_are_not_taken_for_one() {
        assert_eq!(
            parts(
                "@when(\"{\") @unless forbid (principal, action, resource)\n when { {when: a}.when } // }\n unless { b };"
            ),
            [(false, vec!["{when: a}.when"]), (true, vec!["b"])]
        );
        assert_eq!(parts("permit (principal, action, resource);"), []);
    }
}
