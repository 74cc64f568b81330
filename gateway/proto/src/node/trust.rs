//! Trust in a network: the way to the authority, credentials, and the list of the revoked (PROTOCOL.md §11).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{ChannelEntry, Event, Links, Node, Output, Use, Wire, flow_path, settings::AUTHORITY};
use crate::{
    channel::{ChannelId, CloseCode, PqPolicy},
    entropy::Entropy,
    identity::Identifier,
    link::{Backoff, BackoffSettings},
    route::{Address, FlowId, LinkWriter as _, Route},
    time::{ClockQuality, Instant, Now},
    trust::{
        Assembler, Credential, Freshness, Rights, Standing, StatusList, StatusPart, Trust, TrustError, TrustFrame,
        TrustOutput, status_parts,
    },
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
    /// Peers served although their credential has expired.
    pub peers_in_grace: usize,
}

/// A request of a channel to this authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityRequest {
    /// The channel it came in; for [`Node::handle_authority_answer`].
    pub channel: ChannelId,
    /// Who asks.
    pub peer: Identifier,
    /// What its credential, if it has one that counts, lets it do at the authority.
    pub rights: Rights,
    /// The asker's number.
    pub request: u32,
    /// What is asked.
    pub kind: AuthorityRequestKind,
}

/// What an authority is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityRequestKind {
    /// To enrol: the signed request.
    Enrol(Vec<u8>),
    /// For a credential in the place of one that ends.
    Renew,
    /// To manage members and tickets: JSON text.
    Manage(String),
    /// What time it is: the nonce.
    Time([u8; 16]),
}

/// The authority's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityAnswer {
    /// A presentation.
    Issued(Vec<u8>),
    /// No.
    Denied,
    /// JSON text.
    Managed(String),
    /// A signed time: history and statement.
    Time(Vec<u8>),
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
    /// Nothing came back in time.
    Unanswered,
}

/// The way to the authority.
#[derive(Debug)]
pub(super) struct TrustClient {
    ways: Vec<(usize, Option<String>)>,
    pq: PqPolicy,
    state: AuthorityState,
    channel: Option<(ChannelId, FlowId)>,
    way: usize,
    backoff: Backoff,
    retry_at: Option<Instant>,
    next_request: u32,
    /// By request: who wants the answer (`None`: this node itself, for its renewal), and until when.
    waiting: BTreeMap<u32, (Option<u64>, Instant)>,
    /// What waits for the channel.
    queue: VecDeque<(Option<u64>, Question, Instant)>,
    renewal: Backoff,
    renew_at: Option<Instant>,
    ask_time_at: Option<Instant>,
    /// The nonce of the newest question about the time.
    asked_time: Option<[u8; 16]>,
}

/// What a node asks its authority.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Question {
    Enrol(Vec<u8>),
    Renew,
    Manage(String),
}

/// What all channels share.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// Parts of lists on their way here.
    assembler: Assembler<ChannelId>,
    /// Channels that wait for the newest list.
    queue: VecDeque<ChannelId>,
    freshness: Option<Freshness>,
}

impl TrustClient {
    pub(super) fn new(now: Instant, ways: Vec<(usize, Option<String>)>, pq: PqPolicy) -> Self {
        Self {
            state: if ways.is_empty() {
                AuthorityState::None
            } else {
                AuthorityState::Waiting
            },
            ways,
            pq,
            channel: None,
            way: 0,
            backoff: Backoff::new(BACKOFF),
            retry_at: Some(now),
            next_request: 1,
            waiting: BTreeMap::new(),
            queue: VecDeque::new(),
            renewal: Backoff::new(RENEWAL),
            renew_at: None,
            ask_time_at: None,
            asked_time: None,
        }
    }
}

impl Node {
    /// Has the node believe what `trust` believes, and present its credential. Call it before anything else.
    #[must_use]
    pub fn trusting(mut self, trust: Trust) -> Self {
        let presentation = trust.own().map(|own| Arc::clone(&own.presentation));
        self.channels
            .set_presentation(presentation)
            .expect("what was verified is no longer than a presentation may be");
        self.trust = Some(trust);
        self
    }

    /// Sends a signed request to enrol as soon as the authority is reached; [`Output::Asked`] says what became of it.
    pub fn enrol(&mut self, now: Now, id: u64, signed_request: Vec<u8>, wire: &mut dyn Wire) {
        self.ask(now, Some(id), Question::Enrol(signed_request), wire);
    }

    /// Sends a request to manage members or tickets; [`Output::Asked`] says what became of it.
    pub fn manage(&mut self, now: Now, id: u64, json: String, wire: &mut dyn Wire) {
        self.ask(now, Some(id), Question::Manage(json), wire);
    }

    fn ask(&mut self, now: Now, id: Option<u64>, question: Question, wire: &mut dyn Wire) {
        let client = &mut self.authority_client;
        if client.queue.len() >= QUEUE_MAX || client.state == AuthorityState::None {
            self.answered(id, Asked::Unanswered);
            return;
        }
        client.queue.push_back((id, question, now.instant + ANSWER_WITHIN));
        self.send_queue(now, wire);
    }

    /// Sends what waits, one record each: each may be as long as a record.
    fn send_queue(&mut self, now: Now, wire: &mut dyn Wire) {
        loop {
            let client = &mut self.authority_client;
            let (AuthorityState::Up, Some((channel, _))) = (client.state, client.channel) else {
                return;
            };
            if client.waiting.len() >= UNANSWERED_MAX {
                return;
            }
            let Some((id, question, until)) = client.queue.pop_front() else {
                return;
            };
            let request = client.next_request;
            client.next_request = client.next_request.wrapping_add(1);
            client.waiting.insert(request, (id, until));
            let frame = match question {
                Question::Enrol(ref signed_request) => TrustFrame::Enrol {
                    request,
                    signed_request,
                },
                Question::Renew => TrustFrame::Renew { request },
                Question::Manage(ref text) => TrustFrame::Manage { request, text },
            };
            let mut frames = Vec::new();
            frame.put(&mut frames);
            self.send_frames(now, channel, &frames, wire);
        }
    }

    fn answered(&mut self, id: Option<u64>, asked: Asked) {
        if let Some(id) = id {
            self.outputs.push_back(Output::Asked { id, asked });
        }
    }

    /// Takes the list of the revoked that this node, the authority, has made.
    ///
    /// # Errors
    /// [`TrustError`] if it is not one.
    pub fn publish_status(&mut self, now: Now, list: &[u8], wire: &mut dyn Wire) -> Result<(), TrustError> {
        self.take_status(now, list, wire)
    }

    /// Takes this node's own credential, and presents it in every channel.
    ///
    /// # Errors
    /// [`TrustError`] if it is not one of the trusted authority for this node.
    pub fn take_credential(&mut self, now: Now, presentation: &[u8]) -> Result<(), TrustError> {
        let Some(trust) = &mut self.trust else {
            return Ok(());
        };
        trust.set_own(now.wall, presentation)?;
        let own = trust.own().map(|own| Arc::clone(&own.presentation));
        // What was verified is no longer than a presentation may be.
        if self.channels.set_presentation(own).is_ok() {
            self.channels.present_everywhere(now);
        }
        self.settle_trust();
        Ok(())
    }

    /// Takes the answer of this node's authority to a request.
    pub fn handle_authority_answer(
        &mut self,
        now: Now,
        channel: ChannelId,
        request: u32,
        answer: &AuthorityAnswer,
        wire: &mut dyn Wire,
    ) {
        if !matches!(
            self.by_channel.get(&channel),
            Some(ChannelEntry {
                used_for: Use::Asker,
                ..
            })
        ) {
            return;
        }
        let mut frames = Vec::new();
        match answer {
            AuthorityAnswer::Issued(presentation) => TrustFrame::Issued { request, presentation },
            AuthorityAnswer::Denied => TrustFrame::Denied { request },
            AuthorityAnswer::Managed(text) => TrustFrame::Managed { request, text },
            AuthorityAnswer::Time(presentation) => TrustFrame::SignedTime { presentation },
        }
        .put(&mut frames);
        self.send_frames(now, channel, &frames, wire);
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
        self.authorise_again(now, channel, wire);
    }

    /// A channel may be used from now on: both ends say which list they have.
    pub(super) fn admitted(&mut self, now: Now, channel: ChannelId, wire: &mut dyn Wire) {
        let Some(known) = self.known.get_mut(&channel) else {
            return;
        };
        known.admitted = true;
        let used_for = self.by_channel.get(&channel).map(|entry| entry.used_for);
        if matches!(
            used_for,
            Some(Use::Authority | Use::Registrar { .. } | Use::Uplink { .. })
        ) {
            // While the clock cannot be believed, whoever was reached is asked with the next sweep.
            self.authority_client.ask_time_at = None;
        }
        if let Some(have) = self.trust.as_ref().and_then(Trust::status_have) {
            let mut frames = Vec::new();
            have.put(&mut frames);
            self.send_frames(now, channel, &frames, wire);
        }
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
        let Some(known) = self.known.get(&channel).filter(|known| known.admitted) else {
            return false;
        };
        let peer = known.peer;
        match frame {
            TrustFrame::StatusHave { authority, number } => {
                self.status_have(now, channel, (authority, number), wire);
            }
            TrustFrame::StatusPart(part) => return self.status_part(now, channel, part, wire),
            TrustFrame::TimePlease { nonce } => self.time_please(now, channel, used_for, nonce, wire),
            TrustFrame::SignedTime { presentation } => return self.signed_time(now, presentation),
            TrustFrame::OwnTime { nonce, wall } => {
                if self.authority_client.asked_time == Some(nonce) {
                    self.outputs.push_back(Output::PeerTime { peer, wall });
                }
            }
            TrustFrame::Enrol {
                request,
                signed_request,
            } => {
                let kind = AuthorityRequestKind::Enrol(signed_request.to_vec());
                return self.authority_request(now, channel, used_for, request, kind);
            }
            TrustFrame::Renew { request } => {
                return self.authority_request(now, channel, used_for, request, AuthorityRequestKind::Renew);
            }
            TrustFrame::Manage { request, text } => {
                let kind = AuthorityRequestKind::Manage(text.to_owned());
                return self.authority_request(now, channel, used_for, request, kind);
            }
            TrustFrame::Issued { request, presentation } => {
                return self.issued(now, used_for, request, presentation);
            }
            TrustFrame::Denied { request } => return self.denied(used_for, request),
            TrustFrame::Managed { request, text } => {
                let Some(id) = self.take_waiting(used_for, request) else {
                    return false;
                };
                self.answered(id, Asked::Managed(text.to_owned()));
            }
        }
        true
    }

    fn authority_request(
        &mut self,
        now: Now,
        channel: ChannelId,
        used_for: Use,
        request: u32,
        kind: AuthorityRequestKind,
    ) -> bool {
        let (Use::Asker, Some(known)) = (used_for, self.known.get(&channel)) else {
            return false;
        };
        let peer = known.peer;
        let rights = known
            .credential
            .as_ref()
            .filter(|credential| self.standing(now, credential).counts())
            .map(|credential| credential.rights)
            .unwrap_or_default();
        self.outputs
            .push_back(Output::Authority(Box::new(AuthorityRequest {
                channel,
                peer,
                rights,
                request,
                kind,
            })));
        true
    }

    /// Takes note that a request was answered; `None` if it was not asked.
    fn take_waiting(&mut self, used_for: Use, request: u32) -> Option<Option<u64>> {
        if used_for != Use::Authority {
            return None;
        }
        self.authority_client
            .waiting
            .remove(&request)
            .map(|(id, _)| id)
    }

    fn issued(&mut self, now: Now, used_for: Use, request: u32, presentation: &[u8]) -> bool {
        let Some(id) = self.take_waiting(used_for, request) else {
            return false;
        };
        match self.take_credential(now, presentation) {
            Ok(()) => {
                self.authority_client.renewal.handle_success(now.instant);
                self.authority_client.renew_at = None;
                if let Some(own) = self.trust.as_ref().and_then(Trust::own) {
                    let not_after = own.credential.not_after;
                    self.event(Event::CredentialTaken { not_after });
                }
                self.answered(id, Asked::Issued);
                true
            }
            Err(error) => {
                let peer = self.channels.local().identifier();
                self.event(Event::CredentialRefused { peer, error });
                self.answered(id, Asked::Unanswered);
                false
            }
        }
    }

    fn denied(&mut self, used_for: Use, request: u32) -> bool {
        let Some(id) = self.take_waiting(used_for, request) else {
            return false;
        };
        if id.is_none() {
            self.event(Event::RenewalDenied);
        }
        self.answered(id, Asked::Denied);
        true
    }

    fn time_please(
        &mut self,
        now: Now,
        channel: ChannelId,
        used_for: Use,
        nonce: [u8; 16],
        wire: &mut dyn Wire,
    ) {
        if used_for == Use::Asker {
            let kind = AuthorityRequestKind::Time(nonce);
            self.authority_request(now, channel, used_for, 0, kind);
        } else if now.wall.quality > ClockQuality::Unknown {
            let mut frames = Vec::new();
            TrustFrame::OwnTime { nonce, wall: now.wall }.put(&mut frames);
            self.send_frames(now, channel, &frames, wire);
        }
    }

    fn signed_time(&mut self, now: Now, statement: &[u8]) -> bool {
        let Some(trust) = &mut self.trust else {
            return false;
        };
        match trust.take_time(now.instant, statement) {
            Ok(wall) => {
                self.outputs.push_back(Output::Time(wall));
                self.settle_trust();
                true
            }
            Err(_) => false,
        }
    }

    fn status_have(
        &mut self,
        now: Now,
        channel: ChannelId,
        (authority, number): (Identifier, u64),
        wire: &mut dyn Wire,
    ) {
        let Some(trust) = self
            .trust
            .as_ref()
            .filter(|trust| trust.authority() == Some(authority))
        else {
            return;
        };
        let held = trust.status().map_or(0, StatusList::number);
        if let Some(known) = self.known.get_mut(&channel) {
            // What it says it has counts, even if it is less than before: it may have lost its disk.
            known.list_number = number;
        }
        if number < held {
            self.lists.queue.push_back(channel);
            self.push_lists(now, wire);
        }
    }

    fn status_part(
        &mut self,
        now: Now,
        channel: ChannelId,
        part: StatusPart<'_>,
        wire: &mut dyn Wire,
    ) -> bool {
        let Some(trust) = &self.trust else { return true };
        match trust.check_offer(part.authority, part.number) {
            Ok(newer) => {
                if let Some(known) = self.known.get_mut(&channel) {
                    known.list_number = known.list_number.max(part.number);
                }
                if !newer {
                    return true;
                }
            }
            // Another authority's is no fault of the peer's, and of no use here.
            Err(TrustError::Foreign { .. } | TrustError::NoAuthority) => return true,
            Err(error) => {
                self.list_refused(channel, error);
                return false;
            }
        }
        match self.lists.assembler.handle_part(channel, part) {
            Ok(None) => true,
            Ok(Some(list)) => match self.take_status(now, &list, wire) {
                Ok(()) => true,
                Err(error) => {
                    self.list_refused(channel, error);
                    false
                }
            },
            Err(_) => false,
        }
    }

    fn list_refused(&mut self, channel: ChannelId, error: TrustError) {
        self.stats.lists_refused += 1;
        if let Some(peer) = self.known.get(&channel).map(|known| known.peer) {
            self.event(Event::ListRefused { peer, error });
        }
    }

    /// Takes a list of the revoked: closes their channels, and passes it on.
    fn take_status(&mut self, now: Now, list: &[u8], wire: &mut dyn Wire) -> Result<(), TrustError> {
        let Some(trust) = &mut self.trust else {
            return Ok(());
        };
        let taken = trust.take_status(now.wall, list)?;
        if !taken.newer {
            return Ok(());
        }
        let revoked: Vec<(ChannelId, Identifier)> = self
            .known
            .iter()
            .filter(|(_, known)| trust.is_revoked(&known.peer))
            .map(|(channel, known)| (*channel, known.peer))
            .collect();
        self.settle_trust();
        self.event(Event::ListTaken {
            number: taken.number,
            newly_revoked: taken.revoked.len(),
        });
        for (channel, peer) in revoked {
            self.end_revoked(channel, peer);
        }
        let behind = self
            .known
            .iter()
            .filter(|(_, known)| known.admitted && known.list_number < taken.number)
            .map(|(channel, _)| *channel);
        self.lists.queue = behind.collect();
        self.push_lists(now, wire);
        Ok(())
    }

    /// Sends the newest list to some of the channels that wait for it, as far as their links have room.
    fn push_lists(&mut self, now: Now, wire: &mut dyn Wire) {
        let held = self.trust.as_ref().and_then(|trust| {
            let number = trust.status().map(StatusList::number)?;
            Some((trust.authority()?, number, trust.status_encoded()?))
        });
        let Some((authority, number, bytes)) = held else {
            self.lists.queue.clear();
            return;
        };
        let mut room = PUSH_BYTES_MAX;
        for _ in 0..self.lists.queue.len() {
            if room < bytes.len() && room < PUSH_BYTES_MAX {
                return;
            }
            let Some(channel) = self.lists.queue.pop_front() else {
                return;
            };
            let Some(known) = self.known.get_mut(&channel) else {
                continue;
            };
            if known.list_number >= number {
                continue;
            }
            let too_soon = known
                .list_sent
                .is_some_and(|sent| now.instant.saturating_since(sent) < LIST_EVERY);
            let flow = self.by_channel.get(&channel).map(|entry| entry.flow);
            let link = flow.and_then(|flow| self.router.link_of(flow));
            let links = Links {
                connection_of: &self.connection_of,
                wire: &mut *wire,
            };
            if too_soon || link.is_none_or(|link| links.queued_bytes(link) > LINK_BYTES_MAX) {
                self.lists.queue.push_back(channel);
                continue;
            }
            known.list_sent = Some(now.instant);
            known.list_number = number;
            room = room.saturating_sub(bytes.len());
            for part in status_parts(authority, number, &bytes) {
                let mut frames = Vec::with_capacity(bytes.len().min(PART_ROOM));
                part.put(&mut frames);
                self.send_frames(now, channel, &frames, wire);
            }
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
        let lists = (!self.lists.queue.is_empty()).then_some(self.next_list_push);
        let sweep = self.trust.is_some().then_some(self.next_trust_sweep);
        let client = (self.authority_client.state == AuthorityState::Waiting)
            .then_some(self.authority_client.retry_at)
            .flatten();
        [lists, sweep, client].into_iter().flatten().min()
    }

    /// Connects, renews, pushes lists and ends what has expired.
    pub(super) fn time_out_trust(&mut self, now: Now, entropy: &mut dyn Entropy, wire: &mut dyn Wire) {
        if self.authority_client.state == AuthorityState::Waiting
            && self.authority_client.retry_at.is_some_and(|at| now.instant >= at)
        {
            self.connect_authority(now, entropy, wire);
        }
        if !self.lists.queue.is_empty() && now.instant >= self.next_list_push {
            self.next_list_push = now.instant + PUSH_EVERY;
            self.push_lists(now, wire);
        }
        if self.trust.is_none() || now.instant < self.next_trust_sweep {
            return;
        }
        self.next_trust_sweep = now.instant + SWEEP_EVERY;
        self.sweep_requests(now);
        self.sweep_peers(now);
        self.sweep_guests(now, entropy, wire);
        self.renew(now, entropy, wire);
        self.ask_time_again(now, entropy, wire);
        let freshness = self.freshness(now);
        if self.lists.freshness != Some(freshness) {
            self.lists.freshness = Some(freshness);
            self.event(Event::FreshnessChanged { freshness });
        }
    }

    fn sweep_requests(&mut self, now: Now) {
        let client = &mut self.authority_client;
        let mut late = Vec::new();
        client.waiting.retain(|_, (id, until)| {
            let waits = now.instant < *until;
            if !waits {
                late.push(*id);
            }
            waits
        });
        client.queue.retain(|(id, _, until)| {
            let waits = now.instant < *until;
            if !waits {
                late.push(*id);
            }
            waits
        });
        for id in late {
            self.answered(id, Asked::Unanswered);
        }
    }

    /// Ends channels whose peer's credential does not count any more.
    fn sweep_peers(&mut self, now: Now) {
        let mut ended = Vec::new();
        let mut grace = Vec::new();
        let Some(trust) = &self.trust else { return };
        for (channel, known) in &mut self.known {
            let Some(credential) = &known.credential else {
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
            self.event(Event::PeerEnded { peer, standing });
            self.close_channel(channel, CloseCode::NOT_AUTHORISED);
        }
    }

    fn sweep_guests(&mut self, now: Now, entropy: &mut dyn Entropy, wire: &mut dyn Wire) {
        let over: Vec<ChannelId> = self
            .known
            .iter()
            .filter(|(_, known)| known.guest_until.is_some_and(|until| now.instant >= until))
            .map(|(channel, _)| *channel)
            .collect();
        for channel in over {
            self.end_guest(now, entropy, channel, wire);
        }
    }

    /// Asks for the next credential when half of the life of the present one is over.
    fn renew(&mut self, now: Now, entropy: &mut dyn Entropy, wire: &mut dyn Wire) {
        let due = self
            .trust
            .as_ref()
            .and_then(Trust::renew_at)
            .is_some_and(|at| now.wall.unix_secs() >= at || now.wall.quality == ClockQuality::Unknown);
        let client = &mut self.authority_client;
        if !due || client.state != AuthorityState::Up || client.renew_at.is_some_and(|at| now.instant < at) {
            return;
        }
        // Whatever becomes of it, the next attempt is not before the back-off is over.
        client.renew_at = Some(client.renewal.handle_failure(now.instant, entropy));
        self.ask(now, None, Question::Renew, wire);
    }

    /// Asks what time it is in the channels this node opened, while its own clock cannot be believed.
    fn ask_time_again(&mut self, now: Now, entropy: &mut dyn Entropy, wire: &mut dyn Wire) {
        if now.wall.quality >= ClockQuality::Authority
            || self.authority_client.ask_time_at.is_some_and(|at| now.instant < at)
        {
            return;
        }
        self.authority_client.ask_time_at = Some(now.instant + ASK_TIME_EVERY);
        let asked: Vec<ChannelId> = self
            .by_channel
            .iter()
            .filter(|(_, entry)| {
                matches!(
                    entry.used_for,
                    Use::Authority | Use::Registrar { .. } | Use::Uplink { .. }
                )
            })
            .map(|(channel, _)| *channel)
            .filter(|channel| self.known.get(channel).is_some_and(|known| known.admitted))
            .take(QUESTIONS_MAX)
            .collect();
        if asked.is_empty() {
            return;
        }
        let Some(trust) = &mut self.trust else { return };
        // One question for all: the first answer counts.
        let nonce = trust.ask_time(now.instant, entropy);
        self.authority_client.asked_time = Some(nonce);
        let mut frames = Vec::new();
        TrustFrame::TimePlease { nonce }.put(&mut frames);
        for channel in asked {
            self.send_frames(now, channel, &frames, wire);
        }
    }

    /// Begins the handshake with the authority over the first way whose neighbour is ready.
    fn connect_authority(&mut self, now: Now, entropy: &mut dyn Entropy, wire: &mut dyn Wire) {
        let Some(authority) = self.trust.as_ref().and_then(Trust::authority) else {
            self.authority_client.retry_at = None;
            return;
        };
        let client = &self.authority_client;
        let ways = client.ways.len();
        let ready = (0..ways)
            .map(|offset| (client.way + offset) % ways)
            .find_map(|way| {
                let (neighbour, name) = client.ways.get(way)?;
                Some((way, self.ready_link(*neighbour)?, name.clone()))
            });
        let Some((way, link, name)) = ready else {
            // The neighbour wakes it when it is ready.
            self.authority_client.retry_at = None;
            return;
        };
        let mut addresses = Vec::with_capacity(2);
        addresses.extend(name.as_deref().map(Address::Name));
        addresses.push(Address::Service(AUTHORITY));
        let route = Route::new(addresses).expect("a checked name and a service make a route");
        let pq = client.pq;
        let opened = self
            .router
            .open(now.instant, entropy, link, &route)
            .ok()
            .and_then(|flow| {
                let connected = self.channels.connect(now, entropy, authority, flow_path(flow), pq);
                if connected.is_err() {
                    let mut links = Links {
                        connection_of: &self.connection_of,
                        wire: &mut *wire,
                    };
                    self.router.close(flow, &mut links);
                }
                Some((connected.ok()?, flow))
            });
        let client = &mut self.authority_client;
        client.way = way;
        let Some((channel, flow)) = opened else {
            client.retry_at = Some(client.backoff.handle_failure(now.instant, entropy));
            return;
        };
        client.state = AuthorityState::Connecting;
        client.retry_at = None;
        client.channel = Some((channel, flow));
        let used_for = Use::Authority;
        self.by_channel.insert(channel, ChannelEntry { used_for, flow });
        self.by_flow.insert(flow, channel);
    }

    /// Lets the way to the authority be looked for again.
    pub(super) fn wake_authority(&mut self, now: Now) {
        if self.authority_client.state == AuthorityState::Waiting {
            self.authority_client.retry_at.get_or_insert(now.instant);
        }
    }

    pub(super) fn authority_established(&mut self, now: Now, channel: ChannelId, wire: &mut dyn Wire) {
        self.authority_client.state = AuthorityState::Up;
        self.authority_client.backoff.handle_success(now.instant);
        self.authority_client.renew_at = None;
        self.event(Event::AuthorityUp);
        self.admitted(now, channel, wire);
        self.send_queue(now, wire);
    }

    pub(super) fn authority_closed(&mut self, now: Now, entropy: &mut dyn Entropy) {
        let client = &mut self.authority_client;
        let was_up = client.state == AuthorityState::Up;
        client.state = AuthorityState::Waiting;
        client.channel = None;
        client.way = (client.way + 1) % client.ways.len().max(1);
        client.retry_at = Some(client.backoff.handle_failure(now.instant, entropy));
        let unanswered: Vec<Option<u64>> = std::mem::take(&mut client.waiting)
            .into_values()
            .map(|(id, _)| id)
            .collect();
        if was_up {
            self.event(Event::AuthorityDown);
        }
        for id in unanswered {
            self.answered(id, Asked::Unanswered);
        }
    }

    pub(super) fn forget_lists(&mut self, channel: ChannelId) {
        self.lists.assembler.forget(channel);
    }

    /// Returns what can be seen of trust; `None` if this node trusts no authority and is none.
    #[must_use]
    pub fn trust_view(&self, now: Now) -> Option<TrustView> {
        let trust = self.trust.as_ref()?;
        Some(TrustView {
            authority: trust.authority(),
            state: self.authority_client.state,
            credential: trust.own().map(|own| Arc::clone(&own.credential)),
            list_number: trust.status().map_or(0, StatusList::number),
            freshness: trust.freshness(now.wall),
            peers_in_grace: self.known.values().filter(|known| known.grace_said).count(),
        })
    }
}

/// Waits between attempts to reach the authority.
const BACKOFF: BackoffSettings = BackoffSettings {
    delay_min: Duration::from_millis(200),
    delay_max: Duration::from_secs(30),
    stable_after: Duration::from_secs(10),
};
/// Waits between attempts to renew (PROTOCOL.md §11).
const RENEWAL: BackoffSettings = BackoffSettings {
    delay_min: Duration::from_secs(30),
    delay_max: Duration::from_secs(600),
    stable_after: Duration::from_secs(1),
};
/// How long an answer is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Requests of one channel without an answer (PROTOCOL.md §11).
const UNANSWERED_MAX: usize = 16;
/// Requests that wait for the authority to be reached.
const QUEUE_MAX: usize = 64;
/// How often what expires is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often lists are sent on while there are channels that wait for them.
const PUSH_EVERY: Duration = Duration::from_millis(5);
/// Bytes of lists sent at a time, at least one list.
const PUSH_BYTES_MAX: usize = 256 << 10;
/// How often one channel is sent a list.
const LIST_EVERY: Duration = Duration::from_secs(1);
/// Bytes queued on a link above which lists wait.
const LINK_BYTES_MAX: usize = 256 << 10;
/// Bytes of a frame with a part of a list.
const PART_ROOM: usize = 61_000;
/// How often the time is asked for while the clock cannot be believed.
const ASK_TIME_EVERY: Duration = Duration::from_secs(60);
/// Channels in which it is asked for.
const QUESTIONS_MAX: usize = 4;
