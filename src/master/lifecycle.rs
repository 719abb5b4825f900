//! Births and deaths of children, and of the milter: fork, ready, retire, reap, stop, abort.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use scoreboard::EventKind;
use scoreboard::records::{MilterState, RetireReason, SlotState};

use super::board::Passing;
use super::child::{Child, Ends, Terms, slot_state};
use super::pool::Limits;
use super::report::Line;
use super::{Master, Phase};
use crate::sys::clock;
use crate::sys::process::{self, Ended, Forked};
use crate::worker::{self, Seed, order};

/// Back-off after a child died young: the first wait, doubled up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// What children have for cutting their connections before they are killed.
const ABORT_GRACE: Duration = Duration::from_secs(5);

/// What a fork gave.
pub(super) enum Birth {
    /// We are the master, and there is one more child.
    Parent(Box<Master>),
    /// We are the child; the master is gone from this process.
    Child(Box<Seed>),
    /// There is no child.
    Failed(Box<Master>, io::Error),
}

impl Master {
    /// Forks a child into the lowest free slot.
    pub(super) fn fork(mut self: Box<Self>) -> Birth {
        let Some(slot) = self.children.iter().position(Option::is_none) else {
            return Birth::Failed(self, io::Error::other("no slot is free"));
        };
        let slot = u32::try_from(slot).unwrap_or(u32::MAX);
        let incarnation = self.books.slots[slot as usize].incarnation;
        self.books.board.adopt_child(slot, incarnation);
        let ends = match Ends::make() {
            Ok(ends) => ends,
            Err(error) => return Birth::Failed(self, error),
        };
        let master = Pid::this();
        match process::fork_single_threaded() {
            Err(error) => Birth::Failed(self, error),
            Ok(Forked::Child) => Birth::Child(self.into_child(slot, incarnation, ends, master)),
            Ok(Forked::Parent(pid)) => {
                self.born(slot, pid, ends);
                Birth::Parent(self)
            }
        }
    }

    /// In the child: keeps what it needs, drops the rest, which closes every foreign descriptor.
    fn into_child(
        self: Box<Self>,
        slot: u32,
        incarnation: u64,
        ends: Ends,
        master: Pid,
    ) -> Box<Seed> {
        let Master {
            milter,
            account,
            bundle,
            lock,
            lock_base,
            books,
            foreground,
            capacity,
            ..
        } = *self;
        // The first children are born before the master lets go of the terminal, and whoever reads the output of `start` waits for its end.
        if !foreground && let Err(error) = process::detach_stdio() {
            log::error!("a child cannot let go of the terminal: {error}");
        }
        let board = match books.board.descriptor().try_clone_to_owned() {
            Ok(board) => board,
            Err(error) => {
                log::error!("a child cannot keep the board: {error}");
                process::exit_now(worker::COULD_NOT_START);
            }
        };
        let geometry = books.board.geometry();
        books.leave();
        let Ends {
            control,
            far_end,
            page_descriptor,
            page,
        } = ends;
        drop(control);
        // The mapping is the master's; the child makes its own from the descriptor.
        drop(page);
        Box::new(Seed {
            milter,
            bundle,
            account,
            slot,
            incarnation,
            control: far_end,
            page: page_descriptor,
            capacity,
            board,
            geometry,
            lock,
            lock_byte: lock_base + i64::from(slot),
            master,
        })
    }

    fn born(&mut self, slot: u32, pid: Pid, ends: Ends) {
        let terms = Terms {
            generation: self.generation,
            capacity: self.capacity,
            interpreters: self.milter.interpreters,
            limits: self.limits(),
        };
        let child = Child::new(pid, ends, terms);
        let token = u64::from(slot);
        if let Err(error) = self.wakes.add(
            child.control.as_fd(),
            EpollEvent::new(EpollFlags::EPOLLIN, token),
        ) {
            log::error!("a child cannot be watched: {error}");
        }
        let stat = process::stat(pid.as_raw());
        let record = &mut self.books.slots[slot as usize];
        record.state = SlotState::Starting.word();
        record.pid = u64::from(pid.as_raw().unsigned_abs());
        record.start_time = stat.map_or(0, |stat| stat.start_time);
        record.vsz_bytes = stat.map_or(0, |stat| stat.vsz_bytes);
        record.rss_bytes = stat.map_or(0, |stat| stat.rss_bytes);
        record.forked_at_ns = clock::boottime_ns();
        record.processes += 1;
        record.generation = self.generation;
        let processes = record.processes;
        // Readers look at slots ever used only.
        let used = u64::from(slot) + 1;
        self.books.global.slots_high_water = self.books.global.slots_high_water.max(used);
        self.books.publish_global();
        self.books.publish_slot(slot);
        self.books.slot_event(EventKind::Fork, slot, processes);
        self.books.global.forks += 1;
        self.books.global.slots_in_use += 1;
        self.children[slot as usize] = Some(child);
        // It says when it is ready, perhaps before the next turn looks ahead.
        self.await_wakes(true);
        log::debug!("child {pid} forked into slot {slot}");
    }

    /// The limits of one child, each up to a tenth lower by chance: children must not all retire at once.
    fn limits(&mut self) -> Limits {
        let milter = &self.milter;
        let (connections, messages, age, rss) = (
            milter.pooled_proc_connect_limit,
            milter.pooled_proc_message_limit,
            milter.pooled_proc_age_limit,
            milter.pooled_proc_rss_limit,
        );
        let mut lower = |value: u64| value - self.draw() % (value / 10 + 1);
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Limits {
            connections: lower(connections),
            messages: lower(messages),
            age: Duration::from_millis(lower(age_ms)),
            rss,
        }
    }

    /// Every slot that there is.
    fn slots(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.children.len()).unwrap_or(u32::MAX)
    }

    /// A random number (xorshift64, Marsaglia 2003): good enough to spread load, and no system call.
    pub(super) fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// A child says that its interpreters are up.
    pub(super) fn became_ready(&mut self, slot: u32) {
        let Some(child) = self.children[slot as usize].as_mut() else {
            return;
        };
        child.ready = true;
        if child.retiring {
            return;
        }
        self.books.slots[slot as usize].state = SlotState::Live.word();
        self.books.publish_slot(slot);
        log::debug!("child {} of slot {slot} is ready", child.pid);
        self.books.slot_event(EventKind::Ready, slot, 0);
        self.sample(slot);
        if let Phase::Starting(_) = self.phase {
            let ready = self
                .children
                .iter()
                .flatten()
                .filter(|child| child.ready)
                .count();
            if ready as u64 >= u64::from(self.milter.min_pooled_procs) {
                self.take_mail();
            }
        }
    }

    /// Everything is there: listen, tell, let go of the terminal.
    fn take_mail(&mut self) {
        let listening = match &self.listener {
            Some(listener) => listener.listen(&self.milter.port, self.milter.listen_queue_size),
            None => Ok(()),
        };
        if let Err(error) = listening {
            return self.give_up(1, format!("milter {}: {error}", self.milter.name));
        }
        self.phase = Phase::Running;
        self.books.global.state = MilterState::Running.word();
        self.books.event(EventKind::Start, self.generation);
        self.books.publish_global();
        let pid = format!("{}\n", Pid::this());
        if let Err(error) = crate::run_dir::write_pid_file(&self.paths, &pid) {
            self.report.warning(&format!(
                "cannot write {}: {error}",
                self.paths.pid_file().display()
            ));
        }
        log::info!(
            "milter {} takes mail on {} (pid {})",
            self.milter.name,
            self.milter.port,
            Pid::this()
        );
        if !self.foreground
            && let Err(error) = process::detach_stdio()
        {
            self.report
                .warning(&format!("cannot let go of the terminal: {error}"));
        }
        self.report.ready();
        self.notify.ready();
    }

    /// The start failed: everything goes, with the reason.
    pub(super) fn give_up(&mut self, status: i32, reason: String) {
        log::error!("{reason}");
        self.start_status = status;
        self.start_failure = Some(reason);
        self.abort();
    }

    /// Retires one child.
    pub(super) fn retire(&mut self, slot: u32, reason: RetireReason) {
        let retiring = |child: &Child| child.retiring;
        if self.children[slot as usize].as_ref().is_some_and(retiring) {
            return;
        }
        self.dismiss(slot, reason, order::RETIRE);
    }

    /// Gives a child its last order: to retire, or to abort.
    fn dismiss(&mut self, slot: u32, reason: RetireReason, last: u8) {
        let Some(child) = self.children[slot as usize].as_mut() else {
            return;
        };
        child.order(last);
        if std::mem::replace(&mut child.retiring, true) {
            return;
        }
        let record = &mut self.books.slots[slot as usize];
        record.state = slot_state(child).word();
        record.retire_reason = reason.word();
        record.retiring_since_ns = clock::boottime_ns();
        log::debug!(
            "child {} of slot {slot} retires: {}",
            child.pid,
            reason.name()
        );
        self.books.publish_slot(slot);
        self.books
            .slot_event(EventKind::Retire, slot, reason.word());
    }

    /// Buries every dead child. Returns whether there was one.
    pub(super) fn reap(&mut self) -> bool {
        let mut any = false;
        while let Some((pid, ended)) = process::reap() {
            let slot = self
                .children
                .iter()
                .position(|child| child.as_ref().is_some_and(|child| child.pid == pid));
            if let Some(slot) = slot {
                self.bury(u32::try_from(slot).unwrap_or(u32::MAX), ended);
                any = true;
            } else {
                self.reaped_trial(pid, ended);
            }
        }
        any
    }

    fn bury(&mut self, slot: u32, ended: Ended) {
        let Some(mut child) = self.children[slot as usize].take() else {
            return;
        };
        let now = Instant::now();
        child.refresh(&self.books.slots[slot as usize], now);
        // What it never picked up is handed on; with what is left in progress it died.
        let back = child.take_back(usize::MAX);
        self.books.slots[slot as usize].returned += back.count();
        self.books.global.rejected += back.vanished;
        if back.count() > 0 {
            self.in_hand.extend(back.connections);
            self.books.publish_waiting(self.in_hand.len());
        }
        child.refresh(&self.books.slots[slot as usize], now);
        let stopping = !matches!(self.phase, Phase::Starting(_) | Phase::Running);
        let killed_by_us = child.killed && stopping;
        let clean = (child.retiring && ended == Ended::Exited(0)) || killed_by_us;
        let passing = Passing {
            completed: child.completed(),
            clean,
            damaged: child.damaged,
        };
        let funeral = self.books.bury(slot, passing, ended);
        let how = match ended {
            Ended::Exited(status) => format!("ended with status {status}"),
            Ended::Signalled(signal) => match Signal::try_from(signal) {
                Ok(signal) => format!("was ended by {signal}"),
                Err(_) => format!("was ended by signal {signal}"),
            },
        };
        let how = match child.killed_for {
            Some(reason) => format!("{how}, by its master, for {reason},"),
            None => how,
        };
        let age = child.forked.elapsed().as_secs();
        if clean {
            log::debug!("child {} of slot {slot} {how} after {age} s", child.pid);
        } else {
            let id = scoreboard::shown(&funeral.last.queue_id);
            let text = format!(
                "child {} of slot {slot} {how} after {age} s and {} connections; {} connections and {} messages are lost; it was at {} of {}",
                child.pid,
                child.completed(),
                funeral.lost_connections,
                funeral.lost_messages,
                scoreboard::records::Phase::from_word(funeral.last.phase).name(),
                if id.is_empty() { "no message" } else { &id },
            );
            log::error!("{text}");
            self.books.trouble(&text);
        }
        match self.phase {
            Phase::Starting(_) if !clean => {
                let reason = format!(
                    "milter {}: its first child {how} before it was ready; the log says more",
                    self.milter.name
                );
                self.give_up(1, reason);
            }
            Phase::Running if !clean && child.completed() == 0 => self.back_off(now),
            _ => {}
        }
    }

    /// A child died before it finished one connection: the next one waits, longer each time.
    fn back_off(&mut self, now: Instant) {
        let deaths = self.books.global.crash_loop;
        self.books.global.crash_loop += 1;
        let doubled = FIRST_BACKOFF.saturating_mul(1 << deaths.min(10));
        let wait = doubled.min(LONGEST_BACKOFF);
        self.backoff_until = Some(now + wait);
        let wait_ns = super::board::nanoseconds(wait);
        self.books.global.backoff_until_ns = clock::boottime_ns() + wait_ns;
        self.books.event(EventKind::Backoff, wait_ns);
        log::debug!(
            "milter {} forks no child for {} ms",
            self.milter.name,
            wait.as_millis()
        );
        if deaths == 1 {
            log::error!(
                "children of milter {} die before they finish a connection: the next ones are forked more and more slowly",
                self.milter.name
            );
        }
    }

    /// A child finished a connection: whatever killed its predecessors does not kill all.
    pub(super) fn works_again(&mut self) {
        if self.books.global.crash_loop > 0 {
            self.books.global.crash_loop = 0;
            self.books.global.backoff_until_ns = 0;
            self.backoff_until = None;
        }
    }

    /// Begins a stop: no new connections, children finish what they have.
    pub(super) fn stop(&mut self) {
        match self.phase {
            Phase::Starting(_) => self.give_up(
                1,
                format!("milter {}: stopped while it started", self.milter.name),
            ),
            Phase::Running => {
                self.give_up_trial();
                self.give_up_exchange();
                let limit = self.milter.graceful_timeout;
                self.phase = Phase::Retiring(Instant::now() + limit);
                self.books.global.state = MilterState::Retiring.word();
                self.books.global.stop_since_ns = clock::boottime_ns();
                self.books.global.stop_deadline_ns =
                    clock::boottime_ns() + super::board::nanoseconds(limit);
                log::info!(
                    "milter {} stops: connections may finish within {} s",
                    self.milter.name,
                    limit.as_secs()
                );
                self.notify.stopping(limit + ABORT_GRACE * 2);
                self.close_port();
                for slot in self.slots() {
                    self.retire(slot, RetireReason::Stop);
                }
            }
            // Asked for again: whoever asks does not want to wait any more.
            Phase::Retiring(_) => self.abort(),
            Phase::Aborting(_) => {}
        }
    }

    /// Cuts every connection and ends; asked for again, without waiting for the children.
    pub(super) fn interrupt(&mut self) {
        match self.phase {
            Phase::Aborting(_) => {
                log::warn!(
                    "milter {}: asked again to end at once: the children that are left are killed",
                    self.milter.name
                );
                self.kill_all();
            }
            Phase::Starting(_) | Phase::Running | Phase::Retiring(_) => self.abort(),
        }
    }

    /// Cuts every connection and ends.
    pub(super) fn abort(&mut self) {
        if let Phase::Aborting(_) = self.phase {
            return;
        }
        self.give_up_trial();
        self.give_up_exchange();
        if let Phase::Running = self.phase {
            self.notify.stopping(ABORT_GRACE * 2);
        }
        self.phase = Phase::Aborting(Instant::now() + ABORT_GRACE);
        let left = self.views(Instant::now());
        let left = left.iter().map(|child| child.requests).sum();
        self.books.event(EventKind::Abort, left);
        self.books.global.state = MilterState::Retiring.word();
        self.close_port();
        for slot in self.slots() {
            self.dismiss(slot, RetireReason::Stop, order::ABORT);
        }
    }

    fn close_port(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.remove_file();
        }
    }

    /// Kills the children that are left.
    pub(super) fn kill_all(&mut self) {
        for child in self.children.iter_mut().flatten() {
            if !child.killed {
                child.killed = true;
                child.signal(Signal::SIGKILL);
            }
        }
    }

    /// No child is left and none will come: the milter is gone.
    pub(super) fn finish(mut self) -> i32 {
        self.books.global.rejected += self.in_hand.len() as u64;
        self.in_hand.clear();
        self.books.global.waiting = 0;
        self.books.global.state = MilterState::Stopped.word();
        self.books.global.accepting = 0;
        self.books.publish_global();
        crate::run_dir::clean(&self.paths);
        // Best effort: what is left is cleaned by the next start.
        let _ = std::fs::remove_file(self.paths.pid_file());
        match self.start_failure.take() {
            Some(reason) => {
                self.books.board.remove_file();
                self.report.last(&Line::Failed(self.start_status, reason));
                self.start_status
            }
            None => {
                if let Err(error) = self.books.board.retire_file(&self.paths.last_board()) {
                    log::warn!(
                        "the board cannot be kept as {}: {error}",
                        self.paths.last_board().display()
                    );
                    self.books.board.remove_file();
                }
                log::info!("milter {} is stopped", self.milter.name);
                0
            }
        }
    }
}
