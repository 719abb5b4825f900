//! The slots as rows: what each is at, how long, how long the MTA still waits; filtered and ordered.
#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::time::Duration;

use scoreboard::{Phase, Slot, SlotState, Snapshot, shown};

use crate::control::status::work::letter;

/// Near its end: less than this part of the deadline is left.
const NEAR: f64 = 0.2;

/// What the rows are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Slot,
    /// The oldest process first.
    Age,
    Requests,
    Messages,
    Memory,
}

impl Sort {
    /// Of the column.
    pub(super) fn heading(self) -> &'static str {
        match self {
            Sort::Slot => "slot",
            Sort::Age => "age",
            Sort::Requests => "req",
            Sort::Messages => "msg",
            Sort::Memory => "rss",
        }
    }
}

/// How the deadline of the MTA stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Left {
    /// No answer is owed, or it is not known.
    Nothing,
    /// Seconds; there is time.
    Enough(f64),
    /// Seconds; it runs out.
    Near(f64),
    /// Seconds since the MTA gave up.
    Over(f64),
}

impl Left {
    /// Whether somebody should look.
    pub(super) fn is_urgent(self) -> bool {
        matches!(self, Left::Near(_) | Left::Over(_))
    }
}

/// A slot.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) slot: u32,
    pub(super) state: SlotState,
    /// The state in one letter, as in `status --long`.
    pub(super) letter: char,
    pub(super) pid: Option<u64>,
    pub(super) age: Option<Duration>,
    pub(super) rss_bytes: Option<u64>,
    pub(super) requests: u64,
    pub(super) messages: u64,
    pub(super) phase: Option<&'static str>,
    pub(super) is_idle: bool,
    pub(super) since: Option<Duration>,
    pub(super) left: Left,
    pub(super) queue_id: String,
    pub(super) doing: String,
}

impl Row {
    /// `is_alive`: of a dead milter the clocks mean nothing any more, and no MTA waits.
    pub(super) fn of(board: &Snapshot, slot: &Slot, is_alive: bool) -> Row {
        let occupied = !slot.is_empty();
        let child = slot.child.as_ref();
        let age = |stamp: u64| board.age(stamp).filter(|_| is_alive && occupied);
        let phase = child.map(|child| Phase::from_word(child.phase));
        let since = child.and_then(|child| age(child.phase_since_ns));
        let left = match (is_alive, since, board.deadline_left(slot)) {
            (true, Some(since), Some(left)) => of_deadline(since, left),
            _ => Left::Nothing,
        };
        let text = |words: Option<&[u64]>| words.map_or_else(String::new, shown);
        Row {
            slot: slot.index,
            state: slot.state(),
            letter: letter(slot),
            pid: (occupied && slot.master.pid != 0).then_some(slot.master.pid),
            age: age(slot.master.forked_at_ns),
            rss_bytes: Some(slot.master.rss_bytes).filter(|bytes| occupied && *bytes > 0),
            requests: slot.requests(),
            messages: slot.messages(),
            phase: phase.map(Phase::name),
            is_idle: matches!(phase, None | Some(Phase::Idle)),
            since,
            left,
            queue_id: text(child.map(|child| &child.queue_id[..])),
            doing: text(child.map(|child| &child.doing[..])),
        }
    }

    fn matches(&self, filter: &str) -> bool {
        let parts = [
            self.queue_id.as_str(),
            self.doing.as_str(),
            self.phase.unwrap_or(""),
            self.state.name(),
        ];
        parts
            .iter()
            .any(|part| part.to_lowercase().contains(filter))
    }
}

fn of_deadline(since: Duration, left: f64) -> Left {
    let limit = since.as_secs_f64() + left;
    // A board that does not tell mta_timeouts has 0.
    if limit < 0.001 {
        Left::Nothing
    } else if left < 0.0 {
        Left::Over(-left)
    } else if left < limit * NEAR {
        Left::Near(left)
    } else {
        Left::Enough(left)
    }
}

/// The slots that match, in order. Numbers come largest first, slots smallest first; `reverse` turns that round.
pub(super) fn rows(
    board: &Snapshot,
    is_alive: bool,
    sort: Sort,
    reverse: bool,
    filter: &str,
) -> Vec<Row> {
    let filter = filter.to_lowercase();
    let mut rows: Vec<Row> = board
        .slots
        .iter()
        .map(|slot| Row::of(board, slot, is_alive))
        .filter(|row| filter.is_empty() || row.matches(&filter))
        .collect();
    let compare = |a: &Row, b: &Row| -> Ordering {
        let order = match sort {
            Sort::Slot => a.slot.cmp(&b.slot),
            Sort::Age => b.age.cmp(&a.age),
            Sort::Requests => b.requests.cmp(&a.requests),
            Sort::Messages => b.messages.cmp(&a.messages),
            Sort::Memory => b.rss_bytes.cmp(&a.rss_bytes),
        };
        let order = if reverse { order.reverse() } else { order };
        order.then(a.slot.cmp(&b.slot))
    };
    rows.sort_by(compare);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_near_in_its_last_fifth_and_unknown_without_a_limit() {
        let of = |since: f64, left| of_deadline(Duration::from_secs_f64(since), left);
        assert_eq!(of(1.0, 9.0), Left::Enough(9.0));
        assert_eq!(of(8.5, 1.5), Left::Near(1.5));
        assert_eq!(of(12.0, -2.0), Left::Over(2.0));
        assert_eq!(of(12.0, -12.0), Left::Nothing);
    }
}
