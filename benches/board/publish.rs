//! What a child pays for a phase change: its whole record through the latch, against one bare store, and against what an exporter library
//! would do.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytemuck::Zeroable;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use scoreboard::records::{ChildRecord, Phase, put_text};
use scoreboard::{Board, ChildPage, Spec};

use super::median;

const TIMES: u32 = 2_000_000;
const ROUNDS: usize = 7;

/// ns for one call.
fn ns(mut call: impl FnMut(u64)) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let begun = Instant::now();
        for number in 0..u64::from(TIMES) {
            call(number);
        }
        begun.elapsed().as_nanos() as f64 / f64::from(TIMES)
    });
    median(rounds.collect())
}

pub(super) fn run() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let spec = Spec {
        capacity: 16,
        mode: 0o640,
        group: None,
        previous_instance: [0; 2],
    };
    let mut board = Board::create(dir.path(), "bench.scoreboard", &spec).unwrap();
    board.adopt_child(0, 1);
    let mut page = ChildPage::map(board.descriptor(), board.geometry(), 0, 1).unwrap();
    let mut record = ChildRecord::zeroed();
    record.incarnation = 1;
    put_text(&mut record.queue_id, b"4XYZ123456");

    let word = AtomicU64::new(0);
    let store = ns(|number| black_box(&word).store(number, Ordering::Relaxed));
    let publish = ns(|number| {
        record.phase = Phase::ALL[(number % 8) as usize].word();
        record.phase_since_ns = number;
        record.counters.messages_started = number;
        page.publish(black_box(&record));
    });
    let observe = ns(|number| page.observe(Phase::Eom, black_box(number * 1000)));

    let started: Counter = Counter::default();
    let verdicts: Family<Vec<(String, String)>, Counter> = Family::default();
    let label = vec![("verdict".to_owned(), "accept".to_owned())];
    let seconds = Histogram::new(exponential_buckets(64e-6, 2.0, 31));
    let counter = ns(|_| {
        black_box(&started).inc();
    });
    let histogram = ns(|number| black_box(&seconds).observe(number as f64 * 1e-6));
    // What stands for a phase change there: a counter, a labelled counter, a histogram.
    let exporter = ns(|number| {
        started.inc();
        verdicts.get_or_create(black_box(&label)).inc();
        seconds.observe(number as f64 * 1e-6);
    });

    println!("\n| one call | ns | of a bare store |");
    println!("|---|---|---|");
    for (name, cost) in [
        ("bare relaxed store of one word", store),
        ("publication of a child's record (phase change)", publish),
        ("observation of a phase's duration", observe),
        ("prometheus-client: counter", counter),
        ("prometheus-client: histogram", histogram),
        (
            "prometheus-client: counter, labelled counter, histogram",
            exporter,
        ),
    ] {
        println!("| {name} | {cost:.1} | {:.1} |", cost / store);
    }
}
