//! What a master tells whoever started it: warnings, then ready or the reason why not. One line an item over a pipe; in the foreground to
//! standard error.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use nix::unistd::Pid;

/// The way back to `start`.
#[derive(Debug)]
pub enum Report {
    /// To the process that forked the master.
    Pipe(File),
    /// To the terminal or the journal.
    Stderr,
    /// Kept, for an answer.
    Kept(Vec<Line>),
    /// Everything is said.
    Done,
}

/// One line of a report, as the reader gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Something to know; the start goes on.
    Warning(String),
    /// The milter takes mail; its master's pid.
    Ready(i32),
    /// It runs already; its master's pid.
    Already(i32),
    /// What a restart changed.
    Changed(String),
    /// It cannot start: exit status and reason.
    Failed(i32, String),
}

impl Line {
    /// The line as it crosses the pipe: line ends of the text are escaped.
    pub(super) fn encode(&self) -> String {
        let escape = |text: &str| text.replace('\\', "\\\\").replace('\n', "\\n");
        match self {
            Line::Warning(text) => format!("warning {}\n", escape(text)),
            Line::Ready(pid) => format!("ready {pid}\n"),
            Line::Already(pid) => format!("already {pid}\n"),
            Line::Changed(text) => format!("changed {}\n", escape(text)),
            Line::Failed(status, text) => format!("failed {status} {}\n", escape(text)),
        }
    }

    /// Reads a line without its end. `None` for what is no line of a report.
    pub fn decode(line: &str) -> Option<Line> {
        let (word, rest) = line.split_once(' ')?;
        match word {
            "warning" => Some(Line::Warning(unescape(rest))),
            "ready" => rest.parse().ok().map(Line::Ready),
            "changed" => Some(Line::Changed(unescape(rest))),
            "already" => rest.parse().ok().map(Line::Already),
            "failed" => {
                let (status, text) = rest.split_once(' ')?;
                Some(Line::Failed(status.parse().ok()?, unescape(text)))
            }
            _ => None,
        }
    }
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => {}
            },
            (other, false) => out.push(other),
        }
    }
    out
}

impl Report {
    /// Reports through the write end of a pipe.
    pub fn to_pipe(pipe: OwnedFd) -> Report {
        Report::Pipe(File::from(pipe))
    }

    fn say(&mut self, line: &Line) {
        match self {
            // A reader that has gone needs no report.
            Report::Pipe(pipe) => {
                let _ = pipe.write_all(line.encode().as_bytes());
            }
            Report::Stderr => match line {
                Line::Warning(text) => eprintln!("pmx-milter: warning: {text}"),
                Line::Failed(_, text) => eprintln!("pmx-milter: {text}"),
                Line::Already(pid) => eprintln!("pmx-milter: it runs already, pid {pid}"),
                Line::Ready(_) | Line::Changed(_) => {}
            },
            Report::Kept(lines) => lines.push(line.clone()),
            Report::Done => {}
        }
    }

    /// A key was not changed after all.
    pub(super) fn no_change(&mut self, key: &str) {
        if let Report::Kept(lines) = self {
            let of_key = |text: &str| text.split_once(": ").is_some_and(|(name, _)| name == key);
            lines.retain(|line| !matches!(line, Line::Changed(text) if of_key(text)));
        }
    }

    /// What was kept.
    pub(super) fn kept(self) -> Vec<Line> {
        match self {
            Report::Kept(lines) => lines,
            Report::Pipe(_) | Report::Stderr | Report::Done => Vec::new(),
        }
    }

    /// Something the operator should know.
    pub(super) fn warning(&mut self, text: &str) {
        self.say(&Line::Warning(text.to_owned()));
    }

    /// One line of several.
    pub(crate) fn also(&mut self, line: &Line) {
        self.say(line);
    }

    /// The last line; the pipe is closed.
    pub(crate) fn last(&mut self, line: &Line) {
        self.say(line);
        *self = Report::Done;
    }

    /// The milter takes mail.
    pub(super) fn ready(&mut self) {
        self.last(&Line::Ready(Pid::this().as_raw()));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_line_survives_the_pipe() {
        for line in [
            Line::Warning("two\nlines \\n".to_owned()),
            Line::Ready(7),
            Line::Already(8),
            Line::Changed("max: 1 -> 2".to_owned()),
            Line::Failed(6, "policy.lua:3: no\n\\".to_owned()),
        ] {
            let text = line.encode();
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert_eq!(Line::decode(text.trim_end_matches('\n')).unwrap(), line);
        }
        assert_eq!(Line::decode("nonsense"), None);
    }
}
