//! Rings: the last so many entries of a kind, one writer, any number of readers, nothing to repair after a kill.
//!
//! A line whose first word counts the entries so far, then the entries. Entry n (from 1) stands at place (n - 1) modulo their number; its
//! first word is n, stored last, and 0 while the other words change. A reader takes an entry only if its number was the same before and
//! after, so that an entry is whole or left out.
#![forbid(unsafe_code)]

use bytemuck::Pod;

use crate::latch::{Rules, Source};
use crate::layout::LINE;
use crate::sync::{AtomicU64, Ordering, fence};

/// Where a ring stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Byte offset of its counting line.
    pub offset: usize,
    /// Bytes from one entry to the next.
    pub stride: usize,
    /// Entries.
    pub entries: usize,
}

impl Ring {
    /// Bytes that it takes.
    pub const fn bytes(&self) -> usize {
        LINE + self.entries * self.stride
    }

    /// The first word of an entry.
    fn entry(&self, number: u64) -> usize {
        // Entries are never 0 in a ring that was checked or planned; the remainder is smaller than a usize.
        let place = number.saturating_sub(1) % (self.entries.max(1) as u64);
        (self.offset + LINE) / 8 + usize::try_from(place).unwrap_or(0) * (self.stride / 8)
    }
}

/// Appends an entry over the oldest one. Its first word must be its number: one more than the last one's.
pub fn append<R: Rules>(cells: &[AtomicU64], ring: &Ring, entry: &[u64]) {
    let Some((number, words)) = entry.split_first() else {
        return;
    };
    let first = ring.entry(*number);
    let (Some(head), Some(place)) = (
        cells.get(ring.offset / 8),
        cells.get(first..first + ring.stride / 8),
    ) else {
        return;
    };
    let Some((mark, rest)) = place.split_first() else {
        return;
    };
    // Number 0 while the words change: a reader that sees a new word sees, at its second look, that the number is not the one it began
    // with. Release: pairs with the reader's fence before that second look.
    if R::RING_ZERO {
        mark.store(0, Ordering::Relaxed);
    }
    if R::RING_FENCE {
        fence(Ordering::Release);
    }
    for (cell, word) in rest.iter().zip(words) {
        cell.store(*word, Ordering::Relaxed);
    }
    // Release: pairs with the reader's fence after its first look at the number.
    mark.store(*number, R::ADVERTISE);
    head.store(*number, Ordering::Release);
}

/// The whole entries, the latest first. Words that the file has and `T` does not know are left out; those that it lacks are 0.
///
/// # Errors
/// Those of the source.
pub fn collect<R: Rules, T: Pod, S: Source + ?Sized>(
    source: &S,
    ring: &Ring,
) -> Result<Vec<T>, S::Error> {
    let first = (ring.offset + LINE) / 8;
    let stride = ring.stride / 8;
    let mut before = vec![0; stride * ring.entries];
    let mut entries = before.clone();
    let mut after = before.clone();
    source.copy(first, &mut before)?;
    // Acquire, twice: pairs with the releases of `append`.
    if R::OPENING_FENCE {
        fence(Ordering::Acquire);
    }
    source.copy(first, &mut entries)?;
    if R::CLOSING_FENCE {
        fence(Ordering::Acquire);
    }
    source.copy(first, &mut after)?;
    let mut found: Vec<(u64, T)> = Vec::new();
    for (place, words) in entries.chunks(stride.max(1)).enumerate() {
        let Some(number) = words.first().copied() else {
            continue;
        };
        let start = place * stride;
        let same = |copy: &[u64]| copy.get(start) == Some(&number);
        let belongs = number
            .checked_sub(1)
            .is_some_and(|number| number % (ring.entries as u64) == place as u64);
        if belongs && same(&before) && same(&after) {
            let mut entry = T::zeroed();
            let known: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut entry));
            for (to, word) in known.iter_mut().zip(words) {
                *to = *word;
            }
            found.push((number, entry));
        }
    }
    found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    Ok(found.into_iter().map(|(_, entry)| entry).collect())
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::latch::Sound;

    const RING: Ring = Ring {
        offset: 0,
        stride: 24,
        entries: 4,
    };

    fn numbers(cells: &[AtomicU64]) -> Vec<[u64; 3]> {
        collect::<Sound, [u64; 3], _>(cells, &RING).unwrap()
    }

    #[test]
    fn the_last_entries_are_kept_the_latest_first() {
        let cells: Vec<AtomicU64> = (0..RING.bytes() / 8).map(|_| AtomicU64::new(0)).collect();
        assert_eq!(numbers(&cells), Vec::<[u64; 3]>::new());
        for number in 1..=6 {
            append::<Sound>(&cells, &RING, &[number, number * 10, number * 100]);
        }
        assert_eq!(
            numbers(&cells),
            [[6, 60, 600], [5, 50, 500], [4, 40, 400], [3, 30, 300]]
        );
        assert_eq!(cells[0].load(Ordering::Relaxed), 6);
    }

    #[test]
    fn an_entry_that_is_being_written_or_lies_about_its_number_is_left_out() {
        let cells: Vec<AtomicU64> = (0..RING.bytes() / 8).map(|_| AtomicU64::new(0)).collect();
        for number in 1..=4 {
            append::<Sound>(&cells, &RING, &[number, 0, 0]);
        }
        let word = |number| RING.entry(number);
        cells[word(2)].store(0, Ordering::Relaxed);
        cells[word(3)].store(4, Ordering::Relaxed);
        let left: Vec<u64> = numbers(&cells).iter().map(|entry| entry[0]).collect();
        assert_eq!(left, [4, 1]);
    }
}
