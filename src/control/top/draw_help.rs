//! The help: keys, and what letters and marks mean.
#![forbid(unsafe_code)]

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Widget};

use super::keys::KEYS;
use super::model::Model;

/// What the table does not explain itself.
const LEGEND: &[&str] = &[
    "S: _ idle, S starting, G retiring, . empty; else the phase's initial",
    "left: how long the MTA still waits; ! it runs out, - it gave up",
    "req: connections in progress; * the child is retiring",
    "at most: 50, 90, 99 of 100 took no longer, since the start",
    "Only the scoreboard is read: no milter notices this program.",
];

/// Over the middle of everything else.
pub(super) fn draw(model: &Model, area: Rect, buffer: &mut Buffer) {
    let mut lines: Vec<Line> = KEYS
        .iter()
        .map(|(key, what)| {
            Line::from(vec![
                Span::styled(format!("{key:>6}  "), model.appearance.label()),
                Span::raw(*what),
            ])
        })
        .collect();
    lines.push(Line::default());
    lines.extend(LEGEND.iter().map(|text| Line::raw(*text)));
    let widest = lines.iter().map(Line::width).max().unwrap_or(0);
    let size = |inner: usize, most: u16| u16::try_from(inner + 2).unwrap_or(most).min(most);
    let (width, height) = (size(widest + 2, area.width), size(lines.len(), area.height));
    let place = Rect::new(
        area.x + (area.width - width) / 2,
        area.y + (area.height - height) / 2,
        width,
        height,
    );
    Clear.render(place, buffer);
    let block = Block::bordered().title(" keys of pmx-milter top ");
    Paragraph::new(lines)
        .block(if model.appearance.unicode {
            block
        } else {
            block.border_set(ASCII_BORDER)
        })
        .render(place, buffer);
}

/// For terminals that have nothing else.
const ASCII_BORDER: ratatui::symbols::border::Set = ratatui::symbols::border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};
