//! What looking at a board costs, and what writing it costs, beside a peer in the same run.
//!
//!   status   `pmx-milter status` of 256 and 1,000 busy slots beside /bin/true: CPU and wall time of a whole process
//!   publish  a child's publication beside a bare relaxed store and the counters of the prometheus-client crate
//!   readers  a saturated milter with 1,000 readers of its board at 10 Hz, and without
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../load/drive.rs"]
mod drive;
#[allow(dead_code, unreachable_pub)]
#[path = "../../tests/support/mta.rs"]
mod mta;
mod publish;
mod readers;
#[allow(dead_code)]
#[path = "../load/report.rs"]
mod report;
#[allow(dead_code)]
#[path = "../load/server.rs"]
mod server;
mod status;

fn main() {
    let only: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|it| it == name);
    if wanted("publish") {
        publish::run();
    }
    if wanted("status") {
        status::run();
    }
    if wanted("readers") {
        readers::run();
    }
}

/// The middle of some measurements.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
