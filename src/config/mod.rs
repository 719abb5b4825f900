//! `pmx.conf` as the rest of the program sees it: typed, complete, with every default filled in. Knows no process.
//!
//! `keys` is the table of all keys; `parse` walks the files, `assign` puts one value into its field, `check` knows what holds
//! between keys, `dump` writes it all back.
#![forbid(unsafe_code)]

mod assign;
mod check;
mod defaults;
mod dump;
mod include;
mod keys;
mod load;
mod name;
pub(crate) mod nearest;
mod parse;
mod port;
mod problem;
#[cfg(test)]
mod tests;
mod value;

use std::path::PathBuf;
use std::time::Duration;

pub use dump::dump;
pub use keys::{KEYS, Key, KeyDefault, Place};
pub use load::{choose, default_file, run_dir_of};
pub use name::{MilterName, MilterNameError};
pub use port::{Port, PortError};
pub use problem::{Problem, Problems};

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file that was read.
    pub file: PathBuf,
    /// Where master and control meet.
    pub run_dir: PathBuf,
    /// The user as which policies run when the program is started as root.
    pub user: String,
    /// Every milter, in the order of the files.
    pub milters: Vec<MilterConfig>,
}

impl Config {
    /// The milter of this name.
    pub fn milter(&self, name: &MilterName) -> Option<&MilterConfig> {
        self.milters.iter().find(|milter| milter.name == *name)
    }
}

/// One milter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MilterConfig {
    /// Its name.
    pub name: MilterName,
    /// A disabled milter starts only when named.
    pub enabled: bool,
    /// Where the MTA connects.
    pub port: Port,
    /// The policy's file.
    pub policy: PathBuf,
    /// Largest pool; 0: no pool, one process serves all.
    pub max_pooled_procs: u32,
    /// Children always kept, 1 to `max_pooled_procs` (without a pool: 1).
    pub min_pooled_procs: u32,
    /// An idle child above the minimum goes away after this.
    pub pooled_proc_idle_limit: Duration,
    /// A child retires after so many connections; 0 never.
    pub pooled_proc_connect_limit: u64,
    /// A child retires after so many messages; 0 never.
    pub pooled_proc_message_limit: u64,
    /// A child retires at this age; zero never.
    pub pooled_proc_age_limit: Duration,
    /// A child retires above this resident memory in bytes; 0 never.
    pub pooled_proc_rss_limit: u64,
    /// Most interpreters in one process, at least 1.
    pub interpreters: u32,
    /// Connections that one interpreter carries at once, at least 1.
    pub interpreter_connections: u32,
    /// Interpreters made when a child starts, 1 to `interpreters`.
    pub preload_interpreters: u32,
    /// An interpreter is replaced after so many messages; 0 never.
    pub reinit_limit: u64,
    /// Bytes that one Lua state may use.
    pub interpreter_memory_limit: usize,
    /// From one reply to the next, at every stage but end of message.
    pub callback_timeout: Duration,
    /// Unanswered body callbacks and end of message together.
    pub eom_timeout: Duration,
    /// Bytes of headers and body kept for a message.
    pub message_size_limit: usize,
    /// Mode of a unix port.
    pub socket_mode: u32,
    /// Owner of a unix port; `None`: the user.
    pub socket_owner: Option<String>,
    /// Group of a unix port; `None`: the owner's.
    pub socket_group: Option<String>,
    /// Mode of the board and other files in the run directory.
    pub status_mode: u32,
    /// Group of these; `None`: the user's.
    pub status_group: Option<String>,
    /// Hide names and addresses in the board and in `message_log`.
    pub redact: bool,
    /// Confine children.
    pub sandbox: bool,
    /// What the MTA waits: for an answer to a command.
    pub mta_command_timeout: Duration,
    /// What the MTA waits: during the content.
    pub mta_content_timeout: Duration,
    /// Connections of the milter at once; `None`: what the pool can carry, without a pool no limit.
    pub concurrency_limit: Option<u32>,
    /// What happens beyond.
    pub concurrency_limit_action: OverloadAction,
    /// Backlog of the port.
    pub listen_queue_size: u32,
    /// Waiting for the MTA.
    pub timeout: Duration,
    /// How long a stop lets connections finish.
    pub graceful_timeout: Duration,
    /// How long a start waits for the first children.
    pub start_timeout: Duration,
    /// Mode mask of created files.
    pub umask: u32,
    /// Where log lines go.
    pub log_to: LogTo,
    /// The least important line that is written.
    pub log_level: LogLevel,
    /// Times in UTC.
    pub log_utc: bool,
    /// One line a message.
    pub message_log: bool,
}

impl MilterConfig {
    /// One process serves all?
    pub fn without_pool(&self) -> bool {
        self.max_pooled_procs == 0
    }

    /// Children that may exist beside retiring ones.
    pub fn most_children(&self) -> u32 {
        self.max_pooled_procs.max(1)
    }

    /// Slots: the second half only beside retiring children. Without a pool two: a restart hands over from one process to the next.
    pub fn most_slots(&self) -> u32 {
        self.most_children().saturating_mul(2)
    }

    /// Connections that one child may carry at once; `None` without a pool, where they wait in the child.
    pub fn child_capacity(&self) -> Option<u32> {
        (!self.without_pool()).then(|| {
            self.interpreters
                .saturating_mul(self.interpreter_connections)
        })
    }
}

/// `concurrency_limit_action`: what becomes of a connection beyond the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverloadAction {
    /// It waits in the backlog.
    Wait,
    /// Its first replied stage gets TEMPFAIL.
    Tempfail,
    /// It is accepted without the policy.
    Accept,
    /// It is refused.
    Reject,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTo {
    /// systemd's journal.
    Journal,
    /// syslog(3)
    Syslog,
    /// Standard error; only with `run`.
    Stderr,
    /// A file.
    File(PathBuf),
}

/// How much is logged, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Only what cannot go on.
    Error,
    /// Also what is degraded.
    Warn,
    /// Also life events.
    Info,
    /// Also each step.
    Debug,
}
