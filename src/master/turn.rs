//! The master's loop: wait, look, act, publish. A turn takes as long as its events; it never waits for a child.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::Signal;
use scoreboard::EventKind;
use scoreboard::records::NotAccepting;

use super::boot::TICK;
use super::dispatch::{Arrival, UNREAD_LIMIT, advice};
use super::lifecycle::Birth;
use super::pool::{self, Action};
use super::{End, Episode, Master, Phase};
use crate::config::OverloadAction;
use crate::sys::{clock, process};
use crate::worker::order;

/// Tokens of the loop.
pub(super) const LISTENER: u64 = 1;
pub(super) const SIGNALS: u64 = 2;
pub(super) const WAKES: u64 = 3;
pub(super) const TRIAL: u64 = 4;

/// Children whose memory is sampled at one tick.
const SAMPLES: usize = 16;
/// How much longer than its own deadline a child may stay in the policy's code: beyond it hangs in native code.
const HANG_GRACE: Duration = Duration::from_secs(5);
/// With room for so long an episode without room is over.
const EPISODE_GAP: Duration = Duration::from_secs(1);
/// How often the log is told at most that the milter is full.
const FULL_SAID_EVERY: Duration = Duration::from_secs(60);
/// How often it is looked whether killed children are gone.
const KERNEL_TIME: Duration = Duration::from_secs(1);
/// How long a child has for making room in its full socket before it is tried again.
const FULL_SOCKET: Duration = Duration::from_millis(10);
/// A tick while a connection lies unread, or an order has not gone through.
const SHORT_TICK: Duration = Duration::from_millis(100);

impl Master {
    /// Serves until the milter is gone, or until we are one of its children.
    pub(super) fn serve(mut self: Box<Self>) -> End {
        let mut events = [EpollEvent::empty(); 16];
        loop {
            self = match self.fork_what_is_due() {
                Ok(master) => master,
                Err(end) => return end,
            };
            if self.is_over() {
                return End::Gone(self.finish());
            }
            let count = match self.epoll.wait(&mut events, self.patience()) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => {
                    log::error!("the master's event loop: {error}");
                    self.abort();
                    0
                }
            };
            let now = Instant::now();
            self.let_go_of_pauses(now);
            let mut arrived = false;
            let mut woken = false;
            for event in &events[..count] {
                match event.data() {
                    SIGNALS => self.signals(now),
                    WAKES => {
                        woken = true;
                        self.listen_to_children();
                    }
                    LISTENER => arrived = true,
                    TRIAL => self.listen_to_trial(),
                    _ => {}
                }
            }
            // Sockets were drained first, words are read after: no completion is missed (scoreboards, wake-up).
            self.refresh(now);
            self.hand_on(now);
            if arrived {
                self.accept_waiting(now);
            }
            if now >= self.next_tick {
                self.tick(now, woken);
            }
            self.write_line(now);
            self.look_ahead(now);
            self.follow_exchange(now);
            self.serve_requests(now);
            // After all else of the turn: if it succeeds, the next thing that this process does is another program's.
            self.follow_trial(now);
        }
    }

    /// Forks the children that are due. `Err`: we are one of them.
    fn fork_what_is_due(mut self: Box<Self>) -> Result<Box<Master>, End> {
        // Bounded by the number of slots.
        for _ in 0..self.children.len() {
            let now = Instant::now();
            let forking = matches!(self.phase, Phase::Starting(_) | Phase::Running);
            if !forking || self.backoff_until.is_some_and(|until| now < until) {
                break;
            }
            let views = self.views(now);
            let missing = pool::maintain(&views, &self.bounds()).contains(&Action::Fork);
            let grow = std::mem::take(&mut self.grow) && pool::should_grow(&views, &self.bounds());
            if !missing && !grow {
                break;
            }
            match self.fork() {
                Birth::Child(seed) => return Err(End::InChild(seed)),
                Birth::Parent(master) => {
                    self = master;
                    if self.shortages.forking.passes() {
                        log::info!("milter {}: children are forked again", self.milter.name);
                    }
                }
                Birth::Failed(master, error) => {
                    self = master;
                    self.fork_failed(&error, now);
                }
            }
        }
        Ok(self)
    }

    fn fork_failed(&mut self, error: &std::io::Error, now: Instant) {
        let text = format!(
            "milter {}: no child can be forked: {error}; {}",
            self.milter.name,
            advice(error)
        );
        if self.shortages.forking.hits(now) {
            log::error!("{text}; trying again each second");
        }
        self.books.trouble(&text);
        self.backoff_until = Some(now + TICK);
        if let Phase::Starting(_) = self.phase {
            self.give_up(1, text);
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Retiring(_) | Phase::Aborting(_))
            && self.children.iter().all(Option::is_none)
    }

    fn patience(&self) -> EpollTimeout {
        let now = Instant::now();
        let mut until = self.next_tick.min(self.next_line);
        let trial = self.trial.as_ref().map(|trial| trial.deadline);
        for other in [self.backoff_until, self.resources_until, trial]
            .into_iter()
            .flatten()
        {
            until = until.min(other);
        }
        let unread = self.children.iter().flatten();
        for other in unread.filter_map(|child| child.unread_until(UNREAD_LIMIT)) {
            until = until.min(other);
        }
        match self.phase {
            Phase::Starting(deadline) | Phase::Retiring(deadline) | Phase::Aborting(deadline) => {
                until = until.min(deadline)
            }
            Phase::Running => {}
        }
        if self.waits_for_a_full_socket(now) {
            until = until.min(now + FULL_SOCKET);
        }
        let wait = until.saturating_duration_since(now) + Duration::from_millis(1);
        EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::ZERO)
    }

    fn signals(&mut self, now: Instant) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let Ok(signal) = i32::try_from(info.ssi_signo)
                .map_err(|_| ())
                .and_then(|number| Signal::try_from(number).map_err(|_| ()))
            else {
                continue;
            };
            if matches!(signal, Signal::SIGHUP | Signal::SIGTERM | Signal::SIGINT) {
                self.books.event(EventKind::Stop, u64::from(info.ssi_signo));
            }
            match signal {
                Signal::SIGCHLD => {
                    self.reap();
                    self.hand_on(now);
                }
                Signal::SIGHUP | Signal::SIGTERM => self.stop(),
                Signal::SIGINT => self.interrupt(),
                Signal::SIGUSR2 => self.asked(&info),
                Signal::SIGUSR1 => self.reopen_log(),
                _ => {}
            }
        }
    }

    fn listen_to_children(&mut self) {
        let mut events = [EpollEvent::empty(); 64];
        let Ok(count) = self.wakes.wait(&mut events, EpollTimeout::ZERO) else {
            return;
        };
        for event in &events[..count] {
            let Ok(slot) = u32::try_from(event.data()) else {
                continue;
            };
            let Some(Some(child)) = self.children.get_mut(slot as usize) else {
                continue;
            };
            let said = child.listen();
            if said.broken_off {
                child.cut_off();
            }
            if said.ready && !child.ready {
                self.became_ready(slot);
            }
        }
    }

    /// What is to be done about once a second.
    fn tick(&mut self, now: Instant, woken: bool) {
        self.books.repair();
        self.books.part_with_former(now);
        self.answer_at_last();
        for child in self.children.iter_mut().flatten() {
            child.repeat_orders();
        }
        for _ in 0..SAMPLES.min(self.children.len()) {
            let slot = self.sample_from % self.children.len();
            self.sample_from = self.sample_from.wrapping_add(1);
            if self.children[slot].is_some() {
                self.sample(u32::try_from(slot).unwrap_or(u32::MAX));
            }
        }
        self.kill_hanging();
        self.kill_unready(now);
        self.look_after_the_log(now);
        match self.phase {
            Phase::Starting(deadline) if now >= deadline => {
                let reason = format!(
                    "milter {}: its children were not ready within {} s (start_timeout)",
                    self.milter.name,
                    self.milter.start_timeout.as_secs()
                );
                self.give_up(1, reason);
            }
            Phase::Retiring(deadline) if now >= deadline => {
                let left: u64 = self.views(now).iter().map(|child| child.requests).sum();
                log::warn!(
                    "milter {}: {left} connections did not finish within {} s (graceful_timeout) and are cut",
                    self.milter.name,
                    self.milter.graceful_timeout.as_secs()
                );
                self.abort();
            }
            Phase::Aborting(deadline) if now >= deadline => {
                self.kill_all();
                // Only the kernel can be waited for now.
                self.phase = Phase::Aborting(now + KERNEL_TIME);
            }
            _ => {}
        }
        self.count_late_wakeups(now, woken);
        let global = self.books.global;
        let children = self.children.iter().flatten().count();
        let requests: u64 = self.views(now).iter().map(|child| child.requests).sum();
        let state = self.books.global.state;
        self.notify.tick(now, || {
            format!(
                "{}: {children} children, {requests} connections in progress, {} accepted",
                scoreboard::records::MilterState::from_word(state).name(),
                global.accepted
            )
        });
        // What is shown of a child through another board is as old as the last tick.
        let soon = self.books.former().is_some()
            || self.anything_unread(now)
            || self
                .children
                .iter()
                .flatten()
                .any(super::child::Child::has_due_order);
        self.next_tick = now + if soon { SHORT_TICK } else { TICK };
    }

    /// Room that the timer told of and no wake-up: counted at the tick after it, when the wake-up has still not come.
    fn count_late_wakeups(&mut self, now: Instant, woken: bool) {
        for child in self.children.iter_mut().flatten() {
            self.books.global.late_wakeups += u64::from(child.wake_is_late());
        }
        let full = self.books.global.not_accepting == NotAccepting::Full.word();
        if full && !woken && self.arrival(&self.views(now)) == Arrival::Serve && self.wakes_awaited
        {
            for child in self.children.iter_mut().flatten() {
                child.expect_wake();
            }
        }
    }

    /// Forking and accepting go on after their pauses.
    fn let_go_of_pauses(&mut self, now: Instant) {
        if self.resources_until.is_some_and(|until| now >= until) {
            self.resources_until = None;
        }
        if self.backoff_until.is_some_and(|until| now >= until) {
            self.backoff_until = None;
            self.books.global.backoff_until_ns = 0;
        }
        // What is due at a deadline is done by the tick.
        let due = match self.phase {
            Phase::Starting(deadline) | Phase::Retiring(deadline) | Phase::Aborting(deadline) => {
                now >= deadline
            }
            Phase::Running => false,
        };
        if due {
            self.next_tick = now;
        }
    }

    /// Ends children that do not come up: while they do not, nobody may serve. (The first ones are bound by the start itself.)
    fn kill_unready(&mut self, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        let limit = self.milter.start_timeout;
        for child in self.children.iter_mut().flatten() {
            let late = now.saturating_duration_since(child.forked) >= limit;
            if late && !child.ready && !child.killed {
                log::error!(
                    "child {} was not ready within {} s (start_timeout) and is killed",
                    child.pid,
                    limit.as_secs()
                );
                child.kill_for("it was not ready within start_timeout");
            }
        }
    }

    /// Ends children that hang in native code: the last resort, for it costs them their other connections.
    fn kill_hanging(&mut self) {
        let now_ns = clock::boottime_ns();
        for child in self.children.iter_mut().flatten() {
            if !child.killed && child.overdue(now_ns, HANG_GRACE) {
                log::error!(
                    "child {} hangs in the policy past its deadline and is killed",
                    child.pid
                );
                child.kill_for("it hung in the policy past its deadline");
            }
        }
    }

    /// Says on the board that lines of the log are lost: the log itself can say so only when that has passed.
    fn look_after_the_log(&mut self, now: Instant) {
        let own = crate::log::lost_lines();
        let mut more = own > std::mem::replace(&mut self.shortages.own_lines_lost, own);
        for child in self.children.iter_mut().flatten() {
            more |= child.lost_more_lines();
        }
        if !more {
            return;
        }
        let text = format!(
            "milter {}: lines of the log are lost; see whether there is room where log_to sends them{}",
            self.milter.name,
            crate::log::why_lost().map_or_else(String::new, |why| format!(" ({why})"))
        );
        self.books.trouble(&text);
        if self.shortages.log.hits(now) {
            log::error!("{text}");
        }
    }

    /// Takes size and memory of a child from the kernel.
    pub(super) fn sample(&mut self, slot: u32) {
        let record = &mut self.books.slots[slot as usize];
        let Ok(pid) = i32::try_from(record.pid) else {
            return;
        };
        if let Some(stat) = process::stat(pid) {
            record.vsz_bytes = stat.vsz_bytes;
            record.rss_bytes = stat.rss_bytes;
            self.books.publish_slot(slot);
        }
    }

    /// After the events of a turn: what the pool needs, what is awaited next, and what the board shall say.
    fn look_ahead(&mut self, now: Instant) {
        self.retire_what_is_due(now);
        self.books.relay();
        let views = self.views(now);
        let arrival = self.arrival(&views);
        let (why, short_of) = match arrival {
            Arrival::Serve => (NotAccepting::Accepting, NotAccepting::Accepting),
            // Those who come get an answer, but not the policy's.
            Arrival::Answer(_, why) => (NotAccepting::Accepting, why),
            Arrival::Wait(why) => (why, why),
        };
        let growing = matches!(self.phase, Phase::Running)
            && !self.grow
            && self.backoff_until.is_none()
            && pool::should_grow(&views, &self.bounds());
        // The next one that comes has a child forked for it.
        let grows = growing && why == NotAccepting::NoChild;
        let listen = why == NotAccepting::Accepting || grows;
        self.await_listener(listen);
        let starting = self.children.iter().flatten().any(|child| !child.ready);
        self.await_wakes(
            starting
                || why == NotAccepting::Full
                || why == NotAccepting::Limit
                || !self.in_hand.is_empty(),
        );
        self.account_for_capacity(short_of, &views, now);
        let (busy, requests) = self.in_progress();
        let old = self.old_children() as u64;
        let slots = u64::from(self.slots_limit());
        let global = &mut self.books.global;
        let shown = if listen { NotAccepting::Accepting } else { why };
        global.accepting = u64::from(listen);
        global.not_accepting = shown.word();
        global.waiting = self.in_hand.len() as u64;
        global.children_old = old;
        global.slots_max = slots;
        global.peak_requests = global.peak_requests.max(requests);
        self.books.busy_now(busy);
        self.books.publish_global();
    }

    /// Retires the children that have reached a limit or are idle for too long.
    pub(super) fn retire_what_is_due(&mut self, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        let views = self.views(now);
        for action in pool::maintain(&views, &self.bounds()) {
            match action {
                Action::Retire(slot, reason) => self.retire(slot, reason),
                // Forked at the beginning of the next turn.
                Action::Fork => {}
            }
        }
    }

    /// Time without room is exact; an episode lasts until there was room for a second, for in a crowd a place is free a thousand times a second.
    fn account_for_capacity(&mut self, why: NotAccepting, views: &[pool::ChildView], now: Instant) {
        let now_ns = clock::boottime_ns();
        let global = &mut self.books.global;
        let full = matches!(why, NotAccepting::Full | NotAccepting::Limit);
        if full && global.capacity_since_ns == 0 {
            global.capacity_since_ns = now_ns;
        } else if !full && global.capacity_since_ns != 0 {
            global.capacity_ns += now_ns.saturating_sub(global.capacity_since_ns);
            global.capacity_since_ns = 0;
        }
        match (&mut self.episode, full) {
            (None, false) => {}
            (None, true) => {
                global.capacity_episodes += 1;
                self.episode = Some(Episode {
                    begun_ns: now_ns,
                    room_since: None,
                });
                self.books.event(EventKind::Full, why.word());
                self.say_full(why, views, now);
            }
            (Some(episode), true) => episode.room_since = None,
            (Some(episode), false) => {
                let since = *episode.room_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= EPISODE_GAP {
                    let lasted = now_ns.saturating_sub(episode.begun_ns);
                    self.episode = None;
                    self.books.event(EventKind::Room, lasted);
                    log::debug!(
                        "milter {} has room again after {} ms",
                        self.milter.name,
                        lasted / 1_000_000
                    );
                }
            }
        }
    }

    fn say_full(&mut self, why: NotAccepting, views: &[pool::ChildView], now: Instant) {
        if self
            .full_said
            .is_some_and(|said| now < said + FULL_SAID_EVERY)
        {
            log::debug!("milter {} is full again", self.milter.name);
            return;
        }
        self.full_said = Some(now);
        let fate = match self.milter.concurrency_limit_action {
            OverloadAction::Wait => "wait",
            OverloadAction::Tempfail => "are answered tempfail",
            OverloadAction::Accept => "are accepted without the policy",
            OverloadAction::Reject => "are rejected",
        };
        let setting = if why == NotAccepting::Limit {
            "concurrency_limit"
        } else {
            "max_pooled_procs or interpreter_connections"
        };
        log::warn!(
            "milter {} is full: {} children carry {} connections; new ones {fate}; consider raising {setting}",
            self.milter.name,
            views.len(),
            views.iter().map(|child| child.requests).sum::<u64>()
        );
    }

    fn await_listener(&mut self, wanted: bool) {
        let Some(listener) = &self.listener else {
            return;
        };
        if wanted != self.listener_awaited {
            // Taken out altogether: a socket that does not listen yet hangs up all the time.
            let changed = if wanted {
                self.epoll.add(
                    listener.socket(),
                    EpollEvent::new(EpollFlags::EPOLLIN, LISTENER),
                )
            } else {
                self.epoll.delete(listener.socket())
            };
            match changed {
                Ok(()) => self.listener_awaited = wanted,
                Err(error) => log::error!("the listener cannot be watched: {error}"),
            }
        }
    }

    pub(super) fn await_wakes(&mut self, wanted: bool) {
        if wanted != self.wakes_awaited {
            let flags = if wanted {
                EpollFlags::EPOLLIN
            } else {
                EpollFlags::empty()
            };
            match self
                .epoll
                .modify(&self.wakes.0, &mut EpollEvent::new(flags, WAKES))
            {
                Ok(()) => self.wakes_awaited = wanted,
                Err(error) => log::error!("the children cannot be watched: {error}"),
            }
        }
    }

    fn reopen_log(&mut self) {
        crate::log::reopen();
        log::info!("milter {}: log reopened", self.milter.name);
        for child in self.children.iter_mut().flatten() {
            child.order(order::REOPEN);
        }
    }
}
