//! What an authority does that was set back: its state was restored from an older copy, and the fleet knows more than it does.
//!
//! Its peers hold status lists that it signed and has forgotten. Whoever is named there stays revoked: those who are members
//! again are revoked again, and of those it does not know at all the first half of the identifier is kept, which is all that lists
//! say. The next list has a number above all that were found.

use std::fmt;

use fieldgate_proto::{
    identity::Identifier,
    time::{Now, WallTime},
    trust::{StatusList, SubjectPrefix, subject_prefix},
};

use super::{Engine, turn::Turn};
use crate::authority::{
    StoreError,
    log::{Action, Actor, Decision, Outcome},
    record::Revoked,
    store::{Batch, ByPrefix},
};

/// What was found in forgotten lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The newest list that the store knew of.
    known: u64,
    /// The newest that was found.
    number: u64,
    /// Members of the store that are named there, and no members any more.
    pub(super) members: Vec<Identifier>,
    /// How many of the revoked were taken over.
    revoked: u64,
    /// How many had no room.
    left_out: u64,
}

impl Found {
    /// Adds what was found in another list.
    pub(super) fn add(&mut self, other: &Self) {
        if self.number == 0 {
            self.known = other.known;
        }
        self.number = self.number.max(other.number);
        self.revoked += other.revoked;
        self.left_out += other.left_out;
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            known,
            number,
            revoked,
            left_out,
            ..
        } = self;
        write!(
            f,
            "the state was restored from an older copy: it knew lists of the revoked up to number {known}, and number {number} was signed; \
             {revoked} of the revoked were taken over from there. Check the members and tickets since that copy, and revoke again \
             who is missing from `fieldgate member list --revoked`"
        )?;
        if *left_out > 0 {
            write!(f, "; {left_out} had no room and ARE NOT REVOKED")?;
        }
        Ok(())
    }
}

impl Engine {
    /// Takes a list that this authority has signed and that its node says is forgotten.
    pub(in crate::authority) fn handle_forgotten(&mut self, now: Now, list: &StatusList) {
        let found = self.transact(now, None, |turn| turn.take_back(list));
        if let Some(Some(found)) = found {
            self.found.get_or_insert_default().add(&found);
        }
    }
}

impl Turn<'_, '_> {
    /// Takes over who is named in a forgotten list, and demands a new one above it.
    fn take_back(&mut self, list: &StatusList) -> Result<Option<Found>, StoreError> {
        let valid = self.context.settings.credential_valid.as_secs();
        let own = self.context.history.identifier();
        let found = take_back(self.batch, self.context.wall, valid, &own, list)?;
        if let Some(found) = &found {
            self.changes.revoked.extend(&found.members);
            self.changes.issued_changed = true;
        }
        // Whoever showed it waits for a list that names at least as many.
        self.require_list();
        Ok(found)
    }
}

/// Takes over who is named in a list that this authority signed, and the list's number; `None` if the store knows the list.
/// `credential_valid_secs` is how long credentials live.
pub(super) fn take_back(
    batch: &mut Batch<'_>,
    wall: WallTime,
    credential_valid_secs: u64,
    authority: &Identifier,
    list: &StatusList,
) -> Result<Option<Found>, StoreError> {
    let number = list.number();
    let issued = batch.issued_lists()?;
    let lowest = issued.first().copied().unwrap_or(0);
    if number <= lowest || issued.binary_search(&number).is_ok() {
        return Ok(None);
    }
    let known = issued.last().copied().unwrap_or(0);
    let mut found = Found {
        known: known.min(number),
        number,
        ..Found::default()
    };
    if number >= batch.list_number() {
        batch.raise_list_number(number);
    }
    batch.note_issued(number)?;
    let now = wall.unix_secs();
    // When its last credential ends is forgotten, too: at the latest then.
    let not_after = now.max(list.issued_at()).saturating_add(credential_valid_secs);
    let own = subject_prefix(authority);
    for prefix in list.revoked().iter().filter(|prefix| **prefix != own) {
        let subject = match batch.by_prefix(prefix)? {
            ByPrefix::Revoked => continue,
            ByPrefix::Member(identifier) => {
                let was = batch.remove_member(&identifier)?;
                let revoked = Revoked {
                    at: now,
                    not_after: was.as_ref().map_or(not_after, |was| was.not_after.max(not_after)),
                    reason: format!("named in list {number} of this authority, which it had forgotten"),
                    member: was,
                };
                batch.put_revoked(&identifier, &revoked)?;
                found.members.push(identifier);
                Some(identifier)
            }
            ByPrefix::Unknown if batch.put_prefix(prefix, not_after)? => None,
            ByPrefix::Unknown => {
                found.left_out += 1;
                continue;
            }
        };
        found.revoked += 1;
        if found.revoked <= LOGGED_MAX {
            batch.log(wall, taken_over(number, prefix, subject))?;
        }
    }
    batch.log(wall, decision(Action::StatusList, *authority, found.to_string()))?;
    tracing::warn!(
        known = found.known,
        number,
        revoked = found.revoked,
        left_out = found.left_out,
        "this authority was restored from an older copy of its state: check what was revoked since"
    );
    Ok(Some(found))
}

fn taken_over(number: u64, prefix: &SubjectPrefix, subject: Option<Identifier>) -> Decision {
    let prefix = data_encoding::HEXLOWER.encode(prefix);
    Decision {
        actor: Actor::Authority,
        action: Action::RevokeMember,
        outcome: Outcome::Done,
        subject,
        ticket: None,
        reason: format!("{prefix}… is named in the forgotten list {number}"),
    }
}

fn decision(action: Action, subject: Identifier, reason: String) -> Decision {
    Decision {
        actor: Actor::Authority,
        action,
        outcome: Outcome::Done,
        subject: Some(subject),
        ticket: None,
        reason,
    }
}

/// Entries in the log for one list that was found.
const LOGGED_MAX: u64 = 1000;
