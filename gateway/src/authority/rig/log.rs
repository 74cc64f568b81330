//! A replication log in memory, for several authorities under test.

use std::sync::{Arc, Mutex, MutexGuard};

use fieldgate_proto::trust::ReplicationKey;

use crate::{
    authority::replication::{Appended, LogAway, ReplicationLog, ReplicationSettings},
    runtime::entropy::SystemEntropy,
};

/// The log; clones are the same.
#[derive(Clone, Default)]
pub(crate) struct SharedLog(Arc<Mutex<Kept>>);

/// What it holds, and how it behaves.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) entries: Vec<Vec<u8>>,
    /// So many of the first are kept no more.
    pub(crate) dropped: usize,
    /// It answers nobody.
    pub(crate) away: bool,
    /// It takes so many entries whose writers never hear of it.
    pub(crate) silent: usize,
}

impl SharedLog {
    pub(crate) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().expect("no test panics in there")
    }

    /// What a process is told about it.
    pub(crate) fn settings(&self, name: &str, founds: bool) -> ReplicationSettings {
        ReplicationSettings {
            name: name.to_owned(),
            key: ReplicationKey::new(&[5; 32]).expect("it is long enough"),
            founds,
            log: Box::new(self.clone()),
            entropy: Box::new(SystemEntropy),
        }
    }

    fn here(&self) -> Result<MutexGuard<'_, Kept>, LogAway> {
        let kept = self.kept();
        if kept.away {
            return Err(LogAway("no answer".to_owned()));
        }
        Ok(kept)
    }
}

impl ReplicationLog for SharedLog {
    fn newest(&mut self) -> Result<Option<(u64, Vec<u8>)>, LogAway> {
        let kept = self.here()?;
        let newest = kept.entries.last();
        Ok(newest.map(|entry| (kept.entries.len() as u64, entry.clone())))
    }

    fn range(&mut self, from: u64, to: u64) -> Result<Option<Vec<Vec<u8>>>, LogAway> {
        let kept = self.here()?;
        let from = usize::try_from(from).expect("it is small") - 1;
        let to = usize::try_from(to).expect("it is small");
        Ok((from >= kept.dropped).then(|| kept.entries[from..to].to_vec()))
    }

    fn append(&mut self, after: u64, entry: Vec<u8>) -> Result<Appended, LogAway> {
        let mut kept = self.here()?;
        if kept.entries.len() as u64 != after {
            return Ok(Appended::Late);
        }
        kept.entries.push(entry);
        if kept.silent > 0 {
            kept.silent -= 1;
            return Err(LogAway("no acknowledgement".to_owned()));
        }
        Ok(Appended::Done)
    }

    fn server(&self) -> Option<String> {
        Some("memory".to_owned())
    }
}
