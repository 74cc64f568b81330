//! Does io_uring work here? Asking the kernel is not enough: multishot receive cannot be asked for, and filters lie.

use std::{
    io::{self, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use super::{Completion, Inbox, Operation, Ring};
use crate::{
    connection::{BufferClass, ConnectionId},
    shard::{Settings, Stats},
    waker::Waker,
};

/// Why io_uring is not used.
#[derive(Debug)]
pub(crate) enum ProbeError {
    /// Below 6.1 multishot receive and deferred task work are missing.
    Kernel { release: String },
    /// The kernel refused.
    Ring { step: &'static str, source: io::Error },
    /// The kernel did something else than it should.
    Behaviour { what: &'static str },
}

impl ProbeError {
    pub(crate) fn into_source(self) -> Option<io::Error> {
        match self {
            Self::Ring { source, .. } => Some(source),
            Self::Kernel { .. } | Self::Behaviour { .. } => None,
        }
    }
}

/// Tries out what shards depend on, in about a millisecond, and says which of the optional features are there.
pub(crate) fn probe() -> Result<String, ProbeError> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    check_release(release.trim())?;
    let settings = Settings {
        connections_max: 8,
        device_buffers: 8,
        link_buffers: 8,
        ..Settings::default()
    };
    let ring = |step| move |source| ProbeError::Ring { step, source };
    let waker = Waker::new().map_err(ring("eventfd"))?;
    let (mut driver, mut inbox) = Ring::new(&settings, &waker).map_err(ring("io_uring_setup"))?;
    let (ours, theirs) = UnixStream::pair().map_err(ring("socketpair"))?;
    let result = try_out(&mut driver, &mut inbox, &ours, theirs);
    // Whatever went wrong, the kernel must let go of the buffers before they are freed.
    let mut shard = crate::shard::Shard::new(settings);
    driver.shut_down(&mut shard, &mut inbox);
    result.map(|()| describe(&driver))
}

fn check_release(release: &str) -> Result<(), ProbeError> {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    // What cannot be read is given the benefit of the doubt: the self-test decides.
    if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next())
        && (major, minor) < KERNEL_MIN
    {
        return Err(ProbeError::Kernel {
            release: release.to_owned(),
        });
    }
    Ok(())
}

/// Arms one multishot receive and has it bring two messages and the end of the stream.
fn try_out(
    ring: &mut Ring,
    inbox: &mut Inbox,
    ours: &UnixStream,
    mut theirs: UnixStream,
) -> Result<(), ProbeError> {
    let failed = |step| move |source| ProbeError::Ring { step, source };
    let behaviour = |what| Err(ProbeError::Behaviour { what });
    ring.arm_probe(ours);
    for message in [b"first".as_slice(), b"second"] {
        theirs.write_all(message).map_err(failed("socketpair write"))?;
        let Some(completion) = next(ring, inbox).map_err(failed("io_uring_enter"))? else {
            return behaviour("no completion came for a receive");
        };
        if !io_uring::cqueue::more(completion.flags) {
            return behaviour("a multishot receive ended after one message");
        }
        let Some(buffer) = io_uring::cqueue::buffer_select(completion.flags) else {
            return behaviour("a receive did not use a provided buffer");
        };
        let buffers = inbox.buffers(BufferClass::Device);
        buffers.take(buffer);
        let length = usize::try_from(completion.result)
            .unwrap_or(0)
            .min(BufferClass::Device.buffer_size());
        let equal = buffers.bytes(buffer, length) == message;
        buffers.recycle(buffer);
        buffers.publish();
        if !equal {
            return behaviour("a receive brought other bytes than were sent");
        }
    }
    drop(theirs);
    match next(ring, inbox).map_err(failed("io_uring_enter"))? {
        Some(Completion { result: 0, flags, .. }) if !io_uring::cqueue::more(flags) => Ok(()),
        Some(_) => behaviour("the end of a stream was not told"),
        None => behaviour("no completion came for the end of a stream"),
    }
}

/// Waits for one completion.
fn next(ring: &mut Ring, inbox: &mut Inbox) -> io::Result<Option<Completion>> {
    ring.wait(inbox, Some(PATIENCE), Duration::ZERO, &mut Stats::default())?;
    Ok(inbox.completions.pop())
}

fn describe(ring: &Ring) -> String {
    let mut features = vec!["multishot receive"];
    if ring.registered_max > 0 {
        features.push("registered files");
    }
    features.join(", ")
}

impl Ring {
    /// Arms a multishot receive on a socket that is no connection.
    fn arm_probe(&mut self, socket: &UnixStream) {
        let entry = io_uring::opcode::RecvMulti::new(
            io_uring::types::Fd(std::os::fd::AsRawFd::as_raw_fd(socket)),
            super::group(BufferClass::Device),
        );
        let token = Operation::ReceiveDevice.token(ConnectionId {
            index: 0,
            generation: 0,
        });
        self.push_plain(&entry.build().user_data(token));
    }
}

/// The oldest kernel whose io_uring is used.
const KERNEL_MIN: (u32, u32) = (6, 1);

/// A completion takes microseconds; a machine that swaps takes longer.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_told_by_their_number() {
        for old in ["5.15.0-91-generic", "6.0.19", "4.4"] {
            assert!(
                matches!(check_release(old), Err(ProbeError::Kernel { .. })),
                "{old}"
            );
        }
        for new in ["6.1.0-18-amd64", "6.18.44", "7.0-rc1", "strange", ""] {
            assert!(check_release(new).is_ok(), "{new}");
        }
    }

    #[test]
    fn the_ring_works_on_this_machine() {
        if std::env::var("FIELDGATE_IO").is_ok_and(|choice| choice == "epoll") {
            return;
        }
        let features = probe().expect("the kernel has io_uring; otherwise set FIELDGATE_IO=epoll");
        assert!(features.starts_with("multishot receive"), "{features}");
    }
}
