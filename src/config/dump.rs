//! The effective configuration as a file: every key with the value that holds, machine-dependent defaults included.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::time::Duration;

use super::keys::{ACTIONS, Field, KEYS, LEVELS, Place};
use super::value::{duration_text, quoted, size_text};
use super::{Config, LogTo, MilterConfig};

/// A configuration as TOML that reads back as the same one. Included files are part of it; a key that is left open is a comment.
pub fn dump(config: &Config) -> String {
    let mut text = format!(
        "# The configuration in effect, from {}.\nrun_dir = {}\nuser = {}\n",
        config.file.display().to_string().escape_debug(),
        quoted(&config.run_dir.to_string_lossy()),
        quoted(&config.user)
    );
    for milter in &config.milters {
        // A name may hold a dot, which would begin a table of its own.
        let name = quoted(&milter.name.to_string());
        text.push_str(&format!("\n[milter.{name}]\n"));
        let mut milter = milter.clone();
        for key in KEYS.iter().filter(|key| key.place != Place::Global) {
            let line = match value(&mut milter, key.field) {
                Some(value) => writeln!(text, "{} = {value}", key.name),
                None => writeln!(text, "# {}: {}", key.name, key.default),
            };
            line.expect("a String takes every line");
        }
    }
    text
}

/// What a field holds, as TOML. The rows of the table give access for writing, hence `&mut`.
fn value(milter: &mut MilterConfig, field: Field) -> Option<String> {
    let never = |zero: bool, text: String| if zero { "0".to_owned() } else { quoted(&text) };
    Some(match field {
        Field::RunDir | Field::User | Field::Include => return None,
        Field::Port => quoted(&milter.port.to_string()),
        Field::Policy => quoted(&milter.policy.to_string_lossy()),
        Field::LogTo => quoted(&match &milter.log_to {
            LogTo::Journal => "journal".to_owned(),
            LogTo::Syslog => "syslog".to_owned(),
            LogTo::Stderr => "stderr".to_owned(),
            LogTo::File(path) => format!("file:{}", path.display()),
        }),
        Field::MtaTimeouts => quoted(&format!(
            "{},{}",
            duration_text(milter.mta_command_timeout),
            duration_text(milter.mta_content_timeout)
        )),
        Field::ConcurrencyLimit { .. } => milter.concurrency_limit?.to_string(),
        Field::Action(field) => quoted(word(ACTIONS, field(milter))),
        Field::Level(field) => quoted(word(LEVELS, field(milter))),
        Field::Flag(field) => field(milter).to_string(),
        Field::Account(field) => quoted(field(milter).as_deref()?),
        Field::Mode(field) => quoted(&format!("{:04o}", field(milter))),
        Field::Count(_, _, field) => field(milter).to_string(),
        Field::Limit(_, field) => field(milter).to_string(),
        Field::Time(_, _, field) => quoted(&duration_text(*field(milter))),
        Field::TimeLimit(_, _, field) => {
            let time: Duration = *field(milter);
            never(time.is_zero(), duration_text(time))
        }
        Field::Size(_, _, field) => quoted(&size_text(*field(milter) as u64)),
        Field::SizeLimit(_, _, field) => {
            let bytes = *field(milter);
            never(bytes == 0, size_text(bytes))
        }
    })
}

fn word<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table
        .iter()
        .find(|(_, candidate)| candidate == value)
        .map(|(name, _)| *name)
        .expect("the table has a word for every variant; a test reads each")
}
