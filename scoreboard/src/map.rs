//! Memory maps of the board as words: the only unsafe code of this crate.
//!
//! A map is never seen as bytes or structs, for others write to it at any time; it is a slice of atomic words, or a source of them.
//! A map lasts as long as its value; the file behind it is allocated in full and never truncated by us, so that touching it is safe. Who
//! maps a file that others may truncate gets SIGBUS, unless it handles that (`MapReader::addresses`).

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::latch::Source;
use crate::sync::{AtomicU64, Ordering};

/// A writable shared map, which forked children do not inherit.
#[derive(Debug)]
pub(crate) struct Map {
    raw: MmapRaw,
}

impl Map {
    /// Maps `bytes` of the file from `offset` on (a multiple of the page size).
    pub(crate) fn shared(fd: BorrowedFd<'_>, offset: u64, bytes: usize) -> io::Result<Map> {
        let raw = MmapOptions::new()
            .offset(offset)
            .len(bytes)
            .map_raw(fd.as_raw_fd())?;
        // A child that kept the master's map could write every record of it; a grandchild that kept a child's could write after its death.
        raw.advise(Advice::DontFork)?;
        Ok(Map { raw })
    }

    /// Its words.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the map is `len` bytes long, readable and writable, and lives as long as `self.raw`, which the slice borrows. It begins
        // at a page boundary, so words are aligned. Every access in every process is an atomic access of one word, or a system call;
        // a hostile writer can only produce other values.
        unsafe {
            std::slice::from_raw_parts(
                self.raw.as_mut_ptr().cast::<AtomicU64>().cast_const(),
                self.raw.len() / 8,
            )
        }
    }

    /// Gives the map up without unmapping: in a forked child these addresses hold nothing, or by now something else.
    pub(crate) fn forget(self) {
        std::mem::forget(self.raw);
    }
}

/// A read-only shared map.
#[derive(Debug)]
pub(crate) struct ReadMap {
    raw: MmapRaw,
}

impl ReadMap {
    /// Maps the first `bytes` of the file.
    pub(crate) fn shared(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<ReadMap> {
        let raw = MmapOptions::new()
            .len(bytes)
            .map_raw_read_only(fd.as_raw_fd())?;
        Ok(ReadMap { raw })
    }
}

impl ReadMap {
    /// Where it lies in memory.
    pub(crate) fn addresses(&self) -> std::ops::Range<usize> {
        let start = self.raw.as_ptr() as usize;
        start..start + self.raw.len()
    }
}

impl Source for ReadMap {
    type Error = Infallible;

    /// Relaxed loads only: they alone are guaranteed not to write, hence allowed on read-only memory (`std::sync::atomic`).
    fn copy(&self, word: usize, out: &mut [u64]) -> Result<(), Infallible> {
        // SAFETY: as in `Map::words`, but read-only; `AtomicU64::load` with `Relaxed` is the only access made through this slice, and
        // the slice does not leave this function.
        let words: &[AtomicU64] = unsafe {
            std::slice::from_raw_parts(self.raw.as_ptr().cast::<AtomicU64>(), self.raw.len() / 8)
        };
        let cells = words.get(word..).unwrap_or(&[]);
        for (index, to) in out.iter_mut().enumerate() {
            *to = cells
                .get(index)
                .map_or(0, |cell| cell.load(Ordering::Relaxed));
        }
        Ok(())
    }
}
