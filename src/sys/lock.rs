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

/// Every holder, master first, then children and orphans; at most 65,536. Not for a process that holds locks of this file itself:
/// opening and closing it would drop them, [`others`] does not.
///
/// # Errors
/// The kernel's, such as a missing permission to read the file.
pub fn holders(path: &Path) -> io::Result<Vec<Holder>> {
    match File::open(path) {
        Ok(file) => others(&file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Every holder but this process itself, by a file that is open already.
///
/// # Errors
/// The kernel's.
pub fn others(file: &File) -> io::Result<Vec<Holder>> {
    let mut found = Vec::new();
    // F_GETLK names the first lock in the kernel's list, which is ordered by owner, not by byte: what lies before it must be asked too.
    let mut ranges = vec![(0, i64::MAX)];
    while let Some((start, end)) = ranges.pop() {
        if found.len() >= 65_536 {
            break;
        }
        // A length of 0 reaches to the end of all files.
        let len = if end == i64::MAX { 0 } else { end - start };
        let Some((holder, after)) = query(file, start, len)? else {
            continue;
        };
        found.push(holder);
        if after < end {
            ranges.push((after, end));
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
        assert_eq!(master(&path).unwrap(), Some(first_pid));
        for child in [&mut first, &mut second, &mut third] {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }

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
