//! What time and lost links do to labels and queues.

use std::collections::BTreeSet;

use super::{INCOMPLETE_LIFETIME, LinkId, LinkWriter, Output, Router, SWEEP_INTERVAL, UNUSED_LIFETIME};
use crate::{
    link::{Label, put_label_gone},
    relay::Relay,
    route::label::{Source, Target},
    time::Instant,
};

impl Router {
    /// Moves what waits for congested links into their buffers as far as there is room, alarms first. Call it once per
    /// turn of the event loop; it costs nothing while no link is congested.
    pub fn flush(&mut self, links: &mut (impl LinkWriter + ?Sized)) {
        let mut next = self.congested.first().copied();
        while let Some(link) = next {
            next = self
                .congested
                .range((std::ops::Bound::Excluded(link), std::ops::Bound::Unbounded))
                .next()
                .copied();
            let Some(state) = self.links.get_mut(link.0) else {
                continue;
            };
            let room = self
                .settings
                .link_bytes_max
                .saturating_sub(links.queued_bytes(link));
            let Some(buffer) = links.buffer(link) else {
                continue;
            };
            self.held_bytes -= state.queue.drain(buffer, room);
            if state.queue.is_empty() {
                self.congested.remove(&link);
            }
        }
    }

    /// Drops what was not used or not completed in time, and keeps this node's own conversations in use.
    pub fn handle_timeout(&mut self, now: Instant, links: &mut (impl LinkWriter + ?Sized)) {
        if let Some(cluster) = self.relay.as_mut().and_then(Relay::cluster_mut) {
            cluster.handle_timeout(now);
        }
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + SWEEP_INTERVAL;
        self.expire_labels(now);
        self.sweep_flows(now, links);
        if let Some(relay) = &mut self.relay {
            self.outputs
                .extend(relay.expire(now).into_iter().map(Output::LeaseExpired));
        }
    }

    /// Returns when [`Router::handle_timeout`] and [`Router::poll_store_write`] want to be called; `None` while nothing can
    /// expire.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let idle =
            self.label_count == 0 && self.flows.is_empty() && self.relay.as_ref().is_none_or(Relay::is_empty);
        let cluster = self.relay.as_ref().and_then(Relay::cluster);
        let cluster = cluster.and_then(crate::relay::Cluster::poll_timeout);
        let sweep = (!idle).then_some(self.next_sweep);
        cluster.into_iter().chain(sweep).min()
    }

    /// Drops the labels between which nothing passed in either direction, and those nobody took up.
    fn expire_labels(&mut self, now: Instant) {
        let mut expired = Vec::new();
        for (id, state) in self.links.iter() {
            for (label, entry) in state.labels.chosen() {
                // Labels of conversations live as long as these.
                let Target::Forward { link, .. } = entry.target else {
                    continue;
                };
                let (last_used, lifetime) = match entry.pair {
                    None => (entry.last_used, INCOMPLETE_LIFETIME),
                    Some(pair) => {
                        let other = self.links.get(link.0).and_then(|state| state.labels.get(pair));
                        (
                            other.map_or(entry.last_used, |other| other.last_used.max(entry.last_used)),
                            UNUSED_LIFETIME,
                        )
                    }
                };
                if now - last_used >= lifetime {
                    expired.push((LinkId(id), label));
                }
            }
        }
        for (link, label) in expired {
            // The second of a pair went with the first.
            self.stats.labels_expired += u64::from(self.remove_label(link, label));
        }
    }

    /// Removes a label, and if it leads to another link that of the other direction. Returns how many went: 0, 1 or 2.
    pub(in crate::route) fn remove_label(&mut self, link: LinkId, label: Label) -> u8 {
        let Some(entry) = self
            .links
            .get_mut(link.0)
            .and_then(|state| state.labels.remove(label))
        else {
            return 0;
        };
        self.label_count -= 1;
        let Target::Forward {
            link: out,
            label: out_label,
        } = entry.target
        else {
            return 1;
        };
        if let Some(state) = self.links.get_mut(out.0) {
            state.labels.release(out_label, Source::Label { link, label });
            state.incomplete -= usize::from(entry.pair.is_none());
        }
        1 + entry.pair.map_or(0, |pair| self.remove_label(out, pair))
    }

    /// Removes everything that is forwarded from or to a link, and tells those who send to it.
    pub(super) fn cut(&mut self, link: LinkId, links: &mut (impl LinkWriter + ?Sized)) {
        self.cut_from(link, |_| true, links);
    }

    /// The same for what comes from other relays and goes to them.
    pub fn cut_from_relays(&mut self, link: LinkId, links: &mut (impl LinkWriter + ?Sized)) {
        let relays: BTreeSet<LinkId> = match &self.relay {
            Some(relay) => relay
                .attached()
                .map(|(link, _)| link)
                .filter(|link| relay.is_relays(*link))
                .collect(),
            None => return,
        };
        self.cut_from(link, |other| relays.contains(&other), links);
    }

    fn cut_from(
        &mut self,
        link: LinkId,
        is_cut: impl Fn(LinkId) -> bool,
        links: &mut (impl LinkWriter + ?Sized),
    ) {
        let Some(state) = self.links.get(link.0) else {
            return;
        };
        let from: Vec<Label> = state
            .labels
            .chosen()
            .filter(|(_, entry)| matches!(entry.target, Target::Forward { link, .. } if is_cut(link)))
            .map(|(label, _)| label)
            .collect();
        let to: Vec<(LinkId, Label)> = state
            .labels
            .leaving()
            .filter_map(|(_, source)| match source {
                Source::Label { link, label } if is_cut(link) => Some((link, label)),
                Source::Label { .. } | Source::Flow(_) => None,
            })
            .collect();
        for (source, label) in to {
            self.remove_label(source, label);
            self.tell_gone(source, label, links);
        }
        for label in from {
            self.remove_label(link, label);
            self.tell_gone(link, label, links);
        }
    }

    /// Sends `LabelGone`, if the link still has a buffer.
    pub(in crate::route) fn tell_gone(
        &mut self,
        link: LinkId,
        label: Label,
        links: &mut (impl LinkWriter + ?Sized),
    ) {
        if let Some(buffer) = links.buffer(link) {
            put_label_gone(buffer, label);
            self.stats.label_gone_sent += 1;
        }
    }
}
