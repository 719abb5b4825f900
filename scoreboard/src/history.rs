//! What a board remembers of the time before: one entry a second, and one for each thing that happened.
#![forbid(unsafe_code)]

use bytemuck::{Pod, Zeroable};

use crate::records::words;

/// Seconds that are kept: ten minutes.
pub const SECONDS: usize = 600;
/// Words of a second.
pub const SECOND_WORDS: usize = 16;
/// Events that are kept.
pub const EVENTS: usize = 256;
/// Words of an event.
pub const EVENT_WORDS: usize = 8;
/// Value of [`Second::backlog`] when the kernel does not tell.
pub const UNKNOWN: u64 = u64::MAX;

/// The milter at one second. Counts are totals since the board was made, so that a second that is missing loses nothing: rates are
/// differences.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Second {
    /// Number of the entry, from 1; stored last.
    pub number: u64,
    /// BOOTTIME ns.
    pub at_ns: u64,
    /// Slots with a connection in progress.
    pub busy: u64,
    /// Slots with a process.
    pub slots_in_use: u64,
    /// Connections in progress.
    pub requests: u64,
    /// Connections in the master's hands or waiting for an interpreter.
    pub waiting: u64,
    /// Connections in the kernel's queue of the port; [`UNKNOWN`] when it does not tell.
    pub backlog: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Messages processed, by verdict.
    pub verdicts: [u64; 6],
    /// Messages aborted.
    pub aborted: u64,
    /// Connections cut by deaths.
    pub lost_connections: u64,
}

/// Something that happened to the milter.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Event {
    /// Number of the entry, from 1; stored last.
    pub number: u64,
    /// BOOTTIME ns.
    pub at_ns: u64,
    /// [`EventKind`].
    pub kind: u64,
    /// Slot, or `u64::MAX` when it is about the milter.
    pub slot: u64,
    /// Pid, or 0.
    pub pid: u64,
    /// What the kind says of it.
    pub value: u64,
    /// For later fields.
    pub reserved: [u64; 2],
}

words! {
    /// What happened; what [`Event::value`] then means.
    EventKind {
        /// The milter takes mail; its generation.
        Start = 1 "start",
        /// A stop was asked for; the signal, or 0.
        Stop = 2 "stop",
        /// A child was forked; number of processes that the slot has had.
        Fork = 3 "fork",
        /// A child is ready; 0.
        Ready = 4 "ready",
        /// A child retires; the reason, as in the master's record.
        Retire = 5 "retire",
        /// A child has ended; how, as in the death ring.
        Death = 6 "death",
        /// No child has room; why, as in `not_accepting`.
        Full = 7 "full",
        /// One has room again; ns that it lasted.
        Room = 8 "room",
        /// Children die young: forking waits; ns.
        Backoff = 9 "backoff",
        /// A new generation takes over; its number.
        Restart = 10 "restart",
        /// Descriptors or memory are short: nothing is accepted for a second; 0.
        Resources = 11 "resources",
        /// The stop now cuts what is left; connections in progress.
        Abort = 12 "abort",
    }
}

/// Both rings, the latest entry first.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// One entry a second.
    pub seconds: Vec<Second>,
    /// One for each thing that happened.
    pub events: Vec<Event>,
}

const _: () = assert!(size_of::<Second>() == SECOND_WORDS * 8);
const _: () = assert!(size_of::<Event>() == EVENT_WORDS * 8);
