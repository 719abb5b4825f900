//! `pmx-milter`: the command line hands the master's entry to the verbs that start one. A running master that hands over to this program
//! starts it with words of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    match pmx_milter::master::resume(std::env::args_os()) {
        Some(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        None => pmx_milter::cli::pmx_milter(pmx_milter::master::run),
    }
}
