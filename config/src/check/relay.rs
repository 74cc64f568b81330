//! `[relay]`.

use std::collections::BTreeSet;

use super::{Unique, values};
use crate::problem::{Draft, Findings};
use crate::raw;
use crate::reader::{Field, Item, RawTable};
use crate::settings;

pub(super) fn relay(raw: raw::Relay, has_link_tcp: bool, findings: &mut Findings) -> Option<settings::Relay> {
    if !has_link_tcp {
        let draft = raw
            .header()
            .error("`relay` needs `[link.tcp]`: no member could connect");
        findings.push(draft.help("add [link.tcp] with listen = [\"0.0.0.0:4433\"]"));
    }
    if !raw.member.is_given() {
        let draft = raw
            .header()
            .warning("`relay` has no `[[relay.member]]`: everybody is refused");
        findings.push(draft.help("add a [[relay.member]] for each gateway and collector"));
    }
    let members = raw.member.value.unwrap_or_default();
    check_members(&members, findings);
    check_reach(&members, findings);
    Some(settings::Relay {
        pq: raw.pq.value?,
        links_max: raw.links_max.value?,
        labels_max: raw.labels_max.value?,
        queue_bytes_max: raw.queue_bytes_max.value?,
        members: members.into_iter().map(member).collect::<Option<_>>()?,
    })
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
        let is_empty = |list: &Field<Vec<Item<String>>>| list.value.as_ref().is_some_and(Vec::is_empty);
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

/// Finds names that nobody can answer to, which are mostly slips.
fn check_reach(members: &[raw::RelayMember], findings: &mut Findings) {
    let held = members.iter().filter_map(|raw| raw.hold.value.as_ref()).flatten();
    let held: BTreeSet<&str> = held.map(|item| item.value.as_str()).collect();
    let known: Vec<&str> = held.iter().copied().collect();
    let reached = members
        .iter()
        .filter_map(|raw| raw.reach.value.as_ref())
        .flatten();
    for (index, item) in reached
        .filter(|item| !held.contains(item.value.as_str()))
        .enumerate()
    {
        // Each suggestion looks at every name; of a file that is all wrong the first will do.
        let candidates = if index < SUGGESTIONS_MAX {
            known.as_slice()
        } else {
            &[]
        };
        let help = match crate::suggest::nearest(&item.value, candidates) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => format!("give the node that answers to it hold = [{:?}]", item.value),
        };
        let message = format!("`{}` is {:?}, which no member may hold", item.path, item.value);
        findings.push(
            Draft::warning(message)
                .key(item.path.as_str())
                .at(item.span.clone(), "this name")
                .help(help),
        );
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

/// Names for which another is suggested.
const SUGGESTIONS_MAX: usize = 100;
