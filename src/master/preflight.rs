//! What a start would refuse, asked without starting anything: `check`, `restart` and `start` say it while a running milter is untouched.
//!
//! The same functions decide in `boot`, which cannot rely on this: all may change in between.
#![forbid(unsafe_code)]

use super::boot::{self, Refusal};
use super::listener::Listener;
use super::{Line, Setup};
use crate::config::Port;
use crate::log;

impl Setup {
    /// Everything that stands in the way now, as a master would report it ([`Line::Failed`]). `running`: where this milter listens at
    /// present, since its own port is no obstacle. Nothing is made or changed.
    pub fn obstacles(&self, running: Option<&Port>) -> Vec<Line> {
        let Setup {
            milter,
            run_dir,
            account,
            foreground,
            ..
        } = self;
        let account = account.as_ref();
        let log_file = || log::would_start(&milter.log_to).map_err(|error| boot::no_log(&error));
        let port = || {
            let access = boot::socket_access(milter, account)?;
            Listener::probe(&milter.port, access, running, run_dir)
                .map_err(|error| boot::no_port(&error))
        };
        let found: Vec<Result<(), Refusal>> = vec![
            boot::log_place(milter, *foreground),
            boot::status_group(milter, account).map(drop),
            log_file(),
            port(),
        ];
        found
            .into_iter()
            .filter_map(Result::err)
            .map(|refusal| {
                Line::Failed(
                    refusal.status,
                    format!("milter {}: {}", milter.name, refusal.text),
                )
            })
            .collect()
    }
}
