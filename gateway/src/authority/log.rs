//! The log of decisions: append-only, each entry holding the hash of the one before.
//!
//! ```text
//! entry = u8 version (1) | u64 sequence | u64 milliseconds since 1970 | u8 time quality
//!         | u8 actor (0 the authority itself | 1, u32 user | 2, 32 identifier) | u8 action | u8 outcome
//!         | u8 flags | (bit 0) 32 subject | (bit 1) 16 ticket | text8 reason | 32 hash of the entry before, zero in the first
//! hash  = H(label16("FG1 log v1") | entry)
//! ```
//!
//! Whoever keeps a hash (a log head signed by the authority) can prove later that nothing before it was changed or left
//! out. Old entries may be dropped at a bound; what is left still chains up to the head.

use std::fmt;

use fieldgate_proto::{
    crypto::{label16, sha256},
    identity::Identifier,
    time::{ClockQuality, WallTime},
    wire::{self, Reader, WireError},
};

/// A ticket's identifier.
pub(crate) type TicketId = [u8; 16];
/// Longest reason, in bytes.
pub(crate) const LOG_REASON_BYTES_MAX: usize = 255;
const VERSION: u8 = 1;
const LABEL: [u8; 16] = label16("FG1 log v1");
const FLAG_SUBJECT: u8 = 1;
const FLAG_TICKET: u8 = 2;

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Counts from 1.
    pub(crate) sequence: u64,
    /// When, in milliseconds since 1970.
    pub(crate) unix_millis: u64,
    /// How far the clock could be believed.
    pub(crate) quality: TimeQuality,
    /// What was decided.
    pub(crate) decision: Decision,
    /// [`Entry::hash`] of the entry before.
    pub(crate) previous: [u8; 32],
}

/// What was decided about whom, at whose wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Who asked.
    pub(crate) actor: Actor,
    /// For what.
    pub(crate) action: Action,
    /// Whether it was done.
    pub(crate) outcome: Outcome,
    /// About whom.
    pub(crate) subject: Option<Identifier>,
    /// With or about which ticket.
    pub(crate) ticket: Option<TicketId>,
    /// Why, or with what result; at most [`LOG_REASON_BYTES_MAX`] bytes, the rest is cut off.
    pub(crate) reason: String,
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Actor {
    /// Nobody: the authority does it by itself.
    Authority,
    /// A user of the authority's machine, by number, over the control socket.
    User(u32),
    /// A node, over a channel.
    Node(Identifier),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority => f.write_str("authority"),
            Self::User(uid) => write!(f, "user {uid}"),
            Self::Node(identifier) => identifier.fmt(f),
        }
    }
}

/// Pairs an enum's variants with a number on disk and a word.
macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every variant.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),+];

            const fn number(self) -> u8 {
                match self { $(Self::$variant => $number,)+ }
            }

            const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }

            /// Returns the word for logs, metrics and texts.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

numbered! {
    /// What was asked for.
    Action {
        /// To become a member with a ticket.
        Enrol = 1 "enrol",
        /// A new credential.
        Renew = 2 "renew",
        /// A new ticket.
        IssueTicket = 3 "issue-ticket",
        /// The end of a ticket.
        RevokeTicket = 4 "revoke-ticket",
        /// A member without ticket.
        AddMember = 5 "add-member",
        /// Other rights for a member that the file names.
        ChangeMember = 6 "change-member",
        /// The end of a membership whose line is gone from the file.
        RemoveMember = 7 "remove-member",
        /// The end of a membership for good.
        RevokeMember = 8 "revoke-member",
        /// To see tickets, members or log.
        Read = 9 "read",
        /// A new status list.
        StatusList = 10 "status-list",
        /// Expired tickets are dropped.
        DropTickets = 11 "drop-tickets",
        /// Old entries of this log are dropped.
        DropLog = 12 "drop-log",
        /// Refusals of strangers that were counted and not written one by one.
        Suppressed = 13 "suppressed",
        /// The store is made.
        Founded = 14 "founded",
    }
}

numbered! {
    /// What came of it.
    Outcome {
        /// Done.
        Done = 1 "done",
        /// Done before: the same answer again, nothing spent.
        Repeated = 2 "repeated",
        /// Not done.
        Refused = 3 "refused",
    }
}

numbered! {
    /// How far the clock could be believed when an entry was written.
    TimeQuality {
        /// Nothing vouches for it.
        Unknown = 0 "unknown",
        /// It is not later than the true time.
        Floor = 1 "floor",
        /// An authority vouched for it.
        Authority = 2 "authority",
        /// It was synchronised.
        Synchronised = 3 "synchronised",
    }
}

impl From<ClockQuality> for TimeQuality {
    fn from(quality: ClockQuality) -> Self {
        match quality {
            ClockQuality::Unknown => Self::Unknown,
            ClockQuality::Floor => Self::Floor,
            ClockQuality::Authority => Self::Authority,
            ClockQuality::Synchronised => Self::Synchronised,
        }
    }
}

impl Entry {
    /// Makes the entry that follows an entry with the hash `previous`.
    pub(crate) fn new(sequence: u64, wall: WallTime, mut decision: Decision, previous: [u8; 32]) -> Self {
        let mut end = decision.reason.len().min(LOG_REASON_BYTES_MAX);
        while !decision.reason.is_char_boundary(end) {
            end -= 1;
        }
        decision.reason.truncate(end);
        Self {
            sequence,
            unix_millis: wall.unix_millis,
            quality: wall.quality.into(),
            decision,
            previous,
        }
    }

    /// Returns the encoding.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let decision = &self.decision;
        let mut out = Vec::with_capacity(160 + decision.reason.len());
        out.push(VERSION);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.unix_millis.to_be_bytes());
        out.push(self.quality.number());
        put_actor(&mut out, decision.actor);
        out.push(decision.action.number());
        out.push(decision.outcome.number());
        let subject = if decision.subject.is_some() {
            FLAG_SUBJECT
        } else {
            0
        };
        let ticket = if decision.ticket.is_some() { FLAG_TICKET } else { 0 };
        out.push(subject | ticket);
        if let Some(subject) = &decision.subject {
            out.extend_from_slice(subject.as_bytes());
        }
        if let Some(ticket) = &decision.ticket {
            out.extend_from_slice(ticket);
        }
        wire::put_bytes8(&mut out, decision.reason.as_bytes());
        out.extend_from_slice(&self.previous);
        out
    }

    /// Reads an encoding.
    ///
    /// # Errors
    /// [`WireError`] for anything that [`Entry::encode`] does not write.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("entry version")?;
        if version != VERSION {
            return Err(value("entry version", version));
        }
        let sequence = reader.u64("sequence")?;
        let unix_millis = reader.u64("time")?;
        let quality = numbered(&mut reader, "time quality", TimeQuality::from_number)?;
        let actor = take_actor(&mut reader)?;
        let action = numbered(&mut reader, "action", Action::from_number)?;
        let outcome = numbered(&mut reader, "outcome", Outcome::from_number)?;
        let flags = reader.u8("flags")?;
        if flags & !(FLAG_SUBJECT | FLAG_TICKET) != 0 {
            return Err(value("flags", flags));
        }
        let subject = if flags & FLAG_SUBJECT == 0 {
            None
        } else {
            Some(Identifier::from_bytes(reader.array("subject")?))
        };
        let ticket = if flags & FLAG_TICKET == 0 {
            None
        } else {
            Some(reader.array("ticket")?)
        };
        let reason = reader.text8("reason")?.to_owned();
        let previous = reader.array("hash of the entry before")?;
        reader.finish()?;
        Ok(Self {
            sequence,
            unix_millis,
            quality,
            decision: Decision {
                actor,
                action,
                outcome,
                subject,
                ticket,
                reason,
            },
            previous,
        })
    }

    /// Returns the hash of an entry in its encoding.
    pub(crate) fn hash(encoded: &[u8]) -> [u8; 32] {
        sha256(&[&LABEL, encoded])
    }
}

/// Walks a log and checks that each entry follows the one before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    /// Sequence and hash of the last entry; `None` before the first.
    last: Option<(u64, [u8; 32])>,
}

impl Chain {
    /// Takes the next entry.
    ///
    /// # Errors
    /// [`LogError`] if it is damaged or does not follow.
    pub(crate) fn handle_entry(&mut self, encoded: &[u8]) -> Result<Entry, LogError> {
        let want = self.last.map(|(sequence, _)| sequence.saturating_add(1));
        let entry = Entry::decode(encoded).map_err(|source| LogError::Damaged {
            sequence: want.unwrap_or(0),
            source,
        })?;
        if want.is_some_and(|want| want != entry.sequence) || entry.sequence == 0 {
            return Err(LogError::Gap {
                got: entry.sequence,
                want: want.unwrap_or(1),
            });
        }
        let previous = match self.last {
            Some((_, hash)) => hash,
            // Where old entries were dropped, the first that is left says what was before it.
            None if entry.sequence > 1 => entry.previous,
            None => [0; 32],
        };
        if entry.previous != previous {
            return Err(LogError::Broken {
                sequence: entry.sequence,
            });
        }
        self.last = Some((entry.sequence, Entry::hash(encoded)));
        Ok(entry)
    }

    /// Checks that the walk has ended at the head of the log.
    ///
    /// # Errors
    /// [`LogError::Head`] if it has not.
    pub(crate) fn finish(&self, sequence: u64, hash: &[u8; 32]) -> Result<(), LogError> {
        let reached = self.last.unwrap_or((0, [0; 32]));
        if reached == (sequence, *hash) {
            Ok(())
        } else {
            Err(LogError::Head {
                got: reached.0,
                want: sequence,
            })
        }
    }

    /// Returns sequence and hash of the last entry taken.
    pub(crate) const fn last(&self) -> Option<(u64, [u8; 32])> {
        self.last
    }
}

/// Why a log is not the one that was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LogError {
    /// An entry cannot be read.
    #[error("entry {sequence} of the log is damaged")]
    Damaged {
        /// Which; 0 for the first that is kept.
        sequence: u64,
        /// Why.
        source: WireError,
    },
    /// An entry is missing.
    #[error("the log goes on with entry {got}, not {want}")]
    Gap {
        /// The sequence found.
        got: u64,
        /// The sequence expected.
        want: u64,
    },
    /// An entry holds another hash than that of the entry before it.
    #[error("entry {sequence} of the log does not follow the entry before it: one of the two was changed")]
    Broken {
        /// Which.
        sequence: u64,
    },
    /// The log ends elsewhere than its head says.
    #[error("the log ends with entry {got}, and its head names entry {want} with another hash or place")]
    Head {
        /// Sequence of the last entry.
        got: u64,
        /// Sequence in the head.
        want: u64,
    },
}

impl LogError {
    /// Returns what an operator can do about it.
    pub(crate) const fn hint(&self) -> &'static str {
        match self {
            Self::Damaged { .. } | Self::Gap { .. } | Self::Broken { .. } | Self::Head { .. } => {
                "somebody or something changed the store: keep a copy of it, compare it with a backup and with log heads signed earlier"
            }
        }
    }
}

pub(super) fn put_actor(out: &mut Vec<u8>, actor: Actor) {
    match actor {
        Actor::Authority => out.push(0),
        Actor::User(uid) => {
            out.push(1);
            out.extend_from_slice(&uid.to_be_bytes());
        }
        Actor::Node(identifier) => {
            out.push(2);
            out.extend_from_slice(identifier.as_bytes());
        }
    }
}

pub(super) fn take_actor(reader: &mut Reader<'_>) -> Result<Actor, WireError> {
    match reader.u8("actor")? {
        0 => Ok(Actor::Authority),
        1 => Ok(Actor::User(reader.u32("user")?)),
        2 => Ok(Actor::Node(Identifier::from_bytes(
            reader.array("actor's identifier")?,
        ))),
        other => Err(value("actor", other)),
    }
}

fn numbered<T>(
    reader: &mut Reader<'_>,
    field: &'static str,
    from: impl FnOnce(u8) -> Option<T>,
) -> Result<T, WireError> {
    let number = reader.u8(field)?;
    from(number).ok_or_else(|| value(field, number))
}

fn value(field: &'static str, value: u8) -> WireError {
    WireError::Value {
        field,
        value: u64::from(value),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decision() -> impl Strategy<Value = Decision> {
        let actor = prop_oneof![
            Just(Actor::Authority),
            any::<u32>().prop_map(Actor::User),
            any::<[u8; 32]>().prop_map(|id| Actor::Node(Identifier::from_bytes(id))),
        ];
        let action = proptest::sample::select(Action::ALL);
        let outcome = proptest::sample::select(Outcome::ALL);
        let subject = proptest::option::of(any::<[u8; 32]>());
        let ticket = proptest::option::of(any::<TicketId>());
        (actor, action, outcome, subject, ticket, ".{0,300}").prop_map(
            |(actor, action, outcome, subject, ticket, reason)| Decision {
                actor,
                action,
                outcome,
                subject: subject.map(Identifier::from_bytes),
                ticket,
                reason,
            },
        )
    }

    fn chain_of(decisions: Vec<Decision>) -> (Vec<Vec<u8>>, u64, [u8; 32]) {
        let (mut encoded, mut previous) = (Vec::new(), [0; 32]);
        for (sequence, decision) in (1..).zip(decisions) {
            let wall = WallTime {
                unix_millis: sequence * 10,
                quality: ClockQuality::Floor,
            };
            let bytes = Entry::new(sequence, wall, decision, previous).encode();
            previous = Entry::hash(&bytes);
            encoded.push(bytes);
        }
        (encoded.clone(), encoded.len() as u64, previous)
    }

    fn walk(entries: &[Vec<u8>], head: u64, hash: &[u8; 32]) -> Result<(), LogError> {
        let mut chain = Chain::default();
        for entry in entries {
            chain.handle_entry(entry)?;
        }
        chain.finish(head, hash)
    }

    #[test]
    fn every_number_means_one_thing() {
        for action in Action::ALL {
            assert_eq!(Action::from_number(action.number()), Some(*action));
        }
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_number(outcome.number()), Some(*outcome));
        }
        for quality in TimeQuality::ALL {
            assert_eq!(TimeQuality::from_number(quality.number()), Some(*quality));
        }
    }

    proptest! {
        #[test]
        fn entries_come_back(decision in decision(), sequence: u64, unix_millis: u64, previous: [u8; 32]) {
            let wall = WallTime { unix_millis, quality: ClockQuality::Synchronised };
            let entry = Entry::new(sequence, wall, decision, previous);
            prop_assert!(entry.decision.reason.len() <= LOG_REASON_BYTES_MAX);
            prop_assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
        }

        #[test]
        fn any_bytes_are_read_back_or_refused(bytes: Vec<u8>) {
            if let Ok(entry) = Entry::decode(&bytes) {
                prop_assert_eq!(entry.encode(), bytes);
            }
        }

        #[test]
        fn a_changed_bit_breaks_the_chain(decisions in proptest::collection::vec(decision(), 1..6), at: prop::sample::Index, bit in 0_u8..8) {
            let (mut entries, head, hash) = chain_of(decisions);
            prop_assert_eq!(walk(&entries, head, &hash), Ok(()));
            let total: usize = entries.iter().map(Vec::len).sum();
            let mut at = at.index(total);
            for entry in &mut entries {
                if let Some(byte) = entry.get_mut(at) {
                    *byte ^= 1 << bit;
                    break;
                }
                at -= entry.len();
            }
            prop_assert!(walk(&entries, head, &hash).is_err());
        }

        #[test]
        fn a_missing_or_swapped_entry_breaks_the_chain(decisions in proptest::collection::vec(decision(), 3..8), at: prop::sample::Index) {
            let (entries, head, hash) = chain_of(decisions);
            let at = at.index(entries.len() - 1);
            let mut missing = entries.clone();
            missing.remove(at);
            // Without its beginning a log is one whose old entries were dropped.
            prop_assert_eq!(walk(&missing, head, &hash).is_ok(), at == 0);
            let mut swapped = entries.clone();
            swapped.swap(at, at + 1);
            prop_assert!(walk(&swapped, head, &hash).is_err());
            let short = &entries[..entries.len() - 1];
            prop_assert!(walk(short, head, &hash).is_err());
        }
    }
}
