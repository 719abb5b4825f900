//! `pmx-init`: start, stop, restart and status for init scripts; run as root it prepares the run directory and drops to `user`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    pmx_milter::cli::pmx_init(pmx_milter::master::run)
}
