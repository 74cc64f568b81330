//! The status list: who is in it, and when it is signed anew.

use fieldgate_proto::{
    time::{ClockQuality, Now},
    trust::{NUMBER_AHEAD_MAX, REVOKED_MAX, StatementKey, StatusList, SubjectPrefix, subject_prefix},
};

use super::{Engine, turn::Turn};
use crate::authority::{
    StoreError,
    log::{Action, Actor, Decision, Outcome},
    store::{Batch, StoredList},
};

/// How long after the end of its last credential a revoked identity stays listed, in seconds: verifiers may count
/// expired credentials for a time of grace, at most this long.
pub(super) const LISTED_SECS: u64 = 400 * 86_400;
/// Longest step from one list number to the next where the time is not known.
const STEP_MAX: u32 = 1 << 16;

impl Engine {
    /// Signs the list anew if it is time, or if identities were revoked while nothing could be signed.
    pub(super) fn refresh_list(&mut self, now: Now) {
        if self.keys.usable(now.wall.unix_secs()).is_none() || !self.is_list_due(now) {
            return;
        }
        // Whether it worked shows in the status: `fail` has been called if not.
        let _ = self.transact(now, None, |turn| {
            turn.require_list();
            Ok(())
        });
    }

    fn is_list_due(&self, now: Now) -> bool {
        let Some(list) = &self.list else {
            return true;
        };
        let life = list.not_after.saturating_sub(list.issued_at);
        let now = now.wall.unix_secs();
        // Made in the future: the clock was set back, and nobody with a good clock would take it.
        self.list_is_behind || now >= list.issued_at + life / 2 || now < list.issued_at
    }
}

impl Turn<'_, '_> {
    /// Demands a new status list at the end of this transaction, and says which number it has. A number that was given
    /// before and never signed is used first.
    ///
    /// An authority may be restored from an older copy without knowing it, and must not give another list a number that was
    /// given since: so the number is the time, where that is sure, and otherwise steps are random.
    pub(super) fn require_list(&mut self) -> u64 {
        if let Some(number) = self.list_number {
            return number;
        }
        let signed = self.list.map_or(0, |list| list.number);
        let wall = self.context.wall;
        let number = if self.batch.list_number() > signed {
            self.batch.list_number()
        } else if wall.quality == ClockQuality::Synchronised {
            self.batch.next_list_number(1, wall.unix_secs())
        } else {
            let ahead = self.batch.list_number().saturating_sub(wall.unix_secs());
            let step = if ahead < NUMBER_AHEAD_MAX / 2 {
                1 + u64::from(self.entropy.u32() % STEP_MAX)
            } else {
                1
            };
            self.batch.next_list_number(step, 0)
        };
        self.list_number = Some(number);
        number
    }

    /// Signs the list in this transaction.
    ///
    /// # Errors
    /// [`StoreError`]. `None` if the list cannot be signed, which the settings' bounds exclude.
    pub(super) fn sign_list(
        &mut self,
        key: &StatementKey,
        number: u64,
    ) -> Result<Option<StoredList>, StoreError> {
        let now = self.context.now();
        let (named, overflow) = choose(self.batch, now)?;
        let entries = u32::try_from(named.len()).unwrap_or(u32::MAX);
        let not_after = now.saturating_add(self.context.settings.status_valid.as_secs());
        let signed = StatusList::of_prefixes(number, now, not_after, named).and_then(|list| list.sign(key));
        let statement = match signed {
            Ok(statement) => statement,
            Err(error) => {
                tracing::error!(%error, "the status list cannot be signed");
                return Ok(None);
            }
        };
        let list = StoredList {
            number,
            issued_at: now,
            not_after,
            entries,
            overflow,
            statement,
        };
        self.batch.put_list(&list)?;
        self.changes.issued_changed = true;
        let decision = Decision {
            actor: Actor::Authority,
            action: Action::StatusList,
            outcome: Outcome::Done,
            subject: None,
            ticket: None,
            reason: format!("number {number}, {entries} revoked, until {not_after}"),
        };
        self.batch.log(self.context.wall, decision)?;
        Ok(Some(list))
    }
}

/// Chooses whom the list names, and counts who has no room: those whose last credential ended first.
fn choose(batch: &mut Batch<'_>, now: u64) -> Result<(Vec<SubjectPrefix>, u32), StoreError> {
    let over = |not_after: u64| now > not_after.saturating_add(LISTED_SECS);
    let mut listed = Vec::new();
    for (identifier, not_after) in batch.listed()? {
        if over(not_after) {
            batch.unlist(&identifier)?;
        } else {
            listed.push((subject_prefix(&identifier), not_after));
        }
    }
    let prefixes = batch.prefixes()?.into_iter();
    listed.extend(prefixes.filter(|(_, not_after)| !over(*not_after)));
    let mut overflow = 0;
    if listed.len() > REVOKED_MAX {
        listed.sort_unstable_by_key(|(prefix, not_after)| (std::cmp::Reverse(*not_after), *prefix));
        overflow = u32::try_from(listed.len() - REVOKED_MAX).unwrap_or(u32::MAX);
        listed.truncate(REVOKED_MAX);
    }
    Ok((listed.into_iter().map(|(prefix, _)| prefix).collect(), overflow))
}
