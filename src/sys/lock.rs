//! POSIX write locks on `NAME.lock`: the kernel vouches who is master (byte 0) and who is a child (byte 1 + slot).
//!
//! The file is opened once in each process and never closed while the lock matters: closing any descriptor of the file drops the
//! process's locks (fcntl(2), "Record locking"). fork does not inherit them, so a child takes its own.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::unistd::Pid;

/// Held beside byte 0 by who cleans up behind a dead master: so that nobody takes it for one.
const CLEANING: i64 = 1 << 48;

fn flock(start: i64, len: i64) -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}

/// Takes the write lock on one byte. `Ok(false)` when another process has it.
///
/// # Errors
/// The kernel's, other than "somebody has it".
pub fn take(file: &File, byte: i64) -> io::Result<bool> {
    let request = flock(byte, 1);
    // SAFETY: F_SETLK reads a struct flock from a valid pointer; the descriptor is open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &request) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Takes the master's byte for cleaning up behind one, so that none can start meanwhile. `Ok(false)`: somebody has it.
///
/// # Errors
/// As for [`take`].
pub fn take_to_clean(file: &File) -> io::Result<bool> {
    Ok(take(file, CLEANING)? && take(file, 0)?)
}

/// Opens a lock file that is there; `None` when it is not.
///
/// # Errors
/// The kernel's, such as a missing permission; and `InvalidInput` for what is no lock file of ours. Whoever may write to the run directory
/// could put a FIFO there, which makes its opener wait, or a link to a file that others lock.
fn open(path: &Path) -> io::Result<Option<File>> {
    match plain(path, OpenOptions::new().read(true)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a lock file to take locks in it; makes it, for its owner only, when `create` says so.
///
/// # Errors
/// The kernel's; and `InvalidInput` for a link, what is no regular file, or a file that has a second name elsewhere.
pub fn open_to_take(path: &Path, create: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).mode(0o600);
    plain(path, &mut options)
}

/// The one way in which lock files are opened.
fn plain(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let wrong = |what: &str| {
        let text = format!("it is {what}, not a lock file of a milter; remove it");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    };
    // std adds O_CLOEXEC.
    let file = options
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP) => wrong("a symbolic link"),
            Some(libc::ENXIO) => wrong("a socket or device"),
            _ => error,
        })?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(wrong("no regular file"));
    }
    if meta.nlink() > 1 {
        return Err(wrong("a file with a second name"));
    }
    Ok(file)
}

/// One process that holds locks on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// First byte that it holds.
    pub byte: i64,
    /// Who.
    pub pid: Pid,
}

/// Who holds locks on a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// A milter's processes: master first, then children and orphans.
    pub ours: Vec<Holder>,
    /// Processes that cannot be a milter's: root leaves them alone.
    pub strangers: Vec<Holder>,
    /// Locks of processes that have no pid here: they live in another pid namespace.
    pub elsewhere: usize,
    /// The master is one of these.
    pub master_elsewhere: bool,
}

/// A lock as the kernel tells it: its range, and its process, 0 or less for one that has no pid here.
struct Held {
    start: i64,
    end: i64,
    pid: i32,
}

/// Who holds the lock on one byte, of the processes that have a pid here and are not this one.
///
/// # Errors
/// The kernel's.
pub fn holder_of(file: &File, byte: i64) -> io::Result<Option<Pid>> {
    let held = query(file, byte, 1)?;
    Ok(held
        .filter(|held| held.pid > 0)
        .map(|held| Pid::from_raw(held.pid)))
}

fn query(file: &File, start: i64, len: i64) -> io::Result<Option<Held>> {
    let mut request = flock(start, len);
    // SAFETY: F_GETLK reads and writes a struct flock at a valid pointer; the descriptor is open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &mut request) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if i32::from(request.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    let end = if request.l_len == 0 {
        i64::MAX
    } else {
        request.l_start + request.l_len
    };
    Ok(Some(Held {
        start: request.l_start,
        end,
        pid: request.l_pid,
    }))
}

/// A milter's processes by its lock file, master first, then children and orphans; at most 65,536. Not for a process that holds locks of
/// this file itself: opening and closing it would drop them, [`others`] does not.
///
/// # Errors
/// The kernel's, such as a missing permission to read the file; `InvalidInput` when it is no plain file.
pub fn holders(path: &Path) -> io::Result<Vec<Holder>> {
    survey(path).map(|holders| holders.ours)
}

/// The same with those that are not to be touched. Root believes that a process is a milter's only if it is the lock file's owner's, or if
/// nobody but root could have made this file: in its own directory a user may let any process of root's hold a lock.
///
/// # Errors
/// As for [`holders`].
pub fn survey(path: &Path) -> io::Result<Holders> {
    let Some(file) = open(path)? else {
        return Ok(Holders::default());
    };
    let mut holders = all(&file)?;
    if nix::unistd::geteuid().is_root() {
        let owner = file.metadata()?.uid();
        let made_by_root = owner == 0 && path.parent().is_some_and(is_roots);
        let (ours, strangers) = holders.ours.into_iter().partition(|holder| {
            made_by_root || (owner != 0 && effective_uid(holder.pid) == Some(owner))
        });
        (holders.ours, holders.strangers) = (ours, strangers);
    }
    Ok(holders)
}

/// Could nobody but root have put a file there?
fn is_roots(folder: &Path) -> bool {
    fs::symlink_metadata(folder)
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == 0 && meta.mode() & 0o022 == 0)
}

/// Not by the owner of `/proc/PID`, which is root's for a process that changed its user.
fn effective_uid(pid: Pid) -> Option<u32> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    uids.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Every holder but this process itself, by a file that is open already.
///
/// # Errors
/// The kernel's.
pub fn others(file: &File) -> io::Result<Vec<Holder>> {
    all(file).map(|holders| holders.ours)
}

fn all(file: &File) -> io::Result<Holders> {
    let mut found = Holders::default();
    let mut cleaner = None;
    // F_GETLK names the first lock in the kernel's list, which is ordered by owner, not by byte: what lies before it must be asked too.
    let mut ranges = vec![(0, i64::MAX)];
    while let Some((start, end)) = ranges.pop() {
        if found.ours.len() + found.elsewhere >= 65_536 {
            break;
        }
        // A length of 0 reaches to the end of all files.
        let len = if end == i64::MAX { 0 } else { end - start };
        let Some(held) = query(file, start, len)? else {
            continue;
        };
        if held.pid <= 0 {
            found.elsewhere += 1;
            found.master_elsewhere |= held.start == 0;
        } else {
            let holder = Holder {
                byte: held.start,
                pid: Pid::from_raw(held.pid),
            };
            if holder.byte == CLEANING {
                cleaner = Some(holder.pid);
            }
            found.ours.push(holder);
        }
        if held.end < end {
            ranges.push((held.end, end));
        }
        if start < held.start {
            ranges.push((start, held.start));
        }
    }
    found.ours.retain(|holder| Some(holder.pid) != cleaner);
    found.ours.sort_by_key(|holder| holder.byte);
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Another process that holds these bytes until it is dropped.
    fn holder(path: &Path, bytes: &[i64]) -> (std::process::Child, Pid) {
        let locks: String = bytes
            .iter()
            .map(|byte| format!("fcntl.lockf(f, fcntl.LOCK_EX, 1, {byte})\n"))
            .collect();
        let script = format!(
            "import fcntl, sys\nf = open(sys.argv[1], 'r+b')\n{locks}print('held', flush=True)\nsys.stdin.read()"
        );
        let mut child = std::process::Command::new("python3")
            .args(["-c", &script])
            .arg(path)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        assert_eq!(line, "held\n");
        let pid = Pid::from_raw(child.id().cast_signed());
        (child, pid)
    }

    #[test]
    fn every_holder_is_found_whatever_the_order_in_which_they_came() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        File::create(&path).unwrap();
        let (mut third, third_pid) = holder(&path, &[3]);
        let (mut first, first_pid) = holder(&path, &[0]);
        let (mut second, second_pid) = holder(&path, &[1, 4]);
        let found: Vec<(i64, Pid)> = holders(&path)
            .unwrap()
            .iter()
            .map(|holder| (holder.byte, holder.pid))
            .collect();
        let expected = [
            (0, first_pid),
            (1, second_pid),
            (3, third_pid),
            (4, second_pid),
        ];
        assert_eq!(found, expected);
        for child in [&mut first, &mut second, &mut third] {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_file_without_locks_has_no_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        assert!(holders(&path).unwrap().is_empty());
        let file = File::create(&path).unwrap();
        assert!(take(&file, 0).unwrap());
        // A process does not see its own locks (fcntl(2)).
        assert!(holders(&path).unwrap().is_empty());
    }

    #[test]
    fn who_cleans_up_keeps_masters_away_and_is_not_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        File::create(&path).unwrap();
        let (mut cleaner, _) = holder(&path, &[0, CLEANING]);
        assert!(holders(&path).unwrap().is_empty());
        let file = open_to_take(&path, false).unwrap();
        assert!(!take(&file, 0).unwrap());
        assert!(!take_to_clean(&file).unwrap());
        drop(cleaner.stdin.take());
        cleaner.wait().unwrap();
        assert!(take_to_clean(&file).unwrap());
    }

    #[test]
    fn only_a_plain_file_of_one_name_is_a_lock_file() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        File::create(&real).unwrap();
        let path = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink(&real, path("link.lock")).unwrap();
        nix::unistd::mkfifo(&path("fifo.lock"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::create_dir(path("dir.lock")).unwrap();
        for name in ["link.lock", "fifo.lock", "dir.lock"] {
            let error = survey(&path(name)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}: {error}");
            assert!(open_to_take(&path(name), true).is_err(), "{name}");
        }
        assert!(survey(&real).is_ok());
        fs::hard_link(&real, path("second.lock")).unwrap();
        assert!(survey(&path("second.lock")).is_err());
    }
}
