//! The sink that keeps proofs: every sealed batch goes into the collector's ledger once its seal is verified.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fieldgate_io::thread;
use fieldgate_proof::{ProofError, SealingKey, ledger::SealedBatch};
use fieldgate_proto::{
    crypto::sha256,
    identity::Identifier,
    seal::{Extent, merkle::Hash},
};

use super::{
    Batch, Confirm, Confirmation, Delivery, QUEUE_DELIVERIES, SinkHandle,
    positions::Positions,
    queue::{DeliveryReceiver, queue},
    stats::SinkStats,
    writers::Writing,
};
use crate::ledger::{Ledger, LedgerError};

/// What a ledger shows of itself, beside what every sink does.
#[derive(Debug, Default)]
pub(crate) struct LedgerStats {
    /// Readings in batches without a seal: they cannot be proved.
    pub(crate) unsealed: AtomicU64,
    /// Readings in batches whose seal does not hold.
    pub(crate) refused: AtomicU64,
    /// Bytes on disk.
    pub(crate) bytes: AtomicU64,
}

/// Opens the ledger in `dir` and starts the sink on a thread of its own.
///
/// # Errors
/// If the directory cannot be used.
pub(crate) fn spawn(
    index: usize,
    dir: &Path,
    bytes_max: u64,
    positions: Positions,
    confirm: Confirm,
    writing: Writing,
) -> io::Result<(SinkHandle, Arc<LedgerStats>)> {
    let ledger = Ledger::open(dir, bytes_max)?;
    let (queue, deliveries) = queue(QUEUE_DELIVERIES);
    let stats = Arc::new(SinkStats::new());
    stats.taking();
    let shown = Arc::new(LedgerStats::default());
    shown.bytes.store(ledger.bytes(), Ordering::Relaxed);
    let sink = LedgerSink {
        index,
        ledger,
        positions,
        confirm,
        deliveries,
        stats: Arc::clone(&stats),
        shown: Arc::clone(&shown),
        keys: BTreeMap::new(),
        told: BTreeMap::new(),
    };
    // The thread ends when the trunk drops the queue.
    let run = move || {
        sink.run();
        drop(writing);
    };
    drop(thread::spawn("fg-ledger", None, run)?);
    let name = format!("ledger {}", dir.display());
    Ok((SinkHandle { name, stats, queue }, shown))
}

struct LedgerSink {
    index: usize,
    ledger: Ledger,
    positions: Positions,
    confirm: Confirm,
    deliveries: DeliveryReceiver,
    stats: Arc<SinkStats>,
    shown: Arc<LedgerStats>,
    /// Keys that were verified, and those that do not hold, by the hash of the attestation.
    keys: BTreeMap<Hash, Option<SealingKey>>,
    /// Gateways whose missing or wrong seals were told about.
    told: BTreeMap<Identifier, &'static str>,
}

impl LedgerSink {
    fn run(mut self) {
        let mut taken: Vec<Delivery> = Vec::new();
        while let Some(delivery) = self.deliveries.blocking_recv() {
            taken.push(delivery);
            // Whatever waits goes into one write and one sync.
            while taken.len() < QUEUE_DELIVERIES
                && let Ok(more) = self.deliveries.try_recv()
            {
                taken.push(more);
            }
            while let Err(error) = self.keep(&taken) {
                self.stats.away(error.to_string());
                tracing::error!(%error, hint = "free disk space, or lower `bytes_max` of [collector.ledger]", "ledger: cannot be written; readings wait at the gateways");
                // The trunk has gone: what was not confirmed stays with the gateways.
                if self.deliveries.is_closed() {
                    return;
                }
                std::thread::park_timeout(RETRY_INTERVAL);
            }
            self.stats.taking();
            for delivery in taken.drain(..) {
                self.confirm_one(&delivery);
            }
            if let Err(error) = self.positions.save() {
                tracing::warn!(%error, "ledger: its positions cannot be kept; readings may stand in it twice");
            }
        }
    }

    /// Puts what can be proved on stable storage.
    fn keep(&mut self, taken: &[Delivery]) -> io::Result<()> {
        for delivery in taken {
            if let Delivery::Readings(batch) = delivery {
                match self.keep_one(batch) {
                    Ok(()) => {}
                    Err(LedgerError::Io(error)) => return Err(error),
                    Err(LedgerError::Batch(error)) => self.refuse(batch, &error),
                }
            }
        }
        self.ledger.commit()?;
        self.shown.bytes.store(self.ledger.bytes(), Ordering::Relaxed);
        Ok(())
    }

    fn keep_one(&mut self, batch: &Batch) -> Result<(), LedgerError> {
        if self.positions.of(&batch.source) >= batch.last() {
            return Ok(());
        }
        let Some(seal) = &batch.seal else {
            self.shown.unsealed.fetch_add(batch.count, Ordering::Relaxed);
            self.tell(
                batch.source.gateway,
                &batch.source.name,
                "sends batches without a signature: where its readings came from cannot be proved",
            );
            return Ok(());
        };
        let key_id = sha256(&[&seal.key.attestation]);
        let sealed = SealedBatch {
            gateway: batch.source.gateway,
            key_id,
            extent: Extent {
                journal: batch.source.journal,
                first: seal.first,
                count: batch.last().saturating_sub(seal.first).saturating_add(1),
            },
            seal: seal.seal,
            skipped: seal.skipped.clone(),
            readings: &batch.readings,
        };
        if self.keys.len() >= KEYS_MAX {
            self.keys.clear();
        }
        let key = self
            .keys
            .entry(key_id)
            .or_insert_with(|| SealingKey::verify(&seal.key.history, &seal.key.attestation).ok());
        let Some(key) = key else {
            return Err(LedgerError::Batch(ProofError::Form {
                what: "its identity does not vouch for the key",
            }));
        };
        sealed.verify(key)?;
        self.told.remove(&batch.source.gateway);
        self.ledger
            .append(sealed, &seal.key.history, &seal.key.attestation)
    }

    fn refuse(&mut self, batch: &Batch, error: &ProofError) {
        self.shown.refused.fetch_add(batch.count, Ordering::Relaxed);
        tracing::debug!(gateway = batch.source.name, %error, "ledger: a seal does not hold");
        self.tell(
            batch.source.gateway,
            &batch.source.name,
            "sends signatures that do not hold: where its readings came from cannot be proved",
        );
    }

    /// Says once what is wrong with a gateway's batches.
    fn tell(&mut self, gateway: Identifier, name: &str, what: &'static str) {
        if self.told.len() >= KEYS_MAX {
            self.told.clear();
        }
        if self.told.insert(gateway, what) != Some(what) {
            tracing::warn!(gateway = name, "ledger: {name} {what}");
        }
    }

    fn confirm_one(&mut self, delivery: &Delivery) {
        let counter = match delivery {
            Delivery::Readings(_) => &self.stats.confirmed,
            Delivery::Gap(_) => &self.stats.missing,
        };
        counter.fetch_add(delivery.last() - delivery.first() + 1, Ordering::Relaxed);
        self.stats.moved();
        self.positions.advance(delivery.source(), delivery.last());
        (self.confirm)(Confirmation {
            sink: self.index,
            source: delivery.source().index,
            up_to: delivery.last(),
        });
    }
}

/// Keys and gateways that are remembered.
const KEYS_MAX: usize = 65_536;
/// How long after a failure the disk is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
