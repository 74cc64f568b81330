//! The conversations of this node.
//!
//! ```text
//!  open ─▶ Routing ──answer with an offer──▶ Offering ──Data──▶ Established
//!          Routed     (own label chosen)     DataOffer          Data
//!
//!  accept ─▶ Answering ──DataOffer──▶ Established
//!            Routed, own label offered  Data
//! ```
//!
//! The second line says which frame the next payload goes into. Where no label is to be had, a conversation goes on in
//! Routed frames.

mod progress;

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{
    address::{Address, HopLimit, Route, RouteError, RouteRef},
    label::{Entry, Source, Target},
    received::Candidate,
    router::{LinkId, LinkWriter, Output, Router},
    slab::{Key, Slab},
};
use crate::{
    entropy::Entropy,
    link::{
        Class, FRAME_HEADER_LEN, FRAME_LEN_MAX, FrameError, Label, Mark, RoutedHead, abandon_frame,
        begin_data, begin_data_offer, begin_routed, finish_frame,
    },
    time::Instant,
};

/// A conversation of this node over a route. A number that goes stale when the conversation ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub(super) Key);

impl FlowId {
    /// Returns the conversation with this number; it may be stale, or none.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a number are meant")]
    pub const fn from_number(number: u64) -> Self {
        Self(Key {
            index: number as u32,
            generation: (number >> 32) as u32,
        })
    }

    /// Returns the conversation as a number, never 0 and not used again for another.
    #[must_use]
    pub const fn number(self) -> u64 {
        (self.0.generation as u64) << 32 | self.0.index as u64
    }
}

impl fmt::Debug for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlowId({}#{})", self.0.index, self.0.generation)
    }
}

/// Why a conversation cannot be begun or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// The conversation is over.
    #[error("conversation is over")]
    Gone,
    /// The link is gone.
    #[error("link is gone")]
    LinkGone,
    /// There are too many conversations.
    #[error("{max} conversations run already")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// The route has no address.
    #[error("route is empty")]
    EmptyRoute,
    /// The route cannot be used.
    #[error("route cannot be used")]
    Route(#[source] RouteError),
    /// The payload does not fit a frame.
    #[error("payload does not fit a frame")]
    Frame(#[source] FrameError),
}

impl FlowError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Gone | Self::LinkGone => "nothing to do: the node opens another conversation",
            Self::TooMany { .. } => "raise the limit of conversations, or spread the load over more nodes",
            Self::EmptyRoute => "name at least a service",
            Self::Route(error) => error.hint(),
            Self::Frame(error) => error.hint(),
        }
    }
}

/// Why a conversation was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowLost {
    /// Its link went down.
    LinkDown,
    /// A node on the way forgot its label.
    LabelGone,
    /// The labels were not agreed on in time.
    Incomplete,
    /// Nothing passed for too long.
    Unused,
}

impl FlowLost {
    /// Returns the word for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LinkDown => "link_down",
            Self::LabelGone => "label_gone",
            Self::Incomplete => "incomplete",
            Self::Unused => "unused",
        }
    }
}

/// One conversation.
///
/// Invariants: `out_label` is claimed by it on `link`; `in_label` leads to it there.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) link: LinkId,
    /// The initiator's token in its own return route; `None` at the responder.
    token: Option<u64>,
    /// Where Routed frames go: the route opened, or the way back of the first message.
    onward: Route,
    /// The way back for answers to Routed frames: empty at the responder.
    return_route: Route,
    /// Chosen by this node for what it receives.
    in_label: Option<Label>,
    /// Chosen by the neighbour for what it is sent.
    out_label: Option<Label>,
    /// The other end is known to have this node's label.
    confirmed: bool,
    /// No other node stands between the two ends.
    direct: bool,
    last_sent: Instant,
    last_received: Instant,
    /// When labels began to be agreed on.
    begun: Instant,
}

/// All conversations of the node.
#[derive(Debug)]
pub(super) struct Flows {
    slab: Slab<Flow>,
    by_token: BTreeMap<u64, FlowId>,
}

impl Flows {
    pub(super) const fn new() -> Self {
        Self {
            slab: Slab::new(1, u32::MAX),
            by_token: BTreeMap::new(),
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.slab.len() == 0
    }

    pub(super) fn get(&self, flow: FlowId) -> Option<&Flow> {
        self.slab.get(flow.0)
    }

    pub(super) fn get_mut(&mut self, flow: FlowId) -> Option<&mut Flow> {
        self.slab.get_mut(flow.0)
    }

    /// Returns the conversation an answer is for by the service in its onward route, which must run over `link`.
    pub(super) fn answered(&self, service: &str, link: LinkId) -> Option<FlowId> {
        let flow = *self.by_token.get(&flow_token(service)?)?;
        (self.get(flow)?.link == link).then_some(flow)
    }
}

#[cfg(test)]
impl Flows {
    /// Returns the way back of an initiator's conversation, as text.
    pub(super) fn return_route(&self, flow: FlowId) -> Option<String> {
        Some(self.get(flow)?.return_route.to_string())
    }
}

/// Returns the token in the service address of a conversation, `None` for the service of a worker.
pub(super) fn flow_token(service: &str) -> Option<u64> {
    let digits = service.strip_prefix(FLOW_SERVICE_PREFIX)?;
    let plain = digits.len() == 16
        && digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if plain {
        u64::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

impl Router {
    /// Opens a conversation over `onward`, whose first address the neighbour on `link` takes off.
    ///
    /// # Errors
    /// [`FlowError`]: nothing was opened.
    pub fn open(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        link: LinkId,
        onward: &Route,
    ) -> Result<FlowId, FlowError> {
        if onward.as_ref().is_empty() {
            return Err(FlowError::EmptyRoute);
        }
        let token = entropy.u64();
        let service = format!("{FLOW_SERVICE_PREFIX}{token:016x}");
        let return_route = Route::new([Address::Service(&service)]).map_err(FlowError::Route)?;
        let direct =
            onward.as_ref().len() == 1 && matches!(onward.as_ref().last(), Some(Address::Service(_)));
        let flow = self.add_flow(Flow {
            link,
            token: Some(token),
            onward: onward.clone(),
            return_route,
            in_label: None,
            out_label: None,
            confirmed: false,
            direct,
            last_sent: now,
            last_received: now,
            begun: now,
        })?;
        self.flows.by_token.insert(token, flow);
        Ok(flow)
    }

    /// Takes up a conversation begun by another node: from now on it has state, and the next answer offers a label.
    ///
    /// # Errors
    /// [`FlowError`]: nothing was taken up.
    pub fn accept(&mut self, now: Instant, candidate: &Candidate<'_>) -> Result<FlowId, FlowError> {
        let link = candidate.link;
        let flow = self.add_flow(Flow {
            link,
            token: None,
            onward: candidate.return_route.to_route(),
            return_route: RouteRef::EMPTY.to_route(),
            in_label: None,
            out_label: None,
            confirmed: false,
            direct: candidate.is_direct(),
            last_sent: now,
            last_received: now,
            begun: now,
        })?;
        let in_label = self.choose_label(
            link,
            Entry {
                target: Target::Flow(flow),
                pair: None,
                last_used: now,
            },
        );
        if let Some(entry) = self.flows.get_mut(flow) {
            entry.in_label = in_label;
        }
        if let Some(state) = self.links.get_mut(link.0) {
            state
                .by_return
                .insert(candidate.return_route.encoded().into(), flow);
        }
        Ok(flow)
    }

    /// Appends an answer to a candidate that keeps no state here (the cookie of a handshake).
    ///
    /// # Errors
    /// [`FlowError::LinkGone`] or [`FlowError::Frame`]: nothing was appended.
    pub fn answer(
        &mut self,
        candidate: &Candidate<'_>,
        payload: &[u8],
        links: &mut (impl LinkWriter + ?Sized),
    ) -> Result<(), FlowError> {
        let len_max = self
            .links
            .get(candidate.link.0)
            .ok_or(FlowError::LinkGone)?
            .frame_len_max;
        let out = links.buffer(candidate.link).ok_or(FlowError::LinkGone)?;
        let head = RoutedHead {
            hop_limit: HopLimit::MAX,
            offered: None,
            onward: candidate.return_route,
            return_route: RouteRef::EMPTY,
        };
        let mark = begin_routed(out, candidate.class, &head);
        out.extend_from_slice(payload);
        finish_frame(out, mark, len_max).map_err(FlowError::Frame)
    }

    /// Begins the frame the next payload of a conversation goes into. The caller appends the payload to `out`, which is
    /// the send buffer of [`Router::link_of`], and ends with [`Router::finish`] or [`Router::abandon`].
    ///
    /// # Errors
    /// [`FlowError::Gone`]: nothing was appended.
    pub fn begin(
        &mut self,
        now: Instant,
        flow: FlowId,
        class: Class,
        out: &mut Vec<u8>,
    ) -> Result<Mark, FlowError> {
        let flow = self.flows.get_mut(flow).ok_or(FlowError::Gone)?;
        flow.last_sent = now;
        Ok(match (flow.out_label, flow.in_label) {
            (Some(label), Some(offered)) if !flow.confirmed => begin_data_offer(out, class, label, offered),
            (Some(label), _) => begin_data(out, class, label),
            (None, offered) => {
                let head = RoutedHead {
                    hop_limit: HopLimit::MAX,
                    offered,
                    onward: flow.onward.as_ref(),
                    return_route: flow.return_route.as_ref(),
                };
                begin_routed(out, class, &head)
            }
        })
    }

    /// Ends a frame begun with [`Router::begin`].
    ///
    /// # Errors
    /// [`FlowError`] if it is longer than the neighbour accepts; `out` is then as before it was begun.
    pub fn finish(&self, flow: FlowId, out: &mut Vec<u8>, mark: Mark) -> Result<(), FlowError> {
        let link = self.flows.get(flow).and_then(|flow| self.links.get(flow.link.0));
        let Some(link) = link else {
            abandon_frame(out, mark);
            return Err(FlowError::Gone);
        };
        finish_frame(out, mark, link.frame_len_max).map_err(FlowError::Frame)
    }

    /// Takes back a frame begun with [`Router::begin`].
    pub fn abandon(&self, out: &mut Vec<u8>, mark: Mark) {
        abandon_frame(out, mark);
    }

    /// Appends `payload` to the buffer of the conversation's link as a whole frame.
    ///
    /// # Errors
    /// [`FlowError`]: nothing was appended.
    pub fn send(
        &mut self,
        now: Instant,
        flow: FlowId,
        class: Class,
        payload: &[u8],
        links: &mut (impl LinkWriter + ?Sized),
    ) -> Result<(), FlowError> {
        let link = self.link_of(flow).ok_or(FlowError::Gone)?;
        let out = links.buffer(link).ok_or(FlowError::LinkGone)?;
        let mark = self.begin(now, flow, class, out)?;
        out.extend_from_slice(payload);
        self.finish(flow, out, mark)
    }

    /// Returns the link a conversation runs over.
    #[must_use]
    pub fn link_of(&self, flow: FlowId) -> Option<LinkId> {
        Some(self.flows.get(flow)?.link)
    }

    /// Returns whether no other node stands between the two ends of a conversation.
    #[must_use]
    pub fn is_direct(&self, flow: FlowId) -> bool {
        self.flows.get(flow).is_some_and(|flow| flow.direct)
    }

    /// Returns whether both labels of a conversation are agreed on, so that data costs 8 bytes per hop.
    #[must_use]
    pub fn is_established(&self, flow: FlowId) -> bool {
        self.flows.get(flow).is_some_and(|flow| flow.confirmed)
    }

    /// Returns how many bytes of payload the next frame of a conversation can have.
    #[must_use]
    pub fn payload_len_max(&self, flow: FlowId) -> Option<usize> {
        let flow = self.flows.get(flow)?;
        let len_max = self.links.get(flow.link.0)?.frame_len_max.min(FRAME_LEN_MAX);
        let mut head = Vec::new();
        if flow.out_label.is_none() {
            flow.onward.as_ref().put(&mut head);
            flow.return_route.as_ref().put(&mut head);
        }
        // Two labels, or hop limit and offer: 8 bytes in front of the routes at most.
        Some(len_max.saturating_sub(2 * FRAME_HEADER_LEN + head.len()))
    }

    /// Ends a conversation and tells the neighbour to forget its label.
    pub fn close(&mut self, flow: FlowId, links: &mut (impl LinkWriter + ?Sized)) {
        let Some(ended) = self.remove_flow(flow) else {
            return;
        };
        if let Some(label) = ended.in_label {
            self.tell_gone(ended.link, label, links);
        }
    }

    fn add_flow(&mut self, flow: Flow) -> Result<FlowId, FlowError> {
        let max = self.settings.flows_max;
        if self.flows.slab.len() >= max {
            return Err(FlowError::TooMany { max });
        }
        let link = self.links.get_mut(flow.link.0).ok_or(FlowError::LinkGone)?;
        let id = FlowId(self.flows.slab.insert(flow));
        link.flows.insert(id);
        Ok(id)
    }

    /// Chooses a label on `link`, `None` if a limit is reached.
    pub(super) fn choose_label(&mut self, link: LinkId, entry: Entry) -> Option<Label> {
        let room = self.label_count < self.settings.labels_max;
        let state = self.links.get_mut(link.0)?;
        let label = if room { state.labels.choose(entry) } else { None };
        match label {
            Some(_) => self.label_count += 1,
            None => self.stats.labels_refused += 1,
        }
        label
    }

    /// Takes out a conversation with everything that leads to it.
    fn remove_flow(&mut self, id: FlowId) -> Option<Flow> {
        let flow = self.flows.slab.remove(id.0)?;
        if let Some(token) = flow.token {
            self.flows.by_token.remove(&token);
        }
        if let Some(state) = self.links.get_mut(flow.link.0) {
            state.flows.remove(&id);
            if flow.token.is_none() && state.by_return.get(flow.onward.as_ref().encoded()) == Some(&id) {
                state.by_return.remove(flow.onward.as_ref().encoded());
            }
            if let Some(label) = flow.out_label {
                state.labels.release(label, Source::Flow(id));
            }
        }
        if let Some(label) = flow.in_label {
            self.remove_label(flow.link, label);
        }
        Some(flow)
    }

    /// Takes out a conversation and reports it lost.
    pub(super) fn lose_flow(&mut self, id: FlowId, reason: FlowLost) {
        if let Some(flow) = self.remove_flow(id) {
            self.outputs.push_back(Output::FlowLost {
                flow: id,
                link: flow.link,
                reason,
            });
        }
    }
}

/// An initiator that sent nothing for so long sends an empty Data frame: a third of what a label lives unused.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(40);
/// Start of the service address that stands for a conversation in the initiator's return route; 16 hexadecimal digits
/// follow.
pub(super) const FLOW_SERVICE_PREFIX: &str = "flow-";
