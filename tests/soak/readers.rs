//! Readers of a board in the storm: at each look every identity holds, nothing goes back, and the clients' ledger leaves room for it.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use scoreboard::{MapReader, Reader, Snapshot};

use crate::side::Side;
use crate::support::looks::{Seen, watch};

/// What only grows, beside what clients can know (`Totals`).
fn grown(board: &Snapshot) -> Vec<u64> {
    let (global, counters) = (&board.global, board.counters());
    let mut grown = vec![
        global.generation,
        global.forks,
        global.rejected,
        global.deaths_clean,
        global.deaths_error,
        global.deaths_signal,
        global.slots_high_water,
        global.capacity_episodes,
        global.peak_requests,
        board.capacity_ns(),
        counters.message_ns,
        counters.recipients_refused,
    ];
    grown.extend(counters.message_histogram);
    grown.extend(counters.phase_ns);
    grown
}

/// The board of before, and nothing that only grows has gone back.
fn goes_on(board: &Snapshot, before: &mut Option<([u64; 2], Vec<u64>)>) {
    // A copy that is not whole proves nothing, and says so.
    if !board.global_consistent || board.slots.iter().any(|slot| !slot.consistent) {
        return;
    }
    let now = (board.header.instance, grown(board));
    if let Some(before) = before {
        assert_eq!(before.0, now.0, "it is another board");
        let back = before.1.iter().zip(&now.1).any(|(then, now)| now < then);
        assert!(!back, "a total went back: {before:?}, then {now:?}");
    }
    *before = Some(now);
}

/// A reader that knows what was known at the last rest.
fn knowing(side: &Side) -> Seen {
    Seen::after(side.last.totals)
}

pub(crate) fn by_pread(side: &Side, over: &AtomicBool) -> Seen {
    let reader = Reader::open(&side.board_path()).unwrap();
    let (ledger, pause) = (&side.ledger, Duration::from_millis(10));
    let mut before = None;
    watch(knowing(side), over, ledger, pause, |seen, clients| {
        let board = reader.detailed().unwrap();
        seen.snapshot(&board, clients, &ledger.now());
        goes_on(&board, &mut before);
    })
}

pub(crate) fn by_map(side: &Side, over: &AtomicBool) -> Seen {
    let reader = MapReader::open(&side.board_path()).unwrap();
    let (ledger, pause) = (&side.ledger, Duration::from_millis(5));
    let mut before = None;
    watch(knowing(side), over, ledger, pause, |seen, clients| {
        let board = reader.snapshot();
        seen.snapshot(&board, clients, &ledger.now());
        goes_on(&board, &mut before);
    })
}

/// By the program: JSON at each look, and with it one of the other formats.
pub(crate) fn by_json(side: &Side, over: &AtomicBool) -> Seen {
    const OTHERS: [&[&str]; 4] = [
        &["status"],
        &["status", "--long"],
        &["status", "--format", "openmetrics"],
        &["status", "--format", "nagios"],
    ];
    let (ledger, pause) = (&side.ledger, Duration::from_millis(400));
    let mut others = OTHERS.iter().cycle();
    watch(knowing(side), over, ledger, pause, |seen, clients| {
        let json = side.milter.json();
        seen.json(&json, clients, &ledger.now());
        side.milter.pmx(others.next().unwrap()).expect(0);
    })
}
