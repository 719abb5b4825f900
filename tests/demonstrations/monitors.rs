//! Demonstration 9: monitors, as many as like to, one of them stopped, take nothing from the service and are not counted as load.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use scoreboard::Reader;

use crate::load::{CLIENTS, clients};
use crate::support::ledger::{Ledger, POLICY};
use crate::support::looks::EndOf;
use crate::support::milter::{Milter, count};
use crate::support::process;
use crate::support::totals::Totals;
use crate::support::{SOON, wait_until};

const READERS: usize = 50;
const SESSIONS: u64 = 40;

#[test]
fn fifty_monitors_at_once_and_one_that_is_stopped_cost_no_session_and_are_no_load() {
    let milter = Milter::started(POLICY, "max_pooled_procs = 3\n");
    let board = milter.run_dir().join("policy.scoreboard");
    let (ledger, over, looks) = (Ledger::default(), AtomicBool::new(false), AtomicU64::new(0));
    // One that stands still in the middle of its work for as long as the others look.
    let mut stopped = milter.pmx_in_background(&["status", "--watch", "0.1"]);
    wait_until(SOON, "it has looked", || {
        stopped.said().contains("policy: running").then_some(())
    });
    process::signal(stopped.pid(), Signal::SIGSTOP);
    std::thread::scope(|scope| {
        let _end = EndOf(&over);
        for _ in 0..READERS {
            scope.spawn(|| {
                let reader = Reader::open(&board).unwrap();
                while !over.load(Ordering::SeqCst) {
                    let snapshot = reader.snapshot().unwrap();
                    assert!(snapshot.books().is_balanced(), "{:?}", snapshot.books());
                    looks.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
        }
        clients(&milter, &ledger, 3, |sessions| sessions == SESSIONS);
    });
    assert!(!stopped.has_ended());
    process::signal(stopped.pid(), Signal::SIGKILL);
    let json = milter.wait_json("every session is over", |json| {
        json["pool"]["requests"] == 0
    });
    let (totals, clients) = (Totals::in_json(&json), ledger.now());
    println!("{} looks; {totals:?}", looks.load(Ordering::SeqCst));
    assert!(looks.load(Ordering::SeqCst) as usize >= READERS);
    assert_eq!(clients.opened, CLIENTS * SESSIONS);
    // Nobody but the clients came, and all of them were served.
    assert_eq!(totals.connections, clients.opened);
    assert_eq!(count(&json["accepted"]), clients.opened);
    assert_eq!(totals.processed, clients.finished);
    assert_eq!((totals.lost_connections, totals.lost_messages), (0, 0));
    assert_eq!(json["deaths"].as_array().unwrap().len(), 0);
    milter.stop();
}
