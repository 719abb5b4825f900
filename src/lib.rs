//! pmx-milter: starts, stops, restarts and shows the mail filters (milters) of Postfix and Sendmail.
//!
//! Folders are processes; imports point down only (`tests/layers.rs` keeps it so):
//!
//! | module | process | what it does |
//! |---|---|---|
//! | [`cli`] | control | arguments into one options struct a sub-command |
//! | [`control`] | control | a file a verb: start, stop, restart, status, check, try, demo |
//! | [`master`] | master | owns listener, pool and board; handles no mail, runs no Lua |
//! | [`worker`] | child | its connections, its interpreters, its page of the board |
//! | [`session`] | any | one MTA connection as a pure state machine: bytes in, calls to the policy, bytes out |
//! | [`policy`] | child, checker | the operator's Lua |
//! | [`milter`] | any | the wire protocol, pure |
//! | [`config`] | control | `pmx.conf` |
//! | [`log`], [`run_dir`] | any | log lines; the paths on which control and master meet |
//! | [`sys`] | any | fork, signals, locks, descriptors: the only unsafe beside the board's map |
//!
//! One word, one meaning: *milter* a configured filter service · *master* its top-level process · *pool*, *slot*, *child*
//! (the process in a slot) · *retiring* about to go away · *interpreter* a thread with a Lua state · *session* one MTA
//! connection · *command* MTA to filter, *reply* filter to MTA · *stage* where the dialogue is · *policy* the script,
//! *verdict* what it decides, *edit* a change to the message · *board* the scoreboard file, *record* what one writer
//! publishes, *snapshot* what a reader got.

pub mod cli;
pub mod config;
pub mod control;
pub mod log;
pub mod master;
pub mod milter;
pub mod policy;
pub mod run_dir;
pub mod session;
pub mod sys;
pub mod worker;
