//! The scoreboard of pmx-milter: a file in shared memory that one milter's processes write and anybody may read.
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod latch;
pub mod records;
pub mod sync;

#[cfg(not(loom))]
pub mod books;
#[cfg(not(loom))]
mod collect;
#[cfg(not(loom))]
mod create;
#[cfg(not(loom))]
mod fields;
#[cfg(not(loom))]
pub mod layout;
#[cfg(not(loom))]
pub mod liveness;
#[cfg(not(loom))]
mod map;
#[cfg(not(loom))]
mod reader;
#[cfg(not(loom))]
pub mod schema;
#[cfg(not(loom))]
mod snapshot;
#[cfg(not(loom))]
mod writer;

#[cfg(not(loom))]
pub use books::{Account, Books, MasterBooks, SlotBooks};
#[cfg(not(loom))]
pub use collect::Cut;
#[cfg(not(loom))]
pub use create::{CreateError, Spec};
#[cfg(not(loom))]
pub use layout::{Geometry, Header};
#[cfg(not(loom))]
pub use liveness::{BoardVerdict, Liveness, Lock};
#[cfg(not(loom))]
pub use reader::{MapReader, ReadError, Reader, read};
pub use records::*;
#[cfg(not(loom))]
pub use snapshot::{Acc, Slot, Snapshot, shown};
#[cfg(not(loom))]
pub use writer::{Board, ChildPage};
