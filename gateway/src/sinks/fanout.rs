//! Hands readings and gaps to every sink and finds out what all of them have confirmed.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use fieldgate_adapters::class::Class;
use fieldgate_io::clock::monotonic;
use tokio::sync::mpsc::error::TrySendError;

use super::{
    Batch, Confirmation, Delivery, SinkHandle, Source,
    gap::Gap,
    stats::{Condition, State, Subject},
};
use crate::status::SinkStatus;

/// All sinks of a collector, owned by the trunk.
///
/// Invariant: `held_bytes` counts every delivery that at least one sink has not confirmed.
pub(crate) struct Fanout {
    sinks: Vec<Output>,
    sources: Vec<Option<SourceState>>,
    held_bytes: usize,
    released: u64,
}

/// One sink and what does not fit its queue at the moment.
struct Output {
    handle: SinkHandle,
    /// By class, alarms first.
    overflow: [VecDeque<Delivery>; 3],
    /// By [`Source::index`]: the highest sequence confirmed since the start.
    confirmed: Vec<u64>,
    /// By [`Source::index`]: last sequence and bytes of each delivery that waits for this sink, oldest first.
    waiting: Vec<VecDeque<(u64, usize)>>,
    waiting_bytes: usize,
    closed: bool,
}

/// What a source brought that not every sink has confirmed, oldest first.
struct SourceState {
    released: u64,
    held: VecDeque<Held>,
}

/// One delivery that not every sink has confirmed.
struct Held {
    last: u64,
    bytes: usize,
    /// Sequences in it that are missing.
    missing: u64,
}

impl Fanout {
    /// Makes a fan-out over `sinks`.
    pub(crate) fn new(sinks: Vec<SinkHandle>) -> Self {
        let outputs = sinks.into_iter().map(|handle| Output {
            handle,
            overflow: Default::default(),
            confirmed: Vec::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            closed: false,
        });
        Self {
            sinks: outputs.collect(),
            sources: Vec::new(),
            held_bytes: 0,
            released: 0,
        }
    }

    /// Returns whether there is room for more readings of a class. Some is left for alarms, whatever else waits.
    pub(crate) const fn accepts(&self, class: Class) -> bool {
        self.held_bytes
            < match class {
                Class::Alarm => HELD_BYTES_MAX + ALARM_RESERVE,
                Class::Normal | Class::Bulk => HELD_BYTES_MAX,
            }
    }

    /// Returns whether every sink has confirmed everything it was given.
    #[cfg(test)]
    pub(crate) const fn is_idle(&self) -> bool {
        self.held_bytes == 0
    }

    /// Returns the readings confirmed by every sink since the start.
    pub(crate) const fn released(&self) -> u64 {
        self.released
    }

    /// Makes a source known: everything up to `position` was confirmed before the start.
    pub(crate) fn open(&mut self, source: &Source, position: u64) {
        let index = source.index as usize;
        if self.sources.len() <= index {
            self.sources.resize_with(index + 1, || None);
        }
        if let Some(place) = self.sources.get_mut(index) {
            *place = Some(SourceState {
                released: position,
                held: VecDeque::new(),
            });
        }
        for sink in &mut self.sinks {
            if sink.confirmed.len() <= index {
                sink.confirmed.resize(index + 1, 0);
                sink.waiting.resize_with(index + 1, VecDeque::new);
            }
            if let Some(confirmed) = sink.confirmed.get_mut(index) {
                *confirmed = position;
            }
        }
    }

    /// Hands a batch to every sink. The caller has asked [`Fanout::accepts`].
    pub(crate) fn offer(&mut self, batch: &Arc<Batch>) {
        self.hand_out(&Delivery::Readings(Arc::clone(batch)), 0);
    }

    /// Hands the news of missing readings to every sink, behind what was offered before. The caller has asked
    /// [`Fanout::accepts`]. It is confirmed like a batch: when every sink has a record of it.
    pub(crate) fn offer_gap(&mut self, gap: &Arc<Gap>) {
        self.hand_out(&Delivery::Gap(Arc::clone(gap)), gap.count());
    }

    fn hand_out(&mut self, delivery: &Delivery, missing: u64) {
        let Some(state) = self
            .sources
            .get_mut(delivery.source().index as usize)
            .and_then(Option::as_mut)
        else {
            return;
        };
        let bytes = delivery.bytes() + DELIVERY_OVERHEAD;
        state.held.push_back(Held {
            last: delivery.last(),
            bytes,
            missing,
        });
        self.held_bytes += bytes;
        for sink in &mut self.sinks {
            sink.wait_for(delivery, bytes);
            sink.overflow_of(delivery.source().class)
                .push_back(delivery.clone());
            sink.pump();
        }
    }

    /// Takes a sink's confirmation; returns the source's new common position if it moved.
    pub(crate) fn confirm(&mut self, confirmation: Confirmation) -> Option<(u32, u64)> {
        let index = confirmation.source as usize;
        let sink = self.sinks.get_mut(confirmation.sink)?;
        let confirmed = sink.confirmed.get_mut(index)?;
        *confirmed = (*confirmed).max(confirmation.up_to);
        sink.settle(index, confirmation.up_to);
        sink.pump();
        let common = self
            .sinks
            .iter()
            .filter_map(|sink| sink.confirmed.get(index))
            .min()
            .copied()?;
        let state = self.sources.get_mut(index)?.as_mut()?;
        if common <= state.released {
            return None;
        }
        self.released += common - state.released;
        state.released = common;
        while let Some(held) = state.held.pop_front_if(|held| held.last <= common) {
            self.held_bytes -= held.bytes;
            // A gap is confirmed as a whole, so its sequences were all counted just now or with it.
            self.released -= held.missing;
        }
        Some((confirmation.source, common))
    }

    /// Returns what each sink shows.
    pub(crate) fn status(&self) -> Vec<SinkStatus> {
        let sinks = self.sinks.iter().map(|sink| {
            let condition = sink.handle.stats.condition();
            let stats = &sink.handle.stats;
            let is_waiting = sink.waiting_bytes > 0;
            SinkStatus {
                name: sink.handle.name.clone(),
                state: if sink.closed {
                    "ended"
                } else {
                    condition.state.word()
                }
                .to_owned(),
                for_secs: monotonic().saturating_sub(condition.since) / NANOS,
                reachable: condition.state == State::Taking && !sink.closed,
                last_error: condition.last_error.clone(),
                notices: texts(&condition, |subject| !subject.is_grave()),
                warnings: texts(&condition, Subject::is_grave),
                confirmed: stats.confirmed.load(Ordering::Relaxed),
                missing: stats.missing.load(Ordering::Relaxed),
                duplicates: stats.duplicates.load(Ordering::Relaxed),
                undecodable: stats.undecodable.load(Ordering::Relaxed),
                set_aside: stats.set_aside.load(Ordering::Relaxed),
                errors: stats.errors.load(Ordering::Relaxed),
                waiting_bytes: sink.waiting_bytes as u64,
                still_secs: if is_waiting { stats.still_for() / NANOS } else { 0 },
            }
        });
        sinks.collect()
    }
}

/// Returns the notices about some subjects.
fn texts(condition: &Condition, wanted: fn(Subject) -> bool) -> Vec<String> {
    let notices = condition.notices.iter().filter(|(subject, _)| wanted(**subject));
    notices.map(|(_, text)| text.clone()).collect()
}

impl Output {
    fn wait_for(&mut self, delivery: &Delivery, bytes: usize) {
        if self.waiting_bytes == 0 {
            self.handle.stats.moved();
        }
        self.waiting_bytes += bytes;
        if let Some(waiting) = self.waiting.get_mut(delivery.source().index as usize) {
            waiting.push_back((delivery.last(), bytes));
        }
    }

    fn settle(&mut self, source: usize, up_to: u64) {
        let waiting = self.waiting.get_mut(source).into_iter();
        for waiting in waiting {
            while let Some((_, bytes)) = waiting.pop_front_if(|(last, _)| *last <= up_to) {
                self.waiting_bytes -= bytes;
            }
        }
    }

    const fn overflow_of(&mut self, class: Class) -> &mut VecDeque<Delivery> {
        let [alarm, normal, bulk] = &mut self.overflow;
        match class {
            Class::Alarm => alarm,
            Class::Normal => normal,
            Class::Bulk => bulk,
        }
    }

    /// Moves what waits into the sink's queue as far as there is room for each class.
    fn pump(&mut self) {
        for overflow in &mut self.overflow {
            while let Some(delivery) = overflow.pop_front() {
                match self.handle.queue.try_send(delivery) {
                    Ok(()) => {}
                    Err(TrySendError::Full(delivery)) => {
                        overflow.push_front(delivery);
                        break;
                    }
                    Err(TrySendError::Closed(delivery)) => {
                        // The sink has ended; what it did not confirm stays with the gateways.
                        overflow.push_front(delivery);
                        self.closed = true;
                        return;
                    }
                }
            }
        }
    }
}

/// Nanoseconds of a second.
const NANOS: u64 = 1_000_000_000;
/// Bytes of readings that not every sink has confirmed, at the most; one batch of each gateway may exceed it.
const HELD_BYTES_MAX: usize = 16 << 20;
/// Bytes of alarms that are taken beyond that.
const ALARM_RESERVE: usize = 1 << 20;
/// What a delivery costs beside its readings, in bytes.
const DELIVERY_OVERHEAD: usize = 128;

#[cfg(test)]
mod tests {
    use fieldgate_proto::identity::Identifier;

    use super::*;
    use crate::sinks::{
        gap::GapReason,
        queue::{DeliveryReceiver, queue},
        stats::SinkStats,
    };

    fn sink(name: &str, room: usize) -> (SinkHandle, DeliveryReceiver) {
        let (queue, batches) = queue(room);
        (
            SinkHandle {
                name: name.to_owned(),
                stats: Arc::new(SinkStats::new()),
                queue,
            },
            batches,
        )
    }

    fn source() -> Arc<Source> {
        Arc::new(Source {
            index: 0,
            gateway: Identifier::from_bytes([1; 32]),
            name: "a".to_owned(),
            journal: [2; 16],
            class: Class::Bulk,
            path: Vec::new(),
        })
    }

    fn batch(source: &Arc<Source>, first: u64, count: u64, bytes: usize) -> Arc<Batch> {
        Arc::new(Batch {
            source: Arc::clone(source),
            first,
            count,
            readings: vec![0; bytes],
            seal: None,
        })
    }

    #[test]
    fn the_slowest_sink_decides() {
        let (first, _first_batches) = sink("first", 8);
        let (second, _second_batches) = sink("second", 8);
        let mut fanout = Fanout::new(vec![first, second]);
        let source = source();
        fanout.open(&source, 10);
        fanout.offer(&batch(&source, 11, 5, 100));
        fanout.offer(&batch(&source, 16, 5, 100));
        assert_eq!(
            fanout.confirm(Confirmation {
                sink: 0,
                source: 0,
                up_to: 20
            }),
            None
        );
        assert_eq!(
            fanout.confirm(Confirmation {
                sink: 1,
                source: 0,
                up_to: 15
            }),
            Some((0, 15))
        );
        assert!(!fanout.is_idle());
        let waiting: Vec<u64> = fanout.status().iter().map(|sink| sink.waiting_bytes).collect();
        assert_eq!(waiting, [0, 100 + DELIVERY_OVERHEAD as u64]);
        assert_eq!(
            fanout.confirm(Confirmation {
                sink: 1,
                source: 0,
                up_to: 20
            }),
            Some((0, 20))
        );
        assert!(fanout.is_idle());
        assert_eq!(fanout.released(), 10);
    }

    #[test]
    fn a_gap_travels_in_order_and_is_confirmed_by_position() {
        let (handle, mut deliveries) = sink("only", 8);
        let mut fanout = Fanout::new(vec![handle]);
        let source = source();
        fanout.open(&source, 10);
        fanout.offer(&batch(&source, 11, 5, 100));
        let gap = Gap {
            source: Arc::clone(&source),
            first: 16,
            last: 115,
            reason: GapReason::Discarded,
            class: Class::Bulk,
            captured: None,
        };
        fanout.offer_gap(&Arc::new(gap));
        fanout.offer(&batch(&source, 116, 5, 100));
        let ranges: Vec<_> = std::iter::from_fn(|| deliveries.try_recv().ok())
            .map(|delivery| (delivery.first(), delivery.last()))
            .collect();
        assert_eq!(ranges, [(11, 15), (16, 115), (116, 120)]);
        let mut confirm = |up_to| {
            let confirmation = Confirmation {
                sink: 0,
                source: 0,
                up_to,
            };
            let moved = fanout.confirm(confirmation);
            (moved, fanout.released(), fanout.is_idle())
        };
        assert_eq!(confirm(115), (Some((0, 115)), 5, false));
        assert_eq!(confirm(120), (Some((0, 120)), 10, true));
    }

    #[test]
    fn a_full_queue_holds_back_and_a_full_memory_closes() {
        let (handle, mut batches) = sink("slow", 1);
        let mut fanout = Fanout::new(vec![handle]);
        let source = source();
        fanout.open(&source, 0);
        for number in 0..20 {
            if fanout.accepts(Class::Bulk) {
                fanout.offer(&batch(&source, number + 1, 1, 1 << 20));
            }
        }
        assert!(!fanout.accepts(Class::Bulk) && !fanout.accepts(Class::Normal));
        assert!(fanout.accepts(Class::Alarm), "alarms find some room");
        assert_eq!(batches.try_recv().unwrap().first(), 1);
        assert!(batches.try_recv().is_err());
        fanout.confirm(Confirmation {
            sink: 0,
            source: 0,
            up_to: 1,
        });
        assert_eq!(batches.try_recv().unwrap().first(), 2);
        assert!(fanout.accepts(Class::Bulk));
    }
}
