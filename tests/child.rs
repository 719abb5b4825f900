//! A child of the pool minds its own: what its process is short of, what signals are not for it, and the last callbacks of a session.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use nix::sys::signal::Signal;
use support::milter::{ADDS_A_HEADER, Milter, count};
use support::mta::{Message, Mta};
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

#[test]
fn connections_that_find_no_descriptor_are_cut_told_once_and_the_child_goes_on() {
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 1\ninterpreters = 1");
    let mut first = milter.session();
    process::leave_no_descriptor(milter.children()[0]);
    let mut held = Vec::new();
    let mut cut = 0;
    while cut < 3 {
        match Mta::ready(&milter.address(), SOON) {
            Ok(session) => held.push(session),
            Err(_) => cut += 1,
        }
        assert!(held.len() < 64, "descriptors never run out");
    }
    let open = held.len() as u64 + 1;
    let json = milter.wait_json("those cut are over", |json| {
        json["pool"]["requests"] == open
    });
    assert_eq!(count(&json["lost"]["connections"]), 0, "{json:#}");
    serves(&mut first);
    first.quit().unwrap();
    drop(held);
    milter.wait_json("all are over", |json| json["pool"]["requests"] == 0);
    serves(&mut milter.session());
    let log = milter.log();
    let told = log.matches("raise LimitNOFILE").count();
    assert_eq!(told, 1, "{log}");
    assert!(!log.contains("unread"), "{log}");
}

#[test]
fn a_term_to_every_process_at_once_cuts_no_connection() {
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 2\nmin_pooled_procs = 2");
    let mut session = milter.session();
    session.begin(&message()).unwrap();
    // As systemd stops a service, by default.
    for pid in milter.processes() {
        process::signal(pid, Signal::SIGTERM);
    }
    let json = milter.wait_json("it retires", |json| json["state"] == "retiring");
    assert_eq!(json["deaths"].as_array().map(Vec::len), Some(0), "{json:#}");
    let answer = session.complete(&message()).unwrap();
    assert!(answer.is_taken(), "{answer:?}");
    session.quit().unwrap();
    wait_until(SOON, "everything has ended", || {
        milter.processes().is_empty().then_some(())
    });
    let log = milter.log();
    assert!(!log.contains("signal 15"), "{log}");
}

#[test]
fn orphans_finish_after_a_term_and_end_at_once_when_stop_aborts() {
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 1");
    let mut session = milter.session();
    session.begin(&message()).unwrap();
    let (master, child) = (milter.master(), milter.children()[0]);
    process::signal(master, Signal::SIGKILL);
    wait_until(SOON, "the master is gone", || {
        (!process::runs(master)).then_some(())
    });
    process::signal(child, Signal::SIGTERM);
    let answer = session.complete(&message()).unwrap();
    assert!(answer.is_taken(), "{answer:?}");
    session.begin(&message()).unwrap();
    milter.pmx(&["stop", "-INT"]).expect(0);
    assert!(!process::runs(child));
    session.expect_close().unwrap();
}

#[test]
fn a_close_that_computes_is_not_cut_by_the_end_that_it_comes_after() {
    let milter = Milter::started(
        r#"
        local policy = {}
        function policy.connect(ctx) end
        function policy.abort(ctx)
          for i = 1, 20000000 do end
          log.info("abort is done")
        end
        function policy.close(ctx)
          for i = 1, 20000000 do end
          log.info("close is done")
        end
        function policy.mail(ctx) end
        return policy"#,
        "max_pooled_procs = 1\ninterpreters = 1",
    );
    let mut session = milter.session();
    session.begin(&message()).unwrap();
    drop(session);
    milter.wait_for_log("abort is done");
    milter.wait_for_log("close is done");
    milter.wait_json("it is over", |json| json["pool"]["requests"] == 0);
}

#[test]
fn an_mta_that_was_answered_late_has_its_whole_time_for_the_next_command() {
    let milter = Milter::started(
        r#"
        local policy = {}
        function policy.eom(ctx)
          if not ctx.session.slept then
            ctx.session.slept = true
            milter.sleep(4.5)
          end
          ctx:add_header("X-Filter", "ok")
        end
        return policy"#,
        "max_pooled_procs = 1\ntimeout = \"4s\"",
    );
    let mut session = milter.session();
    serves(&mut session);
    // Longer than a child looks away from its time limits, much shorter than `timeout`.
    std::thread::sleep(Duration::from_millis(1500));
    serves(&mut session);
}
