//! Restarts as they are asked for: heard of by a signal, taken from the run directory one after another, tried, answered.
#![forbid(unsafe_code)]

use std::time::Instant;

use nix::sys::signalfd::siginfo;
use nix::unistd::Pid;

use super::report::Line;
use super::{Master, Phase};
use crate::run_dir::answer;
use crate::run_dir::request::{self, Asker, Found, Request};
use crate::sys::clock;

/// Processes that ask at once. The others are heard when they ask again.
const MOST_ASKERS: usize = 64;
/// `reload_result` of the board.
pub(super) const DONE: u64 = 1;
pub(super) const REFUSED: u64 = 2;

impl Master {
    /// A process says that its request waits. Only one that may signal us can say so, which our children cannot.
    pub(super) fn asked(&mut self, signal: &siginfo) {
        let asker = match (signal.ssi_code, i32::try_from(signal.ssi_pid)) {
            (libc::SI_QUEUE, Ok(pid)) => Asker {
                pid,
                digest: signal.ssi_ptr,
            },
            _ => return,
        };
        if self.askers.len() < MOST_ASKERS && !self.askers.contains(&asker) {
            self.askers.push(asker);
        }
    }

    /// Looks for requests and begins the trial of one. One at a time: the next one waits in the run directory.
    pub(super) fn serve_requests(&mut self, now: Instant) {
        // Who fills the directory with nonsense costs a turn no more than this.
        for _ in 0..MOST_ASKERS {
            // A start that fails answers by going away.
            if self.askers.is_empty()
                || self.trial.is_some()
                || matches!(self.phase, Phase::Starting(_))
            {
                return;
            }
            match request::take(&self.paths, &self.askers) {
                Found::Request(request, asker) => self.serve_request(request, asker, now),
                Found::Unusable(why, id) => {
                    log::warn!("milter {}: {why}; it is ignored", self.milter.name);
                    if let Some(id) = id {
                        let text = format!("milter {}: {why}; try again", self.milter.name);
                        self.answer(&id, &[Line::Failed(1, text)]);
                    }
                }
                Found::Nothing => self.askers.clear(),
            }
        }
    }

    fn serve_request(&mut self, request: Box<Request>, asker: Pid, now: Instant) {
        self.books.global.reload_at_ns = clock::boottime_ns();
        self.books.global.reload_result = 0;
        if self.phase != Phase::Running {
            let text = format!("milter {}: it is being stopped", self.milter.name);
            return self.refuse(&request.id, 1, &text);
        }
        log::info!(
            "milter {}: a restart is asked for, with {}",
            self.milter.name,
            request.program.display()
        );
        self.notify.reloading();
        let id = request.id.clone();
        let program = request.program.clone();
        if let Err(error) = self.try_out(request, asker, now) {
            let text = format!(
                "milter {}: {} cannot be tried out: {error}",
                self.milter.name,
                program.display()
            );
            self.refuse(&id, 1, &text);
        }
    }

    /// A restart that comes to nothing: the milter goes on as it is.
    pub(super) fn refuse(&mut self, id: &str, status: i32, text: &str) {
        log::warn!("restart refused: {text}");
        self.books.global.reload_result = REFUSED;
        // To one that is being stopped systemd was told nothing of it.
        if self.phase == Phase::Running {
            self.notify.ready();
        }
        let line = Line::Failed(status, text.to_owned());
        self.answer(id, &[line]);
    }

    /// Answers whoever asked for a restart. What cannot be written now is tried again at every tick.
    pub(super) fn answer(&mut self, id: &str, lines: &[Line]) {
        let text: String = lines.iter().map(Line::encode).collect();
        if let Err(error) = answer::write(&self.paths, id, &text) {
            log::warn!(
                "milter {}: whoever asked for a restart cannot be answered: {error}; trying again each second",
                self.milter.name
            );
            self.unanswered.push((id.to_owned(), text));
            let most = self.unanswered.len().saturating_sub(MOST_ASKERS);
            self.unanswered.drain(..most);
        }
    }

    /// Tries again what could not be written.
    pub(super) fn answer_at_last(&mut self) {
        let paths = &self.paths;
        self.unanswered
            .retain(|(id, text)| answer::write(paths, id, text).is_err());
    }
}
