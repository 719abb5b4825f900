//! `FORMAT.md`, the schema in the file and the Python reader say the same as the code.
#![cfg(not(loom))]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use scoreboard::schema::{Area, Kind, fields, text};
use scoreboard::{
    Board, BoardVerdict, ChildPage, ChildRecord, GlobalRecord, MasterRecord, Reader, SlotState,
    Snapshot, read,
};
use support::{dir, empty, global, live, spec};

fn crate_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

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

#[test]
fn the_tables_of_the_format_page_are_those_of_the_code() {
    let path = crate_file("FORMAT.md");
    let page = fs::read_to_string(&path).unwrap();
    let begin = page.find("<!-- fields").unwrap();
    let begin = begin + page[begin..].find('\n').unwrap() + 1;
    let end = page.find("<!-- end of fields -->").unwrap();
    if std::env::var_os("UPDATE_FORMAT").is_some() {
        let new = format!("{}{}{}", &page[..begin], field_tables(), &page[end..]);
        fs::write(&path, new).unwrap();
    } else {
        assert!(
            page[begin..end] == field_tables(),
            "FORMAT.md is out of date: cargo test -p scoreboard --test format with UPDATE_FORMAT=1"
        );
    }
}

#[test]
fn the_reader_of_the_format_page_is_the_example() {
    let page = fs::read_to_string(crate_file("FORMAT.md")).unwrap();
    let example = fs::read_to_string(crate_file("examples/read_board.py")).unwrap();
    assert!(page.contains(&format!("```python\n{example}```\n")));
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
    // A process that has not got its page yet.
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

/// What the Python reader prints, from the Rust reader's snapshot.
fn as_python_prints(snapshot: &Snapshot) -> String {
    let slots: Vec<String> = snapshot
        .slots
        .iter()
        .map(|slot| {
            let acc = slot.acc();
            format!(
                "{{\"slot\": {}, \"pid\": {}, \"acc\": [{}, {}, {}], \"requests\": {}, \"messages\": {}}}",
                slot.index,
                slot.master.pid,
                acc.process,
                acc.slot,
                acc.processes,
                slot.requests(),
                slot.messages()
            )
        })
        .collect();
    format!(
        "{{\"state\": {}, \"alive\": {}, \"pid\": {}, \"slots\": [{}]}}\n",
        snapshot.global.state,
        matches!(snapshot.verdict(), BoardVerdict::Alive { .. }),
        snapshot.header.master_pid,
        slots.join(", ")
    )
}

fn python(arguments: &[&Path]) -> std::process::Output {
    Command::new("python3")
        .args(arguments)
        .output()
        .expect("python3 runs the example reader")
}

#[test]
fn the_python_reader_sees_what_the_rust_reader_sees_alive_and_dead() {
    let dir = dir();
    let path = dir.path().join("m.scoreboard");
    let (board, _page) = busy_board(dir.path());
    let script = crate_file("examples/read_board.py");
    let told = python(&[&script, &path]);
    let expected = as_python_prints(&read(&path).unwrap());
    assert!(
        expected.contains("\"requests\": 3, \"messages\": 231"),
        "{expected}"
    );
    assert_eq!(String::from_utf8_lossy(&told.stdout), expected, "{told:?}");
    drop(board);
    let told = python(&[&script, &path]);
    let expected = as_python_prints(&read(&path).unwrap());
    assert!(expected.contains("\"alive\": false"));
    assert_eq!(String::from_utf8_lossy(&told.stdout), expected, "{told:?}");
    fs::write(&path, "no board").unwrap();
    assert!(!python(&[&script, &path]).status.success());
}

#[test]
fn the_schema_in_the_file_is_json_that_tells_every_field() {
    let dir = dir();
    let path = dir.path().join("m.scoreboard");
    let _board = Board::create(dir.path(), "m.scoreboard", &spec(8)).unwrap();
    let schema = Reader::open(&path).unwrap().schema().unwrap();
    assert_eq!(schema, text());
    let file = dir.path().join("schema.json");
    fs::write(&file, &schema).unwrap();
    let count = dir.path().join("count.py");
    fs::write(
        &count,
        "import json,sys\ns=json.load(open(sys.argv[1]))\nprint(len(s['fields']),s['fields'][0]['name'],s['areas']['global']['copies'])\n",
    )
    .unwrap();
    let told = python(&[&count, &file]);
    assert_eq!(
        String::from_utf8_lossy(&told.stdout),
        format!("{} magic [640, 1920]\n", fields().len()),
        "{told:?}"
    );
}
