use fieldgate_proto::identity::Identifier;

use super::*;
use crate::{
    check::check,
    request::{Action, Context, Service},
};

fn node(byte: u8) -> Principal {
    Principal::new(Identifier::from_bytes([byte; 32]))
}

fn connect(principal: &Principal) -> Request {
    let resource = Resource::Service(Service::Uplink);
    Request::new(principal.clone(), Action::Connect, resource, Context::default()).expect("they fit")
}

fn policy(text: &str) -> Policy {
    let checked = check("site.cedar", text);
    let problems = checked.problems.render_json();
    checked.policy.unwrap_or_else(|| panic!("{problems}"))
}

#[test]
fn the_rule_that_permits_is_shown_with_file_line_and_text() {
    let mut member = node(1);
    member.member = true;
    let explanation = Policy::built_in().explain(&connect(&member));
    assert_eq!(
        (explanation.allowed, explanation.verdict),
        (true, Verdict::Permitted)
    );
    let line = crate::BUILT_IN
        .lines()
        .position(|line| line.contains("members-connect"))
        .expect("it is there")
        + 1;
    let [rule] = explanation.rules.as_slice() else {
        panic!("{explanation:?}")
    };
    assert_eq!(
        (rule.id.as_str(), rule.file.as_str(), rule.line),
        ("members-connect", "built-in", line)
    );
    assert!(rule.text.contains("when { principal.member };"));
    let text = explanation.to_string();
    for part in [
        "ALLOWED: connect on Service::\"uplink\"",
        &format!("members-connect, built-in:{line}"),
        "member         yes",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(explanation.near_misses.is_empty());
}

#[test]
fn the_rule_that_forbids_is_shown_even_if_others_permit() {
    let policy = policy(
        "permit (principal, action, resource);\n\n@id(\"tokens-only\")\nforbid (principal, action, resource)\nunless { principal.key == \"token\" };",
    );
    let explanation = policy.explain(&connect(&node(1)));
    assert_eq!(explanation.verdict, Verdict::Forbidden);
    let [rule] = explanation.rules.as_slice() else {
        panic!("{explanation:?}")
    };
    assert_eq!((rule.id.as_str(), rule.line), ("tokens-only", 3));
}

#[test]
fn without_a_permit_each_rule_says_what_does_not_hold() {
    let other = node(9).identifier;
    let policy = policy(&format!(
        "@id(\"other\") permit (principal == Fieldgate::Node::\"{other}\", action, resource);\n\
         @id(\"group\") permit (principal in Fieldgate::Group::\"crew\", action, resource);\n\
         @id(\"service\") permit (principal, action, resource == Fieldgate::Service::\"portal\");\n\
         @id(\"site\") permit (principal, action, resource) when {{ !context.granted && principal.hasTag(\"site\") && principal.getTag(\"site\") == \"north\" }};\n\
         @id(\"unless\") permit (principal, action, resource) when {{ principal.named }} unless {{ context.revocation ==\n  \"none\" }};\n\
         @id(\"action\") permit (principal, action == Fieldgate::Action::\"publish\", resource);\n\
         @id(\"never\") forbid (principal, action, resource) when {{ principal.administrator }};\n"
    ));
    let mut principal = node(1);
    principal.named = true;
    principal.attributes.insert("site".to_owned(), "south".to_owned());
    let explanation = policy.explain(&connect(&principal));
    assert_eq!(
        (explanation.allowed, explanation.verdict, explanation.rules.len()),
        (false, Verdict::NothingPermits, 0)
    );
    let misses: Vec<(&str, usize, &str)> = explanation
        .near_misses
        .iter()
        .map(|miss| (miss.id.as_str(), miss.line, miss.because.as_str()))
        .collect();
    let about_other = format!("it is for Fieldgate::Node::\"{other}\"");
    assert_eq!(
        misses,
        [
            (
                "site",
                4,
                "when `principal.getTag(\"site\") == \"north\"`: is false"
            ),
            ("unless", 5, "unless `context.revocation == \"none\"`: is true"),
            ("other", 1, about_other.as_str()),
            ("group", 2, "it is for those in Fieldgate::Group::\"crew\""),
            ("service", 3, "it is about Fieldgate::Service::\"portal\""),
        ]
    );
    let text = explanation.to_string();
    for part in [
        "DENIED",
        "no rule permits is denied",
        "site=south",
        "groups         none",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn the_built_in_policy_tells_a_stranger_what_is_missing() {
    let explanation = Policy::built_in().explain(&connect(&node(1)));
    let because: Vec<&str> = explanation
        .near_misses
        .iter()
        .map(|miss| miss.because.as_str())
        .collect();
    assert_eq!(
        because,
        [
            "when `principal.named`: is false",
            "when `principal.member`: is false",
            "when `principal.member`: is false"
        ]
    );
}

#[test]
fn a_rule_that_cannot_be_evaluated_is_named() {
    let policy = policy(
        "permit (principal, action, resource);\n@id(\"sum\") forbid (principal, action, resource) when { context has hops && context.hops * 9223372036854775807 > 1 };",
    );
    let context = Context {
        hops: Some(2),
        ..Context::default()
    };
    let request = Request::new(
        node(1),
        Action::Connect,
        Resource::Service(Service::Uplink),
        context,
    )
    .expect("they fit");
    let explanation = policy.explain(&request);
    assert_eq!(explanation.verdict, Verdict::CannotBeEvaluated);
    let text = explanation.to_string();
    assert!(
        text.contains("sum cannot be evaluated") && text.contains("help:"),
        "{text}"
    );
}

#[test]
fn a_live_proof_that_would_help_is_said() {
    let policy = policy(
        "permit (principal, action, resource);\nforbid (principal, action, resource) unless { context.liveProof };",
    );
    let request = connect(&node(1));
    let explanation = policy.explain(&request);
    assert!(explanation.live_proof_would_help);
    assert!(explanation.to_string().contains("With a live proof"));
    assert!(
        !policy
            .explain(&request.with_live_proof(true))
            .live_proof_would_help
    );
}

#[test]
fn near_misses_are_bounded_and_the_rest_is_counted() {
    let policy = policy(&"permit (principal, action, resource) when { principal.member };\n".repeat(20));
    let explanation = policy.explain(&connect(&node(1)));
    assert_eq!(
        (explanation.near_misses.len(), explanation.more_near_misses),
        (NEAR_MISSES_MAX, 20 - NEAR_MISSES_MAX)
    );
    assert!(explanation.to_string().contains("and 12 more"));
}

#[test]
fn what_a_terminal_would_obey_is_not_shown() {
    let mut principal = node(1);
    principal.name = "a\u{1b}[2Jb".to_owned();
    principal
        .attributes
        .insert("x\u{202e}".to_owned(), "\u{7}".to_owned());
    principal
        .attributes
        .insert("groups".to_owned(), "g\u{1b}".to_owned());
    let text = Policy::built_in().explain(&connect(&principal)).to_string();
    assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{text:?}");
}

#[test]
fn programs_get_the_same() {
    let mut principal = node(1);
    principal.attributes.insert("site".to_owned(), "north".to_owned());
    let json = serde_json::json!(Policy::built_in().explain(&connect(&principal)));
    assert_eq!(json["allowed"], false);
    assert_eq!(json["verdict"], "nothing-permits");
    assert_eq!(
        json["request"]["principal"]["identifier"],
        principal.identifier.to_string()
    );
    assert_eq!(json["request"]["principal"]["attributes"]["site"], "north");
    assert_eq!(json["request"]["action"], "connect");
    assert_eq!(json["request"]["resource"]["type"], "Service");
    assert_eq!(json["request"]["resource"]["id"], "uplink");
    assert_eq!(json["request"]["context"]["timeQuality"], "unknown");
    assert_eq!(json["near_misses"][0]["id"], "named-peers");
}
