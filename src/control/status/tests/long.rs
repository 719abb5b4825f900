//! `--long`: what is printed is compared to the byte, and no board can drive a terminal.
#![allow(clippy::unwrap_used)]

use bytemuck::Zeroable;
use scoreboard::{
    BoardVerdict, Cut, Death, Lock, Phase, PhaseHistograms, RetireReason, SlotState, encode_end,
    put_text,
};

use crate::control::help;

use super::super::text::full as render;
use super::super::view::{State, View, Views};
use super::super::work::letter;
use super::{NOW, SECOND, board, empty, example, mib, plain, slot, view, views};

fn long(views: &Views) -> String {
    render(views, true)
}

/// A milter of which everything is known.
fn full() -> View {
    let mut first = slot(0, 2346, (3, 1), 0, 1, 2);
    first.master.rss_bytes = mib(4.8);
    let child = first.child.as_mut().unwrap();
    child.phase = Phase::Rcpt.word();
    child.phase_since_ns = NOW - 8 * SECOND;
    child.last_verdict = 2;
    child.suspended = 1;
    put_text(&mut child.queue_id, b"4ABC");
    put_text(&mut child.doing, b"from a@b.example");
    child.counters.message_histogram[0] = 1;
    child.counters.message_histogram[4] = 1;
    let mut phases = PhaseHistograms::default();
    phases.0[2][1] = 5;
    phases.0[6][15] = 1;
    first.histograms = Some(Box::new(phases));
    let mut second = slot(1, 2351, (1, 0), 0, 1, 0);
    second.master.state = SlotState::Retiring.word();
    second.master.generation = 1;
    second.master.retire_reason = RetireReason::Restart.word();
    second.master.rss_bytes = 0;
    second.child.as_mut().unwrap().phase_since_ns = NOW - 301 * SECOND;
    let mut third = empty(2, 1, 1);
    third.master.last_end = encode_end(None, Some(9));
    third.master.lost_connections = 1;
    let mut board = board(vec![first, second, third]);
    let global = &mut board.global;
    global.generation = 2;
    global.accepted = 5;
    global.backlog = u64::MAX;
    global.command_timeout_ns = 10 * SECOND;
    global.content_timeout_ns = 300 * SECOND;
    global.capacity_ns = 9 * SECOND;
    global.capacity_since_ns = NOW - 3 * SECOND;
    global.capacity_episodes = 4;
    global.not_accepting = 1;
    global.children_old = 1;
    global.slots_in_use = 2;
    global.crash_loop = 3;
    global.backoff_until_ns = NOW + 16 * SECOND / 10;
    put_text(&mut global.trouble, b"child 99 died");
    global.trouble_at_ns = NOW - 300 * SECOND;
    let mut death = Death::zeroed();
    death.at_ns = NOW - 3 * SECOND;
    death.forked_at_ns = NOW - 15 * SECOND;
    death.slot = 2;
    death.pid = 99;
    death.end = encode_end(None, Some(9));
    death.phase = Phase::Eom.word();
    death.lost_connections = 1;
    put_text(&mut death.queue_id, b"4DEF");
    let mut older = death;
    older.end = encode_end(Some(3), None);
    older.phase = Phase::Idle.word();
    older.lost_connections = 2;
    older.forked_at_ns = 0;
    older.queue_id = [0; 7];
    board.deaths = vec![death, older];
    view("policy", State::Running, Some(board))
}

#[test]
fn everything_that_is_known_is_printed_to_the_byte() {
    let expected = "\
policy: running
    pid=2345 port=inet:3366@127.0.0.1 vsz=41.2 threads=1 procs=4
    interp=2/4 seq=7 queue=0 flags=0x0
    slots=6/16 (1 retiring) req=3 msg=2
    slot#0:   pid=2346   vsz=44.0  acc=3/3/1 req=2
        R rcpt id=4ABC since=8.0s (2.0s of 10s left) last=reject rss=4.8 interp=2/4 seq=7 suspended=1 doing: from a@b.example
    slot#1:   pid=2351   vsz=44.0  acc=1/1/1 req=1*
        G eom id=4ABC\u{fffd} since=5m1s (late by 1.0s) last=- rss=- interp=2/4 seq=7 suspended=0 old retiring: a new generation takes over
    slot#2:   pid=-   vsz=-  acc=0/1/1 req=0
        . empty, the last process ended by signal 9 (KILL)
    verdicts: accept=1 reject=0 tempfail=1 discard=0 quarantine=0 error=0
    sessions: accept=0 reject=0 tempfail=0 error=0
    messages: started=4 aborted=0 lost=0 in_progress=2 recipients_refused=0
    connections: accepted=5 rejected=0 waiting=0 backlog=- lost=1
    late answers: 0
    at capacity: 11.8s in 4 episodes, now for 3.0s
    not accepting: every child is full
    generation 2: 1 of 2 old
    message time: p50 <= 64us p90 <= 1.02ms p99 <= 1.02ms
    rcpt time: p50 <= 64us p99 <= 64us
    eom time: p50 > 4295s p99 > 4295s
    last trouble: child 99 died (5m ago)
    crash loop: 3 children died young in a row, the next is forked in 1.6s
    books: balanced
    cut: atomic
    last deaths:
        slot#2 pid=99 signal 9 (KILL) in eom id=4DEF 3.0s ago, after 12.0s, 1 connection lost
        slot#2 pid=99 exit 3 in idle id=- 3.0s ago, after -, 2 connections lost
";
    assert_eq!(long(&views(vec![full()])), expected);
}

#[test]
fn long_only_adds_lines() {
    for view in [full(), example(), view("m", State::NotRunning, None)] {
        let all = views(vec![view]);
        let long = long(&all);
        let mut rest = long.lines();
        for line in plain(&all).lines() {
            assert!(rest.any(|it| it == line), "{line}");
        }
    }
}

#[test]
fn a_board_that_nobody_has_filled_yet_is_shown_all_the_same() {
    let text = long(&views(vec![view(
        "m",
        State::Starting,
        Some(board(vec![])),
    )]));
    for line in [
        "    at capacity: 0.0s in 0 episodes, not now",
        "    message time: p50 - p90 - p99 -",
        "    books: balanced",
        "    last deaths: none",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
    }
    assert!(!text.contains("crash loop") && !text.contains("trouble"));
}

#[test]
fn each_state_of_a_slot_has_its_letter() {
    let mut it = slot(0, 1, (1, 0), 0, 1, 0);
    let mut letters = String::new();
    for phase in Phase::ALL {
        it.child.as_mut().unwrap().phase = phase.word();
        letters.push(letter(&it));
    }
    it.child = None;
    letters.push(letter(&it));
    for state in SlotState::ALL {
        it.master.state = state.word();
        letters.push(letter(&it));
    }
    it.master.state = 77;
    letters.push(letter(&it));
    assert_eq!(letters, "_CMRDHBE_.S_G.?");
}

#[test]
fn nobody_waits_for_the_dead() {
    let mut dead = full();
    let board = dead.board.as_mut().unwrap();
    board.liveness.lock = Lock::Free;
    board.global.heartbeat_ns = NOW - SECOND;
    assert_eq!(board.verdict(), BoardVerdict::Dead);
    dead.state = State::Dead;
    let text = long(&views(vec![dead]));
    assert!(
        text.contains("R rcpt id=4ABC since=8.0s last=reject"),
        "{text}"
    );
    // Until its last sign of life.
    assert!(
        text.contains("at capacity: 11.0s in 4 episodes, not now\n"),
        "{text}"
    );
    assert!(!text.contains("not accepting:"), "{text}");
    assert!(text.contains("died young in a row\n"), "{text}");
}

#[test]
fn books_that_do_not_balance_are_shown_with_their_numbers() {
    let mut wrong = full();
    let board = wrong.board.as_mut().unwrap();
    board.global.accepted = 9;
    board.slots[2].master.lost_connections = 0;
    board.cut = Cut::Atomic;
    board.retries = 2;
    let text = long(&views(vec![wrong]));
    assert!(
        text.contains(
            "    books: NOT balanced: accepted 9 of which 5 accounted for; connections 5 of which 4 accounted for; messages 4 of which 4 accounted for; slot 2\n    cut: atomic, 2 retries\n"
        ),
        "{text}"
    );
}

#[test]
fn a_hostile_board_cannot_move_the_cursor_in_the_long_lines_either() {
    let evil = b"\x1b[2J\nx: running\x9b";
    let mut hostile = full();
    let board = hostile.board.as_mut().unwrap();
    put_text(&mut board.global.trouble, evil);
    put_text(&mut board.deaths[0].queue_id, evil);
    board.deaths[0].end = u64::MAX;
    board.deaths[0].at_ns = u64::MAX;
    board.deaths[0].forked_at_ns = u64::MAX;
    board.deaths[0].phase = 99;
    board.global.backoff_until_ns = u64::MAX;
    board.global.content_timeout_ns = u64::MAX;
    board.global.command_timeout_ns = u64::MAX;
    let child = board.slots[0].child.as_mut().unwrap();
    put_text(&mut child.queue_id, evil);
    put_text(&mut child.doing, evil);
    child.phase = 1000;
    child.last_verdict = u64::MAX;
    child.counters.message_histogram = [u64::MAX; 32];
    let text = long(&views(vec![hostile]));
    assert!(
        !text.chars().any(|c| c.is_control() && c != '\n'),
        "{text:?}"
    );
    assert!(!text.lines().any(|line| line.starts_with("x: ")));
    assert!(text.contains("        ? unknown id=\u{fffd}[2J\u{fffd}x: running"));
}

#[test]
fn every_letter_and_every_line_is_in_the_manual() {
    let section = help::PMX_MILTER
        .split(".Sh LONG STATUS\n")
        .nth(1)
        .and_then(|rest| rest.split("\n.Sh ").next())
        .unwrap();
    let words: Vec<&str> = section.split_ascii_whitespace().collect();
    for letter in "_SCMRDHBEG.".chars() {
        assert!(words.contains(&letter.to_string().as_str()), "{letter}");
    }
    let items: Vec<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix(".It "))
        .flat_map(|item| item.split(" , "))
        .collect();
    let text = long(&views(vec![full()]));
    let milter = text.lines().skip(4).filter(|line| {
        line.starts_with("    ") && !line.starts_with("     ") && !line.contains("slot#")
    });
    for title in milter.filter_map(|line| line.trim_start().split(':').next()) {
        let known = items.contains(&title)
            || title == "generation 2"
            || title.ends_with(" time") && items.contains(&"connect time ... eom time");
        assert!(known, "{title} is not explained");
    }
}
