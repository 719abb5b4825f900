//! Demonstration 6: how long each phase takes, as the board tells it, is what the MTA waits, within one bucket.

use std::time::{Duration, Instant};

use scoreboard::histogram::{message_bounds_ns, message_bucket, phase_bounds_ns, phase_bucket};
use serde_json::Value;

use crate::support::SOON;
use crate::support::milter::{Milter, count};
use crate::support::mta::{FULL, Mta};

/// Sleeps so many milliseconds as the number in what it is asked about.
const SLEEPS: &str = r#"
local policy = {}
local function sleep(text)
  local milliseconds = text:match("%d+")
  if milliseconds then milter.sleep(tonumber(milliseconds) / 1000) end
end
function policy.connect(ctx) milter.sleep(0.02) end
function policy.mail(ctx, sender) sleep(sender) end
function policy.rcpt(ctx, recipient) sleep(recipient) end
function policy.data(ctx) milter.sleep(0.01) end
function policy.eom(ctx) sleep(ctx.sender) end
return policy
"#;

/// What the client waited for, by phase.
#[derive(Default)]
struct Waited {
    connect: Vec<Duration>,
    mail: Vec<Duration>,
    rcpt: Vec<Duration>,
    data: Vec<Duration>,
    eom: Vec<Duration>,
    message: Vec<Duration>,
}

fn time(into: &mut Vec<Duration>, step: impl FnOnce() -> std::io::Result<Option<(u8, Vec<u8>)>>) {
    let begun = Instant::now();
    let reply = step().unwrap();
    into.push(begun.elapsed());
    assert!(matches!(reply, Some((b'c', _))), "{reply:?}");
}

/// A connection with two messages that take as long as they are told.
fn session(milter: &Milter, waited: &mut Waited, milliseconds: [u32; 2]) {
    let mut mta = Mta::open(&milter.address(), SOON).unwrap();
    mta.negotiate(FULL).unwrap();
    time(&mut waited.connect, || mta.connect());
    mta.helo().unwrap();
    for milliseconds in milliseconds {
        let begun = Instant::now();
        let sender = format!("<m{milliseconds}@b.example>\0");
        time(&mut waited.mail, || {
            mta.command(b'M', b"", &[sender.as_bytes()])
        });
        let recipient = format!("<r{}@example.org>\0", milliseconds * 3);
        time(&mut waited.rcpt, || {
            mta.command(b'R', b"", &[recipient.as_bytes()])
        });
        time(&mut waited.data, || mta.command(b'T', b"i\0QID1\0", &[]));
        time(&mut waited.eom, || mta.command(b'E', b"i\0QID1\0", &[]));
        waited.message.push(begun.elapsed());
        mta.put(b'A', &[]);
    }
    mta.quit().unwrap();
}

/// The buckets of what was measured here, and of what the board says; `which` of them is wanted.
#[track_caller]
fn within_one(
    name: &str,
    waited: &[Duration],
    told: &Value,
    which: &[(&str, f64)],
    bucket: fn(u64) -> usize,
    bounds: Vec<u64>,
) {
    assert_eq!(count(&told["count"]), waited.len() as u64, "{name}: {told}");
    let mut waited = waited.to_vec();
    waited.sort();
    for (field, quantile) in which {
        let rank = (waited.len() as f64 * quantile).ceil() as usize;
        let measured = waited[rank - 1];
        let ours = bucket(u64::try_from(measured.as_nanos()).unwrap());
        let bound = told[field]
            .as_f64()
            .unwrap_or_else(|| panic!("{name} {field}: {told}"));
        let is_it = |ns: &u64| (*ns as f64 / 1e9 - bound).abs() < 1e-9;
        let theirs = bounds.iter().position(is_it).unwrap();
        println!(
            "{name} {field}: measured {measured:?}, bucket {ours}; told {bound} s, bucket {theirs}"
        );
        assert!(
            ours.abs_diff(theirs) <= 1,
            "{name} {field}: {measured:?}, and the board says {bound} s"
        );
    }
}

#[test]
fn the_quantiles_of_each_phase_and_of_messages_are_those_that_the_client_measures_within_one_bucket()
 {
    let milter = Milter::started(SLEEPS, "max_pooled_procs = 2\n");
    let mut waited = Waited::default();
    for milliseconds in [
        [1, 30],
        [2, 3],
        [8, 30],
        [9, 10],
        [1, 12],
        [2, 20],
        [3, 30],
        [30, 5],
    ] {
        session(&milter, &mut waited, milliseconds);
    }
    let json = milter.wait_json("every session is over", |json| {
        json["pool"]["requests"] == 0
    });
    for (name, waited) in [
        ("connect", &waited.connect),
        ("mail", &waited.mail),
        ("rcpt", &waited.rcpt),
        ("data", &waited.data),
        ("eom", &waited.eom),
    ] {
        let told = &json["phase_seconds"][name];
        let bounds = phase_bounds_ns().collect();
        within_one(
            name,
            waited,
            told,
            &[("p50", 0.5), ("p99", 0.99)],
            phase_bucket,
            bounds,
        );
        // What they took together, as far as the client can know it: no more than it waited, no less than the policy slept.
        let most: Duration = waited.iter().sum();
        let sum = told["sum"].as_f64().unwrap();
        assert!(
            sum <= most.as_secs_f64() + 0.001,
            "{name}: {sum} s of {most:?}"
        );
        assert!(sum > 0.0, "{name}");
    }
    let bounds = message_bounds_ns().collect();
    let which = [("p50", 0.5), ("p90", 0.9)];
    within_one(
        "message",
        &waited.message,
        &json["message_seconds"],
        &which,
        message_bucket,
        bounds,
    );
    milter.stop();
}
