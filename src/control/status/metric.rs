//! What thresholds can be set on: a name, a unit, and how to read it off a board.
#![forbid(unsafe_code)]

use scoreboard::Snapshot;
use scoreboard::histogram::{message_bounds_ns, quantile_ns};

use super::view::{self, View};

/// A number of a milter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Connections in progress.
    Requests,
    /// Of the connections that the pool has room for, in percent; connections of retiring children take no room.
    Busy,
    /// Accepted connections that nobody serves yet.
    Waiting,
    /// Connections in the kernel's queue of the port.
    Backlog,
    /// Messages at which the policy failed.
    Errors,
    /// Messages refused for now.
    Tempfail,
    /// Children that did not end as they should.
    Deaths,
    /// Seconds since the master's last sign of life.
    Heartbeat,
    /// Within this many seconds 99 of 100 messages were processed.
    P99,
    /// Answers that came after the MTA had given up.
    Late,
    /// Connections cut by deaths.
    Lost,
}

/// What a metric is at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reading {
    /// This.
    Known(f64),
    /// Nothing happened yet that could be measured: no reason for an alert.
    NothingYet,
    /// It cannot be known; a threshold on it would be an alert that never comes.
    Unknown,
}

impl Metric {
    /// Every one, in the order of the performance data and of the man page.
    pub const ALL: &'static [Metric] = &[
        Metric::Requests,
        Metric::Busy,
        Metric::Waiting,
        Metric::Backlog,
        Metric::Errors,
        Metric::Tempfail,
        Metric::Deaths,
        Metric::Heartbeat,
        Metric::P99,
        Metric::Late,
        Metric::Lost,
    ];

    /// Its name, in thresholds and labels.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Requests => "requests",
            Metric::Busy => "busy",
            Metric::Waiting => "waiting",
            Metric::Backlog => "backlog",
            Metric::Errors => "errors",
            Metric::Tempfail => "tempfail",
            Metric::Deaths => "deaths",
            Metric::Heartbeat => "heartbeat",
            Metric::P99 => "p99",
            Metric::Late => "late",
            Metric::Lost => "lost",
        }
    }

    /// Its unit as performance data writes it: `c` is a counter.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Metric::Requests | Metric::Waiting | Metric::Backlog => "",
            Metric::Busy => "%",
            Metric::Heartbeat | Metric::P99 => "s",
            Metric::Errors | Metric::Tempfail | Metric::Deaths | Metric::Late | Metric::Lost => "c",
        }
    }

    /// The largest that it can be, if that is known.
    pub(super) fn most(self, board: &Snapshot) -> Option<u64> {
        match self {
            Metric::Requests => view::capacity(board),
            Metric::Busy => Some(100),
            _ => None,
        }
    }

    /// What it is at. Rounded as it is printed, so that text and alert agree.
    pub(super) fn read(self, view: &View, board: &Snapshot) -> Reading {
        let count = |count: u64| Reading::Known(count as f64);
        match self {
            Metric::Requests => count(board.requests()),
            Metric::Busy => busy(board).map_or(Reading::Unknown, Reading::Known),
            Metric::Waiting => count(view::waiting(board)),
            Metric::Backlog => view::backlog(board).map_or(Reading::Unknown, count),
            Metric::Errors => count(verdict(board, scoreboard::Verdict::Error)),
            Metric::Tempfail => count(verdict(board, scoreboard::Verdict::Tempfail)),
            Metric::Deaths => count(
                board
                    .global
                    .deaths_error
                    .saturating_add(board.global.deaths_signal),
            ),
            Metric::Heartbeat => view.heartbeat_age().map_or(Reading::Unknown, |age| {
                Reading::Known(rounded(age.as_secs_f64(), 1000.0))
            }),
            Metric::P99 => p99(board),
            Metric::Late => count(board.late_answers()),
            Metric::Lost => count(board.lost_connections()),
        }
    }
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

fn busy(board: &Snapshot) -> Option<f64> {
    let capacity = view::capacity(board)?;
    let slots = board.slots.iter().filter(|slot| !slot.retiring());
    let taken = slots.fold(0_u64, |sum, slot| sum.saturating_add(slot.requests()));
    Some(rounded(taken as f64 * 100.0 / capacity as f64, 10.0))
}

fn verdict(board: &Snapshot, of: scoreboard::Verdict) -> u64 {
    let index = usize::try_from(of.word()).ok();
    let counters = board.counters();
    index
        .and_then(|index| counters.verdicts.get(index).copied())
        .unwrap_or(0)
}

fn p99(board: &Snapshot) -> Reading {
    let buckets = board.counters().message_histogram;
    if buckets.iter().all(|count| *count == 0) {
        return Reading::NothingYet;
    }
    match quantile_ns(&buckets, message_bounds_ns(), 0.99) {
        Some(ns) => Reading::Known(ns as f64 / 1e9),
        // Longer than the last bound, which is most of a day: any upper limit is passed.
        None => Reading::Known(message_bounds_ns().last().unwrap_or(0) as f64 / 1e9 * 2.0),
    }
}
