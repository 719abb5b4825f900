//! The families of each slot, with `--per-slot`: as many series as the pool has slots.
#![forbid(unsafe_code)]

use scoreboard::Slot;

use super::family::{Family, Known, Point, Value};
use crate::control::status::view;

pub(super) const FAMILIES: &[Family] = &[
    Family::counter(
        "pmx_slot_connections",
        "Connections taken on by all processes of the slot.",
        |it| each_slot(it, |slot| Some(slot.acc().slot)),
    ),
    Family::gauge(
        "pmx_slot_connections_in_progress",
        "Connections in progress in the slot.",
        |it| each_slot(it, |slot| Some(slot.requests())),
    ),
    Family::counter(
        "pmx_slot_connections_lost",
        "Connections of the slot cut by deaths.",
        |it| each_slot(it, |slot| Some(slot.lost_connections())),
    ),
    Family::counter(
        "pmx_slot_messages",
        "Messages processed by all processes of the slot.",
        |it| each_slot(it, |slot| Some(slot.messages())),
    ),
    Family::counter(
        "pmx_slot_messages_lost",
        "Messages of the slot cut by deaths.",
        |it| each_slot(it, |slot| Some(slot.lost_messages())),
    ),
    Family::counter(
        "pmx_slot_processes",
        "Processes that the slot has had.",
        |it| each_slot(it, |slot| Some(slot.master.processes)),
    ),
    Family::counter(
        "pmx_slot_crashes",
        "Processes of the slot that did not end as they should.",
        |it| each_slot(it, |slot| Some(slot.master.crashes)),
    ),
    Family::gauge(
        "pmx_slot_pid",
        "Process id of the child in the slot; absent when it is empty.",
        |it| each_slot(it, view::pid),
    ),
    Family::gauge(
        "pmx_slot_virtual_memory_bytes",
        "Virtual size of the child in the slot, sampled.",
        |it| each_slot(it, |slot| sampled(slot, slot.master.vsz_bytes)),
    ),
    Family::gauge(
        "pmx_slot_resident_memory_bytes",
        "Resident size of the child in the slot, sampled.",
        |it| each_slot(it, |slot| sampled(slot, slot.master.rss_bytes)),
    ),
];

fn each_slot(it: &Known<'_>, of: impl Fn(&Slot) -> Option<u64>) -> Vec<Point> {
    let slots = it.board.slots.iter();
    slots
        .filter_map(|slot| {
            Some(Point {
                labels: vec![("slot", slot.index.to_string())],
                value: Value::Count(of(slot)?),
            })
        })
        .collect()
}

/// 0 until the master has looked.
fn sampled(slot: &Slot, bytes: u64) -> Option<u64> {
    view::pid(slot).filter(|_| bytes > 0).map(|_| bytes)
}
