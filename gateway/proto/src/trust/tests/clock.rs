//! Time: grace with every clock, and time that the authority signs.

use ClockQuality::{Authority as Signed, Floor, Synchronised, Unknown};

use super::*;
use crate::time::Instant;

const GRACE: u64 = 7 * DAY;
/// Room for clocks that differ.
const SKEW: u64 = 300;
const YEAR_2100: u64 = 4_102_444_800;

/// A believer with a list that is due at `BEGIN + DAY`.
fn with_list(after_grace: AfterGrace) -> Trust {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let settings = TrustSettings {
        after_grace,
        ..authority.settings()
    };
    let mut trust = Trust::new(NODE, settings, &Saved::default()).expect("nothing was saved");
    trust
        .take_status(WallTime::default(), &authority.list(1, BEGIN, &[]))
        .expect("the list is good");
    trust
}

#[test]
fn the_list_grows_stale_as_far_as_the_clock_can_tell() {
    let trust = with_list(AfterGrace::Refuse);
    let due = BEGIN + DAY;
    let fresh = Freshness::Fresh { until: due };
    let stale = Freshness::Stale {
        since: due,
        grace_until: due + GRACE,
    };
    let lapsed = Freshness::Lapsed { since: due };
    for (secs, want) in [
        (0, fresh),
        (due + SKEW, fresh),
        (due + SKEW + 1, stale),
        (due + GRACE + SKEW, stale),
        (due + GRACE + SKEW + 1, lapsed),
        (YEAR_2100, lapsed),
        (u64::MAX / 1000, lapsed),
    ] {
        assert_eq!(trust.freshness(at(secs, Unknown)), fresh, "{secs}");
        for quality in [Floor, Signed, Synchronised] {
            assert_eq!(trust.freshness(at(secs, quality)), want, "{secs} {quality:?}");
        }
    }
}

#[test]
fn a_credential_ends_after_its_grace_as_far_as_the_clock_can_tell() {
    // A list that is current all the time: only the credential's own window counts.
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let mut trust = authority.believer();
    let list = StatusList::new(1, BEGIN, BEGIN + VALIDITY_SECS_MAX, []).expect("the list is empty");
    let signed = list.sign(&authority.key).expect("the key is vouched for");
    let bytes = Presentation::encode(StatementKind::StatusList, &authority.identity.history, &signed)
        .expect("the list is short");
    trust
        .take_status(WallTime::default(), &bytes)
        .expect("the list is good");
    let credential = credential(subject(1));
    let presentation = authority.present(&credential);
    let end = credential.not_after;
    let grace = Standing::Grace { since: end };
    let early = Standing::NotYetValid;
    let cases: [(u64, Standing, Standing); 9] = [
        // When, with a floor, with a clock that is right.
        (0, Standing::Good, early),
        (BEGIN - SKEW - 1, Standing::Good, early),
        (BEGIN - SKEW, Standing::Good, Standing::Good),
        (end, Standing::Good, Standing::Good),
        (end + SKEW, Standing::Good, Standing::Good),
        (end + SKEW + 1, grace, grace),
        (end + GRACE + SKEW, grace, grace),
        (end + GRACE + SKEW + 1, Standing::Expired, Standing::Expired),
        (YEAR_2100, Standing::Expired, Standing::Expired),
    ];
    for (secs, floor, right) in cases {
        for (quality, want) in [
            (Unknown, Standing::Good),
            (Floor, floor),
            (Signed, right),
            (Synchronised, right),
        ] {
            let wall = at(secs, quality);
            assert_eq!(trust.check(wall, &credential), want, "{secs} {quality:?}");
            let verified = trust.verify(wall, subject(1), &presentation);
            assert_eq!(verified.is_ok(), want.counts(), "{secs} {quality:?}");
        }
    }
}

#[test]
fn without_word_of_the_authority_nobody_counts_after_the_grace_or_all_go_on() {
    let due = BEGIN + DAY;
    let lapse = due + GRACE + SKEW + 1;
    let member = credential(subject(1));
    let end = member.not_after;
    let stale = Standing::Grace { since: due };
    for (secs, refuse, go_on) in [
        (due + SKEW, Standing::Good, Standing::Good),
        (due + SKEW + 1, stale, stale),
        (lapse - 1, stale, stale),
        (lapse, Standing::Lapsed { since: due }, stale),
        (end + GRACE + SKEW, Standing::Lapsed { since: due }, stale),
        // Who goes on while the authority is silent cannot ask for what only the authority can give.
        (end + GRACE + SKEW + 1, Standing::Expired, stale),
        (YEAR_2100, Standing::Expired, stale),
    ] {
        for quality in [Floor, Signed, Synchronised] {
            let wall = at(secs, quality);
            let standing = |policy| with_list(policy).check(wall, &member);
            assert_eq!(standing(AfterGrace::Refuse), refuse, "{secs} {quality:?}");
            assert_eq!(standing(AfterGrace::GoOn), go_on, "{secs} {quality:?}");
        }
        let unknown = with_list(AfterGrace::Refuse).check(at(secs, Unknown), &member);
        assert_eq!(unknown, Standing::Good, "an unknown clock judges nothing");
    }
    // The grace began when the credential ended, if that was before the list was due.
    let short = Credential {
        not_after: due - 3600,
        ..member
    };
    let both = with_list(AfterGrace::Refuse).check(synchronised(due + SKEW + 1), &short);
    assert_eq!(both, Standing::Grace { since: due - 3600 });
}

#[test]
fn going_on_is_for_a_silent_authority_only() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let settings = TrustSettings {
        after_grace: AfterGrace::GoOn,
        ..authority.settings()
    };
    let mut trust = Trust::new(NODE, settings, &Saved::default()).expect("nothing was saved");
    let member = credential(subject(1));
    let late = member.not_after + GRACE + SKEW + 1;
    // A list of that day: the authority is there, and the member was not given another credential.
    let later = Authority::of(
        TestIdentity {
            key: authority.identity.key,
            history: authority.identity.history,
        },
        late - 10,
    );
    trust
        .take_status(WallTime::default(), &later.list(40, late, &[]))
        .expect("the list is good");
    assert_eq!(trust.check(synchronised(late), &member), Standing::Expired);
}

#[test]
fn before_the_first_list_a_credential_counts_for_the_grace_from_its_issue() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let trust = authority.believer();
    let member = credential(subject(1));
    let grace = Standing::Grace { since: BEGIN };
    for (secs, want) in [
        (BEGIN, grace),
        (BEGIN + GRACE + SKEW, grace),
        (BEGIN + GRACE + SKEW + 1, Standing::Lapsed { since: BEGIN }),
    ] {
        assert_eq!(trust.check(synchronised(secs), &member), want);
        assert_eq!(trust.freshness(synchronised(secs)), Freshness::NoList);
    }
    assert_eq!(
        trust.check(at(YEAR_2100, Unknown), &member),
        grace,
        "never silent"
    );
    let go_on = Trust::new(
        NODE,
        TrustSettings {
            after_grace: AfterGrace::GoOn,
            ..authority.settings()
        },
        &Saved::default(),
    )
    .expect("nothing was saved");
    assert_eq!(go_on.check(synchronised(YEAR_2100), &member), grace);
}

#[test]
fn no_grace_means_none() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let settings = TrustSettings {
        grace: Duration::ZERO,
        ..authority.settings()
    };
    let mut trust = Trust::new(NODE, settings, &Saved::default()).expect("nothing was saved");
    trust
        .take_status(WallTime::default(), &authority.list(1, BEGIN, &[]))
        .expect("the list is good");
    let due = BEGIN + DAY;
    let member = credential(subject(1));
    let standing = |secs| trust.check(synchronised(secs), &member);
    assert_eq!(standing(due + SKEW), Standing::Good);
    assert_eq!(standing(due + SKEW + 1), Standing::Lapsed { since: due });
    // The largest grace does not wrap around.
    let settings = TrustSettings {
        grace: Duration::MAX,
        ..settings
    };
    let forever = Trust::new(NODE, settings, &Saved::default()).expect("nothing was saved");
    let end = synchronised(u64::MAX / 1000);
    assert_eq!(forever.check(end, &member), Standing::Grace { since: BEGIN });
}

#[test]
fn a_list_of_the_future_is_refused_and_an_old_one_that_is_newer_taken() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let list = authority.list(1, BEGIN, &[]);
    let early = TrustError::NotYetValid {
        issued_at: BEGIN,
        now: BEGIN - SKEW - 1,
    };
    for quality in [Signed, Synchronised] {
        let mut trust = authority.believer();
        let refused = trust.take_status(at(BEGIN - SKEW - 1, quality), &list);
        assert_eq!(refused, Err(early.clone()));
        assert_eq!(trust.latest_statement_time(), 0, "a false time moves no clock");
        assert!(trust.take_status(at(BEGIN - SKEW, quality), &list).is_ok());
    }
    for wall in [at(0, Unknown), at(0, Floor), at(YEAR_2100, Synchronised)] {
        assert!(authority.believer().take_status(wall, &list).is_ok());
    }
}

/// A gateway without a clock battery boots in 1970, or with a dead one in 2100.
#[test]
fn a_boot_in_1970_or_2100_ends_with_the_authoritys_time() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    for boot in [0, YEAR_2100] {
        let mut trust = authority.believer();
        let presentation = authority.present(&credential(subject(1)));
        let wall = at(boot, Unknown);
        assert!(
            trust.verify(wall, subject(1), &presentation).is_ok(),
            "nobody is locked out"
        );
        assert_eq!(trust.latest_statement_time(), BEGIN, "a floor for the clock");
        let asked = Instant::from_nanos(5_000_000_000);
        let nonce = trust.ask_time(asked, &mut Seeded::new(boot));
        let answered = asked + Duration::from_millis(250);
        let signed = authority.time(nonce, BEGIN * 1000 + 77_123);
        let wall = trust.take_time(answered, &signed).expect("the answer is good");
        assert_eq!(
            wall,
            WallTime {
                unix_millis: BEGIN * 1000 + 77_248,
                quality: Signed
            }
        );
        assert_eq!(trust.latest_statement_time(), BEGIN + 77);
        assert_eq!(
            trust.check(wall, &credential(subject(1))),
            Standing::Grace { since: BEGIN }
        );
    }
}

#[test]
fn a_time_counts_once_and_for_its_question_only() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let mut trust = authority.believer();
    let now = Instant::from_nanos(1);
    let entropy = &mut Seeded::new(1);
    let unasked = authority.time([1; 16], BEGIN * 1000);
    assert_eq!(trust.take_time(now, &unasked), Err(TrustError::NotAsked));
    let nonce = trust.ask_time(now, entropy);
    let answer = authority.time(nonce, BEGIN * 1000);
    for (bit, forged) in each_bit_inverted(&answer) {
        assert!(trust.take_time(now, &forged).is_err(), "bit {bit}");
    }
    assert_eq!(trust.latest_statement_time(), 0);
    assert!(trust.take_time(now, &answer).is_ok());
    assert_eq!(
        trust.take_time(now, &answer),
        Err(TrustError::NotAsked),
        "a replay is no answer"
    );

    let nonce = trust.ask_time(now, entropy);
    let answer = authority.time(nonce, BEGIN * 1000);
    let (last, late) = (
        now + Duration::from_secs(30),
        now + Duration::from_nanos(30_000_000_001),
    );
    assert_eq!(trust.take_time(late, &answer), Err(TrustError::NotAsked));
    assert_eq!(
        trust.take_time(last, &answer).map(|wall| wall.unix_millis),
        Ok(BEGIN * 1000 + 15_000)
    );

    // Several may be open at the same time, not without limit.
    let nonces: Vec<_> = (0..17).map(|_| trust.ask_time(now, entropy)).collect();
    let taken: Vec<_> = nonces
        .iter()
        .map(|nonce| {
            trust
                .take_time(now, &authority.time(*nonce, BEGIN * 1000))
                .is_ok()
        })
        .collect();
    assert!(!taken[0] && taken[1..].iter().all(|taken| *taken));
}

#[test]
fn a_time_outside_the_keys_window_or_at_odds_with_itself_is_refused() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let nonce = [1; 16];
    let outside = TrustError::OutsideAttestation {
        issued_at: BEGIN + DAY + 1,
        not_before: BEGIN,
        not_after: BEGIN + DAY,
    };
    let late = SignedTime {
        nonce,
        unix_millis: (BEGIN + DAY + 1) * 1000,
    };
    assert_eq!(late.sign(&authority.key), Err(outside));
    let mut trust = authority.believer();
    let now = Instant::START;
    let nonce = trust.ask_time(now, &mut Seeded::new(1));
    for (number, body) in [
        ((BEGIN + 1) * 1000, nonce.as_slice()),
        (BEGIN * 1000 - 1, &nonce),
        (BEGIN * 1000, &nonce[..15]),
    ] {
        let signed = authority
            .key
            .sign(StatementKind::Time, number, BEGIN, BEGIN + 1, body)
            .expect("it is signed as it is");
        let bytes = Presentation::encode(StatementKind::Time, &authority.identity.history, &signed)
            .expect("a time is short");
        assert!(trust.take_time(now, &bytes).is_err(), "{number}");
    }
    assert!(
        trust
            .take_time(now, &authority.time(nonce, BEGIN * 1000 + 999))
            .is_ok()
    );
}
