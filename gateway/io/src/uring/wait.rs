#![expect(
    unsafe_code,
    reason = "entering the kernel submits entries that carry pointers"
)]

use std::{io, time::Duration};

use io_uring::{
    cqueue, opcode,
    types::{CancelBuilder, SubmitArgs, Timespec},
};

use super::{Completion, Inbox, Operation, Ring, writes::WriteTable};
use crate::{
    clock,
    shard::{Shard, Stats},
    sys,
    table::Table,
};

impl Ring {
    /// Submits what is queued without waiting.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        self.enter(0, None)
    }

    /// Submits and waits at most `timeout`; the first `window` of it without being disturbed by less than a full batch.
    pub(crate) fn wait(
        &mut self,
        inbox: &mut Inbox,
        timeout: Option<Duration>,
        window: Duration,
        stats: &mut Stats,
    ) -> io::Result<()> {
        inbox.completions.clear();
        inbox.completions.append(&mut self.spill);
        if !inbox.completions.is_empty() || timeout == Some(Duration::ZERO) {
            self.enter(0, None)?;
        } else if window.is_zero() {
            self.enter(1, timeout)?;
        } else {
            self.enter(BATCH, Some(window))?;
            // Not the kernel's `min_wait`, which is both in one call: Linux 6.18 sometimes leaves a thread asleep in it that has
            // work, until its timeout.
            let rest = timeout.map(|timeout| timeout.saturating_sub(window));
            if self.ring.completion().is_empty() && rest != Some(Duration::ZERO) {
                stats.system_calls += 1;
                self.enter(1, rest)?;
            }
        }
        let mut count = self.reap(&mut inbox.completions);
        // One wait for one completion runs a bounded number of deferred tasks. As long as it came back full there are more,
        // and a larger turn makes larger sends.
        while count >= TASKS_PER_WAIT && inbox.completions.len() < BATCH {
            stats.system_calls += 1;
            self.enter(0, None)?;
            count = self.reap(&mut inbox.completions);
        }
        Ok(())
    }

    /// Enters the kernel. That time is up, a signal came, or completions must be taken first, is no error.
    fn enter(&mut self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        let queued = u32::try_from(self.ring.submission().len()).unwrap_or(u32::MAX);
        let want = u32::try_from(want).unwrap_or(u32::MAX);
        let time = timeout.map(Timespec::from);
        let arguments = SubmitArgs::new();
        let arguments = time.as_ref().map_or(arguments, |time| arguments.timespec(time));
        // SAFETY: the arguments are of the type that EXT_ARG announces and, with the time in them, outlive the call; the
        // queued entries were pushed under the promise `push` asks for.
        let result = unsafe {
            self.ring
                .submitter()
                .enter(queued, want, self.enter_flags, Some(&arguments))
        };
        match result {
            Ok(_) => Ok(()),
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Moves what is in the completion queue to `completions` and returns how many came.
    pub(super) fn reap(&mut self, completions: &mut Vec<Completion>) -> usize {
        let before = completions.len();
        let mut ended = 0;
        completions.extend(self.ring.completion().map(|entry| {
            if !cqueue::more(entry.flags()) {
                ended += 1;
            }
            Completion {
                token: entry.user_data(),
                result: entry.result(),
                flags: entry.flags(),
            }
        }));
        assert!(
            ended <= self.in_flight,
            "{ended} operations ended, {} were in flight",
            self.in_flight
        );
        self.in_flight -= ended;
        completions.len() - before
    }

    /// Cancels everything and waits until the kernel has given back all memory. If it does not, the memory is leaked:
    /// better lost than overwritten.
    pub(crate) fn shut_down(&mut self, shard: &mut Shard, inbox: &mut Inbox) {
        let deadline = clock::monotonic() + clock::nanos(SHUT_DOWN_TIMEOUT);
        while self.in_flight > 0 && clock::monotonic() < deadline {
            let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
            self.push_plain(&entry.user_data(Operation::CancelAny.token_of(0)));
            let mut completions = std::mem::take(&mut self.spill);
            // Wait for everything; a write that has begun cannot be cancelled and takes as long as the disk does.
            if self.enter(self.in_flight, Some(SHUT_DOWN_ROUND)).is_err() {
                break;
            }
            self.reap(&mut completions);
            for completion in completions {
                if let Some((Operation::Accept, _)) = Operation::from_token(completion.token)
                    && completion.result >= 0
                {
                    drop(sys::own_accepted(completion.result));
                }
            }
        }
        if self.in_flight > 0 {
            std::mem::forget(std::mem::replace(&mut shard.connections, Table::new(0)));
            std::mem::forget(std::mem::replace(&mut self.writes, WriteTable::new()));
            inbox.device.leak();
            inbox.link.leak();
            inbox.datagrams.leak();
            std::mem::forget(std::mem::take(&mut self.datagram_header));
        }
    }
}

/// Completions that make a batch full.
const BATCH: usize = 256;

/// Deferred tasks the kernel runs in a wait for one completion are 20; a little less counts as "there may be more".
const TASKS_PER_WAIT: usize = 16;

/// Time the kernel gets to give everything back when a driver is dropped; a stuck disk is the only reason to need it.
const SHUT_DOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Cancellation is repeated after this, for operations that were just being moved between queues.
const SHUT_DOWN_ROUND: Duration = Duration::from_millis(50);
