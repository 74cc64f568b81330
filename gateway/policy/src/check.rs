//! From a text to a policy, with everything that is wrong with it.

use std::{
    collections::{BTreeMap, HashSet},
    mem::discriminant,
    ops::Range,
    sync::Arc,
};

use cedar_policy::{
    Effect, Policy as CedarPolicy, PolicyId as CedarPolicyId, PolicySet, Schema, ValidationError,
    ValidationMode, ValidationWarning, Validator,
};
use miette::Diagnostic;

use crate::{
    policy::{Policy, PolicyId, Rule},
    problem::{Draft, Findings, Problems},
    request::Action,
    rules::{RuleText, split},
    source::Source,
    vocabulary,
};

/// Longest text of a policy, in bytes.
pub const SIZE_MAX: usize = 1024 * 1024;

/// What a text turned out to be.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The policy, if nothing but warnings was found.
    pub policy: Option<Policy>,
    /// What is wrong with it.
    pub problems: Problems,
}

/// Reads a policy. `name` is what the text is called where a rule of it is named, usually its file.
///
/// Each rule is parsed alone, so that one problem does not hide the next, and checked strictly against the schema: a policy without
/// problems cannot meet a value of a type it does not expect.
#[must_use]
pub fn check(name: &str, text: &str) -> Checked {
    let mut findings = Findings::default();
    if text.len() > SIZE_MAX {
        let message = format!("the policy has {} bytes, more than {SIZE_MAX}", text.len());
        let help = "name groups or attributes instead of single nodes";
        findings.push(Draft::error(&message, help));
        return Checked {
            policy: None,
            problems: findings.finish(name, ""),
        };
    }
    let mut rules = Vec::new();
    for (index, rule) in split(text, &mut findings).into_iter().enumerate() {
        if findings.error_count() >= ERRORS_MAX {
            let message = "the rules from here on were not looked at";
            let help = "mend the others first; a file with so many errors is often no policy at all";
            findings.push(Draft::error(message, help).at(rule.span, "the first of them"));
            break;
        }
        rules.extend(parse(text, index, rule, &mut findings));
    }
    validate(&rules, &mut findings);
    for rule in &rules {
        vocabulary::examine(text, &rule.text, &mut findings);
    }
    let ids = rule_ids(&rules, &mut findings);
    if !findings.has_errors() && !rules.iter().any(|rule| rule.policy.effect() == Effect::Permit) {
        let help = "begin with the rules that `fieldgate policy show` prints";
        findings.push(Draft::warning("no rule permits anything", help));
    }
    let policy = (!findings.has_errors()).then(|| {
        let source = Source::new(name, text);
        let compiled = ids.into_iter().zip(&rules).map(|(id, parsed)| {
            let rule = Rule {
                id,
                effect: parsed.policy.effect(),
                line: source.line_and_column(parsed.text.span.start).0,
                text: text.get(parsed.text.span.clone()).unwrap_or_default().into(),
            };
            (rule, &parsed.policy)
        });
        Policy::new(name, compiled)
    });
    Checked {
        policy,
        problems: findings.finish(name, text),
    }
}

/// A rule that Cedar's parser takes.
struct Parsed {
    text: RuleText,
    /// Its id is the index of the rule among all rules that could be cut.
    policy: CedarPolicy,
}

fn parse(text: &str, index: usize, rule: RuleText, findings: &mut Findings) -> Option<Parsed> {
    let words = text.get(rule.span.clone()).unwrap_or_default();
    match CedarPolicy::parse(Some(CedarPolicyId::new(index.to_string())), words) {
        Ok(policy) => Some(Parsed { text: rule, policy }),
        Err(errors) => {
            for error in errors.iter() {
                findings.push(draft(Draft::error, error, error.to_string(), &rule, RULE_HELP));
            }
            None
        }
    }
}

/// Checks the rules against the schema.
fn validate(rules: &[Parsed], findings: &mut Findings) {
    let mut set = PolicySet::new();
    let mut by_id = BTreeMap::new();
    for rule in rules {
        by_id.insert(rule.policy.id().clone(), &rule.text);
        set.add(rule.policy.clone())
            .expect("each rule has an id of its own");
    }
    let schema: Schema = crate::SCHEMA
        .parse()
        .expect("the schema is good, which a test shows");
    let result = Validator::new(schema).validate(&set, ValidationMode::Strict);
    // A rule for all actions is checked once for each, and each time the same is wrong with it.
    let mut seen = HashSet::new();
    let mut wrong = HashSet::new();
    for error in result.validation_errors() {
        let Some(rule) = by_id.get(error.policy_id()) else {
            continue;
        };
        let place = label(error).map(|(start, end, _)| (start, end));
        if !seen.insert((rule.span.start, place, discriminant(error))) {
            continue;
        }
        wrong.insert(rule.span.start);
        let message = without_id(&error.to_string());
        if matches!(error, ValidationError::UnrecognizedActionId(_)) {
            // Cedar suggests the nearest text, which with so few letters is rarely the nearest word.
            findings.push(Draft::error(&message, known_actions()).at(place_in(rule, error), "this action"));
        } else {
            findings.push(draft(Draft::error, error, message, rule, cure(error)));
        }
    }
    let mut inapplicable = HashSet::new();
    for warning in result.validation_warnings() {
        let Some(rule) = by_id.get(warning.policy_id()) else {
            continue;
        };
        let applies = !matches!(warning, ValidationWarning::InvalidActionApplication(_));
        let follows = matches!(warning, ValidationWarning::ImpossiblePolicy(_));
        // A rule that applies to no action is impossible too; that needs no saying.
        let is_new = if applies {
            !(follows && inapplicable.contains(&rule.span.start))
        } else {
            inapplicable.insert(rule.span.start)
        };
        // What follows from an error needs no saying either.
        if is_new && !wrong.contains(&rule.span.start) {
            let message = without_id(&warning.to_string());
            findings.push(draft(Draft::warning, warning, message, rule, WARNING_HELP));
        }
    }
}

/// Gives each rule its id: what its `@id` says, else its number.
fn rule_ids(rules: &[Parsed], findings: &mut Findings) -> Vec<PolicyId> {
    let mut lines: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    let mut ids = Vec::with_capacity(rules.len());
    for (index, rule) in rules.iter().enumerate() {
        let id: Arc<str> = match rule.policy.annotation("id") {
            Some(id) => {
                let is_plain = !id.chars().any(char::is_control);
                if id.is_empty() || id.len() > ID_BYTES_MAX || !is_plain {
                    let message = format!("@id({id:?}) is no id");
                    let help =
                        format!("write 1 to {ID_BYTES_MAX} letters, as in @id(\"portals-of-the-north\")");
                    findings.push(Draft::error(&message, help).at(rule.text.span.clone(), "of this rule"));
                }
                id.into()
            }
            None => format!("rule {}", index + 1).into(),
        };
        if lines.insert(Arc::clone(&id), index).is_some() {
            let message = format!("two rules have the id {id:?}");
            let help = "give each rule an id of its own";
            findings.push(Draft::error(&message, help).at(rule.text.span.clone(), "the second"));
        }
        ids.push(PolicyId::new(id));
    }
    ids
}

/// Puts one of Cedar's findings into ours. Its places count from the start of the rule.
fn draft(
    begin: fn(&str, String) -> Draft,
    finding: &dyn Diagnostic,
    message: String,
    rule: &RuleText,
    otherwise: &str,
) -> Draft {
    let help = finding
        .help()
        .map_or_else(|| otherwise.to_owned(), |help| help.to_string());
    let words = label(finding)
        .and_then(|(_, _, words)| words)
        .unwrap_or_else(|| "here".to_owned());
    begin(&message, help).at(place_in(rule, finding), &words)
}

/// Returns where in the whole text a finding is; the rule if it does not say.
fn place_in(rule: &RuleText, finding: &dyn Diagnostic) -> Range<usize> {
    label(finding).map_or_else(
        || rule.span.clone(),
        |(start, end, _)| rule.span.start + start..rule.span.start + end,
    )
}

fn known_actions() -> String {
    let actions: Vec<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
    format!(
        "write Fieldgate::Action::\"…\" with one of: {}",
        actions.join(", ")
    )
}

/// Returns the first place of a finding, and the words for it.
fn label(finding: &dyn Diagnostic) -> Option<(usize, usize, Option<String>)> {
    let label = finding.labels()?.next()?;
    let start = label.offset();
    Some((start, start + label.len(), label.label().map(ToOwned::to_owned)))
}

/// Takes the id off the message: it is a number that stands nowhere in the text.
fn without_id(message: &str) -> String {
    let rest = message.strip_prefix("for policy `").and_then(|rest| {
        let (id, rest) = rest.split_once("`, ")?;
        id.bytes().all(|byte| byte.is_ascii_digit()).then_some(rest)
    });
    rest.unwrap_or(message).to_owned()
}

fn cure(error: &ValidationError) -> &'static str {
    if matches!(error, ValidationError::UnsafeTagAccess(_)) {
        "ask first whether it is there: `principal.hasTag(\"site\") && principal.getTag(\"site\") == \"north\"`"
    } else if matches!(error, ValidationError::UnsafeOptionalAttributeAccess(_)) {
        "ask first whether it is there: `context has link && context.link == \"tcp\"`"
    } else {
        "`fieldgate policy schema` says which types, attributes and actions there are"
    }
}

const RULE_HELP: &str = "a rule reads `permit (principal, action, resource) when { principal.member };`";
const WARNING_HELP: &str =
    "`fieldgate policy schema` says what each action is done to, and with which attributes";
/// Errors after which no more rules are parsed: each costs a good part of a millisecond.
const ERRORS_MAX: usize = 500;
/// Longest id of a rule, in bytes.
const ID_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests;
