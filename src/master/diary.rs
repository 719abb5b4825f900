//! What the board remembers of a milter: an event for each thing that happened, a line for each second, and how long how many slots were
//! busy. Written for people who come later; the master itself never looks at it.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use bytemuck::Zeroable;
use scoreboard::records::{ChildRecord, Counters, busy_bucket};
use scoreboard::{Event, EventKind, Second, history};

use super::Master;
use super::board::Books;
use crate::sys::clock;

/// How often the board gets a line.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Of how many slots, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Busy {
    slots: u64,
    since_ns: u64,
}

impl Busy {
    /// So many since then.
    pub(super) fn since(slots: u64, since_ns: u64) -> Busy {
        Busy { slots, since_ns }
    }

    /// Of how many slots.
    pub(super) fn slots(&self) -> u64 {
        self.slots
    }

    /// BOOTTIME ns.
    pub(super) fn since_ns(&self) -> u64 {
        self.since_ns
    }

    /// Nothing is in progress, from now on.
    pub(super) fn new() -> Busy {
        Busy {
            slots: 0,
            since_ns: clock::boottime_ns(),
        }
    }
}

impl Books {
    /// Something happened to the milter.
    pub(super) fn event(&mut self, kind: EventKind, value: u64) {
        self.note(kind, u64::MAX, 0, value);
    }

    /// Something happened to the process in a slot.
    pub(super) fn slot_event(&mut self, kind: EventKind, slot: u32, value: u64) {
        let pid = self.slots[slot as usize].pid;
        self.note(kind, u64::from(slot), pid, value);
    }

    fn note(&mut self, kind: EventKind, slot: u64, pid: u64, value: u64) {
        self.board.append_event(Event {
            at_ns: clock::boottime_ns(),
            kind: kind.word(),
            slot,
            pid,
            value,
            ..Event::zeroed()
        });
    }

    /// So many slots are busy now: the time until now was spent with as many as before.
    pub(super) fn busy_now(&mut self, slots: u64) {
        let now = clock::boottime_ns();
        let spent = now.saturating_sub(self.busy.since_ns);
        self.global.busy_ns[busy_bucket(self.busy.slots)] += spent;
        self.busy = Busy {
            slots,
            since_ns: now,
        };
    }

    /// What the children have counted, as they say: for display only.
    fn counted(&self) -> (Counters, u64) {
        let mut sum = Counters::default();
        let mut queued = 0_u64;
        let used = usize::try_from(self.global.slots_high_water).unwrap_or(usize::MAX);
        for (slot, record) in (0u32..).zip(&self.slots).take(used) {
            sum = sum.plus(&record.base);
            if record.pid != 0 {
                let child: ChildRecord = self.board_of(slot).read_child(slot);
                if child.incarnation == record.incarnation {
                    sum = sum.plus(&child.counters);
                    queued = queued.saturating_add(child.queue);
                }
            }
        }
        (sum, queued)
    }
}

impl Master {
    /// Slots with a connection in progress, and these connections: those that get an overload answer included, as in status.
    pub(super) fn in_progress(&self) -> (u64, u64) {
        let children = self.children.iter().zip(&self.books.slots);
        let each = children.filter_map(|(child, record)| Some(child.as_ref()?.in_flight(record)));
        each.filter(|requests| *requests > 0)
            .fold((0, 0), |(busy, sum), requests| (busy + 1, sum + requests))
    }

    /// Writes the line of this second, if it is due.
    pub(super) fn write_line(&mut self, now: Instant) {
        if now < self.next_line {
            return;
        }
        // Lines that were missed are not made up for: their counts are in this one.
        self.next_line = (self.next_line + LINE_EVERY).max(now + LINE_EVERY / 2);
        let backlog = self
            .listener
            .as_ref()
            .and_then(|listener| self.backlog.read(listener.socket()))
            .unwrap_or(history::UNKNOWN);
        self.books.global.backlog = backlog;
        let (busy, requests) = self.in_progress();
        let (counters, queued) = self.books.counted();
        let global = &self.books.global;
        let lost = self.books.slots.iter().map(|slot| slot.lost_connections);
        let line = Second {
            at_ns: clock::boottime_ns(),
            busy,
            slots_in_use: global.slots_in_use,
            requests,
            waiting: queued.saturating_add(self.in_hand.len() as u64),
            backlog,
            accepted: global.accepted,
            verdicts: counters.verdicts,
            aborted: counters.messages_aborted,
            lost_connections: lost.sum(),
            ..Second::zeroed()
        };
        self.books.board.append_second(line);
    }
}
