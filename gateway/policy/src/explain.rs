//! Why a decision is what it is.

use std::fmt;

use cedar_policy::{
    Effect, EvalResult, Expression, Policy as CedarPolicy, PrincipalConstraint, ResourceConstraint,
    eval_expression,
};

use crate::{
    clause::clauses,
    policy::{Policy, PolicyId, Rule, RuleError, applies},
    request::{Principal, Request, Resource},
    source::shown,
    translate::{Translated, group_id, node_id, resource_uid, translate},
    word::words,
};

words! {
    /// How a decision came about.
    Verdict, "verdict" {
        /// A rule permits it, and none forbids it.
        Permitted = "permitted",
        /// A rule forbids it.
        Forbidden = "forbidden",
        /// No rule permits it.
        NothingPermits = "nothing-permits",
        /// A rule that could forbid it cannot be evaluated.
        CannotBeEvaluated = "cannot-be-evaluated",
    }
}

/// A decision with its reasons. As text it is one block for people; it serialises for programs.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Explanation {
    /// Whether the principal may.
    pub allowed: bool,
    /// How that came about.
    pub verdict: Verdict,
    /// Whether it is denied as asked, and would be allowed with a live proof.
    pub live_proof_would_help: bool,
    /// What was asked.
    pub request: Request,
    /// The rules that decided.
    pub rules: Vec<RuleShown>,
    /// If nothing permits it: rules about this action that do not match, with the reason; those that are nearest first.
    pub near_misses: Vec<NearMiss>,
    /// How many more of these there are.
    pub more_near_misses: usize,
    /// Rules that could not be evaluated.
    pub errors: Vec<RuleError>,
}

/// A rule that decided.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RuleShown {
    /// Its name.
    pub id: PolicyId,
    /// What the policy was called when it was checked, usually its file.
    pub file: String,
    /// The line it begins at, counted from 1.
    pub line: usize,
    /// The rule itself.
    pub text: String,
}

/// A rule that would permit, but does not match.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NearMiss {
    /// Its name.
    pub id: PolicyId,
    /// What the policy was called when it was checked, usually its file.
    pub file: String,
    /// The line it begins at, counted from 1.
    pub line: usize,
    /// The first part of it that does not hold.
    pub because: String,
}

/// Why a rule does not match; the nearest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mismatch {
    /// A part of its conditions does not hold.
    Condition(String),
    /// It is about others.
    Scope(String),
}

impl Explanation {
    pub(crate) fn new(policy: &Policy, request: &Request) -> Self {
        let policy = &policy.spelt_out();
        let translated = translate(request);
        let verdicts = policy.evaluate(request, &translated);
        let allowed = verdicts.allowed(policy.rules());
        let verdict = if allowed {
            Verdict::Permitted
        } else if !verdicts.forbids.is_empty() {
            Verdict::Forbidden
        } else if !verdicts.failed_forbids(policy.rules()).is_empty() {
            Verdict::CannotBeEvaluated
        } else {
            Verdict::NothingPermits
        };
        let rules = verdicts.deciding(policy.rules()).into_iter();
        let rules = rules.filter_map(|index| policy.rules().get(index));
        let mut near_misses = Vec::new();
        if verdict == Verdict::NothingPermits {
            near_misses = self::near_misses(policy, request, &translated);
        }
        let more_near_misses = near_misses.len().saturating_sub(NEAR_MISSES_MAX);
        near_misses.truncate(NEAR_MISSES_MAX);
        Self {
            allowed,
            verdict,
            live_proof_would_help: !allowed && policy.decide(&request.with_live_proof(true)).allowed,
            request: request.clone(),
            rules: rules.map(|rule| rule_shown(policy, rule)).collect(),
            near_misses,
            more_near_misses,
            errors: verdicts.rule_errors(policy.rules()),
        }
    }
}

fn rule_shown(policy: &Policy, rule: &Rule) -> RuleShown {
    RuleShown {
        id: rule.id.clone(),
        file: policy.name().to_owned(),
        line: rule.line,
        text: shown(&rule.text),
    }
}

/// Finds the rules that permit this action to others or under other circumstances.
fn near_misses(policy: &Policy, request: &Request, translated: &Translated) -> Vec<NearMiss> {
    let permits = policy.rules().iter().filter(|rule| rule.effect == Effect::Permit);
    let mut misses: Vec<(Mismatch, NearMiss)> = permits
        .filter_map(|rule| {
            // It was parsed before, when the policy was checked.
            let parsed = CedarPolicy::parse(None, &rule.text).ok()?;
            if !applies(&parsed, request.action()) {
                return None;
            }
            let mismatch =
                scope_mismatch(&parsed, request).unwrap_or_else(|| condition_mismatch(rule, translated));
            let (Mismatch::Condition(because) | Mismatch::Scope(because)) = &mismatch;
            let miss = NearMiss {
                id: rule.id.clone(),
                file: policy.name().to_owned(),
                line: rule.line,
                because: because.clone(),
            };
            Some((mismatch, miss))
        })
        .collect();
    // Stable, so that rules of one kind stay in the order of the policy.
    misses.sort_by_key(|(mismatch, _)| matches!(mismatch, Mismatch::Scope(_)));
    misses.into_iter().map(|(_, miss)| miss).collect()
}

/// Says for whom or what the rule is instead, if it is not for these.
fn scope_mismatch(policy: &CedarPolicy, request: &Request) -> Option<Mismatch> {
    let principal = request.principal();
    let is_principal = |uid| node_id(uid) == Some(principal.identifier.to_string().as_str());
    let is_in =
        |uid| is_principal(uid) || group_id(uid).is_some_and(|group| principal.groups().contains(group));
    let who = match policy.principal_constraint() {
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => None,
        PrincipalConstraint::Eq(uid) => (!is_principal(&uid)).then(|| format!("it is for {uid}")),
        PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) => {
            (!is_in(&uid)).then(|| format!("it is for those in {uid}"))
        }
    };
    let resource = resource_uid(request.resource());
    let what = || match policy.resource_constraint() {
        ResourceConstraint::Any => None,
        ResourceConstraint::Is(kind) => {
            (kind != *resource.type_name()).then(|| format!("it is about every {kind}"))
        }
        ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => {
            (uid != resource).then(|| format!("it is about {uid}"))
        }
    };
    who.or_else(what).map(|text| Mismatch::Scope(shown(&text)))
}

/// Says which part of the conditions is the first that does not hold.
fn condition_mismatch(rule: &Rule, translated: &Translated) -> Mismatch {
    for clause in clauses(&rule.text) {
        let text = |range: &std::ops::Range<usize>| rule.text.get(range.clone()).unwrap_or_default();
        let holds = |range| holds(text(range), translated);
        if clause.is_unless {
            if holds(&clause.expression) != Ok(false) {
                return Mismatch::Condition(said("unless", text(&clause.expression), "is true"));
            }
            continue;
        }
        for conjunct in &clause.conjuncts {
            match holds(conjunct) {
                Ok(true) => {}
                Ok(false) => return Mismatch::Condition(said("when", text(conjunct), "is false")),
                Err(error) => return Mismatch::Condition(said("when", text(conjunct), &error)),
            }
        }
    }
    Mismatch::Condition("its conditions do not hold".to_owned())
}

/// Evaluates a part of a rule.
fn holds(expression: &str, translated: &Translated) -> Result<bool, String> {
    let expression: Expression = expression
        .parse()
        .map_err(|error| format!("cannot be read alone: {error}"))?;
    match eval_expression(&translated.request, &translated.entities, &expression) {
        Ok(value) => Ok(value == EvalResult::Bool(true)),
        Err(error) => Err(format!("cannot be evaluated: {error}")),
    }
}

/// Puts a sentence together, of one line and not endless.
fn said(keyword: &str, expression: &str, what: &str) -> String {
    let expression: Vec<&str> = expression.split_whitespace().collect();
    let mut expression = expression.join(" ");
    if expression.len() > EXPRESSION_BYTES_MAX {
        expression.truncate(expression.floor_char_boundary(EXPRESSION_BYTES_MAX));
        expression.push('…');
    }
    shown(&format!("{keyword} `{expression}`: {what}"))
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let request = &self.request;
        let answer = if self.allowed { "ALLOWED" } else { "DENIED" };
        writeln!(f, "{answer}: {} on {}", request.action(), request.resource())?;
        writeln!(f, "  for {}\n", request.principal().identifier)?;
        writeln!(f, "{}", self.reason())?;
        for rule in &self.rules {
            writeln!(f, "\n  {}, {}:{}", rule.id, rule.file, rule.line)?;
            for line in rule.text.lines() {
                writeln!(f, "    {line}")?;
            }
        }
        for error in &self.errors {
            writeln!(f, "\n  {error}\n  help: {}", error.hint())?;
        }
        if self.live_proof_would_help {
            writeln!(
                f,
                "\nWith a live proof it would be allowed; the node asks for one."
            )?;
        }
        if !self.near_misses.is_empty() {
            writeln!(f, "\nRules about this action that do not match:")?;
        }
        for miss in &self.near_misses {
            writeln!(
                f,
                "  {}, {}:{}\n    {}",
                miss.id, miss.file, miss.line, miss.because
            )?;
        }
        if self.more_near_misses > 0 {
            writeln!(f, "  and {} more", self.more_near_misses)?;
        }
        write_principal(f, request.principal())?;
        write_circumstances(f, request)
    }
}

impl Explanation {
    const fn reason(&self) -> &'static str {
        match (self.verdict, self.rules.len()) {
            (Verdict::Permitted, 1) => "This rule permits it, and none forbids it:",
            (Verdict::Permitted, _) => "These rules permit it, and none forbids it:",
            (Verdict::Forbidden, 1) => "This rule forbids it, whatever others permit:",
            (Verdict::Forbidden, _) => "These rules forbid it, whatever others permit:",
            (Verdict::NothingPermits, _) => "No rule permits it, and what no rule permits is denied.",
            (Verdict::CannotBeEvaluated, _) => "A rule that could forbid it cannot be evaluated:",
        }
    }
}

fn write_principal(f: &mut fmt::Formatter<'_>, principal: &Principal) -> fmt::Result {
    writeln!(f, "\nPrincipal")?;
    if !principal.name.is_empty() {
        writeln!(f, "  name           {}", shown(&principal.name))?;
    }
    for (label, value) in [
        ("named", principal.named),
        ("member", principal.member),
        ("enroller", principal.enroller),
        ("administrator", principal.administrator),
    ] {
        writeln!(f, "  {label:<13}  {}", yes(value))?;
    }
    writeln!(f, "  key            {}", principal.key)?;
    let groups: Vec<&str> = principal.groups().into_iter().collect();
    writeln!(f, "  groups         {}", listed(&groups))?;
    let attributes = principal.attributes.iter();
    let attributes: Vec<String> = attributes.map(|(key, value)| format!("{key}={value}")).collect();
    writeln!(f, "  attributes     {}", listed(&attributes))
}

fn write_circumstances(f: &mut fmt::Formatter<'_>, request: &Request) -> fmt::Result {
    match request.resource() {
        Resource::Device { gateway, .. } => writeln!(f, "Resource\n  gateway        {}", shown(gateway))?,
        Resource::Portal { kind, .. } => writeln!(f, "Resource\n  kind           {}", shown(kind))?,
        Resource::Service(_) | Resource::RelayName(_) | Resource::Authority | Resource::Configuration => {}
    }
    let context = request.context();
    writeln!(f, "Context")?;
    writeln!(f, "  timeQuality    {}", context.time_quality)?;
    match context.link {
        Some(link) => writeln!(f, "  link           {link}")?,
        None => writeln!(f, "  link           none, from this machine")?,
    }
    if let Some(hops) = context.hops {
        writeln!(f, "  hops           {hops}")?;
    }
    let ticket = context.ticket.into_iter().flat_map(|ticket| {
        [
            ("grantsAdministrator", ticket.grants_administrator),
            ("grantsEnroller", ticket.grants_enroller),
        ]
    });
    let flags = [
        ("postQuantum", context.post_quantum),
        ("liveProof", context.live_proof),
        ("granted", context.granted),
    ];
    for (label, value) in flags.into_iter().chain(ticket) {
        writeln!(f, "  {label:<13}  {}", yes(value))?;
    }
    writeln!(f, "  revocation     {}", context.revocation)?;
    if let Some(stream) = &context.stream {
        for (label, value) in [
            ("origin", &stream.origin),
            ("user", &stream.user),
            ("destination", &stream.destination),
        ] {
            writeln!(f, "  {label:<13}  {}", shown(value))?;
        }
        writeln!(f, "  minuteOfDay    {}", stream.minute_of_day)?;
        writeln!(f, "  weekday        {}", stream.weekday)?;
    }
    Ok(())
}

const fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn listed(words: &[impl AsRef<str>]) -> String {
    if words.is_empty() {
        return "none".to_owned();
    }
    let words: Vec<String> = words.iter().map(|word| shown(word.as_ref())).collect();
    words.join(", ")
}

/// Rules shown that do not match.
const NEAR_MISSES_MAX: usize = 8;
/// Longest expression shown, in bytes.
const EXPRESSION_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests;
