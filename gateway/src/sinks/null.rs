//! The sink that forgets: for measurements of everything in front of it.

use std::sync::{Arc, atomic::Ordering};

use tokio::sync::mpsc;

use super::{Batch, Confirm, Confirmation, QUEUE_BATCHES, SinkHandle, SinkStats};

/// Starts the sink as a task of the current tokio runtime.
pub(crate) fn spawn(index: usize, mut confirm: Confirm) -> SinkHandle {
    let (queue, mut batches) = mpsc::channel::<Arc<Batch>>(QUEUE_BATCHES);
    let stats = Arc::new(SinkStats::default());
    stats.reachable.store(true, Ordering::Relaxed);
    let shown = Arc::clone(&stats);
    tokio::task::spawn_local(async move {
        let mut taken = Vec::with_capacity(QUEUE_BATCHES);
        while batches.recv_many(&mut taken, QUEUE_BATCHES).await > 0 {
            for batch in taken.drain(..) {
                shown.confirmed.fetch_add(batch.count, Ordering::Relaxed);
                confirm(Confirmation {
                    sink: index,
                    source: batch.source.index,
                    up_to: batch.last(),
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
