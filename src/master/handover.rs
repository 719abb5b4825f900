//! A master as it crosses an exec: all that its successor, the next program of the same process, cannot know from the configuration.
//!
//! Written by the program that goes, read by the one that comes, perhaps of another version: JSON, whose members may be added to. A member
//! whose meaning changes makes another [`VERSION`], which an older or newer program refuses in its trial, before anything has happened.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use scoreboard::{Board, Descriptors, Handover};
use serde::{Deserialize, Serialize};

use super::Master;
use super::child::{ChildState, InHand};
use super::listener::ListenerState;
use crate::config::{self, Config, MilterConfig, Port};
use crate::policy::Bundle;
use crate::run_dir::request::Asker;
use crate::sys::exec::{self, AcrossExec, Inherited};
use crate::worker::Treatment;

/// Of the format.
pub(super) const VERSION: u32 = 1;

/// What is handed over.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// [`VERSION`]
    pub(super) version: u32,
    /// The program that hands over.
    pub(super) program: Program,
    /// The process that does not change.
    pub(super) pid: i32,
    pub(super) milter: String,
    pub(super) run_dir: PathBuf,
    /// The configuration that holds.
    pub(super) config: String,
    /// The policy that is run.
    pub(super) policy: Vec<Source>,
    pub(super) foreground: bool,
    pub(super) generation: u64,
    pub(super) lock: RawFd,
    pub(super) lock_base: i64,
    pub(super) board: BoardState,
    /// The board to which some children still write, if that is another one, and their slots.
    pub(super) former: Option<(BoardState, Vec<u32>)>,
    /// The global record, word by word.
    pub(super) global: Vec<u64>,
    /// Slots that were ever used.
    pub(super) slots: Vec<SlotState>,
    /// Slots that could be used.
    pub(super) slots_limit: u32,
    pub(super) busy_slots: u64,
    pub(super) busy_since_ns: u64,
    pub(super) listener: Option<ListenerState>,
    pub(super) in_hand: Vec<InHandState>,
    /// Who else has asked for a restart.
    pub(super) askers: Vec<Asker>,
    /// Answers that could not be written.
    #[serde(default)]
    pub(super) unanswered: Vec<(String, String)>,
    /// What systemd is still to be told.
    pub(super) owed: Vec<String>,
}

/// A program's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Program {
    pub(super) version: String,
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl Program {
    /// The one that runs this process, also when its file has been replaced.
    pub(super) fn this() -> Program {
        let meta = fs::metadata("/proc/self/exe").ok();
        Program {
            version: concat!(env!("CARGO_PKG_VERSION"), " (", env!("PMX_BUILD"), ")").to_owned(),
            device: meta.as_ref().map_or(0, MetadataExt::dev),
            inode: meta.as_ref().map_or(0, MetadataExt::ino),
        }
    }
}

/// A file of a policy: enough to tell whether it has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) length: usize,
    pub(super) hash: u64,
}

/// The files of a policy, its own first.
pub(super) fn sources(bundle: &Bundle) -> Vec<Source> {
    let source = |path: &Path, bytes: &[u8]| Source {
        path: path.to_owned(),
        length: bytes.len(),
        hash: fnv(bytes),
    };
    let own = std::iter::once(source(&bundle.path, &bundle.source));
    let modules = bundle.modules.iter().map(|it| source(&it.path, &it.source));
    let lists = bundle.lists.iter().map(|it| source(&it.path, &it.bytes));
    own.chain(modules).chain(lists).collect()
}

/// FNV-1a, 64 bits: the same in every version of the program. It tells people what changed, nothing depends on it.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A board in words.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BoardState {
    pub(super) dir: RawFd,
    pub(super) data: RawFd,
    pub(super) lock: RawFd,
    pub(super) name: String,
    pub(super) header: Vec<u64>,
    pub(super) global_version: u64,
    pub(super) master_versions: Vec<u64>,
    pub(super) deaths: u64,
    pub(super) seconds: u64,
    pub(super) events: u64,
}

impl BoardState {
    /// In words. `slots`: how many were ever used.
    fn of(board: &Board, slots: usize) -> BoardState {
        let handed = board.hand_over(slots);
        let fds = board.descriptors();
        BoardState {
            dir: exec::number(fds.dir),
            data: exec::number(fds.data),
            lock: exec::number(fds.lock),
            name: handed.name,
            header: handed.header,
            global_version: handed.global_version,
            master_versions: handed.master_versions,
            deaths: handed.deaths,
            seconds: handed.seconds,
            events: handed.events,
        }
    }

    /// Takes the board up.
    ///
    /// # Errors
    /// When a descriptor is missing or is something else.
    pub(super) fn take_up(&self, inherited: &mut Inherited) -> std::io::Result<Board> {
        let fds = Descriptors {
            dir: inherited.take(self.dir)?,
            data: inherited.take(self.data)?,
            lock: inherited.take(self.lock)?,
        };
        let handed = Handover {
            name: self.name.clone(),
            header: self.header.clone(),
            global_version: self.global_version,
            master_versions: self.master_versions.clone(),
            deaths: self.deaths,
            seconds: self.seconds,
            events: self.events,
        };
        Board::take_up(fds, &handed)
    }
}

/// A slot in words.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SlotState {
    pub(super) record: Vec<u64>,
    /// What earlier processes of the slot observed.
    pub(super) histograms: Vec<u64>,
    pub(super) child: Option<ChildState>,
}

/// A connection that is with nobody.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct InHandState {
    pub(super) socket: RawFd,
    pub(super) treatment: u8,
    pub(super) tcp: bool,
}

/// Why it cannot be understood.
#[derive(Debug)]
pub(super) enum StateError {
    /// Another version of the format.
    Version(u32),
    /// It is damaged, or lacks something.
    Damaged(serde_json::Error),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::Version(version) => write!(
                f,
                "the running master hands over in format {version}, this program knows format {VERSION} only"
            ),
            StateError::Damaged(error) => write!(
                f,
                "this program does not understand what the running master hands over: {error}"
            ),
        }
    }
}

impl std::error::Error for StateError {}

impl State {
    /// Where the running master listens, as it is written.
    pub(super) fn port(&self) -> Option<Port> {
        self.listener.as_ref()?.port.parse().ok()
    }

    /// For the next program.
    ///
    /// # Errors
    /// When a path is no text.
    pub(super) fn encode(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    /// From the program before.
    ///
    /// # Errors
    /// See [`StateError`].
    pub(super) fn decode(bytes: &[u8]) -> Result<State, StateError> {
        /// What every format has.
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(StateError::Damaged)?;
        if head.version != VERSION {
            return Err(StateError::Version(head.version));
        }
        serde_json::from_slice(bytes).map_err(StateError::Damaged)
    }
}

/// A record from its words: those that a newer program has beyond them are 0, those that an older one lacks are left out.
pub(super) fn record<T: bytemuck::Pod>(words: &[u64]) -> T {
    let mut record = T::zeroed();
    let known: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut record));
    for (to, word) in known.iter_mut().zip(words) {
        *to = *word;
    }
    record
}

fn words<T: bytemuck::Pod>(record: &T) -> Vec<u64> {
    bytemuck::cast_slice(std::slice::from_ref(record)).to_vec()
}

/// The configuration of one milter as text that reads back as the same.
pub(super) fn dump(milter: &MilterConfig, run_dir: &Path, user: &str) -> String {
    config::dump(&Config {
        file: PathBuf::new(),
        run_dir: run_dir.to_owned(),
        user: user.to_owned(),
        milters: vec![milter.clone()],
    })
}

impl Master {
    /// All that the next program needs to know.
    pub(super) fn hand_over(&self, now: Instant) -> State {
        let used = usize::try_from(self.books.global.slots_high_water).unwrap_or(usize::MAX);
        let slots = self.books.slots.iter().zip(&self.children);
        let user = self.account.as_ref().map_or("", |it| it.name.as_str());
        State {
            version: VERSION,
            program: Program::this(),
            pid: nix::unistd::getpid().as_raw(),
            milter: self.milter.name.to_string(),
            run_dir: self.paths.dir().to_owned(),
            config: dump(&self.milter, self.paths.dir(), user),
            policy: sources(&self.bundle),
            foreground: self.foreground,
            generation: self.generation,
            lock: exec::number(&self.lock),
            lock_base: self.lock_base,
            board: BoardState::of(&self.books.board, used),
            former: self.books.former().map(|former| {
                let slots = former.slots.iter().map(|(slot, _)| *slot).collect();
                (BoardState::of(&former.board, used), slots)
            }),
            global: words(&self.books.global),
            slots: slots
                .enumerate()
                .take(used)
                .map(|(slot, (record, child))| SlotState {
                    record: words(record),
                    histograms: self.books.histograms_words(slot),
                    child: child.as_ref().map(|child| child.hand_over(now)),
                })
                .collect(),
            slots_limit: self.slots_limit(),
            busy_slots: self.books.busy.slots(),
            busy_since_ns: self.books.busy.since_ns(),
            listener: self
                .listener
                .as_ref()
                .map(|listener| listener.hand_over(&self.milter.port)),
            in_hand: self.in_hand.iter().map(InHandState::from).collect(),
            askers: self.askers.clone(),
            unanswered: self.unanswered.clone(),
            owed: self.notify.owed().to_vec(),
        }
    }

    /// The descriptors that [`Master::hand_over`] names.
    fn handed_over(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = vec![self.lock.as_fd()];
        let former = self.books.former().map(|former| &former.board);
        for board in former.into_iter().chain([&self.books.board]) {
            let Descriptors { dir, data, lock } = board.descriptors();
            fds.extend([dir, data, lock]);
        }
        fds.extend(self.listener.iter().map(|it| it.socket().as_fd()));
        fds.extend(self.in_hand.iter().map(|it| it.socket.as_fd()));
        let children = self.children.iter().flatten();
        fds.extend(children.flat_map(|child| child.descriptors()));
        fds
    }

    /// Says of all of them what becomes of them at an exec.
    pub(super) fn across_exec(&self, what: AcrossExec) -> std::io::Result<()> {
        self.handed_over()
            .into_iter()
            .try_for_each(|fd| exec::across_exec(fd, what))
    }
}

impl From<&InHand> for InHandState {
    fn from(it: &InHand) -> InHandState {
        InHandState {
            socket: exec::number(&it.socket),
            treatment: it.treatment.byte(),
            tcp: it.tcp,
        }
    }
}

impl InHandState {
    /// How the connection was to be treated.
    pub(super) fn treatment(&self) -> Treatment {
        Treatment::from_byte(self.treatment).unwrap_or(Treatment::Policy)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn another_format_is_refused_by_its_number_whatever_else_it_has() {
        let error = State::decode(b"{\"version\": 9, \"new\": []}").unwrap_err();
        assert!(error.to_string().contains("format 9"), "{error}");
        let error = State::decode(b"{\"version\": 1}").unwrap_err();
        assert!(error.to_string().contains("missing field"), "{error}");
        assert!(State::decode(b"").is_err());
    }

    #[test]
    fn a_record_of_another_length_keeps_the_words_that_both_know() {
        assert_eq!(record::<[u64; 3]>(&[1, 2]), [1, 2, 0]);
        assert_eq!(record::<[u64; 2]>(&[1, 2, 3]), [1, 2]);
    }
}
