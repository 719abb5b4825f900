//! The scoreboard of pmx-milter: a file in shared memory that one milter's processes write and anybody may read.
//!
//! A milter's master and its children publish what they do in `NAME.scoreboard` in the run directory. Reading it takes no lock, asks
//! nobody, and works while every process hangs, is stopped or is dead. `FORMAT.md` beside this crate tells the file byte by byte, for
//! programs in other languages; `examples` has complete readers in Python and C, a C header, and an exporter for Prometheus.
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
//! # Rates, deadlines, and the time before
//!
//! Counters only grow, so that a rate is the difference of two snapshots; nothing has to be asked of the milter twice a second. What slots are
//! about to miss the MTA's patience follows from one snapshot. What happened before the program was started stands on the board:
//! [`Reader::history`] has ten minutes, second by second, and the last 256 events, also when the milter is dead.
//!
//! ```
//! use scoreboard::{Event, EventKind, History, Phase, Reader, Snapshot, histogram, shown};
//!
//! /// Messages a second between two looks; `None` when they are of different boards, or of one instant.
//! fn rate(before: &Snapshot, after: &Snapshot) -> Option<f64> {
//!     let same = before.header.instance == after.header.instance;
//!     let seconds = after.now_ns.saturating_sub(before.now_ns) as f64 / 1e9;
//!     let messages = after.messages().saturating_sub(before.messages());
//!     (same && seconds > 0.0).then(|| messages as f64 / seconds)
//! }
//!
//! /// Slots whose MTA soon gives up, or has.
//! fn late(snapshot: &Snapshot, within_seconds: f64) -> Vec<String> {
//!     let rows = snapshot.slots.iter().filter_map(|slot| {
//!         let (child, left) = (slot.child.as_ref()?, snapshot.deadline_left(slot)?);
//!         let phase = Phase::from_word(child.phase).name();
//!         (left < within_seconds).then(|| format!("slot {}: {phase} of {}, {left:.0} s left", slot.index, shown(&child.queue_id)))
//!     });
//!     rows.collect()
//! }
//!
//! /// The most connections accepted in a second that the board remembers.
//! fn peak(history: &History) -> Option<u64> {
//!     // Totals, the latest first: the difference of neighbours is what came in between.
//!     let pairs = history.seconds.windows(2);
//!     pairs.map(|pair| pair[0].accepted.saturating_sub(pair[1].accepted)).max()
//! }
//!
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("policy.scoreboard");
//! # let spec = scoreboard::Spec { capacity: 4, mode: 0o640, group: None, previous_instance: [0; 2] };
//! # let mut master = scoreboard::Board::create(dir.path(), "policy.scoreboard", &spec)?;
//! # master.publish_global(&scoreboard::GlobalRecord {
//! #     state: scoreboard::MilterState::Running.word(), slots_high_water: 1, command_timeout_ns: 10_000_000_000, ..bytemuck::Zeroable::zeroed()
//! # });
//! # master.adopt_child(0, 1);
//! # master.publish_master(0, &scoreboard::MasterRecord {
//! #     state: scoreboard::SlotState::Live.word(), incarnation: 1, pid: 77, ..bytemuck::Zeroable::zeroed()
//! # });
//! # let mut page = scoreboard::ChildPage::map(master.descriptor(), master.geometry(), 0, 1)?;
//! # let mut child = scoreboard::ChildRecord { incarnation: 1, ..bytemuck::Zeroable::zeroed() };
//! # for accepted in [3, 10, 12] {
//! #     master.append_second(scoreboard::Second { accepted, ..bytemuck::Zeroable::zeroed() });
//! # }
//! # master.append_event(Event { kind: EventKind::Start.word(), slot: u64::MAX, value: 1, ..bytemuck::Zeroable::zeroed() });
//! let reader = Reader::open(&path)?;
//! let before = reader.snapshot()?;
//! # child.counters.verdicts[0] = 5;
//! # child.phase = Phase::Rcpt.word();
//! # child.phase_since_ns = scoreboard::liveness::boot_time_ns() - 6_000_000_000;
//! # scoreboard::put_text(&mut child.queue_id, b"4ABCDEF");
//! # page.publish(&child);
//! # page.observe(Phase::Rcpt, 900_000);
//! // … five messages later, with one in hand for 6 of the 10 seconds that the MTA waits:
//! let after = reader.detailed()?;
//! assert!(rate(&before, &after).is_some_and(|rate| rate > 0.0));
//! let rows = late(&after, 5.0);
//! assert!(rows[0].starts_with("slot 0: rcpt of 4ABCDEF, "), "{rows:?}");
//!
//! let history = reader.history()?;
//! assert_eq!(peak(&history), Some(7));
//! let latest = history.events.first().map(|event| EventKind::from_word(event.kind));
//! assert_eq!(latest, Some(EventKind::Start));
//!
//! // `detailed` has read the histograms, too: half of the answers to RCPT took at most …
//! let durations = after.histograms().unwrap_or_default();
//! let median = histogram::quantile_ns(durations.of(Phase::Rcpt), histogram::phase_bounds_ns(), 0.5);
//! assert_eq!(median, Some(1_024_000));
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
mod brief;
#[cfg(not(loom))]
mod collect;
#[cfg(not(loom))]
mod create;
#[cfg(not(loom))]
mod fields;
#[cfg(not(loom))]
mod handover;
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
pub use brief::{Brief, BriefProcess};
#[cfg(not(loom))]
pub use collect::{Cut, Detail};
#[cfg(not(loom))]
pub use create::{CreateError, Spec};
#[cfg(not(loom))]
pub use handover::{Descriptors, Handover, Relay};
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
