//! Status for Nagios and what understands its plugins: one line, performance data, and a status of 0 to 3.
//!
//! Follows the Monitoring Plugins guidelines. The milters' states come first: what does not serve is critical, whatever its numbers.
#![forbid(unsafe_code)]

use std::fmt::{self, Write};
use std::str::FromStr;

use super::metric::{Metric, Reading};
use super::range::{Range, RangeError};
use super::text::headline;
use super::view::{State, View, Views};

/// Characters by which programs tell labels apart.
const LABEL_UNIQUE: usize = 19;

/// How bad it is; the worst of several is the last one here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// All is well.
    Ok,
    /// It cannot be said.
    Unknown,
    /// Somebody should look.
    Warning,
    /// Somebody must act.
    Critical,
}

impl Level {
    /// The plugin's exit status.
    pub fn code(self) -> u8 {
        match self {
            Level::Ok => 0,
            Level::Warning => 1,
            Level::Critical => 2,
            Level::Unknown => 3,
        }
    }

    /// The word of the first line.
    pub fn word(self) -> &'static str {
        match self {
            Level::Ok => "OK",
            Level::Warning => "WARNING",
            Level::Critical => "CRITICAL",
            Level::Unknown => "UNKNOWN",
        }
    }
}

/// `METRIC=RANGE`, or a range of [`Metric::Busy`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// Of what.
    pub metric: Metric,
    /// Its good values.
    pub range: Range,
}

/// Why a text is no threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ThresholdError {
    /// No such metric.
    Metric(String),
    /// No range.
    Range(RangeError),
}

impl fmt::Display for ThresholdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ThresholdError::Metric(text) => {
                let known: Vec<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
                write!(f, "unknown metric {text:?}; known are {}", known.join(", "))
            }
            ThresholdError::Range(error) => write!(
                f,
                "{error}; the configuration's -c FILE stands before status"
            ),
        }
    }
}

impl std::error::Error for ThresholdError {}

impl FromStr for Threshold {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Threshold, ThresholdError> {
        let (metric, range) = match text.split_once('=') {
            None => (Metric::Busy, text),
            Some((name, range)) => {
                let metric = Metric::ALL.iter().find(|metric| metric.name() == name);
                let metric = metric.ok_or_else(|| ThresholdError::Metric(name.to_owned()))?;
                (*metric, range)
            }
        };
        let range = range.parse().map_err(ThresholdError::Range)?;
        Ok(Threshold { metric, range })
    }
}

/// What `-w` and `-c` say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Thresholds {
    /// `-w`
    pub warning: Vec<Threshold>,
    /// `-c`
    pub critical: Vec<Threshold>,
}

/// Of several for one metric the last counts.
fn range_of(thresholds: &[Threshold], metric: Metric) -> Option<Range> {
    let last = thresholds.iter().rev().find(|it| it.metric == metric)?;
    Some(last.range)
}

/// A finding: how bad, and what.
type Finding = (Level, String);

/// The line and what it comes to.
pub(super) fn render(views: &Views, thresholds: &Thresholds) -> (String, Level) {
    let mut findings: Vec<Finding> = views
        .milters
        .iter()
        .flat_map(|view| judge(view, thresholds))
        .collect();
    if views.unknown > 0 {
        let text = format!("{} not known, standard error says more", views.unknown);
        findings.push((Level::Unknown, text));
    }
    if findings.is_empty() {
        let text = "no milter is running and none is enabled".to_owned();
        findings.push((Level::Unknown, text));
    }
    let worst = findings
        .iter()
        .map(|it| it.0)
        .max()
        .unwrap_or(Level::Unknown);
    // Only what is wrong, the worst first; if nothing is, all of it.
    findings.retain(|it| worst == Level::Ok || it.0 != Level::Ok);
    findings.sort_by_key(|it| std::cmp::Reverse(it.0));
    let texts: Vec<&str> = findings.iter().map(|it| &*it.1).collect();
    let data = performance(views, thresholds);
    let mut line = format!("PMX {}: {}", worst.word(), plain(&texts.join("; ")));
    if !data.is_empty() {
        line.push_str(" | ");
        line.push_str(&data.join(" "));
    }
    (line, worst)
}

/// The line for arguments that are wrong.
pub fn refusal(why: &str) -> String {
    format!("PMX {}: {}", Level::Unknown.word(), plain(why))
}

/// One line, in which the only bar is the one before the performance data.
fn plain(text: &str) -> String {
    let safe = |c: char| if c.is_control() || c == '|' { '?' } else { c };
    text.chars().map(safe).collect()
}

/// The numbers of a board count while its master lives.
fn measured(view: &View) -> Option<&scoreboard::Snapshot> {
    let alive = view.state.exit() == crate::control::StatusExit::Running;
    view.board.as_ref().filter(|_| alive)
}

fn judge(view: &View, thresholds: &Thresholds) -> Vec<Finding> {
    let name = &view.name;
    let level = match view.state {
        State::Running => Level::Ok,
        State::Starting | State::Retiring => Level::Warning,
        State::Hung | State::Stopped | State::Dead | State::Stale | State::NotRunning => {
            Level::Critical
        }
        State::Unreadable => Level::Unknown,
    };
    let mut text = format!("{name} {}", headline(view));
    if let Some(why) = &view.unreadable {
        let _ = write!(text, ", {why}");
    }
    let Some(board) = measured(view) else {
        return vec![(level, text)];
    };
    if level == Level::Ok {
        let _ = write!(text, ", {} connections in progress", board.requests());
    }
    let mut findings = vec![(level, text)];
    for metric in Metric::ALL {
        let critical = range_of(&thresholds.critical, *metric);
        let warning = range_of(&thresholds.warning, *metric);
        let (metric_name, unit) = (metric.name(), metric.unit().trim_matches('c'));
        match metric.read(view, board) {
            Reading::NothingYet => {}
            Reading::Unknown if critical.is_some() || warning.is_some() => {
                findings.push((Level::Unknown, format!("{name} {metric_name} is not known")));
            }
            Reading::Unknown => {}
            Reading::Known(value) => {
                let hit = |range: Option<Range>| range.filter(|range| range.alerts(value));
                let found = match (hit(critical), hit(warning)) {
                    (Some(range), _) => Some((Level::Critical, 'c', range)),
                    (None, Some(range)) => Some((Level::Warning, 'w', range)),
                    (None, None) => None,
                };
                if let Some((level, option, range)) = found {
                    let text = format!("{name} {metric_name} {value}{unit} (-{option} {range})");
                    findings.push((level, text));
                }
            }
        }
    }
    findings
}

/// `'label'=value[UOM];warn;crit;min;max` of every metric of every milter that serves.
fn performance(views: &Views, thresholds: &Thresholds) -> Vec<String> {
    let suffixes = suffixes(views);
    let mut data = Vec::new();
    for (view, suffix) in views.milters.iter().zip(suffixes) {
        let Some(board) = measured(view) else {
            continue;
        };
        for metric in Metric::ALL {
            let value = match metric.read(view, board) {
                Reading::Known(value) => format!("{value}{}", metric.unit()),
                Reading::NothingYet | Reading::Unknown => "U".to_owned(),
            };
            let text = |range: Option<Range>| range.map(|it| it.to_string()).unwrap_or_default();
            data.push(format!(
                "'{}{suffix}'={value};{};{};0;{}",
                metric.name(),
                text(range_of(&thresholds.warning, *metric)),
                text(range_of(&thresholds.critical, *metric)),
                metric
                    .most(board)
                    .map(|most| most.to_string())
                    .unwrap_or_default(),
            ));
        }
    }
    data
}

/// What tells the labels of several milters apart: their names, or their places when names are too long to differ where programs look.
fn suffixes(views: &Views) -> Vec<String> {
    if views.milters.len() == 1 {
        return vec![String::new()];
    }
    let longest = Metric::ALL.iter().map(|metric| metric.name().len()).max();
    let room = LABEL_UNIQUE - 1 - longest.unwrap_or(0);
    let names: Vec<String> = views.milters.iter().map(|it| it.name.to_string()).collect();
    let mut starts: Vec<&str> = names
        .iter()
        .map(|it| it.get(..room).unwrap_or(it))
        .collect();
    starts.sort_unstable();
    starts.dedup();
    if starts.len() == names.len() {
        names.iter().map(|name| format!(" {name}")).collect()
    } else {
        (1..=names.len())
            .map(|place| format!(" #{place}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_threshold_is_a_metric_and_a_range_and_a_bare_range_is_of_busy() {
        let busy: Threshold = "90".parse().unwrap();
        assert_eq!(
            (busy.metric, busy.range),
            (Metric::Busy, "90".parse().unwrap())
        );
        for metric in Metric::ALL {
            let text = format!("{}=@1:2", metric.name());
            let threshold: Threshold = text.parse().unwrap();
            assert_eq!(threshold.metric, *metric);
        }
        for (text, part) in [
            (
                "load=1",
                "unknown metric \"load\"; known are requests, busy",
            ),
            ("=1", "unknown metric \"\""),
            ("busy=", "the range is empty"),
            ("busy", "\"busy\" is no number"),
            ("/etc/pmx/pmx.conf", "-c FILE stands before status"),
        ] {
            let error = text.parse::<Threshold>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn the_worst_of_several_is_the_one_that_needs_somebody() {
        let worst = |all: &[Level]| all.iter().copied().max().unwrap().code();
        assert_eq!(worst(&[Level::Ok, Level::Unknown]), 3);
        assert_eq!(worst(&[Level::Unknown, Level::Warning]), 1);
        assert_eq!(worst(&[Level::Critical, Level::Unknown, Level::Warning]), 2);
    }

    #[test]
    fn nothing_in_the_text_looks_like_performance_data_or_drives_a_terminal() {
        assert_eq!(refusal("a|b\nc\x1b"), "PMX UNKNOWN: a?b?c?");
    }
}
