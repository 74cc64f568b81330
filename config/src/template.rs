//! Topics made from readings.

use std::fmt;
use std::str::FromStr;

/// The topic of a reading at a broker, with `{gateway}`, `{device}` and `{resource}` standing for its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Variable(Variable),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    Gateway,
    Device,
    Resource,
}

impl Variable {
    const ALL: [(&'static str, Self); 3] = [
        ("gateway", Self::Gateway),
        ("device", Self::Device),
        ("resource", Self::Resource),
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Device => "device",
            Self::Resource => "resource",
        }
    }
}

impl TopicTemplate {
    /// Appends the topic of a reading to `topic`.
    ///
    /// What MQTT does not allow in a topic name (`+`, `#` and control characters, MQTT 5.0 §4.7.1, §1.5.4) becomes `_`;
    /// such characters come only from resources that are not MQTT topics themselves. The caller has to see to the
    /// 65,535 bytes a topic may have.
    pub fn expand_into(&self, topic: &mut String, gateway: &str, device: &str, resource: &str) {
        for part in &self.parts {
            let value = match part {
                Part::Literal(text) => text,
                Part::Variable(Variable::Gateway) => gateway,
                Part::Variable(Variable::Device) => device,
                Part::Variable(Variable::Resource) => resource,
            };
            topic.extend(value.chars().map(|c| if is_forbidden(c) { '_' } else { c }));
        }
    }
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Literal(text) => f.write_str(text)?,
                Part::Variable(variable) => write!(f, "{{{}}}", variable.name())?,
            }
        }
        Ok(())
    }
}

/// Why a text is not a topic template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is empty.
    #[error("is empty")]
    Empty,
    /// A brace without its partner.
    #[error("has a brace without its partner")]
    Brace,
    /// A variable that does not exist.
    #[error("uses `{{{name}}}`, which does not exist")]
    Variable {
        /// Its name.
        name: String,
    },
    /// A character that a topic name must not have.
    #[error("contains {character:?}, which a topic must not have")]
    Character {
        /// The character.
        character: char,
    },
}

impl FromStr for TopicTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (literal, braced) = rest.split_at(at);
            push_literal(&mut parts, literal)?;
            let (name, after) = braced
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
                .ok_or(TemplateError::Brace)?;
            if name.contains('{') {
                return Err(TemplateError::Brace);
            }
            let variable = Variable::ALL.iter().find(|(known, _)| *known == name);
            let (_, variable) = variable.ok_or_else(|| TemplateError::Variable {
                name: name.to_owned(),
            })?;
            parts.push(Part::Variable(*variable));
            rest = after;
        }
        push_literal(&mut parts, rest)?;
        Ok(Self { parts })
    }
}

fn push_literal(parts: &mut Vec<Part>, literal: &str) -> Result<(), TemplateError> {
    if let Some(character) = literal.chars().find(|c| is_forbidden(*c)) {
        return Err(TemplateError::Character { character });
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.to_owned()));
    }
    Ok(())
}

fn is_forbidden(c: char) -> bool {
    matches!(c, '+' | '#') || c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expand(template: &str, resource: &str) -> String {
        let template: TopicTemplate = template.parse().expect(template);
        let mut topic = String::new();
        template.expand_into(&mut topic, "hall-3", "pump", resource);
        topic
    }

    #[test]
    fn variables_are_replaced() {
        assert_eq!(expand("{gateway}/{device}/{resource}", "a/b"), "hall-3/pump/a/b");
        assert_eq!(expand("site/{device}", "x"), "site/pump");
        assert_eq!(expand("{device}{device}", "x"), "pumppump");
    }

    #[test]
    fn wildcards_from_resources_do_not_reach_the_broker() {
        assert_eq!(expand("{resource}", "a/+/#\0"), "a/_/__");
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
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_round_trips(text in "[a-e{}/+\\PC]{0,30}|(\\{gateway\\}|\\{device\\}|/|\\PC){0,9}") {
            if let Ok(template) = text.parse::<TopicTemplate>() {
                prop_assert_eq!(template.to_string(), text.as_str());
                let mut topic = String::new();
                template.expand_into(&mut topic, "g", "d", &text);
                prop_assert!(!topic.contains(['+', '#', '\0']));
            }
        }
    }
}
