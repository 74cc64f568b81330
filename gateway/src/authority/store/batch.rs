//! One transaction's view of the store, in the words of the rules.

use fieldgate_proto::{identity::Identifier, time::WallTime, trust::subject_prefix};
use redb::{ReadableTable as _, ReadableTableMetadata as _, Table, WriteTransaction};

use super::{
    LISTED, LOG, MEMBERS, META, META_COUNTERS, NAMES, PREFIXES, REVOKED, SPENT, StoreError, TICKETS,
    state::Counters,
    writes::{Kept, Writes},
};
use crate::authority::{
    log::{Chain, Decision, Entry, LogError, TicketId},
    record::{Member, Revoked, TicketRecord},
};

/// A part of a list, and where the next part begins.
pub(crate) struct Page<T, K> {
    /// The part.
    pub(crate) items: Vec<T>,
    /// The last key of it, if there is more.
    pub(crate) next: Option<K>,
}

/// The tables within one transaction.
///
/// Nothing is on the disk before the transaction is committed, and nothing ever is if the batch ends with an error.
pub(crate) struct Batch<'txn> {
    pub(super) members: Table<'txn, &'static [u8; 32], &'static [u8]>,
    pub(super) names: Table<'txn, &'static str, &'static [u8; 32]>,
    pub(super) tickets: Table<'txn, &'static [u8; 16], &'static [u8]>,
    pub(super) spent: Table<'txn, &'static [u8; 48], u64>,
    pub(super) revoked: Table<'txn, &'static [u8; 32], &'static [u8]>,
    pub(super) listed: Table<'txn, &'static [u8; 32], u64>,
    pub(super) prefixes: Table<'txn, &'static [u8; 16], u64>,
    pub(super) log: Table<'txn, u64, &'static [u8]>,
    pub(super) meta: Table<'txn, &'static str, &'static [u8]>,
    pub(super) counters: Counters,
    pub(super) changed: bool,
    /// What is written, for the other processes of a clustered authority.
    pub(super) writes: Writes,
}

impl<'txn> Batch<'txn> {
    pub(super) fn open(transaction: &'txn WriteTransaction, writes: Writes) -> Result<Self, StoreError> {
        let meta = transaction.open_table(META).map_err(StoreError::disk)?;
        let counters = match meta.get(META_COUNTERS).map_err(StoreError::disk)? {
            Some(bytes) => Counters::decode(bytes.value()).map_err(|_| StoreError::record("counters"))?,
            None => Counters::default(),
        };
        Ok(Self {
            members: transaction.open_table(MEMBERS).map_err(StoreError::disk)?,
            names: transaction.open_table(NAMES).map_err(StoreError::disk)?,
            tickets: transaction.open_table(TICKETS).map_err(StoreError::disk)?,
            spent: transaction.open_table(SPENT).map_err(StoreError::disk)?,
            revoked: transaction.open_table(REVOKED).map_err(StoreError::disk)?,
            listed: transaction.open_table(LISTED).map_err(StoreError::disk)?,
            prefixes: transaction.open_table(PREFIXES).map_err(StoreError::disk)?,
            log: transaction.open_table(LOG).map_err(StoreError::disk)?,
            meta,
            counters,
            changed: false,
            writes,
        })
    }

    /// Writes the counters; returns what was written, if anything has changed.
    pub(super) fn finish(mut self) -> Result<Option<Writes>, StoreError> {
        if self.changed {
            let bytes = self.counters.encode();
            self.put_meta(META_COUNTERS, &bytes)?;
        }
        Ok(self.changed.then_some(self.writes))
    }

    /// Writes what there is once.
    pub(super) fn put_meta(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.changed = true;
        self.writes.put(Kept::Meta, key.as_bytes(), value);
        self.meta.insert(key, value).map(drop).map_err(StoreError::disk)
    }

    // ---- members ----

    /// Returns a member.
    pub(crate) fn member(&self, identifier: &Identifier) -> Result<Option<Member>, StoreError> {
        self.members
            .get(identifier.as_bytes())
            .map_err(StoreError::disk)?
            .map(|bytes| Member::decode(bytes.value()).map_err(|_| StoreError::record("member")))
            .transpose()
    }

    /// Returns whose name this is.
    pub(crate) fn holder(&self, name: &str) -> Result<Option<Identifier>, StoreError> {
        let holder = self.names.get(name).map_err(StoreError::disk)?;
        Ok(holder.map(|bytes| Identifier::from_bytes(*bytes.value())))
    }

    /// Writes a member and moves its name. The caller has made sure that nobody else has the name.
    pub(crate) fn put_member(&mut self, identifier: &Identifier, member: &Member) -> Result<(), StoreError> {
        self.changed = true;
        if let Some(before) = self.member(identifier)?
            && before.grant.name != member.grant.name
        {
            self.remove_name(&before.grant.name)?;
        }
        let name = member.grant.name.as_str();
        self.writes
            .put(Kept::Names, name.as_bytes(), identifier.as_bytes());
        self.names
            .insert(name, identifier.as_bytes())
            .map_err(StoreError::disk)?;
        let bytes = member.encode();
        self.writes.put(Kept::Members, identifier.as_bytes(), &bytes);
        self.members
            .insert(identifier.as_bytes(), bytes.as_slice())
            .map_err(StoreError::disk)?;
        Ok(())
    }

    fn remove_name(&mut self, name: &str) -> Result<(), StoreError> {
        self.writes.remove(Kept::Names, name.as_bytes());
        self.names.remove(name).map(drop).map_err(StoreError::disk)
    }

    /// Removes a member and frees its name; returns what it was.
    pub(crate) fn remove_member(&mut self, identifier: &Identifier) -> Result<Option<Member>, StoreError> {
        let Some(member) = self.member(identifier)? else {
            return Ok(None);
        };
        self.changed = true;
        self.remove_name(&member.grant.name)?;
        self.writes.remove(Kept::Members, identifier.as_bytes());
        self.members
            .remove(identifier.as_bytes())
            .map_err(StoreError::disk)?;
        Ok(Some(member))
    }

    /// Returns how many members there are.
    pub(crate) fn member_count(&self) -> Result<u64, StoreError> {
        self.members.len().map_err(StoreError::disk)
    }

    /// Returns members by name, those after `after`, while `fits` says so.
    pub(crate) fn members_after(
        &self,
        after: Option<&str>,
        mut fits: impl FnMut(&Identifier, &Member) -> bool,
    ) -> Result<Page<(Identifier, Member), String>, StoreError> {
        let mut page = Page {
            items: Vec::new(),
            next: None,
        };
        for row in self
            .names
            .range(after.unwrap_or("")..)
            .map_err(StoreError::disk)?
        {
            let (name, identifier) = row.map_err(StoreError::disk)?;
            if after == Some(name.value()) {
                continue;
            }
            let identifier = Identifier::from_bytes(*identifier.value());
            let member = self
                .member(&identifier)?
                .ok_or_else(|| StoreError::record("name without a member"))?;
            if !fits(&identifier, &member) {
                page.next = page
                    .items
                    .last()
                    .map(|(_, last): &(_, Member)| last.grant.name.clone());
                break;
            }
            page.items.push((identifier, member));
        }
        Ok(page)
    }

    /// Returns every member that the file named when it was last looked at.
    pub(crate) fn members_where(
        &self,
        wanted: impl Fn(&Member) -> bool,
    ) -> Result<Vec<(Identifier, Member)>, StoreError> {
        let mut found = Vec::new();
        for row in self.members.iter().map_err(StoreError::disk)? {
            let (identifier, bytes) = row.map_err(StoreError::disk)?;
            let member = Member::decode(bytes.value()).map_err(|_| StoreError::record("member"))?;
            if wanted(&member) {
                found.push((Identifier::from_bytes(*identifier.value()), member));
            }
        }
        Ok(found)
    }

    // ---- the revoked ----

    /// Returns why and when an identity was revoked.
    pub(crate) fn revoked(&self, identifier: &Identifier) -> Result<Option<Revoked>, StoreError> {
        self.revoked
            .get(identifier.as_bytes())
            .map_err(StoreError::disk)?
            .map(|bytes| Revoked::decode(bytes.value()).map_err(|_| StoreError::record("revoked member")))
            .transpose()
    }

    /// Returns whether an identity is revoked, be it that only its first half is known.
    pub(crate) fn is_revoked(&self, identifier: &Identifier) -> Result<bool, StoreError> {
        let prefix = subject_prefix(identifier);
        let by_prefix = self.prefixes.get(&prefix).map_err(StoreError::disk)?.is_some();
        Ok(by_prefix || self.revoked(identifier)?.is_some())
    }

    /// Writes that an identity is revoked, and that the status list is to name it.
    pub(crate) fn put_revoked(
        &mut self,
        identifier: &Identifier,
        revoked: &Revoked,
    ) -> Result<(), StoreError> {
        self.changed = true;
        let bytes = revoked.encode();
        self.writes.put(Kept::Revoked, identifier.as_bytes(), &bytes);
        self.revoked
            .insert(identifier.as_bytes(), bytes.as_slice())
            .map_err(StoreError::disk)?;
        let not_after = revoked.not_after.to_be_bytes();
        self.writes.put(Kept::Listed, identifier.as_bytes(), &not_after);
        self.listed
            .insert(identifier.as_bytes(), revoked.not_after)
            .map_err(StoreError::disk)?;
        Ok(())
    }

    /// Returns how many identities are revoked.
    pub(crate) fn revoked_count(&self) -> Result<u64, StoreError> {
        self.revoked.len().map_err(StoreError::disk)
    }

    /// Returns the revoked by identifier, those after `after`, while `fits` says so.
    pub(crate) fn revoked_after(
        &self,
        after: Option<&Identifier>,
        mut fits: impl FnMut(&Identifier, &Revoked) -> bool,
    ) -> Result<Page<(Identifier, Revoked), Identifier>, StoreError> {
        let mut page = Page {
            items: Vec::new(),
            next: None,
        };
        let from = after.map_or([0; 32], |after| *after.as_bytes());
        for row in self
            .revoked
            .range::<&[u8; 32]>(&from..)
            .map_err(StoreError::disk)?
        {
            let (identifier, bytes) = row.map_err(StoreError::disk)?;
            let identifier = Identifier::from_bytes(*identifier.value());
            if after == Some(&identifier) {
                continue;
            }
            let revoked = Revoked::decode(bytes.value()).map_err(|_| StoreError::record("revoked member"))?;
            if !fits(&identifier, &revoked) {
                page.next = page.items.last().map(|(last, _)| *last);
                break;
            }
            page.items.push((identifier, revoked));
        }
        Ok(page)
    }

    /// Returns who the status list is to name, with the latest end of any of its credentials, by identifier.
    pub(crate) fn listed(&self) -> Result<Vec<(Identifier, u64)>, StoreError> {
        let mut listed = Vec::new();
        for row in self.listed.iter().map_err(StoreError::disk)? {
            let (identifier, not_after) = row.map_err(StoreError::disk)?;
            listed.push((Identifier::from_bytes(*identifier.value()), not_after.value()));
        }
        Ok(listed)
    }

    /// Returns whether the status list is to name an identity.
    pub(crate) fn is_listed(&self, identifier: &Identifier) -> Result<bool, StoreError> {
        let listed = self.listed.get(identifier.as_bytes()).map_err(StoreError::disk)?;
        Ok(listed.is_some())
    }

    /// Takes an identity off the status list; it stays revoked.
    pub(crate) fn unlist(&mut self, identifier: &Identifier) -> Result<(), StoreError> {
        self.changed = true;
        self.writes.remove(Kept::Listed, identifier.as_bytes());
        self.listed
            .remove(identifier.as_bytes())
            .map_err(StoreError::disk)?;
        Ok(())
    }

    // ---- tickets ----

    /// Returns a ticket.
    pub(crate) fn ticket(&self, id: &TicketId) -> Result<Option<TicketRecord>, StoreError> {
        self.tickets
            .get(id)
            .map_err(StoreError::disk)?
            .map(|bytes| TicketRecord::decode(bytes.value()).map_err(|_| StoreError::record("ticket")))
            .transpose()
    }

    /// Writes a ticket.
    pub(crate) fn put_ticket(&mut self, id: &TicketId, ticket: &TicketRecord) -> Result<(), StoreError> {
        self.changed = true;
        let bytes = zeroize::Zeroizing::new(ticket.encode());
        self.writes.put(Kept::Tickets, id, &bytes);
        self.tickets
            .insert(id, bytes.as_slice())
            .map_err(StoreError::disk)?;
        Ok(())
    }

    /// Returns how many tickets are kept.
    pub(crate) fn ticket_count(&self) -> Result<u64, StoreError> {
        self.tickets.len().map_err(StoreError::disk)
    }

    /// Returns tickets by identifier, those after `after`, while `fits` says so.
    pub(crate) fn tickets_after(
        &self,
        after: Option<&TicketId>,
        mut fits: impl FnMut(&TicketId, &TicketRecord) -> bool,
    ) -> Result<Page<(TicketId, TicketRecord), TicketId>, StoreError> {
        let mut page = Page {
            items: Vec::new(),
            next: None,
        };
        let from = after.copied().unwrap_or([0; 16]);
        for row in self
            .tickets
            .range::<&[u8; 16]>(&from..)
            .map_err(StoreError::disk)?
        {
            let (id, bytes) = row.map_err(StoreError::disk)?;
            let id = *id.value();
            if after == Some(&id) {
                continue;
            }
            let ticket = TicketRecord::decode(bytes.value()).map_err(|_| StoreError::record("ticket"))?;
            if !fits(&id, &ticket) {
                page.next = page.items.last().map(|(last, _)| *last);
                break;
            }
            page.items.push((id, ticket));
        }
        Ok(page)
    }

    /// Hands out every ticket.
    pub(crate) fn each_ticket(
        &self,
        mut take: impl FnMut(&TicketId, &TicketRecord),
    ) -> Result<(), StoreError> {
        for row in self.tickets.iter().map_err(StoreError::disk)? {
            let (id, bytes) = row.map_err(StoreError::disk)?;
            let ticket = TicketRecord::decode(bytes.value()).map_err(|_| StoreError::record("ticket"))?;
            take(id.value(), &ticket);
        }
        Ok(())
    }

    /// Returns whether `subject` has enrolled with a ticket.
    pub(crate) fn is_spent_for(&self, id: &TicketId, subject: &Identifier) -> Result<bool, StoreError> {
        let spent = self
            .spent
            .get(&spent_key(id, subject))
            .map_err(StoreError::disk)?;
        Ok(spent.is_some())
    }

    /// Writes that `subject` has enrolled with a ticket at `at`, seconds since 1970.
    pub(crate) fn spend(&mut self, id: &TicketId, subject: &Identifier, at: u64) -> Result<(), StoreError> {
        self.changed = true;
        let key = spent_key(id, subject);
        self.writes.put(Kept::Spent, &key, &at.to_be_bytes());
        self.spent.insert(&key, at).map_err(StoreError::disk)?;
        Ok(())
    }

    /// Removes a ticket and who spent it; the rights that it gave stay.
    pub(crate) fn drop_ticket(&mut self, id: &TicketId) -> Result<(), StoreError> {
        self.changed = true;
        self.writes.remove(Kept::Tickets, id);
        self.tickets.remove(id).map_err(StoreError::disk)?;
        let first = spent_key(id, &Identifier::from_bytes([0; 32]));
        let last = spent_key(id, &Identifier::from_bytes([0xff; 32]));
        self.writes.remove_up_to(Kept::Spent, &first, &last);
        self.spent
            .retain_in::<&[u8; 48], _>(&first..=&last, |_, _| false)
            .map_err(StoreError::disk)
    }

    // ---- log ----

    /// Appends a decision.
    pub(crate) fn log(&mut self, wall: WallTime, decision: Decision) -> Result<(), StoreError> {
        self.changed = true;
        let sequence = self.counters.log_head.saturating_add(1);
        let bytes = Entry::new(sequence, wall, decision, self.counters.log_hash).encode();
        self.writes.put(Kept::Log, &sequence.to_be_bytes(), &bytes);
        self.log
            .insert(sequence, bytes.as_slice())
            .map_err(StoreError::disk)?;
        self.counters.log_head = sequence;
        self.counters.log_hash = Entry::hash(&bytes);
        Ok(())
    }

    /// Returns sequence and hash of the last entry.
    pub(crate) const fn log_head(&self) -> (u64, [u8; 32]) {
        (self.counters.log_head, self.counters.log_hash)
    }

    /// Returns the sequence of the oldest entry that is kept; 0 if there is none.
    pub(crate) fn log_first(&self) -> Result<u64, StoreError> {
        let first = self.log.first().map_err(StoreError::disk)?;
        Ok(first.map_or(0, |(sequence, _)| sequence.value()))
    }

    /// Returns how many entries are kept.
    pub(crate) fn log_count(&self) -> Result<u64, StoreError> {
        self.log.len().map_err(StoreError::disk)
    }

    /// Hands out entries from `from` on, in their encoding, while `take` says so.
    pub(crate) fn log_from(
        &self,
        from: u64,
        mut take: impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        for row in self.log.range(from..).map_err(StoreError::disk)? {
            let (sequence, entry) = row.map_err(StoreError::disk)?;
            if !take(sequence.value(), entry.value()) {
                break;
            }
        }
        Ok(())
    }

    /// Drops the entries before `first`.
    pub(crate) fn drop_log_before(&mut self, first: u64) -> Result<(), StoreError> {
        let Some(last) = first.checked_sub(1) else {
            return Ok(());
        };
        self.changed = true;
        let (from, to) = (0_u64.to_be_bytes(), last.to_be_bytes());
        self.writes.remove_up_to(Kept::Log, &from, &to);
        self.log
            .retain_in(..first, |_, _| false)
            .map_err(StoreError::disk)
    }

    /// Walks the log from the entry `from` to its head; from 0, the whole of what is kept.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read; in the result, why it is not the log that was written.
    pub(crate) fn verify_log(&self, from: u64) -> Result<Result<(), LogError>, StoreError> {
        let mut chain = Chain::default();
        let mut broken = None;
        self.log_from(from, |_, entry| {
            broken = chain.handle_entry(entry).err();
            broken.is_none()
        })?;
        Ok(match broken {
            Some(error) => Err(error),
            None => chain.finish(self.counters.log_head, &self.counters.log_hash),
        })
    }

    // ---- counters ----

    /// Returns a serial that no credential has had.
    pub(crate) const fn next_serial(&mut self) -> u64 {
        self.changed = true;
        self.counters.serial = self.counters.serial.saturating_add(1);
        self.counters.serial
    }

    /// Returns a sequence for an attestation that is higher than all before and not below `floor`.
    pub(crate) fn next_attestation(&mut self, floor: u64) -> u64 {
        self.changed = true;
        self.counters.attestation = self.counters.attestation.saturating_add(1).max(floor);
        self.counters.attestation
    }
}

fn spent_key(id: &TicketId, subject: &Identifier) -> [u8; 48] {
    let mut key = [0; 48];
    let (ticket, rest) = key.split_at_mut(id.len());
    ticket.copy_from_slice(id);
    rest.copy_from_slice(subject.as_bytes());
    key
}
