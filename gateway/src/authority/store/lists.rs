//! One transaction's view of the status lists: their numbers, the newest one, and what was found in forgotten ones.

use fieldgate_proto::{
    identity::Identifier,
    trust::{REVOKED_MAX, SubjectPrefix},
};
use redb::{ReadableTable as _, ReadableTableMetadata as _};

use super::{ISSUED_MAX, META_ISSUED, META_LIST, StoreError, batch::Batch, state::StoredList, writes::Kept};

impl Batch<'_> {
    /// Returns the last number given to a status list, signed or not.
    pub(crate) const fn list_number(&self) -> u64 {
        self.counters.list_number
    }

    /// Makes later status lists have numbers above `number`, which was signed: the next number counts as given, and not signed.
    pub(crate) fn raise_list_number(&mut self, number: u64) {
        self.changed = true;
        self.counters.list_number = self.counters.list_number.max(number.saturating_add(1));
    }

    /// Returns the number for the next status list: `step` above the one before, and at least `floor`.
    pub(crate) fn next_list_number(&mut self, step: u64, floor: u64) -> u64 {
        self.changed = true;
        self.counters.list_number = self.counters.list_number.saturating_add(step).max(floor);
        self.counters.list_number
    }

    /// Returns the status list as it was signed last.
    pub(crate) fn list(&self) -> Result<Option<StoredList>, StoreError> {
        self.meta
            .get(META_LIST)
            .map_err(StoreError::disk)?
            .map(|bytes| StoredList::decode(bytes.value()).map_err(|_| StoreError::record("status list")))
            .transpose()
    }

    /// Writes the status list.
    pub(crate) fn put_list(&mut self, list: &StoredList) -> Result<(), StoreError> {
        self.put_meta(META_LIST, &list.encode())?;
        self.note_issued(list.number)
    }

    /// Returns the numbers of the lists that were signed, ascending; the lowest are forgotten, when there are too many. A store
    /// of before these were kept knows the list it holds.
    pub(crate) fn issued_lists(&self) -> Result<Vec<u64>, StoreError> {
        match self.meta.get(META_ISSUED).map_err(StoreError::disk)? {
            Some(bytes) => {
                let (numbers, rest) = bytes.value().as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(StoreError::record("lists signed"));
                }
                Ok(numbers.iter().map(|bytes| u64::from_be_bytes(*bytes)).collect())
            }
            None => Ok(self.list()?.map(|list| list.number).into_iter().collect()),
        }
    }

    /// Remembers that a list was signed.
    pub(crate) fn note_issued(&mut self, number: u64) -> Result<(), StoreError> {
        let mut numbers = self.issued_lists()?;
        if let Err(place) = numbers.binary_search(&number) {
            numbers.insert(place, number);
        }
        let surplus = numbers.len().saturating_sub(ISSUED_MAX);
        let bytes: Vec<u8> = numbers
            .iter()
            .skip(surplus)
            .flat_map(|number| number.to_be_bytes())
            .collect();
        self.put_meta(META_ISSUED, &bytes)
    }

    /// Returns an identity that the store knows and whose identifier begins so: a member, or one that was revoked.
    pub(crate) fn by_prefix(&self, prefix: &SubjectPrefix) -> Result<ByPrefix, StoreError> {
        let (mut first, mut last) = ([0; 32], [0xff; 32]);
        for end in [&mut first, &mut last] {
            end.iter_mut().zip(prefix).for_each(|(to, from)| *to = *from);
        }
        let mut revoked = self
            .revoked
            .range::<&[u8; 32]>(&first..=&last)
            .map_err(StoreError::disk)?;
        let known = self.prefixes.get(prefix).map_err(StoreError::disk)?.is_some();
        if known || revoked.next().is_some() {
            return Ok(ByPrefix::Revoked);
        }
        let mut members = self
            .members
            .range::<&[u8; 32]>(&first..=&last)
            .map_err(StoreError::disk)?;
        match members.next() {
            Some(row) => {
                let (identifier, _) = row.map_err(StoreError::disk)?;
                Ok(ByPrefix::Member(Identifier::from_bytes(*identifier.value())))
            }
            None => Ok(ByPrefix::Unknown),
        }
    }

    /// Writes that whoever's identifier begins so is revoked; false if there are too many of whom no more is known.
    pub(crate) fn put_prefix(&mut self, prefix: &SubjectPrefix, not_after: u64) -> Result<bool, StoreError> {
        if self.prefix_count()? >= REVOKED_MAX as u64 {
            return Ok(false);
        }
        self.changed = true;
        self.writes.put(Kept::Prefixes, prefix, &not_after.to_be_bytes());
        self.prefixes
            .insert(prefix, not_after)
            .map_err(StoreError::disk)?;
        Ok(true)
    }

    /// Returns how many of the revoked are known by the first half of their identifier only.
    pub(crate) fn prefix_count(&self) -> Result<u64, StoreError> {
        self.prefixes.len().map_err(StoreError::disk)
    }

    /// Returns those, with the latest end of any of their credentials.
    pub(crate) fn prefixes(&self) -> Result<Vec<(SubjectPrefix, u64)>, StoreError> {
        let mut prefixes = Vec::new();
        for row in self.prefixes.iter().map_err(StoreError::disk)? {
            let (prefix, not_after) = row.map_err(StoreError::disk)?;
            prefixes.push((*prefix.value(), not_after.value()));
        }
        Ok(prefixes)
    }
}

/// Whose identifier begins as a list says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByPrefix {
    /// One who is revoked.
    Revoked,
    /// A member.
    Member(Identifier),
    /// Nobody the store knows.
    Unknown,
}
