//! The authority's side of a run: who decides, signs and answers, and when.

use std::time::Duration;

use fieldgate_proto::{
    channel::ChannelId,
    node::{Access, AuthorityRequest, AuthorityRequestKind, Event as NodeEvent, Verdict},
    time::{ClockQuality, WallTime},
};

use super::{Event, World};
use crate::{
    host::Role,
    scenario::{Clock, EPOCH_SECS, Stop, TrustPlan},
};

impl World<'_, '_> {
    /// Schedules what an authority does in a run.
    pub(super) fn plan_trust(&mut self) {
        let Some(plan) = &self.scenario.trust else { return };
        self.schedule(Duration::from_secs(1), Event::PublishList { goes_on: true });
        for (host, after) in &plan.strangers {
            self.schedule(*after, Event::Enrol { host: *host });
        }
        for (gateway, after, lasting) in &plan.revocations {
            let gateway = *gateway;
            self.schedule(
                *after,
                Event::Revoke {
                    gateway,
                    revoked: true,
                },
            );
            self.schedule(
                *after + *lasting,
                Event::Revoke {
                    gateway,
                    revoked: false,
                },
            );
        }
        for (host, after) in &plan.rollbacks {
            self.schedule(*after, Event::RollBack { host: *host });
        }
    }

    fn trust_plan(&self) -> &TrustPlan {
        let plan = self.scenario.trust.as_ref();
        plan.expect("only hosts that trust an authority want anything of this")
    }

    /// Schedules the answers to what a host wants of its surroundings.
    pub(super) fn ask(
        &mut self,
        host: usize,
        accesses: Vec<Access>,
        signs: Vec<(ChannelId, Vec<u8>)>,
        requests: Vec<AuthorityRequest>,
    ) {
        if accesses.is_empty() && signs.is_empty() && requests.is_empty() {
            return;
        }
        let plan = self.trust_plan();
        let [decide, sign, answer] = [&plan.decide_millis, &plan.sign_millis, &plan.answer_millis]
            .map(|range| (range.start, range.end));
        let life = self.hosts.get(host).map_or(0, |host| host.life);
        for access in accesses {
            let trust = self.hosts.get(host).and_then(|host| host.trust.as_ref());
            let Some(verdict) = trust.map(|trust| trust.decide(&access)) else {
                continue;
            };
            let attempt = access.attempt;
            let decided = Event::Decided {
                host,
                life,
                attempt,
                verdict,
            };
            let takes = self.dice.millis(decide.0, decide.1);
            self.schedule(takes, decided);
        }
        for (channel, message) in signs {
            let takes = self.dice.millis(sign.0, sign.1);
            let signed = Event::Signed {
                host,
                life,
                channel,
                message,
            };
            self.schedule(takes, signed);
        }
        for request in requests {
            let takes = self.dice.millis(answer.0, answer.1);
            self.schedule(takes, Event::Answered { life, request });
        }
    }

    pub(super) fn decided(&mut self, index: usize, life: u32, attempt: u64, verdict: Verdict) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(index).filter(|host| host.life == life) else {
            return;
        };
        host.handle_verdict(now, attempt, verdict, &mut self.model);
        self.turn(index);
    }

    pub(super) fn signed(&mut self, index: usize, life: u32, channel: ChannelId, message: &[u8]) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(index).filter(|host| host.life == life) else {
            return;
        };
        host.handle_sign(now, channel, message);
        self.turn(index);
    }

    pub(super) fn answered(&mut self, life: u32, request: &AuthorityRequest) {
        let (now, index) = (self.now, self.scenario.authority());
        let Some(host) = self.hosts.get_mut(index).filter(|host| host.life == life) else {
            return;
        };
        let one_in = match &self.scenario.trust {
            Some(plan) if self.healed_at.is_none() => plan.denied_one_in,
            Some(_) | None => 0,
        };
        let denied = request.kind == AuthorityRequestKind::Renew && self.dice.one_in(one_in);
        host.answer(now, request, denied, &mut self.model);
        self.turn(index);
    }

    pub(super) fn enrol(&mut self, index: usize) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(index) else {
            return;
        };
        let Some(is_member) = host.enrol(now) else {
            return;
        };
        if is_member {
            self.report.trust.enrolled += 1;
        } else {
            let again = self.dice.millis(15_000, 40_000);
            self.schedule(again, Event::Enrol { host: index });
        }
        self.turn(index);
    }

    pub(super) fn publish_list(&mut self, goes_on: bool) {
        let (now, index) = (self.now, self.scenario.authority());
        if goes_on {
            let every = self.trust_plan().list_every;
            self.schedule(every, Event::PublishList { goes_on });
        }
        if let Some(host) = self.hosts.get_mut(index) {
            host.publish_list(now, &mut self.model);
        }
        self.turn(index);
    }

    /// Revokes a gateway, or takes it in again. What is decided while the authority is away it publishes when it is back.
    pub(super) fn revoke(&mut self, gateway: usize, revoked: bool) {
        let Some(subject) = self.hosts.get(gateway).map(|host| host.member.identifier()) else {
            return;
        };
        if revoked && self.healed_at.is_some() {
            return;
        }
        self.tell(|world| format!("*** {} revoked: {revoked}", world.name(gateway)));
        let authority = self.scenario.authority();
        if let Some(Role::Authority(authority)) = self.hosts.get_mut(authority).map(|host| &mut host.role) {
            if revoked {
                authority.revoke(subject);
            } else {
                authority.restore(&subject);
            }
        }
        self.publish_list(false);
    }

    /// Takes in again whoever is revoked, now that everything works.
    pub(super) fn heal_trust(&mut self) {
        if self.scenario.trust.is_none() {
            return;
        }
        for gateway in 0..self.scenario.gateways {
            self.revoke(gateway, false);
        }
    }

    /// Stops a host; when it starts again it has on its disk what had been there long before.
    pub(super) fn roll_back(&mut self, index: usize) {
        if self.healed_at.is_some() {
            return;
        }
        let trust = self.hosts.get_mut(index).and_then(|host| host.trust.as_mut());
        if !trust.is_some_and(|trust| trust.roll_back()) {
            return;
        }
        self.tell(|world| format!("*** {} rolled back", world.name(index)));
        self.report.trust.rollbacks += 1;
        let lasting = self.dice.millis(1, 3_000);
        self.stop(index, Stop::Kill, lasting);
        self.model.trust.rolled_back(index);
        // Who was a stranger then is one again.
        self.schedule(lasting + Duration::from_secs(5), Event::Enrol { host: index });
    }

    /// The authority has told a host what time it is.
    pub(super) fn told_time(&mut self, index: usize, wall: WallTime) {
        let truth = i64::try_from(EPOCH_SECS * 1000 + self.now / 1_000_000).unwrap_or(0);
        let clock = Clock {
            ahead_millis: i64::try_from(wall.unix_millis).unwrap_or(0) - truth,
            quality: wall.quality,
        };
        let now = self.now;
        let Some(host) = self.hosts.get_mut(index) else {
            return;
        };
        if host.clock.quality < ClockQuality::Authority {
            host.clock = clock;
            self.model.trust.clock_set(index, now);
            self.report.trust.clocks_set += 1;
        }
    }

    /// Returns whether everybody who trusts the authority has its newest list.
    pub(super) fn lists_are_everywhere(&self) -> bool {
        let newest = self.model.trust.newest();
        let mut hosts = self.hosts.iter();
        hosts.all(|host| host.list_number(self.now).is_none_or(|number| number == newest))
    }

    /// Counts what a node said about trust.
    pub(super) fn count_trust(&mut self, event: &NodeEvent) {
        let trust = &mut self.report.trust;
        let count = match event {
            NodeEvent::CredentialTaken { .. } => &mut trust.credentials_taken,
            NodeEvent::RenewalDenied => &mut trust.renewals_denied,
            NodeEvent::ListTaken { .. } => &mut trust.lists_taken,
            NodeEvent::PeerRevoked { .. } => &mut trust.revoked,
            NodeEvent::PeerInGrace { .. } => &mut trust.in_grace,
            NodeEvent::PeerEnded { .. } => &mut trust.ended,
            NodeEvent::FreshnessChanged { freshness } if matches!(freshness.name(), "stale" | "lapsed") => {
                &mut trust.silences
            }
            NodeEvent::FreshnessChanged { .. }
            | NodeEvent::SelfRevoked { .. }
            | NodeEvent::LinkUp { .. }
            | NodeEvent::LinkBroken { .. }
            | NodeEvent::Attached { .. }
            | NodeEvent::ChannelLost { .. }
            | NodeEvent::Registered { .. }
            | NodeEvent::RegistrationRefused { .. }
            | NodeEvent::UplinkUp { .. }
            | NodeEvent::UplinkDown { .. }
            | NodeEvent::SetBack { .. }
            | NodeEvent::MemberAttached { .. }
            | NodeEvent::NameRegistered { .. }
            | NodeEvent::NotAuthorised { .. }
            | NodeEvent::SourceOpened { .. }
            | NodeEvent::ReadingsLost { .. }
            | NodeEvent::Forgotten { .. }
            | NodeEvent::CollectorSetBack { .. }
            | NodeEvent::SourceSetBack { .. }
            | NodeEvent::CredentialRefused { .. }
            | NodeEvent::ListRefused { .. }
            | NodeEvent::AuthorityUp
            | NodeEvent::AuthorityDown
            | NodeEvent::RelayNotAttached { .. }
            | NodeEvent::RelayDrains { .. }
            | NodeEvent::RelayStays { .. }
            | NodeEvent::RelayLeft { .. }
            | NodeEvent::PathChanged { .. }
            | NodeEvent::PortalUp { .. }
            | NodeEvent::PortalDown { .. }
            | NodeEvent::PeerLinked { .. } => return,
        };
        *count += 1;
    }

    /// A host has started: what was decided while the authority was away is published.
    pub(super) fn started_trust(&mut self, index: usize) {
        if self.scenario.trust.is_some() && index == self.scenario.authority() {
            self.schedule(Duration::from_millis(200), Event::PublishList { goes_on: false });
        }
    }
}
