//! The generations change over: children with the new configuration come, and for each one of the old goes. The pool decides whom
//! (`pool::maintain`); here it is noticed when it is done, and whoever asked for it is told.
#![forbid(unsafe_code)]

use std::time::Instant;

use super::asked::{DONE, REFUSED};
use super::report::Line;
use super::{Master, Phase};

/// Children of the new generation that may die young, one after another, before the restart counts as failed.
const MOST_YOUNG_DEATHS: u64 = 3;

/// A restart that somebody waits for.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Of the request.
    pub(super) id: String,
    /// What changed, and warnings.
    pub(super) lines: Vec<Line>,
    /// Why it has not done all that was asked for.
    pub(super) failed: Option<String>,
    /// When the first new child must be ready; put off while there is no slot for it.
    pub(super) deadline: Instant,
}

impl Master {
    /// Most processes: what is configured; more while old children are there that the configuration before let live.
    pub(super) fn slots_limit(&self) -> u32 {
        let own = self.milter.most_slots();
        let mut children = self.children.iter().flatten();
        let before = if children.any(|child| child.generation() != self.generation) {
            self.slots_before
        } else {
            0
        };
        let there = u32::try_from(self.children.len()).unwrap_or(u32::MAX);
        own.max(before).min(there)
    }

    /// Children of before that still take connections.
    pub(super) fn old_children(&self) -> usize {
        let children = self.children.iter().flatten();
        children
            .filter(|child| child.generation() != self.generation && !child.retiring)
            .count()
    }

    /// Is the restart done, or has it failed?
    pub(super) fn follow_exchange(&mut self, now: Instant) {
        if self.exchange.is_none() || self.phase != Phase::Running {
            return;
        }
        let mut children = self.children.iter().flatten();
        let new = children
            .any(|child| child.generation() == self.generation && child.ready && !child.retiring);
        if self.waits_for_a_slot()
            && let Some(exchange) = &mut self.exchange
        {
            exchange.deadline = now + self.milter.start_timeout;
        }
        if new && self.old_children() == 0 {
            log::info!(
                "milter {}: generation {} has taken over",
                self.milter.name,
                self.generation
            );
            self.succeed();
        } else if !new
            && (now >= self.exchange.as_ref().map_or(now, |it| it.deadline)
                || self.books.global.crash_loop >= MOST_YOUNG_DEATHS)
        {
            let text = format!(
                "milter {}: no child of the new generation comes up; the old ones go on with the old policy until one does; the log tells why, restart again when it is mended",
                self.milter.name
            );
            log::error!("{text}");
            self.finish_exchange(REFUSED, Line::Failed(1, text));
        }
    }

    /// Is there no child of the new generation, and no slot for one?
    fn waits_for_a_slot(&self) -> bool {
        let mut children = self.children.iter().flatten();
        let there = u32::try_from(children.clone().count()).unwrap_or(u32::MAX);
        there >= self.slots_limit() && children.all(|child| child.generation() != self.generation)
    }

    /// The new generation serves. Was that all?
    fn succeed(&mut self) {
        let failed = self.exchange.as_mut().and_then(|it| it.failed.take());
        match failed {
            None => self.finish_exchange(DONE, Line::Ready(nix::unistd::getpid().as_raw())),
            Some(text) => {
                let text = format!(
                    "milter {}: {text}; all else of the new configuration serves",
                    self.milter.name
                );
                self.finish_exchange(REFUSED, Line::Failed(1, text));
            }
        }
    }

    fn finish_exchange(&mut self, result: u64, outcome: Line) {
        let Some(exchange) = self.exchange.take() else {
            return;
        };
        self.books.global.reload_result = result;
        self.notify.ready();
        let lines: Vec<Line> = exchange.lines.into_iter().chain([outcome]).collect();
        self.answer(&exchange.id, &lines);
    }

    /// Another restart takes over before this one is done; what this one waited for, that one will do.
    pub(super) fn answer_exchange_before_another(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.lines.push(Line::Warning(
                "another restart follows before every old child was exchanged".to_owned(),
            ));
            self.succeed();
        }
    }

    /// The milter is being stopped: the restart is not finished.
    pub(super) fn give_up_exchange(&mut self) {
        if self.exchange.is_some() {
            let text = format!(
                "milter {}: it was stopped before the restart was done",
                self.milter.name
            );
            self.finish_exchange(REFUSED, Line::Failed(1, text));
        }
    }
}
