//! Demonstration 8: how long there was no room is accounted for, not sampled, and so is who waited meanwhile.
//!
//! The client cannot know the instants at which the master found itself full and free again; it knows instants before and after each. What
//! the board says lies between the sums of both, and these are so close together that the truth is known to about a percent.

use std::thread::sleep;
use std::time::{Duration, Instant};

use scoreboard::{Reader, Snapshot};

use crate::support::milter::{Milter, count};
use crate::support::mta::Message;
use crate::support::{SOON, wait_until};

const STEPS: u64 = 3;
const WAITING: u64 = 3;

#[test]
fn the_time_without_room_is_what_the_client_made_it_and_those_who_waited_are_counted() {
    let milter = Milter::started(
        crate::support::milter::ADDS_A_HEADER,
        "max_pooled_procs = 1\ninterpreters = 1\ninterpreter_connections = 1\n",
    );
    let reader = Reader::open(&milter.run_dir().join("policy.scoreboard")).unwrap();
    let until = |what: &str, holds: &dyn Fn(&Snapshot) -> bool| {
        wait_until(SOON, what, || {
            let snapshot = reader.snapshot().unwrap();
            holds(&snapshot).then_some(snapshot)
        })
    };
    let (mut least, mut most) = (Duration::ZERO, Duration::ZERO);
    for step in 1..=STEPS {
        let before = Instant::now();
        let mut session = milter.session();
        until("it is full", &|it| it.global.capacity_since_ns != 0);
        let full = Instant::now();
        let waiting: Vec<_> = (0..WAITING).map(|_| milter.open()).collect();
        // The queue is sampled each second, by the master.
        milter.wait_json("they are seen waiting", |json| {
            json["backlog"] == WAITING && json["capacity"]["now"] == true
        });
        sleep(Duration::from_millis(700)); // The length of the step, of which the end is measured.
        assert!(
            session
                .message(&Message::from("a@b.example"))
                .unwrap()
                .is_taken()
        );
        drop(waiting);
        let held = full.elapsed();
        session.quit().unwrap();
        // Those who waited are served, and gone.
        until("there is room again", &|it| {
            it.global.capacity_since_ns == 0
                && it.requests() == 0
                && it.connections() == step * (1 + WAITING)
        });
        least += held;
        most += before.elapsed();
    }
    let json = milter.json();
    let told = json["capacity"]["seconds"].as_f64().unwrap();
    let busy = json["busy_seconds"]["1"].as_f64().unwrap();
    let bounds = (least.as_secs_f64() - 0.001)..=(most.as_secs_f64() + 0.001);
    println!("no room for {told} s, busy for {busy} s; between {least:?} and {most:?}");
    assert!(bounds.contains(&told), "no room: {told} s; {bounds:?}");
    assert!(bounds.contains(&busy), "busy: {busy} s; {bounds:?}");
    assert!(
        (1..=STEPS).contains(&count(&json["capacity"]["episodes"])),
        "{json:#}"
    );
    let history = reader.history().unwrap();
    let seen = history
        .seconds
        .iter()
        .filter(|it| it.backlog == WAITING && it.busy == 1);
    assert!(
        seen.count() as u64 >= STEPS,
        "a second with the queue for each step"
    );
    milter.stop();
}
