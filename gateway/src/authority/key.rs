//! The statement key: drawn here, vouched for by the identity key, which signs elsewhere and takes its time.

use std::time::Duration;

use fieldgate_proto::{
    crypto::Signature,
    entropy::Entropy,
    identity::{ChangeHistory, IdentityError, LIFETIME_SECS_MAX},
    time::{Instant, Now},
    trust::{StatementKey, StatementKeyDraft},
};

/// How far before the present an attestation begins, in seconds: the clock may be set back that far and the key still
/// signs.
const BACKDATED_SECS: u64 = 300;
/// How long a signature is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause after the first failure; doubled by each further one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The key in use, and the one that waits for its attestation.
///
/// ```text
///  none ──due: Sign──▶ asked ──signature──▶ in use ──half of its life: Sign──▶ in use, asked
///   ▲                   │ failed or late: pause, ask again                       │
///   └───────────────────┴──────────────── end of its life ──────────────────────┘
/// ```
#[derive(Debug)]
pub(super) struct Keys {
    current: Option<StatementKey>,
    asked: Option<Asked>,
    /// Not before this time is the identity key asked again.
    next: Instant,
    pause: Duration,
    last_id: u64,
    problem: Option<String>,
    /// The identity was rotated: the key in use rests on the signature of an older one.
    outdated: bool,
}

#[derive(Debug)]
struct Asked {
    id: u64,
    draft: StatementKeyDraft,
    until: Instant,
}

/// A message for the identity key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignRequest {
    /// Comes back with the signature.
    pub(crate) id: u64,
    /// What is to be signed.
    pub(crate) message: Vec<u8>,
}

impl Keys {
    pub(super) const fn new() -> Self {
        Self {
            current: None,
            asked: None,
            next: Instant::START,
            pause: PAUSE_MIN,
            last_id: 0,
            problem: None,
            outdated: false,
        }
    }

    /// Returns the key, if it is vouched for at `unix_secs`.
    pub(super) fn usable(&self, unix_secs: u64) -> Option<&StatementKey> {
        self.current.as_ref().filter(|key| {
            let attestation = key.attestation().attestation();
            (attestation.not_before..=attestation.not_after).contains(&unix_secs)
        })
    }

    /// Returns the end of the attestation in use, seconds since 1970; 0 if there is none.
    pub(super) fn not_after(&self) -> u64 {
        self.current
            .as_ref()
            .map_or(0, |key| key.attestation().attestation().not_after)
    }

    /// Returns what went wrong last, while it has not gone right since.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Returns whether a new attestation is to be asked for at `now`.
    pub(super) fn is_due(&mut self, now: Now) -> bool {
        if self
            .asked
            .as_ref()
            .is_some_and(|asked| now.instant >= asked.until)
        {
            self.asked = None;
            self.fail(now, "the identity key has not answered".to_owned());
        }
        let wanted = match self.usable(now.wall.unix_secs()) {
            None => true,
            Some(key) => {
                let attestation = key.attestation().attestation();
                let life = attestation.not_after.saturating_sub(attestation.not_before);
                self.outdated || now.wall.unix_secs() >= attestation.not_before + life / 2
            }
        };
        wanted && self.asked.is_none() && now.instant >= self.next
    }

    /// Draws a key and returns what the identity key is to sign.
    ///
    /// # Errors
    /// [`IdentityError`] if no attestation can be made at that time.
    pub(super) fn ask(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        history: &ChangeHistory,
        sequence: u64,
    ) -> Result<SignRequest, IdentityError> {
        let not_before = now.wall.unix_secs().saturating_sub(BACKDATED_SECS);
        let draft = StatementKeyDraft::new(entropy, history, not_before, LIFETIME_SECS_MAX, sequence)?;
        self.last_id += 1;
        let request = SignRequest {
            id: self.last_id,
            message: draft.message(),
        };
        self.asked = Some(Asked {
            id: self.last_id,
            draft,
            until: now.instant + PATIENCE,
        });
        Ok(request)
    }

    /// Takes the answer of the identity key; returns whether there is a new key now. An answer that is late is dropped.
    pub(super) fn handle_signature(
        &mut self,
        now: Now,
        id: u64,
        result: Result<Signature, String>,
        history: &ChangeHistory,
    ) -> bool {
        let Some(asked) = self.asked.take_if(|asked| asked.id == id) else {
            return false;
        };
        let finished = result.and_then(|signature| {
            asked
                .draft
                .finish(signature, history)
                .map_err(|error| error.to_string())
        });
        match finished {
            Ok(key) => {
                self.current = Some(key);
                self.outdated = false;
                self.problem = None;
                self.pause = PAUSE_MIN;
                self.next = now.instant;
                true
            }
            Err(problem) => {
                self.fail(now, problem);
                false
            }
        }
    }

    /// Notes that the identity was rotated.
    pub(super) fn handle_rotation(&mut self, now: Now) {
        self.outdated = true;
        // A signature of the old key would not fit the new history.
        self.asked = None;
        self.next = now.instant;
    }

    /// Returns when something is to be done.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.asked.as_ref().map_or(self.next, |asked| asked.until)
    }

    fn fail(&mut self, now: Now, problem: String) {
        self.problem = Some(problem);
        self.next = now.instant + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}
