//! start, stop, restart and what is left behind, through the program and its socket only.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use nix::sys::signal::Signal;
use support::milter::{ADDS_A_HEADER, Milter, PROGRAM, count};
use support::mta::{Message, Mta};
use support::process::{self, runs};
use support::{SOON, wait_until};

const ADDS_ANOTHER: &str = r#"
local policy = {}
function policy.eom(ctx) ctx:add_header("X-Filter", "second") end
return policy
"#;

fn message() -> Message {
    Message::from("a@b.example")
}

/// Nothing runs, and nothing is in the run directory but a board to look at.
fn is_gone(milter: &Milter) {
    wait_until(SOON, "every process has ended", || {
        milter.processes().is_empty().then_some(())
    });
    assert!(Mta::open(&milter.address(), SOON).is_err());
    for name in milter.left_behind() {
        assert_eq!(name, "policy.scoreboard.last", "left behind");
    }
}

#[test]
fn start_returns_when_mail_is_taken_and_a_second_start_is_success() {
    let milter = Milter::new(ADDS_A_HEADER);
    milter.status().expect(3);
    milter.start();
    let answer = milter.session().message(&message()).unwrap();
    assert!(answer.is_taken() && answer.adds_header("X-Filter", "ok"));
    let master = milter.master();
    milter.start();
    assert_eq!(milter.master(), master, "the same milter goes on");
    milter.status().expect(0).prints("policy: running");
}

#[test]
fn start_prints_the_lines_for_the_mtas() {
    let milter = Milter::new(ADDS_A_HEADER);
    let outcome = milter.pmx(&["start"]).expect(0);
    let all = format!("{}{}", outcome.out, outcome.err);
    let port = milter.port;
    assert!(
        all.contains(&format!("smtpd_milters = inet:127.0.0.1:{port}")),
        "{all}"
    );
    assert!(
        all.contains("INPUT_MAIL_FILTER") && all.contains(&format!("inet:{port}@127.0.0.1")),
        "{all}"
    );
}

#[test]
fn an_unknown_name_is_an_error_that_lists_the_known_ones() {
    let milter = Milter::new(ADDS_A_HEADER);
    milter
        .pmx(&["start", "polcy"])
        .expect(6)
        .says("polcy")
        .says("policy");
    assert!(milter.processes().is_empty());
    milter.pmx(&["status", "polcy"]).expect(4);
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_left_behind() {
    let milter = Milter::new(ADDS_A_HEADER);
    let taken = TcpListener::bind(("127.0.0.1", milter.port)).unwrap();
    milter
        .pmx(&["start"])
        .expect(1)
        .says("policy")
        .says(&milter.port.to_string())
        .says("in use");
    assert!(milter.processes().is_empty());
    assert_eq!(milter.left_behind(), [""; 0]);
    milter.status().expect(3);
    drop(taken);
    milter.start();
}

#[test]
fn a_policy_that_does_not_compile_is_shown_with_its_line_and_nothing_is_left_behind() {
    let milter =
        Milter::new("local policy = {}\nfunction policy.eom(ctx)\n  if then\nend\nreturn policy\n");
    milter.pmx(&["start"]).expect(6).says("policy.lua:3");
    assert!(milter.processes().is_empty());
    assert_eq!(milter.left_behind(), [""; 0]);
    // The port was free again at once.
    TcpListener::bind(("127.0.0.1", milter.port)).unwrap();
    milter.pmx(&["check"]).expect(6);
}

#[test]
fn a_policy_whose_top_level_fails_or_never_ends_does_not_start() {
    let milter = Milter::with("error(\"no list\")\n", "callback_timeout = \"1s\"");
    milter
        .pmx(&["start"])
        .expect(6)
        .says("policy.lua:1")
        .says("no list");
    milter.write_policy("while true do end\n");
    milter.pmx(&["start"]).expect(6);
    assert!(milter.processes().is_empty());
}

#[test]
fn a_wrong_configuration_is_shown_with_place_and_nearest_name() {
    let milter = Milter::with(
        ADDS_A_HEADER,
        "max_pooled_proc = 3\nmin_pooled_procs = \"x\"",
    );
    let outcome = milter.pmx(&["start"]).expect(6);
    assert!(outcome.err.contains("pmx.conf:"), "{}", outcome.err);
    assert!(outcome.err.contains("max_pooled_procs"), "{}", outcome.err);
    assert!(
        outcome.err.contains("min_pooled_procs"),
        "every problem in one run: {}",
        outcome.err
    );
    assert!(milter.processes().is_empty());
}

#[test]
fn a_disabled_milter_starts_only_when_named() {
    let milter = Milter::with(ADDS_A_HEADER, "enabled = false");
    milter.pmx(&["start"]);
    assert!(milter.processes().is_empty());
    milter.pmx(&["start", "policy"]).expect(0);
    assert!(milter.session().message(&message()).unwrap().is_taken());
    // It runs, so restart without names means it too.
    milter.write_policy(ADDS_ANOTHER);
    milter.pmx(&["restart"]).expect(0);
    let answer = milter.session().message(&message()).unwrap();
    assert!(answer.adds_header("X-Filter", "second"), "{answer:?}");
}

#[test]
fn of_several_names_each_is_tried_and_the_worst_code_wins() {
    let milter = Milter::new(ADDS_A_HEADER);
    let second = support::ports::free_port();
    milter.configure_milters(&format!(
        "[milter.first]\nport = \"inet:{}@127.0.0.1\"\npolicy = \"policy.lua\"\n
         [milter.second]\nport = \"inet:{second}@127.0.0.1\"\npolicy = \"policy.lua\"\n",
        milter.port
    ));
    let taken = TcpListener::bind(("127.0.0.1", second)).unwrap();
    milter.pmx(&["start"]).expect(1).says("second");
    milter.pmx(&["status", "first"]).expect(0);
    milter.pmx(&["status"]).expect(3).prints("first: running");
    drop(taken);
    milter.pmx(&["start"]).expect(0);
    milter.pmx(&["status"]).expect(0);
    milter.pmx(&["stop", "first"]).expect(0);
    milter.pmx(&["status", "second"]).expect(0);
    milter.pmx(&["stop"]).expect(0);
    assert!(milter.processes().is_empty());
}

#[test]
fn every_spelling_of_a_stop_signal_stops_the_milter() {
    let milter = Milter::new(ADDS_A_HEADER);
    for signal in [
        "-HUP", "-1", "-term", "-SIGINT", "-2", "-KILL", "-9", "-kill", "-SIGKILL",
    ] {
        milter.start();
        let session = milter.session();
        drop(session);
        milter.pmx(&["stop", signal]).expect(0);
        assert!(milter.processes().is_empty(), "after stop {signal}");
        is_gone(&milter);
        milter.status().expect(3);
    }
    // Not running is success.
    milter.stop();
}

#[test]
fn an_unknown_signal_stops_nothing() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let master = milter.master();
    milter
        .pmx(&["stop", "-USR2"])
        .expect(2)
        .says("HUP")
        .says("INT")
        .says("KILL")
        .says("TERM");
    milter.pmx(&["stop", "-HUP", "-KILL"]).expect(2);
    assert_eq!(milter.master(), master);
    milter.status().expect(0).prints("policy: running");
}

#[test]
fn a_graceful_stop_takes_no_new_connection_and_waits_for_the_message_in_hand() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let mut session = milter.session();
    session.begin(&message()).unwrap();
    let mut stop = milter.pmx_in_background(&["stop"]);
    wait_until(SOON, "new connections are refused", || {
        Mta::open(&milter.address(), SOON).is_err().then_some(())
    });
    let json = milter.json();
    assert_eq!(json["state"], "retiring", "{json:#}");
    assert!(!stop.has_ended());
    let answer = session.complete(&message()).unwrap();
    assert!(answer.is_taken() && answer.adds_header("X-Filter", "ok"));
    // The milter may have closed between messages already.
    let _ = session.quit();
    stop.wait(2 * SOON).expect(0);
    is_gone(&milter);
    milter.status().expect(3);
}

#[test]
fn graceful_timeout_bounds_a_graceful_stop() {
    let milter = Milter::started(ADDS_A_HEADER, "graceful_timeout = \"1s\"");
    let mut session = milter.session();
    session.begin(&message()).unwrap();
    milter.stop();
    is_gone(&milter);
    assert!(session.complete(&message()).is_err(), "the session was cut");
}

#[test]
fn int_aborts_connections_and_cleans_up() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let mut session = milter.session();
    session.begin(&message()).unwrap();
    milter.pmx(&["stop", "-INT"]).expect(0);
    session.expect_close().unwrap();
    is_gone(&milter);
}

#[test]
fn the_run_directory_alone_is_enough_to_stop_and_to_ask() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    milter.configure("nonsense = 1");
    milter.pmx(&["status"]).prints("policy: running");
    milter.pmx(&["stop"]).expect(0).says("nonsense");
    is_gone(&milter);

    milter.configure("");
    milter.start();
    milter.configure_milters("");
    milter.pmx(&["stop", "policy"]).expect(0);
    is_gone(&milter);
}

#[test]
fn master_and_children_hold_dev_null_as_stdio_and_a_pipe_to_start_ends() {
    let milter = Milter::new(ADDS_A_HEADER);
    let (sender, receiver) = mpsc::channel();
    let conf = milter.path("pmx.conf");
    let dir = milter.path("");
    std::thread::spawn(move || {
        let output = Command::new(PROGRAM)
            .arg("-c")
            .arg(conf)
            .arg("start")
            .env("PMX_TEST_DIR", dir.to_str().unwrap().trim_end_matches('/'))
            .stdin(Stdio::piped())
            .output();
        let _ = sender.send(output);
    });
    // An init script reads the pipe to its end: a daemon that kept it open would hang the boot.
    let output = receiver.recv_timeout(2 * SOON).unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut pids = milter.children();
    assert!(!pids.is_empty());
    pids.push(milter.master());
    for pid in pids {
        for number in 0..3 {
            let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
            assert_eq!(link.to_str(), Some("/dev/null"), "fd {number} of {pid}");
        }
    }
}

#[test]
fn a_bad_restart_leaves_the_running_milter_alone() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let (master, children) = (milter.master(), milter.children());
    let mut session = milter.session();
    milter
        .write_policy("local policy = {}\n\nfunction policy.eom(ctx) retrun end\nreturn policy\n");
    milter.pmx(&["restart"]).expect(6).says("policy.lua:3");
    milter.configure("nonsense = 1");
    milter.pmx(&["restart"]).expect(6).says("nonsense");
    assert_eq!(milter.master(), master);
    assert_eq!(milter.children(), children);
    let answer = session.message(&message()).unwrap();
    assert!(answer.adds_header("X-Filter", "ok"), "{answer:?}");
    let answer = milter.session().message(&message()).unwrap();
    assert!(answer.adds_header("X-Filter", "ok"), "{answer:?}");
}

#[test]
fn restart_lets_open_sessions_finish_with_the_old_policy_and_serves_with_the_new_one() {
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 2");
    let mut old = milter.session();
    old.begin(&message()).unwrap();
    milter.write_policy(ADDS_ANOTHER);
    milter.pmx(&["restart"]).expect(0);
    let answer = milter.session().message(&message()).unwrap();
    assert!(answer.adds_header("X-Filter", "second"), "{answer:?}");
    let answer = old.complete(&message()).unwrap();
    assert!(answer.adds_header("X-Filter", "ok"), "{answer:?}");
    old.quit().unwrap();
}

#[test]
fn restart_starts_a_milter_that_does_not_run() {
    let milter = Milter::new(ADDS_A_HEADER);
    milter.pmx(&["restart"]).expect(0);
    assert!(milter.session().message(&message()).unwrap().is_taken());
}

#[test]
fn the_death_of_a_child_cuts_its_own_sessions_only_and_every_count_is_conserved() {
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 2\nmin_pooled_procs = 2");
    let mut sessions: Vec<Mta> = (0..12).map(|_| milter.session()).collect();
    for session in &mut sessions {
        session.begin(&message()).unwrap();
    }
    let before = milter.wait_json("every message is in progress", |json| {
        json["messages_in_progress"] == 12
    });
    let victim = &before["slots"][0];
    let expected_cuts = count(&victim["requests"]);
    assert!((1..12).contains(&expected_cuts), "{before:#}");
    process::signal(support::milter::pid(&victim["pid"]), Signal::SIGKILL);
    let (mut cut, mut taken) = (0, 0);
    for session in &mut sessions {
        match session.complete(&message()) {
            Ok(answer) => {
                assert!(answer.adds_header("X-Filter", "ok"), "{answer:?}");
                taken += 1;
            }
            Err(_) => cut += 1,
        }
    }
    assert_eq!((cut, taken), (expected_cuts, 12 - expected_cuts));
    // Another child takes its place.
    assert!(milter.session().message(&message()).unwrap().is_taken());
    drop(sessions);
    let json = milter.wait_json("all sessions are over and the child is replaced", |json| {
        json["pool"]["requests"] == 0 && support::milter::pids(json).len() == 2
    });
    assert_eq!(count(&json["pool"]["connections"]), 13, "{json:#}");
    assert_eq!(count(&json["lost"]["connections"]), cut, "{json:#}");
    assert_eq!(count(&json["lost"]["messages"]), cut, "{json:#}");
    assert_eq!(count(&json["messages_started"]), 13, "{json:#}");
    assert_eq!(count(&json["pool"]["messages"]), taken + 1, "{json:#}");
    assert_eq!(count(&json["aborted"]), 0, "{json:#}");
    assert_eq!(json["deaths"][0]["signal"], 9, "{json:#}");
    assert_eq!(json["deaths"][0]["pid"], victim["pid"], "{json:#}");
}

#[test]
fn children_finish_their_sessions_when_the_master_is_killed_and_start_works_again_at_once() {
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 2");
    let mut session = milter.session();
    session.begin(&message()).unwrap();
    let (master, children) = (milter.master(), milter.children());
    process::signal(master, Signal::SIGKILL);
    wait_until(SOON, "the master is dead", || (!runs(master)).then_some(()));
    milter.status().expect(1).prints("policy: dead");
    milter.start();
    assert_ne!(milter.master(), master);
    assert!(milter.session().message(&message()).unwrap().is_taken());
    let answer = session.complete(&message()).unwrap();
    assert!(answer.is_taken() && answer.adds_header("X-Filter", "ok"));
    let _ = session.quit();
    wait_until(SOON, "the orphans have ended", || {
        children.iter().all(|pid| !runs(*pid)).then_some(())
    });
    milter.status().expect(0);
}

#[test]
fn status_answers_while_every_process_is_stopped() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let pids = milter.processes();
    for pid in &pids {
        process::signal(*pid, Signal::SIGSTOP);
    }
    milter.status().expect(0).prints("policy: ");
    for pid in &pids {
        process::signal(*pid, Signal::SIGCONT);
    }
    assert!(milter.session().message(&message()).unwrap().is_taken());
}

#[test]
fn wrong_arguments_are_told_apart_from_failures() {
    let milter = Milter::new(ADDS_A_HEADER);
    milter.pmx(&["strat"]).expect(2);
    milter.pmx(&["status", "--format", "yaml"]).expect(2);
    milter.pmx(&["start", "no/name"]).expect(2);
    let help = milter.pmx(&["help"]).expect(0);
    for verb in ["start", "stop", "restart", "status", "help"] {
        assert!(help.out.contains(verb), "{}", help.out);
    }
}

#[test]
fn a_session_that_ends_in_the_middle_of_a_packet_harms_nobody() {
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 1");
    for bytes in [
        &b"GET / HTTP/1.0\r\n\r\n"[..],
        b"\0\0\0\0O",
        b"\xff\xff\xff\xffO",
        b"\0\0\0\x0dO\0\0",
    ] {
        let mut stranger = milter.open();
        stranger.put_raw(bytes);
        stranger.flush().unwrap();
        if bytes.len() != 7 {
            stranger.expect_close().unwrap();
        }
    }
    let answer = milter.session().message(&message()).unwrap();
    assert!(answer.is_taken());
    let json = milter.wait_json("the strangers are gone", |json| {
        json["pool"]["requests"] == 0
    });
    assert_eq!(json["pool"]["connections"], 5, "{json:#}");
    assert_eq!(json["deaths"].as_array().unwrap().len(), 0, "{json:#}");
}

mod needs_root {
    use super::*;

    fn kernel_says(pid: i32, field: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.unwrap().trim_start_matches(':').trim().to_owned()
    }

    #[test]
    fn children_are_unprivileged_and_confined_and_the_master_keeps_seven_capabilities() {
        let milter = Milter::started(ADDS_A_HEADER, "");
        let master = milter.master();
        assert_eq!(
            kernel_says(master, "Uid"),
            "0\t0\t0\t0",
            "this test needs root: run tests/run, or leave it out with -- --skip needs_root::"
        );
        assert_eq!(kernel_says(master, "CapEff"), "00000000000004eb");
        let children = milter.children();
        assert!(!children.is_empty());
        for child in children {
            // Debian's nobody, in no other group than its own, on every one of the four counts.
            assert_eq!(kernel_says(child, "Uid"), ["65534"; 4].join("\t"));
            assert_eq!(kernel_says(child, "Gid"), ["65534"; 4].join("\t"));
            assert_eq!(kernel_says(child, "Groups"), "65534");
            assert_eq!(kernel_says(child, "CapPrm"), "0000000000000000");
            assert_eq!(kernel_says(child, "NoNewPrivs"), "1");
            assert_eq!(kernel_says(child, "Seccomp"), "2");
        }
    }
}
