//! Log lines: one event, one line, to the journal, syslog, standard error or a file. Behind the macros of the `log` crate.
//!
//! There is no thread, which would die at fork, and nothing here waits: a line that cannot be written at once is counted, and the next one
//! that can says how many were lost. The master calls [`start`] before it forks; children inherit the open sink.
//! A record's `queue_id` (`log::info!(queue_id = id; "...")`) becomes the journal's field QUEUE_ID.
#![forbid(unsafe_code)]

mod file;
mod line;
mod sink;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::log::{LevelFilter, Log, Metadata, Record};

use crate::config::{LogLevel, LogTo, MilterName};
use line::{Line, Severity};
use sink::{Journal, Settings};

/// Where the lines go, now that it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogChoice {
    /// What is used.
    pub used: LogTo,
    /// Why it is not what `log_to` names, if it is not: a line for the operator.
    pub instead: Option<String>,
}

impl fmt::Display for LogChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.used {
            LogTo::Journal => f.write_str("the journal"),
            LogTo::Syslog => f.write_str("syslog"),
            LogTo::Stderr => f.write_str("standard error"),
            LogTo::File(path) => path.display().fmt(f),
        }?;
        self.instead
            .as_ref()
            .map_or(Ok(()), |why| write!(f, " ({why})"))
    }
}

/// Could [`start`] open the file that `to` names? Nothing is made. Journal and syslog have a last resort and are not asked.
///
/// # Errors
/// When it could not.
pub fn would_start(to: &LogTo) -> Result<(), LogError> {
    match to {
        LogTo::File(path) => file::probe(path).map_err(|error| LogError {
            file: path.clone(),
            error,
            instead: None,
        }),
        LogTo::Journal | LogTo::Syslog | LogTo::Stderr => Ok(()),
    }
}

/// No place takes log lines.
#[derive(Debug)]
pub struct LogError {
    file: PathBuf,
    error: io::Error,
    instead: Option<String>,
}

impl LogError {
    /// What the kernel said.
    pub fn cause(&self) -> &io::Error {
        &self.error
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.instead {
            write!(f, "{why}; ")?;
        }
        write!(
            f,
            "cannot write the log file {}: {}; mend it, or set log_to in pmx.conf",
            self.file.display(),
            self.error
        )
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// The one logger of a process.
struct Logger;

static LOGGER: Logger = Logger;
static JOURNAL: Mutex<Option<Journal>> = Mutex::new(None);
/// Beside the journal, so that it can be read for each message without its lock. Relaxed: it orders nothing.
static LOST: AtomicU64 = AtomicU64::new(0);

/// A panic elsewhere while a line was written leaves a journal that still works.
fn journal() -> MutexGuard<'static, Option<Journal>> {
    JOURNAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to log: opens the sink that `to` names, or if there is none the next of journal, syslog and `run_dir/NAME.log`, and makes it
/// the target of the `log` crate's macros. Called again, it replaces the sink. The caller has one thread: the time zone is settled as well.
///
/// `utc`: times of standard error and files in UTC. `owner` (user, group): whose a log file becomes when root creates it.
///
/// # Errors
/// When a file, named by `to` or the last resort, cannot be opened.
pub fn start(
    to: &LogTo,
    level: LogLevel,
    utc: bool,
    milter: &MilterName,
    run_dir: &Path,
    owner: Option<(u32, u32)>,
) -> Result<LogChoice, LogError> {
    // Before anything forks or is confined, also after a restart, and whatever becomes of the sink: policies ask for local time too.
    crate::sys::calendar::settle_zone();
    let (opened, choice) = Journal::open(Settings {
        to: to.clone(),
        utc,
        milter: milter.to_string(),
        last_resort: run_dir.join(format!("{milter}.log")),
        owner,
    })?;
    *journal() = Some(opened);
    // It is set already when start is called again.
    let _ = ::log::set_logger(&LOGGER);
    ::log::set_max_level(match level {
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
    });
    Ok(choice)
}

/// Opens the sink anew (USR1, after a log file was renamed). If that fails, the old one goes on and says why.
pub fn reopen() {
    if let Some(journal) = journal().as_mut() {
        journal.reopen();
    }
}

/// The open log file, once more, for a child that may open none itself. `None`: the log is no file.
///
/// # Errors
/// When descriptors are short.
pub fn file() -> io::Result<Option<OwnedFd>> {
    let journal = journal();
    let file = journal.as_ref().and_then(Journal::file);
    file.map(|file| file.as_fd().try_clone_to_owned())
        .transpose()
}

/// The log goes on in a file that somebody else opened (USR1, in a child).
pub fn go_on_in(file: OwnedFd) {
    if let Some(journal) = journal().as_mut() {
        journal.go_on_in(file.into());
    }
}

/// Number of the descriptor that is open for the log beside the standard ones, for whoever closes all others.
pub fn descriptor() -> Option<RawFd> {
    let journal = journal();
    let descriptor = journal.as_ref().and_then(Journal::descriptor);
    descriptor.map(|fd| fd.as_raw_fd())
}

/// Lines that this process could not write, since it began.
pub fn lost_lines() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Why the last lines could not be written, if they could not.
pub fn why_lost() -> Option<String> {
    journal().as_ref().and_then(Journal::why_lost)
}

/// To be called by a child: what its master lost is not its own loss.
pub fn begin_in_child() {
    LOST.store(0, Ordering::Relaxed);
    if let Some(journal) = journal().as_mut() {
        journal.forget_losses();
    }
}

/// A line of `message_log`: whatever the level, the operator asked for it.
pub fn message(text: &str) {
    if let Some(journal) = journal().as_mut() {
        journal.write(&Line::new(Severity::Info, text, None));
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= ::log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        let queue_id = record
            .key_values()
            .get("queue_id".into())
            .map(|id| id.to_string());
        let severity = Severity::from(record.level());
        if let Some(journal) = journal().as_mut() {
            journal.write(&Line::new(severity, &text, queue_id.as_deref()));
        }
    }

    fn flush(&self) {}
}
