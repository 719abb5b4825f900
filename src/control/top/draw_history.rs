//! The last deaths on the left, the last events on the right, the latest first.
#![forbid(unsafe_code)]

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use scoreboard::{EventKind, Snapshot};

use crate::control::status::State;

use super::draw::filled;
use super::model::{Model, Seen};
use super::words;

/// Headings and as many lines as fit.
pub(super) fn draw(model: &Model, seen: &Seen, board: &Snapshot, area: Rect, buffer: &mut Buffer) {
    let Some(fit) = area.height.checked_sub(1) else {
        return;
    };
    // Deaths have more to tell.
    let column = area.width.div_ceil(16) * 9;
    let left = usize::from(column);
    let heading = format!("{:<left$}{}", "last deaths", "last events");
    let heading = filled(&heading, model.appearance.heading(), area.width);
    buffer.set_line(area.x, area.y, &heading, area.width);
    // Stamps of another boot say nothing about how long ago.
    if seen.state == State::Stale {
        return;
    }
    let deaths: Vec<Line> = board
        .deaths
        .iter()
        .map(|death| Line::raw(words::death(board, death)))
        .collect();
    let events: Vec<Line> = seen
        .history
        .events
        .iter()
        .map(|event| {
            let style = match EventKind::from_word(event.kind) {
                EventKind::Full | EventKind::Backoff | EventKind::Resources | EventKind::Abort => {
                    model.appearance.warning()
                }
                _ => ratatui::style::Style::new(),
            };
            Line::styled(words::event(board, event), style)
        })
        .collect();
    let right = area.width.saturating_sub(column);
    for (lines, x, width) in [
        (deaths, area.x, column.saturating_sub(1)),
        (events, area.x + column, right),
    ] {
        if lines.is_empty() {
            let none = Line::styled("  none", model.appearance.quiet());
            buffer.set_line(x, area.y + 1, &none, width);
        }
        for (line, y) in lines.iter().take(usize::from(fit)).zip(area.y + 1..) {
            buffer.set_line(x, y, line, width);
        }
    }
}
