//! Wake times of suspended callbacks, earliest first.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Resume the callback.
    Resume,
    /// Send progress.
    Progress,
}

/// A timer: when, of which connection, of which of its calls.
pub(super) type Timer = (Instant, u64, u32, Kind);

/// The timers of an interpreter. One whose call has ended meanwhile is dropped when it comes up.
#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<Timer>>);

impl Timers {
    pub(super) fn push(&mut self, timer: Timer) {
        self.0.push(Reverse(timer));
    }

    /// The next one that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Timer> {
        if self.0.peek()?.0.0 > now {
            return None;
        }
        self.0.pop().map(|timer| timer.0)
    }

    /// When the next one comes up.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|timer| timer.0.0)
    }
}
