//! A saturated milter with a thousand readers of its board, ten looks a second each, beside the same milter without them.
//!
//! Readers take CPU time as any process does, which on a machine without an idle core the milter and its clients then lack, as they would
//! with any other work. So there is a third kind of round: as many readers of another board. Between these two nothing differs but whose board is read, and that ratio is
//! what reading does to the service. Rounds alternate, each ratio is of one's own neighbours, and the spread of the rounds without
//! readers says what noise is.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use scoreboard::Reader;

use crate::drive::{self, Load};
use crate::median;
use crate::mta::Address;
use crate::server::{Filter, Server, Transport, raise_descriptor_limit};
use crate::status::busy_board;

const READERS: usize = 1000;
/// Threads that carry them.
const THREADS: usize = 4;
/// Each reader looks once in this time.
const EVERY: Duration = Duration::from_millis(100);
/// Looks that are due within this time are done at once: what is to be measured is looking, not waking up.
const SLICE: Duration = Duration::from_millis(5);
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_secs(1);
const LOAD: Load = Load {
    connections: 8,
    messages: 10,
    body_bytes: 4 << 10,
};

/// What a round gave.
#[derive(Clone, Copy)]
struct Round {
    messages_a_second: f64,
    cpu_a_message: f64,
}

/// A part of the readers: each with a descriptor of its own, their looks spread evenly over the time.
fn look(board: &Path, over: &AtomicBool, looks: &AtomicU64) {
    let readers: Vec<Reader> = (0..READERS / THREADS)
        .map(|_| Reader::open(board).unwrap())
        .collect();
    let apart = EVERY / u32::try_from(readers.len()).unwrap();
    let mut due = Instant::now();
    for reader in readers.iter().cycle() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let snapshot = reader.snapshot().unwrap();
        assert!(snapshot.books().unbalanced.is_empty());
        looks.fetch_add(1, Ordering::Relaxed);
        due += apart;
        let early = due.saturating_duration_since(Instant::now());
        if early > SLICE {
            sleep(early);
        }
    }
}

/// The milter for one round while this board is read, if any; and looks a second.
fn round(server: &Server, board: Option<&PathBuf>) -> (Round, f64) {
    let (over, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    let round = std::thread::scope(|scope| {
        for board in std::iter::repeat_n(board, THREADS).flatten() {
            scope.spawn(|| look(board, &over, &looks));
        }
        let result = drive::run(server, &LOAD, ROUND);
        over.store(true, Ordering::Relaxed);
        assert_eq!(result.errors, 0, "a connection failed");
        Round {
            messages_a_second: result.per_second(),
            cpu_a_message: result.cpu_each(),
        }
    });
    let looks = looks.load(Ordering::Relaxed) as f64;
    (round, looks / begun.elapsed().as_secs_f64())
}

/// The middle, and the middle half.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let at = |part: usize| values[values.len() * part / 4];
    format!("{:.3} ({:.3} to {:.3})", at(2), at(1), at(3))
}

pub(super) fn run() {
    raise_descriptor_limit();
    let server = Server::pmx(Filter::All, Transport::Unix, "");
    let Address::Unix(socket) = &server.address else {
        unreachable!("it was asked for a UNIX socket");
    };
    let board = socket.with_file_name("run").join("bench.scoreboard");
    drive::run(&server, &LOAD, ROUND);
    let slots = scoreboard::read(&board).unwrap().slots.len();
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let _other = busy_board(dir.path(), u32::try_from(slots).unwrap());
    let other = dir.path().join("policy.scoreboard");

    // Without, of another board, of this board; and without once more, so that there is a ratio that only noise makes.
    let kinds = [None, Some(&other), Some(&board), None];
    let mut rounds: Vec<[(Round, f64); 4]> = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(kinds.map(|kind| round(&server, kind)));
    }
    println!(
        "\n{READERS} readers, {} looks a second; {slots} slots used; {ROUNDS} rounds of {ROUND:?} each, {} connections with {} messages each.\n",
        median(rounds.iter().map(|round| round[2].1).collect()).round(),
        LOAD.connections,
        LOAD.messages,
    );
    println!("| ratio: middle (middle half) | messages a second | CPU of the milter a message |");
    println!("|---|---|---|");
    for (name, of, to) in [
        ("without readers / without readers: the noise", 3, 0),
        ("readers of another board / without", 1, 0),
        ("readers of its board / without", 2, 0),
        ("**readers of its board / readers of another**", 2, 1),
    ] {
        let ratios = |value: fn(&Round) -> f64| {
            let ratio = |round: &[(Round, f64); 4]| value(&round[of].0) / value(&round[to].0);
            spread(rounds.iter().map(ratio).collect())
        };
        println!(
            "| {name} | {} | {} |",
            ratios(|round| round.messages_a_second),
            ratios(|round| round.cpu_a_message),
        );
    }
}
