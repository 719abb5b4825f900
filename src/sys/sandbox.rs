//! The sandbox of a child: what a policy never needs is refused by the kernel, so that code which breaks out of Lua reaches little.
//!
//! A list of what is refused, not of what is allowed: the C library's own calls change from version to version.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// Programs, other processes, mounts, namespaces, kernel internals.
const REFUSED: [libc::c_long; 23] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_quotactl,
    libc::SYS_swapon,
];
/// With these a child could stretch its one page of the board over its neighbour's. Refused as if memory were short: realloc(3) then copies.
const SHORT_OF_MEMORY: [libc::c_long; 2] = [libc::SYS_mremap, libc::SYS_remap_file_pages];

fn filter(calls: &[libc::c_long], errno: libc::c_int) -> io::Result<BpfProgram> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let rules: BTreeMap<i64, _> = calls.iter().map(|call| (*call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)
        .and_then(BpfProgram::try_from)
        .map_err(io::Error::other)
}

/// Confines this process for good. The caller has one thread; later ones inherit it.
///
/// # Errors
/// When the kernel has no seccomp filters, or for an unknown machine.
pub fn enter() -> io::Result<()> {
    for program in [
        filter(&REFUSED, libc::EPERM)?,
        filter(&SHORT_OF_MEMORY, libc::ENOMEM)?,
    ] {
        // Sets no_new_privs as well.
        seccompiler::apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(())
}
