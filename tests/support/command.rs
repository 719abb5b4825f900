//! Running a program with a deadline and keeping what it wrote.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::wait_until;

/// What a program did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit status; 128 + signal when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Outcome {
    /// The outcome, if its status is this one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Outcome {
        assert_eq!(
            self.code, code,
            "exit status\n--- stdout\n{}--- stderr\n{}",
            self.out, self.err
        );
        self
    }

    /// The outcome, if standard error has this text.
    #[track_caller]
    pub fn says(self, text: &str) -> Outcome {
        assert!(
            self.err.contains(text),
            "{text:?} is missing in stderr:\n{}",
            self.err
        );
        self
    }

    /// The outcome, if standard output has this text.
    #[track_caller]
    pub fn prints(self, text: &str) -> Outcome {
        assert!(
            self.out.contains(text),
            "{text:?} is missing in stdout:\n{}",
            self.out
        );
        self
    }
}

/// A program that runs.
pub struct Running {
    child: Child,
    out: File,
    err: File,
    what: String,
}

/// Starts a program with nothing on its standard input. Output goes to files, so that a daemon that keeps them open hangs nobody.
pub fn spawn(mut command: Command) -> Running {
    let what = format!("{command:?}");
    let (out, err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(err.try_clone().unwrap());
    let child = command
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {what}: {error}"));
    Running {
        child,
        out,
        err,
        what,
    }
}

/// Runs a program to its end.
pub fn run(command: Command, deadline: Duration) -> Outcome {
    spawn(command).wait(deadline)
}

impl Running {
    /// Its pid.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Has it ended?
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// What it wrote so far, to both outputs.
    pub fn said(&mut self) -> String {
        text(&mut self.out) + &text(&mut self.err)
    }

    /// Waits for its end; kills it when the deadline passes.
    pub fn wait(mut self, deadline: Duration) -> Outcome {
        let end = std::time::Instant::now() + deadline;
        let status = wait_until(
            deadline + Duration::from_secs(10),
            &self.what.clone(),
            || {
                if std::time::Instant::now() >= end {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    panic!(
                        "{} did not end within {deadline:?}\n--- stdout\n{}--- stderr\n{}",
                        self.what,
                        text(&mut self.out),
                        text(&mut self.err)
                    );
                }
                self.child.try_wait().unwrap()
            },
        );
        Outcome {
            code: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            out: text(&mut self.out),
            err: text(&mut self.err),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Waited for already, unless a test failed in between.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
