//! The top-level process of a milter: owns the listener, the pool and the board; handles no mail and never runs Lua.
//!
//! One thread, one loop over listener, signals, children and a timer. It passes each accepted connection to a child that has room, never
//! waits for a child, and believes nothing that a child wrote. `boot` is the start order, `lifecycle` births and deaths, `dispatch`
//! connections, `pool` what the pool needs (pure), `board` what is published, `diary` what is remembered. A restart: `trial` and `handover`
//! are the side that goes, `takeover`, `estate` and `inherit` the one that comes, `exchange` what it then does to the pool.
#![forbid(unsafe_code)]

mod asked;
mod board;
mod boot;
mod child;
mod diary;
mod dispatch;
mod estate;
mod exchange;
mod handover;
mod inherit;
mod lifecycle;
mod listener;
mod notify;
mod plan;
mod pool;
mod port;
mod preflight;
mod report;
mod shortage;
mod takeover;
mod trial;
mod turn;

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::run_dir::request::Asker;
use nix::sys::epoll::Epoll;
use nix::sys::signalfd::SignalFd;

use crate::config::MilterConfig;
use crate::policy::Bundle;
use crate::run_dir::Paths;
use crate::sys::backlog::BacklogGauge;
use crate::sys::process;
use crate::sys::user::Account;
use crate::worker::{self, Seed};

use board::Books;
use child::{Child, InHand};
use exchange::Exchange;
use listener::Listener;
use notify::Notify;
pub use report::{Line, Report};
use shortage::Shortages;
pub use takeover::resume;
use trial::Trial;

/// What a master is started with.
#[derive(Debug)]
pub struct Setup {
    /// The milter.
    pub milter: MilterConfig,
    /// The run directory.
    pub run_dir: PathBuf,
    /// The unprivileged user, when started as root.
    pub account: Option<Account>,
    /// Standard input, output and error are kept, and systemd is told.
    pub foreground: bool,
    /// How it says what became of the start.
    pub report: Report,
}

/// Where a master is in its life; a later one is never left for an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not yet ready to take mail; given up at the deadline.
    Starting(Instant),
    /// Takes connections.
    Running,
    /// Finishes what it has; cut at the deadline.
    Retiring(Instant),
    /// Cuts what it has; children that are still there at the deadline are killed.
    Aborting(Instant),
}

/// A time in which no child has room, with short gaps.
#[derive(Clone, Copy, Debug)]
struct Episode {
    begun_ns: u64,
    /// Since when there is room again.
    room_since: Option<Instant>,
}

/// How a master's loop ends.
enum End {
    /// We are a child now.
    InChild(Box<Seed>),
    /// The milter is gone; the exit status.
    Gone(i32),
}

/// A master.
struct Master {
    milter: MilterConfig,
    paths: Paths,
    account: Option<Account>,
    bundle: Arc<Bundle>,
    foreground: bool,
    report: Report,
    notify: Notify,
    lock: File,
    /// First byte that our children lock: orphans of an earlier master may hold lower ones.
    lock_base: i64,
    books: Books,
    listener: Option<Listener>,
    signals: SignalFd,
    epoll: Epoll,
    /// The children's sockets, polled only while one of them has something that we wait for.
    wakes: Epoll,
    wakes_awaited: bool,
    listener_awaited: bool,
    children: Vec<Option<Child>>,
    /// Accepted or taken back, and not yet with a child.
    in_hand: VecDeque<InHand>,
    phase: Phase,
    generation: u64,
    /// Who has asked for a restart, by signal; each has put a request into the run directory.
    askers: Vec<Asker>,
    /// Answers to them that could not be written: id and text.
    unanswered: Vec<(String, String)>,
    /// The program that is to take over is tried.
    trial: Option<Trial>,
    /// The restart that goes on.
    exchange: Option<Exchange>,
    /// Children that it brings in before the last old one goes.
    successors: u32,
    /// Slots that could be used before it.
    slots_before: u32,
    /// Another child was asked for by a connection.
    grow: bool,
    /// No child is forked before this.
    backoff_until: Option<Instant>,
    /// No connection is accepted before this: descriptors or memory are short.
    resources_until: Option<Instant>,
    next_tick: Instant,
    /// When the board gets its next line of the ring of seconds.
    next_line: Instant,
    backlog: BacklogGauge,
    /// Where the next sample of the children's memory begins.
    sample_from: usize,
    /// The time without room that goes on, or ended just now.
    episode: Option<Episode>,
    /// When the log was last told of one.
    full_said: Option<Instant>,
    shortages: Shortages,
    /// Connections that one child carries: what is configured, and what its descriptors allow.
    capacity: Option<u64>,
    start_failure: Option<String>,
    start_status: i32,
    /// Connections to be accepted at the next turn at most.
    accept_batch: usize,
    /// The port is TCP.
    tcp: bool,
    random: u64,
}

/// Runs a master to its end. In a forked child of the pool it does not return.
pub fn run(setup: Setup) -> i32 {
    let master = match boot::boot(setup) {
        Ok(master) => master,
        Err(status) => return status,
    };
    end(master.serve())
}

/// The exit status of a process whose master's loop has ended.
fn end(end: End) -> i32 {
    match end {
        End::Gone(status) => status,
        // The child must not run its parent's exit handlers.
        End::InChild(seed) => process::exit_now(worker::worker_main(*seed)),
    }
}
