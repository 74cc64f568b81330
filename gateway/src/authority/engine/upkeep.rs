//! What the store needs from time to time.

use fieldgate_proto::time::Now;

use super::Engine;
use crate::authority::{StoreError, log::Action};

use super::turn::Turn;

/// How long an ended ticket is still shown, in seconds: 30 days. Until then its subject may ask for a lost credential.
const TICKET_KEPT_SECS: u64 = 30 * 86_400;
/// Tickets dropped in one transaction.
const TICKETS_DROPPED_MAX: usize = 1000;
/// Entries of the log dropped in one transaction.
const LOG_DROPPED_MAX: u64 = 100_000;

impl Engine {
    /// Drops what is over, and counts the open tickets.
    pub(super) fn upkeep(&mut self, now: Now) {
        let open = self.transact(now, None, |turn| {
            turn.write_suppressed()?;
            turn.trim_log()?;
            turn.drop_tickets()
        });
        if let Some(open) = open {
            self.status.tickets_open = open;
        }
    }
}

impl Turn<'_, '_> {
    /// Drops tickets that ended long ago; returns how many are open.
    fn drop_tickets(&mut self) -> Result<u64, StoreError> {
        let now = self.context.now();
        let (mut open, mut over) = (0, Vec::new());
        self.batch.each_ticket(|id, ticket| {
            if ticket.state(now) == "open" {
                open += 1;
            } else if now > ticket.not_after.saturating_add(TICKET_KEPT_SECS)
                && over.len() < TICKETS_DROPPED_MAX
            {
                over.push(*id);
            }
        })?;
        for id in &over {
            self.batch.drop_ticket(id)?;
        }
        if !over.is_empty() {
            let reason = format!("{} tickets that ended 30 days ago or before", over.len());
            self.log_own(Action::DropTickets, reason)?;
        }
        Ok(open)
    }

    /// Drops the oldest tenth of the log at its bound.
    fn trim_log(&mut self) -> Result<(), StoreError> {
        let max = self.context.settings.limits.log_entries_max;
        let count = self.batch.log_count()?;
        if count <= max {
            return Ok(());
        }
        let surplus = (count - max + max / 10).min(LOG_DROPPED_MAX).min(count - 1);
        let first = self.batch.log_first()?;
        let keep = first.saturating_add(surplus);
        self.batch.drop_log_before(keep)?;
        self.log_own(
            Action::DropLog,
            format!("entries {first} to {} were dropped", keep - 1),
        )
    }
}
