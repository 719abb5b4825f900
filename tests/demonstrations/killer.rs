//! Demonstration 3: the message that killed its child is named, and stays named for a while.
//!
//! No policy can crash a child from Lua, so that the crash is made here: the child gets SIGSEGV while this message is in its hands, as it
//! would from a fault in native code.

use nix::sys::signal::Signal;
use scoreboard::{Death, Phase, shown};

use crate::load::PATIENT;
use crate::support::ledger::POLICY;
use crate::support::milter::{Milter, pid};
use crate::support::mta::Message;
use crate::support::process::{self, runs};
use crate::support::{SOON, wait_until};

/// Deaths that the board keeps.
const KEPT: u64 = 31;

fn deaths(milter: &Milter) -> Vec<Death> {
    let board = milter.run_dir().join("policy.scoreboard");
    scoreboard::read(&board).unwrap().deaths
}

/// One connection is served and over; then the child dies: the next one is forked at once.
fn another_death(milter: &Milter) {
    let mut session = milter.session();
    let answer = session.message(&Message::from("plain@b.example")).unwrap();
    assert!(answer.is_taken());
    session.quit().unwrap();
    let json = milter.wait_json("the session is over", |json| json["pool"]["requests"] == 0);
    let before = deaths(milter)[0].number;
    process::signal(pid(&json["slots"][0]["pid"]), Signal::SIGKILL);
    wait_until(SOON, "another death", || {
        (deaths(milter)[0].number == before + 1).then_some(())
    });
}

#[test]
fn the_message_that_killed_its_child_is_named_until_thirty_one_others_have_died() {
    let one = PATIENT.replace("procs = 3", "procs = 1");
    let milter = Milter::started(POLICY, &one);
    let mut session = milter.session();
    let mut message = Message::from("stay@b.example");
    message.queue_id = "4KILLER".to_owned();
    session.send_without_reading_the_end(&message).unwrap();
    let json = milter.wait_json("it is at its end", |json| {
        json["slots"][0]["phase"] == "eom"
    });
    let victim = pid(&json["slots"][0]["pid"]);
    wait_until(SOON, "the child is dead", || {
        // The first one finds Rust's handler, which lets the next one kill unless the fault was a real one.
        process::signal(victim, Signal::SIGSEGV);
        (!runs(victim)).then_some(())
    });
    assert!(session.read_the_end().is_err(), "its client was cut");
    let json = milter.wait_json("the death is told", |json| {
        json["deaths"][0]["pid"] == victim
    });
    let death = &json["deaths"][0];
    assert_eq!(death["signal"], 11, "{death}");
    assert_eq!(death["cause"], "signal", "{death}");
    assert_eq!(death["phase"], "eom", "{death}");
    assert_eq!(death["queue_id"], "4KILLER", "{death}");
    assert!(death["age_seconds"].is_number(), "{death}");
    let long = milter.pmx(&["status", "--long"]).expect(0).out;
    let line = format!("slot#0 pid={victim} signal 11 (SEGV) in eom id=4KILLER ");
    assert!(long.contains(&line), "{line:?} is missing in:\n{long}");
    milter.wait_for_log("1 messages are lost; it was at eom of 4KILLER");

    let is_named = |death: &Death| {
        shown(&death.queue_id) == "4KILLER" && Phase::from_word(death.phase) == Phase::Eom
    };
    for _ in 1..KEPT {
        another_death(&milter);
        assert!(deaths(&milter).iter().any(is_named));
    }
    another_death(&milter);
    let left = deaths(&milter);
    assert_eq!(left.len() as u64, KEPT);
    assert!(!left.iter().any(is_named));
}
