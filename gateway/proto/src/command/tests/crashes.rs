//! What is promised holds whatever crashes, gets lost or fails, at whatever moment.

use std::time::Duration;

use super::{
    super::{Guarantee, Permission, Refusal, State},
    world::{Step, World, order},
};
use crate::time::ClockQuality;

const MINUTE: Duration = Duration::from_mins(1);

/// The same numbers for the same seed: an xorshift generator.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// Brings the world to its end: nothing fails any more, and every deadline passes.
fn settle(world: &mut World) {
    world.permission = Permission::Permitted;
    for _ in 0..40 {
        if !world.up {
            world.set_up(true);
        }
        if !world.awake {
            world.set_awake(true, |_| false);
        }
        world.run();
        world.advance(Duration::from_secs(5));
    }
    world.run();
    world.check_end();
}

#[test]
fn crashes_at_every_step_keep_the_promises() {
    let mut runs = 0;
    for guarantee in [Guarantee::AtMostOnce, Guarantee::AtLeastOnce] {
        for answer_wanted in [false, true] {
            for who in 0..3 {
                for kept in 0..2 {
                    for had in [false, true] {
                        for crash_at in 0.. {
                            let mut world = World::new();
                            world.set_up(true);
                            world.set_awake(true, |_| false);
                            world.submit([1; 16], order(guarantee, answer_wanted, "pump"), MINUTE);
                            for _ in 0..crash_at {
                                if let Some(step) = world.steps().first().copied() {
                                    world.step(step);
                                }
                            }
                            let over = world.steps().is_empty();
                            if who != 1 {
                                world.crash_collector(kept);
                            }
                            if who != 0 {
                                world.crash_gateway(kept, |_| had);
                            }
                            world.check();
                            settle(&mut world);
                            runs += 1;
                            if over {
                                break;
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(runs > 400, "{runs} runs");
}

#[test]
fn at_least_once_comes_through_every_crash() {
    for crash_at in 1..12 {
        let mut world = World::new();
        world.set_up(true);
        world.set_awake(true, |_| false);
        world.submit([1; 16], order(Guarantee::AtLeastOnce, true, "pump"), MINUTE);
        world.run_until_accepted();
        for _ in 0..crash_at {
            if let Some(step) = world.steps().first().copied() {
                world.step(step);
            }
        }
        world.crash_gateway(0, |_| false);
        world.crash_collector(0);
        settle(&mut world);
        let known = &world.known[&[1; 16]];
        assert!(
            !known.handed.is_empty() && known.ends.last().is_some_and(State::is_success),
            "crash at {crash_at}: {known:?}"
        );
    }
}

/// One run with everything that can go wrong going wrong.
fn random_run(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut world = World::new();
    world.can_answer = !random.one_in(4);
    if random.one_in(3) {
        world.gateway_quality = ClockQuality::Unknown;
    }
    let mut submitted = 0_u8;
    for _ in 0..400 {
        match random.below(40) {
            0..3 if submitted < 12 => {
                submitted += 1;
                let guarantee = if random.one_in(2) {
                    Guarantee::AtMostOnce
                } else {
                    Guarantee::AtLeastOnce
                };
                let device = if random.one_in(3) { "lamp" } else { "pump" };
                let order = order(guarantee, random.one_in(2), device);
                let remaining = Duration::from_millis(500 + random.below(30_000));
                world.submit([submitted; 16], order, remaining);
            }
            3 if submitted > 0 => {
                let id = u8::try_from(random.below(u64::from(submitted))).unwrap() + 1;
                world.cancel([id; 16]);
            }
            4 => {
                let up = !world.up;
                world.set_up(up);
            }
            5 => {
                let (awake, had) = (!world.awake, random.below(4));
                world.set_awake(awake, |index| had >> (index % 2) & 1 == 1);
            }
            6 => world.crash_collector(usize::try_from(random.below(3)).unwrap()),
            7 => {
                let (kept, had) = (usize::try_from(random.below(3)).unwrap(), random.below(4));
                world.crash_gateway(kept, |index| had >> (index % 2) & 1 == 1);
            }
            8 => {
                world.to_gateway.pop_front();
            }
            9 => {
                world.to_collector.pop_front();
            }
            10 => world.fail_store(random.one_in(2)),
            11 => {
                world.permission = match random.below(6) {
                    0 => Permission::Refused,
                    1 => Permission::UnknownDevice,
                    2 => Permission::Undecided,
                    _ => Permission::Permitted,
                };
                let now = world.gateway_now();
                world.executor.handle_rights_changed(now);
                world.advance(Duration::ZERO);
            }
            12..16 => world.advance(Duration::from_millis(random.below(4_000))),
            _ => {
                let steps: Vec<Step> = world.steps();
                if !steps.is_empty() {
                    let index = usize::try_from(random.below(steps.len() as u64)).unwrap();
                    world.step(steps[index]);
                }
            }
        }
        world.check();
    }
    let now = world.gateway_now();
    world.permission = Permission::Permitted;
    world.executor.handle_rights_changed(now);
    settle(&mut world);
}

#[test]
fn random_failures_keep_the_promises() {
    for seed in 1..=800 {
        let run = std::panic::catch_unwind(|| random_run(seed));
        assert!(run.is_ok(), "seed {seed}");
    }
}

#[test]
fn a_refusal_is_final_although_the_policy_changes() {
    let mut world = World::new();
    world.permission = Permission::Refused;
    world.set_up(true);
    world.set_awake(true, |_| false);
    world.submit([1; 16], order(Guarantee::AtLeastOnce, false, "pump"), MINUTE);
    world.run();
    assert_eq!(
        world.known[&[1; 16]].ends,
        [State::Refused(Refusal::NotAuthorised)]
    );
    settle(&mut world);
}
