//! The master's side of the board: shadows of its records, published whole. Never read back to steer.
#![forbid(unsafe_code)]

use bytemuck::Zeroable;
use scoreboard::records::{
    self, ChildRecord, Counters, Death, FLAG_NO_POOL, GlobalRecord, MasterRecord, MilterState,
    NotAccepting, SlotState,
};
use scoreboard::{Board, EventKind, PhaseHistograms, history};

use super::diary::Busy;
use crate::config::MilterConfig;
use crate::sys::clock;
use crate::sys::process::Ended;

/// The board with its shadows.
pub(super) struct Books {
    pub(super) board: Board,
    pub(super) global: GlobalRecord,
    pub(super) slots: Vec<MasterRecord>,
    /// What earlier processes of each slot observed.
    histograms: Vec<PhaseHistograms>,
    pub(super) busy: Busy,
}

/// What a death came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Funeral {
    /// Connections that were being served.
    pub(super) lost_connections: u64,
    /// Messages that were in progress.
    pub(super) lost_messages: u64,
    /// The record as it was last published.
    pub(super) last: ChildRecord,
}

impl Books {
    pub(super) fn new(board: Board, milter: &MilterConfig) -> Books {
        let mut global = GlobalRecord::zeroed();
        global.state = MilterState::Starting.word();
        global.generation = 1;
        global.not_accepting = NotAccepting::NoChild.word();
        global.slots_max = u64::from(milter.most_slots());
        global.flags = if milter.without_pool() {
            FLAG_NO_POOL
        } else {
            0
        };
        global.interpreters_max = u64::from(milter.interpreters);
        global.connections_max = milter.child_capacity().map_or(0, u64::from);
        global.last_slot = u64::MAX;
        global.children_max = u64::from(milter.most_children());
        global.children_min = u64::from(milter.min_pooled_procs);
        global.command_timeout_ns = nanoseconds(milter.mta_command_timeout);
        global.content_timeout_ns = nanoseconds(milter.mta_content_timeout);
        global.backlog = history::UNKNOWN;
        global.redacted = u64::from(milter.redact);
        global.concurrency_limit = milter.concurrency_limit.map_or(0, u64::from);
        records::put_text(&mut global.port, milter.port.to_string().as_bytes());
        records::put_text(&mut global.version, env!("CARGO_PKG_VERSION").as_bytes());
        let slots = vec![MasterRecord::zeroed(); milter.most_slots() as usize];
        let mut books = Books {
            board,
            global,
            histograms: vec![PhaseHistograms::default(); slots.len()],
            slots,
            busy: Busy::new(),
        };
        for slot in 0..milter.most_slots() {
            books.slots[slot as usize].incarnation = 1;
        }
        books.publish_global();
        books
    }

    /// Publishes the global record; its heartbeat is now.
    pub(super) fn publish_global(&mut self) {
        self.global.heartbeat_ns = clock::boottime_ns();
        self.board.publish_global(&self.global);
    }

    /// Publishes that so many connections are in the master's hands. To be called before a slot says that it took one on or gave one
    /// back: whoever looks between the two publications then finds the books off by no more than what is said to be in hand.
    pub(super) fn publish_waiting(&mut self, connections: usize) {
        self.global.waiting = connections as u64;
        self.publish_global();
    }

    /// Publishes the record of a slot.
    pub(super) fn publish_slot(&mut self, slot: u32) {
        self.board.publish_master(slot, &self.slots[slot as usize]);
    }

    /// Something went wrong that the operator should see.
    pub(super) fn trouble(&mut self, text: &str) {
        records::put_text(&mut self.global.trouble, text.as_bytes());
        self.global.trouble_at_ns = clock::boottime_ns();
    }

    /// A process is gone for good (waitpid returned it): its last record is folded into the slot's, and the slot is empty. `completed` is what the
    /// control word says, already clamped.
    pub(super) fn bury(&mut self, slot: u32, completed: u64, ended: Ended, clean: bool) -> Funeral {
        let end = match ended {
            Ended::Exited(status) => records::encode_end(Some(status), None),
            Ended::Signalled(signal) => records::encode_end(None, Some(signal)),
        };
        self.slot_event(EventKind::Death, slot, end);
        let record = &mut self.slots[slot as usize];
        let mut last = self.board.read_child(slot);
        if last.incarnation == record.incarnation {
            // Written to the spare copy, which counts from the publication below on.
            let before = &mut self.histograms[slot as usize];
            *before = before.plus(&self.board.read_child_histograms(slot));
            record.histogram_copy ^= 1;
            self.board
                .write_master_histograms(slot, record.histogram_copy, before);
        } else {
            // It never published, or somebody else wrote there.
            last = ChildRecord::zeroed();
        }
        let taken_on = record.dispatched.saturating_sub(record.returned);
        let completed = completed.max(last.counters.connections_completed.min(taken_on));
        let lost_connections = taken_on.saturating_sub(completed);
        let counters = believable(&last.counters, completed);
        let lost_messages = counters.messages_in_progress();
        let now = clock::boottime_ns();
        if !clean {
            let mut death = Death::zeroed();
            death.at_ns = now;
            death.slot = u64::from(slot);
            death.pid = record.pid;
            death.end = end;
            death.phase = last.phase;
            death.phase_since_ns = last.phase_since_ns;
            death.forked_at_ns = record.forked_at_ns;
            death.lost_connections = lost_connections;
            records::put_text(&mut death.queue_id, records::text(&last.queue_id));
            self.board.append_death(death);
            record.crashes += 1;
        }
        record.state = SlotState::Empty.word();
        record.pid = 0;
        record.start_time = 0;
        record.vsz_bytes = 0;
        record.rss_bytes = 0;
        record.dispatched_before += record.dispatched;
        record.returned_before += record.returned;
        record.dispatched = 0;
        record.returned = 0;
        record.lost_connections += lost_connections;
        record.lost_messages = record.lost_messages.saturating_add(lost_messages);
        record.base = record.base.plus(&counters);
        record.late_answers = record.late_answers.saturating_add(last.late_answers);
        record.last_end = end;
        record.retire_reason = 0;
        record.retiring_since_ns = 0;
        record.peak_requests = 0;
        // The dead process's record counts no more from this very publication on.
        record.incarnation += 1;
        self.publish_slot(slot);
        self.global.slots_in_use = self.global.slots_in_use.saturating_sub(1);
        match (ended, clean) {
            (_, true) => self.global.deaths_clean += 1,
            (Ended::Exited(_), false) => self.global.deaths_error += 1,
            (Ended::Signalled(_), false) => self.global.deaths_signal += 1,
        }
        Funeral {
            lost_connections,
            lost_messages,
            last,
        }
    }
}

/// What a dead child counted, as far as it can be true: it began every message that it ended, and finished no connection that it was not handed.
fn believable(counters: &Counters, completed: u64) -> Counters {
    let mut kept = *counters;
    kept.connections_completed = completed;
    let ended = kept
        .messages_processed()
        .saturating_add(kept.messages_aborted);
    kept.messages_started = kept.messages_started.max(ended);
    kept.overload_answered = kept.overload_answered.min(completed);
    kept
}

/// A duration as nanoseconds of the board.
pub(super) fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
