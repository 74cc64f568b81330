//! The way to the authority, and what is asked there.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{ANSWER_WITHIN, Asked, AuthorityState, MANAGE_LEN_MAX, UNANSWERED_MAX};
use crate::{
    channel::{ChannelId, PqPolicy},
    entropy::Entropy,
    link::{Backoff, BackoffSettings},
    node::{
        Event, Node, Output, Use, WaySettings, Wire,
        settings::AUTHORITY,
        way::{Attempts, Destination},
    },
    time::{ClockQuality, Instant, Now},
    trust::{Credential, ENROL_LEN_MAX, Trust, TrustFrame},
};

/// The way to the authority, and what is asked there.
///
/// ```text
///  Waiting ──a way's neighbour is ready──▶ Connecting ──Established──▶ Up
///     ▲  (not before `retry_at`)            │                          │
///     └──────── channel closed, flow lost: next way, back-off ─────────┘
/// ```
#[derive(Debug)]
pub(in crate::node) struct TrustClient {
    ways: Vec<WaySettings>,
    pq: PqPolicy,
    state: AuthorityState,
    channel: Option<ChannelId>,
    attempts: Attempts,
    next_request: u32,
    /// By request: who wants the answer (`None`: this node itself, for its renewal), and until when.
    waiting: BTreeMap<u32, (Option<u64>, Instant)>,
    /// What waits for the channel.
    queue: VecDeque<(Option<u64>, Question, Instant)>,
    renewal: Backoff,
    /// Not before then.
    renew_at: Option<Instant>,
    /// When this node took its credential, if that was since its start.
    taken_at: Option<Instant>,
    /// When the time is asked for again.
    pub(super) ask_time_at: Option<Instant>,
}

/// What a node asks its authority.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Question {
    Enrol(Vec<u8>),
    Renew,
    Manage(String),
}

impl TrustClient {
    /// Returns the neighbours of its ways.
    pub(in crate::node) fn neighbours(&self) -> Vec<usize> {
        self.ways.iter().map(|way| way.neighbour).collect()
    }

    pub(in crate::node) fn new(now: Instant, ways: Vec<WaySettings>, pq: PqPolicy) -> Self {
        Self {
            state: if ways.is_empty() {
                AuthorityState::None
            } else {
                AuthorityState::Waiting
            },
            ways,
            pq,
            channel: None,
            attempts: Attempts::new(now, BACKOFF),
            next_request: 1,
            waiting: BTreeMap::new(),
            queue: VecDeque::new(),
            renewal: Backoff::new(RENEWAL),
            renew_at: None,
            taken_at: None,
            ask_time_at: None,
        }
    }

    pub(super) const fn state(&self) -> AuthorityState {
        self.state
    }

    /// Returns the channel to the authority, if it is up.
    pub(super) fn channel_up(&self) -> Option<ChannelId> {
        self.channel.filter(|_| self.state == AuthorityState::Up)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.attempts
            .retry_at
            .filter(|_| self.state == AuthorityState::Waiting)
    }

    pub(super) fn wants_to_connect(&self, now: Instant) -> bool {
        self.poll_timeout().is_some_and(|at| now >= at)
    }

    /// Takes note that this node has another credential, of which `half_life` is half: the next is asked for when that is over,
    /// however slow the clock is, and not without end, however fast.
    pub(super) fn credential_taken(&mut self, now: Instant, half_life: Duration) {
        self.renewal.handle_success(now);
        self.taken_at = Some(now);
        self.renew_at = Some(now + half_life.min(RENEWED_PAUSE));
    }
}

/// Returns half of the life of a credential.
pub(super) const fn half_life(credential: &Credential) -> Duration {
    Duration::from_secs(credential.renew_at().saturating_sub(credential.issued_at))
}

impl Node {
    /// Sends a signed request to enrol as soon as the authority is reached; [`Output::Asked`] says what became of it.
    pub fn enrol(&mut self, now: Now, id: u64, signed_request: Vec<u8>, wire: &mut dyn Wire) {
        if signed_request.len() > ENROL_LEN_MAX {
            self.answered(Some(id), Asked::TooLong);
            return;
        }
        self.ask(now, Some(id), Question::Enrol(signed_request), wire);
    }

    /// Sends a request to manage members or tickets; [`Output::Asked`] says what became of it.
    pub fn manage(&mut self, now: Now, id: u64, json: String, wire: &mut dyn Wire) {
        if json.len() > MANAGE_LEN_MAX {
            self.answered(Some(id), Asked::TooLong);
            return;
        }
        self.ask(now, Some(id), Question::Manage(json), wire);
    }

    fn ask(&mut self, now: Now, id: Option<u64>, question: Question, wire: &mut dyn Wire) {
        let client = &mut self.authority_client;
        if client.queue.len() >= QUEUE_MAX || client.state == AuthorityState::None {
            self.answered(id, Asked::Unanswered);
            return;
        }
        client
            .queue
            .push_back((id, question, now.instant + ANSWER_WITHIN));
        self.send_queue(now, wire);
    }

    /// Sends what waits, one record each: each may be as long as a record.
    fn send_queue(&mut self, now: Now, wire: &mut dyn Wire) {
        loop {
            let client = &mut self.authority_client;
            let (AuthorityState::Up, Some(channel)) = (client.state, client.channel) else {
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

    /// Takes note that a request was answered; `None` if it was not asked.
    fn take_waiting(&mut self, used_for: Use, request: u32) -> Option<Option<u64>> {
        if used_for != Use::Authority {
            return None;
        }
        let (id, _) = self.authority_client.waiting.remove(&request)?;
        Some(id)
    }

    pub(super) fn issued(
        &mut self,
        now: Now,
        used_for: Use,
        (request, presentation): (u32, &[u8]),
        wire: &mut dyn Wire,
    ) -> bool {
        let Some(id) = self.take_waiting(used_for, request) else {
            return false;
        };
        let taken = self.take_credential(now, presentation);
        let good = taken.is_ok();
        match taken {
            Ok(()) => {
                if let Some(own) = self.trust.as_ref().and_then(Trust::own) {
                    let not_after = own.credential.not_after;
                    self.event(Event::CredentialTaken { not_after });
                }
                self.answered(id, Asked::Issued);
            }
            Err(error) => {
                let peer = self.channels.local().identifier();
                self.event(Event::CredentialRefused { peer, error });
                self.answered(id, Asked::Unanswered);
            }
        }
        self.send_queue(now, wire);
        good
    }

    pub(super) fn denied(&mut self, now: Now, used_for: Use, request: u32, wire: &mut dyn Wire) -> bool {
        let Some(id) = self.take_waiting(used_for, request) else {
            return false;
        };
        if id.is_none() {
            self.event(Event::RenewalDenied);
        }
        self.answered(id, Asked::Denied);
        self.send_queue(now, wire);
        true
    }

    pub(super) fn managed(
        &mut self,
        now: Now,
        used_for: Use,
        (request, text): (u32, &str),
        wire: &mut dyn Wire,
    ) -> bool {
        let Some(id) = self.take_waiting(used_for, request) else {
            return false;
        };
        self.answered(id, Asked::Managed(text.to_owned()));
        self.send_queue(now, wire);
        true
    }

    /// Gives up requests that were not answered in time, and sends what waited behind them.
    pub(super) fn sweep_requests(&mut self, now: Now, wire: &mut dyn Wire) {
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
        self.send_queue(now, wire);
    }

    /// Asks for the next credential when half of the life of the present one is over.
    pub(super) fn renew(&mut self, now: Now, entropy: &mut dyn Entropy, wire: &mut dyn Wire) {
        let Some(own) = self.trust.as_ref().and_then(Trust::own) else {
            return;
        };
        let credential = &own.credential;
        let clock_knows = now.wall.quality > ClockQuality::Unknown;
        let client = &mut self.authority_client;
        let due = match client.taken_at {
            Some(taken_at) if now.instant - taken_at >= half_life(credential) => true,
            Some(_) => clock_knows && now.wall.unix_secs() >= credential.renew_at(),
            // Who cannot know how old it is asks.
            None => !clock_knows || now.wall.unix_secs() >= credential.renew_at(),
        };
        let too_soon = client.renew_at.is_some_and(|at| now.instant < at);
        if !due || too_soon || client.state != AuthorityState::Up {
            return;
        }
        // Whatever becomes of it, the next attempt is not before the back-off is over.
        client.renew_at = Some(client.renewal.handle_failure(now.instant, entropy));
        self.ask(now, None, Question::Renew, wire);
    }

    /// Begins the handshake with the authority over the first way whose neighbour is ready.
    pub(super) fn connect_authority(&mut self, now: Now, entropy: &mut dyn Entropy, wire: &mut dyn Wire) {
        let Some(authority) = self.trust.as_ref().and_then(Trust::authority) else {
            self.authority_client.attempts.retry_at = None;
            return;
        };
        let client = &mut self.authority_client;
        let mut attempts = std::mem::replace(&mut client.attempts, Attempts::new(now.instant, BACKOFF));
        let ways = std::mem::take(&mut client.ways);
        let destination = Destination {
            peer: authority,
            pq: client.pq,
            service: AUTHORITY,
            used_for: Use::Authority,
            ways: &ways,
        };
        let opened = self.open_way(now, entropy, destination, &mut attempts, wire);
        let client = &mut self.authority_client;
        (client.attempts, client.ways) = (attempts, ways);
        if let Some((channel, _)) = opened {
            client.state = AuthorityState::Connecting;
            client.channel = Some(channel);
        }
    }

    /// Lets the way to the authority be looked for again.
    pub(in crate::node) fn wake_authority(&mut self, now: Now) {
        if self.authority_client.state == AuthorityState::Waiting {
            self.authority_client.attempts.retry_at.get_or_insert(now.instant);
        }
    }

    pub(in crate::node) fn authority_established(
        &mut self,
        now: Now,
        channel: ChannelId,
        wire: &mut dyn Wire,
    ) {
        self.authority_client.state = AuthorityState::Up;
        self.authority_client.attempts.backoff.handle_success(now.instant);
        self.event(Event::AuthorityUp);
        self.admitted(now, channel, wire);
        self.send_queue(now, wire);
    }

    pub(in crate::node) fn authority_closed(&mut self, now: Now, entropy: &mut dyn Entropy) {
        let client = &mut self.authority_client;
        let was_up = client.state == AuthorityState::Up;
        client.state = AuthorityState::Waiting;
        client.channel = None;
        client
            .attempts
            .handle_failure(now.instant, entropy, client.ways.len());
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
/// Least time from one credential to asking for the next, however the clock sees it; less only if its life is shorter.
const RENEWED_PAUSE: Duration = Duration::from_secs(600);
/// Requests that wait for the authority to be reached.
const QUEUE_MAX: usize = 64;
