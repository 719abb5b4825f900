//! A screen as SVG: text in runs of one look, bars as rectangles, so that no font decides how they fit together.

use std::fmt::Write;

use crate::support::screen::{Cell, Look};

const CELL: (f64, f64) = (8.4, 18.0);
const MARGIN: f64 = 12.0;
const PAPER: &str = "#16191d";
const INK: &str = "#d8dee4";

/// The picture.
pub(crate) fn of(rows: &[Vec<Cell>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = columns as f64 * CELL.0 + 2.0 * MARGIN;
    let height = rows.len() as f64 * CELL.1 + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\">\n\
         <title>pmx-milter top</title>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{PAPER}\"/>\n\
         <g font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"14\" xml:space=\"preserve\">\n"
    );
    for (y, row) in rows.iter().enumerate() {
        let mut start = 0;
        while start < row.len() {
            let alike = |cell: &&Cell| cell.1 == row[start].1 && bar(cell.0) == bar(row[start].0);
            let end = start + row[start..].iter().take_while(alike).count();
            run(&mut svg, y, start, &row[start..end]);
            start = end;
        }
    }
    svg + "</g>\n</svg>\n"
}

/// Cells of one look.
fn run(svg: &mut String, row: usize, column: usize, cells: &[Cell]) {
    let look = cells[0].1;
    let (ink, paper) = colours(look);
    let (x, y) = (
        MARGIN + column as f64 * CELL.0,
        MARGIN + row as f64 * CELL.1,
    );
    let width = cells.len() as f64 * CELL.0;
    if look.reversed {
        rectangle(svg, (x, y, width, CELL.1), paper, 1.0);
    }
    if let Some((height, opacity)) = bar(cells[0].0) {
        let height = height * CELL.1;
        rectangle(svg, (x, y + CELL.1 - height, width, height), ink, opacity);
        return;
    }
    let text: String = cells.iter().map(|(c, _)| *c).collect();
    if text.trim().is_empty() {
        return;
    }
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let bold = if look.bold {
        " font-weight=\"bold\""
    } else {
        ""
    };
    let baseline = y + CELL.1 * 0.75;
    // textLength: the columns stand below each other in every font.
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{baseline:.1}\" textLength=\"{width:.1}\" fill=\"{ink}\"{bold}>{text}</text>"
    );
}

fn rectangle(svg: &mut String, place: (f64, f64, f64, f64), colour: &str, opacity: f64) {
    let (x, y, width, height) = place;
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\" fill-opacity=\"{opacity}\"/>"
    );
}

/// Part of the cell's height and opacity of a block character.
fn bar(c: char) -> Option<(f64, f64)> {
    match c {
        '▁'..='█' => Some((f64::from(u32::from(c) - 0x2580) / 8.0, 1.0)),
        '▓' => Some((1.0, 0.6)),
        '░' => Some((1.0, 0.3)),
        _ => None,
    }
}

/// Of text and of what is behind it.
fn colours(look: Look) -> (&'static str, &'static str) {
    let ink = match look.colour {
        None => INK,
        Some(1 | 9) => "#ff6b68",
        Some(2 | 10) => "#7ccf6b",
        Some(3 | 11) => "#f2c14e",
        Some(6 | 14) => "#5ec9d8",
        Some(8) => "#7d8590",
        Some(other) => panic!("no colour is chosen for {other}"),
    };
    if look.reversed {
        (PAPER, ink)
    } else {
        (ink, PAPER)
    }
}
