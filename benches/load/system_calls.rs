//! System calls a message, counted by strace(1), if it is installed.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::drive::message;
use crate::mta::Mta;
use crate::server::Server;

/// Calls of the whole process tree a message; a connection each, one at a time.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn count(server: &Server, messages: usize) -> Option<f64> {
    // Warm: every child and interpreter exists, and nothing is loaded for the first time.
    for _ in 0..20 {
        one(server)?;
    }
    let summary = tempfile::NamedTempFile::new().ok()?;
    let attached = tempfile::NamedTempFile::new().ok()?;
    let pids = server.processes();
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-o"]).arg(summary.path());
    for pid in &pids {
        command.args(["-p", &pid.to_string()]);
    }
    let mut strace = command
        .stdin(Stdio::null())
        .stderr(attached.reopen().ok()?)
        .spawn()
        .ok()?;
    let end = Instant::now() + Duration::from_secs(10);
    while fs::read_to_string(attached.path())
        .ok()?
        .matches("attached")
        .count()
        < pids.len()
        && Instant::now() < end
    {
        std::thread::sleep(Duration::from_millis(10));
    }
    for _ in 0..messages {
        one(server)?;
    }
    std::thread::sleep(Duration::from_millis(50));
    kill(
        Pid::from_raw(i32::try_from(strace.id()).ok()?),
        Signal::SIGINT,
    )
    .ok()?;
    strace.wait().ok()?;
    let text = fs::read_to_string(summary.path()).ok()?;
    if std::env::var_os("PMX_BENCH_VERBOSE").is_some() {
        eprintln!("{text}");
    }
    // "100.00    0.001234           2       4711           total": time, seconds, microseconds a call, calls, errors.
    let total = text.lines().find(|line| line.ends_with("total"))?;
    let calls: f64 = total.split_whitespace().nth(3)?.parse().ok()?;
    Some(calls / messages as f64)
}

fn one(server: &Server) -> Option<()> {
    let mut mta = Mta::ready(&server.address, Duration::from_secs(30)).ok()?;
    mta.message(&message(4 << 10)).ok()?;
    mta.quit().ok()
}
