//! `--history`: the last ten minutes second by second, then what happened; the newest last. Totals of the board become what came in each second.
#![forbid(unsafe_code)]

use std::fmt::{Result, Write};
use std::time::Duration;

use scoreboard::{Event, EventKind, History, Second, Snapshot, Verdict};

use super::view::{queued_in_kernel, wall_ns};
use super::words::{self, known, time};
use crate::sys::calendar;

/// Most events in the text.
const EVENTS: usize = 64;
/// Samples that are further apart than this have missed one: the master was stopped, or too busy.
const GAP: Duration = Duration::from_millis(1500);

/// What came since the sample before.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Came {
    accepted: u64,
    verdicts: [u64; 6],
}

/// A line of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Row {
    /// One second; what came in it is unknown for the oldest one.
    Second(Second, Option<Came>),
    /// So many seconds in which nothing was in hand and nothing came.
    Idle(u64),
    /// So many seconds without a sample; what came in them stands in the next line.
    Gap(u64),
}

/// The lines below a milter's others.
pub(super) fn render(out: &mut String, board: &Snapshot, history: &History) -> Result {
    seconds(out, board, &history.seconds)?;
    events(out, board, &history.events)
}

fn seconds(out: &mut String, board: &Snapshot, seconds: &[Second]) -> Result {
    if seconds.is_empty() {
        return writeln!(out, "    seconds: none recorded");
    }
    write!(
        out,
        "    {:<8} {:>5} {:>6} {:>5} {:>7} {:>6}",
        "time", "busy", "req", "wait", "backlog", "acc/s"
    )?;
    for verdict in Verdict::ALL {
        write!(out, " {:>10}", verdict.name())?;
    }
    writeln!(out)?;
    for row in rows(seconds) {
        match row {
            Row::Idle(count) => writeln!(out, "    ... {count} s idle")?,
            Row::Gap(count) => writeln!(out, "    ... {count} s without a sample")?,
            Row::Second(second, came) => {
                write!(
                    out,
                    "    {} {:>5} {:>6} {:>5} {:>7} {:>6}",
                    clock(board, second.at_ns),
                    second.busy,
                    second.requests,
                    second.waiting,
                    known(queued_in_kernel(second.backlog)),
                    known(came.map(|came| came.accepted)),
                )?;
                for index in 0..second.verdicts.len() {
                    let count = came.and_then(|came| came.verdicts.get(index).copied());
                    write!(out, " {:>10}", known(count))?;
                }
                writeln!(out)?;
            }
        }
    }
    Ok(())
}

/// The table of samples that stand latest first.
fn rows(seconds: &[Second]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut idle = Vec::new();
    let mut before: Option<&Second> = None;
    for second in seconds.iter().rev() {
        let gap = before.and_then(|before| missed(before, second));
        let row = Row::Second(*second, came(before, second));
        before = Some(second);
        if gap.is_some() || !is_idle(&row) {
            close(&mut rows, &mut idle);
        }
        rows.extend(gap.map(Row::Gap));
        if is_idle(&row) {
            idle.push(row);
        } else {
            rows.push(row);
        }
    }
    close(&mut rows, &mut idle);
    rows
}

/// Ends a run of idle seconds: one is shown as it is.
fn close(rows: &mut Vec<Row>, idle: &mut Vec<Row>) {
    match idle.len() {
        0 | 1 => rows.append(idle),
        several => rows.push(Row::Idle(several as u64)),
    }
    idle.clear();
}

/// Seconds that were missed between two samples.
fn missed(before: &Second, second: &Second) -> Option<u64> {
    let apart = Duration::from_nanos(second.at_ns.saturating_sub(before.at_ns));
    (apart > GAP).then(|| {
        (apart.as_secs_f64().round() as u64)
            .saturating_sub(1)
            .max(1)
    })
}

fn came(before: Option<&Second>, second: &Second) -> Option<Came> {
    // The first one of a board counts from nothing.
    let (accepted, verdicts) = match before {
        Some(before) => (before.accepted, before.verdicts),
        None if second.number == 1 => (0, [0; 6]),
        None => return None,
    };
    let mut came = Came {
        accepted: second.accepted.saturating_sub(accepted),
        verdicts: second.verdicts,
    };
    for (count, before) in came.verdicts.iter_mut().zip(verdicts) {
        *count = count.saturating_sub(before);
    }
    Some(came)
}

fn is_idle(row: &Row) -> bool {
    let Row::Second(second, Some(came)) = row else {
        return false;
    };
    let in_hand = [second.busy, second.requests, second.waiting];
    let waiting = queued_in_kernel(second.backlog).unwrap_or(0);
    in_hand == [0; 3] && waiting == 0 && came.accepted == 0 && came.verdicts == [0; 6]
}

fn events(out: &mut String, board: &Snapshot, events: &[Event]) -> Result {
    if events.is_empty() {
        return writeln!(out, "    events: none recorded");
    }
    for event in events.iter().take(EVENTS).rev() {
        let milliseconds = wall_ns(board, event.at_ns) / 1_000_000 % 1000;
        let line = format!(
            "    {}.{milliseconds:03} {:<9} {:<8} {:<11} {}",
            clock(board, event.at_ns),
            EventKind::from_word(event.kind).name(),
            slot(event).map_or_else(|| "-".to_owned(), |slot| format!("slot#{slot}")),
            pid(event).map_or_else(|| "-".to_owned(), |pid| format!("pid={pid}")),
            value(event),
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Local time of day of a stamp.
fn clock(board: &Snapshot, stamp_ns: u64) -> String {
    let seconds = wall_ns(board, stamp_ns) / 1_000_000_000;
    let time = calendar::local(i64::try_from(seconds).unwrap_or(i64::MAX));
    format!("{:02}:{:02}:{:02}", time.hour, time.minute, time.second)
}

/// The slot that an event is about; `None` when it is about the milter.
pub(super) fn slot(event: &Event) -> Option<u64> {
    (event.slot != u64::MAX).then_some(event.slot)
}

/// The process that an event is about.
pub(super) fn pid(event: &Event) -> Option<u64> {
    (event.pid != 0).then_some(event.pid)
}

/// What the value of an event says, in words; empty when it says nothing.
pub(super) fn value(event: &Event) -> String {
    let value = event.value;
    let lasted = || time(Duration::from_nanos(value));
    match EventKind::from_word(event.kind) {
        EventKind::Start | EventKind::Restart => format!("generation {value}"),
        EventKind::Stop if value == 0 => String::new(),
        EventKind::Stop => words::signal(value),
        EventKind::Fork => format!("process {value} of its slot"),
        EventKind::Ready => String::new(),
        EventKind::Retire => words::retire_reason(value).to_owned(),
        EventKind::Death => words::ended(value),
        EventKind::Full => words::not_accepting(value).to_owned(),
        EventKind::Room => format!("after {}", lasted()),
        EventKind::Backoff => format!("no fork for {}", lasted()),
        EventKind::Resources => "descriptors or memory are short".to_owned(),
        EventKind::Abort if value == 1 => "1 connection is cut".to_owned(),
        EventKind::Abort => format!("{value} connections are cut"),
        EventKind::Unknown(kind) => format!("kind {kind}, value {value}"),
    }
}
