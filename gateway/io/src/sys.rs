//! Kernel calls that neither std nor socket2 offers, each wrapped so that it is safe to call.
#![expect(
    unsafe_code,
    reason = "system calls; every function here upholds the contract of the one it wraps"
)]

use std::{
    io, mem,
    net::SocketAddr,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr::{self, NonNull},
    time::Duration,
};

use socket2::SockAddr;

use crate::handler::LocalPeer;

pub(crate) mod interfaces;
pub(crate) mod messages;

/// Turns the kernel's −1 into the error it left behind.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Takes ownership of a descriptor the kernel has just made for us.
fn own(descriptor: libc::c_int) -> OwnedFd {
    assert!(descriptor >= 0, "the kernel gave {descriptor} as a descriptor");
    // SAFETY: callers pass a descriptor fresh from the kernel, so nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Takes ownership of the descriptor in an accept completion of the ring, which no one else knows yet.
pub(crate) fn own_accepted(descriptor: i32) -> OwnedFd {
    own(descriptor)
}

/// Reads a clock that exists on every Linux; zero for times before its epoch.
pub(crate) fn clock(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the one timespec the call writes.
    let result = unsafe { libc::clock_gettime(id, &raw mut time) };
    assert!(
        result == 0,
        "clock {id} cannot be read: {}",
        io::Error::last_os_error()
    );
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// Tells whether the kernel holds the wall clock for synchronised; `false` if it does not say.
pub(crate) fn clock_synchronised() -> bool {
    let mut state = mem::MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: `state` is zero, so `modes` is 0 and the call only reads the clock's state into it.
    let result = unsafe { libc::adjtimex(state.as_mut_ptr()) };
    // SAFETY: the structure holds integers only, for which the zeroes it began with are valid.
    let state = unsafe { state.assume_init() };
    result >= 0 && result != TIME_ERROR && state.status & libc::STA_UNSYNC == 0
}

/// `TIME_ERROR` of `adjtimex(2)`: the clock is not synchronised.
const TIME_ERROR: libc::c_int = 5;

/// Sleeps for `duration`, or less if a signal comes.
pub(crate) fn sleep(duration: Duration) {
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos().cast_signed().into(),
    };
    // SAFETY: `time` is a valid timespec and the remaining time is not asked for.
    unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &raw const time, ptr::null_mut()) };
}

/// Makes an eventfd with count 0, closed on exec, non-blocking.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: the call has no pointer arguments.
    check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }).map(own)
}

/// Accepts one connection, non-blocking and closed on exec.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let accept = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
        // SAFETY: socket2 hands in storage for any address and the length of that storage.
        check(unsafe {
            libc::accept4(
                listener.as_raw_fd(),
                storage.cast(),
                length,
                libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            )
        })
        .map(own)
    };
    // SAFETY: the closure has filled in storage and length, as `accept4` promises when it succeeds.
    let (descriptor, address) = unsafe { SockAddr::try_init(accept) }?;
    Ok((descriptor, address.as_socket()))
}

/// Who is at the other end of a UNIX socket (`SO_PEERCRED`).
pub(crate) fn local_peer(socket: BorrowedFd<'_>) -> io::Result<LocalPeer> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).expect("a dozen bytes");
    // SAFETY: `peer` is writable for the length given, and the kernel writes no more than that.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    })?;
    Ok(LocalPeer {
        process: u32::try_from(peer.pid).unwrap_or(0),
        user: peer.uid,
        group: peer.gid,
    })
}

/// An epoll instance; all of its descriptors are edge-triggered.
#[derive(Debug)]
pub(crate) struct Epoll {
    descriptor: OwnedFd,
    /// Linux 5.11 takes nanoseconds; before that there are only milliseconds.
    fine_timeout: bool,
}

/// One event, as the kernel writes it.
pub(crate) type EpollEvent = libc::epoll_event;

/// The timespec of system calls that came after 2038 was noticed.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanos: i64,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the call has no pointer arguments.
        let descriptor = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Self {
            descriptor: own(descriptor),
            fine_timeout: true,
        })
    }

    /// Watches `descriptor` for `events`, edge-triggered, until it is closed.
    pub(crate) fn add(&self, descriptor: BorrowedFd<'_>, events: libc::c_int, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: (events | libc::EPOLLET).cast_unsigned(),
            u64: data,
        };
        // SAFETY: both descriptors are open, as their types promise, and `event` is valid for the call.
        check(unsafe {
            libc::epoll_ctl(
                self.descriptor.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                descriptor.as_raw_fd(),
                &raw mut event,
            )
        })
        .map(drop)
    }

    /// Waits and returns how many of `events` were filled in. `None` waits without a limit.
    pub(crate) fn wait(&mut self, events: &mut [EpollEvent], timeout: Option<Duration>) -> io::Result<usize> {
        let result = if self.fine_timeout {
            self.wait_fine(events, timeout)
        } else {
            self.wait_coarse(events, timeout)
        };
        match result {
            Err(error) if self.fine_timeout && error.raw_os_error() == Some(libc::ENOSYS) => {
                self.fine_timeout = false;
                self.wait(events, timeout)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            other => other,
        }
    }

    fn wait_fine(&self, events: &mut [EpollEvent], timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map(|timeout| KernelTimespec {
            seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            nanos: i64::from(timeout.subsec_nanos()),
        });
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: `events` is writable for its length, `timeout` is null or valid, no signal mask is given.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.descriptor.as_raw_fd(),
                events.as_mut_ptr(),
                i32::try_from(events.len()).unwrap_or(i32::MAX),
                timeout,
                ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    fn wait_coarse(&self, events: &mut [EpollEvent], timeout: Option<Duration>) -> io::Result<usize> {
        // Rounded up: a wait that ends before the deadline would only be repeated.
        let millis = timeout.map_or(-1, |timeout| {
            i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        // SAFETY: `events` is writable for its length.
        let count = unsafe {
            libc::epoll_wait(
                self.descriptor.as_raw_fd(),
                events.as_mut_ptr(),
                i32::try_from(events.len()).unwrap_or(i32::MAX),
                millis,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

/// Anonymous zeroed memory at a page boundary; pages cost nothing until they are touched.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    size: usize,
}

impl Mapping {
    pub(crate) fn new(size: usize) -> io::Result<Self> {
        assert!(size > 0, "a mapping cannot be empty");
        // SAFETY: a private anonymous mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start =
            NonNull::new(start.cast()).ok_or_else(|| io::Error::other("the kernel mapped address 0"))?;
        Ok(Self { start, size })
    }

    pub(crate) const fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) const fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: start and size are those of the mapping made in `new`, which nothing else unmaps.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.size) };
    }
}

/// Reserves the first `length` bytes of a file and sets its size to that (`fallocate(2)`).
pub(crate) fn allocate(file: BorrowedFd<'_>, length: u64) -> io::Result<()> {
    let length = i64::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    loop {
        // SAFETY: the call has no pointer arguments.
        match check(unsafe { libc::fallocate64(file.as_raw_fd(), 0, 0, length) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(drop),
        }
    }
}

/// Bytes an unprivileged process can still write to the file system of `file`.
pub(crate) fn available(file: BorrowedFd<'_>) -> io::Result<u64> {
    let mut state = mem::MaybeUninit::<libc::statvfs64>::zeroed();
    // SAFETY: `state` is a valid place for the structure the call writes.
    check(unsafe { libc::fstatvfs64(file.as_raw_fd(), state.as_mut_ptr()) })?;
    // SAFETY: the call succeeded and has filled the structure in.
    let state = unsafe { state.assume_init() };
    Ok(state.f_bavail.saturating_mul(state.f_frsize))
}

/// Makes the process undumpable: no core file, no ptrace by its own user.
pub(crate) fn set_undumpable() -> io::Result<()> {
    // SAFETY: the option takes one integer.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }).map(drop)
}

/// The kinds of limits of this platform's libc (`c_uint` or `c_int`).
#[cfg(target_env = "gnu")]
pub(crate) type Resource = libc::__rlimit_resource_t;
/// The kinds of limits of this platform's libc (`c_uint` or `c_int`).
#[cfg(not(target_env = "gnu"))]
pub(crate) type Resource = libc::c_int;

/// Returns soft and hard limit.
pub(crate) fn limit(resource: Resource) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for the structure the call writes.
    check(unsafe { libc::getrlimit64(resource, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets soft and hard limit.
pub(crate) fn set_limit(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: `limit` is valid for the call.
    check(unsafe { libc::setrlimit64(resource, &raw const limit) }).map(drop)
}

/// Keeps the pages under `bytes` out of swap.
pub(crate) fn lock_memory(bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the range is one live slice; locking changes neither its content nor its mapping.
    check(unsafe { libc::mlock(bytes.as_ptr().cast(), bytes.len()) }).map(drop)
}

/// Peak resident set of this process, in KiB.
pub(crate) fn peak_resident_kib() -> io::Result<u64> {
    let mut usage = mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is a valid place for the structure the call writes.
    check(unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) })?;
    // SAFETY: the call succeeded and has filled the structure in.
    let usage = unsafe { usage.assume_init() };
    Ok(u64::try_from(usage.ru_maxrss).unwrap_or(0))
}

/// The processors the calling thread may run on, in ascending order.
pub(crate) fn allowed_processors() -> io::Result<Vec<usize>> {
    let mut set = mem::MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: `set` is writable for the size given.
    check(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) })?;
    // SAFETY: the set is an array of integers that began as zeroes.
    let set = unsafe { set.assume_init() };
    Ok((0..PROCESSORS_MAX)
        .filter(|&processor| {
            // SAFETY: `processor` is below the number of bits in the set.
            unsafe { libc::CPU_ISSET(processor, &set) }
        })
        .collect())
}

/// Binds the calling thread to one processor.
pub(crate) fn pin(processor: usize) -> io::Result<()> {
    if processor >= PROCESSORS_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: the set is an array of integers, for which zeroes are valid.
    let mut set = unsafe { mem::zeroed::<libc::cpu_set_t>() };
    // SAFETY: `processor` is below the number of bits in the set.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: `set` is readable for the size given.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) }).map(drop)
}

/// Bits in a `cpu_set_t`.
const PROCESSORS_MAX: usize = size_of::<libc::cpu_set_t>() * 8;
