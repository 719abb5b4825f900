//! `restart`: the new configuration, its surroundings and the policy are checked first; if they are bad, the running milter is untouched.
#![forbid(unsafe_code)]

use crate::config::{Config, MilterName};
use crate::run_dir::Paths;

use super::place::{Found, each_once, not_configured, running_in};
use super::preflight::preflight;
use super::terminal::complain;
use super::{Exit, Launch, Place, check, running, start, stop};

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
    let found = Found {
        run_dir: config.run_dir.clone(),
        config: Some(config.clone()),
    };
    names.iter().fold(Exit::Done, |worst, name| {
        worst.worst(one(&config, &found, name, how))
    })
}

fn one(config: &Config, found: &Found, name: &MilterName, how: Launch) -> Exit {
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
    if let Err(exit) = checked {
        let state = if running::is_there(&Paths::new(&config.run_dir, name)) {
            "the running milter is untouched"
        } else {
            "it is not running"
        };
        complain(format_args!("restart {name}: not done; {state}"));
        return exit;
    }
    match stop::gracefully(found, name) {
        Ok(()) => start::one(config, milter, how),
        Err(exit) => exit,
    }
}
