//! What a sink shows of itself: counters, its state, and what an operator should know.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use fieldgate_io::clock::monotonic;

/// Written by the sink, read by status and metrics.
#[derive(Debug)]
pub(crate) struct SinkStats {
    /// Readings confirmed.
    pub(crate) confirmed: AtomicU64,
    /// Sequences recorded as missing.
    pub(crate) missing: AtomicU64,
    /// Readings left out because the sink had them already.
    pub(crate) duplicates: AtomicU64,
    /// Readings that did not decode.
    pub(crate) undecodable: AtomicU64,
    /// Failures of the thing behind the sink: connection lost, publish refused, write failed.
    pub(crate) errors: AtomicU64,
    /// Readings that were refused for good and put aside.
    pub(crate) set_aside: AtomicU64,
    /// When something was confirmed last, or something began to wait (monotonic nanoseconds).
    moved_at: AtomicU64,
    condition: Mutex<Condition>,
}

/// How a sink is at the moment.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    /// What it does.
    pub(crate) state: State,
    /// Since when (monotonic nanoseconds).
    pub(crate) since: u64,
    /// What went wrong last, in words; stays after the trouble is over.
    pub(crate) last_error: Option<String>,
    /// What an operator should know though the sink works, by subject.
    pub(crate) notices: BTreeMap<Subject, String>,
}

/// What a sink does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It has not reached what is behind it yet.
    Starting,
    /// It takes readings.
    Taking,
    /// What is behind it cannot be reached, or does not work.
    Away,
    /// What is behind it refuses.
    Refused,
}

impl State {
    /// Returns the word for status and metrics.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Taking => "taking",
            Self::Away => "away",
            Self::Refused => "refused",
        }
    }
}

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// Whether what is acknowledged is on stable storage.
    Durability,
    /// What is behind the sink has less than it confirmed.
    SetBack,
    /// Readings were put aside.
    SetAside,
}

impl Subject {
    /// Whether somebody has to look after it; otherwise it is good to know.
    pub(crate) const fn is_grave(self) -> bool {
        match self {
            Self::Durability => false,
            Self::SetBack | Self::SetAside => true,
        }
    }
}

impl SinkStats {
    /// Makes the stats of a sink that starts.
    pub(crate) fn new() -> Self {
        Self {
            confirmed: AtomicU64::new(0),
            missing: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            undecodable: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            set_aside: AtomicU64::new(0),
            moved_at: AtomicU64::new(monotonic()),
            condition: Mutex::new(Condition {
                state: State::Starting,
                since: monotonic(),
                last_error: None,
                notices: BTreeMap::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Condition> {
        // Nothing panics with the lock, and if it did the words would still be words.
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how the sink is.
    pub(crate) fn condition(&self) -> Condition {
        self.lock().clone()
    }

    /// Notes that the sink takes readings; returns whether that is new.
    pub(crate) fn taking(&self) -> bool {
        self.enter(State::Taking)
    }

    /// Notes that the sink cannot reach what is behind it, and why; returns whether that is new.
    pub(crate) fn away(&self, error: String) -> bool {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.lock().last_error = Some(error);
        self.enter(State::Away)
    }

    /// Notes that what is behind the sink refuses, and why; returns whether that is new.
    pub(crate) fn refused(&self, error: String) -> bool {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.lock().last_error = Some(error);
        self.enter(State::Refused)
    }

    fn enter(&self, state: State) -> bool {
        let mut condition = self.lock();
        let is_new = condition.state != state;
        if is_new {
            condition.state = state;
            condition.since = monotonic();
        }
        is_new
    }

    /// Says something an operator should know, or that it is over.
    pub(crate) fn notice(&self, subject: Subject, text: Option<String>) {
        let mut condition = self.lock();
        match text {
            Some(text) => condition.notices.insert(subject, text),
            None => condition.notices.remove(&subject),
        };
    }

    /// Notes that something was confirmed, or that something waits where nothing did.
    pub(crate) fn moved(&self) {
        self.moved_at.store(monotonic(), Ordering::Relaxed);
    }

    /// Returns the nanoseconds since [`SinkStats::moved`].
    pub(crate) fn still_for(&self) -> u64 {
        monotonic().saturating_sub(self.moved_at.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_new_once_and_the_last_error_stays() {
        let stats = SinkStats::new();
        assert_eq!(stats.condition().state, State::Starting);
        assert!(stats.away("no route".to_owned()));
        assert!(!stats.away("refused".to_owned()));
        assert!(stats.taking());
        assert!(!stats.taking());
        let condition = stats.condition();
        assert_eq!(condition.state, State::Taking);
        assert_eq!(condition.last_error.as_deref(), Some("refused"));
        assert_eq!(stats.errors.load(Ordering::Relaxed), 2);
        stats.notice(Subject::Durability, Some("x".to_owned()));
        stats.notice(Subject::Durability, None);
        assert!(stats.condition().notices.is_empty());
    }
}
