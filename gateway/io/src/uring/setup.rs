//! Rings the way shards need them: fast where the kernel can, and restricted to what they do.

use std::io;

use io_uring::{Builder, EnterFlags, IoUring, Parameters, opcode, register::Restriction, squeue};

/// Builds a disabled ring. Flags this kernel does not know are left out, the most useful ones last.
pub(crate) fn build(submissions: u32, completions: u32) -> io::Result<IoUring> {
    let steps: [fn(&mut Builder); 4] = [
        |builder| {
            // Completions are worked off when we wait, not whenever the kernel likes to interrupt.
            builder
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_submit_all();
        },
        |builder| {
            builder
                .setup_single_issuer()
                .setup_coop_taskrun()
                .setup_submit_all();
        },
        |builder| {
            builder.setup_coop_taskrun().setup_submit_all();
        },
        |_| {},
    ];
    let mut last = io::Error::from_raw_os_error(libc::EINVAL);
    for step in steps {
        let mut builder = IoUring::builder();
        // Disabled, so that nothing can be submitted before the restrictions hold.
        builder.setup_r_disabled().setup_cqsize(completions);
        step(&mut builder);
        match builder.build(submissions) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = error,
            result => return result,
        }
    }
    Err(last)
}

/// Makes a table for the sockets of connections and returns how many fit. Without one everything works, only slower.
pub(crate) fn register_files(ring: &IoUring, connections_max: u32) -> u32 {
    let count = connections_max.min(FILES_MAX);
    if ring.submitter().register_files_sparse(count).is_ok() {
        return count;
    }
    // The kernel allows no more registered files than open ones.
    if ring.submitter().register_files_sparse(FILES_FEW).is_ok() {
        FILES_FEW.min(count)
    } else {
        0
    }
}

/// Restricts the ring to what shards do, for good, and enables it. The calling thread becomes the only one to use it.
///
/// Operations of a ring pass by seccomp filters, so this is the filter.
pub(crate) fn enable(ring: &IoUring) -> io::Result<()> {
    let mut restrictions = [
        Restriction::sqe_op(opcode::AcceptMulti::CODE),
        Restriction::sqe_op(opcode::RecvMulti::CODE),
        Restriction::sqe_op(opcode::RecvMsgMulti::CODE),
        Restriction::sqe_op(opcode::Send::CODE),
        Restriction::sqe_op(opcode::Connect::CODE),
        Restriction::sqe_op(opcode::Write::CODE),
        Restriction::sqe_op(opcode::PollAdd::CODE),
        Restriction::sqe_op(opcode::AsyncCancel::CODE),
        Restriction::sqe_flags_allowed(
            squeue::Flags::FIXED_FILE.bits() | squeue::Flags::BUFFER_SELECT.bits(),
        ),
        Restriction::register_op(REGISTER_FILES_UPDATE),
    ];
    ring.submitter().register_restrictions(&mut restrictions)?;
    ring.submitter().register_enable_rings()
}

/// Flags of every wait.
pub(crate) fn enter_flags(parameters: &Parameters) -> u32 {
    let mut flags = EnterFlags::EXT_ARG | EnterFlags::GETEVENTS;
    if parameters.is_feature_no_iowait() {
        // An idle shard is idle; without this the processor is shown as waiting for a disk.
        flags |= EnterFlags::NO_IOWAIT;
    }
    flags.bits()
}

/// `IORING_REGISTER_FILES_UPDATE` of `linux/io_uring.h`.
const REGISTER_FILES_UPDATE: u8 = 6;

/// Registered files are worth their memory (8 bytes each) up to here.
const FILES_MAX: u32 = 65_536;

/// Tried when the limit of open files is low; the usual soft limit.
const FILES_FEW: u32 = 1024;
