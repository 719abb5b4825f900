//! `check`: configuration, policies, and what else a start would refuse, every problem in one run, without touching a milter.
#![forbid(unsafe_code)]

use crate::checker;
use crate::config::{self, MilterConfig};
use crate::policy::Limits;
use crate::sys::user::Account;

use super::mta::Mtas;
use super::preflight::preflight;
use super::terminal::{complain, say};
use super::{AsRoot, Exit, Place, start};

/// The verb. `dump`: prints the effective configuration instead of a line a milter.
pub fn check(place: &Place, dump: bool) -> Exit {
    let config = match place.config() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    if dump {
        say(config::dump(&config).trim_end());
    }
    let account = match start::account(&config) {
        Ok(account) => account,
        Err(exit) => return exit,
    };
    let mut worst = Exit::Done;
    let enabled: Vec<_> = config.milters.iter().filter(|m| m.enabled).collect();
    if enabled.is_empty() && !dump {
        say(format_args!(
            "{}: no milter is enabled",
            config.file.display()
        ));
    }
    // Asked once, and not when the answer is a configuration.
    let mtas = (!dump && !enabled.is_empty()).then(Mtas::here);
    for milter in enabled {
        start::doubts(milter);
        let clear = preflight(&config, milter, account.as_ref(), AsRoot::MasterStays);
        match policy(milter, account.as_ref()).and(clear) {
            Ok(()) if dump => {}
            Ok(()) => {
                say(format_args!(
                    "{}: good, {} on {}",
                    milter.name,
                    milter.policy.display(),
                    milter.port
                ));
            }
            Err(exit) => worst = worst.worst(exit),
        }
        for note in mtas.iter().flat_map(|mtas| mtas.notes(milter)) {
            say(note);
        }
    }
    worst
}

/// Tries one policy as the user that will run it; told if it is bad.
///
/// # Errors
/// [`Exit::NotConfigured`]
pub(super) fn policy(milter: &MilterConfig, account: Option<&Account>) -> Result<(), Exit> {
    match checker::check(&milter.policy, &limits(milter), account) {
        Ok(_) => Ok(()),
        Err(error) => {
            complain(format_args!("milter {}: {error}", milter.name));
            Err(Exit::NotConfigured)
        }
    }
}

fn limits(milter: &MilterConfig) -> Limits {
    Limits {
        memory: milter.interpreter_memory_limit,
        callback_timeout: milter.callback_timeout,
        ..Limits::default()
    }
}
