//! Imports point down only: folders are processes, and what runs in one must not reach into what runs above it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// A module of the crate's root and the others that it may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("cli", &["control", "config"]),
    (
        "control",
        &[
            "checker", "client", "config", "log", "policy", "run_dir", "session", "sys",
            // Only what is handed to a master: see ONLY.
            "master",
        ],
    ),
    (
        "master",
        &[
            "worker", "checker", "policy", "config", "log", "run_dir", "sys",
        ],
    ),
    (
        "worker",
        &["session", "policy", "config", "log", "run_dir", "sys"],
    ),
    ("session", &["policy", "milter"]),
    ("client", &["milter", "config", "sys"]),
    ("checker", &["policy", "sys"]),
    ("policy", &["milter", "config", "sys"]),
    ("log", &["config", "run_dir", "sys"]),
    ("run_dir", &["config", "sys"]),
    ("config", &[]),
    ("milter", &[]),
    ("sys", &[]),
];

/// Names of a module that another one may use, where it may not use all.
const ONLY: &[(&str, &str, &[&str])] = &[
    // Control hands over a setup and reads the report; all else goes through run directory, locks, board and signals.
    ("control", "master", &["Line", "Report", "Setup"]),
];

/// A path that a file uses: the module of the root, and the first name in it.
#[derive(Debug, PartialEq)]
struct Use {
    module: String,
    name: String,
}

/// What a file uses of the crate. `depth`: modules between the file's and the root, so that as many `super::` and one more reach the root.
fn uses(source: &str, depth: usize) -> Vec<Use> {
    // Comments may name anything.
    let code: String = source
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""))
        .collect::<Vec<_>>()
        .join(" ");
    let above = "super::".repeat(depth + 1);
    let mut found = Vec::new();
    for root in ["crate::", above.as_str()] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || before == ':' || before == '_' {
                continue;
            }
            let mut paths = Vec::new();
            expand(&code[at + root.len()..], "", &mut paths);
            for path in paths {
                let (module, rest) = path.split_once("::").unwrap_or((&path, ""));
                let name = rest.split("::").next().unwrap_or("");
                if MAY_USE.iter().any(|(known, _)| *known == module) {
                    found.push(Use {
                        module: module.to_owned(),
                        name: name.to_owned(),
                    });
                }
            }
        }
    }
    found
}

/// The paths of a use tree: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(text: &str, prefix: &str, paths: &mut Vec<String>) -> usize {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':' || c == '*'))
        .unwrap_or(text.len());
    let path = format!("{prefix}{}", &text[..end]);
    if !text[end..].starts_with('{') {
        paths.push(path);
        return end;
    }
    let mut at = end + 1;
    loop {
        let rest = &text[at..];
        let skipped = rest
            .find(|c: char| !c.is_whitespace() && c != ',')
            .unwrap_or(rest.len());
        at += skipped;
        if text[at..].is_empty() || text[at..].starts_with('}') {
            return at + 1;
        }
        let used = expand(&text[at..], &path, paths);
        // ` as other` and whatever is no path ends at the next comma or brace.
        at += used;
        at += text[at..].find([',', '}']).unwrap_or(text[at..].len());
    }
}

/// Why a use is not allowed.
fn complaint(file: &Path, from: &str, it: &Use) -> Option<String> {
    let (_, may) = MAY_USE.iter().find(|(name, _)| *name == from)?;
    let (module, name) = (it.module.as_str(), it.name.as_str());
    if module == from {
        return None;
    }
    if !may.contains(&module) {
        return Some(format!("{}: {from} uses {module}", file.display()));
    }
    let narrow = ONLY
        .iter()
        .find(|(user, used, _)| *user == from && *used == module);
    match narrow {
        Some((_, _, names)) if !name.is_empty() && !names.contains(&name) => Some(format!(
            "{}: {from} uses {module}::{name}, and only {names:?} are meant for it",
            file.display()
        )),
        _ => None,
    }
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The root module of a file, and how deep below it the file is.
fn place(file: &Path) -> Option<(String, usize)> {
    let mut parts: Vec<String> = file
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    parts.retain(|part| part != "mod");
    let module = parts.first()?.clone();
    MAY_USE
        .iter()
        .any(|(known, _)| *known == module)
        .then(|| (module, parts.len() - 1))
}

#[test]
fn imports_point_down_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&src, &mut found);
    let mut wrong = Vec::new();
    let mut modules = Vec::new();
    for path in &found {
        let file = path.strip_prefix(&src).unwrap();
        let Some((module, depth)) = place(file) else {
            let known = file.starts_with("bin")
                || ["lib.rs", "main.rs"]
                    .iter()
                    .any(|name| file == Path::new(name));
            assert!(known, "{} has no layer: add it to MAY_USE", file.display());
            continue;
        };
        let source = fs::read_to_string(path).unwrap();
        wrong.extend(
            uses(&source, depth)
                .iter()
                .filter_map(|it| complaint(file, &module, it)),
        );
        modules.push(module);
    }
    assert_eq!(wrong, Vec::<String>::new());
    for module in ["control", "master", "session", "milter", "sys"] {
        assert!(
            modules.iter().any(|it| it == module),
            "{module} was not read"
        );
    }
}

#[test]
fn the_table_has_no_circles() {
    // The order of the table is the order of the layers: what a module may use stands below it.
    for (at, (module, may)) in MAY_USE.iter().enumerate() {
        for used in *may {
            let below = MAY_USE.iter().position(|(name, _)| name == used).unwrap();
            assert!(below > at, "{module} may use {used}, which stands above it");
        }
    }
}

#[test]
fn an_import_that_points_up_is_found_however_it_is_written() {
    let table = [
        ("use crate::control::Exit;", 0, "control"),
        (
            "use crate::{config::Port, master::{self, Setup}};",
            0,
            "master",
        ),
        ("let x = crate::worker::run();", 0, "worker"),
        ("use super::cli;", 0, "cli"),
        ("use super::super::cli::x;", 1, "cli"),
        (
            "use crate::{\n    sys,\n    client::Client as C,\n    session,\n};",
            0,
            "session",
        ),
    ];
    for (source, depth, module) in table {
        let found = uses(source, depth);
        assert!(
            found
                .iter()
                .any(|it| it.module == module && complaint(Path::new("x.rs"), "sys", it).is_some()),
            "{source}: {found:?}"
        );
    }
    assert!(uses("// use crate::control;\nuse super::sys::x;", 1).is_empty());
    let only = uses("use crate::master::{Setup, pool};", 0);
    let wrong: Vec<String> = only
        .iter()
        .filter_map(|it| complaint(Path::new("x.rs"), "control", it))
        .collect();
    assert_eq!(wrong.len(), 1, "{wrong:?}");
}
