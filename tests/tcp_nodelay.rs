//! An edit and its final reply leave in one write on a socket without Nagle's delay: as two small writes they cost 43 ms a message
//! over TCP, with libmilter for example.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use support::milter::{ADDS_A_HEADER, Milter};
use support::mta::Message;

#[test]
fn a_message_that_gets_a_header_over_tcp_does_not_stall() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let mut session = milter.session();
    let mut times: Vec<Duration> = (0..50)
        .map(|_| {
            let start = Instant::now();
            let answer = session.message(&Message::from("a@b.example")).unwrap();
            assert!(answer.adds_header("X-Filter", "ok"), "{answer:?}");
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    // Not a measure of speed: a quarter of the stall.
    assert!(
        times[25] < Duration::from_millis(10),
        "median {:?}",
        times[25]
    );
}
