//! The `-signal` of `stop`: taken from the arguments before the option parser sees them, since `-9` and `-KILL` are no options.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fmt;

use nix::sys::signal::Signal;

/// How a milter is to be stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StopSignal {
    /// Connections in progress finish.
    #[default]
    Hup,
    /// The same.
    Term,
    /// Connections are aborted, everything is cleaned up.
    Int,
    /// Master and children are gone at once.
    Kill,
}

/// Spelling, number and meaning, as the man page lists them.
pub const KNOWN: [(&str, &str, StopSignal); 4] = [
    ("HUP", "1", StopSignal::Hup),
    ("INT", "2", StopSignal::Int),
    ("KILL", "9", StopSignal::Kill),
    ("TERM", "15", StopSignal::Term),
];

/// Options of one dash that `stop` has itself.
const OPTIONS: [&str; 3] = ["-h", "-c", "-V"];

impl StopSignal {
    /// The kernel's signal.
    pub fn signal(self) -> Signal {
        match self {
            StopSignal::Hup => Signal::SIGHUP,
            StopSignal::Term => Signal::SIGTERM,
            StopSignal::Int => Signal::SIGINT,
            StopSignal::Kill => Signal::SIGKILL,
        }
    }

    /// Do connections in progress finish?
    pub fn is_graceful(self) -> bool {
        matches!(self, StopSignal::Hup | StopSignal::Term)
    }
}

/// Why nothing is signalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopSignalError {
    /// No such signal, or not one for milters.
    Unknown(String),
    /// More than one was given.
    Two(String, String),
}

impl fmt::Display for StopSignalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopSignalError::Unknown(text) => write!(
                f,
                "stop: unknown signal {text}; known are -HUP (-1) and -TERM (-15), which let connections finish, -INT (-2), which aborts them, and -KILL (-9)"
            ),
            StopSignalError::Two(first, second) => write!(
                f,
                "stop: two signals, {first} and {second}; give one of -HUP, -INT, -KILL, -TERM"
            ),
        }
    }
}

impl std::error::Error for StopSignalError {}

/// Takes the signal out of the arguments (the program's name first) when the verb is `stop`.
///
/// # Errors
/// An unknown signal, or two of them.
pub fn take(args: Vec<OsString>) -> Result<(Vec<OsString>, StopSignal), StopSignalError> {
    let Some(verb) = verb_index(&args).filter(|index| args[*index] == "stop") else {
        return Ok((args, StopSignal::default()));
    };
    let mut rest = Vec::with_capacity(args.len());
    let mut found: Option<(String, StopSignal)> = None;
    let mut args = args.into_iter().enumerate();
    while let Some((index, arg)) = args.next() {
        if index <= verb {
            rest.push(arg);
            continue;
        }
        if arg == "--" {
            rest.push(arg);
            rest.extend(args.by_ref().map(|(_, arg)| arg));
            break;
        }
        if takes_value(&arg) {
            rest.push(arg);
            rest.extend(args.next().map(|(_, value)| value));
            continue;
        }
        let bytes = arg.as_encoded_bytes();
        let one_dash = bytes.len() > 1 && bytes[0] == b'-' && bytes[1] != b'-';
        if !one_dash || OPTIONS.iter().any(|option| arg == *option) {
            rest.push(arg);
            continue;
        }
        let text = arg.to_string_lossy().into_owned();
        let signal = parse(&text).ok_or_else(|| StopSignalError::Unknown(text.clone()))?;
        if let Some((first, _)) = found {
            return Err(StopSignalError::Two(first, text));
        }
        found = Some((text, signal));
    }
    Ok((rest, found.map_or_else(StopSignal::default, |(_, s)| s)))
}

/// Where the verb stands: the first argument that is neither an option nor an option's value.
pub fn verb_index(args: &[OsString]) -> Option<usize> {
    let mut index = 1;
    loop {
        let arg = args.get(index)?;
        if takes_value(arg) {
            index += 2;
        } else if arg.as_encoded_bytes().starts_with(b"-") {
            index += 1;
        } else {
            return Some(index);
        }
    }
}

fn takes_value(arg: &OsStr) -> bool {
    arg == "-c" || arg == "--run-dir"
}

/// One signal with its dash: number or name, with or without SIG, in any case.
fn parse(text: &str) -> Option<StopSignal> {
    let word = text.strip_prefix('-')?;
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    KNOWN
        .iter()
        .find(|(known, number, _)| name == *known || word == *number)
        .map(|(_, _, signal)| *signal)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn every_spelling_of_a_signal_is_understood_anywhere_after_stop() {
        let spellings: &[(&str, StopSignal)] = &[
            ("-1 -HUP -hup -SIGHUP -sighup -SigHup", StopSignal::Hup),
            ("-2 -INT -int -SIGINT -sigint", StopSignal::Int),
            ("-9 -KILL -kill -SIGKILL -sigkill -Kill", StopSignal::Kill),
            ("-15 -TERM -term -SIGTERM -sigterm", StopSignal::Term),
        ];
        for (all, signal) in spellings {
            for spelling in all.split(' ') {
                for (line, left) in [
                    (format!("p stop {spelling}"), "p stop"),
                    (format!("p stop {spelling} a"), "p stop a"),
                    (format!("p stop a {spelling} b"), "p stop a b"),
                    (format!("p -c f stop a {spelling}"), "p -c f stop a"),
                    (
                        format!("p --run-dir stop stop {spelling} -c f"),
                        "p --run-dir stop stop -c f",
                    ),
                ] {
                    assert_eq!(
                        take(words(&line)).unwrap(),
                        (words(left), *signal),
                        "{line}"
                    );
                }
            }
        }
    }

    #[test]
    fn options_values_and_other_verbs_are_left_alone() {
        for line in [
            "p stop",
            "p stop -h",
            "p stop -V",
            "p stop -c -9",
            "p stop --run-dir -9 a",
            "p stop --help",
            "p stop -- -9",
            "p stop -",
            "p start -9",
            "p -9",
            "p",
        ] {
            assert_eq!(
                take(words(line)).unwrap(),
                (words(line), StopSignal::Hup),
                "{line}"
            );
        }
    }

    #[test]
    fn an_unknown_signal_lists_the_known_ones() {
        for bad in [
            "-0",
            "-3",
            "-09",
            "-+9",
            "-USR1",
            "-SIG",
            "-SIGSIGHUP",
            "-SIG9",
            "-cfile",
            "-HUPS",
        ] {
            let error = take(words(&format!("p stop {bad}"))).unwrap_err();
            assert_eq!(error, StopSignalError::Unknown(bad.to_owned()));
            let text = error.to_string();
            for (name, number, _) in KNOWN {
                assert!(text.contains(&format!("-{name} (-{number})")), "{text}");
            }
        }
    }

    #[test]
    fn two_signals_are_an_error_even_the_same_twice() {
        for line in ["p stop -9 -HUP", "p stop -9 a -9"] {
            assert!(matches!(take(words(line)), Err(StopSignalError::Two(..))));
        }
    }
}
