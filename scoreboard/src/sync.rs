//! Atomics from one place, so that the latch runs on plain memory, on a map, and under loom's model checker.
#![forbid(unsafe_code)]

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Waits a little between two tries of a bounded loop.
#[derive(Debug, Default)]
pub struct Pause {
    #[cfg(not(loom))]
    backoff: crossbeam_utils::Backoff,
}

impl Pause {
    /// A fresh one: the first waits are the shortest.
    pub fn new() -> Pause {
        Pause::default()
    }

    /// Waits, longer each time, up to giving the processor away.
    pub fn wait(&self) {
        #[cfg(not(loom))]
        self.backoff.snooze();
        #[cfg(loom)]
        loom::thread::yield_now();
    }
}
