//! `try-restart` and `force-reload`, as init scripts have them: what runs is restarted, and nothing that does not run is started. Init
//! scripts give these after an upgrade, and an upgrade must not bring up what its operator stopped.
#![forbid(unsafe_code)]

use crate::config::MilterName;

use super::place::{each_once, running_in};
use super::terminal::{complain, say};
use super::{Exit, Launch, Place, restart};

/// The verb: without names every milter that runs; with names those of them that run.
pub fn try_restart(place: &Place, names: &[MilterName], how: Launch) -> Exit {
    let running = match place
        .config()
        .and_then(|config| running_in(&config.run_dir))
    {
        Ok(running) => running,
        Err(exit) => {
            complain("try-restart: not done; running milters are untouched");
            return exit;
        }
    };
    if names.is_empty() && running.is_empty() {
        say("no milter runs: nothing to restart");
    }
    let wanted = if names.is_empty() {
        running
    } else {
        let (wanted, idle): (Vec<_>, Vec<_>) = each_once(names)
            .into_iter()
            .partition(|name| running.contains(name));
        for name in idle {
            say(format_args!("{name}: not running: not restarted"));
        }
        wanted
    };
    match wanted.as_slice() {
        // `restart` without names would start the enabled ones.
        [] => Exit::Done,
        some => restart::restart(place, some, how),
    }
}
