//! `status`: reads boards and asks the kernel; no process of a milter is involved, so that it answers when they all hang.
#![forbid(unsafe_code)]

mod gather;
pub mod json;
mod text;
mod view;

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use crate::config::MilterName;

use super::terminal::say;
use super::{Place, StatusExit};

/// For whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// People, and scripts written for the seed's manual.
    Text,
    /// Programs.
    Json,
}

/// Clears a terminal and goes to its top (ECMA-48).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// The verb; `watch`: again and again until interrupted, or until nobody reads.
pub fn status(
    place: &Place,
    names: &[MilterName],
    format: Format,
    watch: Option<Duration>,
) -> StatusExit {
    let found = place.find();
    let mut first = true;
    loop {
        let views = gather::gather(&found, names);
        let exit = StatusExit::fold(
            views
                .milters
                .iter()
                .map(|view| view.state.exit())
                .chain((views.unknown > 0).then_some(StatusExit::Unknown)),
        );
        let page = match (format, watch) {
            (Format::Text, _) => text::render(&views),
            (Format::Json, None) => json::document(&views),
            (Format::Json, Some(_)) => json::line(&views),
        };
        let between = match (format, watch) {
            (Format::Text, Some(_)) if io::stdout().is_terminal() => CLEAR,
            (Format::Text, Some(_)) if !first => "\n",
            _ => "",
        };
        first = false;
        let read = say(format_args!("{between}{}", page.trim_end()));
        match watch {
            Some(interval) if read => thread::sleep(interval),
            _ => return exit,
        }
    }
}
