//! A sink that writes on a thread of its own: takes what waits, writes it in one piece, confirms when it is safe.

use std::{io, sync::Arc, time::Duration};

use fieldgate_io::thread;
use tokio::time;

use super::{
    Confirm, Confirmation, Delivery, QUEUE_DELIVERIES, SinkHandle,
    item::{Item, Tally},
    positions::Positions,
    queue::{DeliveryReceiver, queue},
    stats::SinkStats,
    writers::Writing,
};

/// Where records are written.
pub(crate) trait Target: Send + 'static {
    /// Appends an item to what is about to be written, in the target's format.
    fn write_item(&self, out: &mut Vec<u8>, item: &Item<'_>);

    /// Puts whole records where they belong and waits until they are safe; gives the buffer back. After an error nothing of
    /// them is there.
    fn put(&mut self, records: Vec<u8>) -> (Vec<u8>, Result<(), String>);

    /// Is told after every successful write, and when [`Target::due_in`] has passed; `positions` count what was written.
    fn tend(&mut self, positions: &mut Positions, written: usize);

    /// Returns the time until [`Target::tend`] wants to be called though nothing is written.
    fn due_in(&self) -> Option<Duration>;
}

/// Starts a sink on a thread of its own, which ends when the trunk drops the queue.
///
/// # Errors
/// If the system gives no thread or no timer.
pub(crate) fn spawn<T: Target>(
    index: usize,
    name: String,
    target: T,
    positions: Positions,
    confirm: Confirm,
    stats: Arc<SinkStats>,
    writing: Writing,
) -> io::Result<SinkHandle> {
    let (queue, deliveries) = queue(QUEUE_DELIVERIES);
    stats.taking();
    let sink = LineSink {
        index,
        target,
        positions,
        confirm,
        deliveries,
        stats: Arc::clone(&stats),
        text: Vec::new(),
    };
    let timer = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let run = move || {
        sink.run(&timer);
        drop(writing);
    };
    drop(thread::spawn("fg-sink", None, run)?);
    Ok(SinkHandle { name, stats, queue })
}

struct LineSink<T> {
    index: usize,
    target: T,
    positions: Positions,
    confirm: Confirm,
    deliveries: DeliveryReceiver,
    stats: Arc<SinkStats>,
    text: Vec<u8>,
}

/// What the thread waited for.
enum Woken {
    Delivery(Delivery),
    Due,
    Ended,
}

impl<T: Target> LineSink<T> {
    fn run(mut self, timer: &tokio::runtime::Runtime) {
        let mut taken: Vec<Delivery> = Vec::new();
        loop {
            match timer.block_on(self.next()) {
                Woken::Delivery(delivery) => taken.push(delivery),
                Woken::Due => {
                    self.target.tend(&mut self.positions, 0);
                    continue;
                }
                Woken::Ended => break,
            }
            // Whatever waits goes into one write and one sync.
            let mut bytes = taken.iter().map(Delivery::bytes).sum::<usize>();
            while bytes < WRITE_BYTES
                && let Ok(delivery) = self.deliveries.try_recv()
            {
                bytes += delivery.bytes();
                taken.push(delivery);
            }
            if self.write(&taken, timer).is_err() {
                return;
            }
            taken.clear();
        }
        if let Err(error) = self.positions.save() {
            tracing::warn!(%error, "positions of a sink not saved; the next start reads more");
        }
    }

    async fn next(&mut self) -> Woken {
        let received = match self.target.due_in() {
            Some(due) => match time::timeout(due, self.deliveries.recv()).await {
                Ok(received) => received,
                Err(_) => return Woken::Due,
            },
            None => self.deliveries.recv().await,
        };
        received.map_or(Woken::Ended, Woken::Delivery)
    }

    /// Writes deliveries and confirms them; repeats until that went well.
    ///
    /// # Errors
    /// If it does not go well and the trunk has gone: what was not confirmed stays with the gateways.
    fn write(&mut self, deliveries: &[Delivery], timer: &tokio::runtime::Runtime) -> Result<(), TrunkGone> {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let mut tally = Tally::NOTHING;
        for delivery in deliveries {
            let known = self.positions.of(delivery.source());
            delivery.count_known(known, &self.stats);
            for item in delivery.items(known) {
                self.target.write_item(&mut text, &item);
                tally.add(item.tally());
            }
            // Later deliveries of the same source in this write are compared with what this one brings.
            self.positions.advance(delivery.source(), delivery.last());
        }
        let written = text.len();
        while !text.is_empty() {
            let result;
            (text, result) = self.target.put(text);
            match result {
                Ok(()) => {
                    if self.stats.taking() {
                        tracing::info!("the sink takes readings again");
                    }
                    break;
                }
                Err(error) => {
                    tracing::debug!(error, "write failed");
                    if self.stats.away(error.clone()) {
                        tracing::warn!(
                            error,
                            "the sink does not take readings; they stay with their gateways"
                        );
                    }
                    if self.deliveries.is_closed() {
                        return Err(TrunkGone);
                    }
                    timer.block_on(async { time::sleep(RETRY_AFTER).await });
                }
            }
        }
        self.text = text;
        self.text.shrink_to(2 * WRITE_BYTES);
        self.stats.moved();
        tally.count(&self.stats);
        for delivery in deliveries {
            let up_to = self.positions.of(delivery.source());
            (self.confirm)(Confirmation {
                sink: self.index,
                source: delivery.source().index,
                up_to,
            });
        }
        self.target.tend(&mut self.positions, written);
        Ok(())
    }
}

/// The node ends, and the target takes nothing.
struct TrunkGone;

/// Bytes of readings that are enough for one write.
const WRITE_BYTES: usize = 512 << 10;
/// Time between attempts to write.
const RETRY_AFTER: Duration = Duration::from_secs(1);
