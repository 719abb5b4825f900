//! What a family of metrics is: a row of a table, from which both forms, the manual's test and the checks of names are made.
#![forbid(unsafe_code)]

use scoreboard::{Counters, PhaseHistograms, Snapshot};

use crate::control::status::view::View;

/// A row of the table.
pub(super) struct Family {
    /// As OpenMetrics has it: without `_total` or `_info`. A unit is its last word.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) source: Source,
}

/// Types of OpenMetrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows while the board lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations.
    Histogram,
    /// Texts, as labels.
    Info,
    /// One of several words is true.
    StateSet,
}

/// Where values come from.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// This program, whatever milters there are.
    Program(fn() -> Vec<Point>),
    /// Every milter that is shown.
    Milter(fn(&Facts<'_>) -> Vec<Point>),
    /// Milters of which there is a board, dead ones too.
    Board(fn(&Known<'_>) -> Vec<Point>),
}

/// A value with its labels, the milter's apart.
pub(super) struct Point {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: Value,
}

/// What is counted or measured.
pub(super) enum Value {
    Count(u64),
    /// Printed in seconds.
    Nanoseconds(u64),
    Histogram(Histogram),
}

/// One bucket more than bounds.
pub(super) struct Histogram {
    pub(super) buckets: Vec<u64>,
    pub(super) bounds_ns: Vec<u64>,
    pub(super) sum_ns: u64,
}

/// A milter, with its sums made once.
pub(super) struct Facts<'a> {
    pub(super) view: &'a View,
    pub(super) board: Option<Known<'a>>,
}

/// What a board tells.
pub(super) struct Known<'a> {
    pub(super) view: &'a View,
    pub(super) board: &'a Snapshot,
    pub(super) counters: Counters,
    pub(super) phases: Option<PhaseHistograms>,
}

impl Facts<'_> {
    pub(super) fn of(view: &View) -> Facts<'_> {
        let board = view.board.as_ref().map(|board| Known {
            view,
            board,
            counters: board.counters(),
            phases: phases(board),
        });
        Facts { view, board }
    }

    /// When the counters began: at the creation of the board.
    pub(super) fn created_ns(&self) -> Option<u64> {
        Some(self.board.as_ref()?.board.header.created_wall_ns)
    }
}

/// Of a board without a slot yet all are zero; of one of version 1.0 there are none.
fn phases(board: &Snapshot) -> Option<PhaseHistograms> {
    let none_yet = board.slots.is_empty() && board.header.minor() >= 1;
    board
        .histograms()
        .or_else(|| none_yet.then(PhaseHistograms::default))
}

impl Family {
    pub(super) const fn counter(
        name: &'static str,
        help: &'static str,
        of: fn(&Known<'_>) -> Vec<Point>,
    ) -> Family {
        Family::new(name, Kind::Counter, help, Source::Board(of))
    }

    pub(super) const fn gauge(
        name: &'static str,
        help: &'static str,
        of: fn(&Known<'_>) -> Vec<Point>,
    ) -> Family {
        Family::new(name, Kind::Gauge, help, Source::Board(of))
    }

    pub(super) const fn histogram(
        name: &'static str,
        help: &'static str,
        of: fn(&Known<'_>) -> Vec<Point>,
    ) -> Family {
        Family::new(name, Kind::Histogram, help, Source::Board(of))
    }

    pub(super) const fn new(
        name: &'static str,
        kind: Kind,
        help: &'static str,
        source: Source,
    ) -> Family {
        Family {
            name,
            kind,
            help,
            source,
        }
    }

    /// The base unit, which is the last word of the name.
    pub(super) fn unit(&self) -> Option<&'static str> {
        ["seconds", "bytes"]
            .into_iter()
            .find(|unit| self.name.ends_with(&format!("_{unit}")))
    }
}

/// One value without labels of its own.
pub(super) fn one(count: u64) -> Vec<Point> {
    point(Value::Count(count))
}

/// The same in nanoseconds.
pub(super) fn one_ns(ns: u64) -> Vec<Point> {
    point(Value::Nanoseconds(ns))
}

/// The same of a histogram.
pub(super) fn point(value: Value) -> Vec<Point> {
    let labels = Vec::new();
    vec![Point { labels, value }]
}

/// Nothing when it is not known: absence, never a made-up number.
pub(super) fn if_known(count: Option<u64>) -> Vec<Point> {
    count.map(one).unwrap_or_default()
}

/// A value for each word of a label.
pub(super) fn each<L: Into<String>>(
    label: &'static str,
    values: impl IntoIterator<Item = (L, Value)>,
) -> Vec<Point> {
    values
        .into_iter()
        .map(|(word, value)| Point {
            labels: vec![(label, word.into())],
            value,
        })
        .collect()
}
