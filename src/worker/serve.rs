//! Bytes of an MTA through its session to the policy: read, asked, answered, suspended, resumed.
//!
//! A session reads all that is there at once. A suspended callback holds up its session only; what came behind it waits in the connection.
#![forbid(unsafe_code)]

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;

use super::connection::{Call, Connection, Interest};
use super::interpreter::{Flow, Loop, report};
use super::message_log;
use super::timers::Kind;
use crate::policy::{Progress, Suspended, Wake};
use crate::session::{self, After, Budget, Step};
use crate::sys::socket;

/// Sendmail gives up an end of message without any packet after 10 s.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

impl Loop {
    /// The socket of a connection is ready.
    pub(super) fn ready(&mut self, key: u64, events: EpollFlags) {
        let Some(mut connection) = self.connections.take(key) else {
            return;
        };
        let gone = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        if connection.call.is_some() || connection.closing {
            if connection.closing && connection.is_sliced() {
                // The MTA's end, which the last callbacks come after anyway, cuts none that still computes: its deadline does.
                return self.connections.put(key, connection);
            }
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
    pub(super) fn read(&mut self, key: u64, mut connection: Box<Connection>) {
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
    pub(super) fn go_on(&mut self, key: u64, mut connection: Box<Connection>) {
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
    pub(super) fn serve(&mut self, key: u64, connection: &mut Connection, input: &[u8]) -> Flow {
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
            if connection.message_since.is_none() && connection.session.in_message() {
                connection.message_since = Some(self.now);
            }
            match step {
                Step::Input => {
                    self.keep(connection, &input[at..], used > 0);
                    break Flow::Open;
                }
                Step::MessageOver => {
                    if out.len() == before {
                        self.give_up_phase(connection);
                    }
                    self.message_over(connection);
                }
                Step::NewClient => {
                    let facts = Rc::clone(connection.session.facts());
                    connection.ctx = connection.engine.context(facts);
                    // The next client has its own time.
                    connection.group = None;
                    self.give_up_phase(connection);
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

    pub(super) fn keep(&self, connection: &mut Connection, rest: &[u8], whole_frames: bool) {
        connection.rest = rest.to_vec();
        if rest.is_empty() {
            connection.partial = None;
        } else if whole_frames || connection.partial.is_none() {
            connection.partial = Some(self.now);
        }
    }

    /// Until when the callback in hand has time, as an instant and on the board's clock.
    pub(super) fn deadline(&self, connection: &mut Connection) -> (Instant, u64) {
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

    pub(super) fn answer(
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
        let answered = out.len() != before;
        if answered {
            connection.group = None;
        }
        if after == After::MessageOver {
            if !answered {
                self.give_up_phase(connection);
            }
            self.message_over(connection);
        }
    }

    /// A message ended, with or without a final reply; its facts are still there.
    pub(super) fn message_over(&mut self, connection: &mut Connection) {
        connection.engine.end_message(&mut connection.ctx);
        connection.next_progress = None;
        connection.group = None;
        let since = connection.message_since.take();
        let took = self.note_message(since);
        if since.is_some() && self.intake.milter.message_log {
            let facts = connection.session.facts().borrow();
            let redact = self.intake.milter.redact;
            let ended = connection.session.ended();
            crate::log::message(&message_log::line(&facts, ended, took, redact));
        }
    }

    pub(super) fn suspend(
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
        self.suspends(key, connection);
    }

    /// Resumes the callbacks whose time has come, each once.
    pub(super) fn resume_due(&mut self) {
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

    pub(super) fn resume(&mut self, key: u64, call: u32) {
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
        self.wakes(key, &connection);
        let until = self.deadline(&mut connection).1;
        self.enter(key, &mut connection, until);
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
    pub(super) fn send_progress(&mut self, key: u64) {
        let Some(mut connection) = self.connections.take(key) else {
            return;
        };
        let due = connection.next_progress.is_some_and(|due| due <= self.now);
        if !due || connection.call.is_none() {
            return self.connections.put(key, connection);
        }
        let mut out = std::mem::take(&mut self.out);
        self.tell_progress(key, &mut connection);
        connection.session.progress(&mut out);
        let next = self.now + PROGRESS_EVERY;
        connection.next_progress = Some(next);
        self.timers.push((next, key, 0, Kind::Progress));
        match self.flush(key, &mut connection, out, Flow::Open) {
            Flow::Open => self.connections.put(key, connection),
            Flow::End => self.cut(key, connection),
        }
    }
}
