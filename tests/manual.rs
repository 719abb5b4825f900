//! The manual pages against the program: every command, option, signal, state, field and exit status is on the page, and nothing else.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::process::Command;

use pmx_milter::cli;
use pmx_milter::control::status::{Metric, State, family_names};
use pmx_milter::control::{Exit, STOP_SIGNALS, StatusExit, help, top};

/// Pages in the order of [`cli::commands`].
const PAGES: [&str; 2] = [help::PMX_MILTER, help::PMX_INIT];

/// Lines of a section of a page.
fn section<'a>(page: &'a str, title: &str) -> Vec<&'a str> {
    let head = format!(".Sh {title}");
    let lines: Vec<&str> = page
        .lines()
        .skip_while(|line| *line != head)
        .skip(1)
        .take_while(|line| !line.starts_with(".Sh "))
        .collect();
    assert!(!lines.is_empty(), "the page has no section {title}");
    lines
}

/// The words of `macro` anywhere on a page: `Fl Fl long` gives `long`.
fn words_after<'a>(page: &'a str, macros: &str) -> Vec<&'a str> {
    let all: Vec<&str> = page.split_ascii_whitespace().collect();
    let macros: Vec<&str> = macros.split(' ').collect();
    all.windows(macros.len() + 1)
        .filter(|window| {
            let (last, before) = window.split_last().unwrap();
            let before = before.iter().map(|word| word.trim_start_matches('.'));
            !last.is_empty() && before.eq(macros.iter().copied())
        })
        .map(|window| window[macros.len()])
        .collect()
}

/// Options of a command and of its verbs: long names and letters.
fn options(command: &clap::Command) -> (Vec<String>, Vec<String>) {
    let mut command = command.clone();
    // Adds help and version.
    command.build();
    let all = std::iter::once(&command)
        .chain(command.get_subcommands())
        .flat_map(clap::Command::get_arguments);
    let (mut long, mut short) = (Vec::new(), Vec::new());
    for argument in all {
        long.extend(argument.get_long().map(str::to_owned));
        short.extend(argument.get_short().map(String::from));
    }
    for list in [&mut long, &mut short] {
        list.sort();
        list.dedup();
    }
    (long, short)
}

#[test]
fn every_option_is_on_the_page_and_every_option_on_the_page_exists() {
    for (command, page) in cli::commands().iter().zip(PAGES) {
        let (long, short) = options(command);
        let on_page = words_after(page, "Fl Fl");
        for name in &long {
            assert!(
                on_page.contains(&name.as_str()),
                "{}: --{name} is not on its page",
                command.get_name()
            );
        }
        for name in on_page {
            assert!(
                long.iter().any(|it| it == name),
                "{}: there is no --{name}",
                command.get_name()
            );
        }
        for letter in &short {
            assert!(
                words_after(page, "Fl").contains(&letter.as_str()),
                "{}: -{letter} is not on its page",
                command.get_name()
            );
        }
    }
}

#[test]
fn every_command_is_on_the_page() {
    for (command, page) in cli::commands().iter().zip(PAGES) {
        for verb in command.get_subcommands() {
            let names = std::iter::once(verb.get_name()).chain(verb.get_visible_aliases());
            for name in names {
                let there = page
                    .lines()
                    .any(|line| line.split_ascii_whitespace().any(|word| word == name));
                assert!(there, "{} {name} is not on its page", command.get_name());
                assert!(!verb.get_about().unwrap().to_string().is_empty());
            }
        }
    }
}

#[test]
fn every_exit_status_is_on_the_page() {
    let items: Vec<u8> = section(help::PMX_MILTER, "EXIT STATUS")
        .iter()
        .filter_map(|line| line.strip_prefix(".It "))
        .map(|number| number.parse().unwrap())
        .collect();
    let status = StatusExit::ALL.iter().map(|exit| exit.code());
    let others = Exit::ALL.iter().map(|exit| exit.code());
    assert_eq!(items, status.chain(others).collect::<Vec<u8>>());
}

#[test]
fn every_signal_of_stop_and_every_state_is_on_the_page() {
    for (name, number, _) in STOP_SIGNALS {
        let item = format!(".It Cm {name} Pq Cm {number}");
        assert!(help::PMX_MILTER.lines().any(|line| line == item), "{item}");
    }
    let status = section(help::PMX_MILTER, "STATUS");
    for state in State::ALL {
        let item = format!(".It {}", state.word().replace('_', " "));
        assert!(status.contains(&item.as_str()), "{item}");
    }
}

#[test]
fn every_family_and_every_metric_of_thresholds_is_on_the_page_and_nothing_else() {
    let items = |title: &str| -> Vec<String> {
        let lines = section(help::PMX_MILTER, title);
        let items = lines.iter().filter_map(|line| line.strip_prefix(".It Cm "));
        items.map(str::to_owned).collect()
    };
    assert_eq!(items("METRICS"), family_names().collect::<Vec<String>>());
    let metrics: Vec<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
    assert_eq!(items("NAGIOS"), metrics);
}

#[test]
fn every_key_of_top_is_on_the_page_and_every_key_on_the_page_exists() {
    let items: Vec<&str> = section(help::PMX_MILTER, "TOP")
        .into_iter()
        .filter_map(|line| line.strip_prefix(".It Cm "))
        .collect();
    let keys: Vec<&str> = top::KEYS.iter().map(|(key, _)| *key).collect();
    assert_eq!(items, keys);
}

#[test]
fn every_field_of_the_example_is_explained() {
    let status = section(help::PMX_MILTER, "STATUS");
    let example: Vec<&str> = status
        .iter()
        .copied()
        .skip_while(|line| !line.starts_with(".Bd"))
        .take_while(|line| !line.starts_with(".Ed"))
        .collect();
    let fields: Vec<&str> = example
        .iter()
        .flat_map(|line| line.split_ascii_whitespace())
        .filter_map(|word| Some(word.split_once('=')?.0))
        .collect();
    assert_eq!(fields.len(), 5 + 4 + 3 + 4 + 4, "{fields:?}");
    for field in fields {
        let item = format!(".It {field}");
        assert!(status.contains(&item.as_str()), "{field} is not explained");
    }
}

#[test]
fn the_pages_are_good_mdoc() {
    for page in ["man/pmx-milter.8", "man/pmx-init.8"] {
        let lint = Command::new("mandoc")
            .args(["-Tlint", "-Wwarning", page])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output();
        match lint {
            Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{page}"),
            Err(error) => eprintln!("skipped: mandoc: {error}"),
        }
    }
}

#[test]
fn help_prints_the_whole_page_and_wrong_arguments_end_with_status_2() {
    let programs = [
        env!("CARGO_BIN_EXE_pmx-milter"),
        env!("CARGO_BIN_EXE_pmx-init"),
    ];
    for (program, page) in programs.into_iter().zip(PAGES) {
        let output = Command::new(program).arg("help").output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).unwrap();
        for title in page.lines().filter_map(|line| line.strip_prefix(".Sh ")) {
            assert!(text.lines().any(|line| line == title), "{title}");
        }
        for arguments in [&["stop", "-17"][..], &["stop", "-9", "-HUP"], &["nonsense"]] {
            let output = Command::new(program).args(arguments).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{arguments:?}");
            assert!(!output.stderr.is_empty() && output.stdout.is_empty());
        }
    }
}
