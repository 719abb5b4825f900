//! What an interpreter shows on the board: before the policy runs, whose callback it is; afterwards what was counted, and which suspended
//! callback's MTA waits longest.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use scoreboard::records::Phase;

use super::connection::Connection;
use super::interpreter::{Loop, board_phase};
use super::ledger::{Counted, Hand};
use super::work::Work;
use crate::sys::clock;

impl Loop {
    /// A callback begins, or goes on. If it kills the process, the board says what it was.
    pub(super) fn enter(&mut self, key: u64, connection: &mut Connection, until: u64) {
        let phase = board_phase(connection.session.phase());
        let news = !connection.timing.goes_on(phase);
        if news || self.in_hand != Some(key) {
            let now_ns = clock::boottime_ns();
            connection.timing.enter(phase, now_ns, &mut self.meter);
            self.in_hand = Some(key);
            let hand = Hand {
                work: self.work_of(connection),
                running: true,
                suspended: self.suspended.len() as u64,
            };
            self.publish(hand, now_ns);
        }
        self.intake.ledger.busy_until(self.index, until);
    }

    /// Nothing of this connection runs any more; `answered` says whether its MTA got what it waits for.
    pub(super) fn leave(&mut self, key: u64, connection: &mut Connection, answered: bool) {
        let idle = self.in_hand.is_none() && self.tally == self.published;
        // What a read before this one began may be answered now, without a callback.
        let owed = answered && connection.timing.is_begun();
        if idle && self.meter.is_empty() && !owed {
            return;
        }
        let now_ns = clock::boottime_ns();
        if connection.call.is_none() {
            if answered {
                let limit = self.mta_limit(connection.timing.phase());
                connection.timing.answered(now_ns, limit, &mut self.meter);
            } else {
                connection.timing.pause(now_ns);
            }
        }
        let hand = self.rest(Some((key, connection)), now_ns);
        self.publish(hand, now_ns);
    }

    /// What is to be shown while no callback runs. The connection that is being worked on is not in its place.
    pub(super) fn rest(&mut self, current: Option<(u64, &Connection)>, now_ns: u64) -> Hand {
        self.in_hand = None;
        let waiting = self.suspended.first().and_then(|(_, key)| match current {
            Some((current, connection)) if current == *key => Some(connection),
            _ => self.connections.get(*key),
        });
        let work = match (waiting, current) {
            (Some(waiting), _) => self.work_of(waiting),
            // Between two packets of a message: who dies now takes it along.
            (None, Some((_, connection))) if connection.session.in_message() => {
                Work::between_packets(&connection.session.facts().borrow(), now_ns)
            }
            (None, _) => Work::idle(now_ns),
        };
        Hand {
            work,
            running: false,
            suspended: self.suspended.len() as u64,
        }
    }

    fn work_of(&self, connection: &Connection) -> Work {
        let facts = connection.session.facts().borrow();
        let timing = &connection.timing;
        Work::of(
            &facts,
            connection.session.candidate(),
            timing.phase(),
            timing.begun_ns(),
            self.intake.milter.redact,
        )
    }

    fn publish(&mut self, hand: Hand, now_ns: u64) {
        let counted = Counted {
            tally: &self.tally,
            published: &mut self.published,
            meter: &mut self.meter,
        };
        self.intake
            .ledger
            .publish(self.index, counted, hand, now_ns);
    }

    /// A callback of this connection is suspended.
    pub(super) fn suspends(&mut self, key: u64, connection: &Connection) {
        self.suspended.insert((connection.timing.begun_ns(), key));
    }

    /// It goes on, or is given up.
    pub(super) fn wakes(&mut self, key: u64, connection: &Connection) {
        self.suspended.remove(&(connection.timing.begun_ns(), key));
    }

    /// A message was processed or aborted: notes how long it took.
    pub(super) fn note_message(&mut self, since: Option<Instant>) -> Duration {
        let took = Instant::now().saturating_duration_since(since.unwrap_or(self.now));
        self.meter.message(self.tally.processed(), took);
        took
    }

    /// What was begun will not be answered: its message was aborted, or its client has gone.
    pub(super) fn give_up_phase(&mut self, connection: &mut Connection) {
        if connection.timing.is_begun() {
            let now_ns = clock::boottime_ns();
            connection.timing.end(now_ns, &mut self.meter);
        }
    }

    /// A progress packet goes to an MTA whose callback is suspended.
    pub(super) fn tell_progress(&mut self, key: u64, connection: &mut Connection) {
        self.wakes(key, connection);
        connection.timing.told(clock::boottime_ns());
        self.suspends(key, connection);
        // To be published with what leaves now.
        self.in_hand = Some(key);
    }

    /// How long the MTA waits for an answer at this phase (`mta_timeouts`).
    fn mta_limit(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Header | Phase::Body | Phase::Eom => self.intake.milter.mta_content_timeout,
            _ => self.intake.milter.mta_command_timeout,
        }
    }
}
