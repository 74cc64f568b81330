//! Decisions.

use std::{collections::BTreeMap, fmt, sync::Arc};

use cedar_policy::{
    ActionConstraint, AuthorizationError, Authorizer, Decision as CedarDecision, Effect,
    Policy as CedarPolicy, PolicyId as CedarPolicyId, PolicySet, PrincipalConstraint,
};

use crate::{
    built_in,
    check::check,
    explain::Explanation,
    request::{Action, Request},
    translate::{Translated, action_uid, group_id, node_id, translate},
};

/// The name of a rule: what its `@id("…")` says, else `rule` and its number, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(Arc<str>);

impl PolicyId {
    pub(crate) const fn new(id: Arc<str>) -> Self {
        Self(id)
    }

    /// Returns it as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl serde::Serialize for PolicyId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the principal may.
    pub allowed: bool,
    /// The rules that decided, in the order of the policy: those that permit it if it is allowed, those that forbid it if one does,
    /// none if no rule permits it.
    pub reasons: Vec<PolicyId>,
    /// Rules that could not be evaluated. A rule that permits is left out then; one that forbids is taken at its worst, so it
    /// denies.
    pub errors: Vec<RuleError>,
}

/// A rule that could not be evaluated for a request, which with a checked policy is an overflow of numbers. The rule's author
/// must mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[error("{rule} cannot be evaluated: {message}")]
pub struct RuleError {
    /// The rule.
    pub rule: PolicyId,
    /// What Cedar's evaluator says.
    pub message: String,
}

impl RuleError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        "mend the rule: compare numbers as they are, without arithmetic that can overflow"
    }
}

/// A policy that has been checked against the schema. Clones are cheap and share it; threads can ask it at the same time.
#[derive(Clone)]
pub struct Policy(Form);

#[derive(Clone)]
enum Form {
    /// The built-in rules, which need no Cedar.
    BuiltIn,
    Compiled(Arc<Compiled>),
}

struct Compiled {
    name: String,
    rules: Vec<Rule>,
    /// Rules for every action and every node.
    general: PolicySet,
    /// Rules for some actions; one set for each, in the order of [`Action::ALL`].
    by_action: Vec<PolicySet>,
    /// Rules whose scope says `principal == Fieldgate::Node::"…"`, under its id: fleets have one or two for each node, and looking at
    /// all of them for every request would take a microsecond each.
    by_node: BTreeMap<String, PolicySet>,
    /// In the same way those that say `principal in Fieldgate::Group::"…"`.
    by_group: BTreeMap<String, PolicySet>,
    authorizer: Authorizer,
}

/// A rule as its author knows it.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) id: PolicyId,
    pub(crate) effect: Effect,
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) text: Box<str>,
}

impl Policy {
    /// Returns the policy of a node whose file names no other.
    #[must_use]
    pub const fn built_in() -> Self {
        Self(Form::BuiltIn)
    }

    /// Puts checked rules together. Within Cedar's sets a rule is named by its index.
    pub(crate) fn new<'a>(name: &str, rules: impl Iterator<Item = (Rule, &'a CedarPolicy)>) -> Self {
        let mut compiled = Compiled {
            name: name.to_owned(),
            rules: Vec::new(),
            general: PolicySet::new(),
            by_action: vec![PolicySet::new(); Action::ALL.len()],
            by_node: BTreeMap::new(),
            by_group: BTreeMap::new(),
            authorizer: Authorizer::new(),
        };
        for (index, (rule, policy)) in rules.enumerate() {
            compiled.rules.push(rule);
            compiled.add(policy.new_id(CedarPolicyId::new(index.to_string())));
        }
        compiled.rules.shrink_to_fit();
        Self(Form::Compiled(Arc::new(compiled)))
    }

    /// Returns what the policy was called when it was checked.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.0 {
            Form::BuiltIn => BUILT_IN_NAME,
            Form::Compiled(compiled) => &compiled.name,
        }
    }

    /// Returns how many rules it has.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        match &self.0 {
            Form::BuiltIn => built_in::IDS.len(),
            Form::Compiled(compiled) => compiled.rules.len(),
        }
    }

    /// Answers a request. Takes some microseconds; meant to be asked once per channel or stream, not per message.
    #[must_use]
    pub fn decide(&self, request: &Request) -> Decision {
        match &self.0 {
            Form::BuiltIn => {
                let permits = built_in::permits(request).into_iter();
                let id = |index: usize| built_in::IDS.get(index).map(|id| PolicyId((*id).into()));
                let reasons: Vec<PolicyId> = permits.filter_map(id).collect();
                Decision {
                    allowed: !reasons.is_empty(),
                    reasons,
                    errors: Vec::new(),
                }
            }
            Form::Compiled(compiled) => {
                let verdicts = compiled.evaluate(request, &translate(request));
                verdicts.decision(&compiled.rules)
            }
        }
    }

    /// Returns whether a live proof makes the difference: the request is denied without one and allowed with one. A node
    /// asks its peer for the token's signature only then.
    #[must_use]
    pub fn demands_live_proof(&self, request: &Request) -> bool {
        !self.decide(&request.with_live_proof(false)).allowed
            && self.decide(&request.with_live_proof(true)).allowed
    }

    /// Says why the answer is what it is. Takes longer than [`decide`](Self::decide); meant for people.
    #[must_use]
    pub fn explain(&self, request: &Request) -> Explanation {
        Explanation::new(self, request)
    }

    /// Returns the same policy with its rules as their author wrote them.
    pub(crate) fn spelt_out(&self) -> Self {
        match &self.0 {
            Form::BuiltIn => check(BUILT_IN_NAME, crate::BUILT_IN)
                .policy
                .expect("the built-in policy is good, which a test shows"),
            Form::Compiled(_) => self.clone(),
        }
    }

    /// Returns the rules; none of the built-in policy before it is [spelt out](Self::spelt_out).
    pub(crate) fn rules(&self) -> &[Rule] {
        match &self.0 {
            Form::BuiltIn => &[],
            Form::Compiled(compiled) => &compiled.rules,
        }
    }

    /// Asks Cedar; nobody for the built-in policy before it is [spelt out](Self::spelt_out).
    pub(crate) fn evaluate(&self, request: &Request, translated: &Translated) -> Verdicts {
        match &self.0 {
            Form::BuiltIn => Verdicts::default(),
            Form::Compiled(compiled) => compiled.evaluate(request, translated),
        }
    }
}

impl Compiled {
    fn add(&mut self, policy: CedarPolicy) {
        const FRESH: &str = "each rule has an index of its own";
        let principal = policy.principal_constraint();
        if let PrincipalConstraint::Eq(uid) = &principal
            && let Some(node) = node_id(uid)
        {
            let set = self.by_node.entry(node.to_owned()).or_default();
            set.add(policy).expect(FRESH);
        } else if let PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) = &principal
            && let Some(group) = group_id(uid)
        {
            let set = self.by_group.entry(group.to_owned()).or_default();
            set.add(policy).expect(FRESH);
        } else if policy.action_constraint() == ActionConstraint::Any {
            self.general.add(policy).expect(FRESH);
        } else {
            for (action, set) in Action::ALL.iter().zip(&mut self.by_action) {
                if applies(&policy, *action) {
                    set.add(policy.clone()).expect(FRESH);
                }
            }
        }
    }

    /// Asks Cedar about each set of rules that can apply, and puts together what it says.
    fn evaluate(&self, request: &Request, translated: &Translated) -> Verdicts {
        let action = Action::ALL.iter().position(|action| *action == request.action());
        let node = request.principal().identifier.to_string();
        let groups = request.principal().groups();
        let groups = groups.into_iter().filter_map(|group| self.by_group.get(group));
        let sets = std::iter::once(&self.general)
            .chain(action.and_then(|action| self.by_action.get(action)))
            .chain(self.by_node.get(&node))
            .chain(groups);
        let mut verdicts = Verdicts::default();
        for set in sets {
            let response = self
                .authorizer
                .is_authorized(&translated.request, set, &translated.entities);
            let reasons = response.diagnostics().reason().filter_map(rule_index);
            match response.decision() {
                CedarDecision::Allow => verdicts.permits.extend(reasons),
                CedarDecision::Deny => verdicts.forbids.extend(reasons),
            }
            for AuthorizationError::PolicyEvaluationError(error) in response.diagnostics().errors() {
                let index = rule_index(error.policy_id());
                verdicts
                    .errors
                    .extend(index.map(|index| (index, error.inner().to_string())));
            }
        }
        verdicts.permits.sort_unstable();
        verdicts.forbids.sort_unstable();
        verdicts.errors.sort_unstable();
        verdicts
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("name", &self.name())
            .field("rules", &self.rule_count())
            .finish_non_exhaustive()
    }
}

/// Returns whether the scope of a rule lets the action in. The schema has no groups of actions, so `in` means one of these.
pub(crate) fn applies(policy: &CedarPolicy, action: Action) -> bool {
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(uid) => uid == action_uid(action),
        ActionConstraint::In(uids) => uids.contains(&action_uid(action)),
    }
}

fn rule_index(id: &CedarPolicyId) -> Option<usize> {
    let id: &str = id.as_ref();
    id.parse().ok()
}

/// What the rules say, by their index, in the order of the policy. Rules that permit are left out where one of the same set forbids.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    pub(crate) permits: Vec<usize>,
    pub(crate) forbids: Vec<usize>,
    pub(crate) errors: Vec<(usize, String)>,
}

impl Verdicts {
    /// Returns the rules that would forbid if they could be evaluated. Cedar skips them, which would let through what their author
    /// wanted to stop.
    pub(crate) fn failed_forbids(&self, rules: &[Rule]) -> Vec<usize> {
        let failed = self.errors.iter().map(|(index, _)| *index);
        let is_forbid = |index: &usize| rules.get(*index).is_none_or(|rule| rule.effect == Effect::Forbid);
        failed.filter(is_forbid).collect()
    }

    pub(crate) fn allowed(&self, rules: &[Rule]) -> bool {
        !self.permits.is_empty() && self.forbids.is_empty() && self.failed_forbids(rules).is_empty()
    }

    /// Returns the rules that decided.
    pub(crate) fn deciding(&self, rules: &[Rule]) -> Vec<usize> {
        if self.allowed(rules) {
            return self.permits.clone();
        }
        let mut deciding = self.failed_forbids(rules);
        deciding.extend(&self.forbids);
        deciding.sort_unstable();
        deciding
    }

    fn decision(&self, rules: &[Rule]) -> Decision {
        let id = |index: usize| rules.get(index).map(|rule| rule.id.clone());
        Decision {
            allowed: self.allowed(rules),
            reasons: self.deciding(rules).into_iter().filter_map(id).collect(),
            errors: self.rule_errors(rules),
        }
    }

    pub(crate) fn rule_errors(&self, rules: &[Rule]) -> Vec<RuleError> {
        let errors = self.errors.iter().filter_map(|(index, message)| {
            let rule = rules.get(*index)?;
            Some(RuleError {
                rule: rule.id.clone(),
                message: message.clone(),
            })
        });
        errors.collect()
    }
}

/// What the built-in policy is called where a rule of it is named.
const BUILT_IN_NAME: &str = "built-in";

#[cfg(test)]
mod tests;
