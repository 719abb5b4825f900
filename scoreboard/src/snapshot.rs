//! What a reader got, and everything that follows from it. Nothing here is stored on the board: totals are folds over the slots of one
//! snapshot, so that a summary and its rows can never disagree, and no difference is ever shown wrapped around.
#![forbid(unsafe_code)]

use std::time::Duration;

use bytemuck::Zeroable;

use crate::books::{Books, SlotBooks};
use crate::collect::Cut;
use crate::histogram::PhaseHistograms;
use crate::layout::Header;
use crate::liveness::{BoardVerdict, HUNG_AFTER, Liveness, Lock};
use crate::records::{
    ChildRecord, Counters, Death, GlobalRecord, MasterRecord, MilterState, Phase, SlotState, text,
};

/// The board at one instant ([`Cut::Atomic`]), or each slot at one of its own; of a slot everything is kept, or a [`Brief`](crate::Brief).
#[derive(Clone, Debug)]
pub struct Snapshot<T = Slot> {
    /// The static header.
    pub header: Header,
    /// The master's record of the milter.
    pub global: GlobalRecord,
    /// Whether it is proven whole.
    pub global_consistent: bool,
    /// Slots ever used, in order.
    pub slots: Vec<T>,
    /// The last deaths, the latest first; none beside [`Brief`](crate::Brief)s.
    pub deaths: Vec<Death>,
    /// Whether the writer lives.
    pub liveness: Liveness,
    /// BOOTTIME ns after reading.
    pub now_ns: u64,
    /// REALTIME ns of the same instant.
    pub wall_ns: u64,
    /// What the snapshot is worth as a whole.
    pub cut: Cut,
    /// Tries lost to busy writers.
    pub retries: u32,
}

/// `acc=process/slot/processes`: connections taken on, those in progress included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acc {
    /// By the process in the slot; 0 when it is empty.
    pub process: u64,
    /// By all processes that the slot has had.
    pub slot: u64,
    /// Number of these.
    pub processes: u64,
}

/// A slot of the pool.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Its number, from 0.
    pub index: u32,
    /// What the master says.
    pub master: MasterRecord,
    /// What the process in the slot says; `None` when there is none, or it has not spoken, or an older one spoke last.
    pub child: Option<ChildRecord>,
    /// Whether both records are proven whole, and of one instant.
    pub consistent: bool,
    /// Durations by phase over all processes of the slot; `None` when they were not asked for, or the board has none.
    pub histograms: Option<Box<PhaseHistograms>>,
}

impl Slot {
    /// A slot that is about to be read.
    pub(crate) fn unread(index: u32) -> Slot {
        Slot {
            index,
            master: MasterRecord::zeroed(),
            child: Some(ChildRecord::zeroed()),
            consistent: false,
            histograms: None,
        }
    }

    /// After reading: drops a child's record that does not count.
    pub(crate) fn settle(&mut self) {
        if !self.child_counts() {
            self.child = None;
        }
    }

    /// Whether the child's record is of the process that the master says is in the slot.
    pub(crate) fn child_counts(&self) -> bool {
        let occupied = !self.is_empty() && self.master.incarnation != 0;
        let speaks = |child: &ChildRecord| child.incarnation == self.master.incarnation;
        occupied && self.child.as_ref().is_some_and(speaks)
    }

    /// What the master says is in it.
    pub fn state(&self) -> SlotState {
        SlotState::from_word(self.master.state)
    }

    /// Whether no process is in it.
    pub fn is_empty(&self) -> bool {
        matches!(self.state(), SlotState::Free | SlotState::Empty)
    }

    /// Connections taken on. All three numbers come from the master's record, hence never depend on a child's word.
    pub fn acc(&self) -> Acc {
        let process = if self.is_empty() {
            0
        } else {
            self.master.dispatched.saturating_sub(self.master.returned)
        };
        let before = self
            .master
            .dispatched_before
            .saturating_sub(self.master.returned_before);
        Acc {
            process,
            slot: process.saturating_add(before),
            processes: self.master.processes,
        }
    }

    /// Connections that the process in the slot has finished: never more than it was given, whatever it says.
    pub fn completed(&self) -> u64 {
        self.child.as_ref().map_or(0, |child| {
            child.counters.connections_completed.min(self.acc().process)
        })
    }

    /// Connections in progress.
    pub fn requests(&self) -> u64 {
        self.acc().process.saturating_sub(self.completed())
    }

    /// Whether its process is about to go away.
    pub fn retiring(&self) -> bool {
        self.state() == SlotState::Retiring
    }

    /// What all processes of the slot counted.
    pub fn counters(&self) -> Counters {
        let mut now = self
            .child
            .as_ref()
            .map_or_else(Counters::default, |child| child.counters);
        now.connections_completed = self.completed();
        self.master.base.plus(&now)
    }

    /// Messages processed by all processes of the slot.
    pub fn messages(&self) -> u64 {
        self.counters().messages_processed()
    }

    /// Messages in progress: begun by the process in the slot, neither processed nor aborted.
    pub fn in_progress(&self) -> u64 {
        self.child
            .as_ref()
            .map_or(0, |child| child.counters.messages_in_progress())
    }

    /// Connections cut by deaths.
    pub fn lost_connections(&self) -> u64 {
        self.master.lost_connections
    }

    /// Messages cut by deaths.
    pub fn lost_messages(&self) -> u64 {
        self.master.lost_messages
    }

    /// Answers of all its processes that came after the MTA had given up.
    pub fn late_answers(&self) -> u64 {
        let now = self.child.as_ref().map_or(0, |child| child.late_answers);
        self.master.late_answers.saturating_add(now)
    }

    /// The identities of this slot.
    pub fn books(&self) -> SlotBooks {
        SlotBooks::of(self)
    }
}

impl Snapshot {
    fn sum(&self, of: impl Fn(&Slot) -> u64) -> u64 {
        self.slots
            .iter()
            .fold(0, |sum, slot| sum.saturating_add(of(slot)))
    }

    /// Connections in progress.
    pub fn requests(&self) -> u64 {
        self.sum(Slot::requests)
    }

    /// Messages processed.
    pub fn messages(&self) -> u64 {
        self.sum(Slot::messages)
    }

    /// Messages in progress.
    pub fn in_progress(&self) -> u64 {
        self.sum(Slot::in_progress)
    }

    /// Connections that children took on.
    pub fn connections(&self) -> u64 {
        self.sum(|slot| slot.acc().slot)
    }

    /// Slots whose process is about to go away.
    pub fn retiring(&self) -> u64 {
        self.sum(|slot| u64::from(slot.retiring()))
    }

    /// Connections cut by deaths.
    pub fn lost_connections(&self) -> u64 {
        self.sum(Slot::lost_connections)
    }

    /// Messages cut by deaths.
    pub fn lost_messages(&self) -> u64 {
        self.sum(Slot::lost_messages)
    }

    /// Connections taken that wait for an interpreter.
    pub fn queue(&self) -> u64 {
        self.sum(|slot| slot.child.as_ref().map_or(0, |child| child.queue))
    }

    /// What all processes counted.
    pub fn counters(&self) -> Counters {
        self.slots
            .iter()
            .fold(Counters::default(), |sum, slot| sum.plus(&slot.counters()))
    }

    /// Durations by phase; `None` when they were not asked for, or the board has none.
    pub fn histograms(&self) -> Option<PhaseHistograms> {
        let mut slots = self
            .slots
            .iter()
            .filter_map(|slot| slot.histograms.as_deref());
        let first = *slots.next()?;
        Some(slots.fold(first, |sum, slot| sum.plus(slot)))
    }

    /// Answers that came after the MTA had given up.
    pub fn late_answers(&self) -> u64 {
        self.sum(Slot::late_answers)
    }

    /// Slots with a connection in progress.
    pub fn busy(&self) -> u64 {
        self.sum(|slot| u64::from(slot.requests() > 0))
    }

    /// ns without room in any child, up to the master's last sign of life: both stand in one record, so that it never goes back, and nobody
    /// waits for what is dead.
    pub fn capacity_ns(&self) -> u64 {
        let global = &self.global;
        let current = match global.capacity_since_ns {
            0 => 0,
            since => global.heartbeat_ns.saturating_sub(since),
        };
        global.capacity_ns.saturating_add(current)
    }

    /// How long the MTA will still wait for the answer that a slot owes: negative when it has given up. `None` when it owes none.
    pub fn deadline_left(&self, slot: &Slot) -> Option<f64> {
        let child = slot.child.as_ref()?;
        let limit = match Phase::from_word(child.phase) {
            Phase::Idle | Phase::Unknown(_) => return None,
            Phase::Header | Phase::Body | Phase::Eom => self.global.content_timeout_ns,
            _ => self.global.command_timeout_ns,
        };
        let age = self.age(child.phase_since_ns)?.as_nanos() as f64;
        Some((limit as f64 - age) / 1e9)
    }

    /// The conservation identities on this snapshot.
    pub fn books(&self) -> Books {
        Books::of(self)
    }
}

impl<T> Snapshot<T> {
    /// What the master says that the milter does.
    pub fn state(&self) -> MilterState {
        MilterState::from_word(self.global.state)
    }

    /// Age of the master's last sign of life; since the creation when there was none.
    pub fn heartbeat_age(&self) -> Duration {
        let last = self.global.heartbeat_ns.max(self.header.created_boot_ns);
        Duration::from_nanos(self.now_ns.saturating_sub(last))
    }

    /// Whether the writer lives, from lock, boot and heartbeat in this order.
    pub fn verdict(&self) -> BoardVerdict {
        let hung = self.heartbeat_age() > HUNG_AFTER;
        let stale = self.liveness.same_boot == Some(false);
        let alive = match self.liveness.lock {
            Lock::Held => true,
            Lock::Free => false,
            // The file system has no such locks: a fresh heartbeat of this boot is the next best proof.
            Lock::Unknown(_) => !stale && !hung,
        };
        if alive {
            BoardVerdict::Alive { hung }
        } else if self.state() == MilterState::Stopped {
            BoardVerdict::StoppedClean
        } else if stale {
            BoardVerdict::Stale
        } else {
            BoardVerdict::Dead
        }
    }

    /// Age of a BOOTTIME stamp of the board; `None` for 0, "never". A stamp of the future counts as now.
    pub fn age(&self, stamp_ns: u64) -> Option<Duration> {
        (stamp_ns != 0).then(|| Duration::from_nanos(self.now_ns.saturating_sub(stamp_ns)))
    }
}

/// A text of the board as it may be shown on a terminal: control characters, what turns the direction of writing or cannot be seen, and
/// what is not UTF-8 become U+FFFD, for a child wrote it, or a sender.
pub fn shown(words: &[u64]) -> String {
    String::from_utf8_lossy(text(words))
        .chars()
        .map(|c| if is_shown(c) { c } else { '\u{fffd}' })
        .collect()
}

fn is_shown(c: char) -> bool {
    let hides = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !c.is_control() && !hides
}
