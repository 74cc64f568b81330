use fieldgate_proto::identity::Identifier;

use super::*;
use crate::request::{
    Context, KeyStorage, LinkKind, Principal, Request, Resource, Service, TicketRights, TimeQuality,
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
    assert_eq!(Policy::built_in().rule_count(), 6);
    assert!(Arc::ptr_eq(&Policy::built_in().0, &Policy::built_in().0));
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
