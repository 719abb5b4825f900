//! The start order of a master that takes over: what `boot` makes is here taken up, and what the configuration says is put on it.
#![forbid(unsafe_code)]

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, fchown};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags};
use scoreboard::{Board, EventKind};

use super::board::Books;
use super::boot;
use super::estate::{Estate, boards};
use super::exchange::Exchange;
use super::handover::State;
use super::notify::Notify;
use super::plan::Plan;
use super::report::{Line, Report};
use super::{Master, Phase, pool, port};
use crate::config::MilterConfig;
use crate::run_dir::Paths;
use crate::sys::backlog::BacklogGauge;
use crate::sys::exec::Inherited;
use crate::sys::{capability, lock, process, random, signal};

/// How long the lock may seem to be another's: a program that looks into our descriptors at the instant of the exec has a copy of them.
const LOOKERS: Duration = Duration::from_secs(2);

/// Makes a master of what its predecessor left.
///
/// # Errors
/// When something is not as it was in the trial.
pub(super) fn inherit(
    mut state: State,
    plan: Plan,
    mut inherited: Inherited,
) -> io::Result<Box<Master>> {
    let now = Instant::now();
    let Plan {
        mut milter,
        account,
        group,
        access,
        address,
        request,
        changes,
        bundle,
        ..
    } = plan;
    process::keep_others_out();
    process::set_umask(milter.umask);
    process::set_name(&format!("pmx-m {}", milter.name));
    let paths = Paths::new(&state.run_dir, &milter.name);
    // First of all: whatever goes wrong is to be told somewhere.
    let mut report = Report::Kept(changes.iter().cloned().map(Line::Changed).collect());
    if let Err(error) = boot::start_log(&milter, &paths, account.as_ref(), &mut report) {
        report.warning(&error.to_string());
    }
    boot::say_sandbox(&milter);
    for change in changes {
        log::info!("milter {}: {change}", milter.name);
    }
    let descriptors = process::raise_descriptor_limit();
    let signals = signal::descriptor(&signal::MASTER)?;
    capability::keep_what_a_master_needs()?;
    let estate = Estate::take_up(&state, &mut inherited)?;
    hold(&estate.lock, now + LOOKERS)?;

    let capacity = boot::capacity(&milter, descriptors);
    boot::warn_early(
        &milter,
        descriptors,
        capacity,
        account.as_ref(),
        &mut report,
    );
    let mut in_hand = estate.in_hand;
    let before = in_hand.len();
    let port::Settled { listener, failed } = port::go_on(
        estate.listener,
        &state,
        &mut milter,
        (access, address),
        &mut in_hand,
        &mut report,
    )?;
    let boards = boards(
        (estate.board, estate.former),
        &state,
        &milter,
        &paths,
        group,
        &mut report,
    )?;
    if let Err(error) = show(&estate.lock, &boards.board, &milter, group) {
        report.warning(&format!(
            "status_mode and status_group do not take effect: {error}"
        ));
    }

    let is_new = boards.is_new;
    let mut books = Books::take_up(boards, &state, &milter);
    books.global.accepted += (in_hand.len() - before) as u64;
    if is_new {
        books.show(&paths)?;
    }
    let mut children = estate.children;
    let slots = (milter.most_slots().max(state.slots_limit) as usize)
        .min(books.board.geometry().slots() as usize)
        .max(children.len());
    books.make_room(slots);
    children.resize_with(slots, || None);
    let (epoll, wakes) = boot::loops(&signals)?;
    for (slot, child) in (0_u64..).zip(&children) {
        if let Some(child) = child {
            wakes.add(&child.control, EpollEvent::new(EpollFlags::EPOLLIN, slot))?;
        }
    }
    if let Some(text) = &failed {
        log::error!("milter {}: {text}", milter.name);
        report.no_change("port");
    }
    let mut notify = Notify::new(state.foreground);
    notify.take_up(std::mem::take(&mut state.owed));
    let tcp = listener.is_tcp();
    let mut master = Box::new(Master {
        phase: Phase::Running,
        notify,
        report: Report::Done,
        exchange: Some(Exchange {
            id: request,
            lines: report.kept(),
            failed,
            // All of it, however long it took to come so far.
            deadline: Instant::now() + milter.start_timeout,
        }),
        askers: std::mem::take(&mut state.askers),
        unanswered: std::mem::take(&mut state.unanswered),
        trial: None,
        successors: 0,
        slots_before: state.slots_limit,
        milter,
        paths,
        account,
        bundle: Arc::new(bundle),
        foreground: state.foreground,
        lock: estate.lock,
        lock_base: state.lock_base,
        books,
        listener: Some(listener),
        signals,
        epoll,
        wakes,
        wakes_awaited: false,
        listener_awaited: false,
        children,
        in_hand,
        generation: state.generation + 1,
        grow: false,
        backoff_until: None,
        resources_until: None,
        next_tick: now,
        next_line: now,
        backlog: BacklogGauge::new(tcp),
        sample_from: 0,
        episode: None,
        full_said: None,
        shortages: super::shortage::Shortages::default(),
        capacity,
        start_failure: None,
        start_status: 0,
        accept_batch: 1,
        tcp,
        random: random::seed().unwrap_or(0x9e37_79b9_7f4a_7c15) | 1,
    });
    master.begin_generation(now);
    Ok(master)
}

impl Master {
    /// What is new from here on.
    fn begin_generation(&mut self, now: Instant) {
        self.books.global.waiting = self.in_hand.len() as u64;
        let global = &mut self.books.global;
        global.generation = self.generation;
        // Whatever killed children of before need not kill these.
        global.crash_loop = 0;
        global.backoff_until_ns = 0;
        self.books.event(EventKind::Restart, self.generation);
        self.successors = pool::successors(&self.views(now));
        log::info!(
            "milter {}: generation {} begins, program {}",
            self.milter.name,
            self.generation,
            env!("CARGO_PKG_VERSION")
        );
        // Whoever ended meanwhile: the kernel tells of several with one signal, which our predecessor may have read.
        self.reap();
        self.books.publish_global();
    }
}

/// Our lock survives the exec. Only if somebody had a copy of our descriptors at that instant it is lost, and falls with that copy.
fn hold(file: &File, deadline: Instant) -> io::Result<()> {
    while !lock::take(file, 0)? {
        if Instant::now() >= deadline {
            return Err(io::Error::other("another master has the lock"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Who may look at the milter.
fn show(lock: &File, board: &Board, milter: &MilterConfig, group: Option<u32>) -> io::Result<()> {
    lock.set_permissions(Permissions::from_mode(milter.status_mode))?;
    if group.is_some() {
        fchown(lock, None, group)?;
    }
    board.set_access(milter.status_mode, group)
}
