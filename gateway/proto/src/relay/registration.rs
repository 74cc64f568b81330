//! A node's registration of one name at one relay.

use std::time::Duration;

use super::{RefusedReason, RegistrarFrame};
use crate::{
    entropy::Entropy,
    link::{Backoff, BackoffSettings},
    route::{Address, RouteError},
    time::Instant,
};

/// Where a [`Registration`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationState {
    /// There is no channel to the relay's registrar.
    NoChannel,
    /// The relay was asked.
    Asking,
    /// Nothing came back, or a refusal; it is asked again at this time.
    Waiting {
        /// When.
        until: Instant,
        /// What the relay said last, if it refused.
        refused: Option<RefusedReason>,
    },
    /// The relay agreed.
    Registered {
        /// When the registration ends unless it is renewed.
        until: Instant,
    },
}

/// Effects of a [`Registration`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationOutput {
    /// Send `Register` with this number and [`Registration::name`] over the channel.
    SendRegister {
        /// The number of the request.
        request: u32,
    },
    /// The name leads here from now on.
    Registered {
        /// How long unless it is renewed.
        lease: Duration,
    },
    /// The relay refused; it will be asked again, for its policy may change.
    Refused {
        /// Why.
        reason: RefusedReason,
    },
    /// The name leads here no more: the channel is gone, or it was not renewed in time.
    Lost,
}

/// Registers a name, and renews it at half its lease.
///
/// ```text
///  NoChannel ──channel up──▶ Asking ──Registered──▶ Registered ──half the lease──▶ (asks, stays Registered)
///      ▲                      │  ▲                      │
///      │              5 s, Refused │ back-off over      │ lease over
///      │                      ▼  │                      ▼
///      └──channel down──── Waiting ◀────────────────────┘
/// ```
///
/// Invariant: `asked` is `Some` exactly while a request is unanswered.
#[derive(Debug)]
pub struct Registration {
    name: String,
    state: RegistrationState,
    next_request: u32,
    asked: Option<Asked>,
    /// While registered: when to ask again.
    renew: Option<Instant>,
    backoff: Backoff,
    outputs: std::collections::VecDeque<RegistrationOutput>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    request: u32,
    until: Instant,
}

impl Registration {
    /// Makes the registration of a name; nothing happens before the channel is up.
    ///
    /// # Errors
    /// [`RouteError::NameLen`] if the name cannot be registered anywhere.
    pub fn new(name: &str) -> Result<Self, RouteError> {
        Address::Name(name).check()?;
        Ok(Self {
            name: name.to_owned(),
            state: RegistrationState::NoChannel,
            next_request: 1,
            asked: None,
            renew: None,
            backoff: Backoff::new(BACKOFF),
            outputs: std::collections::VecDeque::new(),
        })
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns where it stands.
    #[must_use]
    pub const fn state(&self) -> RegistrationState {
        self.state
    }

    /// Asks the relay: the channel to its registrar is established.
    pub fn handle_channel_up(&mut self, now: Instant) {
        if self.state == RegistrationState::NoChannel {
            self.state = RegistrationState::Asking;
            self.ask(now);
        }
    }

    /// Stops: the channel to the registrar is gone.
    pub fn handle_channel_down(&mut self) {
        if matches!(self.state, RegistrationState::Registered { .. }) {
            self.outputs.push_back(RegistrationOutput::Lost);
        }
        self.state = RegistrationState::NoChannel;
        self.asked = None;
        self.renew = None;
    }

    /// Takes a frame from the relay's registrar. One that answers no request of this registration is ignored.
    pub fn handle_frame(&mut self, now: Instant, frame: &RegistrarFrame<'_>, entropy: &mut dyn Entropy) {
        match *frame {
            RegistrarFrame::Registered { request, lease_secs } if self.takes_answer(request) => {
                let lease = Duration::from_secs(u64::from(lease_secs)).clamp(LEASE_MIN, LEASE_MAX);
                if !matches!(self.state, RegistrationState::Registered { .. }) {
                    self.backoff.handle_success(now);
                }
                self.state = RegistrationState::Registered { until: now + lease };
                self.renew = Some(now + lease / 2);
                self.outputs.push_back(RegistrationOutput::Registered { lease });
            }
            RegistrarFrame::Refused { request, reason } if self.takes_answer(request) => {
                self.renew = None;
                let until = self.backoff.handle_failure(now, entropy);
                self.state = RegistrationState::Waiting {
                    until,
                    refused: Some(reason),
                };
                self.outputs.push_back(RegistrationOutput::Refused { reason });
            }
            RegistrarFrame::Registered { .. }
            | RegistrarFrame::Refused { .. }
            | RegistrarFrame::Register { .. }
            | RegistrarFrame::Unregister { .. }
            | RegistrarFrame::Drain { .. }
            | RegistrarFrame::Observed { .. }
            | RegistrarFrame::Stays { .. } => {}
        }
    }

    /// Asks again, renews or gives up waiting, whatever is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        if let RegistrationState::Registered { until } = self.state
            && now >= until
        {
            self.outputs.push_back(RegistrationOutput::Lost);
            self.asked = None;
            self.renew = None;
            let until = self.backoff.handle_failure(now, entropy);
            self.state = RegistrationState::Waiting { until, refused: None };
            return;
        }
        if self.asked.is_some_and(|asked| now >= asked.until) {
            self.asked = None;
            let retry = self.backoff.handle_failure(now, entropy);
            match self.state {
                RegistrationState::Registered { .. } => self.renew = Some(retry),
                RegistrationState::NoChannel
                | RegistrationState::Asking
                | RegistrationState::Waiting { .. } => {
                    self.state = RegistrationState::Waiting {
                        until: retry,
                        refused: None,
                    };
                }
            }
            return;
        }
        match self.state {
            RegistrationState::Waiting { until, .. } if now >= until => {
                self.state = RegistrationState::Asking;
                self.ask(now);
            }
            RegistrationState::Registered { .. } if self.renew.is_some_and(|renew| now >= renew) => {
                self.renew = None;
                self.ask(now);
            }
            RegistrationState::NoChannel
            | RegistrationState::Asking
            | RegistrationState::Waiting { .. }
            | RegistrationState::Registered { .. } => {}
        }
    }

    /// Returns when [`Registration::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let asked = self.asked.map(|asked| asked.until);
        let state = match self.state {
            RegistrationState::NoChannel | RegistrationState::Asking => None,
            RegistrationState::Waiting { until, .. } | RegistrationState::Registered { until } => Some(until),
        };
        [asked, self.renew, state].into_iter().flatten().min()
    }

    /// Returns the next effect.
    pub fn poll_output(&mut self) -> Option<RegistrationOutput> {
        self.outputs.pop_front()
    }

    fn ask(&mut self, now: Instant) {
        let request = self.next_request;
        self.next_request = self.next_request.wrapping_add(1);
        self.asked = Some(Asked {
            request,
            until: now + ANSWER_WITHIN,
        });
        self.outputs
            .push_back(RegistrationOutput::SendRegister { request });
    }

    /// Returns whether `request` is the unanswered one, and takes it as answered.
    fn takes_answer(&mut self, request: u32) -> bool {
        let answers = self.asked.is_some_and(|asked| asked.request == request);
        if answers {
            self.asked = None;
        }
        answers
    }
}

/// A request not answered within this time is repeated after the back-off.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A lease outside these bounds is taken for the nearer one: a faulty relay must not be asked in a tight loop.
const LEASE_MIN: Duration = Duration::from_secs(10);
const LEASE_MAX: Duration = Duration::from_secs(86_400);
const BACKOFF: BackoffSettings = BackoffSettings {
    delay_min: Duration::from_secs(1),
    delay_max: Duration::from_secs(60),
    stable_after: Duration::from_secs(30),
};

#[cfg(test)]
mod tests;
