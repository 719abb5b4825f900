//! An interpreter: one thread, one Lua state, one level-triggered event loop that carries many sessions.
//!
//! A turn of the loop: wait, look at the clock once, serve what is ready, resume what waited. A session reads all that is there at once; what
//! answers it leaves in one write, after it was published on the board. A suspended callback holds up its session only.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use scoreboard::records::Phase;

use super::connection::{Call, Connection, Connections, Interest};
use super::intake::{Handed, Intake, Order};
use super::ledger::Work;
use super::timers::{Kind, Timers};
use super::{Treatment, word};
use crate::policy::{Fault, Interpreter, Progress, Suspended, Wake};
use crate::session::{self, After, Budget, Close, Mode, OverloadReply, Plan, Session, Step, Tally};
use crate::sys::{clock, pass_fd, socket};

/// Room to read into: half a frame of the largest size and as much again.
const SCRATCH_BYTES: usize = 128 << 10;
/// A packet that was begun must end within this: an MTA sends a packet in one go.
const PARTIAL_LIMIT: Duration = Duration::from_secs(30);
/// Bytes that answer an MTA must be taken within this.
const WRITE_LIMIT: Duration = Duration::from_secs(60);
/// Sendmail gives up an end of message without any packet after 10 s.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// How long the last callbacks of a connection that is cut may take.
const ABORT_LIMIT: Duration = Duration::from_secs(1);
/// How often the time limits of connections are looked at.
const SCAN_EVERY: Duration = Duration::from_secs(1);
/// Output buffers above this are given back.
const KEPT_BYTES: usize = 256 << 10;

const CONTROL: u64 = u64::MAX;
const BELL: u64 = u64::MAX - 1;
const MASTER: u64 = u64::MAX - 2;

/// Whether a connection goes on.
enum Flow {
    Open,
    End,
}

/// The event loop of one interpreter.
pub(super) struct Loop {
    intake: Arc<Intake>,
    index: usize,
    epoll: Epoll,
    engine: Rc<Interpreter>,
    plan: Rc<Plan>,
    /// Messages processed when the engine was made.
    engine_since: u64,
    connections: Connections,
    timers: Timers,
    yielded: VecDeque<(u64, u32)>,
    tally: Tally,
    published: Tally,
    /// The work in hand as published: connection and phase.
    in_hand: (u64, Phase),
    scratch: Vec<u8>,
    out: Vec<u8>,
    now: Instant,
    now_ns: u64,
    next_scan: Instant,
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
            in_hand: (0, Phase::Idle),
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
                    CONTROL => self.take_order(),
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

    fn take_order(&mut self) {
        match self.intake.receive() {
            Order::Connection(handed) => {
                if let Some(mine) = self.intake.place(self.index, handed) {
                    self.admit(mine);
                }
            }
            Order::Retire => self.intake.retire(),
            Order::Abort => self.intake.abort(),
            Order::Nothing => {}
            Order::Gone => self.master_died(),
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
                Order::Retire => {}
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
    fn admit(&mut self, handed: Handed) {
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

    /// The socket of a connection is ready.
    fn ready(&mut self, key: u64, events: EpollFlags) {
        let Some(mut connection) = self.connections.take(key) else {
            return;
        };
        let gone = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        if connection.call.is_some() || connection.closing {
            if events.intersects(gone | EpollFlags::EPOLLRDHUP) {
                return self.cut(key, connection);
            }
            if connection.unsent.is_empty() {
                self.watch(key, &mut connection, Interest::End);
                return self.connections.put(key, connection);
            }
        }
        if !connection.unsent.is_empty() {
            return match self.write_unsent(key, &mut connection) {
                Flow::End => self.end(key, connection),
                Flow::Open if connection.unsent.is_empty() && connection.call.is_none() => {
                    self.go_on(key, connection);
                }
                Flow::Open => self.connections.put(key, connection),
            };
        }
        self.read(key, connection);
    }

    /// Reads what is there and serves it.
    fn read(&mut self, key: u64, mut connection: Box<Connection>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let kept = connection.rest.len();
        if kept >= scratch.len() {
            // Half a frame is never that long, and whole frames are served before more is read.
            self.scratch = scratch;
            return self.end(key, connection);
        }
        scratch[..kept].copy_from_slice(&connection.rest);
        let flow = match socket::read(&connection.socket, &mut scratch[kept..]) {
            Ok(0) => Flow::End,
            Ok(count) => {
                connection.last = self.now;
                connection.rest = Vec::new();
                self.serve(key, &mut connection, &scratch[..kept + count])
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Flow::Open
            }
            Err(_) => Flow::End,
        };
        self.scratch = scratch;
        match flow {
            Flow::Open => self.connections.put(key, connection),
            Flow::End => self.end(key, connection),
        }
    }

    /// Goes on with bytes that were read before.
    fn go_on(&mut self, key: u64, mut connection: Box<Connection>) {
        let rest = std::mem::take(&mut connection.rest);
        match self.serve(key, &mut connection, &rest) {
            Flow::End => self.end(key, connection),
            Flow::Open => {
                if connection.call.is_none() && connection.unsent.is_empty() {
                    self.watch(key, &mut connection, Interest::Read);
                }
                self.connections.put(key, connection);
            }
        }
    }

    /// Serves the frames of `input`; keeps what is left of it.
    fn serve(&mut self, key: u64, connection: &mut Connection, input: &[u8]) -> Flow {
        let mut out = std::mem::take(&mut self.out);
        let mut at = 0;
        let flow = loop {
            let before = out.len();
            let (used, step) = connection
                .session
                .advance(&input[at..], &mut out, &mut self.tally);
            at += used;
            if out.len() != before {
                connection.group = None;
            }
            match step {
                Step::Input => {
                    self.keep(connection, &input[at..], used > 0);
                    break Flow::Open;
                }
                Step::MessageOver => connection.engine.end_message(&mut connection.ctx),
                Step::NewClient => {
                    let facts = Rc::clone(connection.session.facts());
                    connection.ctx = connection.engine.context(facts);
                }
                Step::Close(close) => {
                    self.explain(connection, &close);
                    break Flow::End;
                }
                Step::Call(event) => {
                    let (deadline, until) = self.deadline(connection);
                    self.enter(key, connection, until);
                    let progress = connection
                        .engine
                        .start(&mut connection.ctx, event, deadline);
                    self.intake.ledger.busy_until(self.index, 0);
                    match progress {
                        Progress::Done(outcome) => self.answer(connection, outcome, &mut out),
                        Progress::Suspended(suspended) => {
                            self.keep(connection, &input[at..], true);
                            connection.partial = None;
                            self.suspend(key, connection, suspended, deadline, &mut out);
                            break Flow::Open;
                        }
                    }
                }
            }
        };
        self.flush(key, connection, out, flow)
    }

    fn keep(&self, connection: &mut Connection, rest: &[u8], whole_frames: bool) {
        connection.rest = rest.to_vec();
        if rest.is_empty() {
            connection.partial = None;
        } else if whole_frames || connection.partial.is_none() {
            connection.partial = Some(self.now);
        }
    }

    /// Until when the callback in hand has time, as an instant and on the board's clock.
    fn deadline(&self, connection: &mut Connection) -> (Instant, u64) {
        let limit = match connection.session.budget() {
            Budget::Callback => self.intake.milter.callback_timeout,
            Budget::Eom => self.intake.milter.eom_timeout,
        };
        let begun = *connection.group.get_or_insert_with(Instant::now);
        let deadline = begun + limit;
        let left = deadline.saturating_duration_since(self.now);
        let until = self
            .now_ns
            .saturating_add(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX));
        (deadline, until)
    }

    /// Publishes the work in hand before the policy runs: if it kills the process, the board says what it was.
    fn enter(&mut self, key: u64, connection: &Connection, until: u64) {
        let phase = board_phase(connection.session.phase());
        if self.in_hand != (key, phase) {
            self.in_hand = (key, phase);
            let facts = connection.session.facts().borrow();
            let work = Work {
                phase,
                queue_id: facts.queue_id(),
                now_ns: self.now_ns,
            };
            self.intake
                .ledger
                .publish(&self.tally, &mut self.published, Some(work));
        }
        self.intake.ledger.busy_until(self.index, until);
    }

    fn answer(
        &mut self,
        connection: &mut Connection,
        outcome: crate::policy::Outcome,
        out: &mut Vec<u8>,
    ) {
        if let Err(fault) = &outcome {
            report(connection, fault);
        }
        let before = out.len();
        let after = connection.session.answer(outcome, out, &mut self.tally);
        if out.len() != before {
            connection.group = None;
        }
        if after == After::MessageOver {
            connection.engine.end_message(&mut connection.ctx);
        }
    }

    fn suspend(
        &mut self,
        key: u64,
        connection: &mut Connection,
        suspended: Suspended,
        deadline: Instant,
        out: &mut Vec<u8>,
    ) {
        connection.calls = connection.calls.wrapping_add(1);
        match suspended.wake {
            Wake::At(wake) => {
                self.timers
                    .push((wake.min(deadline), key, connection.calls, Kind::Resume))
            }
            Wake::Yielded => self.yielded.push_back((key, connection.calls)),
            Wake::Progress => {
                connection.session.progress(out);
                self.yielded.push_back((key, connection.calls));
            }
        }
        let eom = connection.session.phase() == session::Phase::Eom && !connection.closing;
        if eom && connection.next_progress.is_none() {
            let next = self.now + PROGRESS_EVERY;
            connection.next_progress = Some(next);
            self.timers.push((next, key, 0, Kind::Progress));
        }
        connection.call = Some(Box::new(Call {
            suspended,
            deadline,
        }));
    }

    /// Resumes the callbacks whose time has come, each once.
    fn resume_due(&mut self) {
        for _ in 0..self.yielded.len() {
            if let Some((key, call)) = self.yielded.pop_front() {
                self.resume(key, call);
            }
        }
        while let Some((_, key, call, kind)) = self.timers.due(self.now) {
            match kind {
                Kind::Resume => self.resume(key, call),
                Kind::Progress => self.send_progress(key),
            }
        }
    }

    fn resume(&mut self, key: u64, call: u32) {
        let Some(mut connection) = self.connections.take(key) else {
            return;
        };
        let in_hand = if connection.calls == call {
            connection.call.take()
        } else {
            None
        };
        let Some(in_hand) = in_hand else {
            return self.connections.put(key, connection);
        };
        let Call {
            suspended,
            deadline,
        } = *in_hand;
        let until = self.deadline(&mut connection).1;
        self.enter(key, &connection, until);
        let progress = connection
            .engine
            .resume(&mut connection.ctx, suspended, deadline);
        self.intake.ledger.busy_until(self.index, 0);
        let mut out = std::mem::take(&mut self.out);
        match progress {
            Progress::Suspended(suspended) => {
                self.suspend(key, &mut connection, suspended, deadline, &mut out);
                match self.flush(key, &mut connection, out, Flow::Open) {
                    Flow::Open => self.connections.put(key, connection),
                    Flow::End => self.cut(key, connection),
                }
            }
            Progress::Done(outcome) if connection.closing => {
                self.out = out;
                if let Err(fault) = &outcome {
                    report(&connection, fault);
                }
                self.end(key, connection);
            }
            Progress::Done(outcome) => {
                connection.next_progress = None;
                self.answer(&mut connection, outcome, &mut out);
                match self.flush(key, &mut connection, out, Flow::Open) {
                    Flow::Open if connection.unsent.is_empty() => self.go_on(key, connection),
                    Flow::Open => self.connections.put(key, connection),
                    Flow::End => self.end(key, connection),
                }
            }
        }
    }

    /// Tells the MTA that a long end of message goes on.
    fn send_progress(&mut self, key: u64) {
        let Some(mut connection) = self.connections.take(key) else {
            return;
        };
        let due = connection.next_progress.is_some_and(|due| due <= self.now);
        if !due || connection.call.is_none() {
            return self.connections.put(key, connection);
        }
        let mut out = std::mem::take(&mut self.out);
        connection.session.progress(&mut out);
        let next = self.now + PROGRESS_EVERY;
        connection.next_progress = Some(next);
        self.timers.push((next, key, 0, Kind::Progress));
        match self.flush(key, &mut connection, out, Flow::Open) {
            Flow::Open => self.connections.put(key, connection),
            Flow::End => self.cut(key, connection),
        }
    }

    /// Publishes what was counted, then writes what answers it.
    fn flush(
        &mut self,
        key: u64,
        connection: &mut Connection,
        mut out: Vec<u8>,
        flow: Flow,
    ) -> Flow {
        if self.tally != self.published {
            let phase = if connection.session.in_message() {
                board_phase(connection.session.phase())
            } else {
                Phase::Idle
            };
            self.in_hand = (key, phase);
            let facts = connection.session.facts().borrow();
            let work = Work {
                phase,
                queue_id: facts.queue_id().filter(|_| phase != Phase::Idle),
                now_ns: self.now_ns,
            };
            self.intake
                .ledger
                .publish(&self.tally, &mut self.published, Some(work));
        }
        let written = self.send(key, connection, &out);
        if out.capacity() > KEPT_BYTES {
            out = Vec::new();
        }
        out.clear();
        self.out = out;
        match flow {
            Flow::End => Flow::End,
            Flow::Open => written,
        }
    }

    fn send(&mut self, key: u64, connection: &mut Connection, bytes: &[u8]) -> Flow {
        if bytes.is_empty() {
            return Flow::Open;
        }
        if !connection.unsent.is_empty() {
            connection.unsent.extend_from_slice(bytes);
            return Flow::Open;
        }
        match socket::write(&connection.socket, bytes) {
            Ok(count) if count == bytes.len() => Flow::Open,
            Ok(count) => self.leave_unsent(key, connection, &bytes[count..]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                self.leave_unsent(key, connection, bytes)
            }
            Err(_) => Flow::End,
        }
    }

    fn leave_unsent(&mut self, key: u64, connection: &mut Connection, bytes: &[u8]) -> Flow {
        connection.unsent = bytes.to_vec();
        connection.last = self.now;
        self.watch(key, connection, Interest::Write);
        Flow::Open
    }

    fn write_unsent(&mut self, key: u64, connection: &mut Connection) -> Flow {
        let bytes = std::mem::take(&mut connection.unsent);
        connection.interest = Interest::Write;
        match self.send(key, connection, &bytes) {
            Flow::End => Flow::End,
            Flow::Open => {
                if connection.unsent.is_empty() {
                    self.watch(key, connection, Interest::Read);
                } else if connection.unsent.len() < bytes.len() {
                    connection.last = self.now;
                }
                Flow::Open
            }
        }
    }

    fn watch(&self, key: u64, connection: &mut Connection, interest: Interest) {
        if connection.interest == interest {
            return;
        }
        connection.interest = interest;
        let mut event = EpollEvent::new(flags(interest), key);
        if let Err(error) = self.epoll.modify(&connection.socket, &mut event) {
            log::error!("a connection cannot be watched: {error}");
        }
    }

    /// The MTA has gone while a callback is suspended.
    fn cut(&mut self, key: u64, mut connection: Box<Connection>) {
        if let Some(call) = connection.call.take() {
            connection
                .engine
                .cancel(&mut connection.ctx, call.suspended);
        }
        self.end(key, connection);
    }

    /// Ends a connection: its last callbacks, its books, its descriptor, in this order.
    fn end(&mut self, key: u64, mut connection: Box<Connection>) {
        connection.closing = true;
        connection.group = None;
        let limit = if self.intake.is_aborting() {
            ABORT_LIMIT
        } else {
            self.intake.milter.callback_timeout
        };
        while let Some(event) = connection.session.end(&mut self.tally) {
            let deadline = Instant::now() + limit;
            let until = self
                .now_ns
                .saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
            self.enter(key, &connection, until);
            let progress = connection
                .engine
                .start(&mut connection.ctx, event, deadline);
            self.intake.ledger.busy_until(self.index, 0);
            match progress {
                Progress::Done(Ok(_)) => {}
                Progress::Done(Err(fault)) => report(&connection, &fault),
                Progress::Suspended(suspended) if self.intake.is_aborting() => {
                    connection.engine.cancel(&mut connection.ctx, suspended);
                }
                Progress::Suspended(suspended) => {
                    let mut nothing = Vec::new();
                    self.suspend(key, &mut connection, suspended, deadline, &mut nothing);
                    self.watch(key, &mut connection, Interest::End);
                    return self.connections.put(key, connection);
                }
            }
        }
        self.in_hand = (key, Phase::Idle);
        let work = Work {
            phase: Phase::Idle,
            queue_id: None,
            now_ns: self.now_ns,
        };
        self.intake
            .ledger
            .finished(&self.tally, &mut self.published, work, connection.marked);
        self.connections.release(key);
        // Closed only now: whoever sees the end of the connection finds it on the board.
        drop(connection);
        // A full queue already wakes the master.
        let _ = pass_fd::send(&self.intake.control, &[word::FINISHED], None);
        if let Some(next) = self.intake.freed(self.index) {
            self.admit(next);
        }
    }

    fn explain(&self, connection: &Connection, close: &Close) {
        match close {
            Close::Quit => {}
            Close::Broken(why) => {
                let facts = connection.session.facts().borrow();
                let client = facts.client.as_ref().map_or_else(
                    || "-".to_owned(),
                    |client| client.host.escape_ascii().to_string(),
                );
                log::warn!(
                    "a connection is closed, for it is not the milter protocol: {why} (SMTP client {client})"
                );
            }
        }
    }

    /// Ends the connections whose MTA is silent for too long.
    fn end_late(&mut self) {
        let now = self.now;
        let idle = self.intake.milter.timeout;
        let late = self.connections.keys(|connection| {
            let silent = now.saturating_duration_since(connection.last);
            let partial = connection
                .partial
                .is_some_and(|since| now.saturating_duration_since(since) > PARTIAL_LIMIT);
            let stuck = !connection.unsent.is_empty() && silent > WRITE_LIMIT;
            let waiting = connection.call.is_none() && !connection.closing;
            stuck || (waiting && (partial || silent > idle))
        });
        for key in late {
            if let Some(connection) = self.connections.take(key) {
                log::warn!(
                    "a connection is closed: its MTA was silent for {} s{}",
                    now.saturating_duration_since(connection.last).as_secs(),
                    if connection.rest.is_empty() && connection.unsent.is_empty() {
                        ""
                    } else {
                        " in the middle of a packet"
                    }
                );
                self.cut(key, connection);
            }
        }
    }

    /// Cuts everything.
    fn abort(&mut self) {
        for handed in self.intake.drain_queue() {
            self.admit(handed);
        }
        for handed in self.intake.inbox(self.index) {
            self.admit(handed);
        }
        for key in self.connections.keys(|_| true) {
            if let Some(connection) = self.connections.take(key) {
                self.cut(key, connection);
            }
        }
    }
}

fn flags(interest: Interest) -> EpollFlags {
    match interest {
        Interest::Read => EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP,
        Interest::End => EpollFlags::EPOLLRDHUP,
        Interest::Write => EpollFlags::EPOLLOUT,
    }
}

fn board_phase(phase: session::Phase) -> Phase {
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

/// Logs a callback that failed.
fn report(connection: &Connection, fault: &Fault) {
    let facts = connection.session.facts().borrow();
    let id = facts
        .queue_id()
        .map_or_else(|| "-".to_owned(), |id| id.escape_ascii().to_string());
    log::error!(
        "{id}: the policy failed, the message gets TEMPFAIL: {}",
        fault.text
    );
}
