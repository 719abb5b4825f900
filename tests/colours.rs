//! Colour is for terminals, and for people who want it (`NO_COLOR`, <https://no-color.org>).
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use support::SOON;
use support::command::run;
use support::milter::{ADDS_A_HEADER, Milter, PROGRAM};

/// What people read most, and what is most likely to have colours.
const CALLS: [&[&str]; 8] = [
    &["--help"],
    &["status", "--help"],
    &["nonsense"],
    &["status"],
    &["status", "--long", "--history"],
    &["top", "--once"],
    &["check"],
    &["stop", "nobody"],
];

/// What a call writes into a terminal, to the byte. `script` is util-linux's; it gives the call a terminal.
fn in_terminal(milter: &Milter, arguments: &[&str], no_color: Option<&str>) -> String {
    let mut command = Command::new("script");
    command
        .args(["--quiet", "--return", "--command"])
        .arg(format!("{PROGRAM} {}", arguments.join(" ")))
        .arg("/dev/null")
        .env("PMX_CONF", milter.path("pmx.conf"))
        .env("TERM", "xterm")
        .env_remove("NO_COLOR");
    if let Some(value) = no_color {
        command.env("NO_COLOR", value);
    }
    run(command, SOON).out
}

#[test]
fn what_is_no_terminal_gets_no_escape_sequence() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    for arguments in CALLS {
        let outcome = milter.pmx(arguments);
        let said = outcome.out + &outcome.err;
        assert!(
            !said.is_empty() && !said.contains('\x1b'),
            "{arguments:?}: {said:?}"
        );
    }
}

mod needs_script {
    use super::*;

    #[test]
    fn a_terminal_gets_colours_unless_no_color_is_set() {
        let milter = Milter::started(ADDS_A_HEADER, "");
        for arguments in CALLS {
            let said = in_terminal(&milter, arguments, Some("1"));
            assert!(
                !said.is_empty() && !said.contains("\x1b["),
                "{arguments:?}: {said:?}"
            );
        }
        // It would be seen.
        for no_color in [None, Some("")] {
            let said = in_terminal(&milter, &["nonsense"], no_color);
            assert!(said.contains("\x1b["), "{no_color:?} {said:?}");
        }
    }
}
