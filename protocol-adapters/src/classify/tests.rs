use fieldgate_proto::time::{ClockQuality, WallTime};
use proptest::prelude::*;

use super::*;
use crate::reading::UserProperties;

fn reading<'a>(device: &'a str, resource: &'a str, payload: &'a [u8]) -> Reading<'a> {
    Reading {
        device,
        resource,
        content_type: None,
        user_properties: UserProperties::EMPTY,
        payload,
        captured_at: WallTime {
            unix_millis: 0,
            quality: ClockQuality::Unknown,
        },
        class: Class::Normal,
    }
}

fn rule(class: Class) -> Rule {
    Rule {
        class,
        device: None,
        topic: None,
        content_type: None,
        json: None,
    }
}

fn test(pointer: &str, condition: Condition) -> Option<JsonTest> {
    Some(JsonTest::new(pointer, condition).unwrap())
}

#[test]
fn the_first_rule_that_fits_wins_and_without_one_the_reading_keeps_its_class() {
    let classifier = Classifier::new(vec![
        Rule {
            device: Some(DevicePattern::new("pump-*")),
            topic: Some("+/level".parse().unwrap()),
            ..rule(Class::Alarm)
        },
        Rule {
            device: Some(DevicePattern::new("pump-7")),
            ..rule(Class::Bulk)
        },
    ]);
    let class = |device, topic| classifier.class(&reading(device, topic, b""));
    assert_eq!(class("pump-7", "hall/level"), Class::Alarm);
    assert_eq!(class("pump-7", "hall/log"), Class::Bulk);
    assert_eq!(class("pump-8", "hall/log"), Class::Normal);
    assert_eq!(class("pum", "hall/level"), Class::Normal);
    let alarm = Reading {
        class: Class::Alarm,
        ..reading("x", "y", b"")
    };
    assert_eq!(classifier.class(&alarm), Class::Alarm, "what its adapter said");
}

#[test]
fn a_content_type_is_compared_without_case_and_parameters() {
    let classifier = Classifier::new(vec![Rule {
        content_type: Some("application/json".into()),
        ..rule(Class::Bulk)
    }]);
    for (content_type, class) in [
        (Some("application/json"), Class::Bulk),
        (Some("Application/JSON; charset=utf-8"), Class::Bulk),
        (Some("application/json5"), Class::Normal),
        (None, Class::Normal),
    ] {
        let reading = Reading {
            content_type,
            ..reading("x", "y", b"")
        };
        assert_eq!(classifier.class(&reading), class, "{content_type:?}");
    }
}

#[test]
fn content_decides_where_a_rule_asks_for_it() {
    let holds = |pointer: &str, condition: Condition, json: &str| {
        let classifier = Classifier::new(vec![Rule {
            json: test(pointer, condition),
            ..rule(Class::Alarm)
        }]);
        classifier.class(&reading("x", "y", json.as_bytes())) == Class::Alarm
    };
    let level = r#" {"name":"a \"level\": 9","list":[1,{"level":7},[],{}],"level" : 3.0e0 , "rest": ["#;
    assert!(
        holds("/level", Condition::AtLeast(3.0), level),
        "the end does not matter"
    );
    assert!(!holds("/level", Condition::AtLeast(3.1), level));
    assert!(holds("/level", Condition::AtMost(3.0), level));
    assert!(holds("/level", Condition::Number(3.0), level));
    assert!(holds("/list/1/level", Condition::Number(7.0), level));
    assert!(holds("/list/0", Condition::Number(1.0), level));
    assert!(!holds("/list/2", Condition::Number(1.0), level));
    assert!(
        !holds("/list/2/0", Condition::Number(1.0), level),
        "an empty array has no element"
    );
    assert!(!holds("/list/9", Condition::Number(1.0), level));
    assert!(!holds("/list/01", Condition::Number(1.0), level));
    assert!(!holds("/list/-", Condition::Number(1.0), level));
    assert!(!holds("/none", Condition::Number(1.0), "{}"));
    assert!(holds("/name", Condition::Text("a \"level\": 9".into()), level));
    assert!(holds("", Condition::AtMost(-40.0), "-40.5"));
    assert!(holds("/ok", Condition::Bool(false), r#"{"ok":false}"#));
    assert!(!holds("/ok", Condition::Bool(false), r#"{"ok":null}"#));
    assert!(
        !holds("/ok", Condition::Bool(false), r#"{"ok":"false"}"#),
        "a text is no truth value"
    );
    assert!(holds(
        "/a~1b/~0c",
        Condition::Bool(true),
        r#"{"a\/b":{"~c":true}}"#
    ));
    assert!(holds(
        "/t",
        Condition::Text("é😀\n".into()),
        r#"{"t":"\u00e9\ud83d\ude00\n"}"#
    ));
    assert!(!holds("/t", Condition::Text("x".into()), r#"{"t":"\ud83dx"}"#));
    assert!(!holds("/n", Condition::AtLeast(0.0), r#"{"n":inf}"#));
    assert!(!holds("/n", Condition::AtLeast(0.0), r#"{"n":1e999}"#));
    assert!(!holds("/n", Condition::AtLeast(0.0), "\u{fe}\u{ff}"));
    let long = format!(r#"{{"n":1,"filling":"{}"}}"#, "x".repeat(JSON_LEN_MAX));
    assert!(
        !holds("/n", Condition::AtLeast(0.0), &long),
        "so much is not looked at"
    );
}

#[test]
fn a_path_that_is_none_is_refused() {
    let error = |pointer| JsonTest::new(pointer, Condition::Bool(true)).unwrap_err();
    assert_eq!(error("level"), PathError::NoSlash);
    assert_eq!(error("/a~2"), PathError::Tilde);
    assert_eq!(error("/a~"), PathError::Tilde);
    assert_eq!(error("/1/2/3/4/5/6/7/8/9"), PathError::TooDeep { max: 8 });
}

/// A JSON value with the texts and numbers that its parts have.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        (-1e9..1e9_f64).prop_map(|value| value.to_string()),
        r#"([a-z ,:\{\}\[\]]|\\")*"#.prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|parts| format!("[{}]", parts.join(" , "))),
            prop::collection::vec(inner, 0..4).prop_map(|parts| {
                let members = parts
                    .iter()
                    .enumerate()
                    .map(|(at, part)| format!("\"k{at}\" : {part}"));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_looked_through(payload: Vec<u8>, condition in -10.0..10.0_f64) {
        let test = JsonTest::new("/a/0/b", Condition::AtLeast(condition)).unwrap();
        let _ = test.holds(&payload);
    }

    #[test]
    fn any_text_that_looks_like_json_is_looked_through(payload in r#"[\[\]\{\}",:0-9a\\ ]{0,80}"#) {
        let test = JsonTest::new("/a/0", Condition::AtLeast(0.0)).unwrap();
        let _ = test.holds(payload.as_bytes());
    }

    #[test]
    fn whatever_stands_before_a_value_is_passed_over(before in value(), number in -1e6..1e6_f64) {
        let json = format!(r#"{{"x":{before},"y":[{before},{number}]}}"#);
        let test = JsonTest::new("/y/1", Condition::Number(number)).unwrap();
        prop_assert!(test.holds(json.as_bytes()), "{}", json);
    }
}
