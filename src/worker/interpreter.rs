//! An interpreter: one thread, one Lua state, one level-triggered event loop that carries many sessions.
//!
//! A turn of the loop: wait, look at the clock once, serve what is ready, resume what waited. A session reads all that is there at once; what
//! answers it leaves in one write, after it was published on the board. A suspended callback holds up its session only.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use scoreboard::records::Phase;

use super::Treatment;
use super::connection::{Connection, Connections, Interest};
use super::intake::Intake;
use super::meter::{Meter, Timing};
use super::orders::{Handed, Order};
use super::output::flags;
use super::timers::Timers;
use crate::policy::{Fault, Interpreter};
use crate::session::{self, Mode, OverloadReply, Plan, Session, Tally};
use crate::sys::clock;

/// Room to read into: half a frame of the largest size and as much again.
const SCRATCH_BYTES: usize = 128 << 10;
/// How often the time limits of connections are looked at.
const SCAN_EVERY: Duration = Duration::from_secs(1);

/// Orders that an interpreter reads a turn when it is the only one; several read one each, so that the others get some too.
const MOST_ORDERS: usize = 64;

const CONTROL: u64 = u64::MAX;
const BELL: u64 = u64::MAX - 1;
const MASTER: u64 = u64::MAX - 2;

/// Whether a connection goes on.
pub(super) enum Flow {
    Open,
    End,
}

/// The event loop of one interpreter.
pub(super) struct Loop {
    pub(super) intake: Arc<Intake>,
    pub(super) index: usize,
    pub(super) epoll: Epoll,
    pub(super) engine: Rc<Interpreter>,
    pub(super) plan: Rc<Plan>,
    /// Messages processed when the engine was made.
    pub(super) engine_since: u64,
    pub(super) connections: Connections,
    pub(super) timers: Timers,
    pub(super) yielded: VecDeque<(u64, u32)>,
    pub(super) tally: Tally,
    pub(super) published: Tally,
    pub(super) meter: Meter,
    /// Suspended callbacks: since when their MTA waits, and whose they are.
    pub(super) suspended: BTreeSet<(u64, u64)>,
    /// The connection whose callback the board shows as running.
    pub(super) in_hand: Option<u64>,
    pub(super) scratch: Vec<u8>,
    pub(super) out: Vec<u8>,
    pub(super) now: Instant,
    pub(super) now_ns: u64,
    pub(super) next_scan: Instant,
}

impl Loop {
    /// Builds the Lua state and the loop around it, on the thread that will run it.
    pub(super) fn new(intake: Arc<Intake>, index: usize) -> Result<Loop, String> {
        let system = |error: nix::errno::Errno| error.to_string();
        let engine = intake.engine()?;
        let plan = Plan::new(engine.wants(), intake.milter.message_size_limit);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(system)?;
        let mut control = EpollFlags::EPOLLIN;
        if intake.several() {
            control |= EpollFlags::EPOLLEXCLUSIVE;
        }
        epoll
            .add(&intake.control, EpollEvent::new(control, CONTROL))
            .map_err(system)?;
        epoll
            .add(
                intake.bell(index),
                EpollEvent::new(EpollFlags::EPOLLIN, BELL),
            )
            .map_err(system)?;
        if index == 0 {
            epoll
                .add(&intake.master, EpollEvent::new(EpollFlags::EPOLLIN, MASTER))
                .map_err(system)?;
        }
        intake.open(index);
        Ok(Loop {
            intake,
            index,
            epoll,
            engine: Rc::new(engine),
            plan: Rc::new(plan),
            engine_since: 0,
            connections: Connections::default(),
            timers: Timers::default(),
            yielded: VecDeque::new(),
            tally: Tally::default(),
            published: Tally::default(),
            meter: Meter::default(),
            suspended: BTreeSet::new(),
            in_hand: None,
            scratch: vec![0; SCRATCH_BYTES],
            out: Vec::new(),
            now: Instant::now(),
            now_ns: clock::boottime_ns(),
            next_scan: Instant::now() + SCAN_EVERY,
        })
    }

    /// Serves until it may end.
    pub(super) fn run(&mut self) {
        let mut events = vec![EpollEvent::empty(); 256];
        loop {
            if self.intake.is_aborting() {
                self.abort();
            }
            if self.intake.is_retiring()
                && self.connections.len() == 0
                && self.intake.close(self.index)
            {
                return;
            }
            let count = match self.epoll.wait(&mut events, self.patience()) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => {
                    log::error!("an interpreter's event loop: {error}");
                    self.intake.abort();
                    0
                }
            };
            self.now = Instant::now();
            self.now_ns = clock::boottime_ns();
            for event in &events[..count] {
                match event.data() {
                    CONTROL => self.take_orders(),
                    BELL => {
                        for handed in self.intake.inbox(self.index) {
                            self.admit(handed);
                        }
                    }
                    MASTER => self.master_died(),
                    key => self.ready(key, event.events()),
                }
            }
            self.resume_due();
            if self.now >= self.next_scan && self.connections.len() > 0 {
                self.end_late();
                self.next_scan = self.now + SCAN_EVERY;
            }
        }
    }

    /// How long the loop may wait.
    fn patience(&self) -> EpollTimeout {
        if !self.yielded.is_empty() {
            return EpollTimeout::ZERO;
        }
        let scan = (self.connections.len() > 0).then_some(self.next_scan);
        let next = [self.timers.next(), scan].into_iter().flatten().min();
        match next {
            None => EpollTimeout::NONE,
            Some(next) => {
                // Rounded up: a loop that wakes a moment too early turns once more for nothing.
                let wait =
                    next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::MAX)
            }
        }
    }

    /// Reads what the master sent: all of it, for a turn may be long and the master takes back what lies unread.
    pub(super) fn take_orders(&mut self) {
        let most = if self.intake.several() {
            1
        } else {
            MOST_ORDERS
        };
        for _ in 0..most {
            match self.intake.receive() {
                Order::Connection(handed) => {
                    if let Some(mine) = self.intake.place(self.index, handed) {
                        self.admit(mine);
                    }
                }
                Order::Retire => self.intake.retire(),
                Order::Abort => self.intake.abort(),
                Order::Reopen(Some(file)) => crate::log::go_on_in(file),
                Order::Reopen(None) => crate::log::reopen(),
                Order::Done => {}
                Order::Nothing => return,
                Order::Gone => return self.master_died(),
            }
        }
    }

    /// Without a master: serve what it had passed on, finish, end.
    fn master_died(&mut self) {
        let _ = self.epoll.delete(&self.intake.master);
        loop {
            match self.intake.receive() {
                Order::Connection(handed) => {
                    if let Some(mine) = self.intake.place(self.index, handed) {
                        self.admit(mine);
                    }
                }
                Order::Retire | Order::Reopen(_) | Order::Done => {}
                Order::Abort => self.intake.abort(),
                Order::Nothing | Order::Gone => break,
            }
        }
        let _ = self.epoll.delete(&self.intake.control);
        if !self.intake.is_retiring() {
            log::warn!(
                "the master is gone: finishing {} connections",
                self.connections.len()
            );
        }
        self.intake.retire();
    }

    /// Begins a session on a connection.
    pub(super) fn admit(&mut self, handed: Handed) {
        self.renew_engine();
        let marked = handed.treatment != Treatment::Policy;
        let mode = match handed.treatment {
            Treatment::Policy => Mode::Policy,
            Treatment::Tempfail => Mode::Overload(OverloadReply::Tempfail),
            Treatment::Accept => Mode::Overload(OverloadReply::Accept),
            Treatment::Reject => Mode::Overload(OverloadReply::Reject),
        };
        let session = Session::new(Rc::clone(&self.plan), mode);
        let ctx = self.engine.context(Rc::clone(session.facts()));
        let key = self.connections.reserve();
        let connection = Box::new(Connection {
            socket: handed.socket,
            session,
            ctx,
            engine: Rc::clone(&self.engine),
            rest: Vec::new(),
            unsent: Vec::new(),
            call: None,
            calls: 0,
            group: None,
            next_progress: None,
            timing: Timing::new(),
            message_since: None,
            last: self.now,
            partial: None,
            interest: Interest::Read,
            closing: false,
            marked,
        });
        let event = EpollEvent::new(flags(Interest::Read), key);
        match self.epoll.add(&connection.socket, event) {
            Ok(()) => self.connections.put(key, connection),
            Err(error) => {
                log::error!("a connection cannot be watched: {error}");
                self.end(key, connection);
            }
        }
    }

    /// Replaces the Lua state after `reinit_limit` messages; connections in progress keep the old one.
    fn renew_engine(&mut self) {
        let limit = self.intake.milter.reinit_limit;
        let processed: u64 = self.tally.verdicts.iter().sum();
        if limit == 0 || processed - self.engine_since < limit {
            return;
        }
        match self.intake.engine() {
            Ok(engine) => {
                self.engine = Rc::new(engine);
                self.engine_since = processed;
                self.intake.publish_interpreters();
            }
            Err(error) => log::error!("the interpreter cannot be replaced and goes on: {error}"),
        }
    }
}

pub(super) fn board_phase(phase: session::Phase) -> Phase {
    match phase {
        session::Phase::Idle => Phase::Idle,
        session::Phase::Connect => Phase::Connect,
        session::Phase::Mail => Phase::Mail,
        session::Phase::Rcpt => Phase::Rcpt,
        session::Phase::Data => Phase::Data,
        session::Phase::Header => Phase::Header,
        session::Phase::Body => Phase::Body,
        session::Phase::Eom => Phase::Eom,
    }
}

/// Logs a callback that failed, before the session is told.
pub(super) fn report(connection: &Connection, fault: &Fault) {
    let facts = connection.session.facts().borrow();
    let id = facts
        .queue_id()
        .map_or_else(|| "-".to_owned(), |id| id.escape_ascii().to_string());
    log::error!(
        "{id}: the policy failed, {}: {}",
        connection.session.when_it_fails(),
        fault.text
    );
}
