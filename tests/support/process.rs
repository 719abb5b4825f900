//! What /proc says of processes.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// State letter and parent, or `None` when there is no such process.
pub fn state(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let letter = fields.next()?.chars().next()?;
    Some((letter, fields.next()?.parse().ok()?))
}

/// Does it run? (A zombie does not.)
pub fn runs(pid: i32) -> bool {
    state(pid).is_some_and(|(letter, _)| letter != 'Z' && letter != 'X')
}

/// All processes.
pub fn all() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// The living children of a process.
pub fn children(pid: i32) -> Vec<i32> {
    let mut found: Vec<i32> = all()
        .into_iter()
        .filter(|child| {
            state(*child).is_some_and(|(letter, parent)| parent == pid && letter != 'Z')
        })
        .collect();
    found.sort_unstable();
    found
}

/// Living processes that were started with this `NAME=VALUE` in their environment.
pub fn marked(mark: &str) -> Vec<i32> {
    let is_marked = |pid: &i32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|all| {
            all.split(|byte| *byte == 0)
                .any(|one| one == mark.as_bytes())
        })
    };
    all()
        .into_iter()
        .filter(|pid| runs(*pid) && is_marked(pid))
        .collect()
}

/// Processes that hold a lock on a file. Who may not look into another process learns this of it all the same.
pub fn lock_holders(path: &Path) -> Vec<i32> {
    // A test may have put something else there, a FIFO for one.
    let opened = fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW)
        .open(path);
    let Ok(file) = opened else {
        return Vec::new();
    };
    if !file.metadata().unwrap().is_file() {
        return Vec::new();
    }
    let mut found = Vec::new();
    // The kernel names the first one in a list of its own order: what lies before and behind must be asked for as well.
    let mut ranges = vec![(0_i64, i64::MAX)];
    while let Some((start, end)) = ranges.pop() {
        let mut lock = nix::libc::flock {
            l_type: i16::try_from(nix::libc::F_WRLCK).unwrap(),
            l_whence: 0,
            l_start: start,
            l_len: if end == i64::MAX { 0 } else { end - start },
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_GETLK(&mut lock)).unwrap();
        if i32::from(lock.l_type) == nix::libc::F_UNLCK {
            continue;
        }
        if lock.l_pid > 0 {
            found.push(lock.l_pid);
        }
        let behind = lock.l_start + lock.l_len;
        if lock.l_len > 0 && behind < end {
            ranges.push((behind, end));
        }
        if start < lock.l_start {
            ranges.push((start, lock.l_start));
        }
    }
    found
}

/// Sends a signal; a process that is gone already is fine.
pub fn signal(pid: i32, signal: Signal) {
    assert!(pid > 1, "never signal pid {pid}");
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Sets a limit of another process, as prlimit(1) takes it: of util-linux, which every Debian has.
#[track_caller]
pub fn limit(pid: i32, limit: &str) {
    // As the process's user: root may need a capability for what its owner may do.
    let (user, group) = (owner(pid, "Uid:"), owner(pid, "Gid:"));
    let mut prlimit = Command::new("prlimit");
    prlimit.arg(format!("--pid={pid}")).arg(limit);
    if super::is_root() {
        prlimit.uid(user).gid(group);
    }
    let status = prlimit.status().unwrap();
    assert!(status.success(), "prlimit {limit}: {status}");
}

/// Leaves a process no number for another descriptor; its hard limit stays.
#[track_caller]
pub fn leave_no_descriptor(pid: i32) {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let open: Vec<u64> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let free = (0..).find(|number| !open.contains(number)).unwrap();
    limit(pid, &format!("--nofile={free}:"));
}

/// A hard limit of a process, by its name there (proc(5), limits).
#[track_caller]
pub fn hard_limit(pid: i32, name: &str) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|it| it.strip_prefix(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

/// The real user or group of a process.
fn owner(pid: i32, line: &str) -> u32 {
    let ids = said(pid, line);
    ids.split_whitespace().next().unwrap().parse().unwrap()
}

/// What `/proc/PID/status` says on the line that begins so (proc(5), status).
#[track_caller]
pub fn said(pid: i32, line: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let said = status.lines().find_map(|it| it.strip_prefix(line));
    said.unwrap().trim().to_owned()
}
