use std::{
    io,
    os::unix::fs::FileExt,
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
};

use crate::{io::Io, storage::FileRef, thread, waker::Waker};

/// A thread that writes durably for one shard, because epoll knows nothing of files.
#[derive(Debug)]
pub(crate) struct Writer {
    /// `None` only while it is dropped.
    requests: Option<Sender<Request>>,
    done: Receiver<Done>,
    in_flight: usize,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Request {
    file: FileRef,
    offset: u64,
    buffer: Vec<u8>,
    token: u64,
}

#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) token: u64,
    pub(crate) buffer: Vec<u8>,
    pub(crate) result: io::Result<()>,
}

impl Writer {
    /// Starts the thread; it uses `waker` after each write.
    pub(crate) fn spawn(waker: Waker) -> io::Result<Self> {
        // Neither queue can hold more than the writes in flight, which `write` bounds.
        let (requests, inbox) = channel::<Request>();
        let (outbox, done) = channel();
        let thread = thread::spawn("fg-writer", None, move || {
            for Request {
                file,
                offset,
                buffer,
                token,
            } in inbox
            {
                let file = file.file();
                let result = file.write_all_at(&buffer, offset).and_then(|()| file.sync_data());
                if outbox
                    .send(Done {
                        token,
                        buffer,
                        result,
                    })
                    .is_err()
                {
                    return;
                }
                waker.wake();
            }
        })?;
        Ok(Self {
            requests: Some(requests),
            done,
            in_flight: 0,
            thread: Some(thread),
        })
    }

    pub(crate) fn write(
        &mut self,
        file: &FileRef,
        offset: u64,
        buffer: Vec<u8>,
        token: u64,
    ) -> Result<(), Vec<u8>> {
        if self.in_flight >= Io::WRITES_MAX {
            return Err(buffer);
        }
        let Some(requests) = &self.requests else {
            return Err(buffer);
        };
        requests
            .send(Request {
                file: file.clone(),
                offset,
                buffer,
                token,
            })
            .map_err(|error| error.0.buffer)?;
        self.in_flight += 1;
        Ok(())
    }

    pub(crate) fn take_done(&mut self) -> Option<Done> {
        let done = self.done.try_recv().ok()?;
        self.in_flight -= 1;
        Some(done)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // The thread does nothing that panics; and if it did, the shard would be ending anyway.
            let _ = thread.join();
        }
    }
}
