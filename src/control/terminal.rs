//! What people read: answers on stdout, trouble on stderr. A reader that went away ends nothing.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::OnceLock;

static PROGRAM: OnceLock<&str> = OnceLock::new();

/// Complaints are signed with this name from now on, instead of `pmx-milter`: the first one wins.
pub fn sign_as(program: &'static str) {
    // A second name would be a program that is two at once.
    let _ = PROGRAM.set(program);
}

/// A line of the answer. False when nobody reads any more.
pub(super) fn say(line: impl Display) -> bool {
    let mut out = io::stdout().lock();
    // Flushed at once: a fork would otherwise print buffered lines twice.
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}

/// Something went wrong: what, of which object, why, and what to do.
pub(super) fn complain(text: impl Display) {
    // When even stderr is gone, there is nobody left to tell.
    let program = PROGRAM.get().unwrap_or(&"pmx-milter");
    let _ = writeln!(io::stderr().lock(), "{program}: {text}");
}

/// Something is not as it should be, and the verb goes on.
pub(super) fn warn(text: impl Display) {
    complain(format_args!("warning: {text}"));
}

/// Bytes that a board or another program wrote, safe for a terminal: control characters and what is not UTF-8 become `?`.
pub(super) fn clean(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| {
            if c.is_control() || c == char::REPLACEMENT_CHARACTER {
                '?'
            } else {
                c
            }
        })
        .collect()
}

/// `1 connection`, `2 connections`
pub(super) fn count(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

/// A duration as people say it: `4m30s`, `12s`, `1h2m`.
pub(super) fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, 0) => format!("{m}m"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, 0, _) => format!("{h}h"),
        (h, m, _) => format!("{h}h{m}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_counts_read_as_people_say_them() {
        let table = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (270, "4m30s"),
            (3600, "1h"),
            (3723, "1h2m"),
        ];
        for (seconds, text) in table {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(count(1, "connection"), "1 connection");
        assert_eq!(count(0, "connection"), "0 connections");
    }

    #[test]
    fn what_a_board_says_cannot_drive_a_terminal() {
        assert_eq!(clean(b"a\x1b[2J\x9b\n\xff"), "a?[2J???");
        assert_eq!(clean("m\u{fc}ller\u{85}".as_bytes()), "m\u{fc}ller?");
    }
}
