//! The milters at the moment of a request. The configuration is read each time, since it may have gained a milter; while it is broken, the
//! last good one counts. What is wrong is told once, not at every scrape.
#![forbid(unsafe_code)]

use crate::config::Config;
use crate::control::Place;
use crate::control::place::Found;
use crate::control::status::gather::{self, Want};
use crate::control::status::view::Views;
use crate::control::terminal::complain;

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

    /// Every milter now.
    pub(super) fn look(&mut self) -> Views {
        let (found, trouble) = self.place.look();
        if found.config.is_some() || self.found.config.is_none() {
            self.found = found;
        }
        let want = Want {
            histograms: true,
            history: false,
        };
        let views = gather::gather(&self.found, &[], &want);
        let trouble: Vec<String> = trouble
            .into_iter()
            .chain(views.complaints.iter().cloned())
            .collect();
        tell(&self.told, &trouble);
        self.told = trouble;
        views
    }
}

/// Only what is new.
fn tell(before: &[String], now: &[String]) {
    for text in now.iter().filter(|text| !before.contains(text)) {
        complain(text);
    }
}
