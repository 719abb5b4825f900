//! The picture: who gets which lines, from the title down to the line of keys. What does not fit is left out from the bottom up: history
//! first, then latencies.
#![forbid(unsafe_code)]

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget, Wrap};

use super::keys::Mode;
use super::model::{Model, Seen};
use super::{draw_help, draw_history, draw_latency, draw_slots, draw_summary};

/// Smallest terminal in which anything can be told.
const SMALLEST: (u16, u16) = (60, 11);
/// Lines of deaths and events, their heading included, when the terminal is no higher than it must be.
const HISTORY: u16 = 4;
/// Most of them.
const HISTORY_MOST: u16 = 16;
/// Lines of slots, their heading included, that come before more history.
const SLOTS: u16 = 7;

/// Draws everything.
pub(super) fn draw(model: &Model, area: Rect, buffer: &mut Buffer) {
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        too_small(area, buffer);
        return;
    }
    let mut canvas = Canvas { area, buffer };
    canvas.line(draw_summary::title(model, area.width));
    let keys = canvas.take_bottom(1);
    match model.seen() {
        Some(seen) => match &seen.board {
            Some(board) => {
                for line in draw_summary::words(model, seen, board) {
                    canvas.line(line);
                }
                for line in draw_summary::summary(model, seen, board, area.width) {
                    canvas.line(line);
                }
                let rows = model.rows();
                let wanted = u16::try_from(rows.len())
                    .unwrap_or(u16::MAX)
                    .saturating_add(1);
                let (latency, history) = bottom(canvas.area.height, wanted);
                let history = canvas.take_bottom(history);
                let latency = canvas.take_bottom(latency);
                draw_slots::draw(model, &rows, canvas.area, buffer);
                draw_latency::draw(model, board, latency, buffer);
                draw_history::draw(model, seen, board, history, buffer);
            }
            None => nothing(model, seen, canvas.area, buffer),
        },
        None => {
            let text = "No milter is enabled, and none is in the run directory.";
            Paragraph::new(text)
                .wrap(Wrap { trim: true })
                .render(canvas.area, buffer);
        }
    }
    let line = draw_slots::keys(model, keys);
    buffer.set_line(keys.x, keys.y, &line, keys.width);
    if model.mode == Mode::Help {
        draw_help::draw(model, area, buffer);
    }
}

/// Lines of latencies and of history, when so many are left below the summary and the slots would like so many.
fn bottom(left: u16, wanted: u16) -> (u16, u16) {
    let latency = draw_latency::LINES;
    if left < SLOTS - 1 + latency {
        return (0, 0);
    }
    if left < SLOTS - 1 + latency + HISTORY {
        return (latency, 0);
    }
    let slots = left - latency - HISTORY;
    let spare = slots.saturating_sub(wanted.max(SLOTS));
    (latency, (HISTORY + spare).min(HISTORY_MOST))
}

fn too_small(area: Rect, buffer: &mut Buffer) {
    let text = format!(
        "The terminal is too small: {} x {}, and {} x {} are needed. q quits.",
        area.width, area.height, SMALLEST.0, SMALLEST.1
    );
    Paragraph::new(text)
        .wrap(Wrap { trim: true })
        .render(area, buffer);
}

/// A milter of which there is no board: why, in words.
fn nothing(model: &Model, seen: &Seen, area: Rect, buffer: &mut Buffer) {
    let words = seen.words.clone().unwrap_or_default();
    let mut lines = vec![
        Line::default(),
        Line::styled(words, model.appearance.state(seen.state)),
    ];
    if seen.orphans > 0 {
        lines.push(Line::raw(format!(
            "{} of its children still finish connections.",
            seen.orphans
        )));
    }
    if !model.paused {
        lines.push(Line::default());
        lines.push(Line::styled(
            "It is looked for again and again.",
            model.appearance.quiet(),
        ));
    }
    Paragraph::new(lines)
        .wrap(Wrap { trim: true })
        .render(area, buffer);
}

/// What is left of the screen.
struct Canvas<'a> {
    area: Rect,
    buffer: &'a mut Buffer,
}

impl Canvas<'_> {
    /// The next line from above.
    fn line(&mut self, line: Line) {
        let Some(height) = self.area.height.checked_sub(1) else {
            return;
        };
        let Rect { x, y, width, .. } = self.area;
        self.buffer.set_line(x, y, &line, width);
        self.area = Rect::new(x, y + 1, width, height);
    }

    /// So many lines from below.
    fn take_bottom(&mut self, lines: u16) -> Rect {
        let Rect {
            x,
            y,
            width,
            height,
        } = self.area;
        let lines = lines.min(height);
        self.area = Rect::new(x, y, width, height - lines);
        Rect::new(x, y + height - lines, width, lines)
    }
}

/// A line that begins on the left and ends on the right.
pub(super) fn both_ends(
    left: Vec<Span<'static>>,
    right: Span<'static>,
    width: u16,
) -> Line<'static> {
    let mut line = Line::from(left);
    let used = line.width() + right.width();
    if let Some(gap) = usize::from(width).checked_sub(used).filter(|gap| *gap > 0) {
        line.push_span(" ".repeat(gap));
        line.push_span(right);
    }
    line
}

/// A line that is filled up with blanks, so that its style covers all of it.
pub(super) fn filled(text: &str, style: Style, width: u16) -> Line<'static> {
    Line::styled(format!("{text:<width$}", width = usize::from(width)), style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_before_latencies_and_these_before_history() {
        assert_eq!(bottom(5, 3), (0, 0));
        assert_eq!(bottom(11, 3), (5, 0));
        assert_eq!(bottom(16, 30), (5, 4));
        assert_eq!(bottom(30, 30), (5, 4));
        assert_eq!(bottom(30, 3), (5, 16));
        assert_eq!(bottom(u16::MAX, u16::MAX), (5, 4));
    }
}
