//! Starting one master: a fork, and a pipe over which it reports until it is ready.
//!
//! Lines of the report: `warning TEXT` any number of times, then `ready PID`, `already PID`, or `failed EXIT TEXT`, whose text runs to the
//! end. A pipe that ends without any of these: the master died.
#![forbid(unsafe_code)]

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::config::MilterConfig;
use crate::master::{Report, Setup};
use crate::run_dir::Paths;
use crate::sys::process::{self, Ended, Forked, PidFd};
use crate::sys::user::{self, Account};

use super::Exit;
use super::stop;

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
    /// It was not ready in time and was ended.
    TimedOut(Duration),
}

/// Beyond `start_timeout`, within which the master itself gives up.
const GRACE: Duration = Duration::from_secs(10);
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
    mut warned: impl FnMut(&str),
) -> io::Result<Outcome> {
    let (reader, writer) = io::pipe()?;
    let pid = match process::fork_single_threaded()? {
        Forked::Parent(pid) => pid,
        Forked::Child => {
            drop(reader);
            process::exit_now(child(how, milter, run_dir, account, writer.into()));
        }
    };
    drop(writer);
    let limit = milter.start_timeout + GRACE;
    let outcome = follow(reader, Instant::now() + limit, &mut warned);
    let paths = Paths::new(run_dir, &milter.name);
    Ok(match outcome {
        Some(Ok(ready @ Outcome::Ready(_))) => ready,
        Some(Ok(other)) => {
            end(pid);
            other
        }
        Some(Err(())) => {
            let how = end(pid);
            stop::end_now(&paths);
            Outcome::Died(how)
        }
        None => {
            stop::end_now(&paths);
            end(pid);
            Outcome::TimedOut(limit)
        }
    })
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
        let text = format!(
            "failed {} cannot become user {}: {error}\n",
            Exit::Permission.code(),
            user.name
        );
        // The parent reads until the end; should this fail, it says that we died.
        let _ = io::Write::write_all(&mut std::fs::File::from(report), text.as_bytes());
        return i32::from(Exit::Permission.code());
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
fn end(pid: Pid) -> String {
    // Not reaped yet, so the pid is still our child's.
    if let Ok(handle) = PidFd::open(pid)
        && !handle.wait(ENDING)
    {
        // It ends now or is beyond help: the wait below tells.
        let _ = handle.signal(nix::sys::signal::Signal::SIGKILL);
    }
    match process::wait_for(pid) {
        Some(Ended::Exited(status)) => format!("exit status {status}"),
        Some(Ended::Signalled(number)) => match nix::sys::signal::Signal::try_from(number) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {number}"),
        },
        None => "nobody knows how".to_owned(),
    }
}

/// Reads the report. `None` when the time is over, `Err` when it ended without an outcome.
pub(super) fn follow(
    mut pipe: PipeReader,
    deadline: Instant,
    warned: &mut impl FnMut(&str),
) -> Option<Result<Outcome, ()>> {
    let mut report = Lines::default();
    let mut chunk = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        // Rounded up: a poll of 0 ms would spin.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1));
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX)) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(_) => return Some(Err(())),
        }
        let got = match pipe.read(&mut chunk) {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Some(Err(())),
        };
        if got == 0 {
            return Some(report.at_end().ok_or(()));
        }
        if let Some(outcome) = report.feed(&chunk[..got], warned) {
            return Some(Ok(outcome));
        }
    }
}

/// The report so far.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    failed: bool,
}

impl Lines {
    /// More of it. The outcome as soon as it is known; a failure's text only [`Lines::at_end`].
    fn feed(&mut self, more: &[u8], warned: &mut impl FnMut(&str)) -> Option<Outcome> {
        let room = REPORT_BYTES.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&more[..more.len().min(room)]);
        while !self.failed {
            let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
            let line = String::from_utf8_lossy(&self.bytes[..end]).into_owned();
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match word {
                "warning" => warned(rest),
                "ready" => return Some(Outcome::Ready(rest.trim().parse().unwrap_or(0))),
                "already" => return Some(Outcome::Already(rest.trim().parse().unwrap_or(0))),
                "failed" => {
                    self.failed = true;
                    break;
                }
                _ => {}
            }
            self.bytes.drain(..=end);
        }
        None
    }

    /// The pipe has ended.
    fn at_end(&self) -> Option<Outcome> {
        let text = String::from_utf8_lossy(&self.bytes);
        let rest = text.strip_prefix("failed ")?;
        let (code, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let code = code.trim().parse().unwrap_or(1);
        Some(Outcome::Failed(
            Exit::from_code(code),
            text.trim_end().to_owned(),
        ))
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
            let mut warned = |text: &str| warnings.push(text.to_owned());
            if let Some(outcome) = lines.feed(part.as_bytes(), &mut warned) {
                return (Some(outcome), warnings);
            }
        }
        (lines.at_end(), warnings)
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
        let (outcome, _) = read(&["failed 6 p.lua:1: bad\ntrace", "back\nready 1\n"]);
        assert_eq!(
            outcome,
            Some(Outcome::Failed(
                Exit::NotConfigured,
                "p.lua:1: bad\ntraceback\nready 1".to_owned()
            ))
        );
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
            Instant::now() + Duration::from_secs(60),
            &mut |_: &str| {},
        );
        assert_eq!(end, Some(Err(())));
    }

    #[test]
    fn a_silent_master_is_given_up_at_the_deadline() {
        let (reader, _writer) = io::pipe().unwrap();
        let deadline = Instant::now() + Duration::from_millis(20);
        assert_eq!(follow(reader, deadline, &mut |_: &str| {}), None);
    }
}
