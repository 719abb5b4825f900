//! Starting one master: a fork, and a pipe over which it reports until it is ready.
//!
//! The report is any number of warnings and then one outcome ([`Line`]). A pipe that ends without one: the master died.
#![forbid(unsafe_code)]

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::config::{MilterConfig, Port};
use crate::master::{Line, Report, Setup};
use crate::run_dir::Paths;
use crate::sys::process::{self, Ended, Forked, PidFd};
use crate::sys::signal::{self, Held};
use crate::sys::user::{self, Account};

use super::Exit;
use super::{leftovers, running, stop};

/// The entry of a master, handed over by `main`.
pub type MasterMain = fn(Setup) -> i32;

/// What becomes of root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsRoot {
    /// The master keeps its uid, and its children become the configured user: they cannot touch its board.
    MasterStays,
    /// The master becomes the configured user altogether (`pmx-init`).
    BecomeUser,
}

/// How masters are started.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// Their entry.
    pub main: MasterMain,
    /// What becomes of root.
    pub as_root: AsRoot,
}

/// What a start came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It serves; its pid.
    Ready(i32),
    /// Another master of this milter serves; its pid.
    Already(i32),
    /// It gave up and cleaned up: why.
    Failed(Exit, String),
    /// It ended without a word: how.
    Died(String),
    /// We were told to end, and ended it.
    Interrupted(Signal),
    /// It was not ready in time and was ended.
    TimedOut(Duration),
}

/// What is heard of a master before it is ready.
pub(super) enum News<'a> {
    /// Something is not as it should be.
    Warning(&'a str),
    /// Nothing; several times a second.
    NotYet,
}

/// How often that is.
const MEANWHILE: Duration = Duration::from_millis(200);
/// Beyond `start_timeout`, within which the master itself gives up.
const GRACE: Duration = Duration::from_secs(10);
/// How long a master that is told to leave may take to do so by itself.
const LEAVING: Duration = Duration::from_secs(3);
/// How long a master that reported a failure may take to end.
const ENDING: Duration = Duration::from_secs(10);
/// The longest report; a policy's traceback fits many times.
const REPORT_BYTES: usize = 256 << 10;

/// Forks a master and waits for its report; nothing of it is left unless it is ready. `account`: the configured user, for root.
///
/// # Errors
/// When no process can be made.
pub(super) fn launch(
    how: Launch,
    milter: &MilterConfig,
    run_dir: &Path,
    account: Option<&Account>,
    mut told: impl FnMut(News<'_>),
) -> io::Result<Outcome> {
    let (reader, writer) = io::pipe()?;
    // From here on a Ctrl-C must not leave behind a master that comes up when its starter has gone: it is in a session of its own.
    let interrupts = signal::hold(&[Signal::SIGINT, Signal::SIGTERM])?;
    let pid = match process::fork_single_threaded()? {
        Forked::Parent(pid) => pid,
        Forked::Child => {
            drop((reader, interrupts));
            process::close_inherited(Some(writer.as_fd()));
            process::exit_now(child(how, milter, run_dir, account, writer.into()));
        }
    };
    drop(writer);
    let limit = milter.start_timeout + GRACE;
    let outcome = follow(reader, &interrupts, Instant::now() + limit, &mut told);
    let paths = Paths::new(run_dir, &milter.name);
    Ok(match outcome {
        Some(Ok(ready @ Outcome::Ready(_))) => ready,
        Some(Ok(Outcome::Interrupted(signal))) => {
            abandon(pid, milter, &paths);
            Outcome::Interrupted(signal)
        }
        Some(Ok(other)) => {
            end(pid);
            other
        }
        Some(Err(())) => {
            let how = end(pid);
            let masters = running::processes(&paths).unwrap_or_default();
            // Another start may have been faster: that milter is not ours to end.
            if !masters.iter().any(|process| process.is_master) {
                stop::end_now(&paths);
            }
            Outcome::Died(how)
        }
        None => {
            abandon(pid, milter, &paths);
            Outcome::TimedOut(limit)
        }
    })
}

/// Ends a master that is not to come up any more, with its children and what it made; nobody else's.
fn abandon(pid: Pid, milter: &MilterConfig, paths: &Paths) {
    let mut children = Vec::new();
    // Our child, and not yet reaped: the pid cannot be anybody else's.
    if let Ok(master) = PidFd::open(pid) {
        // Its own way out first.
        let _ = master.signal(Signal::SIGINT);
        if !master.wait(LEAVING) {
            let _ = master.signal(Signal::SIGSTOP);
            children = stop::children_of(pid);
            let _ = master.signal(Signal::SIGKILL);
        }
    }
    for child in &children {
        let _ = child.signal(Signal::SIGKILL);
    }
    end(pid);
    for child in &children {
        child.wait(ENDING);
    }
    // What cannot be removed is removed by the next start or stop, which can say why not.
    let _ = leftovers::remove(paths);
    if let Port::Unix(socket) = &milter.port
        && !running::is_there(paths)
    {
        let _ = leftovers::remove_socket(socket);
    }
}

/// The child's side: never returns to the caller's story.
fn child(
    how: Launch,
    milter: &MilterConfig,
    run_dir: &Path,
    account: Option<&Account>,
    report: OwnedFd,
) -> i32 {
    let mut account = account.cloned();
    if how.as_root == AsRoot::BecomeUser
        && let Some(user) = account.take()
        && let Err(error) = user::become_account(&user)
    {
        let status = i32::from(Exit::Permission.code());
        let text = format!(
            "milter {}: cannot become user {}: {error}",
            milter.name, user.name
        );
        Report::to_pipe(report).last(&Line::Failed(status, text));
        return status;
    }
    (how.main)(Setup {
        milter: milter.clone(),
        run_dir: run_dir.to_owned(),
        account,
        foreground: false,
        report: Report::to_pipe(report),
    })
}

/// Waits for our child to end, and ends it if it does not; says how it ended.
pub(super) fn end(pid: Pid) -> String {
    // Not reaped yet, so the pid is still our child's.
    if let Ok(handle) = PidFd::open(pid)
        && !handle.wait(ENDING)
    {
        // It ends now or is beyond help: the wait below tells.
        let _ = handle.signal(Signal::SIGKILL);
    }
    match process::wait_for(pid) {
        Some(Ended::Exited(status)) => format!("exit status {status}"),
        Some(Ended::Signalled(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {number}"),
        },
        None => "nobody knows how".to_owned(),
    }
}

/// Reads the report. `None` when the time is over, `Err` when it ended without an outcome.
fn follow(
    mut pipe: PipeReader,
    interrupts: &Held,
    deadline: Instant,
    told: &mut impl FnMut(News<'_>),
) -> Option<Result<Outcome, ()>> {
    let mut report = Lines::default();
    let mut chunk = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        // Rounded up: a poll of 0 ms would spin.
        let timeout = PollTimeout::try_from(left.min(MEANWHILE) + Duration::from_millis(1));
        let mut fds = [
            PollFd::new(pipe.as_fd(), PollFlags::POLLIN),
            PollFd::new(interrupts.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX)) {
            Ok(0) => {
                told(News::NotYet);
                continue;
            }
            Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(_) => return Some(Err(())),
        }
        if let Some(signal) = interrupts.take() {
            return Some(Ok(Outcome::Interrupted(signal)));
        }
        if fds[0].revents() == Some(PollFlags::empty()) {
            continue;
        }
        let got = match pipe.read(&mut chunk) {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Some(Err(())),
        };
        if got == 0 {
            return Some(Err(()));
        }
        if let Some(outcome) = report.feed(&chunk[..got], told) {
            return Some(Ok(outcome));
        }
    }
}

/// The report so far.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// More of it. The outcome as soon as it is known.
    fn feed(&mut self, more: &[u8], told: &mut impl FnMut(News<'_>)) -> Option<Outcome> {
        self.0.extend_from_slice(more);
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.0.drain(..=end).collect();
            match Line::decode(String::from_utf8_lossy(&line).trim_end_matches('\n')) {
                Some(Line::Warning(text)) => told(News::Warning(&text)),
                Some(Line::Ready(pid)) => return Some(Outcome::Ready(pid)),
                Some(Line::Already(pid)) => return Some(Outcome::Already(pid)),
                Some(Line::Failed(status, text)) => {
                    return Some(Outcome::Failed(Exit::from_code(status), text));
                }
                Some(Line::Changed(_)) | None => {}
            }
        }
        // A master does not write so much without a line's end.
        self.0.truncate(REPORT_BYTES);
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;

    fn read(parts: &[&str]) -> (Option<Outcome>, Vec<String>) {
        let (mut lines, mut warnings) = (Lines::default(), Vec::new());
        for part in parts {
            let mut told = |news: News<'_>| match news {
                News::Warning(text) => warnings.push(text.to_owned()),
                News::NotYet => {}
            };
            if let Some(outcome) = lines.feed(part.as_bytes(), &mut told) {
                return (Some(outcome), warnings);
            }
        }
        (None, warnings)
    }

    #[test]
    fn a_report_is_understood_however_it_is_cut() {
        let whole = "warning one\nwarning two words\nready 4711\n";
        for cut in 0..whole.len() {
            let (outcome, warnings) = read(&[&whole[..cut], &whole[cut..]]);
            assert_eq!(outcome, Some(Outcome::Ready(4711)));
            assert_eq!(warnings, ["one", "two words"]);
        }
    }

    #[test]
    fn a_failure_keeps_all_its_lines_and_its_exit_status() {
        let (outcome, _) = read(&["failed 6 p.lua:1: bad\\ntraceback\n"]);
        let text = "p.lua:1: bad\ntraceback".to_owned();
        assert_eq!(outcome, Some(Outcome::Failed(Exit::NotConfigured, text)));
        assert_eq!(read(&["already 12\n"]).0, Some(Outcome::Already(12)));
    }

    #[test]
    fn a_report_that_ends_without_an_outcome_is_a_death() {
        for text in ["", "warning x\n", "ready 1", "nonsense\n"] {
            assert_eq!(read(&[text]).0, None, "{text:?}");
        }
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"warning x\n").unwrap();
        drop(writer);
        let end = follow(
            reader,
            &signal::hold(&[]).unwrap(),
            Instant::now() + Duration::from_secs(60),
            &mut |_: News<'_>| {},
        );
        assert_eq!(end, Some(Err(())));
    }

    #[test]
    fn a_silent_master_is_given_up_at_the_deadline() {
        let (reader, _writer) = io::pipe().unwrap();
        let deadline = Instant::now() + Duration::from_millis(20);
        let interrupts = signal::hold(&[]).unwrap();
        assert_eq!(
            follow(reader, &interrupts, deadline, &mut |_: News<'_>| {}),
            None
        );
    }
}
