use fieldgate_proto::identity::Identifier;
use proptest::prelude::*;

use super::*;
use crate::{Action, Context, Principal, Problem, Request, Resource, Service, Severity, rules::RULES_MAX};

/// Line, severity and message of each problem.
fn found(text: &str) -> Vec<(Option<usize>, Severity, String)> {
    let checked = check("test.cedar", text);
    assert_eq!(checked.policy.is_some(), checked.problems.error_count() == 0);
    let place = |problem: &Problem| problem.line_and_column().map(|(line, _)| line);
    checked
        .problems
        .iter()
        .map(|problem| (place(problem), problem.severity(), problem.message().to_owned()))
        .collect()
}

fn assert_found(text: &str, line: usize, part: &str) {
    let found = found(text);
    assert!(
        found.iter().any(|(at, severity, message)| *at == Some(line)
            && *severity == Severity::Error
            && message.contains(part)),
        "no {part:?} in line {line}: {found:#?}"
    );
}

const GOOD: &str = "permit (principal, action, resource) when { principal.member };\n";

#[test]
fn violations_of_the_schema_are_found_with_their_line() {
    for (rule, part) in [
        (
            "permit (principal, action, resource)\nwhen { principal.membr };",
            "membr",
        ),
        (
            "permit (principal, action, resource)\nwhen { principal.name };",
            "expected Bool",
        ),
        (
            "permit (principal, action, resource)\nwhen { principal.name == 5 };",
            "not compatible",
        ),
        (
            "permit (principal,\naction == Fieldgate::Action::\"conect\", resource);",
            "conect",
        ),
        (
            "permit (principal,\naction == Action::\"connect\", resource);",
            "Action::\"connect\"",
        ),
        (
            "permit (principal is\nFieldgate::Nod, action, resource);",
            "Fieldgate::Nod",
        ),
        (
            "permit (principal, action, resource)\nwhen { resource == Fieldgate::Service::\"uplnk\" };",
            "uplnk",
        ),
        (
            "permit (principal, action, resource)\nwhen { principal.getTag(\"site\") == \"north\" };",
            "tag",
        ),
        (
            "permit (principal, action == Fieldgate::Action::\"connect\", resource)\nwhen { context.link == \"tcp\" };",
            "link",
        ),
        (
            "permit (principal, action == Fieldgate::Action::\"connect\", resource)\nwhen { context.grantsEnroller };",
            "grantsEnroller",
        ),
        (
            "permit (principal, action, resource)\nwhen { context.timeQuality == \"synchronized\" };",
            "synchronized",
        ),
        (
            "forbid (principal ==\nFieldgate::Node::\"fg1press\", action, resource);",
            "fg1press",
        ),
        (
            "permit (principal, action, resource)\nwhen { isNear(\"10.0.0.1\") };",
            "isNear",
        ),
        ("permit (principal, action, ?resource\n);", "?resource"),
        ("permit (principal, action, resource) when {\n};", "empty"),
        ("permit (principal, action);", "resource"),
        ("allow (principal, action, resource);", "allow"),
        (
            "permit (principal, action, resource) when { context.granted = true };",
            "'='",
        ),
        (
            "permit (principal, action, resource) when { 'x' };",
            "invalid token",
        ),
    ] {
        let line = if rule.lines().count() > 1 && !part.starts_with('?') && part != "empty" {
            4
        } else {
            3
        };
        assert_found(&format!("// one\n{GOOD}{rule}\n{GOOD}"), line, part);
    }
}

#[test]
fn every_problem_is_found_at_once() {
    let text = format!(
        "{GOOD}permit (principal, action);\n{GOOD}permit (principal, action, resource) when {{ principal.membr }};\n\
         forbid (principal, action, resource) when {{ context.timeQuality == \"sync\" }};\n\
         permit (principal action, resource);\n@id(\"x\") {GOOD}@id(\"x\") {GOOD}@id(\"\") {GOOD}permit"
    );
    let lines: Vec<_> = found(&text).into_iter().filter_map(|(line, ..)| line).collect();
    assert_eq!(lines, [2, 4, 5, 6, 8, 9, 10]);
}

#[test]
fn every_problem_has_a_cure_and_is_rendered_with_its_line() {
    let text = format!("{GOOD}permit (principal, action, resource) when {{ principal.membr }};\n");
    let problems = check("site.cedar", &text).problems;
    assert!(problems.iter().all(|problem| !problem.hint().is_empty()));
    let shown = problems.render_text(crate::Colour::None, 110);
    for part in ["site.cedar:2:", "principal.membr }", "help:", "membr"] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    assert!(!shown.contains("for policy"), "{shown}");
    let json: serde_json::Value = serde_json::from_str(&problems.render_json()).expect("JSON");
    assert_eq!(json[0]["line"], 2);
    assert_eq!(json[0]["severity"], "error");
    assert_eq!(json[0]["file"], "site.cedar");
}

#[test]
fn an_unknown_action_is_one_problem_that_lists_those_there_are() {
    let text = format!("{GOOD}forbid (principal, action == Fieldgate::Action::\"conect\", resource);");
    let problems = check("f", &text).problems;
    assert_eq!(problems.len(), 1, "{}", problems.render_json());
    let problem = problems.iter().next().expect("there is one");
    assert_eq!(problem.line_and_column(), Some((2, 30)));
    assert!(problem.hint().contains("connect, registerRelay"));
}

#[test]
fn one_mistake_in_a_rule_for_all_actions_is_one_problem() {
    let text = "permit (principal, action, resource) when { principal.membr };";
    assert_eq!(found(text).len(), 1);
}

#[test]
fn what_never_applies_or_permits_nothing_is_a_warning() {
    let impossible = format!(
        "{GOOD}permit (principal, action == Fieldgate::Action::\"connect\", resource is Fieldgate::Device);"
    );
    let warnings = found(&impossible);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!((warnings[0].0, warnings[0].1), (Some(2), Severity::Warning));
    for text in ["", "// nothing\n", "forbid (principal, action, resource);"] {
        assert_eq!(
            found(text),
            [(None, Severity::Warning, "no rule permits anything".to_owned())]
        );
    }
}

#[test]
fn bounds_of_the_file_hold() {
    let filler = "/".repeat(SIZE_MAX - GOOD.len());
    assert!(found(&format!("{GOOD}{filler}")).is_empty());
    let long = format!("{GOOD}{filler}/");
    let problems = found(&long);
    assert_eq!((problems.len(), problems[0].0), (1, None));
    assert!(
        check("f", &"permit(principal,action,resource);".repeat(RULES_MAX))
            .policy
            .is_some()
    );
    assert!(
        check("f", &"permit(principal,action,resource);".repeat(RULES_MAX + 1))
            .policy
            .is_none()
    );
}

/// Rules at the bounds in all directions, with `leaf` at the bottom.
fn deepest(leaf: &str) -> Vec<String> {
    let when = |expression: &str| format!("permit (principal, action, resource) when {{ {expression} }};");
    let nest = |open: &str, close: &str, depth: usize| {
        when(&format!("{}{leaf}{}", open.repeat(depth), close.repeat(depth)))
    };
    vec![
        when(&format!("{leaf}{}", " && context.granted".repeat(125))),
        when(&format!("{}{leaf}", "!context.granted || ".repeat(80))),
        nest("(", ")", 30),
        nest("!(", ")", 30),
        nest("[true, ", "].contains(true)", 30),
        nest("{a: ", "}.a", 30),
        nest("if context.granted then ", " else false", 120),
        format!(
            "permit (principal, action, resource) {} when {{ {leaf} }};",
            "when { context.granted }\n".repeat(100)
        ),
    ]
}

/// What is within the bounds must fit the stack of a thread, 2 MiB, in every one of Cedar's recursions: a checker that ran out of
/// it would let a wrong type pass, an evaluator would leave the rule out.
#[test]
fn the_deepest_rules_are_checked_and_evaluated_whole() {
    let on_thread = || {
        let mut principal = Principal::new(Identifier::from_bytes([1; 32]));
        principal.member = true;
        let context = Context {
            granted: true,
            ..Context::default()
        };
        let uplink = Resource::Service(Service::Uplink);
        let request = Request::new(principal, Action::Connect, uplink, context).expect("they fit");
        for (number, rule) in deepest("principal.membr").iter().enumerate() {
            let found = found(rule);
            let is_it = |(_, severity, message): &(_, Severity, String)| {
                *severity == Severity::Error && message.contains("membr")
            };
            assert!(found.iter().any(is_it), "{number}: {found:?}");
        }
        for (number, rule) in deepest("principal.member").iter().enumerate() {
            let checked = check("f", rule);
            let problems = checked.problems.render_json();
            let policy = checked.policy.unwrap_or_else(|| panic!("{number}: {problems}"));
            assert_eq!(policy.decide(&request).errors, [], "{number}");
        }
    };
    let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
    thread
        .spawn(on_thread)
        .expect("there is a thread")
        .join()
        .expect("it ends well");
}

#[test]
fn a_text_that_is_no_policy_is_given_up_early() {
    let found = found(&");(;\n".repeat(4_000));
    assert!(found.len() <= ERRORS_MAX + 2, "{}", found.len());
    assert!(found.last().expect("there are some").2.contains("not looked at"));
}

/// Texts that are short, and would end the process with an overflowing stack without bounds.
#[test]
fn hostile_nesting_is_refused() {
    for text in [
        "(".repeat(100_000),
        format!(
            "permit (principal, action, resource) when {{ {}",
            "[".repeat(100_000)
        ),
        format!(
            "permit (principal, action, resource) when {{ {}true{} }};",
            "(".repeat(30_000),
            ")".repeat(30_000)
        ),
        format!(
            "permit (principal, action, resource) when {{ true{} }};",
            "&&true".repeat(10_000)
        ),
        format!(
            "permit (principal, action, resource) when {{ {}true }};",
            "if true then true else ".repeat(2_000)
        ),
        format!(
            "permit (principal, action, resource) {};",
            "when{true}".repeat(6_000)
        ),
        format!(
            "permit (principal, action, resource) when {{ a{} }};",
            ".a".repeat(30_000)
        ),
        format!(
            "permit (principal, action, resource) when {{ a{} }};",
            "::a".repeat(5_000)
        ),
        format!(
            "permit (principal, action, resource) when {{ [{}] }};",
            "1 1,".repeat(4_000)
        ),
        format!(
            "permit (principal, action, resource) when {{ {}1 }};",
            "-".repeat(16_000)
        ),
        format!(
            "permit (principal, action, resource) when {{ 1{} }};",
            "==1".repeat(5_000)
        ),
        "permit(".repeat(100_000),
        ";".repeat(100_000),
        ");(;".repeat(100_000),
    ] {
        assert!(check("f", &text).policy.is_none(), "{text:.60}");
    }
}

/// Words that policies are made of, so that random texts come near to rules.
fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "permit",
        "forbid",
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        "principal",
        "action",
        "resource",
        "context",
        ",",
        ";",
        "==",
        "in",
        "is",
        "has",
        "like",
        "when",
        "unless",
        "if",
        "then",
        "else",
        "&&",
        "||",
        "!",
        "-",
        "+",
        "*",
        ".",
        "::",
        "@id",
        "\"x\"",
        "\"",
        "\\",
        "// c\n",
        "\n",
        "\r",
        "true",
        "1",
        "9223372036854775808",
        "Fieldgate::Action::\"connect\"",
        "Fieldgate::Node",
        "Fieldgate::Group::\"g\"",
        "member",
        "getTag(\"site\")",
        "timeQuality",
        "?principal",
        "é",
        "\u{2003}",
        "\u{202e}",
        "\0",
        "permit (principal, action, resource)",
        "when { principal.member }",
        "when { context.liveProof };",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn any_text_gives_a_policy_or_problems(text in any::<String>()) {
        found(&text);
    }

    #[test]
    fn any_words_give_a_policy_or_problems(text in words()) {
        found(&text);
    }

    /// The rules cut here are those that Cedar sees in the whole text: none is lost in what it takes for a comment or a string.
    #[test]
    fn rules_are_those_that_cedar_sees(pieces in prop::collection::vec(prop::sample::select(vec![
        GOOD, "permit (principal, action, resource);", "// permit (principal, action, resource);", "\n", "\r", "\"", "\\",
        " // \" ; \r", "@id(\"a;b\\\"\") ", "@x(\"// \") ", "forbid (principal, action, resource) unless { \"//\" == \";\" };", "\u{2028}", "\u{b}",
    ]), 0..12)) {
        let text = pieces.concat();
        let mut findings = Findings::default();
        let rules = split(&text, &mut findings);
        let parsed: Vec<_> = rules
            .iter()
            .map(|rule| CedarPolicy::parse(None, &text[rule.span.clone()]).ok())
            .collect();
        let good = !findings.has_errors() && parsed.iter().all(Option::is_some);
        let whole = text.parse::<PolicySet>();
        prop_assert_eq!(whole.is_ok(), good, "{:?}", whole);
        if let Ok(whole) = whole {
            prop_assert_eq!(whole.num_of_policies(), rules.len());
            for (rule, theirs) in parsed.iter().zip(whole.policies()) {
                let ours = rule.as_ref().expect("all are good").new_id(theirs.id().clone());
                prop_assert_eq!(&ours, theirs);
            }
        }
    }

    #[test]
    fn a_checked_policy_answers_everything(text in words(), byte: u8, member: bool) {
        let Some(policy) = check("f", &text).policy else { return Ok(()) };
        let mut principal = Principal::new(Identifier::from_bytes([byte; 32]));
        principal.member = member;
        let request = Request::new(principal, Action::Connect, Resource::Service(Service::Uplink), Context::default())
            .expect("they fit");
        let decision = policy.decide(&request);
        let explained = policy.explain(&request);
        prop_assert_eq!(decision.allowed, explained.allowed);
        prop_assert!(!explained.to_string().is_empty());
    }
}
