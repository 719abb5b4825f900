//! Whether the writer of a board lives, without signalling or asking anybody: the kernel's word on a lock, the boot, the heartbeat.
//!
//! The master holds an open-file-description write lock on byte 0, on a descriptor of its own that is never mapped and that its children
//! close. Readers only *ask* about it (`F_OFD_GETLK` for a read lock), which takes nothing and needs no write access. Pids are shown,
//! never trusted: in another pid namespace they mean nothing.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::time::{ClockId, clock_gettime};

use crate::layout::Header;

/// A heartbeat older than this means that the master hangs or is stopped; it beats at least once a second.
pub const HUNG_AFTER: Duration = Duration::from_secs(5);

/// What the kernel says about the master's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Somebody holds it: the master lives.
    Held,
    /// Nobody holds it.
    Free,
    /// The file system does not know such locks; holds errno.
    Unknown(i32),
}

/// What can be said about the writer of a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// The lock.
    pub lock: Lock,
    /// Whether the board was made in this boot. `None` when either boot id is unknown.
    pub same_boot: Option<bool>,
    /// Whether the pids on the board are pids here. `None` when either namespace is unknown.
    pub same_pid_namespace: Option<bool>,
}

impl Liveness {
    /// Looks at everything once.
    pub fn of(file: impl AsFd, header: &Header) -> Liveness {
        let here = |known: bool, equal: bool| known.then_some(equal);
        let boot = boot_id();
        let namespace = pid_namespace();
        Liveness {
            lock: query(file),
            same_boot: here(header.boot != [0; 2] && boot != [0; 2], header.boot == boot),
            same_pid_namespace: here(
                header.pid_namespace != 0 && namespace != 0,
                header.pid_namespace == namespace,
            ),
        }
    }
}

/// What a board says about its milter, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoardVerdict {
    /// The master lives.
    Alive {
        /// Its heartbeat is older than [`HUNG_AFTER`]: it hangs, or is stopped.
        hung: bool,
    },
    /// The master died in this boot without saying so: the board is a post-mortem.
    Dead,
    /// The board is left over from an earlier boot.
    Stale,
    /// The master ended as it should.
    StoppedClean,
}

fn lock_of(kind: i32) -> Option<libc::flock> {
    Some(libc::flock {
        l_type: i16::try_from(kind).ok()?,
        l_whence: i16::try_from(libc::SEEK_SET).ok()?,
        l_start: 0,
        l_len: 1,
        l_pid: 0,
    })
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

/// Asks for the state of the lock on byte 0, without taking any. A read lock is asked for: a write lock would see other readers' locks.
pub fn query(file: impl AsFd) -> Lock {
    let Some(mut lock) = lock_of(libc::F_RDLCK) else {
        return Lock::Unknown(libc::EINVAL);
    };
    match fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)) {
        Err(errno) => Lock::Unknown(errno as i32),
        Ok(_) if i32::from(lock.l_type) == libc::F_UNLCK => Lock::Free,
        Ok(_) => Lock::Held,
    }
}

/// Takes the master's lock on this open file; it falls when the last descriptor of the open file closes.
pub(crate) fn take(file: impl AsFd) -> io::Result<()> {
    let lock = lock_of(libc::F_WRLCK).ok_or_else(invalid)?;
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock))?;
    Ok(())
}

fn clock(id: ClockId) -> u64 {
    // The two clocks exist on every Linux that this builds for; a 0 would only make ages look long.
    clock_gettime(id).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
    })
}

/// CLOCK_BOOTTIME in ns: the clock of everything on a board. It goes on during suspend, and means nothing in another boot.
pub fn boot_time_ns() -> u64 {
    clock(ClockId::CLOCK_BOOTTIME)
}

/// CLOCK_REALTIME in ns.
pub fn wall_time_ns() -> u64 {
    clock(ClockId::CLOCK_REALTIME)
}

/// A UUID of the kernel as two words; 0 when the file cannot be read or is none.
fn uuid(path: &str) -> [u64; 2] {
    let Ok(text) = fs::read_to_string(path) else {
        return [0; 2];
    };
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    match (digits.get(..16), digits.get(16..32)) {
        (Some(high), Some(low)) if digits.len() == 32 => {
            [high, low].map(|half| u64::from_str_radix(half, 16).unwrap_or(0))
        }
        _ => [0; 2],
    }
}

/// The id of this boot; 0 when proc does not tell.
pub fn boot_id() -> [u64; 2] {
    uuid("/proc/sys/kernel/random/boot_id")
}

/// 122 random bits; if proc does not tell, what clock and pid give.
pub(crate) fn random_id() -> [u64; 2] {
    match uuid("/proc/sys/kernel/random/uuid") {
        [0, 0] => [
            wall_time_ns(),
            boot_time_ns() ^ (u64::from(std::process::id()) << 32),
        ],
        id => id,
    }
}

/// Inode of our pid namespace; 0 when proc does not tell.
pub fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.ino())
}

/// Start time of a process in clock ticks since boot; 0 when proc does not tell.
pub fn start_time(pid: u32) -> u64 {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return 0;
    };
    // The command stands in parentheses and may hold anything, so fields count from the last one: after it comes field 3.
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19))
        .and_then(|field| field.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::{File, OpenOptions};

    use super::*;

    fn files(count: usize) -> (tempfile::TempDir, Vec<File>, File) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("board");
        fs::write(&path, [0; 8]).unwrap();
        let writers = (0..count)
            .map(|_| {
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(&path)
                    .unwrap()
            })
            .collect();
        let reader = File::open(&path).unwrap();
        (dir, writers, reader)
    }

    #[test]
    fn the_lock_is_seen_while_its_open_file_lives_and_asking_takes_nothing() {
        let (_dir, mut writers, reader) = files(2);
        assert_eq!(query(&reader), Lock::Free);
        take(&writers[0]).unwrap();
        for _ in 0..3 {
            assert_eq!(query(&reader), Lock::Held);
        }
        assert!(take(&writers[1]).is_err(), "a second master gets none");
        drop(writers.remove(0));
        assert_eq!(query(&reader), Lock::Free);
        take(&writers[0]).unwrap();
        assert_eq!(query(&reader), Lock::Held);
    }

    #[test]
    fn a_copy_of_the_descriptor_keeps_the_lock_so_children_must_close_it() {
        let (_dir, mut writers, reader) = files(1);
        take(&writers[0]).unwrap();
        let copy = writers[0].try_clone().unwrap();
        drop(writers.remove(0));
        assert_eq!(query(&reader), Lock::Held);
        drop(copy);
        assert_eq!(query(&reader), Lock::Free);
    }

    #[test]
    fn closing_another_descriptor_of_the_file_does_not_drop_the_lock() {
        // POSIX record locks fall then; this is why the lock belongs to the open file.
        let (dir, writers, reader) = files(1);
        take(&writers[0]).unwrap();
        drop(File::open(dir.path().join("board")).unwrap());
        assert_eq!(query(&reader), Lock::Held);
    }

    #[test]
    fn another_readers_lock_is_not_taken_for_the_masters() {
        let (_dir, writers, reader) = files(1);
        let shared = lock_of(libc::F_RDLCK).unwrap();
        fcntl(&writers[0], FcntlArg::F_OFD_SETLK(&shared)).unwrap();
        assert_eq!(query(&reader), Lock::Free);
    }

    #[test]
    fn the_facts_of_this_boot_are_known_here() {
        assert_ne!(boot_id(), [0; 2]);
        assert_eq!(boot_id(), boot_id());
        assert_ne!(random_id(), random_id());
        assert_ne!(pid_namespace(), 0);
        assert_ne!(start_time(std::process::id()), 0);
        assert!(boot_time_ns() > 0 && wall_time_ns() > boot_time_ns());
        assert_eq!(start_time(u32::MAX), 0);
    }
}
