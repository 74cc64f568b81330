//! `[relay]`.

use std::collections::BTreeSet;

use fieldgate_proto::relay::NamePattern;

use super::{Unique, values};
use crate::problem::{Draft, Findings};
use crate::raw;
use crate::reader::{Field, Item, RawTable, quote};
use crate::settings;

pub(super) fn relay(
    raw: raw::Relay,
    has_link_listener: bool,
    has_trust: bool,
    findings: &mut Findings,
) -> Option<settings::Relay> {
    if !has_link_listener {
        let draft = raw
            .header()
            .error("`relay` needs `[link.tcp]`: no member could connect");
        findings.push(draft.help("add [link.tcp] with listen = [\"0.0.0.0:4433\"]"));
    }
    if !(raw.member.is_given() || raw.neighbour.is_given() || has_trust) {
        let draft = raw
            .header()
            .warning("`relay` has no `[[relay.member]]`, and there is no `[trust]`: it serves nobody");
        findings.push(draft.help(
            "add a [[relay.member]] for each gateway and collector; or [trust], and enrol this node and its members with \
             an authority",
        ));
    }
    let mut open = Unique::new("a name", "take one of the two out");
    for item in raw.open.value.iter().flatten() {
        open.add(&item.value, item.place(), findings);
    }
    check_room(&raw, findings);
    let members = raw.member.value.unwrap_or_default();
    check_members(&members, findings);
    let cluster = raw
        .cluster
        .value
        .map(|raw| super::cluster::cluster(raw, findings));
    let neighbours = raw.neighbour.value.unwrap_or_default();
    check_neighbours(&neighbours, findings);
    if !has_trust && cluster.is_none() {
        // Otherwise credentials say who holds what, or members of other relays hold it.
        check_reach(
            &members,
            &neighbours,
            raw.open.value.as_deref().unwrap_or_default(),
            findings,
        );
    }
    Some(settings::Relay {
        pq: raw.pq.value?,
        links_max: raw.links_max.value?,
        links_per_member_max: raw.links_per_member_max.value?,
        labels_max: raw.labels_max.value?,
        queue_bytes_max: raw.queue_bytes_max.value?,
        held_bytes_max: raw.held_bytes_max.value?,
        drain: raw.drain_secs.value?,
        open: values(raw.open.value?),
        guests_max: raw.guests_max.value?,
        members: members.into_iter().map(member).collect::<Option<_>>()?,
        cluster: match cluster {
            Some(cluster) => Some(cluster?),
            None => None,
        },
        neighbours: neighbours.into_iter().map(neighbour).collect::<Option<_>>()?,
    })
}

fn check_room(raw: &raw::Relay, findings: &mut Findings) {
    if let (Some(queue), Some(held)) = (raw.queue_bytes_max.value, raw.held_bytes_max.value)
        && u64::from(queue) > held
    {
        let given = if raw.held_bytes_max.is_given() {
            &raw.held_bytes_max.span
        } else {
            &raw.queue_bytes_max.span
        };
        let message = "`relay.held_bytes_max`, for all links, is less than `relay.queue_bytes_max`, for one";
        let draft = Draft::error(message)
            .key("relay.held_bytes_max")
            .at(given.clone(), "this value");
        findings.push(draft.help("enlarge `held_bytes_max`, or choose a smaller `queue_bytes_max`"));
    }
}

fn check_members(members: &[raw::RelayMember], findings: &mut Findings) {
    let mut names = Unique::new("a name", "give each member a name of its own");
    let mut identifiers = Unique::new(
        "an identifier",
        "put all rights of a node into one [[relay.member]]",
    );
    for raw in members {
        if let Some(name) = &raw.name.value {
            names.add(name, raw.name.place(), findings);
        }
        if let Some(identifier) = raw.identifier.value {
            identifiers.add(identifier, raw.identifier.place(), findings);
        }
        for list in [&raw.hold, &raw.reach] {
            let mut listed = Unique::new("a name", "take one of the two out");
            for item in list.value.iter().flatten() {
                listed.add(&item.value, item.place(), findings);
            }
        }
        let is_empty = |list: &Field<Vec<Item<NamePattern>>>| list.value.as_ref().is_some_and(Vec::is_empty);
        if is_empty(&raw.hold) && is_empty(&raw.reach) {
            let draft = raw.header().warning(format!(
                "`{}` may neither hold nor reach a name: it cannot do anything",
                raw.header().path
            ));
            findings.push(draft.help(
                "give a collector hold = [\"its-name\"], a gateway reach = [\"name-of-the-collector\"]",
            ));
        }
    }
}

fn check_neighbours(neighbours: &[raw::RelayNeighbour], findings: &mut Findings) {
    let mut addresses = Unique::new("an address", "write one [[relay.neighbour]] per address");
    for raw in neighbours {
        if let Some(address) = &raw.address.value {
            addresses.add(address, raw.address.place(), findings);
        }
        let mut names = Unique::new("a name", "take one of the two out");
        for item in raw.register.value.iter().flatten() {
            names.add(&item.value, item.place(), findings);
        }
        let mut reach = Unique::new("a name", "take one of the two out");
        for item in raw.reach.value.iter().flatten() {
            reach.add(&item.value, item.place(), findings);
        }
    }
}

/// Finds names that nobody can answer to, which are mostly slips.
fn check_reach(
    members: &[raw::RelayMember],
    neighbours: &[raw::RelayNeighbour],
    open: &[Item<String>],
    findings: &mut Findings,
) {
    let patterns = members.iter().filter_map(|raw| raw.hold.value.as_ref()).flatten();
    let called = neighbours.iter().filter_map(|raw| raw.name.value.clone());
    let called: Vec<NamePattern> = called.map(NamePattern::Exact).collect();
    let held = Held::new(patterns.map(|item| &item.value).chain(&called));
    let known: Vec<&str> = held.exact.iter().copied().collect();
    let of_neighbours = neighbours.iter().filter_map(|raw| raw.reach.value.as_ref());
    let reached = members
        .iter()
        .filter_map(|raw| raw.reach.value.as_ref())
        .chain(of_neighbours)
        .flatten()
        .filter(|item| !held.has_any_of(&item.value))
        .map(|item| (item.value.to_string(), item.place()));
    let opened = open
        .iter()
        .filter(|item| !held.has_any_of(&NamePattern::Exact(item.value.clone())))
        .map(|item| (item.value.clone(), item.place()));
    for (index, (name, place)) in reached.chain(opened).enumerate() {
        // Each suggestion looks at every name; of a file that is all wrong the first will do.
        let candidates = if index < SUGGESTIONS_MAX {
            known.as_slice()
        } else {
            &[]
        };
        let help = match crate::suggest::nearest(&name, candidates) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => format!("give the node that answers to it hold = [{name:?}]"),
        };
        let message = format!("`{}` is {}, which no member may hold", place.path, quote(&name));
        let draft = Draft::warning(message)
            .key(place.path)
            .at(place.span, "this name");
        findings.push(draft.help(help));
    }
}

/// The names that members may hold, sorted, so that even a table of tens of thousands is looked through at once.
struct Held<'h> {
    exact: BTreeSet<&'h str>,
    prefixes: BTreeSet<&'h str>,
}

impl<'h> Held<'h> {
    fn new(patterns: impl Iterator<Item = &'h NamePattern>) -> Self {
        let mut held = Self {
            exact: BTreeSet::new(),
            prefixes: BTreeSet::new(),
        };
        for pattern in patterns {
            match pattern {
                NamePattern::Exact(name) => held.exact.insert(name),
                NamePattern::Prefix(prefix) => held.prefixes.insert(prefix),
            };
        }
        held
    }

    /// Returns whether a name exists that fits `wanted` and that a member may hold.
    fn has_any_of(&self, wanted: &NamePattern) -> bool {
        let begins_with_a_prefix = |text: &str| {
            let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.any(|end| {
                text.get(..end)
                    .is_some_and(|beginning| self.prefixes.contains(beginning))
            })
        };
        let has_longer = |set: &BTreeSet<&str>, text: &str| {
            set.range(text..)
                .next()
                .is_some_and(|next| next.starts_with(text))
        };
        match wanted {
            NamePattern::Exact(name) => self.exact.contains(name.as_str()) || begins_with_a_prefix(name),
            NamePattern::Prefix(prefix) => {
                has_longer(&self.exact, prefix)
                    || has_longer(&self.prefixes, prefix)
                    || begins_with_a_prefix(prefix)
            }
        }
    }
}

fn member(raw: raw::RelayMember) -> Option<settings::RelayMember> {
    Some(settings::RelayMember {
        name: raw.name.value?,
        identifier: raw.identifier.value?,
        hold: values(raw.hold.value?),
        reach: values(raw.reach.value?),
    })
}

fn neighbour(raw: raw::RelayNeighbour) -> Option<settings::RelayNeighbour> {
    Some(settings::RelayNeighbour {
        name: raw.name.value?,
        relay: settings::RelayAddress {
            address: raw.address.value?,
            also: values(raw.also.value?),
            identifier: raw.identifier.value?,
        },
        register: values(raw.register.value?),
        reach: values(raw.reach.value?),
    })
}

/// Names for which another is suggested.
const SUGGESTIONS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern() -> impl Strategy<Value = NamePattern> {
        "[ab]{1,3}|[ab]{0,2}\\*".prop_map(|text| text.parse().expect("a pattern"))
    }

    proptest! {
        #[test]
        fn what_can_be_held_is_found(held in proptest::collection::vec(pattern(), 0..4), wanted in pattern()) {
            // Every name of up to four letters is a witness; longer ones add nothing to patterns of up to three.
            let name = |len: u32, bits: u32| (0..len).map(|at| if bits >> at & 1 == 0 { 'a' } else { 'b' }).collect::<String>();
            let mut names = (1..=4).flat_map(|len| (0..1 << len).map(move |bits| name(len, bits)));
            let expected = names.any(|name| wanted.matches(&name) && held.iter().any(|pattern| pattern.matches(&name)));
            prop_assert_eq!(Held::new(held.iter()).has_any_of(&wanted), expected);
        }
    }
}
