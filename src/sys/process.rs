//! Processes: fork, reap, pid descriptors, what the kernel says of one.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

/// Which side of a fork we are on.
#[derive(Debug)]
pub enum Forked {
    /// The parent, with the child's pid.
    Parent(Pid),
    /// The child. It leaves by [`exit_now`] only.
    Child,
}

/// Forks a process that has exactly one thread.
///
/// # Errors
/// The kernel's; and `Other` when more than one thread runs, since another thread's locks would stay taken for ever in the child.
pub fn fork_single_threaded() -> io::Result<Forked> {
    if let Ok(tasks) = fs::read_dir("/proc/self/task")
        && tasks.count() > 1
    {
        return Err(io::Error::other(
            "a process with several threads cannot fork a worker",
        ));
    }
    // SAFETY: just checked that this is the only thread, so no lock can be held by a thread that does not exist in the child.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Forked::Parent(child)),
        ForkResult::Child => Ok(Forked::Child),
    }
}

/// Ends the process without running the parent's exit handlers or flushing its buffers a second time.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit never returns and touches no Rust state.
    unsafe { libc::_exit(status) }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
}

/// Reaps one dead child of ours, if there is one.
pub fn reap() -> Option<(Pid, Ended)> {
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) => return Some((pid, Ended::Exited(status))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                return Some((pid, Ended::Signalled(signal as i32)));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return None,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// Waits for one child of ours to end.
pub fn wait_for(pid: Pid) -> Option<Ended> {
    loop {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, status)) => return Some(Ended::Exited(status)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Some(Ended::Signalled(signal as i32)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// Makes this process a session leader without terminal.
///
/// # Errors
/// The kernel's.
pub fn new_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    Ok(())
}

/// Closes every descriptor but standard input, output and error, and `kept`: a master must not hold what its starter happened to have
/// open, an init script's lock for one. Not earlier: an argument may name one (`-c /dev/fd/3`).
/// To be called by a process that is to become a master, and has opened nothing else that it needs.
pub fn close_inherited(kept: Option<std::os::fd::BorrowedFd<'_>>) {
    close_all_but(kept.map(|fd| fd.as_raw_fd()));
}

/// Closes every descriptor but standard input, output and error, and those of these numbers.
/// To be called by a process that owns no other one any more.
pub fn close_all_but(kept: impl IntoIterator<Item = RawFd>) {
    let mut kept: Vec<u32> = kept
        .into_iter()
        .filter_map(|fd| u32::try_from(fd).ok())
        .filter(|fd| *fd >= 3)
        .collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        close_range(first, fd.checked_sub(1));
        first = fd.saturating_add(1);
    }
    close_range(first, Some(u32::MAX));
}

fn close_range(first: u32, last: Option<u32>) {
    if let Some(last) = last
        && first <= last
    {
        // SAFETY: close_range(2) takes numbers only; what is among them is not used any more, as the callers of our callers promise.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

/// No program that this process could execute gains anything by that (set-user-id bits, file capabilities): PR_SET_NO_NEW_PRIVS.
///
/// # Errors
/// The kernel's.
pub fn gain_nothing_by_executing() -> io::Result<()> {
    Ok(nix::sys::prctl::set_no_new_privs()?)
}

/// Gives the process the name that `ps` and `top` show (15 bytes at most).
pub fn set_name(name: &str) {
    let bytes: Vec<u8> = name.bytes().filter(|byte| *byte != 0).take(15).collect();
    if let Ok(name) = std::ffi::CString::new(bytes) {
        // A name is a courtesy: failing to set it harms nothing.
        let _ = nix::sys::prctl::set_name(&name);
    }
}

/// This process, forked a moment ago by one with a single thread, is killed when its parent ends. True unless that has happened already.
pub fn die_with_parent(parent: Pid) -> bool {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).is_ok() && nix::unistd::getppid() == parent
}

/// Nobody who shares our user can look into this process or take its descriptors any more (ptrace(2)): a hijacked child of a master that is
/// not root's must not own its master. Executing a program takes it back, so that each one says it anew.
pub fn keep_others_out() {
    // Failing is possible only for other values (prctl(2)).
    let _ = nix::sys::prctl::set_dumpable(false);
}

/// Puts /dev/null on standard input, output and error.
///
/// # Errors
/// When /dev/null cannot be opened.
pub fn detach_stdio() -> io::Result<()> {
    let null = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

/// Raises the limit of open files to its hard limit; returns it.
pub fn raise_descriptor_limit() -> u64 {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) => {
            if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err() {
                return soft;
            }
            hard
        }
        Err(_) => 1024,
    }
}

/// Lowers the limit of open files, for good, to `most`; a lower one stays.
///
/// # Errors
/// The kernel's.
pub fn limit_descriptors(most: u64) -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, soft.min(most), hard.min(most))?;
    Ok(())
}

/// The limit of open files that holds now.
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}

/// Sets the mode mask of files that are created from now on; the one before.
pub fn set_umask(mask: u32) -> u32 {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask)).bits()
}

/// A process by descriptor: a pid that cannot be recycled under us.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
}

impl std::os::fd::AsFd for PidFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PidFd {
    /// Opens the process; confirm afterwards that it still is who you think.
    ///
    /// # Errors
    /// `NotFound` (ESRCH) when it is gone.
    pub fn open(pid: Pid) -> io::Result<PidFd> {
        // SAFETY: pidfd_open(2) takes a pid and flags, no pointers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd =
            i32::try_from(fd).map_err(|_| io::Error::other("pidfd_open gave no descriptor"))?;
        // SAFETY: the kernel just made this descriptor for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(PidFd { fd })
    }

    /// Sends a signal to exactly this process.
    ///
    /// # Errors
    /// `PermissionDenied`, or ESRCH when it is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        // SAFETY: pidfd_send_signal(2) with a null siginfo reads no memory of ours.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.fd.as_raw_fd(),
                signal as i32,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// The same with a number for whoever reads the signal: `si_value` (sigqueue(3)).
    ///
    /// # Errors
    /// As for [`PidFd::signal`].
    pub fn signal_with(&self, signal: Signal, value: u64) -> io::Result<()> {
        /// The beginning of a `siginfo_t` of SI_QUEUE (sigaction(2)), which the C library does not let its users write.
        #[repr(C)]
        struct Queued {
            signo: libc::c_int,
            errno: libc::c_int,
            code: libc::c_int,
            from: From,
        }
        #[repr(C)]
        struct From {
            pid: libc::pid_t,
            uid: libc::uid_t,
            value: u64,
        }
        const { assert!(size_of::<Queued>() <= size_of::<libc::siginfo_t>()) };
        // SAFETY: a siginfo_t is numbers, for which zeros are values.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let queued = Queued {
            signo: signal as libc::c_int,
            errno: 0,
            code: libc::SI_QUEUE,
            from: From {
                pid: Pid::this().as_raw(),
                uid: nix::unistd::getuid().as_raw(),
                value,
            },
        };
        // SAFETY: the place is a siginfo_t, at least as large (asserted above) and as strictly aligned (it holds pointers).
        unsafe { (&raw mut info).cast::<Queued>().write(queued) };
        // SAFETY: pidfd_send_signal(2) reads the siginfo_t, which is ours.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.fd.as_raw_fd(),
                signal as i32,
                &raw const info,
                0,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Waits until the process has ended, at most this long. True when it has.
    pub fn wait(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(
                &mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)],
                timeout,
            ) {
                Ok(0) if left.is_zero() => return false,
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return true,
                Err(_) => return false,
            }
        }
    }
}

/// What the kernel says of a process (proc(5), stat).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcStat {
    /// State letter; `T` is stopped.
    pub state: char,
    /// Threads.
    pub threads: u64,
    /// Start time in clock ticks since boot (field 22).
    pub start_time: u64,
    /// Virtual size in bytes.
    pub vsz_bytes: u64,
    /// Resident size in bytes.
    pub rss_bytes: u64,
}

/// Reads `/proc/PID/stat`; `None` when the process is gone or hidden.
pub fn stat(pid: i32) -> Option<ProcStat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The command may hold spaces and brackets: fields are counted after the last ')'.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<u64>().ok())
    };
    Some(ProcStat {
        state: fields.first()?.chars().next()?,
        threads: number(17)?,
        start_time: number(19)?,
        vsz_bytes: number(20)?,
        rss_bytes: number(21)? * page_bytes(),
    })
}

/// Does a process hold this signal back, as one does that reads it by a descriptor? False when it is gone or hidden.
pub fn holds_back(pid: Pid, signal: Signal) -> bool {
    let Ok(status) = fs::read(format!("/proc/{pid}/status")) else {
        return false;
    };
    let status = String::from_utf8_lossy(&status);
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let bits = blocked.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> (signal as i32 - 1) & 1 == 1)
}

/// Bytes of a memory page.
pub fn page_bytes() -> u64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| u64::try_from(size).ok())
        .unwrap_or(4096)
}

/// Number of child processes of a process, as the kernel counts them.
pub fn children(pid: i32) -> Option<usize> {
    child_pids(pid).map(|pids| pids.len())
}

/// The child processes of a process that has one thread (proc(5), children); `None` when it is gone or hidden.
pub fn child_pids(pid: i32) -> Option<Vec<i32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Some(
        text.split_ascii_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_process_descriptor_signals_and_waits_for_exactly_its_process() {
        let mut sleeper = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        let process = PidFd::open(Pid::from_raw(sleeper.id().cast_signed())).unwrap();
        assert!(!process.wait(Duration::from_millis(1)), "it still sleeps");
        process.signal(Signal::SIGKILL).unwrap();
        assert!(process.wait(Duration::from_secs(60)), "it was killed");
        sleeper.wait().unwrap();
        assert!(
            process.signal(Signal::SIGKILL).is_err(),
            "a reaped process takes no signal"
        );
    }

    #[test]
    fn the_kernel_tells_about_this_process() {
        let stat = stat(std::process::id().cast_signed()).unwrap();
        assert!(stat.vsz_bytes > 0 && stat.rss_bytes > 0 && stat.threads > 0);
    }
}
