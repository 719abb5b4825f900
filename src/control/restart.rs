//! `restart`: the new configuration, its surroundings and the policy are checked first; if they are bad, the running milter is untouched.
//! Then its master is asked to become this program, with this configuration, while its port stays open.
#![forbid(unsafe_code)]

mod follow;

use std::io;

use nix::sys::signal::Signal;

use crate::config::{self, Config, MilterConfig, MilterName};
use crate::run_dir::Paths;
use crate::run_dir::request::{Asked, Request};
use crate::sys::process;

use super::place::{Found, each_once, not_configured, running_in};
use super::preflight::preflight;
use super::running::Process;
use super::terminal::{complain, say};
use super::{Exit, Launch, Place, check, running, start, stop};
use follow::{Following, generation};

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
    let before = generation(&paths);
    match ask(config, milter, &paths, master) {
        Ok((request, asked)) => Following {
            milter,
            paths: &paths,
            master,
            request: &request,
            asked: &asked,
            before,
        }
        .until_it_is_over(),
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
    let asked = request
        .write(paths)
        .map_err(|error| unwritten(name, paths, &error))?;
    call(master, &asked).map_err(|error| {
        request.withdraw(paths);
        stop::denied("restart", name, paths, &error)
    })?;
    Ok((request, asked))
}

/// The request could not be written.
fn unwritten(name: &MilterName, paths: &Paths, error: &io::Error) -> Exit {
    let (advice, exit) = match error.kind() {
        io::ErrorKind::PermissionDenied => (
            "; run this as the user that started it, or as root",
            Exit::Permission,
        ),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ("; free some space there, or enlarge it", Exit::Failed)
        }
        _ => ("", Exit::Failed),
    };
    complain(format_args!(
        "restart {name}: cannot write a request into {}: {error}{advice}",
        paths.dir().display()
    ));
    exit
}

/// Tells the master that a request waits, and which.
fn call(master: &Process, asked: &Asked) -> io::Result<()> {
    master.handle.signal_with(Signal::SIGUSR2, asked.digest)
}
