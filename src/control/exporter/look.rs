//! The milters at the moment of a request. The configuration is read each time, since it may have gained a milter; while it is broken, the
//! last good one counts. What is wrong is told once, not at every scrape.
#![forbid(unsafe_code)]

use crate::config::Config;
use crate::control::Place;
use crate::control::place::Found;
use crate::control::status::gather::{self, Want};
use crate::control::status::view::Views;
use crate::control::terminal::complain;

/// What of them an answer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs<'a> {
    /// All that is counted.
    Counts,
    /// What state they are in, or this one.
    States(Option<&'a str>),
}

/// What is looked at.
pub(super) struct Boards<'a> {
    place: &'a Place,
    found: Found,
    /// What was wrong the last time.
    told: Vec<String>,
}

impl<'a> Boards<'a> {
    pub(super) fn new(place: &'a Place) -> Boards<'a> {
        let (found, trouble) = place.look();
        let told: Vec<String> = trouble.into_iter().collect();
        tell(&[], &told);
        Boards { place, found, told }
    }

    /// The last one that could be read.
    pub(super) fn config(&self) -> Option<&Config> {
        self.found.config.as_ref()
    }

    /// Milters now.
    pub(super) fn look(&mut self, needs: Needs<'_>) -> Views {
        let (found, trouble) = self.place.look();
        if found.config.is_some() || self.found.config.is_none() {
            self.found = found;
        }
        let want = Want {
            histograms: needs == Needs::Counts,
            history: false,
        };
        let views = match needs {
            Needs::States(Some(name)) => gather::gather_one(&self.found, name, &want),
            Needs::States(None) | Needs::Counts => gather::gather(&self.found, &[], &want),
        };
        let now: Vec<String> = trouble
            .into_iter()
            .chain(views.complaints.iter().cloned())
            .collect();
        tell(&self.told, &now);
        let before = std::mem::replace(&mut self.told, now);
        if let Needs::States(Some(name)) = needs {
            // The others were not looked at: what was said of them is still true.
            let others = |text: &String| {
                text.starts_with("status ") && !text.starts_with(&format!("status {name}: "))
            };
            self.told.extend(before.into_iter().filter(others));
        }
        views
    }
}

/// Only what is new.
fn tell(before: &[String], now: &[String]) {
    for text in now.iter().filter(|text| !before.contains(text)) {
        complain(text);
    }
}
