//! A slot and a death.
#![forbid(unsafe_code)]

use scoreboard::{Brief, Death, Phase, Slot, Snapshot, decode_end};
use serde_json::{Value, json};

use super::{append, interpreters, rounded, seconds};
use crate::control::status::view::{self, View, age, pid};
use crate::control::status::work::{deadline, doing, text};

pub(super) fn slot(view: &View, board: &Snapshot, slot: &Slot) -> Value {
    let acc = slot.acc();
    let doing = doing(board, slot);
    let pid = pid(slot);
    // Sampled by the master: 0 until it has looked.
    let sampled = |bytes: u64| pid.filter(|_| bytes > 0).map(|_| bytes);
    let mut fields = json!({
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
        "interpreters": interpreters(view::of_slot(&board.global, &Brief::of(slot))),
    });
    let more = json!({
        "doing": doing.text,
        "deadline_seconds": deadline(view, board, slot).map(|it| rounded(it.left)),
        "last_verdict": doing.last_verdict,
        "suspended": doing.suspended,
        "generation": pid.map(|_| slot.master.generation),
        "age_seconds": pid.and_then(|_| seconds(age(board, slot.master.forked_at_ns))),
        "consistent": slot.consistent,
    });
    append(&mut fields, more);
    fields
}

pub(super) fn death(board: &Snapshot, death: &Death) -> Value {
    let (exit, signal) = decode_end(death.end);
    let cause = match (exit, signal) {
        (Some(_), _) => "error",
        (None, Some(_)) => "signal",
        (None, None) => "unknown",
    };
    json!({
        "slot": death.slot,
        "pid": death.pid,
        "cause": cause,
        "signal": signal,
        "exit": exit,
        "phase": Phase::from_word(death.phase).name(),
        "queue_id": text(&death.queue_id),
        "age_seconds": seconds(age(board, death.at_ns)),
        "lost_connections": death.lost_connections,
        "process_seconds": seconds(view::lifetime(death)),
    })
}
