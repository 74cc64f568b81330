//! Networks with an authority: nobody is served who may not be, and nothing promised is lost for it.
//!
//! The variables of `seeds` say which seeds are played here, too.

use std::time::Duration;

use fieldgate_proto::trust::AfterGrace;
use fieldgate_sim::{
    Report, Scenario,
    scenario::{Fault, Stop, TrustPlan},
};

use crate::seeds::{play, play_seeds};

#[test]
fn whatever_goes_wrong_only_those_are_served_who_may_be() {
    let kept = include_str!("../../seeds-trusting.txt");
    let Some(total) = play_seeds(kept, SEEDS, Scenario::draw_trusting) else {
        return;
    };
    let trust = &total.trust;
    let counts = [
        trust.credentials_taken,
        trust.credentials_refused,
        trust.renewals_denied,
        trust.lists_taken,
        trust.revoked,
        trust.in_grace,
        trust.ended,
        trust.silences,
        trust.enrolled,
        trust.proofs,
        trust.clocks_set,
        trust.rollbacks,
        total.wrong_clocks,
        total.partitions,
        total.refused_peers,
    ];
    assert!(counts.iter().all(|count| *count > 0), "{total:?}");
    assert!(total.acknowledged > 10_000, "{total:?}");
}

#[test]
fn a_seed_with_an_authority_does_the_same_every_time() {
    for seed in 1..=4 {
        let reports = [(); 2].map(|()| play(&Scenario::draw_trusting(seed), None).unwrap());
        assert_eq!(reports[0], reports[1]);
    }
}

/// Plays a network with one gateway in which only what `adjust` says goes wrong.
fn with(seed: u64, adjust: impl FnOnce(&mut Scenario, &mut TrustPlan)) -> Report {
    let mut scenario = Scenario::trusting(seed);
    let mut plan = scenario.trust.take().expect("there is an authority");
    adjust(&mut scenario, &mut plan);
    scenario.trust = Some(plan);
    let mut story = Vec::new();
    let played = play(&scenario, Some(&mut |line| story.push(line)));
    let report = played.unwrap_or_else(|failure| {
        let end = story.split_off(story.len().saturating_sub(120));
        panic!("{failure}\n{}", end.join("\n"))
    });
    assert_eq!(report.delivered, report.acknowledged);
    assert!(report.acknowledged > 50, "{report:?}");
    report
}

#[test]
fn members_renew_their_credentials_and_nobody_notices() {
    let report = with(1, |_, _| {});
    // Gateway, relay and collector, every half minute, for two.
    assert!(report.trust.credentials_taken >= 9, "{report:?}");
    assert_eq!(
        (
            report.trust.in_grace,
            report.trust.ended,
            report.trust.credentials_refused
        ),
        (0, 0, 0)
    );
    assert!(report.trust.lists_taken >= 4 * 3, "{report:?}");
    assert_eq!(report.trust.lists_refused, 0);
}

#[test]
fn a_revoked_gateway_delivers_when_it_is_taken_in_again() {
    for seed in 1..=3 {
        let report = with(seed, |_, plan| {
            plan.revocations = vec![(0, Duration::from_secs(30), Duration::from_secs(60))];
        });
        // By relay, collector and authority.
        assert!(report.trust.revoked >= 3, "{report:?}");
    }
}

#[test]
fn a_stranger_waits_with_its_readings_until_it_is_enrolled() {
    let report = with(2, |_, plan| plan.strangers = vec![(0, Duration::from_secs(70))]);
    assert_eq!(report.trust.enrolled, 1);
}

#[test]
fn an_authority_that_is_away_for_long_is_missed_only_after_the_grace() {
    let away = |scenario: &mut Scenario, plan: &mut TrustPlan| {
        scenario.chaos = Duration::from_secs(1_200);
        plan.list = Duration::from_secs(100);
        let host = scenario.authority();
        let (lasting, how) = (Duration::from_secs(1_100), Stop::Kill);
        scenario.faults = vec![(Duration::from_secs(60), Fault::Stop { host, lasting, how })];
    };
    let report = with(3, away);
    assert!(report.trust.in_grace > 0 && report.trust.ended > 0, "{report:?}");
    assert!(report.trust.silences >= 4, "{report:?}");
    let report = with(3, |scenario, plan| {
        away(scenario, plan);
        plan.after_grace = AfterGrace::GoOn;
    });
    assert!(report.trust.in_grace > 0, "{report:?}");
}

#[test]
fn old_lists_and_credentials_that_come_back_let_nobody_in() {
    for seed in 1..=3 {
        let report = with(seed, |_, plan| {
            plan.revocations = vec![(0, Duration::from_secs(30), Duration::from_secs(80))];
            // The relay, the collector, and the revoked gateway itself.
            plan.rollbacks = vec![
                (1, Duration::from_secs(50)),
                (2, Duration::from_secs(70)),
                (0, Duration::from_secs(90)),
            ];
        });
        assert_eq!(report.trust.rollbacks, 3);
    }
}

#[test]
fn everybody_begins_in_1970_and_is_told_the_time() {
    let report = with(4, |scenario, _| {
        scenario.clocks = vec![Scenario::BEGINNING; scenario.authority()];
    });
    assert_eq!(report.trust.clocks_set, 3);
}

#[test]
fn an_impostor_without_a_credential_is_served_by_nobody() {
    let report = with(5, |scenario, _| scenario.impostor = true);
    assert!(
        report.refused_peers > 0 || report.impostor_messages == 0,
        "{report:?}"
    );
}

/// Seeds played unless asked for another number.
const SEEDS: u64 = 200;
