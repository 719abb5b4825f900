//! A restart loses nothing: no connection is refused or cut, no answer is wrong, no count goes back, whatever changes.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use scoreboard::{Phase, Reader, SlotState, Snapshot};
use support::crowd::Crowd;
use support::milter::{Milter, count};
use support::restarting::{either, filtered_by, message, policy, slow, wait_for_checker};
use support::{SOON, process, wait_until};

/// What only grows.
fn totals(board: &Snapshot) -> Vec<u64> {
    let global = &board.global;
    let mut totals = vec![
        global.generation,
        global.accepted,
        global.forks,
        global.deaths_clean,
        global.slots_high_water,
        board.messages(),
        board.connections(),
    ];
    totals.extend(board.counters().verdicts);
    totals
}

/// Looks at the board all the time, until it is told to stop: nothing goes back, the books balance, and it stays the same board.
fn watch(milter: &Milter, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<Result<u64, String>> {
    let path = milter.run_dir().join("policy.scoreboard");
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let first = scoreboard::read(&path).map_err(|error| error.to_string())?;
        let mut before = totals(&first);
        let mut looks = 0;
        while !stop.load(Ordering::SeqCst) {
            let board = scoreboard::read(&path).map_err(|error| error.to_string())?;
            if board.header.instance != first.header.instance {
                return Err("another instance".to_owned());
            }
            let now = totals(&board);
            if now.iter().zip(&before).any(|(now, before)| now < before) {
                return Err(format!("a count went back: {before:?}, then {now:?}"));
            }
            let books = board.books();
            if !books.is_balanced() {
                return Err(format!("the books do not balance: {books:?}"));
            }
            let mut slots = board.slots.iter();
            let live = slots.any(|slot| slot.master.state == SlotState::Live.word());
            if books.atomic && !live {
                return Err("nobody takes connections".to_owned());
            }
            before = now;
            looks += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(looks)
    })
}

#[test]
fn a_hundred_restarts_under_sixty_four_busy_connections_lose_nothing() {
    let milter = Milter::started(&policy("one"), "max_pooled_procs = 4");
    let master = milter.master();
    let crowd = Crowd::of(64, &milter.address(), either);
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = watch(&milter, &stop);
    for round in 0..100 {
        milter.write_policy(&policy(if round % 2 == 0 { "two" } else { "one" }));
        milter
            .pmx(&["restart"])
            .expect(0)
            .prints(&format!("restarted, pid {master}"))
            .prints("policy.lua has changed");
        let word = if round % 2 == 0 { "two" } else { "one" };
        let answer = milter.session().message(&message()).unwrap();
        assert!(
            answer.adds_header("X-Filter", word),
            "restart {round}: {answer:?}"
        );
    }
    let (sessions, messages) = crowd.disperse();
    stop.store(true, Ordering::SeqCst);
    let looks = watcher.join().unwrap().unwrap();
    assert!(messages > 1000 && looks > 100, "{messages} {looks}");
    let json = milter.wait_json("all is finished", |json| json["pool"]["requests"] == 0);
    // The test's own sessions came on top.
    assert_eq!(count(&json["pool"]["connections"]), sessions + 100);
    assert_eq!(count(&json["pool"]["messages"]), messages + 100);
    assert_eq!(json["generation"], 101);
    let path = milter.run_dir().join("policy.scoreboard");
    let board = Reader::open(&path).unwrap().detailed().unwrap();
    let ends = board.histograms().unwrap();
    assert_eq!(ends.of(Phase::Eom).iter().sum::<u64>(), messages + 100);
    assert!(board.books().accepted.is_balanced(), "{:?}", board.books());
    assert_eq!(json["lost"]["connections"], 0);
    assert_eq!(milter.master(), master, "the process is the same");
    milter.stop();
    assert!(milter.processes().is_empty());
    assert_eq!(milter.left_behind(), ["policy.scoreboard.last"]);
}

#[test]
fn sizes_of_pool_and_children_change_without_a_gap_and_what_changed_is_told() {
    let milter = Milter::started(&policy("one"), "max_pooled_procs = 2");
    let crowd = Crowd::of(16, &milter.address(), either);
    let sizes = [
        ("max_pooled_procs = 8\nmin_pooled_procs = 3", 16, 3),
        ("max_pooled_procs = 1\ninterpreters = 3", 2, 1),
        ("max_pooled_procs = 0", 2, 1),
        ("max_pooled_procs = 2\ninterpreter_connections = 1", 4, 1),
        ("max_pooled_procs = 2", 4, 1),
    ];
    for (settings, slots, least) in sizes {
        milter.configure(settings);
        let before = crowd.messages();
        milter.pmx(&["restart"]).expect(0).prints(" -> ");
        let what = format!("the old children have gone and {slots} slots are left: {settings}");
        milter.wait_json(&what, |json| {
            let all = json["slots"].as_array().unwrap();
            let is_new = |slot: &serde_json::Value| {
                slot["pid"].is_null() || slot["generation"] == json["generation"]
            };
            // The slots are published when a child is buried, their number at the end of that turn.
            all.iter().all(is_new) && json["pool"]["slots_max"] == slots
        });
        assert!(milter.children().len() >= least, "{settings}");
        wait_until(SOON, "mail goes on", || {
            (crowd.messages() > before + 16).then_some(())
        });
    }
    let (sessions, messages) = crowd.disperse();
    let json = milter.wait_json("all is finished", |json| json["pool"]["requests"] == 0);
    assert_eq!(count(&json["pool"]["connections"]), sessions);
    assert_eq!(count(&json["pool"]["messages"]), messages);
    assert_eq!(json["deaths"].as_array().unwrap().len(), 0, "{json:#}");
}

#[test]
fn everybody_is_served_in_every_phase_of_a_restart() {
    // Long enough that each phase lasts for as long as this test wants.
    let patient = "start_timeout = \"10m\"\ncallback_timeout = \"10m\"";
    for pool in [
        "max_pooled_procs = 1",
        "max_pooled_procs = 3",
        "max_pooled_procs = 0",
    ] {
        let milter = Milter::started(&policy("one"), &format!("{patient}\n{pool}"));
        let mut open = milter.session();
        let crowd = Crowd::of(12, &milter.address(), either);
        crowd.all_are_served("before");
        milter.write_policy(&slow("two"));
        let mut restart = milter.pmx_in_background(&["restart"]);
        let reading = wait_for_checker(&milter);
        process::signal(reading, Signal::SIGSTOP);
        crowd.all_are_served("while the policy is tried");
        process::signal(reading, Signal::SIGCONT);
        let held = new_children(&milter);
        for child in &held {
            process::signal(*child, Signal::SIGSTOP);
        }
        crowd.all_are_served("while no new child is ready");
        assert!(!restart.has_ended(), "{}", restart.said());
        for child in &held {
            process::signal(*child, Signal::SIGCONT);
        }
        restart.wait(SOON).expect(0);
        crowd.all_are_served("while old children finish");
        filtered_by(&milter, "two");
        assert!(
            open.message(&message())
                .unwrap()
                .adds_header("X-Filter", "one")
        );
        open.quit().unwrap();
        let (_, messages) = crowd.disperse();
        let json = milter.wait_json("all is finished", |json| {
            json["pool"]["requests"] == 0 && json["pool"]["retiring"] == 0
        });
        assert_eq!(count(&json["pool"]["messages"]), messages + 2);
        assert_eq!(json["deaths"].as_array().unwrap().len(), 0, "{json:#}");
    }
}

/// The children of the second generation, once the first of them is there; none of them can be ready yet.
#[track_caller]
fn new_children(milter: &Milter) -> Vec<i32> {
    let json = milter.wait_json("a child of the new generation", |json| {
        let mut slots = json["slots"].as_array().unwrap().iter();
        slots.any(|slot| slot["generation"] == 2 && !slot["pid"].is_null())
    });
    let slots = json["slots"].as_array().unwrap().iter();
    let new = slots.filter(|slot| slot["generation"] == 2 && !slot["pid"].is_null());
    new.map(|slot| {
        assert_eq!(slot["state"], "starting", "{slot:#}");
        support::milter::pid(&slot["pid"])
    })
    .collect()
}

#[test]
fn a_session_keeps_the_policy_it_began_with_and_new_ones_get_the_new_one_at_once() {
    let milter = Milter::started(&policy("one"), "max_pooled_procs = 1");
    let mut open = milter.session();
    open.begin(&message()).unwrap();
    milter.write_policy(&policy("two"));
    milter.pmx(&["restart"]).expect(0);
    filtered_by(&milter, "two");
    // The old child keeps its slot until it is done; until then the next generation has none.
    milter.write_policy(&policy("three"));
    let mut third = milter.pmx_in_background(&["restart"]);
    milter.wait_json("the third generation has begun", |json| {
        json["generation"] == 3
    });
    wait_until(SOON, "it says what it waits for", || {
        third
            .said()
            .contains("waiting: 1 process of before")
            .then_some(())
    });
    milter
        .pmx(&["status", "--long"])
        .expect(0)
        .prints("generation 3: 1 of 2 old");
    filtered_by(&milter, "two");
    let answer = open.complete(&message()).unwrap();
    assert!(answer.adds_header("X-Filter", "one"), "{answer:?}");
    open.quit().unwrap();
    third.wait(2 * SOON).expect(0);
    filtered_by(&milter, "three");
    let json = milter.json();
    assert_eq!(json["lost"]["connections"], 0, "{json:#}");
}

#[test]
fn a_restart_that_only_waits_for_a_slot_has_not_failed_however_long_it_waits() {
    let settings = "max_pooled_procs = 1\nstart_timeout = \"1s\"";
    let milter = Milter::started(&policy("one"), settings);
    let mut open = milter.session();
    open.begin(&message()).unwrap();
    milter.write_policy(&policy("two"));
    milter.pmx(&["restart"]).expect(0);
    milter.write_policy(&policy("three"));
    let mut third = milter.pmx_in_background(&["restart"]);
    milter.wait_json("the third generation has begun", |json| {
        json["generation"] == 3
    });
    let began = std::time::Instant::now();
    wait_until(SOON, "start_timeout has passed twice", || {
        (began.elapsed() >= Duration::from_millis(2500)).then_some(())
    });
    assert!(!third.has_ended(), "{}", third.said());
    filtered_by(&milter, "two");
    assert!(open.complete(&message()).unwrap().is_taken());
    open.quit().unwrap();
    third.wait(2 * SOON).expect(0);
    filtered_by(&milter, "three");
}

#[test]
fn a_connection_that_no_child_has_read_is_served_by_a_new_one() {
    let milter = Milter::started(&policy("one"), "max_pooled_procs = 1");
    let stuck = milter.children()[0];
    process::signal(stuck, Signal::SIGSTOP);
    let mut waiting = milter.open();
    wait_until(SOON, "the master has taken it back", || {
        let board = scoreboard::read(&milter.run_dir().join("policy.scoreboard")).unwrap();
        (board.global.waiting == 1).then_some(())
    });
    milter.write_policy(&policy("two"));
    milter.pmx(&["restart"]).expect(0);
    waiting.negotiate(support::mta::FULL).unwrap();
    waiting.hello().unwrap();
    let answer = waiting.message(&message()).unwrap();
    assert!(answer.adds_header("X-Filter", "two"), "{answer:?}");
    // The old one has heard nothing yet, and obeys as soon as it can.
    process::signal(stuck, Signal::SIGCONT);
    wait_until(SOON, "the old child has gone", || {
        (!process::runs(stuck)).then_some(())
    });
    let json = milter.json();
    assert_eq!(json["deaths"].as_array().unwrap().len(), 0, "{json:#}");
}

/// Runs a copy of the program with these arguments.
fn by(program: &std::path::Path, milter: &Milter, arguments: &[&str]) -> support::command::Outcome {
    let mut command = Command::new(program);
    command
        .arg("-c")
        .arg(milter.path("pmx.conf"))
        .args(arguments)
        .env("PMX_TEST_DIR", milter.path(""))
        .env_remove("NOTIFY_SOCKET");
    support::command::run(command, 2 * SOON)
}

#[test]
fn a_new_program_file_takes_over_also_when_it_has_the_old_ones_name() {
    let milter = Milter::new(&policy("one"));
    let program = milter.path("pmx-milter");
    let install = || {
        let fresh = milter.path("pmx-milter.new");
        // Not by this process: another thread's child would hold the file open for writing, and it could not be executed.
        let mut copy = Command::new("cp");
        copy.arg(support::milter::PROGRAM).arg(&fresh);
        support::command::run(copy, SOON).expect(0);
        fs::rename(&fresh, &program).unwrap();
        fs::metadata(&program).unwrap().ino()
    };
    // Only root may look: a master keeps others of its user out. They have what restart says.
    let runs = |pid: i32, inode: u64| {
        let exe = format!("/proc/{pid}/exe");
        !support::is_root() || fs::metadata(exe).unwrap().ino() == inode
    };
    let first = install();
    by(&program, &milter, &["start"]).expect(0);
    let master = milter.master();
    assert!(runs(master, first));
    let mut open = milter.session();
    let second = install();
    by(&program, &milter, &["restart"])
        .expect(0)
        .prints("program: another file of version");
    assert_eq!(milter.master(), master);
    assert!(runs(master, second));
    assert!(open.message(&message()).unwrap().is_taken());
    open.quit().unwrap();
    filtered_by(&milter, "one");
    by(&program, &milter, &["restart"])
        .expect(0)
        .prints("nothing changed");
    by(&program, &milter, &["stop"]).expect(0);
    assert!(milter.processes().is_empty());
}

#[test]
fn children_that_do_not_come_up_leave_the_old_ones_serving_and_are_told() {
    let milter = Milter::started(&policy("one"), "max_pooled_procs = 1");
    // What the old ones finish does not make the new ones look well.
    let crowd = Crowd::of(4, &milter.address(), either);
    // Long enough that a new child can be killed before it is ready.
    milter.write_policy(&slow("two"));
    let mut restart = milter.pmx_in_background(&["restart"]);
    let old = milter.children();
    wait_until(2 * SOON, "the restart is given up", || {
        for pid in milter.children() {
            if !old.contains(&pid) {
                process::signal(pid, Signal::SIGKILL);
            }
        }
        restart.has_ended().then_some(())
    });
    restart
        .wait(SOON)
        .expect(1)
        .says("no child of the new generation comes up");
    milter.status().expect(0).prints("policy: running");
    filtered_by(&milter, "one");
    assert!(crowd.disperse().1 > 0);
    // As soon as one comes up, it takes over.
    wait_until(2 * SOON, "the new generation serves", || {
        let answer = milter.session().message(&message()).unwrap();
        answer.adds_header("X-Filter", "two").then_some(())
    });
}

#[test]
fn a_pool_that_outgrows_its_board_gets_a_new_one_that_carries_the_totals_on() {
    let milter = Milter::started(&policy("one"), "max_pooled_procs = 2");
    let read = || scoreboard::read(&milter.run_dir().join("policy.scoreboard")).unwrap();
    for _ in 0..3 {
        filtered_by(&milter, "one");
    }
    let mut open = milter.session();
    open.begin(&message()).unwrap();
    let before = milter.wait_json("one is in progress", |json| {
        json["messages_in_progress"] == 1 && json["pool"]["requests"] == 1
    });
    let old = read().header.instance;
    // Twice as many slots as these do not fit into the 1,024 of the board.
    milter.configure("max_pooled_procs = 600");
    milter
        .pmx(&["restart"])
        .expect(0)
        .says("a new scoreboard was made");
    let board = read();
    assert_ne!(board.header.instance, old);
    assert_eq!(board.header.previous_instance, old);
    assert!(board.header.nslots >= 1200);
    let same = [
        "messages_started",
        "messages_in_progress",
        "verdicts",
        "aborted",
    ];
    let now = milter.json();
    for member in same {
        assert_eq!(now[member], before[member], "{now:#}");
    }
    assert_eq!(now["pool"]["connections"], before["pool"]["connections"]);
    assert_eq!(now["pool"]["slots_max"], 1200);
    filtered_by(&milter, "one");
    // Once more, while a child still writes to the board of before; and what it then finishes is seen.
    milter.configure("max_pooled_procs = 3");
    milter.pmx(&["restart"]).expect(0);
    assert_eq!(read().header.instance, board.header.instance);
    assert!(open.complete(&message()).unwrap().is_taken());
    milter.wait_json("it is counted while its child lives", |json| {
        json["verdicts"]["accept"] == 5 && json["pool"]["requests"] == 1
    });
    open.quit().unwrap();
    let json = milter.wait_json("its child has gone", |json| {
        json["pool"]["requests"] == 0 && json["pool"]["retiring"] == 0
    });
    assert_eq!(json["pool"]["messages"], 5, "{json:#}");
    assert_eq!(json["pool"]["connections"], 5, "{json:#}");
    let board = read();
    assert!(board.books().is_balanced(), "{:?}", board.books());
    milter.stop();
    assert_eq!(milter.left_behind(), ["policy.scoreboard.last"]);
}

#[test]
fn a_new_board_has_everything_on_it_before_it_has_its_name() {
    let milter = Milter::started(&policy("one"), "max_pooled_procs = 2");
    for _ in 0..3 {
        filtered_by(&milter, "one");
    }
    let path = milter.run_dir().join("policy.scoreboard");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    // All the time: what is to be seen lasts for an instant.
    let reader = std::thread::spawn(move || {
        let (mut instances, mut before) = (Vec::new(), Vec::new());
        while !stopped.load(Ordering::SeqCst) {
            let board = scoreboard::read(&path).map_err(|error| error.to_string())?;
            if board.state() == scoreboard::MilterState::Stopped {
                return Err("the old board is closed, and no new one is there".to_owned());
            }
            let now = totals(&board);
            if now.iter().zip(&before).any(|(now, before)| now < before) {
                return Err(format!("a count went back: {before:?}, then {now:?}"));
            }
            before = now;
            if instances.last() != Some(&board.header.instance) {
                instances.push(board.header.instance);
            }
        }
        Ok(instances.len())
    });
    // Each time more than the board has slots for.
    for most in [600, 1300, 2700] {
        milter.configure(&format!("max_pooled_procs = {most}"));
        milter
            .pmx(&["restart"])
            .expect(0)
            .says("a new scoreboard was made");
        milter.wait_json("every old child has gone", |json| {
            json["pool"]["retiring"] == 0
        });
    }
    stop.store(true, Ordering::SeqCst);
    assert_eq!(reader.join().unwrap(), Ok(4));
    milter.stop();
    assert_eq!(milter.left_behind(), ["policy.scoreboard.last"]);
}

mod needs_postfix {
    use super::*;
    use crate::support::postfix::Postfix;
    use crate::support::smtp::smtp_source;

    #[test]
    fn postfix_defers_nothing_while_its_milter_is_restarted() {
        let milter = Milter::started(&policy("one"), "max_pooled_procs = 4");
        let postfix = Postfix::start(&format!("inet:127.0.0.1:{}", milter.port), None);
        let port = postfix.port;
        let source = std::thread::spawn(move || smtp_source(port, 20, 1500, 500));
        let mut restarts = 0;
        while !source.is_finished() {
            milter.write_policy(&policy(if restarts % 2 == 0 { "two" } else { "one" }));
            milter.pmx(&["restart"]).expect(0);
            restarts += 1;
        }
        source.join().unwrap().expect(0);
        assert!(restarts >= 3, "{restarts} restarts");
        let json = milter.wait_json("all is finished", |json| json["pool"]["requests"] == 0);
        assert_eq!(json["verdicts"]["accept"], 1500, "{json:#}");
        let log = postfix.log();
        for word in ["451 4.", "milter-reject", "warning: milter", "deferred"] {
            assert!(!log.contains(word), "{word} in Postfix's log");
        }
    }
}
