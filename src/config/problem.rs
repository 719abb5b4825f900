//! What is wrong with a configuration: every problem of one run, each with its place, its line and a caret.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// More than these are not printed: a file that is not ours at all has one in every line.
const MOST_PRINTED: usize = 100;
/// More than these are not kept.
const MOST_KEPT: usize = 1000;
/// Characters of a line that are shown.
const MOST_SHOWN: usize = 160;

/// A file as it was read.
#[derive(Debug)]
struct Source {
    file: PathBuf,
    text: String,
}

/// One problem.
#[derive(Clone, Debug)]
pub struct Problem {
    source: Option<Arc<Source>>,
    order: usize,
    span: Range<usize>,
    message: String,
}

/// Everything that is wrong, in the order of the files. Never empty.
#[derive(Clone, Debug)]
pub struct Problems {
    problems: Vec<Problem>,
    omitted: usize,
}

impl Problems {
    /// A problem that has no place in a file, such as a file that cannot be read.
    pub(super) fn one(message: String) -> Problems {
        Problems {
            problems: vec![Problem {
                source: None,
                order: 0,
                span: 0..0,
                message,
            }],
            omitted: 0,
        }
    }

    /// Each problem.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }
}

impl Problem {
    /// The file, the line and the column (from 1, in characters), if the problem has a place.
    pub fn place(&self) -> Option<(&Path, usize, usize)> {
        let source = self.source.as_ref()?;
        let before = source.text.get(..self.span.start).unwrap_or("");
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before[line_start(before)..].chars().count() + 1;
        Some((&source.file, line, column))
    }

    /// What is wrong, why, and what to write instead.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// Where the last line of a text begins.
fn line_start(text: &str) -> usize {
    text.rfind('\n').map_or(0, |newline| newline + 1)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(source), Some((file, line, column))) = (&self.source, self.place()) else {
            return f.write_str(&self.message);
        };
        writeln!(f, "{}:{line}:{column}: {}", file.display(), self.message)?;
        let start = line_start(source.text.get(..self.span.start).unwrap_or(""));
        let shown = source.text[start..].lines().next().unwrap_or("");
        // The caret stands below its character only if each character is one column: a control character is shown as a space.
        let skipped = (column - 1).saturating_sub(MOST_SHOWN / 2);
        let window: String = shown
            .chars()
            .skip(skipped)
            .take(MOST_SHOWN)
            .map(|character| {
                if character.is_control() {
                    ' '
                } else {
                    character
                }
            })
            .collect();
        let marked = source.text.get(self.span.clone()).unwrap_or("");
        let width = marked.lines().next().unwrap_or("").chars().count().max(1);
        let room = window.chars().count().saturating_sub(column - 1 - skipped);
        let carets = "^".repeat(width.min(room.max(1)));
        let indent = " ".repeat(column - 1 - skipped);
        write!(f, "    {}\n    {indent}{carets}", window.trim_end())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().take(MOST_PRINTED).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        let more = self.problems.len().saturating_sub(MOST_PRINTED) + self.omitted;
        if more > 0 {
            write!(f, "\nand {more} more")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A place in one of the files of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    source: usize,
    start: usize,
    end: usize,
}

/// Gathers the problems of a run.
#[derive(Default)]
pub(super) struct Notes {
    sources: Vec<Arc<Source>>,
    /// Lines that are not TOML: what was made of them is not worth a second complaint.
    broken: Vec<(usize, Range<usize>)>,
    problems: Vec<Problem>,
    omitted: usize,
}

impl Notes {
    /// Another file; its number makes spots.
    pub(super) fn add_source(&mut self, file: &Path, text: &str) -> usize {
        self.sources.push(Arc::new(Source {
            file: file.to_owned(),
            text: text.to_owned(),
        }));
        self.sources.len() - 1
    }

    /// A place in a file.
    pub(super) fn spot(&self, source: usize, span: Range<usize>) -> Spot {
        let length = self
            .sources
            .get(source)
            .map_or(0, |source| source.text.len());
        let boundary = |offset: usize| {
            let offset = offset.min(length);
            self.sources
                .get(source)
                .map_or(0, |source| source.text.floor_char_boundary(offset))
        };
        let start = boundary(span.start);
        Spot {
            source,
            start,
            end: boundary(span.end).max(start),
        }
    }

    /// `FILE:LINE` of a spot, for a problem elsewhere that refers to it.
    pub(super) fn whereabouts(&self, spot: Spot) -> String {
        self.sources
            .get(spot.source)
            .map_or_else(String::new, |source| {
                let before = source.text.get(..spot.start).unwrap_or("");
                let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
                format!("{}:{line}", source.file.display())
            })
    }

    /// A problem that makes its whole line unreadable.
    pub(super) fn broken_line(&mut self, spot: Spot, message: String) {
        if self.broken.len() < MOST_KEPT
            && let Some(source) = self.sources.get(spot.source)
        {
            let start = line_start(&source.text[..spot.start]);
            let end = source.text[spot.start..]
                .find('\n')
                .map_or(source.text.len(), |newline| spot.start + newline);
            self.broken
                .push((spot.source, start..end.max(spot.end) + 1));
        }
        self.keep(spot, message);
    }

    /// A problem with what a readable line says.
    pub(super) fn problem(&mut self, spot: Spot, message: String) {
        let broken = self
            .broken
            .iter()
            .any(|(source, lines)| *source == spot.source && lines.contains(&spot.start));
        if !broken {
            self.keep(spot, message);
        }
    }

    fn keep(&mut self, spot: Spot, message: String) {
        if self.is_full() {
            self.omitted += 1;
            return;
        }
        self.problems.push(Problem {
            source: self.sources.get(spot.source).cloned(),
            order: spot.source,
            span: spot.start..spot.end,
            message,
        });
    }

    /// Are further problems only counted?
    pub(super) fn is_full(&self) -> bool {
        self.problems.len() >= MOST_KEPT
    }

    /// Is something not even TOML? Then what seems to be missing may be there.
    pub(super) fn any_broken(&self) -> bool {
        !self.broken.is_empty()
    }

    /// The end of the run: is the configuration good?
    pub(super) fn finish(self) -> Result<(), Problems> {
        if self.problems.is_empty() {
            Ok(())
        } else {
            Err(self.into_problems())
        }
    }

    /// The end of a run that cannot go on.
    pub(super) fn into_problems(mut self) -> Problems {
        self.problems
            .sort_by_key(|problem| (problem.order, problem.span.start));
        Problems {
            problems: self.problems,
            omitted: self.omitted,
        }
    }
}
