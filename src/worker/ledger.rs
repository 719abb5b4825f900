//! What a child says of itself: its record of the board and its control words, one writer for all its interpreters.
//!
//! Interpreters count privately and hand over what has grown since; the lock is private to the process, so that a kill -9 leaves nothing locked.
#![forbid(unsafe_code)]

use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use scoreboard::ChildPage;
use scoreboard::records::{self, ChildRecord, Counters, Phase};

use crate::session::Tally;
use crate::sys::control_page::{ControlPage, Word};

/// The record and the page that carry it.
struct Board {
    record: ChildRecord,
    page: ChildPage,
    completed_marked: u64,
}

/// A child's own books.
pub(super) struct Ledger {
    board: Mutex<Board>,
    page: ControlPage,
}

/// What the work in hand is, for the board.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work<'a> {
    pub(super) phase: Phase,
    pub(super) queue_id: Option<&'a [u8]>,
    pub(super) now_ns: u64,
}

impl Ledger {
    pub(super) fn new(page: ChildPage, control: ControlPage, incarnation: u64) -> Ledger {
        let mut record: ChildRecord = bytemuck::Zeroable::zeroed();
        record.incarnation = incarnation;
        Ledger {
            board: Mutex::new(Board {
                record,
                page,
                completed_marked: 0,
            }),
            page: control,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        // A thread that panicked while it counted leaves numbers that are right or one short: better than none.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what an interpreter counted since its last call, and the work in hand.
    pub(super) fn publish(&self, tally: &Tally, published: &mut Tally, work: Option<Work<'_>>) {
        let mut board = self.lock();
        add(&mut board.record, tally, published);
        if let Some(work) = work {
            set_work(&mut board.record, work);
        }
        let processed = board.record.counters.messages_processed();
        self.page.store(Word::Messages, processed);
        let Board { record, page, .. } = &mut *board;
        page.publish(record);
    }

    /// A connection was read from the control socket.
    pub(super) fn took(&self, queued: u64) {
        let mut board = self.lock();
        board.record.connections_taken += 1;
        board.record.queue = queued;
        self.page.store(Word::Taken, board.record.connections_taken);
        let Board { record, page, .. } = &mut *board;
        page.publish(record);
    }

    /// The queue changed.
    pub(super) fn queued(&self, queued: u64) {
        let mut board = self.lock();
        board.record.queue = queued;
        let Board { record, page, .. } = &mut *board;
        page.publish(record);
    }

    /// A connection is finished. The control word goes up first, so that what the master sees is never behind the board.
    pub(super) fn finished(
        &self,
        tally: &Tally,
        published: &mut Tally,
        work: Work<'_>,
        marked: bool,
    ) {
        let mut board = self.lock();
        add(&mut board.record, tally, published);
        set_work(&mut board.record, work);
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
        let Board { record, page, .. } = &mut *board;
        page.publish(record);
    }

    /// Interpreters came or went.
    pub(super) fn interpreters(&self, now: u64, sequence: u64) {
        let mut board = self.lock();
        board.record.interpreters = now;
        board.record.interpreter_sequence = sequence;
        let Board { record, page, .. } = &mut *board;
        page.publish(record);
    }

    /// An interpreter enters the policy's code (deadline, BOOTTIME ns) or is back (0).
    pub(super) fn busy_until(&self, interpreter: usize, deadline_ns: u64) {
        self.page.set_busy_until(interpreter, deadline_ns);
    }
}

fn set_work(record: &mut ChildRecord, work: Work<'_>) {
    if record.phase != work.phase.word() || work.queue_id != Some(records::text(&record.queue_id)) {
        record.phase_since_ns = work.now_ns;
    }
    record.phase = work.phase.word();
    record.published_ns = work.now_ns;
    records::put_text(&mut record.queue_id, work.queue_id.unwrap_or(b""));
}

/// Adds what has grown.
fn add(record: &mut ChildRecord, tally: &Tally, published: &mut Tally) {
    let counters: &mut Counters = &mut record.counters;
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
