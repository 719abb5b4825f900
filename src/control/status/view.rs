//! What is shown of milters, whatever the output: numbers from the board, from the kernel, and what follows from both.
#![forbid(unsafe_code)]

use std::time::Duration;

use scoreboard::{BoardVerdict, Brief, Death, GlobalRecord, History, Slot, Snapshot};

use crate::config::MilterName;
use crate::control::StatusExit;

/// All milters that are shown, at one instant; of their slots everything, or what the plain form needs.
#[derive(Debug)]
pub(in crate::control) struct Views<T = Slot> {
    /// In the order in which they were asked for.
    pub(in crate::control) milters: Vec<View<T>>,
    /// Names that nobody knows.
    pub(super) unknown: usize,
    /// For whoever asked: unknown names, boards and directories that cannot be read.
    pub(in crate::control) complaints: Vec<String>,
    /// CLOCK_REALTIME in seconds.
    pub(super) wall_seconds: f64,
}

/// The state in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not ready yet.
    Starting,
    /// Serves.
    Running,
    /// Being stopped: finishes what it has.
    Retiring,
    /// Its heartbeat is older than 5 s.
    Hung,
    /// Its master is suspended by a signal.
    Stopped,
    /// Its master died; the board is a post mortem.
    Dead,
    /// The board is of an earlier boot.
    Stale,
    /// There is no board.
    NotRunning,
    /// The board cannot be read.
    Unreadable,
}

impl State {
    /// Every one, in the order of the man page.
    pub const ALL: &'static [State] = &[
        State::Starting,
        State::Running,
        State::Retiring,
        State::Hung,
        State::Stopped,
        State::Dead,
        State::Stale,
        State::NotRunning,
        State::Unreadable,
    ];

    /// The word in JSON.
    pub fn word(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Running => "running",
            State::Retiring => "retiring",
            State::Hung => "hung",
            State::Stopped => "stopped",
            State::Dead => "dead",
            State::Stale => "stale",
            State::NotRunning => "not_running",
            State::Unreadable => "unreadable",
        }
    }

    /// The exit status of a milter in this state.
    pub fn exit(self) -> StatusExit {
        match self {
            State::Starting | State::Running | State::Retiring | State::Hung | State::Stopped => {
                StatusExit::Running
            }
            State::Dead | State::Stale => StatusExit::Dead,
            State::NotRunning => StatusExit::NotRunning,
            State::Unreadable => StatusExit::Unknown,
        }
    }
}

/// One milter.
#[derive(Debug)]
pub(in crate::control) struct View<T = Slot> {
    pub(in crate::control) name: MilterName,
    pub(in crate::control) state: State,
    /// Of the master; of a dead one as long as its board is there.
    pub(in crate::control) pid: Option<u64>,
    pub(in crate::control) kernel: Kernel,
    /// Processes without a master that still finish connections.
    pub(in crate::control) orphans: u64,
    pub(in crate::control) board: Option<Snapshot<T>>,
    /// What the board remembers, when that was asked for.
    pub(super) history: Option<History>,
    /// Why the board cannot be read.
    pub(super) unreadable: Option<String>,
}

/// What the kernel says of the master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::control) struct Kernel {
    pub(super) vsz_bytes: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) procs: Option<u64>,
}

/// Interpreters of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Interpreters {
    pub(super) initialized: Option<u64>,
    pub(super) max: Option<u64>,
    pub(super) sequence: Option<u64>,
}

impl<T> View<T> {
    /// A milter of which there is no board.
    pub(super) fn without_board(name: MilterName, state: State) -> View<T> {
        View {
            name,
            state,
            pid: None,
            kernel: Kernel::default(),
            orphans: 0,
            board: None,
            history: None,
            unreadable: None,
        }
    }

    /// Where it listens, as the operator wrote it.
    pub(super) fn port(&self) -> Option<String> {
        let port = scoreboard::shown(&self.board.as_ref()?.global.port);
        (!port.is_empty()).then_some(port)
    }

    /// Age of the master's last sign of life.
    pub(in crate::control) fn heartbeat_age(&self) -> Option<Duration> {
        let board = self.board.as_ref()?;
        if self.state != State::Stale {
            return Some(board.heartbeat_age());
        }
        Some(age_by_wall_clock(board, board.global.heartbeat_ns))
    }
}

/// CLOCK_REALTIME ns at a BOOTTIME stamp of a board: by both clocks now, for the wall clock may have been set since the board was made; on
/// a board of an earlier boot by the anchor in its header.
pub(super) fn wall_ns<T>(board: &Snapshot<T>, stamp_ns: u64) -> u64 {
    if board.liveness.same_boot != Some(false) {
        let age = board.now_ns.saturating_sub(stamp_ns);
        return board.wall_ns.saturating_sub(age);
    }
    by_anchor(board, stamp_ns)
}

fn by_anchor<T>(board: &Snapshot<T>, stamp_ns: u64) -> u64 {
    let header = &board.header;
    let since = stamp_ns.saturating_sub(header.created_boot_ns);
    header.created_wall_ns.saturating_add(since)
}

/// BOOTTIME of another boot says nothing today: the wall clock's anchor in the header does.
fn age_by_wall_clock<T>(board: &Snapshot<T>, stamp_ns: u64) -> Duration {
    Duration::from_nanos(board.wall_ns.saturating_sub(by_anchor(board, stamp_ns)))
}

/// Age of a stamp of the board, also of one from an earlier boot; `None` for 0, "never".
pub(super) fn age(board: &Snapshot, stamp_ns: u64) -> Option<Duration> {
    match board.liveness.same_boot {
        Some(false) if stamp_ns != 0 => Some(age_by_wall_clock(board, stamp_ns)),
        _ => board.age(stamp_ns),
    }
}

/// Of the process in a slot.
pub(super) fn of_slot(global: &GlobalRecord, slot: &Brief) -> Interpreters {
    Interpreters {
        initialized: slot.process.map(|process| process.interpreters),
        max: Some(global.interpreters_max),
        sequence: slot.process.map(|process| process.interpreter_sequence),
    }
}

/// Of the process that last took a connection; before the first one, of the first process that there is.
pub(super) fn interpreters(global: &GlobalRecord, slots: &[Brief]) -> Interpreters {
    let speaks = |slot: &&Brief| slot.process.is_some();
    let last = slots
        .iter()
        .find(|slot| u64::from(slot.index) == global.last_slot && slot.process.is_some());
    let slot = last.or_else(|| slots.iter().find(speaks));
    slot.map_or(
        Interpreters {
            max: Some(global.interpreters_max),
            ..Interpreters::default()
        },
        |slot| of_slot(global, slot),
    )
}

/// The pid of the process in a slot.
pub(super) fn pid(slot: &Slot) -> Option<u64> {
    Brief::of(slot).pid
}

/// Whether somebody keeps the board up to date.
pub(super) fn is_alive(board: &Snapshot) -> bool {
    matches!(board.verdict(), BoardVerdict::Alive { .. })
}

/// A count of connections in the kernel's queue, unless it did not tell.
pub(super) fn queued_in_kernel(word: u64) -> Option<u64> {
    (word != scoreboard::history::UNKNOWN).then_some(word)
}

/// How long a process lived that died.
pub(super) fn lifetime(death: &Death) -> Option<Duration> {
    let lived = death.at_ns.saturating_sub(death.forked_at_ns);
    (death.forked_at_ns != 0).then(|| Duration::from_nanos(lived))
}

/// Connections that the milter takes at once: what the pool has room for, or `concurrency_limit`; `None` without a bound.
pub(super) fn capacity(board: &Snapshot) -> Option<u64> {
    let global = &board.global;
    // Without a pool the master tells 0 connections: one process serves all, and they wait in it.
    let room = global.children_max.saturating_mul(global.connections_max);
    let bounds = [room, global.concurrency_limit];
    bounds.into_iter().filter(|bound| *bound > 0).min()
}

/// Accepted connections that nobody serves yet: in the master's hands, or waiting for an interpreter.
pub(super) fn waiting(board: &Snapshot) -> u64 {
    board.global.waiting.saturating_add(board.queue())
}

/// Connections in the kernel's queue of the port; boards of version 1.0 do not have the word.
pub(super) fn backlog(board: &Snapshot) -> Option<u64> {
    queued_in_kernel(board.global.backlog).filter(|_| board.header.minor() >= 1)
}
