//! `[trust]` and `[authority]`.

use std::path::Path;

use fieldgate_proto::relay::NamePattern;

use super::collector::{check_registrations, registration};
use super::uplink::{check_relays, check_through, path};
use super::{Unique, cluster, values};
use crate::problem::Findings;
use crate::raw;
use crate::reader::{Item, RawTable};
use crate::settings;

pub(super) fn trust(raw: raw::Trust, findings: &mut Findings) -> Option<settings::Trust> {
    check_relays(raw.relays.value.as_deref(), findings);
    let relays = raw.relay.value.iter().chain(raw.relays.value.iter().flatten());
    check_through(raw.via.value.as_ref(), relays, findings);
    let has_path = raw.relay.is_given() || raw.relays.is_given() || raw.direct.is_given();
    let path = if has_path {
        Some(path(
            raw.direct.value,
            raw.via.value,
            raw.relay.value,
            raw.relays.value,
        )?)
    } else {
        None
    };
    Some(settings::Trust {
        authority: raw.authority.value,
        path,
        pq: raw.pq.value?,
        policy: raw.policy.value,
        grace: raw.grace_secs.value?,
        after_grace: raw.after_grace.value?,
    })
}

pub(super) fn authority(
    raw: raw::Authority,
    has_link_listener: bool,
    state_dir: &Path,
    findings: &mut Findings,
) -> Option<settings::Authority> {
    if raw.public.value.as_ref().is_some_and(|public| !public.is_empty()) && !has_link_listener {
        let draft = raw
            .public
            .error("`authority.public` needs `[link.tcp]`: nothing would answer there");
        findings.push(draft.help("add [link.tcp] with listen = [\"0.0.0.0:4433\"], or take it out"));
    }
    let mut public = Unique::new("an address", "take one of the two out");
    for item in raw.public.value.iter().flatten() {
        public.add(&item.value, item.place(), findings);
    }
    check_registrations(raw.register.value.as_deref(), findings);
    let cluster = match raw.cluster.value {
        Some(raw) => Some(cluster::authority(raw, findings)?),
        None => None,
    };
    let members = raw.member.value.unwrap_or_default();
    check_members(&members, findings);
    let registrations = raw.register.value.unwrap_or_default();
    Some(settings::Authority {
        store: raw
            .store
            .value
            .unwrap_or_else(|| state_dir.join("authority.redb")),
        credential_valid: raw.credential_valid_secs.value?,
        status_valid: raw.status_valid_secs.value?,
        pq: raw.pq.value?,
        registrations: registrations
            .into_iter()
            .map(registration)
            .collect::<Option<_>>()?,
        public: values(raw.public.value?),
        members: members.into_iter().map(member).collect::<Option<_>>()?,
        cluster,
    })
}

fn check_members(members: &[raw::AuthorityMember], findings: &mut Findings) {
    let mut names = Unique::new("a name", "give each member a name of its own");
    let mut identifiers = Unique::new(
        "an identifier",
        "put all rights of a node into one [[authority.member]]",
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
        let bytes = grant_bytes(raw);
        if bytes > GRANT_BYTES_MAX {
            let draft = raw.header().error(format!(
                "attributes and names of `{}` take {bytes} bytes, more than {GRANT_BYTES_MAX}: they would not fit its credential",
                raw.header().path
            ));
            findings
                .push(draft.help("shorten attributes, or put a * in the place of names that begin alike"));
        }
    }
}

/// Returns what attributes and names take in a credential (`PROTOCOL.md` §10.1), with their length bytes.
fn grant_bytes(raw: &raw::AuthorityMember) -> usize {
    let attributes = raw.attributes.value.iter().flatten();
    let patterns = |list: &Option<Vec<Item<NamePattern>>>| -> usize {
        let items = list.iter().flatten();
        items.map(|item| item.value.to_string().len() + 1).sum()
    };
    attributes
        .map(|(name, text)| name.len() + text.len() + 2)
        .sum::<usize>()
        + patterns(&raw.hold.value)
        + patterns(&raw.reach.value)
}

fn member(raw: raw::AuthorityMember) -> Option<settings::AuthorityMember> {
    Some(settings::AuthorityMember {
        name: raw.name.value?,
        identifier: raw.identifier.value?,
        attributes: raw.attributes.value.unwrap_or_default(),
        hold: values(raw.hold.value?),
        reach: values(raw.reach.value?),
        enroller: raw.enroller.value?,
        administrator: raw.administrator.value?,
    })
}

/// Room for attributes and names in a presentation of 4,096 bytes (`PROTOCOL.md` §10.2): the authority's history takes 179
/// bytes and 242 for each rotation of its key, the rest of the credential at most 400. So five rotations fit.
const GRANT_BYTES_MAX: usize = 2_048;
