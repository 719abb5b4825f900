//! Status of constructed boards: what is printed is compared to the byte.
#![allow(clippy::unwrap_used)]

use bytemuck::Zeroable;
use scoreboard::{
    ChildRecord, Counters, Cut, FLAG_NO_POOL, GlobalRecord, Header, Liveness, Lock, MasterRecord,
    Phase, Slot, SlotState, Snapshot, put_text,
};

use super::text;
use super::view::{Kernel, State, View, Views};
use crate::control::help;

mod history;
mod json;
mod long;
mod values;

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1_000 * SECOND;
const MIB: f64 = 1_048_576.0;

fn mib(number: f64) -> u64 {
    (number * MIB) as u64
}

/// A slot: pid, taken on by this process and finished by it, taken on before, number of processes, messages.
pub(in crate::control) fn slot(
    index: u32,
    pid: u64,
    now: (u64, u64),
    before: u64,
    processes: u64,
    messages: u64,
) -> Slot {
    let mut master = MasterRecord::zeroed();
    master.state = SlotState::Live.word();
    master.pid = pid;
    master.processes = processes;
    master.incarnation = 1;
    master.dispatched = now.0 + 1;
    master.returned = 1;
    master.dispatched_before = before + 2;
    master.returned_before = 2;
    master.vsz_bytes = mib(44.0);
    master.rss_bytes = 5_000_000;
    master.base.verdicts[0] = messages / 2;
    master.base.messages_started = messages / 2;
    let mut child = ChildRecord::zeroed();
    child.incarnation = 1;
    child.counters = Counters::default();
    child.counters.connections_completed = now.1;
    child.counters.verdicts[2] = messages - messages / 2;
    child.counters.messages_started = messages - messages / 2 + 1;
    child.interpreters = 2;
    child.interpreter_sequence = 7;
    child.phase = Phase::Eom.word();
    child.phase_since_ns = NOW - SECOND / 2;
    put_text(&mut child.queue_id, b"4ABC\x1b");
    Slot {
        index,
        master,
        child: Some(child),
        consistent: true,
        histograms: None,
    }
}

fn empty(index: u32, before: u64, processes: u64) -> Slot {
    let mut it = slot(index, 0, (0, 0), before, processes, 0);
    it.master.state = SlotState::Empty.word();
    it.child = None;
    it
}

pub(in crate::control) fn board(slots: Vec<Slot>) -> Snapshot {
    let mut header = Header::zeroed();
    header.instance = [0xab, 0xcd];
    header.created_boot_ns = 10 * SECOND;
    header.created_wall_ns = 5_000 * SECOND;
    let mut global = GlobalRecord::zeroed();
    global.heartbeat_ns = NOW - SECOND / 4;
    global.slots_high_water = 6;
    global.slots_max = 16;
    global.interpreters_max = 4;
    global.last_slot = 0;
    put_text(&mut global.port, b"inet:3366@127.0.0.1");
    Snapshot {
        header,
        global,
        global_consistent: true,
        slots,
        deaths: Vec::new(),
        liveness: Liveness {
            lock: Lock::Held,
            same_boot: Some(true),
            same_pid_namespace: Some(true),
        },
        now_ns: NOW,
        wall_ns: 7_000 * SECOND,
        cut: Cut::Atomic,
        retries: 0,
    }
}

pub(in crate::control) fn view(name: &str, state: State, board: Option<Snapshot>) -> View {
    View {
        name: name.parse().unwrap(),
        state,
        pid: board.as_ref().map(|_| 2345),
        kernel: board.as_ref().map_or_else(Kernel::default, |_| Kernel {
            vsz_bytes: Some(mib(41.2)),
            threads: Some(1),
            procs: Some(4),
        }),
        orphans: 0,
        board,
        history: None,
        unreadable: None,
    }
}

fn views(milters: Vec<View>) -> Views {
    Views {
        milters,
        unknown: 0,
        complaints: Vec::new(),
        wall_seconds: 1_700_000_000.123_456,
    }
}

fn plain(views: &Views) -> String {
    text::full(views, false)
}

fn example() -> View {
    let mut second = slot(1, 2351, (17, 16), 1183, 2, 1000);
    second.master.state = SlotState::Retiring.word();
    let slots = vec![slot(0, 2346, (123, 121), 4444, 3, 234), second];
    view("policy", State::Running, Some(board(slots)))
}

#[test]
fn the_example_of_the_manual_is_printed_to_the_byte() {
    let page: Vec<&str> = help::PMX_MILTER.lines().collect();
    let start = page.iter().position(|l| *l == "policy: running").unwrap();
    let expected = page[start..start + 6].join("\n") + "\n";
    assert!(expected.contains("    slot#1:   pid=2351   vsz=44.0  acc=17/1200/2 req=1*"));
    assert_eq!(plain(&views(vec![example()])), expected);
}

#[test]
fn what_is_not_known_is_a_dash_and_an_empty_slot_keeps_its_history() {
    let mut it = view(
        "policy",
        State::Starting,
        Some(board(vec![empty(0, 4567, 3)])),
    );
    it.kernel = Kernel::default();
    let text = plain(&views(vec![it]));
    assert_eq!(
        text,
        "policy: starting\n\
         \x20   pid=2345 port=inet:3366@127.0.0.1 vsz=- threads=- procs=-\n\
         \x20   interp=-/4 seq=- queue=0 flags=0x0\n\
         \x20   slots=6/16 (0 retiring) req=0 msg=0\n\
         \x20   slot#0:   pid=-   vsz=-  acc=0/4567/3 req=0\n"
    );
}

#[test]
fn first_lines_name_the_state_and_the_age_where_it_matters() {
    let old = || {
        let mut old = board(vec![]);
        old.global.heartbeat_ns = NOW - 7 * SECOND;
        old
    };
    let table = [
        (State::Running, "m: running"),
        (State::Retiring, "m: retiring"),
        (State::Hung, "m: hung (heartbeat 7 s old)"),
        (State::Stopped, "m: stopped (heartbeat 7 s old)"),
        (State::Dead, "m: dead (heartbeat 7 s old)"),
        // Of an earlier boot: the wall clock tells, 7000 - (5000 + 993 - 10).
        (State::Stale, "m: stale (heartbeat 1017 s old)"),
    ];
    for (state, line) in table {
        let text = plain(&views(vec![view("m", state, Some(old()))]));
        assert_eq!(text.lines().next(), Some(line));
    }
    for (state, line) in [
        (State::NotRunning, "m: not running\n"),
        (State::Unreadable, "m: unreadable\n"),
    ] {
        assert_eq!(plain(&views(vec![view("m", state, None)])), line);
    }
    let mut orphaned = view("m", State::Dead, Some(old()));
    orphaned.orphans = 2;
    let text = plain(&views(vec![orphaned]));
    assert!(text.starts_with("m: dead (heartbeat 7 s old, 2 orphans finishing)\n"));
    assert_eq!(plain(&views(vec![])), "no milter is running\n");
}

#[test]
fn the_summary_is_the_sum_of_the_slots_in_the_printed_text() {
    let slots = vec![
        slot(0, 11, (9, 4), 3, 2, 10),
        empty(1, 5, 1),
        slot(2, 12, (1, 7), 0, 1, 3),
        slot(3, 13, (20, 0), 0, 1, 0),
    ];
    let text = plain(&views(vec![view("m", State::Running, Some(board(slots)))]));
    let requests: Vec<u64> = text
        .lines()
        .filter_map(|line| {
            let number = line.split("req=").nth(1)?.split(' ').next()?;
            number.trim_end_matches('*').parse().ok()
        })
        .collect();
    let (summary, rows) = requests.split_first().unwrap();
    // Slot 2 claims more than it was given: clamped, never wrapped around.
    assert_eq!((*summary, rows), (25, &[5, 0, 0, 20][..]));
}

#[test]
fn a_hostile_board_cannot_move_the_cursor() {
    let mut hostile = board(vec![]);
    put_text(&mut hostile.global.port, b"inet:\x1b[2J\nx: running");
    let text = plain(&views(vec![view("m", State::Running, Some(hostile))]));
    assert!(!text.contains('\x1b'));
    assert!(!text.lines().any(|line| line.starts_with("x: ")));
}

#[test]
fn a_milter_without_a_pool_has_its_flag() {
    let mut single = board(vec![slot(0, 1, (1, 0), 0, 1, 0)]);
    single.global.flags = FLAG_NO_POOL;
    single.global.slots_high_water = 1;
    single.global.slots_max = 1;
    if let Some(child) = &mut single.slots[0].child {
        child.queue = 3;
    }
    let text = plain(&views(vec![view("m", State::Running, Some(single))]));
    assert!(text.contains("interp=2/4 seq=7 queue=3 flags=0x1\n"));
}
