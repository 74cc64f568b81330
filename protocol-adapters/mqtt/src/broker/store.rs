//! What of a broker outlives the process: changes to a table of keys and values, in batches.
//!
//! The caller writes each batch in one transaction and says when it is on stable storage. Of several changes of a key only the
//! last is written.
//!
//! | key | value |
//! |---|---|
//! | `v` | version of this table: 1 |
//! | `s`, session | the session: who, how long, will, since when without a connection |
//! | `f`, session, topic filter | options of the subscription |
//! | `m`, message | a message that waits for sessions |
//! | `q`, session, position | which message, how, and how far it is |
//! | `i`, session, packet identifier | a message at QoS 2 was received and is not released |
//! | `r`, topic | the retained message |
//!
//! Sessions, messages and positions are numbers of 8 bytes, big-endian.

use std::collections::BTreeMap;

/// A key of the table, and its new value, or `None` to remove it.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// A batch of changes, to be made in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Its number; batches are numbered from 1.
    pub number: u64,
    /// The changes; no key stands twice.
    pub changes: Vec<Change>,
}

/// Changes that gather for the next batch.
#[derive(Debug, Default)]
pub(super) struct Pending {
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
    /// The number of the batch that is being gathered, less one.
    taken: u64,
}

impl Pending {
    /// Notes a value; returns the number of the batch it will be in.
    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> u64 {
        self.bytes += key.len() + value.len();
        let key_len = key.len();
        if let Some(Some(old)) = self.changes.insert(key, Some(value)) {
            self.bytes = self.bytes.saturating_sub(key_len + old.len());
        }
        self.taken + 1
    }

    /// Notes that a key is gone; returns the number of the batch that will say so.
    pub(super) fn remove(&mut self, key: Vec<u8>) -> u64 {
        let key_len = key.len();
        self.bytes += key_len;
        if let Some(Some(old)) = self.changes.insert(key, None) {
            self.bytes = self.bytes.saturating_sub(key_len + old.len());
        }
        self.taken + 1
    }

    /// Returns the number of the batch that is being gathered.
    pub(super) const fn next_batch(&self) -> u64 {
        self.taken + 1
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes what has gathered.
    pub(super) fn take(&mut self) -> Option<Batch> {
        if self.changes.is_empty() {
            return None;
        }
        self.taken += 1;
        self.bytes = 0;
        Some(Batch {
            number: self.taken,
            changes: std::mem::take(&mut self.changes).into_iter().collect(),
        })
    }
}

/// Keys of the table.
pub(super) mod key {
    use crate::packet::PacketIdentifier;

    pub(in crate::broker) const VERSION: u8 = b'v';
    pub(in crate::broker) const SESSION: u8 = b's';
    pub(in crate::broker) const FILTER: u8 = b'f';
    pub(in crate::broker) const MESSAGE: u8 = b'm';
    pub(in crate::broker) const QUEUED: u8 = b'q';
    pub(in crate::broker) const RECEIVED: u8 = b'i';
    pub(in crate::broker) const RETAINED: u8 = b'r';

    pub(in crate::broker) fn session(session: u64) -> Vec<u8> {
        numbered(SESSION, session, &[])
    }

    pub(in crate::broker) fn filter(session: u64, filter: &str) -> Vec<u8> {
        numbered(FILTER, session, filter.as_bytes())
    }

    pub(in crate::broker) fn message(message: u64) -> Vec<u8> {
        numbered(MESSAGE, message, &[])
    }

    pub(in crate::broker) fn queued(session: u64, position: u64) -> Vec<u8> {
        numbered(QUEUED, session, &position.to_be_bytes())
    }

    pub(in crate::broker) fn received(session: u64, packet_id: PacketIdentifier) -> Vec<u8> {
        numbered(RECEIVED, session, &packet_id.get().to_be_bytes())
    }

    pub(in crate::broker) fn retained(topic: &str) -> Vec<u8> {
        [&[RETAINED], topic.as_bytes()].concat()
    }

    fn numbered(kind: u8, number: u64, rest: &[u8]) -> Vec<u8> {
        [&[kind], number.to_be_bytes().as_slice(), rest].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_the_last_word_about_each_key() {
        let mut pending = Pending::default();
        assert_eq!(pending.take(), None);
        assert_eq!(pending.put(vec![1], vec![1, 1]), 1);
        assert_eq!(pending.put(vec![1], vec![2]), 1);
        assert_eq!(pending.put(vec![2], vec![2]), 1);
        assert_eq!(pending.remove(vec![2]), 1);
        let batch = pending.take().expect("changes");
        assert_eq!(batch.number, 1);
        assert_eq!(batch.changes, [(vec![1], Some(vec![2])), (vec![2], None)]);
        assert_eq!((pending.take(), pending.bytes()), (None, 0));
        assert_eq!(pending.put(vec![3], vec![]), 2);
        assert_eq!(pending.bytes(), 1);
    }
}
