//! Credentials issued a moment ago.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use fieldgate_proto::identity::Identifier;

/// How long a credential is handed out again instead of a new one, in seconds.
const AGAIN_SECS: u64 = 30;
/// How many are remembered.
const REMEMBERED_MAX: usize = 4096;

/// A credential and when it was issued, seconds since 1970.
#[derive(Clone, Debug)]
pub(super) struct Issued {
    pub(super) at: u64,
    pub(super) presentation: Arc<[u8]>,
}

/// What was issued a moment ago. A member that asks again and again gets the same credential and costs no write.
#[derive(Debug, Default)]
pub(super) struct Recent {
    issued: BTreeMap<Identifier, Issued>,
    /// Who is in `issued`, oldest first; somebody may stand here twice.
    order: VecDeque<Identifier>,
}

impl Recent {
    /// Returns what was issued to `identifier` in the last 30 s.
    pub(super) fn find(&self, identifier: &Identifier, now: u64) -> Option<Arc<[u8]>> {
        let issued = self.issued.get(identifier)?;
        let fresh = now >= issued.at && now - issued.at < AGAIN_SECS;
        fresh.then(|| Arc::clone(&issued.presentation))
    }

    pub(super) fn insert(&mut self, identifier: Identifier, issued: Issued) {
        while self.order.len() >= REMEMBERED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.issued.remove(&oldest);
            }
        }
        self.order.push_back(identifier);
        self.issued.insert(identifier, issued);
    }

    pub(super) fn remove(&mut self, identifier: &Identifier) {
        self.issued.remove(identifier);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identifier(number: usize) -> Identifier {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Identifier::from_bytes(bytes)
    }

    fn issued(at: u64) -> Issued {
        Issued {
            at,
            presentation: Arc::from([at.to_be_bytes()[7]]),
        }
    }

    #[test]
    fn finds_what_is_fresh_only() {
        let mut recent = Recent::default();
        recent.insert(identifier(1), issued(100));
        assert!(
            recent.find(&identifier(1), 99).is_none(),
            "the clock was set back"
        );
        assert!(recent.find(&identifier(1), 129).is_some());
        assert!(recent.find(&identifier(1), 130).is_none());
        assert!(recent.find(&identifier(2), 100).is_none());
        recent.remove(&identifier(1));
        assert!(recent.find(&identifier(1), 100).is_none());
    }

    #[test]
    fn is_bounded() {
        let mut recent = Recent::default();
        for number in 0..3 * REMEMBERED_MAX {
            recent.insert(identifier(number), issued(100));
            recent.insert(identifier(0), issued(100));
        }
        assert!(recent.issued.len() <= REMEMBERED_MAX && recent.order.len() <= REMEMBERED_MAX);
        assert!(recent.find(&identifier(3 * REMEMBERED_MAX - 1), 100).is_some());
    }
}
