//! `try`: checks a policy, then plays it. Knows whose rights it gets, which `try_policy` does not care about.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::checker::{self, Keeps};
use crate::config::Config;
use crate::sys::user::{self, Account};

use super::terminal::complain;
use super::try_policy::{self, Options};
use super::{Exit, Place, check};

/// Whose rights a policy gets when root tries it and there is no configuration that names a user.
const NOBODY: &str = "nobody";

/// The verb.
pub fn try_policy(place: &Place, policy: &Path, options: &Options) -> Exit {
    let account = match account(place) {
        Ok(account) => account,
        Err(exit) => return exit,
    };
    let (limits, meanwhile) = (&options.limits, check::still_tried(String::new()));
    match checker::check_and_meanwhile(
        policy,
        limits,
        account.as_ref(),
        Keeps::Everything,
        meanwhile,
    ) {
        Ok(bundle) => Exit::from_code(try_policy::run(&bundle, options, account.as_ref())),
        Err(error) => {
            complain(format_args!("try: {error}"));
            Exit::NotConfigured
        }
    }
}

/// A policy can be tried before there is a configuration, so that a missing or broken one is no obstacle.
fn account(place: &Place) -> Result<Option<Account>, Exit> {
    if user::effective_uid() != 0 {
        return Ok(None);
    }
    let configured = Config::load(&place.config_file)
        .ok()
        .and_then(|config| user::account(&config.user).ok());
    match configured.map_or_else(|| user::account(NOBODY), Ok) {
        Ok(account) => Ok(Some(account)),
        Err(error) => {
            complain(format_args!("try: {error}"));
            Err(Exit::NotConfigured)
        }
    }
}
