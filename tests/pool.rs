//! The pool: it grows, fills, shrinks and renews itself, and no connection is lost on the way.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::milter::{ADDS_A_HEADER, Milter, count, pid, pids, sum};
use support::mta::{FULL, Message, Mta};
use support::{SOON, process, wait_until};

fn message() -> Message {
    Message::from("a@b.example")
}

#[track_caller]
fn serves(session: &mut Mta) {
    let answer = session.message(&message()).unwrap();
    assert!(
        answer.is_taken() && answer.adds_header("X-Filter", "ok"),
        "{answer:?}"
    );
}

/// Opens sessions until the pool has so many children: it grows when a connection comes and every child has one.
#[track_caller]
fn fill(milter: &Milter, children: usize) -> Vec<Mta> {
    let mut sessions = Vec::new();
    while milter.children().len() < children {
        assert!(
            sessions.len() < 4 * children,
            "the pool does not grow: {:#}",
            milter.json()
        );
        sessions.push(milter.session());
    }
    sessions
}

fn requests(json: &Value) -> u64 {
    count(&json["pool"]["requests"])
}

#[test]
fn the_pool_grows_while_every_child_is_busy_and_no_further_than_its_maximum() {
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 3\nmin_pooled_procs = 1");
    assert_eq!(milter.children().len(), 1);
    let mut sessions = fill(&milter, 3);
    while sessions.len() < 12 {
        sessions.push(milter.session());
    }
    let json = milter.json();
    assert_eq!(pids(&json).len(), 3, "{json:#}");
    assert_eq!(requests(&json), 12, "{json:#}");
    assert_eq!(sum(&json, "requests"), 12, "{json:#}");
    assert_eq!(json["procs"].as_u64(), Some(3), "{json:#}");
    milter
        .status()
        .expect(0)
        .prints("slots=3/6 (0 retiring) req=12");
    for session in &mut sessions {
        serves(session);
    }
}

#[test]
fn beyond_a_full_pool_connections_wait_in_the_backlog_and_go_on_at_once_when_there_is_room() {
    let milter = Milter::started(
        ADDS_A_HEADER,
        "max_pooled_procs = 1\ninterpreters = 1\ninterpreter_connections = 2",
    );
    let first = milter.session();
    let mut second = milter.session();
    // The kernel takes the connection; nobody answers.
    let mut third = Mta::open(&milter.address(), SOON).unwrap();
    let waiter = std::thread::spawn(move || {
        third.negotiate(FULL).unwrap();
        third.hello().unwrap();
        third
    });
    serves(&mut second);
    let json = milter.json();
    assert_eq!(requests(&json), 2, "{json:#}");
    assert_eq!(json["queue"], 0, "{json:#}");
    assert!(!waiter.is_finished(), "nobody serves a third connection");
    first.quit().unwrap();
    let mut third = waiter.join().unwrap();
    serves(&mut third);
    assert_eq!(count(&milter.json()["pool"]["connections"]), 3);
}

#[test]
fn idle_children_above_the_minimum_go_away() {
    let milter = Milter::started(
        ADDS_A_HEADER,
        "max_pooled_procs = 3\nmin_pooled_procs = 1\npooled_proc_idle_limit = \"1s\"",
    );
    let sessions = fill(&milter, 3);
    let opened = sessions.len() as u64;
    for session in sessions {
        session.quit().unwrap();
    }
    let json = milter.wait_json("one child is left", |json| pids(json).len() == 1);
    assert_eq!(count(&json["pool"]["slots_high_water"]), 3, "{json:#}");
    assert_eq!(count(&json["pool"]["connections"]), opened, "{json:#}");
    assert_eq!(json["deaths"].as_array().map(Vec::len), Some(0), "{json:#}");
    serves(&mut milter.session());
}

#[test]
fn a_child_at_its_connection_limit_retires_and_finishes_what_it_has() {
    let milter = Milter::started(
        ADDS_A_HEADER,
        "max_pooled_procs = 1\npooled_proc_connect_limit = 4",
    );
    let mut held = milter.session();
    held.begin(&message()).unwrap();
    let first_child = milter.children()[0];
    let mut others = 0;
    let json = loop {
        let mut session = milter.session();
        serves(&mut session);
        session.quit().unwrap();
        others += 1;
        assert!(others < 50, "the child does not retire");
        let json = milter.json();
        if count(&json["pool"]["retiring"]) == 1 {
            break json;
        }
    };
    assert_eq!(json["slots"][0]["retiring"], true, "{json:#}");
    assert_eq!(pid(&json["slots"][0]["pid"]), first_child, "{json:#}");
    let text = milter.status().expect(0).out;
    assert!(text.contains("(1 retiring)"), "{text}");
    let line = text.lines().find(|line| line.contains("slot#0:")).unwrap();
    assert!(line.trim_end().ends_with("req=1*"), "{text}");
    // Others go to its successor meanwhile.
    serves(&mut milter.session());
    let answer = held.complete(&message()).unwrap();
    assert!(answer.is_taken(), "{answer:?}");
    held.quit().unwrap();
    wait_until(SOON, "the retired child has ended", || {
        (!process::runs(first_child)).then_some(())
    });
    let json = milter.wait_json("every session is over", |json| requests(json) == 0);
    assert_eq!(count(&json["pool"]["connections"]), others + 2, "{json:#}");
    assert_eq!(count(&json["lost"]["connections"]), 0, "{json:#}");
    assert_eq!(json["deaths"].as_array().map(Vec::len), Some(0), "{json:#}");
}

#[test]
fn recycling_by_messages_loses_nothing_and_acc_counts_the_processes() {
    const SESSIONS: u64 = 60;
    let milter = Milter::started(
        ADDS_A_HEADER,
        "max_pooled_procs = 2\npooled_proc_message_limit = 5",
    );
    for _ in 0..SESSIONS {
        let mut session = milter.session();
        serves(&mut session);
        session.quit().unwrap();
    }
    let json = milter.wait_json("every session is over", |json| requests(json) == 0);
    assert_eq!(count(&json["pool"]["connections"]), SESSIONS, "{json:#}");
    assert_eq!(count(&json["pool"]["messages"]), SESSIONS, "{json:#}");
    let slots = json["slots"].as_array().unwrap();
    let processes: u64 = slots
        .iter()
        .map(|slot| count(&slot["acc"]["processes"]))
        .sum();
    assert!(processes >= 5, "{json:#}");
    let taken_on: u64 = slots.iter().map(|slot| count(&slot["acc"]["slot"])).sum();
    assert_eq!(taken_on, SESSIONS, "{json:#}");
    for slot in slots {
        assert!(
            count(&slot["acc"]["process"]) <= count(&slot["acc"]["slot"]),
            "{json:#}"
        );
    }
}

#[test]
fn an_interpreter_is_replaced_after_its_messages() {
    let milter = Milter::started(
        ADDS_A_HEADER,
        "max_pooled_procs = 1\ninterpreters = 1\nreinit_limit = 3",
    );
    let child = milter.children();
    for _ in 0..12 {
        let mut session = milter.session();
        serves(&mut session);
        session.quit().unwrap();
    }
    let json = milter.wait_json("a later interpreter", |json| {
        count(&json["interpreters"]["sequence"]) >= 3
    });
    assert_eq!(pids(&json), child, "the process stays: {json:#}");
    assert_eq!(count(&json["interpreters"]["max"]), 1, "{json:#}");
}

#[test]
fn connections_that_a_stopped_child_has_not_read_are_handed_to_another() {
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 2\nmin_pooled_procs = 2");
    let stopped = milter.children()[0];
    process::signal(stopped, Signal::SIGSTOP);
    let mut sessions: Vec<Mta> = (0..8).map(|_| milter.session()).collect();
    for session in &mut sessions {
        serves(session);
    }
    process::signal(stopped, Signal::SIGKILL);
    for session in &mut sessions {
        serves(session);
    }
    for session in sessions {
        session.quit().unwrap();
    }
    let json = milter.wait_json("every session is over and the child is replaced", |json| {
        requests(json) == 0 && pids(json).len() == 2 && !pids(json).contains(&stopped)
    });
    assert_eq!(count(&json["pool"]["connections"]), 8, "{json:#}");
    assert_eq!(count(&json["pool"]["messages"]), 16, "{json:#}");
    assert_eq!(count(&json["lost"]["connections"]), 0, "{json:#}");
    serves(&mut milter.session());
}

#[test]
fn a_crash_loop_is_visible_and_ends_when_the_cause_is_gone() {
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 1");
    for _ in 0..5 {
        let children = milter.wait_json("a child", |json| !pids(json).is_empty());
        for child in pids(&children) {
            process::signal(child, Signal::SIGKILL);
            wait_until(SOON, "the child is dead", || {
                (!process::runs(child)).then_some(())
            });
        }
    }
    let json = milter.wait_json("five deaths", |json| {
        json["deaths"]
            .as_array()
            .is_some_and(|deaths| deaths.len() == 5)
    });
    assert_eq!(json["state"], "running", "{json:#}");
    serves(&mut milter.session());
}

#[test]
fn without_a_pool_one_process_serves_all_and_queue_tells_who_waits() {
    let milter = Milter::started(
        ADDS_A_HEADER,
        "max_pooled_procs = 0\ninterpreters = 1\ninterpreter_connections = 1",
    );
    let first = milter.session();
    let mut second = Mta::open(&milter.address(), SOON).unwrap();
    let waiter = std::thread::spawn(move || {
        second.negotiate(FULL).unwrap();
        second.hello().unwrap();
        second
    });
    let json = milter.wait_json("the second connection waits", |json| json["queue"] == 1);
    assert_eq!(requests(&json), 2, "{json:#}");
    assert_eq!(pids(&json).len(), 1, "{json:#}");
    assert_eq!(count(&json["flags"]) & 1, 1, "{json:#}");
    milter
        .status()
        .expect(0)
        .prints("queue=1")
        .prints("flags=0x1")
        .prints("slots=1/");
    first.quit().unwrap();
    let mut second = waiter.join().unwrap();
    serves(&mut second);
    milter.wait_json("nobody waits", |json| json["queue"] == 0);
}

#[test]
fn interpreters_of_one_process_serve_side_by_side() {
    let milter = Milter::started(
        ADDS_A_HEADER,
        "max_pooled_procs = 0\ninterpreters = 3\ninterpreter_connections = 1",
    );
    let mut sessions: Vec<Mta> = (0..3).map(|_| milter.session()).collect();
    for session in &mut sessions {
        serves(session);
    }
    let json = milter.json();
    assert_eq!(json["interpreters"]["initialized"], 3, "{json:#}");
    assert_eq!(json["interpreters"]["max"], 3, "{json:#}");
    assert_eq!(json["queue"], 0, "{json:#}");
}

#[test]
fn beyond_concurrency_limit_the_chosen_answer_is_given_without_the_policy() {
    let policy = r#"
        local policy = {}
        function policy.connect(ctx, host, family, address, port) end
        function policy.eom(ctx) ctx:add_header("X-Filter", "ok") end
        return policy"#;
    for (action, reply) in [("tempfail", b't'), ("accept", b'a'), ("reject", b'r')] {
        let milter = Milter::started(
            policy,
            &format!("concurrency_limit = 2\nconcurrency_limit_action = \"{action}\""),
        );
        let mut held = [milter.session(), milter.session()];
        let mut third = milter.open();
        third.negotiate(FULL).unwrap();
        let answer = third.connect().unwrap().map(|answer| answer.0);
        assert_eq!(answer, Some(reply), "{action}");
        drop(third);
        for session in &mut held {
            serves(session);
        }
        let json = milter.json();
        assert_eq!(count(&json["pool"]["messages"]), 2, "{json:#}");
        drop(held);
        milter.wait_json("room again", |json| requests(json) == 0);
        serves(&mut milter.session());
    }
}

#[test]
fn beyond_concurrency_limit_connections_wait_by_default() {
    let milter = Milter::started(ADDS_A_HEADER, "concurrency_limit = 1");
    let first = milter.session();
    let mut second = Mta::open(&milter.address(), SOON).unwrap();
    let waiter = std::thread::spawn(move || {
        second.negotiate(FULL).unwrap();
        second.hello().unwrap();
        second
    });
    let json = milter.json();
    assert_eq!(requests(&json), 1, "{json:#}");
    assert!(!waiter.is_finished());
    first.quit().unwrap();
    serves(&mut waiter.join().unwrap());
}

#[test]
fn a_thousand_idle_sessions_are_held_and_served_afterwards() {
    const SESSIONS: usize = 1000;
    // The test's own end needs descriptors too.
    let (_, hard) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let milter = Milter::started(
        ADDS_A_HEADER,
        "max_pooled_procs = 2\ninterpreter_connections = 1000",
    );
    let mut sessions: Vec<Mta> = (0..SESSIONS).map(|_| milter.session()).collect();
    let json = milter.json();
    assert_eq!(requests(&json), SESSIONS as u64, "{json:#}");
    for session in &mut sessions {
        serves(session);
    }
    let json = milter.json();
    assert_eq!(
        count(&json["pool"]["messages"]),
        SESSIONS as u64,
        "{json:#}"
    );
    drop(sessions);
    milter.wait_json("every session is over", |json| requests(json) == 0);
}

#[test]
fn killing_random_children_under_load_conserves_every_count() {
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 3\nmin_pooled_procs = 3");
    let address = milter.address();
    let stop = std::sync::atomic::AtomicBool::new(false);
    // Opened, cut before or in a message, quits sent, final replies seen.
    let [opened, cut, quits, finished, cut_at_the_end] = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut sums = [0_u64; 5];
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let Ok(mut session) = Mta::open(&address, SOON) else {
                            continue;
                        };
                        sums[0] += 1;
                        let ready = session.negotiate(FULL).and_then(|()| session.hello());
                        if ready.is_err() || !matches!(session.begin(&message()), Ok(None)) {
                            sums[1] += 1;
                            continue;
                        }
                        match session.complete(&message()) {
                            Ok(answer) if answer.is_taken() => sums[3] += 1,
                            _ => {
                                sums[1] += 1;
                                sums[4] += 1;
                                continue;
                            }
                        }
                        let _ = session.quit();
                        sums[2] += 1;
                    }
                    sums
                })
            })
            .collect();
        for round in 0..10 {
            let json = milter.wait_json("children", |json| !pids(json).is_empty());
            let children = pids(&json);
            process::signal(children[round % children.len()], Signal::SIGKILL);
            std::thread::sleep(Duration::from_millis(50)); // load between the deaths, no synchronisation
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let mut total = [0; 5];
        for client in clients {
            for (sum, one) in total.iter_mut().zip(client.join().unwrap()) {
                *sum += one;
            }
        }
        total
    });
    let json = milter.wait_json("every session is over", |json| requests(json) == 0);
    assert_eq!(count(&json["pool"]["connections"]), opened, "{json:#}");
    let lost = count(&json["lost"]["connections"]);
    assert!(
        lost >= cut && lost <= cut + quits,
        "lost {lost}, cut {cut}, quits {quits}: {json:#}"
    );
    let processed = count(&json["pool"]["messages"]);
    assert!(
        processed >= finished && processed <= finished + cut_at_the_end,
        "processed {processed}, finished {finished}, cut at the end {cut_at_the_end}: {json:#}"
    );
    assert_eq!(
        count(&json["messages_started"]),
        processed + count(&json["aborted"]) + count(&json["lost"]["messages"]),
        "{json:#}"
    );
}
