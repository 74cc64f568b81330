//! What time it is, asked of the authority and of peers, and answered (PROTOCOL.md §11).

use std::time::Duration;

use super::{ANSWER_WITHIN, AuthorityRequestKind, is_own};
use crate::{
    channel::ChannelId,
    entropy::Entropy,
    node::{Node, Output, Use, Wire},
    time::{ClockQuality, Instant, Now, WallTime},
    trust::{TrustError, TrustFrame},
};

/// What the peer of a channel was asked and told about the time.
#[derive(Debug, Default)]
pub(super) struct PeerClock {
    /// The question that waits for its answer, and when it was asked.
    asked: Option<([u8; 16], Instant)>,
    /// When it was told last.
    told: Option<Instant>,
}

impl Node {
    /// Answers a question, as the authority or with this node's own clock; false if it comes too soon after another.
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
        if used_for == Use::Asker {
            return self.authority_request(now, channel, used_for, 0, AuthorityRequestKind::Time(nonce));
        }
        if now.wall.quality > ClockQuality::Unknown {
            let mut frames = Vec::new();
            TrustFrame::OwnTime {
                nonce,
                wall: now.wall,
            }
            .put(&mut frames);
            self.send_frames(now, channel, &frames, wire);
        }
        true
    }

    /// Takes the authority's time; false if it is not that, or nobody asked.
    pub(super) fn signed_time(&mut self, now: Now, channel: ChannelId, statement: &[u8]) -> bool {
        let distrusted = self
            .known
            .get(&channel)
            .is_none_or(|known| known.dealings.is_distrusted(now.instant));
        let Some(trust) = self.trust.as_mut().filter(|_| !distrusted) else {
            return false;
        };
        match trust.take_time(now.instant, statement) {
            Ok(wall) => {
                self.outputs.push_back(Output::Time(wall));
                self.settle_trust();
                true
            }
            // An answer that is late is nobody's fault.
            Err(TrustError::NotAsked) => false,
            Err(_) => {
                self.distrust(now.instant, channel);
                false
            }
        }
    }

    /// Takes the time of a peer that was asked; false if it was not, or does not know either.
    pub(super) fn peer_time(
        &mut self,
        now: Now,
        channel: ChannelId,
        nonce: [u8; 16],
        wall: WallTime,
    ) -> bool {
        let Some(known) = self.known.get_mut(&channel) else {
            return false;
        };
        let asked = known.dealings.clock.asked;
        let Some((_, at)) = asked.filter(|(asked, _)| *asked == nonce) else {
            return false;
        };
        // One answer for each question.
        known.dealings.clock.asked = None;
        let took = now.instant - at;
        if took > ANSWER_WITHIN || wall.quality == ClockQuality::Unknown {
            return false;
        }
        let half = u64::try_from(took.as_millis() / 2).unwrap_or(0);
        let wall = WallTime {
            unix_millis: wall.unix_millis.saturating_add(half),
            quality: wall.quality,
        };
        let peer = known.peer;
        self.outputs.push_back(Output::PeerTime { peer, wall });
        true
    }

    /// Asks what time it is in the channels this node opened, while its own clock cannot be believed.
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
        let own = self.by_channel.iter().filter(|(channel, entry)| {
            is_own(entry.used_for) && self.known.get(channel).is_some_and(|known| known.admitted)
        });
        let mut asked: Vec<(bool, ChannelId)> = own
            .map(|(channel, entry)| (entry.used_for != Use::Authority, *channel))
            .collect();
        // The authority first: only its word is signed.
        asked.sort_unstable();
        asked.truncate(QUESTIONS_MAX);
        let Some(trust) = self.trust.as_mut().filter(|_| !asked.is_empty()) else {
            return;
        };
        // One question for all: the first answer counts.
        let nonce = trust.ask_time(now.instant, entropy);
        let mut frames = Vec::new();
        TrustFrame::TimePlease { nonce }.put(&mut frames);
        for (_, channel) in asked {
            if let Some(known) = self.known.get_mut(&channel) {
                known.dealings.clock.asked = Some((nonce, now.instant));
            }
            self.send_frames(now, channel, &frames, wire);
        }
    }
}

/// How often the time is asked for while the clock cannot be believed.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// Channels in which it is asked for.
const QUESTIONS_MAX: usize = 4;
/// How often a channel is told.
const TELL_EVERY: Duration = Duration::from_secs(1);
