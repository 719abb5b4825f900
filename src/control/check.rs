//! `check`: configuration, policies, and what else a start would refuse, every problem in one run, without touching a milter.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::checker::{self, Keeps};
use crate::config::{self, MilterConfig};
use crate::policy::Limits;
use crate::sys::user::Account;

use super::mta::Mtas;
use super::patience::Patience;
use super::preflight::preflight;
use super::terminal::{complain, duration, say};
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
    let name = &milter.name;
    let (limits, meanwhile) = (limits(milter), still_tried(format!("{name}: ")));
    match checker::check_and_meanwhile(
        &milter.policy,
        &limits,
        account,
        Keeps::Everything,
        meanwhile,
    ) {
        Ok(_) => Ok(()),
        Err(error) => {
            complain(format_args!("milter {}: {error}", milter.name));
            Err(Exit::NotConfigured)
        }
    }
}

/// Says that a policy takes its time; on stderr, for what goes to stdout may be a configuration or a result.
pub(super) fn still_tried(of: String) -> impl FnMut(Duration) {
    let mut patience = Patience::new(Instant::now());
    move |limit| {
        if let Some(so_far) = patience.due(Instant::now()) {
            complain(format_args!(
                "{of}waiting: the policy runs its top level for {} now, at most {}",
                duration(so_far.as_secs()),
                duration(limit.as_secs())
            ));
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
