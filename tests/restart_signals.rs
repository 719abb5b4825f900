//! Restarts, starts and stops that meet each other, and signals that come twice: each ends in a state that status names.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::net::UnixDatagram;
use std::process::Command;

use nix::sys::signal::Signal;
use support::command::{Running, spawn};
use support::milter::{ADDS_A_HEADER, Milter, PROGRAM};
use support::mta::{Message, Mta};
use support::{SOON, process, wait_until};

/// The same policy, but it takes its time to be loaded, so that others can come in between.
fn slowly(policy: &str) -> String {
    format!("local stop = os.time() + 2\nwhile os.time() < stop do end\n{policy}")
}

const ADDS_ANOTHER: &str = r#"
local policy = {}
function policy.eom(ctx) ctx:add_header("X-Filter", "second") end
return policy
"#;

fn message() -> Message {
    Message::from("a@b.example")
}

/// A session with a message that is not finished.
fn busy(milter: &Milter) -> Mta {
    let mut session = milter.session();
    session.begin(&message()).unwrap();
    session
}

#[track_caller]
fn is_gone(milter: &Milter) {
    milter.status().expect(3).prints("policy: not running");
    wait_until(SOON, "every process has ended", || {
        milter.processes().is_empty().then_some(())
    });
    assert!(Mta::open(&milter.address(), SOON).is_err());
    assert_eq!(milter.left_behind(), ["policy.scoreboard.last"]);
}

#[track_caller]
fn serves(milter: &Milter, word: &str) {
    milter.status().expect(0).prints("policy: running");
    let answer = milter.session().message(&message()).unwrap();
    assert!(answer.adds_header("X-Filter", word), "{answer:?}");
}

/// A restart whose trial goes on.
#[track_caller]
fn restart_in_its_trial(milter: &Milter) -> Running {
    milter.write_policy(&slowly(ADDS_ANOTHER));
    let restart = milter.pmx_in_background(&["restart"]);
    milter.wait_for_log("a restart is asked for");
    restart
}

#[test]
fn a_stop_during_the_trial_of_a_restart_wins() {
    for (signal, verb) in [("-HUP", "retiring"), ("-INT", "aborting")] {
        let milter = Milter::started(ADDS_A_HEADER, "");
        let restart = restart_in_its_trial(&milter);
        milter.pmx(&["stop", signal]).expect(0);
        let outcome = restart.wait(SOON).expect(1);
        assert!(
            outcome.err.contains("being stopped") || outcome.err.contains("ended meanwhile"),
            "{verb}: {}",
            outcome.err
        );
        is_gone(&milter);
    }
}

#[test]
fn a_stop_while_generations_change_wins_and_ends_all_of_them() {
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 1");
    let mut first = busy(&milter);
    milter.pmx(&["restart"]).expect(0);
    let mut second = busy(&milter);
    milter.write_policy(ADDS_ANOTHER);
    let restart = milter.pmx_in_background(&["restart"]);
    milter.wait_json("the third generation waits for a slot", |json| {
        json["generation"] == 3
    });
    let stop = milter.pmx_in_background(&["stop"]);
    milter.wait_json("it is being stopped", |json| json["state"] == "retiring");
    restart.wait(SOON).expect(1).says("stopped before");
    for session in [&mut first, &mut second] {
        assert!(session.complete(&message()).unwrap().is_taken());
    }
    first.quit().unwrap();
    second.quit().unwrap();
    stop.wait(SOON).expect(0);
    is_gone(&milter);
}

#[test]
fn a_restart_during_a_stop_waits_for_its_end_cuts_nothing_and_starts_again() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let mut session = busy(&milter);
    let stop = milter.pmx_in_background(&["stop"]);
    milter.wait_json("it is being stopped", |json| json["state"] == "retiring");
    milter.write_policy(ADDS_ANOTHER);
    let mut restart = milter.pmx_in_background(&["restart"]);
    wait_until(SOON, "it says that it waits", || {
        restart.said().contains("it is being stopped").then_some(())
    });
    assert!(session.complete(&message()).unwrap().is_taken());
    session.quit().unwrap();
    restart.wait(SOON).expect(0);
    stop.wait(SOON).expect(0).prints("policy: stopped");
    serves(&milter, "second");
}

#[test]
fn of_starts_at_once_one_starts_and_all_succeed() {
    let milter = Milter::new(ADDS_A_HEADER);
    for _ in 0..5 {
        let starts: Vec<Running> = (0..4)
            .map(|_| milter.pmx_in_background(&["start"]))
            .collect();
        let said: Vec<String> = starts
            .into_iter()
            .map(|start| start.wait(SOON).expect(0).out)
            .collect();
        let count = |what: &str| said.iter().filter(|text| text.contains(what)).count();
        assert_eq!(
            (count("policy: started"), count("already running")),
            (1, 3),
            "{said:?}"
        );
        serves(&milter, "ok");
        milter.stop();
        is_gone(&milter);
    }
}

#[test]
fn restarts_at_once_are_done_one_after_another() {
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 2");
    let master = milter.master();
    for round in 0..5 {
        let restarts: Vec<Running> = (0..3)
            .map(|_| milter.pmx_in_background(&["restart"]))
            .collect();
        for restart in restarts {
            restart
                .wait(SOON)
                .expect(0)
                .prints(&format!("restarted, pid {master}"));
        }
        let json = milter.json();
        assert_eq!(json["generation"], 1 + 3 * (round + 1), "{json:#}");
        serves(&milter, "ok");
    }
    milter.stop();
    is_gone(&milter);
}

#[test]
fn a_start_during_a_restart_finds_it_running_and_so_does_one_beside_orphans() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let restart = restart_in_its_trial(&milter);
    milter.pmx(&["start"]).expect(0).prints("already running");
    restart.wait(SOON).expect(0);
    serves(&milter, "second");

    let mut session = busy(&milter);
    let before = milter.master();
    process::signal(before, Signal::SIGKILL);
    wait_until(SOON, "the master is dead", || {
        (!process::runs(before)).then_some(())
    });
    milter.write_policy(ADDS_A_HEADER);
    // Restart is start then; and again, with orphans of the master before.
    milter.pmx(&["restart"]).expect(0).prints("policy: started");
    let master = milter.master();
    milter
        .pmx(&["restart"])
        .expect(0)
        .prints(&format!("restarted, pid {master}"));
    serves(&milter, "ok");
    let answer = session.complete(&message()).unwrap();
    assert!(answer.adds_header("X-Filter", "second"), "{answer:?}");
}

#[test]
fn a_master_that_is_killed_during_a_trial_leaves_nothing_that_keeps_port_or_board() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let restart = restart_in_its_trial(&milter);
    let master = milter.master();
    process::signal(master, Signal::SIGKILL);
    restart.wait(SOON).expect(1).says("ended meanwhile");
    wait_until(SOON, "trial and children have ended", || {
        milter.processes().is_empty().then_some(())
    });
    milter.status().expect(1).prints("policy: dead");
    milter.write_policy(ADDS_A_HEADER);
    milter.start();
    serves(&milter, "ok");
    milter.stop();
    is_gone(&milter);
}

#[test]
fn a_second_stop_does_not_wait_and_both_say_how_many_connections_were_cut() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let mut sessions = [busy(&milter), busy(&milter)];
    let first = milter.pmx_in_background(&["stop"]);
    milter.wait_json("it is being stopped", |json| json["state"] == "retiring");
    milter
        .pmx(&["stop", "-TERM"])
        .expect(0)
        .prints("policy: stopped; 2 connections were cut");
    first
        .wait(SOON)
        .expect(0)
        .prints("policy: stopped; 2 connections were cut");
    for session in &mut sessions {
        session.expect_close().unwrap();
    }
    is_gone(&milter);
}

#[test]
fn what_does_not_finish_in_time_is_cut_and_counted() {
    let milter = Milter::started(ADDS_A_HEADER, "graceful_timeout = \"1s\"");
    let mut session = busy(&milter);
    milter
        .pmx(&["stop"])
        .expect(0)
        .prints("waiting: 1 connection")
        .prints("policy: stopped; 1 connection was cut");
    session.expect_close().unwrap();
    milter.wait_for_log("did not finish within 1 s (graceful_timeout)");
    is_gone(&milter);
}

#[test]
fn a_second_interrupt_kills_a_child_that_does_not_obey() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let master = milter.master();
    let child = milter.children()[0];
    process::signal(child, Signal::SIGSTOP);
    let stop = milter.pmx_in_background(&["stop", "-INT"]);
    milter.wait_json("it is being stopped", |json| json["state"] == "retiring");
    process::signal(master, Signal::SIGINT);
    stop.wait(SOON).expect(0);
    milter.wait_for_log("asked again to end at once");
    is_gone(&milter);
}

#[test]
fn a_kill_during_a_restart_leaves_no_process_and_the_next_start_cleans_up() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let mut session = busy(&milter);
    let restart = restart_in_its_trial(&milter);
    milter.pmx(&["stop", "-KILL"]).expect(0);
    restart.wait(SOON).expect(1);
    wait_until(SOON, "the trial has ended as well", || {
        milter.processes().is_empty().then_some(())
    });
    session.expect_close().unwrap();
    milter.write_policy(ADDS_A_HEADER);
    milter.start();
    serves(&milter, "ok");
}

/// What systemd was told since the last look.
fn heard(socket: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 1024];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec()))
        .map(|bytes| String::from_utf8(bytes).unwrap())
        .filter(|text| !text.starts_with("STATUS=") && text != "WATCHDOG=1")
        .collect()
}

#[test]
fn systemd_is_told_of_a_reload_and_keeps_its_main_process() {
    let milter = Milter::new(ADDS_A_HEADER);
    let path = milter.path("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_nonblocking(true).unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .arg("-c")
        .arg(milter.path("pmx.conf"))
        .args(["run", "policy"])
        .env("PMX_TEST_DIR", milter.path(""))
        .env("NOTIFY_SOCKET", &path);
    let mut main = spawn(command);
    wait_until(SOON, "ready", || {
        heard(&systemd)
            .contains(&"READY=1".to_owned())
            .then_some(())
    });
    assert_eq!(milter.master(), main.pid());
    milter.write_policy(ADDS_ANOTHER);
    milter.pmx(&["reload"]).expect(0);
    let told = heard(&systemd);
    let mut lines = told[0].lines();
    assert_eq!(lines.next(), Some("RELOADING=1"), "{told:?}");
    let monotonic = lines
        .next()
        .and_then(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(monotonic.unwrap().parse::<u64>().unwrap() > 0, "{told:?}");
    assert_eq!(told[1..], ["READY=1"], "{told:?}");
    assert_eq!(milter.master(), main.pid());
    assert!(!main.has_ended());
    serves(&milter, "second");
    // A refused one is over for systemd as well.
    milter.write_policy("nonsense");
    milter.pmx(&["reload"]).expect(6);
    assert_eq!(heard(&systemd), [""; 0], "nothing was begun");
    process::signal(main.pid(), Signal::SIGTERM);
    main.wait(SOON).expect(0);
    assert!(heard(&systemd)[0].starts_with("STOPPING=1"));
    is_gone(&milter);
}
