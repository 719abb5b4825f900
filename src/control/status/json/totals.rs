//! What the board knows of a milter beyond the seed's lines: capacity, durations, deaths, and whether its books balance.
#![forbid(unsafe_code)]

use std::time::Duration;

use scoreboard::histogram::{message_bounds_ns, phase_bounds_ns, quantile_ns};
use scoreboard::records::BUSY_BUCKETS;
use scoreboard::{Account, NotAccepting, Phase, Snapshot};
use serde_json::{Map, Value, json};

use super::{rounded, seconds};
use crate::control::status::view::{age, backlog, is_alive};
use crate::control::status::work::text;

/// The fields, null when there is no board.
pub(super) fn of(board: Option<&Snapshot>) -> Value {
    let number = |of: fn(&Snapshot) -> u64| board.map(of);
    let not_accepting = board
        .filter(|board| board.global.accepting == 0)
        .map(|board| NotAccepting::from_word(board.global.not_accepting))
        .filter(|why| *why != NotAccepting::Accepting)
        .map(NotAccepting::name);
    let trouble = board.map(|board| &board.global);
    json!({
        "generation": number(|board| board.global.generation),
        "accepting": board.map(|board| board.global.accepting != 0),
        "not_accepting": not_accepting,
        "accepted": number(|board| board.global.accepted),
        "rejected": number(|board| board.global.rejected),
        "waiting": number(|board| board.global.waiting),
        "backlog": board.and_then(backlog),
        "late_answers": number(Snapshot::late_answers),
        "capacity": capacity(board),
        "busy_seconds": busy(board),
        "message_seconds": messages(board),
        "phase_seconds": phases(board),
        "forks": number(|board| board.global.forks),
        "deaths_total": {
            "clean": number(|board| board.global.deaths_clean),
            "error": number(|board| board.global.deaths_error),
            "signal": number(|board| board.global.deaths_signal),
        },
        "crash_loop": number(|board| board.global.crash_loop),
        "trouble": {
            "text": trouble.and_then(|global| text(&global.trouble)),
            "age_seconds": board.and_then(|board| seconds(age(board, board.global.trouble_at_ns))),
        },
        "books": books(board),
        "cut": board.map(|board| board.cut.name()),
        "retries": board.map(|board| board.retries),
        "consistent": board.map(|board| board.global_consistent),
    })
}

fn capacity(board: Option<&Snapshot>) -> Value {
    json!({
        "seconds": board.map(|board| from_ns(board.capacity_ns())),
        "episodes": board.map(|board| board.global.capacity_episodes),
        "now": board.map(|board| board.global.capacity_since_ns != 0 && is_alive(board)),
    })
}

/// By number of busy slots: up to so many, and more than the one before.
fn busy(board: Option<&Snapshot>) -> Value {
    let name = |bucket: usize| match bucket {
        0 => "0".to_owned(),
        last if last == BUSY_BUCKETS - 1 => "more".to_owned(),
        bucket => (1_u64 << (bucket - 1)).to_string(),
    };
    let pairs = (0..BUSY_BUCKETS).map(|bucket| {
        let spent = board.and_then(|board| board.global.busy_ns.get(bucket).copied());
        (name(bucket), json!(spent.map(from_ns)))
    });
    Value::Object(pairs.collect::<Map<String, Value>>())
}

fn messages(board: Option<&Snapshot>) -> Value {
    let counters = board.map(Snapshot::counters);
    let buckets = counters.as_ref().map(|it| it.message_histogram.as_slice());
    let quantile =
        |which| buckets.and_then(|buckets| quantile_ns(buckets, message_bounds_ns(), which));
    json!({
        "count": buckets.map(total),
        "sum": counters.map(|it| from_ns(it.message_ns)),
        "p50": quantile(0.5).map(exact),
        "p90": quantile(0.9).map(exact),
        "p99": quantile(0.99).map(exact),
        "buckets": cumulative(buckets.unwrap_or(&[]), message_bounds_ns()),
    })
}

fn phases(board: Option<&Snapshot>) -> Value {
    let counters = board.map(Snapshot::counters);
    let histograms = board.and_then(Snapshot::histograms);
    let worked = Phase::ALL.iter().filter(|phase| **phase != Phase::Idle);
    let pairs = worked.map(|phase| {
        let sum = counters.and_then(|it| {
            let word = usize::try_from(phase.word()).ok()?;
            it.phase_ns.get(word).copied()
        });
        let buckets = histograms.as_ref().map(|it| it.of(*phase));
        let quantile =
            |which| buckets.and_then(|buckets| quantile_ns(buckets, phase_bounds_ns(), which));
        let fields = json!({
            "count": buckets.map(total),
            "sum": sum.map(from_ns),
            "p50": quantile(0.5).map(exact),
            "p99": quantile(0.99).map(exact),
            "buckets": cumulative(buckets.unwrap_or(&[]), phase_bounds_ns()),
        });
        (phase.name().to_owned(), fields)
    });
    Value::Object(pairs.collect::<Map<String, Value>>())
}

fn total(buckets: &[u64]) -> u64 {
    buckets
        .iter()
        .fold(0, |sum, count| sum.saturating_add(*count))
}

/// How many took at most so long, as Prometheus counts; the last bucket has no bound.
fn cumulative(buckets: &[u64], bounds: impl Iterator<Item = u64>) -> Vec<Value> {
    let bounds = bounds.map(Some).chain(std::iter::once(None));
    let mut sum = 0_u64;
    let bucket = |(count, bound): (&u64, Option<u64>)| {
        sum = sum.saturating_add(*count);
        json!({ "le": bound.map(exact), "count": sum })
    };
    buckets.iter().zip(bounds).map(bucket).collect()
}

fn books(board: Option<&Snapshot>) -> Value {
    let books = board.map(Snapshot::books);
    let account = |of: Option<Account>| {
        json!({
            "total": of.map(|it| it.total),
            "accounted": of.map(|it| it.accounted),
        })
    };
    json!({
        "balanced": books.as_ref().map(scoreboard::Books::is_balanced),
        "connections": account(books.as_ref().map(|it| it.connections)),
        "messages": account(books.as_ref().map(|it| it.messages)),
        "accepted": account(books.as_ref().map(|it| it.accepted)),
        "unbalanced_slots": books.map_or_else(Vec::new, |it| it.unbalanced),
    })
}

fn from_ns(ns: u64) -> f64 {
    rounded(Duration::from_nanos(ns).as_secs_f64())
}

/// A bound of a bucket, to the last digit: programs compare them.
fn exact(ns: u64) -> f64 {
    ns as f64 / 1e9
}
