//! pmx-scoreboard(5) against the code: its tables have every field, its numbers are the layout's, its examples run, and every page names it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use scoreboard::schema::{Area, Field, Kind, fields};
use scoreboard::{history, layout};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn manual() -> String {
    fs::read_to_string(file("man/pmx-scoreboard.5")).unwrap()
}

fn title(area: Area) -> &'static str {
    match area {
        Area::Header => "The header",
        Area::Global => "The global record",
        Area::Death => "An entry of the ring of deaths",
        Area::Master => "The master's record of a slot",
        Area::Child => "The child's record of a slot",
        Area::Second => "An entry of the ring of seconds",
        Area::Event => "An entry of the ring of events",
        Area::Histograms => "The histograms of a slot",
    }
}

/// An item of the list: where the field stands and what it means, with the names of its values or words.
fn item(field: &Field) -> String {
    let width = match (field.kind, field.words) {
        (Kind::Text, words) => format!("bytes: {} ,", (words - 1) * 8),
        (_, 1) => String::new(),
        (_, words) => format!("words: {words} ,"),
    };
    let unit = if field.unit.is_empty() {
        String::new()
    } else {
        format!(" , {}", field.unit)
    };
    let names = match field.kind {
        Kind::Enum(values) => values()
            .iter()
            .map(|(number, name)| format!("{number} {name}"))
            .collect(),
        _ => field.labels.clone(),
    };
    // A hyphen that is a minus.
    let mut meaning = field.help.replace("2^64 - 1", "2^64 \\- 1");
    if !names.is_empty() {
        let _ = write!(meaning, ": {}", names.join(", "));
    }
    let head = format!(
        ".It Va {} Pq {} , {width} {}{unit}",
        field.name,
        field.word,
        field.kind.name()
    );
    format!("{}\n{}", head.replace("  ", " "), wrapped(&meaning))
}

/// Lines of at most 78 bytes.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().unwrap();
        if last.is_empty() {
            last.push_str(word);
        } else if last.len() + 1 + word.len() <= 78 {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

fn tables() -> String {
    let mut tables = String::new();
    for area in Area::ALL {
        let _ = writeln!(tables, ".Ss {}\n.Bl -tag -width Ds -compact", title(*area));
        for field in fields().iter().filter(|field| field.area == *area) {
            let _ = writeln!(tables, "{}", item(field));
        }
        let _ = writeln!(tables, ".El");
    }
    tables
}

#[test]
fn the_tables_of_the_page_have_every_field() {
    let page = manual();
    let begin = page.find(".\\\" fields\n").unwrap() + ".\\\" fields\n".len();
    let end = page.find(".\\\" end of fields\n").unwrap();
    if std::env::var_os("UPDATE_FORMAT").is_some() {
        let made = format!("{}{}{}", &page[..begin], tables(), &page[end..]);
        fs::write(file("man/pmx-scoreboard.5"), made).unwrap();
        return;
    }
    assert!(
        page[begin..end] == tables(),
        "pmx-scoreboard(5) is out of date: UPDATE_FORMAT=1 cargo test --test manual_board"
    );
    for field in fields() {
        assert!(page.contains(&format!(".It Va {} Pq", field.name)));
    }
}

#[test]
fn the_numbers_of_the_page_are_those_of_the_layout() {
    // As people see them: without macros and line breaks.
    let page: Vec<String> = manual()
        .lines()
        .filter(|line| !line.starts_with(".\\\""))
        .map(str::to_owned)
        .collect();
    let page = page.join(" ");
    for text in [
        format!("It global Ta {}", layout::GLOBAL_OFFSET),
        format!(
            "{}, {} .It",
            layout::GLOBAL.copies[0] * 8,
            layout::GLOBAL.copies[1] * 8
        ),
        format!("c + {}, c + {}", layout::LINE, layout::CHILD_SECOND),
        format!("m + {0}, m + {0} + Va m_copy_len", layout::LINE),
        format!("header of {} words", layout::HEADER_WORDS),
        format!(
            "last {} deaths of children (at {})",
            layout::DEATHS,
            layout::DEATHS_OFFSET
        ),
        format!("last {} seconds", history::SECONDS),
        format!("last {} events", history::EVENTS),
        format!("0x{:016x}", layout::ENDIAN),
        format!(".It {}.{} ", layout::MAJOR, layout::MINOR),
    ] {
        assert!(
            page.contains(&text),
            "pmx-scoreboard(5) does not say: {text}"
        );
    }
    let magic: Vec<String> = layout::MAGIC.iter().map(|b| format!("{b:02X}")).collect();
    assert!(page.contains(&magic.join(" ")));
}

#[test]
fn every_other_page_names_it_and_every_file_that_it_names_exists() {
    for page in ["pmx-milter.8", "pmx-init.8", "pmx.conf.5", "pmx-policy.7"] {
        let text = fs::read_to_string(file("man").join(page)).unwrap();
        let (_, after) = text.split_once(".Sh SEE ALSO").unwrap();
        assert!(after.contains(".Xr pmx-scoreboard 5"), "{page}");
    }
    let page = manual();
    let (_, files) = page.split_once(".Sh FILES").unwrap();
    let (files, _) = files.split_once(".Sh EXAMPLES").unwrap();
    let names = files
        .lines()
        .filter_map(|line| line.strip_prefix(".It Pa "))
        .flat_map(|line| line.split(" , "));
    let names: Vec<&str> = names.collect();
    assert_eq!(names.len(), 5, "{names:?}");
    for name in names {
        assert!(file("scoreboard").join(name).exists(), "{name}");
    }
}

#[test]
fn the_page_is_good_mdoc() {
    let lint = Command::new("mandoc")
        .args(["-Tlint", "-Wwarning"])
        .arg(file("man/pmx-scoreboard.5"))
        .output();
    match lint {
        Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout), ""),
        Err(error) => eprintln!("skipped: mandoc: {error}"),
    }
}

mod needs_python3_and_cc {
    use super::*;

    /// The last example of the page, on a board that lives and then does not.
    #[test]
    fn the_pages_example_of_liveness_tells_the_living_from_the_dead() {
        let page = manual();
        let start = page.find("import fcntl, struct").unwrap();
        let example = &page[start..start + page[start..].find(".Ed").unwrap()];
        let dir = tempfile::tempdir().unwrap();
        let spec = scoreboard::Spec {
            capacity: 1,
            mode: 0o600,
            group: None,
            previous_instance: [0; 2],
        };
        let board = scoreboard::Board::create(dir.path(), "policy.scoreboard", &spec).unwrap();
        let script = example.replace("/run/pmx", dir.path().to_str().unwrap());
        let says = || {
            let mut python = Command::new("python3");
            python.args(["-c", &script]);
            support::command::run(python, support::SOON).expect(0).out
        };
        assert_eq!(says(), "True\n");
        drop(board);
        assert_eq!(says(), "False\n");
    }
}
