//! Readers against writers that never pause, that are stopped, and that are killed in the middle of a record.
#![cfg(not(loom))]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytemuck::Zeroable;
use scoreboard::{
    Board, BoardVerdict, ChildPage, ChildRecord, Cut, GlobalRecord, MapReader, Reader, Snapshot,
    read,
};
use support::player::{self, Player, child, death, master, ready};
use support::{Random, dir, global, live, spec};

/// The global record of a board with two slots in use.
fn board_word(n: u64) -> GlobalRecord {
    player::whole(n, 2)
}

/// Ends the writers when it goes, also when a reader's assertion fails: a scope waits for its threads.
struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether what is called consistent is one publication, whole. Says how many records were not proven.
fn examine(snapshot: &Snapshot) -> usize {
    let mut unproven = 0;
    if snapshot.global_consistent {
        assert_eq!(
            snapshot.global,
            board_word(snapshot.global.generation),
            "a torn global record"
        );
    } else {
        unproven += 1;
    }
    assert_eq!(snapshot.slots.len(), 2);
    for slot in &snapshot.slots {
        if !slot.consistent {
            unproven += 1;
            continue;
        }
        assert_eq!(slot.master, master(slot.master.pid), "a torn master record");
        let of_child = slot.child.unwrap();
        assert_eq!(of_child, child(of_child.queue), "a torn child record");
    }
    for death in &snapshot.deaths {
        assert_eq!(death.pid, death.number);
        assert_eq!(death.queue_id, [death.number; 7], "a torn death");
    }
    unproven
}

#[test]
fn no_reader_ever_takes_a_torn_record_for_a_whole_one() {
    let dir = dir();
    let path = dir.path().join("m.scoreboard");
    let mut board = Board::create(dir.path(), "m.scoreboard", &spec(8)).unwrap();
    board.publish_global(&board_word(0));
    let mut pages = Vec::new();
    for slot in 0..2 {
        board.adopt_child(slot, 1);
        let mut page = ChildPage::map(board.descriptor(), board.geometry(), slot, 1).unwrap();
        page.publish(&child(0));
        board.publish_master(slot, &master(0));
        pages.push(page);
    }
    let over = AtomicBool::new(false);
    let published = AtomicU64::new(0);
    let (by_file, by_map) = std::thread::scope(|scope| {
        let _end = EndOf(&over);
        scope.spawn(|| {
            let mut n = 0;
            while !over.load(Ordering::Relaxed) {
                n += 1;
                board.publish_global(&board_word(n));
                board.publish_master(0, &master(n));
                board.publish_master(1, &master(n));
                board.append_death(death(n));
                published.fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            let mut n = 0;
            while !over.load(Ordering::Relaxed) {
                n += 1;
                for page in &mut pages {
                    page.publish(&child(n));
                }
                if n.is_multiple_of(64) {
                    std::thread::yield_now();
                }
            }
        });
        let file = Reader::open(&path).unwrap();
        let map = MapReader::open(&path).unwrap();
        // Both together some 100,000 records, whatever a slow machine makes of it within the time.
        let until = Instant::now() + Duration::from_secs(20);
        let (mut by_file, mut by_map) = ([0; 2], [0; 2]);
        for _ in 0..10_000 {
            by_file[0] += 5;
            by_file[1] += examine(&file.snapshot().unwrap());
            by_map[0] += 5;
            by_map[1] += examine(&map.snapshot());
            if Instant::now() > until {
                break;
            }
        }
        (by_file, by_map)
    });
    assert!(published.load(Ordering::Relaxed) > 0);
    for [seen, unproven] in [by_file, by_map] {
        assert!(seen > 100, "{seen}");
        assert!(unproven * 10 < seen, "{unproven} of {seen} never whole");
    }
}

#[test]
fn what_is_completed_is_never_more_than_what_was_given() {
    let dir = dir();
    let path = dir.path().join("m.scoreboard");
    let mut board = Board::create(dir.path(), "m.scoreboard", &spec(8)).unwrap();
    board.publish_global(&GlobalRecord {
        slots_high_water: 1,
        ..global()
    });
    board.adopt_child(0, 1);
    let mut page = ChildPage::map(board.descriptor(), board.geometry(), 0, 1).unwrap();
    let (given, over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _end = EndOf(&over);
        scope.spawn(|| {
            let mut record = live(1, 100);
            while !over.load(Ordering::Relaxed) {
                record.dispatched += 1;
                board.publish_master(0, &record);
                given.store(record.dispatched, Ordering::Release);
                if record.dispatched.is_multiple_of(16) {
                    std::thread::yield_now();
                }
            }
        });
        scope.spawn(|| {
            let mut record = ChildRecord {
                incarnation: 1,
                ..ChildRecord::zeroed()
            };
            while !over.load(Ordering::Relaxed) {
                // All that it was given is served at once.
                record.counters.connections_completed = given.load(Ordering::Acquire);
                page.publish(&record);
                std::thread::yield_now();
            }
        });
        let reader = Reader::open(&path).unwrap();
        for _ in 0..5_000 {
            let snapshot = reader.snapshot().unwrap();
            let slot = &snapshot.slots[0];
            let completed = slot
                .child
                .map_or(0, |child| child.counters.connections_completed);
            if slot.consistent {
                assert!(completed <= slot.master.dispatched);
                assert!(!slot.books().child_lies);
            }
            assert!(slot.requests() <= slot.master.dispatched);
        }
    });
}

#[test]
#[ignore = "a master for other tests"]
fn master_that_publishes_until_it_is_killed() {
    let mut board = player::board();
    board.publish_global(&board_word(1));
    for slot in 0..2 {
        board.adopt_child(slot, 1);
        let mut page = ChildPage::map(board.descriptor(), board.geometry(), slot, 1).unwrap();
        page.publish(&child(1));
        board.publish_master(slot, &master(1));
    }
    ready();
    for n in 2.. {
        board.publish_global(&board_word(n));
        board.publish_master(0, &master(n));
        board.publish_master(1, &master(n));
        board.append_death(death(n - 1));
    }
}

#[test]
#[ignore = "a child for other tests"]
fn child_that_publishes_until_it_is_killed() {
    let mut page = player::page(0);
    page.publish(&child(1));
    ready();
    for n in 2.. {
        page.publish(&child(n));
    }
}

#[test]
fn masters_killed_in_the_middle_of_a_record_leave_a_whole_board() {
    let dir = dir();
    let path = dir.path().join("m.scoreboard");
    let mut random = Random::new(4);
    for _ in 0..20 {
        let master = Player::start("master_that_publishes_until_it_is_killed", &path);
        let alive = read(&path).unwrap();
        assert!(matches!(alive.verdict(), BoardVerdict::Alive { .. }));
        for _ in 0..random.next() % 40 {
            examine(&read(&path).unwrap());
        }
        master.kill();
        let snapshot = read(&path).unwrap();
        assert_eq!(snapshot.verdict(), BoardVerdict::Dead);
        assert_eq!(snapshot.cut, Cut::Atomic, "nobody writes any more");
        assert_eq!(examine(&snapshot), 0, "every record is whole");
    }
}

#[test]
fn a_child_that_outlives_its_master_does_not_make_it_seem_alive() {
    let dir = dir();
    let path = dir.path().join("m.scoreboard");
    let master = Player::start("master_that_publishes_until_it_is_killed", &path);
    let orphan = Player::start("child_that_publishes_until_it_is_killed", &path);
    assert!(matches!(
        read(&path).unwrap().verdict(),
        BoardVerdict::Alive { .. }
    ));
    master.kill();
    let reader = Reader::open(&path).unwrap();
    let before = reader.snapshot().unwrap();
    assert_eq!(
        before.verdict(),
        BoardVerdict::Dead,
        "its child still has the page mapped"
    );
    // The orphan goes on publishing, and it is seen to.
    let deadline = Instant::now() + Duration::from_secs(20);
    let progress = |snapshot: &Snapshot| snapshot.slots[0].child.map(|child| child.queue);
    while progress(&reader.snapshot().unwrap()) == progress(&before) {
        assert!(Instant::now() < deadline, "the orphan is not seen");
    }
    orphan.kill();
    assert_eq!(examine(&reader.snapshot().unwrap()), 0);
}

#[test]
fn a_stopped_writer_delays_no_reader() {
    let dir = dir();
    let path = dir.path().join("m.scoreboard");
    let master = Player::start("master_that_publishes_until_it_is_killed", &path);
    for _ in 0..10 {
        master.stop();
        let snapshot = read(&path).unwrap();
        assert_eq!(snapshot.cut, Cut::Atomic);
        assert_eq!(snapshot.retries, 0);
        assert_eq!(examine(&snapshot), 0);
        assert!(matches!(snapshot.verdict(), BoardVerdict::Alive { .. }));
        master.go_on();
    }
    master.kill();
}
