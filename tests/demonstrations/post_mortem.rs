//! Demonstration 2: a milter that was killed at full load is told as what it is, dead, with what it was at; and after a reboot as stale.

use std::collections::HashSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::load::{PATIENT, clients, held};
use crate::support::crafted::{BOOT_ID, board_file, plant};
use crate::support::ledger::{Ledger, POLICY};
use crate::support::looks::EndOf;
use crate::support::milter::Milter;
use crate::support::process;
use crate::support::totals::Totals;
use crate::support::{SOON, wait_until};

/// The messages that the slots died with.
fn last_jobs(milter: &Value) -> Vec<String> {
    let slots = milter["slots"].as_array().unwrap();
    let jobs = slots.iter().filter_map(|slot| {
        assert!(
            slot["phase"].is_string() && slot["since_seconds"].is_number(),
            "{slot}"
        );
        slot["queue_id"].as_str().map(str::to_owned)
    });
    jobs.collect()
}

fn json(milter: &Milter) -> Value {
    let outcome = milter.pmx(&["status", "--format", "json"]).expect(1);
    let mut all: Value = serde_json::from_str(&outcome.out).unwrap();
    all["milters"][0].take()
}

#[test]
fn a_milter_killed_at_full_load_is_dead_since_when_and_with_the_last_job_of_each_slot_and_after_a_reboot_stale()
 {
    let milter = Milter::started(POLICY, PATIENT);
    let held = held(&milter, 3);
    let (ledger, over) = (Ledger::default(), AtomicBool::new(false));
    let master = milter.master();
    std::thread::scope(|scope| {
        let _end = EndOf(&over);
        scope.spawn(|| clients(&milter, &ledger, 2, |_| over.load(Ordering::SeqCst)));
        wait_until(SOON, "mail flows", || {
            (ledger.now().finished > 50).then_some(())
        });
        // The master first: nobody buries the children.
        process::signal(master, Signal::SIGKILL);
        wait_until(SOON, "everybody is dead", || {
            let left = milter.processes();
            for pid in &left {
                process::signal(*pid, Signal::SIGKILL);
            }
            left.is_empty().then_some(())
        });
    });
    let text = milter.status().expect(1).out;
    assert!(text.starts_with("policy: dead (heartbeat "), "{text}");
    let dead = json(&milter);
    assert_eq!(dead["state"], "dead");
    let age = dead["heartbeat_age_seconds"].as_f64().unwrap();
    wait_until(SOON, "it is dead for longer", || {
        (json(&milter)["heartbeat_age_seconds"].as_f64().unwrap() > age + 0.5).then_some(())
    });
    // What it had counted agrees with what its clients know.
    let clients = ledger.now();
    let mut known = Totals::in_json(&dead);
    assert!(known.in_progress >= 3, "{dead:#}");
    known.accepted -= 3;
    known.connections -= 3;
    known.started -= 3;
    known.in_progress -= 3;
    known.agree(&Totals::default(), &clients, &clients);
    let jobs = last_jobs(&dead);
    println!("dead with {jobs:?}");
    assert!(!jobs.is_empty(), "{dead:#}");
    let mut unanswered: HashSet<String> = ledger.unanswered.lock().unwrap().clone();
    unanswered.extend((0..3).map(|number| format!("HELD{number}")));
    assert!(
        jobs.iter().all(|id| unanswered.contains(id)),
        "answered: {jobs:?}"
    );
    // After a reboot the kernel has another boot id.
    let mut bytes = fs::read(board_file(&milter)).unwrap();
    bytes[BOOT_ID] ^= 1;
    plant(&milter, &bytes);
    let stale = json(&milter);
    assert_eq!(stale["state"], "stale");
    assert_eq!(last_jobs(&stale), jobs);
    drop(held);
}
