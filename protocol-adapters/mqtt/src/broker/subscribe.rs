//! Subscriptions come and go.

use std::sync::Arc;

use fieldgate_proto::time::Now;

use super::{
    Broker, ConnectionKey, SessionIndex, message::Message, queue::Queued, store::key, subscriptions::Filter,
};
use crate::{
    exchange::{Answer, SubscriptionOptions, Wanted},
    packet::{PacketIdentifier, Qos, subscribe::RetainHandling},
    reason::ReasonCode,
};

impl Broker {
    /// Takes a SUBSCRIBE: answers, then sends the retained messages that match (MQTT 5.0 §3.8.4).
    pub(super) fn subscribe(
        &mut self,
        now: Now,
        from: ConnectionKey,
        packet_id: PacketIdentifier,
        wanted: Vec<Wanted>,
    ) {
        let Some(index) = self.by_connection.get(&from).copied() else {
            return;
        };
        let mut reasons = Vec::with_capacity(wanted.len());
        let mut replayed = Vec::new();
        for wanted in wanted {
            let taken = match (wanted.refusal, Filter::parse(&wanted.filter)) {
                (Some(reason), _) => Err(reason),
                (None, None) => Err(ReasonCode::TopicFilterInvalid),
                (None, Some(filter)) => self
                    .add_subscription(index, &wanted, &filter)
                    .map(|is_new| (filter, is_new)),
            };
            match taken {
                Err(reason) => reasons.push(reason),
                Ok((filter, is_new)) => {
                    reasons.push(granted(wanted.options.qos));
                    let sends = match wanted.retain_handling {
                        RetainHandling::Always => true,
                        RetainHandling::IfNew => is_new,
                        RetainHandling::Never => false,
                    };
                    // [MQTT-3.3.1-9] and after: a shared subscription gets none.
                    if sends && filter.share.is_none() {
                        let topic_filter: Box<str> = filter.topic_filter.into();
                        replayed.push((topic_filter, wanted.options));
                    }
                }
            }
        }
        self.answer(from, Answer::SubAck { packet_id, reasons });
        for (filter, options) in replayed {
            self.replay(now, index, &filter, options);
        }
    }

    fn add_subscription(
        &mut self,
        index: SessionIndex,
        wanted: &Wanted,
        filter: &Filter<'_>,
    ) -> Result<bool, ReasonCode> {
        let max = self.limits.subscriptions_max;
        let Some(session) = self.session_mut(index) else {
            return Err(ReasonCode::UnspecifiedError);
        };
        let is_full =
            session.subscriptions.len() >= max && !session.subscriptions.contains_key(&wanted.filter);
        if is_full || filter.is_too_deep() {
            self.counters.subscriptions_refused += 1;
            return Err(ReasonCode::QuotaExceeded);
        }
        session
            .subscriptions
            .insert(wanted.filter.clone(), wanted.options);
        let (number, is_kept) = (session.number, session.is_kept());
        if is_kept {
            self.pending
                .put(key::filter(number, &wanted.filter), wanted.options.encode());
        }
        Ok(self.subscriptions.insert(filter, index, wanted.options))
    }

    /// Sends the retained messages of a filter.
    fn replay(&mut self, now: Now, index: SessionIndex, filter: &str, options: SubscriptionOptions) {
        let mut messages: Vec<Arc<Message>> = self
            .retained
            .matching(filter)
            .filter(|message| !message.is_expired(now.instant))
            .cloned()
            .collect();
        messages.extend(self.system_messages(now, filter));
        for message in messages {
            let queued = Queued {
                qos: message.qos.min(options.qos),
                message,
                stored_as: 0,
                // [MQTT-3.3.1-8]: what was there before the subscription says so.
                retain: true,
                identifiers: options.identifier.into_iter().collect(),
                position: 0,
                batch: 0,
            };
            self.enqueue(now, index, queued);
        }
    }

    /// Takes an UNSUBSCRIBE (MQTT 5.0 §3.10.4).
    pub(super) fn unsubscribe(
        &mut self,
        from: ConnectionKey,
        packet_id: PacketIdentifier,
        filters: Vec<Option<Box<str>>>,
    ) {
        let Some(index) = self.by_connection.get(&from).copied() else {
            return;
        };
        let reasons = filters
            .into_iter()
            .map(|filter| match filter {
                None => ReasonCode::TopicFilterInvalid,
                Some(filter) if self.remove_subscription(index, &filter) => ReasonCode::Success,
                Some(_) => ReasonCode::NoSubscriptionExisted,
            })
            .collect();
        self.answer(from, Answer::UnsubAck { packet_id, reasons });
    }

    /// Removes a subscription; says whether there was one.
    pub(super) fn remove_subscription(&mut self, index: SessionIndex, text: &str) -> bool {
        let Some(session) = self.session_mut(index) else {
            return false;
        };
        if session.subscriptions.remove(text).is_none() {
            return false;
        }
        let (number, is_kept) = (session.number, session.is_kept());
        if is_kept {
            self.pending.remove(key::filter(number, text));
        }
        if let Some(filter) = Filter::parse(text) {
            self.subscriptions.remove(&filter, index);
        }
        true
    }
}

const fn granted(qos: Qos) -> ReasonCode {
    match qos {
        Qos::AtMostOnce => ReasonCode::Success,
        Qos::AtLeastOnce => ReasonCode::GrantedQos1,
        Qos::ExactlyOnce => ReasonCode::GrantedQos2,
    }
}
