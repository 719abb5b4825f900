//! What becomes of a restart that was asked for: the master's answer, or what the board says while there is none.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::config::MilterConfig;
use crate::master::Line;
use crate::run_dir::request::{Asked, Request};
use crate::run_dir::{Paths, answer};

use super::super::patience::Patience;
use super::super::running::Process;
use super::super::terminal::{clean, complain, count, duration, say, warn};
use super::super::waiting::{is_suspended, suspended};
use super::super::{Exit, leftovers, running, start};
use super::{call, untouched};

/// How often it is looked for the answer.
const LOOK: Duration = Duration::from_millis(20);
/// How often the board is looked at meanwhile.
const TURN: Duration = Duration::from_secs(1);
/// Looks at the board that say that all is over, without an answer: the master tries to write it again each second.
const SILENCE: u32 = 3;
/// What a master has for the trial of a program, and a little.
const TRIAL: Duration = Duration::from_secs(135);

/// A restart that was asked for.
pub(super) struct Following<'a> {
    pub(super) milter: &'a MilterConfig,
    pub(super) paths: &'a Paths,
    pub(super) master: &'a Process,
    pub(super) request: &'a Request,
    pub(super) asked: &'a Asked,
    /// The generation before.
    pub(super) before: Option<u64>,
}

/// What the board says that became of the last restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Refused,
}

impl Following<'_> {
    /// Until the master has answered.
    pub(super) fn until_it_is_over(mut self) -> Exit {
        let name = &self.milter.name;
        let begin = Instant::now();
        let mut next_look = begin + TURN;
        // The master has not taken the request: it is about another one, or suspended.
        let mut waits = true;
        let mut silent = 0;
        let mut taken_over = None;
        let mut told = None;
        let mut was_suspended = false;
        let mut patience = Patience::new(begin);
        loop {
            let ended = self.master.handle.wait(LOOK);
            match answer::read(self.paths, &self.request.id) {
                Ok(Some(answer)) => return self.tell(&answer),
                Ok(None) if ended => {
                    complain(format_args!(
                        "restart {name}: its master (pid {}) ended meanwhile; its log tells more, pmx-milter status what is there",
                        self.master.pid
                    ));
                    return Exit::Failed;
                }
                Ok(None) => {}
                Err(error) => {
                    complain(format_args!(
                        "restart {name}: its master's answer in {} cannot be read: {error}",
                        self.paths.dir().display()
                    ));
                    return Exit::Failed;
                }
            }
            waits = waits && self.request.is_waiting(self.paths);
            if waits {
                // Another restart may come before.
                self.before = generation(self.paths);
            }
            let now = Instant::now();
            // At once, and once for each time: nothing goes on before somebody does something.
            let is_suspended = is_suspended(self.master.pid);
            if is_suspended && !was_suspended {
                say(format_args!("{name}: {}", suspended(self.master.pid)));
            }
            was_suspended = is_suspended;
            if now < next_look {
                continue;
            }
            next_look = now + TURN;
            if waits {
                // Of two signals at once the kernel delivers one.
                let _ = call(self.master, self.asked);
            }
            silent = match self.outcome() {
                Some(outcome) if !waits && silent >= SILENCE => {
                    return self.tell_without_answer(outcome);
                }
                Some(_) if !waits => silent + 1,
                _ => 0,
            };
            if !waits && taken_over.is_none() && generation(self.paths) != self.before {
                taken_over = Some(now);
            }
            let Some(since) = taken_over else {
                if !is_suspended && let Some(so_far) = patience.due(now) {
                    let most = TRIAL + self.milter.start_timeout;
                    say(format_args!("{name}: {}", progress(waits, so_far, most)));
                }
                if now >= begin + TRIAL + self.milter.start_timeout {
                    self.request.withdraw(self.paths);
                    complain(format_args!(
                        "restart {name}: its master (pid {}) gives no answer within {}; is it suspended? pmx-milter status tells",
                        self.master.pid,
                        duration((now - begin).as_secs())
                    ));
                    return Exit::Failed;
                }
                continue;
            };
            let waiting = waiting(self.paths);
            if told != waiting
                && let Some(text) = &waiting
            {
                say(format_args!("{name}: {text}"));
            }
            told = waiting;
            if now >= since + self.milter.start_timeout + self.milter.graceful_timeout {
                warn(format_args!(
                    "{name}: the restart is done but for old children that still take connections; each goes when a slot is free for another; pmx-milter status --long shows them"
                ));
                return Exit::Done;
            }
        }
    }

    /// What became of it, if the board says it; the board has the time at which the master took the request.
    fn outcome(&self) -> Option<Outcome> {
        let board = scoreboard::read(&self.paths.board()).ok()?;
        match board.global.reload_result {
            _ if board.global.reload_at_ns < self.asked.made_ns => None,
            1 => Some(Outcome::Done),
            2 => Some(Outcome::Refused),
            _ => None,
        }
    }

    /// The master is done, and its answer does not come.
    fn tell_without_answer(&self, outcome: Outcome) -> Exit {
        let name = &self.milter.name;
        let unknown = format!(
            "its master's answer, which tells more, is not in {}; is there no space left? The log may have it",
            self.paths.dir().display()
        );
        match outcome {
            Outcome::Done => {
                say(format_args!("{name}: restarted, pid {}", self.master.pid));
                warn(format_args!("{name}: {unknown}"));
                Exit::Done
            }
            Outcome::Refused => {
                complain(format_args!(
                    "restart {name}: it failed, as the scoreboard says; {unknown}"
                ));
                self.is_it_untouched();
                Exit::Failed
            }
        }
    }

    /// Says so if it is.
    fn is_it_untouched(&self) -> bool {
        let untouched_yet = generation(self.paths) == self.before;
        if untouched_yet {
            untouched(&self.milter.name, running::is_there(self.paths));
        }
        untouched_yet
    }

    /// What the master answered.
    fn tell(&self, answer: &str) -> Exit {
        let name = &self.milter.name;
        let safe = |text: &str| {
            let lines: Vec<String> = text.lines().map(|line| clean(line.as_bytes())).collect();
            lines.join("\n")
        };
        let mut changes = Vec::new();
        for line in answer.lines() {
            match Line::decode(line) {
                Some(Line::Changed(text)) => changes.push(safe(&text)),
                Some(Line::Warning(text)) => warn(format_args!("{name}: {}", safe(&text))),
                Some(Line::Ready(pid)) => {
                    say(format_args!("{name}: restarted, pid {pid}"));
                    self.tell_changes(&changes);
                    return Exit::Done;
                }
                Some(Line::Failed(status, text)) => {
                    complain(safe(&text));
                    if !self.is_it_untouched() && !changes.is_empty() {
                        say(format_args!("{name}: what changed"));
                        self.tell_changes(&changes);
                    }
                    return Exit::from_code(status);
                }
                Some(Line::Already(_)) | None => {}
            }
        }
        complain(format_args!(
            "restart {name}: its master's answer makes no sense"
        ));
        Exit::Failed
    }

    fn tell_changes(&self, changes: &[String]) {
        if changes.is_empty() {
            say("    nothing changed");
        }
        for change in changes {
            say(format_args!("    {change}"));
        }
        if changes.iter().any(|change| change.starts_with("port:")) {
            // What the board says: another restart may have been faster.
            let port = leftovers::port_of(&self.paths.board());
            let port = port.as_ref().unwrap_or(&self.milter.port);
            for line in start::mta_lines(&self.milter.name, port) {
                say(line);
            }
        }
    }
}

pub(super) fn generation(paths: &Paths) -> Option<u64> {
    let board = scoreboard::read(&paths.board()).ok()?;
    Some(board.global.generation)
}

/// What a request waits for that is not taken, or whose trial is not over.
fn progress(not_taken: bool, so_far: Duration, most: Duration) -> String {
    let (so_far, most) = (duration(so_far.as_secs()), duration(most.as_secs()));
    if not_taken {
        format!(
            "waiting: its master has not taken the request yet, for {so_far} now, at most {most}; another restart may be before it"
        )
    } else {
        format!(
            "waiting: its master tries program, configuration and policy for {so_far} now, at most {most}; it goes on serving"
        )
    }
}

/// Whom it waits for once the new generation is there.
fn waiting(paths: &Paths) -> Option<String> {
    let board = scoreboard::read(&paths.board()).ok()?;
    let old = board.global.children_old;
    (old > 0).then(|| {
        format!(
            "waiting: {} of before, until a slot is free for another; Ctrl-C leaves it going on",
            count(old, "process").replace("processs", "processes")
        )
    })
}
