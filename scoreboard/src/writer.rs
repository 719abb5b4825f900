//! The writers: the master's [`Board`] and a child's [`ChildPage`].
//!
//! Both publish from records of their own and never read back what they wrote. The versions are private too, so that nothing in the file,
//! whoever scribbled on it, changes what is published next; a master that republishes its records repairs them.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytemuck::Zeroable;
use nix::fcntl::{AtFlags, renameat};
use nix::sys::stat::{FileStat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::create::{self, CreateError, Created, Spec};
use crate::histogram::{self, PHASE_WORDS, PhaseHistograms};
use crate::history::{Event, Second};
use crate::latch::{self, COUNT_BITS, Place, Sound, TRIES};
use crate::layout::{CHILD_HISTOGRAMS, DEATH_RING, GLOBAL, Geometry, Header, LINE};
use crate::map::Map;
use crate::records::{ChildRecord, Death, GlobalRecord, MasterRecord, Phase};
use crate::ring::{self, Ring};
use crate::sync::{AtomicU64, Ordering};

/// The master's side of a board. Output only: the master steers by its own records.
#[derive(Debug)]
pub struct Board {
    pub(crate) files: Created,
    pub(crate) name: String,
    pub(crate) global_version: u64,
    pub(crate) master_versions: Vec<u64>,
    pub(crate) deaths: u64,
    pub(crate) seconds: u64,
    pub(crate) events: u64,
}

impl Board {
    /// Makes the board `name` in `dir`, complete and locked before it has that name. An older board of the name is replaced.
    ///
    /// # Errors
    /// See [`CreateError`]; nothing is left behind then.
    pub fn create(dir: &Path, name: &str, spec: &Spec) -> Result<Board, CreateError> {
        let files = create::create(dir, name, spec)?;
        let slots = usize::try_from(files.geometry.slots()).unwrap_or(0);
        Ok(Board {
            files,
            name: name.to_owned(),
            global_version: 0,
            master_versions: vec![0; slots],
            deaths: 0,
            seconds: 0,
            events: 0,
        })
    }

    /// The file, open for reading and writing: what [`ChildPage::map`] needs in a child.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.files.data.as_fd()
    }

    /// Where the slots stand.
    pub fn geometry(&self) -> Geometry {
        self.files.geometry
    }

    /// The static header as it was written.
    pub fn header(&self) -> &Header {
        &self.files.header
    }

    /// What the operator should know: the directory is not on tmpfs.
    pub fn warning(&self) -> Option<String> {
        self.files.warning.clone()
    }

    /// Publishes what the milter as a whole does.
    pub fn publish_global(&mut self, record: &GlobalRecord) {
        latch::publish::<Sound>(
            self.files.map.words(),
            &GLOBAL,
            &mut self.global_version,
            bytemuck::cast_slice(std::slice::from_ref(record)),
        );
    }

    /// Publishes what the master says of a slot. A slot beyond the capacity is not shown.
    pub fn publish_master(&mut self, slot: u32, record: &MasterRecord) {
        let place = self.files.geometry.master(slot);
        let version = usize::try_from(slot)
            .ok()
            .and_then(|slot| self.master_versions.get_mut(slot));
        debug_assert!(place.is_some(), "slot {slot} is beyond the capacity");
        if let (Some(place), Some(version)) = (place, version) {
            latch::publish::<Sound>(
                self.files.map.words(),
                &place,
                version,
                bytemuck::cast_slice(std::slice::from_ref(record)),
            );
        }
    }

    /// The child's record of a slot as it stands: any words whatever, for the child may be hostile. Bounded in time.
    pub fn read_child(&self, slot: u32) -> ChildRecord {
        let mut record = ChildRecord::zeroed();
        if let Some(place) = self.files.geometry.child(slot) {
            let out = bytemuck::cast_slice_mut(std::slice::from_mut(&mut record));
            let Ok(_) = latch::read::<Sound, _>(self.files.map.words(), &place, out, TRIES);
        }
        record
    }

    /// Publishes an empty child's record of this incarnation: before the fork of a child, or after the death of one. The page must have no
    /// other writer, that is: its last process has been waited for.
    pub fn adopt_child(&mut self, slot: u32, incarnation: u64) {
        let Some(place) = self.files.geometry.child(slot) else {
            debug_assert!(false, "slot {slot} is beyond the capacity");
            return;
        };
        let words = self.files.map.words();
        if let Some(first) = self.files.geometry.child_histograms(slot) {
            histogram::replace::<Sound>(words, first, &[0; PHASE_WORDS]);
        }
        let record = ChildRecord {
            incarnation,
            ..ChildRecord::zeroed()
        };
        let mut version = latch::take_over(version_word(words, &place), incarnation);
        latch::publish::<Sound>(
            words,
            &place,
            &mut version,
            bytemuck::cast_slice(std::slice::from_ref(&record)),
        );
    }

    /// Adds a death to the ring, over the oldest one, and numbers it.
    pub fn append_death(&mut self, mut death: Death) {
        self.deaths += 1;
        death.number = self.deaths;
        self.append(Some(DEATH_RING), &death);
    }

    /// Adds a second to its ring, over the oldest one, and numbers it.
    pub fn append_second(&mut self, mut second: Second) {
        self.seconds += 1;
        second.number = self.seconds;
        self.append(self.files.geometry.seconds(), &second);
    }

    /// Adds an event to its ring, over the oldest one, and numbers it.
    pub fn append_event(&mut self, mut event: Event) {
        self.events += 1;
        event.number = self.events;
        self.append(self.files.geometry.events(), &event);
    }

    fn append<T: bytemuck::Pod>(&self, ring: Option<Ring>, entry: &T) {
        if let Some(ring) = ring {
            let words = bytemuck::cast_slice(std::slice::from_ref(entry));
            ring::append::<Sound>(self.files.map.words(), &ring, words);
        }
    }

    /// The histograms of the process in a slot as they stand: any words whatever, for the child may be hostile.
    pub fn read_child_histograms(&self, slot: u32) -> PhaseHistograms {
        let mut histograms = PhaseHistograms::default();
        if let Some(first) = self.files.geometry.child_histograms(slot) {
            let cells = self.files.map.words().get(first..).unwrap_or(&[]);
            for (word, cell) in histograms.words_mut().iter_mut().zip(cells) {
                *word = cell.load(Ordering::Relaxed);
            }
        }
        histograms
    }

    /// Writes what the earlier processes of a slot observed into the copy that does not count; it counts when the next master's record of
    /// the slot says so (`histogram_copy`).
    pub fn write_master_histograms(&mut self, slot: u32, copy: u64, histograms: &PhaseHistograms) {
        if let Some(first) = self.files.geometry.master_histograms(slot, copy) {
            histogram::replace::<Sound>(self.files.map.words(), first, histograms.words());
        }
    }

    /// Writes the static header again, in case a child scribbled on it. Cheap: 64 words.
    pub fn repair_header(&self) {
        let record: &[u64] = bytemuck::cast_slice(std::slice::from_ref(&self.files.header));
        for (cell, word) in self.files.map.words().iter().zip(record) {
            cell.store(*word, Ordering::Relaxed);
        }
    }

    /// To be called in a forked child: closes the descriptors, the lock's above all, or the master would seem to live as long as we do.
    /// The map is not inherited, and its addresses may hold something else by now: they are left alone.
    pub fn leave(self) {
        let Created {
            dir,
            data,
            lock,
            map,
            ..
        } = self.files;
        map.forget();
        drop((lock, data, dir));
    }

    /// Gives the board another name in its directory. An older board of that name is replaced.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn rename(&mut self, name: &str) -> io::Result<()> {
        let dir = &self.files.dir;
        renameat(dir, self.name.as_str(), dir, name)?;
        name.clone_into(&mut self.name);
        Ok(())
    }

    /// Renames the board to `last`, after a clean stop. A board that is no longer ours is left alone.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn retire_file(&self, last: &Path) -> io::Result<()> {
        if self.is_ours() {
            renameat(
                &self.files.dir,
                self.name.as_str(),
                nix::fcntl::AT_FDCWD,
                last,
            )?;
        }
        Ok(())
    }

    /// Removes the board, if it is still ours.
    pub fn remove_file(&self) {
        if self.is_ours() {
            // Best effort: a board without a master is harmless and says that it is dead.
            let _ = unlinkat(
                &self.files.dir,
                self.name.as_str(),
                UnlinkatFlags::NoRemoveDir,
            );
        }
    }

    fn is_ours(&self) -> bool {
        let there: Result<FileStat, _> = fstatat(
            &self.files.dir,
            self.name.as_str(),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        );
        match (there, self.files.data.metadata()) {
            (Ok(there), Ok(ours)) => there.st_ino == ours.ino() && there.st_dev == ours.dev(),
            _ => false,
        }
    }
}

pub(crate) fn version_word(words: &[AtomicU64], place: &Place) -> u64 {
    words
        .get(place.version)
        .map_or(0, |cell| cell.load(Ordering::Relaxed))
}

/// The child's side: its own page of the board, and nothing else of it.
#[derive(Debug)]
pub struct ChildPage {
    map: Map,
    place: Place,
    version: u64,
    histograms: PhaseHistograms,
}

impl ChildPage {
    /// Maps the page of `slot`. To be called in the child after the fork, before it drops privileges and before any network byte; the
    /// master has called [`Board::adopt_child`] for this incarnation. The descriptor can be closed afterwards.
    ///
    /// # Errors
    /// When it cannot be mapped, there is no such slot, or the page was not made ready for this incarnation.
    pub fn map(
        fd: BorrowedFd<'_>,
        geometry: Geometry,
        slot: u32,
        incarnation: u64,
    ) -> io::Result<ChildPage> {
        let offset = geometry.child_page(slot).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the scoreboard has no slot {slot}"),
            )
        })?;
        let map = Map::shared(fd, offset as u64, geometry.child_stride())?;
        // In words of the page, which is mapped alone.
        let place = Place {
            version: 0,
            copies: [LINE / 8, crate::layout::CHILD_SECOND / 8],
        };
        // The only look at the shared word: from here on the version is ours.
        let version = version_word(map.words(), &place);
        if !latch::is_of(version, incarnation) {
            return Err(io::Error::other(format!(
                "the page of slot {slot} is of process {}, not {incarnation}, of the slot",
                latch::incarnation(version)
            )));
        }
        histogram::begin::<Sound>();
        Ok(ChildPage {
            map,
            place,
            version,
            histograms: PhaseHistograms::default(),
        })
    }

    /// Publishes what the child says of itself: about 70 ns, no system call.
    pub fn publish(&mut self, record: &ChildRecord) {
        latch::publish::<Sound>(
            self.map.words(),
            &self.place,
            &mut self.version,
            bytemuck::cast_slice(std::slice::from_ref(record)),
        );
    }

    /// Counts a duration of a phase: one store, seen at once, no publication.
    pub fn observe(&mut self, phase: Phase, ns: u64) {
        let Some(row) = histogram::phase_row(phase) else {
            return;
        };
        let bucket = histogram::phase_bucket(ns);
        let count = &mut self.histograms.0[row][bucket];
        *count += 1;
        let word = CHILD_HISTOGRAMS / 8 + row * histogram::PHASE_BUCKETS + bucket;
        if let Some(cell) = self.map.words().get(word) {
            cell.store(*count, Ordering::Relaxed);
        }
    }

    /// Whether the count of publications nears its end (10^12): the child should then retire.
    pub fn is_worn(&self) -> bool {
        let count = self.version & ((1 << COUNT_BITS) - 1);
        count > (1 << COUNT_BITS) - (1 << 32)
    }
}
