//! The side of a restart that goes: the program that is to take over tries it in a process of its own, and only then does this process
//! become that program.
//!
//! Nothing waits: the trial says over a pipe what it thinks, while mail goes on. Executing keeps the process, and with it the pid, the
//! children, the locks (fcntl(2): record locks are preserved across execve) and every descriptor that is not marked to close, so that
//! nothing has to be handed from one master to another and no instant is without one. (The other way, a new master that gets the
//! descriptors over a socket, would be nobody's parent: it could not reap the children, whose locks and deaths tell it what they are.)
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::report::Line;
use super::takeover::{TAKEOVER, TRIAL};
use super::{Master, turn};
use crate::run_dir::request::Request;
use crate::sys::exec::{self, AcrossExec};
use crate::sys::process::{self, Ended, Forked};

/// The longest trial. The policy's checker has a bound of its own below it.
const LONGEST: Duration = Duration::from_secs(120);
/// The most that a trial says.
const MOST_BYTES: usize = 256 << 10;
/// What is read of it at once, and how often in one turn: one that never ends holds up nobody.
const CHUNK: usize = 4096;
const MOST_CHUNKS: usize = 64;
/// A trial that goes on.
#[derive(Debug)]
pub(super) struct Trial {
    request: Box<Request>,
    pid: Pid,
    /// Executed once it passed: the same file as was tried.
    program: OwnedFd,
    plan: OwnedFd,
    pipe: PipeReader,
    said: Vec<u8>,
    /// Nothing more is read of it.
    over: bool,
    ended: Option<Ended>,
    pub(super) deadline: Instant,
}

/// What a trial came to.
enum Judgement {
    Passed,
    Failed(i32, String),
}

impl Master {
    pub(super) fn try_out(
        &mut self,
        request: Box<Request>,
        asker: Pid,
        now: Instant,
    ) -> io::Result<()> {
        let program = exec::open_program(&request.program)?;
        if !exec::may_replace_us(&program, asker)? {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it is neither root's nor the program that asks; install it as root, or run restart from that very file",
            ));
        }
        let state = exec::sealed(&self.hand_over(now).encode()?)?;
        let asked = exec::sealed(&serde_json::to_vec(&*request)?)?;
        let plan = exec::memory()?;
        let (pipe, theirs) = io::pipe()?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let name = self.milter.name.to_string();
        let master = Pid::this();
        match process::fork_single_threaded()? {
            Forked::Child => {
                let error =
                    self.become_trial(master, &request, [&program, &state, &asked, &plan], &theirs);
                let text = format!(
                    "milter {name}: {} cannot be executed: {error}",
                    request.program.display()
                );
                let line = Line::Failed(1, text).encode();
                let _ =
                    io::Write::write_all(&mut File::from(OwnedFd::from(theirs)), line.as_bytes());
                process::exit_now(1);
            }
            Forked::Parent(pid) => {
                drop(theirs);
                let event = EpollEvent::new(EpollFlags::EPOLLIN, turn::TRIAL);
                if let Err(error) = self.epoll.add(&pipe, event) {
                    // Not reaped: the pid is our child's.
                    let _ = kill(pid, Signal::SIGKILL);
                    return Err(error.into());
                }
                self.trial = Some(Trial {
                    request,
                    pid,
                    program,
                    plan,
                    pipe,
                    said: Vec::new(),
                    over: false,
                    ended: None,
                    deadline: now + LONGEST,
                });
                Ok(())
            }
        }
    }

    /// In the child: becomes the program that tries out. Returns only when that failed.
    fn become_trial(
        &self,
        master: Pid,
        request: &Request,
        [program, state, asked, plan]: [&OwnedFd; 4],
        report: &io::PipeWriter,
    ) -> io::Error {
        if !process::die_with_parent(master) {
            return io::Error::other("its master is gone");
        }
        let prepared = nix::unistd::dup2_stdout(report)
            .and_then(|()| nix::unistd::dup2_stderr(report))
            .map_err(io::Error::from)
            .and_then(|()| self.across_exec(AcrossExec::Stays))
            .and_then(|()| {
                [state, asked, plan]
                    .into_iter()
                    .try_for_each(|fd| exec::across_exec(fd.as_fd(), AcrossExec::Stays))
            });
        if let Err(error) = prepared {
            return error;
        }
        let numbers = [state, asked, plan].map(|fd| exec::number(fd).to_string());
        let [state, asked, plan] = &numbers;
        exec::become_program(
            program,
            &[
                request.program.as_os_str(),
                OsStr::new(TRIAL),
                OsStr::new(state),
                OsStr::new(plan),
                OsStr::new(asked),
                OsStr::new(&self.milter.name.to_string()),
            ],
        )
    }

    /// Reads what the trial says.
    pub(super) fn listen_to_trial(&mut self) {
        let Some(trial) = &mut self.trial else {
            return;
        };
        let mut chunk = [0; CHUNK];
        for _ in 0..MOST_CHUNKS {
            if trial.over {
                return;
            }
            match trial.pipe.read(&mut chunk) {
                Ok(count) => {
                    trial.said.extend_from_slice(&chunk[..count]);
                    trial.over = count == 0 || trial.said.len() > MOST_BYTES;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => trial.over = true,
            }
            if trial.over {
                // What has ended is ready all the time.
                let _ = self.epoll.delete(&trial.pipe);
            }
        }
    }

    /// Becomes the program whose trial has passed. Returns when there is none, or it came to nothing.
    pub(super) fn follow_trial(&mut self, now: Instant) {
        if self.trial.as_ref().is_some_and(|it| it.ended.is_some()) {
            // What it said before it ended may not have been read yet.
            self.listen_to_trial();
        }
        let Some(trial) = &self.trial else {
            return;
        };
        let failed = |what: std::fmt::Arguments<'_>| {
            let program = trial.request.program.display();
            Judgement::Failed(1, format!("milter {}: {program} {what}", self.milter.name))
        };
        let judgement = if trial.said.len() > MOST_BYTES {
            failed(format_args!(
                "says more in its trial than {} KiB; is it pmx-milter?",
                MOST_BYTES >> 10
            ))
        } else if let Some(ended) = trial.ended {
            judge(&self.milter.name.to_string(), trial, ended)
        } else if now >= trial.deadline {
            failed(format_args!(
                "did not end its trial within {} s",
                LONGEST.as_secs()
            ))
        } else {
            return;
        };
        let Some(trial) = self.end_trial() else {
            return;
        };
        let (status, text) = match judgement {
            Judgement::Failed(status, text) => (status, text),
            Judgement::Passed => {
                let error = self.become_next(&trial, now);
                // Everything is as it was.
                if let Err(error) = self.across_exec(AcrossExec::Closed) {
                    log::error!("descriptors stay open when a program is executed: {error}");
                }
                let text = format!(
                    "milter {}: {} cannot take over: {error}",
                    self.milter.name,
                    trial.request.program.display()
                );
                (1, text)
            }
        };
        self.refuse(&trial.request.id, status, &text);
    }

    /// The trial's process goes, if it is still there.
    fn end_trial(&mut self) -> Option<Trial> {
        let trial = self.trial.take()?;
        if !trial.over {
            let _ = self.epoll.delete(&trial.pipe);
        }
        if trial.ended.is_none() {
            // Not reaped: the pid is our child's.
            let _ = kill(trial.pid, Signal::SIGKILL);
        }
        Some(trial)
    }

    /// A process that was no child of the pool has been reaped: its pid may be anybody's from now on.
    pub(super) fn reaped_trial(&mut self, pid: Pid, ended: Ended) {
        if let Some(trial) = &mut self.trial
            && trial.pid == pid
            && trial.ended.is_none()
        {
            trial.ended = Some(ended);
        }
    }

    /// Another life begins for this process. Returns only when that failed.
    fn become_next(&mut self, trial: &Trial, now: Instant) -> io::Error {
        self.answer_exchange_before_another();
        log::info!(
            "milter {}: {} takes over",
            self.milter.name,
            trial.request.program.display()
        );
        self.books.publish_global();
        let prepared = || -> io::Result<OwnedFd> {
            let state = exec::sealed(&self.hand_over(now).encode()?)?;
            exec::across_exec(state.as_fd(), AcrossExec::Stays)?;
            exec::across_exec(trial.plan.as_fd(), AcrossExec::Stays)?;
            self.across_exec(AcrossExec::Stays)?;
            Ok(state)
        };
        let state = match prepared() {
            Ok(state) => state,
            Err(error) => return error,
        };
        exec::become_program(
            &trial.program,
            &[
                trial.request.program.as_os_str(),
                OsStr::new(TAKEOVER),
                OsStr::new(&exec::number(&state).to_string()),
                OsStr::new(&exec::number(&trial.plan).to_string()),
                OsStr::new(&self.milter.name.to_string()),
            ],
        )
    }

    /// The milter is being stopped: nobody takes over any more.
    pub(super) fn give_up_trial(&mut self) {
        if let Some(trial) = self.end_trial() {
            let text = format!("milter {}: it is being stopped", self.milter.name);
            self.refuse(&trial.request.id, 1, &text);
        }
    }
}

/// What the trial's words come to, and its end. A program that does not know what a trial is says something else, which is told as it stands.
fn judge(name: &str, trial: &Trial, ended: Ended) -> Judgement {
    let text = String::from_utf8_lossy(&trial.said);
    let mut other = None;
    for line in text.lines() {
        match Line::decode(line) {
            Some(Line::Ready(_)) => match (ended, exec::is_sealed(&trial.plan)) {
                (Ended::Exited(0), Ok(true)) => return Judgement::Passed,
                (Ended::Exited(0), _) => other = Some("its plan could still be changed"),
                _ => other = Some("its trial did not end well"),
            },
            Some(Line::Failed(status, text)) => return Judgement::Failed(status, text),
            Some(Line::Warning(_) | Line::Already(_) | Line::Changed(_)) => {}
            None if other.is_none() && !line.trim().is_empty() => other = Some(line.trim()),
            None => {}
        }
    }
    let why = other.unwrap_or("it ended without a word");
    let text = format!(
        "milter {name}: {} cannot take over from version {}: {why}; stop and start the milter instead",
        trial.request.program.display(),
        env!("CARGO_PKG_VERSION")
    );
    Judgement::Failed(1, text)
}
