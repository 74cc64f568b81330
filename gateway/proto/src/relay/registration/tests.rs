use super::*;
use crate::link::tests::Seeded;

/// A registration with its clock and what came out of it.
struct World {
    registration: Registration,
    entropy: Seeded,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let registration = Registration::new("plant").expect("a name");
        Self {
            registration,
            entropy: Seeded(5),
            now: Instant::START + Duration::from_secs(1),
        }
    }

    fn outputs(&mut self) -> Vec<RegistrationOutput> {
        std::iter::from_fn(|| self.registration.poll_output()).collect()
    }

    /// Goes to the next deadline and returns how long that took.
    fn next(&mut self) -> Duration {
        let deadline = self.registration.poll_timeout().expect("a deadline");
        let waited = deadline - self.now;
        self.now = deadline;
        self.registration.handle_timeout(deadline, &mut self.entropy);
        waited
    }

    fn registered(&mut self, request: u32, lease_secs: u32) {
        let frame = RegistrarFrame::Registered { request, lease_secs };
        self.registration
            .handle_frame(self.now, &frame, &mut self.entropy);
    }

    fn refused(&mut self, request: u32) {
        let frame = RegistrarFrame::Refused {
            request,
            reason: RefusedReason::NotAuthorised,
        };
        self.registration
            .handle_frame(self.now, &frame, &mut self.entropy);
    }
}

const fn ask(request: u32) -> RegistrationOutput {
    RegistrationOutput::SendRegister { request }
}

const fn agreed(secs: u64) -> RegistrationOutput {
    RegistrationOutput::Registered {
        lease: Duration::from_secs(secs),
    }
}

#[test]
fn registers_and_renews_at_half_the_lease() {
    let mut world = World::new();
    assert_eq!(world.registration.poll_timeout(), None);
    world.registration.handle_channel_up(world.now);
    world.registration.handle_channel_up(world.now);
    assert_eq!(world.outputs(), [ask(1)]);
    world.registered(1, 600);
    assert_eq!(world.outputs(), [agreed(600)]);
    for request in 2..5 {
        assert_eq!(world.next(), Duration::from_secs(300));
        assert_eq!(world.outputs(), [ask(request)]);
        assert!(matches!(
            world.registration.state(),
            RegistrationState::Registered { .. }
        ));
        world.registered(request, 600);
        assert_eq!(world.outputs(), [agreed(600)]);
    }
}

#[test]
fn an_unanswered_request_is_repeated_ever_more_slowly() {
    let mut world = World::new();
    world.registration.handle_channel_up(world.now);
    let mut waits = Vec::new();
    for request in 1..12 {
        assert_eq!(world.outputs(), [ask(request)]);
        assert_eq!(world.next(), ANSWER_WITHIN);
        waits.push(world.next());
    }
    for (index, wait) in waits.iter().enumerate() {
        let longest = Duration::from_secs((1 << index).min(60));
        assert!((longest / 2..=longest).contains(wait), "{waits:?}");
    }
}

#[test]
fn an_unanswered_renewal_is_repeated_until_the_lease_is_over() {
    let mut world = World::new();
    world.registration.handle_channel_up(world.now);
    world.registered(1, 600);
    let end = world.now + Duration::from_secs(600);
    world.outputs();
    while matches!(world.registration.state(), RegistrationState::Registered { .. }) {
        world.next();
    }
    assert_eq!(world.now, end);
    let outputs = world.outputs();
    let (last, requests) = outputs.split_last().expect("outputs");
    assert_eq!(*last, RegistrationOutput::Lost);
    let asked = requests
        .iter()
        .filter(|output| matches!(output, RegistrationOutput::SendRegister { .. }))
        .count();
    assert_eq!(asked, requests.len());
    assert!((5..20).contains(&asked), "{asked}");
    world.next();
    assert!(matches!(
        world.outputs().as_slice(),
        [RegistrationOutput::SendRegister { .. }]
    ));
}

#[test]
fn a_refusal_is_told_and_asked_again() {
    let mut world = World::new();
    world.registration.handle_channel_up(world.now);
    world.outputs();
    world.refused(1);
    assert_eq!(
        world.outputs(),
        [RegistrationOutput::Refused {
            reason: RefusedReason::NotAuthorised
        }]
    );
    let state = world.registration.state();
    assert!(matches!(
        state,
        RegistrationState::Waiting {
            refused: Some(RefusedReason::NotAuthorised),
            ..
        }
    ));
    world.next();
    assert_eq!(world.outputs(), [ask(2)]);
    world.registered(2, 600);
    assert_eq!(world.outputs(), [agreed(600)]);
}

#[test]
fn answers_to_nothing_are_ignored() {
    let mut world = World::new();
    world.registered(0, 600);
    world.registration.handle_channel_up(world.now);
    world.registered(2, 600);
    world.refused(7);
    assert_eq!(world.outputs(), [ask(1)]);
    assert_eq!(world.registration.state(), RegistrationState::Asking);
    world.registered(1, 600);
    world.registered(1, 5);
    world.refused(1);
    assert_eq!(world.outputs(), [agreed(600)]);
    let forward = RegistrarFrame::Register {
        request: 1,
        name: "plant",
    };
    world
        .registration
        .handle_frame(world.now, &forward, &mut world.entropy);
    assert_eq!(world.outputs(), []);
}

#[test]
fn a_lost_channel_loses_the_name_and_begins_anew() {
    let mut world = World::new();
    world.registration.handle_channel_up(world.now);
    world.registered(1, 600);
    world.outputs();
    world.registration.handle_channel_down();
    world.registration.handle_channel_down();
    assert_eq!(world.outputs(), [RegistrationOutput::Lost]);
    assert_eq!(world.registration.poll_timeout(), None);
    world.registered(1, 600);
    assert_eq!(world.outputs(), []);
    world.registration.handle_channel_up(world.now);
    assert_eq!(world.outputs(), [ask(2)]);
}

#[test]
fn a_senseless_lease_is_kept_within_bounds() {
    for (said, taken) in [(0, 10), (u32::MAX, 86_400)] {
        let mut world = World::new();
        world.registration.handle_channel_up(world.now);
        world.registered(1, said);
        assert_eq!(world.outputs(), [ask(1), agreed(taken)]);
    }
}

#[test]
fn a_name_no_relay_would_take_is_refused_at_once() {
    assert!(Registration::new("").is_err());
    assert!(Registration::new(&"x".repeat(129)).is_err());
    assert_eq!(
        Registration::new("plant").map(|registration| registration.name().to_owned()),
        Ok("plant".to_owned())
    );
}
