//! What no other pool of filters shows: ten demonstrations, each a test whose name says what is seen, or several.
//!
//!  1 status while everything is stopped               `stopped`
//!  2 post mortem                                      `post_mortem`; a board of an earlier boot also in tests/states.rs
//!  3 the message that killed the child                `killer`; tests/status_long.rs, tests/board_contents.rs
//!  4 counters conserved under kill -9                 `conservation`
//!  5 no torn read, without a lock                     scoreboard/tests/torn.rs, torn_stopped.rs, loom.rs
//!  6 durations by phase, as the client measures them  `durations`; what it costs: benches/board, benches/load
//!  7 the time that the MTA still waits                `deadline`
//!  8 time without room, and who waited                `saturation`
//!  9 any number of monitors                           `monitors`; a thousand of them: benches/board
//! 10 the time before, also of the dead                `history`
//!
//! And beside them, ten times the load that it carries: `overload`.
//!
//! One program, so that the storm of 4, which takes its minute, goes on beside the others.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod conservation;
mod deadline;
mod durations;
mod history;
mod killer;
mod load;
mod monitors;
mod overload;
mod post_mortem;
mod saturation;
mod stopped;
