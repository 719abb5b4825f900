//! Every state that status can show, made for real where that can be done: the first line's words, JSON, exit status, and what monitoring
//! systems get.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use nix::sys::signal::Signal;
use support::crafted::{self, BOOT_ID, ENDIAN, Records, VERSION, plant};
use support::milter::{ADDS_A_HEADER, Milter, count};
use support::mta::Message;
use support::process::{runs, signal};
use support::{SOON, wait_until};

/// A message stays at its end until the test is over.
const WAITS_AT_EOM: &str = r#"
local policy = {}
function policy.eom(ctx) milter.sleep(100) end
return policy
"#;

/// The state in JSON, the exit status, the word of Nagios and its exit status, and `pmx_up`.
const STATES: &[(&str, i32, &str, i32, &str)] = &[
    ("starting", 0, "WARNING", 1, "1"),
    ("running", 0, "OK", 0, "1"),
    ("retiring", 0, "WARNING", 1, "1"),
    ("hung", 0, "CRITICAL", 2, "1"),
    ("stopped", 0, "CRITICAL", 2, "1"),
    ("dead", 1, "CRITICAL", 2, "0"),
    ("stale", 1, "CRITICAL", 2, "0"),
    ("not_running", 3, "CRITICAL", 2, "0"),
    ("unreadable", 4, "UNKNOWN", 3, "0"),
];

/// Asserts that every output tells this state, and returns the first line of the text.
#[track_caller]
fn shows(milter: &Milter, state: &str) -> String {
    let row = STATES.iter().find(|row| row.0 == state).unwrap();
    let (_, code, word, plugin_code, up) = *row;
    let words = state.replace('_', " ");
    let text = milter.pmx(&["status", "policy"]).expect(code).out;
    let first = text.lines().next().unwrap_or("").to_owned();
    assert!(first.starts_with(&format!("policy: {words}")), "{first}");
    let json = milter.pmx(&["status", "--format", "json"]).expect(code);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["milters"][0]["state"], state, "{json}");
    for (format, label) in [("openmetrics", "pmx_state"), ("prometheus", "state")] {
        let out = milter.pmx(&["status", "--format", format]).expect(code).out;
        let up = format!("pmx_up{{milter=\"policy\"}} {up}");
        assert!(out.lines().any(|line| line == up), "{format}: {up}\n{out}");
        let states: Vec<&str> = out
            .lines()
            .filter(|line| line.starts_with("pmx_state{") && line.ends_with(" 1"))
            .collect();
        let expected = format!("pmx_state{{milter=\"policy\",{label}=\"{state}\"}} 1");
        assert_eq!(states, [&*expected], "{out}");
    }
    let plugin = milter.pmx(&["status", "--format", "nagios"]);
    let plugin = plugin.expect(plugin_code).out;
    let start = format!("PMX {word}: policy {words}");
    assert!(plugin.starts_with(&start), "{plugin}");
    assert_eq!(plugin.lines().count(), 1, "{plugin}");
    first
}

#[test]
fn a_milter_is_starting_until_its_children_are_ready_and_then_running() {
    // The top level is run by the checker and by every child: each time it takes a while.
    let slow = "local e = os.clock() + 1.5\nwhile os.clock() < e do end\nreturn {}";
    let milter = Milter::new(slow);
    let start = milter.pmx_in_background(&["start"]);
    wait_until(SOON, "a board of a milter that starts", || {
        let json = milter.json_if_any()?;
        (json["state"] == "starting" && !json["port"].is_null()).then_some(())
    });
    shows(&milter, "starting");
    start.wait(SOON).expect(0);
    shows(&milter, "running");
}

#[test]
fn a_milter_that_is_stopped_retires_while_a_connection_is_open() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let session = milter.session();
    let stop = milter.pmx_in_background(&["stop"]);
    milter.wait_json("it retires", |it| it["state"] == "retiring");
    shows(&milter, "retiring");
    session.quit().unwrap();
    stop.wait(SOON).expect(0);
    shows(&milter, "not_running");
}

#[test]
fn a_suspended_milter_is_stopped_and_status_tells_the_age_of_its_heartbeat() {
    let milter = Milter::started(WAITS_AT_EOM, "");
    let mut session = milter.session();
    let message = Message::from("a@b.example");
    session.send_without_reading_the_end(&message).unwrap();
    milter.wait_json("the message is in hand", |it| {
        it["slots"][0]["phase"] == "eom"
    });
    let all = milter.processes();
    assert!(all.len() >= 2, "{all:?}");
    for pid in &all {
        signal(*pid, Signal::SIGSTOP);
    }
    // The signal takes effect when the process is about to run.
    support::wait_until(support::SOON, "all are suspended", || {
        let is_suspended =
            |pid: &i32| support::process::state(*pid).is_some_and(|(letter, _)| letter == 'T');
        all.iter().all(is_suspended).then_some(())
    });
    let first = shows(&milter, "stopped");
    assert!(first.ends_with(" s old)"), "{first}");
    // The board answers although nobody does: the job, and an age that grows.
    let json = milter.wait_json("the heartbeat ages", |it| {
        it["heartbeat_age_seconds"].as_f64().unwrap() > 1.5
    });
    assert_eq!(json["slots"][0]["queue_id"], message.queue_id);
    assert_eq!(json["slots"][0]["requests"], 1);
    let first = shows(&milter, "stopped");
    assert!(!first.contains("heartbeat 0 s"), "{first}");
    for pid in &all {
        signal(*pid, Signal::SIGCONT);
    }
    milter.wait_json("it goes on", |it| it["state"] == "running");
}

#[test]
fn a_master_without_a_heartbeat_that_is_not_suspended_is_hung() {
    // Nothing makes a master hang on demand; this process plays one: it holds the lock and gives no more signs of life.
    let milter = Milter::new(ADDS_A_HEADER);
    let board = Records::running().publish(&milter);
    shows(&milter, "running");
    milter.wait_json("5 seconds pass", |it| it["state"] == "hung");
    let first = shows(&milter, "hung");
    assert!(first.starts_with("policy: hung (heartbeat "), "{first}");
    drop(board);
    shows(&milter, "dead");
}

#[test]
fn a_killed_milter_is_dead_and_its_board_tells_the_last_job() {
    let milter = Milter::started(WAITS_AT_EOM, "");
    let mut session = milter.session();
    let message = Message::from("a@b.example");
    session.send_without_reading_the_end(&message).unwrap();
    milter.wait_json("the message is in hand", |it| {
        it["slots"][0]["phase"] == "eom"
    });
    // The master first: nobody buries the child.
    let (master, children) = (milter.master(), milter.children());
    for pid in std::iter::once(master).chain(children) {
        signal(pid, Signal::SIGKILL);
    }
    wait_until(SOON, "all are dead", || {
        let left = milter.processes();
        left.iter().all(|pid| !runs(*pid)).then_some(())
    });
    let first = shows(&milter, "dead");
    assert!(first.starts_with("policy: dead (heartbeat "), "{first}");
    let json = milter.json();
    assert_eq!(json["slots"][0]["phase"], "eom");
    assert_eq!(json["slots"][0]["queue_id"], message.queue_id);
    assert_eq!(json["messages_in_progress"], 1);
    // Post mortem, the counters are still told.
    let out = milter.pmx(&["status", "--format", "prometheus"]).out;
    let started = "pmx_messages_started_total{milter=\"policy\"} 1";
    assert!(out.lines().any(|line| line == started), "{out}");
}

#[test]
fn a_board_of_another_boot_is_stale() {
    let milter = Milter::new(ADDS_A_HEADER);
    let mut bytes = crafted::dead_board();
    plant(&milter, &bytes);
    shows(&milter, "dead");
    bytes[BOOT_ID] ^= 1;
    plant(&milter, &bytes);
    shows(&milter, "stale");
}

#[test]
fn without_a_board_a_milter_is_not_running() {
    let milter = Milter::new(ADDS_A_HEADER);
    assert_eq!(shows(&milter, "not_running"), "policy: not running");
    milter.start();
    shows(&milter, "running");
    milter.stop();
    shows(&milter, "not_running");
}

#[test]
fn what_is_no_board_of_ours_is_unreadable_and_the_reason_is_told() {
    let board = crafted::dead_board();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = board.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let swapped: Vec<u8> = board[ENDIAN..ENDIAN + 8].iter().rev().copied().collect();
    let noise: Vec<u8> = (0..9000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let table: [(&str, Vec<u8>); 6] = [
        ("start again", board[..board.len() / 2].to_vec()),
        ("it is no scoreboard", board[..100].to_vec()),
        ("it is no scoreboard", Vec::new()),
        ("it is no scoreboard", noise),
        ("a machine of the other byte order", with(ENDIAN, &swapped)),
        ("its format is 7.", with(VERSION + 4, &7_u32.to_le_bytes())),
    ];
    for (reason, bytes) in table {
        let milter = Milter::new(ADDS_A_HEADER);
        plant(&milter, &bytes);
        assert_eq!(shows(&milter, "unreadable"), "policy: unreadable");
        milter.status().expect(4).says(reason);
        // A plugin's reader sees standard output only.
        let plugin = milter.pmx(&["status", "--format", "nagios"]).expect(3);
        plugin.prints(reason);
    }
}

#[test]
fn the_worst_of_several_milters_makes_the_exit_status() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let both = ["status", "policy", "nobody-knows-it"];
    milter.pmx(&both).expect(4).prints("policy: running");
    let mut plugin = both.to_vec();
    plugin.extend(["--format", "nagios"]);
    milter
        .pmx(&plugin)
        .expect(3)
        .prints("PMX UNKNOWN: 1 not known");
    fs::write(milter.run_dir().join("other.scoreboard"), "x").unwrap();
    let all = milter.pmx(&["status"]).expect(4);
    all.prints("policy: running").prints("other: unreadable");
    let json = milter.json();
    assert_eq!(count(&json["pool"]["requests"]), 0);
}
