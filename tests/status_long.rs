//! `status --long` and `--history` through the program: what a child is at, what a death took with it, what a dead board remembers.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::thread::JoinHandle;

use bytemuck::Zeroable;
use nix::sys::signal::Signal;
use scoreboard::{Board, Event, EventKind, GlobalRecord, MilterState, Second, Spec};
use serde_json::Value;
use support::milter::{ADDS_A_HEADER, Milter, count, pid};
use support::mta::{Message, Mta};
use support::{SOON, process, wait_until};

/// Sleeps longer than any test.
const SLEEPS: &str = r#"
local policy = {}
function policy.rcpt(ctx, recipient, args)
  if recipient == "slow@example.org" then milter.sleep(1000) end
end
function policy.eom(ctx)
  if ctx.sender == "slow@b.example" then milter.sleep(1000) end
end
policy.collect = {"sender"}
return policy
"#;

/// Patience for them.
const PATIENT: &str = "max_pooled_procs = 1\ncallback_timeout = \"20m\"\neom_timeout = \"20m\"\nmta_timeouts = \"30m,1h\"";

/// A message that is held in `talk`; its thread ends with its connection.
fn held<T: std::fmt::Debug>(
    milter: &Milter,
    talk: impl FnOnce(&mut Mta) -> std::io::Result<T> + Send + 'static,
) -> JoinHandle<()> {
    let address = milter.address();
    std::thread::spawn(move || {
        let answer = Mta::ready(&address, 4 * SOON).and_then(|mut mta| talk(&mut mta));
        assert!(answer.is_err(), "it was not held: {answer:?}");
    })
}

/// As Sendmail does it, with the queue id from MAIL on.
fn rcpt(mta: &mut Mta) -> std::io::Result<Option<(u8, Vec<u8>)>> {
    mta.command(b'M', b"i\0QID1\0", &[b"<a@b.example>\0"])?;
    mta.command(b'R', b"", &[b"<slow@example.org>\0"])
}

fn is_at(json: &Value, phase: &str) -> bool {
    json["slots"]
        .as_array()
        .unwrap()
        .iter()
        .any(|slot| slot["phase"] == phase && slot["queue_id"] == "QID1" && slot["state"] == "live")
}

fn kill_all(milter: &Milter) {
    wait_until(SOON, "everybody is dead", || {
        let left = milter.processes();
        for pid in &left {
            process::signal(*pid, Signal::SIGKILL);
        }
        left.is_empty().then_some(())
    });
}

#[test]
fn a_message_that_is_held_at_rcpt_shows_its_phase_its_queue_id_and_the_mtas_deadline() {
    let milter = Milter::started(SLEEPS, PATIENT);
    let client = held(&milter, rcpt);
    let json = milter.wait_json("it is held at rcpt", |json| is_at(json, "rcpt"));
    let left = json["slots"][0]["deadline_seconds"].as_f64().unwrap();
    assert!(left > 0.0 && left < 1800.0, "{json:#}");
    let long = milter.pmx(&["status", "--long"]).expect(0).out;
    let line = long
        .lines()
        .find(|line| line.starts_with("        R rcpt id=QID1 since="))
        .unwrap_or_else(|| panic!("no such line in:\n{long}"));
    assert!(line.contains(" of 30m left) last=- "), "{line}");
    assert!(long.contains("    books: balanced\n"), "{long}");
    assert!(long.contains("    last deaths: none\n"), "{long}");
    // Sizes are sampled, so that two looks may differ once.
    wait_until(SOON, "the plain lines are the same in both", || {
        let long = milter.pmx(&["status", "--long"]).expect(0).out;
        let plain = milter.status().expect(0).out;
        let there = |line| long.lines().any(|it| it == line);
        plain.lines().all(there).then_some(())
    });
    let mut watch = milter.pmx_in_background(&["status", "--long", "--watch", "0.1"]);
    wait_until(SOON, "it is shown again and again", || {
        (watch.said().matches("        R rcpt id=QID1").count() > 2).then_some(())
    });
    process::signal(watch.pid(), Signal::SIGKILL);
    kill_all(&milter);
    client.join().unwrap();
    // Nobody will answer any more.
    let dead = milter.pmx(&["status", "--long"]).expect(1).out;
    assert!(dead.contains("        R rcpt id=QID1 since="), "{dead}");
    assert!(!dead.contains(" left)"), "{dead}");
}

#[test]
fn a_child_that_is_killed_at_eom_is_among_the_deaths_with_its_queue_id() {
    let milter = Milter::started(SLEEPS, PATIENT);
    let client = held(&milter, |mta| mta.message(&Message::from("slow@b.example")));
    let json = milter.wait_json("it is held at eom", |json| is_at(json, "eom"));
    let victim = pid(&json["slots"][0]["pid"]);
    process::signal(victim, Signal::SIGKILL);
    let json = milter.wait_json("the death is on the board", |json| {
        !json["deaths"].as_array().unwrap().is_empty()
    });
    client.join().unwrap();
    let death = &json["deaths"][0];
    assert_eq!(pid(&death["pid"]), victim, "{death}");
    assert_eq!(death["queue_id"], "QID1", "{death}");
    assert_eq!(death["phase"], "eom", "{death}");
    assert_eq!(count(&death["signal"]), 9, "{death}");
    assert_eq!(count(&death["lost_connections"]), 1, "{death}");
    assert!(death["process_seconds"].as_f64().unwrap() > 0.0, "{death}");
    assert_eq!(count(&json["deaths_total"]["signal"]), 1, "{json:#}");
    assert_eq!(json["books"]["balanced"], true, "{json:#}");
    let long = milter.pmx(&["status", "--long"]).expect(0).out;
    let line = format!("        slot#0 pid={victim} signal 9 (KILL) in eom id=QID1 ");
    let found = long.lines().find(|it| it.starts_with(&line));
    let found = found.unwrap_or_else(|| panic!("no such death in:\n{long}"));
    assert!(found.ends_with(", 1 connection lost"), "{found}");
}

#[test]
fn long_changes_nothing_in_json_and_history_stands_below_the_lines() {
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 1");
    let fields = |arguments: &[&str]| {
        let outcome = milter.pmx(&[&["status", "--format", "json"], arguments].concat());
        let all: Value = serde_json::from_str(&outcome.expect(0).out).unwrap();
        let names = all["milters"][0].as_object().unwrap().keys();
        names.cloned().collect::<Vec<String>>()
    };
    let plain = fields(&[]);
    assert_eq!(fields(&["--long"]), plain);
    let with_history = fields(&["--history"]);
    assert_eq!(with_history.split_last().unwrap().1, plain);
    let text = milter.pmx(&["status", "--history"]).expect(0).out;
    let below = text.lines().skip_while(|line| !line.contains("slot#0:"));
    assert!(below.count() > 1, "{text}");
}

/// A board whose master is gone, with two seconds and two events.
fn leave_a_board(run_dir: &Path) {
    std::fs::create_dir_all(run_dir).unwrap();
    let spec = Spec {
        capacity: 4,
        mode: 0o644,
        group: None,
        previous_instance: [0; 2],
    };
    let mut board = Board::create(run_dir, "policy.scoreboard", &spec).unwrap();
    let mut global = GlobalRecord::zeroed();
    global.state = MilterState::Running.word();
    board.publish_global(&global);
    let made = board.header().created_boot_ns;
    let mut second = Second::zeroed();
    for (busy, accepted) in [(3, 7), (0, 9)] {
        second.at_ns = made;
        second.busy = busy;
        second.accepted = accepted;
        board.append_second(second);
    }
    let mut event = Event::zeroed();
    event.at_ns = made;
    event.slot = u64::MAX;
    for kind in [EventKind::Start, EventKind::Full] {
        event.kind = kind.word();
        event.value = 1;
        board.append_event(event);
    }
}

#[test]
fn a_dead_board_tells_its_history() {
    let milter = Milter::new(ADDS_A_HEADER);
    leave_a_board(&milter.run_dir());
    let text = milter.pmx(&["status", "--history"]).expect(1).out;
    assert!(text.starts_with("policy: dead"), "{text}");
    let rest = text.lines().skip_while(|line| !line.contains("backlog"));
    let words: Vec<Vec<&str>> = rest
        .map(|line| line.split_whitespace().skip(1).collect())
        .collect();
    let seconds: Vec<&[&str]> = words[1..3].iter().map(|it| &it[..5]).collect();
    assert_eq!(
        seconds,
        [["3", "0", "0", "0", "7"], ["0", "0", "0", "0", "2"]]
    );
    assert_eq!(words[3], ["start", "-", "-", "generation", "1"], "{text}");
    assert_eq!(
        words[4],
        ["full", "-", "-", "every", "child", "is", "full"],
        "{text}"
    );
    let outcome = milter.pmx(&["status", "--history", "--format", "json"]);
    let all: Value = serde_json::from_str(&outcome.expect(1).out).unwrap();
    let history = &all["milters"][0]["history"];
    assert_eq!(history["seconds"][1]["accepted"], 9, "{history:#}");
    assert_eq!(history["events"][0]["kind"], "start", "{history:#}");
    assert_eq!(history["events"][1]["text"], "every child is full");
}

/// The lines of the events of this kind, without their time.
fn events(text: &str, kind: &str) -> Vec<String> {
    let below = text.lines().skip_while(|line| !line.contains("backlog"));
    let words = below.map(|line| line.split_whitespace().skip(1).collect::<Vec<&str>>());
    let of_kind = words.filter(|words| words.first() == Some(&kind));
    of_kind.map(|words| words[1..].join(" ")).collect()
}

#[test]
fn what_happened_to_a_milter_is_in_its_history_while_it_lives_and_afterwards() {
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 1");
    let mut session = milter.session();
    session.message(&Message::from("a@b.example")).unwrap();
    let victim = milter.children()[0];
    process::signal(victim, Signal::SIGKILL);
    let seen = |text: &str| {
        // Five columns and six verdicts below the time; events have fewer words.
        let accepted = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.len() == 12 && words[5] == "1"
        };
        events(text, "fork").len() > 1 && text.lines().any(accepted)
    };
    let text = wait_until(SOON, "the second and the next fork are told", || {
        let text = milter.pmx(&["status", "--history"]).expect(0).out;
        seen(&text).then_some(text)
    });
    let death = format!("slot#0 pid={victim} signal 9 (KILL)");
    assert_eq!(events(&text, "start"), ["- - generation 1"], "{text}");
    assert_eq!(events(&text, "death"), [death], "{text}");
    let fork = &events(&text, "fork")[0];
    assert_eq!(*fork, format!("slot#0 pid={victim} process 1 of its slot"));
    kill_all(&milter);
    let dead = milter.pmx(&["status", "--history"]).expect(1).out;
    assert!(seen(&dead), "{dead}");
    assert_eq!(events(&dead, "death").len(), 1, "{dead}");
}
