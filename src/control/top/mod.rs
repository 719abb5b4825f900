//! `top`: a live view of milters in the terminal. It reads boards, as `status` does: nothing that it does is noticed by a milter.
//!
//! `watch` looks, `model` keeps and decides, `draw` makes a picture of it, `terminal` shows it; only the first and the last touch
//! anything outside.
#![forbid(unsafe_code)]

mod appearance;
mod draw;
mod draw_help;
mod draw_history;
mod draw_latency;
mod draw_slots;
mod draw_summary;
mod keys;
mod latency;
mod model;
mod rates;
mod rows;
mod terminal;
#[cfg(test)]
mod tests;
mod watch;
mod words;

pub use keys::KEYS;

use std::io;
use std::time::{Duration, Instant};

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::config::MilterName;

use super::place::{Found, not_configured};
use super::terminal::{complain, say};
use super::{Exit, Place};
use appearance::Appearance;
use model::{Model, Step};
use terminal::{Input, Screen};
use watch::Watch;

/// How long nothing happens while the view is paused: only keys and signals end it.
const PAUSED: Duration = Duration::from_secs(3600);
/// Size of a picture that is printed, unless `COLUMNS` and `LINES` tell another.
const PRINTED: (u16, u16) = (80, 24);
/// Largest side of a picture that is printed.
const PRINTED_MOST: u16 = 1000;

/// How it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Between two looks.
    pub interval: Duration,
    /// Print one picture as plain text.
    pub once: bool,
}

/// The verb.
pub fn top(place: &Place, asked: &[MilterName], options: Options) -> Exit {
    let found = place.find();
    if let Some(name) = asked.iter().find(|name| !watch::is_known(&found, name)) {
        complain(unknown(&found, name));
        return Exit::NotConfigured;
    }
    let variable = |name: &str| std::env::var(name).ok();
    let mut model = Model::new(Appearance::of(variable), options.interval);
    let mut looks = Looks {
        found: &found,
        asked,
        watch: None,
    };
    if options.once {
        let size = |name, usual| {
            let number = variable(name).and_then(|text| text.parse().ok());
            number.map_or(usual, |number: u16| number.clamp(1, PRINTED_MOST))
        };
        let (width, height) = (size("COLUMNS", PRINTED.0), size("LINES", PRINTED.1));
        looks.look(&mut model);
        // A reader that went away wants no picture.
        let _ = say(picture(&model, width, height));
        return Exit::Done;
    }
    if let Some(reason) = terminal::unsuitable() {
        complain(format_args!(
            "top: {reason}; use pmx-milter status --watch 1, or pmx-milter top --once for one picture"
        ));
        return Exit::Usage;
    }
    match live(&mut model, &mut looks) {
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(format_args!("top: the terminal fails: {error}"));
            Exit::Failed
        }
    }
}

fn unknown(found: &Found, name: &MilterName) -> String {
    match &found.config {
        Some(config) => not_configured("top", name, config),
        None => format!(
            "top {name}: nothing is known of it: run_dir {} has no trace of it, and the configuration cannot be read",
            found.run_dir.display()
        ),
    }
}

/// Looks at the milter that the model has chosen.
struct Looks<'a> {
    found: &'a Found,
    asked: &'a [MilterName],
    watch: Option<Watch>,
}

impl Looks<'_> {
    fn look(&mut self, model: &mut Model) {
        model.offer(watch::names(self.found, self.asked));
        let Some(name) = model.chosen() else {
            self.watch = None;
            return;
        };
        if self.watch.as_ref().is_none_or(|watch| watch.name() != name) {
            self.watch = Some(Watch::new(self.found, name));
        }
        if let Some(watch) = &mut self.watch {
            model.see(watch.look());
        }
    }
}

/// Until a key or a signal ends it.
fn live(model: &mut Model, looks: &mut Looks) -> io::Result<()> {
    let mut screen = Screen::take()?;
    let mut next = Instant::now();
    loop {
        if !model.paused && Instant::now() >= next {
            looks.look(model);
            next = Instant::now() + model.interval;
        }
        screen.show(|area, buffer| draw::draw(model, area, buffer))?;
        let limit = if model.paused {
            PAUSED
        } else {
            // Rounded up: a wait of less than the clock's millisecond would return too early.
            next.saturating_duration_since(Instant::now()) + Duration::from_millis(1)
        };
        for input in screen.wait(limit)? {
            let Input::Key(key) = input else {
                return Ok(());
            };
            let Some(action) = keys::action(&key, model.mode) else {
                continue;
            };
            match model.act(action) {
                Step::Draw => {}
                Step::Look => looks.look(model),
                Step::Suspend => screen.suspend()?,
                Step::Quit => return Ok(()),
            }
        }
    }
}

/// One picture as text, without blanks at the ends of lines.
fn picture(model: &Model, width: u16, height: u16) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    draw::draw(model, area, &mut buffer);
    let lines: Vec<String> = (0..height)
        .map(|y| {
            let cells = (0..width).filter_map(|x| buffer.cell((x, y)));
            let line: String = cells.map(|cell| cell.symbol()).collect();
            line.trim_end().to_owned()
        })
        .collect();
    lines.join("\n").trim_end().to_owned()
}
