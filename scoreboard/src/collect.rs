//! Copies a whole board: first as one instant, and where its writers are too busy for that, slot by slot. Bounded in time and memory
//! whatever the writers do, dead or hostile.
//!
//! One pass is a double collect: all versions, then all records, then all versions again. A record whose version is the same before
//! and after was not touched while it was copied; if that holds for every record, the whole board stood still for an instant between the
//! two looks. The pass needs nothing of its source but [`Source::copy`], so that file and map are read by the same code.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use bytemuck::Zeroable;

use crate::latch::{self, Place, Sound, Source, TRIES};
use crate::layout::{DEATHS, DEATHS_OFFSET, GLOBAL, Geometry, LINE};
use crate::records::{ChildRecord, DEATH_WORDS, Death, GlobalRecord, MasterRecord};
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

/// The records of a slot as they were copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) master: MasterRecord,
    pub(crate) child: ChildRecord,
    /// Both whole, and copied while neither changed.
    pub(crate) consistent: bool,
}

/// A copy of the board.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) global: GlobalRecord,
    pub(crate) global_consistent: bool,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) deaths: Vec<Death>,
    pub(crate) cut: Cut,
    pub(crate) retries: u32,
}

/// Copies the board.
pub(crate) fn collect<S: Source>(source: &S, geometry: &Geometry) -> Result<Collected, S::Error> {
    let mut global = GlobalRecord::zeroed();
    let reading = latch::read::<Sound, S>(source, &GLOBAL, words_mut(&mut global), TRIES)?;
    let mut state = Collected {
        global,
        global_consistent: reading.consistent,
        pairs: Vec::new(),
        deaths: Vec::new(),
        cut: Cut::PerSlot,
        retries: reading.retries,
    };
    let mut pass = Pass::default();
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
    state.deaths = deaths(source)?;
    Ok(state)
}

/// Slots to read: those that the master ever used, as far as the file has room for them.
fn used_slots(global: &GlobalRecord, geometry: &Geometry) -> u32 {
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
type Versions = [u64; 2];

#[derive(Default)]
struct Pass {
    before: Vec<Versions>,
    after: Vec<Versions>,
}

impl Pass {
    /// One pass over the global record and the first `used` slots; says how many records changed meanwhile.
    fn whole<S: Source>(
        &mut self,
        source: &S,
        geometry: &Geometry,
        state: &mut Collected,
        used: u32,
    ) -> Result<usize, S::Error> {
        let global_before = latch::version(source, &GLOBAL)?;
        versions(source, geometry, used, &mut self.before)?;
        // Acquire: pairs with the release of each version in `latch::publish`.
        fence(Ordering::Acquire);
        let mut global = GlobalRecord::zeroed();
        latch::advertised(source, &GLOBAL, global_before, words_mut(&mut global))?;
        let mut copied = Vec::with_capacity(self.before.len());
        for (slot, versions) in (0..used).zip(&self.before) {
            copied.push(records(source, geometry, slot, *versions)?);
        }
        // Acquire: pairs with the writer's fence in `latch::publish`.
        fence(Ordering::Acquire);
        versions(source, geometry, used, &mut self.after)?;
        let mut changed = 0;
        state.global_consistent = latch::version(source, &GLOBAL)? == global_before;
        if state.global_consistent {
            state.global = global;
        } else {
            changed += 1;
        }
        for ((pair, before), after) in copied.iter_mut().zip(&self.before).zip(&self.after) {
            pair.consistent = before == after;
            changed += usize::from(!pair.consistent);
        }
        state.pairs = copied;
        Ok(changed)
    }

    /// After the last pass: reads alone what that pass did not get whole.
    fn remaining<S: Source>(
        &mut self,
        source: &S,
        geometry: &Geometry,
        state: &mut Collected,
    ) -> Result<(), S::Error> {
        if !state.global_consistent {
            let mut global = GlobalRecord::zeroed();
            let reading = latch::read::<Sound, S>(source, &GLOBAL, words_mut(&mut global), TRIES)?;
            state.global = global;
            state.global_consistent = reading.consistent;
            state.retries = state.retries.saturating_add(reading.retries);
        }
        let used = used_slots(&state.global, geometry);
        let seen = u32::try_from(state.pairs.len()).unwrap_or(u32::MAX);
        for slot in seen..used {
            state.pairs.push(records(source, geometry, slot, [0; 2])?);
        }
        for (slot, pair) in (0..).zip(&mut state.pairs) {
            if pair.consistent {
                continue;
            }
            let pause = Pause::new();
            for _ in 0..TRIES {
                *pair = one(source, geometry, slot)?;
                if pair.consistent {
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
fn one<S: Source>(source: &S, geometry: &Geometry, slot: u32) -> Result<Pair, S::Error> {
    let before = slot_versions(source, geometry, slot)?;
    // Acquire, twice: as in `Pass::whole`.
    fence(Ordering::Acquire);
    let mut pair = records(source, geometry, slot, before)?;
    fence(Ordering::Acquire);
    pair.consistent = slot_versions(source, geometry, slot)? == before;
    Ok(pair)
}

fn versions<S: Source>(
    source: &S,
    geometry: &Geometry,
    used: u32,
    to: &mut Vec<Versions>,
) -> Result<(), S::Error> {
    to.clear();
    for slot in 0..used {
        to.push(slot_versions(source, geometry, slot)?);
    }
    Ok(())
}

fn slot_versions<S: Source>(
    source: &S,
    geometry: &Geometry,
    slot: u32,
) -> Result<Versions, S::Error> {
    let of = |place: Option<Place>| match place {
        Some(place) => latch::version(source, &place),
        None => Ok(0),
    };
    Ok([of(geometry.master(slot))?, of(geometry.child(slot))?])
}

/// The advertised copies, not yet proven. The child's first: even unproven, what it completed is then not more than what it was given.
fn records<S: Source>(
    source: &S,
    geometry: &Geometry,
    slot: u32,
    [master_version, child_version]: Versions,
) -> Result<Pair, S::Error> {
    let mut pair = Pair {
        master: MasterRecord::zeroed(),
        child: ChildRecord::zeroed(),
        consistent: false,
    };
    if let Some(place) = geometry.child(slot) {
        let out = known(&mut pair.child, geometry.child_words());
        latch::advertised(source, &place, child_version, out)?;
    }
    // Acquire: the master's record is not older than the child's. Pairs with the release of the child's version, which the child publishes
    // after the master has published the dispatch.
    fence(Ordering::Acquire);
    if let Some(place) = geometry.master(slot) {
        let out = known(&mut pair.master, geometry.master_words());
        latch::advertised(source, &place, master_version, out)?;
    }
    Ok(pair)
}

/// The deaths in the ring, the latest first. An entry that is being written is left out.
fn deaths<S: Source>(source: &S) -> Result<Vec<Death>, S::Error> {
    const RING: usize = DEATHS * DEATH_WORDS;
    let first = (DEATHS_OFFSET + LINE) / 8;
    let (mut before, mut ring, mut after) = ([0; RING], [0; RING], [0; RING]);
    source.copy(first, &mut before)?;
    // Acquire, twice: pairs with the releases of `Board::append_death`.
    fence(Ordering::Acquire);
    source.copy(first, &mut ring)?;
    fence(Ordering::Acquire);
    source.copy(first, &mut after)?;
    let mut deaths: Vec<Death> = Vec::new();
    for index in 0..DEATHS {
        let start = index * DEATH_WORDS;
        let mut death = Death::zeroed();
        words_mut(&mut death).copy_from_slice(&ring[start..start + DEATH_WORDS]);
        let whole = before[start] == death.number && after[start] == death.number;
        let belongs = death
            .number
            .checked_sub(1)
            .is_some_and(|number| number % DEATHS as u64 == index as u64);
        if whole && belongs {
            deaths.push(death);
        }
    }
    deaths.sort_by_key(|death| std::cmp::Reverse(death.number));
    Ok(deaths)
}
