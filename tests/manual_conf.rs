//! pmx.conf(5), the example and the table of keys say the same.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use pmx_milter::config::{Config, KEYS, Place};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn manual() -> String {
    std::fs::read_to_string(file("man/pmx.conf.5")).unwrap()
}

fn parse(text: &str) -> Config {
    Config::parse_text(Path::new("/etc/pmx/pmx.conf"), text)
        .unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

/// The lines below each `.It Ic KEY`.
fn entries(manual: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut entries: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut current = None;
    for line in manual.lines() {
        if let Some(key) = line.strip_prefix(".It Ic ") {
            assert!(!entries.contains_key(key), "{key} stands twice");
            entries.insert(key, Vec::new());
            current = Some(key);
        } else if line.starts_with(".El") || line.starts_with(".Sh") {
            current = None;
        } else if let Some(key) = current {
            entries.get_mut(key).unwrap().push(line);
        }
    }
    entries
}

#[test]
fn the_manual_page_has_every_key_with_its_values_its_default_and_an_example_that_is_read() {
    let manual = manual();
    let mut entries = entries(&manual);
    for key in KEYS {
        let name = key.name;
        let lines = entries
            .remove(name)
            .unwrap_or_else(|| panic!("pmx.conf(5) does not have {name}"));
        let values = format!("Values: {}.", key.values());
        assert!(lines.contains(&values.as_str()), "{name}: {values}");
        let default = format!("Default: {}.", key.default);
        assert!(lines.contains(&default.as_str()), "{name}: {default}");
        let example = lines
            .iter()
            .find_map(|line| line.strip_prefix(".Dl "))
            .unwrap_or_else(|| panic!("{name} has no example"))
            .replace("\\(dq", "\"");
        assert!(
            example.starts_with(&format!("{name} = ")),
            "{name}: {example}"
        );
        let milter: String = ["port = \"unix:/x\"\n", "policy = \"p.lua\"\n"]
            .into_iter()
            .filter(|line| !line.starts_with(name))
            .collect();
        match name {
            // Its directory does not exist here: the reader's own tests include files.
            "include" => {}
            _ if key.place == Place::Global => {
                parse(&format!("{example}\n[milter.a]\n{milter}"));
            }
            _ => {
                parse(&format!("[milter.a]\n{milter}{example}\n"));
            }
        }
    }
    assert!(
        entries.is_empty(),
        "pmx.conf(5) has keys that do not exist: {entries:?}"
    );
}

#[test]
fn the_configurations_in_the_manual_page_are_read() {
    let manual = manual();
    let mut read = 0;
    for block in manual.split(".Bd -literal -offset indent\n").skip(1) {
        let text = block.split(".Ed").next().unwrap();
        // The other blocks show what errors look like.
        if text.contains("[milter.") {
            let text = text
                .lines()
                .filter(|line| !line.starts_with("include"))
                .collect::<Vec<_>>();
            parse(&text.join("\n"));
            read += 1;
        }
    }
    assert_eq!(read, 2);
}

#[test]
fn the_errors_in_the_manual_page_are_the_real_ones() {
    let text =
        "[milter.a]\nport = \"unix:/x\"\npolicy = \"p\"\nmax_poled_procs = 4\ntimeout = 30\n";
    let printed = Config::parse_text(Path::new("/etc/pmx/pmx.conf"), text)
        .unwrap_err()
        .to_string();
    assert!(manual().contains(&printed), "{printed}");
}

#[test]
fn the_example_is_read_as_it_is_and_with_every_line_uncommented_and_has_every_key() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("pmx.d")).unwrap();
    let example = std::fs::read_to_string(file("examples/pmx.conf")).unwrap();
    let name = dir.path().join("pmx.conf");
    let read = |text: &str| {
        Config::parse_text(&name, text).unwrap_or_else(|problems| panic!("{problems}"))
    };
    let plain = read(&example);
    assert!(plain.warnings().is_empty(), "{:?}", plain.warnings());
    let uncommented: String = example
        .lines()
        .map(|line| {
            let key = line
                .strip_prefix('#')
                .filter(|rest| !rest.starts_with(' ') && rest.contains(" = "));
            format!("{}\n", key.unwrap_or(line))
        })
        .collect();
    let full = read(&uncommented);
    assert_eq!(full.milters.len(), plain.milters.len());
    for key in KEYS {
        let given = uncommented
            .lines()
            .any(|line| line.starts_with(&format!("{} = ", key.name)));
        assert!(given, "examples/pmx.conf does not show {}", key.name);
    }
}

#[test]
fn mandoc_finds_nothing_to_say_about_the_manual_page() {
    let outcome = Command::new("mandoc")
        .args(["-Tlint", "-Wwarning"])
        .arg(file("man/pmx.conf.5"))
        .output();
    match outcome {
        Ok(output) => assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        ),
        Err(error) => eprintln!("skipped: mandoc: {error}"),
    }
}
