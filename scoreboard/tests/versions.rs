//! Boards of versions to come: what a later minor version may add is read over, a later major version and the other byte order are
//! refused, by the Rust reader and by the examples in Python and C alike.
#![cfg(not(loom))]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use scoreboard::{MapReader, ReadError, Reader, Snapshot, read};
use support::dir;
use support::words::{from_words, get, header, put};

/// The golden board of version 1.1.
fn today() -> Vec<u8> {
    from_words(include_str!("golden/1.1.words"))
}

const MASTER_WORDS: usize = 104;
const CHILD_WORDS: usize = 100;
const SECOND_WORDS: usize = 20;
const EVENT_WORDS: usize = 12;

/// Copies words from one board into another.
fn carry(from: &[u8], at: u64, words: usize, to: &mut [u8], place: u64) {
    let (at, place) = (
        usize::try_from(at).unwrap(),
        usize::try_from(place).unwrap(),
    );
    to[place..place + words * 8].copy_from_slice(&from[at..at + words * 8]);
}

/// The schema of a later version: longer records, and new fields in them.
fn later_schema(schema: &str) -> String {
    let areas = [
        (
            "\"128+m_copy_len\"],\"words\":96",
            "\"128+m_copy_len\"],\"words\":104",
        ),
        ("[128,2112],\"words\":96", "[128,2112],\"words\":100"),
        (
            "\"seconds_count\",\"words\":16",
            "\"seconds_count\",\"words\":20",
        ),
        (
            "\"events_count\",\"words\":8",
            "\"events_count\",\"words\":12",
        ),
        ("\"abi\":\"1.1\"", "\"abi\":\"1.2\""),
    ];
    let mut schema = schema.to_owned();
    for (old, new) in areas {
        assert!(schema.contains(old), "{old}");
        schema = schema.replacen(old, new, 1);
    }
    let field = |area: &str, name: &str, word: usize, kind: &str| {
        format!(
            ",\n{{\"area\":\"{area}\",\"name\":\"{name}\",\"word\":{word},\"words\":1,\"type\":\"u64\",\"kind\":\"{kind}\",\"unit\":\"\",\"help\":\"new\"}}"
        )
    };
    let new = [
        field("header", "novelty_off", 37, "plain"),
        field("global", "comets", 123, "counter"),
        field("master", "base.eclipses", 103, "counter"),
        field("child", "counters.eclipses", 99, "counter"),
        field("child", "moons", 98, "gauge"),
    ];
    let end = schema.rfind("\n]}").unwrap();
    schema.insert_str(end, &new.concat());
    schema
}

/// The same board as a version 1.2 might write it: everything that may move has moved, everything that may grow has grown.
fn later(old: &[u8]) -> Vec<u8> {
    let was = header(old);
    let schema_at = usize::try_from(was.schema_off).unwrap();
    let schema_end = schema_at + usize::try_from(was.schema_len).unwrap();
    let schema = later_schema(std::str::from_utf8(&old[schema_at..schema_end]).unwrap());
    let round = |bytes: u64| bytes.next_multiple_of(4096);

    let mut new = was;
    new.abi = (1 << 32) | 2;
    new.schema_off = was.schema_off + 4096;
    new.schema_len = schema.len() as u64;
    new.seconds_off = round(new.schema_off + new.schema_len);
    new.seconds_stride = SECOND_WORDS as u64 * 8;
    new.events_off = new.seconds_off + 128 + new.seconds_count * new.seconds_stride;
    new.events_stride = EVENT_WORDS as u64 * 8;
    new.m_off = round(new.events_off + 128 + new.events_count * new.events_stride);
    new.m_copy_len = MASTER_WORDS as u64 * 8;
    new.m_hist_off = 128 + 2 * new.m_copy_len + 64;
    new.m_stride = (new.m_hist_off + 2 * 896 + 64).next_multiple_of(128);
    new.c_off = round(new.m_off + new.nslots * new.m_stride);
    new.c_copy_len = CHILD_WORDS as u64 * 8;
    new.c_stride = 8192;
    new.c_hist_off = 4096;
    new.file_size = new.c_off + new.nslots * new.c_stride;
    new.reserved[..8].fill(0xabcd);

    let mut board = vec![0x5a; usize::try_from(new.file_size).unwrap()];
    board[..512].copy_from_slice(bytemuck::bytes_of(&new));
    // Global record and deaths stand where they stand in every version.
    board[512..8192].copy_from_slice(&old[512..8192]);
    let schema_at = usize::try_from(new.schema_off).unwrap();
    board[schema_at..schema_at + schema.len()].copy_from_slice(schema.as_bytes());
    let rings = [
        (
            was.seconds_off,
            was.seconds_stride,
            new.seconds_off,
            new.seconds_stride,
            new.seconds_count,
        ),
        (
            was.events_off,
            was.events_stride,
            new.events_off,
            new.events_stride,
            new.events_count,
        ),
    ];
    for (from, old_stride, to, stride, count) in rings {
        carry(old, from, 16, &mut board, to);
        for entry in 0..count {
            let words = usize::try_from(old_stride / 8).unwrap();
            let place = to + 128 + entry * stride;
            carry(
                old,
                from + 128 + entry * old_stride,
                words,
                &mut board,
                place,
            );
        }
    }
    for slot in 0..new.nslots {
        let (from, to) = (
            was.m_off + slot * was.m_stride,
            new.m_off + slot * new.m_stride,
        );
        carry(old, from, 1, &mut board, to);
        for copy in 0..2 {
            carry(
                old,
                from + 128 + copy * was.m_copy_len,
                96,
                &mut board,
                to + 128 + copy * new.m_copy_len,
            );
            carry(
                old,
                from + was.m_hist_off + copy * 896,
                112,
                &mut board,
                to + new.m_hist_off + copy * 896,
            );
        }
        let (from, to) = (
            was.c_off + slot * was.c_stride,
            new.c_off + slot * new.c_stride,
        );
        carry(old, from, 1, &mut board, to);
        for copy in [128, 2112] {
            carry(old, from + copy, 96, &mut board, to + copy);
        }
        carry(
            old,
            from + was.c_hist_off,
            112,
            &mut board,
            to + new.c_hist_off,
        );
    }
    // The new words, in both copies; the rest of what is new is the 0x5a of above.
    for copy in [640, 1920] {
        put(&mut board, copy / 8 + 123, 11);
    }
    for copy in 0..2 {
        let at = |offset: u64, word: u64| usize::try_from(offset / 8 + word).unwrap();
        put(
            &mut board,
            at(new.m_off + 128 + copy * new.m_copy_len, 103),
            20,
        );
        put(&mut board, at(new.c_off + 128 + copy * (2112 - 128), 99), 2);
        put(&mut board, at(new.c_off + 128 + copy * (2112 - 128), 98), 5);
    }
    board
}

fn file(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// Both boards say the same of everything that both have.
fn same(old: &Snapshot, new: &Snapshot) {
    let mut global = new.global;
    assert_eq!(
        global.reserved[0], 11,
        "the new word is where 1.1 has reserved ones"
    );
    global.reserved[0] = 0;
    assert_eq!(global, old.global);
    assert_eq!(new.slots.len(), 2);
    for (new, old) in new.slots.iter().zip(&old.slots) {
        assert_eq!((new.master, new.child), (old.master, old.child));
        assert_eq!(new.histograms, old.histograms);
        assert!(new.consistent && new.histograms.is_some());
    }
    assert_eq!(new.deaths, old.deaths);
    assert_eq!(new.messages(), old.messages());
}

#[test]
fn an_older_reader_reads_what_it_knows_of_a_later_minor_version() {
    let dir = dir();
    let old = Reader::open(&file(dir.path(), "old.scoreboard", &today())).unwrap();
    let path = file(dir.path(), "new.scoreboard", &later(&today()));
    let new = Reader::open(&path).unwrap();
    assert_eq!(new.header().minor(), 2);
    same(&old.detailed().unwrap(), &new.detailed().unwrap());
    let map = MapReader::open(&path).unwrap();
    same(&old.detailed().unwrap(), &map.detailed());
    let (was, is) = (old.history().unwrap(), new.history().unwrap());
    assert_eq!((is.seconds, is.events), (was.seconds, was.events));
    assert!(new.schema().unwrap().contains(".eclipses\""));
}

#[test]
fn histograms_of_another_shape_are_left_out_and_all_else_is_read() {
    let dir = dir();
    for word in [35, 36] {
        let mut bytes = later(&today());
        let more = get(&bytes, word) + 1;
        put(&mut bytes, word, more);
        let path = file(dir.path(), "new.scoreboard", &bytes);
        let snapshot = Reader::open(&path).unwrap().detailed().unwrap();
        assert_eq!(snapshot.histograms(), None);
        assert_eq!(snapshot.slots.len(), 2);
    }
}

/// A board of major version 2, and one of a machine of the other byte order.
fn refused() -> [(&'static str, Vec<u8>); 2] {
    let mut major = today();
    put(&mut major, 1, 2 << 32);
    let mut foreign = today();
    for word in 1..foreign.len() / 8 {
        let swapped = get(&foreign, word).swap_bytes();
        put(&mut foreign, word, swapped);
    }
    [
        ("its format is 2.0, and this program reads 1.x", major),
        ("other byte order", foreign),
    ]
}

#[test]
fn another_major_version_and_the_other_byte_order_are_refused_with_their_names() {
    let dir = dir();
    for (says, bytes) in refused() {
        let error = read(&file(dir.path(), "x.scoreboard", &bytes)).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(matches!(
            error,
            ReadError::Version(_, 2, 0) | ReadError::Endian(_)
        ));
    }
}

mod needs_python3_and_cc {
    use support::{Foreign, as_examples_print};

    use super::*;

    #[test]
    fn readers_in_python_and_c_read_every_minor_version() {
        let dir = dir();
        let boards = [
            ("1.0", from_words(include_str!("golden/1.0.words"))),
            ("1.1", today()),
            ("1.2", later(&today())),
        ];
        for reader in [Foreign::python(), Foreign::c()] {
            for (version, bytes) in &boards {
                let path = file(dir.path(), version, bytes);
                let snapshot = read(&path).unwrap();
                // Patterns take back more than they hand out, so that only messages tell slots apart.
                assert!(snapshot.messages() > 30_000, "{version}");
                assert_eq!(
                    reader.prints(&path),
                    as_examples_print(&snapshot),
                    "{version}"
                );
            }
        }
    }

    #[test]
    fn the_exporter_shows_fields_that_did_not_exist_when_it_was_written() {
        let dir = dir();
        let exporter = Foreign::exporter();
        let samples = |bytes: &[u8]| {
            let told = exporter.prints(&file(dir.path(), "m.scoreboard", bytes));
            let lines = told.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let (old, new) = (samples(&today()), samples(&later(&today())));
        let added: Vec<&str> = new
            .iter()
            .filter(|line| !old.contains(line))
            .map(String::as_str)
            .collect();
        assert_eq!(
            added,
            [
                "pmx_global_comets_total{milter=\"m\"} 11",
                "pmx_slot_eclipses_total{milter=\"m\",slot=\"0\"} 22",
                // The empty slot of the pattern: 0x5a5a… of what the test did not set.
                "pmx_slot_eclipses_total{milter=\"m\",slot=\"1\"} 6510615555426900570",
                "pmx_child_moons{milter=\"m\",slot=\"0\"} 5",
                "pmx_child_moons{milter=\"m\",slot=\"1\"} 0",
            ]
        );
        assert!(old.iter().all(|line| new.contains(line)));
    }

    #[test]
    fn another_major_version_and_the_other_byte_order_are_refused_in_the_same_words() {
        let dir = dir();
        for reader in [Foreign::python(), Foreign::c(), Foreign::exporter()] {
            for (says, bytes) in refused() {
                let told = reader.run(&file(dir.path(), "x.scoreboard", &bytes));
                assert_eq!(told.status.code(), Some(1), "{told:?}");
                let said = String::from_utf8(told.stderr).unwrap();
                assert!(said.contains(says) && told.stdout.is_empty(), "{said}");
            }
        }
    }
}
