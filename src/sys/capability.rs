//! What is left of root in a master: no more than it needs to keep its files, drop its children to the unprivileged user, and end them.
//! And in a child: nothing.

use std::io;

/// Numbers from capabilities(7), linux/capability.h.
const CHOWN: u32 = 0;
const DAC_OVERRIDE: u32 = 1;
const FOWNER: u32 = 3;
const KILL: u32 = 5;
const SETGID: u32 = 6;
const SETUID: u32 = 7;
const NET_BIND_SERVICE: u32 = 10;

/// CHOWN, `DAC_OVERRIDE` and FOWNER for run directory and log, SETGID and SETUID for children, KILL for ending them, `NET_BIND_SERVICE` for the port.
const KEPT: u32 = 1 << CHOWN
    | 1 << DAC_OVERRIDE
    | 1 << FOWNER
    | 1 << KILL
    | 1 << SETGID
    | 1 << SETUID
    | 1 << NET_BIND_SERVICE;

/// `_LINUX_CAPABILITY_VERSION_3`
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up every capability but these; one that was not there is not gained. Does nothing without root's.
///
/// # Errors
/// The kernel's.
pub fn keep_what_a_master_needs() -> io::Result<()> {
    keep(KEPT)
}

/// Gives up every capability: a change of user takes root's, but not those that a supervisor gave an ordinary user (AmbientCapabilities=).
///
/// # Errors
/// The kernel's.
pub fn give_up_all() -> io::Result<()> {
    keep(0)
}

fn keep(kept: u32) -> io::Result<()> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut sets = [Sets::default(); 2];
    // SAFETY: capget(2) with version 3 writes two sets at a valid pointer; the header is one of ours.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let [low, high] = &mut sets;
    low.permitted &= kept;
    low.effective &= kept;
    low.inheritable = 0;
    *high = Sets::default();
    // SAFETY: capset(2) with version 3 reads two sets at a valid pointer; the header is one of ours.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
