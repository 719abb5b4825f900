//! What a summary shows of a slot, a fifteenth of what the board holds of it: a program that looks once and ends spends most of its time
//! on memory, and hundreds of whole records are half a megabyte of it.
#![forbid(unsafe_code)]

use crate::collect::{Detail, Kept, Places, Versions, records};
use crate::latch::Source;
use crate::layout::Geometry;
use crate::records::SlotState;
use crate::snapshot::{Acc, Slot, Snapshot};

/// Whole records held at a time: 29 KiB.
const AT_ONCE: usize = 16;

/// The numbers of a slot that `pmx-milter status` shows in its plain form. They follow from the records as those of [`Slot`] do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief {
    /// Its number, from 0.
    pub index: u32,
    /// What the master says is in it.
    pub state: SlotState,
    /// The process in it, if there is one.
    pub pid: Option<u64>,
    /// Virtual size of that process in bytes; 0: unknown.
    pub vsz_bytes: u64,
    /// See [`Slot::acc`].
    pub acc: Acc,
    /// See [`Slot::requests`].
    pub requests: u64,
    /// See [`Slot::messages`].
    pub messages: u64,
    /// What the process in the slot says; `None` when there is none, or it has not spoken.
    pub process: Option<BriefProcess>,
    /// Whether both records are proven whole, and of one instant.
    pub consistent: bool,
}

/// What the process in a slot says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BriefProcess {
    /// Connections taken that wait for an interpreter.
    pub queue: u64,
    /// Interpreters initialized.
    pub interpreters: u64,
    /// Interpreters made so far.
    pub interpreter_sequence: u64,
}

impl Brief {
    /// Of a slot that was read.
    pub fn of(slot: &Slot) -> Brief {
        Brief {
            index: slot.index,
            state: slot.state(),
            pid: (!slot.is_empty() && slot.master.pid != 0).then_some(slot.master.pid),
            vsz_bytes: slot.master.vsz_bytes,
            acc: slot.acc(),
            requests: slot.requests(),
            messages: slot.messages(),
            process: slot.child.as_ref().map(|child| BriefProcess {
                queue: child.queue,
                interpreters: child.interpreters,
                interpreter_sequence: child.interpreter_sequence,
            }),
            consistent: slot.consistent,
        }
    }

    /// Whether its process is about to go away.
    pub fn retiring(&self) -> bool {
        self.state == SlotState::Retiring
    }
}

impl Snapshot {
    /// The brief form of every slot.
    pub fn briefs(&self) -> Vec<Brief> {
        self.slots.iter().map(Brief::of).collect()
    }
}

impl Kept for Brief {
    fn unread(index: u32) -> Brief {
        Brief::of(&Slot::unread(index))
    }

    fn index(&self) -> u32 {
        self.index
    }

    fn is_consistent(&self) -> bool {
        self.consistent
    }

    fn prove(&mut self, consistent: bool) {
        self.consistent = consistent;
    }

    /// A few at a time through whole records, which stay in the processor's cache.
    fn read<S: Source>(
        source: &S,
        geometry: &Geometry,
        places: &[Places],
        versions: &[Versions],
        to: &mut [Brief],
        detail: Detail,
    ) -> Result<(), S::Error> {
        let mut whole = Vec::with_capacity(AT_ONCE.min(to.len()));
        let parts = places.chunks(AT_ONCE).zip(versions.chunks(AT_ONCE));
        for (to, (places, versions)) in to.chunks_mut(AT_ONCE).zip(parts) {
            whole.clear();
            whole.extend(to.iter().map(|brief| Slot::unread(brief.index)));
            records(source, geometry, places, versions, &mut whole, detail)?;
            for (brief, slot) in to.iter_mut().zip(&mut whole) {
                slot.settle();
                *brief = Brief::of(slot);
            }
        }
        Ok(())
    }
}
