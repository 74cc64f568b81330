//! The replication log of an authority that runs as several processes (PROTOCOL.md §18).
//!
//! Every process has a store of its own, and they all write the same transactions to it in the same order: the order of the log. A
//! transaction counts when its entry stands in the log, which takes an entry only right behind the one that the writer has seen last. So
//! each decision rests on everything that was decided before it, by whichever process; who was too late reads what came in
//! between and decides again.

use std::fmt;

use fieldgate_proto::{
    entropy::Entropy,
    identity::Identifier,
    trust::{REPLICATION_PART_LEN_MAX, ReplicationBody, ReplicationKey, ReplicationPlace, replication_hash},
    wire::Reader,
};
use zeroize::Zeroizing;

use super::StoreError;

pub(crate) mod nats;

/// Where the entries are kept, for all processes the same. It blocks, some seconds at the most.
pub(crate) trait ReplicationLog: Send {
    /// Returns the newest entry with its number; `None` if there is none.
    ///
    /// # Errors
    /// [`LogAway`].
    fn newest(&mut self) -> Result<Option<(u64, Vec<u8>)>, LogAway>;

    /// Returns entries from one number to another, both included; `None` if the first is kept no more.
    ///
    /// # Errors
    /// [`LogAway`].
    fn range(&mut self, from: u64, to: u64) -> Result<Option<Vec<Vec<u8>>>, LogAway>;

    /// Appends an entry if `after` is the number of the newest one, which is 0 where there is none.
    ///
    /// # Errors
    /// [`LogAway`]; then it is not known whether it was appended, nor whether it still will be.
    fn append(&mut self, after: u64, entry: Vec<u8>) -> Result<Appended, LogAway>;

    /// Returns what it is connected to, for status.
    fn server(&self) -> Option<String>;
}

/// The log cannot be read or written now; in words, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogAway(pub(crate) String);

impl From<LogAway> for StoreError {
    fn from(away: LogAway) -> Self {
        Self::Away { reason: away.0 }
    }
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    /// It is the newest.
    Done,
    /// Another came first.
    Late,
}

/// What a process is told about its log.
pub(crate) struct ReplicationSettings {
    /// What the log is called. A log of another name is another log.
    pub(crate) name: String,
    /// The shared secret.
    pub(crate) key: ReplicationKey,
    /// Whether this process begins the log where there is none.
    pub(crate) founds: bool,
    /// The log.
    pub(crate) log: Box<dyn ReplicationLog>,
    /// For salts.
    pub(crate) entropy: Box<dyn Entropy + Send>,
}

impl fmt::Debug for ReplicationSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicationSettings")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Up to where a store has what the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// What the log is called.
    pub(crate) name: String,
    /// Drawn when it was founded.
    pub(crate) id: [u8; 16],
    /// The last entry taken.
    pub(crate) sequence: u64,
    /// Its hash.
    pub(crate) hash: [u8; 32],
}

/// The log as one store sees it.
pub(super) struct Replication {
    settings: ReplicationSettings,
    authority: Identifier,
    /// The newest entry seen: number and hash. Behind the position stand parts whose end has not come.
    head: (u64, [u8; 32]),
    /// Those parts.
    pending: Zeroizing<Vec<u8>>,
    pending_parts: u8,
    pub(super) stats: ReplicationStats,
}

/// What was done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplicationStats {
    /// Transactions of other processes that were taken.
    pub(crate) taken: u64,
    /// Transactions of this process.
    pub(crate) written: u64,
    /// Transactions that came too late and were decided again.
    pub(crate) late: u64,
}

/// What a store is to do to come up to the log.
pub(super) enum Step {
    /// Nothing: it is there.
    Current,
    /// It begins here, if its log of decisions is this one.
    Join {
        position: Position,
        decisions: (u64, [u8; 32]),
    },
    /// There is no log: it may be founded.
    Found,
    /// To write these, in this order.
    Apply(Writes),
}

/// The writes of transactions, each with the position it leads to.
pub(super) type Writes = Vec<(Zeroizing<Vec<u8>>, Position)>;

impl Position {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.name.len());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(&self.id);
        out.extend_from_slice(self.name.as_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let broken = || StoreError::record("position in the cluster's log");
        let mut reader = Reader::new(bytes);
        let mut read = || -> Result<Self, fieldgate_proto::wire::WireError> {
            Ok(Self {
                sequence: reader.u64("sequence")?,
                hash: reader.array("hash")?,
                id: reader.array("log id")?,
                name: String::from_utf8_lossy(reader.rest()).into_owned(),
            })
        };
        read().map_err(|_| broken())
    }
}

impl Replication {
    pub(super) fn new(
        settings: ReplicationSettings,
        authority: Identifier,
        position: Option<&Position>,
    ) -> Self {
        let mut replication = Self {
            settings,
            authority,
            head: (0, [0; 32]),
            pending: Zeroizing::default(),
            pending_parts: 0,
            stats: ReplicationStats::default(),
        };
        replication.reset(position);
        replication
    }

    /// What the log is called.
    pub(super) fn name(&self) -> &str {
        &self.settings.name
    }

    /// What it is connected to.
    pub(super) fn server(&self) -> Option<String> {
        self.settings.log.server()
    }

    /// Goes back to what the store has.
    pub(super) fn reset(&mut self, position: Option<&Position>) {
        self.head = position.map_or((0, [0; 32]), |position| (position.sequence, position.hash));
        self.pending = Zeroizing::default();
        self.pending_parts = 0;
    }

    /// Looks what a store at this position lacks.
    ///
    /// # Errors
    /// [`StoreError`]: the log is away, or it is not the one that the store has followed.
    pub(super) fn next(&mut self, position: Option<&Position>) -> Result<Step, StoreError> {
        let name = || self.settings.name.clone();
        let newest = self.settings.log.newest()?;
        let Some(position) = position else {
            return match newest {
                None if self.settings.founds => Ok(Step::Found),
                None => Err(StoreError::NotFounded { name: name() }),
                Some(_) => self.join(),
            };
        };
        let (newest, bytes) = newest.unwrap_or_default();
        let (head, hash) = self.head;
        if newest < head {
            return Err(StoreError::RolledBack {
                name: name(),
                got: newest,
                have: head,
            });
        }
        if newest == head {
            if replication_hash(&bytes) != hash {
                return Err(StoreError::OtherLog {
                    name: name(),
                    sequence: head,
                });
            }
            return Ok(Step::Current);
        }
        let to = newest.min(head + READ_MAX);
        // The newest one is here already.
        let up_to = to.min(newest - 1);
        let mut entries = Vec::new();
        if up_to > head {
            let Some(between) = self.settings.log.range(head + 1, up_to)? else {
                return Err(StoreError::Dropped {
                    name: name(),
                    sequence: head + 1,
                });
            };
            entries = between;
        }
        if up_to < to {
            entries.push(bytes);
        }
        let taken = self.take_all(position, &entries);
        if taken.is_err() {
            // What was understood of them was not written either: it is read again with the rest.
            self.reset(Some(position));
        }
        taken.map(Step::Apply)
    }

    /// Takes the entries behind the head.
    fn take_all(&mut self, position: &Position, entries: &[Vec<u8>]) -> Result<Writes, StoreError> {
        let mut writes = Writes::new();
        for entry in entries {
            if let Some(bytes) = self.take(entry)? {
                let (sequence, hash) = self.head;
                let to = Position {
                    sequence,
                    hash,
                    ..position.clone()
                };
                writes.push((bytes, to));
            }
        }
        self.stats.taken += writes.len() as u64;
        Ok(writes)
    }

    /// Takes the entry behind the head; returns the writes of a transaction that is complete with it.
    fn take(&mut self, entry: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let place = self.place();
        let other = || StoreError::OtherLog {
            name: self.settings.name.clone(),
            sequence: place.sequence,
        };
        let body = self.settings.key.open(&place, entry).map_err(|error| {
            tracing::debug!(%error, sequence = place.sequence, "an entry of the cluster's log does not open");
            other()
        })?;
        let ReplicationBody::Writes { part, is_last, bytes } =
            ReplicationBody::decode(&body).map_err(|_| other())?
        else {
            return Err(other());
        };
        self.head = (place.sequence, replication_hash(entry));
        if part == 0 {
            self.pending = Zeroizing::default();
            self.pending_parts = 0;
        }
        if part != self.pending_parts || part >= PARTS_MAX {
            return Err(StoreError::record("part of a write of another process"));
        }
        self.pending.extend_from_slice(bytes);
        self.pending_parts += 1;
        if !is_last {
            return Ok(None);
        }
        self.pending_parts = 0;
        Ok(Some(std::mem::take(&mut self.pending)))
    }

    /// Reads how the log begins.
    fn join(&mut self) -> Result<Step, StoreError> {
        self.reset(None);
        let name = self.settings.name.clone();
        let Some(first) = self
            .settings
            .log
            .range(1, 1)?
            .and_then(|mut entries| entries.pop())
        else {
            return Err(StoreError::Dropped { name, sequence: 1 });
        };
        let other = || StoreError::OtherLog {
            name: self.settings.name.clone(),
            sequence: 1,
        };
        let body = self
            .settings
            .key
            .open(&self.place(), &first)
            .map_err(|_| other())?;
        let ReplicationBody::Founding {
            id,
            decisions,
            decisions_hash,
        } = ReplicationBody::decode(&body).map_err(|_| other())?
        else {
            return Err(other());
        };
        self.head = (1, replication_hash(&first));
        let position = Position {
            name,
            id,
            sequence: 1,
            hash: self.head.1,
        };
        Ok(Step::Join {
            position,
            decisions: (decisions, decisions_hash),
        })
    }

    /// Begins the log on a store whose log of decisions is this one. Whether it did, or another did, the next look says.
    ///
    /// # Errors
    /// [`StoreError::Away`].
    pub(super) fn found(&mut self, decisions: (u64, [u8; 32])) -> Result<(), StoreError> {
        self.reset(None);
        let mut id = [0; 16];
        self.settings.entropy.fill(&mut id);
        let body = ReplicationBody::Founding {
            id,
            decisions: decisions.0,
            decisions_hash: decisions.1,
        };
        let entry = self.seal(&body)?;
        self.settings.log.append(0, entry)?;
        Ok(())
    }

    /// Appends the writes of a transaction; returns the position that the store then has.
    ///
    /// # Errors
    /// [`StoreError::Late`] if another process came first; [`StoreError::Away`] if it is not known.
    pub(super) fn append(&mut self, position: &Position, writes: &[u8]) -> Result<Position, StoreError> {
        let parts = writes.chunks(REPLICATION_PART_LEN_MAX);
        let count = parts.len();
        if count > usize::from(PARTS_MAX) {
            return Err(StoreError::record(
                "transaction that is too large for the cluster's log",
            ));
        }
        for (part, bytes) in (0..).zip(parts) {
            let is_last = usize::from(part) + 1 == count;
            let entry = self.seal(&ReplicationBody::Writes { part, is_last, bytes })?;
            let hash = replication_hash(&entry);
            match self.settings.log.append(self.head.0, entry)? {
                Appended::Done => self.head = (self.head.0 + 1, hash),
                Appended::Late => {
                    self.stats.late += 1;
                    return Err(StoreError::Late);
                }
            }
        }
        self.pending = Zeroizing::default();
        self.pending_parts = 0;
        self.stats.written += 1;
        let (sequence, hash) = self.head;
        Ok(Position {
            sequence,
            hash,
            ..position.clone()
        })
    }

    fn seal(&mut self, body: &ReplicationBody<'_>) -> Result<Vec<u8>, StoreError> {
        let place = self.place();
        let sealed = self
            .settings
            .key
            .seal(&place, body, self.settings.entropy.as_mut());
        sealed.map_err(|_| StoreError::record("write that is too long for the cluster's log"))
    }

    /// Where the next entry stands.
    const fn place(&self) -> ReplicationPlace {
        ReplicationPlace {
            authority: self.authority,
            sequence: self.head.0 + 1,
            previous: self.head.1,
        }
    }
}

/// Entries read at a time.
const READ_MAX: u64 = 256;
/// Parts of one transaction: 32 MiB.
const PARTS_MAX: u8 = 64;
