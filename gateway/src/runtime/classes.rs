//! The file's rules that give readings their class, in the words of the adapters.

use fieldgate_adapters::{
    class::Class,
    classify::{Classifier, Condition, DevicePattern, JsonTest, Rule},
    topic::TopicFilter,
};
use fieldgate_config::settings::{ClassRule, JsonCondition, JsonValue, ReadingClass};
use fieldgate_proto::link;

use super::StartError;

/// Makes the classifier of the rules, in their order.
///
/// # Errors
/// If a rule is not what the check of the file lets through.
pub(super) fn classifier(rules: &[ClassRule]) -> Result<Classifier, StartError> {
    let unsound = |error: &dyn std::fmt::Display| {
        StartError::new(format!("[[journal.class]]: {error}")).hint("run `fieldgate check` on the file")
    };
    let rules = rules.iter().map(|rule| {
        let topic = rule.topic.as_deref().map(TopicFilter::new).transpose();
        let json = rule
            .json
            .as_ref()
            .map(|test| JsonTest::new(&test.path, condition(&test.condition)));
        Ok(Rule {
            class: match rule.class {
                ReadingClass::Alarm => Class::Alarm,
                ReadingClass::Normal => Class::Normal,
                ReadingClass::Bulk => Class::Bulk,
            },
            device: rule.device.as_deref().map(DevicePattern::new),
            topic: topic.map_err(|error| unsound(&error))?,
            content_type: rule.content_type.as_deref().map(Into::into),
            json: json.transpose().map_err(|error| unsound(&error))?,
        })
    });
    Ok(Classifier::new(rules.collect::<Result<_, StartError>>()?))
}

fn condition(condition: &JsonCondition) -> Condition {
    match condition {
        JsonCondition::AtLeast(bound) => Condition::AtLeast(bound.get()),
        JsonCondition::AtMost(bound) => Condition::AtMost(bound.get()),
        JsonCondition::Equals(JsonValue::Text(text)) => Condition::Text(text.as_str().into()),
        JsonCondition::Equals(JsonValue::Number(number)) => Condition::Number(number.get()),
        JsonCondition::Equals(JsonValue::Bool(value)) => Condition::Bool(*value),
    }
}

/// Returns the class of readings that come in a lane.
pub(crate) const fn class_of(lane: link::Class) -> Class {
    match lane {
        link::Class::Alarm => Class::Alarm,
        link::Class::Normal => Class::Normal,
        link::Class::Bulk => Class::Bulk,
    }
}
