//! Histograms: fixed buckets of growing width, each a word that only grows, stored by one writer.
//!
//! Messages have 32 buckets in the child's record. Phases have a histogram each beside the records: a bucket is a word of its own, stored
//! at once, so that an observation costs one store and no publication. The sum over a slot's processes stays exact across deaths: what
//! earlier processes counted stands in two copies in the master's area, and a word of its record says which one counts.
#![forbid(unsafe_code)]

use crate::latch::Rules;
use crate::records::Phase;
use crate::sync::{AtomicU64, Ordering, fence};

/// Phases with a histogram: those of [`Phase`] but idle, in its order.
pub const PHASES: usize = 7;
/// Buckets of a phase.
pub const PHASE_BUCKETS: usize = 16;
/// Words of all histograms of the phases.
pub const PHASE_WORDS: usize = PHASES * PHASE_BUCKETS;
/// Buckets of a message's duration.
pub const MESSAGE_BUCKETS: usize = 32;
/// Upper bound of the first bucket of a message, in ns; each next one is twice that.
const MESSAGE_FIRST_NS: u64 = 64_000;
/// Upper bound of the first bucket of a phase, in ns; each next one is four times that.
const PHASE_FIRST_NS: u64 = 16_000;

/// The bucket of a message's duration.
pub fn message_bucket(ns: u64) -> usize {
    let over = ns.saturating_sub(1) / MESSAGE_FIRST_NS;
    let bucket = over.checked_ilog2().map_or(0, |log| log as usize + 1);
    bucket.min(MESSAGE_BUCKETS - 1)
}

/// The bucket of a phase's duration.
pub fn phase_bucket(ns: u64) -> usize {
    let over = ns.saturating_sub(1) / PHASE_FIRST_NS;
    let bucket = over.checked_ilog2().map_or(0, |log| log as usize / 2 + 1);
    bucket.min(PHASE_BUCKETS - 1)
}

/// Upper bounds of the buckets of a message in ns; the last bucket has none.
pub fn message_bounds_ns() -> impl Iterator<Item = u64> {
    (0..MESSAGE_BUCKETS - 1).map(|n| MESSAGE_FIRST_NS << n)
}

/// Upper bounds of the buckets of a phase in ns; the last bucket has none.
pub fn phase_bounds_ns() -> impl Iterator<Item = u64> {
    (0..PHASE_BUCKETS - 1).map(|n| PHASE_FIRST_NS << (2 * n))
}

/// The row of a phase; `None` when nothing is in hand.
pub fn phase_row(phase: Phase) -> Option<usize> {
    match phase {
        Phase::Idle | Phase::Unknown(_) => None,
        known => usize::try_from(known.word()).ok()?.checked_sub(1),
    }
}

/// The histograms of all phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseHistograms(pub [[u64; PHASE_BUCKETS]; PHASES]);

impl Default for PhaseHistograms {
    fn default() -> PhaseHistograms {
        PhaseHistograms([[0; PHASE_BUCKETS]; PHASES])
    }
}

impl PhaseHistograms {
    /// The sum of both.
    #[must_use]
    pub fn plus(&self, other: &PhaseHistograms) -> PhaseHistograms {
        let mut sum = *self;
        for (word, other) in sum.words_mut().iter_mut().zip(other.words()) {
            *word = word.saturating_add(*other);
        }
        sum
    }

    /// The buckets of a phase; none when nothing is in hand.
    pub fn of(&self, phase: Phase) -> &[u64] {
        phase_row(phase)
            .and_then(|row| self.0.get(row))
            .map_or(&[], |row| row.as_slice())
    }

    /// All words, phase after phase.
    pub fn words(&self) -> &[u64] {
        self.0.as_flattened()
    }

    /// The same, to be written.
    pub fn words_mut(&mut self) -> &mut [u64] {
        self.0.as_flattened_mut()
    }
}

/// Replaces histograms that the latest records do not count: the master's spare copy, or those of a child that is no more.
pub fn replace<'a, R: Rules>(
    cells: &[AtomicU64],
    first: usize,
    words: impl IntoIterator<Item = &'a u64>,
) {
    if R::HISTOGRAM_FENCE {
        // Release: a reader that sees one of these words sees, at its second look, the version of the master's record that made them
        // spare, so that it tries again.
        fence(Ordering::Release);
    }
    for (cell, word) in cells.get(first..).unwrap_or(&[]).iter().zip(words) {
        cell.store(*word, Ordering::Relaxed);
    }
}

/// To be called by a child before its first observation: a reader that sees one sees, at its second look, what the master published
/// before it forked the child. Fork orders that for the child alone.
pub fn begin<R: Rules>() {
    if R::CHILD_FENCE {
        // Release: makes the relaxed stores of the observations carry what happened before the fork.
        fence(Ordering::Release);
    }
}

/// The upper bound in ns of the bucket that holds a quantile (0 to 1): the true value is not larger, and larger than the bound before.
/// `None` when nothing was counted, or the bucket has no bound.
pub fn quantile_ns(
    buckets: &[u64],
    bounds: impl Iterator<Item = u64>,
    quantile: f64,
) -> Option<u64> {
    let total = buckets.iter().fold(0_u64, |sum, n| sum.saturating_add(*n));
    if total == 0 {
        return None;
    }
    // The rank of the wanted one, from 1; rounding of a huge total is harmless.
    let rank = ((total as f64) * quantile.clamp(0.0, 1.0)).ceil().max(1.0);
    let mut seen = 0_u64;
    for (count, bound) in buckets.iter().zip(bounds) {
        seen = seen.saturating_add(*count);
        if seen as f64 >= rank {
            return Some(bound);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_above_the_bound_before_and_not_above_its_own() {
        for (index, bound) in message_bounds_ns().enumerate() {
            assert_eq!(message_bucket(bound), index);
            assert_eq!(message_bucket(bound + 1), index + 1);
        }
        for (index, bound) in phase_bounds_ns().enumerate() {
            assert_eq!(phase_bucket(bound), index);
            assert_eq!(phase_bucket(bound + 1), index + 1);
        }
        assert_eq!((message_bucket(0), phase_bucket(0)), (0, 0));
        assert_eq!(message_bucket(u64::MAX), MESSAGE_BUCKETS - 1);
        assert_eq!(phase_bucket(u64::MAX), PHASE_BUCKETS - 1);
    }

    #[test]
    fn every_phase_but_idle_has_a_row_of_its_own() {
        let rows: Vec<Option<usize>> = Phase::ALL.iter().map(|phase| phase_row(*phase)).collect();
        let expected: Vec<Option<usize>> =
            std::iter::once(None).chain((0..PHASES).map(Some)).collect();
        assert_eq!(rows, expected);
        assert_eq!(phase_row(Phase::Unknown(3)), None);
    }

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        let mut buckets = [0; PHASE_BUCKETS];
        assert_eq!(quantile_ns(&buckets, phase_bounds_ns(), 0.5), None);
        buckets[0] = 50;
        buckets[3] = 49;
        buckets[PHASE_BUCKETS - 1] = 1;
        let of = |quantile| quantile_ns(&buckets, phase_bounds_ns(), quantile);
        assert_eq!(of(0.0), Some(16_000));
        assert_eq!(of(0.5), Some(16_000));
        assert_eq!(of(0.51), Some(1_024_000));
        assert_eq!(of(0.99), Some(1_024_000));
        assert_eq!(of(1.0), None);
    }
}
