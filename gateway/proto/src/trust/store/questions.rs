//! Questions for the time that wait for an answer.

use std::{collections::VecDeque, time::Duration};

use crate::{entropy::Entropy, time::Instant};

/// Questions at the same time.
const QUESTIONS_MAX: usize = 16;
/// How long an answer is waited for (PROTOCOL.md §11).
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The questions asked last, oldest first.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: VecDeque<([u8; 16], Instant)>,
}

impl Questions {
    /// Draws a nonce; of too many questions the oldest is forgotten.
    pub(super) fn ask(&mut self, now: Instant, entropy: &mut dyn Entropy) -> [u8; 16] {
        let mut nonce = [0; 16];
        entropy.fill(&mut nonce);
        if self.open.len() >= QUESTIONS_MAX {
            self.open.pop_front();
        }
        self.open.push_back((nonce, now));
        nonce
    }

    /// Returns for how long the question with `nonce` has been waiting, unless that is too long.
    pub(super) fn waiting_for(&self, now: Instant, nonce: &[u8; 16]) -> Option<Duration> {
        self.open
            .iter()
            .find(|(open, _)| open == nonce)
            .map(|(_, asked)| now.saturating_since(*asked))
            .filter(|waited| *waited <= ANSWER_WITHIN)
    }

    /// Forgets a question: an answer counts once.
    pub(super) fn answered(&mut self, nonce: &[u8; 16]) {
        self.open.retain(|(open, _)| open != nonce);
    }
}
