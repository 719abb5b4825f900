//! Rates are differences of totals of one instance of a board: after a restart of the master they begin anew, and are never negative.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use scoreboard::{Second, Snapshot};

/// Shorter than this, one connection more or less would swing the rate.
const SHORTEST_NS: u64 = 900_000_000;

/// Totals at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    /// Of which board.
    instance: [u64; 2],
    /// BOOTTIME ns.
    at_ns: u64,
    /// Connections accepted.
    accepted: u64,
    /// Messages by verdict.
    verdicts: [u64; 6],
}

/// Differences a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rates {
    /// Connections accepted.
    pub(super) connections: f64,
    /// Messages processed.
    pub(super) messages: f64,
    /// Messages by verdict.
    pub(super) verdicts: [f64; 6],
}

impl Totals {
    /// Of a snapshot.
    pub(super) fn of(board: &Snapshot) -> Totals {
        Totals {
            instance: board.header.instance,
            at_ns: board.now_ns,
            accepted: board.global.accepted,
            verdicts: board.counters().verdicts,
        }
    }

    /// Of a second that the board remembers.
    pub(super) fn of_second(board: &Snapshot, second: &Second) -> Totals {
        Totals {
            instance: board.header.instance,
            at_ns: second.at_ns,
            accepted: second.accepted,
            verdicts: second.verdicts,
        }
    }

    /// What happened since `old`, a second. `None` across instances, without time in between, or when a total fell.
    pub(super) fn since(&self, old: &Totals) -> Option<Rates> {
        if self.instance != old.instance {
            return None;
        }
        let ns = self.at_ns.checked_sub(old.at_ns).filter(|ns| *ns > 0)?;
        let a_second = |now: u64, then: u64| {
            let more = now.checked_sub(then)?;
            Some(more as f64 * 1e9 / ns as f64)
        };
        let mut verdicts = [0.0; 6];
        for ((rate, now), then) in verdicts.iter_mut().zip(self.verdicts).zip(old.verdicts) {
            *rate = a_second(now, then)?;
        }
        Some(Rates {
            connections: a_second(self.accepted, old.accepted)?,
            messages: verdicts.iter().sum(),
            verdicts,
        })
    }
}

/// The last looks at one milter.
#[derive(Debug, Default)]
pub(super) struct Window(VecDeque<Totals>);

impl Window {
    /// Another look; those of another instance are forgotten.
    pub(super) fn push(&mut self, now: Totals) {
        self.0.retain(|old| old.instance == now.instance);
        self.0.push_back(now);
        // One that is old enough stays: the rate needs it.
        let old_enough = |totals: &Totals| now.at_ns.saturating_sub(totals.at_ns) >= SHORTEST_NS;
        while self.0.get(1).is_some_and(old_enough) {
            self.0.pop_front();
        }
    }

    /// The rates of the last interval; before the second look those of the board's own last second.
    pub(super) fn rates(&self, board: &Snapshot, seconds: &[Second]) -> Option<Rates> {
        match (self.0.front(), self.0.back()) {
            (Some(first), Some(last)) if first != last => last.since(first),
            _ => {
                let [last, before, ..] = seconds else {
                    return None;
                };
                // A milter that was at rest for long has no recent second to speak of.
                Totals::of_second(board, last).since(&Totals::of_second(board, before))
            }
        }
    }
}

/// Messages a second in `columns` intervals of `width_ns`, the oldest first; `None` where the board remembers nothing.
pub(super) fn columns(
    seconds: &[Second],
    now_ns: u64,
    columns: usize,
    width_ns: u64,
) -> Vec<Option<f64>> {
    // Boundaries that stay where they are, so that the picture moves by whole columns.
    let end = (now_ns / width_ns)
        .saturating_add(1)
        .saturating_mul(width_ns);
    let total = |second: &Second| {
        second
            .verdicts
            .iter()
            .fold(0_u64, |a, b| a.saturating_add(*b))
    };
    // The last second up to an instant; `seconds` has the latest first.
    let at = |instant: u64| seconds.iter().find(|second| second.at_ns <= instant);
    (0..columns)
        .rev()
        .map(|back| {
            let to = end.checked_sub((back as u64).checked_mul(width_ns)?)?;
            let (first, last) = (at(to.checked_sub(width_ns)?)?, at(to)?);
            let ns = last.at_ns.checked_sub(first.at_ns)?;
            let more = total(last).checked_sub(total(first))?;
            // No second in this interval: the master slept, as nothing happened.
            Some(if ns == 0 {
                0.0
            } else {
                more as f64 * 1e9 / ns as f64
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytemuck::Zeroable;

    const SECOND: u64 = 1_000_000_000;

    fn totals(instance: u64, second: u64, accepted: u64, accept: u64) -> Totals {
        Totals {
            instance: [instance, 0],
            at_ns: second * SECOND,
            accepted,
            verdicts: [accept, 0, 0, 0, 0, 2],
        }
    }

    #[test]
    fn rates_are_differences_a_second() {
        let rates = totals(1, 14, 30, 120)
            .since(&totals(1, 10, 10, 20))
            .unwrap();
        assert_eq!((rates.connections, rates.messages), (5.0, 25.0));
        assert_eq!(rates.verdicts, [25.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn there_is_no_rate_across_instances_or_backwards() {
        let old = totals(1, 10, 100, 100);
        assert_eq!(totals(2, 14, 200, 200).since(&old), None);
        assert_eq!(totals(1, 10, 200, 200).since(&old), None);
        assert_eq!(totals(1, 9, 200, 200).since(&old), None);
        assert_eq!(totals(1, 14, 99, 200).since(&old), None);
        assert_eq!(totals(1, 14, 200, 99).since(&old), None);
    }

    #[test]
    fn a_window_forgets_another_instance_and_keeps_a_second() {
        let mut window = Window::default();
        window.push(totals(1, 10, 0, 0));
        window.push(totals(2, 11, 5, 5));
        assert_eq!(window.0.len(), 1);
        for tenth in 0..30 {
            let mut next = totals(2, 12, 5 + tenth, 5);
            next.at_ns += tenth * SECOND / 10;
            window.push(next);
        }
        let (first, last) = (window.0.front().unwrap(), window.0.back().unwrap());
        let rates = last.since(first).unwrap();
        assert!((rates.connections - 10.0).abs() < 0.01, "{rates:?}");
        assert!(last.at_ns - first.at_ns < 2 * SECOND);
    }

    #[test]
    fn columns_show_what_is_remembered_and_nothing_else() {
        let second = |at: u64, accept: u64| {
            let mut second = Second::zeroed();
            second.at_ns = at * SECOND;
            second.verdicts[0] = accept;
            second
        };
        let seconds = [
            second(14, 50),
            second(13, 40),
            second(12, 10),
            second(11, 10),
        ];
        assert_eq!(
            columns(&seconds, 13 * SECOND + 1, 5, SECOND),
            [None, None, Some(0.0), Some(30.0), Some(10.0)]
        );
        assert_eq!(columns(&[], u64::MAX, 2, SECOND), [None, None]);
        assert_eq!(columns(&seconds, 0, 2, u64::MAX), [None, None]);
    }
}
