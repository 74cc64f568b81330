//! Topic filters: what a device may publish, which topics are alarms (MQTT 5.0 §4.7, MQTT 3.1.1 §4.7).

use std::{fmt, str::FromStr};

/// A topic filter that is known to be well formed.
///
/// `+` stands for exactly one level, a last `#` for the level above it and all below. Neither stands for a first level that
/// begins with `$`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter(Box<str>);

impl TopicFilter {
    /// Checks `filter` and keeps a copy.
    ///
    /// # Errors
    /// [`TopicFilterError`] says which rule of MQTT 5.0 §4.7.1 and §4.7.3 it breaks.
    pub fn new(filter: &str) -> Result<Self, TopicFilterError> {
        check_filter(filter)?;
        Ok(Self(filter.into()))
    }

    /// Returns the filter's text.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether `topic` is one of those the filter stands for.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        filter_matches(&self.0, topic)
    }

    /// Returns whether the filter stands for every topic that the well-formed filter `narrower` stands for.
    #[must_use]
    pub fn covers(&self, narrower: &str) -> bool {
        filter_covers(&self.0, narrower)
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicFilter({:?})", &*self.0)
    }
}

impl FromStr for TopicFilter {
    type Err = TopicFilterError;

    fn from_str(filter: &str) -> Result<Self, Self::Err> {
        Self::new(filter)
    }
}

/// Checks the form of a topic filter (MQTT 5.0 §4.7.1, §4.7.3).
///
/// A shared subscription is not taken apart: `$share/group/filter` is an ordinary filter here.
///
/// # Errors
/// [`TopicFilterError`] says which rule is broken.
pub fn check_filter(filter: &str) -> Result<(), TopicFilterError> {
    if filter.is_empty() {
        return Err(TopicFilterError::Empty);
    }
    if filter.len() > TOPIC_LEN_MAX {
        return Err(TopicFilterError::TooLong { len: filter.len() });
    }
    if filter.contains('\0') {
        return Err(TopicFilterError::Null);
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level.len() > 1 || levels.peek().is_some()) {
            return Err(TopicFilterError::MultiLevelWildcard);
        }
        if level.contains('+') && level.len() > 1 {
            return Err(TopicFilterError::SingleLevelWildcard);
        }
    }
    Ok(())
}

/// Returns whether `topic` is one of those that the well-formed `filter` stands for (MQTT 5.0 §4.7.1, §4.7.2).
#[must_use]
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['#', '+']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        // Asked before a level is taken: "sport/#" also stands for "sport", the parent level (MQTT 5.0 §4.7.1.2).
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            Some(_) | None => return false,
        }
    }
    levels.next().is_none()
}

/// Returns whether the well-formed filter `wider` stands for every topic that the well-formed filter `narrower` stands for.
#[must_use]
pub fn filter_covers(wider: &str, narrower: &str) -> bool {
    if narrower.starts_with('$') && wider.starts_with(['#', '+']) {
        return false;
    }
    let mut levels = narrower.split('/');
    for allowed in wider.split('/') {
        if allowed == "#" {
            return true;
        }
        match levels.next() {
            Some("#") | None => return false,
            Some(level) if allowed == "+" || allowed == level => {}
            Some(_) => return false,
        }
    }
    levels.next().is_none()
}

/// Bytes of a topic name or topic filter at most (MQTT 5.0 §4.7.3).
pub const TOPIC_LEN_MAX: usize = 65_535;

/// Which rule a topic filter breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicFilterError {
    /// It has no characters (`[MQTT-4.7.3-1]`).
    #[error("the topic filter is empty")]
    Empty,
    /// It has more than [`TOPIC_LEN_MAX`] bytes (`[MQTT-4.7.3-3]`).
    #[error("the topic filter has {len} bytes, at most 65535 are allowed")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It contains U+0000 (`[MQTT-4.7.3-2]`).
    #[error("the topic filter contains U+0000")]
    Null,
    /// `#` is not the whole last level (`[MQTT-4.7.1-1]`).
    #[error("`#` is not the whole of the last level")]
    MultiLevelWildcard,
    /// `+` is not a whole level (`[MQTT-4.7.1-2]`).
    #[error("`+` is not the whole of its level")]
    SingleLevelWildcard,
}

impl TopicFilterError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Empty => "write `#` for every topic",
            Self::TooLong { .. } => "use wildcards",
            Self::Null => "remove the zero character",
            Self::MultiLevelWildcard => "write `#` alone or after the last `/`",
            Self::SingleLevelWildcard => "write `+` alone between two `/`",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The examples of MQTT 3.1.1 §4.7.1 to §4.7.3, in their order, which MQTT 5.0 repeats.
    #[test]
    fn matches_the_examples_of_the_standard() {
        let cases = [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
                true,
            ),
            ("sport/#", "sport", true),
            ("#", "any/topic", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player2", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+", "finance", true),
            ("+/tennis/#", "sport/tennis", true),
            ("+/tennis/#", "sport/tennis/player1", true),
            ("sport/+/player1", "sport/tennis/player1", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/monitor/Clients", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/monitor/Clients", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("ACCOUNTS", "Accounts", false),
            ("/", "/", true),
            ("Accounts payable", "Accounts payable", true),
            ("/finance", "finance", false),
        ];
        for (filter, topic, expected) in cases {
            let filter = TopicFilter::new(filter).expect("the filters of the standard are well formed");
            assert_eq!(filter.matches(topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn a_dollar_inside_is_an_ordinary_character() {
        assert!(filter_matches("#", "a/$b"));
        assert!(filter_matches("+/$b", "a/$b"));
        assert!(filter_matches("a/+", "a/$b"));
        assert!(!filter_matches("+", "$"));
        assert!(filter_matches("$", "$"));
    }

    #[test]
    fn first_characters_beyond_ascii_are_ordinary() {
        assert!(filter_matches("école/+", "école/x"));
        assert!(filter_matches("+/x", "\u{feff}/x"));
        assert!(!filter_matches("ecole/+", "école/x"));
    }

    #[test]
    fn levels_may_be_empty() {
        assert!(filter_matches("a//b", "a//b"));
        assert!(filter_matches("a/+/b", "a//b"));
        assert!(!filter_matches("a/b", "a//b"));
        assert!(filter_matches("a/#", "a/"));
        assert!(!filter_matches("a/b/#", "a"));
    }

    #[test]
    fn refuses_malformed_filters() {
        let long = "x".repeat(TOPIC_LEN_MAX + 1);
        let cases = [
            ("", TopicFilterError::Empty),
            ("a\0b", TopicFilterError::Null),
            ("sport/tennis#", TopicFilterError::MultiLevelWildcard),
            ("sport/tennis/#/ranking", TopicFilterError::MultiLevelWildcard),
            ("##", TopicFilterError::MultiLevelWildcard),
            ("#/", TopicFilterError::MultiLevelWildcard),
            ("+#", TopicFilterError::MultiLevelWildcard),
            ("sport+", TopicFilterError::SingleLevelWildcard),
            ("sport/+tennis", TopicFilterError::SingleLevelWildcard),
            ("++", TopicFilterError::SingleLevelWildcard),
            (&long, TopicFilterError::TooLong { len: 65_536 }),
        ];
        for (filter, expected) in cases {
            assert_eq!(TopicFilter::new(filter), Err(expected), "{filter:.30}");
        }
        for filter in ["#", "+", "/", "//", "+/+/#", "$share/g/+", " ", "é/+"] {
            assert!(TopicFilter::new(filter).is_ok(), "{filter}");
        }
    }

    #[test]
    fn a_filter_covers_what_it_leaves_nothing_of() {
        let cases = [
            ("#", "a/b", true),
            ("#", "+/#", true),
            ("#", "$SYS/#", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/+", true),
            ("a/#", "a", true),
            ("a/#", "a/#", true),
            ("a/#", "a/+/c", true),
            ("a/+", "a/#", false),
            ("a/+", "a/+", true),
            ("a/+", "a/b", true),
            ("a/b", "a/+", false),
            ("a", "a/#", false),
            ("a/+/c", "a/b/c", true),
            ("a/+/c", "a/b", false),
            ("a", "a/b", false),
        ];
        for (wider, narrower, expected) in cases {
            assert_eq!(filter_covers(wider, narrower), expected, "{wider} {narrower}");
        }
    }

    /// The slow, obvious definition: level lists compared by recursion.
    fn model(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            ([wanted, filter @ ..], [level, topic @ ..]) => {
                (*wanted == "+" || wanted == level) && model(filter, topic)
            }
            ([], [_, ..]) | ([_, ..], []) => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition_by_recursion(filter in "[ab+/]{1,8}(/#)?", topic in "[ab/]{1,9}") {
            prop_assume!(check_filter(&filter).is_ok());
            let levels: Vec<&str> = filter.split('/').collect();
            let topic_levels: Vec<&str> = topic.split('/').collect();
            prop_assert_eq!(filter_matches(&filter, &topic), model(&levels, &topic_levels));
        }

        #[test]
        fn what_a_covered_filter_matches_the_wider_one_matches(
            wider in "(a|b|\\$|\\+)?(/(a|b|\\+)?){1,3}(/#)?|#|\\+", narrower in "(a|b|\\$|\\+)?(/(a|b|\\+)?){1,3}(/#)?|#|a",
            topic in "(a|b|\\$)?(/(a|b)?){0,4}",
        ) {
            if filter_covers(&wider, &narrower) && filter_matches(&narrower, &topic) {
                prop_assert!(filter_matches(&wider, &topic));
            }
        }

        #[test]
        fn any_texts_are_compared_without_panic(filter: String, topic: String) {
            let _ = check_filter(&filter);
            let _ = filter_matches(&filter, &topic);
            let _ = filter_covers(&filter, &topic);
        }
    }
}
