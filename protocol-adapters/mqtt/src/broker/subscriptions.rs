//! Who wants which topics: a tree of the levels of topic filters.

use std::{cell::Cell, collections::BTreeMap};

use super::SessionIndex;
use crate::exchange::SubscriptionOptions;

/// The subscriptions of all sessions.
///
/// Invariant: no node but the root is empty, so the tree is no larger than its filters.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    root: Node,
    count: usize,
    no_local: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// By level; `+` is one of them.
    children: BTreeMap<Box<str>, Self>,
    /// Filters that end here.
    here: Subscribers,
    /// Filters that end with `#` below here, which stands for here as well (MQTT 5.0 §4.7.1.2).
    below: Subscribers,
}

#[derive(Debug, Default)]
struct Subscribers {
    plain: BTreeMap<SessionIndex, SubscriptionOptions>,
    shared: BTreeMap<Box<str>, Group>,
}

/// The sessions that share a subscription (MQTT 5.0 §4.8.2).
#[derive(Debug, Default)]
pub(super) struct Group {
    members: BTreeMap<SessionIndex, SubscriptionOptions>,
    /// Who got the last message.
    last: Cell<Option<SessionIndex>>,
}

impl Group {
    /// Returns the members, beginning behind the one that got the last message.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = (SessionIndex, &SubscriptionOptions)> {
        let after = self.last.get();
        let is_later = move |index: SessionIndex| after.is_none_or(|after| index > after);
        let later = self.members.iter().filter(move |(index, _)| is_later(**index));
        let earlier = self.members.iter().filter(move |(index, _)| !is_later(**index));
        later.chain(earlier).map(|(index, options)| (*index, options))
    }

    /// Notes who got a message.
    pub(super) fn note(&self, index: SessionIndex) {
        self.last.set(Some(index));
    }
}

/// What is found for a topic.
pub(super) trait Found {
    /// A session's own subscription.
    fn subscription(&mut self, session: SessionIndex, options: &SubscriptionOptions);
    /// A shared subscription: one of the group is to get the message.
    fn group(&mut self, group: &Group);
}

impl Subscriptions {
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Returns whether a filter begins with this level.
    pub(super) fn has_first_level(&self, level: &str) -> bool {
        self.root.children.contains_key(level)
    }

    /// Adds or replaces a subscription; says whether it is new.
    pub(super) fn insert(
        &mut self,
        filter: &Filter<'_>,
        session: SessionIndex,
        options: SubscriptionOptions,
    ) -> bool {
        let mut node = &mut self.root;
        for level in filter.levels() {
            node = node.children.entry(level.into()).or_default();
        }
        let subscribers = if filter.is_multi_level() {
            &mut node.below
        } else {
            &mut node.here
        };
        let old = match filter.share {
            None => subscribers.plain.insert(session, options),
            Some(share) => subscribers
                .shared
                .entry(share.into())
                .or_default()
                .members
                .insert(session, options),
        };
        self.no_local += usize::from(options.no_local);
        self.no_local -= usize::from(old.is_some_and(|old| old.no_local));
        self.count += usize::from(old.is_none());
        old.is_none()
    }

    /// Removes a subscription; says whether it was there.
    pub(super) fn remove(&mut self, filter: &Filter<'_>, session: SessionIndex) -> bool {
        let removed = self.root.remove(&mut filter.levels(), filter, session);
        self.count -= usize::from(removed.is_some());
        self.no_local -= usize::from(removed.is_some_and(|options| options.no_local));
        removed.is_some()
    }

    /// Finds every subscription whose filter stands for `topic`.
    pub(super) fn find(&self, topic: &str, found: &mut dyn Found) {
        // §4.7.2: wildcards at the first level do not stand for what begins with `$`.
        let wildcards = !topic.starts_with('$');
        if self.count > 0 {
            self.root.find(topic.split('/'), wildcards, found);
        }
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.here.is_empty() && self.below.is_empty()
    }

    fn remove(
        &mut self,
        levels: &mut dyn Iterator<Item = &str>,
        filter: &Filter<'_>,
        session: SessionIndex,
    ) -> Option<SubscriptionOptions> {
        let Some(level) = levels.next() else {
            let subscribers = if filter.is_multi_level() {
                &mut self.below
            } else {
                &mut self.here
            };
            return subscribers.remove(filter.share, session);
        };
        let child = self.children.get_mut(level)?;
        let removed = child.remove(levels, filter, session);
        if child.is_empty() {
            self.children.remove(level);
        }
        removed
    }

    /// The recursion is as deep as the deepest filter, which is bounded ([`FILTER_LEVELS_MAX`]).
    fn find(&self, mut levels: std::str::Split<'_, char>, wildcards: bool, found: &mut dyn Found) {
        if wildcards {
            self.below.tell(found);
        }
        let Some(level) = levels.next() else {
            self.here.tell(found);
            return;
        };
        if let Some(child) = self.children.get(level) {
            child.find(levels.clone(), true, found);
        }
        if wildcards && let Some(child) = self.children.get("+") {
            child.find(levels, true, found);
        }
    }
}

impl Subscribers {
    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.shared.is_empty()
    }

    fn remove(&mut self, share: Option<&str>, session: SessionIndex) -> Option<SubscriptionOptions> {
        let Some(share) = share else {
            return self.plain.remove(&session);
        };
        let group = self.shared.get_mut(share)?;
        let removed = group.members.remove(&session);
        if group.members.is_empty() {
            self.shared.remove(share);
        }
        removed
    }

    fn tell(&self, found: &mut dyn Found) {
        for (session, options) in &self.plain {
            found.subscription(*session, options);
        }
        for group in self.shared.values() {
            found.group(group);
        }
    }
}

/// A topic filter taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filter<'a> {
    /// The name of the group of a shared subscription.
    pub(crate) share: Option<&'a str>,
    /// The topic filter without it.
    pub(crate) topic_filter: &'a str,
}

impl<'a> Filter<'a> {
    /// Takes a filter apart and checks it: `None` if it is malformed, or a shared subscription without name or filter
    /// (MQTT 5.0 §4.7, §4.8.2).
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (share, topic_filter) = match text.strip_prefix("$share/") {
            Some(rest) => {
                let (share, topic_filter) = rest.split_once('/')?;
                if share.is_empty() || share.contains(['#', '+']) {
                    return None;
                }
                (Some(share), topic_filter)
            }
            None if text == "$share" => return None,
            None => (None, text),
        };
        fieldgate_adapters::topic::check_filter(topic_filter).ok()?;
        Some(Self { share, topic_filter })
    }

    /// Returns whether it has more levels than the broker takes.
    pub(crate) fn is_too_deep(&self) -> bool {
        self.topic_filter.split('/').nth(FILTER_LEVELS_MAX).is_some()
    }

    fn is_multi_level(&self) -> bool {
        self.topic_filter == "#" || self.topic_filter.ends_with("/#")
    }

    fn levels(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.topic_filter.split('/').filter(|level| *level != "#")
    }
}

/// Levels of a topic filter at most.
pub const FILTER_LEVELS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fieldgate_adapters::topic::{check_filter, filter_matches};
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Heard {
        sessions: Vec<SessionIndex>,
        chosen: Vec<SessionIndex>,
    }

    impl Found for Heard {
        fn subscription(&mut self, session: SessionIndex, _: &SubscriptionOptions) {
            self.sessions.push(session);
        }

        fn group(&mut self, group: &Group) {
            let (index, _) = group.in_turn().next().expect("a group has members");
            group.note(index);
            self.chosen.push(index);
        }
    }

    fn find(subscriptions: &Subscriptions, topic: &str) -> Heard {
        let mut heard = Heard::default();
        subscriptions.find(topic, &mut heard);
        heard
    }

    fn parse(text: &str) -> Filter<'_> {
        Filter::parse(text).expect("a good filter")
    }

    #[test]
    fn shared_subscriptions_are_taken_apart() {
        assert_eq!(
            Filter::parse("$share/g/a/#"),
            Some(Filter {
                share: Some("g"),
                topic_filter: "a/#"
            })
        );
        for bad in [
            "$share",
            "$share/",
            "$share/g",
            "$share//a",
            "$share/g/",
            "$share/+/a",
            "$share/g#/a",
            "a#",
        ] {
            assert_eq!(Filter::parse(bad), None, "{bad}");
        }
        assert_eq!(parse("$shared/g/a").share, None);
        assert!(!parse(&vec!["a"; FILTER_LEVELS_MAX].join("/")).is_too_deep());
        assert!(parse(&vec!["a"; FILTER_LEVELS_MAX + 1].join("/")).is_too_deep());
    }

    #[test]
    fn members_of_a_group_take_turns() {
        let mut subscriptions = Subscriptions::default();
        for index in [3, 1, 2] {
            let filter = parse("$share/g/a/+");
            assert!(subscriptions.insert(&filter, SessionIndex(index), SubscriptionOptions::default()));
        }
        let mut chosen: Vec<u32> = Vec::new();
        for _ in 0..4 {
            chosen.extend(find(&subscriptions, "a/b").chosen.iter().map(|index| index.0));
        }
        assert_eq!(chosen, [1, 2, 3, 1]);
        assert!(subscriptions.remove(&parse("$share/g/a/+"), SessionIndex(2)));
        assert!(!subscriptions.remove(&parse("$share/h/a/+"), SessionIndex(1)));
        assert_eq!(find(&subscriptions, "a/b").chosen, [SessionIndex(3)]);
    }

    #[test]
    fn nothing_stays_behind() {
        let mut subscriptions = Subscriptions::default();
        let filters = ["#", "a/#", "a/b/c", "+/b", "$share/g/x/y/#", "/", "a//b"];
        for filter in filters {
            assert!(subscriptions.insert(&parse(filter), SessionIndex(1), SubscriptionOptions::default()));
            assert!(!subscriptions.insert(&parse(filter), SessionIndex(1), SubscriptionOptions::default()));
        }
        assert_eq!(subscriptions.len(), filters.len());
        for filter in filters {
            assert!(subscriptions.remove(&parse(filter), SessionIndex(1)), "{filter}");
            assert!(!subscriptions.remove(&parse(filter), SessionIndex(1)));
        }
        assert!(subscriptions.root.is_empty() && subscriptions.len() == 0);
    }

    proptest! {
        #[test]
        fn finds_what_the_definition_of_matching_says(
            filters in proptest::collection::vec("[ab+$/]{1,6}(/#)?|#", 1..20),
            gone in proptest::collection::vec(any::<bool>(), 20),
            topic in "[ab$/]{1,7}",
        ) {
            let mut subscriptions = Subscriptions::default();
            let mut expected = BTreeSet::new();
            for (index, filter) in (0..).zip(&filters) {
                if check_filter(filter).is_ok() {
                    subscriptions.insert(&parse(filter), SessionIndex(index), SubscriptionOptions::default());
                }
            }
            for ((index, filter), gone) in (0..).zip(&filters).zip(&gone) {
                if check_filter(filter).is_err() {
                    continue;
                }
                if *gone {
                    prop_assert!(subscriptions.remove(&parse(filter), SessionIndex(index)));
                } else if filter_matches(filter, &topic) {
                    expected.insert(SessionIndex(index));
                }
            }
            let heard = find(&subscriptions, &topic);
            prop_assert_eq!(heard.sessions.len(), expected.len());
            prop_assert_eq!(heard.sessions.into_iter().collect::<BTreeSet<_>>(), expected);
        }
    }
}
