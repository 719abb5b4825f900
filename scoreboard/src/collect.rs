//! Copies a whole board: first as one instant, and where its writers are too busy for that, slot by slot. Bounded in time and memory
//! whatever the writers do, dead or hostile.
//!
//! One pass is a double collect: all versions, then all records, then all versions again. A record whose version is the same before
//! and after was not touched while it was copied; if that holds for every record, the whole board stood still for an instant between the
//! two looks. The pass needs nothing of its source but [`Source::copy`], so that file and map are read by the same code.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use bytemuck::Zeroable;

use crate::histogram::PhaseHistograms;
use crate::latch::{self, Place, Sound, Source, Span, TRIES};
use crate::layout::{DEATH_RING, GLOBAL, Geometry};
use crate::records::{ChildRecord, Death, GlobalRecord};
use crate::ring;
use crate::snapshot::Slot;
use crate::sync::{Ordering, Pause, fence};

/// Most passes over the whole board.
const PASSES: u32 = 8;
/// Most time for them.
const PASSES_TIME: Duration = Duration::from_millis(20);
/// With more records changing during one pass, another one will not find the board still.
const HOPELESS: usize = 16;

/// What a copy of the board is worth as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Every record is as it stood at one instant.
    Atomic,
    /// Every slot is as it stood at an instant of its own.
    PerSlot,
}

impl Cut {
    /// The name in every output.
    pub fn name(self) -> &'static str {
        match self {
            Cut::Atomic => "atomic",
            Cut::PerSlot => "per-slot",
        }
    }
}

/// How much to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The records.
    Records,
    /// The histograms of the phases as well.
    Histograms,
}

/// What is kept of a slot.
pub(crate) trait Kept: Sized {
    /// Before it is read.
    fn unread(index: u32) -> Self;
    /// Its number.
    fn index(&self) -> u32;
    /// Whether what was read is proven.
    fn is_consistent(&self) -> bool;
    /// Notes whether it is.
    fn prove(&mut self, consistent: bool);
    /// Reads the advertised copies of these slots' records, not yet proven; of each slot the child's first.
    fn read<S: Source>(
        source: &S,
        geometry: &Geometry,
        places: &[Places],
        versions: &[Versions],
        to: &mut [Self],
        detail: Detail,
    ) -> Result<(), S::Error>;
}

/// A copy of the board.
#[derive(Debug)]
pub(crate) struct Collected<T> {
    pub(crate) global: GlobalRecord,
    pub(crate) global_consistent: bool,
    /// Slots ever used. Until they are settled, whole ones have a child's record each, whether or not it counts.
    pub(crate) slots: Vec<T>,
    pub(crate) cut: Cut,
    pub(crate) retries: u32,
}

/// Copies the board.
pub(crate) fn collect<S: Source, T: Kept>(
    source: &S,
    geometry: &Geometry,
    detail: Detail,
) -> Result<Collected<T>, S::Error> {
    let mut global = GlobalRecord::zeroed();
    let reading = latch::read::<Sound, S>(source, &GLOBAL, words_mut(&mut global), TRIES)?;
    let mut state = Collected {
        global,
        global_consistent: reading.consistent,
        slots: Vec::new(),
        cut: Cut::PerSlot,
        retries: reading.retries,
    };
    let mut pass = Pass::new(detail);
    let begun = Instant::now();
    for number in 1..=PASSES {
        let used = used_slots(&state.global, geometry);
        let changed = pass.whole(source, geometry, &mut state, used)?;
        // A slot that was first used meanwhile is part of the board, too.
        if changed == 0 && used_slots(&state.global, geometry) <= used {
            state.cut = Cut::Atomic;
            break;
        }
        state.retries = state.retries.saturating_add(1);
        if changed > HOPELESS || begun.elapsed() > PASSES_TIME || number == PASSES {
            break;
        }
    }
    if state.cut == Cut::PerSlot {
        pass.remaining(source, geometry, &mut state)?;
    }
    Ok(state)
}

/// The last deaths, the latest first.
pub(crate) fn deaths<S: Source>(source: &S) -> Result<Vec<Death>, S::Error> {
    ring::collect::<Sound, _, _>(source, &DEATH_RING)
}

impl Kept for Slot {
    fn unread(index: u32) -> Slot {
        Slot::unread(index)
    }

    fn index(&self) -> u32 {
        self.index
    }

    fn is_consistent(&self) -> bool {
        self.consistent
    }

    fn prove(&mut self, consistent: bool) {
        self.consistent = consistent;
    }

    fn read<S: Source>(
        source: &S,
        geometry: &Geometry,
        places: &[Places],
        versions: &[Versions],
        to: &mut [Slot],
        detail: Detail,
    ) -> Result<(), S::Error> {
        records(source, geometry, places, versions, to, detail)
    }
}

/// Slots to read: those that the master ever used, as far as the file has room for them.
pub(crate) fn used_slots(global: &GlobalRecord, geometry: &Geometry) -> u32 {
    u32::try_from(global.slots_high_water)
        .unwrap_or(u32::MAX)
        .min(geometry.slots())
}

/// Words of a record of the file that we know; a record of an older minor version is shorter, and what it lacks stays 0.
fn words_mut<T: bytemuck::Pod>(record: &mut T) -> &mut [u64] {
    bytemuck::cast_slice_mut(std::slice::from_mut(record))
}

fn known<T: bytemuck::Pod>(record: &mut T, words: usize) -> &mut [u64] {
    let all = words_mut(record);
    let length = all.len().min(words);
    &mut all[..length]
}

/// Versions of a slot's two records: master's, child's.
pub(crate) type Versions = [u64; 2];

/// Where a slot's two records stand: master's, child's.
pub(crate) type Places = [Place; 2];

struct Pass {
    detail: Detail,
    places: Vec<Places>,
    before: Vec<Versions>,
    after: Vec<Versions>,
}

impl Pass {
    fn new(detail: Detail) -> Pass {
        Pass {
            detail,
            places: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
        }
    }

    /// One pass over the global record and the first `used` slots; says how many records changed meanwhile.
    fn whole<S: Source, T: Kept>(
        &mut self,
        source: &S,
        geometry: &Geometry,
        state: &mut Collected<T>,
        used: u32,
    ) -> Result<usize, S::Error> {
        let places = |slot| Some([geometry.master(slot)?, geometry.child(slot)?]);
        self.places = (0..used).map_while(places).collect();
        let global_before = latch::version(source, &GLOBAL)?;
        versions(source, &self.places, &mut self.before)?;
        // Acquire: pairs with the release of each version in `latch::publish`.
        fence(Ordering::Acquire);
        let mut global = GlobalRecord::zeroed();
        source.copy(GLOBAL.copy(global_before), words_mut(&mut global))?;
        state.slots.clear();
        state.slots.extend((0..used).map(T::unread));
        T::read(
            source,
            geometry,
            &self.places,
            &self.before,
            &mut state.slots,
            self.detail,
        )?;
        // Acquire: pairs with the writer's fence in `latch::publish`.
        fence(Ordering::Acquire);
        versions(source, &self.places, &mut self.after)?;
        let mut changed = 0;
        state.global_consistent = latch::version(source, &GLOBAL)? == global_before;
        if state.global_consistent {
            state.global = global;
        } else {
            changed += 1;
        }
        for ((slot, before), after) in state.slots.iter_mut().zip(&self.before).zip(&self.after) {
            slot.prove(before == after);
            changed += usize::from(before != after);
        }
        Ok(changed)
    }

    /// After the last pass: reads alone what that pass did not get whole.
    fn remaining<S: Source, T: Kept>(
        &mut self,
        source: &S,
        geometry: &Geometry,
        state: &mut Collected<T>,
    ) -> Result<(), S::Error> {
        if !state.global_consistent {
            let mut global = GlobalRecord::zeroed();
            let reading = latch::read::<Sound, S>(source, &GLOBAL, words_mut(&mut global), TRIES)?;
            state.global = global;
            state.global_consistent = reading.consistent;
            state.retries = state.retries.saturating_add(reading.retries);
        }
        let used = used_slots(&state.global, geometry);
        let seen = u32::try_from(state.slots.len()).unwrap_or(u32::MAX);
        state.slots.extend((seen..used).map(T::unread));
        for slot in state.slots.iter_mut().filter(|slot| !slot.is_consistent()) {
            let pause = Pause::new();
            for _ in 0..TRIES {
                one(source, geometry, slot, self.detail)?;
                if slot.is_consistent() {
                    break;
                }
                state.retries = state.retries.saturating_add(1);
                pause.wait();
            }
        }
        Ok(())
    }
}

/// Both records of one slot, and whether neither changed meanwhile: then requests in progress are exact for that instant.
fn one<S: Source, T: Kept>(
    source: &S,
    geometry: &Geometry,
    slot: &mut T,
    detail: Detail,
) -> Result<(), S::Error> {
    let index = slot.index();
    let (Some(master), Some(child)) = (geometry.master(index), geometry.child(index)) else {
        return Ok(());
    };
    let places = [[master, child]];
    let (mut before, mut after) = (Vec::new(), Vec::new());
    versions(source, &places, &mut before)?;
    // Acquire, twice: as in `Pass::whole`.
    fence(Ordering::Acquire);
    let it = std::slice::from_mut(slot);
    T::read(source, geometry, &places, &before, it, detail)?;
    fence(Ordering::Acquire);
    versions(source, &places, &mut after)?;
    slot.prove(before == after);
    Ok(())
}

/// The versions of these slots' records.
fn versions<S: Source>(
    source: &S,
    places: &[Places],
    to: &mut Vec<Versions>,
) -> Result<(), S::Error> {
    to.clear();
    to.resize(places.len(), [0; 2]);
    for which in [0, 1] {
        let mut spans: Vec<Span<'_>> = places
            .iter()
            .zip(to.iter_mut())
            .map(|(places, versions)| Span {
                word: places[which].version,
                out: std::slice::from_mut(&mut versions[which]),
            })
            .collect();
        source.copy_many(&mut spans)?;
    }
    Ok(())
}

/// The advertised copies, not yet proven. The children's first: even unproven, what a child completed is then not more than what it was
/// given.
pub(crate) fn records<S: Source>(
    source: &S,
    geometry: &Geometry,
    places: &[Places],
    versions: &[Versions],
    to: &mut [Slot],
    detail: Detail,
) -> Result<(), S::Error> {
    let at = |which: usize| {
        places
            .iter()
            .zip(versions)
            .map(move |(places, versions)| places[which].copy(versions[which]))
    };
    let mut spans: Vec<Span<'_>> = at(1)
        .zip(to.iter_mut())
        .map(|(word, slot)| Span {
            word,
            out: known(
                slot.child.get_or_insert_with(ChildRecord::zeroed),
                geometry.child_words(),
            ),
        })
        .collect();
    source.copy_many(&mut spans)?;
    // Acquire: no master's record is older than its child's. Pairs with the release of the child's version, which the child publishes
    // after the master has published the dispatch.
    fence(Ordering::Acquire);
    let mut spans: Vec<Span<'_>> = at(0)
        .zip(to.iter_mut())
        .map(|(word, slot)| Span {
            word,
            out: known(&mut slot.master, geometry.master_words()),
        })
        .collect();
    source.copy_many(&mut spans)?;
    match detail {
        Detail::Records => Ok(()),
        Detail::Histograms => histograms(source, geometry, to),
    }
}

/// The histograms of slots whose records have just been copied, and are proven by the same versions: those of earlier processes from the
/// copy that the master's record names, those of the process in the slot if its record counts.
fn histograms<S: Source>(source: &S, geometry: &Geometry, to: &mut [Slot]) -> Result<(), S::Error> {
    let mut rows: Vec<PhaseHistograms> = vec![PhaseHistograms::default(); to.len()];
    let mut sum: Vec<PhaseHistograms> = rows.clone();
    for earlier in [true, false] {
        let mut spans = Vec::with_capacity(to.len());
        for (slot, row) in to.iter().zip(&mut rows) {
            let word = if earlier {
                geometry.master_histograms(slot.index, slot.master.histogram_copy)
            } else {
                geometry.child_histograms(slot.index)
            };
            let Some(word) = word else {
                return Ok(());
            };
            let out = row.words_mut();
            spans.push(Span { word, out });
        }
        // Of the two copies of a slot either may count, so that the places are in order slot by slot all the same.
        source.copy_many(&mut spans)?;
        for ((slot, row), sum) in to.iter().zip(&rows).zip(&mut sum) {
            if earlier || slot.child_counts() {
                *sum = sum.plus(row);
            }
        }
    }
    for (slot, sum) in to.iter_mut().zip(sum) {
        slot.histograms = Some(Box::new(sum));
    }
    Ok(())
}
