use proptest::prelude::*;

use super::*;

fn origin(resource: &str) -> Origin<'_> {
    Origin {
        gateway: "hall-3",
        device: "pump",
        resource,
        class: "alarm",
    }
}

fn expand(template: &str, resource: &str) -> String {
    let template: TopicTemplate = template.parse().expect(template);
    let mut topic = String::new();
    template.expand_into(&mut topic, &origin(resource));
    topic
}

fn rename(from: &str, to: &str, resource: &str) -> Option<String> {
    let from: TopicPattern = from.parse().expect(from);
    let to = TopicTemplate::parse_with(to, &from).expect(to);
    let mut topic = String::new();
    Rename { from, to }
        .expand_into(&mut topic, &origin(resource))
        .then_some(topic)
}

#[test]
fn variables_are_replaced() {
    assert_eq!(expand("{gateway}/{device}/{resource}", "a/b"), "hall-3/pump/a/b");
    assert_eq!(expand("site/{device}/{class}", "x"), "site/pump/alarm");
    assert_eq!(expand("{device}{device}", "x"), "pumppump");
}

#[test]
fn the_path_has_the_device_once() {
    assert_eq!(expand("{gateway}/{path}", "pump/temp"), "hall-3/pump/temp");
    assert_eq!(expand("{gateway}/{path}", "temp"), "hall-3/pump/temp");
    assert_eq!(expand("{gateway}/{path}", "pump"), "hall-3/pump");
    assert_eq!(expand("{gateway}/{path}", "pumps/temp"), "hall-3/pump/pumps/temp");
}

#[test]
fn wildcards_and_dollars_from_resources_do_not_reach_the_broker() {
    assert_eq!(expand("{resource}", "a/+/#\0"), "a/_/__");
    assert_eq!(expand("{resource}", "$SYS/$x"), "_SYS/$x");
    assert_eq!(expand("a/{resource}", "$gap/bulk"), "a/$gap/bulk");
}

#[test]
fn the_first_level_is_known_where_it_is_fixed() {
    let root = |text: &str| {
        let template: TopicTemplate = text.parse().expect(text);
        template.literal_root().map(str::to_owned)
    };
    assert_eq!(root("site/{device}"), Some("site".to_owned()));
    assert_eq!(root("site"), Some("site".to_owned()));
    assert_eq!(root("site{device}/x"), None);
    assert_eq!(root("{device}/x"), None);
}

#[test]
fn renames_keep_what_their_pattern_names() {
    assert_eq!(
        rename(
            "line/{line}/+/{what...}",
            "{gateway}/{what}/of/{line}",
            "line/7/x/a/b"
        ),
        Some("hall-3/a/b/of/7".to_owned())
    );
    assert_eq!(rename("line/{line}", "{line}", "line"), None);
    assert_eq!(rename("line/{line}", "{line}", "line/7/8"), None);
    assert_eq!(rename("line/{line}", "{line}", "row/7"), None);
    assert_eq!(rename("line/#", "all", "line"), Some("all".to_owned()));
    assert_eq!(rename("line/{rest...}", "all/{rest}", "line"), None);
    assert_eq!(
        rename("{rest...}", "all/{rest}", "a/b"),
        Some("all/a/b".to_owned())
    );
    assert_eq!(rename("+/b", "{device}", "a/b"), Some("pump".to_owned()));
}

#[test]
fn each_fault_has_its_own_error() {
    for (text, error) in [
        ("", TemplateError::Empty),
        ("{device", TemplateError::Brace),
        ("device}", TemplateError::Brace),
        ("{{device}}", TemplateError::Brace),
        (
            "{divice}",
            TemplateError::Variable {
                name: "divice".into(),
            },
        ),
        ("{}", TemplateError::Variable { name: String::new() }),
        ("a/#", TemplateError::Character { character: '#' }),
        ("a\0", TemplateError::Character { character: '\0' }),
    ] {
        assert_eq!(text.parse::<TopicTemplate>(), Err(error), "{text}");
    }
    let level = |level: &str| TemplateError::Level { level: level.into() };
    let name = |name: &str| TemplateError::Name { name: name.into() };
    for (text, error) in [
        ("", TemplateError::Empty),
        ("a+/b", level("a+")),
        ("#/b", level("#")),
        ("{x...}/b", level("{x...}")),
        ("a{x}", level("a{x}")),
        ("{x}/{x}", name("x")),
        ("{device}", name("device")),
        ("{X}", name("X")),
        ("a\n", TemplateError::Character { character: '\n' }),
    ] {
        assert_eq!(text.parse::<TopicPattern>(), Err(error), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_refused_or_round_trips(text in "[a-e{}/+\\PC]{0,30}|(\\{gateway\\}|\\{device\\}|\\{path\\}|/|\\PC){0,9}") {
        if let Ok(template) = text.parse::<TopicTemplate>() {
            prop_assert_eq!(template.to_string(), text.as_str());
            let mut topic = String::new();
            template.expand_into(&mut topic, &origin(&text));
            prop_assert!(!topic.contains(['+', '#', '\0']) && !topic.starts_with('$'));
        }
    }

    #[test]
    fn any_pattern_is_refused_or_round_trips(text in "[ab{}./+#]{0,12}|(\\{a\\}|\\{b\\.\\.\\.\\}|/|a|\\+|#){0,9}", resource in "[ab/]{0,9}") {
        if let Ok(pattern) = text.parse::<TopicPattern>() {
            prop_assert_eq!(pattern.to_string(), text.as_str());
            let mut captures = Vec::new();
            if pattern.matches(&resource, &mut captures) {
                prop_assert_eq!(captures.len(), pattern.names().count());
                // Putting back what was kept gives the resource again, where every wildcard has a name.
                let unnamed = pattern.levels.iter().any(|level| matches!(level, Level::One(None) | Level::Rest(None)));
                if !unnamed {
                    let template = TopicTemplate::parse_with(&text.replace("...", ""), &pattern).expect("the same names");
                    let mut topic = String::new();
                    template.expand_with(&mut topic, &origin(&resource), &captures);
                    prop_assert_eq!(topic, resource);
                }
            }
        }
    }
}
