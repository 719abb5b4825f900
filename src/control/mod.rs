//! The control program: a file a verb. Each verb prints what it did on stdout and what went wrong on stderr, and comes to an exit status.
//!
//! Control meets a master only in the run directory's files, locks, board and signals; the master's entry is handed over by `main`.
#![forbid(unsafe_code)]

pub mod check;
pub mod demo;
mod exit;
pub mod exporter;
pub mod help;
mod launch;
mod leftovers;
mod mta;
mod patience;
mod place;
mod port_holder;
mod preflight;
pub mod prepare;
pub mod rehearsal;
pub mod restart;
pub mod run;
mod running;
pub mod start;
pub mod status;
pub mod stop;
mod stop_signal;
mod terminal;
pub mod top;
pub mod try_policy;
pub mod try_restart;
mod try_verb;
mod waiting;

use crate::sys::memory;

pub use exit::{Exit, StatusExit};
pub use launch::{AsRoot, Launch, MasterMain};
pub use place::Place;
pub use stop_signal::{
    KNOWN as STOP_SIGNALS, StopSignal, StopSignalError, take as take_signal, verb_index,
};
pub use terminal::sign_as;
pub use try_verb::try_policy;

/// What a short verb takes of the heap.
const HEAP_BYTES: usize = 96 << 10;

/// Before anything else: the heap at once instead of page by page.
pub fn get_ready() {
    memory::make_ready(HEAP_BYTES);
}
