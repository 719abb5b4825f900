//! A board that goes on with another program of the same process: its descriptors survive exec, and with them its lock; what only the
//! writer knew crosses as words.
//!
//! A program whose layout is another one can still read the board ([`Board::is_of_this_layout`] says so), to carry its totals on in a new
//! one. It must not write records to it. Processes that go on writing to the old board are shown on the new one by a [`Relay`].
#![forbid(unsafe_code)]

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, fchown};

use bytemuck::Zeroable;

use crate::create::Created;
use crate::histogram;
use crate::latch::{self, Sound};
use crate::layout::{Geometry, HEADER_WORDS, Header, MAJOR, MINOR};
use crate::liveness::{self, Lock};
use crate::map::Map;
use crate::schema;
use crate::sync::Ordering;
use crate::writer::{Board, version_word};

/// What the writer of a board knows and its file must not be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    /// Its name in the directory.
    pub name: String,
    /// The header as it was written.
    pub header: Vec<u64>,
    /// Version of the global record.
    pub global_version: u64,
    /// Versions of the slots' records, as many as were ever published.
    pub master_versions: Vec<u64>,
    /// Deaths so far.
    pub deaths: u64,
    /// Seconds so far.
    pub seconds: u64,
    /// Events so far.
    pub events: u64,
}

/// The descriptors of a board: they must all be open in the next program.
#[derive(Debug)]
pub struct Descriptors<T> {
    /// The directory.
    pub dir: T,
    /// The file, which is mapped.
    pub data: T,
    /// The file once more, with the lock that says that its writer lives.
    pub lock: T,
}

/// The page of a process that writes to another board than the one on which it is to be seen.
#[derive(Debug)]
pub struct Relay {
    slot: u32,
    version: u64,
}

impl Board {
    /// Shows a process that writes to `from`, as it stands there now. No process of this board may have the slot.
    pub fn begin_relay(&mut self, slot: u32, incarnation: u64, from: &Board) -> Relay {
        let place = self.files.geometry.child(slot);
        let found = place.map_or(0, |place| version_word(self.files.map.words(), &place));
        let mut relay = Relay {
            slot,
            version: latch::take_over(found, incarnation),
        };
        self.relay(&mut relay, from);
        relay
    }

    /// The same again.
    pub fn relay(&mut self, relay: &mut Relay, from: &Board) {
        let (Some(place), Some(first)) = (
            self.files.geometry.child(relay.slot),
            self.files.geometry.child_histograms(relay.slot),
        ) else {
            return;
        };
        let words = self.files.map.words();
        let histograms = from.read_child_histograms(relay.slot);
        histogram::replace::<Sound>(words, first, histograms.words());
        let record = from.read_child(relay.slot);
        latch::publish::<Sound>(
            words,
            &place,
            &mut relay.version,
            bytemuck::cast_slice(std::slice::from_ref(&record)),
        );
    }

    /// Its descriptors.
    pub fn descriptors(&self) -> Descriptors<BorrowedFd<'_>> {
        Descriptors {
            dir: self.files.dir.as_fd(),
            data: self.files.data.as_fd(),
            lock: self.files.lock.as_fd(),
        }
    }

    /// What the next program needs beside them. `slots`: how many were ever used.
    pub fn hand_over(&self, slots: usize) -> Handover {
        let words: &[u64] = bytemuck::cast_slice(std::slice::from_ref(&self.files.header));
        let used = slots.min(self.master_versions.len());
        Handover {
            name: self.name.clone(),
            header: words.to_vec(),
            global_version: self.global_version,
            master_versions: self.master_versions[..used].to_vec(),
            deaths: self.deaths,
            seconds: self.seconds,
            events: self.events,
        }
    }

    /// Who may read it, from now on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_access(&self, mode: u32, group: Option<u32>) -> io::Result<()> {
        if let Some(group) = group {
            fchown(&self.files.data, None, Some(group))?;
        }
        self.files
            .data
            .set_permissions(Permissions::from_mode(mode & 0o777))
    }

    /// Takes a board up.
    ///
    /// # Errors
    /// The kernel's; `InvalidData` when the descriptors are not those of such a board, or nobody holds its lock.
    pub fn take_up(fds: Descriptors<OwnedFd>, handed: &Handover) -> io::Result<Board> {
        let wrong = |what: &str| {
            let text = format!("the scoreboard that is handed over: {what}");
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let mut header = Header::zeroed();
        let known: &mut [u64; HEADER_WORDS] = bytemuck::cast_mut(&mut header);
        if handed.header.len() < HEADER_WORDS {
            return Err(wrong("a short header"));
        }
        for (to, word) in known.iter_mut().zip(&handed.header) {
            *to = *word;
        }
        if header.major() != MAJOR {
            return Err(wrong("another major version"));
        }
        let geometry = Geometry::of(&header).map_err(wrong)?;
        let data = File::from(fds.data);
        if data.metadata()?.len() != header.file_size {
            return Err(wrong("a file of another size"));
        }
        // The lock belongs to the other open file: from here it is seen as somebody's.
        if liveness::query(&data) != Lock::Held {
            return Err(wrong("its lock is not held"));
        }
        let bytes = usize::try_from(geometry.file_size()).map_err(|_| wrong("too large"))?;
        let map = Map::shared(data.as_fd(), 0, bytes)?;
        let mut master_versions = handed.master_versions.clone();
        master_versions.resize(usize::try_from(geometry.slots()).unwrap_or(0), 0);
        Ok(Board {
            files: Created {
                dir: fds.dir,
                data,
                lock: fds.lock,
                map,
                header,
                geometry,
                warning: None,
            },
            name: handed.name.clone(),
            global_version: handed.global_version,
            master_versions,
            deaths: handed.deaths,
            seconds: handed.seconds,
            events: handed.events,
        })
    }

    /// Would this program have made this very file? Only then may it write to it.
    pub fn is_of_this_layout(&self) -> bool {
        let header = &self.files.header;
        let text = schema::text();
        let same_version = (header.major(), header.minor()) == (MAJOR, MINOR);
        let page = usize::try_from(header.page_size).unwrap_or(0);
        let planned = (page > 0)
            .then(|| Geometry::plan(self.files.geometry.slots(), page, text.len()))
            .flatten();
        same_version && planned == Some(self.files.geometry) && self.schema_is(text.as_bytes())
    }

    fn schema_is(&self, text: &[u8]) -> bool {
        let (offset, _) = self.files.geometry.schema();
        let cells = self.files.map.words().get(offset / 8..).unwrap_or(&[]);
        let words = cells.iter().map(|cell| cell.load(Ordering::Relaxed));
        let expected = text.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        });
        let count = expected.len();
        words.take(count).eq(expected)
    }
}
