//! Which collector may command which device, as far as it was decided.

use std::{collections::BTreeMap, sync::Arc};

use super::Permission;
use crate::identity::Identifier;

/// Decisions, kept until the policy or a credential changes. Each is asked for once, whoever waits for it.
#[derive(Debug, Default)]
pub(super) struct Rights {
    decided: BTreeMap<(Identifier, Arc<str>), Permission>,
    asked: BTreeMap<(Identifier, Arc<str>), u64>,
    questions: BTreeMap<u64, (Identifier, Arc<str>)>,
    next_question: u64,
}

/// What is known of a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// It was decided.
    Decided(Permission),
    /// It has to be decided under this number, which was not asked before.
    Ask(u64),
    /// It is being decided.
    Asked,
}

impl Rights {
    /// Looks a right up, and notes that it is asked for.
    pub(super) fn look_up(&mut self, collector: Identifier, device: &Arc<str>) -> Right {
        let key = (collector, Arc::clone(device));
        if let Some(permission) = self.decided.get(&key) {
            return Right::Decided(*permission);
        }
        if self.asked.contains_key(&key) {
            return Right::Asked;
        }
        let question = self.next_question;
        self.next_question += 1;
        self.asked.insert(key.clone(), question);
        self.questions.insert(question, key);
        Right::Ask(question)
    }

    /// Takes a decision; returns what it is about, if it is still waited for.
    pub(super) fn decide(&mut self, question: u64, permission: Permission) -> Option<(Identifier, Arc<str>)> {
        let key = self.questions.remove(&question)?;
        self.asked.remove(&key);
        if self.decided.len() >= DECIDED_MAX {
            self.decided.clear();
        }
        self.decided.insert(key.clone(), permission);
        Some(key)
    }

    /// Forgets everything, questions that are under way included.
    pub(super) fn clear(&mut self) {
        self.decided.clear();
        self.asked.clear();
        self.questions.clear();
    }

    /// Forgets what could not be decided about a collector.
    pub(super) fn look_again(&mut self, collector: Identifier) {
        self.decided
            .retain(|(who, _), permission| *who != collector || *permission != Permission::Undecided);
    }
}

/// Decisions that are remembered.
const DECIDED_MAX: usize = 4096;
