//! The filter of system calls: what no signer needs is refused, so that a module sees an error and does not die of it.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::process;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

/// Installs the filters in all threads of this process.
pub(super) fn install(network: bool) -> Result<(), String> {
    let arch = TargetArch::try_from(ARCH).map_err(|_| format!("there is no filter for {ARCH}"))?;
    for filter in [refusals(arch, network), absences(arch)] {
        let filter = filter.map_err(|error| error.to_string())?;
        apply_filter_all_threads(&filter).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// What is refused as forbidden.
fn refusals(arch: TargetArch, network: bool) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        FORBIDDEN.into_iter().map(|call| (call, vec![])).collect();
    rules.insert(libc::SYS_socket, foreign_sockets(network)?);
    rules.insert(libc::SYS_clone, vec![rule([flag(0, libc::CLONE_NEWUSER)?])?]);
    // Signals go to this very process only; the thread library sends itself some.
    let own = u64::from(process::id());
    for call in [
        libc::SYS_kill,
        libc::SYS_tgkill,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
    ] {
        rules.insert(call, vec![rule([is_not(0, own)?])?]);
    }
    add_second_numbers(&mut rules);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.cast_unsigned()),
        arch,
    )?;
    filter.try_into()
}

/// What is refused as if the kernel did not have it, so that libraries fall back to what can be filtered.
fn absences(arch: TargetArch) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::from([(libc::SYS_clone3, vec![])]);
    add_second_numbers(&mut rules);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
        arch,
    )?;
    filter.try_into()
}

/// Sockets of other families than UNIX, but for the one that tells of devices being plugged in; with a network also those
/// of IP and of its configuration.
fn foreign_sockets(network: bool) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let mut allowed = vec![libc::AF_UNIX, libc::AF_NETLINK];
    if network {
        allowed.extend([libc::AF_INET, libc::AF_INET6]);
    }
    let foreign = allowed
        .into_iter()
        .map(|family| is_not(0, u64::from(family.cast_unsigned())))
        .collect::<Result<Vec<_>, _>>()?;
    let mut rules = vec![SeccompRule::new(foreign)?];
    if !network {
        rules.push(rule([
            is(0, u64::from(libc::AF_NETLINK.cast_unsigned()))?,
            is_not(2, u64::from(libc::NETLINK_KOBJECT_UEVENT.cast_unsigned()))?,
        ])?);
    }
    Ok(rules)
}

/// On x86-64 the kernel may know each call by a second number (x32), which must not lead around the filter.
fn add_second_numbers(rules: &mut BTreeMap<i64, Vec<SeccompRule>>) {
    if cfg!(target_arch = "x86_64") {
        let doubled: Vec<_> = rules
            .iter()
            .map(|(call, rules)| (call | X32_BIT, rules.clone()))
            .collect();
        rules.extend(doubled);
        rules.extend(X32_FORBIDDEN.map(|call| (call | X32_BIT, vec![])));
    }
}

fn rule<const N: usize>(conditions: [SeccompCondition; N]) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(conditions.to_vec())
}

fn is(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn is_not(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value)
}

fn flag(argument: u8, flag: libc::c_int) -> Result<SeccompCondition, seccompiler::BackendError> {
    let flag = u64::from(flag.cast_unsigned());
    SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(flag),
        flag,
    )
}

/// Programs, other processes, mounts, modules of the kernel, its keys, its programmable parts, the clock.
const FORBIDDEN: [i64; 53] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_tkill,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// What marks a number of the x32 interface.
const X32_BIT: i64 = 0x4000_0000;
/// Calls that have a number of their own there: rt_sigqueueinfo, execve, ptrace, kexec_load, rt_tgsigqueueinfo,
/// process_vm_readv, process_vm_writev, execveat (Linux, arch/x86/entry/syscalls/syscall_64.tbl).
const X32_FORBIDDEN: [i64; 8] = [524, 520, 521, 528, 536, 539, 540, 545];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_compile_for_every_architecture() {
        for arch in [TargetArch::x86_64, TargetArch::aarch64] {
            for network in [false, true] {
                let program = refusals(arch, network).unwrap();
                assert!(program.len() > FORBIDDEN.len(), "{}", program.len());
            }
            assert!(!absences(arch).unwrap().is_empty());
        }
    }
}
