//! The checker: a short-lived process that reads a policy as an unprivileged user, tries its top level, and hands its bytes back over a pipe.
//!
//! `start`, `restart`, `check`, `try` and `demo` come through here, so that no line of a policy runs as root or in a master. The caller
//! has one thread. A checker that hangs in native code is killed.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::policy::{self, Bundle, Limits, PolicyError};
use crate::sys::landlock::Files;
use crate::sys::process::{self, Ended, Forked, PidFd};
use crate::sys::sandbox;
use crate::sys::signal;
use crate::sys::user::{Account, become_account};

/// What the checker has beyond `callback_timeout`: reading files, building the Lua state, a busy machine.
const GRACE: Duration = Duration::from_secs(10);
/// How often whoever waits for the answer may do something else.
const MEANWHILE: Duration = Duration::from_millis(200);
/// The most that comes back: a bundle's own bound and a little.
const MOST_BYTES: u64 = 513 << 20;
/// First byte of an answer: a bundle follows, or a text.
const GOOD: u8 = b'+';
const BAD: u8 = b'-';

/// What a checker keeps of whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Everything: a policy's path may name a descriptor, and the log is open.
    Everything,
    /// Only the pipe for its answer: a policy that breaks out of Lua there must not reach what its asker works with.
    Nothing,
}

/// Why a policy cannot be used.
#[derive(Debug)]
pub enum CheckError {
    /// It is wrong: message with file and line.
    Policy(String),
    /// The checker itself could not run.
    System(PathBuf, io::Error),
    /// It did not end.
    Hung(PathBuf, Duration),
    /// It died.
    Died(PathBuf, Option<Ended>),
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckError::Policy(text) => f.write_str(text),
            CheckError::System(path, error) => {
                write!(f, "cannot check policy {}: {error}", path.display())
            }
            CheckError::Hung(path, limit) => write!(
                f,
                "policy {} did not end its top level within {} s and was killed; move long work out of the top level",
                path.display(),
                limit.as_secs()
            ),
            CheckError::Died(path, Some(Ended::Signalled(signal))) => {
                write!(
                    f,
                    "the process that checked policy {} was ended by signal {signal}",
                    path.display()
                )
            }
            CheckError::Died(path, Some(Ended::Exited(status))) => {
                write!(
                    f,
                    "the process that checked policy {} ended with status {status} and no answer",
                    path.display()
                )
            }
            CheckError::Died(path, None) => {
                write!(
                    f,
                    "the process that checked policy {} ended without an answer",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for CheckError {}

/// Checks a policy in a process of its own, as `account` when we are root.
///
/// # Errors
/// See [`CheckError`].
pub fn check(
    path: &Path,
    limits: &Limits,
    account: Option<&Account>,
    keeps: Keeps,
) -> Result<Bundle, CheckError> {
    check_and_meanwhile(path, limits, account, keeps, |_| {})
}

/// The same; `meanwhile` is called several times a second until the answer is there, with the time that it may take at most.
///
/// # Errors
/// See [`CheckError`].
pub fn check_and_meanwhile(
    path: &Path,
    limits: &Limits,
    account: Option<&Account>,
    keeps: Keeps,
    mut meanwhile: impl FnMut(Duration),
) -> Result<Bundle, CheckError> {
    let system = |error: io::Error| CheckError::System(path.to_owned(), error);
    let (ours, theirs) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|error| system(error.into()))?;
    let asker = Pid::this();
    match process::fork_single_threaded().map_err(system)? {
        Forked::Child => {
            drop(ours);
            if keeps == Keeps::Nothing {
                process::close_inherited(Some(theirs.as_fd()));
                if process::detach_stdio().is_err() {
                    process::exit_now(1);
                }
            }
            let answered =
                std::panic::catch_unwind(|| answer(path, limits, (account, asker), theirs));
            process::exit_now(i32::from(answered.is_err()));
        }
        Forked::Parent(pid) => {
            drop(theirs);
            let limit = limits.callback_timeout + GRACE;
            let bytes = receive(ours, Instant::now() + limit, || meanwhile(limit));
            if bytes.is_err()
                && let Ok(process) = PidFd::open(pid)
            {
                // It is our own child and not yet reaped: the pid cannot be anybody else's. If it is gone already, all the better.
                let _ = process.signal(Signal::SIGKILL);
            }
            let ended = process::wait_for(pid);
            match bytes {
                Ok(bytes) => read_answer(path, &bytes, ended),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    Err(CheckError::Hung(path.to_owned(), limit))
                }
                Err(error) => Err(system(error)),
            }
        }
    }
}

/// The checker's side.
fn answer(path: &Path, limits: &Limits, (account, asker): (Option<&Account>, Pid), pipe: OwnedFd) {
    let result = prepare(account, asker)
        .map_err(|error| format!("cannot check policy {}: {error}", path.display()))
        .and_then(|()| policy::check_here(path, limits).map_err(|error| describe(&error, account)));
    let (first, bytes) = match &result {
        Ok(bundle) => (GOOD, bundle.encode()),
        Err(text) => (BAD, text.clone().into_bytes()),
    };
    let mut pipe = File::from(pipe);
    // A parent that has gone needs no answer.
    let _ = pipe
        .write_all(&[first])
        .and_then(|()| pipe.write_all(&bytes));
}

fn prepare(account: Option<&Account>, asker: Pid) -> io::Result<()> {
    signal::reset_in_child()?;
    process::set_name("pmx-checker");
    if let Some(account) = account {
        become_account(account)?;
    }
    // After the change of user, which takes it back. Nobody wants to know any more what it would find out.
    if !process::die_with_parent(asker) {
        return Err(io::Error::other("whoever asked is gone"));
    }
    // Best effort: a kernel without seccomp runs the top level all the same, as it will run the callbacks.
    let _ = sandbox::enter(Files::Read);
    if crate::sys::user::effective_uid() == 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "a policy never runs as root",
        ));
    }
    Ok(())
}

fn describe(error: &PolicyError, account: Option<&Account>) -> String {
    match (error, account) {
        (PolicyError::Read { error: cause, .. }, Some(account))
            if cause.kind() == io::ErrorKind::PermissionDenied =>
        {
            format!(
                "{error}; it is read as user {}, who must be able to read it and pass its directories",
                account.name
            )
        }
        _ => error.to_string(),
    }
}

fn receive(pipe: OwnedFd, deadline: Instant, mut meanwhile: impl FnMut()) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut pipe = File::from(pipe);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let timeout = PollTimeout::try_from(left.min(MEANWHILE)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => {
                meanwhile();
                continue;
            }
            Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let count = pipe.read(&mut buffer)?;
        if count == 0 {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&buffer[..count]);
        if bytes.len() as u64 > MOST_BYTES {
            return Err(io::Error::other("it sent too much"));
        }
    }
}

fn read_answer(path: &Path, bytes: &[u8], ended: Option<Ended>) -> Result<Bundle, CheckError> {
    match bytes.split_first() {
        Some((&GOOD, bundle)) if ended == Some(Ended::Exited(0)) => {
            Bundle::decode(bundle).map_err(|error| CheckError::Policy(error.to_string()))
        }
        Some((&BAD, text)) => Err(CheckError::Policy(
            String::from_utf8_lossy(text).into_owned(),
        )),
        _ => Err(CheckError::Died(path.to_owned(), ended)),
    }
}
