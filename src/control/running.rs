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

/// Who is there of a milter.
#[derive(Debug, Default)]
pub(super) struct There {
    /// Its processes, master first.
    pub(super) processes: Vec<Process>,
    /// Holders of its locks that cannot be its processes (see [`lock::survey`]): never signalled.
    pub(super) strangers: Vec<Pid>,
    /// Locks that are held in another pid namespace.
    pub(super) elsewhere: usize,
    /// The master is one of these.
    pub(super) master_elsewhere: bool,
}

/// Every process that holds a lock of the milter, master first. The locks are asked again after the processes were opened: a pid
/// that meanwhile became somebody else holds none and is left out.
///
/// # Errors
/// When the lock file cannot be read or is none, or a process cannot be opened for another reason than that it is gone.
pub(super) fn processes(paths: &Paths) -> io::Result<Vec<Process>> {
    there(paths).map(|there| there.processes)
}

/// The same with those that are out of reach.
///
/// # Errors
/// As for [`processes`].
pub(super) fn there(paths: &Paths) -> io::Result<There> {
    let holders = lock::survey(&paths.lock())?;
    let mut opened = Vec::new();
    for holder in holders.ours {
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
    let still = if opened.is_empty() {
        Vec::new()
    } else {
        lock::holders(&paths.lock())?
    };
    let mut strangers: Vec<Pid> = holders.strangers.iter().map(|holder| holder.pid).collect();
    strangers.dedup();
    Ok(There {
        processes: opened
            .into_iter()
            .filter(|(holder, _)| still.contains(holder))
            .map(|(_, process)| process)
            .collect(),
        strangers,
        elsewhere: holders.elsewhere,
        master_elsewhere: holders.master_elsewhere,
    })
}

/// Does anybody hold a lock, or could somebody (the lock file cannot be read)?
pub(super) fn is_there(paths: &Paths) -> bool {
    lock::survey(&paths.lock()).map_or(true, |holders| holders != lock::Holders::default())
}
