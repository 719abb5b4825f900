//! Asks what stands in the way of a start before anything is stopped or started: `check`, `restart` and `start` say the same of the same.
//!
//! Answered by the master's own code, as the user that the master will be: `pmx-init` asks in a process that becomes this user.
#![forbid(unsafe_code)]

use std::io::{self, Read};

use crate::config::{Config, MilterConfig, Port};
use crate::master::{Line, Report, Setup};
use crate::run_dir::Paths;
use crate::sys::process::{self, Forked};
use crate::sys::user::{self, Account};

use super::launch::AsRoot;
use super::terminal::complain;
use super::{Exit, leftovers, running, start};

/// Tells everything that stands in the way.
///
/// # Errors
/// The worst of it.
pub(super) fn preflight(
    config: &Config,
    milter: &MilterConfig,
    account: Option<&Account>,
    as_root: AsRoot,
) -> Result<(), Exit> {
    let was_there = running::is_there(&Paths::new(&config.run_dir, &milter.name));
    let found = obstacles(config, milter, account, as_root).unwrap_or_else(|error| {
        let text = format!(
            "milter {}: cannot examine its surroundings: {error}",
            milter.name
        );
        vec![Line::Failed(i32::from(Exit::Failed.code()), text)]
    });
    let paths = Paths::new(&config.run_dir, &milter.name);
    // Another start was faster: its port is this milter's own, and who goes on will find it running.
    if !found.is_empty() && !was_there && running::is_there(&paths) {
        return Ok(());
    }
    let mut worst = Exit::Done;
    for line in found {
        if let Line::Failed(status, text) = line {
            let hint = start::hint(&milter.port, &text, as_root);
            complain(format_args!("{text}{hint}"));
            worst = worst.worst(Exit::from_code(status));
        }
    }
    match worst {
        Exit::Done => Ok(()),
        exit => Err(exit),
    }
}

fn obstacles(
    config: &Config,
    milter: &MilterConfig,
    account: Option<&Account>,
    as_root: AsRoot,
) -> io::Result<Vec<Line>> {
    let running = port_now(&Paths::new(&config.run_dir, &milter.name));
    let setup = |account: Option<&Account>| Setup {
        milter: milter.clone(),
        run_dir: config.run_dir.clone(),
        account: account.cloned(),
        foreground: false,
        report: Report::Done,
    };
    let (AsRoot::BecomeUser, Some(user)) = (as_root, account) else {
        return Ok(setup(account).obstacles(running.as_ref()));
    };
    let (mut reader, writer) = io::pipe()?;
    let pid = match process::fork_single_threaded()? {
        Forked::Parent(pid) => pid,
        Forked::Child => {
            drop(reader);
            let mut report = Report::to_pipe(writer.into());
            let became = user::become_account(user);
            match became {
                Ok(()) => {
                    for line in setup(None).obstacles(running.as_ref()) {
                        report.also(&line);
                    }
                }
                Err(error) => report.also(&Line::Failed(
                    i32::from(Exit::Permission.code()),
                    format!(
                        "milter {}: cannot become user {}: {error}",
                        milter.name, user.name
                    ),
                )),
            }
            process::exit_now(0);
        }
    };
    drop(writer);
    let mut text = String::new();
    let read = reader.read_to_string(&mut text);
    process::wait_for(pid);
    read?;
    Ok(text.lines().filter_map(Line::decode).collect())
}

/// Where a milter listens now, by its board.
fn port_now(paths: &Paths) -> Option<Port> {
    let there = running::there(paths).ok()?;
    let is_master = |process: &running::Process| process.is_master;
    if there.processes.iter().any(is_master) || there.master_elsewhere {
        leftovers::port_of(&paths.board())
    } else {
        None
    }
}
