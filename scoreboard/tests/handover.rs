//! A board that another program takes up goes on where it was; anything else than a living board is refused.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use bytemuck::Zeroable;
use scoreboard::{
    Board, BoardVerdict, ChildPage, ChildRecord, Descriptors, GlobalRecord, MasterRecord,
    MilterState, Phase, Reader, SlotState, Spec,
};

fn make(dir: &Path, capacity: u32) -> Board {
    let spec = Spec {
        capacity,
        mode: 0o600,
        group: None,
        previous_instance: [0; 2],
    };
    Board::create(dir, "a.scoreboard", &spec).unwrap()
}

/// Copies, as an exec keeps them.
fn copies(board: &Board) -> Descriptors<OwnedFd> {
    let Descriptors { dir, data, lock } = board.descriptors();
    let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
    Descriptors {
        dir: copy(dir),
        data: copy(data),
        lock: copy(lock),
    }
}

fn global(generation: u64) -> GlobalRecord {
    GlobalRecord {
        state: MilterState::Running.word(),
        generation,
        slots_high_water: 2,
        heartbeat_ns: scoreboard::liveness::boot_time_ns(),
        ..Zeroable::zeroed()
    }
}

fn live(incarnation: u64) -> MasterRecord {
    MasterRecord {
        state: SlotState::Live.word(),
        incarnation,
        pid: 7,
        dispatched: 9,
        ..Zeroable::zeroed()
    }
}

#[test]
fn a_board_goes_on_with_its_instance_its_lock_and_its_rings() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.scoreboard");
    let mut board = make(dir.path(), 4);
    for generation in 1..=3 {
        board.publish_global(&global(generation));
        board.append_event(Zeroable::zeroed());
    }
    board.publish_master(1, &live(5));
    let reader = Reader::open(&path).unwrap();
    let (fds, handed) = (copies(&board), board.hand_over(2));
    // As an exec: the descriptors live on in the other program, everything else is gone.
    board.leave();
    let mut board = Board::take_up(fds, &handed).unwrap();
    assert!(board.is_of_this_layout());
    assert_eq!(reader.snapshot().unwrap().global.generation, 3);
    board.publish_global(&global(4));
    board.publish_master(0, &live(6));
    board.append_event(Zeroable::zeroed());
    let snapshot = reader.snapshot().unwrap();
    assert_eq!(snapshot.global.generation, 4);
    let incarnations = snapshot.slots.iter().map(|slot| slot.master.incarnation);
    assert_eq!(incarnations.collect::<Vec<_>>(), [6, 5]);
    assert_eq!(snapshot.verdict(), BoardVerdict::Alive { hung: false });
    let numbers = reader.history().unwrap().events;
    let numbers: Vec<u64> = numbers.iter().map(|event| event.number).collect();
    assert_eq!(numbers, [4, 3, 2, 1]);
    drop(board);
    assert_eq!(
        Reader::open(&path).unwrap().snapshot().unwrap().verdict(),
        BoardVerdict::Dead
    );
}

#[test]
fn what_is_no_living_board_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let board = make(dir.path(), 4);
    let good = board.hand_over(0);
    let refused = |fds: Descriptors<OwnedFd>, handed: &scoreboard::Handover, why: &str| {
        let error = Board::take_up(fds, handed).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    let mut short = good.clone();
    short.header.truncate(20);
    refused(copies(&board), &short, "short header");
    let mut newer = good.clone();
    newer.header[1] += 1 << 32;
    refused(copies(&board), &newer, "another major version");
    let mut wild = good.clone();
    wild.header[12] = u64::MAX;
    refused(copies(&board), &wild, "number of slots");
    let mut fds = copies(&board);
    fds.data = File::open(dir.path()).unwrap().into();
    refused(fds, &good, "another size");
    let fds = copies(&board);
    drop(board);
    let Descriptors { dir, data, lock } = fds;
    let other = File::open("/dev/null").unwrap().into();
    drop(lock);
    let fds = Descriptors {
        dir,
        data,
        lock: other,
    };
    refused(fds, &good, "lock is not held");
}

#[test]
fn another_layout_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let board = make(dir.path(), 4);
    let (fds, mut handed) = (copies(&board), board.hand_over(0));
    handed.header[1] += 1;
    let older = Board::take_up(fds, &handed).unwrap();
    assert!(!older.is_of_this_layout());
    assert!(board.is_of_this_layout());
}

#[test]
fn a_child_that_writes_to_the_board_of_before_is_seen_on_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut old = make(dir.path(), 4);
    old.adopt_child(1, 3);
    let mut page = ChildPage::map(old.descriptor(), old.geometry(), 1, 3).unwrap();
    let mut record = ChildRecord {
        incarnation: 3,
        ..Zeroable::zeroed()
    };
    record.counters.messages_started = 2;
    record.counters.verdicts[0] = 2;
    page.publish(&record);
    let mut new = make(dir.path(), 8);
    new.publish_global(&global(2));
    new.publish_master(1, &live(3));
    let mut relay = new.begin_relay(1, 3, &old);
    let reader = Reader::open(&dir.path().join("a.scoreboard")).unwrap();
    assert_eq!(reader.snapshot().unwrap().messages(), 2);
    for messages in 3..=6 {
        record.counters.messages_started = messages;
        record.counters.verdicts[0] = messages;
        page.publish(&record);
        page.observe(Phase::Eom, 1000);
        new.relay(&mut relay, &old);
        assert_eq!(reader.snapshot().unwrap().messages(), messages);
    }
    let histograms = reader.detailed().unwrap().histograms().unwrap();
    assert_eq!(histograms.of(Phase::Eom).iter().sum::<u64>(), 4);
}
