//! Readers of the board that are not this program, on the board of a milter under load: the examples in Python and C, and the exporter. Each
//! is whole in itself while mail flows, and when it stops all agree with `status`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use support::command::run;
use support::milter::{Milter, count, sum};
use support::mta::{Message, Mta};
use support::with_mta::POLICY;
use support::{SOON, wait_until};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scoreboard/examples")
        .join(name)
}

/// The three readers, ready to run on one board.
struct Readers {
    board: PathBuf,
    c: PathBuf,
}

impl Readers {
    /// Compiles the one in C, as strictly as it may be compiled anywhere.
    fn of(milter: &Milter) -> Readers {
        let c = milter.path("read_board");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-o"])
            .args([&c, &example("read_board.c")]);
        run(compiler, SOON).expect(0);
        Readers {
            board: milter.run_dir().join("policy.scoreboard"),
            c,
        }
    }

    fn run(&self, mut command: Command) -> String {
        command.arg(&self.board);
        run(command, SOON).expect(0).out
    }

    fn python_script(&self, name: &str) -> String {
        let mut command = Command::new("python3");
        command.arg(example(name));
        self.run(command)
    }

    /// What `read_board.py` and `read_board.c` print.
    fn both(&self) -> [Value; 2] {
        let texts = [
            self.python_script("read_board.py"),
            self.run(Command::new(&self.c)),
        ];
        texts.map(|text| serde_json::from_str(&text).unwrap())
    }

    /// What `exporter.py` prints: value by name and labels.
    fn exported(&self) -> Samples {
        let text = self.python_script("exporter.py");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        });
        Samples(samples.collect())
    }
}

struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// A sample of a slot; 0 when there is none.
    fn slot(&self, name: &str, slot: usize, more: &str) -> f64 {
        let key = format!("{name}{{milter=\"policy\",slot=\"{slot}\"{more}}}");
        self.0.get(&key).copied().unwrap_or(0.0)
    }

    /// The sum over what a family counts apart, of a slot.
    fn all(&self, name: &str, slot: usize) -> f64 {
        let start = format!("{name}{{milter=\"policy\",slot=\"{slot}\"");
        let samples = self.0.range(start.clone()..);
        samples
            .take_while(|(key, _)| key.starts_with(&start))
            .map(|(_, value)| value)
            .sum()
    }

    fn slots(&self) -> usize {
        (0..)
            .take_while(|slot| {
                self.0.contains_key(&format!(
                    "pmx_master_dispatched_total{{milter=\"policy\",slot=\"{slot}\"}}"
                ))
            })
            .count()
    }

    fn in_progress(&self, slot: usize) -> f64 {
        self.slot("pmx_master_dispatched_total", slot, "")
            + self.slot("pmx_master_dispatched_before_total", slot, "")
            - self.slot("pmx_master_returned_total", slot, "")
            - self.slot("pmx_master_returned_before_total", slot, "")
            - self.slot("pmx_master_lost_connections_total", slot, "")
            - self.slot("pmx_slot_connections_completed_total", slot, "")
    }
}

/// What one reader says agrees with itself, and goes on from what it said before. Gives its messages.
#[track_caller]
fn is_whole(board: &Value, before: u64) -> u64 {
    assert_eq!(board["state"], 2, "{board:#}");
    assert_eq!(board["alive"], true, "{board:#}");
    assert_eq!(sum(board, "requests"), count(&board["requests"]));
    assert_eq!(sum(board, "messages"), count(&board["messages"]));
    for slot in board["slots"].as_array().unwrap() {
        assert!(count(&slot["requests"]) <= count(&slot["acc"][0]), "{slot}");
        assert!(count(&slot["acc"][0]) <= count(&slot["acc"][1]), "{slot}");
    }
    let messages = count(&board["messages"]);
    assert!(messages >= before, "{messages} after {before}");
    messages
}

/// The exporter's families agree with each other, slot by slot. Gives its messages.
#[track_caller]
fn adds_up(samples: &Samples, before: f64) -> f64 {
    let mut messages = 0.0;
    for slot in 0..samples.slots() {
        let of = |name| samples.all(name, slot);
        let verdicts = of("pmx_slot_verdicts_total");
        messages += verdicts;
        let open = of("pmx_slot_messages_started_total")
            - of("pmx_slot_messages_aborted_total")
            - of("pmx_master_lost_messages_total")
            - verdicts;
        let connections = samples.in_progress(slot);
        assert!(connections >= 0.0, "slot {slot}: {connections} in progress");
        assert!(
            (0.0..=connections).contains(&open),
            "slot {slot}: {open} messages in {connections} connections"
        );
        for family in ["pmx_slot_message_histogram", "pmx_phase_eom"] {
            let total = samples.slot(&format!("{family}_count"), slot, "");
            let last = samples.slot(&format!("{family}_bucket"), slot, ",le=\"+Inf\"");
            assert_eq!(total, last, "{family}");
        }
    }
    assert!(messages >= before, "{messages} after {before}");
    messages
}

/// All four say the same of a milter at rest.
#[track_caller]
fn all_agree(milter: &Milter, readers: &Readers) {
    let (json, [python, c], samples) = (milter.json(), readers.both(), readers.exported());
    assert_eq!(python, c);
    assert_eq!(python["pid"], json["pid"]);
    assert_eq!(python["requests"], json["pool"]["requests"]);
    assert_eq!(python["messages"], json["pool"]["messages"]);
    let (theirs, ours) = (
        python["slots"].as_array().unwrap(),
        json["slots"].as_array().unwrap(),
    );
    assert_eq!(theirs.len(), ours.len());
    assert_eq!(samples.slots(), ours.len());
    for (number, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
        assert_eq!(
            theirs["pid"].as_u64().unwrap(),
            ours["pid"].as_u64().unwrap_or(0)
        );
        assert_eq!(theirs["requests"], ours["requests"]);
        assert_eq!(theirs["messages"], ours["messages"]);
        let acc = ["process", "slot", "processes"].map(|name| ours["acc"][name].clone());
        assert_eq!(theirs["acc"], Value::from(acc.to_vec()));
        let messages = count(&ours["messages"]) as f64;
        assert_eq!(samples.all("pmx_slot_verdicts_total", number), messages);
        // Each processed message has a duration, and each was answered at its end.
        let durations = samples.slot("pmx_slot_message_histogram_count", number, "");
        assert_eq!(durations, messages);
        let answers = samples.slot("pmx_phase_eom_count", number, "");
        assert_eq!(answers, messages);
        let requests = count(&ours["requests"]) as f64;
        assert_eq!(samples.in_progress(number), requests);
    }
    for (verdict, number) in json["verdicts"].as_object().unwrap() {
        let of = format!(",of=\"{verdict}\"");
        let exported: f64 = (0..ours.len())
            .map(|slot| samples.slot("pmx_slot_verdicts_total", slot, &of))
            .sum();
        assert_eq!(exported, count(number) as f64, "{verdict}");
    }
}

/// Sets it when it goes, also when an assertion fails: a scope waits for its threads.
struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

mod needs_python3_and_cc {
    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn every_reader_is_whole_under_load_and_all_agree_when_it_stops() {
        const CLIENTS: usize = 4;
        const LOOKS: usize = 8;
        let milter = Milter::started(POLICY, "max_pooled_procs = 3");
        let readers = Readers::of(&milter);
        let over = AtomicBool::new(false);
        let address = milter.address();
        std::thread::scope(|scope| {
            let end = EndOf(&over);
            for client in 0..CLIENTS {
                let (address, over) = (&address, &over);
                scope.spawn(move || {
                    let senders = ["plain@b.example", "reject@b.example", "fault@b.example"];
                    let mut round = client;
                    while !over.load(Ordering::Relaxed) {
                        let mut session = Mta::ready(address, SOON).unwrap();
                        for _ in 0..5 {
                            round += 1;
                            let sender = senders[round % senders.len()];
                            session.message(&Message::from(sender)).unwrap();
                        }
                        session.quit().unwrap();
                    }
                });
            }
            let (mut by_json, mut by_exporter) = ([0; 2], 0.0);
            for _ in 0..LOOKS {
                for (board, before) in readers.both().iter().zip(&mut by_json) {
                    *before = is_whole(board, *before);
                }
                by_exporter = adds_up(&readers.exported(), by_exporter);
                let json = milter.json();
                assert_eq!(sum(&json, "requests"), count(&json["pool"]["requests"]));
                assert_eq!(sum(&json, "messages"), count(&json["pool"]["messages"]));
            }
            assert!(by_json[0] > 0 && by_exporter > 0.0);
            drop(end);
        });
        let json = milter.wait_json("every session is over", |json| {
            json["pool"]["requests"] == 0
        });
        assert!(count(&json["verdicts"]["error"]) > 0, "{json:#}");
        all_agree(&milter, &readers);
    }

    #[test]
    fn all_agree_on_connections_in_progress_and_on_what_a_killed_child_had_counted() {
        let milter = Milter::started(POLICY, "max_pooled_procs = 1");
        let readers = Readers::of(&milter);
        let mut session = milter.session();
        session.message(&Message::from("plain@b.example")).unwrap();
        all_agree(&milter, &readers);
        let victim = milter.children()[0];
        support::process::signal(victim, Signal::SIGKILL);
        milter.wait_json("another child", |json| {
            let now = support::milter::pids(json);
            now.first().is_some_and(|pid| *pid != victim)
        });
        let mut session = milter.session();
        session.message(&Message::from("plain@b.example")).unwrap();
        all_agree(&milter, &readers);
        drop(session);
        wait_until(SOON, "nothing is in progress", || {
            (readers.both()[1]["requests"] == 0).then_some(())
        });
        all_agree(&milter, &readers);
    }
}
