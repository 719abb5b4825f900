//! Looks at milters: reads boards with `pread` and asks the kernel. Nothing is signalled, connected to or written, and whatever happens to
//! a board while it is looked at ends in words.
#![forbid(unsafe_code)]

use scoreboard::{History, ReadError, Reader, Snapshot};

use crate::config::MilterName;
use crate::control::place::{Found, each_once};
use crate::control::status::{State, gather};
use crate::run_dir::{self, Paths};
use crate::sys::lock;

use super::model::Seen;

/// The milters of a place: those that were named; otherwise all that are enabled or there.
pub(super) fn names(found: &Found, asked: &[MilterName]) -> Vec<MilterName> {
    if !asked.is_empty() {
        return each_once(asked);
    }
    // A run directory that cannot be read shows in every milter's words.
    let there = run_dir::milters(&found.run_dir).unwrap_or_default();
    let shown = |name: &MilterName| {
        let paths = Paths::new(&found.run_dir, name);
        paths.board().exists() || !holders(&paths).is_empty()
    };
    let configured = found.config.iter().flat_map(|config| &config.milters);
    let mut names: Vec<MilterName> = configured
        .filter(|milter| milter.enabled || shown(&milter.name))
        .map(|milter| milter.name.clone())
        .collect();
    for name in there {
        if !names.contains(&name) && shown(&name) {
            names.push(name);
        }
    }
    names
}

/// Whether anybody has heard of it.
pub(super) fn is_known(found: &Found, name: &MilterName) -> bool {
    let paths = Paths::new(&found.run_dir, name);
    let configured = found
        .config
        .as_ref()
        .is_some_and(|config| config.milter(name).is_some());
    configured || paths.lock().exists() || paths.board().exists()
}

fn holders(paths: &Paths) -> Vec<lock::Holder> {
    lock::holders(&paths.lock()).unwrap_or_default()
}

/// One milter, looked at again and again; its board stays open.
#[derive(Debug)]
pub(super) struct Watch {
    name: MilterName,
    paths: Paths,
    reader: Option<Reader>,
}

impl Watch {
    /// A milter of a place.
    pub(super) fn new(found: &Found, name: &MilterName) -> Watch {
        Watch {
            name: name.clone(),
            paths: Paths::new(&found.run_dir, name),
            reader: None,
        }
    }

    /// Which milter.
    pub(super) fn name(&self) -> &MilterName {
        &self.name
    }

    /// The milter as it is now.
    pub(super) fn look(&mut self) -> Seen {
        match self.read() {
            Ok((board, history)) => self.of_board(board, history),
            Err(error) => self.without_board(&error),
        }
    }

    fn read(&mut self) -> Result<(Snapshot, History), ReadError> {
        // A master that was started again has another file.
        let open = self.reader.take().filter(|reader| !reader.is_replaced());
        if let Some(reader) = open {
            // One that fails now is opened anew: its header tells better what is wrong with it.
            if let Ok(read) = read(&reader) {
                self.reader = Some(reader);
                return Ok(read);
            }
        }
        let reader = Reader::open(&self.paths.board())?;
        let read = read(&reader)?;
        self.reader = Some(reader);
        Ok(read)
    }

    fn of_board(&self, board: Snapshot, history: History) -> Seen {
        let view = gather::of_board(&self.name, board);
        let heartbeat_age = view.heartbeat_age();
        let orphans = match view.state {
            State::Dead | State::Stale => holders(&self.paths).len() as u64,
            _ => 0,
        };
        let words = match view.state {
            State::Hung => {
                Some("the master shows no sign of life; connections in progress go on".to_owned())
            }
            State::Stopped => Some("the master is suspended by a signal".to_owned()),
            State::Dead => Some(format!(
                "the master is dead, this is what it left; pmx-milter start {}",
                self.name
            )),
            State::Stale => Some("this is from before the machine was booted".to_owned()),
            State::NotRunning => Some(self.not_running()),
            State::Starting | State::Running | State::Retiring | State::Unreadable => None,
        };
        Seen {
            state: view.state,
            words,
            pid: view.pid,
            orphans,
            heartbeat_age,
            board: view.board,
            history,
        }
    }

    fn not_running(&self) -> String {
        format!(
            "{} does not run; to start it: pmx-milter start {}",
            self.name, self.name
        )
    }

    fn without_board(&self, error: &ReadError) -> Seen {
        let holders = holders(&self.paths);
        let master = holders.iter().find(|holder| holder.byte == 0);
        let pid = master.and_then(|holder| u64::try_from(holder.pid.as_raw()).ok());
        let missing = error.is_missing();
        let (state, words) = match pid {
            Some(pid) if missing => (
                State::Starting,
                format!(
                    "its master, pid {pid}, has no scoreboard yet, or {} was removed",
                    self.paths.board().display()
                ),
            ),
            None if missing && !holders.is_empty() => (
                State::Dead,
                "the master is dead and its scoreboard is gone".to_owned(),
            ),
            None if missing => (State::NotRunning, self.not_running()),
            _ => (State::Unreadable, error.to_string()),
        };
        Seen {
            state,
            words: Some(words),
            pid,
            orphans: if pid.is_some() {
                0
            } else {
                holders.len() as u64
            },
            heartbeat_age: None,
            board: None,
            history: History::default(),
        }
    }
}

fn read(reader: &Reader) -> Result<(Snapshot, History), ReadError> {
    Ok((reader.detailed()?, reader.history()?))
}
