//! A relay's members, their links and the names these hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    HOLDERS_PER_NAME_MAX, MemberRights, NAMES_PER_MEMBER_MAX, NamePattern, RefusedReason, RegistrarFrame,
    RelaySettings, cluster::Cluster,
};
use crate::{
    identity::Identifier,
    route::{Address, LinkId, MemberLinkError},
    time::Instant,
};

/// A name that went because its holder did not renew it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseExpired {
    /// The name.
    pub name: String,
    /// Who held it.
    pub member: Identifier,
    /// Over which link.
    pub link: LinkId,
}

/// A registration, for status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered<'a> {
    /// The name.
    pub name: &'a str,
    /// Who holds it.
    pub member: Identifier,
    /// Over which link.
    pub link: LinkId,
    /// Until when, unless it is renewed; `None` while the link is up.
    pub expires: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    link: LinkId,
    member: Identifier,
    since: Instant,
    /// `None` for a relay that this node has dialled: it holds its name here while the link is up.
    expires: Option<Instant>,
}

impl Holder {
    fn lives(&self, now: Instant) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

#[derive(Debug)]
struct Attached {
    member: Identifier,
    /// What this node has decided itself of a relay that it has dialled, whatever rights the member has here.
    relay: Option<Dialled>,
    names: BTreeSet<Box<str>>,
}

/// Which way a first message to a name takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Over the link of a holder.
    Holder(LinkId),
    /// Over the link to another relay of the cluster, which looks the name up among its own members.
    Cluster(LinkId),
}

/// Why a first message to a name goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoWay {
    /// The link it came over is the only one that holds the name.
    Own,
    /// Nobody holds the name.
    Nobody,
    /// The name is held here, and this relay is being drained.
    Draining,
}

/// A relay that this node has dialled.
#[derive(Debug)]
struct Dialled {
    /// Its name here.
    name: Box<str>,
    /// What first messages that come from there may go to.
    reach: Vec<NamePattern>,
}

impl Attached {
    /// Returns whether the relay at the other end bears this name because this node calls it so.
    fn is_called(&self, name: &str) -> bool {
        self.relay.as_ref().is_some_and(|relay| &*relay.name == name)
    }
}

/// The registrar's state of a relay.
///
/// Invariant: a holder of a name stands in `names` exactly if the name stands in its link's `Attached`, and the link in
/// `members` of its member.
#[derive(Debug)]
pub struct Relay {
    settings: RelaySettings,
    /// The holders of each name, the latest last; never empty.
    names: BTreeMap<Box<str>, Vec<Holder>>,
    links: BTreeMap<LinkId, Attached>,
    members: BTreeMap<Identifier, BTreeSet<LinkId>>,
    /// Rights that a policy decided on, in the place of those of the settings; until the member's last link goes.
    granted: BTreeMap<Identifier, MemberRights>,
    /// What it shares with other relays.
    cluster: Option<Cluster>,
    /// Names of which the cluster has not been told yet what became of them.
    changed: BTreeSet<Box<str>>,
    /// Whether members are to leave.
    is_draining: bool,
}

impl Relay {
    pub(crate) const fn new(settings: RelaySettings) -> Self {
        Self {
            settings,
            names: BTreeMap::new(),
            links: BTreeMap::new(),
            members: BTreeMap::new(),
            granted: BTreeMap::new(),
            cluster: None,
            changed: BTreeSet::new(),
            is_draining: false,
        }
    }

    /// Takes no new names and no first messages for those held here, and has the cluster told that none is; or all of it again.
    pub(crate) fn set_draining(&mut self, draining: bool) {
        self.is_draining = draining;
        let names: Vec<Box<str>> = self.names.keys().cloned().collect();
        self.touch(names);
    }

    /// Returns the links of members, without those to relays that this one has dialled and those of its cluster.
    pub(crate) fn leavers(&self) -> impl Iterator<Item = (LinkId, Identifier)> {
        let members = self.links.iter().filter(|(_, attached)| attached.relay.is_none());
        members
            .map(|(link, attached)| (*link, attached.member))
            .filter(|(_, member)| !self.is_of_cluster(member))
    }

    /// Returns whether a link is such a member's.
    pub(crate) fn is_leaver(&self, link: LinkId) -> bool {
        let attached = self.links.get(&link);
        attached.is_some_and(|attached| attached.relay.is_none() && !self.is_of_cluster(&attached.member))
    }

    /// Returns whether a link leads to another relay, dialled by this one or of its cluster.
    pub(crate) fn is_relays(&self, link: LinkId) -> bool {
        self.links.contains_key(&link) && !self.is_leaver(link)
    }

    /// Returns the names that are held over a link.
    pub(crate) fn names_of(&self, link: LinkId) -> impl Iterator<Item = &str> {
        let attached = self.links.get(&link);
        attached
            .into_iter()
            .flat_map(|attached| attached.names.iter().map(AsRef::as_ref))
    }

    /// Takes part in a cluster from now on; the others learn of what is held already.
    pub(crate) fn join(&mut self, now: Instant, cluster: Cluster) {
        self.cluster = Some(cluster);
        self.changed.extend(self.names.keys().cloned());
        self.tell_cluster(now);
    }

    /// Returns the relay's part of a cluster.
    #[must_use]
    pub const fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    pub(crate) const fn cluster_mut(&mut self) -> Option<&mut Cluster> {
        self.cluster.as_mut()
    }

    /// Remembers names of which the cluster is to be told what became of them.
    fn touch(&mut self, names: impl IntoIterator<Item = Box<str>>) {
        if self.cluster.is_some() {
            self.changed.extend(names);
        }
    }

    /// Tells the cluster which names are held here and which are no more.
    pub(crate) fn tell_cluster(&mut self, now: Instant) {
        while let Some(name) = self.changed.pop_first() {
            let Some(cluster) = &mut self.cluster else {
                continue;
            };
            let holders = self.names.get(&name).into_iter().flatten();
            // What only this relay calls so is no name for others, and one that is to be left leads nowhere.
            let registered = holders.filter(|holder| holder.expires.is_some() && !self.is_draining);
            let since = registered.map(|holder| holder.since).max();
            cluster.handle_local(now, &name, since);
        }
    }

    /// Returns whether a member is another relay of the cluster.
    pub(crate) fn is_of_cluster(&self, member: &Identifier) -> bool {
        self.cluster
            .as_ref()
            .is_some_and(|cluster| cluster.directory().has_relay(member))
    }

    /// Returns which way a first message to `name` takes that `member` sent over `link`: to who registered last, here or at
    /// another relay of the cluster that is attached here. What comes from such a relay goes to holders here only.
    ///
    /// # Errors
    /// [`NoWay`] if it goes nowhere.
    pub(crate) fn way(
        &self,
        now: Instant,
        name: &str,
        (link, member): (LinkId, &Identifier),
    ) -> Result<Way, NoWay> {
        let here = match self.holder(name, now, link) {
            // Relays that this one has dialled are left by nobody.
            Ok(out) if self.is_draining && !self.has_dialled(out) => Err(NoWay::Draining),
            Ok(out) => Ok(out),
            Err(true) => Err(NoWay::Own),
            Err(false) => Err(NoWay::Nobody),
        };
        let Some(cluster) = self.cluster.as_ref().filter(|_| !self.is_of_cluster(member)) else {
            return here.map(Way::Holder);
        };
        let since = here
            .ok()
            .and_then(|out| {
                let holders = self.names.get(name)?;
                holders.iter().find(|holder| holder.link == out)
            })
            .map(|holder| holder.since);
        for remote in cluster.directory().holders(now, name) {
            if since.is_some_and(|since| since >= remote.since) {
                break;
            }
            let links = self.members.get(&remote.relay);
            if let Some(out) = links.and_then(|links| links.iter().rfind(|out| **out != link)) {
                return Ok(Way::Cluster(*out));
            }
        }
        here.map(Way::Holder)
    }

    fn has_dialled(&self, link: LinkId) -> bool {
        let attached = self.links.get(&link);
        attached.is_some_and(|attached| attached.relay.is_some())
    }

    /// Returns what the relay allows.
    #[must_use]
    pub const fn settings(&self) -> &RelaySettings {
        &self.settings
    }

    /// Returns all registrations by name, the latest holder of each last.
    pub fn registrations(&self) -> impl Iterator<Item = Registered<'_>> {
        self.names.iter().flat_map(|(name, holders)| {
            holders.iter().map(move |holder| Registered {
                name,
                member: holder.member,
                link: holder.link,
                expires: holder.expires,
            })
        })
    }

    /// Returns the links attached to members.
    pub fn attached(&self) -> impl Iterator<Item = (LinkId, Identifier)> {
        self.links.iter().map(|(link, attached)| (*link, attached.member))
    }

    /// Returns whether nobody holds a name.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Returns how many bytes may wait for one link, and for all links.
    pub(crate) const fn queue_limits(&self) -> (usize, usize) {
        (self.settings.queue_bytes_max, self.settings.held_bytes_max)
    }

    pub(crate) fn attach(&mut self, link: LinkId, member: Identifier) -> Result<(), MemberLinkError> {
        if self.rights(&member).is_none() && !self.is_of_cluster(&member) {
            return Err(MemberLinkError::NotAMember);
        }
        self.add(link, member, None)
    }

    /// Attaches the link to a relay that this node has dialled, under a name of this node's choice.
    pub(crate) fn attach_relay(
        &mut self,
        link: LinkId,
        member: Identifier,
        (name, reach): (&str, Vec<NamePattern>),
    ) -> Result<(), MemberLinkError> {
        if self.names.get(name).map_or(0, Vec::len) >= HOLDERS_PER_NAME_MAX {
            return Err(MemberLinkError::TooManyHolders);
        }
        let name: Box<str> = name.into();
        let relay = Dialled {
            name: name.clone(),
            reach,
        };
        self.add(link, member, Some(relay))?;
        if let Some(attached) = self.links.get_mut(&link) {
            attached.names.insert(name.clone());
        }
        self.names.entry(name).or_default().push(Holder {
            link,
            member,
            // The file names it: no registration elsewhere takes its place.
            since: Instant::from_nanos(u64::MAX),
            expires: None,
        });
        Ok(())
    }

    fn add(
        &mut self,
        link: LinkId,
        member: Identifier,
        relay: Option<Dialled>,
    ) -> Result<(), MemberLinkError> {
        let links = self.members.entry(member).or_default();
        let max = self.settings.links_per_member_max;
        if links.len() >= max && !links.contains(&link) {
            if links.is_empty() {
                self.members.remove(&member);
                self.granted.remove(&member);
            }
            return Err(MemberLinkError::TooManyLinks { max });
        }
        links.insert(link);
        self.links.insert(
            link,
            Attached {
                member,
                relay,
                names: BTreeSet::new(),
            },
        );
        Ok(())
    }

    /// Forgets a link and the names held over it.
    pub(crate) fn detach(&mut self, link: LinkId) {
        let Some(attached) = self.links.remove(&link) else {
            return;
        };
        for name in &attached.names {
            remove_holder(&mut self.names, name, link);
        }
        self.touch(attached.names);
        if let Some(links) = self.members.get_mut(&attached.member) {
            links.remove(&link);
            if links.is_empty() {
                self.members.remove(&attached.member);
                self.granted.remove(&attached.member);
            }
        }
    }

    /// Gives `member` these rights, in the place of those of the settings. Returns the links that lose what was forwarded
    /// over them because the rights changed; names that may not be held any more are gone already.
    pub(crate) fn grant(&mut self, member: Identifier, rights: MemberRights) -> Vec<LinkId> {
        if self.rights(&member) == Some(&rights) {
            return Vec::new();
        }
        let links: Vec<LinkId> = self.members.get(&member).into_iter().flatten().copied().collect();
        for link in &links {
            if let Some(attached) = self.links.get_mut(link) {
                let dropped = drop_names(&mut self.names, attached, *link, Some(&rights));
                self.touch(dropped);
            }
        }
        self.granted.insert(member, rights);
        links
    }

    /// Returns what `member` may do, `None` if it is no member.
    fn rights(&self, member: &Identifier) -> Option<&MemberRights> {
        self.granted
            .get(member)
            .or_else(|| self.settings.members.get(member))
    }

    /// Changes the policy. Returns the links whose member's rights changed, and whether the member is one still; names
    /// they may not hold any more are gone already.
    pub(crate) fn set_settings(&mut self, settings: RelaySettings) -> Vec<(LinkId, bool)> {
        let old = std::mem::replace(&mut self.settings, settings);
        let mut changed = Vec::new();
        let mut dropped = Vec::new();
        for (link, attached) in &mut self.links {
            let rights = self.settings.members.get(&attached.member);
            let cluster = self.cluster.as_ref();
            let is_of_cluster =
                cluster.is_some_and(|cluster| cluster.directory().has_relay(&attached.member));
            if self.granted.contains_key(&attached.member) || rights == old.members.get(&attached.member) {
                continue;
            }
            changed.push((
                *link,
                rights.is_some() || attached.relay.is_some() || is_of_cluster,
            ));
            dropped.extend(drop_names(&mut self.names, attached, *link, rights));
        }
        self.touch(dropped);
        changed
    }

    /// Returns whether first messages that come over `link`, attached to `member`, may go to `name`.
    pub(crate) fn may_reach(&self, link: LinkId, member: &Identifier, name: &str) -> bool {
        // What a relay of the cluster forwards it has judged itself.
        if self.is_of_cluster(member) {
            return true;
        }
        let of_member = self.rights(member).map(|rights| &rights.reach);
        let relay = self.links.get(&link).and_then(|attached| attached.relay.as_ref());
        let of_link = relay.map(|relay| &relay.reach);
        let mut patterns = of_member.into_iter().chain(of_link).flatten();
        patterns.any(|pattern| pattern.matches(name))
    }

    /// Returns the link that registered `name` last and is not `except`, the one the frame came from.
    ///
    /// # Errors
    /// Whether `except` itself holds the name.
    pub(crate) fn holder(&self, name: &str, now: Instant, except: LinkId) -> Result<LinkId, bool> {
        let holders = self.names.get(name).map(Vec::as_slice).unwrap_or_default();
        let mut living = holders
            .iter()
            .rev()
            .filter(|holder| holder.lives(now))
            .map(|holder| holder.link);
        let other = living.clone().find(|link| *link != except);
        other.ok_or_else(|| living.any(|link| link == except))
    }

    /// Takes a frame from the channel of `member` to the registrar and returns what to answer over it.
    pub(crate) fn handle_frame<'a>(
        &mut self,
        now: Instant,
        link: LinkId,
        frame: &RegistrarFrame<'a>,
    ) -> Option<RegistrarFrame<'a>> {
        match *frame {
            RegistrarFrame::Register { request, name } => Some(match self.register(now, link, name) {
                Ok(lease) => {
                    let lease_secs = u32::try_from(lease.as_secs()).unwrap_or(u32::MAX);
                    RegistrarFrame::Registered { request, lease_secs }
                }
                Err(reason) => RegistrarFrame::Refused { request, reason },
            }),
            RegistrarFrame::Unregister { name } => {
                if let Some(attached) = self.links.get_mut(&link)
                    && !attached.is_called(name)
                    && attached.names.remove(name)
                {
                    remove_holder(&mut self.names, name, link);
                    self.touch([name.into()]);
                }
                None
            }
            // Only relays send the first four.
            RegistrarFrame::Registered { .. }
            | RegistrarFrame::Refused { .. }
            | RegistrarFrame::Drain { .. }
            | RegistrarFrame::Observed { .. }
            // The node takes note of it.
            | RegistrarFrame::Stays { .. } => None,
        }
    }

    fn register(&mut self, now: Instant, link: LinkId, name: &str) -> Result<Duration, RefusedReason> {
        Address::Name(name).check().map_err(|_| RefusedReason::BadName)?;
        let member = self.links.get(&link).ok_or(RefusedReason::NotAuthorised)?.member;
        let rights = self.rights(&member).ok_or(RefusedReason::NotAuthorised)?;
        if !may_hold(rights, name) {
            return Err(RefusedReason::NotAuthorised);
        }
        let lease = self.settings.lease;
        let expires = now + lease;
        // A renewal, too: the cluster may have had no room for the name before.
        self.touch([name.into()]);
        let held = self
            .names
            .get_mut(name)
            .and_then(|holders| holders.iter_mut().find(|holder| holder.link == link));
        if let Some(holder) = held {
            // A renewal does not move the holder in front of those that came later, or the name would change hands at
            // every half lease.
            if holder.expires.is_some() {
                holder.expires = Some(expires);
            }
            return Ok(lease);
        }
        if self.is_draining {
            return Err(RefusedReason::Draining);
        }
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for other in self.members.get(&member).into_iter().flatten() {
            names.extend(
                self.links
                    .get(other)
                    .into_iter()
                    .flat_map(|attached| attached.names.iter().map(AsRef::as_ref)),
            );
        }
        if names.len() >= NAMES_PER_MEMBER_MAX && !names.contains(name) {
            return Err(RefusedReason::Limit);
        }
        let holders = self.names.get(name).map(Vec::as_slice).unwrap_or_default();
        if holders.len() >= HOLDERS_PER_NAME_MAX {
            // A member that reconnects before its old links were found dead takes the place of its oldest.
            let oldest = holders
                .iter()
                .find(|holder| holder.member == member && holder.expires.is_some())
                .ok_or(RefusedReason::Limit)?
                .link;
            self.remove_name(oldest, name);
        }
        self.names.entry(name.into()).or_default().push(Holder {
            link,
            member,
            since: now,
            expires: Some(expires),
        });
        if let Some(attached) = self.links.get_mut(&link) {
            attached.names.insert(name.into());
        }
        Ok(lease)
    }

    /// Drops the names that were not renewed.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<LeaseExpired> {
        let expired: Vec<LeaseExpired> = self
            .registrations()
            .filter(|registered| registered.expires.is_some_and(|expires| now >= expires))
            .map(|registered| LeaseExpired {
                name: registered.name.to_owned(),
                member: registered.member,
                link: registered.link,
            })
            .collect();
        for lease in &expired {
            self.remove_name(lease.link, &lease.name);
        }
        expired
    }

    fn remove_name(&mut self, link: LinkId, name: &str) {
        self.touch([name.into()]);
        remove_holder(&mut self.names, name, link);
        if let Some(attached) = self.links.get_mut(&link) {
            attached.names.remove(name);
        }
    }
}

/// Takes the names from a link that may not be held over it any more, and returns them.
fn drop_names(
    names: &mut BTreeMap<Box<str>, Vec<Holder>>,
    attached: &mut Attached,
    link: LinkId,
    rights: Option<&MemberRights>,
) -> Vec<Box<str>> {
    let mut dropped = Vec::new();
    let relay = attached.relay.as_ref();
    attached.names.retain(|name| {
        let is_called = relay.is_some_and(|relay| relay.name == *name);
        let stays = is_called || rights.is_some_and(|rights| may_hold(rights, name));
        if !stays {
            remove_holder(names, name, link);
            dropped.push(name.clone());
        }
        stays
    });
    dropped
}

fn may_hold(rights: &MemberRights, name: &str) -> bool {
    rights.names.iter().any(|pattern| pattern.matches(name))
}

fn remove_holder(names: &mut BTreeMap<Box<str>, Vec<Holder>>, name: &str, link: LinkId) {
    if let Some(holders) = names.get_mut(name) {
        holders.retain(|holder| holder.link != link);
        if holders.is_empty() {
            names.remove(name);
        }
    }
}
