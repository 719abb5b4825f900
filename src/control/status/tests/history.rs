//! `--history`: seconds become a table, idle ones a line, events sentences.
#![allow(clippy::unwrap_used)]

use bytemuck::Zeroable;
use scoreboard::{Event, EventKind, History, NotAccepting, RetireReason, Second, encode_end};

use super::super::history::render;
use super::super::text;
use super::super::view::State;
use super::{SECOND, board, plain, view, views};
use crate::control::help;
use crate::sys::calendar;

/// The board was made at 5000 on the wall and 10 on its own clock.
fn at(seconds: u64) -> u64 {
    (10 + seconds) * SECOND
}

fn second(number: u64, at_ns: u64, totals: (u64, u64), requests: u64) -> Second {
    let mut it = Second::zeroed();
    it.number = number;
    it.at_ns = at_ns;
    it.accepted = totals.0;
    it.verdicts[1] = totals.1;
    it.requests = requests;
    it.busy = requests.min(1);
    it
}

fn event(kind: EventKind, slot: u64, pid: u64, value: u64) -> Event {
    let mut it = Event::zeroed();
    it.at_ns = at(1) + 7_000_000;
    it.kind = kind.word();
    it.slot = slot;
    it.pid = pid;
    it.value = value;
    it
}

fn lines(seconds: Vec<Second>, events: Vec<Event>) -> Vec<String> {
    let mut history = History { seconds, events };
    history.seconds.reverse();
    history.events.reverse();
    let mut out = String::new();
    render(&mut out, &board(vec![]), &history).unwrap();
    out.lines().map(str::to_owned).collect()
}

/// Local time of so many seconds after the board was made, by the clocks now: 7,000 s at 1,000 s of BOOTTIME, and it was made at 10 s.
fn clock(seconds: i64) -> String {
    let time = calendar::local(7_000 - (1_000 - 10) + seconds);
    format!("{:02}:{:02}:{:02}", time.hour, time.minute, time.second)
}

#[test]
fn totals_become_what_came_in_each_second_and_idle_ones_one_line() {
    let mut unknown = second(6, at(6), (9, 4), 1);
    unknown.backlog = u64::MAX;
    unknown.waiting = 2;
    let found = lines(
        vec![
            second(1, at(1), (2, 1), 1),
            second(2, at(2), (2, 1), 0),
            second(3, at(3), (2, 1), 0),
            second(4, at(4), (2, 1), 0),
            second(5, at(5), (5, 4), 2),
            unknown,
            second(7, at(7), (9, 4), 0),
        ],
        vec![],
    );
    let row = |seconds, rest: &str| format!("    {} {rest}", clock(seconds));
    assert_eq!(
        found,
        [
            "    time      busy    req  wait backlog  acc/s     accept     reject   tempfail    discard quarantine      error".to_owned(),
            row(1, "    1      1     0       0      2          0          1          0          0          0          0"),
            "    ... 3 s idle".to_owned(),
            row(5, "    1      2     0       0      3          0          3          0          0          0          0"),
            row(6, "    1      1     2       -      4          0          0          0          0          0          0"),
            row(7, "    0      0     0       0      0          0          0          0          0          0          0"),
            "    events: none recorded".to_owned(),
        ]
    );
}

#[test]
fn the_oldest_second_of_a_full_ring_has_no_one_before_it() {
    let found = lines(
        vec![
            second(41, at(1), (100, 90), 0),
            second(42, at(2), (101, 91), 0),
        ],
        vec![],
    );
    assert!(found[1].ends_with(" -          -          -          -          -          -"));
    assert!(
        found[2].contains("      1          0          1          0"),
        "{}",
        found[2]
    );
}

#[test]
fn seconds_without_a_sample_are_told_and_end_a_run_of_idle_ones() {
    let found = lines(
        vec![
            second(1, at(1), (0, 0), 0),
            second(2, at(2), (0, 0), 0),
            second(3, at(10), (0, 0), 0),
            second(4, at(11), (0, 0), 0),
        ],
        vec![],
    );
    assert_eq!(
        found[1..4],
        [
            "    ... 2 s idle",
            "    ... 7 s without a sample",
            "    ... 2 s idle"
        ]
    );
}

#[test]
fn events_are_told_in_words_the_newest_last() {
    let milter = u64::MAX;
    let table = [
        (
            event(EventKind::Start, milter, 0, 1),
            "start     -        -           generation 1",
        ),
        (
            event(EventKind::Fork, 3, 99, 2),
            "fork      slot#3   pid=99      process 2 of its slot",
        ),
        (
            event(EventKind::Ready, 3, 99, 0),
            "ready     slot#3   pid=99",
        ),
        (
            event(EventKind::Retire, 3, 99, RetireReason::Idle.word()),
            "retire    slot#3   pid=99      idle (pooled_proc_idle_limit)",
        ),
        (
            event(EventKind::Death, 3, 99, encode_end(None, Some(9))),
            "death     slot#3   pid=99      signal 9 (KILL)",
        ),
        (
            event(EventKind::Full, milter, 0, NotAccepting::Limit.word()),
            "full      -        -           concurrency_limit is reached",
        ),
        (
            event(EventKind::Room, milter, 0, 3_200_000_000),
            "room      -        -           after 3.2s",
        ),
        (
            event(EventKind::Backoff, milter, 0, SECOND / 10),
            "backoff   -        -           no fork for 0.1s",
        ),
        (
            event(EventKind::Restart, milter, 0, 2),
            "restart   -        -           generation 2",
        ),
        (
            event(EventKind::Resources, milter, 0, 0),
            "resources -        -           descriptors or memory are short",
        ),
        (
            event(EventKind::Stop, milter, 0, 15),
            "stop      -        -           signal 15 (TERM)",
        ),
        (event(EventKind::Stop, milter, 0, 0), "stop      -        -"),
        (
            event(EventKind::Abort, milter, 0, 5),
            "abort     -        -           5 connections are cut",
        ),
        (
            event(EventKind::Unknown(77), milter, 0, u64::MAX),
            "unknown   -        -           kind 77, value 18446744073709551615",
        ),
    ];
    let found = lines(vec![], table.iter().map(|(event, _)| *event).collect());
    let expected: Vec<String> = std::iter::once("    seconds: none recorded".to_owned())
        .chain(
            table
                .iter()
                .map(|(_, text)| format!("    {}.007 {text}", clock(1))),
        )
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn the_last_64_events_are_shown() {
    let events = (0..100).map(|pid| event(EventKind::Ready, 0, pid + 1, 0));
    let found = lines(vec![], events.collect());
    assert_eq!(found.len(), 1 + 64);
    assert!(found[1].ends_with("pid=37") && found[64].ends_with("pid=100"));
}

#[test]
fn hostile_stamps_and_counts_are_shown_as_what_they_are() {
    let mut evil = Second::zeroed();
    evil.number = u64::MAX;
    evil.at_ns = u64::MAX;
    evil.busy = u64::MAX;
    let mut later = evil;
    later.at_ns = 0;
    later.verdicts = [u64::MAX; 6];
    let mut what = event(EventKind::Death, u64::MAX - 1, u64::MAX, u64::MAX);
    what.at_ns = u64::MAX;
    let found = lines(vec![evil, later, evil], vec![what, what]);
    assert!(found.iter().all(|line| !line.contains('\u{1b}')));
    assert!(found.iter().any(|line| line.ends_with("unknown end")));
}

#[test]
fn history_stands_below_the_milters_other_lines() {
    let mut it = view("m", State::Dead, Some(board(vec![])));
    let before = plain(&views(vec![it]));
    it = view("m", State::Dead, Some(board(vec![])));
    it.history = Some(History::default());
    let all = views(vec![it]);
    let text = text::full(&all, false);
    assert_eq!(
        text.strip_prefix(&before).unwrap(),
        "    seconds: none recorded\n    events: none recorded\n"
    );
}

#[test]
fn every_kind_of_event_and_every_column_is_in_the_manual() {
    let section = help::PMX_MILTER
        .split(".Sh STATUS HISTORY\n")
        .nth(1)
        .and_then(|rest| rest.split("\n.Sh ").next())
        .unwrap();
    let columns = ["busy", "req", "wait", "backlog", "acc/s"];
    for name in EventKind::ALL.iter().map(|kind| kind.name()).chain(columns) {
        let item = format!(".It {name}");
        assert!(section.lines().any(|line| line == item), "{item}");
    }
}
