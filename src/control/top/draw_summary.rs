//! The upper part: title, alarms, the pool in two lines, what happens a second beside what happened since the board was made, and the last
//! minutes as a line of bars.
#![forbid(unsafe_code)]

use std::time::Duration;

use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use scoreboard::{NotAccepting, Snapshot, Verdict, shown};

use crate::control::status::State;
use crate::control::terminal::{count as counted, duration};

use super::draw::{both_ends, filled};
use super::model::{Model, Seen};
use super::rates::{Rates, columns};
use super::words::{self, UNKNOWN};

/// The last minutes reach back at least so far.
const MINUTES_SECONDS: usize = 300;
/// Trouble is news for so long.
const TROUBLE: Duration = Duration::from_secs(3600);
/// Columns beside the bars.
const BESIDE: usize = 38;

/// Name, state, where and for how long.
pub(super) fn title(model: &Model, width: u16) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut left = Vec::new();
    match (model.chosen(), model.seen()) {
        (Some(name), Some(seen)) => {
            left.push(Span::styled(format!("{name}: "), bold));
            let word = seen.state.word().replace('_', " ");
            left.push(Span::styled(word, model.appearance.state(seen.state)));
            left.push(Span::raw(details(seen)));
        }
        (Some(name), None) => left.push(Span::styled(name.to_string(), bold)),
        (None, _) => left.push(Span::styled("no milter", bold)),
    }
    let (place, all) = model.place();
    let which = if all > 1 {
        format!("{place} of {all}  ")
    } else {
        String::new()
    };
    let right = if model.paused {
        Span::styled(format!("{which}PAUSED"), model.appearance.warning())
    } else {
        let every = words::short(model.interval);
        Span::styled(format!("{which}every {every}"), model.appearance.quiet())
    };
    both_ends(left, right, width)
}

fn details(seen: &Seen) -> String {
    let mut text = String::new();
    if let Some(age) = seen.heartbeat_age
        && !matches!(
            seen.state,
            State::Starting | State::Running | State::Retiring
        )
    {
        text += &format!(" (heartbeat {} old)", words::short(age));
    }
    if let Some(pid) = seen.pid {
        text += &format!("  pid {pid}");
    }
    if let Some(board) = &seen.board {
        let port = shown(&board.global.port);
        if !port.is_empty() {
            text += &format!("  {port}");
        }
        if seen.is_alive()
            && let Some(up) = board.age(board.header.created_boot_ns)
        {
            text += &format!("  up {}", words::short(up));
        }
    }
    text
}

/// What is not as it should be, a line each.
pub(super) fn words(model: &Model, seen: &Seen, board: &Snapshot) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some(words) = &seen.words {
        let mut words = words.clone();
        if seen.orphans > 0 {
            words += &format!("; {} finish", counted(seen.orphans, "orphan"));
        }
        lines.push(Line::styled(words, model.appearance.state(seen.state)));
    }
    let trouble = shown(&board.global.trouble);
    if !trouble.is_empty()
        && let Some(age) = board.age(board.global.trouble_at_ns)
        && age < TROUBLE
    {
        let ago = words::short(age);
        let text = format!("trouble {ago} ago: {trouble}");
        lines.push(Line::styled(text, model.appearance.warning()));
    }
    lines
}

/// The pool, the table of rates and totals, the last minutes.
pub(super) fn summary(
    model: &Model,
    seen: &Seen,
    board: &Snapshot,
    width: u16,
) -> Vec<Line<'static>> {
    let mut lines = vec![pool(board), health(model, board)];
    lines.extend(table(model, board, width));
    lines.push(minutes(model, seen, board, width));
    lines
}

fn pool(board: &Snapshot) -> Line<'static> {
    let global = &board.global;
    let backlog = if global.backlog == u64::MAX {
        UNKNOWN.to_owned()
    } else {
        words::count(global.backlog)
    };
    Line::raw(format!(
        "slots {}/{} ({} busy, {} retiring)  req {} (peak {})  queue {}  waiting {}  backlog {backlog}",
        global.slots_in_use,
        global.slots_max,
        board.busy(),
        board.retiring(),
        words::count(board.requests()),
        words::count(global.peak_requests),
        words::count(board.queue()),
        words::count(global.waiting),
    ))
}

/// Alarms first, then losses.
fn health(model: &Model, board: &Snapshot) -> Line<'static> {
    let global = &board.global;
    let mut line = Line::default();
    let urgent = model.urgent();
    if urgent > 0 {
        let text = format!("{} running out!  ", counted(urgent as u64, "deadline"));
        line.push_span(Span::styled(text, model.appearance.bad()));
    }
    let alive = model.seen().is_some_and(Seen::is_alive);
    if alive && global.accepting == 0 {
        let why = NotAccepting::from_word(global.not_accepting).name();
        let text = format!("not accepting: {}  ", why.replace('_', " "));
        line.push_span(Span::styled(text, model.appearance.warning()));
    }
    if alive && global.crash_loop > 0 {
        let text = format!("{} died young  ", global.crash_loop);
        line.push_span(Span::styled(text, model.appearance.bad()));
    }
    let counters = board.counters();
    line.push_span(Span::raw(format!(
        "lost conn {} msg {}  aborted {}  late {}  full for {}  deaths {}",
        words::count(board.lost_connections()),
        words::count(board.lost_messages()),
        words::count(counters.messages_aborted),
        words::count(board.late_answers()),
        words::short(Duration::from_nanos(board.capacity_ns())),
        words::count(global.deaths_error.saturating_add(global.deaths_signal)),
    )));
    line
}

/// A line of the table: what it is, connections, messages, then each verdict.
fn cells(label: &str, connections: &str, messages: &str, verdicts: &[String]) -> String {
    let mut line = format!("{label:<10} {connections:>7} {messages:>7}");
    for (cell, verdict) in verdicts.iter().zip(Verdict::ALL) {
        let width = verdict.name().len().max(7);
        line += &format!(" {cell:>width$}");
    }
    line
}

fn table(model: &Model, board: &Snapshot, width: u16) -> [Line<'static>; 3] {
    let names: Vec<String> = Verdict::ALL.iter().map(|it| it.name().to_owned()).collect();
    let heading = cells("", "conn", "msg", &names);
    let rates = match model.rates() {
        Some(Rates {
            connections,
            messages,
            verdicts,
        }) => cells(
            "per second",
            &words::rate(connections),
            &words::rate(messages),
            &verdicts.map(words::rate),
        ),
        None => cells(
            "per second",
            UNKNOWN,
            UNKNOWN,
            &[(); 6].map(|()| UNKNOWN.to_owned()),
        ),
    };
    let verdicts = board.counters().verdicts;
    let totals = cells(
        "total",
        &words::count(board.global.accepted),
        &words::count(board.messages()),
        &verdicts.map(words::count),
    );
    [
        filled(&heading, model.appearance.heading(), width),
        Line::styled(rates, Style::new().add_modifier(Modifier::BOLD)),
        Line::raw(totals),
    ]
}

/// Bars of messages a second.
fn minutes(model: &Model, seen: &Seen, board: &Snapshot, width: u16) -> Line<'static> {
    let label = Span::styled("msg/s ", model.appearance.label());
    let number = usize::from(width).saturating_sub(BESIDE).max(1);
    let seconds_each = MINUTES_SECONDS.div_ceil(number).max(1);
    let width_ns = seconds_each as u64 * 1_000_000_000;
    // A dead milter's minutes end with its heartbeat.
    let now = if seen.is_alive() {
        board.now_ns
    } else {
        board.global.heartbeat_ns
    };
    let values = columns(&seen.history.seconds, now, number, width_ns);
    let most = values.iter().flatten().fold(0.0_f64, |a, b| a.max(*b));
    if values.iter().all(Option::is_none) {
        let text = "the board has no seconds to remember yet";
        return Line::from(vec![label, Span::styled(text, model.appearance.quiet())]);
    }
    let heights = model.appearance.heights();
    let top = heights.len() - 1;
    let bar = |value: &Option<f64>| match value {
        Some(value) if *value > 0.0 => {
            // Something is never drawn as nothing.
            let height = (value / most * top as f64).round() as usize;
            heights[height.clamp(1, top)]
        }
        Some(_) | None => heights[0],
    };
    let bars: String = values.iter().map(bar).collect();
    let span = duration(number as u64 * seconds_each as u64);
    let beside = format!(" last {span}, most {}/s", words::rate(most));
    Line::from(vec![
        label,
        Span::styled(bars, model.appearance.good()),
        Span::styled(beside, model.appearance.quiet()),
    ])
}
