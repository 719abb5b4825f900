//! Finds the milters that status is about, and what their boards and the kernel say of them.
#![forbid(unsafe_code)]

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::unistd::Pid;
use scoreboard::{
    BoardVerdict, Brief, History, Lock, MapReader, MilterState, ReadError, Reader, Slot, Snapshot,
};

use crate::config::MilterName;
use crate::control::place::{Found, each_once, not_configured};
use crate::run_dir::{self, Paths};
use crate::sys::{bus_guard, lock, memory, process};

use super::view::{Kernel, State, View, Views};

/// Most slots that the heap is made ready for.
const MOST_SLOTS: u32 = 4096;

/// How much is read of a board.
pub(in crate::control) trait Look {
    /// What is kept of a slot.
    type Slot;
    /// Bytes that a slot takes of the heap: what is kept of it, and its lines.
    const SLOT_BYTES: usize;

    /// Reads it through a map.
    fn mapped(&self, reader: &MapReader) -> (Snapshot<Self::Slot>, Option<History>);

    /// Reads it by system calls.
    fn by_calls(
        &self,
        reader: &Reader,
    ) -> Result<(Snapshot<Self::Slot>, Option<History>), ReadError>;

    /// Is what the board remembers shown, if only to say that it remembers nothing?
    fn wants_history(&self) -> bool;
}

/// Only what the plain form shows.
pub(super) struct Plain;

/// Every record of the slots, and what is said here beside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::control) struct Want {
    /// The histograms of the phases: about twice the cost.
    pub(in crate::control) histograms: bool,
    /// The rings of seconds and events.
    pub(in crate::control) history: bool,
}

impl Look for Plain {
    type Slot = Brief;
    const SLOT_BYTES: usize = 320;

    fn mapped(&self, reader: &MapReader) -> (Snapshot<Brief>, Option<History>) {
        (reader.brief(), None)
    }

    fn by_calls(&self, reader: &Reader) -> Result<(Snapshot<Brief>, Option<History>), ReadError> {
        Ok((reader.brief()?, None))
    }

    fn wants_history(&self) -> bool {
        false
    }
}

impl Look for Want {
    type Slot = Slot;
    const SLOT_BYTES: usize = 2048;

    fn mapped(&self, reader: &MapReader) -> (Snapshot, Option<History>) {
        let board = if self.histograms {
            reader.detailed()
        } else {
            reader.snapshot()
        };
        (board, self.history.then(|| reader.history()))
    }

    fn by_calls(&self, reader: &Reader) -> Result<(Snapshot, Option<History>), ReadError> {
        let board = if self.histograms {
            reader.detailed()?
        } else {
            reader.snapshot()?
        };
        let history = self.history.then(|| reader.history()).transpose()?;
        Ok((board, history))
    }

    fn wants_history(&self) -> bool {
        self.history
    }
}

/// Looks at every milter that was named; without names at every one that is there or enabled.
pub(in crate::control) fn gather<L: Look>(
    found: &Found,
    names: &[MilterName],
    how: &L,
) -> Views<L::Slot> {
    if names.is_empty() {
        let (names, complaint) = all(found);
        look_at(found, names, complaint, how)
    } else {
        look_at(found, each_once(names), None, how)
    }
}

/// Looks at one milter, if it is one of those that are there or enabled; at the others not.
pub(in crate::control) fn gather_one<L: Look>(
    found: &Found,
    name: &str,
    how: &L,
) -> Views<L::Slot> {
    let (mut names, complaint) = all(found);
    names.retain(|it| it.to_string() == name);
    look_at(found, names, complaint, how)
}

fn look_at<L: Look>(
    found: &Found,
    names: Vec<MilterName>,
    complaint: Option<String>,
    how: &L,
) -> Views<L::Slot> {
    let mut unknown = usize::from(complaint.is_some());
    let mut complaints: Vec<String> = complaint.into_iter().collect();
    let mut milters = Vec::new();
    for name in names {
        match look(found, &name, how) {
            Ok(view) => {
                let why = view.unreadable.iter();
                complaints.extend(why.map(|why| format!("status {name}: {why}")));
                milters.push(view);
            }
            Err(complaint) => {
                complaints.push(complaint);
                unknown += 1;
            }
        }
    }
    Views {
        milters,
        unknown,
        complaints,
        wall_seconds: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64()),
    }
}

/// Milters of the configuration first, in its order, then others of the run directory; and a complaint when that cannot be read.
fn all(found: &Found) -> (Vec<MilterName>, Option<String>) {
    let (there, complaint) = match run_dir::milters(&found.run_dir) {
        Ok(names) => (names, None),
        Err(error) => {
            let dir = found.run_dir.display();
            let complaint = format!("status: cannot read run_dir {dir}: {error}");
            (Vec::new(), Some(complaint))
        }
    };
    let configured = found.config.iter().flat_map(|config| &config.milters);
    let shown = |name: &MilterName| {
        let paths = Paths::new(&found.run_dir, name);
        paths.board().exists() || !holders(&paths).is_empty()
    };
    let mut names: Vec<MilterName> = configured
        .filter(|milter| milter.enabled || (there.contains(&milter.name) && shown(&milter.name)))
        .map(|milter| milter.name.clone())
        .collect();
    for name in there {
        if !names.contains(&name) && shown(&name) {
            names.push(name);
        }
    }
    (names, complaint)
}

/// One milter.
///
/// # Errors
/// The complaint about a name that neither configuration nor run directory knows.
fn look<L: Look>(found: &Found, name: &MilterName, how: &L) -> Result<View<L::Slot>, String> {
    let paths = Paths::new(&found.run_dir, name);
    let (board, history) = match read(&paths, how) {
        Ok((board, history)) => (Ok(board), history),
        Err(error) => (Err(error), None),
    };
    // While the master lives there are no orphans, and the locks of its children, one call each, need not be asked for.
    let alive = |board: &Snapshot<L::Slot>| board.liveness.lock == Lock::Held;
    let holders = match &board {
        Ok(board) if alive(board) => Vec::new(),
        _ => holders(&paths),
    };
    let master = holders
        .iter()
        .find(|holder| holder.byte == 0)
        .map(|holder| holder.pid);
    let orphans = if master.is_some() { 0 } else { holders.len() };
    let mut view = match board {
        Ok(board) => {
            let mut view = of_board(name, board);
            view.history = view.board.is_some().then_some(history).flatten();
            view
        }
        Err(error) if error.is_missing() => match master {
            Some(pid) => starting(name, pid),
            None if orphans > 0 => View::without_board(name.clone(), State::Dead),
            None => {
                known(found, name, &paths)?;
                View::without_board(name.clone(), State::NotRunning)
            }
        },
        Err(error) => {
            let mut view = View::without_board(name.clone(), State::Unreadable);
            view.unreadable = Some(error.to_string());
            view
        }
    };
    view.orphans = orphans as u64;
    if how.wants_history() {
        view.history.get_or_insert_default();
    }
    Ok(view)
}

/// Reads the board through a map: for hundreds of slots that takes a third of what `pread` takes. A file with holes is no board of a milter
/// (it may be a copy of one): a map would fill them.
fn read<L: Look>(
    paths: &Paths,
    how: &L,
) -> Result<(Snapshot<L::Slot>, Option<History>), ReadError> {
    let path = paths.board();
    let reader = MapReader::open(&path)?;
    if reader.has_holes() {
        return how.by_calls(&Reader::open(&path)?);
    }
    let look = || {
        let slots = reader.slots().min(MOST_SLOTS);
        memory::make_ready(slots as usize * L::SLOT_BYTES);
        how.mapped(&reader)
    };
    match bus_guard::guarded(reader.addresses(), look) {
        Ok(Some(read)) => Ok(read),
        Ok(None) => {
            let error = io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it was cut short while it was read",
            );
            Err(ReadError::Read(path, error))
        }
        Err(errno) => Err(ReadError::Read(path, errno.into())),
    }
}

/// Who holds locks. A lock file that we may not read tells nothing; whether there is a board still does.
fn holders(paths: &Paths) -> Vec<lock::Holder> {
    lock::holders(&paths.lock()).unwrap_or_default()
}

/// Whether there is or could be such a milter.
///
/// # Errors
/// The complaint, when there could not.
fn known(found: &Found, name: &MilterName, paths: &Paths) -> Result<(), String> {
    if paths.lock().exists() {
        return Ok(());
    }
    match &found.config {
        Some(config) if config.milter(name).is_some() => Ok(()),
        Some(config) => Err(not_configured("status", name, config)),
        None => Err(format!(
            "status {name}: nothing is known of it: run_dir {} has no trace of it, and the configuration cannot be read",
            found.run_dir.display()
        )),
    }
}

/// A master that has its lock and not yet its board.
fn starting<T>(name: &MilterName, pid: Pid) -> View<T> {
    let mut view = View::without_board(name.clone(), State::Starting);
    view.pid = u64::try_from(pid.as_raw()).ok();
    view.kernel = kernel(pid.as_raw(), None).0;
    view
}

pub(in crate::control) fn of_board<T>(name: &MilterName, board: Snapshot<T>) -> View<T> {
    let verdict = board.verdict();
    let mut kernel_says = Kernel::default();
    let mut suspended = false;
    if matches!(verdict, BoardVerdict::Alive { .. })
        && board.liveness.same_pid_namespace != Some(false)
        && let Ok(pid) = i32::try_from(board.header.master_pid)
    {
        (kernel_says, suspended) = kernel(pid, Some(board.header.master_start));
    }
    let state = state(verdict, board.state(), suspended);
    // A master that ended as it should and whose board is still there for an instant.
    if state == State::NotRunning {
        return View::without_board(name.clone(), state);
    }
    View {
        name: name.clone(),
        state,
        pid: (board.header.master_pid != 0).then_some(board.header.master_pid),
        kernel: kernel_says,
        orphans: 0,
        board: Some(board),
        history: None,
        unreadable: None,
    }
}

fn state(verdict: BoardVerdict, said: MilterState, suspended: bool) -> State {
    match verdict {
        BoardVerdict::Dead => State::Dead,
        BoardVerdict::Stale => State::Stale,
        BoardVerdict::StoppedClean => State::NotRunning,
        BoardVerdict::Alive { .. } if suspended => State::Stopped,
        BoardVerdict::Alive { hung: true } => State::Hung,
        BoardVerdict::Alive { hung: false } => match said {
            MilterState::Starting => State::Starting,
            // The last moments of a stop, when the board already says that it is over.
            MilterState::Retiring | MilterState::Stopped => State::Retiring,
            MilterState::Running | MilterState::Unknown(_) => State::Running,
        },
    }
}

/// What the kernel says of a master, and whether it is suspended. A pid that began at another time is somebody else's by now.
fn kernel(pid: i32, start: Option<u64>) -> (Kernel, bool) {
    let Some(stat) = process::stat(pid) else {
        return (Kernel::default(), false);
    };
    if start.is_some_and(|start| start != 0 && start != stat.start_time) {
        return (Kernel::default(), false);
    }
    let says = Kernel {
        vsz_bytes: Some(stat.vsz_bytes),
        threads: Some(stat.threads),
        procs: process::children(pid).map(|number| number as u64),
    };
    (says, stat.state == 'T')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_word_comes_before_the_masters() {
        use MilterState as Said;
        let alive = |hung| BoardVerdict::Alive { hung };
        let table = [
            (alive(false), Said::Starting, false, State::Starting),
            (alive(false), Said::Running, false, State::Running),
            (alive(false), Said::Retiring, false, State::Retiring),
            (alive(true), Said::Running, false, State::Hung),
            (alive(true), Said::Retiring, true, State::Stopped),
            (alive(false), Said::Running, true, State::Stopped),
            (BoardVerdict::Dead, Said::Running, false, State::Dead),
            (BoardVerdict::Stale, Said::Running, false, State::Stale),
            (
                BoardVerdict::StoppedClean,
                Said::Stopped,
                false,
                State::NotRunning,
            ),
        ];
        for (verdict, said, suspended, expected) in table {
            assert_eq!(
                state(verdict, said, suspended),
                expected,
                "{verdict:?} {said:?} {suspended}"
            );
        }
    }

    #[test]
    fn a_recycled_pid_is_not_taken_for_the_master() {
        let me = std::process::id().cast_signed();
        assert!(kernel(me, None).0.vsz_bytes.is_some());
        assert_eq!(kernel(me, Some(1)), (Kernel::default(), false));
    }
}
