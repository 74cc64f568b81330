//! Trust in a network: credentials, the list of the revoked, the time, and the way to the authority (PROTOCOL.md §11).
//!
//! `lists` passes lists on, `client` asks this node's authority, `service` is the authority's side of that, `clock` asks what
//! time it is.

mod client;
mod clock;
mod lists;
mod service;

use std::{collections::VecDeque, sync::Arc, time::Duration};

pub(super) use client::TrustClient;
#[cfg(test)]
pub(super) use clock::FORWARDED_MAX;
pub(super) use clock::Forwarding;
pub(super) use lists::Lists;
pub use service::{AuthorityAnswer, AuthorityRequest, AuthorityRequestKind};

use super::{Event, Node, Output, Use, Wire};
use crate::{
    channel::{ChannelId, CloseCode},
    entropy::Entropy,
    identity::Identifier,
    time::{Instant, Now},
    trust::{Credential, Freshness, Standing, StatusList, Trust, TrustError, TrustFrame, TrustOutput},
};

/// Where the channel to the authority stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthorityState {
    /// This node has no way to an authority.
    #[default]
    None,
    /// No neighbour on any way is ready, or the last attempt failed a moment ago.
    Waiting,
    /// The handshake is under way.
    Connecting,
    /// The channel is up.
    Up,
}

/// What can be seen of trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustView {
    /// Who is trusted.
    pub authority: Option<Identifier>,
    /// Where the channel to it stands.
    pub state: AuthorityState,
    /// This node's credential.
    pub credential: Option<Arc<Credential>>,
    /// Number of the list of the revoked.
    pub list_number: u64,
    /// How fresh it is.
    pub freshness: Freshness,
    /// Whether it names this node.
    pub self_revoked: bool,
    /// Peers served on a credential that counts for the time of grace only.
    pub peers_in_grace: usize,
}

/// What became of a request of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The authority agreed: this node is enrolled, or its credential renewed.
    Issued,
    /// The authority refused.
    Denied,
    /// The authority's answer to a request to manage.
    Managed(String),
    /// The request is longer than 65,000 bytes, and was not sent.
    TooLong,
    /// Nothing came back in time, or nothing that can be used.
    Unanswered,
}

/// Longest text of a request to manage and of its answer, in bytes.
const MANAGE_LEN_MAX: usize = 65_000;

/// What is between this node and the peer of one channel, beside what the channel is for.
#[derive(Debug, Default)]
pub(super) struct Dealings {
    list: lists::PeerList,
    clock: clock::PeerClock,
    /// When the requests that wait for this authority's answer came, oldest first.
    requests: VecDeque<Instant>,
    /// Until then nothing that costs a signature to judge is looked at.
    distrusted_until: Option<Instant>,
}

impl Dealings {
    /// Returns how many requests wait for this authority's answer.
    #[cfg(test)]
    pub(super) fn unanswered(&self) -> usize {
        self.requests.len()
    }

    fn is_distrusted(&self, now: Instant) -> bool {
        self.distrusted_until.is_some_and(|until| now < until)
    }
}

impl Node {
    /// Has the node believe what `trust` believes, and present its credential. Call it before anything else.
    #[must_use]
    pub fn trusting(mut self, trust: Trust) -> Self {
        let presentation = trust.own().map(|own| Arc::clone(&own.presentation));
        let set = self.channels.set_presentation(presentation);
        debug_assert!(
            set.is_ok(),
            "what was verified is no longer than a presentation may be"
        );
        self.trust = Some(trust);
        self
    }

    /// Takes this node's own credential, and presents it in every channel.
    ///
    /// # Errors
    /// [`TrustError`] if it is not one of the trusted authority for this node.
    pub fn take_credential(&mut self, now: Now, presentation: &[u8]) -> Result<(), TrustError> {
        let Some(trust) = &mut self.trust else {
            return Ok(());
        };
        let credential = trust.set_own(now.wall, presentation)?;
        let own = trust.own().map(|own| Arc::clone(&own.presentation));
        self.authority_client
            .credential_taken(now.instant, client::half_life(&credential));
        // What was verified is no longer than a presentation may be.
        if self.channels.set_presentation(own).is_ok() {
            self.channels.present_everywhere(now);
        }
        self.settle_trust();
        Ok(())
    }

    /// Verifies what a peer presents; `None` without a credential that counts.
    pub(super) fn verify_presentation(
        &mut self,
        now: Now,
        peer: Identifier,
        presentation: &[u8],
    ) -> Option<Arc<Credential>> {
        if presentation.is_empty() {
            return None;
        }
        let verified = self.trust.as_mut()?.verify(now.wall, peer, presentation);
        // It may have told more of the authority's history.
        self.settle_trust();
        match verified {
            Ok(credential) => Some(credential),
            Err(error) => {
                self.stats.credentials_refused += 1;
                self.event(Event::CredentialRefused { peer, error });
                None
            }
        }
    }

    pub(super) fn standing(&self, now: Now, credential: &Credential) -> Standing {
        self.trust
            .as_ref()
            .map_or(Standing::Expired, |trust| trust.check(now.wall, credential))
    }

    pub(super) fn freshness(&self, now: Now) -> Freshness {
        self.trust
            .as_ref()
            .map_or(Freshness::NoList, |trust| trust.freshness(now.wall))
    }

    /// Takes another credential of a peer.
    pub(super) fn handle_presented(
        &mut self,
        now: Now,
        channel: ChannelId,
        presentation: &[u8],
        wire: &mut dyn Wire,
    ) {
        let Some(peer) = self.known.get(&channel).map(|known| known.peer) else {
            return;
        };
        let credential = self.verify_presentation(now, peer, presentation);
        // One that does not verify changes nothing; an empty one takes back what was presented before.
        if credential.is_none() && !presentation.is_empty() {
            return;
        }
        if let Some(known) = self.known.get_mut(&channel) {
            known.credential = credential;
            known.grace_said = false;
        }
        self.commands.rights_changed();
        self.authorise_again(now, channel, wire);
    }

    /// A channel may be used from now on: both ends say which list they have.
    pub(super) fn admitted(&mut self, now: Now, channel: ChannelId, wire: &mut dyn Wire) {
        let Some(known) = self.known.get_mut(&channel) else {
            return;
        };
        known.admitted = true;
        let used_for = self.by_channel.get(&channel).map(|entry| entry.used_for);
        if used_for.is_some_and(is_own) {
            // While the clock cannot be believed, whoever was reached is asked with the next sweep.
            self.authority_client.ask_time_at = None;
        }
        self.say_have(now, channel, wire);
        // It may have said before which list it has.
        self.offer_list(now, channel, wire);
    }

    /// Takes a frame about trust; false if it is bad.
    pub(super) fn trust_frame(
        &mut self,
        now: Now,
        channel: ChannelId,
        used_for: Use,
        (kind, body): (u8, &[u8]),
        wire: &mut dyn Wire,
    ) -> bool {
        let Ok(frame) = TrustFrame::decode(kind, body) else {
            return false;
        };
        let Some(frame) = frame else { return true };
        let Some(known) = self.known.get(&channel) else {
            return false;
        };
        if let TrustFrame::StatusHave { authority, number } = frame {
            // It is taken note of before the channel is in use: it is said once.
            self.status_have(now, channel, (authority, number), wire);
            return true;
        }
        if !known.admitted {
            return false;
        }
        match frame {
            TrustFrame::StatusHave { .. } => true,
            TrustFrame::StatusPart(part) => self.status_part(now, channel, part, wire),
            TrustFrame::TimePlease { nonce } => self.time_please(now, channel, used_for, nonce, wire),
            TrustFrame::SignedTime { presentation } => self.signed_time(now, channel, presentation, wire),
            TrustFrame::Enrol {
                request,
                signed_request,
            } => {
                let kind = AuthorityRequestKind::Enrol(signed_request.to_vec());
                self.authority_request(now, channel, used_for, request, kind)
            }
            TrustFrame::Renew { request } => {
                self.authority_request(now, channel, used_for, request, AuthorityRequestKind::Renew)
            }
            TrustFrame::Manage { request, text } => {
                let kind = AuthorityRequestKind::Manage(text.to_owned());
                self.authority_request(now, channel, used_for, request, kind)
            }
            TrustFrame::Issued {
                request,
                presentation,
            } => self.issued(now, used_for, (request, presentation), wire),
            TrustFrame::Denied { request } => self.denied(now, used_for, request, wire),
            TrustFrame::Managed { request, text } => self.managed(now, used_for, (request, text), wire),
        }
    }

    /// Hands on what has to be kept on disk.
    fn settle_trust(&mut self) {
        while let Some(output) = self.trust.as_mut().and_then(Trust::poll_output) {
            match output {
                TrustOutput::Save { what, bytes } => self.outputs.push_back(Output::Save { what, bytes }),
            }
        }
    }

    pub(super) fn poll_trust_timeout(&self) -> Option<Instant> {
        let sweep = self.needs_sweep().then_some(self.next_trust_sweep);
        let lists = self.lists.poll_timeout().map(|due| due.max(self.next_list_push));
        [lists, sweep, self.authority_client.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn needs_sweep(&self) -> bool {
        self.trust.is_some() || self.accesses.has_work()
    }

    /// Connects, renews, passes lists on and ends what has expired.
    pub(super) fn time_out_trust(&mut self, now: Now, entropy: &mut dyn Entropy, wire: &mut dyn Wire) {
        if self.authority_client.wants_to_connect(now.instant) {
            self.connect_authority(now, entropy, wire);
        }
        if self
            .lists
            .poll_timeout()
            .is_some_and(|due| now.instant >= due.max(self.next_list_push))
        {
            self.push_lists(now, wire);
        }
        if !self.needs_sweep() || now.instant < self.next_trust_sweep {
            return;
        }
        self.next_trust_sweep = now.instant + SWEEP_EVERY;
        for channel in self.accesses.overstayed(now.instant) {
            self.end_guest(now, entropy, channel, wire);
        }
        self.authorise_later(now, wire);
        self.sweep_requests(now, wire);
        self.sweep_peers(now);
        self.say_have_again(now, wire);
        self.renew(now, entropy, wire);
        self.ask_time_again(now, entropy, wire);
        self.forward_question(now, wire);
        let freshness = self.freshness(now);
        if self.trust.is_some() && self.lists.note_freshness(freshness) {
            self.event(Event::FreshnessChanged { freshness });
        }
        let own = self.channels.local().identifier();
        let revoked = self.trust.as_ref().is_some_and(|trust| trust.is_revoked(&own));
        if self.lists.note_self_revoked(revoked) {
            self.event(Event::SelfRevoked { revoked });
        }
    }

    /// Ends channels whose peer was admitted on a credential that does not count any more.
    fn sweep_peers(&mut self, now: Now) {
        let mut ended = Vec::new();
        let mut grace = Vec::new();
        let Some(trust) = &self.trust else { return };
        for (channel, known) in &mut self.known {
            let Some(credential) = known.credential.as_ref().filter(|_| known.rests_on_credential) else {
                continue;
            };
            let standing = trust.check(now.wall, credential);
            if !standing.counts() {
                ended.push((*channel, known.peer, standing));
            } else if let Standing::Grace { since } = standing {
                if !std::mem::replace(&mut known.grace_said, true) {
                    grace.push((known.peer, since));
                }
            } else {
                known.grace_said = false;
            }
        }
        for (peer, since) in grace {
            self.event(Event::PeerInGrace { peer, since });
        }
        for (channel, peer, standing) in ended {
            self.commands.rights_changed();
            self.event(Event::PeerEnded { peer, standing });
            self.close_channel(channel, CloseCode::NOT_AUTHORISED);
        }
    }

    /// Looks at nothing of a channel for a while that costs a signature: what came of it did not verify.
    fn distrust(&mut self, now: Instant, channel: ChannelId) {
        if let Some(known) = self.known.get_mut(&channel) {
            known.dealings.distrusted_until = Some(now + DISTRUST_TIME);
        }
    }

    /// Returns what can be seen of trust; `None` if this node trusts no authority and is none.
    #[must_use]
    pub fn trust_view(&self, now: Now) -> Option<TrustView> {
        let trust = self.trust.as_ref()?;
        Some(TrustView {
            authority: trust.authority(),
            state: self.authority_client.state(),
            credential: trust.own().map(|own| Arc::clone(&own.credential)),
            list_number: trust.status().map_or(0, StatusList::number),
            freshness: trust.freshness(now.wall),
            self_revoked: trust.is_revoked(&self.channels.local().identifier()),
            peers_in_grace: self.known.values().filter(|known| known.grace_said).count(),
        })
    }
}

/// Returns whether this node opened the channel.
const fn is_own(used_for: Use) -> bool {
    matches!(
        used_for,
        Use::Authority
            | Use::Registrar { .. }
            | Use::Uplink { .. }
            | Use::Inlet { .. }
            | Use::Carrier { neighbour: Some(_) }
    )
}

/// How often what expires is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How long nothing that costs a signature is taken from a channel in which such a thing did not verify.
const DISTRUST_TIME: Duration = Duration::from_secs(10);
/// How long an answer is waited for, by who asks and by who has to answer (PROTOCOL.md §11).
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Requests of one channel without an answer (PROTOCOL.md §11).
const UNANSWERED_MAX: usize = 16;
