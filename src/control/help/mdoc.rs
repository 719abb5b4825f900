//! Our manual pages as plain text, where neither `man` nor `mandoc` is there: exactly the mdoc(7) macros that they use.
//!
//! Not a general formatter: a macro that it does not know is a mistake in a page, and a test finds it.
#![forbid(unsafe_code)]

/// Columns of a line.
const WIDTH: usize = 78;
/// Columns of a section's text, and of a list's body below its tag.
const STEP: usize = 4;

/// The page as text.
pub(super) fn to_text(page: &str) -> String {
    let mut writer = Writer::default();
    for line in page.lines() {
        writer.line(line);
    }
    writer.flush();
    writer.out
}

/// A paragraph in the making: words with and without spaces between them.
#[derive(Default)]
struct Flow {
    text: String,
    glued: bool,
}

impl Flow {
    /// A word after a space, unless it is glued to the one before.
    fn word(&mut self, word: &str) {
        if !self.text.is_empty() && !self.glued {
            self.text.push(' ');
        }
        self.text.push_str(word);
        self.glued = false;
    }

    /// A word to which the next one is glued.
    fn open(&mut self, word: &str) {
        self.word(word);
        self.glued = true;
    }

    /// A word that is glued to the one before.
    fn close(&mut self, word: &str) {
        self.text.push_str(word);
        self.glued = false;
    }
}

#[derive(Default)]
struct Writer {
    out: String,
    flow: Flow,
    name: String,
    /// Columns before the text.
    indent: usize,
    /// Columns before the first line of a paragraph, when others.
    first_indent: Option<usize>,
    literal: bool,
    synopsis: bool,
    /// A list's tag that goes on until `Xc`.
    tag: bool,
}

impl Writer {
    fn line(&mut self, line: &str) {
        if self.literal && line != ".Ed" {
            self.put(self.indent, line);
            return;
        }
        let Some(request) = line.strip_prefix('.') else {
            self.flow.word(line.trim());
            return;
        };
        let words: Vec<&str> = request.split_ascii_whitespace().collect();
        let Some((name, rest)) = words.split_first() else {
            return;
        };
        match *name {
            "Dd" | "Os" | "Dt" => {}
            "Sh" => self.section(&rest.join(" ")),
            "Pp" => self.paragraph(),
            "Bl" => {
                self.flush();
                self.indent += 2 * STEP;
            }
            "El" => {
                self.flush();
                self.indent = self.indent.saturating_sub(2 * STEP);
            }
            "It" => self.item(rest),
            "Bd" => {
                self.paragraph();
                self.indent += STEP;
                self.literal = true;
            }
            "Ed" => {
                self.indent = self.indent.saturating_sub(STEP);
                self.literal = false;
            }
            "Xc" => self.end_tag(),
            "Nm" if self.synopsis => {
                self.flush();
                self.first_indent = Some(STEP);
                self.inline(&words);
            }
            "Nm" if self.name.is_empty() => {
                self.name = rest.join(" ");
                self.inline(&words);
            }
            _ => self.inline(&words),
        }
    }

    fn section(&mut self, title: &str) {
        self.flush();
        if !self.out.is_empty() {
            self.blank();
        }
        self.put(0, title);
        self.synopsis = title == "SYNOPSIS";
        self.indent = if self.synopsis { 3 * STEP } else { STEP };
    }

    fn paragraph(&mut self) {
        self.flush();
        self.blank();
    }

    fn item(&mut self, words: &[&str]) {
        self.paragraph();
        match words.split_first() {
            Some((&"Xo", _)) => self.tag = true,
            _ => {
                self.inline(words);
                self.tag = true;
                self.end_tag();
            }
        }
    }

    fn end_tag(&mut self) {
        if std::mem::take(&mut self.tag) {
            let tag = std::mem::take(&mut self.flow).text;
            self.put(self.indent.saturating_sub(2 * STEP), &tag);
        }
    }

    /// Words of a line, macros among them.
    fn inline(&mut self, words: &[&str]) {
        let mut dash = false;
        let mut words = words;
        while let Some((word, rest)) = words.split_first() {
            words = rest;
            let enclosing = match *word {
                "Op" => Some(("[", "]")),
                "Pq" => Some(("(", ")")),
                "Dq" => Some(("\"", "\"")),
                _ => None,
            };
            if let Some((open, close)) = enclosing {
                let end = rest.iter().rposition(|word| !is_closing(word));
                let (inside, after) = rest.split_at(end.map_or(0, |last| last + 1));
                self.flow.open(open);
                self.inline(inside);
                self.flow.close(close);
                words = after;
                continue;
            }
            match *word {
                "Fl" => {
                    // `Fl Fl long` and `Fl Ar x`: the dash stands alone, what follows is glued to it.
                    let alone = rest.first().is_none_or(|next| is_macro(next));
                    if alone {
                        self.flow.open("-");
                    }
                    dash = !alone;
                }
                "Nm" if rest.first().is_none_or(|next| is_macro(next)) => {
                    let name = self.name.clone();
                    self.flow.word(&name);
                }
                "Oo" => self.flow.open("["),
                "Oc" => self.flow.close("]"),
                "Po" => self.flow.open("("),
                "Pc" => self.flow.close(")"),
                "Nd" => self.flow.word("-"),
                "Xr" => {
                    if let Some(([page, section], after)) = rest.split_first_chunk::<2>() {
                        self.flow.word(&format!("{page}({section})"));
                        words = after;
                    }
                }
                plain if is_macro(plain) => dash = false,
                punctuation if is_closing(punctuation) => self.flow.close(punctuation),
                text if dash => self.flow.word(&format!("-{text}")),
                text => self.flow.word(text),
            }
        }
    }

    /// Writes the paragraph, wrapped.
    fn flush(&mut self) {
        let text = std::mem::take(&mut self.flow).text;
        let mut indent = self.first_indent.take().unwrap_or(self.indent);
        let mut line = String::new();
        for word in text.split_ascii_whitespace() {
            let full = indent + line.chars().count() + 1 + word.chars().count() > WIDTH;
            if !line.is_empty() && full {
                self.put(indent, &line);
                line.clear();
                indent = self.indent;
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        if !line.is_empty() {
            self.put(indent, &line);
        }
    }

    fn put(&mut self, indent: usize, line: &str) {
        let spaces = if line.is_empty() { 0 } else { indent };
        self.out.push_str(&" ".repeat(spaces));
        self.out.push_str(line);
        self.out.push('\n');
    }

    fn blank(&mut self) {
        if !self.out.ends_with("\n\n") && !self.out.is_empty() {
            self.out.push('\n');
        }
    }
}

fn is_closing(word: &str) -> bool {
    matches!(word, "." | "," | ":" | ";" | ")" | "]" | "?" | "!")
}

fn is_macro(word: &str) -> bool {
    matches!(
        word,
        "Ar" | "Cm"
            | "Dq"
            | "Ev"
            | "Fl"
            | "Nd"
            | "Nm"
            | "No"
            | "Oc"
            | "Oo"
            | "Op"
            | "Pa"
            | "Pc"
            | "Po"
            | "Pq"
            | "Sx"
            | "Xr"
    )
}

#[cfg(test)]
mod tests {
    use super::super::{PMX_INIT, PMX_MILTER};
    use super::*;

    #[test]
    fn both_pages_become_readable_text() {
        for page in [PMX_MILTER, PMX_INIT] {
            let text = to_text(page);
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{line:?}");
                assert!(!line.trim_start().starts_with('.'), "{line:?}");
                for word in line.split_ascii_whitespace() {
                    // "No" is also a word of English.
                    let left = is_macro(word) && word != "No";
                    assert!(!left, "a macro is left: {line:?}");
                }
            }
            assert!(!text.contains("\n\n\n"));
        }
    }

    #[test]
    fn options_brackets_and_references_are_written_as_a_man_page_shows_them() {
        let page = ".Sh NAME\n.Nm p\n.Nd controls\n.Sh SYNOPSIS\n.Nm\n.Op Fl c Ar file\n.Cm stop Oo Fl Ar signal Oc\n.Op Ar m ...\n.Sh OPTIONS\nSee\n.Xr q 8 ,\nor\n.Pq Cm a , b .\n.Bl -tag -width Ds\n.It Fl h , Fl Fl help\nA\n.Dq summary .\n.It Xo\n.Cm x\n.Op Fl Fl y Ar z\n.Xc\nBoth.\n.El\n";
        let text = to_text(page);
        assert_eq!(
            text,
            "NAME\n    p - controls\n\nSYNOPSIS\n    p [-c file] stop [-signal] [m ...]\n\nOPTIONS\n    See q(8), or (a, b).\n\n    -h, --help\n            A \"summary\".\n\n    x [--y z]\n            Both.\n"
        );
    }
}
