//! The scoreboard of pmx-milter: a file in shared memory that one milter's processes write and anybody may read.
//!
//! A milter's master and its children publish what they do in `NAME.scoreboard` in the run directory. Reading it takes no lock, asks
//! nobody, and works while every process hangs, is stopped or is dead. `FORMAT.md` beside this crate tells the file byte by byte, for
//! programs in other languages; it has a complete reader in Python.
//!
//! # A small monitoring program
//!
//! [`read`] gives a [`Snapshot`]: the board at one instant, with everything that follows from it. Nothing has to be computed twice, and
//! sums agree with their rows.
//!
//! ```
//! use std::path::Path;
//! use scoreboard::BoardVerdict;
//!
//! /// One line about a milter, and whether somebody should get up for it.
//! fn check(board: &Path) -> (String, bool) {
//!     let snapshot = match scoreboard::read(board) {
//!         Ok(snapshot) => snapshot,
//!         Err(error) if error.is_missing() => return ("not running".to_owned(), true),
//!         Err(error) => return (error.to_string(), true),
//!     };
//!     let (state, bad) = match snapshot.verdict() {
//!         BoardVerdict::Alive { hung: false } => (snapshot.state().name(), false),
//!         BoardVerdict::Alive { hung: true } => ("hung", true),
//!         BoardVerdict::StoppedClean => ("stopped", false),
//!         BoardVerdict::Dead => ("dead", true),
//!         BoardVerdict::Stale => ("left over from an earlier boot", true),
//!     };
//!     let line = format!(
//!         "{state}: {} connections in progress, {} messages, {} errors, {} deaths, books {}",
//!         snapshot.requests(),
//!         snapshot.messages(),
//!         snapshot.counters().verdicts[5],
//!         snapshot.global.deaths_signal,
//!         if snapshot.books().is_balanced() { "balanced" } else { "NOT balanced" },
//!     );
//!     (line, bad || snapshot.global.deaths_signal > 0)
//! }
//!
//! # let dir = tempfile::tempdir()?;
//! # let spec = scoreboard::Spec { capacity: 4, mode: 0o640, group: None, previous_instance: [0; 2] };
//! # let mut master = scoreboard::Board::create(dir.path(), "policy.scoreboard", &spec)?;
//! # let record = scoreboard::GlobalRecord { state: scoreboard::MilterState::Running.word(), ..bytemuck::Zeroable::zeroed() };
//! # master.publish_global(&record);
//! # let run_dir = dir.path();
//! let (line, bad) = check(&run_dir.join("policy.scoreboard"));
//! assert_eq!(line, "running: 0 connections in progress, 0 messages, 0 errors, 0 deaths, books balanced");
//! assert!(!bad);
//! assert_eq!(check(&run_dir.join("other.scoreboard")).0, "not running");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A program that looks many times keeps a [`Reader`] (system calls, nothing can kill it) or a [`MapReader`] (a map, no system calls), and
//! opens the path anew when [`Reader::is_replaced`] says so. Rates are differences of counters of *one* [`Header::instance`]. A board that
//! a newer pmx-milter wrote may have more fields; [`Reader::schema`] tells them.
//!
//! # How it holds together
//!
//! Each record has one writer, which publishes it through a [`latch`]: two copies and a version, so that a writer that is killed at any
//! instruction leaves a whole record. Totals are never stored ([`snapshot`]), and nobody steers by the file. What a child wrote is
//! not believed: [`Slot`] clamps it by what the master says.
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod histogram;
pub mod history;
pub mod latch;
#[cfg_attr(loom, allow(dead_code))] // The models need no board.
pub mod layout;
pub mod records;
pub mod ring;
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
pub mod liveness;
#[cfg(not(loom))]
mod map;
#[cfg(not(loom))]
mod reader;
#[cfg(not(loom))]
pub mod schema;
#[cfg(not(loom))]
pub mod snapshot;
#[cfg(not(loom))]
mod writer;

#[cfg(not(loom))]
pub use books::{Account, Books, MasterBooks, SlotBooks};
#[cfg(not(loom))]
pub use collect::{Cut, Detail};
#[cfg(not(loom))]
pub use create::{CreateError, Spec};
#[cfg(not(loom))]
pub use histogram::PhaseHistograms;
#[cfg(not(loom))]
pub use history::{Event, EventKind, History, Second};
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
