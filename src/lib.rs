//! pmx-milter: starts, stops, restarts and shows the mail filters (milters) of Postfix and Sendmail.
//!
//! Folders are processes; imports point down only (see the table). The rooms that stand:
//!
//! | module | process | what it does |
//! |---|---|---|
//! | [`cli`] | control | the command line, parsed into types |
//! | [`control`] | control | a verb a file: start, stop, restart, status, top, exporter, check, run, demo |
//! | [`session`] | child, control | one MTA connection as a pure state machine |
//! | [`policy`] | child, checker | what a session and the operator's Lua share |
//! | [`control`] | control | the verbs |
//! | [`client`] | control | the MTA's side of the protocol, for `try`, `demo` and tests |
//! | [`milter`] | any | the wire protocol, pure |
//! | [`config`] | control | names and values of `pmx.conf` |
//! | [`log`] | any | log lines to journal, syslog, standard error or a file |
//! | [`run_dir`] | any | the paths on which control and master meet |
//! | [`sys`] | any | fork, signals, locks, descriptors: the only unsafe beside the board's map |
//!
//! One word, one meaning: *milter* a configured filter service · *master* its top-level process · *pool*, *slot*, *child*
//! (the process in a slot) · *retiring* about to go away ·
//! *generation* of configuration and policy, one more with each restart · *trial* of the program that is to take over · *interpreter* a thread with a Lua state · *session* one MTA
//! connection · *command* MTA to filter, *reply* filter to MTA · *stage* where the dialogue is · *policy* the script,
//! *verdict* what it decides, *edit* a change to the message · *board* the scoreboard file, *record* what one writer
//! publishes, *snapshot* what a reader got.

pub mod checker;
pub mod cli;
pub mod client;
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
