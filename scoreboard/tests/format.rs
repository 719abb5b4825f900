//! `FORMAT.md`, the schema in the file and the readers in other languages say the same as the code.
#![cfg(not(loom))]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use scoreboard::schema::{Area, Kind, fields, text};
use scoreboard::{
    Board, ChildPage, ChildRecord, GlobalRecord, MasterRecord, Reader, SlotState, read,
};
use support::{Foreign, as_examples_print, crate_file, dir, empty, global, live, spec};

fn field_tables() -> String {
    let mut tables = String::new();
    for area in Area::ALL {
        let _ = write!(
            tables,
            "\n### {}\n\n| word | name | type | kind | unit | meaning |\n|---|---|---|---|---|---|\n",
            area.name()
        );
        for field in fields().iter().filter(|field| field.area == *area) {
            let mut meaning = field.help.to_owned();
            if let Kind::Enum(values) = field.kind {
                let values: Vec<String> = values()
                    .iter()
                    .map(|(number, name)| format!("{number} {name}"))
                    .collect();
                let _ = write!(meaning, ": {}", values.join(", "));
            }
            if !field.labels.is_empty() && field.words < 10 {
                let _ = write!(meaning, ": {}", field.labels.join(", "));
            }
            let _ = writeln!(
                tables,
                "| {} | `{}` | {} | {} | {} | {} |",
                field.word,
                field.name,
                field.type_name(),
                field.kind.name(),
                field.unit,
                meaning
            );
        }
    }
    tables.push('\n');
    tables
}

/// The page with `new` between the lines that begin with `begin` and `end`.
fn between(page: &str, begin: &str, end: &str, new: &str) -> String {
    let start = page.find(begin).unwrap();
    let start = start + page[start..].find('\n').unwrap() + 1;
    let stop = start + page[start..].find(end).unwrap();
    format!("{}{new}{}", &page[..start], &page[stop..])
}

#[test]
fn the_tables_and_the_reader_of_the_format_page_are_those_of_the_code() {
    let path = crate_file("FORMAT.md");
    let page = fs::read_to_string(&path).unwrap();
    let example = fs::read_to_string(crate_file("examples/read_board.py")).unwrap();
    let made = between(&page, "```python", "```\n", &example);
    let made = between(
        &made,
        "<!-- fields",
        "<!-- end of fields -->",
        &field_tables(),
    );
    support::same_as_committed(&path, &made);
}

#[test]
fn the_numbers_in_the_text_of_the_format_page_are_those_of_the_code() {
    use scoreboard::{histogram, history, layout};
    let page = fs::read_to_string(crate_file("FORMAT.md")).unwrap();
    let copy = Area::Master.words() * 8;
    let histograms = Area::Histograms.words() * 8;
    for text in [
        format!("ABI {}.{}.", layout::MAJOR, layout::MINOR),
        format!("| {}.{} | header words", layout::MAJOR, layout::MINOR),
        format!("`schema_off` ({})", layout::SCHEMA_OFFSET),
        format!("`seconds_count` ({})", history::SECONDS),
        format!("`seconds_stride` ({})", history::SECOND_WORDS * 8),
        format!("`events_count` ({})", history::EVENTS),
        format!("`events_stride` ({})", history::EVENT_WORDS * 8),
        format!("`m_stride` ({})", layout::MASTER_STRIDE),
        format!("`m_copy_len` ({copy})"),
        format!("`c_copy_len` ({copy}) each, at most {}", layout::CHILD_ROOM),
        format!("`s + m_hist_off` ({})", layout::MASTER_HISTOGRAMS),
        format!(
            "`p + c_hist_off` ({}) | {histograms} |",
            layout::CHILD_HISTOGRAMS
        ),
        format!(
            "({} × {} × 8 = {histograms})",
            histogram::PHASES,
            histogram::PHASE_BUCKETS
        ),
        format!(
            "copies at {} and {}",
            layout::GLOBAL.copies[0] * 8,
            layout::GLOBAL.copies[1] * 8
        ),
        format!("`p + {}`, `p + {}`", layout::LINE, layout::CHILD_SECOND),
        format!(
            "at {}, with {} entries",
            layout::DEATHS_OFFSET,
            layout::DEATHS
        ),
    ] {
        assert!(page.contains(&text), "FORMAT.md does not say: {text}");
    }
}

/// The words that ABI 1.0 pins down: a row that moves breaks every reader out there.
#[test]
fn the_words_of_abi_1_stay_where_they_are() {
    let pinned = [
        (Area::Header, "m_off", 6),
        (Area::Header, "nslots", 12),
        (Area::Header, "instance", 15),
        (Area::Header, "ready", 26),
        (Area::Global, "state", 0),
        (Area::Global, "heartbeat_ns", 2),
        (Area::Global, "accepted", 5),
        (Area::Global, "slots_high_water", 16),
        (Area::Global, "flags", 18),
        (Area::Global, "port", 36),
        (Area::Global, "trouble_at_ns", 107),
        (Area::Master, "incarnation", 1),
        (Area::Master, "dispatched", 6),
        (Area::Master, "lost_messages", 11),
        (Area::Master, "peak_requests", 19),
        (Area::Master, "base.connections_completed", 20),
        (Area::Master, "base.verdicts", 23),
        (Area::Master, "base.message_histogram", 44),
        (Area::Child, "incarnation", 0),
        (Area::Child, "counters.connections_completed", 1),
        (Area::Child, "counters.verdicts", 4),
        (Area::Child, "queue", 59),
        (Area::Child, "queue_id", 65),
        (Area::Child, "doing", 74),
        (Area::Death, "number", 0),
        (Area::Death, "queue_id", 9),
    ];
    for (area, name, word) in pinned {
        let found = fields()
            .into_iter()
            .find(|field| field.area == area && field.name == name);
        assert_eq!(found.map(|field| field.word), Some(word), "{name}");
    }
}

fn busy_board(dir: &Path) -> (Board, ChildPage) {
    let mut board = Board::create(dir, "m.scoreboard", &spec(8)).unwrap();
    board.publish_global(&GlobalRecord {
        slots_high_water: 3,
        ..global()
    });
    board.adopt_child(0, 1);
    let mut page = ChildPage::map(board.descriptor(), board.geometry(), 0, 1).unwrap();
    let mut child = ChildRecord {
        incarnation: 1,
        ..empty()
    };
    child.counters.connections_completed = 20;
    child.counters.verdicts = [1, 2, 3, 4, 5, 6];
    page.publish(&child);
    board.publish_master(
        0,
        &MasterRecord {
            dispatched: 25,
            returned: 2,
            dispatched_before: 1000,
            returned_before: 1,
            processes: 3,
            base: scoreboard::Counters {
                verdicts: [10, 20, 30, 40, 50, 60],
                ..Default::default()
            },
            ..live(1, 77)
        },
    );
    board.publish_master(
        1,
        &MasterRecord {
            state: SlotState::Empty.word(),
            dispatched_before: 4,
            processes: 1,
            ..live(9, 0)
        },
    );
    // A process that has not got its page yet: what an earlier one left there does not count.
    board.adopt_child(2, 4);
    let mut earlier = ChildPage::map(board.descriptor(), board.geometry(), 2, 4).unwrap();
    child.incarnation = 4;
    earlier.publish(&child);
    earlier.observe(scoreboard::Phase::Eom, 1);
    board.publish_master(
        2,
        &MasterRecord {
            dispatched: 1,
            processes: 1,
            ..live(5, 78)
        },
    );
    (board, page)
}

#[test]
fn the_schema_in_the_file_is_that_of_the_code() {
    let dir = dir();
    let path = dir.path().join("m.scoreboard");
    let _board = Board::create(dir.path(), "m.scoreboard", &spec(8)).unwrap();
    assert_eq!(Reader::open(&path).unwrap().schema().unwrap(), text());
}

mod needs_python3_and_cc {
    use super::*;

    #[test]
    fn readers_in_python_and_c_see_what_the_rust_reader_sees_alive_and_dead() {
        let dir = dir();
        let path = dir.path().join("m.scoreboard");
        let (board, _page) = busy_board(dir.path());
        let readers = [Foreign::python(), Foreign::c()];
        let expected = as_examples_print(&read(&path).unwrap());
        assert!(
            expected.contains("\"requests\": 3, \"messages\": 231"),
            "{expected}"
        );
        for reader in &readers {
            assert_eq!(reader.prints(&path), expected);
        }
        drop(board);
        let expected = as_examples_print(&read(&path).unwrap());
        assert!(expected.contains("\"alive\": false"));
        for reader in &readers {
            assert_eq!(reader.prints(&path), expected);
        }
    }

    #[test]
    fn a_child_that_lies_is_clamped_alike_by_all_readers() {
        let dir = dir();
        let path = dir.path().join("m.scoreboard");
        let (mut board, mut page) = busy_board(dir.path());
        let mut liar = ChildRecord {
            incarnation: 1,
            ..empty()
        };
        liar.counters.connections_completed = u64::MAX;
        liar.counters.verdicts = [u64::MAX; 6];
        page.publish(&liar);
        // The master's own differences are never shown wrapped around either.
        board.publish_master(
            2,
            &MasterRecord {
                dispatched: 1,
                returned: 5,
                returned_before: u64::MAX,
                ..live(5, 78)
            },
        );
        let snapshot = read(&path).unwrap();
        assert_eq!(
            (snapshot.requests(), snapshot.messages()),
            (0, u64::MAX),
            "clamped"
        );
        for reader in [Foreign::python(), Foreign::c()] {
            assert_eq!(reader.prints(&path), as_examples_print(&snapshot));
        }
    }

    #[test]
    fn the_exporter_shows_every_measurement_of_the_schema_once_and_sums_what_earlier_processes_counted()
     {
        let dir = dir();
        let path = dir.path().join("m.scoreboard");
        let (mut board, mut page) = busy_board(dir.path());
        page.observe(scoreboard::Phase::Eom, 1_000_000);
        let mut earlier = scoreboard::PhaseHistograms::default();
        earlier.0[6][0] = 5;
        board.write_master_histograms(0, 0, &earlier);
        let told = Foreign::exporter().prints(&path);
        let value = |sample: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(sample));
            line.unwrap_or_else(|| panic!("no {sample} in:\n{told}"))
                .trim()
                .to_owned()
        };
        assert_eq!(value("pmx_board_alive{milter=\"m\"}"), "1");
        assert_eq!(value("pmx_global_state{milter=\"m\",is=\"running\"}"), "1");
        let slot = |name: &str| value(&format!("{name}{{milter=\"m\",slot=\"0\""));
        assert_eq!(slot("pmx_slot_connections_completed_total"), "} 20");
        assert_eq!(slot("pmx_slot_verdicts_total"), ",of=\"accept\"} 11");
        assert_eq!(slot("pmx_phase_eom_count"), "} 6");
        assert_eq!(
            slot("pmx_phase_eom_bucket"),
            ",le=\"0.000016\"} 5",
            "earlier ones are in the first bucket"
        );
        // A process without a page of its own: nothing of the page counts.
        assert_eq!(value("pmx_phase_eom_count{milter=\"m\",slot=\"2\"}"), "0");
        assert_eq!(
            value("pmx_slot_connections_completed_total{milter=\"m\",slot=\"2\"}"),
            "0"
        );
        let mut seen = std::collections::HashSet::new();
        for line in told.lines().filter(|line| !line.starts_with('#')) {
            let (sample, number) = line.rsplit_once(' ').unwrap();
            assert!(number.parse::<f64>().unwrap() >= 0.0, "{line}");
            assert!(seen.insert(sample.to_owned()), "twice: {line}");
        }
        let shown = |field: &scoreboard::schema::Field| {
            let (_, name) = field.name.rsplit_once('.').unwrap_or(("", &field.name));
            let name = name.strip_suffix("_ns").unwrap_or(name);
            seen.iter()
                .any(|sample| sample.contains(&format!("_{name}")))
        };
        for field in fields() {
            let measured = matches!(field.kind, Kind::Counter | Kind::Gauge | Kind::Enum(_));
            let exported = !matches!(
                field.area,
                Area::Header | Area::Death | Area::Second | Area::Event
            );
            assert!(!measured || !exported || shown(&field), "{}", field.name);
        }
    }

    #[test]
    fn the_schema_is_json() {
        let dir = dir();
        let file = dir.path().join("schema.json");
        fs::write(&file, text()).unwrap();
        let told = std::process::Command::new("python3")
            .args(["-c", "import json,sys\ns=json.load(open(sys.argv[1]))\nprint(len(s['fields']),s['fields'][0]['name'],s['areas']['global']['copies'])"])
            .arg(&file)
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&told.stdout),
            format!("{} magic [640, 1920]\n", fields().len()),
            "{told:?}"
        );
    }
}
