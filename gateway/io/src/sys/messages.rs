//! Many datagrams in one call.
#![expect(
    unsafe_code,
    reason = "headers of messages carry pointers; every function here keeps what they point to"
)]

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use crate::datagram::{
    DatagramPath,
    wire::{self, CONTROL_SIZE, NAME_SIZE},
};

/// One datagram to be sent.
pub(crate) struct Outgoing<'a> {
    pub(crate) path: DatagramPath,
    pub(crate) bytes: &'a [u8],
}

/// Datagrams one call takes.
pub(crate) const BATCH: usize = 32;

/// Room for an address or a control message, aligned as the kernel's structures are.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Aligned<const N: usize>([u8; N]);

/// Sends the first of `datagrams` (`sendmmsg(2)`, at most [`BATCH`]) and returns how many the kernel took.
///
/// The error is that of the first one: `WouldBlock` when the kernel has no room.
pub(crate) fn send<'a>(
    socket: BorrowedFd<'_>,
    datagrams: impl Iterator<Item = Outgoing<'a>>,
) -> io::Result<usize> {
    let mut names = [Aligned([0; NAME_SIZE]); BATCH];
    let mut controls = [Aligned([0; CONTROL_SIZE]); BATCH];
    let mut pieces = [NO_PIECE; BATCH];
    // SAFETY: headers are integers and pointers, for which zeroes are valid.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    let mut count = 0;
    let room = names
        .iter_mut()
        .zip(&mut controls)
        .zip(&mut pieces)
        .zip(&mut headers);
    for ((((name, control), piece), header), datagram) in room.zip(datagrams) {
        let (bytes, length) = wire::write_name(datagram.path.remote);
        name.0 = bytes;
        // The kernel only reads what a message that is sent points to.
        piece.iov_base = datagram.bytes.as_ptr().cast_mut().cast();
        piece.iov_len = datagram.bytes.len();
        let header = &mut header.msg_hdr;
        header.msg_name = (&raw mut name.0).cast();
        header.msg_namelen = libc::socklen_t::try_from(length).expect("names are short");
        header.msg_iov = piece;
        header.msg_iovlen = 1;
        if let Some(local) = datagram.path.local {
            let (bytes, length) = wire::write_local(local);
            control.0 = bytes;
            header.msg_control = (&raw mut control.0).cast();
            header.msg_controllen = length as _;
        }
        count += 1;
    }
    if count == 0 {
        return Ok(0);
    }
    // SAFETY: the first `count` headers were filled in above; what they point to lives in the arrays and, for the bytes, as
    // long as `'a`, both longer than the call, which keeps nothing.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Room for a batch of datagrams of any length; pages cost nothing until a datagram needs them.
#[derive(Debug)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    arrived: Vec<(Option<DatagramPath>, usize)>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; BATCH * SLOT],
            arrived: Vec::with_capacity(BATCH),
        }
    }

    /// Receives what has come, at most a batch (`recvmmsg(2)`); returns how many datagrams.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.arrived.clear();
        let mut names = [Aligned([0; NAME_SIZE]); BATCH];
        let mut controls = [Aligned([0; CONTROL_SIZE]); BATCH];
        let mut pieces = [NO_PIECE; BATCH];
        // SAFETY: headers are integers and pointers, for which zeroes are valid.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
        let room = names.iter_mut().zip(&mut controls).zip(&mut pieces);
        for (((name, control), piece), (header, slot)) in
            room.zip(headers.iter_mut().zip(self.bytes.chunks_exact_mut(SLOT)))
        {
            piece.iov_base = slot.as_mut_ptr().cast();
            piece.iov_len = slot.len();
            let header = &mut header.msg_hdr;
            header.msg_name = (&raw mut name.0).cast();
            header.msg_namelen = NAME_LENGTH;
            header.msg_iov = piece;
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut control.0).cast();
            header.msg_controllen = CONTROL_SIZE as _;
        }
        // SAFETY: all headers were filled in above; the arrays and the slots they point to are exclusively ours, apart from
        // each other, as long as their headers say, and outlive the call, which keeps nothing.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH_LENGTH,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for ((header, name), control) in headers.iter().zip(&names).zip(&controls).take(count) {
            #[allow(
                clippy::allow_attributes,
                clippy::unnecessary_cast,
                reason = "the field has other types in other C libraries"
            )]
            let length = header.msg_hdr.msg_controllen as usize;
            let path = wire::read_name(&name.0).map(|remote| DatagramPath {
                remote,
                local: control.0.get(..length).and_then(wire::read_local),
            });
            self.arrived.push((path, header.msg_len as usize));
        }
        Ok(count)
    }

    /// Returns one of the datagrams the last receive brought, and where it came from.
    pub(crate) fn datagram(&mut self, index: usize) -> Option<(Option<DatagramPath>, &mut [u8])> {
        let &(path, length) = self.arrived.get(index)?;
        let slot = self.bytes.chunks_exact_mut(SLOT).nth(index)?;
        Some((path, slot.get_mut(..length)?))
    }
}

/// Has the kernel say with each datagram to which of our addresses it was sent.
pub(crate) fn tell_local_address(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

/// Has the kernel refuse datagrams that are longer than the path takes, and not believe in smaller paths that others claim.
pub(crate) fn never_fragment(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        set(
            socket,
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_PROBE,
        )
    } else {
        set(
            socket,
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_PROBE,
        )
    }
}

fn set(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: `value` is readable for the size given.
    super::check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            INT_LENGTH,
        )
    })
    .map(drop)
}

/// No datagram is longer.
const SLOT: usize = 64 << 10;

/// Sizes in the types of the calls.
#[expect(clippy::cast_possible_truncation, reason = "they are small")]
pub(crate) const NAME_LENGTH: libc::socklen_t = NAME_SIZE as libc::socklen_t;
#[expect(clippy::cast_possible_truncation, reason = "they are small")]
const BATCH_LENGTH: libc::c_uint = BATCH as libc::c_uint;
#[expect(clippy::cast_possible_truncation, reason = "they are small")]
const INT_LENGTH: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;

const NO_PIECE: libc::iovec = libc::iovec {
    iov_base: ptr::null_mut(),
    iov_len: 0,
};
