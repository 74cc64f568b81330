//! Which member a link belongs to, and what that allows.

use super::{LinkId, LinkWriter, MemberLinkError, Router};
use crate::{
    identity::Identifier,
    relay::{
        Cluster, MemberRights, NamePattern, RefusedReason, RegistrarFrame, Relay, RelaySettings, StoreEvent,
        StoreWrite,
    },
    time::Instant,
};

impl Router {
    /// Takes the link for `member`'s from now on: its channel to the registrar came straight over the link
    /// ([`Router::is_direct`]), or this node's own channel to the neighbour's registrar did. Each success is undone by
    /// one [`Router::detach`].
    ///
    /// # Errors
    /// [`MemberLinkError`]: the link stays as it was.
    pub fn attach(&mut self, link: LinkId, member: Identifier) -> Result<(), MemberLinkError> {
        let state = self.links.get_mut(link.0).ok_or(MemberLinkError::Gone)?;
        let relay = self.relay.as_mut().ok_or(MemberLinkError::NotARelay)?;
        match state.member {
            Some(holder) if holder == member => {}
            Some(_) => return Err(MemberLinkError::OtherMember),
            None => {
                relay.attach(link, member)?;
                state.member = Some(member);
            }
        }
        state.attachments += 1;
        Ok(())
    }

    /// Takes the link for that of a relay that this node has dialled and whose registrar it has a channel to: from now on
    /// it forwards to it under `name`, and from it to the names of `reach`. Undone by one [`Router::detach`].
    ///
    /// # Errors
    /// [`MemberLinkError`]: the link stays as it was.
    pub fn attach_relay(
        &mut self,
        link: LinkId,
        member: Identifier,
        name: &str,
        reach: Vec<NamePattern>,
    ) -> Result<(), MemberLinkError> {
        let state = self.links.get_mut(link.0).ok_or(MemberLinkError::Gone)?;
        let relay = self.relay.as_mut().ok_or(MemberLinkError::NotARelay)?;
        if state.member.is_some() {
            return Err(MemberLinkError::OtherMember);
        }
        relay.attach_relay(link, member, (name, reach))?;
        state.member = Some(member);
        state.attachments += 1;
        Ok(())
    }

    /// Gives `member` these rights, in the place of those of the settings, until its last link is detached. If they differ
    /// from those it had, its links lose what was forwarded over them and begin anew.
    pub fn grant(
        &mut self,
        member: Identifier,
        rights: MemberRights,
        links: &mut (impl LinkWriter + ?Sized),
    ) {
        let changed = self.relay.as_mut().map(|relay| relay.grant(member, rights));
        for link in changed.into_iter().flatten() {
            self.cut(link, links);
        }
    }

    /// Undoes one [`Router::attach`]: the channel that vouched for the link was closed. With the last of them nothing
    /// is forwarded over the link any more; conversations with this node go on.
    pub fn detach(&mut self, link: LinkId, links: &mut (impl LinkWriter + ?Sized)) {
        let Some(state) = self.links.get_mut(link.0) else {
            return;
        };
        state.attachments = state.attachments.saturating_sub(1);
        if state.attachments == 0 {
            self.expel(link, links);
        }
    }

    /// Takes the link for nobody's.
    pub(super) fn expel(&mut self, link: LinkId, links: &mut (impl LinkWriter + ?Sized)) {
        self.cut(link, links);
        if let Some(relay) = &mut self.relay {
            relay.detach(link);
        }
        if let Some(state) = self.links.get_mut(link.0) {
            state.member = None;
            state.attachments = 0;
        }
    }

    /// Takes a frame that `member` sent to this relay's registrar in the channel that attached `link`, and returns what
    /// to answer in it.
    pub fn handle_registrar_frame<'a>(
        &mut self,
        now: Instant,
        link: LinkId,
        member: Identifier,
        frame: &RegistrarFrame<'a>,
    ) -> Option<RegistrarFrame<'a>> {
        if let Some(relay) = self.relay.as_mut()
            && self
                .links
                .get(link.0)
                .is_some_and(|state| state.member == Some(member))
        {
            return relay.handle_frame(now, link, frame);
        }
        match *frame {
            RegistrarFrame::Register { request, .. } => Some(RegistrarFrame::Refused {
                request,
                reason: RefusedReason::NotAuthorised,
            }),
            RegistrarFrame::Registered { .. }
            | RegistrarFrame::Refused { .. }
            | RegistrarFrame::Unregister { .. }
            | RegistrarFrame::Drain { .. }
            | RegistrarFrame::Observed { .. }
            | RegistrarFrame::Stays { .. } => None,
        }
    }

    /// Has a relay take no new names and no first messages for its members' names, or both again.
    pub fn set_draining(&mut self, draining: bool) {
        if let Some(relay) = &mut self.relay {
            relay.set_draining(draining);
        }
    }

    /// Changes the policy of a relay. Links of members that are gone, or whose rights changed, lose what was
    /// forwarded over them; members that stay begin anew under their new rights.
    pub fn set_relay(&mut self, settings: RelaySettings, links: &mut (impl LinkWriter + ?Sized)) {
        self.settings.relay = Some(settings.clone());
        let Some(relay) = &mut self.relay else {
            self.relay = Some(Relay::new(settings));
            return;
        };
        let changed = relay.set_settings(settings);
        for (link, stays) in changed {
            if stays {
                self.cut(link, links);
            } else {
                self.expel(link, links);
            }
        }
    }

    /// Takes part in a cluster from now on, if this node is a relay.
    pub fn join_cluster(&mut self, now: Instant, cluster: Cluster) {
        if let Some(relay) = &mut self.relay {
            relay.join(now, cluster);
        }
    }

    /// Takes what the store of the cluster has to say. Without a cluster nothing happens.
    pub fn handle_store(&mut self, now: Instant, event: &StoreEvent) {
        if let Some(cluster) = self.relay.as_mut().and_then(Relay::cluster_mut) {
            cluster.handle_event(now, event);
        }
    }

    /// Returns the next thing to do at the store of the cluster; ask until `None` at the end of each turn.
    pub fn poll_store_write(&mut self, now: Instant) -> Option<StoreWrite> {
        let relay = self.relay.as_mut()?;
        relay.tell_cluster(now);
        relay.cluster_mut()?.poll_write(now)
    }
}
