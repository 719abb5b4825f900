//! The latch: a version word and two copies of a record, for one writer that may be killed at any instant and any number of readers that
//! only read.
//!
//! The writer fills the copy that is *not* advertised, then steps the version, whose lowest bit names the copy. So a stopped or killed
//! writer leaves a complete record behind: there is no lock, no odd state and nothing to repair. A reader tries again only when a
//! publication completed while it copied. This is the kernel's `seqcount_latch`; the orders are those of Boehm, "Can seqlocks get along
//! with programming language memory models?" (2012), as `tests/loom.rs` proves.
//!
//! Words are addressed by their index in a [`Source`] or a slice of cells, so that the same code serves heap, map and file.
#![forbid(unsafe_code)]

use std::convert::Infallible;

use crate::sync::{AtomicU64, Ordering, Pause, fence};

/// Most tries of one bounded read: a reader that loses so many races reports what it has and says so.
pub const TRIES: u32 = 64;

/// Bits of a version that count publications; the rest name the incarnation of the writer.
pub const COUNT_BITS: u32 = 40;

/// Bits of a version that name the incarnation.
const INCARNATION_MASK: u64 = (1 << (64 - COUNT_BITS)) - 1;

/// Where a latch stands, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The version word.
    pub version: usize,
    /// The first words of the two copies: `version & 1` chooses.
    pub copies: [usize; 2],
}

impl Place {
    /// The first word of the copy that `version` advertises. Any value is fine: one bit of it counts.
    pub fn copy(&self, version: u64) -> usize {
        self.copies[usize::from(version & 1 == 1)]
    }
}

/// The fences and steps of the protocols (latch, rings, histograms), as switches, so that the models can remove one and must then fail.
/// Production code uses [`Sound`].
pub trait Rules {
    /// The writer's fence before it touches the spare copy.
    const WRITER_FENCE: bool = true;
    /// Release on the version that advertises the new copy, and on the number of a ring's entry.
    const ADVERTISE: Ordering = Ordering::Release;
    /// The reader's fence between version and record.
    const OPENING_FENCE: bool = true;
    /// The reader's fence between record and second look at the version.
    const CLOSING_FENCE: bool = true;
    /// How far a publication steps the version: only 1 alternates the copies.
    const STEP: u64 = 1;
    /// The number of a ring's entry is 0 while its words change.
    const RING_ZERO: bool = true;
    /// The writer's fence between that 0 and the words.
    const RING_FENCE: bool = true;
    /// The writer's fence before it replaces histograms that the latest records do not count.
    const HISTOGRAM_FENCE: bool = true;
    /// A child's fence before its first observation.
    const CHILD_FENCE: bool = true;
}

/// The protocol as it must be.
#[derive(Clone, Copy, Debug)]
pub struct Sound;

impl Rules for Sound {}

/// Something that words can be copied from while others write them.
pub trait Source {
    /// Why a copy can fail.
    type Error;

    /// Copies the words from `word` on into `out`, each at once (relaxed); the order among them is left open.
    ///
    /// # Errors
    /// What the source says, for instance an input error or an end of file.
    fn copy(&self, word: usize, out: &mut [u64]) -> Result<(), Self::Error>;

    /// Copies many spans, in ascending order of place; the order of the copies is left open as well. A source for which each copy is a
    /// system call can do better than this.
    ///
    /// # Errors
    /// As for [`Source::copy`].
    fn copy_many(&self, spans: &mut [Span<'_>]) -> Result<(), Self::Error> {
        spans
            .iter_mut()
            .try_for_each(|span| self.copy(span.word, span.out))
    }
}

/// Words to copy: from where, and where to.
#[derive(Debug)]
pub struct Span<'a> {
    /// The first word.
    pub word: usize,
    /// Where the words go; its length says how many.
    pub out: &'a mut [u64],
}

impl Source for [AtomicU64] {
    type Error = Infallible;

    /// Words beyond the end read as 0.
    fn copy(&self, word: usize, out: &mut [u64]) -> Result<(), Infallible> {
        let cells = self.get(word..).unwrap_or(&[]);
        for (index, to) in out.iter_mut().enumerate() {
            *to = cells
                .get(index)
                .map_or(0, |cell| cell.load(Ordering::Relaxed));
        }
        Ok(())
    }
}

/// Publishes a record: one step of `version`, which is the writer's own and is never read back from `cells`.
///
/// A record that is longer than the room in `cells` is cut.
pub fn publish<R: Rules>(cells: &[AtomicU64], place: &Place, version: &mut u64, record: &[u64]) {
    *version = version.wrapping_add(R::STEP);
    if R::WRITER_FENCE {
        // Release: a reader that sees one of the stores below also sees, at its second look, the version before this one. It pairs with
        // the closing fence of `attempt`.
        fence(Ordering::Release);
    }
    let copy = cells.get(place.copy(*version)..).unwrap_or(&[]);
    for (cell, word) in copy.iter().zip(record) {
        cell.store(*word, Ordering::Relaxed);
    }
    if let Some(cell) = cells.get(place.version) {
        // Release: pairs with the opening fence of `attempt`; who sees this version sees the whole record.
        cell.store(*version, R::ADVERTISE);
    }
}

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The version that was advertised when the read began.
    pub version: u64,
    /// Whether the record is proven whole. If not, its words may stem from several publications.
    pub consistent: bool,
    /// How many tries were lost to the writer.
    pub retries: u32,
}

/// One try: copies the advertised record into `out` and says whether it is whole.
///
/// # Errors
/// Those of the source.
pub fn attempt<R: Rules, S: Source + ?Sized>(
    source: &S,
    place: &Place,
    out: &mut [u64],
) -> Result<Reading, S::Error> {
    let version = version::<S>(source, place)?;
    if R::OPENING_FENCE {
        // Acquire: pairs with the release of the version in `publish`.
        fence(Ordering::Acquire);
    }
    source.copy(place.copy(version), out)?;
    if R::CLOSING_FENCE {
        // Acquire: pairs with the writer's fence in `publish`.
        fence(Ordering::Acquire);
    }
    let after = self::version::<S>(source, place)?;
    Ok(Reading {
        version,
        consistent: after == version,
        retries: 0,
    })
}

/// Reads a record, at most `tries` times; the last copy is in `out` in any case.
///
/// # Errors
/// Those of the source.
pub fn read<R: Rules, S: Source + ?Sized>(
    source: &S,
    place: &Place,
    out: &mut [u64],
    tries: u32,
) -> Result<Reading, S::Error> {
    let pause = Pause::new();
    let mut retries = 0;
    loop {
        let reading = attempt::<R, S>(source, place, out)?;
        if reading.consistent || retries + 1 >= tries {
            return Ok(Reading { retries, ..reading });
        }
        retries += 1;
        pause.wait();
    }
}

/// The version word alone.
///
/// # Errors
/// Those of the source.
pub fn version<S: Source + ?Sized>(source: &S, place: &Place) -> Result<u64, S::Error> {
    let mut word = [0];
    source.copy(place.version, &mut word)?;
    Ok(word[0])
}

/// The version from which a new writer goes on, so that its first publication leaves alone the copy that `found` advertises and bears the
/// new incarnation: count 0 or 1, whichever has the other parity.
///
/// `found` may be anything: its lowest bit alone counts, and either is harmless.
pub fn take_over(found: u64, incarnation: u64) -> u64 {
    let first = ((incarnation & INCARNATION_MASK) << COUNT_BITS) | ((found & 1) ^ 1);
    first.wrapping_sub(1)
}

/// The incarnation (its lowest 24 bits) that a version bears.
pub fn incarnation(version: u64) -> u64 {
    version >> COUNT_BITS
}

/// Whether a version is of this incarnation.
pub fn is_of(version: u64, incarnation: u64) -> bool {
    self::incarnation(version) == incarnation & INCARNATION_MASK
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PLACE: Place = Place {
        version: 0,
        copies: [1, 4],
    };

    fn cells() -> Vec<AtomicU64> {
        (0..7).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_record_comes_back_and_the_copies_alternate() {
        let cells = cells();
        let mut version = 0;
        for round in 1..10 {
            publish::<Sound>(&cells, &PLACE, &mut version, &[round, round, round]);
            let mut out = [0; 3];
            let reading = read::<Sound, _>(cells.as_slice(), &PLACE, &mut out, TRIES).unwrap();
            assert!(reading.consistent);
            assert_eq!((reading.version, out), (round, [round; 3]));
        }
        assert_eq!(cells[4].load(Ordering::Relaxed), 9);
        assert_eq!(cells[1].load(Ordering::Relaxed), 8);
    }

    #[test]
    fn a_writer_that_died_inside_a_record_leaves_the_one_before() {
        let cells = cells();
        let mut version = 0;
        publish::<Sound>(&cells, &PLACE, &mut version, &[7, 7, 7]);
        // What a killed writer leaves: part of the spare copy, and no step.
        cells[1].store(8, Ordering::Relaxed);
        let mut out = [0; 3];
        assert!(
            read::<Sound, _>(cells.as_slice(), &PLACE, &mut out, 1)
                .unwrap()
                .consistent
        );
        assert_eq!(out, [7, 7, 7]);
    }

    #[test]
    fn a_new_writer_spares_the_advertised_copy_whatever_it_finds() {
        for found in [0, 1, 2, 3, u64::MAX, u64::MAX - 1, 5 << COUNT_BITS] {
            let cells = cells();
            cells[0].store(found, Ordering::Relaxed);
            let mut version = take_over(found, 6);
            publish::<Sound>(&cells, &PLACE, &mut version, &[1, 2, 3]);
            assert_ne!(version & 1, found & 1, "the other copy is written");
            assert!(is_of(version, 6));
            assert!(version & ((1 << COUNT_BITS) - 1) <= 1);
        }
        assert!(
            is_of(take_over(3, 1 << 24).wrapping_add(1), 0),
            "incarnations have 24 bits"
        );
    }

    #[test]
    fn a_place_beyond_the_cells_neither_panics_nor_writes() {
        let cells = cells();
        let place = Place {
            version: 100,
            copies: [200, 300],
        };
        let mut version = 0;
        publish::<Sound>(&cells, &place, &mut version, &[1]);
        let mut out = [9];
        read::<Sound, _>(cells.as_slice(), &place, &mut out, 2).unwrap();
        assert_eq!(out, [0]);
    }
}
