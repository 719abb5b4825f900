//! The side of a restart that comes: the program as its predecessor starts it, first for a trial, then in its place. No verbs for people,
//! and not among them.
//!
//! The trial does all that the takeover will do and that can fail (configuration, user, port, policy, every descriptor), in a process of its
//! own that has copies of the descriptors. It says over its standard output what it thinks, in the lines of a report.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;

use nix::unistd::Pid;

use super::boot::{self, Refusal, refuse, status};
use super::estate::Estate;
use super::handover::{self, Program, State};
use super::inherit;
use super::listener;
use super::plan::{self, Plan};
use super::report::Line;
use super::{Report, Setup, end};
use crate::checker::{self, Keeps};
use crate::config::{Config, MilterConfig, MilterName};
use crate::policy::{Bundle, Limits};
use crate::run_dir::request::Request;
use crate::run_dir::{Paths, answer};
use crate::sys::exec::{self, Inherited};
use crate::sys::user::{self, Account};
use crate::sys::{capability, process};

/// First argument of a trial: then the numbers of state, plan and request, and the milter's name for `ps`.
pub(super) const TRIAL: &str = "takeover-trial";
/// First argument of a takeover: then the numbers of state and plan, and the milter's name.
pub(super) const TAKEOVER: &str = "takeover";

/// Runs this program as its predecessor wants it; the exit status. `None`: it was started by people. `arguments`: the program's name first.
pub fn resume(arguments: impl IntoIterator<Item = OsString>) -> Option<i32> {
    let arguments: Vec<OsString> = arguments.into_iter().take(6).collect();
    let number = |index: usize| arguments.get(index)?.to_str()?.parse::<i32>().ok();
    let word = arguments.get(1)?;
    if word == TRIAL {
        let (state, plan, request) = (number(2)?, number(3)?, number(4)?);
        return Some(trial(state, plan, request));
    }
    if word == TAKEOVER {
        let (state, plan) = (number(2)?, number(3)?);
        return Some(takeover(state, plan));
    }
    None
}

fn say(line: &Line) {
    // Who reads it is our master: without one nobody cares.
    let mut out = std::io::stdout().lock();
    let _ = out
        .write_all(line.encode().as_bytes())
        .and_then(|()| out.flush());
}

fn trial(state: i32, plan: i32, request: i32) -> i32 {
    process::keep_others_out();
    process::set_name("pmx-trial");
    match try_out(state, plan, request) {
        Ok(()) => {
            say(&Line::Ready(0));
            0
        }
        Err(refusal) => {
            say(&Line::Failed(refusal.status, refusal.text));
            refusal.status
        }
    }
}

fn try_out(state: i32, plan: i32, request: i32) -> Result<(), Refusal> {
    let broken = |error: &dyn std::fmt::Display| {
        refuse(
            status::GENERIC,
            format_args!("it does not understand what it is given: {error}"),
        )
    };
    let mut inherited = Inherited::default();
    let mut fd = |number| inherited.take(number).map_err(|error| broken(&error));
    let (state, plan_fd, request) = (fd(state)?, fd(plan)?, fd(request)?);
    let state = exec::read_whole(&state).map_err(|error| broken(&error))?;
    let state = State::decode(&state).map_err(|error| broken(&error))?;
    // Executing may have taken this back (prctl(2), PR_SET_PDEATHSIG: a root that regains capabilities).
    if !process::die_with_parent(Pid::from_raw(state.pid)) {
        return Err(broken(&"its master is gone"));
    }
    capability::keep_what_a_master_needs().map_err(|error| broken(&error))?;
    let request = exec::read_whole(&request).map_err(|error| broken(&error))?;
    let request: Request = serde_json::from_slice(&request).map_err(|error| broken(&error))?;

    let wrong = |text: String| refuse(status::NOT_CONFIGURED, text);
    let config = Config::parse_text(&request.config_file, &request.config)
        .map_err(|problems| wrong(problems.to_string()))?;
    let milter = milter_of(&config, &state).map_err(wrong)?;
    let in_full = |refusal: Refusal| Refusal {
        text: format!("milter {}: {}", milter.name, refusal.text),
        ..refusal
    };
    let account = account(&config).map_err(in_full)?;
    let estate = Estate::take_up(&state, &mut inherited)
        .map_err(|error| broken(&error))
        .map_err(in_full)?;
    let paths = Paths::new(&state.run_dir, &milter.name);
    estate.suits(&milter, &paths).map_err(in_full)?;
    listener::only_ours(&estate.listener, &milter.port)
        .map_err(|error| in_full(boot::no_port(&error)))?;
    // Whoever ends the master must not have to wait for a policy that is being checked before the port is free.
    drop(estate);
    surroundings(&milter, &state, account.as_ref())?;
    let group = boot::status_group(&milter, account.as_ref()).map_err(in_full)?;
    let access = boot::socket_access(&milter, account.as_ref()).map_err(in_full)?;
    let address = new_address(&milter, &state).map_err(in_full)?;
    let bundle = check_policy(&milter, account.as_ref(), Keeps::Nothing).map_err(in_full)?;
    let user = account.as_ref().map_or("", |it| it.name.as_str());
    let new = handover::dump(&milter, &state.run_dir, user);
    let changes = plan::changes(
        (&state.config, &new),
        (&state.policy, &bundle),
        (&state.program, &Program::this()),
    );
    let plan = Plan {
        config_file: request.config_file,
        config: request.config,
        milter,
        account,
        group,
        access,
        address,
        request: request.id,
        changes,
        bundle,
    };
    let written = plan
        .encode()
        .and_then(|bytes| exec::write_whole(&plan_fd, &bytes))
        .and_then(|()| exec::seal(&plan_fd));
    written.map_err(|error| {
        refuse(
            status::GENERIC,
            format_args!("no plan can be made: {error}"),
        )
    })
}

/// The milter that the running master is of, in the configuration that is asked for.
fn milter_of(config: &Config, state: &State) -> Result<MilterConfig, String> {
    let name: Option<MilterName> = state.milter.parse().ok();
    let milter = name.and_then(|name| config.milter(&name).cloned());
    let milter = milter.ok_or_else(|| format!("there is no milter {}", state.milter))?;
    if config.run_dir != state.run_dir {
        return Err(format!(
            "milter {}: it runs in run_dir {}, not in {}; stop and start it to move it",
            milter.name,
            state.run_dir.display(),
            config.run_dir.display()
        ));
    }
    Ok(milter)
}

fn account(config: &Config) -> Result<Option<Account>, Refusal> {
    if user::effective_uid() != 0 {
        return Ok(None);
    }
    user::account(&config.user)
        .map(Some)
        .map_err(|error| refuse(status::NOT_CONFIGURED, error))
}

/// The address of a port that the running master does not have.
fn new_address(milter: &MilterConfig, state: &State) -> Result<Option<SocketAddr>, Refusal> {
    if state.port().as_ref() == Some(&milter.port) {
        return Ok(None);
    }
    listener::address_of(&milter.port).map_err(|error| boot::no_port(&error))
}

/// Groups, log, port: what a start would look at.
fn surroundings(
    milter: &MilterConfig,
    state: &State,
    account: Option<&Account>,
) -> Result<(), Refusal> {
    let running = state.port();
    let setup = Setup {
        milter: milter.clone(),
        run_dir: state.run_dir.clone(),
        account: account.cloned(),
        foreground: state.foreground,
        report: Report::Done,
    };
    let obstacle = setup
        .obstacles(running.as_ref())
        .into_iter()
        .find_map(|line| match line {
            Line::Failed(status, text) => Some(Refusal { status, text }),
            _ => None,
        });
    match obstacle {
        Some(refusal) => Err(refusal),
        None => Ok(()),
    }
}

/// The policy's bytes, from the unprivileged checker.
pub(super) fn check_policy(
    milter: &MilterConfig,
    account: Option<&Account>,
    keeps: Keeps,
) -> Result<Bundle, Refusal> {
    let limits = Limits {
        memory: milter.interpreter_memory_limit,
        callback_timeout: milter.callback_timeout,
        ..Limits::default()
    };
    checker::check(&milter.policy, &limits, account, keeps)
        .map_err(|error| refuse(status::NOT_CONFIGURED, error))
}

fn takeover(state: i32, plan: i32) -> i32 {
    let mut inherited = Inherited::default();
    let mut read = || -> std::io::Result<_> {
        let (state, plan) = (inherited.take(state)?, inherited.take(plan)?);
        let state = State::decode(&exec::read_whole(&state)?).map_err(std::io::Error::other)?;
        Ok((state, Plan::decode(&exec::read_whole(&plan)?)?))
    };
    let (state, plan) = match read() {
        Ok(both) => both,
        Err(error) => {
            // The trial read the same a moment ago. Who asked is not known, and the log is not open.
            eprintln!("pmx-milter: cannot take over: {error}");
            return status::GENERIC;
        }
    };
    let paths = Paths::new(&state.run_dir, &plan.milter.name);
    let asked = plan.request.clone();
    match inherit::inherit(state, plan, inherited) {
        Ok(master) => end(master.serve()),
        Err(error) => {
            // The trial went well a moment ago. Children see that their master is gone, and finish what they have.
            let text = format!(
                "the next program cannot take over: {error}; the milter's children finish what they have, start it anew"
            );
            log::error!("{text}");
            // Nobody else will.
            let line = Line::Failed(status::GENERIC, text).encode();
            if let Err(error) = answer::write(&paths, &asked, &line) {
                log::error!("whoever asked for a restart cannot be answered: {error}");
            }
            status::GENERIC
        }
    }
}
