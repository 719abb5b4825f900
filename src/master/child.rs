//! The master's private record of a child: its process, its end of the control socket, what it was handed, and what it said it finished.
//!
//! Nothing that a child writes is believed further than it can harm: that it finished something only if it was handed as much.
#![forbid(unsafe_code)]

mod handed;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scoreboard::records::{MasterRecord, SlotState};

use super::pool::{ChildView, Limits};
use crate::sys::control_page::{ControlPage, Word};
use crate::sys::pass_fd;
use crate::worker::{Treatment, order, word};

pub(super) use handed::ChildState;

/// Wake-ups read of one child a turn: a child that floods its master costs it no more.
const MOST_WAKES: usize = 512;

/// A living child.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: Pid,
    pub(super) control: OwnedFd,
    /// The child's end: what a dead or stopped child has not read is taken back through it.
    pub(super) far_end: OwnedFd,
    page: ControlPage,
    /// Kept for the next program.
    page_descriptor: OwnedFd,
    pub(super) ready: bool,
    pub(super) retiring: bool,
    /// It left a connection unread, and has not shown since that it reads.
    pub(super) unresponsive: bool,
    /// What it had heard of our probes when it was found to leave a connection unread.
    heard_before: u64,
    pub(super) forked: Instant,
    idle_since: Instant,
    unread_since: Option<Instant>,
    completed: u64,
    taken: u64,
    /// It finished something between the last two looks.
    progressed: bool,
    /// It has finished something of which the timer told, and no wake-up of it came since.
    unheralded: bool,
    marked: u64,
    marked_returned: u64,
    marked_completed: u64,
    /// Orders that its full socket did not take.
    due: Vec<u8>,
    pub(super) killed: bool,
    /// Why we killed it, when that is no end of a stop.
    pub(super) killed_for: Option<&'static str>,
    /// The deadline that it was found to be past.
    late_until: Option<u64>,
    /// Lines of the log that it lost.
    lines_lost: u64,
    /// Its control page says what cannot be: nothing on it is read any more.
    pub(super) damaged: bool,
    /// What its configuration lets it carry, which may not be ours any more.
    terms: Terms,
}

/// What holds for one child: what was configured when it was born.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Number of its configuration and policy.
    pub(super) generation: u64,
    /// Connections that it carries at once; `None`: no bound.
    pub(super) capacity: Option<u64>,
    /// Most interpreters that it has.
    pub(super) interpreters: u32,
    /// When it retires.
    pub(super) limits: Limits,
}

/// A connection that was accepted, or taken back, and is not with a child.
#[derive(Debug)]
pub(super) struct InHand {
    pub(super) socket: OwnedFd,
    pub(super) treatment: Treatment,
    /// It is TCP.
    pub(super) tcp: bool,
}

/// What a child said when its socket was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) ready: bool,
    /// An empty message, or the end of the socket: our child's program does neither while it lives.
    pub(super) broken_off: bool,
}

/// What a child left unread.
#[derive(Debug, Default)]
pub(super) struct TakenBack {
    pub(super) connections: Vec<InHand>,
    /// Connections that were cut for want of a descriptor.
    pub(super) vanished: u64,
}

impl TakenBack {
    /// Connections that the child no longer has.
    pub(super) fn count(&self) -> u64 {
        self.connections.len() as u64 + self.vanished
    }
}

/// Ends and page of a child to be.
pub(super) struct Ends {
    pub(super) control: OwnedFd,
    pub(super) far_end: OwnedFd,
    pub(super) page_descriptor: OwnedFd,
    pub(super) page: ControlPage,
}

impl Ends {
    pub(super) fn make() -> io::Result<Ends> {
        let (control, far_end) = pass_fd::pair()?;
        let (page_descriptor, page) = ControlPage::create()?;
        Ok(Ends {
            control,
            far_end,
            page_descriptor,
            page,
        })
    }
}

impl Child {
    pub(super) fn new(pid: Pid, ends: Ends, terms: Terms) -> Child {
        let now = Instant::now();
        Child {
            pid,
            control: ends.control,
            far_end: ends.far_end,
            page: ends.page,
            page_descriptor: ends.page_descriptor,
            ready: false,
            retiring: false,
            unresponsive: false,
            heard_before: 0,
            forked: now,
            idle_since: now,
            unread_since: None,
            completed: 0,
            taken: 0,
            progressed: false,
            unheralded: false,
            marked: 0,
            marked_returned: 0,
            marked_completed: 0,
            due: Vec::new(),
            killed: false,
            killed_for: None,
            late_until: None,
            lines_lost: 0,
            damaged: false,
            terms,
        }
    }

    /// Number of the configuration and policy that it runs.
    pub(super) fn generation(&self) -> u64 {
        self.terms.generation
    }

    /// Connections in progress, marked ones included.
    pub(super) fn in_flight(&self, record: &MasterRecord) -> u64 {
        record
            .dispatched
            .saturating_sub(record.returned)
            .saturating_sub(self.completed)
    }

    /// Marked connections in progress.
    pub(super) fn marked_in_flight(&self) -> u64 {
        self.marked
            .saturating_sub(self.marked_returned)
            .saturating_sub(self.marked_completed)
    }

    /// Connections that it finished.
    pub(super) fn completed(&self) -> u64 {
        self.completed
    }

    /// Looks at the control page. True when it has finished something since.
    ///
    /// A child only ever counts up, and no further than what it was handed. One whose page says otherwise is broken or hostile: what it
    /// claims then would draw every connection to it, and is not believed. (Claims that could be true are: they cost what a child can hold.)
    pub(super) fn refresh(&mut self, record: &MasterRecord, now: Instant) -> bool {
        let taken_on = record.dispatched.saturating_sub(record.returned);
        let handed_marked = self.marked.saturating_sub(self.marked_returned);
        let completed = self.page.load(Word::Completed);
        let marked = self.page.load(Word::CompletedMarked);
        let taken = self.page.load(Word::Taken);
        let can_be = (self.completed..=taken_on).contains(&completed)
            && (self.marked_completed..=handed_marked).contains(&marked)
            && (self.taken..=taken_on.max(self.taken)).contains(&taken);
        self.damaged |= !can_be;
        self.progressed = !self.damaged && completed > self.completed;
        if self.damaged {
            return false;
        }
        self.marked_completed = marked;
        self.completed = completed;
        if self.progressed {
            self.idle_since = now;
        }
        let reads = taken > self.taken;
        self.taken = taken;
        if taken >= taken_on {
            self.unread_since = None;
        } else if reads || self.unread_since.is_none() {
            // One that reads, if only slowly, leaves nothing unread for long.
            self.unread_since = Some(now);
        }
        if reads || self.page.load(Word::Heard) != self.heard_before {
            self.unresponsive = false;
        }
        self.progressed
    }

    /// The timer ended the wait, not a wake-up: one must still come for what was finished meanwhile. It may be on its way, for a child counts
    /// first and wakes then.
    pub(super) fn expect_wake(&mut self) {
        self.unheralded = self.progressed;
    }

    /// Did the wake-up that was expected not come? It may lie there unread, for nobody listens while there is room.
    pub(super) fn wake_is_late(&mut self) -> bool {
        let mut unread = [PollFd::new(self.control.as_fd(), PollFlags::POLLIN)];
        std::mem::take(&mut self.unheralded) && poll(&mut unread, PollTimeout::ZERO) == Ok(0)
    }

    /// It leaves a connection unread: it gets no more until it shows that it reads. To be asked with [`Child::probe`].
    pub(super) fn found_unresponsive(&mut self) {
        self.unresponsive = true;
        self.heard_before = self.page.load(Word::Heard);
    }

    /// Asks it to show that it reads.
    pub(super) fn probe(&self) {
        // A full socket holds a probe already, or a connection, whose reading shows as much.
        let _ = pass_fd::send(&self.control, &[order::PROBE], None);
    }

    /// When it will have left a connection unread for `limit`.
    pub(super) fn unread_until(&self, limit: Duration) -> Option<Instant> {
        self.unread_since.map(|since| since + limit)
    }

    /// Since when a connection lies unread.
    pub(super) fn unread_for(&self, now: Instant) -> Option<Duration> {
        self.unread_since
            .map(|since| now.saturating_duration_since(since))
    }

    /// Has it stayed in the policy's code past the deadline that it named (BOOTTIME ns)? True only when it was so at the last look, too:
    /// the clock of the policy's own deadline stands still while the machine or the child is suspended, ours does not.
    pub(super) fn overdue(&mut self, now_ns: u64, grace: Duration) -> bool {
        let grace = u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX);
        let until = self.page.busy_until(self.terms.interpreters as usize);
        let late = until.filter(|until| until.saturating_add(grace) < now_ns);
        let before = std::mem::replace(&mut self.late_until, late);
        late.is_some() && before == late
    }

    /// Has it lost lines of the log since the last look?
    pub(super) fn lost_more_lines(&mut self) -> bool {
        let lost = self.page.load(Word::LinesLost);
        lost > std::mem::replace(&mut self.lines_lost, lost)
    }

    /// As the pool sees it; `generation` is the present one.
    pub(super) fn view(
        &self,
        slot: u32,
        record: &MasterRecord,
        generation: u64,
        now: Instant,
    ) -> ChildView {
        let requests = self
            .in_flight(record)
            .saturating_sub(self.marked_in_flight());
        ChildView {
            slot,
            ready: self.ready,
            retiring: self.retiring,
            // One that is about to be gone reads nothing any more.
            unresponsive: self.unresponsive || self.killed,
            old: self.terms.generation != generation,
            capacity: self.terms.capacity,
            requests,
            idle: if self.in_flight(record) == 0 {
                now.saturating_duration_since(self.idle_since)
            } else {
                Duration::ZERO
            },
            age: now.saturating_duration_since(self.forked),
            connections: record.dispatched.saturating_sub(record.returned),
            messages: self.page.load(Word::Messages),
            rss: record.rss_bytes,
            limits: self.terms.limits,
        }
    }

    /// Passes a connection; the caller has counted it.
    pub(super) fn pass(&mut self, connection: &InHand, now: Instant) -> io::Result<()> {
        let message = [
            order::CONNECTION,
            connection.treatment.byte(),
            if connection.tcp { b't' } else { b'u' },
        ];
        pass_fd::send(&self.control, &message, Some(&connection.socket))?;
        if connection.treatment != Treatment::Policy {
            self.marked += 1;
        }
        self.idle_since = now;
        Ok(())
    }

    /// Gives an order; one that does not go through now is given again at the next turn.
    pub(super) fn order(&mut self, what: u8) {
        // A child opens no file: it gets ours.
        let passed = if what == order::REOPEN {
            crate::log::file()
        } else {
            Ok(None)
        };
        let sent = match passed {
            Ok(passed) => pass_fd::send(&self.control, &[what], passed.as_ref()),
            // No descriptor is left for it now.
            Err(_) => Err(io::ErrorKind::WouldBlock.into()),
        };
        // A child that is gone needs no order.
        if let Err(error) = sent
            && error.kind() == io::ErrorKind::WouldBlock
        {
            self.owe(what);
        }
    }

    /// Remembers an order for later, once.
    fn owe(&mut self, what: u8) {
        if !self.due.contains(&what) {
            self.due.push(what);
        }
    }

    /// Gives the orders that did not go through.
    pub(super) fn repeat_orders(&mut self) {
        for what in std::mem::take(&mut self.due) {
            self.order(what);
        }
    }

    /// Has an order not gone through?
    pub(super) fn has_due_order(&self) -> bool {
        !self.due.is_empty()
    }

    /// Ends it at once, for a reason of its own.
    pub(super) fn kill_for(&mut self, reason: &'static str) {
        self.killed = true;
        self.killed_for = Some(reason);
        self.signal(Signal::SIGKILL);
    }

    /// Ends one that has shut its control socket: it can be given nothing, and the socket's end would wake us for ever.
    pub(super) fn cut_off(&mut self) {
        if !self.killed {
            log::error!(
                "child {} has shut its control socket: it is broken or was taken over, and is killed",
                self.pid
            );
            self.kill_for("shutting its control socket");
        }
    }

    /// Ends one that takes no descriptors: it can be given nothing.
    pub(super) fn refused_descriptors(&mut self) {
        if !self.killed {
            log::error!(
                "child {} has forbidden that it is given connections: it is broken or was taken over, and is killed",
                self.pid
            );
            self.kill_for("forbidding that it is given connections");
        }
    }

    /// Sends a signal. The child is ours and not reaped: its pid cannot be anybody else's.
    pub(super) fn signal(&self, signal: Signal) {
        // ESRCH: it is a zombie already, and about to be reaped.
        let _ = kill(self.pid, signal);
    }

    /// Reads what it said, as much as a turn allows.
    pub(super) fn listen(&mut self) -> Said {
        let mut said = Said::default();
        for _ in 0..MOST_WAKES {
            match pass_fd::receive_plain(&self.control) {
                Ok(Some(received)) => {
                    self.unheralded = false;
                    said.ready |= received.bytes().first() == Some(&word::READY);
                }
                Ok(None) => {
                    said.broken_off = true;
                    break;
                }
                Err(_) => break,
            }
        }
        said
    }

    /// Takes back what it has not read. What is no connection is dropped: it was for this child.
    pub(super) fn take_back(&mut self, most: usize) -> TakenBack {
        let mut back = TakenBack::default();
        let mut orders = Vec::new();
        while back.connections.len() < most {
            let Ok(Some(mut received)) = pass_fd::receive(&self.far_end) else {
                break;
            };
            match (received.message, received.passed.take()) {
                ([order::CONNECTION, treatment, tcp, ..], Some(socket)) => {
                    let treatment = Treatment::from_byte(treatment).unwrap_or(Treatment::Policy);
                    if treatment != Treatment::Policy {
                        self.marked_returned += 1;
                    }
                    back.connections.push(InHand {
                        socket,
                        treatment,
                        tcp: tcp == b't',
                    });
                }
                // We had no descriptor left for it: the kernel has closed it.
                ([order::CONNECTION, treatment, ..], None) => {
                    if Treatment::from_byte(treatment) != Some(Treatment::Policy) {
                        self.marked_returned += 1;
                    }
                    back.vanished += 1;
                }
                // The caller sends another one.
                ([order::PROBE, ..], None) => {}
                // Sent again with the log file of then.
                ([order::REOPEN, ..], _) => orders.push(order::REOPEN),
                ([what, ..], None) => orders.push(what),
                _ => {}
            }
        }
        // A living child must still hear of these.
        for what in orders {
            self.owe(what);
        }
        back
    }
}

/// The state that the board shows.
pub(super) fn slot_state(child: &Child) -> SlotState {
    if child.retiring {
        SlotState::Retiring
    } else if child.ready {
        SlotState::Live
    } else {
        SlotState::Starting
    }
}
