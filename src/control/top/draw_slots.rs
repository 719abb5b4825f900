//! The table of slots, and the line of keys below everything.
#![forbid(unsafe_code)]

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use scoreboard::SlotState;

use super::draw::{both_ends, filled};
use super::keys::Mode;
use super::model::Model;
use super::rows::{Left, Row};
use super::words::{self, UNKNOWN};

/// From this width on, queue ids have a column of their own; below, what is done follows them at once.
const WIDE: u16 = 100;
/// Its columns: Postfix's long ids have so many, and longer ones push what follows.
const QUEUE_ID: usize = 16;

/// Heading and as many rows as fit.
pub(super) fn draw(model: &Model, rows: &[Row], area: Rect, buffer: &mut Buffer) {
    let Some(fit) = area.height.checked_sub(1) else {
        return;
    };
    let queue_id = if area.width < WIDE { 0 } else { QUEUE_ID };
    let heading = format!(
        "{:>4} {} {:>7} {:>6} {:>6} {:>5} {:>7} {:<7} {:>6} {:>6} {:<queue_id$} doing",
        "slot", "S", "pid", "age", "rss", "req", "msg", "phase", "since", "left", "queue id"
    );
    let heading = filled(&heading, model.appearance.heading(), area.width);
    buffer.set_line(area.x, area.y, &heading, area.width);
    let first = model.first_row(rows.len(), usize::from(fit));
    let visible = rows.iter().skip(first).take(usize::from(fit));
    for (row, y) in visible.zip(area.y + 1..) {
        buffer.set_line(area.x, y, &line(model, row, queue_id), area.width);
    }
    if rows.is_empty() && fit > 0 {
        let text = if model.filter.is_empty() {
            "no slot was ever used"
        } else {
            "no slot matches the filter"
        };
        let line = Line::styled(text, model.appearance.quiet());
        buffer.set_line(area.x, area.y + 1, &line, area.width);
    }
}

fn line(model: &Model, row: &Row, queue_id: usize) -> Line<'static> {
    let looks = model.appearance;
    let star = if row.state == SlotState::Retiring {
        "*"
    } else {
        ""
    };
    let text = format!(
        "{:>4} {} {:>7} {:>6} {:>6} {:>5} {:>7} {:<7} {:>6} ",
        row.slot,
        row.letter,
        row.pid.map_or_else(|| UNKNOWN.to_owned(), words::count),
        words::short_or_unknown(row.age),
        row.rss_bytes.map_or_else(|| UNKNOWN.to_owned(), words::mib),
        format!("{}{star}", words::count(row.requests)),
        words::count(row.messages),
        row.phase.unwrap_or(UNKNOWN),
        words::short_or_unknown(row.since),
    );
    let style = if row.is_idle {
        looks.quiet()
    } else {
        Style::new()
    };
    let seconds = |left: f64| words::short(Duration::try_from_secs_f64(left).unwrap_or_default());
    let (left, left_style) = match row.left {
        Left::Nothing => (UNKNOWN.to_owned(), style),
        Left::Enough(left) => (seconds(left), looks.good()),
        Left::Near(left) => (format!("{}!", seconds(left)), looks.warning()),
        Left::Over(over) => (format!("-{}!", seconds(over)), looks.bad()),
    };
    Line::from(vec![
        Span::styled(text, style),
        Span::styled(format!("{left:>6}"), left_style),
        Span::styled(
            format!(" {:<queue_id$}", row.queue_id),
            looks.label().add_modifier(Modifier::BOLD),
        ),
        Span::styled(format!(" {}", row.doing), style),
    ])
}

/// The last line: the filter while it is typed, else keys, order and how much of the slots is seen.
pub(super) fn keys(model: &Model, area: Rect) -> Line<'static> {
    let looks = model.appearance;
    let rows = model.rows().len();
    let all = model
        .seen()
        .and_then(|seen| seen.board.as_ref())
        .map_or(0, |board| board.slots.len());
    if model.mode == Mode::Filter {
        let left = vec![
            Span::styled("filter: ", looks.label()),
            Span::raw(model.filter.clone()),
            Span::styled(" ", Style::new().add_modifier(Modifier::REVERSED)),
        ];
        let right = format!("{rows} of {all} slots  Enter keeps, Esc clears");
        return both_ends(left, Span::styled(right, looks.quiet()), area.width);
    }
    let mut left = Vec::new();
    for (key, what) in [
        ("q", "quit"),
        ("h", "help"),
        ("/", "filter"),
        ("Tab", "milter"),
        ("Space", "pause"),
    ] {
        left.push(Span::styled(
            key,
            looks.label().add_modifier(Modifier::BOLD),
        ));
        left.push(Span::raw(format!(" {what}  ")));
    }
    let reversed = if model.reverse { ", reversed" } else { "" };
    let order = format!("by {}{reversed}", model.sort.heading());
    let right = if model.filter.is_empty() {
        order
    } else {
        format!("{order}  /{} ({rows} of {all})", model.filter)
    };
    both_ends(left, Span::styled(right, looks.quiet()), area.width)
}
