//! What is shown, and what keys and looks make of it: pure state, no terminal and no file.
#![forbid(unsafe_code)]

use std::time::Duration;

use scoreboard::{History, Snapshot};

use crate::config::MilterName;
use crate::control::status::State;

use super::appearance::Appearance;
use super::keys::{Action, Mode};
use super::rates::{Rates, Totals, Window};
use super::rows::{Row, Sort, rows};

/// Longest filter.
const FILTER_MOST: usize = 40;

/// What a look at a milter found.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) state: State,
    /// The state in words, where one word says too little: nothing is hidden because it cannot be shown in numbers.
    pub(super) words: Option<String>,
    /// Of the master.
    pub(super) pid: Option<u64>,
    /// Processes without a master that finish connections.
    pub(super) orphans: u64,
    /// Since the master's last sign of life.
    pub(super) heartbeat_age: Option<Duration>,
    pub(super) board: Option<Snapshot>,
    pub(super) history: History,
}

impl Seen {
    /// Does somebody serve?
    pub(super) fn is_alive(&self) -> bool {
        match self.state {
            State::Starting | State::Running | State::Retiring | State::Hung | State::Stopped => {
                true
            }
            State::Dead | State::Stale | State::NotRunning | State::Unreadable => false,
        }
    }
}

/// What the loop does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Draw.
    Draw,
    /// Look at the chosen milter, then draw.
    Look,
    /// Stop this program as Ctrl-Z does elsewhere.
    Suspend,
    Quit,
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) appearance: Appearance,
    pub(super) interval: Duration,
    names: Vec<MilterName>,
    chosen: usize,
    seen: Option<Seen>,
    window: Window,
    pub(super) mode: Mode,
    pub(super) paused: bool,
    pub(super) sort: Sort,
    pub(super) reverse: bool,
    pub(super) filter: String,
    scroll: usize,
}

impl Model {
    /// Nothing seen yet.
    pub(super) fn new(appearance: Appearance, interval: Duration) -> Model {
        Model {
            appearance,
            interval,
            names: Vec::new(),
            chosen: 0,
            seen: None,
            window: Window::default(),
            mode: Mode::View,
            paused: false,
            sort: Sort::Slot,
            reverse: false,
            filter: String::new(),
            scroll: 0,
        }
    }

    /// The milters that there are; the chosen one stays chosen while it is among them.
    pub(super) fn offer(&mut self, names: Vec<MilterName>) {
        let chosen = self.chosen().cloned();
        let place = chosen.and_then(|chosen| names.iter().position(|name| *name == chosen));
        self.names = names;
        match place {
            Some(place) => self.chosen = place,
            None => self.choose(0),
        }
    }

    fn choose(&mut self, number: usize) {
        self.chosen = number;
        self.seen = None;
        self.window = Window::default();
        self.scroll = 0;
    }

    /// The milter that is shown.
    pub(super) fn chosen(&self) -> Option<&MilterName> {
        self.names.get(self.chosen)
    }

    /// Its number from 1, and how many there are.
    pub(super) fn place(&self) -> (usize, usize) {
        (self.chosen + 1, self.names.len())
    }

    /// A look at the chosen milter.
    pub(super) fn see(&mut self, seen: Seen) {
        match &seen.board {
            Some(board) if seen.is_alive() => self.window.push(Totals::of(board)),
            _ => self.window = Window::default(),
        }
        self.seen = Some(seen);
    }

    /// The last look.
    pub(super) fn seen(&self) -> Option<&Seen> {
        self.seen.as_ref()
    }

    /// What happens a second now; nothing is known of it when nobody serves.
    pub(super) fn rates(&self) -> Option<Rates> {
        let seen = self.seen.as_ref().filter(|seen| seen.is_alive())?;
        self.window
            .rates(seen.board.as_ref()?, &seen.history.seconds)
    }

    /// Every slot that matches the filter, in order.
    pub(super) fn rows(&self) -> Vec<Row> {
        let Some(seen) = &self.seen else {
            return Vec::new();
        };
        seen.board.as_ref().map_or_else(Vec::new, |board| {
            let alive = seen.is_alive();
            rows(board, alive, self.sort, self.reverse, &self.filter)
        })
    }

    /// Answers whose deadline runs out or has passed, whatever the filter hides.
    pub(super) fn urgent(&self) -> usize {
        let Some(seen) = &self.seen else { return 0 };
        let Some(board) = &seen.board else { return 0 };
        let all = rows(board, seen.is_alive(), Sort::Slot, false, "");
        all.iter().filter(|row| row.left.is_urgent()).count()
    }

    /// The first row that is shown, when so many fit: never so far down that room stays empty.
    pub(super) fn first_row(&self, rows: usize, fit: usize) -> usize {
        self.scroll.min(rows.saturating_sub(fit))
    }

    /// A key.
    pub(super) fn act(&mut self, action: Action) -> Step {
        match action {
            Action::Quit => return Step::Quit,
            Action::Suspend => return Step::Suspend,
            Action::Escape => match self.mode {
                Mode::View => return Step::Quit,
                Mode::Filter => {
                    self.filter.clear();
                    self.mode = Mode::View;
                }
                Mode::Help => self.mode = Mode::View,
            },
            Action::Help => {
                self.mode = match self.mode {
                    Mode::Help => Mode::View,
                    Mode::View | Mode::Filter => Mode::Help,
                }
            }
            Action::Pause => {
                self.paused = !self.paused;
                if !self.paused {
                    return Step::Look;
                }
            }
            Action::NextMilter => return self.step(1),
            Action::PreviousMilter => return self.step(self.names.len().saturating_sub(1)),
            Action::Sort(sort) => {
                self.reverse = sort == self.sort && !self.reverse;
                self.sort = sort;
            }
            Action::Scroll(by) => self.scroll(by),
            Action::Top => self.scroll = 0,
            Action::Bottom => self.scroll(isize::MAX),
            Action::EditFilter => self.mode = Mode::Filter,
            Action::Accept => self.mode = Mode::View,
            Action::Type(c) => {
                if self.filter.chars().count() < FILTER_MOST && !c.is_control() {
                    self.filter.push(c);
                }
            }
            Action::Erase => {
                self.filter.pop();
            }
            Action::EraseAll => self.filter.clear(),
        }
        Step::Draw
    }

    /// To another milter, so many further.
    fn step(&mut self, by: usize) -> Step {
        if self.names.len() < 2 {
            return Step::Draw;
        }
        self.choose((self.chosen + by) % self.names.len());
        Step::Look
    }

    fn scroll(&mut self, by: isize) {
        let last = self.rows().len().saturating_sub(1);
        self.scroll = self.scroll.min(last).saturating_add_signed(by).min(last);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn model(names: &[&str]) -> Model {
        let appearance = Appearance {
            colours: false,
            unicode: false,
        };
        let mut model = Model::new(appearance, Duration::from_secs(1));
        model.offer(names.iter().map(|name| name.parse().unwrap()).collect());
        model
    }

    fn chosen(model: &Model) -> String {
        model.chosen().unwrap().to_string()
    }

    #[test]
    fn tab_goes_round_and_a_milter_that_comes_does_not_change_what_is_shown() {
        let mut it = model(&["a", "b"]);
        assert_eq!(it.act(Action::NextMilter), Step::Look);
        assert_eq!(chosen(&it), "b");
        it.offer(["x", "a", "b"].map(|name| name.parse().unwrap()).to_vec());
        assert_eq!((chosen(&it).as_str(), it.place()), ("b", (3, 3)));
        it.act(Action::NextMilter);
        it.act(Action::PreviousMilter);
        it.act(Action::PreviousMilter);
        assert_eq!(chosen(&it), "a");
        it.offer(Vec::new());
        assert_eq!(it.chosen(), None);
        assert_eq!(it.act(Action::NextMilter), Step::Draw);
    }

    #[test]
    fn escape_closes_what_is_open_and_then_quits() {
        let mut it = model(&["a"]);
        it.act(Action::EditFilter);
        it.act(Action::Type('x'));
        assert_eq!(it.act(Action::Escape), Step::Draw);
        assert_eq!((it.mode, it.filter.as_str()), (Mode::View, ""));
        it.act(Action::Help);
        assert_eq!(it.act(Action::Escape), Step::Draw);
        assert_eq!(it.act(Action::Escape), Step::Quit);
    }

    #[test]
    fn the_same_order_again_turns_round_and_another_one_begins_as_usual() {
        let mut it = model(&["a"]);
        it.act(Action::Sort(Sort::Age));
        assert!(!it.reverse);
        it.act(Action::Sort(Sort::Age));
        assert!(it.reverse);
        it.act(Action::Sort(Sort::Memory));
        assert!(!it.reverse);
    }

    #[test]
    fn a_pause_ends_with_a_look() {
        let mut it = model(&["a"]);
        assert_eq!(it.act(Action::Pause), Step::Draw);
        assert!(it.paused);
        assert_eq!(it.act(Action::Pause), Step::Look);
    }
}
