//! Decisions.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, LazyLock},
};

use cedar_policy::{
    ActionConstraint, AuthorizationError, Authorizer, Decision as CedarDecision, Effect,
    Policy as CedarPolicy, PolicyId as CedarPolicyId, PolicySet, PrincipalConstraint,
};

use crate::{
    check::check,
    explain::Explanation,
    request::{Action, Request},
    translate::{Translated, action_uid, node_id, translate},
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
pub struct Policy(Arc<Compiled>);

struct Compiled {
    name: String,
    rules: Vec<Rule>,
    /// One for each action, in the order of [`Action::ALL`].
    by_action: Vec<Applicable>,
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

/// The rules that can apply to one action. Within Cedar's sets a rule is named by its index in [`Compiled::rules`].
#[derive(Default)]
struct Applicable {
    /// Those that are not about one node.
    general: PolicySet,
    /// Those whose scope says `principal == Fieldgate::Node::"…"`, under its id: fleets have one or two for each node, and looking
    /// at all of them for every request would take a microsecond each.
    by_node: BTreeMap<String, PolicySet>,
}

impl Policy {
    /// Returns the policy of a node whose file names no other.
    #[must_use]
    pub fn built_in() -> Self {
        static POLICY: LazyLock<Policy> = LazyLock::new(|| {
            check("built-in", crate::BUILT_IN)
                .policy
                .expect("the built-in policy is good, which a test shows")
        });
        POLICY.clone()
    }

    /// Puts checked rules together.
    pub(crate) fn new<'a>(name: &str, rules: impl Iterator<Item = (Rule, &'a CedarPolicy)>) -> Self {
        let mut by_action: Vec<Applicable> = Action::ALL.iter().map(|_| Applicable::default()).collect();
        let mut kept = Vec::new();
        for (index, (rule, policy)) in rules.enumerate() {
            kept.push(rule);
            let policy = policy.new_id(CedarPolicyId::new(index.to_string()));
            for (action, applicable) in Action::ALL.iter().zip(&mut by_action) {
                if applies(&policy, *action) {
                    applicable.add(policy.clone());
                }
            }
        }
        Self(Arc::new(Compiled {
            name: name.to_owned(),
            rules: kept,
            by_action,
            authorizer: Authorizer::new(),
        }))
    }

    /// Returns what the policy was called when it was checked.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns how many rules it has.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.0.rules.len()
    }

    /// Answers a request. Takes some microseconds; meant to be asked once per channel or stream, not per message.
    #[must_use]
    pub fn decide(&self, request: &Request) -> Decision {
        self.evaluate(request, &translate(request)).decision(self)
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

    pub(crate) fn rules(&self) -> &[Rule] {
        &self.0.rules
    }

    /// Asks Cedar, and puts together what it says of the rules for everybody and of those for this node.
    pub(crate) fn evaluate(&self, request: &Request, translated: &Translated) -> Verdicts {
        let mut verdicts = Verdicts::default();
        let index = Action::ALL.iter().position(|action| *action == request.action());
        let Some(applicable) = index.and_then(|index| self.0.by_action.get(index)) else {
            return verdicts;
        };
        let node = request.principal().identifier.to_string();
        for set in std::iter::once(&applicable.general).chain(applicable.by_node.get(&node)) {
            let response = self
                .0
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
            .field("name", &self.0.name)
            .field("rules", &self.0.rules.len())
            .finish_non_exhaustive()
    }
}

impl Applicable {
    fn add(&mut self, policy: CedarPolicy) {
        let set = match policy.principal_constraint() {
            PrincipalConstraint::Eq(uid) => match node_id(&uid) {
                Some(node) => self.by_node.entry(node.to_owned()).or_default(),
                None => &mut self.general,
            },
            PrincipalConstraint::Any
            | PrincipalConstraint::In(_)
            | PrincipalConstraint::Is(_)
            | PrincipalConstraint::IsIn(..) => &mut self.general,
        };
        set.add(policy).expect("each rule has an index of its own");
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
    pub(crate) fn failed_forbids(&self, policy: &Policy) -> Vec<usize> {
        let failed = self.errors.iter().map(|(index, _)| *index);
        let is_forbid = |index: &usize| {
            policy
                .rules()
                .get(*index)
                .is_none_or(|rule| rule.effect == Effect::Forbid)
        };
        failed.filter(is_forbid).collect()
    }

    pub(crate) fn allowed(&self, policy: &Policy) -> bool {
        !self.permits.is_empty() && self.forbids.is_empty() && self.failed_forbids(policy).is_empty()
    }

    /// Returns the rules that decided.
    pub(crate) fn deciding(&self, policy: &Policy) -> Vec<usize> {
        if self.allowed(policy) {
            return self.permits.clone();
        }
        let mut deciding = self.failed_forbids(policy);
        deciding.extend(&self.forbids);
        deciding.sort_unstable();
        deciding
    }

    fn decision(&self, policy: &Policy) -> Decision {
        let id = |index: usize| policy.rules().get(index).map(|rule| rule.id.clone());
        Decision {
            allowed: self.allowed(policy),
            reasons: self.deciding(policy).into_iter().filter_map(id).collect(),
            errors: self.rule_errors(policy),
        }
    }

    pub(crate) fn rule_errors(&self, policy: &Policy) -> Vec<RuleError> {
        let errors = self.errors.iter().filter_map(|(index, message)| {
            let rule = policy.rules().get(*index)?;
            Some(RuleError {
                rule: rule.id.clone(),
                message: message.clone(),
            })
        });
        errors.collect()
    }
}

#[cfg(test)]
mod tests;
