//! `start`: starts masters and tells what to write into the MTA's configuration.
#![forbid(unsafe_code)]

use std::time::Instant;

use crate::config::{Config, MilterConfig, MilterName, Port};
use crate::run_dir::{self, Paths};
use crate::sys::signal;
use crate::sys::user::{self, Account};

use super::launch::{AsRoot, Launch, News, Outcome, launch};
use super::patience::Patience;
use super::place::{each_once, not_configured};
use super::preflight::preflight;
use super::terminal::{complain, duration, say, warn};
use super::{Exit, Place, port_holder, prepare, running};

/// Ports below this are root's.
const FIRST_FREE_PORT: u16 = 1024;

/// The verb: without names every enabled milter, with names those, disabled ones too.
pub fn start(place: &Place, names: &[MilterName], how: Launch) -> Exit {
    let config = match place.config() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    if names.is_empty() && !config.milters.iter().any(|milter| milter.enabled) {
        complain(format_args!(
            "start: no milter is enabled in {}; add one, [milter.NAME], or name a disabled one",
            config.file.display()
        ));
        return Exit::NotConfigured;
    }
    let mut worst = Exit::Done;
    let mut serving: Vec<&MilterConfig> = Vec::new();
    for milter in chosen(&config, names, &mut worst) {
        match one(&config, milter, how) {
            Exit::Done => serving.push(milter),
            exit => worst = worst.worst(exit),
        }
    }
    if serving.len() > 1 {
        let ports: Vec<String> = serving.iter().map(|m| m.port.for_postfix()).collect();
        say(format_args!(
            "all together, Postfix main.cf:\n    smtpd_milters = {}",
            ports.join(", ")
        ));
    }
    worst
}

fn chosen<'a>(config: &'a Config, names: &[MilterName], worst: &mut Exit) -> Vec<&'a MilterConfig> {
    if names.is_empty() {
        return config.milters.iter().filter(|m| m.enabled).collect();
    }
    let mut milters = Vec::new();
    for name in each_once(names) {
        match config.milter(&name) {
            Some(milter) => milters.push(milter),
            None => {
                complain(not_configured("start", &name, config));
                *worst = worst.worst(Exit::NotConfigured);
            }
        }
    }
    milters
}

/// The user as which policies run; `None` unless we are root.
///
/// # Errors
/// [`Exit::NotConfigured`] when root has no such user; told.
pub(super) fn account(config: &Config) -> Result<Option<Account>, Exit> {
    if user::effective_uid() != 0 {
        return Ok(None);
    }
    user::account(&config.user).map(Some).map_err(|error| {
        complain(format_args!("{error}"));
        Exit::NotConfigured
    })
}

/// Makes the run directory ready; told if it cannot be.
///
/// # Errors
/// [`Exit::Permission`] or [`Exit::Failed`]
pub(super) fn directory(
    config: &Config,
    account: Option<&Account>,
    as_root: AsRoot,
) -> Result<(), Exit> {
    let result = match (as_root, account) {
        (AsRoot::BecomeUser, Some(account)) => prepare::for_user(&config.run_dir, account)
            .map_err(|error| (error.exit(), error.to_string())),
        _ => run_dir::prepare(&config.run_dir).map_err(|error| {
            let exit = match &error {
                run_dir::RunDirError::Create(_, error)
                | run_dir::RunDirError::Examine(_, error)
                    if error.kind() == std::io::ErrorKind::PermissionDenied =>
                {
                    Exit::Permission
                }
                _ => Exit::Failed,
            };
            (exit, error.to_string())
        }),
    };
    result.map_err(|(exit, text)| {
        complain(text);
        exit
    })
}

/// Starts one milter; what came of it is said.
pub(super) fn one(config: &Config, milter: &MilterConfig, how: Launch) -> Exit {
    let name = &milter.name;
    let account = match account(config) {
        Ok(account) => account,
        Err(exit) => return exit,
    };
    if let Err(exit) = directory(config, account.as_ref(), how.as_root) {
        return exit;
    }
    let paths = Paths::new(&config.run_dir, name);
    if let Some(pid) = master(&paths) {
        return already(name, pid);
    }
    doubts(milter);
    if let Err(exit) = preflight(config, milter, account.as_ref(), how.as_root) {
        return exit;
    }
    let mut patience = Patience::new(Instant::now());
    let told = |news: News<'_>| match news {
        News::Warning(text) => warn(format_args!("{name}: {text}")),
        News::NotYet => {
            if let Some(so_far) = patience.due(Instant::now()) {
                say(format_args!(
                    "{name}: waiting: it is starting for {} now, at most {}; Ctrl-C ends it",
                    duration(so_far.as_secs()),
                    duration(milter.start_timeout.as_secs())
                ));
            }
        }
    };
    let outcome = launch(how, milter, &config.run_dir, account.as_ref(), told);
    match outcome {
        Ok(Outcome::Ready(pid)) => {
            say(format_args!("{name}: started, pid {pid}"));
            for line in mta_lines(name, &milter.port) {
                say(line);
            }
            Exit::Done
        }
        Ok(Outcome::Already(pid)) => already(name, master(&paths).unwrap_or(pid)),
        Ok(Outcome::Failed(exit, text)) => {
            let hint = hint(&milter.port, &text, how.as_root);
            // The master begins its reasons with "milter NAME".
            complain(format_args!("{text}{hint}"));
            exit
        }
        Ok(Outcome::Died(how)) => {
            complain(format_args!(
                "start {name}: its master ended before it was ready ({how}); its log tells more (log_to)"
            ));
            Exit::Failed
        }
        Ok(Outcome::Interrupted(signal)) => {
            complain(format_args!(
                "start {name}: interrupted by {signal}; its master is ended and nothing of it is left"
            ));
            // Also those that would be started next are not.
            signal::end_by(signal);
            Exit::Failed
        }
        Ok(Outcome::TimedOut(limit)) => {
            complain(format_args!(
                "start {name}: not ready within {} and ended; its log tells more, start_timeout bounds the wait",
                duration(limit.as_secs())
            ));
            Exit::Failed
        }
        Err(error) => {
            complain(format_args!("start {name}: cannot make a process: {error}"));
            Exit::Failed
        }
    }
}

/// Pid of the master that runs; 0 when it has none here.
fn master(paths: &Paths) -> Option<i32> {
    let there = running::there(paths).ok()?;
    let master = there.processes.iter().find(|process| process.is_master);
    match master {
        Some(master) => Some(master.pid.as_raw()),
        None => there.master_elsewhere.then_some(0),
    }
}

fn already(name: &MilterName, pid: i32) -> Exit {
    match pid {
        0 => say(format_args!(
            "{name}: already running, in another pid namespace"
        )),
        pid => say(format_args!("{name}: already running, pid {pid}")),
    };
    Exit::Done
}

/// What is allowed but worth a word: a port that is open to everybody, limits that contradict each other.
pub(super) fn doubts(milter: &MilterConfig) {
    for text in milter.warnings() {
        warn(text);
    }
}

/// Why a port could not be had, as far as we can know.
pub(super) fn hint(port: &Port, text: &str, as_root: AsRoot) -> String {
    let text = text.to_ascii_lowercase();
    if text.contains("in use") {
        return match port_holder::of(port) {
            Some(holder) => format!("\n  it is held by pid {} ({})", holder.pid, holder.name),
            None if user::effective_uid() == 0 => {
                "\n  nobody listens on it: a connection that is still open or closing has it; wait a minute, or choose a port outside net.ipv4.ip_local_port_range".to_owned()
            }
            None => {
                "\n  who holds it is not visible to this user; root sees it with: ss -lp".to_owned()
            }
        };
    }
    if let Port::Inet { port: number, .. } | Port::Inet6 { port: number, .. } = port
        && *number < FIRST_FREE_PORT
        && text.contains("permission denied")
    {
        let why = match as_root {
            AsRoot::BecomeUser => "pmx-init becomes the user before it binds",
            AsRoot::MasterStays => "only root can bind it",
        };
        return format!("\n  port {number} is below 1024: {why}; use pmx-milter start as root");
    }
    String::new()
}

/// What the MTA needs, to be copied as it stands. The order of port and host differs between the two.
pub(super) fn mta_lines(name: &MilterName, port: &Port) -> [String; 2] {
    [
        format!(
            "    Postfix main.cf:   smtpd_milters = {}",
            port.for_postfix()
        ),
        // F=T: a milter that cannot be reached gives a temporary failure; without it mail would pass unfiltered.
        format!(
            "    Sendmail .mc file: INPUT_MAIL_FILTER(`{name}', `S={}, F=T')dnl",
            port.for_sendmail()
        ),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_lines_for_both_mtas_have_their_own_order_of_port_and_host() {
        let name: MilterName = "policy".parse().unwrap();
        let [postfix, sendmail] = mta_lines(&name, &"inet:3366@127.0.0.1".parse().unwrap());
        assert!(postfix.ends_with("smtpd_milters = inet:127.0.0.1:3366"));
        assert!(sendmail.ends_with("INPUT_MAIL_FILTER(`policy', `S=inet:3366@127.0.0.1, F=T')dnl"));
    }

    #[test]
    fn a_port_in_use_is_told_with_its_holder_and_a_low_port_with_the_way_out() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listener.local_addr().unwrap().port();
        let port: Port = format!("inet:{number}@127.0.0.1").parse().unwrap();
        let text = hint(
            &port,
            "cannot bind: Address already in use",
            AsRoot::MasterStays,
        );
        let me = std::process::id();
        assert!(text.contains(&format!("held by pid {me} (")), "{text}");
        let low = "inet:25@127.0.0.1".parse().unwrap();
        let text = hint(&low, "cannot bind: Permission denied", AsRoot::BecomeUser);
        assert!(text.contains("pmx-milter start as root"), "{text}");
        drop(listener);
        let text = hint(&port, "the address is in use", AsRoot::MasterStays);
        let next = match user::effective_uid() {
            0 => "ip_local_port_range",
            _ => "root sees it",
        };
        assert!(text.contains(next), "{text}");
        assert_eq!(hint(&low, "p.lua:1: bad", AsRoot::BecomeUser), "");
    }
}
