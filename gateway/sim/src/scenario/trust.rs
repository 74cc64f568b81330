//! Scenarios with an authority: short-lived credentials, revocations, long silences, clocks that know nothing.

use std::{ops::Range, time::Duration};

use fieldgate_proto::{time::ClockQuality, trust::AfterGrace};

use super::{Clock, Draw, Fault, Scenario, Stop};
use crate::dice::Dice;

/// What an authority does, and what goes wrong with trust. The authority is the host behind the collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustPlan {
    /// How long credentials hold; whole seconds.
    pub credential: Duration,
    /// How long lists of the revoked hold; whole seconds.
    pub list: Duration,
    /// How often the authority publishes one, besides when somebody is revoked.
    pub list_every: Duration,
    /// How long every node goes on without word.
    pub grace: Duration,
    /// What it does then.
    pub after_grace: AfterGrace,
    /// Gateways that begin without a credential, and when each asks to enrol.
    pub strangers: Vec<(usize, Duration)>,
    /// Which gateways are revoked, when, and for how long.
    pub revocations: Vec<(usize, Duration, Duration)>,
    /// When nodes find themselves with what they had kept long before, like somebody who replays old lists and credentials.
    pub rollbacks: Vec<(usize, Duration)>,
    /// Whether collector and gateways demand live proofs of each other.
    pub proofs: bool,
    /// Milliseconds that a decision takes.
    pub decide_millis: Range<u64>,
    /// Milliseconds that a token takes to sign.
    pub sign_millis: Range<u64>,
    /// Milliseconds that the authority takes to answer.
    pub answer_millis: Range<u64>,
    /// It refuses one renewal in so many, for reasons of its own; 0: none. Not after healing.
    pub denied_one_in: u64,
}

impl Scenario {
    /// The clock of a machine without battery: 1970, and nobody vouches for it.
    pub const BEGINNING: Clock = Clock {
        ahead_millis: -(super::EPOCH_SECS.cast_signed() * 1000),
        quality: ClockQuality::Unknown,
    };

    /// Returns a network with an authority in which nothing goes wrong.
    #[must_use]
    pub fn trusting(seed: u64) -> Self {
        let mut scenario = Self::quiet(seed);
        scenario.devices.pause_millis = 1_000..6_000;
        scenario.chaos = Duration::from_secs(120);
        scenario.trust = Some(TrustPlan {
            credential: Duration::from_secs(60),
            list: Duration::from_secs(600),
            list_every: Duration::from_secs(50),
            grace: Duration::from_secs(60),
            after_grace: AfterGrace::Refuse,
            strangers: Vec::new(),
            revocations: Vec::new(),
            rollbacks: Vec::new(),
            proofs: false,
            decide_millis: 0..10,
            sign_millis: 5..300,
            answer_millis: 1..40,
            denied_one_in: 0,
        });
        scenario
    }

    /// Draws a network with an authority from `seed`: what [`Scenario::draw`] draws, spread over so much time that credentials
    /// and lists end, and what goes wrong with trust.
    #[must_use]
    pub fn draw_trusting(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x7472_7573_7469_6e67);
        let mut scenario = Self::draw(seed);
        let quiet = Self::trusting(seed);
        scenario.draw = Draw::Trusting;
        scenario.trust = quiet.trust;
        scenario.devices.pause_millis = dice.pick(&[1_000..6_000, 4_000..20_000]);
        scenario.stretch(Duration::from_secs(dice.between(100, 1_500)));
        scenario.draw_plan(&mut dice);
        scenario.draw_silence(&mut dice);
        if dice.one_in(3) {
            // Everybody, or one, begins in 1970.
            let all = dice.one_in(2);
            let one = dice.index(scenario.authority());
            for host in 0..scenario.authority() {
                if all || host == one {
                    scenario.set_clock(host, Self::BEGINNING);
                }
            }
        }
        let authority = scenario.authority();
        // Its own clock has to be right: nobody else's word is worth more.
        scenario.set_clock(authority, Clock::RIGHT);
        scenario
    }

    fn set_clock(&mut self, host: usize, clock: Clock) {
        if self.clocks.len() <= host {
            self.clocks.resize(host + 1, Clock::RIGHT);
        }
        if let Some(place) = self.clocks.get_mut(host) {
            *place = clock;
        }
    }

    /// Makes the run take so long, and spreads its faults over it.
    fn stretch(&mut self, chaos: Duration) {
        let factor = u32::try_from(chaos.as_millis() / self.chaos.as_millis().max(1)).unwrap_or(1);
        let factor = factor.max(1);
        for (at, _) in &mut self.faults {
            *at *= factor;
        }
        if let Some(attacker) = &mut self.attacker {
            attacker.during = attacker.during.start * factor..attacker.during.end * factor;
            // So long an attack that lets nothing through makes no other run than a short one.
            attacker.one_in = attacker.one_in.max(5);
        }
        self.chaos = chaos;
    }

    fn draw_plan(&mut self, dice: &mut Dice) {
        let (gateways, chaos, hosts) = (self.gateways, self.chaos_millis(), self.authority());
        let Some(plan) = &mut self.trust else { return };
        plan.credential = Duration::from_secs(dice.pick(&[20, 60, 120, 600]));
        plan.list = Duration::from_secs(dice.pick(&[30, 120, 600, 3_600]));
        plan.list_every = plan.list / 2;
        plan.grace = Duration::from_secs(dice.pick(&[0, 30, 120, 600]));
        plan.after_grace = dice.pick(&[AfterGrace::Refuse, AfterGrace::Refuse, AfterGrace::GoOn]);
        plan.proofs = dice.one_in(4);
        plan.decide_millis = dice.pick(&[0..1, 0..10, 20..400]);
        plan.sign_millis = dice.pick(&[5..50, 100..900, 3_000..12_000]);
        plan.answer_millis = dice.pick(&[0..5, 5..100, 500..4_000]);
        plan.denied_one_in = dice.pick(&[0, 0, 3]);
        for gateway in 0..gateways {
            if dice.one_in(3) {
                plan.strangers.push((gateway, dice.millis(0, chaos)));
            }
            while dice.one_in(2) {
                let lasting = dice.millis(1_000, chaos);
                plan.revocations.push((gateway, dice.millis(0, chaos), lasting));
            }
        }
        while dice.one_in(3) {
            plan.rollbacks
                .push((dice.index(hosts), dice.millis(chaos / 4, chaos)));
        }
    }

    /// Draws when the authority is away.
    fn draw_silence(&mut self, dice: &mut Dice) {
        let (host, chaos) = (self.authority(), self.chaos_millis());
        while dice.one_in(2) {
            let at = dice.millis(500, chaos);
            let lasting = dice.millis(1_000, chaos);
            let how = dice.pick(&[Stop::Kill, Stop::PowerCut]);
            self.faults.push((at, Fault::Stop { host, lasting, how }));
        }
        if dice.one_in(3) {
            for relay in self.first_relay()..self.collector() {
                let lasting = dice.millis(10_000, chaos);
                let between = (relay, host);
                self.faults
                    .push((dice.millis(500, chaos), Fault::Partition { between, lasting }));
            }
        }
    }
}
