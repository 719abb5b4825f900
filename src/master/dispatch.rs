//! Connections: accepted, given to a child that has room, taken back from one that does not read them.
//!
//! Counted first, then sent: a count that is too high for a moment never overfills a child. What cannot be sent counts as returned.
#![forbid(unsafe_code)]

use std::io;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use scoreboard::EventKind;
use scoreboard::records::NotAccepting;

use super::child::InHand;
use super::pool::{self, Bounds, ChildView, Load};
use super::{Master, Phase};
use crate::config::OverloadAction;
use crate::sys::socket;
use crate::worker::{MOST_MARKED, Treatment};

/// Connections accepted in one turn: other events get their share.
const MOST_A_TURN: usize = 64;
/// A child that leaves a connection unread for this long gets no more.
pub(super) const UNREAD_LIMIT: Duration = Duration::from_secs(1);
/// How long nothing is accepted after descriptors or memory were short.
const RESOURCES_PAUSE: Duration = Duration::from_secs(1);

/// What becomes of a connection that arrives now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// A child serves it.
    Serve,
    /// A child answers it without the policy; why.
    Answer(Treatment, NotAccepting),
    /// It waits in the backlog; why.
    Wait(NotAccepting),
}

impl Master {
    pub(super) fn views(&self, now: Instant) -> Vec<ChildView> {
        let children = (0u32..).zip(&self.children).zip(&self.books.slots);
        children
            .filter_map(|((slot, child), record)| {
                child
                    .as_ref()
                    .map(|child| child.view(slot, record, self.generation, now))
            })
            .collect()
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            min: self.milter.min_pooled_procs,
            max: self.milter.most_children(),
            slots: self.slots_limit(),
            idle_limit: self.milter.pooled_proc_idle_limit,
            successors: self.successors,
        }
    }

    /// What becomes of the next connection.
    pub(super) fn arrival(&self, views: &[ChildView]) -> Arrival {
        match self.phase {
            Phase::Running => {}
            Phase::Starting(_) => return Arrival::Wait(NotAccepting::NoChild),
            Phase::Retiring(_) | Phase::Aborting(_) => {
                return Arrival::Wait(NotAccepting::Stopping);
            }
        }
        if self.resources_until.is_some() {
            return Arrival::Wait(NotAccepting::Resources);
        }
        let bounds = self.bounds();
        let serving: u64 = views.iter().map(|child| child.requests).sum();
        let limit = self.milter.concurrency_limit.map(u64::from);
        let why = if limit.is_some_and(|limit| serving >= limit) {
            NotAccepting::Limit
        } else if views
            .iter()
            .any(|child| pool::has_room(child, Load::Served))
        {
            // Who has room takes nothing at present: what is in hand goes first, and whoever comes waits with the kernel, whose queue has a
            // bound.
            return if self.in_hand.is_empty() {
                Arrival::Serve
            } else {
                Arrival::Wait(NotAccepting::NoChild)
            };
        } else if !views.iter().any(|child| child.ready && !child.retiring) {
            return Arrival::Wait(NotAccepting::NoChild);
        } else if pool::should_grow(views, &bounds) || views.iter().any(|child| !child.ready) {
            // Room is on its way: that is not full.
            return Arrival::Wait(NotAccepting::NoChild);
        } else {
            NotAccepting::Full
        };
        let treatment = match self.milter.concurrency_limit_action {
            OverloadAction::Wait => return Arrival::Wait(why),
            OverloadAction::Tempfail => Treatment::Tempfail,
            OverloadAction::Accept => Treatment::Accept,
            OverloadAction::Reject => Treatment::Reject,
        };
        let marked: u64 = self
            .children
            .iter()
            .flatten()
            .map(super::child::Child::marked_in_flight)
            .sum();
        if marked < MOST_MARKED && self.load_in_hand() != Some(Load::Marked) {
            Arrival::Answer(treatment, why)
        } else {
            Arrival::Wait(why)
        }
    }

    /// What is in hand; a marked one, which more children can take, if there is one.
    fn load_in_hand(&self) -> Option<Load> {
        let loads = self.in_hand.iter().map(|it| load_of(it.treatment));
        loads.reduce(|one, other| if one == Load::Marked { one } else { other })
    }

    /// Is something in hand though a child has room for it? Then its socket is full, and it does not tell when it has read from it.
    pub(super) fn waits_for_a_full_socket(&self, now: Instant) -> bool {
        self.load_in_hand().is_some_and(|load| {
            let views = self.views(now);
            views.iter().any(|child| pool::has_room(child, load))
        })
    }

    /// Takes the connections that wait, as long as there is somebody for them.
    pub(super) fn accept_waiting(&mut self, now: Instant) {
        // One that comes alone costs one call; where they come in crowds the batch doubles.
        let batch = self.accept_batch;
        self.accept_batch = (batch * 2).min(MOST_A_TURN);
        for turn in 0..batch {
            let views = self.views(now);
            let should_grow = pool::should_grow(&views, &self.bounds());
            let treatment = match self.arrival(&views) {
                Arrival::Serve => Treatment::Policy,
                Arrival::Answer(treatment, _) => treatment,
                Arrival::Wait(_) => {
                    // The first one is known to wait; whether another does is not.
                    self.grow |= should_grow && turn == 0;
                    return;
                }
            };
            let Some(listener) = &self.listener else {
                return;
            };
            match socket::accept(listener.socket()) {
                Ok(connection) => {
                    self.books.global.accepted += 1;
                    if self.shortages.accepting.passes() {
                        log::info!(
                            "milter {}: connections are accepted again",
                            self.milter.name
                        );
                    }
                    self.books.publish_waiting(self.in_hand.len() + 1);
                    self.grow |= should_grow;
                    let connection = InHand {
                        socket: connection,
                        treatment,
                        tcp: self.tcp,
                    };
                    self.give(connection, &views, now);
                    if self.milter.pooled_proc_connect_limit != 0 {
                        // Before it gets one more than its limit.
                        self.retire_what_is_due(now);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.accept_batch = turn.max(1);
                    return;
                }
                Err(error) if socket::concerns_one_connection(&error) => {}
                Err(error) => return self.resources_short(&error, now),
            }
        }
    }

    fn resources_short(&mut self, error: &io::Error, now: Instant) {
        let text = format!(
            "milter {}: no connection can be accepted: {error}; {}; trying again each second",
            self.milter.name,
            advice(error)
        );
        self.books.trouble(&text);
        if self.shortages.accepting.hits(now) {
            log::error!("{text}");
            self.books.event(EventKind::Resources, 0);
        }
        self.resources_until = Some(now + RESOURCES_PAUSE);
    }

    /// Gives a connection to a child; what nobody can take now stays in hand.
    fn give(&mut self, connection: InHand, views: &[ChildView], now: Instant) {
        let mut views = views.to_vec();
        let load = load_of(connection.treatment);
        loop {
            let random = self.draw();
            let Some(slot) = pool::choose(&views, load, random) else {
                self.in_hand.push_back(connection);
                return;
            };
            if self.pass(slot, &connection, now) {
                return;
            }
            // Its socket is full, or it is gone: somebody else.
            views.retain(|child| child.slot != slot);
        }
    }

    fn pass(&mut self, slot: u32, connection: &InHand, now: Instant) -> bool {
        let Some(child) = self.children[slot as usize].as_mut() else {
            return false;
        };
        let record = &mut self.books.slots[slot as usize];
        record.dispatched += 1;
        record.peak_requests = record.peak_requests.max(child.in_flight(record));
        self.books.global.last_slot = u64::from(slot);
        self.books.publish_slot(slot);
        match child.pass(connection, now) {
            Ok(()) => {
                if connection.treatment != Treatment::Policy {
                    self.books.global.overload_passed += 1;
                }
                true
            }
            Err(error) => {
                self.books.slots[slot as usize].returned += 1;
                self.books.publish_slot(slot);
                log::debug!("child {} takes no connection: {error}", child.pid);
                match error.raw_os_error() {
                    // We have both ends open: it is not gone, it has shut its own.
                    Some(libc::EPIPE) => child.cut_off(),
                    // It has forbidden that descriptors are passed to it (SO_PASSRIGHTS): it would look idle for ever.
                    Some(libc::EPERM) => child.refused_descriptors(),
                    _ => {}
                }
                false
            }
        }
    }

    /// Gives what is in hand to whoever has room now. In a stop nobody takes it any more.
    pub(super) fn hand_on(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Retiring(_) | Phase::Aborting(_)) {
            self.books.global.rejected += self.in_hand.len() as u64;
            self.in_hand.clear();
        }
        for _ in 0..self.in_hand.len() {
            let Some(connection) = self.in_hand.pop_front() else {
                return;
            };
            let views = self.views(now);
            self.give(connection, &views, now);
        }
    }

    /// Looks at every child's control page; takes back what one has left unread for too long.
    pub(super) fn refresh(&mut self, now: Instant) {
        // SeqCst: pairs with the child's in Ledger::finished, between its word and its wake-up byte.
        fence(Ordering::SeqCst);
        let mut progressed = false;
        for (child, record) in self.children.iter_mut().zip(&self.books.slots) {
            if let Some(child) = child {
                // What children of before a restart finish says nothing of those that come.
                let progress = child.refresh(record, now);
                progressed |= progress && child.generation() == self.generation;
                if child.damaged && !child.killed {
                    log::error!(
                        "child {} claims what cannot be, to have read or finished what it was not given: it is broken or was taken over, and is killed",
                        child.pid
                    );
                    child.kill_for("claims that cannot be");
                }
            }
        }
        if progressed {
            self.works_again();
        }
        for slot in 0..self.children.len() {
            let Some(child) = self.children[slot].as_mut() else {
                continue;
            };
            if child
                .unread_for(now)
                .is_some_and(|unread| unread >= UNREAD_LIMIT)
            {
                if !child.unresponsive {
                    child.found_unresponsive();
                    log::warn!(
                        "child {} leaves a connection unread: it gets no more until it reads",
                        child.pid
                    );
                }
                let back = child.take_back(MOST_A_TURN);
                child.probe();
                if back.count() > 0 {
                    self.books.slots[slot].returned += back.count();
                    self.books.global.rejected += back.vanished;
                    self.in_hand.extend(back.connections);
                    self.books.publish_waiting(self.in_hand.len());
                    self.books
                        .publish_slot(u32::try_from(slot).unwrap_or(u32::MAX));
                }
            }
        }
    }

    /// Is a connection of a child unread?
    pub(super) fn anything_unread(&self, now: Instant) -> bool {
        self.children
            .iter()
            .flatten()
            .any(|child| child.unread_for(now).is_some())
    }
}

fn load_of(treatment: Treatment) -> Load {
    match treatment {
        Treatment::Policy => Load::Served,
        Treatment::Tempfail | Treatment::Accept | Treatment::Reject => Load::Marked,
    }
}

/// What helps against a shortage.
pub(super) fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => "raise the limit of open files (LimitNOFILE=, ulimit -n)",
        Some(libc::ENFILE) => "the machine has no file descriptor left (fs.file-max)",
        Some(libc::ENOMEM | libc::ENOBUFS) => "memory is short",
        Some(libc::EAGAIN) => {
            "raise the limit of processes (TasksMax=, ulimit -u) or lower max_pooled_procs"
        }
        _ => "look for what forbids it",
    }
}
