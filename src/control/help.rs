//! `help`: the manual page, which is part of the program, so that it is there wherever the program is.
#![forbid(unsafe_code)]

mod mdoc;

use std::io::{self, IsTerminal, Write};
use std::process::{Command, Stdio};

use super::Exit;
use super::terminal::say;

/// The page of `pmx-milter`.
pub const PMX_MILTER: &str = include_str!("../../man/pmx-milter.8");
/// The page of `pmx-init`.
pub const PMX_INIT: &str = include_str!("../../man/pmx-init.8");

/// The verb. On a terminal with the system's own viewer and its pager; otherwise as plain text.
pub fn help(page: &str) -> Exit {
    if io::stdout().is_terminal() && viewed(page) {
        return Exit::Done;
    }
    say(mdoc::to_text(page).trim_end());
    Exit::Done
}

/// Has `man` or `mandoc` shown it?
fn viewed(page: &str) -> bool {
    let viewers: [(&str, &[&str]); 2] = [("man", &["-l", "-"]), ("mandoc", &["-a"])];
    viewers
        .iter()
        .any(|(program, arguments)| viewed_with(program, arguments, page).unwrap_or(false))
}

fn viewed_with(program: &str, arguments: &[&str], page: &str) -> io::Result<bool> {
    let mut viewer = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = viewer.stdin.take() {
        // A viewer that leaves before it has read everything was closed by its user.
        let _ = stdin.write_all(page.as_bytes());
    }
    Ok(viewer.wait()?.success())
}
