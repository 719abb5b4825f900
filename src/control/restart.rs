//! `restart`: the new configuration, its surroundings and the policy are checked first; if they are bad, the running milter is untouched.
//! Then its master is asked to become this program, with this configuration, while its port stays open.
#![forbid(unsafe_code)]

use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::config::{self, Config, MilterConfig, MilterName};
use crate::master::Line;
use crate::run_dir::Paths;
use crate::run_dir::request::{self, Asked, Request};
use crate::sys::process;

use super::patience::Patience;
use super::place::{Found, each_once, not_configured, running_in};
use super::preflight::preflight;
use super::running::Process;
use super::terminal::{clean, complain, count, duration, say, warn};
use super::{Exit, Launch, Place, check, leftovers, running, start, stop};

/// How often it is looked for the answer.
const LOOK: Duration = Duration::from_millis(20);
/// How often the board is looked at meanwhile.
const TURN: Duration = Duration::from_secs(1);
/// What a master has for the trial of a program, and a little.
const TRIAL: Duration = Duration::from_secs(135);

/// The verb: without names every milter that runs, disabled ones too; if none runs, like `start`.
pub fn restart(place: &Place, names: &[MilterName], how: Launch) -> Exit {
    let config = match place.config() {
        Ok(config) => config,
        Err(exit) => {
            complain("restart: not done; running milters are untouched");
            return exit;
        }
    };
    let names = if names.is_empty() {
        match running_in(&config.run_dir) {
            Ok(running) if running.is_empty() => return start::start(place, &[], how),
            Ok(running) => running,
            Err(exit) => return exit,
        }
    } else {
        each_once(names)
    };
    names.iter().fold(Exit::Done, |worst, name| {
        worst.worst(one(&config, name, how))
    })
}

fn one(config: &Config, name: &MilterName, how: Launch) -> Exit {
    let Some(milter) = config.milter(name) else {
        complain(not_configured("restart", name, config));
        return Exit::NotConfigured;
    };
    let checked = start::account(config).and_then(|account| {
        start::directory(config, account.as_ref(), how.as_root)?;
        let good = preflight(config, milter, account.as_ref(), how.as_root);
        // Both are told in one run.
        check::policy(milter, account.as_ref()).and(good)
    });
    let paths = Paths::new(&config.run_dir, name);
    if let Err(exit) = checked {
        untouched(name, running::is_there(&paths));
        return exit;
    }
    let there = match running::there(&paths) {
        Ok(there) => there,
        Err(error) => return stop::denied("restart", name, &paths, &error),
    };
    if let Err(exit) = stop::out_of_reach("restart", name, &paths, &there) {
        return exit;
    }
    let Some(master) = there.processes.iter().find(|it| it.is_master) else {
        // Orphans of a dead master finish by themselves.
        return start::one(config, milter, how);
    };
    if is_stopping(&paths) {
        say(format_args!(
            "{name}: it is being stopped; it is started again when it is gone"
        ));
        let found = Found {
            run_dir: config.run_dir.clone(),
            config: Some(config.clone()),
        };
        return match stop::wait_for_end(&found, name) {
            Ok(()) => start::one(config, milter, how),
            Err(exit) => exit,
        };
    }
    start::doubts(milter);
    match ask(config, milter, &paths, master) {
        Ok((request, asked)) => follow(milter, &paths, master, (&request, &asked)),
        Err(exit) => {
            untouched(name, true);
            exit
        }
    }
}

fn untouched(name: &MilterName, runs: bool) {
    let state = if runs {
        "the running milter is untouched"
    } else {
        "it is not running"
    };
    complain(format_args!("restart {name}: not done; {state}"));
}

fn is_stopping(paths: &Paths) -> bool {
    scoreboard::read(&paths.board())
        .is_ok_and(|board| board.state() == scoreboard::MilterState::Retiring)
}

/// Writes the request and tells the master.
fn ask(
    config: &Config,
    milter: &MilterConfig,
    paths: &Paths,
    master: &Process,
) -> Result<(Request, Asked), Exit> {
    let name = &milter.name;
    // One that does not wait for this signal would die of it.
    if !process::holds_back(master.pid, Signal::SIGUSR2) {
        complain(format_args!(
            "restart {name}: its master (pid {}) is of a version that cannot hand over; use stop and start",
            master.pid
        ));
        return Err(Exit::Failed);
    }
    let program = std::env::current_exe().map_err(|error| {
        complain(format_args!(
            "restart {name}: it cannot be known which program file this is: {error}; is /proc mounted?"
        ));
        Exit::Failed
    })?;
    let only = Config {
        milters: vec![milter.clone()],
        ..config.clone()
    };
    let request = Request::new(program, config.file.clone(), config::dump(&only));
    let asked = request.write(paths).map_err(|error| {
        complain(format_args!(
            "restart {name}: cannot write a request into {}: {error}; run this as the user that started it, or as root",
            paths.dir().display()
        ));
        Exit::Permission
    })?;
    call(master, &asked).map_err(|error| {
        request.withdraw(paths);
        stop::denied("restart", name, paths, &error)
    })?;
    Ok((request, asked))
}

/// Tells the master that a request waits, and which.
fn call(master: &Process, asked: &Asked) -> io::Result<()> {
    master.handle.signal_with(Signal::SIGUSR2, asked.digest)
}

/// Until the master has answered.
fn follow(
    milter: &MilterConfig,
    paths: &Paths,
    master: &Process,
    (request, asked): (&Request, &Asked),
) -> Exit {
    let name = &milter.name;
    let begin = Instant::now();
    let before = generation(paths);
    let mut next_look = begin + TURN;
    let mut waits = true;
    let mut taken_over = None;
    let mut told = None;
    let mut patience = Patience::new(begin);
    loop {
        let ended = master.handle.wait(LOOK);
        match request::read_answer(paths, &request.id) {
            Ok(Some(answer)) => return tell(milter, paths, before, &answer),
            Ok(None) if ended => {
                complain(format_args!(
                    "restart {name}: its master (pid {}) ended meanwhile; its log tells more, pmx-milter status what is there",
                    master.pid
                ));
                return Exit::Failed;
            }
            Ok(None) => {}
            Err(error) => {
                complain(format_args!(
                    "restart {name}: its master's answer in {} cannot be read: {error}",
                    paths.dir().display()
                ));
                return Exit::Failed;
            }
        }
        let now = Instant::now();
        if now < next_look {
            continue;
        }
        next_look = now + TURN;
        if taken_over.is_none()
            && let Some(so_far) = patience.due(now)
        {
            say(format_args!(
                "{name}: waiting: its master tries program, configuration and policy for {} now, at most {}; it goes on serving",
                duration(so_far.as_secs()),
                duration((TRIAL + milter.start_timeout).as_secs())
            ));
        }
        // Of two signals at once the kernel delivers one.
        waits = waits && request.is_waiting(paths);
        if waits {
            let _ = call(master, asked);
        }
        if taken_over.is_none() && generation(paths) != before {
            taken_over = Some(now);
        }
        match taken_over {
            None if now >= begin + TRIAL + milter.start_timeout => {
                request.withdraw(paths);
                complain(format_args!(
                    "restart {name}: its master (pid {}) gives no answer within {}; is it suspended? pmx-milter status tells",
                    master.pid,
                    duration((now - begin).as_secs())
                ));
                return Exit::Failed;
            }
            None => {}
            Some(since) => {
                let waiting = waiting(paths);
                if told != waiting
                    && let Some(text) = &waiting
                {
                    say(format_args!("{name}: {text}"));
                }
                told = waiting;
                if now >= since + milter.start_timeout + milter.graceful_timeout {
                    warn(format_args!(
                        "{name}: the restart is done but for old children that still take connections; each goes when a slot is free for another; pmx-milter status --long shows them"
                    ));
                    return Exit::Done;
                }
            }
        }
    }
}

fn generation(paths: &Paths) -> Option<u64> {
    let board = scoreboard::read(&paths.board()).ok()?;
    Some(board.global.generation)
}

/// Whom it waits for once the new generation is there.
fn waiting(paths: &Paths) -> Option<String> {
    let board = scoreboard::read(&paths.board()).ok()?;
    let old = board.global.children_old;
    (old > 0).then(|| {
        format!(
            "waiting: {} of before, until a slot is free for another; Ctrl-C leaves it going on",
            count(old, "process").replace("processs", "processes")
        )
    })
}

/// What the master answered.
fn tell(milter: &MilterConfig, paths: &Paths, before: Option<u64>, answer: &str) -> Exit {
    let name = &milter.name;
    let safe = |text: &str| {
        let lines: Vec<String> = text.lines().map(|line| clean(line.as_bytes())).collect();
        lines.join("\n")
    };
    let mut changes = Vec::new();
    for line in answer.lines() {
        match Line::decode(line) {
            Some(Line::Changed(text)) => changes.push(safe(&text)),
            Some(Line::Warning(text)) => warn(format_args!("{name}: {}", safe(&text))),
            Some(Line::Ready(pid)) => {
                say(format_args!("{name}: restarted, pid {pid}"));
                if changes.is_empty() {
                    say("    nothing changed");
                }
                for change in &changes {
                    say(format_args!("    {change}"));
                }
                if changes.iter().any(|change| change.starts_with("port:")) {
                    // What the board says: another restart may have been faster.
                    let port = leftovers::port_of(&paths.board());
                    let port = port.as_ref().unwrap_or(&milter.port);
                    for line in start::mta_lines(name, port) {
                        say(line);
                    }
                }
                return Exit::Done;
            }
            Some(Line::Failed(status, text)) => {
                complain(safe(&text));
                if generation(paths) == before {
                    untouched(name, running::is_there(paths));
                } else if !changes.is_empty() {
                    say(format_args!("{name}: what changed"));
                    for change in &changes {
                        say(format_args!("    {change}"));
                    }
                }
                return Exit::from_code(status);
            }
            Some(Line::Already(_)) | None => {}
        }
    }
    complain(format_args!(
        "restart {name}: its master's answer makes no sense"
    ));
    Exit::Failed
}
