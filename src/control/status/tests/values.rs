//! What JSON says of constructed boards: deadlines, histograms, books.
#![allow(clippy::unwrap_used)]

use scoreboard::{Lock, PhaseHistograms, put_text};
use serde_json::{Value, json};

use super::super::view::State;
use super::json::parsed;
use super::{NOW, SECOND, board, example, slot, view, views};

#[test]
fn what_a_slot_is_at_has_its_deadline_as_long_as_somebody_can_answer() {
    let mut board = board(vec![slot(0, 1, (1, 0), 0, 1, 0)]);
    board.global.content_timeout_ns = 300 * SECOND;
    let record = &mut board.slots[0];
    record.master.forked_at_ns = NOW - 60 * SECOND;
    record.master.generation = 2;
    let child = record.child.as_mut().unwrap();
    child.last_verdict = 1 + 2;
    child.suspended = 4;
    put_text(&mut child.doing, b"from a@b.example\x07");
    let milters = |board| parsed(&views(vec![view("m", State::Running, Some(board))]));
    let value = milters(board.clone());
    let slot = &value["milters"][0]["slots"][0];
    assert_eq!(slot["deadline_seconds"], 299.5);
    assert_eq!(slot["last_verdict"], "tempfail");
    assert_eq!(slot["suspended"], 4);
    assert_eq!(slot["generation"], 2);
    assert_eq!(slot["age_seconds"], 60.0);
    assert_eq!(slot["doing"], "from a@b.example\u{fffd}");
    board.liveness.lock = Lock::Free;
    let value = milters(board.clone());
    assert!(value["milters"][0]["slots"][0]["deadline_seconds"].is_null());
    // The children of a dead master still answer.
    let mut orphaned = view("m", State::Dead, Some(board));
    orphaned.orphans = 1;
    let value = parsed(&views(vec![orphaned]));
    assert_eq!(value["milters"][0]["slots"][0]["deadline_seconds"], 299.5);
}

#[test]
fn histograms_are_cumulative_and_have_their_quantiles() {
    let mut board = board(vec![slot(0, 1, (1, 0), 0, 1, 0)]);
    let child = board.slots[0].child.as_mut().unwrap();
    child.counters.message_histogram[0] = 90;
    child.counters.message_histogram[2] = 9;
    child.counters.message_histogram[31] = 1;
    child.counters.message_ns = 3 * SECOND / 2;
    child.counters.phase_ns[7] = SECOND;
    let mut phases = PhaseHistograms::default();
    phases.0[6][1] = 3;
    board.slots[0].histograms = Some(Box::new(phases));
    board.global.busy_ns[11] = 2 * SECOND;
    let value = parsed(&views(vec![view("m", State::Running, Some(board))]));
    let milter = &value["milters"][0];
    let messages = &milter["message_seconds"];
    assert_eq!(messages["count"], 100);
    assert_eq!(messages["sum"], 1.5);
    assert_eq!(messages["p50"], 64e-6);
    assert_eq!(messages["p90"], 64e-6);
    assert_eq!(messages["p99"], 256e-6);
    let buckets = messages["buckets"].as_array().unwrap();
    assert_eq!(buckets.len(), 32);
    assert_eq!(buckets[1], json!({"le": 128e-6, "count": 90}));
    assert_eq!(buckets[31], json!({"le": null, "count": 100}));
    let eom = &milter["phase_seconds"]["eom"];
    assert_eq!((&eom["count"], &eom["sum"]), (&3.into(), &1.0.into()));
    assert_eq!(eom["p99"], 64e-6);
    assert_eq!(milter["phase_seconds"]["mail"]["count"], 0);
    assert!(milter["phase_seconds"]["mail"]["p50"].is_null());
    assert_eq!(milter["busy_seconds"]["more"], 2.0);
}

#[test]
fn books_that_do_not_balance_say_so_with_their_numbers() {
    let value = parsed(&views(vec![example()]));
    let books = &value["milters"][0]["books"];
    // The example's master says that nothing was ever accepted.
    assert_eq!(books["balanced"], false);
    assert_eq!(books["accepted"]["total"], 0);
    assert_eq!(books["accepted"]["accounted"], 4567 + 1200);
    assert_eq!(books["connections"]["total"], 4567 + 1200);
    let mut good = board(vec![slot(0, 1, (1, 1), 0, 1, 0)]);
    good.global.accepted = 1;
    let value = parsed(&views(vec![view("m", State::Running, Some(good))]));
    let books = &value["milters"][0]["books"];
    assert_eq!(books["balanced"], true, "{books}");
    assert_eq!(books["unbalanced_slots"], Value::Array(Vec::new()));
}

#[test]
fn ages_on_a_board_of_an_earlier_boot_are_told_by_the_wall_clock() {
    let mut stale = board(vec![slot(0, 1, (1, 0), 0, 1, 0)]);
    stale.liveness.same_boot = Some(false);
    stale.liveness.lock = Lock::Free;
    // This boot is younger than the stamps.
    stale.now_ns = 20 * SECOND;
    let value = parsed(&views(vec![view("m", State::Stale, Some(stale))]));
    // 7000 - (5000 + 999.5 - 10)
    let since = &value["milters"][0]["slots"][0]["since_seconds"];
    assert_eq!(*since, 1010.5);
}
