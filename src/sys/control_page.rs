//! The control page of one child: a few words in a memfd of its own, through which the child tells the master what it finished.
//!
//! Only the child writes; the master copies each word once and judges the copy. A child that claims what cannot be is killed; one that lies
//! with care can attract or refuse connections, nothing else (`MADV_DONTFORK` in the master: siblings never have the page).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Bytes of the page: one page, a handful of words of it used.
const PAGE_BYTES: usize = 4096;

/// The words of the page, by index.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub enum Word {
    /// Connections finished, marked ones (overload answers) included.
    Completed = 0,
    /// Connections read from the control socket.
    Taken = 1,
    /// Marked connections finished.
    CompletedMarked = 2,
    /// Messages processed: what `pooled_proc_message_limit` counts.
    Messages = 3,
    /// Probes read from the control socket.
    Heard = 4,
    /// Lines of the log that could not be written.
    LinesLost = 5,
}

/// First of the words that tell how long an interpreter may stay in the policy's code.
const BUSY: usize = 16;
/// Most interpreters of a child.
pub const MOST_INTERPRETERS: usize = PAGE_BYTES / 8 - BUSY;

/// A mapping of the control page, in the master or in its child.
#[derive(Debug)]
pub struct ControlPage {
    map: MmapRaw,
}

impl ControlPage {
    /// Makes the page; the descriptor goes to the child (and stays with the master for a hand-over).
    ///
    /// # Errors
    /// The kernel's, when memory or descriptors are short.
    pub fn create() -> io::Result<(OwnedFd, ControlPage)> {
        let fd = memfd_create(c"pmx-milter-control", MFdFlags::MFD_CLOEXEC)?;
        nix::unistd::ftruncate(&fd, PAGE_BYTES as i64)?;
        let page = ControlPage::map(&fd)?;
        Ok((fd, page))
    }

    /// Maps a page that another program of this process made.
    ///
    /// # Errors
    /// The kernel's; `InvalidData` when it has another size: touching a map of it could kill us.
    pub fn take_up(fd: &OwnedFd) -> io::Result<ControlPage> {
        let size = nix::sys::stat::fstat(fd)?.st_size;
        if size != PAGE_BYTES as i64 {
            let text = "a control page of another size";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        ControlPage::map(fd)
    }

    /// Maps an existing page; a later fork does not inherit the mapping.
    ///
    /// # Errors
    /// The kernel's.
    pub fn map(fd: &OwnedFd) -> io::Result<ControlPage> {
        let map = MmapOptions::new().len(PAGE_BYTES).map_raw(fd.as_raw_fd())?;
        map.advise(Advice::DontFork)?;
        Ok(ControlPage { map })
    }

    fn at(&self, index: usize) -> &AtomicU64 {
        let index = index.min(PAGE_BYTES / 8 - 1);
        let base = self.map.as_mut_ptr().cast::<AtomicU64>();
        // SAFETY: the map is PAGE_BYTES long, page-aligned and lives as long as `self`; the index was just bounded to it; the words
        // are accessed as AtomicU64 only, in both processes.
        unsafe { &*base.add(index) }
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        self.at(word as usize)
    }

    /// Says until when an interpreter may stay in the policy's code (BOOTTIME ns); 0: it is back in its loop. Relaxed: it orders nothing.
    pub fn set_busy_until(&self, interpreter: usize, deadline_ns: u64) {
        self.at(BUSY + interpreter.min(MOST_INTERPRETERS - 1))
            .store(deadline_ns, Ordering::Relaxed);
    }

    /// The earliest deadline of the first `interpreters`, if one of them is in the policy's code.
    pub fn busy_until(&self, interpreters: usize) -> Option<u64> {
        (0..interpreters.min(MOST_INTERPRETERS))
            .map(|index| self.at(BUSY + index).load(Ordering::Relaxed))
            .filter(|deadline| *deadline != 0)
            .min()
    }

    /// Reads a word. Acquire: pairs with [`ControlPage::store`].
    pub fn load(&self, word: Word) -> u64 {
        self.word(word).load(Ordering::Acquire)
    }

    /// Writes a word; only the child does. Release: what was done before is seen by whoever reads the new value.
    pub fn store(&self, word: Word, value: u64) {
        self.word(word).store(value, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_mappings_see_the_same_words() {
        let (fd, master) = ControlPage::create().unwrap();
        let child = ControlPage::map(&fd).unwrap();
        child.store(Word::Completed, 7);
        assert_eq!(master.load(Word::Completed), 7);
        assert_eq!(master.load(Word::Taken), 0);
    }
}
