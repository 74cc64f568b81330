//! What time it is: asked of the authority, or of a peer that passes the question on to it (PROTOCOL.md §11).
//!
//! Only the authority's word counts, and only as the answer to a question of this node: so whoever carries question and answer
//! can hold them up for half a minute, and nothing else. A node that reaches its collector alone is told the time all the same.
//!
//! ```text
//!  gateway ──TimePlease n──▶ collector ──TimePlease n──▶ authority
//!          ◀──Time(n) signed──          ◀──Time(n) signed──
//! ```

use std::{collections::VecDeque, time::Duration};

use super::{ANSWER_WITHIN, AuthorityRequestKind, is_own};
use crate::{
    channel::ChannelId,
    entropy::Entropy,
    identity::Identifier,
    node::{Node, Output, Use, Wire},
    time::{ClockQuality, Instant, Now},
    trust::{Presentation, SignedTime, StatementKind, Trust, TrustError, TrustFrame},
};

/// What the peer of a channel was asked and told about the time.
#[derive(Debug, Default)]
pub(super) struct PeerClock {
    /// The question that waits for its answer.
    asked: Option<[u8; 16]>,
    /// When its question was taken last.
    told: Option<Instant>,
}

/// Questions of peers that this node passes on to the authority.
#[derive(Debug, Default)]
pub(in crate::node) struct Forwarding {
    /// Oldest first: the nonce, who asks, when, and whether it was passed on.
    questions: VecDeque<Forwarded>,
    /// When one was passed on last.
    last: Option<Instant>,
}

#[derive(Debug)]
struct Forwarded {
    nonce: [u8; 16],
    asker: ChannelId,
    at: Instant,
    sent: bool,
}

impl Forwarding {
    /// Returns how many questions wait.
    #[cfg(test)]
    pub(in crate::node) fn len(&self) -> usize {
        self.questions.len()
    }
}

impl Node {
    /// Answers a question as the authority, or passes it on; false if it comes too soon after another, or there are too many.
    pub(super) fn time_please(
        &mut self,
        now: Now,
        channel: ChannelId,
        used_for: Use,
        nonce: [u8; 16],
        wire: &mut dyn Wire,
    ) -> bool {
        let Some(known) = self.known.get_mut(&channel) else {
            return false;
        };
        let told = &mut known.dealings.clock.told;
        if told.is_some_and(|told| now.instant - told < TELL_EVERY) {
            return false;
        }
        *told = Some(now.instant);
        let peer = known.peer;
        if self.is_authority() {
            return self.authority_request(now, channel, used_for, 0, AuthorityRequestKind::Time(nonce));
        }
        // The authority's own question would come back to it.
        let authority = self.trust.as_ref().and_then(Trust::authority);
        if authority.is_none_or(|authority| authority == peer) {
            return true;
        }
        if self.forwarding.questions.len() >= FORWARDED_MAX {
            return false;
        }
        self.forwarding.questions.push_back(Forwarded {
            nonce,
            asker: channel,
            at: now.instant,
            sent: false,
        });
        self.forward_question(now, wire);
        true
    }

    fn is_authority(&self) -> bool {
        let own = self.channels.local().identifier();
        self.trust.as_ref().and_then(Trust::authority) == Some(own)
    }

    /// Passes the next question on, one a second at most: the authority answers no more in one channel.
    pub(super) fn forward_question(&mut self, now: Now, wire: &mut dyn Wire) {
        let forwarding = &mut self.forwarding;
        let is_over = |question: &Forwarded| now.instant - question.at >= ANSWER_WITHIN;
        forwarding.questions.retain(|question| !is_over(question));
        if forwarding
            .last
            .is_some_and(|last| now.instant - last < TELL_EVERY)
            || forwarding.questions.iter().all(|question| question.sent)
        {
            return;
        }
        let Some(channel) = self.channel_to_authority() else {
            return;
        };
        let forwarding = &mut self.forwarding;
        let Some(question) = forwarding.questions.iter_mut().find(|question| !question.sent) else {
            return;
        };
        question.sent = true;
        forwarding.last = Some(now.instant);
        let mut frames = Vec::new();
        TrustFrame::TimePlease {
            nonce: question.nonce,
        }
        .put(&mut frames);
        self.send_frames(now, channel, &frames, wire);
    }

    /// Returns a channel whose other end is the authority: the one for that, or any, as a relay has it at which the authority
    /// registers.
    fn channel_to_authority(&self) -> Option<ChannelId> {
        let authority = self.trust.as_ref().and_then(Trust::authority)?;
        self.authority_client.channel_up().or_else(|| {
            let mut known = self.known.iter();
            known
                .find(|(_, known)| known.peer == authority && known.admitted)
                .map(|(channel, _)| *channel)
        })
    }

    /// Takes the authority's time, or passes it on to who asked for it; false if it is not that, or nobody asked.
    pub(super) fn signed_time(
        &mut self,
        now: Now,
        channel: ChannelId,
        statement: &[u8],
        wire: &mut dyn Wire,
    ) -> bool {
        let Some(known) = self.known.get_mut(&channel) else {
            return false;
        };
        if known.dealings.is_distrusted(now.instant) {
            return false;
        }
        let peer = known.peer;
        let asked = known.dealings.clock.asked;
        if self.pass_time_on(now, peer, statement, wire) {
            return true;
        }
        let Some(trust) = &mut self.trust else {
            return false;
        };
        match trust.take_time(now.instant, statement) {
            Ok(wall) => {
                self.outputs.push_back(Output::Time(wall));
                self.settle_trust();
                true
            }
            // An answer that is late is nobody's fault, and several may have been asked.
            Err(TrustError::NotAsked) => {
                let known = self.known.get_mut(&channel);
                let answered = known.and_then(|known| known.dealings.clock.asked.take());
                answered.is_some() && answered == asked && answered == nonce_of(statement)
            }
            Err(_) => {
                self.distrust(now.instant, channel);
                false
            }
        }
    }

    /// Hands an answer of the authority on to whose question it answers; who asked verifies it.
    fn pass_time_on(&mut self, now: Now, peer: Identifier, statement: &[u8], wire: &mut dyn Wire) -> bool {
        let authority = self.trust.as_ref().and_then(Trust::authority);
        if self.forwarding.questions.is_empty() || authority != Some(peer) {
            return false;
        }
        let Some(nonce) = nonce_of(statement) else {
            return false;
        };
        let questions = &mut self.forwarding.questions;
        let place = questions
            .iter()
            .position(|question| question.sent && question.nonce == nonce);
        let Some(question) = place.and_then(|place| questions.remove(place)) else {
            return false;
        };
        let mut frames = Vec::new();
        TrustFrame::SignedTime {
            presentation: statement,
        }
        .put(&mut frames);
        self.send_frames(now, question.asker, &frames, wire);
        true
    }

    /// Asks what time it is, while this node's own clock cannot be believed: the authority, or who may pass it on, where it is not
    /// reached.
    pub(super) fn ask_time_again(&mut self, now: Now, entropy: &mut dyn Entropy, wire: &mut dyn Wire) {
        if now.wall.quality >= ClockQuality::Authority
            || self
                .authority_client
                .ask_time_at
                .is_some_and(|at| now.instant < at)
        {
            return;
        }
        self.authority_client.ask_time_at = Some(now.instant + ASK_EVERY);
        let asked: Vec<ChannelId> = match self.channel_to_authority() {
            Some(channel) => vec![channel],
            None => {
                let own = self.by_channel.iter().filter(|(channel, entry)| {
                    is_own(entry.used_for) && self.known.get(channel).is_some_and(|known| known.admitted)
                });
                own.map(|(channel, _)| *channel).take(QUESTIONS_MAX).collect()
            }
        };
        let Some(trust) = self.trust.as_mut().filter(|_| !asked.is_empty()) else {
            return;
        };
        // One question for all: the first answer counts.
        let nonce = trust.ask_time(now.instant, entropy);
        let mut frames = Vec::new();
        TrustFrame::TimePlease { nonce }.put(&mut frames);
        for channel in asked {
            if let Some(known) = self.known.get_mut(&channel) {
                known.dealings.clock.asked = Some(nonce);
            }
            self.send_frames(now, channel, &frames, wire);
        }
    }

    /// Forgets what was asked in a channel that is no more.
    pub(in crate::node) fn forget_questions(&mut self, channel: ChannelId) {
        let questions = &mut self.forwarding.questions;
        questions.retain(|question| question.asker != channel);
    }
}

/// Reads which question a signed time answers, if it is one at all; nothing is verified.
fn nonce_of(statement: &[u8]) -> Option<[u8; 16]> {
    let presented = Presentation::decode(StatementKind::Time, statement).ok()?;
    let time = SignedTime::decode(presented.signed().statement()).ok()?;
    Some(time.nonce)
}

/// How often the time is asked for while the clock cannot be believed.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// Channels in which it is asked for.
const QUESTIONS_MAX: usize = 4;
/// How often a question of one channel is taken, and how often one is passed on.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Questions of others that wait at a time (PROTOCOL.md §14): as many as can be passed on within their time.
pub(in crate::node) const FORWARDED_MAX: usize = 30;
