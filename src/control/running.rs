//! Who is there: the processes that hold a milter's locks, by descriptors that cannot be recycled under us.
#![forbid(unsafe_code)]

use std::io;

use nix::unistd::Pid;

use crate::run_dir::Paths;
use crate::sys::lock;
use crate::sys::process::PidFd;

/// A process that holds one of a milter's locks.
#[derive(Debug)]
pub(super) struct Process {
    /// Its pid.
    pub(super) pid: Pid,
    /// Byte 0 is the master's.
    pub(super) is_master: bool,
    /// Itself.
    pub(super) handle: PidFd,
}

/// Every process that holds a lock of the milter, master first. The locks are asked again after the processes were opened: a pid
/// that meanwhile became somebody else holds none and is left out.
///
/// # Errors
/// When the lock file cannot be read, or a process cannot be opened for another reason than that it is gone.
pub(super) fn processes(paths: &Paths) -> io::Result<Vec<Process>> {
    let mut opened = Vec::new();
    for holder in lock::holders(&paths.lock())? {
        match PidFd::open(holder.pid) {
            Ok(handle) => opened.push((
                holder,
                Process {
                    pid: holder.pid,
                    is_master: holder.byte == 0,
                    handle,
                },
            )),
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    if opened.is_empty() {
        return Ok(Vec::new());
    }
    let still = lock::holders(&paths.lock())?;
    Ok(opened
        .into_iter()
        .filter(|(holder, _)| still.contains(holder))
        .map(|(_, process)| process)
        .collect())
}

/// Does anybody hold a lock, or could somebody (the lock file cannot be read)?
pub(super) fn is_there(paths: &Paths) -> bool {
    lock::holders(&paths.lock()).map_or(true, |holders| !holders.is_empty())
}
