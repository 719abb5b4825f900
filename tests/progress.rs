//! What takes longer than a second says what it waits for and how long at most; what does not is silent.
#![allow(clippy::unwrap_used)]

mod support;

use nix::sys::signal::Signal;
use support::SOON;
use support::milter::{ADDS_A_HEADER, Milter};
use support::process::signal;
use support::wait_until;

/// A policy whose top level computes for longer than a second.
const SLOW: &str = "
local begin = os.clock()
while os.clock() - begin < 1.2 do end
local policy = {}
function policy.eom(ctx) end
return policy
";

#[test]
fn a_policy_that_takes_its_time_is_told_by_start_check_try_and_restart() {
    let milter = Milter::new(SLOW);
    let tried = [
        "policy: waiting: the policy runs its top level for ",
        "s now, at most 18s\n",
    ];
    let checked = milter.pmx(&["check", "--dump"]).expect(0);
    tells(&checked.err, &tried);
    // What a program reads is only the configuration.
    assert!(!checked.out.contains("waiting"), "{}", checked.out);
    let policy = milter.path("policy.lua").display().to_string();
    milter.write(
        "message.eml",
        "From: a@b.example\nTo: c@d.example\n\ntext\n",
    );
    let message = milter.path("message.eml").display().to_string();
    let played = milter.pmx(&["try", &policy, &message]).expect(0);
    tells(
        &played.err,
        &["waiting: the policy runs its top level for "],
    );
    let started = milter.pmx(&["start"]).expect(0);
    let starting = [
        "policy: waiting: it is starting for ",
        "s now, at most 30s; Ctrl-C ends it\n",
    ];
    tells(&started.out, &starting);
    let restarted = milter.pmx(&["restart"]).expect(0);
    tells(&restarted.err, &tried);
    tells(
        &restarted.out,
        &[
            "policy: waiting: its master tries program, configuration and policy for ",
            "s now, at most 2m45s; it goes on serving\n",
        ],
    );
}

/// These texts stand in a line, one after the other; how many seconds it took stands between them.
#[track_caller]
fn tells(said: &str, texts: &[&str]) {
    let mut rest = said;
    for text in texts {
        let (_, after) = rest
            .split_once(text)
            .unwrap_or_else(|| panic!("{text:?} in\n{said}"));
        rest = after;
    }
}

#[test]
fn a_stop_that_waits_for_a_process_says_for_whom() {
    for how in [&["stop"][..], &["stop", "-INT"]] {
        let milter = Milter::started(ADDS_A_HEADER, "graceful_timeout = \"20s\"");
        let (master, child) = (milter.master(), milter.children()[0]);
        signal(child, Signal::SIGSTOP);
        let mut stop = milter.pmx_in_background(how);
        let line = format!("policy: waiting: master {master} and 1 child are ending for ");
        wait_until(SOON, "it says what it waits for", || {
            stop.said().contains(&line).then_some(())
        });
        signal(child, Signal::SIGCONT);
        stop.wait(2 * SOON).expect(0).prints("policy: stopped");
    }
}

#[test]
fn a_restart_whose_master_is_suspended_names_it_and_goes_on_when_it_is_woken() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let master = milter.master();
    signal(master, Signal::SIGSTOP);
    let mut restart = milter.pmx_in_background(&["restart"]);
    let line = format!(
        "policy: waiting: its master (pid {master}) is suspended and cannot act; kill -CONT {master} wakes it"
    );
    wait_until(SOON, "it names the suspended master", || {
        restart.said().contains(&line).then_some(())
    });
    signal(master, Signal::SIGCONT);
    let done = restart.wait(2 * SOON).expect(0);
    assert_eq!(done.out.matches("is suspended").count(), 1, "{}", done.out);
    assert!(done.out.starts_with(&line), "{}", done.out);
}

#[test]
fn of_two_restarts_at_once_one_says_that_the_master_has_not_taken_it_yet() {
    // Long enough for one that comes a little later to wait for a second.
    let milter = Milter::started(&SLOW.replace("1.2", "2"), "");
    let both = [(); 2].map(|()| milter.pmx_in_background(&["restart"]));
    let said = both.map(|restart| restart.wait(2 * SOON).expect(0).out);
    let waits = said.iter().filter(|out| {
        out.contains("policy: waiting: its master has not taken the request yet, for ")
            && out.contains("; another restart may be before it\n")
    });
    assert_ne!(waits.count(), 0, "{said:?}");
}

#[test]
fn what_is_quick_says_nothing_of_waiting() {
    let milter = Milter::new(ADDS_A_HEADER);
    for verb in ["check", "start", "restart", "stop"] {
        let begin = std::time::Instant::now();
        let outcome = milter.pmx(&[verb]).expect(0);
        // On a machine that is too busy for this it may.
        if begin.elapsed().as_secs() == 0 {
            let said = outcome.out + &outcome.err;
            assert!(!said.contains("waiting:"), "{verb}: {said}");
        }
    }
}
