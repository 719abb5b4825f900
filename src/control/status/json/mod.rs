//! Status for programs: schema 1. Names are fixed and fields only added; what is unknown is null, and every milter has every field.
#![forbid(unsafe_code)]

mod history;
mod slot;
mod totals;

use std::time::Duration;

use scoreboard::{Counters, SessionVerdict, Snapshot, Verdict};
use serde_json::{Map, Value, json};

use super::view::{self, Interpreters, View, Views};

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
        "boot_id": boot_id(),
        "time": rounded(views.wall_seconds),
        "milters": milters,
    })
}

/// The kernel's name of this boot.
fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
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
    let mut fields = summary(view);
    append(&mut fields, totals::of(view.board.as_ref()));
    if let Some(history) = &view.history {
        let history = history::of(view.board.as_ref(), history);
        append(&mut fields, json!({ "history": history }));
    }
    fields
}

/// Adds the fields of an object behind those of another. In parts, for `json!` cannot take so many at once.
fn append(object: &mut Value, more: Value) {
    if let (Value::Object(fields), Value::Object(more)) = (object, more) {
        fields.extend(more);
    }
}

fn of_last(board: &Snapshot) -> Interpreters {
    view::interpreters(&board.global, &board.briefs())
}

fn summary(view: &View) -> Value {
    let board = view.board.as_ref();
    let number = |of: fn(&Snapshot) -> u64| board.map(of);
    let counters = board.map(Snapshot::counters);
    let deaths = board.map_or_else(Vec::new, |board| {
        board
            .deaths
            .iter()
            .map(|it| slot::death(board, it))
            .collect()
    });
    let slots = board.map_or_else(Vec::new, |board| {
        let slot = |it| slot::slot(view, board, it);
        board.slots.iter().map(slot).collect()
    });
    json!({
        "name": view.name.to_string(),
        "state": view.state.word(),
        "pid": view.pid,
        "port": view.port(),
        "vsz_bytes": view.kernel.vsz_bytes,
        "threads": view.kernel.threads,
        "procs": view.kernel.procs,
        "interpreters": interpreters(board.map_or(Interpreters::default(), of_last)),
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
    let names = Verdict::ALL.iter().map(|it| it.name());
    named(names, counters.map(|it| it.verdicts.as_slice()))
}

fn sessions(counters: Option<&Counters>) -> Value {
    let names = SessionVerdict::ALL.iter().map(|it| it.name());
    named(names, counters.map(|it| it.sessions.as_slice()))
}

/// An object of counts under their names; nulls when they are not known.
fn named(names: impl Iterator<Item = &'static str>, counts: Option<&[u64]>) -> Value {
    let pairs = names.enumerate().map(|(index, name)| {
        let count = counts.and_then(|counts| counts.get(index));
        (name.to_owned(), json!(count))
    });
    Value::Object(pairs.collect::<Map<String, Value>>())
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| rounded(duration.as_secs_f64()))
}

/// To the millisecond: more digits would pretend to a precision that polling does not have.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
