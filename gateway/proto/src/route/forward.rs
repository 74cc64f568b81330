//! What becomes of a frame that came over a link: delivered here, forwarded, or dropped.

#![warn(clippy::indexing_slicing)]

use super::{
    address::{Address, RouteRef},
    flow::{FlowId, flow_token},
    label::{Entry, Source, Target},
    received::{Candidate, DropReason, Received},
    router::{LinkId, LinkWriter, Router},
};
use crate::{
    link::{
        Class, Frame, FrameError, Label, RoutedHead, begin_data_offer, begin_routed, finish_frame, put_data,
    },
    relay::{NoWay, Way},
    time::Instant,
};

impl Router {
    /// Decides what becomes of a routing frame that came over `link`, and forwards it if that is the decision.
    ///
    /// Forwarding a Data frame is one look-up by index and one copy into the outgoing buffer; nothing is allocated but
    /// what that buffer needs to grow.
    pub fn handle_frame<'f>(
        &mut self,
        now: Instant,
        link: LinkId,
        frame: Frame<'f>,
        links: &mut (impl LinkWriter + ?Sized),
    ) -> Received<'f> {
        let result = match frame {
            Frame::Data {
                class,
                label,
                payload,
            } => self.handle_data(now, link, class, label, payload, links),
            Frame::DataOffer {
                class,
                label,
                offered,
                payload,
            } => self.handle_data_offer(now, link, class, (label, offered), payload, links),
            Frame::Routed { class, head, payload } => {
                self.handle_routed(now, link, class, head, payload, links)
            }
            Frame::LabelGone(label) => Ok(self.handle_label_gone(link, label, links)),
            Frame::Hello(_) | Frame::Ping(_) | Frame::Pong(_) => Err(DropReason::NotRouting),
        };
        match result {
            Ok(received) => {
                if let Received::Local { .. } | Received::Candidate { .. } = received {
                    self.stats.frames_local += 1;
                }
                received
            }
            Err(reason) => {
                self.stats.count_drop(reason);
                Received::Dropped(reason)
            }
        }
    }

    fn handle_data<'f>(
        &mut self,
        now: Instant,
        link: LinkId,
        class: Class,
        label: Label,
        payload: &'f mut [u8],
        links: &mut (impl LinkWriter + ?Sized),
    ) -> Result<Received<'f>, DropReason> {
        match self.use_label(now, link, label, links)? {
            Target::Forward { link: out, label } => {
                self.put(out, class, payload.len(), links, |buffer, len_max| {
                    put_data(buffer, class, label, payload, len_max)
                })?;
                Ok(self.forwarded(link, out, class, payload.len()))
            }
            Target::Flow(flow) => {
                self.flow_received_data(now, flow);
                Ok(local(flow, class, payload))
            }
        }
    }

    fn handle_data_offer<'f>(
        &mut self,
        now: Instant,
        link: LinkId,
        class: Class,
        (label, offered): (Label, Label),
        payload: &'f mut [u8],
        links: &mut (impl LinkWriter + ?Sized),
    ) -> Result<Received<'f>, DropReason> {
        let (out, out_label) = match self.use_label(now, link, label, links)? {
            Target::Forward { link: out, label } => (out, label),
            Target::Flow(flow) if self.flow_received_offer(now, flow, offered) => {
                return Ok(local(flow, class, payload));
            }
            Target::Flow(_) => return Err(DropReason::OfferReused),
        };
        let back = self.back_label(now, (link, label), out, offered)?;
        self.put(out, class, payload.len(), links, |buffer, len_max| match back {
            Some(back) => {
                let mark = begin_data_offer(buffer, class, out_label, back);
                buffer.extend_from_slice(payload);
                finish_frame(buffer, mark, len_max)
            }
            None => put_data(buffer, class, out_label, payload, len_max),
        })?;
        Ok(self.forwarded(link, out, class, payload.len()))
    }

    /// Returns the label this relay offers on `out` for the way back of a conversation, `None` if there is none left.
    fn back_label(
        &mut self,
        now: Instant,
        (link, label): (LinkId, Label),
        out: LinkId,
        offered: Label,
    ) -> Result<Option<Label>, DropReason> {
        let back_target = Target::Forward { link, label: offered };
        let pair = self
            .links
            .get(link.0)
            .and_then(|state| state.labels.get(label))
            .and_then(|entry| entry.pair);
        if let Some(pair) = pair {
            let known = self.links.get(out.0).and_then(|state| state.labels.get(pair));
            return if known.is_some_and(|known| known.target == back_target) {
                Ok(Some(pair))
            } else {
                Err(DropReason::OfferReused)
            };
        }
        if self
            .links
            .get(link.0)
            .is_some_and(|state| state.labels.source(offered).is_some())
        {
            return Err(DropReason::OfferReused);
        }
        let entry = Entry {
            target: back_target,
            pair: Some(label),
            last_used: now,
        };
        let Some(back) = self.choose_label(out, entry) else {
            return Ok(None);
        };
        let claimed = self.links.get_mut(link.0).is_some_and(|state| {
            let claimed = state.labels.claim(
                offered,
                Source::Label {
                    link: out,
                    label: back,
                },
            );
            if claimed && let Some(entry) = state.labels.get_mut(label) {
                entry.pair = Some(back);
            }
            claimed
        });
        let Some(state) = self.links.get_mut(out.0) else {
            return Err(DropReason::LinkGone);
        };
        if claimed {
            state.incomplete -= 1;
            return Ok(Some(back));
        }
        self.label_count -= usize::from(state.labels.remove(back).is_some());
        self.stats.labels_refused += 1;
        Ok(None)
    }

    fn handle_label_gone(
        &mut self,
        link: LinkId,
        label: Label,
        links: &mut (impl LinkWriter + ?Sized),
    ) -> Received<'static> {
        let source = self
            .links
            .get(link.0)
            .and_then(|state| state.labels.source(label));
        match source {
            Some(Source::Label {
                link: source,
                label: ours,
            }) => {
                self.remove_label(source, ours);
                self.tell_gone(source, ours, links);
            }
            Some(Source::Flow(flow)) => self.lose_flow(flow, super::FlowLost::LabelGone),
            None => {}
        }
        Received::Consumed
    }

    fn handle_routed<'f>(
        &mut self,
        now: Instant,
        link: LinkId,
        class: Class,
        head: RoutedHead<'f>,
        payload: &'f mut [u8],
        links: &mut (impl LinkWriter + ?Sized),
    ) -> Result<Received<'f>, DropReason> {
        let (first, rest) = head.onward.split_first().ok_or(DropReason::NoDestination)?;
        if let Address::Service(service) = first {
            if !rest.is_empty() {
                return Err(DropReason::BehindService);
            }
            return self.handle_routed_here(now, link, class, service, &head, payload);
        }
        let source = self.links.get(link.0).ok_or(DropReason::StaleLink)?;
        let source_address = source.address;
        let relay = self.relay.as_ref().ok_or(DropReason::NotARelay)?;
        let member = source.member.ok_or(DropReason::Unattached)?;
        if head.onward.duplicate().is_some()
            || head.return_route.duplicate().is_some()
            || head.return_route.contains_link(source_address)
        {
            return Err(DropReason::Loop);
        }
        let (out, answer, onward) = match first {
            Address::Name(name) => {
                if head.offered.is_some() {
                    return Err(DropReason::OfferUnasked);
                }
                if !relay.may_reach(link, &member, name) {
                    return Err(DropReason::NotAllowed);
                }
                let way = relay.way(now, name, (link, &member));
                match way.map_err(|none| match none {
                    NoWay::Own => DropReason::Loop,
                    NoWay::Nobody => DropReason::UnknownName,
                    NoWay::Draining => DropReason::Draining,
                })? {
                    Way::Holder(out) => (out, false, rest),
                    // The other relay looks the same name up.
                    Way::Cluster(out) => (out, false, head.onward),
                }
            }
            Address::Link(address) => {
                let out = *self
                    .by_address
                    .get(&address)
                    .ok_or(DropReason::UnknownLinkAddress)?;
                if out == link {
                    return Err(DropReason::Loop);
                }
                let to = self.links.get(out.0).and_then(|state| state.member);
                let to = to.ok_or(DropReason::Unattached)?;
                // Between relays of a cluster every way has one step.
                if relay.is_of_cluster(&member) && relay.is_of_cluster(&to) {
                    return Err(DropReason::Loop);
                }
                // Whoever was contacted once knows the way back; it must not serve to begin conversations.
                if !ends_in_flow(&rest) {
                    return Err(DropReason::NotAnAnswer);
                }
                (out, true, rest)
            }
            Address::Service(_) => return Err(DropReason::BehindService),
        };
        let hop_limit = head.hop_limit.decrement().ok_or(DropReason::HopLimit)?;
        if head.return_route.len() >= super::ADDRESSES_MAX {
            return Err(DropReason::RouteFull);
        }
        let offered = match head.offered {
            Some(offered) if answer => self.forward_label(now, (link, offered), out)?,
            _ => None,
        };
        // Rewriting happens once per conversation, so the new return route may take a buffer of its own.
        let mut return_route = Vec::new();
        head.return_route.put_behind(source_address, &mut return_route);
        let mut reader = crate::wire::Reader::new(&return_route);
        let return_route = RouteRef::read(&mut reader).map_err(|_| DropReason::RouteFull)?;
        let head = RoutedHead {
            hop_limit,
            offered,
            onward,
            return_route,
        };
        self.put(out, class, payload.len(), links, |buffer, len_max| {
            let mark = begin_routed(buffer, class, &head);
            buffer.extend_from_slice(payload);
            finish_frame(buffer, mark, len_max)
        })?;
        Ok(self.forwarded(link, out, class, payload.len()))
    }

    /// Returns the label this relay offers on `out` in place of the one its neighbour on `link` offered, `None` if
    /// there is none left.
    fn forward_label(
        &mut self,
        now: Instant,
        (link, offered): (LinkId, Label),
        out: LinkId,
    ) -> Result<Option<Label>, DropReason> {
        let state = self.links.get(link.0).ok_or(DropReason::StaleLink)?;
        match state.labels.source(offered) {
            // A repeated answer: the initiator gets the label it got before.
            Some(Source::Label { link: source, label }) if source == out => {
                if let Some(entry) = self
                    .links
                    .get_mut(out.0)
                    .and_then(|state| state.labels.get_mut(label))
                {
                    entry.last_used = now;
                }
                return Ok(Some(label));
            }
            Some(_) => return Err(DropReason::OfferReused),
            None => {}
        }
        if state.incomplete >= INCOMPLETE_PER_LINK_MAX {
            self.stats.labels_refused += 1;
            return Ok(None);
        }
        let target = Target::Forward { link, label: offered };
        let Some(label) = self.choose_label(
            out,
            Entry {
                target,
                pair: None,
                last_used: now,
            },
        ) else {
            return Ok(None);
        };
        let state = self.links.get_mut(link.0).ok_or(DropReason::StaleLink)?;
        if state.labels.claim(offered, Source::Label { link: out, label }) {
            state.incomplete += 1;
            return Ok(Some(label));
        }
        // The table of the neighbour's labels is full.
        if let Some(state) = self.links.get_mut(out.0) {
            self.label_count -= usize::from(state.labels.remove(label).is_some());
        }
        self.stats.labels_refused += 1;
        Ok(None)
    }

    /// A Routed frame whose destination is this node.
    fn handle_routed_here<'f>(
        &mut self,
        now: Instant,
        link: LinkId,
        class: Class,
        service: &'f str,
        head: &RoutedHead<'f>,
        payload: &'f mut [u8],
    ) -> Result<Received<'f>, DropReason> {
        let state = self.links.get(link.0).ok_or(DropReason::StaleLink)?;
        if flow_token(service).is_some() {
            let flow = self
                .flows
                .answered(service, link)
                .ok_or(DropReason::UnknownFlow)?;
            self.flow_received_routed(now, flow, head.offered);
            return Ok(local(flow, class, payload));
        }
        if !self.settings.services.contains(service) {
            return Err(DropReason::UnknownService);
        }
        if head.offered.is_some() {
            return Err(DropReason::OfferUnasked);
        }
        if !ends_in_flow(&head.return_route) {
            return Err(DropReason::NoWayBack);
        }
        if let Some(flow) = state.by_return.get(head.return_route.encoded()).copied() {
            self.flow_received_routed(now, flow, None);
            return Ok(local(flow, class, payload));
        }
        let candidate = Candidate {
            link,
            link_address: state.address,
            service,
            class,
            return_route: head.return_route,
        };
        Ok(Received::Candidate { candidate, payload })
    }

    /// Looks up a label this node chose on `link`; an unknown one is answered by `LabelGone`.
    fn use_label(
        &mut self,
        now: Instant,
        link: LinkId,
        label: Label,
        links: &mut (impl LinkWriter + ?Sized),
    ) -> Result<Target, DropReason> {
        let state = self.links.get_mut(link.0).ok_or(DropReason::StaleLink)?;
        if let Some(entry) = state.labels.get_mut(label) {
            entry.last_used = now;
            return Ok(entry.target);
        }
        if state.gone.allows(now) {
            self.tell_gone(link, label, links);
        } else {
            self.stats.label_gone_suppressed += 1;
        }
        Err(DropReason::UnknownLabel)
    }

    /// Writes a frame for `out` into its send buffer, or, if much waits there already, into its queue for the class.
    fn put(
        &mut self,
        out: LinkId,
        class: Class,
        payload_len: usize,
        links: &mut (impl LinkWriter + ?Sized),
        write: impl FnOnce(&mut Vec<u8>, usize) -> Result<(), FrameError>,
    ) -> Result<(), DropReason> {
        let state = self.links.get_mut(out.0).ok_or(DropReason::LinkGone)?;
        if state.queue.is_empty() && links.queued_bytes(out) < self.settings.link_bytes_max {
            let buffer = links.buffer(out).ok_or(DropReason::LinkGone)?;
            return write(buffer, state.frame_len_max).map_err(|_| DropReason::TooLong);
        }
        let (queue_max, held_max) = self.relay.as_ref().map_or((0, 0), |relay| relay.queue_limits());
        if !state.queue.admits(class, payload_len, queue_max)
            || self.held_bytes.saturating_add(payload_len) > held_max
        {
            return Err(DropReason::congested(class));
        }
        let frame_len_max = state.frame_len_max;
        let written = state.queue.append(class, |buffer| write(buffer, frame_len_max));
        self.held_bytes += written.map_err(|_| DropReason::TooLong)?;
        self.congested.insert(out);
        Ok(())
    }

    fn forwarded(
        &mut self,
        link: LinkId,
        out: LinkId,
        class: Class,
        payload_len: usize,
    ) -> Received<'static> {
        if let Some(count) = self.stats.frames_forwarded.get_mut(usize::from(class.bits())) {
            *count += 1;
        }
        self.stats.bytes_forwarded += payload_len as u64;
        if let Some(state) = self.links.get_mut(link.0) {
            state.traffic.frames_in += 1;
            state.traffic.bytes_in += payload_len as u64;
        }
        if let Some(state) = self.links.get_mut(out.0) {
            state.traffic.frames_out += 1;
            state.traffic.bytes_out += payload_len as u64;
        }
        Received::Forwarded { link: out }
    }
}

/// An empty payload only keeps the labels in use.
const fn local(flow: FlowId, class: Class, payload: &mut [u8]) -> Received<'_> {
    if payload.is_empty() {
        Received::Consumed
    } else {
        Received::Local { flow, class, payload }
    }
}

/// Returns whether a route ends in a conversation, as every way back does.
fn ends_in_flow(route: &RouteRef<'_>) -> bool {
    matches!(route.last(), Some(Address::Service(service)) if flow_token(service).is_some())
}

/// Offers of one neighbour that nobody took up yet: a neighbour cannot fill the tables of others with offers.
pub(super) const INCOMPLETE_PER_LINK_MAX: usize = 1_024;
