//! The conservation identities: whether every connection and every message is accounted for, with the numbers.
//!
//! Connections, on the whole board: accepted = rejected + in the master's hands + taken on by children. Messages, a slot: started =
//! processed + aborted + lost + in progress. Earlier processes of a slot: taken on = completed + lost. The process in it: completed and
//! in progress make what it was given.
#![forbid(unsafe_code)]

use crate::collect::Cut;
use crate::snapshot::{Slot, Snapshot};

/// One identity: what went in, and what can be accounted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// What went in.
    pub total: u64,
    /// The sum of what became of it.
    pub accounted: u64,
}

impl Account {
    /// Whether nothing is missing and nothing appeared from nowhere.
    pub fn is_balanced(&self) -> bool {
        self.total == self.accounted
    }

    /// What is missing; negative when more came out than went in.
    pub fn missing(&self) -> i128 {
        i128::from(self.total) - i128::from(self.accounted)
    }

    fn plus(self, other: Account) -> Account {
        Account {
            total: self.total.saturating_add(other.total),
            accounted: self.accounted.saturating_add(other.accounted),
        }
    }
}

fn sum<const N: usize>(parts: [u64; N]) -> u64 {
    parts
        .into_iter()
        .fold(0, |sum, part| sum.saturating_add(part))
}

/// The identities of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotBooks {
    /// Connections taken on = completed + lost + in progress, over all processes.
    pub connections: Account,
    /// Messages started = processed + aborted + lost + in progress, over all processes.
    pub messages: Account,
    /// The child claims more than can be: connections finished that it was never given, or messages ended that never began.
    pub child_lies: bool,
}

impl SlotBooks {
    pub(crate) fn of(slot: &Slot) -> SlotBooks {
        let counters = slot.counters();
        let lies = slot.child.as_ref().is_some_and(|child| {
            let counters = &child.counters;
            let ended = sum([counters.messages_processed(), counters.messages_aborted]);
            counters.connections_completed > slot.acc().process || ended > counters.messages_started
        });
        SlotBooks {
            connections: Account {
                total: slot.acc().slot,
                accounted: sum([
                    counters.connections_completed,
                    slot.lost_connections(),
                    slot.requests(),
                ]),
            },
            messages: Account {
                total: counters.messages_started,
                accounted: sum([
                    counters.messages_processed(),
                    counters.messages_aborted,
                    slot.lost_messages(),
                    slot.in_progress(),
                ]),
            },
            child_lies: lies,
        }
    }

    /// Whether all of it holds.
    pub fn is_balanced(&self) -> bool {
        self.connections.is_balanced() && self.messages.is_balanced() && !self.child_lies
    }
}

/// The identities of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Books {
    /// Connections accepted = rejected + waiting in the master + taken on by children. Global record and slots are published one after
    /// the other, so that this can be off by what the master is just handing over; see [`Books::master`].
    pub accepted: Account,
    /// What the master says is in its hands.
    pub waiting: u64,
    /// Connections of the slots, summed.
    pub connections: Account,
    /// Messages of the slots, summed.
    pub messages: Account,
    /// Slots whose own identities fail.
    pub unbalanced: Vec<u32>,
    /// Whether the snapshot is of one instant: only then does `accepted` compare like with like.
    pub atomic: bool,
}

/// How the master's identity stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasterBooks {
    /// Exact.
    Balanced,
    /// The snapshot is not of one instant, or the master was between two publications.
    InPassing,
    /// A connection is missing, or appeared from nowhere, and that is not explained by a hand-over.
    Unbalanced,
}

impl Books {
    pub(crate) fn of(snapshot: &Snapshot) -> Books {
        let mut connections = Account::default();
        let mut messages = Account::default();
        let mut unbalanced = Vec::new();
        for slot in &snapshot.slots {
            let books = slot.books();
            connections = connections.plus(books.connections);
            messages = messages.plus(books.messages);
            // A slot that could not be copied whole proves nothing.
            if slot.consistent && !books.is_balanced() {
                unbalanced.push(slot.index);
            }
        }
        let global = &snapshot.global;
        Books {
            accepted: Account {
                total: global.accepted,
                accounted: sum([global.rejected, global.waiting, snapshot.connections()]),
            },
            waiting: global.waiting,
            connections,
            messages,
            unbalanced,
            atomic: snapshot.cut == Cut::Atomic && snapshot.global_consistent,
        }
    }

    /// The master's identity. One that is off by no more than what is in the master's hands is a hand-over under way, for the master
    /// publishes what it has in hand before a slot takes it on or gives it back.
    pub fn master(&self) -> MasterBooks {
        let passing = i128::from(self.waiting);
        if self.accepted.is_balanced() {
            MasterBooks::Balanced
        } else if !self.atomic || self.accepted.missing().abs() <= passing {
            MasterBooks::InPassing
        } else {
            MasterBooks::Unbalanced
        }
    }

    /// Whether nothing is wrong: no slot's identity fails, and the master's does not beyond a hand-over.
    pub fn is_balanced(&self) -> bool {
        self.unbalanced.is_empty() && self.master() != MasterBooks::Unbalanced
    }
}
