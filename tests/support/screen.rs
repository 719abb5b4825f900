//! A terminal's screen: as much of ECMA-48 as `top` uses. What it does not know ends the test, so that nothing is overlooked.

/// How a cell looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Number of the 16 colours; `None` is the terminal's own.
    pub colour: Option<u8>,
    /// Bold.
    pub bold: bool,
    /// Dim.
    pub dim: bool,
    /// Reversed.
    pub reversed: bool,
}

/// A character and its look.
pub type Cell = (char, Look);

/// The screen and what was switched.
#[derive(Debug)]
pub struct Screen {
    columns: usize,
    cells: Vec<Vec<Cell>>,
    row: usize,
    column: usize,
    look: Look,
    /// Bytes of an unfinished character or sequence.
    rest: Vec<u8>,
    /// The alternate screen is shown.
    pub alternate: bool,
    /// The cursor is hidden.
    pub hidden_cursor: bool,
}

const BLANK: Cell = (
    ' ',
    Look {
        colour: None,
        bold: false,
        dim: false,
        reversed: false,
    },
);

impl Screen {
    /// An empty one.
    pub fn new(columns: usize, rows: usize) -> Screen {
        Screen {
            columns,
            cells: vec![vec![BLANK; columns]; rows],
            row: 0,
            column: 0,
            look: Look::default(),
            rest: Vec::new(),
            alternate: false,
            hidden_cursor: false,
        }
    }

    /// Another size; what was there is gone, as `top` draws everything anew.
    pub fn resize(&mut self, columns: usize, rows: usize) {
        self.columns = columns;
        self.cells = vec![vec![BLANK; columns]; rows];
    }

    /// The rows.
    pub fn cells(&self) -> &[Vec<Cell>] {
        &self.cells
    }

    /// The rows as text.
    pub fn text(&self) -> String {
        let line = |row: &Vec<Cell>| {
            let text: String = row.iter().map(|(c, _)| c).collect();
            text.trim_end().to_owned() + "\n"
        };
        self.cells.iter().map(line).collect()
    }

    /// Is this somewhere on it?
    pub fn has(&self, text: &str) -> bool {
        self.text().contains(text)
    }

    /// Takes what a program wrote.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.rest);
        let valid = match std::str::from_utf8(&all) {
            Ok(text) => text.len(),
            Err(error) => {
                assert_eq!(error.error_len(), None, "not UTF-8");
                error.valid_up_to()
            }
        };
        let text = std::str::from_utf8(&all[..valid]).unwrap();
        let mut at = 0;
        while let Some(c) = text[at..].chars().next() {
            if c == '\x1b' {
                let Some(length) = self.sequence(&text[at..]) else {
                    break;
                };
                at += length;
            } else {
                self.put(c);
                at += c.len_utf8();
            }
        }
        self.rest = all[at..].to_vec();
    }

    fn put(&mut self, c: char) {
        match c {
            '\r' => self.column = 0,
            '\n' => self.row += 1,
            c => {
                assert!(!c.is_control(), "control character {c:?}");
                let look = self.look;
                // A program that has not yet heard of a smaller window writes beyond it.
                if let Some(cell) = self
                    .cells
                    .get_mut(self.row)
                    .and_then(|row| row.get_mut(self.column))
                {
                    *cell = (c, look);
                }
                self.column += 1;
            }
        }
    }

    /// Does what a sequence says; its length, or `None` when it is not complete.
    fn sequence(&mut self, text: &str) -> Option<usize> {
        let body = text.strip_prefix("\x1b[").or_else(|| {
            assert!(text.len() < 2, "unknown sequence {:?}", &text[..2]);
            None
        })?;
        let end = body.find(|c: char| ('@'..='~').contains(&c))?;
        let (parameters, last) = (&body[..end], &body[end..=end]);
        let numbers: Vec<usize> = parameters
            .split(';')
            .map(|number| number.parse().unwrap_or(0))
            .collect();
        match (parameters, last) {
            ("?1049", switch) => {
                self.alternate = switch == "h";
                self.clear();
            }
            ("?25", switch) => self.hidden_cursor = switch == "l",
            ("2", "J") => self.clear(),
            (_, "H") => {
                self.row = numbers[0].max(1) - 1;
                self.column = numbers.get(1).copied().unwrap_or(1).max(1) - 1;
            }
            (_, "m") => self.select(&numbers),
            other => panic!("unknown sequence {other:?}"),
        }
        Some(2 + end + 1)
    }

    fn clear(&mut self) {
        let rows = self.cells.len();
        self.cells = vec![vec![BLANK; self.columns]; rows];
    }

    fn select(&mut self, numbers: &[usize]) {
        let mut rest = numbers.iter().copied();
        while let Some(number) = rest.next() {
            match number {
                0 => self.look = Look::default(),
                1 => self.look.bold = true,
                2 => self.look.dim = true,
                7 => self.look.reversed = true,
                22 => (self.look.bold, self.look.dim) = (false, false),
                27 => self.look.reversed = false,
                38 => {
                    assert_eq!(rest.next(), Some(5), "a colour of more than 256");
                    self.look.colour = rest.next().map(|it| u8::try_from(it).unwrap());
                }
                39 => self.look.colour = None,
                // The terminal's own background, its own colour of underlines.
                49 | 59 => {}
                other => panic!("unknown attribute {other}"),
            }
        }
    }
}
