//! Status for programs: schema 1. Names are fixed and fields only added; what is unknown is null, and every milter has every field.
#![forbid(unsafe_code)]

use std::time::Duration;

use scoreboard::{Counters, Death, Phase, SessionVerdict, Slot, Snapshot, Verdict, decode_end};
use serde_json::{Map, Value, json};

use super::view::{self, Interpreters, View, Views, doing, pid};

/// The version of the names.
const SCHEMA: u64 = 1;

/// One document, for people to read as well.
pub(super) fn document(views: &Views) -> String {
    format!("{:#}", top(views))
}

/// The same on one line.
pub(super) fn line(views: &Views) -> String {
    top(views).to_string()
}

fn top(views: &Views) -> Value {
    let milters: Vec<Value> = views.milters.iter().map(milter).collect();
    json!({
        "schema": SCHEMA,
        "version": env!("CARGO_PKG_VERSION"),
        "instance": instances(views),
        "boot_id": views.boot_id,
        "time": rounded(views.wall_seconds),
        "milters": milters,
    })
}

/// Changes when any board is a new one; of one milter its board's id.
fn instances(views: &Views) -> Option<String> {
    let all: Vec<String> = views.milters.iter().filter_map(instance).collect();
    (!all.is_empty()).then(|| all.join("+"))
}

fn instance(view: &View) -> Option<String> {
    Some(view.board.as_ref()?.header.instance_text())
}

fn milter(view: &View) -> Value {
    let board = view.board.as_ref();
    let number = |of: fn(&Snapshot) -> u64| board.map(of);
    let counters = board.map(Snapshot::counters);
    let deaths = board.map_or_else(Vec::new, |board| {
        board.deaths.iter().map(|it| death(board, it)).collect()
    });
    let slots = board.map_or_else(Vec::new, |board| {
        board.slots.iter().map(|it| slot(board, it)).collect()
    });
    json!({
        "name": view.name.to_string(),
        "state": view.state.word(),
        "pid": view.pid,
        "port": view.port(),
        "vsz_bytes": view.kernel.vsz_bytes,
        "threads": view.kernel.threads,
        "procs": view.kernel.procs,
        "interpreters": interpreters(view.interpreters()),
        "queue": number(Snapshot::queue),
        "flags": number(|board| board.global.flags),
        "heartbeat_age_seconds": seconds(view.heartbeat_age()),
        "pool": {
            "slots_high_water": number(|board| board.global.slots_high_water),
            "slots_max": number(|board| board.global.slots_max),
            "retiring": number(Snapshot::retiring),
            "requests": number(Snapshot::requests),
            "messages": number(Snapshot::messages),
            "connections": number(Snapshot::connections),
        },
        "verdicts": verdicts(counters.as_ref()),
        "sessions": sessions(counters.as_ref()),
        "recipients_refused": counters.map(|it| it.recipients_refused),
        "messages_started": counters.map(|it| it.messages_started),
        "messages_in_progress": number(Snapshot::in_progress),
        "aborted": counters.map(|it| it.messages_aborted),
        "lost": {
            "connections": number(Snapshot::lost_connections),
            "messages": number(Snapshot::lost_messages),
        },
        "deaths": deaths,
        "slots": slots,
        "instance": instance(view),
        "orphans": view.orphans,
    })
}

fn interpreters(of: Interpreters) -> Value {
    json!({ "initialized": of.initialized, "max": of.max, "sequence": of.sequence })
}

fn verdicts(counters: Option<&Counters>) -> Value {
    let of = |it: &Verdict| usize::try_from(it.word()).ok();
    let all = Verdict::ALL
        .iter()
        .map(|it| (it.name(), counters.and_then(|c| c.verdicts.get(of(it)?))));
    object(all)
}

fn sessions(counters: Option<&Counters>) -> Value {
    let of = |it: &SessionVerdict| usize::try_from(it.word()).ok();
    let all = SessionVerdict::ALL
        .iter()
        .map(|it| (it.name(), counters.and_then(|c| c.sessions.get(of(it)?))));
    object(all)
}

fn object<'a>(pairs: impl Iterator<Item = (&'static str, Option<&'a u64>)>) -> Value {
    let map: Map<String, Value> = pairs
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    Value::Object(map)
}

fn slot(board: &Snapshot, slot: &Slot) -> Value {
    let acc = slot.acc();
    let doing = doing(board, slot);
    let pid = pid(slot);
    // Sampled by the master: 0 until it has looked.
    let sampled = |bytes: u64| pid.filter(|_| bytes > 0).map(|_| bytes);
    json!({
        "slot": slot.index,
        "state": slot.state().name(),
        "pid": pid,
        "vsz_bytes": sampled(slot.master.vsz_bytes),
        "rss_bytes": sampled(slot.master.rss_bytes),
        "acc": { "process": acc.process, "slot": acc.slot, "processes": acc.processes },
        "requests": slot.requests(),
        "messages": slot.messages(),
        "retiring": slot.retiring(),
        "phase": doing.phase,
        "queue_id": doing.queue_id,
        "since_seconds": seconds(doing.since),
        "interpreters": interpreters(view::of_slot(board, slot)),
    })
}

fn death(board: &Snapshot, death: &Death) -> Value {
    let (exit, signal) = decode_end(death.end);
    let cause = match (exit, signal) {
        (Some(0), _) => "clean",
        (Some(_), _) => "error",
        (None, Some(_)) => "signal",
        (None, None) => "unknown",
    };
    let queue_id = scoreboard::shown(&death.queue_id);
    json!({
        "slot": death.slot,
        "pid": death.pid,
        "cause": cause,
        "signal": signal,
        "exit": exit,
        "phase": Phase::from_word(death.phase).name(),
        "queue_id": (!queue_id.is_empty()).then_some(queue_id),
        "age_seconds": seconds(board.age(death.at_ns)),
    })
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| rounded(duration.as_secs_f64()))
}

/// To the millisecond: more digits would pretend to a precision that polling does not have.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
