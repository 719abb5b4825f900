//! `run`: one milter in the foreground, for systemd and containers. This process becomes the master.
#![forbid(unsafe_code)]

use std::io;
use std::time::{Duration, Instant};

use crate::config::MilterName;
use crate::master::{Report, Setup};

use super::launch::{AsRoot, Outcome, follow};
use super::place::not_configured;
use super::terminal::complain;
use super::{Exit, MasterMain, Place, start};

/// The report is complete when the master has ended; a child that still has the pipe must not make us wait.
const READING: Duration = Duration::from_millis(200);

/// The verb. Returns when the milter has ended.
pub fn run(place: &Place, name: &MilterName, main: MasterMain) -> Exit {
    let config = match place.config() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let Some(milter) = config.milter(name) else {
        complain(not_configured("run", name, &config));
        return Exit::NotConfigured;
    };
    let ready = start::account(&config).and_then(|account| {
        start::directory(&config, account.as_ref(), AsRoot::MasterStays)?;
        Ok(account)
    });
    let account = match ready {
        Ok(account) => account,
        Err(exit) => return exit,
    };
    start::exposed(milter);
    let (reader, writer) = match io::pipe() {
        Ok(pipe) => pipe,
        Err(error) => {
            complain(format_args!("run {name}: cannot make a pipe: {error}"));
            return Exit::Failed;
        }
    };
    let status = main(Setup {
        milter: milter.clone(),
        run_dir: config.run_dir.clone(),
        account,
        config_file: config.file.clone(),
        foreground: true,
        report: Report::new(writer.into()),
    });
    // Why it did not come up, if it did not.
    let deadline = Instant::now() + READING;
    if let Some(Ok(Outcome::Failed(_, text))) = follow(reader, deadline, &mut |_: &str| {}) {
        complain(format_args!("run {name}: {text}"));
    }
    Exit::from_code(status)
}
