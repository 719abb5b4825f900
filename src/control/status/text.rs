//! The status lines of the seed's manual: its fields, order and spacing, so that scripts written for it keep working.
#![forbid(unsafe_code)]

use std::fmt::Write;

use scoreboard::{Slot, Snapshot};

use super::view::{State, View, Views, pid};
use super::words::known;
use super::{history, long};

/// Bytes of the unit of `vsz`.
const MIB: f64 = 1_048_576.0;

/// How much of a milter is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// The lines of the seed's manual.
    Plain,
    /// What `--long` adds as well.
    Long,
}

/// Every milter, one after the other; with what it remembers, where that was read.
pub(super) fn render(views: &Views, detail: Detail) -> String {
    let mut out = String::new();
    for view in &views.milters {
        // Writing to a String cannot fail.
        let _ = milter(&mut out, view, detail);
        if let (Some(board), Some(history)) = (&view.board, &view.history) {
            let _ = history::render(&mut out, board, history);
        }
    }
    if views.milters.is_empty() && views.unknown == 0 {
        out.push_str("no milter is running\n");
    }
    out
}

fn milter(out: &mut String, view: &View, detail: Detail) -> std::fmt::Result {
    writeln!(out, "{}: {}", view.name, headline(view))?;
    if view.board.is_none() && view.pid.is_none() {
        return Ok(());
    }
    let board = view.board.as_ref();
    let interpreters = view.interpreters();
    writeln!(
        out,
        "    pid={} port={} vsz={} threads={} procs={}",
        known(view.pid),
        known(view.port()),
        mib(view.kernel.vsz_bytes),
        known(view.kernel.threads),
        known(view.kernel.procs),
    )?;
    writeln!(
        out,
        "    interp={}/{} seq={} queue={} flags={}",
        known(interpreters.initialized),
        known(interpreters.max),
        known(interpreters.sequence),
        known(board.map(Snapshot::queue)),
        known(board.map(|board| format!("0x{:x}", board.global.flags))),
    )?;
    let Some(board) = board else {
        return Ok(());
    };
    writeln!(
        out,
        "    slots={}/{} ({} retiring) req={} msg={}",
        board.global.slots_high_water,
        board.global.slots_max,
        board.retiring(),
        board.requests(),
        board.messages(),
    )?;
    for it in &board.slots {
        slot(out, it)?;
        if detail == Detail::Long {
            long::slot(out, view, board, it)?;
        }
    }
    match detail {
        Detail::Plain => Ok(()),
        Detail::Long => long::milter(out, board),
    }
}

pub(super) fn headline(view: &View) -> String {
    let mut notes = Vec::new();
    let quiet = matches!(
        view.state,
        State::Hung | State::Stopped | State::Dead | State::Stale
    );
    if quiet && let Some(age) = view.heartbeat_age() {
        notes.push(format!("heartbeat {} s old", age.as_secs()));
    }
    if view.orphans > 0 {
        let noun = if view.orphans == 1 {
            "orphan"
        } else {
            "orphans"
        };
        notes.push(format!("{} {noun} finishing", view.orphans));
    }
    let word = view.state.word().replace('_', " ");
    if notes.is_empty() {
        word
    } else {
        format!("{word} ({})", notes.join(", "))
    }
}

fn slot(out: &mut String, slot: &Slot) -> std::fmt::Result {
    let acc = slot.acc();
    let vsz = pid(slot)
        .map(|_| slot.master.vsz_bytes)
        .filter(|vsz| *vsz > 0);
    writeln!(
        out,
        "    slot#{}:   pid={}   vsz={}  acc={}/{}/{} req={}{}",
        slot.index,
        known(pid(slot)),
        mib(vsz),
        acc.process,
        acc.slot,
        acc.processes,
        slot.requests(),
        if slot.retiring() { "*" } else { "" },
    )
}

fn mib(bytes: Option<u64>) -> String {
    known(bytes.map(|bytes| format!("{:.1}", bytes as f64 / MIB)))
}
