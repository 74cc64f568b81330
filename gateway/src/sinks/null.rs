//! The sink that forgets: for measurements of everything in front of it.

use std::sync::{Arc, atomic::Ordering};

use super::{Confirm, Confirmation, Delivery, QUEUE_DELIVERIES, SinkHandle, queue::queue, stats::SinkStats};

/// Starts the sink as a task of the current tokio runtime.
pub(crate) fn spawn(index: usize, mut confirm: Confirm) -> SinkHandle {
    let (queue, mut deliveries) = queue(QUEUE_DELIVERIES);
    let stats = Arc::new(SinkStats::new());
    stats.taking();
    let shown = Arc::clone(&stats);
    tokio::task::spawn_local(async move {
        let mut taken = Vec::with_capacity(QUEUE_DELIVERIES);
        while deliveries.recv_many(&mut taken, QUEUE_DELIVERIES).await > 0 {
            for delivery in taken.drain(..) {
                let counter = match delivery {
                    Delivery::Readings(_) => &shown.confirmed,
                    Delivery::Gap(_) => &shown.missing,
                };
                counter.fetch_add(delivery.last() - delivery.first() + 1, Ordering::Relaxed);
                shown.moved();
                confirm(Confirmation {
                    sink: index,
                    source: delivery.source().index,
                    up_to: delivery.last(),
                });
            }
        }
    });
    SinkHandle {
        name: "null".to_owned(),
        stats,
        queue,
    }
}
