//! What the board remembers, the newest last. Counts of a second are totals, as everywhere in JSON: rates are differences.
#![forbid(unsafe_code)]

use scoreboard::{Event, EventKind, History, Second, Snapshot, Verdict};
use serde_json::{Value, json};

use super::{named, rounded, seconds};
use crate::control::status::history;
use crate::control::status::view::{age, queued_in_kernel, wall_ns};

pub(super) fn of(board: Option<&Snapshot>, history: &History) -> Value {
    // Without a board nothing was read either.
    let Some(board) = board else {
        return json!({ "seconds": [], "events": [] });
    };
    let seconds = history.seconds.iter().rev().map(|it| second(board, it));
    let events = history.events.iter().rev().map(|it| event(board, it));
    json!({
        "seconds": seconds.collect::<Vec<Value>>(),
        "events": events.collect::<Vec<Value>>(),
    })
}

fn second(board: &Snapshot, second: &Second) -> Value {
    let verdicts = Verdict::ALL.iter().map(|it| it.name());
    json!({
        "time": time(board, second.at_ns),
        "age_seconds": seconds(age(board, second.at_ns)),
        "busy": second.busy,
        "slots_in_use": second.slots_in_use,
        "requests": second.requests,
        "waiting": second.waiting,
        "backlog": queued_in_kernel(second.backlog),
        "accepted": second.accepted,
        "verdicts": named(verdicts, Some(&second.verdicts)),
        "aborted": second.aborted,
        "lost_connections": second.lost_connections,
    })
}

fn event(board: &Snapshot, event: &Event) -> Value {
    json!({
        "time": time(board, event.at_ns),
        "age_seconds": seconds(age(board, event.at_ns)),
        "kind": EventKind::from_word(event.kind).name(),
        "slot": history::slot(event),
        "pid": history::pid(event),
        "value": event.value,
        "text": history::value(event),
    })
}

/// Seconds since 1970 at a stamp.
fn time(board: &Snapshot, stamp_ns: u64) -> f64 {
    rounded(wall_ns(board, stamp_ns) as f64 / 1e9)
}
