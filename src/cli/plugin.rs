//! `status --format nagios` as a plugin: there `-c` is the critical threshold and every wrong argument is UNKNOWN, status 3.
//!
//! Everywhere else `-c` names the configuration, before and after the verb. The format decides, not what the argument looks like: a file
//! may have any name. The option parser cannot give a letter two meanings, so that `-c` is rewritten before it looks.
#![forbid(unsafe_code)]

use std::ffi::OsString;

use crate::control::{status, verb_index};

/// Options of `status` whose value is the next argument.
const TAKE_VALUE: [&str; 7] = [
    "--format",
    "--watch",
    "--run-dir",
    "-w",
    "--warning",
    "-c",
    "--critical",
];

/// Whether the arguments (the program's name first) ask for a plugin; then each `-c` after `status` has become `--critical`.
pub(super) fn adapt(args: &mut [OsString]) -> bool {
    let Some(verb) = verb_index(args).filter(|index| args[*index] == "status") else {
        return false;
    };
    let after = &mut args[verb + 1..];
    let end = after.iter().position(|arg| arg == "--");
    let end = end.unwrap_or(after.len());
    let options = &mut after[..end];
    if !asks_for_nagios(options) {
        return false;
    }
    let mut is_value = false;
    for arg in options {
        if is_value {
            is_value = false;
            continue;
        }
        is_value = TAKE_VALUE.iter().any(|option| arg == option);
        if let Some(critical) = critical(arg) {
            *arg = critical;
        }
    }
    true
}

fn asks_for_nagios(options: &[OsString]) -> bool {
    let apart = |pair: &[OsString]| pair[0] == "--format" && pair[1] == "nagios";
    options.iter().any(|arg| arg == "--format=nagios") || options.windows(2).any(apart)
}

/// `-c`, `-cRANGE` and `-c=RANGE` by their long name.
fn critical(arg: &OsString) -> Option<OsString> {
    let text = arg.to_str()?.strip_prefix("-c")?;
    Some(match text.strip_prefix('=').unwrap_or(text) {
        "" => OsString::from("--critical"),
        range => OsString::from(format!("--critical={range}")),
    })
}

/// What the option parser says of wrong arguments, and of `--help` and `--version`: its text, and on top the plugin's line.
pub(super) fn refuse(error: &clap::Error) -> u8 {
    let text = error.to_string();
    if error.use_stderr() {
        let first = text.lines().next().unwrap_or("wrong arguments");
        println!("{}", status::refusal(first.trim_start_matches("error: ")));
    }
    // When the output is gone, the status still tells.
    let _ = error.print();
    status::Level::Unknown.code()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapted(line: &str) -> (String, bool) {
        let mut args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let asks = adapt(&mut args);
        let words: Vec<String> = args
            .iter()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect();
        (words.join(" "), asks)
    }

    #[test]
    fn only_for_nagios_and_only_after_the_verb_c_is_critical() {
        for (line, expected) in [
            (
                "p -c f status --format nagios -c 90 m",
                "p -c f status --format nagios --critical 90 m",
            ),
            (
                "p status -c busy=9 -c late=0 --format=nagios",
                "p status --critical busy=9 --critical late=0 --format=nagios",
            ),
            (
                "p -c status status -c90 -c=@1:2 --format nagios",
                "p -c status status --critical=90 --critical=@1:2 --format nagios",
            ),
            (
                "p status --format nagios -w -c -- -c",
                "p status --format nagios -w -c -- -c",
            ),
        ] {
            assert_eq!(adapted(line), (expected.to_owned(), true));
        }
        for line in [
            "p -c f status",
            "p status -c f",
            "p status -c f --format json",
            "p start -c f --format nagios",
            "p status -c f -- --format nagios",
            "p -c nagios",
        ] {
            assert_eq!(adapted(line), (line.to_owned(), false));
        }
    }
}
