//! `status`: reads boards and asks the kernel; no process of a milter is involved, so that it answers when they all hang.
#![forbid(unsafe_code)]

pub(super) mod exposition;
pub(super) mod gather;
mod history;
mod json;
mod long;
mod metric;
mod nagios;
pub mod range;
#[cfg(test)]
pub(super) mod tests;
mod text;
pub(super) mod view;
pub(super) mod words;
pub(super) mod work;

pub use exposition::{PerSlot, Syntax, family_names};
pub use metric::Metric;
pub use nagios::{Level, Threshold, ThresholdError, Thresholds, refusal};
pub(super) use text::headline;
pub use view::State;

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use crate::config::MilterName;

use super::place::{Found, each_once};
use super::terminal::{complain, say};
use super::{Exit, Place, StatusExit};
use gather::{Plain, Want};
use view::Views;

/// For whom.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// People, and scripts written for the seed's manual.
    Text,
    /// Programs.
    Json,
    /// Prometheus and what reads its forms.
    Exposition(Syntax, PerSlot),
    /// Nagios and what runs its plugins; the exit status is a plugin's.
    Nagios(Thresholds),
}

/// What is shown, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Show {
    /// For whom.
    pub format: Format,
    /// In text: what each slot is at, and the milter's other numbers. JSON always has them.
    pub long: bool,
    /// What the board remembers of the last ten minutes.
    pub history: bool,
    /// Again and again until interrupted, or until nobody reads.
    pub watch: Option<Duration>,
}

impl Show {
    /// A format without anything beside it.
    pub fn new(format: Format) -> Show {
        Show {
            format,
            long: false,
            history: false,
            watch: None,
        }
    }

    /// How much is to be read; `None`: only what the plain form shows.
    fn want(&self) -> Option<Want> {
        let is_plain = self.format == Format::Text && !self.long && !self.history;
        (!is_plain).then_some(Want {
            histograms: self.long || matches!(self.format, Format::Json | Format::Exposition(..)),
            history: self.history,
        })
    }
}

/// Clears a terminal and goes to its top (ECMA-48).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// The text of every milter of a place.
pub(super) fn page(found: &Found) -> String {
    let views = gather::gather(found, &[], &Plain);
    views.complaints.iter().for_each(complain);
    text::plain(&views)
}

/// `--names`: every milter of the configuration, disabled ones too, then others of the run directory.
pub fn names(place: &Place) -> Exit {
    let found = place.find();
    let configured = found.config.iter().flat_map(|config| &config.milters);
    let configured = configured.map(|milter| milter.name.clone());
    // A directory that cannot be read has no names for us; status tells.
    let there = crate::run_dir::milters(&found.run_dir).unwrap_or_default();
    let all: Vec<MilterName> = configured.chain(there).collect();
    for name in each_once(&all) {
        say(name);
    }
    Exit::Done
}

/// The verb, and its exit status.
pub fn status(place: &Place, names: &[MilterName], show: &Show) -> u8 {
    let (format, watch) = (&show.format, show.watch);
    let found = place.find();
    let mut first = true;
    loop {
        let (page, exit) = look(&found, names, show);
        let between = match (format, watch) {
            (Format::Text, Some(_)) if io::stdout().is_terminal() => CLEAR,
            (Format::Text, Some(_)) if !first => "\n",
            _ => "",
        };
        first = false;
        // Nothing to show: only names that nobody knows, which was said on stderr.
        let read = page.is_empty() || say(format_args!("{between}{}", page.trim_end()));
        match watch {
            Some(interval) if read => thread::sleep(interval),
            _ => return exit,
        }
    }
}

/// The page, and the exit status that goes with it.
fn look(found: &Found, names: &[MilterName], show: &Show) -> (String, u8) {
    let Some(want) = show.want() else {
        let views = gather::gather(found, names, &Plain);
        views.complaints.iter().for_each(complain);
        return (text::plain(&views), exit(&views));
    };
    let views = gather::gather(found, names, &want);
    views.complaints.iter().for_each(complain);
    let page = match &show.format {
        Format::Text => text::full(&views, show.long),
        Format::Json if show.watch.is_some() => json::line(&views),
        Format::Json => json::document(&views),
        Format::Exposition(syntax, per_slot) => exposition::render(&views, *syntax, *per_slot),
        Format::Nagios(thresholds) => {
            let (line, level) = nagios::render(&views, thresholds);
            return (line, level.code());
        }
    };
    (page, exit(&views))
}

fn exit<T>(views: &Views<T>) -> u8 {
    let states = views.milters.iter().map(|view| view.state.exit());
    StatusExit::fold(states.chain((views.unknown > 0).then_some(StatusExit::Unknown))).code()
}
