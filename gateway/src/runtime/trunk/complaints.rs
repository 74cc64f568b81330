//! What would be said of a peer each time it comes: said at once, and then once a minute with how often it came.

use std::{collections::BTreeMap, time::Duration};

use fieldgate_proto::{identity::Identifier, time::Instant};

/// What there is to complain of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Complaint {
    /// The peer is revoked.
    Revoked,
    /// Its credential is refused.
    Credential,
    /// It is not allowed what it wants.
    NotAuthorised,
    /// The list of the revoked that it sends is refused.
    List,
}

/// Whom the log has complained of lately: [`PEERS_MAX`] at most, and then nobody new until the minute of one is over.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    said: BTreeMap<(Complaint, Identifier), Said>,
    /// Complaints of peers for which there was no room, since that was said last.
    crowded: u64,
    crowd_said: Option<Instant>,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    /// How often it came since.
    since: u64,
}

/// What the log is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// Nothing: it was said a moment ago.
    Nothing,
    /// This, and how often it came since it was said last.
    This {
        /// Without the time that is spoken of now.
        repeated: u64,
    },
    /// That there is so much to complain of that not every peer is named.
    Crowd {
        /// Complaints that were not said, of peers that are not named.
        unnamed: u64,
    },
}

impl Complaints {
    /// Takes note of a complaint; returns what is to be said.
    pub(super) fn note(&mut self, now: Instant, complaint: Complaint, peer: Identifier) -> Say {
        let key = (complaint, peer);
        if let Some(said) = self.said.get_mut(&key) {
            if now.saturating_since(said.at) < EVERY {
                said.since += 1;
                return Say::Nothing;
            }
            let repeated = said.since;
            *said = Said { at: now, since: 0 };
            return Say::This { repeated };
        }
        if self.said.len() >= PEERS_MAX {
            self.said.retain(|_, said| now.saturating_since(said.at) < EVERY);
        }
        if self.said.len() >= PEERS_MAX {
            self.crowded += 1;
            if self
                .crowd_said
                .is_some_and(|said| now.saturating_since(said) < EVERY)
            {
                return Say::Nothing;
            }
            self.crowd_said = Some(now);
            let unnamed = std::mem::take(&mut self.crowded);
            return Say::Crowd { unnamed };
        }
        self.said.insert(key, Said { at: now, since: 0 });
        Say::This { repeated: 0 }
    }
}

/// How often the same is said of the same peer.
const EVERY: Duration = Duration::from_secs(60);
/// Peers, each with one complaint, that are remembered.
const PEERS_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: usize) -> Identifier {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        Identifier::from_bytes(bytes)
    }

    fn at(secs: u64) -> Instant {
        Instant::START + Duration::from_secs(secs)
    }

    #[test]
    fn the_first_is_said_at_once_and_the_others_once_a_minute() {
        let mut complaints = Complaints::default();
        let mut note = |secs| complaints.note(at(secs), Complaint::Revoked, peer(1));
        assert_eq!(note(0), Say::This { repeated: 0 });
        for secs in 1..60 {
            assert_eq!(note(secs), Say::Nothing);
        }
        assert_eq!(note(60), Say::This { repeated: 59 });
        assert_eq!(note(61), Say::Nothing);
        assert_eq!(note(3_600), Say::This { repeated: 1 });
    }

    #[test]
    fn peers_and_complaints_are_told_apart() {
        let mut complaints = Complaints::default();
        for complaint in [Complaint::Revoked, Complaint::Credential, Complaint::List] {
            for n in 0..3 {
                assert_eq!(
                    complaints.note(at(0), complaint, peer(n)),
                    Say::This { repeated: 0 }
                );
            }
        }
    }

    #[test]
    fn a_crowd_is_spoken_of_as_one() {
        let mut complaints = Complaints::default();
        let mut note = |secs, n| complaints.note(at(secs), Complaint::Credential, peer(n));
        for n in 0..PEERS_MAX {
            assert_eq!(note(0, n), Say::This { repeated: 0 });
        }
        assert_eq!(note(1, 5_000), Say::Crowd { unnamed: 1 });
        for n in 5_001..6_000 {
            assert_eq!(note(2, n), Say::Nothing);
        }
        assert_eq!(note(3, 0), Say::Nothing, "who is known is counted still");
        // A minute later there is room again.
        assert_eq!(note(60, 5_000), Say::This { repeated: 0 });
        assert!(complaints.said.len() <= PEERS_MAX);
        for n in 1..PEERS_MAX {
            complaints.note(at(70), Complaint::Credential, peer(n));
        }
        assert_eq!(
            complaints.note(at(71), Complaint::Credential, peer(9_000)),
            Say::Crowd { unnamed: 1_000 }
        );
    }
}
