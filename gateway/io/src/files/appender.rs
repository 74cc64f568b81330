use super::{Append, Appended, Appender};
use crate::storage::StorageError;

use std::{io, os::unix::fs::FileExt};

/// Appends that were waiting at the same time, and their bytes in one piece.
#[derive(Default)]
struct Batch {
    appends: Vec<Append>,
    bytes: Vec<u8>,
}

impl Batch {
    fn push(&mut self, append: Append) {
        self.bytes.extend_from_slice(&append.bytes);
        self.appends.push(append);
    }
}

impl Appender {
    /// Writes with plain system calls until all senders are gone.
    pub(super) fn run_blocking(mut self) {
        let mut batch = Batch::default();
        while let Some(append) = self.inbox.blocking_recv() {
            self.gather(append, &mut batch);
            let result = self
                .file
                .write_all_at(&batch.bytes, self.length)
                .and_then(|()| self.file.sync_data());
            self.answer(&mut batch, result);
        }
    }

    /// Writes through tokio-uring until all senders are gone; as [`Self::run_blocking`] if its ring cannot be made.
    pub(super) fn run_ring(self) {
        // Not `tokio_uring::start`, which panics where there is no io_uring.
        match tokio_uring::Runtime::new(tokio_uring::builder().entries(RING_ENTRIES)) {
            Ok(runtime) => runtime.block_on(self.run_async()),
            Err(_) => self.run_blocking(),
        }
    }

    async fn run_async(mut self) {
        // A second descriptor: tokio-uring's file closes the one it has, and truncating needs one too.
        let file = match self.file.try_clone() {
            Ok(file) => tokio_uring::fs::File::from_std(file),
            Err(_) => return self.run_until_closed().await,
        };
        let mut batch = Batch::default();
        while let Some(append) = self.inbox.recv().await {
            self.gather(append, &mut batch);
            let (written, bytes) = file
                .write_all_at(std::mem::take(&mut batch.bytes), self.length)
                .await;
            batch.bytes = bytes;
            let result = match written {
                Ok(()) => file.sync_data().await,
                Err(error) => Err(error),
            };
            self.answer(&mut batch, result);
        }
        // The lock and the last descriptor go with `self`; nothing is lost if this fails, as all is synced.
        let _ = file.close().await;
    }

    /// As [`Self::run_blocking`], for a thread that is inside a runtime already.
    async fn run_until_closed(mut self) {
        let mut batch = Batch::default();
        while let Some(append) = self.inbox.recv().await {
            self.gather(append, &mut batch);
            let result = self
                .file
                .write_all_at(&batch.bytes, self.length)
                .and_then(|()| self.file.sync_data());
            self.answer(&mut batch, result);
        }
    }

    /// Takes what is waiting, up to a bound.
    fn gather(&mut self, first: Append, batch: &mut Batch) {
        batch.push(first);
        while batch.bytes.len() < BATCH_BYTES
            && let Ok(append) = self.inbox.try_recv()
        {
            batch.push(append);
        }
    }

    /// Answers all appends of a batch; after an error the file ends again where it ended before.
    fn answer(&mut self, batch: &mut Batch, result: io::Result<()>) {
        match &result {
            Ok(()) => self.length += batch.bytes.len() as u64,
            // If that fails too, the next write begins at the same place, and the next start cuts off what is torn.
            Err(_) => drop(self.file.set_len(self.length).and_then(|()| self.file.sync_all())),
        }
        for Append { token, bytes } in batch.appends.drain(..) {
            let result = match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(StorageError::new("append to", &self.path, again(error))),
            };
            // Waits if the answers are not taken. If nobody will, the lines are written all the same.
            let _ = self.replies.send(Appended { token, bytes, result });
        }
        batch.bytes.clear();
        batch.bytes.shrink_to(BATCH_BYTES);
    }
}

/// Says an error once more, since each append is told.
fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// A batch is written when it is this large, even if more is waiting.
const BATCH_BYTES: usize = 1 << 20;

/// One write and one sync are in flight at most.
const RING_ENTRIES: u32 = 8;
