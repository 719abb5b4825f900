//! Records and directories for the tests of the board.
#![allow(dead_code, clippy::unwrap_used)]

use bytemuck::Zeroable;
use scoreboard::{ChildRecord, GlobalRecord, MasterRecord, MilterState, SlotState, Spec};

/// A directory on tmpfs if there is one.
pub(crate) fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// A small board.
pub(crate) fn spec(capacity: u32) -> Spec {
    Spec {
        capacity,
        mode: 0o640,
        group: None,
        previous_instance: [3, 4],
    }
}

/// A milter that runs.
pub(crate) fn global() -> GlobalRecord {
    GlobalRecord {
        state: MilterState::Running.word(),
        ..GlobalRecord::zeroed()
    }
}

/// A slot with a process.
pub(crate) fn live(incarnation: u64, pid: u64) -> MasterRecord {
    MasterRecord {
        state: SlotState::Live.word(),
        incarnation,
        pid,
        ..MasterRecord::zeroed()
    }
}

/// A child that has not counted anything.
pub(crate) fn empty() -> ChildRecord {
    ChildRecord::zeroed()
}

/// Numbers that look random and are the same in every run (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    /// A seed other than 0.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
