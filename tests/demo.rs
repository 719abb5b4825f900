//! `demo` through the binary: it works without any preparation, and leaves nothing behind, even when interrupted.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn demo(temp: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pmx-milter"));
    command.arg("demo").env("TMPDIR", temp);
    command
}

/// As root the milter runs as another user, who must be able to reach the directory.
fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
}

fn pid_of(line: &str) -> Pid {
    let number = line.trim_end().rsplit(' ').next().unwrap();
    Pid::from_raw(number.parse().unwrap())
}

#[test]
fn a_demo_shows_real_sessions_and_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    open_to_all(temp.path());
    let output = demo(temp.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}{errors}");
    assert!(text.contains("\ndemo: running\n    pid="), "{text}");
    assert!(text.contains(") req=0 msg=400\n"), "{text}");
    assert!(text.ends_with("demo: stopped\n"), "{text}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    open_to_all(temp.path());
    let mut child = demo(temp.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let master = pid_of(&line);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let status = child.wait().unwrap();
    // A fast machine may have ended before the signal came.
    let code = status.code();
    assert!(code == Some(1) || code == Some(0), "{status:?} {rest}");
    assert!(kill(master, None).is_err(), "its master is still there");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}
