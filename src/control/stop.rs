//! `stop`: signals masters, waits until each milter is gone, says what it waits for.
//!
//! Milters are found by run directory and locks, not by configuration. A master that is dead does not stop its orphans from being
//! waited for, or killed.
#![forbid(unsafe_code)]

use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use scoreboard::EventKind;

use crate::config::MilterName;
use crate::run_dir::Paths;
use crate::sys::clock;
use crate::sys::process::{self, PidFd};

use super::patience::Patience;
use super::place::{Found, each_once};
use super::running::{self, Process, There};
use super::stop_signal::StopSignal;
use super::terminal::{complain, duration, say};
use super::waiting::{A_DAY, Told, Waiting, ending, is_suspended, remains};
use super::{Exit, Place, leftovers};

/// `graceful_timeout` when the configuration does not tell.
const GRACEFUL: Duration = Duration::from_secs(300);
/// What a master has beyond its own deadline to cut connections and clean up.
const GRACE: Duration = Duration::from_secs(15);
/// What an aborting master has.
const ABORT: Duration = Duration::from_secs(30);
/// How long the kernel may take to end killed processes.
const KILL: Duration = Duration::from_secs(10);
/// How often the board is looked at while waiting.
const LOOK: Duration = Duration::from_millis(100);
/// Processes end between two looks within this.
const TURN: Duration = Duration::from_secs(1);

/// The verb: without names every milter that runs.
pub fn stop(place: &Place, names: &[MilterName], signal: StopSignal) -> Exit {
    let found = place.find();
    let names = match targets(&found, names) {
        Ok(names) => names,
        Err(exit) => return exit,
    };
    if names.is_empty() {
        say("no milter is running");
        return Exit::Done;
    }
    let mut worst = Exit::Done;
    let mut waiting = Vec::new();
    // All are signalled before any is waited for: they finish side by side.
    for name in names {
        if !known(&found, &name) {
            worst = worst.worst(Exit::NotConfigured);
            continue;
        }
        match begin(&found, name, signal) {
            Ok(Some(stopping)) => waiting.push(stopping),
            Ok(None) => {}
            Err(exit) => worst = worst.worst(exit),
        }
    }
    for stopping in waiting {
        if let Err(exit) = stopping.wait() {
            worst = worst.worst(exit);
        }
    }
    worst
}

/// Stops one milter gracefully; success when it is gone, or was.
pub(super) fn gracefully(found: &Found, name: &MilterName) -> Result<(), Exit> {
    match begin(found, name.clone(), StopSignal::Hup)? {
        Some(stopping) => stopping.wait(),
        None => Ok(()),
    }
}

/// Waits for the end of a milter that somebody else stops; nobody is signalled, for a second signal would cut connections.
pub(super) fn wait_for_end(found: &Found, name: &MilterName) -> Result<(), Exit> {
    let paths = Paths::new(&found.run_dir, name);
    let there = running::there(&paths).map_err(|error| denied("restart", name, &paths, &error))?;
    Stopping::new(
        found,
        name.clone(),
        paths,
        StopSignal::Hup,
        there.processes,
        clock::boottime_ns(),
    )
    .wait()
}

fn targets(found: &Found, names: &[MilterName]) -> Result<Vec<MilterName>, Exit> {
    if !names.is_empty() {
        return Ok(each_once(names));
    }
    let all = crate::run_dir::milters(&found.run_dir).map_err(|error| {
        complain(format_args!(
            "stop: cannot read run_dir {}: {error}; run this as the milters' user or as root",
            found.run_dir.display()
        ));
        Exit::Permission
    })?;
    Ok(all
        .into_iter()
        .filter(|name| {
            let paths = Paths::new(&found.run_dir, name);
            running::is_there(&paths) || paths.board().exists()
        })
        .collect())
}

/// A name that neither the configuration nor the run directory knows is a slip of the pen, and told. Without a configuration nobody
/// can tell.
fn known(found: &Found, name: &MilterName) -> bool {
    let Some(config) = &found.config else {
        return true;
    };
    let paths = Paths::new(&found.run_dir, name);
    if config.milter(name).is_some() || paths.lock().exists() || paths.board().exists() {
        return true;
    }
    complain(super::place::not_configured("stop", name, config));
    false
}

/// A milter that was signalled.
struct Stopping {
    name: MilterName,
    paths: Paths,
    signal: StopSignal,
    deadline: Instant,
    /// Who was there.
    processes: Vec<Process>,
    /// BOOTTIME ns of the signal.
    since_ns: u64,
}

/// Signals one milter. `None` when it does not run, which is said.
fn begin(found: &Found, name: MilterName, signal: StopSignal) -> Result<Option<Stopping>, Exit> {
    let paths = Paths::new(&found.run_dir, &name);
    let denied = |error: &io::Error| denied("stop", &name, &paths, error);
    let there = running::there(&paths).map_err(|error| denied(&error))?;
    out_of_reach("stop", &name, &paths, &there)?;
    let there = there.processes;
    if there.is_empty() {
        match tidy(&name, &paths)? {
            true => say(format_args!(
                "{name}: not running; the board of its dead master is now {}",
                paths.last_board().display()
            )),
            false => say(format_args!("{name}: not running")),
        };
        return Ok(None);
    }
    let since_ns = clock::boottime_ns();
    let sent = match signal {
        StopSignal::Hup | StopSignal::Term | StopSignal::Int => ask(&there, signal.signal()),
        StopSignal::Kill => kill(&there),
    };
    sent.map_err(|error| denied(&error))?;
    Ok(Some(Stopping::new(
        found, name, paths, signal, there, since_ns,
    )))
}

/// Nothing is done to a milter of which something is out of reach; that is told.
pub(super) fn out_of_reach(
    verb: &str,
    name: &MilterName,
    paths: &Paths,
    there: &There,
) -> Result<(), Exit> {
    if !there.strangers.is_empty() {
        let pids: Vec<String> = there.strangers.iter().map(Pid::to_string).collect();
        complain(format_args!(
            "{verb} {name}: {} is locked by pid {}, which is no process of this milter: it belongs to another user than the file; nothing is signalled or removed; look for who put that lock there",
            paths.lock().display(),
            pids.join(", ")
        ));
        return Err(Exit::Failed);
    }
    if there.elsewhere > 0 {
        complain(format_args!(
            "{verb} {name}: it runs in another pid namespace ({} is locked there), where this program cannot reach it; nothing is removed; stop it in its own container",
            paths.lock().display()
        ));
        return Err(Exit::Failed);
    }
    Ok(())
}

/// The master decides for its children. Orphans retire by themselves and take no other signal than KILL: nobody is left to clean up for.
fn ask(there: &[Process], signal: Signal) -> io::Result<()> {
    if let Some(master) = there.iter().find(|process| process.is_master) {
        return send(&master.handle, signal);
    }
    if signal == Signal::SIGINT {
        for orphan in there {
            send(&orphan.handle, Signal::SIGKILL)?;
        }
    }
    Ok(())
}

/// Ends master and children. The master is frozen first, so that it cannot fork another child while its children are counted.
pub(super) fn kill(there: &[Process]) -> io::Result<()> {
    let mut young = Vec::new();
    if let Some(master) = there.iter().find(|process| process.is_master) {
        send(&master.handle, Signal::SIGSTOP)?;
        young = children_of(master.pid);
        send(&master.handle, Signal::SIGKILL)?;
    }
    for child in &young {
        send(child, Signal::SIGKILL)?;
    }
    for process in there {
        send(&process.handle, Signal::SIGKILL)?;
    }
    Ok(())
}

/// Children that may not have taken their lock yet; asked again after opening, as for locks.
pub(super) fn children_of(master: Pid) -> Vec<PidFd> {
    let list = || process::child_pids(master.as_raw()).unwrap_or_default();
    let opened: Vec<(i32, PidFd)> = list()
        .into_iter()
        .filter_map(|pid| Some((pid, PidFd::open(Pid::from_raw(pid)).ok()?)))
        .collect();
    let still = list();
    opened
        .into_iter()
        .filter(|(pid, _)| still.contains(pid))
        .map(|(_, handle)| handle)
        .collect()
}

/// Signals a process; one that is gone has got what it was to get.
fn send(process: &PidFd, signal: Signal) -> io::Result<()> {
    match process.signal(signal) {
        Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(()),
        other => other,
    }
}

/// Kills whatever is there of a milter and cleans up: for a start that came to nothing. True when nothing is left.
pub(super) fn end_now(paths: &Paths) -> bool {
    let deadline = Instant::now() + KILL;
    while Instant::now() < deadline {
        match running::processes(paths) {
            Ok(there) if there.is_empty() => return leftovers::remove(paths).is_ok(),
            Ok(there) => {
                if kill(&there).is_err() {
                    return false;
                }
                there[0].handle.wait(LOOK);
            }
            Err(_) => return false,
        }
    }
    false
}

pub(super) fn denied(verb: &str, name: &MilterName, paths: &Paths, error: &io::Error) -> Exit {
    if error.kind() == io::ErrorKind::PermissionDenied {
        complain(format_args!(
            "{verb} {name}: not permitted ({}): {error}; run this as the user that started it, or as root",
            paths.lock().display()
        ));
        Exit::Permission
    } else {
        complain(format_args!(
            "{verb} {name}: cannot reach its processes ({}): {error}",
            paths.lock().display()
        ));
        Exit::Failed
    }
}

/// Removes what an ended milter left. True when its board was still in place: it died.
fn tidy(name: &MilterName, paths: &Paths) -> Result<bool, Exit> {
    leftovers::remove(paths).map_err(|error| {
        complain(format_args!(
            "stop {name}: it is gone, but its files in {} cannot be cleaned up: {error}",
            paths.dir().display()
        ));
        if error.kind() == io::ErrorKind::PermissionDenied {
            Exit::Permission
        } else {
            Exit::Failed
        }
    })
}

impl Stopping {
    fn new(
        found: &Found,
        name: MilterName,
        paths: Paths,
        signal: StopSignal,
        processes: Vec<Process>,
        since_ns: u64,
    ) -> Stopping {
        let graceful = found
            .config
            .as_ref()
            .and_then(|config| config.milter(&name))
            .map_or(GRACEFUL, |milter| milter.graceful_timeout);
        let limit = match signal {
            StopSignal::Hup | StopSignal::Term => graceful + GRACE,
            StopSignal::Int => ABORT,
            StopSignal::Kill => KILL,
        };
        Stopping {
            name,
            paths,
            signal,
            deadline: Instant::now() + limit,
            processes,
            since_ns,
        }
    }

    /// The master of another start, once all are gone that were signalled: what runs now is nobody's to be stopped.
    fn successor(&self, there: &[Process]) -> Option<Pid> {
        let known = |pid: Pid| self.processes.iter().any(|process| process.pid == pid);
        let other = there.iter().find(|it| it.is_master && !known(it.pid))?;
        let mut before = self.processes.iter();
        before
            .all(|process| process.handle.wait(Duration::ZERO))
            .then_some(other.pid)
    }

    /// Until the last process is gone, or the time is over.
    fn wait(self) -> Result<(), Exit> {
        let begin = Instant::now();
        let mut told = Told::default();
        let mut deadline = self.deadline;
        let mut agreed = false;
        let mut looked = begin;
        let mut patience = Patience::new(begin);
        loop {
            let there = running::processes(&self.paths)
                .map_err(|error| denied("stop", &self.name, &self.paths, &error))?;
            let Some(first) = there.first() else {
                break;
            };
            let now = Instant::now();
            if let Some(pid) = self.successor(&there) {
                say(format_args!(
                    "{}: stopped; it has been started again meanwhile, pid {pid}",
                    self.name
                ));
                return Ok(());
            }
            if now >= deadline {
                return Err(self.give_up(&there, now - begin));
            }
            // A child that a dying master forked meanwhile.
            if self.signal == StopSignal::Kill {
                kill(&there).map_err(|error| denied("stop", &self.name, &self.paths, &error))?;
            }
            if self.signal.is_graceful() && now >= looked {
                looked = now + TURN;
                let view = Waiting::of(&self.paths.board(), &there, deadline - now);
                // Taken from the board once: a master that is stuck must not keep us for ever.
                if let (false, Some(left)) = (agreed, view.masters_own) {
                    agreed = true;
                    deadline = now + left.min(A_DAY) + GRACE;
                }
                told.tell(&self.name, &view);
            }
            if !told.anything()
                && let Some(so_far) = patience.due(now)
            {
                say(format_args!(
                    "{}: waiting: {} for {} now, at most {}",
                    self.name,
                    ending(&there),
                    duration(so_far.as_secs()),
                    duration((deadline - begin).as_secs())
                ));
            }
            first
                .handle
                .wait(LOOK.min(deadline.saturating_duration_since(now)));
        }
        tidy(&self.name, &self.paths)?;
        match cut(&self.paths, self.since_ns) {
            Some(number) => say(format_args!(
                "{}: stopped; {} cut",
                self.name,
                match number {
                    1 => "1 connection was".to_owned(),
                    number => format!("{number} connections were"),
                }
            )),
            None => say(format_args!("{}: stopped", self.name)),
        };
        Ok(())
    }

    fn give_up(&self, there: &[Process], after: Duration) -> Exit {
        complain(format_args!(
            "stop {}: given up after {}: {}",
            self.name,
            duration(after.as_secs()),
            remains(self.signal, there, is_suspended)
        ));
        Exit::Failed
    }
}

/// Connections that were in progress when a stop did not let them finish, as its master wrote it.
fn cut(paths: &Paths, since_ns: u64) -> Option<u64> {
    let board = scoreboard::Reader::open(&paths.last_board()).ok()?;
    let events = board.history().ok()?.events;
    events
        .iter()
        .find(|event| event.kind == EventKind::Abort.word() && event.at_ns >= since_ns)
        .map(|event| event.value)
        .filter(|number| *number > 0)
}
