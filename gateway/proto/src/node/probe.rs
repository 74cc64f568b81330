//! How a path is: whether the peer is heard over it, how long a round trip takes, what is lost.
#![warn(clippy::indexing_slicing)]

use std::time::Duration;

use crate::{link::RoundTrip, time::Instant};

/// How soon a path has to give a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Expectation {
    /// Nothing is on its way: a probe every [`IDLE`].
    Idle,
    /// Something may come at any time without this side asking: a probe after [`OPEN`] of silence.
    Open,
    /// An answer is due: a probe after the answer time.
    Answer,
}

/// Watches one path by probes, which the channel carries as Ping and Pong.
///
/// ```text
///  Heard ──silence for as long as is expected: probe──▶ Silent ──limit──▶ Dead
///    ▲                                                     │ probe again    │ probe every second
///    └──────────────── anything from the peer ─────────────┴────────────────┘
/// ```
///
/// What is expected of a path follows its measured round trip, so a slow one is not taken for a dead one; time in which this node
/// itself did not run does not count; and a path that was called dead and was not gets more patience, for as long as it needs it.
#[derive(Debug)]
pub(super) struct Probe {
    round_trip: RoundTrip,
    heard_at: Instant,
    /// When the last probe was sent; before the first, when the path came up.
    probed_at: Instant,
    /// When the first probe was sent that nothing was heard after.
    silent_since: Option<Instant>,
    /// The last probe has no answer yet.
    is_open: bool,
    /// Lost probes, smoothed: 65,536 is all.
    loss: u32,
    /// How often longer than usual a silence may be: 1, 2, 4, 8.
    patience: u32,
    /// Answers in time since the patience last changed.
    prompt: u32,
    /// When it was heard again after it had been called dead.
    revived_at: Option<Instant>,
    /// Answers in a row to probes of before that.
    late: u32,
    /// Whether it was called dead since it was heard last.
    was_dead: bool,
    /// When it wanted to be called.
    due: Option<Instant>,
}

impl Probe {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            round_trip: RoundTrip::default(),
            heard_at: now,
            probed_at: now,
            silent_since: None,
            is_open: false,
            loss: 0,
            patience: 1,
            prompt: 0,
            revived_at: None,
            late: 0,
            was_dead: false,
            due: None,
        }
    }

    /// Takes the news that something of the peer came over the path.
    pub(super) fn handle_heard(&mut self, now: Instant) {
        self.heard_at = now;
        let silent_since = self.silent_since.take();
        if !std::mem::take(&mut self.was_dead) {
            return;
        }
        self.revived_at = Some(now);
        // Twice the limit would have been patience enough; a path that was silent for longer was broken, and is as good as before.
        let twice = self.limit().saturating_mul(2);
        if silent_since.is_some_and(|since| now < since + twice) {
            self.patience = (self.patience * 2).min(PATIENCE_MAX);
            self.prompt = 0;
        }
    }

    /// Takes the answer to the last probe, after the news that the peer was heard.
    pub(super) fn handle_answer(&mut self, round_trip: Duration) {
        self.is_open = false;
        self.loss -= self.loss / LOSS_SMOOTHING;
        // What lay in a cable that was pulled, or waited behind what did, is no measure of the path. One that is like that time and
        // again is no better than it seems.
        let settled_at = self.revived_at.map(|revived_at| revived_at + SETTLING);
        if settled_at.is_some_and(|settled_at| self.heard_at < settled_at + round_trip) {
            self.late += 1;
            if self.late < LATE_IN_A_ROW {
                return;
            }
        }
        self.late = 0;
        self.round_trip.record(round_trip);
        self.prompt += 1;
        if self.prompt >= PROMPT {
            self.prompt = 0;
            self.patience = (self.patience / 2).max(1);
        }
    }

    /// Returns whether a probe is to be sent at `now`; the caller sends it.
    pub(super) fn handle_timeout(&mut self, now: Instant, expectation: Expectation) -> bool {
        // A node that did not run for a while has not heard anybody, and nobody is to blame.
        let late = self.due.map_or(Duration::ZERO, |due| now - due.min(now));
        if late > LATE
            && let Some(since) = &mut self.silent_since
        {
            *since = (*since + late).min(now);
        }
        let wants = now >= self.next(expectation);
        if wants {
            if std::mem::replace(&mut self.is_open, true) {
                self.loss += (LOSS_ALL - self.loss) / LOSS_SMOOTHING;
            }
            self.probed_at = now;
            self.silent_since.get_or_insert(now);
        }
        if self.is_dead(now) {
            self.was_dead = true;
        }
        self.due = Some(self.poll_timeout(expectation));
        wants
    }

    /// Returns when [`Probe::handle_timeout`] wants to be called.
    pub(super) fn poll_timeout(&self, expectation: Expectation) -> Instant {
        let next = self.next(expectation);
        match self.silent_since {
            Some(since) if !self.was_dead => next.min(since + self.limit()),
            Some(_) | None => next,
        }
    }

    /// Returns when the next probe is due.
    fn next(&self, expectation: Expectation) -> Instant {
        if self.was_dead {
            return self.probed_at + DEAD;
        }
        if self.silent_since.is_some() {
            // At least four within the limit.
            return self.probed_at + self.answer_time().min(self.limit() / 4);
        }
        // A busy path is measured as often as a quiet one.
        let regular = self.probed_at + IDLE;
        match expectation {
            Expectation::Answer => regular.min(self.heard_at + self.answer_time()),
            Expectation::Open => regular.min(self.heard_at + OPEN.max(self.answer_time())),
            Expectation::Idle => regular,
        }
    }

    /// How long an answer may take before another probe goes out.
    fn answer_time(&self) -> Duration {
        self.round_trip.timeout().unwrap_or(UNMEASURED).max(ANSWER_MIN)
    }

    /// How long the path may be silent while probes are sent.
    fn limit(&self) -> Duration {
        let measured = self.round_trip.timeout().unwrap_or(UNMEASURED).saturating_mul(3);
        measured
            .max(LIMIT_MIN)
            .saturating_mul(self.patience)
            .min(LIMIT_MAX)
    }

    /// Returns whether a probe has waited longer for an answer than is usual.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.silent_since
            .is_some_and(|since| now > since + self.answer_time())
    }

    /// Returns whether probes have gone unanswered for so long that nothing is to be expected any more.
    pub(super) fn is_dead(&self, now: Instant) -> bool {
        self.silent_since.is_some_and(|since| now >= since + self.limit())
    }

    /// Returns since when nothing was heard although it was asked for.
    pub(super) const fn silent_since(&self) -> Option<Instant> {
        self.silent_since
    }

    /// Returns whether the peer was heard at `since` or later.
    pub(super) fn was_heard_since(&self, since: Instant) -> bool {
        self.heard_at >= since
    }

    /// Returns the smoothed round trip, once measured.
    pub(super) const fn round_trip(&self) -> Option<Duration> {
        self.round_trip.smoothed()
    }

    /// Returns how many of a thousand probes are lost, smoothed over the last sixteen.
    pub(super) fn loss_permille(&self) -> u16 {
        let permille = u64::from(self.loss) * 1000 / u64::from(LOSS_ALL);
        u16::try_from(permille).unwrap_or(1000)
    }
}

/// How often a path is probed on which nothing happens: some 50 bytes each way, so 10 bytes a second.
const IDLE: Duration = Duration::from_secs(5);
/// Silence after which a path is probed over which something may come at any time.
const OPEN: Duration = Duration::from_millis(250);
/// Shortest time that is left for an answer.
const ANSWER_MIN: Duration = Duration::from_millis(150);
/// Shortest silence, probes being sent, after which a path is dead: with the 150 ms before the first probe 750 ms.
const LIMIT_MIN: Duration = Duration::from_millis(600);
const LIMIT_MAX: Duration = Duration::from_secs(15);
/// Round trip and its variation of a path that was not measured yet.
const UNMEASURED: Duration = Duration::from_millis(500);
/// How often a dead path is probed.
const DEAD: Duration = Duration::from_secs(1);
/// How late this node may do what is due before the silence is its own.
const LATE: Duration = Duration::from_millis(100);
const PATIENCE_MAX: u32 = 8;
/// How long a path that is heard again may take to bring what waited.
const SETTLING: Duration = Duration::from_secs(1);
/// Answers to probes of before, or of so soon after, that are taken for a coincidence and not for how the path is.
const LATE_IN_A_ROW: u32 = 4;
/// Answers in time after which a path gets half of the patience: a minute's, where one is asked for every 5 s.
const PROMPT: u32 = 12;
const LOSS_SMOOTHING: u32 = 16;
const LOSS_ALL: u32 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::START + Duration::from_millis(millis)
    }

    /// Lets time pass in steps of a millisecond; returns how many probes were sent and when the path was dead.
    fn silence(
        probe: &mut Probe,
        millis: std::ops::Range<u64>,
        expectation: Expectation,
    ) -> (u32, Option<u64>) {
        let mut sent = 0;
        let mut dead = None;
        for now in millis {
            sent += u32::from(probe.handle_timeout(at(now), expectation));
            if probe.is_dead(at(now)) {
                dead.get_or_insert(now);
            }
        }
        (sent, dead)
    }

    /// A path whose round trip is known.
    fn measured(round_trip: u64) -> Probe {
        let mut probe = Probe::new(at(0));
        for _ in 0..20 {
            probe.handle_answer(Duration::from_millis(round_trip));
        }
        probe.handle_heard(at(0));
        probe
    }

    #[test]
    fn a_quiet_path_is_probed_every_five_seconds_and_one_in_use_after_its_answer_time() {
        let mut probe = measured(10);
        let mut sent = 0;
        for now in 0..60_000 {
            if probe.handle_timeout(at(now), Expectation::Idle) {
                sent += 1;
                probe.handle_heard(at(now + 10));
                probe.handle_answer(Duration::from_millis(10));
            }
        }
        assert_eq!(sent, 11);
        assert_eq!(probe.loss_permille(), 0);
        let mut probe = measured(10);
        assert_eq!(silence(&mut probe, 0..150, Expectation::Answer), (0, None));
        assert_eq!(silence(&mut probe, 150..151, Expectation::Answer), (1, None));
    }

    #[test]
    fn a_path_that_goes_silent_is_dead_after_three_quarters_of_a_second() {
        let mut probe = measured(10);
        let (sent, dead) = silence(&mut probe, 0..2_000, Expectation::Answer);
        assert_eq!(dead, Some(750));
        // Four until then, and one a second from then on.
        assert_eq!(sent, 6);
        assert!(probe.loss_permille() > 200, "{}", probe.loss_permille());
        // On an open path that nothing is asked of it takes a little longer.
        let mut probe = measured(10);
        assert_eq!(silence(&mut probe, 0..2_000, Expectation::Open).1, Some(850));
    }

    #[test]
    fn a_slow_path_gets_the_time_it_takes() {
        let mut probe = measured(1_000);
        let (_, dead) = silence(&mut probe, 0..20_000, Expectation::Answer);
        let dead = dead.expect("at last");
        assert!((4_000..6_000).contains(&dead), "{dead}");
    }

    #[test]
    fn what_was_called_dead_and_was_not_gets_more_patience_up_to_a_bound_and_for_a_while() {
        let mut probe = measured(10);
        let mut begin = 0;
        for wanted in [750, 1_350, 2_550, 4_950, 4_950] {
            let (_, dead) = silence(&mut probe, begin..begin + wanted + 100, Expectation::Answer);
            assert_eq!(dead, Some(begin + wanted));
            begin += wanted + 100;
            probe.handle_heard(at(begin));
            assert!(!probe.is_dead(at(begin)));
        }
        // A probe is due at once each time: the last answer came to one of five seconds ago.
        for wanted in [2_400, 1_200, 600, 600] {
            for _ in 0..PROMPT {
                begin += 5_000;
                probe.handle_heard(at(begin));
                probe.handle_answer(Duration::from_millis(10));
            }
            // Broken for long, which has nothing to do with patience.
            let (_, dead) = silence(&mut probe, begin..begin + 20_000, Expectation::Answer);
            assert_eq!(dead, Some(begin + wanted));
            begin += 20_000;
            probe.handle_heard(at(begin));
        }
    }

    #[test]
    fn an_answer_that_lay_in_a_pulled_cable_is_no_measure_and_one_time_and_again_is() {
        let mut probe = measured(10);
        let mut begin = 0;
        for round in 1..=LATE_IN_A_ROW {
            assert_eq!(probe.round_trip(), Some(Duration::from_millis(10)), "{round}");
            let (_, dead) = silence(&mut probe, begin..begin + 3_000, Expectation::Answer);
            assert_eq!(dead, Some(begin + 750));
            begin += 3_000;
            probe.handle_heard(at(begin));
            probe.handle_answer(Duration::from_millis(500));
        }
        assert!(probe.round_trip() > Some(Duration::from_millis(50)));
    }

    #[test]
    fn a_path_that_was_broken_is_measured_again_once_it_has_settled() {
        let mut probe = measured(10);
        silence(&mut probe, 0..3_000, Expectation::Answer);
        probe.handle_heard(at(3_000));
        probe.handle_heard(at(3_900));
        probe.handle_answer(Duration::from_millis(500));
        assert_eq!(probe.round_trip(), Some(Duration::from_millis(10)));
        probe.handle_heard(at(4_600));
        probe.handle_answer(Duration::from_millis(500));
        assert!(probe.round_trip() > Some(Duration::from_millis(50)));
    }

    #[test]
    fn time_in_which_the_node_did_not_run_is_nobodys_silence() {
        let mut probe = measured(10);
        assert_eq!(silence(&mut probe, 0..300, Expectation::Answer).1, None);
        // Away for a minute in the middle of a silence.
        assert_eq!(silence(&mut probe, 60_300..60_400, Expectation::Answer).1, None);
        let (_, dead) = silence(&mut probe, 60_400..62_000, Expectation::Answer);
        assert!(dead.is_some(), "and what comes then is");
    }
}
