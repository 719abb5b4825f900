//! What a child says of itself: its record of the board and its control words, one writer for all its interpreters.
//!
//! Interpreters count privately and hand over what has grown since; the lock is private to the process, so that a kill -9 leaves nothing locked.
#![forbid(unsafe_code)]

use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use scoreboard::records::{ChildRecord, Counters};
use scoreboard::{ChildPage, histogram};

use super::meter::Meter;
use super::work::Work;
use crate::session::Tally;
use crate::sys::control_page::{ControlPage, Word};

/// The record and the page that carry it.
struct Board {
    record: ChildRecord,
    page: ChildPage,
    completed_marked: u64,
    probes_heard: u64,
    /// What each interpreter has in hand.
    hands: Vec<Hand>,
}

/// What one interpreter has in hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hand {
    pub(super) work: Work,
    /// The policy's code is running.
    pub(super) running: bool,
    /// Callbacks that wait.
    pub(super) suspended: u64,
}

/// What an interpreter counted and measured; what of it is published is marked as such.
pub(super) struct Counted<'a> {
    pub(super) tally: &'a Tally,
    pub(super) published: &'a mut Tally,
    pub(super) meter: &'a mut Meter,
}

/// A child's own books.
pub(super) struct Ledger {
    board: Mutex<Board>,
    page: ControlPage,
}

impl Ledger {
    pub(super) fn new(
        page: ChildPage,
        control: ControlPage,
        incarnation: u64,
        interpreters: usize,
    ) -> Ledger {
        let mut record: ChildRecord = bytemuck::Zeroable::zeroed();
        record.incarnation = incarnation;
        Ledger {
            board: Mutex::new(Board {
                record,
                page,
                completed_marked: 0,
                probes_heard: 0,
                hands: vec![
                    Hand {
                        work: Work::idle(0),
                        running: false,
                        suspended: 0,
                    };
                    interpreters
                ],
            }),
            page: control,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        // A thread that panicked while it counted leaves numbers that are right or one short: better than none.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what an interpreter counted since its last call, and what it has in hand.
    pub(super) fn publish(
        &self,
        interpreter: usize,
        counted: Counted<'_>,
        hand: Hand,
        now_ns: u64,
    ) {
        let mut board = self.lock();
        board.add(counted);
        board.hold(interpreter, hand, now_ns);
        let processed = board.record.counters.messages_processed();
        self.page.store(Word::Messages, processed);
        self.page.store(Word::LinesLost, crate::log::lost_lines());
        board.publish();
    }

    /// A connection was read from the control socket.
    pub(super) fn took(&self) {
        let mut board = self.lock();
        board.record.connections_taken += 1;
        self.page.store(Word::Taken, board.record.connections_taken);
        board.publish();
    }

    /// The master asked whether its orders are read.
    pub(super) fn heard(&self) {
        let mut board = self.lock();
        board.probes_heard += 1;
        self.page.store(Word::Heard, board.probes_heard);
    }

    /// The queue changed; the caller holds its lock, so that an older length never follows a newer one.
    pub(super) fn queued(&self, queued: u64) {
        let mut board = self.lock();
        board.record.queue = queued;
        board.publish();
    }

    /// A connection is finished.
    pub(super) fn finished(
        &self,
        interpreter: usize,
        counted: Counted<'_>,
        hand: Hand,
        now_ns: u64,
        marked: bool,
    ) {
        let mut board = self.lock();
        board.add(counted);
        board.hold(interpreter, hand, now_ns);
        self.complete(board, marked);
    }

    /// A connection is finished that no interpreter has served.
    pub(super) fn unserved(&self, marked: bool) {
        self.complete(self.lock(), marked);
    }

    /// The control word goes up first, so that what the master sees is never behind the board.
    fn complete(&self, mut board: MutexGuard<'_, Board>, marked: bool) {
        board.record.counters.connections_completed += 1;
        let processed = board.record.counters.messages_processed();
        self.page.store(Word::Messages, processed);
        if marked {
            board.completed_marked += 1;
            self.page
                .store(Word::CompletedMarked, board.completed_marked);
        }
        self.page
            .store(Word::Completed, board.record.counters.connections_completed);
        // SeqCst: pairs with the master's in Master::refresh. A wake-up byte that the full socket refuses orders nothing by itself;
        // without both fences the master could drain the socket, miss this word, and sleep (loom: wake-up).
        fence(Ordering::SeqCst);
        board.publish();
    }

    /// Interpreters came or went.
    pub(super) fn interpreters(&self, now: u64, sequence: u64) {
        let mut board = self.lock();
        board.record.interpreters = now;
        board.record.interpreter_sequence = sequence;
        board.publish();
    }

    /// An interpreter enters the policy's code (deadline, BOOTTIME ns) or is back (0).
    pub(super) fn busy_until(&self, interpreter: usize, deadline_ns: u64) {
        self.page.set_busy_until(interpreter, deadline_ns);
    }
}

impl Board {
    fn publish(&mut self) {
        self.page.publish(&self.record);
    }

    /// Of several interpreters one is shown whose code runs, for it may be what kills the process; of several the one whose MTA waits longest.
    fn hold(&mut self, interpreter: usize, hand: Hand, now_ns: u64) {
        if let Some(place) = self.hands.get_mut(interpreter) {
            *place = hand;
        }
        let owed = self.hands.iter().filter(|hand| !hand.work.is_idle());
        let first = owed.min_by_key(|hand| (!hand.running, hand.work.since_ns()));
        first.unwrap_or(&hand).work.show(&mut self.record);
        self.record.suspended = self.hands.iter().map(|hand| hand.suspended).sum();
        self.record.published_ns = now_ns;
    }

    /// Adds what has grown.
    fn add(&mut self, counted: Counted<'_>) {
        let Counted {
            tally,
            published,
            meter,
        } = counted;
        let record = &mut self.record;
        let counters: &mut Counters = &mut record.counters;
        for (phase, ns) in &meter.phases {
            if let Some(sum) = usize::try_from(phase.word())
                .ok()
                .and_then(|row| counters.phase_ns.get_mut(row))
            {
                *sum += ns;
            }
            self.page.observe(*phase, *ns);
        }
        for ns in &meter.messages {
            counters.message_ns = counters.message_ns.saturating_add(*ns);
            counters.message_histogram[histogram::message_bucket(*ns)] += 1;
        }
        record.late_answers += meter.late;
        meter.clear();
        if tally == published {
            return;
        }
        counters.messages_started += tally.started - published.started;
        counters.messages_aborted += tally.aborted - published.aborted;
        for (index, count) in counters.verdicts.iter_mut().enumerate() {
            *count += tally.verdicts[index] - published.verdicts[index];
            if tally.verdicts[index] != published.verdicts[index] {
                record.last_verdict = 1 + index as u64;
            }
        }
        for (index, count) in counters.sessions.iter_mut().enumerate() {
            *count += tally.sessions[index] - published.sessions[index];
        }
        counters.recipients_refused += tally.recipients_refused - published.recipients_refused;
        counters.overload_answered += tally.overload_answered - published.overload_answered;
        *published = tally.clone();
    }
}
