//! The sandbox of a child: what a policy never needs is refused by the kernel, so that code which breaks out of Lua reaches little.
//!
//! Two walls, each where the kernel has it: a filter of system calls (seccomp), here and in `refused`, and no files, network and processes
//! ([`super::landlock`]). The filter is a list of what is refused, not of what is allowed: the C library's own calls change from version to version.

mod refused;

use std::fmt;
use std::io;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use super::landlock::{self, Files};
use refused::{Rules, SHORT_OF_MEMORY, UNKNOWN, always, refused, second_numbers};

fn filter(rules: Rules, errno: libc::c_int) -> io::Result<BpfProgram> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)
        .and_then(BpfProgram::try_from)
        .map_err(io::Error::other)
}

/// What this kernel has for confining a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walls {
    /// Filters of system calls.
    pub seccomp: bool,
    /// Version of landlock's interface; 0: none.
    pub landlock: u32,
}

impl Walls {
    /// Asks the kernel. Nothing changes.
    pub fn of_this_kernel() -> Walls {
        // SAFETY: seccomp(2) with SECCOMP_GET_ACTION_AVAIL reads the one number at the pointer.
        let answer = unsafe {
            let action: u32 = libc::SECCOMP_RET_ERRNO;
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_GET_ACTION_AVAIL,
                0,
                &raw const action,
            )
        };
        Walls {
            seccomp: answer == 0,
            landlock: landlock_version(),
        }
    }
}

impl fmt::Display for Walls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.seccomp, self.landlock) {
            (true, 0) => f.write_str("seccomp (this kernel has no landlock)"),
            (true, version) => write!(f, "seccomp and landlock (ABI {version})"),
            (false, 0) => f.write_str("nothing: this kernel has neither seccomp nor landlock"),
            (false, version) => write!(f, "landlock (ABI {version}; this kernel has no seccomp)"),
        }
    }
}

/// Version of the kernel's landlock; 0 when it has none, or does not use it (`lsm=`).
pub(super) fn landlock_version() -> u32 {
    /// `LANDLOCK_CREATE_RULESET_VERSION`, linux/landlock.h.
    const VERSION: libc::c_long = 1;
    // SAFETY: landlock_create_ruleset(2) asked for its version takes a null pointer and no size.
    let version = unsafe {
        let none: *const libc::c_void = std::ptr::null();
        libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, VERSION)
    };
    u32::try_from(version).unwrap_or(0)
}

/// Confines this process for good. The caller has one thread; later ones inherit it.
///
/// # Errors
/// When the kernel has no seccomp filters, or for an unknown machine. What landlock can do is done all the same; that a kernel has none is no error.
pub fn enter(files: Files) -> io::Result<()> {
    let walled = landlock::enter(files);
    filter_calls()?;
    walled.map(drop)
}

fn filter_calls() -> io::Result<()> {
    let programs = [
        filter(refused(std::process::id())?, libc::EPERM)?,
        filter(always(&SHORT_OF_MEMORY), libc::ENOMEM)?,
        filter(always(&UNKNOWN), libc::ENOSYS)?,
    ];
    for program in programs.into_iter().chain(second_numbers()) {
        // Sets no_new_privs as well.
        seccompiler::apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::refused::{NAMESPACES, SHARES, SHARES_OF_MANY, SIGNALS};
    use super::*;

    /// The errno of a call; 0: it was let through.
    fn errno(call: libc::c_long, arguments: [libc::c_long; 3]) -> i32 {
        let [first, second, third] = arguments;
        // SAFETY: every call of this test is refused, or harmless with these arguments: null pointers, signal 0, descriptor -1.
        let result = unsafe { libc::syscall(call, first, second, third, 0, 0) };
        if call == libc::SYS_clone && result == 0 {
            // The child of a clone that was not refused.
            crate::sys::process::exit_now(0);
        }
        if result >= 0 {
            return 0;
        }
        io::Error::last_os_error().raw_os_error().unwrap()
    }

    #[test]
    fn what_reaches_other_processes_mounts_and_namespaces_is_refused_and_threads_are_made() {
        // A filter is its thread's and that of the threads that it makes: the other tests go on unconfined.
        let confined = std::thread::spawn(|| {
            enter(Files::None).unwrap();
            let own = libc::c_long::from(std::process::id());
            let parent = libc::c_long::from(std::os::unix::process::parent_id());
            let mut calls: Vec<(libc::c_long, [libc::c_long; 3], i32)> = vec![
                (libc::SYS_execve, [0; 3], libc::EPERM),
                (libc::SYS_mremap, [0; 3], libc::ENOMEM),
                (libc::SYS_clone3, [0; 3], libc::ENOSYS),
                (libc::SYS_io_uring_setup, [0; 3], libc::EPERM),
                (libc::SYS_fsopen, [0; 3], libc::EPERM),
                (libc::SYS_fsmount, [-1, 0, 0], libc::EPERM),
                (libc::SYS_move_mount, [-1, 0, -1], libc::EPERM),
                (libc::SYS_open_tree, [-1, 0, 0], libc::EPERM),
                (libc::SYS_mount_setattr, [-1, 0, 0], libc::EPERM),
                (libc::SYS_tkill, [parent, 0, 0], libc::EPERM),
                (libc::SYS_pidfd_send_signal, [-1, 0, 0], libc::EPERM),
                (libc::SYS_prlimit64, [0; 3], 0),
                (libc::SYS_prlimit64, [own, 0, 0], 0),
                (libc::SYS_kill, [own, 0, 0], 0),
                (libc::SYS_tgkill, [own, own, 0], 0),
                // By its number of x32, which only the filter answers so.
                #[cfg(target_arch = "x86_64")]
                (libc::SYS_getpid | 0x4000_0000, [0; 3], libc::EPERM),
                // Its own group and everybody.
                (libc::SYS_kill, [0, 0, 0], libc::EPERM),
                (libc::SYS_kill, [-1, 0, 0], libc::EPERM),
                (libc::SYS_tgkill, [parent, parent, 0], libc::EPERM),
                (libc::SYS_fcntl, [0, libc::F_GETFD.into(), 0], 0),
                (
                    libc::SYS_fcntl,
                    [-1, libc::F_SETOWN.into(), parent],
                    libc::EPERM,
                ),
                // FIOSETOWN, SIOCSPGRP; the kernel looks at the low half.
                (libc::SYS_ioctl, [-1, 0x8901, 0], libc::EPERM),
                (libc::SYS_ioctl, [-1, 0x8902, 0], libc::EPERM),
                (libc::SYS_ioctl, [-1, 0x1_0000_8901, 0], libc::EPERM),
                // FIONBIO.
                (libc::SYS_ioctl, [-1, 0x5421, 0], libc::EBADF),
            ];
            for call in SIGNALS {
                calls.push((call, [parent, 0, 0], libc::EPERM));
            }
            for call in SHARES {
                calls.push((call, [parent, 0, 0], libc::EPERM));
                if call != libc::SYS_prlimit64 {
                    // The kernel's own answer to a null pointer.
                    calls.push((call, [0; 3], libc::EINVAL));
                    calls.push((call, [own, 0, 0], libc::EINVAL));
                }
            }
            for (call, process) in SHARES_OF_MANY {
                let process = libc::c_long::try_from(process).unwrap();
                calls.push((call, [process, parent, 0], libc::EPERM));
                // Its group.
                calls.push((call, [process + 1, 0, 0], libc::EPERM));
                calls.push((call, [process, 0, 0], 0));
            }
            for flag in NAMESPACES {
                let flags = libc::c_long::from(flag | libc::SIGCHLD);
                calls.push((libc::SYS_clone, [flags, 0, 0], libc::EPERM));
            }
            let wrong: Vec<_> = calls
                .into_iter()
                .map(|(call, arguments, expected)| {
                    (call, arguments, errno(call, arguments), expected)
                })
                .filter(|(_, _, got, expected)| got != expected)
                .collect();
            assert_eq!(wrong, [], "call, arguments, errno, expected errno");
            std::thread::spawn(|| 7).join().unwrap()
        });
        assert_eq!(confined.join().unwrap(), 7);
    }
}
