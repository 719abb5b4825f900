//! Reading a mapped file that its owner may cut short meanwhile: the kernel then raises SIGBUS where there is no file any more. Here the
//! missing page becomes a page of zeros, the reading goes on, and the caller learns that what it read is worth nothing.
//!
//! For programs with one thread that read a map once; the handler is gone afterwards.

use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{SysconfVar, sysconf};

static BEGIN: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);
/// Bytes of a page.
static PAGE: AtomicUsize = AtomicUsize::new(4096);
static WAS_CUT: AtomicBool = AtomicBool::new(false);

/// Runs `read`, which reads the map at `addresses`. `None` when a page of the map was not there: the file was cut short.
///
/// # Errors
/// When the handler cannot be set.
pub fn guarded<T>(addresses: Range<usize>, read: impl FnOnce() -> T) -> nix::Result<Option<T>> {
    BEGIN.store(addresses.start, Ordering::Relaxed);
    END.store(addresses.end, Ordering::Relaxed);
    WAS_CUT.store(false, Ordering::Relaxed);
    let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|bytes| usize::try_from(bytes).ok());
    PAGE.store(page.unwrap_or(4096), Ordering::Relaxed);
    let action = SigAction::new(
        SigHandler::SigAction(on_bus_error),
        SaFlags::SA_SIGINFO,
        SigSet::empty(),
    );
    // SAFETY: the handler calls mmap, sigaction and atomics only, all of which may be called in a handler.
    let before = unsafe { sigaction(Signal::SIGBUS, &action) }?;
    let value = read();
    // SAFETY: what was there before.
    unsafe { sigaction(Signal::SIGBUS, &before) }?;
    BEGIN.store(0, Ordering::Relaxed);
    END.store(0, Ordering::Relaxed);
    Ok((!WAS_CUT.load(Ordering::Relaxed)).then_some(value))
}

extern "C" fn on_bus_error(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to a handler set with SA_SIGINFO; for SIGBUS it holds the address.
    let address = unsafe { (*info).si_addr() } as usize;
    let page = PAGE.load(Ordering::Relaxed);
    let inside = (BEGIN.load(Ordering::Relaxed)..END.load(Ordering::Relaxed)).contains(&address);
    // SAFETY: replaces one page of the map, which nobody but the interrupted reader uses, by readable zeros.
    let replaced = inside
        && unsafe {
            libc::mmap(
                ptr::without_provenance_mut(address & !(page - 1)),
                page,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        } != libc::MAP_FAILED;
    if replaced {
        WAS_CUT.store(true, Ordering::Relaxed);
        return;
    }
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: not ours: the instruction that faults again ends the process as it would have. Should this fail, the loop is the kernel's to end.
    let _ = unsafe { sigaction(Signal::SIGBUS, &default) };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::fd::AsRawFd;

    use memmap2::MmapOptions;

    use super::*;

    const PAGE: usize = 65_536;

    #[test]
    fn a_file_that_is_cut_short_is_noticed_and_a_whole_one_is_read() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * PAGE as u64).unwrap();
        let map = MmapOptions::new()
            .len(3 * PAGE)
            .map_raw_read_only(file.as_raw_fd())
            .unwrap();
        let start = map.as_ptr() as usize;
        let look = || {
            // SAFETY: inside the map; a page that is not there becomes zeros.
            unsafe { map.as_ptr().add(2 * PAGE + 5).read_volatile() }
        };
        assert_eq!(guarded(start..start + 3 * PAGE, look).unwrap(), Some(0));
        file.set_len(PAGE as u64).unwrap();
        assert_eq!(guarded(start..start + 3 * PAGE, look).unwrap(), None);
    }
}
