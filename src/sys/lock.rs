//! POSIX write locks on `NAME.lock`: the kernel vouches who is master (byte 0) and who is a child (byte 1 + slot).
//!
//! The file is opened once in each process and never closed while the lock matters: closing any descriptor of the file drops the
//! process's locks (fcntl(2), "Record locking"). fork does not inherit them, so a child takes its own.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::unistd::Pid;

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

/// One process that holds locks on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// First byte that it holds.
    pub byte: i64,
    /// Who.
    pub pid: Pid,
}

fn query(file: &File, start: i64, len: i64) -> io::Result<Option<(Holder, i64)>> {
    let mut request = flock(start, len);
    // SAFETY: F_GETLK reads and writes a struct flock at a valid pointer; the descriptor is open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &mut request) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // l_pid is 0 or negative for a holder in another pid namespace or an OFD lock: nobody that we could name.
    if i32::from(request.l_type) == libc::F_UNLCK || request.l_pid <= 0 {
        return Ok(None);
    }
    let holder = Holder {
        byte: request.l_start,
        pid: Pid::from_raw(request.l_pid),
    };
    let end = if request.l_len == 0 {
        i64::MAX
    } else {
        request.l_start + request.l_len
    };
    Ok(Some((holder, end)))
}

/// The master: who holds byte 0. `None` when nobody does or there is no such file.
///
/// # Errors
/// The kernel's, such as a missing permission to read the file.
pub fn master(path: &Path) -> io::Result<Option<Pid>> {
    match File::open(path) {
        Ok(file) => Ok(query(&file, 0, 1)?.map(|(holder, _)| holder.pid)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every holder, master first, then children and orphans; at most 65,536.
///
/// # Errors
/// The kernel's, such as a missing permission to read the file.
pub fn holders(path: &Path) -> io::Result<Vec<Holder>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    // F_GETLK names one lock of the range, not always the lowest: what lies before and behind it is asked for as well.
    let mut ranges = vec![(0, i64::MAX)];
    while let Some((start, end)) = ranges.pop()
        && found.len() < 65_536
    {
        let length = if end == i64::MAX { 0 } else { end - start };
        let Some((holder, holder_end)) = query(&file, start, length)? else {
            continue;
        };
        found.push(holder);
        if holder_end < end {
            ranges.push((holder_end, end));
        }
        if start < holder.byte {
            ranges.push((start, holder.byte));
        }
    }
    found.sort_by_key(|holder| holder.byte);
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_without_locks_has_no_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        assert_eq!(master(&path).unwrap(), None);
        let file = File::create(&path).unwrap();
        assert!(take(&file, 0).unwrap());
        // A process does not see its own locks (fcntl(2)).
        assert!(holders(&path).unwrap().is_empty());
    }
}
