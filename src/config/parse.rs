//! From text to [`Config`]: the main file first, then its includes, then what holds between keys. Nothing stops at the first problem.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::assign::{account, assign, path, resolve};
use super::defaults::{defaults, fill};
use super::keys::{self, Field, KEYS, KeyDefault, Place};
use super::nearest::did_you_mean;
use super::problem::{Notes, Problems, Spot};
use super::value::Raw;
use super::{Config, MilterConfig, MilterName, check, include};

/// Most milters of a configuration: each has a master of its own.
const MOST_MILTERS: usize = 1024;

/// A milter while it is read.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) config: MilterConfig,
    /// Its `[milter.NAME]`.
    pub(super) at: Spot,
    /// The keys that stand in the file, its own or the defaults, and whether their values could be read.
    pub(super) given: BTreeMap<&'static str, (Spot, bool)>,
}

impl Draft {
    /// Is the value one to go by: the default, or a readable one?
    pub(super) fn sound(&self, key: &str) -> bool {
        self.given.get(key).is_none_or(|(_, sound)| *sound)
    }

    /// Where to point for a problem with this key.
    pub(super) fn spot(&self, key: &str) -> Spot {
        self.given.get(key).map_or(self.at, |(spot, _)| *spot)
    }
}

/// The state of a run.
struct Run {
    notes: Notes,
    run_dir: PathBuf,
    user: String,
    /// What the top of the main file makes of every milter.
    defaults: Draft,
    milters: Vec<Draft>,
    /// Files that were read: no file twice.
    files: BTreeSet<PathBuf>,
}

type Entry<'t, 'i> = (&'t Spanned<DeString<'i>>, &'t Spanned<DeValue<'i>>);

/// In the order of the file; the table itself is in the order of the names.
fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<Entry<'t, 'i>> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// Reads a configuration from text; `file` names it and is what relative paths are relative to. `cpus`: see [`fill`].
pub(super) fn parse(file: &Path, bytes: &[u8], cpus: u32) -> Result<Config, Problems> {
    let folder = folder_of(file);
    let mut notes = Notes::default();
    let Some((source, text)) = readable(&mut notes, file, bytes) else {
        return Err(notes.into_problems());
    };
    let at = notes.spot(source, 0..0);
    let mut run = Run {
        notes,
        run_dir: PathBuf::from("/run/pmx"),
        user: "pmx6".to_owned(),
        defaults: Draft {
            config: defaults(folder),
            at,
            given: BTreeMap::new(),
        },
        milters: Vec::new(),
        files: BTreeSet::from([file.to_owned()]),
    };
    run.main_file(source, text, folder);
    let any_broken = run.notes.any_broken();
    if run.milters.is_empty() && !any_broken {
        run.notes.problem(
            at,
            format!("no milter is configured; write for instance\n{MINIMAL}"),
        );
    }
    for draft in &mut run.milters {
        fill(draft, cpus);
    }
    check::check(&run.milters, &mut run.notes);
    run.notes.finish()?;
    Ok(Config {
        file: file.to_owned(),
        run_dir: run.run_dir,
        user: run.user,
        milters: run.milters.into_iter().map(|draft| draft.config).collect(),
    })
}

/// The least that is a configuration.
pub(super) const MINIMAL: &str =
    "    [milter.policy]\n    port = \"inet:3366@127.0.0.1\"\n    policy = \"policy.lua\"";

/// The `run_dir` line of a file of which nothing else need be right.
pub(super) fn run_dir(file: &Path, bytes: &[u8]) -> Option<PathBuf> {
    let text = String::from_utf8_lossy(bytes);
    let of = |text: &str| {
        let (table, _) = DeTable::parse_recoverable(text);
        let value = table.get_ref().get("run_dir")?;
        path(
            keys::find("run_dir")?,
            &Raw::of(value.get_ref()),
            folder_of(file),
        )
        .ok()
    };
    // A line before it that is not TOML may have swallowed it: then each line counts for itself, up to the first table.
    of(&text).or_else(|| {
        text.lines()
            .take_while(|line| !line.trim_start().starts_with('['))
            .find_map(of)
    })
}

fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("/"))
}

/// The text, if it is UTF-8, as TOML wants it.
fn readable<'b>(notes: &mut Notes, file: &Path, bytes: &'b [u8]) -> Option<(usize, &'b str)> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some((notes.add_source(file, text), text)),
        Err(error) => {
            let start = error.valid_up_to();
            let source = notes.add_source(file, &String::from_utf8_lossy(bytes));
            let spot = notes.spot(source, start..start + 1);
            let message =
                "this is not UTF-8; save the file as UTF-8, and escape other bytes as \\u00E4 does"
                    .to_owned();
            notes.broken_line(spot, message);
            None
        }
    }
}

impl Run {
    fn main_file(&mut self, source: usize, text: &str, folder: &Path) {
        let table = self.toml(source, text);
        let entries = in_order(table.get_ref());
        // Defaults first, wherever a stray one stands: a milter takes them over when it is begun.
        for (name, value) in &entries {
            if name.get_ref() != "milter" {
                self.top_level(source, name, value, folder);
            }
        }
        for (name, value) in &entries {
            if name.get_ref() == "milter" {
                self.milter_tables(source, name, value, folder);
            }
        }
        for (name, value) in &entries {
            if name.get_ref() == "include" {
                self.includes(source, value, folder);
            }
        }
    }

    /// Parses; what is no TOML is noted, and the rest is given all the same.
    fn toml<'t>(&mut self, source: usize, text: &'t str) -> Spanned<DeTable<'t>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let spot = self.notes.spot(source, error.span().unwrap_or(0..0));
            let message = match error.message() {
                "duplicate key" => "this is set twice; remove one of the two".to_owned(),
                message => format!("not TOML: {message}"),
            };
            self.notes.broken_line(spot, message);
        }
        table
    }

    fn top_level(
        &mut self,
        source: usize,
        name: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
        folder: &Path,
    ) {
        let spot = self.notes.spot(source, value.span());
        let at_name = self.notes.spot(source, name.span());
        if value.get_ref().is_table() || is_tables(value.get_ref()) {
            self.notes.problem(at_name, unknown_table(name.get_ref()));
            return;
        }
        let Some(key) = keys::find(name.get_ref()) else {
            let message = unknown_key(name.get_ref(), &self.notes);
            self.notes.problem(at_name, message);
            return;
        };
        let raw = Raw::of(value.get_ref());
        let outcome = match (key.place, key.field) {
            (Place::Milter, _) => {
                let message = format!(
                    "{} cannot be the same for all milters: move it into a [milter.NAME] table",
                    key.name
                );
                self.notes.problem(at_name, message);
                return;
            }
            (_, Field::RunDir) => path(key, &raw, folder).map(|path| self.run_dir = path),
            (_, Field::User) => account(key, &raw).map(|user| self.user = user),
            // Later, when the milters of this file stand.
            (_, Field::Include) => return,
            _ => assign(&mut self.defaults.config, key, &raw, folder),
        };
        self.defaults
            .given
            .insert(key.name, (spot, outcome.is_ok()));
        if let Err(message) = outcome {
            self.notes.problem(spot, message);
        }
    }

    fn milter_tables(
        &mut self,
        source: usize,
        name: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
        folder: &Path,
    ) {
        let Some(table) = value.get_ref().as_table() else {
            let spot = self.notes.spot(source, name.span());
            let message = "milter is not a value: write a table for each milter, [milter.NAME]";
            self.notes.problem(spot, message.to_owned());
            return;
        };
        for (name, value) in in_order(table) {
            let at = self.notes.spot(source, name.span());
            let text: &str = name.get_ref();
            let Some(table) = value.get_ref().as_table() else {
                let message = if is_tables(value.get_ref()) {
                    format!("a milter is one table: write [milter.{text}] in single brackets")
                } else {
                    let key = KEYS.iter().map(|key| key.name).find(|key| *key == text);
                    key.map_or_else(
                        || format!("milter.{text} is not a table: write [milter.{text}] and its keys below it"),
                        |key| format!("{key} belongs into the table of one milter: write [milter.NAME] and {key} below it"),
                    )
                };
                self.notes.problem(at, message);
                continue;
            };
            match text.parse::<MilterName>() {
                Ok(name) => self.milter(source, name, at, table, folder),
                Err(error) => self.notes.problem(at, error.to_string()),
            }
        }
    }

    fn milter(
        &mut self,
        source: usize,
        name: MilterName,
        at: Spot,
        table: &DeTable<'_>,
        folder: &Path,
    ) {
        if let Some(first) = self.milters.iter().find(|draft| draft.config.name == name) {
            let first = self.notes.whereabouts(first.at);
            let message =
                format!("milter {name} stands in {first} already; remove or rename one of the two");
            self.notes.problem(at, message);
            return;
        }
        if self.milters.len() >= MOST_MILTERS {
            let message =
                format!("more than {MOST_MILTERS} milters; each has processes of its own");
            self.notes.problem(at, message);
            return;
        }
        let mut draft = Draft {
            at,
            ..self.defaults.clone()
        };
        draft.config.name = name;
        for (name, value) in in_order(table) {
            let spot = self.notes.spot(source, value.span());
            let at_name = self.notes.spot(source, name.span());
            let Some(key) = keys::find(name.get_ref()) else {
                let message = unknown_key(name.get_ref(), &self.notes);
                self.notes.problem(at_name, message);
                continue;
            };
            if key.place == Place::Global {
                let message = format!(
                    "{} holds for the whole program: move it to the top of the main file, above the first [milter.NAME]",
                    key.name
                );
                self.notes.problem(at_name, message);
                continue;
            }
            let outcome = assign(&mut draft.config, key, &Raw::of(value.get_ref()), folder);
            draft.given.insert(key.name, (spot, outcome.is_ok()));
            if let Err(message) = outcome {
                self.notes.problem(spot, message);
            }
        }
        for key in KEYS {
            // What is not TOML may have been this key.
            if key.default == KeyDefault::Required
                && !draft.given.contains_key(key.name)
                && !self.notes.any_broken()
            {
                let message = format!(
                    "milter {} has no {}; add {} = \"{}\"",
                    draft.config.name,
                    key.name,
                    key.name,
                    if key.name == "port" {
                        "inet:3366@127.0.0.1"
                    } else {
                        "policy.lua"
                    }
                );
                self.notes.problem(at, message);
            }
        }
        self.milters.push(draft);
    }

    fn includes(&mut self, source: usize, value: &Spanned<DeValue<'_>>, folder: &Path) {
        let patterns: Vec<(Range<usize>, Raw<'_>)> = match value.get_ref() {
            DeValue::Array(list) => list
                .iter()
                .map(|value| (value.span(), Raw::of(value.get_ref())))
                .collect(),
            other => vec![(value.span(), Raw::of(other))],
        };
        for (span, raw) in patterns {
            let spot = self.notes.spot(source, span);
            let found = match &raw {
                Raw::Text(text) if !text.is_empty() && !text.contains('\0') => {
                    include::expand(&resolve(folder, text))
                }
                other => Err(format!(
                    "include takes a list of paths, such as [\"pmx.d/*.conf\"], found {}",
                    other.found()
                )),
            };
            match found {
                Ok(files) => {
                    for file in files {
                        self.included_file(&file, spot);
                    }
                }
                Err(message) => self.notes.problem(spot, message),
            }
        }
    }

    fn included_file(&mut self, file: &Path, named_at: Spot) {
        if !self.files.insert(file.to_owned()) {
            return;
        }
        let bytes = match include::read(file) {
            Ok(bytes) => bytes,
            Err(error) => {
                let message = format!("cannot include {}: {error}", file.display());
                self.notes.problem(named_at, message);
                return;
            }
        };
        let Some((source, text)) = readable(&mut self.notes, file, &bytes) else {
            return;
        };
        let table = self.toml(source, text);
        for (name, value) in in_order(table.get_ref()) {
            let at = self.notes.spot(source, name.span());
            let text: &str = name.get_ref();
            if text == "milter" {
                self.milter_tables(source, name, value, folder_of(file));
            } else if value.get_ref().is_table() || is_tables(value.get_ref()) {
                self.notes.problem(at, unknown_table(text));
            } else if keys::find(text).is_some() {
                let message = format!(
                    "an included file holds [milter.NAME] tables only: move {text} into one, or to the top of the main file"
                );
                self.notes.problem(at, message);
            } else {
                let message = unknown_key(text, &self.notes);
                self.notes.problem(at, message);
            }
        }
    }
}

/// `[[name]]`
fn is_tables(value: &DeValue<'_>) -> bool {
    value
        .as_array()
        .and_then(|list| list.iter().next())
        .is_some_and(|first| first.get_ref().is_table())
}

fn unknown_key(name: &str, notes: &Notes) -> String {
    let shown = super::value::shortened(name);
    // A file of nothing but unknown keys would take seconds, for offers that nobody sees.
    let offer = if notes.is_full() {
        String::new()
    } else {
        did_you_mean(name, "", KEYS.iter().map(|key| key.name))
    };
    format!("{} is not a key of pmx.conf{offer}", shown.escape_debug())
}

fn unknown_table(name: &str) -> String {
    let shown = super::value::shortened(name);
    let shown = shown.escape_debug();
    if keys::find(name).is_none() && !did_you_mean(name, "", ["milter"]).is_empty() {
        format!("[{shown}] is not a table of pmx.conf; did you mean [milter.NAME]?")
    } else if name.parse::<MilterName>().is_ok() {
        format!(
            "[{shown}] is not a table of pmx.conf; for a milter of this name write [milter.{shown}]"
        )
    } else {
        format!("[{shown}] is not a table of pmx.conf; the tables are [milter.NAME]")
    }
}
