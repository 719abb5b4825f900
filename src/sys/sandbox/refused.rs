//! What the filter of system calls refuses, and with which arguments.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule, sock_filter,
};

/// Programs, other processes, mounts, namespaces, kernel internals.
const REFUSED: [libc::c_long; 34] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    // They name a thread or a descriptor, so that a filter cannot tell whose process that is.
    libc::SYS_tkill,
    libc::SYS_pidfd_send_signal,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // Its requests are seen by no filter.
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
];
/// With these a child could stretch its one page of the board over its neighbour's. Refused as if memory were short: realloc(3) then copies.
pub(super) const SHORT_OF_MEMORY: [libc::c_long; 2] =
    [libc::SYS_mremap, libc::SYS_remap_file_pages];
/// Its flags lie in memory, where no filter sees them. Refused as on an old kernel: the C library then makes its threads by clone(2).
pub(super) const UNKNOWN: [libc::c_long; 1] = [libc::SYS_clone3];
/// Signals to a process that the first argument names.
pub(super) const SIGNALS: [libc::c_long; 4] = [
    libc::SYS_kill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
];
/// What a process gets of processors and memory, the first argument names it (0: oneself): a limit of processor time is a way to kill, the idle class
/// and a processor that is busy are ways to keep a master of the same user from its work.
pub(super) const SHARES: [libc::c_long; 5] = [
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
];
/// Likewise, but the second argument names it, if the first is this; else it names a group of processes or a user.
pub(super) const SHARES_OF_MANY: [(libc::c_long, u64); 2] = [
    // PRIO_PROCESS
    (libc::SYS_setpriority, 0),
    // IOPRIO_WHO_PROCESS
    (libc::SYS_ioprio_set, 1),
];
/// New namespaces: the flags of clone(2).
pub(super) const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// What lets the kernel send a signal to somebody else when a descriptor is ready: fcntl(2) with F_SETOWN, F_SETSIG, F_SETOWN_EX, and ioctl(2) with
/// FIOSETOWN, SIOCSPGRP. SIGIO ends a process that does not expect it; landlock hides other processes from it from Linux 6.12 on only.
const SIGNAL_BY_DESCRIPTOR: [(libc::c_long, &[u64]); 2] = [
    (libc::SYS_fcntl, &[8, 10, 15]),
    (libc::SYS_ioctl, &[0x8901, 0x8902]),
];

pub(super) type Rules = BTreeMap<i64, Vec<SeccompRule>>;

pub(super) fn always(calls: &[libc::c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// A rule that holds when all of these do; of an argument the low half counts, as for the kernel with an int.
fn when(conditions: &[(u8, SeccompCmpOp, u64)]) -> io::Result<SeccompRule> {
    let conditions = conditions
        .iter()
        .map(|(argument, operator, value)| {
            SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operator.clone(), *value)
        })
        .collect::<Result<Vec<_>, _>>();
    conditions
        .and_then(SeccompRule::new)
        .map_err(io::Error::other)
}

/// What is refused whatever its arguments, and what with some arguments only.
pub(super) fn refused(own_pid: u32) -> io::Result<Rules> {
    let own = u64::from(own_pid);
    let mut rules = always(&REFUSED);
    for call in SIGNALS {
        rules.insert(call, vec![when(&[(0, SeccompCmpOp::Ne, own)])?]);
    }
    let namespaces = NAMESPACES.iter().map(|flag| {
        let flag = u64::from(flag.cast_unsigned());
        when(&[(0, SeccompCmpOp::MaskedEq(flag), flag)])
    });
    rules.insert(libc::SYS_clone, namespaces.collect::<io::Result<_>>()?);
    for (call, commands) in SIGNAL_BY_DESCRIPTOR {
        let commands = commands
            .iter()
            .map(|command| when(&[(1, SeccompCmpOp::Eq, *command)]));
        rules.insert(call, commands.collect::<io::Result<_>>()?);
    }
    let of_another = |argument| {
        when(&[
            (argument, SeccompCmpOp::Ne, 0),
            (argument, SeccompCmpOp::Ne, own),
        ])
    };
    for call in SHARES {
        rules.insert(call, vec![of_another(0)?]);
    }
    for (call, process) in SHARES_OF_MANY {
        let many = when(&[(0, SeccompCmpOp::Ne, process)])?;
        rules.insert(call, vec![many, of_another(1)?]);
    }
    Ok(rules)
}

/// On x86-64 a kernel with x32 takes every call by a second number as well (`__X32_SYSCALL_BIT`), which no rule names; the machine is the same, so that
/// the rules' own check of it lets them pass. All of them are refused: nothing here is made for x32.
pub(super) fn second_numbers() -> Option<BpfProgram> {
    /// `__X32_SYSCALL_BIT`, asm/unistd.h.
    const FIRST: u32 = 0x4000_0000;
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    // linux/filter.h, linux/seccomp.h.
    cfg!(target_arch = "x86_64").then(|| {
        vec![
            // BPF_LD | BPF_W | BPF_ABS: seccomp_data.nr.
            step(0x20, 0, 0, 0),
            // BPF_JMP | BPF_JGE | BPF_K: the next one, or the one after it.
            step(0x35, 0, 1, FIRST),
            // BPF_RET | BPF_K. Also for -1, a call that a tracer skips.
            step(
                0x06,
                0,
                0,
                libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs(),
            ),
            step(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
        ]
    })
}
