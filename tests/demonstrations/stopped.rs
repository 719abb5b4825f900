//! Demonstration 1: every process of a busy milter is stopped, and status tells all it ever tells, as fast as ever.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::load::{PATIENT, clients, held};
use crate::support::ledger::{Ledger, POLICY};
use crate::support::looks::EndOf;
use crate::support::milter::Milter;
use crate::support::process;

const LOOKS: usize = 100;
/// Times of `/bin/true` that half of the looks may take: far more than a look needs, far less than asking a process that does not answer.
const MOST: u32 = 50;

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn true_takes() -> Duration {
    let begun = Instant::now();
    let mut nothing = Command::new("/bin/true");
    nothing.stdin(Stdio::null()).stdout(Stdio::null());
    assert!(nothing.status().unwrap().success());
    begun.elapsed()
}

/// What a slot says of its work; none of it can change while its process is stopped.
fn jobs(milter: &Value) -> Vec<Value> {
    let slots = milter["slots"].as_array().unwrap();
    let job = |slot: &Value| {
        let names = ["pid", "requests", "messages", "phase", "queue_id", "doing"];
        Value::from(names.map(|name| slot[name].clone()).to_vec())
    };
    slots.iter().map(job).collect()
}

/// Looks again and again at a milter that is stopped.
fn look_at(milter: &Milter) {
    let (mut looks, mut nothings) = (Vec::new(), Vec::new());
    let (mut age, mut first) = (0.0, None);
    for _ in 0..LOOKS {
        nothings.push(true_takes());
        let begun = Instant::now();
        let outcome = milter.pmx(&["status", "--format", "json"]).expect(0);
        looks.push(begun.elapsed());
        let all: Value = serde_json::from_str(&outcome.out).unwrap();
        let json = &all["milters"][0];
        assert_eq!(json["state"], "stopped", "{json:#}");
        assert_eq!(json["books"]["balanced"], true, "{json:#}");
        let now = json["heartbeat_age_seconds"].as_f64().unwrap();
        assert!(now >= age, "the heartbeat got younger: {now} after {age}");
        age = now;
        let jobs = jobs(json);
        assert_eq!(*first.get_or_insert_with(|| jobs.clone()), jobs);
    }
    assert!(age > 0.0);
    let jobs = first.unwrap();
    assert!(
        jobs.iter().any(|job| job[4].is_string()),
        "no message is named: {jobs:?}"
    );
    let (look, nothing) = (middle(looks), middle(nothings));
    println!("status {look:?}, /bin/true {nothing:?}, heartbeat {age} s old at the end");
    assert!(
        look < nothing * MOST,
        "status {look:?}, /bin/true {nothing:?}"
    );
    let text = milter
        .status()
        .expect(0)
        .prints("policy: stopped (heartbeat ")
        .out;
    assert!(text.contains(" s old)"), "{text}");
}

#[test]
fn status_of_a_busy_milter_whose_every_process_is_stopped_tells_jobs_and_ages_a_hundred_times() {
    let milter = Milter::started(POLICY, PATIENT);
    let held = held(&milter, 3);
    let (ledger, over) = (Ledger::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let end = EndOf(&over);
        scope.spawn(|| clients(&milter, &ledger, 1, |_| over.load(Ordering::SeqCst)));
        crate::support::wait_until(crate::support::SOON, "mail flows", || {
            (ledger.now().finished > 50).then_some(())
        });
        let all = milter.processes();
        assert!(all.len() >= 4, "{all:?}");
        for pid in &all {
            process::signal(*pid, Signal::SIGSTOP);
        }
        // A stop takes its time to arrive.
        milter.wait_json("all are stopped", |json| {
            json["state"] == "stopped"
                && all
                    .iter()
                    .all(|pid| process::state(*pid).is_some_and(|it| it.0 == 'T'))
        });
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look_at(&milter)));
        // Clients wait for answers: they must come, whatever was seen.
        for pid in &all {
            process::signal(*pid, Signal::SIGCONT);
        }
        drop(end);
        caught.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    milter.wait_json("it goes on", |json| json["state"] == "running");
    drop(held);
    let json = milter.wait_json("every session is over", |json| {
        json["pool"]["requests"] == 0
    });
    assert_eq!(
        json["pool"]["connections"],
        ledger.now().opened + 3,
        "{json:#}"
    );
    assert_eq!(json["pool"]["messages"], ledger.now().finished, "{json:#}");
}
