//! `run`: one milter in the foreground, for systemd and containers. This process becomes the master.
#![forbid(unsafe_code)]

use crate::config::MilterName;
use crate::master::{Report, Setup};
use crate::sys::process;

use super::launch::AsRoot;
use super::place::not_configured;
use super::terminal::complain;
use super::{Exit, MasterMain, Place, start};

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
    start::doubts(milter);
    process::close_inherited(None);
    let status = main(Setup {
        milter: milter.clone(),
        run_dir: config.run_dir.clone(),
        account,
        foreground: true,
        report: Report::Stderr,
    });
    Exit::from_code(status)
}
