//! `--long`: below each slot what its process is at, and below the slots what the board knows of the milter beyond the seed's lines.
#![forbid(unsafe_code)]

use std::fmt::{Result, Write};

use scoreboard::histogram::{PHASE_BUCKETS, message_bounds_ns, phase_bounds_ns};
use scoreboard::{Account, Brief, Cut, Death, Phase, SessionVerdict, Slot, Snapshot, Verdict};

use super::view::{self, View, age};
use super::words::{self, known, time};
use super::work::{Doing, deadline, doing, letter, text};

/// Bytes of the unit of `rss`.
const MIB: f64 = 1_048_576.0;

/// The line below a slot's.
pub(super) fn slot(out: &mut String, view: &View, board: &Snapshot, slot: &Slot) -> Result {
    write!(out, "        {} ", letter(slot))?;
    if slot.is_empty() {
        let last = slot.master.last_end;
        return match last {
            0 => writeln!(out, "empty"),
            end => writeln!(
                out,
                "empty, the last process ended by {}",
                words::ended(end)
            ),
        };
    }
    let Doing {
        phase,
        since,
        queue_id,
        text,
        last_verdict,
        suspended,
    } = doing(board, slot);
    let interpreters = view::of_slot(&board.global, &Brief::of(slot));
    write!(
        out,
        "{} id={} since={}",
        phase.unwrap_or(slot.state().name()),
        known(queue_id),
        known(since.map(time)),
    )?;
    if let Some(deadline) = deadline(view, board, slot) {
        write!(out, " ({})", words::deadline(deadline.left, deadline.limit))?;
    }
    let rss = Some(slot.master.rss_bytes).filter(|bytes| *bytes > 0);
    write!(
        out,
        " last={} rss={} interp={}/{} seq={} suspended={}",
        known(last_verdict),
        known(rss.map(|bytes| format!("{:.1}", bytes as f64 / MIB))),
        known(interpreters.initialized),
        known(interpreters.max),
        known(interpreters.sequence),
        known(suspended),
    )?;
    if slot.master.generation != 0 && slot.master.generation < board.global.generation {
        out.push_str(" old");
    }
    if !slot.consistent {
        out.push_str(" (changed while it was read)");
    }
    if slot.retiring() {
        write!(
            out,
            " retiring: {}",
            words::retire_reason(slot.master.retire_reason)
        )?;
    }
    // Last, for it is free text.
    if let Some(text) = text {
        write!(out, " doing: {text}")?;
    }
    writeln!(out)
}

/// The lines below the slots.
pub(super) fn milter(out: &mut String, board: &Snapshot) -> Result {
    let counters = board.counters();
    counts(
        out,
        "verdicts",
        Verdict::ALL.iter().map(|it| it.name()),
        &counters.verdicts,
    )?;
    counts(
        out,
        "sessions",
        SessionVerdict::ALL.iter().map(|it| it.name()),
        &counters.sessions,
    )?;
    writeln!(
        out,
        "    messages: started={} aborted={} lost={} in_progress={} recipients_refused={}",
        counters.messages_started,
        counters.messages_aborted,
        board.lost_messages(),
        board.in_progress(),
        counters.recipients_refused,
    )?;
    let global = &board.global;
    writeln!(
        out,
        "    connections: accepted={} rejected={} waiting={} backlog={} lost={}",
        global.accepted,
        global.rejected,
        global.waiting,
        known(view::backlog(board)),
        board.lost_connections(),
    )?;
    writeln!(out, "    late answers: {}", board.late_answers())?;
    capacity(out, board)?;
    times(out, board)?;
    trouble(out, board)?;
    books(out, board)?;
    write!(out, "    cut: {}", board.cut.name())?;
    match (board.cut, board.retries) {
        (Cut::Atomic, 0) => writeln!(out)?,
        (_, retries) => writeln!(out, ", {retries} retries")?,
    }
    deaths(out, board)
}

fn counts(
    out: &mut String,
    title: &str,
    names: impl Iterator<Item = &'static str>,
    counts: &[u64],
) -> Result {
    write!(out, "    {title}:")?;
    for (name, count) in names.zip(counts) {
        write!(out, " {name}={count}")?;
    }
    writeln!(out)
}

fn capacity(out: &mut String, board: &Snapshot) -> Result {
    let global = &board.global;
    let spent = std::time::Duration::from_nanos(board.capacity_ns());
    let episodes = global.capacity_episodes;
    let noun = if episodes == 1 { "episode" } else { "episodes" };
    write!(out, "    at capacity: {} in {episodes} {noun}", time(spent))?;
    match age(board, global.capacity_since_ns).filter(|_| view::is_alive(board)) {
        Some(now) => writeln!(out, ", now for {}", time(now))?,
        None => writeln!(out, ", not now")?,
    }
    if global.accepting == 0 && view::is_alive(board) {
        let why = words::not_accepting(global.not_accepting);
        writeln!(out, "    not accepting: {why}")?;
    }
    if global.children_old > 0 {
        writeln!(
            out,
            "    generation {}: {} of {} old",
            global.generation, global.children_old, global.slots_in_use
        )?;
    }
    Ok(())
}

fn times(out: &mut String, board: &Snapshot) -> Result {
    let counters = board.counters();
    let of =
        |name, which| words::quantile(name, &counters.message_histogram, message_bounds_ns, which);
    writeln!(
        out,
        "    message time: {} {} {}",
        of("p50", 0.5),
        of("p90", 0.9),
        of("p99", 0.99)
    )?;
    let histograms = board.histograms().unwrap_or_default();
    for phase in Phase::ALL {
        let buckets = histograms.of(*phase);
        // What a policy has no callback for takes no time.
        if buckets.len() < PHASE_BUCKETS || buckets.iter().all(|count| *count == 0) {
            continue;
        }
        let of = |name, which| words::quantile(name, buckets, phase_bounds_ns, which);
        writeln!(
            out,
            "    {} time: {} {}",
            phase.name(),
            of("p50", 0.5),
            of("p99", 0.99)
        )?;
    }
    Ok(())
}

fn trouble(out: &mut String, board: &Snapshot) -> Result {
    let global = &board.global;
    if let Some(trouble) = text(&global.trouble) {
        let age = age(board, global.trouble_at_ns).map(time);
        writeln!(out, "    last trouble: {trouble} ({} ago)", known(age))?;
    }
    if global.crash_loop > 0 {
        let children = if global.crash_loop == 1 {
            "child"
        } else {
            "children"
        };
        write!(
            out,
            "    crash loop: {} {children} died young in a row",
            global.crash_loop
        )?;
        match global.backoff_until_ns.checked_sub(board.now_ns) {
            Some(left) if left > 0 && view::is_alive(board) => {
                let left = std::time::Duration::from_nanos(left);
                writeln!(out, ", the next is forked in {}", time(left))?;
            }
            _ => writeln!(out)?,
        }
    }
    Ok(())
}

fn books(out: &mut String, board: &Snapshot) -> Result {
    let books = board.books();
    if books.is_balanced() {
        return writeln!(out, "    books: balanced");
    }
    let of = |Account { total, accounted }| format!("{total} of which {accounted} accounted for");
    let slots: Vec<String> = books.unbalanced.iter().map(u32::to_string).collect();
    write!(
        out,
        "    books: NOT balanced: accepted {}; connections {}; messages {}",
        of(books.accepted),
        of(books.connections),
        of(books.messages),
    )?;
    match slots.len() {
        0 => writeln!(out),
        1 => writeln!(out, "; slot {}", slots.join("")),
        _ => writeln!(out, "; slots {}", slots.join(", ")),
    }
}

fn deaths(out: &mut String, board: &Snapshot) -> Result {
    if board.deaths.is_empty() {
        return writeln!(out, "    last deaths: none");
    }
    writeln!(out, "    last deaths:")?;
    board.deaths.iter().try_for_each(|it| death(out, board, it))
}

fn death(out: &mut String, board: &Snapshot, death: &Death) -> Result {
    let lost = death.lost_connections;
    let noun = if lost == 1 {
        "connection"
    } else {
        "connections"
    };
    writeln!(
        out,
        "        slot#{} pid={} {} in {} id={} {} ago, after {}, {lost} {noun} lost",
        death.slot,
        death.pid,
        words::ended(death.end),
        Phase::from_word(death.phase).name(),
        known(text(&death.queue_id)),
        known(age(board, death.at_ns).map(time)),
        known(view::lifetime(death).map(time)),
    )
}
