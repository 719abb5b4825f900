//! `pmx-init`: start, stop, restart and status for init scripts; run as root it prepares the run directory and drops to `user`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    // A master that is restarted by this program becomes it.
    match pmx_milter::master::resume(std::env::args_os()) {
        Some(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        None => pmx_milter::cli::pmx_init(pmx_milter::master::run),
    }
}
