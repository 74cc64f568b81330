//! The queue of a worker: priorities, deadlines, back-off. It knows no thread and no clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Completion, Priority, Request, Statistics};
use crate::error::{Error, Stage};
use crate::pkcs11::Recoveries;
use crate::process::ProcessState;
use crate::signer::Signature;

/// What the signer thread does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Sign this message and report with [`Queue::finish`].
    Sign(Vec<u8>),
    /// Leave the token alone until then, or until something changes.
    WaitUntil(Instant),
    /// Nothing to do.
    Empty,
}

/// Requests that wait, and the one the token has.
///
/// ```text
///  submit ─▶ waiting ──next──▶ signing ──finish──▶ completion
///               ▲ │                │ └─ Unavailable: back to the front, token left alone until `retry_at`
///               └─┼────────────────┘
///                 └──expire──▶ TimedOut         (a request timed out while signing leaves a stuck token)
/// ```
///
/// Invariant: every request taken leads to exactly one completion.
pub(super) struct Queue {
    lanes: [VecDeque<Waiting>; 3],
    waiting_max: usize,
    signing: Option<Signing>,
    retry_at: Option<Instant>,
    /// Text of the failure that set `retry_at`.
    problem: String,
    statistics: Statistics,
}

struct Waiting {
    request: Request,
    submitted_at: Instant,
    deadline: Instant,
}

impl Waiting {
    fn complete(&self, now: Instant, result: Result<Signature, Error>) -> Completion {
        let elapsed = now.saturating_duration_since(self.submitted_at);
        Completion {
            id: self.request.id,
            result,
            elapsed,
        }
    }

    fn time_out(&self, now: Instant, stage: Stage) -> Completion {
        self.complete(
            now,
            Err(Error::TimedOut {
                after: self.request.timeout,
                stage,
            }),
        )
    }
}

struct Signing {
    /// `None` once it has been answered with a time-out.
    waiting: Option<Waiting>,
    began_at: Instant,
}

impl Queue {
    pub(super) fn new(waiting_max: usize) -> Self {
        Self {
            lanes: [VecDeque::new(), VecDeque::new(), VecDeque::new()],
            waiting_max,
            signing: None,
            retry_at: None,
            problem: String::new(),
            statistics: Statistics::default(),
        }
    }

    /// Takes a request, or refuses it when its lane is full: a flood of one priority closes out no other.
    pub(super) fn submit(&mut self, now: Instant, request: Request) -> Result<(), Error> {
        let limit = self.waiting_max;
        let lane = self.lane(request.priority);
        if lane.len() >= limit {
            let error = Error::QueueFull { limit };
            self.statistics.refused = self.statistics.refused.saturating_add(1);
            self.count(&error);
            return Err(error);
        }
        let timeout = request.timeout.min(TIMEOUT_MAX);
        let deadline = now.checked_add(timeout).unwrap_or(now);
        lane.push_back(Waiting {
            request,
            submitted_at: now,
            deadline,
        });
        Ok(())
    }

    /// Picks what the signer thread does at `now`; call only while it is idle.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        assert!(self.signing.is_none(), "one signature at a time");
        if self.lanes.iter().all(VecDeque::is_empty) {
            return Next::Empty;
        }
        if let Some(retry_at) = self.retry_at {
            if now < retry_at {
                return Next::WaitUntil(retry_at);
            }
            self.retry_at = None;
        }
        // What has timed out is for `expire`, not for the token.
        for lane in &mut self.lanes {
            if let Some(index) = lane.iter().position(|waiting| now < waiting.deadline) {
                let waiting = lane
                    .remove(index)
                    .expect("`position` found the index in this lane");
                let message = waiting.request.message.clone();
                self.signing = Some(Signing {
                    waiting: Some(waiting),
                    began_at: now,
                });
                return Next::Sign(message);
            }
        }
        Next::Empty
    }

    /// Takes the signer's answer to the last [`Next::Sign`].
    pub(super) fn finish(&mut self, now: Instant, result: Result<Signature, Error>) -> Option<Completion> {
        let signing = self.signing.take()?;
        self.statistics.stuck = false;
        match &result {
            Ok(_) => {
                let latency = now.saturating_duration_since(signing.began_at);
                self.statistics.signatures = self.statistics.signatures.saturating_add(1);
                self.statistics.latency_last = latency;
                self.statistics.latency_max = self.statistics.latency_max.max(latency);
            }
            Err(error) => {
                self.count(error);
                if let Some(pause) = error.retry_after() {
                    self.retry_at = now.checked_add(pause);
                    self.problem = chain(error);
                }
            }
        }
        let Some(waiting) = signing.waiting else {
            self.statistics.late = self.statistics.late.saturating_add(1);
            return None;
        };
        let is_worth_waiting = result.as_ref().is_err_and(|error| error.retry_after().is_some());
        if is_worth_waiting && now < waiting.deadline {
            // At the front: it was there before the others. The lane may exceed its limit by this one.
            self.lane(waiting.request.priority).push_front(waiting);
            return None;
        }
        Some(waiting.complete(now, result))
    }

    /// Answers all requests whose deadline has passed at `now`.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Completion> {
        let mut completions = Vec::new();
        if let Some(signing) = &mut self.signing
            && let Some(waiting) = signing.waiting.take_if(|waiting| waiting.deadline <= now)
        {
            completions.push(waiting.time_out(now, Stage::Signing));
            self.statistics.stuck = true;
            self.statistics.stuck_total = self.statistics.stuck_total.saturating_add(1);
        }
        let stage = match self.retry_at {
            Some(_) => Stage::Waiting(self.problem.clone()),
            None => Stage::Queued,
        };
        for lane in &mut self.lanes {
            lane.retain(|waiting| {
                let is_late = waiting.deadline <= now;
                if is_late {
                    completions.push(waiting.time_out(now, stage.clone()));
                }
                !is_late
            });
        }
        for completion in &completions {
            if let Err(error) = &completion.result {
                self.count(error);
            }
        }
        completions
    }

    /// Returns when [`expire`](Self::expire) has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let signing = self.signing.as_ref().and_then(|signing| signing.waiting.as_ref());
        self.lanes
            .iter()
            .flatten()
            .chain(signing)
            .map(|waiting| waiting.deadline)
            .min()
    }

    /// Answers everything with the same error, the request that is being signed included.
    pub(super) fn fail_all(&mut self, now: Instant, error: &Error) -> Vec<Completion> {
        let signing = self.signing.as_mut().and_then(|signing| signing.waiting.take());
        let waiting = signing
            .into_iter()
            .chain(self.lanes.iter_mut().flat_map(|lane| lane.drain(..)));
        let completions: Vec<Completion> = waiting
            .map(|waiting| waiting.complete(now, Err(error.clone())))
            .collect();
        for _ in &completions {
            self.count(error);
        }
        completions
    }

    /// Answers everything because the worker ends.
    pub(super) fn stop(&mut self, now: Instant) -> Vec<Completion> {
        self.fail_all(now, &Error::Stopped)
    }

    pub(super) fn set_signer(&mut self, recoveries: Recoveries, process: Option<ProcessState>) {
        self.statistics.recoveries = recoveries;
        self.statistics.process = process;
    }

    pub(super) fn statistics(&self) -> Statistics {
        let waiting = self.lanes.iter().map(VecDeque::len).sum();
        Statistics {
            waiting,
            ..self.statistics.clone()
        }
    }

    const fn lane(&mut self, priority: Priority) -> &mut VecDeque<Waiting> {
        let [renewal, live_proof, enrolment] = &mut self.lanes;
        match priority {
            Priority::Renewal => renewal,
            Priority::LiveProof => live_proof,
            Priority::Enrolment => enrolment,
        }
    }

    fn count(&mut self, error: &Error) {
        let count = self.statistics.errors.entry(error.kind()).or_default();
        *count = count.saturating_add(1);
    }
}

/// Returns an error's text and those of its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Longest time a request is kept: a day, the life of an attestation.
const TIMEOUT_MAX: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests;
