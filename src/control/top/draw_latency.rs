//! Latencies since the board was made: quantiles and bars of messages and of each phase, in two columns.
#![forbid(unsafe_code)]

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use scoreboard::Snapshot;

use super::draw::filled;
use super::latency::{QUANTILES, latencies};
use super::model::Model;

/// Messages and seven phases in two columns, below a heading.
pub(super) const LINES: u16 = 5;
/// Columns before the bar.
const BEFORE_BAR: usize = 29;

/// The heading and the table.
pub(super) fn draw(model: &Model, board: &Snapshot, area: Rect, buffer: &mut Buffer) {
    if area.height < LINES {
        return;
    }
    let column = area.width / 2;
    let [p50, p90, p99] = QUANTILES.map(|(_, name)| name);
    let one = format!("{:<8}{p50:>6} {p90:>6} {p99:>6}", "at most");
    let one = format!("{one:<width$}", width = usize::from(column));
    let heading = filled(&one.repeat(2), model.appearance.heading(), area.width);
    buffer.set_line(area.x, area.y, &heading, area.width);
    let rows = usize::from(LINES - 1);
    for (number, latency) in latencies(board).iter().enumerate() {
        let (Ok(right), Ok(down)) = (u16::try_from(number / rows), u16::try_from(number % rows))
        else {
            continue;
        };
        let [p50, p90, p99] = latency.texts();
        let bar = usize::from(column).saturating_sub(BEFORE_BAR + 1);
        let line = Line::from(vec![
            Span::styled(format!("{:<8}", latency.name), model.appearance.label()),
            Span::raw(format!("{p50:>6} {p90:>6} {p99:>6} ")),
            Span::styled(latency.bar(bar, model.appearance), model.appearance.good()),
        ]);
        buffer.set_line(area.x + right * column, area.y + 1 + down, &line, column);
    }
}
