//! The keys of `pmx.conf`: a row each. Reader, `dump`, the manual page's test and the offers of nearest names all use this one table.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::{LogLevel, MilterConfig, OverloadAction};

/// A key of `pmx.conf`.
#[derive(Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// Where it may stand.
    pub place: Place,
    /// What holds when it is absent.
    pub default: KeyDefault,
    /// What it says, in one line.
    pub meaning: &'static str,
    /// Its type, its range, and the field that it fills.
    pub(super) field: Field,
}

/// Where a key may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the top of the main file only: it holds for the whole program.
    Global,
    /// In a `[milter.NAME]` table only: it cannot be the same for two milters.
    Milter,
    /// In a `[milter.NAME]` table, or at the top as the default of all milters.
    Both,
}

/// What holds when a key is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyDefault {
    /// This value, written as in the file without its quotes.
    Value(&'static str),
    /// What this text describes.
    Described(&'static str),
    /// Nothing: the key must be given.
    Required,
}

impl std::fmt::Display for KeyDefault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            KeyDefault::Value(text) | KeyDefault::Described(text) => text,
            KeyDefault::Required => "required",
        })
    }
}

/// Type, range and place of a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    RunDir,
    User,
    Include,
    Port,
    Policy,
    LogTo,
    MtaTimeouts,
    ConcurrencyLimit {
        least: u32,
        most: u32,
    },
    Action(fn(&mut MilterConfig) -> &mut OverloadAction),
    Level(fn(&mut MilterConfig) -> &mut LogLevel),
    Flag(fn(&mut MilterConfig) -> &mut bool),
    Account(fn(&mut MilterConfig) -> &mut Option<String>),
    Mode(fn(&mut MilterConfig) -> &mut u32),
    Count(u32, u32, fn(&mut MilterConfig) -> &mut u32),
    /// 0 is never.
    Limit(u64, fn(&mut MilterConfig) -> &mut u64),
    Time(Duration, Duration, fn(&mut MilterConfig) -> &mut Duration),
    /// 0 is never.
    TimeLimit(Duration, Duration, fn(&mut MilterConfig) -> &mut Duration),
    Size(u64, u64, fn(&mut MilterConfig) -> &mut usize),
    /// 0 is never.
    SizeLimit(u64, u64, fn(&mut MilterConfig) -> &mut u64),
}

/// `concurrency_limit_action` as it is written.
pub(super) const ACTIONS: &[(&str, OverloadAction)] = &[
    ("wait", OverloadAction::Wait),
    ("tempfail", OverloadAction::Tempfail),
    ("accept", OverloadAction::Accept),
    ("reject", OverloadAction::Reject),
];

/// `log_level` as it is written.
pub(super) const LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
];

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn hours(count: u64) -> Duration {
    Duration::from_secs(3600 * count)
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

const fn key(
    name: &'static str,
    place: Place,
    default: KeyDefault,
    field: Field,
    meaning: &'static str,
) -> Key {
    Key {
        name,
        place,
        default,
        meaning,
        field,
    }
}

use Field as F;
use KeyDefault::{Described, Required, Value};
use Place::{Both, Global, Milter};

/// Every key, in the order of the manual page.
// A row is easier to compare with its neighbours when it is one line.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("run_dir", Global, Value("/run/pmx"), F::RunDir, "directory of locks and scoreboards, best on tmpfs"),
    key("user", Global, Value("pmx6"), F::User, "the user as which policies run when the program is started as root"),
    key("include", Global, Described("none"), F::Include, "further files with [milter.NAME] tables"),
    key("enabled", Both, Value("true"), F::Flag(|m| &mut m.enabled), "a disabled milter starts only when it is named"),
    key("port", Milter, Required, F::Port, "where the MTA connects"),
    key("policy", Both, Required, F::Policy, "the Lua file that decides"),
    key("max_pooled_procs", Both, Described("number of CPUs, at least 2"), F::Count(0, 4096, |m| &mut m.max_pooled_procs), "largest pool; 0 disables the pool: one process serves all"),
    key("min_pooled_procs", Both, Value("1"), F::Count(1, 4096, |m| &mut m.min_pooled_procs), "children always kept"),
    key("pooled_proc_idle_limit", Both, Value("5m"), F::Time(ms(10), hours(24 * 365), |m| &mut m.pooled_proc_idle_limit), "an idle child above the minimum goes away after this"),
    key("pooled_proc_connect_limit", Both, Value("0"), F::Limit(1_000_000_000_000, |m| &mut m.pooled_proc_connect_limit), "a child retires after so many connections"),
    key("pooled_proc_message_limit", Both, Value("0"), F::Limit(1_000_000_000_000, |m| &mut m.pooled_proc_message_limit), "a child retires after so many messages"),
    key("pooled_proc_age_limit", Both, Value("0"), F::TimeLimit(ms(100), hours(24 * 365), |m| &mut m.pooled_proc_age_limit), "a child retires at this age"),
    key("pooled_proc_rss_limit", Both, Value("0"), F::SizeLimit(MIB, 1024 * GIB, |m| &mut m.pooled_proc_rss_limit), "a child retires above this resident memory"),
    key("interpreters", Both, Described("1 in a pool, the number of CPUs without"), F::Count(1, 256, |m| &mut m.interpreters), "most interpreters in one process"),
    key("interpreter_connections", Both, Value("256"), F::Count(1, 65_536, |m| &mut m.interpreter_connections), "connections that one interpreter carries at once; 1 is exclusive"),
    key("preload_interpreters", Both, Value("1"), F::Count(1, 256, |m| &mut m.preload_interpreters), "interpreters made when a child starts rather than on demand"),
    key("reinit_limit", Both, Value("0"), F::Limit(1_000_000_000_000, |m| &mut m.reinit_limit), "an interpreter is replaced after so many messages"),
    key("interpreter_memory_limit", Both, Value("256M"), F::Size(MIB, 64 * GIB, |m| &mut m.interpreter_memory_limit), "memory that one Lua state may use"),
    key("callback_timeout", Both, Value("8s"), F::Time(ms(10), hours(1), |m| &mut m.callback_timeout), "time from one reply to the next at every stage but end of message"),
    key("eom_timeout", Both, Value("4m"), F::Time(ms(10), hours(24), |m| &mut m.eom_timeout), "time of unanswered body callbacks and end of message together"),
    key("message_size_limit", Both, Value("64M"), F::Size(KIB, 2 * GIB, |m| &mut m.message_size_limit), "headers and body kept for a message; one beyond is deferred"),
    key("socket_mode", Both, Value("0660"), F::Mode(|m| &mut m.socket_mode), "mode of a unix port"),
    key("socket_owner", Both, Described("user"), F::Account(|m| &mut m.socket_owner), "owner of a unix port"),
    key("socket_group", Both, Described("the owner's group"), F::Account(|m| &mut m.socket_group), "group of a unix port"),
    key("status_mode", Both, Value("0640"), F::Mode(|m| &mut m.status_mode), "mode of the scoreboard and the other files in run_dir"),
    key("status_group", Both, Described("the group of user"), F::Account(|m| &mut m.status_group), "group of these files"),
    key("redact", Both, Value("false"), F::Flag(|m| &mut m.redact), "hide names and addresses in the scoreboard and in message_log"),
    key("sandbox", Both, Value("true"), F::Flag(|m| &mut m.sandbox), "confine the children; \"on\" and \"off\" are taken too"),
    key("mta_timeouts", Both, Value("10s,300s"), F::MtaTimeouts, "how long the MTA waits for a command's answer and during the content"),
    key("concurrency_limit", Both, Described("what the pool can carry; without a pool no limit"), F::ConcurrencyLimit { least: 1, most: 10_000_000 }, "connections of the milter at once"),
    key("concurrency_limit_action", Both, Value("wait"), F::Action(|m| &mut m.concurrency_limit_action), "what becomes of a connection beyond concurrency_limit"),
    key("listen_queue_size", Both, Value("128"), F::Count(1, 65_535, |m| &mut m.listen_queue_size), "backlog of the port"),
    key("timeout", Both, Value("7210s"), F::Time(ms(10), hours(24 * 365), |m| &mut m.timeout), "how long to wait for the MTA"),
    key("graceful_timeout", Both, Value("5m"), F::Time(ms(10), hours(24 * 7), |m| &mut m.graceful_timeout), "how long a stop lets connections finish"),
    key("start_timeout", Both, Value("30s"), F::Time(ms(10), hours(1), |m| &mut m.start_timeout), "how long a start waits for the first children"),
    key("umask", Both, Value("0027"), F::Mode(|m| &mut m.umask), "mode bits that created files do not get"),
    key("log_to", Both, Value("journal"), F::LogTo, "where log lines go"),
    key("log_level", Both, Value("info"), F::Level(|m| &mut m.log_level), "the least important line that is written"),
    key("log_utc", Both, Value("false"), F::Flag(|m| &mut m.log_utc), "times of a log file in UTC rather than local time"),
    key("message_log", Both, Value("false"), F::Flag(|m| &mut m.message_log), "one key=value line for each message"),
];

impl Key {
    /// Its type and range as the manual page and the errors put it.
    pub fn values(&self) -> String {
        use super::value::{duration_text, size_text};
        match self.field {
            Field::RunDir | Field::Policy => "a path".to_owned(),
            Field::User | Field::Account(_) => "a name".to_owned(),
            Field::Include => "a list of paths; * and ? may stand in the last part".to_owned(),
            Field::Port => "inet:PORT@HOST, inet6:PORT@HOST, unix:PATH or local:PATH".to_owned(),
            Field::LogTo => "journal, syslog, stderr or file:PATH".to_owned(),
            Field::MtaTimeouts => "two durations and a comma".to_owned(),
            Field::Action(_) => words(ACTIONS),
            Field::Level(_) => words(LEVELS),
            Field::Flag(_) => "true or false".to_owned(),
            Field::Mode(_) => "an octal mode, 0000 to 0777".to_owned(),
            Field::ConcurrencyLimit { least, most } | Field::Count(least, most, _) => {
                format!("{least} to {most}")
            }
            Field::Limit(most, _) => format!("1 to {most}, or 0 for never"),
            Field::Time(least, most, _) => {
                format!("{} to {}", duration_text(least), duration_text(most))
            }
            Field::TimeLimit(least, most, _) => format!(
                "{} to {}, or 0 for never",
                duration_text(least),
                duration_text(most)
            ),
            Field::Size(least, most, _) => format!("{} to {}", size_text(least), size_text(most)),
            Field::SizeLimit(least, most, _) => {
                format!(
                    "{} to {}, or 0 for never",
                    size_text(least),
                    size_text(most)
                )
            }
        }
    }
}

/// `a, b or c`
fn words<T>(table: &[(&str, T)]) -> String {
    let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.join(""),
    }
}
