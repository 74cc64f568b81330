use fieldgate_proto::identity::Identifier;

use super::*;
use crate::request::{
    Context, KeyStorage, LinkKind, Principal, Request, Resource, Service, StreamFacts, TicketRights,
    TimeQuality, Weekday,
};

fn principal(byte: u8) -> Principal {
    Principal::new(Identifier::from_bytes([byte; 32]))
}

fn policy(text: &str) -> Policy {
    let checked = check("test.cedar", text);
    let problems = checked.problems.render_json();
    checked.policy.unwrap_or_else(|| panic!("{problems}"))
}

/// One resource for each action.
fn resource(action: Action) -> Resource {
    let name = || "a".to_owned();
    match action {
        Action::Connect | Action::Publish => Resource::Service(Service::Uplink),
        Action::RegisterRelay | Action::Reach => Resource::RelayName(name()),
        Action::Command => Resource::Device {
            name: name(),
            gateway: name(),
        },
        Action::OpenPortal => Resource::Portal {
            name: name(),
            kind: "tcp".to_owned(),
        },
        Action::IssueTicket | Action::Enroll | Action::Renew | Action::Revoke => Resource::Authority,
        Action::Configure | Action::ReadStatus => Resource::Configuration,
    }
}

fn request(principal: &Principal, action: Action, context: &Context) -> Request {
    Request::new(principal.clone(), action, resource(action), context.clone()).expect("they fit")
}

fn connect(principal: &Principal, context: &Context) -> Request {
    request(principal, Action::Connect, context)
}

fn ids(decision: &Decision) -> Vec<&str> {
    decision.reasons.iter().map(PolicyId::as_str).collect()
}

/// The circumstances in which everything is well, but nothing granted.
fn well() -> Context {
    Context {
        time_quality: TimeQuality::Synchronised,
        link: Some(LinkKind::Tcp),
        hops: Some(1),
        post_quantum: true,
        live_proof: true,
        ticket: Some(TicketRights {
            grants_administrator: false,
            grants_enroller: false,
        }),
        ..Context::default()
    }
}

#[test]
fn built_in_policy_as_a_table() {
    use Action::{
        Command, Configure, Connect, Enroll, IssueTicket, OpenPortal, Publish, Reach, ReadStatus,
        RegisterRelay, Renew, Revoke,
    };
    let nobody = principal(1);
    let named = Principal {
        named: true,
        ..principal(2)
    };
    let member = Principal {
        member: true,
        key: KeyStorage::Token,
        ..principal(3)
    };
    let enroller = Principal {
        enroller: true,
        ..principal(4)
    };
    let administrator = Principal {
        administrator: true,
        ..principal(5)
    };
    let all = Action::ALL;
    let bare = well();
    let granted = Context {
        granted: true,
        ..well()
    };
    let ticket = |grants_administrator, grants_enroller| Context {
        ticket: Some(TicketRights {
            grants_administrator,
            grants_enroller,
        }),
        ..well()
    };
    let administration: &[Action] = &[IssueTicket, Revoke, Configure, ReadStatus, Enroll];
    let table: [(&str, &Principal, &Context, &[Action]); 14] = [
        ("stranger", &nobody, &bare, &[Enroll]),
        ("stranger with a grant", &nobody, &granted, &[Enroll]),
        ("named", &named, &bare, &[Enroll]),
        ("named with a grant", &named, &granted, all),
        ("member", &member, &bare, &[Connect, Renew, Enroll]),
        ("member with a grant", &member, &granted, all),
        ("enroller", &enroller, &bare, &[IssueTicket, Enroll]),
        (
            "enroller with a grant",
            &enroller,
            &granted,
            &[IssueTicket, Enroll],
        ),
        (
            "enroller making an administrator",
            &enroller,
            &ticket(true, false),
            &[Enroll],
        ),
        (
            "enroller making an enroller",
            &enroller,
            &ticket(false, true),
            &[Enroll],
        ),
        ("enroller making both", &enroller, &ticket(true, true), &[Enroll]),
        ("administrator", &administrator, &bare, administration),
        (
            "administrator making both",
            &administrator,
            &ticket(true, true),
            administration,
        ),
        (
            "administrator with a grant",
            &administrator,
            &granted,
            administration,
        ),
    ];
    let built_in = Policy::built_in();
    for (who, principal, context, allowed) in table {
        for action in [
            Connect,
            RegisterRelay,
            Reach,
            Publish,
            Command,
            OpenPortal,
            IssueTicket,
            Enroll,
            Renew,
            Revoke,
            Configure,
            ReadStatus,
        ] {
            let decision = built_in.decide(&request(principal, action, context));
            assert_eq!(decision.allowed, allowed.contains(&action), "{who}: {action}");
            assert_eq!(decision.allowed, !decision.reasons.is_empty(), "{who}: {action}");
            assert_eq!(decision.errors, []);
        }
    }
}

#[test]
fn connecting_needs_the_same_for_every_service() {
    let member = Principal {
        member: true,
        ..principal(1)
    };
    for service in Service::ALL {
        let ask = |principal: &Principal| {
            Request::new(
                principal.clone(),
                Action::Connect,
                Resource::Service(*service),
                well(),
            )
            .expect("they fit")
        };
        assert!(Policy::built_in().decide(&ask(&member)).allowed);
        assert!(!Policy::built_in().decide(&ask(&principal(1))).allowed);
    }
}

#[test]
fn built_in_policy_has_no_problem_and_is_one() {
    let checked = check("built-in", crate::BUILT_IN);
    assert_eq!(checked.problems.render_json(), "[]");
    let text = checked.policy.expect("it is good");
    let ids: Vec<&str> = text.rules().iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(ids, built_in::IDS);
    assert_eq!(Policy::built_in().rule_count(), text.rule_count());
    assert_eq!(Policy::built_in().name(), text.name());
}

#[test]
fn policies_are_shared_between_threads() {
    fn shareable<T: Send + Sync + 'static>() {}
    shareable::<Policy>();
}

#[test]
fn reasons_are_the_rules_that_decided_in_the_order_of_the_policy() {
    let node = principal(1).identifier;
    let text = format!(
        "permit (principal, action, resource) when {{ principal.member }};\n\
         @id(\"for-one\") permit (principal == Fieldgate::Node::\"{node}\", action, resource);\n\
         @id(\"no-memory\") forbid (principal, action, resource) when {{ principal.key == \"memory\" }};\n\
         @id(\"not-him\") forbid (principal == Fieldgate::Node::\"{node}\", action, resource) when {{ context.granted }};\n"
    );
    let policy = policy(&text);
    let mut member = principal(1);
    member.member = true;
    assert_eq!(
        ids(&policy.decide(&connect(&member, &well()))),
        ["rule 1", "for-one"]
    );
    member.member = false;
    assert_eq!(ids(&policy.decide(&connect(&member, &well()))), ["for-one"]);
    let granted = Context {
        granted: true,
        ..well()
    };
    member.key = KeyStorage::Memory;
    let decision = policy.decide(&connect(&member, &granted));
    assert_eq!(
        (decision.allowed, ids(&decision)),
        (false, vec!["no-memory", "not-him"])
    );

    let mut other = principal(2);
    let decision = policy.decide(&connect(&other, &well()));
    assert_eq!((decision.allowed, ids(&decision)), (false, vec![]));
    other.member = true;
    assert_eq!(ids(&policy.decide(&connect(&other, &granted))), ["rule 1"]);
}

#[test]
fn attributes_and_groups_are_seen() {
    let policy = policy(
        "permit (principal in Fieldgate::Group::\"crew\", action, resource)\n\
         when { principal.hasTag(\"site\") && principal.getTag(\"site\") == \"north\" && principal.name like \"press-*\" };",
    );
    let mut node = principal(1);
    let mut allowed = |change: fn(&mut Principal)| {
        change(&mut node);
        policy.decide(&connect(&node, &well())).allowed
    };
    assert!(!allowed(|node| node.name = "press-1".to_owned()));
    assert!(!allowed(|node| {
        node.attributes
            .insert("groups".to_owned(), "day, crew,".to_owned());
    }));
    assert!(!allowed(|node| {
        node.attributes.insert("site".to_owned(), "south".to_owned());
    }));
    assert!(allowed(|node| {
        node.attributes.insert("site".to_owned(), "north".to_owned());
    }));
    assert!(!allowed(|node| {
        node.attributes
            .insert("groups".to_owned(), "crews,day".to_owned());
    }));
}

#[test]
fn rules_for_groups_and_nodes_look_at_the_action_too_and_forbid_what_others_permit() {
    let node = principal(1).identifier;
    let policy = policy(&format!(
        "permit (principal, action, resource);\n\
         forbid (principal is Fieldgate::Node in Fieldgate::Group::\"night\", action == Fieldgate::Action::\"connect\", resource);\n\
         forbid (principal in Fieldgate::Group::\"day\", action, resource) when {{ context.granted }};\n\
         forbid (principal == Fieldgate::Node::\"{node}\", action == Fieldgate::Action::\"publish\", resource);\n\
         forbid (principal in Fieldgate::Node::\"{node}\", action == Fieldgate::Action::\"configure\", resource);\n"
    ));
    let mut crew = principal(1);
    crew.attributes
        .insert("groups".to_owned(), "day,night".to_owned());
    let granted = Context {
        granted: true,
        ..well()
    };
    let ids_of = |principal: &Principal, action, context: &Context| {
        let decision = policy.decide(&request(principal, action, context));
        let ids = decision.reasons.iter().map(ToString::to_string);
        (decision.allowed, ids.collect::<Vec<String>>().join(" "))
    };
    let expected = [
        (Action::Connect, &well(), (false, "rule 2")),
        (Action::Connect, &granted, (false, "rule 2 rule 3")),
        (Action::Reach, &well(), (true, "rule 1")),
        (Action::Publish, &well(), (false, "rule 4")),
        (Action::Publish, &granted, (false, "rule 3 rule 4")),
        (Action::Configure, &well(), (false, "rule 5")),
    ];
    for (action, context, (allowed, ids)) in expected {
        assert_eq!(
            ids_of(&crew, action, context),
            (allowed, ids.to_owned()),
            "{action}"
        );
        assert_eq!(
            ids_of(&principal(2), action, context),
            (true, "rule 1".to_owned()),
            "{action}"
        );
    }
}

#[test]
fn a_rule_for_some_actions_is_silent_about_others() {
    let policy = policy(
        "permit (principal, action in [Fieldgate::Action::\"connect\", Fieldgate::Action::\"publish\"], resource);\n\
         permit (principal, action == Fieldgate::Action::\"openPortal\", resource) when { resource.kind == \"tcp\" };",
    );
    for action in Action::ALL {
        let decision = policy.decide(&request(&principal(1), *action, &well()));
        let expected: &[&str] = match action {
            Action::Connect | Action::Publish => &["rule 1"],
            Action::OpenPortal => &["rule 2"],
            Action::RegisterRelay
            | Action::Reach
            | Action::Command
            | Action::IssueTicket
            | Action::Enroll
            | Action::Renew
            | Action::Revoke
            | Action::Configure
            | Action::ReadStatus => &[],
        };
        assert_eq!(ids(&decision), expected, "{action}");
    }
}

#[test]
fn a_rule_that_could_forbid_and_cannot_be_evaluated_forbids() {
    let overflow = "context has hops && context.hops * 9223372036854775807 > 5";
    let policy = policy(&format!(
        "permit (principal, action, resource);\n\
         @id(\"too-far\") forbid (principal, action, resource) when {{ {overflow} }};\n"
    ));
    let near = Context {
        hops: Some(0),
        ..well()
    };
    assert!(policy.decide(&connect(&principal(1), &near)).allowed);
    let far = Context {
        hops: Some(2),
        ..well()
    };
    let decision = policy.decide(&connect(&principal(1), &far));
    assert!(!decision.allowed);
    assert_eq!(ids(&decision), ["too-far"]);
    assert_eq!(decision.errors.len(), 1);
    assert!(
        decision.errors[0].message.contains("overflow"),
        "{:?}",
        decision.errors
    );
}

#[test]
fn a_rule_that_permits_and_cannot_be_evaluated_is_left_out() {
    let policy = policy(
        "permit (principal, action, resource) when { context has hops && context.hops * 9223372036854775807 > 5 };",
    );
    let far = Context {
        hops: Some(2),
        ..well()
    };
    let decision = policy.decide(&connect(&principal(1), &far));
    assert_eq!((decision.allowed, decision.reasons.len()), (false, 0));
    assert_eq!(decision.errors.len(), 1);
}

#[test]
fn live_proof_is_demanded_only_where_it_makes_the_difference() {
    let policy = policy(
        "permit (principal, action, resource) when { principal.member };\n\
         forbid (principal, action == Fieldgate::Action::\"connect\", resource == Fieldgate::Service::\"authority\")\n\
         unless { context.liveProof };",
    );
    let member = Principal {
        member: true,
        ..principal(1)
    };
    let ask = |principal: &Principal, service| {
        Request::new(
            principal.clone(),
            Action::Connect,
            Resource::Service(service),
            well(),
        )
        .expect("they fit")
    };
    // What the request says about it does not matter: `well` has one.
    assert!(policy.demands_live_proof(&ask(&member, Service::Authority)));
    assert!(policy.demands_live_proof(&ask(&member, Service::Authority).with_live_proof(false)));
    assert!(!policy.demands_live_proof(&ask(&member, Service::Uplink)));
    assert!(!policy.demands_live_proof(&ask(&principal(2), Service::Authority)));
    assert!(!Policy::built_in().demands_live_proof(&ask(&member, Service::Authority)));
}

#[test]
fn an_empty_policy_denies_everything() {
    let checked = check("empty", "// nothing\n");
    let policy = checked.policy.expect("it is one");
    let mut full = principal(1);
    (full.named, full.member, full.administrator) = (true, true, true);
    for action in Action::ALL {
        assert!(!policy.decide(&request(&full, *action, &well())).allowed);
    }
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let error = Request::new(principal(1), Action::Connect, Resource::Authority, well());
    assert_eq!(
        error.expect_err("they do not fit").to_string(),
        "connect is done to a Service, not to a Authority"
    );
    let error = Request::new(
        principal(1),
        Action::IssueTicket,
        Resource::Authority,
        Context::default(),
    );
    assert_eq!(error, Err(crate::RequestError::TicketRights));
}

#[test]
fn resources_are_read_as_they_are_written() {
    for text in [
        "Service::\"uplink\"",
        "RelayName::\"plant\"",
        "Device::\"press 1\"",
        "Portal::\"plc\"",
        "Authority::\"this\"",
        "Configuration::\"this\"",
    ] {
        let resource: Resource = text.parse().expect("it is one");
        assert_eq!(resource.to_string(), text);
        assert_eq!(format!("Fieldgate::{text}").parse(), Ok(resource.clone()));
        assert_eq!(text.replace('"', "").parse(), Ok(resource));
    }
    for text in [
        "",
        "uplink",
        "Service::\"up",
        "Service::",
        "Service::\"nothing\"",
        "Place::\"x\"",
        "Authority::\"that\"",
        "Device::\"a\"b\"",
    ] {
        let error = text.parse::<Resource>().expect_err(text);
        assert!(!error.to_string().is_empty() && !error.hint().is_empty());
    }
}

/// Rules put into sets by whom and what they are about decide as one set of all rules does.
mod as_one_set {
    use cedar_policy::Authorizer;
    use proptest::prelude::*;

    use super::*;

    fn any_rule() -> impl Strategy<Value = String> {
        let node = |byte| format!("principal == Fieldgate::Node::\"{}\"", principal(byte).identifier);
        let inside = |byte| format!("principal in Fieldgate::Node::\"{}\"", principal(byte).identifier);
        let principals = vec![
            "principal".to_owned(),
            "principal is Fieldgate::Node".to_owned(),
            node(1),
            node(2),
            inside(1),
            "principal in Fieldgate::Group::\"a\"".to_owned(),
            "principal is Fieldgate::Node in Fieldgate::Group::\"b\"".to_owned(),
        ];
        let actions = vec![
            "action",
            "action == Fieldgate::Action::\"connect\"",
            "action == Fieldgate::Action::\"publish\"",
            "action in [Fieldgate::Action::\"connect\", Fieldgate::Action::\"reach\"]",
            "action in Fieldgate::Action::\"reach\"",
        ];
        let resources = vec![
            "resource",
            "resource == Fieldgate::Service::\"uplink\"",
            "resource is Fieldgate::RelayName",
        ];
        let conditions = vec![
            "",
            "when { principal.member }",
            "unless { context.granted }",
            "when { context has hops && context.hops * 9223372036854775807 > 5 }",
        ];
        (
            prop::sample::select(vec!["permit", "permit", "forbid"]),
            prop::sample::select(principals),
            prop::sample::select(actions),
            prop::sample::select(resources),
            prop::sample::select(conditions),
        )
            .prop_map(|(effect, principal, action, resource, condition)| {
                format!("{effect} ({principal}, {action}, {resource}) {condition};\n")
            })
    }

    proptest! {
        #[test]
        fn decides_the_same(
            rules in prop::collection::vec(any_rule(), 0..12),
            who in 1_u8..4,
            member: bool,
            granted: bool,
            hops in prop::option::of(0_u32..3),
            groups in prop::sample::select(vec!["", "a", "b", "b,a", "c"]),
            action in prop::sample::select(vec![Action::Connect, Action::Publish, Action::Reach, Action::Revoke]),
        ) {
            let text = rules.concat();
            let Some(policy) = check("f", &text).policy else { return Ok(()) };
            let mut principal = Principal { member, ..principal(who) };
            principal.attributes.insert("groups".to_owned(), groups.to_owned());
            let context = Context { granted, hops, ..well() };
            let request = request(&principal, action, &context);
            let decision = policy.decide(&request);

            let translated = translate(&request);
            let whole: PolicySet = text.parse().expect("it was good before");
            let response = Authorizer::new().is_authorized(&translated.request, &whole, &translated.entities);
            let theirs: Vec<usize> = response.diagnostics().errors().map(|error| {
                let AuthorizationError::PolicyEvaluationError(error) = error;
                let id: &str = error.policy_id().as_ref();
                id.trim_start_matches("policy").parse().expect("a number")
            }).collect();
            let fails_to_forbid = theirs.iter().any(|index| rules[*index].starts_with("forbid"));
            prop_assert_eq!(decision.allowed, response.decision() == CedarDecision::Allow && !fails_to_forbid);
            prop_assert_eq!(decision.errors.len(), theirs.len());
            if !fails_to_forbid {
                let mut reasons: Vec<usize> = response.diagnostics().reason().map(|id| {
                    let id: &str = id.as_ref();
                    id.trim_start_matches("policy").parse().expect("a number")
                }).collect();
                reasons.sort_unstable();
                let reasons: Vec<String> = reasons.iter().map(|index| format!("rule {}", index + 1)).collect();
                prop_assert_eq!(ids(&decision), reasons);
            }
        }
    }
}

#[test]
fn a_stream_is_judged_by_its_user_destination_and_time() {
    let policy = policy(
        "@id(\"ops\") permit (principal, action == Fieldgate::Action::\"openPortal\", resource)\n\
         when { context.user == \"ops\" && context.destination like \"plc-*\" && context.origin != \"\" };\n\
         @id(\"hours\") forbid (principal, action == Fieldgate::Action::\"openPortal\", resource)\n\
         unless { context.weekday != \"sunday\" && context.minuteOfDay >= 480 && context.minuteOfDay < 1020 };",
    );
    let asked = |user: &str, destination: &str, unix_secs: u64| {
        let stream = StreamFacts {
            origin: "10.0.0.7:4711".to_owned(),
            user: user.to_owned(),
            destination: destination.to_owned(),
            ..StreamFacts::default()
        };
        let context = Context {
            stream: Some(stream.at(unix_secs * 1_000)),
            ..well()
        };
        let decision = policy.decide(&request(&principal(1), Action::OpenPortal, &context));
        (decision.allowed, ids(&decision).join(" "))
    };
    let result = |allowed, ids: &str| (allowed, ids.to_owned());
    // 2026-07-31 was a Friday, 2026-08-02 a Sunday.
    let (friday, sunday) = (1_785_456_000, 1_785_628_800);
    let noon = 12 * 3_600;
    assert_eq!(
        asked("ops", "plc-7.local:502", friday + noon),
        result(true, "ops")
    );
    assert_eq!(asked("eve", "plc-7.local:502", friday + noon), result(false, ""));
    assert_eq!(asked("ops", "db.local:502", friday + noon), result(false, ""));
    for late in [friday + 8 * 3_600 - 1, friday + 17 * 3_600, sunday + noon] {
        assert_eq!(
            asked("ops", "plc-7.local:502", late),
            result(false, "hours"),
            "{late}"
        );
    }
    for early in [friday + 8 * 3_600, friday + 17 * 3_600 - 1] {
        assert_eq!(
            asked("ops", "plc-7.local:502", early),
            result(true, "ops"),
            "{early}"
        );
    }
}

#[test]
fn times_are_days_and_minutes_of_utc() {
    for (unix_millis, weekday, minute) in [
        (0, Weekday::Thursday, 0),
        (59_999, Weekday::Thursday, 0),
        (60_000, Weekday::Thursday, 1),
        (86_399_999, Weekday::Thursday, 1_439),
        (86_400_000, Weekday::Friday, 0),
        (4 * 86_400_000, Weekday::Monday, 0),
        // 2000-02-29.
        (951_782_400_000, Weekday::Tuesday, 0),
    ] {
        let facts = StreamFacts::default().at(unix_millis);
        assert_eq!(
            (facts.weekday, facts.minute_of_day),
            (weekday, minute),
            "{unix_millis}"
        );
    }
}
