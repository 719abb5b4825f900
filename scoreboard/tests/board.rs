//! A board from creation to post-mortem, through the crate's public face.
#![cfg(not(loom))]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use scoreboard::{
    Acc, Board, BoardVerdict, ChildPage, ChildRecord, CreateError, Cut, Death, GlobalRecord, Lock,
    MapReader, MasterBooks, MasterRecord, MilterState, Reader, SlotState, Snapshot, Spec,
    encode_end, liveness, read,
};
use support::{dir, empty, global, live, spec};

#[test]
fn a_new_board_is_complete_locked_and_alive() {
    let dir = dir();
    let board = Board::create(dir.path(), "policy.scoreboard", &spec(16)).unwrap();
    let path = dir.path().join("policy.scoreboard");
    let snapshot = read(&path).unwrap();
    assert_eq!(snapshot.cut, Cut::Atomic);
    assert!(snapshot.slots.is_empty() && snapshot.deaths.is_empty());
    assert_eq!(snapshot.liveness.lock, Lock::Held);
    assert_eq!(snapshot.liveness.same_boot, Some(true));
    assert_eq!(snapshot.liveness.same_pid_namespace, Some(true));
    assert_eq!(snapshot.verdict(), BoardVerdict::Alive { hung: false });
    assert_eq!(snapshot.header.master_pid, u64::from(std::process::id()));
    assert_eq!(snapshot.header, *board.header());
    assert_eq!(snapshot.header.previous_instance, [3, 4]);
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(meta.len(), board.geometry().file_size());
    assert_eq!(meta.permissions().mode() & 0o777, 0o640);
    assert!(meta.blocks() * 512 >= meta.len(), "every byte is allocated");
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
    assert_eq!(names.len(), 1, "nothing else is left: {names:?}");
}

/// The brief form has the numbers of the whole one, by file and by map, and is proven as that is.
fn brief_says_the_same(path: &Path, whole: &Snapshot) {
    let (reader, map) = (Reader::open(path).unwrap(), MapReader::open(path).unwrap());
    for brief in [reader.brief().unwrap(), map.brief()] {
        assert_eq!(brief.slots, whole.briefs());
        assert_eq!((brief.cut, brief.global), (whole.cut, whole.global));
        assert_eq!(brief.verdict(), whole.verdict());
    }
}

#[test]
fn what_is_published_is_what_is_read_by_file_and_by_map() {
    let dir = dir();
    let mut board = Board::create(dir.path(), "m.scoreboard", &spec(8)).unwrap();
    let path = dir.path().join("m.scoreboard");
    board.adopt_child(1, 7);
    board.publish_master(
        1,
        &MasterRecord {
            dispatched: 12,
            returned: 1,
            dispatched_before: 100,
            returned_before: 2,
            lost_connections: 3,
            processes: 2,
            base: scoreboard::Counters {
                connections_completed: 95,
                messages_started: 50,
                verdicts: [40, 1, 2, 3, 0, 0],
                messages_aborted: 3,
                ..Default::default()
            },
            lost_messages: 1,
            ..live(7, 4242)
        },
    );
    let mut page = ChildPage::map(board.descriptor(), board.geometry(), 1, 7).unwrap();
    let mut child = ChildRecord {
        incarnation: 7,
        ..empty()
    };
    child.counters.connections_completed = 9;
    child.counters.messages_started = 5;
    child.counters.verdicts[0] = 4;
    child.queue = 1;
    page.publish(&child);
    board.publish_global(&GlobalRecord {
        accepted: 110,
        rejected: 1,
        waiting: 0,
        slots_high_water: 2,
        ..global()
    });
    let map = MapReader::open(&path).unwrap();
    for snapshot in [read(&path).unwrap(), map.snapshot()] {
        assert_eq!(snapshot.cut, Cut::Atomic);
        assert_eq!(snapshot.state(), MilterState::Running);
        assert_eq!(snapshot.slots.len(), 2);
        assert_eq!(snapshot.slots[0].state(), SlotState::Free);
        let slot = &snapshot.slots[1];
        assert_eq!(slot.child, Some(child));
        assert_eq!(
            slot.acc(),
            Acc {
                process: 11,
                slot: 109,
                processes: 2
            }
        );
        assert_eq!((slot.requests(), snapshot.requests()), (2, 2));
        assert_eq!((slot.messages(), snapshot.messages()), (50, 50));
        assert_eq!(snapshot.in_progress(), 1);
        assert_eq!(snapshot.queue(), 1);
        assert_eq!(snapshot.counters().connections_completed, 104);
        assert_eq!(snapshot.connections(), 109);
        let books = snapshot.books();
        assert!(books.is_balanced(), "{books:?}");
        assert_eq!(books.master(), MasterBooks::Balanced);
        brief_says_the_same(&path, &snapshot);
        let brief = &map.brief().slots[1];
        assert_eq!((brief.requests, brief.messages), (2, 50));
        assert_eq!(brief.process.map(|process| process.queue), Some(1));
    }
    assert_eq!(board.read_child(1), child);
    assert_eq!(board.read_child(99), empty());
}

#[test]
fn a_child_of_another_incarnation_counts_as_absent_and_a_liar_is_clamped() {
    let dir = dir();
    let mut board = Board::create(dir.path(), "m.scoreboard", &spec(8)).unwrap();
    let path = dir.path().join("m.scoreboard");
    board.publish_global(&GlobalRecord {
        slots_high_water: 1,
        accepted: 5,
        ..global()
    });
    board.adopt_child(0, 1);
    let mut page = ChildPage::map(board.descriptor(), board.geometry(), 0, 1).unwrap();
    let mut liar = ChildRecord {
        incarnation: 1,
        ..empty()
    };
    liar.counters.connections_completed = u64::MAX;
    liar.counters.verdicts = [u64::MAX; 6];
    page.publish(&liar);
    let record = MasterRecord {
        dispatched: 5,
        ..live(1, 10)
    };
    board.publish_master(0, &record);
    let snapshot = read(&path).unwrap();
    assert_eq!(snapshot.requests(), 0, "never below zero, never wrapped");
    assert_eq!(snapshot.counters().connections_completed, 5);
    assert_eq!(snapshot.messages(), u64::MAX);
    assert!(snapshot.slots[0].books().child_lies);
    assert_eq!(snapshot.books().unbalanced, [0]);
    brief_says_the_same(&path, &snapshot);

    // The next process: until it has its page, its record is absent; then empty.
    board.publish_master(
        0,
        &MasterRecord {
            dispatched: 0,
            dispatched_before: 5,
            lost_connections: 5,
            ..live(2, 11)
        },
    );
    let snapshot = read(&path).unwrap();
    assert_eq!(snapshot.slots[0].child, None);
    assert!(snapshot.books().is_balanced());
    brief_says_the_same(&path, &snapshot);
    assert!(
        ChildPage::map(board.descriptor(), board.geometry(), 0, 2).is_err(),
        "the page is still of process 1"
    );
    board.adopt_child(0, 2);
    assert!(ChildPage::map(board.descriptor(), board.geometry(), 0, 2).is_ok());
    assert!(ChildPage::map(board.descriptor(), board.geometry(), 99, 2).is_err());
    assert_eq!(read(&path).unwrap().slots[0].child.unwrap().incarnation, 2);
}

#[test]
fn an_empty_slot_shows_no_process_and_keeps_its_history() {
    let dir = dir();
    let mut board = Board::create(dir.path(), "m.scoreboard", &spec(8)).unwrap();
    board.publish_global(&GlobalRecord {
        slots_high_water: 1,
        ..global()
    });
    board.adopt_child(0, 1);
    board.publish_master(
        0,
        &MasterRecord {
            state: SlotState::Empty.word(),
            dispatched: 0,
            dispatched_before: 6,
            processes: 1,
            ..live(1, 0)
        },
    );
    let snapshot = read(&dir.path().join("m.scoreboard")).unwrap();
    let slot = &snapshot.slots[0];
    assert!(slot.is_empty() && slot.child.is_none());
    assert_eq!(
        slot.acc(),
        Acc {
            process: 0,
            slot: 6,
            processes: 1
        }
    );
    assert_eq!(slot.requests(), 0);
}

#[test]
fn the_death_ring_keeps_the_last_31_latest_first() {
    let dir = dir();
    let mut board = Board::create(dir.path(), "m.scoreboard", &spec(8)).unwrap();
    let path = dir.path().join("m.scoreboard");
    for pid in 1..=40 {
        board.append_death(Death {
            pid,
            end: encode_end(None, Some(9)),
            number: 999,
            ..bytemuck::Zeroable::zeroed()
        });
    }
    let snapshot = read(&path).unwrap();
    let pids: Vec<u64> = snapshot.deaths.iter().map(|death| death.pid).collect();
    assert_eq!(pids, (10..=40).rev().collect::<Vec<_>>());
    assert_eq!(snapshot.deaths[0].number, 40);
}

#[test]
fn the_verdict_follows_lock_boot_and_state() {
    let dir = dir();
    let path = dir.path().join("m.scoreboard");
    let mut board = Board::create(dir.path(), "m.scoreboard", &spec(8)).unwrap();
    let now = liveness::boot_time_ns();
    board.publish_global(&GlobalRecord {
        heartbeat_ns: now,
        ..global()
    });
    let mut snapshot = read(&path).unwrap();
    assert_eq!(snapshot.verdict(), BoardVerdict::Alive { hung: false });
    snapshot.now_ns = now + 6_000_000_000;
    assert_eq!(snapshot.verdict(), BoardVerdict::Alive { hung: true });
    drop(board);
    let mut snapshot = read(&path).unwrap();
    assert_eq!(snapshot.verdict(), BoardVerdict::Dead);
    snapshot.liveness.same_boot = Some(false);
    assert_eq!(snapshot.verdict(), BoardVerdict::Stale);
    snapshot.global.state = MilterState::Stopped.word();
    assert_eq!(snapshot.verdict(), BoardVerdict::StoppedClean);
}

#[test]
fn a_board_made_anew_replaces_the_old_one_and_old_readers_notice() {
    let dir = dir();
    let path = dir.path().join("m.scoreboard");
    let first = Board::create(dir.path(), "m.scoreboard", &spec(8)).unwrap();
    let reader = Reader::open(&path).unwrap();
    assert!(!reader.is_replaced());
    let second = Board::create(dir.path(), "m.scoreboard", &spec(8)).unwrap();
    assert!(reader.is_replaced());
    assert_eq!(reader.snapshot().unwrap().header, *first.header());
    assert_ne!(first.header().instance, second.header().instance);
    // The first master's clean-up leaves the second one's board alone.
    first.remove_file();
    first.retire_file(&dir.path().join("last")).unwrap();
    assert_eq!(read(&path).unwrap().header, *second.header());
    second
        .retire_file(&dir.path().join("m.scoreboard.last"))
        .unwrap();
    assert!(read(&path).unwrap_err().is_missing());
    assert!(read(&dir.path().join("m.scoreboard.last")).is_ok());
}

#[test]
fn a_repaired_header_reads_again() {
    let dir = dir();
    let path = dir.path().join("m.scoreboard");
    let board = Board::create(dir.path(), "m.scoreboard", &spec(8)).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0x41; 512], 0).unwrap();
    assert!(read(&path).is_err());
    board.repair_header();
    assert_eq!(read(&path).unwrap().header, *board.header());
}

#[test]
fn leftovers_of_dead_makers_go_and_those_of_live_ones_stay() {
    let dir = dir();
    let dead = dir.path().join(".m.scoreboard.0123456789abcdef.new");
    let others = dir.path().join(".n.scoreboard.0123456789abcdef.new");
    fs::write(&dead, "half a board").unwrap();
    fs::write(&others, "not ours").unwrap();
    let maker = Board::create(dir.path(), "m.scoreboard", &spec(8)).unwrap();
    assert!(!dead.exists() && others.exists());
    let held = dir.path().join(".m.scoreboard.fedcba9876543210.new");
    fs::rename(dir.path().join("m.scoreboard"), &held).unwrap();
    Board::create(dir.path(), "m.scoreboard", &spec(8)).unwrap();
    assert!(held.exists(), "its maker holds the lock");
    drop(maker);
    Board::create(dir.path(), "m.scoreboard", &spec(8)).unwrap();
    assert!(!held.exists());
}

#[test]
fn a_planted_link_is_replaced_and_never_followed() {
    let dir = dir();
    let victim = dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, dir.path().join("m.scoreboard")).unwrap();
    assert!(matches!(
        read(&dir.path().join("m.scoreboard")),
        Err(scoreboard::ReadError::Open(..))
    ));
    let _board = Board::create(dir.path(), "m.scoreboard", &spec(8)).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert!(read(&dir.path().join("m.scoreboard")).is_ok());
    let real = dir.path().join("real");
    fs::create_dir(&real).unwrap();
    let link = dir.path().join("link");
    symlink(&real, &link).unwrap();
    assert!(matches!(
        Board::create(&link, "m.scoreboard", &spec(8)),
        Err(CreateError::Directory(..))
    ));
}

#[test]
fn impossible_wishes_are_refused() {
    let dir = dir();
    for name in ["", ".hidden", "a/b", ".."] {
        assert!(matches!(
            Board::create(dir.path(), name, &spec(8)),
            Err(CreateError::Spec(_))
        ));
    }
    for capacity in [0, u32::MAX] {
        assert!(matches!(
            Board::create(dir.path(), "m.scoreboard", &spec(capacity)),
            Err(CreateError::Spec(_))
        ));
    }
    let unknown_group = Spec {
        group: Some(u32::MAX - 1),
        ..spec(8)
    };
    // Root may give a file to any group; everybody else gets an error and leaves nothing.
    if Board::create(dir.path(), "m.scoreboard", &unknown_group).is_err() {
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn who_leaves_closes_the_lock_and_leaves_the_file() {
    let dir = dir();
    let path = dir.path().join("m.scoreboard");
    let board = Board::create(dir.path(), "m.scoreboard", &spec(8)).unwrap();
    let descriptors = || {
        fs::read_dir("/proc/self/fd")
            .unwrap()
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .filter(|target| target.starts_with(dir.path()))
            .count()
    };
    assert_eq!(descriptors(), 3, "directory, data, lock");
    board.leave();
    assert_eq!(descriptors(), 0);
    assert_eq!(read(&path).unwrap().liveness.lock, Lock::Free);
}

#[test]
fn every_slot_of_a_large_board_is_read_at_its_own_place() {
    let dir = dir();
    let path = dir.path().join("m.scoreboard");
    let mut board = Board::create(dir.path(), "m.scoreboard", &spec(1024)).unwrap();
    board.publish_global(&GlobalRecord {
        slots_high_water: 1024,
        ..global()
    });
    for slot in 0..1024 {
        let number = u64::from(slot);
        let rounds = number % 3;
        for incarnation in 1..=rounds {
            board.adopt_child(slot, incarnation);
        }
        let mut record = live(rounds, 1000 + number);
        for _ in 0..=number % 2 {
            record.dispatched += number;
            board.publish_master(slot, &record);
        }
    }
    for snapshot in [
        read(&path).unwrap(),
        MapReader::open(&path).unwrap().snapshot(),
    ] {
        assert_eq!(snapshot.cut, Cut::Atomic);
        assert_eq!(snapshot.slots.len(), 1024);
        for (number, slot) in (0..).zip(&snapshot.slots) {
            assert_eq!(u64::from(slot.index), number);
            assert_eq!(slot.master.pid, 1000 + number);
            assert_eq!(slot.acc().process, number * (1 + number % 2));
            let incarnation = slot.child.map(|child| child.incarnation);
            assert_eq!(incarnation, (number % 3 != 0).then_some(number % 3));
        }
        brief_says_the_same(&path, &snapshot);
    }
}
