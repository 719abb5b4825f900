//! Real boards of every version, kept as lists of words: today's reader reads them all, and today's writer still writes the last one.
#![cfg(not(loom))]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use scoreboard::{
    History, MapReader, MilterState, Phase, PhaseHistograms, Reader, SlotState, Snapshot,
    histogram, shown,
};
use support::words::{self, from_words, get, header, to_words};
use support::{crate_file, dir};

fn golden(version: &str) -> String {
    fs::read_to_string(crate_file(&format!("tests/golden/{version}.words"))).unwrap_or_default()
}

/// Both readers on a board: the snapshot with histograms, and the history.
fn look(bytes: &[u8]) -> [(Snapshot, History); 2] {
    let dir = dir();
    let path = dir.path().join("old.scoreboard");
    fs::write(&path, bytes).unwrap();
    let (file, map) = (
        Reader::open(&path).unwrap(),
        MapReader::open(&path).unwrap(),
    );
    [
        (file.detailed().unwrap(), file.history().unwrap()),
        (map.detailed(), map.history()),
    ]
}

/// The records of the pattern, as far as a version had them: the first words of each that it did not have.
fn holds_the_pattern(snapshot: &Snapshot, [global, master, child]: [usize; 3]) {
    assert_eq!(snapshot.state(), MilterState::Running);
    assert_eq!(snapshot.global, words::global(global));
    assert_eq!(shown(&snapshot.global.port), "inet:3366@127.0.0.1");
    assert_eq!(snapshot.slots.len(), 2);
    assert_eq!(snapshot.slots[0].master, words::master(0, master));
    assert_eq!(snapshot.slots[0].child, Some(words::child(child)));
    assert_eq!(snapshot.slots[1].master, words::master(1, master));
    assert_eq!(snapshot.slots[1].child, None);
    assert_eq!(snapshot.slots[1].state(), SlotState::Empty);
    assert_eq!(snapshot.deaths, [words::death()]);
    // By number, so that the structs cannot move together with the reader.
    assert_eq!(snapshot.global.accepted, 1005);
    assert_eq!(snapshot.slots[0].master.lost_messages, 2011);
    assert_eq!(snapshot.slots[0].master.base.verdicts[0], 2023);
    let child = snapshot.slots[0].child.unwrap();
    assert_eq!(child.counters.connections_completed, 3001);
    assert_eq!((child.queue, child.phase), (3059, 3060));
    assert_eq!(shown(&child.queue_id), "4ABCDEF");
    assert_eq!(shown(&snapshot.deaths[0].queue_id), "4DEAD");
}

#[test]
fn a_board_of_version_1_0_is_read_and_what_it_lacks_is_empty() {
    for (snapshot, history) in look(&from_words(&golden("1.0"))) {
        assert_eq!(snapshot.header.minor(), 0);
        holds_the_pattern(&snapshot, [108, 76, 91]);
        assert!(history.seconds.is_empty() && history.events.is_empty());
        assert_eq!(snapshot.histograms(), None);
        assert!(snapshot.slots.iter().all(|slot| slot.histograms.is_none()));
        assert_eq!(snapshot.global.busy_ns, [0; 12]);
        assert_eq!(snapshot.late_answers(), 0);
    }
}

#[test]
fn a_board_of_version_1_1_is_read_whole() {
    for (snapshot, history) in look(&from_words(&golden("1.1"))) {
        assert_eq!(snapshot.header.minor(), 1);
        holds_the_pattern(&snapshot, [123, 78, 93]);
        assert_eq!(snapshot.global.busy_ns[0], 1108);
        assert_eq!(snapshot.global.redacted, 1121);
        assert_eq!(snapshot.global.concurrency_limit, 1122);
        assert_eq!(snapshot.slots[0].late_answers(), 2077 + 3091);
        assert_eq!(snapshot.slots[0].child.unwrap().suspended, 3092);
        assert_eq!(history.seconds, [words::second(2), words::second(1)]);
        assert_eq!(history.events, [words::event(2), words::event(1)]);
        assert_eq!(history.seconds[0].lost_connections, 5215);
        let mut expected = words::earlier(0);
        for (phase, ns) in words::OBSERVED {
            let row = histogram::phase_row(phase).unwrap();
            expected.0[row][histogram::phase_bucket(ns)] += 1;
        }
        assert_eq!(expected.of(Phase::Eom)[15], 7111 + 1);
        assert_eq!(snapshot.slots[0].histograms.as_deref(), Some(&expected));
        let none = PhaseHistograms::default();
        assert_eq!(snapshot.slots[1].histograms.as_deref(), Some(&none));
        assert_eq!(snapshot.histograms(), Some(expected));
    }
}

/// What stands at a byte of a board, for the message of a test that fails.
fn place(bytes: &[u8], offset: usize) -> String {
    let header = header(bytes);
    let mut areas = vec![
        (0, "header".to_owned()),
        (512, "global".to_owned()),
        (4096, "deaths".to_owned()),
        (header.schema_off, "schema".to_owned()),
        (header.seconds_off, "seconds".to_owned()),
        (header.events_off, "events".to_owned()),
    ];
    for slot in 0..header.nslots {
        areas.push((
            header.m_off + slot * header.m_stride,
            format!("master of slot {slot}"),
        ));
        areas.push((
            header.c_off + slot * header.c_stride,
            format!("child of slot {slot}"),
        ));
    }
    let before = areas
        .into_iter()
        .filter(|(start, _)| *start <= offset as u64);
    let (start, name) = before.max_by_key(|(start, _)| *start).unwrap();
    format!("{name}, byte {}", offset as u64 - start)
}

/// Words of the schema and its length: texts may be improved within a version; anything else may not change.
fn without_schema(bytes: &[u8]) -> Vec<u8> {
    let header = header(bytes);
    let mut bytes = bytes.to_vec();
    let start = usize::try_from(header.schema_off).unwrap();
    let end = usize::try_from(header.seconds_off).unwrap();
    bytes[start..end].fill(0);
    words::put(&mut bytes, 14, 0);
    bytes
}

#[test]
fn todays_writer_writes_version_1_1_byte_for_byte() {
    let dir = dir();
    let made = words::written_today(dir.path());
    if get(&made, 5) != 4096 {
        eprintln!("skipped: the golden board is of a machine with pages of 4096 bytes");
        return;
    }
    let path = crate_file("tests/golden/1.1.words");
    let known = golden("1.1");
    if known.is_empty() && std::env::var_os("UPDATE_FORMAT").is_some() {
        fs::write(&path, to_words(&made)).unwrap();
        return;
    }
    let known = from_words(&known);
    let (old, new) = (without_schema(&known), without_schema(&made));
    if let Some(offset) = (0..old.len().max(new.len())).find(|at| old.get(*at) != new.get(*at)) {
        panic!(
            "the writer no longer writes version 1.1: {}; a word that moved is another version, with a golden file of its own",
            place(&known, offset)
        );
    }
    support::same_as_committed(Path::new(&path), &to_words(&made));
}
