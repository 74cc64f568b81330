//! The list of the revoked: who has which, and passing it on (PROTOCOL.md §11).
//!
//! A list goes to a channel one part at a time, and only while its link has room. After the last part the peer is told which
//! list is held here: if parts were lost, it says that it has an older one still, and gets the list again, slower each time.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{
    channel::ChannelId,
    identity::Identifier,
    node::{Event, Links, Node, Output, Wire},
    route::LinkWriter as _,
    time::{Instant, Now},
    trust::{
        Assembler, Freshness, PART_LEN_MAX, StatusList, StatusPart, Trust, TrustError, TrustFrame,
        status_parts,
    },
};

/// What all channels share.
#[derive(Debug, Default)]
pub(in crate::node) struct Lists {
    /// Parts of lists on their way here.
    assembler: Assembler<ChannelId>,
    /// Channels that the newest list goes to, and when its next part is due.
    sending: BTreeSet<(Instant, ChannelId)>,
    freshness: Option<Freshness>,
    /// Whether the list named this node when that was looked at last.
    self_revoked: bool,
    /// At the authority itself: the numbers of the lists it knows to have signed.
    issued: Option<BTreeSet<u64>>,
    /// Nobody is sent a list before then: the authority has just learned of somebody whom the one held does not name.
    withheld_until: Option<Instant>,
}

/// What is known of the list that the peer of a channel has.
#[derive(Debug, Default)]
pub(super) struct PeerList {
    /// The number it has, by what it said or was sent; `None` until it says that it trusts the same authority.
    has: Option<u64>,
    /// The newest list as far as it is being sent: when the next part is due, and which.
    sending: Option<(Instant, usize)>,
    /// When a list was sent to it completely, its number, and how often.
    sent: Option<(Instant, u64, u32)>,
    /// When it was told which list is held here.
    told: Option<Instant>,
    /// When this authority asked it for a list that it has forgotten.
    asked: Option<Instant>,
    /// Nothing is said about what it sends before then.
    complaint_at: Option<Instant>,
}

impl PeerList {
    /// Returns how often the list was sent already, and when it may be sent again.
    fn tries(&self, number: u64) -> (u32, Option<Instant>) {
        match self.sent {
            Some((at, sent, tries)) if sent == number => (tries, Some(at + pause(LIST_EVERY, tries - 1))),
            Some((at, ..)) => (0, Some(at + LIST_EVERY)),
            None => (0, None),
        }
    }
}

/// Returns `first` doubled so many times, up to a bound.
fn pause(first: Duration, doublings: u32) -> Duration {
    first.saturating_mul(1 << doublings.min(DOUBLINGS_MAX))
}

impl Lists {
    /// Returns when a part of a list is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.sending.first().map(|(due, _)| *due)
    }

    /// Returns how many channels wait for parts, and the bytes of lists that are not complete.
    #[cfg(test)]
    pub(in crate::node) fn held(&self) -> (usize, usize) {
        (self.sending.len(), self.assembler.held_bytes())
    }

    /// Returns whether this is the authority, and has forgotten that it signed a list: what it holds was set back to a time before
    /// that. Numbers below all that are remembered are too long ago to matter.
    fn is_forgotten(&self, number: u64) -> bool {
        let Some(issued) = &self.issued else { return false };
        number > issued.first().copied().unwrap_or(0) && !issued.contains(&number)
    }

    /// Takes note of whether the list names this node; returns whether that is otherwise than before.
    pub(super) const fn note_self_revoked(&mut self, revoked: bool) -> bool {
        std::mem::replace(&mut self.self_revoked, revoked) != revoked
    }

    /// Takes note of how fresh the list is; returns whether that is another than before.
    pub(super) fn note_freshness(&mut self, freshness: Freshness) -> bool {
        self.freshness.replace(freshness) != Some(freshness)
    }
}

impl Node {
    /// Tells the peer of a channel which list is held here.
    pub(super) fn say_have(&mut self, now: Now, channel: ChannelId, wire: &mut dyn Wire) {
        let Some(have) = self.trust.as_ref().and_then(Trust::status_have) else {
            return;
        };
        if let Some(known) = self.known.get_mut(&channel) {
            known.dealings.list.told = Some(now.instant);
        }
        let mut frames = Vec::new();
        have.put(&mut frames);
        self.send_frames(now, channel, &frames, wire);
    }

    /// Repeats it in channels where it was said long ago: frames can be lost.
    pub(super) fn say_have_again(&mut self, now: Now, wire: &mut dyn Wire) {
        let due = self.known.iter().filter(|(_, known)| {
            let told = known.dealings.list.told;
            known.admitted && told.is_some_and(|told| now.instant - told >= HAVE_EVERY)
        });
        let due: Vec<ChannelId> = due.map(|(channel, _)| *channel).take(HAVE_AT_ONCE).collect();
        for channel in due {
            self.say_have(now, channel, wire);
        }
    }

    /// Takes the peer's word for which list it has.
    pub(super) fn status_have(
        &mut self,
        now: Now,
        channel: ChannelId,
        (authority, number): (Identifier, u64),
        wire: &mut dyn Wire,
    ) {
        let trust = self.trust.as_ref();
        let Some(trust) = trust.filter(|trust| trust.authority() == Some(authority)) else {
            return;
        };
        let held = trust.status().map_or(0, StatusList::number);
        let Some(known) = self.known.get_mut(&channel) else {
            return;
        };
        let list = &mut known.dealings.list;
        // What it says it has counts, even if it is less than before: it may have lost its disk, or what was sent to it.
        list.has = Some(number);
        if !known.admitted {
            return;
        }
        let list = &known.dealings.list;
        if number > held && list.told.is_none_or(|told| now.instant - told >= LIST_EVERY) {
            // It does not know, or it would have sent its list.
            self.say_have(now, channel, wire);
        }
        self.offer_list(now, channel, wire);
    }

    /// Asks the peer of a channel for the list it has, by saying that there is none here.
    fn ask_list(&mut self, now: Now, channel: ChannelId, wire: &mut dyn Wire) {
        let (Some(authority), Some(known)) = (
            self.trust.as_ref().and_then(Trust::authority),
            self.known.get_mut(&channel),
        ) else {
            return;
        };
        let asked = &mut known.dealings.list.asked;
        if asked.is_some_and(|asked| now.instant - asked < LIST_EVERY) {
            return;
        }
        *asked = Some(now.instant);
        let mut frames = Vec::new();
        TrustFrame::StatusHave { authority, number: 0 }.put(&mut frames);
        self.send_frames(now, channel, &frames, wire);
    }

    /// Takes a part of a list; false if it is bad.
    pub(super) fn status_part(
        &mut self,
        now: Now,
        channel: ChannelId,
        part: StatusPart<'_>,
        wire: &mut dyn Wire,
    ) -> bool {
        let Some(trust) = &self.trust else { return true };
        let Some(known) = self.known.get_mut(&channel) else {
            return false;
        };
        let forgotten = self.lists.is_forgotten(part.number);
        match trust.check_offer(part.authority, part.number) {
            Err(TrustError::RolledBack { .. }) if forgotten => {}
            Ok(newer) => {
                let has = &mut known.dealings.list.has;
                *has = Some(has.unwrap_or(0).max(part.number));
                if !newer {
                    return true;
                }
            }
            // Another authority's is no fault of the peer's, and of no use here.
            Err(TrustError::Foreign { .. } | TrustError::NoAuthority) => return true,
            Err(error) => {
                self.list_refused(now, channel, error);
                return false;
            }
        }
        // Room for lists is scarce. Strangers are listened to only while nobody else brings word: a node whose list has ended
        // knows nobody but strangers, in the end.
        let has_word = matches!(trust.freshness(now.wall), Freshness::Fresh { .. });
        if has_word && self.accesses.is_guest(channel) || known.dealings.is_distrusted(now.instant) {
            return false;
        }
        match self.lists.assembler.handle_part(channel, part) {
            Ok(None) => true,
            Ok(Some(list)) if forgotten => self.take_forgotten(now, channel, &list, wire),
            Ok(Some(list)) => match self.take_status(now, &list, wire) {
                Ok(()) => true,
                Err(error) => {
                    // One that was overtaken on its way is nobody's fault.
                    if !matches!(error, TrustError::RolledBack { .. }) {
                        self.distrust(now.instant, channel);
                    }
                    self.list_refused(now, channel, error);
                    false
                }
            },
            Err(_) => false,
        }
    }

    /// Takes a list that this authority has signed and forgotten; false if it is none.
    fn take_forgotten(&mut self, now: Now, channel: ChannelId, bytes: &[u8], wire: &mut dyn Wire) -> bool {
        let Some(trust) = &mut self.trust else {
            return false;
        };
        let list = match trust.verify_status(now.wall, bytes) {
            Ok(list) => list,
            Err(error) => {
                self.distrust(now.instant, channel);
                self.list_refused(now, channel, error);
                return false;
            }
        };
        let held = trust.status();
        let is_newer = held.is_none_or(|held| held.number() < list.number());
        let names_more = held.is_none_or(|held| !list.revoked_since(Some(held)).is_empty());
        self.settle_trust();
        if let Some(issued) = &mut self.lists.issued {
            issued.insert(list.number());
        }
        if is_newer {
            // It counts here at once, and the one that the authority will sign has a higher number. One that is signed for an
            // identity key of before cannot replace what is held; those it names are taken over all the same.
            drop(self.take_status(now, bytes, wire));
        }
        self.outputs.push_back(Output::Forgotten(Arc::new(list)));
        if !is_newer && names_more {
            self.lists.withheld_until = Some(now.instant + WITHHELD);
        } else {
            self.offer_list(now, channel, wire);
        }
        true
    }

    /// Has this node, the authority, know which lists it has signed: the numbers of the newest ones. Whoever has another list is
    /// asked for it, and [`Output::Forgotten`] tells.
    pub fn set_issued_lists(&mut self, numbers: &[u64]) {
        self.lists.issued = Some(numbers.iter().copied().collect());
    }

    fn list_refused(&mut self, now: Now, channel: ChannelId, error: TrustError) {
        self.stats.lists_refused += 1;
        let Some(known) = self.known.get_mut(&channel) else {
            return;
        };
        let complaint_at = &mut known.dealings.list.complaint_at;
        if complaint_at.is_none_or(|at| now.instant >= at) {
            *complaint_at = Some(now.instant + COMPLAIN_EVERY);
            let peer = known.peer;
            self.event(Event::ListRefused { peer, error });
        }
    }

    /// Takes the list that this node, the authority, has signed. If it holds a newer one, the authority is told.
    ///
    /// # Errors
    /// [`TrustError`] if it is not one.
    pub fn publish_status(&mut self, now: Now, list: &[u8], wire: &mut dyn Wire) -> Result<(), TrustError> {
        self.lists.withheld_until = None;
        self.next_list_push = now.instant;
        match self.take_status(now, list, wire) {
            Err(TrustError::RolledBack { .. }) if self.lists.issued.is_some() => {
                let held = self.trust.as_ref().and_then(Trust::status).cloned();
                self.outputs
                    .extend(held.map(|held| Output::Forgotten(Arc::new(held))));
                Ok(())
            }
            result => result,
        }
    }

    /// Takes a list of the revoked: closes the channels of those it names, and passes it on.
    fn take_status(&mut self, now: Now, list: &[u8], wire: &mut dyn Wire) -> Result<(), TrustError> {
        let Some(trust) = &mut self.trust else {
            return Ok(());
        };
        let taken = trust.take_status(now.wall, list)?;
        if !taken.newer {
            return Ok(());
        }
        let revoked: Vec<(ChannelId, Identifier)> = self
            .known
            .iter()
            .filter(|(_, known)| trust.is_revoked(&known.peer))
            .map(|(channel, known)| (*channel, known.peer))
            .collect();
        self.settle_trust();
        self.event(Event::ListTaken {
            number: taken.number,
            newly_revoked: taken.revoked.len(),
        });
        for (channel, peer) in revoked {
            // From now on it is sent nothing but the news that its channel ends.
            if let Some(known) = self.known.get_mut(&channel) {
                known.admitted = false;
            }
            self.end_revoked(channel, peer);
        }
        let admitted: Vec<(ChannelId, Option<u64>)> = self
            .known
            .iter()
            .filter(|(_, known)| known.admitted)
            .map(|(channel, known)| (*channel, known.dealings.list.has))
            .collect();
        for (channel, has) in admitted {
            // A list half sent is of no use any more.
            self.forget_sending(channel);
            match has {
                Some(has) if has < taken.number => self.queue_list(now, channel),
                // It stops wondering whether it arrived.
                Some(_) => self.say_have(now, channel, wire),
                None => {}
            }
        }
        self.push_lists(now, wire);
        Ok(())
    }

    /// Sends the newest list to the peer of a channel if it has an older one.
    pub(in crate::node) fn offer_list(&mut self, now: Now, channel: ChannelId, wire: &mut dyn Wire) {
        let has = self.known.get(&channel).and_then(|known| known.dealings.list.has);
        if has.is_some_and(|has| self.lists.is_forgotten(has)) {
            // Its own comes first: what is held here may not name whom that names.
            self.forget_sending(channel);
            self.ask_list(now, channel, wire);
            return;
        }
        self.queue_list(now, channel);
        if self.lists.poll_timeout().is_some_and(|due| due <= now.instant) {
            self.push_lists(now, wire);
        }
    }

    /// Has the newest list sent to a channel whose peer has an older one, unless it is on its way.
    fn queue_list(&mut self, now: Now, channel: ChannelId) {
        let held = self
            .trust
            .as_ref()
            .and_then(Trust::status)
            .map_or(0, StatusList::number);
        let Some(known) = self.known.get_mut(&channel).filter(|known| known.admitted) else {
            return;
        };
        let list = &mut known.dealings.list;
        let behind = list
            .has
            .is_some_and(|has| has < held && !self.lists.is_forgotten(has));
        // Guests too: a member whose list has ended comes as a stranger, and cannot use another credential without a list.
        if !behind || list.sending.is_some() {
            return;
        }
        let (_, not_before) = list.tries(held);
        let due = not_before.map_or(now.instant, |at| at.max(now.instant));
        list.sending = Some((due, 0));
        self.lists.sending.insert((due, channel));
    }

    /// Sends parts of the newest list to channels that wait for it, as far as their links have room.
    pub(super) fn push_lists(&mut self, now: Now, wire: &mut dyn Wire) {
        let held = self.trust.as_ref().and_then(|trust| {
            let number = trust.status().map(StatusList::number)?;
            Some((trust.authority()?, number, trust.status_encoded()?))
        });
        let Some((authority, number, bytes)) = held else {
            return;
        };
        if let Some(until) = self.lists.withheld_until.filter(|until| now.instant < *until) {
            self.next_list_push = until;
            return;
        }
        let parts = bytes.len().div_ceil(PART_LEN_MAX);
        let mut room = PUSH_BYTES_MAX;
        for _ in 0..PUSH_CHANNELS_MAX {
            let Some((due, channel)) = self.lists.sending.first().copied() else {
                return;
            };
            if due > now.instant || room == 0 {
                break;
            }
            self.lists.sending.pop_first();
            let has_room = self.has_room_for_part(channel, wire);
            let Some(known) = self.known.get_mut(&channel) else {
                continue;
            };
            let list = &mut known.dealings.list;
            let Some((_, part)) = list.sending.take() else {
                continue;
            };
            if list.has.is_some_and(|has| has >= number) {
                continue;
            }
            if !has_room {
                let due = now.instant + ROOM_AGAIN;
                list.sending = Some((due, part));
                self.lists.sending.insert((due, channel));
                continue;
            }
            let (tries, _) = list.tries(number);
            let last = part + 1 >= parts;
            if last {
                list.has = Some(number);
                list.sent = Some((now.instant, number, tries + 1));
            } else {
                let wait = if tries == 0 {
                    Duration::ZERO
                } else {
                    pause(PART_EVERY, tries)
                };
                let due = now.instant + wait;
                list.sending = Some((due, part + 1));
                self.lists.sending.insert((due, channel));
            }
            let mut frames = Vec::new();
            if let Some(part) = status_parts(authority, number, &bytes).nth(part) {
                part.put(&mut frames);
            }
            room = room.saturating_sub(frames.len());
            self.send_frames(now, channel, &frames, wire);
            if last {
                self.say_have(now, channel, wire);
            }
        }
        self.next_list_push = now.instant + PUSH_EVERY;
    }

    fn has_room_for_part(&mut self, channel: ChannelId, wire: &mut dyn Wire) -> bool {
        let flow = self.by_channel.get(&channel).map(|entry| entry.flow);
        let link = flow.and_then(|flow| self.router.link_of(flow));
        let links = Links {
            connection_of: &self.connection_of,
            carried: &mut self.carried,
            wire,
        };
        link.is_some_and(|link| links.queued_bytes(link) <= LINK_BYTES_MAX)
    }

    fn forget_sending(&mut self, channel: ChannelId) {
        if let Some(known) = self.known.get_mut(&channel)
            && let Some((due, _)) = known.dealings.list.sending.take()
        {
            self.lists.sending.remove(&(due, channel));
        }
    }

    /// Forgets what was on its way from and to a channel that is no more.
    pub(in crate::node) fn forget_lists(&mut self, channel: ChannelId) {
        self.forget_sending(channel);
        self.lists.assembler.forget(channel);
    }
}

/// How often parts are sent while there are channels that wait for them.
const PUSH_EVERY: Duration = Duration::from_millis(5);
/// Bytes of lists sent at a time, and a part more.
const PUSH_BYTES_MAX: usize = 256 << 10;
/// Channels looked at for that.
const PUSH_CHANNELS_MAX: usize = 1_024;
/// How long an authority has to sign a list that names whom it had forgotten.
const WITHHELD: Duration = Duration::from_secs(10);
/// How often one channel is sent a list, at first; longer each time the same list is sent again.
const LIST_EVERY: Duration = Duration::from_secs(1);
/// Time between the parts of a list that was sent before and did not arrive, at first.
const PART_EVERY: Duration = Duration::from_millis(10);
/// How often either is doubled: to 64 s, and 0.64 s.
const DOUBLINGS_MAX: u32 = 6;
/// Bytes queued on a link above which lists wait.
const LINK_BYTES_MAX: usize = 256 << 10;
/// When such a link is looked at again.
const ROOM_AGAIN: Duration = Duration::from_millis(50);
/// How often a peer is told which list is held here, though nothing has changed.
const HAVE_EVERY: Duration = Duration::from_secs(300);
/// Channels in which that is said at a time.
const HAVE_AT_ONCE: usize = 1_024;
/// How often it is said of one channel that its lists are refused.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);
