//! Status lists that arrive in parts (PROTOCOL.md §11).

use std::collections::BTreeMap;

use crate::identity::Identifier;

use super::{PART_LEN_MAX, STATUS_LEN_MAX, StatusPart};

/// Lists that are gathered at the same time, each from another channel.
pub const ASSEMBLIES_MAX: usize = 8;

/// Why a part of a status list was refused. Always the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// The list would be empty or too long.
    #[error("status list has {total} bytes, outside 1..={max}")]
    Total {
        /// The length it says.
        total: u32,
        /// The largest length.
        max: usize,
    },
    /// The part is empty, or too long, or reaches beyond the list.
    #[error("part of {len} bytes does not fit the list at {offset} of {total}")]
    Len {
        /// Its length.
        len: usize,
        /// Where it belongs.
        offset: u32,
        /// The length of the list.
        total: u32,
    },
    /// The part is not the next one.
    #[error("part begins at {offset}, and the next begins at {want}")]
    OutOfOrder {
        /// Where it belongs.
        offset: u32,
        /// Where the next one belongs; 0 if none was begun.
        want: u32,
    },
    /// The part belongs to another list than the one begun.
    #[error("part belongs to another list than the ones before")]
    OtherList,
}

impl PartError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Total { .. } | Self::Len { .. } | Self::OutOfOrder { .. } | Self::OtherList => {
                "upgrade the older of the two nodes"
            }
        }
    }
}

/// Gathers the lists that come over channels, at most one per channel and [`ASSEMBLIES_MAX`] in all.
///
/// Nothing of a list can be verified before its end has come, so the room for the unverified is bounded: who begins
/// one too many takes the room of the list that has waited longest for its next part.
#[derive(Debug)]
pub struct Assembler<K> {
    lists: BTreeMap<K, Gathering>,
    /// Counts parts, to tell who waited longest.
    clock: u64,
}

#[derive(Debug)]
struct Gathering {
    authority: Identifier,
    number: u64,
    total: u32,
    bytes: Vec<u8>,
    age: u64,
}

impl<K> Default for Assembler<K> {
    fn default() -> Self {
        Self {
            lists: BTreeMap::new(),
            clock: 0,
        }
    }
}

impl<K: Ord + Copy> Assembler<K> {
    /// Takes a part that came over `channel`. Returns the list when this was its last part, for
    /// [`Trust::take_status`](super::Trust::take_status). A part at offset 0 begins a new list. After an error the
    /// channel's list is forgotten.
    ///
    /// # Errors
    /// [`PartError`].
    pub fn handle_part(&mut self, channel: K, part: StatusPart<'_>) -> Result<Option<Vec<u8>>, PartError> {
        let StatusPart { total, offset, .. } = part;
        let begun = self.lists.remove(&channel).filter(|_| offset > 0);
        let len = part.bytes.len();
        if total == 0 || to_usize(total) > STATUS_LEN_MAX {
            return Err(PartError::Total {
                total,
                max: STATUS_LEN_MAX,
            });
        }
        let end = to_usize(offset).saturating_add(len);
        if len == 0 || len > PART_LEN_MAX || end > to_usize(total) {
            return Err(PartError::Len { len, offset, total });
        }
        let mut list = begun.unwrap_or_else(|| Gathering {
            authority: part.authority,
            number: part.number,
            total,
            bytes: Vec::new(),
            age: 0,
        });
        if list.bytes.len() != to_usize(offset) {
            let want = u32::try_from(list.bytes.len()).unwrap_or(u32::MAX);
            return Err(PartError::OutOfOrder { offset, want });
        }
        if (list.authority, list.number, list.total) != (part.authority, part.number, total) {
            return Err(PartError::OtherList);
        }
        list.bytes.extend_from_slice(part.bytes);
        if end == to_usize(total) {
            return Ok(Some(list.bytes));
        }
        self.clock = self.clock.saturating_add(1);
        list.age = self.clock;
        if self.lists.len() >= ASSEMBLIES_MAX
            && let Some(longest) = self
                .lists
                .iter()
                .min_by_key(|(_, list)| list.age)
                .map(|(key, _)| *key)
        {
            self.lists.remove(&longest);
        }
        self.lists.insert(channel, list);
        Ok(None)
    }

    /// Forgets what came over `channel`, which is closed.
    pub fn forget(&mut self, channel: K) {
        self.lists.remove(&channel);
    }

    /// Returns the bytes that are kept until the lists are complete.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.lists.values().map(|list| list.bytes.len()).sum()
    }
}

fn to_usize(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
