//! `pmx-milter`: the command line hands the master's entry to the verbs that start one.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    pmx_milter::cli::pmx_milter(pmx_milter::master::run)
}
