//! How a connection ends: its last callbacks, its books, its descriptor, in this order.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::connection::{Connection, Interest};
use super::interpreter::{Loop, report};
use super::ledger::Counted;
use super::word;
use crate::policy::Progress;
use crate::session::Close;
use crate::sys::{clock, pass_fd, socket};

/// A packet that was begun must end within this: an MTA sends a packet in one go.
const PARTIAL_LIMIT: Duration = Duration::from_secs(30);
/// Bytes that answer an MTA must be taken within this.
const WRITE_LIMIT: Duration = Duration::from_secs(60);
/// How long the last callbacks of a connection that is cut may take.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

impl Loop {
    /// The MTA has gone while a callback is suspended.
    pub(super) fn cut(&mut self, key: u64, mut connection: Box<Connection>) {
        if let Some(call) = connection.call.take() {
            self.wakes(key, &connection);
            connection
                .engine
                .cancel(&mut connection.ctx, call.suspended);
        }
        self.end(key, connection);
    }

    /// Ends a connection: its last callbacks, its books, its descriptor, in this order.
    pub(super) fn end(&mut self, key: u64, mut connection: Box<Connection>) {
        connection.closing = true;
        connection.group = None;
        let limit = if self.intake.is_aborting() {
            ABORT_LIMIT
        } else {
            self.intake.milter.callback_timeout
        };
        loop {
            let in_message = connection.session.in_message();
            let event = connection.session.end(&mut self.tally);
            if in_message {
                self.message_over(&mut connection);
            }
            let Some(event) = event else {
                break;
            };
            let deadline = Instant::now() + limit;
            // Both from a fresh clock: this turn may have begun long ago, and the master kills whoever is past `until`.
            let until = clock::boottime_ns()
                .saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
            self.enter(key, &mut connection, until);
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
        let now_ns = clock::boottime_ns();
        connection.timing.end(now_ns, &mut self.meter);
        let hand = self.rest(None, now_ns);
        let counted = Counted {
            tally: &self.tally,
            published: &mut self.published,
            meter: &mut self.meter,
        };
        self.intake
            .ledger
            .finished(self.index, counted, hand, now_ns, connection.marked);
        self.connections.release(key);
        // Closed only now: whoever sees the end of the connection finds it on the board.
        drop(connection);
        // A full queue already wakes the master.
        let _ = pass_fd::send(&self.intake.control, &[word::FINISHED], None);
        if let Some(next) = self.intake.freed(self.index) {
            self.admit(next);
        }
    }

    pub(super) fn explain(&self, connection: &Connection, close: &Close) {
        match close {
            Close::Quit => {}
            Close::Broken(why) => {
                let facts = connection.session.facts().borrow();
                let client = match &facts.client {
                    Some(_) if self.intake.milter.redact => "redacted".to_owned(),
                    Some(client) => client.host.escape_ascii().to_string(),
                    None => "-".to_owned(),
                };
                log::warn!(
                    "a connection of MTA {} is closed, for it is not the milter protocol: {why} (SMTP client {client})",
                    socket::peer(&connection.socket)
                );
            }
        }
    }

    /// Ends the connections whose MTA is silent for too long.
    pub(super) fn end_late(&mut self) {
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
                    "a connection of MTA {} is closed: it was silent for {} s {}",
                    socket::peer(&connection.socket),
                    now.saturating_duration_since(connection.last).as_secs(),
                    if !connection.unsent.is_empty() {
                        "and did not take its answer"
                    } else if connection.rest.is_empty() {
                        "(timeout)"
                    } else {
                        "in the middle of a packet"
                    }
                );
                self.cut(key, connection);
            }
        }
    }

    /// Cuts everything.
    pub(super) fn abort(&mut self) {
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
