//! How a conversation gets its labels, and how it is lost.

use super::{FlowId, FlowLost, KEEP_ALIVE_INTERVAL};
use crate::{
    link::{Class, FRAME_LEN_MAX, Label, put_data},
    route::{
        label::{Entry, Source, Target},
        router::{INCOMPLETE_LIFETIME, LinkWriter, Router, UNUSED_LIFETIME},
    },
    time::Instant,
};

impl Router {
    /// Notes a payload that arrived for a conversation under its own label.
    pub(in crate::route) fn flow_received_data(&mut self, now: Instant, id: FlowId) {
        if let Some(flow) = self.flows.get_mut(id) {
            flow.last_received = now;
            // Only who has the label can use it.
            flow.confirmed |= flow.out_label.is_some();
        }
    }

    /// Notes an answer, or a repeated first message, that arrived in a Routed frame.
    pub(in crate::route) fn flow_received_routed(
        &mut self,
        now: Instant,
        id: FlowId,
        offered: Option<Label>,
    ) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        flow.last_received = now;
        let Some(offered) = offered else { return };
        // An agreed label stays; before that the newest answer wins, for the responder may have begun anew.
        if flow.token.is_none() || flow.confirmed || flow.out_label == Some(offered) {
            return;
        }
        let (link, old_in, old_out) = (flow.link, flow.in_label, flow.out_label);
        let Some(state) = self.links.get_mut(link.0) else {
            return;
        };
        if !state.labels.claim(offered, Source::Flow(id)) {
            self.stats.labels_refused += 1;
            return;
        }
        if let Some(label) = old_out {
            state.labels.release(label, Source::Flow(id));
        }
        if let Some(label) = old_in {
            // The old one may be tied to the old answer in a relay, so the new answer gets a new one.
            self.remove_label(link, label);
        }
        let in_label = self.choose_label(
            link,
            Entry {
                target: Target::Flow(id),
                pair: None,
                last_used: now,
            },
        );
        if let Some(flow) = self.flows.get_mut(id) {
            flow.out_label = Some(offered);
            flow.in_label = in_label;
            flow.begun = now;
        }
    }

    /// Notes the label offered in a `DataOffer` for a conversation; false if it is not acceptable.
    #[must_use]
    pub(in crate::route) fn flow_received_offer(&mut self, now: Instant, id: FlowId, offered: Label) -> bool {
        let Some(flow) = self.flows.get_mut(id) else {
            return false;
        };
        if let Some(label) = flow.out_label {
            let same = label == offered;
            if same {
                self.flow_received_data(now, id);
            }
            return same;
        }
        let link = flow.link;
        let claimed = self
            .links
            .get_mut(link.0)
            .is_some_and(|state| state.labels.claim(offered, Source::Flow(id)));
        if claimed && let Some(flow) = self.flows.get_mut(id) {
            flow.out_label = Some(offered);
            flow.confirmed = true;
            flow.last_received = now;
        }
        claimed
    }

    /// Loses conversations that were not completed or not used in time, and keeps those of this node in use.
    pub(in crate::route) fn sweep_flows(&mut self, now: Instant, links: &mut (impl LinkWriter + ?Sized)) {
        let mut lost = Vec::new();
        for (key, flow) in self.flows.slab.iter_mut() {
            let id = FlowId(key);
            let used = flow.last_sent.max(flow.last_received);
            let initiator = flow.token.is_some();
            if !flow.confirmed {
                // The responder waits for the initiator's label, the initiator for data under its own. Without labels
                // a conversation lives as long as Routed frames arrive.
                let waiting_since = if initiator {
                    flow.begun.max(flow.last_received)
                } else {
                    flow.last_received
                };
                let offered = flow.in_label.is_some() || flow.out_label.is_some();
                let lifetime = if offered {
                    INCOMPLETE_LIFETIME
                } else {
                    UNUSED_LIFETIME
                };
                if now - waiting_since >= lifetime {
                    lost.push((id, FlowLost::Incomplete));
                }
            } else if now - used >= UNUSED_LIFETIME {
                lost.push((id, FlowLost::Unused));
            } else if initiator && now - flow.last_sent >= KEEP_ALIVE_INTERVAL {
                let (Some(label), Some(out)) = (flow.out_label, links.buffer(flow.link)) else {
                    continue;
                };
                // Four bytes of body fit every frame limit.
                if put_data(out, Class::Normal, label, &[], FRAME_LEN_MAX).is_ok() {
                    flow.last_sent = now;
                }
            }
        }
        for (id, reason) in lost {
            self.lose_flow(id, reason);
        }
    }
}
