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
