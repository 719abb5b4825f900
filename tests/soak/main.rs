//! Hours in minutes: two milters under load, whose children are killed and stopped; one is also restarted and reconfigured all the time, the
//! other keeps its master and the child of its first slot from beginning to end, so that what grows is seen to grow.
//!
//! A round is a storm and a rest. In the storm clients (`side`) send mail, `faults` and `changes` do their worst, readers look at the
//! boards and find every identity kept at each look. At rest the clients' ledger and the board agree as closely as clients can know,
//! then, without faults, to the unit; and what `census` found of memory and descriptors is judged. `table` tells it all, a row a round
//! and milter.
//!
//! It fails when an identity is broken, a total goes back, a client meets an error that no kill explains, or, after the first rounds,
//! the master or the spared child has grown beyond a bound.
//!
//! PMX_SOAK_SECONDS makes it longer than some seconds (`tests/run --soak MINUTES`), PMX_SOAK_SEED repeats its choices.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod census;
mod changes;
mod faults;
mod readers;
mod rest;
mod side;
mod table;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use census::Growth;
use side::{Kind, Side};

/// Rounds before what grows counts as growing: everything has happened once, caches are filled.
const WARM_UP: u64 = 2;

/// A number from the environment.
fn wish(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn milters_that_are_killed_restarted_and_reconfigured_under_load_miscount_nothing_and_do_not_grow()
{
    let seconds = wish("PMX_SOAK_SECONDS", 12);
    let now = std::time::SystemTime::now();
    let clock = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let seed = wish("PMX_SOAK_SEED", clock);
    println!("PMX_SOAK_SEED={seed} PMX_SOAK_SECONDS={seconds}");
    let rounds = (seconds / 60).max(WARM_UP + 2);
    let length = Duration::from_secs(seconds) / u32::try_from(rounds).unwrap();
    let mut sides = [Side::started(Kind::Kept), Side::started(Kind::Changed)];
    let mut growth = [Growth::default(), Growth::default()];
    let start = Instant::now();
    println!("{}", table::head());
    for round in 1..=rounds {
        let end = start + length * u32::try_from(round).unwrap();
        let storms = storm(&mut sides, seed.wrapping_add(round << 8), end);
        for ((side, storm), growth) in sides.iter_mut().zip(storms).zip(&mut growth) {
            let found = rest::after(side, storm);
            println!("{}", table::row(round, side.kind, &found));
            found.judge();
            if round >= WARM_UP {
                growth.judge(&found);
            }
        }
    }
    for side in sides {
        side.ended();
    }
}

/// Everything at once until the end of the round.
fn storm(sides: &mut [Side; 2], seed: u64, end: Instant) -> [side::Storm; 2] {
    let over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let storms = sides.each_mut().map(|side| {
            let seed = seed.wrapping_mul(31).wrapping_add(side.kind as u64);
            scope.spawn(move || side.storm(seed, over))
        });
        // The time of the round passes; who fails ends it before.
        while Instant::now() < end && !over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Ordering::SeqCst);
        storms.map(|storm| storm.join().unwrap())
    })
}
