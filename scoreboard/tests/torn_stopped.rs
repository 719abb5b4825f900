//! The detector of torn reads: writers in processes of their own that are stopped and continued in the middle of whatever they do, and a
//! reader that checks every record, every entry of a ring and every bucket.
//!
//! Every word follows from a number, so that a mixture of two publications is seen. `TORN_READS` sets how many records and entries are
//! looked at (50 million take some minutes); the default takes some ten seconds.
#![cfg(not(loom))]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytemuck::Pod;
use scoreboard::{
    Board, ChildPage, Event, History, MapReader, MasterRecord, Phase, PhaseHistograms, Reader,
    Second, SlotState, Snapshot, histogram,
};
use support::player::{self, Player, filled, ready};
use support::{Random, dir, live};

/// Records and entries to look at, unless `TORN_READS` says otherwise.
const READS: u64 = 1_000_000;
/// The slot whose child is another process; the master alone serves the other two.
const OF_CHILD: u32 = 0;
/// The slot in which processes come and go.
const FOLDED: u32 = 2;
/// Slots in use.
const SLOTS: u64 = 3;

#[test]
#[ignore = "a master for other tests"]
fn master_that_never_pauses() {
    let mut board = player::board();
    board.publish_global(&player::whole(1, SLOTS));
    for slot in 0..FOLDED {
        board.adopt_child(slot, 1);
        let page = ChildPage::map(board.descriptor(), board.geometry(), slot, 1);
        page.unwrap().publish(&player::child(1));
        board.publish_master(slot, &player::master(1));
    }
    let mut earlier = PhaseHistograms::default();
    ready();
    for n in 2.. {
        board.publish_global(&player::whole(n, SLOTS));
        for slot in 0..FOLDED {
            board.publish_master(slot, &player::master(n));
        }
        // Each is numbered by the board, from 1.
        board.append_death(filled(n - 1));
        board.append_second(filled(n - 1));
        board.append_event(filled(n - 1));
        // Now and then, or no reader would find that slot still.
        if n.is_multiple_of(32) {
            live_and_die(&mut board, &mut earlier, n / 32);
        }
    }
}

/// A process of the folded slot: it observes a duration of each bucket of each phase, and dies.
fn live_and_die(board: &mut Board, earlier: &mut PhaseHistograms, incarnation: u64) {
    let mut record = MasterRecord {
        histogram_copy: incarnation & 1,
        ..live(incarnation, incarnation)
    };
    board.adopt_child(FOLDED, incarnation);
    board.publish_master(FOLDED, &record);
    let page = ChildPage::map(board.descriptor(), board.geometry(), FOLDED, incarnation);
    let mut page = page.unwrap();
    for phase in &Phase::ALL[1..] {
        for bucket in 0..histogram::PHASE_BUCKETS {
            page.observe(*phase, 16_000 << (2 * bucket));
        }
    }
    *earlier = earlier.plus(&board.read_child_histograms(FOLDED));
    record.state = SlotState::Empty.word();
    record.histogram_copy = incarnation + 1;
    board.write_master_histograms(FOLDED, record.histogram_copy, earlier);
    board.publish_master(FOLDED, &record);
}

#[test]
#[ignore = "a child for other tests"]
fn child_that_never_pauses() {
    let mut page = player::page(OF_CHILD);
    ready();
    for n in 2.. {
        page.publish(&player::child(n));
    }
}

/// What was looked at, and how much of it was proven whole.
#[derive(Debug, Default)]
struct Seen {
    looked: u64,
    proven: u64,
}

impl Seen {
    fn snapshot(&mut self, snapshot: &Snapshot) {
        self.looked += 1 + 2 * SLOTS;
        if snapshot.global_consistent {
            let n = snapshot.global.generation;
            assert_eq!(
                snapshot.global,
                player::whole(n, SLOTS),
                "a torn global record"
            );
            self.proven += 1;
        }
        assert_eq!(snapshot.slots.len() as u64, SLOTS);
        for slot in snapshot.slots.iter().filter(|slot| slot.consistent) {
            self.proven += 2;
            if slot.index == FOLDED {
                buckets(&slot.master, slot.histograms.as_deref().unwrap());
                continue;
            }
            let of_child = slot.child.unwrap();
            assert_eq!(
                slot.master,
                player::master(slot.master.pid),
                "a torn master's record"
            );
            assert_eq!(
                of_child,
                player::child(of_child.queue),
                "a torn child's record"
            );
        }
        self.entries(&snapshot.deaths, |death| death.number);
    }

    fn history(&mut self, history: &History) {
        self.entries::<Second>(&history.seconds, |second| second.number);
        self.entries::<Event>(&history.events, |event| event.number);
    }

    fn entries<T: Pod + PartialEq + std::fmt::Debug>(&mut self, all: &[T], number: fn(&T) -> u64) {
        for entry in all {
            assert_eq!(*entry, filled(number(entry)), "a torn entry");
        }
        self.looked += all.len() as u64;
        self.proven += all.len() as u64;
    }
}

/// Every process observed each bucket once: each stands at the number of those that have ended, or one more while another lives.
fn buckets(master: &MasterRecord, histograms: &PhaseHistograms) {
    let latest = master.incarnation;
    let lives = master.state == SlotState::Live.word();
    let possible = latest - u64::from(lives)..=latest;
    for count in histograms.words() {
        assert!(
            possible.contains(count),
            "of {possible:?} processes, a bucket holds {count}: lost or doubled"
        );
    }
}

/// Whether a stopped child stands in the middle of a record: the copy that is not advertised is a mixture.
fn is_in_mid_record(path: &Path) -> bool {
    let bytes = std::fs::read(path).unwrap();
    let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    let page = usize::try_from(word(9 * 8)).unwrap();
    let spare = if word(page) & 1 == 1 { 128 } else { 2112 };
    // The words behind the incarnation.
    let first = word(page + spare + 8);
    (1..96).any(|n| word(page + spare + n * 8) != first)
}

#[test]
fn writers_that_are_stopped_anywhere_never_show_a_torn_record_entry_or_bucket() {
    let wanted = std::env::var("TORN_READS").map_or(READS, |number| number.parse().unwrap());
    let dir = dir();
    let path = dir.path().join("m.scoreboard");
    let master = Player::start("master_that_never_pauses", &path);
    let child = Player::start("child_that_never_pauses", &path);
    let over = AtomicBool::new(false);
    let mut seen = Seen::default();
    let (stops, in_mid_record) = std::thread::scope(|scope| {
        let stopper = scope.spawn(|| {
            let (mut random, mut stops, mut in_mid_record) = (Random::new(5), 0, 0);
            while !over.load(Ordering::Relaxed) {
                let victim = if random.next().is_multiple_of(2) {
                    &master
                } else {
                    &child
                };
                victim.stop();
                stops += 1;
                if std::ptr::eq(victim, &child) {
                    in_mid_record += u64::from(is_in_mid_record(&path));
                }
                // Not to wait for anything: how long a writer stands shall vary.
                std::thread::sleep(Duration::from_micros(random.next() % 3000));
                victim.go_on();
                std::thread::sleep(Duration::from_micros(random.next() % 3000));
            }
            (stops, in_mid_record)
        });
        let end = EndOf(&over);
        let (file, map) = (
            Reader::open(&path).unwrap(),
            MapReader::open(&path).unwrap(),
        );
        for round in 0_u64.. {
            if seen.looked >= wanted {
                break;
            }
            if round.is_multiple_of(8) {
                seen.snapshot(&file.detailed().unwrap());
            } else {
                seen.snapshot(&map.detailed());
            }
            if round.is_multiple_of(64) {
                seen.history(&file.history().unwrap());
                seen.history(&map.history());
            }
        }
        drop(end);
        stopper.join().unwrap()
    });
    child.kill();
    master.kill();
    eprintln!(
        "{seen:?}; writers stopped {stops} times, the child {in_mid_record} times in the middle of a record"
    );
    assert!(seen.proven * 2 > seen.looked, "{seen:?}");
    assert!(
        in_mid_record > 0,
        "of {stops} stops none was in the middle of a record"
    );
}

/// Ends the stopper when it goes, also when an assertion fails: a scope waits for its threads.
struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
