//! The status lines of the seed's manual: its fields, order and spacing, so that scripts written for it keep working.
#![forbid(unsafe_code)]

use std::fmt::{Display, Formatter, Write};

use scoreboard::{Brief, Snapshot};

use super::view::{Interpreters, State, View, Views, interpreters};
use super::words::known;
use super::{history, long};

/// Bytes of the unit of `vsz`.
const MIB: u64 = 1 << 20;

/// Every milter, one after the other: the lines of the seed's manual.
pub(super) fn plain(views: &Views<Brief>) -> String {
    let mut out = String::new();
    for view in &views.milters {
        // Writing to a String cannot fail.
        let _ = brief(&mut out, view);
    }
    close(out, views)
}

/// Every milter: the same lines and, where they are wanted, what `--long` adds and what the milter remembers.
pub(super) fn full(views: &Views, is_long: bool) -> String {
    let mut out = String::new();
    for view in &views.milters {
        let _ = whole(&mut out, view, is_long);
        if let (Some(board), Some(history)) = (&view.board, &view.history) {
            let _ = history::render(&mut out, board, history);
        }
    }
    close(out, views)
}

fn close<T>(mut out: String, views: &Views<T>) -> String {
    if views.milters.is_empty() && views.unknown == 0 {
        out.push_str("no milter is running\n");
    }
    out
}

fn brief(out: &mut String, view: &View<Brief>) -> std::fmt::Result {
    let slots = view.board.as_ref().map(|board| board.slots.as_slice());
    milter(out, view, slots.unwrap_or_default())?;
    slots.into_iter().flatten().try_for_each(|it| slot(out, it))
}

fn whole(out: &mut String, view: &View, is_long: bool) -> std::fmt::Result {
    let board = view.board.as_ref();
    let slots = board.map(Snapshot::briefs).unwrap_or_default();
    milter(out, view, &slots)?;
    let Some(board) = board else {
        return Ok(());
    };
    for (brief, whole) in slots.iter().zip(&board.slots) {
        slot(out, brief)?;
        if is_long {
            long::slot(out, view, board, whole)?;
        }
    }
    if is_long {
        long::milter(out, board)?;
    }
    Ok(())
}

/// The lines before those of its slots.
fn milter<T>(out: &mut String, view: &View<T>, slots: &[Brief]) -> std::fmt::Result {
    writeln!(out, "{}: {}", view.name, headline(view))?;
    if view.board.is_none() && view.pid.is_none() {
        return Ok(());
    }
    let board = view.board.as_ref();
    let interpreters = board.map_or(Interpreters::default(), |board| {
        interpreters(&board.global, slots)
    });
    let sum = |of: fn(&Brief) -> u64| {
        let add = |sum: u64, slot| sum.saturating_add(of(slot));
        slots.iter().fold(0, add)
    };
    let queue = board.map(|_| sum(|slot| slot.process.map_or(0, |process| process.queue)));
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
        known(queue),
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
        sum(|slot| u64::from(slot.retiring())),
        sum(|slot| slot.requests),
        sum(|slot| slot.messages),
    )
}

pub(in crate::control) fn headline<T>(view: &View<T>) -> String {
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

fn slot(out: &mut String, slot: &Brief) -> std::fmt::Result {
    let vsz = slot.pid.map(|_| slot.vsz_bytes).filter(|vsz| *vsz > 0);
    writeln!(
        out,
        "    slot#{}:   pid={}   vsz={}  acc={}/{}/{} req={}{}",
        slot.index,
        known(slot.pid),
        mib(vsz),
        slot.acc.process,
        slot.acc.slot,
        slot.acc.processes,
        slot.requests,
        if slot.retiring() { "*" } else { "" },
    )
}

/// MiB with one decimal, rounded as `{:.1}` does; in integers, for hundreds of slots are shown by a program of a millisecond.
fn mib(bytes: Option<u64>) -> Mib {
    Mib(bytes)
}

struct Mib(Option<u64>);

impl Display for Mib {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Some(bytes) = self.0 else {
            return f.write_str("-");
        };
        let (whole, rest) = (bytes / MIB, bytes % MIB * 10);
        let (tenths, below) = (rest / MIB, rest % MIB);
        let up = below > MIB / 2 || (below == MIB / 2 && tenths % 2 == 1);
        let tenths = whole
            .saturating_mul(10)
            .saturating_add(tenths + u64::from(up));
        write!(f, "{}.{}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mebibytes_are_rounded_as_the_standard_library_does() {
        for bytes in (0..40)
            .map(|n| n * (MIB / 40))
            .chain([MIB, 5 * MIB + MIB / 4, u64::MAX >> 12])
        {
            let expected = format!("{:.1}", bytes as f64 / MIB as f64);
            assert_eq!(mib(Some(bytes)).to_string(), expected, "{bytes}");
        }
    }
}
