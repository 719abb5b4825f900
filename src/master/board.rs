//! The master's side of the board: shadows of its records, published whole. Never read back to steer.
#![forbid(unsafe_code)]

use std::io;
use std::time::{Duration, Instant};

use bytemuck::Zeroable;
use scoreboard::records::{
    self, ChildRecord, Counters, Death, FLAG_NO_POOL, GlobalRecord, MasterRecord, MilterState,
    NotAccepting, SlotState,
};
use scoreboard::{Board, EventKind, PhaseHistograms, Relay, history};

use super::diary::Busy;
use super::estate::Boards;
use super::handover::{self, State};
use crate::config::MilterConfig;
use crate::run_dir::Paths;
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
    /// The board of before a restart, while children write to it.
    former: Option<Former>,
}

/// A board that the next program could not go on with: too small, or of another layout.
pub(super) struct Former {
    pub(super) board: Board,
    /// The slots whose children write to it.
    pub(super) slots: Vec<(u32, Relay)>,
    since: Instant,
}

/// How long a board that was replaced stays as it was: who opened it just before reads what was true then.
const LAST_LOOK: Duration = Duration::from_secs(1);

impl Former {
    /// Says on it that it is no more kept, for whoever has it open.
    fn close(&mut self, global: &GlobalRecord) {
        if self.board.is_of_this_layout() {
            let mut last = *global;
            last.state = MilterState::Stopped.word();
            self.board.publish_global(&last);
        }
    }
}

/// How a child left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passing {
    /// Connections that it finished, as the master believes it.
    pub(super) completed: u64,
    /// As it was told to.
    pub(super) clean: bool,
    /// It was caught in a lie: what it counted counts for nothing.
    pub(super) damaged: bool,
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
        global.last_slot = u64::MAX;
        global.backlog = history::UNKNOWN;
        configure(&mut global, milter);
        let mut books = Books {
            board,
            global,
            histograms: Vec::new(),
            slots: Vec::new(),
            busy: Busy::new(),
            former: None,
        };
        books.make_room(milter.most_slots() as usize);
        books.publish_global();
        books
    }

    /// The books of the program before, for a new configuration. Children may write to a former board; then what is known is published on the
    /// one that goes on, which is new or was before.
    pub(super) fn take_up(boards: Boards, state: &State, milter: &MilterConfig) -> Books {
        let Boards {
            board,
            former,
            on_former,
            ..
        } = boards;
        let mut global: GlobalRecord = handover::record(&state.global);
        configure(&mut global, milter);
        let mut books = Books {
            board,
            global,
            histograms: Vec::new(),
            slots: Vec::new(),
            busy: Busy::since(state.busy_slots, state.busy_since_ns),
            former: None,
        };
        for slot in &state.slots {
            let mut histograms = PhaseHistograms::default();
            for (to, word) in histograms.words_mut().iter_mut().zip(&slot.histograms) {
                *to = *word;
            }
            books.histograms.push(histograms);
            books.slots.push(handover::record(&slot.record));
        }
        if let Some(board) = former {
            books.follow(board, &on_former);
        }
        books
    }

    /// The children of these slots write to a board of before.
    fn follow(&mut self, former: Board, slots: &[u32]) {
        let relays = slots
            .iter()
            .filter_map(|slot| Some((*slot, self.slots.get(*slot as usize)?.incarnation)))
            .map(|(slot, incarnation)| {
                let relay = self.board.begin_relay(slot, incarnation, &former);
                (slot, relay)
            })
            .collect();
        self.former = Some(Former {
            board: former,
            slots: relays,
            since: Instant::now(),
        });
        let used = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        for slot in 0..used {
            let (record, histograms) =
                (&self.slots[slot as usize], &self.histograms[slot as usize]);
            self.board
                .write_master_histograms(slot, record.histogram_copy, histograms);
            self.publish_slot(slot);
        }
        self.publish_global();
    }

    /// A new board gets its name: whoever opens it sees what is known, for that is published.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub(super) fn show(&mut self, paths: &Paths) -> io::Result<()> {
        let path = paths.board();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.board.rename(&name)
    }

    /// The board of before says that it is over, and is let go when no child writes to it any more.
    pub(super) fn part_with_former(&mut self, now: Instant) {
        if let Some(former) = &mut self.former
            && now.saturating_duration_since(former.since) >= LAST_LOOK
        {
            former.close(&self.global);
            if former.slots.is_empty() {
                self.former = None;
            }
        }
    }

    /// Shows what children write that know only the board of before.
    pub(super) fn relay(&mut self) {
        if let Some(former) = &mut self.former {
            for (_, relay) in &mut former.slots {
                self.board.relay(relay, &former.board);
            }
        }
    }

    /// The board of before, and the slots whose children write to it, if there are any.
    pub(super) fn former(&self) -> Option<&Former> {
        self.former.as_ref().filter(|it| !it.slots.is_empty())
    }

    /// In a forked child: the master's boards are none of its business.
    pub(super) fn leave(self) {
        self.board.leave();
        if let Some(former) = self.former {
            former.board.leave();
        }
    }

    /// The board to which the child in a slot writes.
    pub(super) fn board_of(&self, slot: u32) -> &Board {
        match &self.former {
            Some(former) if former.slots.iter().any(|(it, _)| *it == slot) => &former.board,
            _ => &self.board,
        }
    }

    /// The child in a slot writes no more.
    fn forget(&mut self, slot: u32) {
        if let Some(former) = &mut self.former {
            former.slots.retain(|(it, _)| *it != slot);
        }
    }

    /// Records of slots that were never used, up to so many in all.
    pub(super) fn make_room(&mut self, slots: usize) {
        let fresh = MasterRecord {
            incarnation: 1,
            ..MasterRecord::zeroed()
        };
        let slots = slots.max(self.slots.len());
        self.slots.resize(slots, fresh);
        self.histograms.resize(slots, PhaseHistograms::default());
    }

    /// What earlier processes of a slot observed.
    pub(super) fn histograms_words(&self, slot: usize) -> Vec<u64> {
        self.histograms
            .get(slot)
            .map_or_else(Vec::new, |it| it.words().to_vec())
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

    /// Writes again what only the master writes, in case a child without a sandbox scribbled on it.
    pub(super) fn repair(&mut self) {
        self.board.repair_header();
        let used = u32::try_from(self.global.slots_high_water).unwrap_or(u32::MAX);
        for (slot, (record, histograms)) in (0..used).zip(self.slots.iter().zip(&self.histograms)) {
            self.board
                .write_master_histograms(slot, record.histogram_copy, histograms);
            self.board.publish_master(slot, record);
        }
    }

    /// Something went wrong that the operator should see.
    pub(super) fn trouble(&mut self, text: &str) {
        records::put_text(&mut self.global.trouble, text.as_bytes());
        self.global.trouble_at_ns = clock::boottime_ns();
    }

    /// A process is gone for good (waitpid returned it): its last record is folded into the slot's, and the slot is empty. A child says first
    /// on its control page and then on its page of the board that a connection is finished, so that what the master read there last is
    /// never behind.
    pub(super) fn bury(&mut self, slot: u32, passing: Passing, ended: Ended) -> Funeral {
        let Passing {
            completed,
            clean,
            damaged,
        } = passing;
        let end = match ended {
            Ended::Exited(status) => records::encode_end(Some(status), None),
            Ended::Signalled(signal) => records::encode_end(None, Some(signal)),
        };
        self.slot_event(EventKind::Death, slot, end);
        let mut last = self.board_of(slot).read_child(slot);
        let observed = self.board_of(slot).read_child_histograms(slot);
        self.forget(slot);
        let record = &mut self.slots[slot as usize];
        if last.incarnation == record.incarnation && !damaged {
            // Written to the spare copy, which counts from the publication below on.
            let before = &mut self.histograms[slot as usize];
            *before = before.plus(&observed);
            record.histogram_copy ^= 1;
            self.board
                .write_master_histograms(slot, record.histogram_copy, before);
        } else {
            // It never published, or somebody else wrote there, or it lied, and why should it have told the truth here.
            last = ChildRecord::zeroed();
        }
        let taken_on = record.dispatched.saturating_sub(record.returned);
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

/// What the configuration says of the milter.
fn configure(global: &mut GlobalRecord, milter: &MilterConfig) {
    global.slots_max = u64::from(milter.most_slots());
    global.flags = if milter.without_pool() {
        FLAG_NO_POOL
    } else {
        0
    };
    global.interpreters_max = u64::from(milter.interpreters);
    global.connections_max = milter.child_capacity().map_or(0, u64::from);
    global.children_max = u64::from(milter.most_children());
    global.children_min = u64::from(milter.min_pooled_procs);
    global.command_timeout_ns = nanoseconds(milter.mta_command_timeout);
    global.content_timeout_ns = nanoseconds(milter.mta_content_timeout);
    global.redacted = u64::from(milter.redact);
    global.concurrency_limit = milter.concurrency_limit.map_or(0, u64::from);
    records::put_text(&mut global.port, milter.port.to_string().as_bytes());
    records::put_text(&mut global.version, env!("CARGO_PKG_VERSION").as_bytes());
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
