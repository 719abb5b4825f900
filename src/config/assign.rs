//! One value into its field: type and range are checked here, by the row of the key.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keys::{ACTIONS, Field, Key, LEVELS};
use super::nearest::did_you_mean;
use super::value::{self, Raw};
use super::{LogTo, MilterConfig, Port};

/// Most bytes of a path (PATH_MAX of limits.h, without the NUL).
const PATH_BYTES: usize = 4095;

/// Puts a value into the field of its key. Keys of the whole program have no field here and are left alone.
///
/// # Errors
/// What the key takes, what was found, and a hint.
pub(super) fn assign(
    milter: &mut MilterConfig,
    key: &Key,
    raw: &Raw<'_>,
    folder: &Path,
) -> Result<(), String> {
    match key.field {
        Field::RunDir | Field::User | Field::Include => {}
        Field::Port => milter.port = port(key, raw, folder)?,
        Field::Policy => milter.policy = path(key, raw, folder)?,
        Field::LogTo => milter.log_to = log_to(key, raw, folder)?,
        Field::MtaTimeouts => {
            (milter.mta_command_timeout, milter.mta_content_timeout) = mta_timeouts(key, raw)?;
        }
        Field::ConcurrencyLimit { least, most } => {
            milter.concurrency_limit = Some(count(key, raw, least, most)?);
        }
        Field::Action(field) => *field(milter) = word(key, raw, ACTIONS)?,
        Field::Level(field) => *field(milter) = word(key, raw, LEVELS)?,
        Field::Flag(field) => {
            *field(milter) = match raw {
                Raw::Flag(flag) => *flag,
                Raw::Text(word) if word == "on" => true,
                Raw::Text(word) if word == "off" => false,
                other => return Err(takes(key, other, "without quotes")),
            }
        }
        Field::Account(field) => *field(milter) = Some(account(key, raw)?),
        Field::Mode(field) => *field(milter) = mode(key, raw)?,
        Field::Count(least, most, field) => *field(milter) = count(key, raw, least, most)?,
        Field::Limit(most, field) => {
            *field(milter) = match raw {
                Raw::Number { value, .. } => u64::try_from(*value)
                    .ok()
                    .filter(|value| *value <= most)
                    .ok_or_else(|| takes(key, raw, ""))?,
                other => return Err(takes(key, other, "")),
            }
        }
        Field::Time(least, most, field) => {
            *field(milter) = time(key, raw, false)?
                .filter(|time| (least..=most).contains(time))
                .ok_or_else(|| takes(key, raw, ""))?;
        }
        Field::TimeLimit(least, most, field) => {
            *field(milter) = time(key, raw, true)?
                .filter(|time| time.is_zero() || (least..=most).contains(time))
                .ok_or_else(|| takes(key, raw, ""))?;
        }
        Field::Size(least, most, field) => {
            let bytes = size(key, raw)?.filter(|bytes| (least..=most).contains(bytes));
            *field(milter) = bytes
                .and_then(|bytes| usize::try_from(bytes).ok())
                .ok_or_else(|| takes(key, raw, ""))?;
        }
        Field::SizeLimit(least, most, field) => {
            *field(milter) = size(key, raw)?
                .filter(|bytes| *bytes == 0 || (least..=most).contains(bytes))
                .ok_or_else(|| takes(key, raw, ""))?;
        }
    }
    Ok(())
}

/// `KEY takes THESE, found THAT; hint`
fn takes(key: &Key, raw: &Raw<'_>, hint: &str) -> String {
    let text = format!("{} takes {}, found {}", key.name, key.values(), raw.found());
    if hint.is_empty() {
        text
    } else {
        format!("{text}; {hint}")
    }
}

/// A text that is no path, name or the like when it is empty or holds a NUL.
fn text<'a>(key: &Key, raw: &'a Raw<'_>) -> Result<&'a str, String> {
    match raw {
        Raw::Text(text) if text.is_empty() => Err(takes(key, raw, "")),
        Raw::Text(text) if text.contains('\0') => Err(takes(key, raw, "remove the \\u0000")),
        Raw::Text(text) => Ok(text),
        other => Err(takes(key, other, "in quotes")),
    }
}

/// A path; a relative one is relative to the folder of the file in which it stands.
///
/// # Errors
/// When it is empty, too long, or no text.
pub(super) fn path(key: &Key, raw: &Raw<'_>, folder: &Path) -> Result<PathBuf, String> {
    let path = resolve(folder, text(key, raw)?);
    if path.as_os_str().len() > PATH_BYTES {
        return Err(takes(key, raw, "it is longer than the kernel takes"));
    }
    Ok(path)
}

/// Joins, and removes `.` in the middle.
pub(super) fn resolve(folder: &Path, text: &str) -> PathBuf {
    folder.join(text).components().collect()
}

/// The name of a user or group.
///
/// # Errors
/// When it cannot be one.
pub(super) fn account(key: &Key, raw: &Raw<'_>) -> Result<String, String> {
    let name = text(key, raw)?;
    let wrong = |character: char| {
        character.is_whitespace() || character.is_control() || matches!(character, ':' | '/')
    };
    if name.len() > 256 || name.contains(wrong) {
        return Err(takes(key, raw, "no account can be called so"));
    }
    Ok(name.to_owned())
}

fn port(key: &Key, raw: &Raw<'_>, folder: &Path) -> Result<Port, String> {
    let port: Port = text(key, raw)?
        .parse()
        .map_err(|error: super::PortError| error.to_string())?;
    let Port::Unix(path) = port else {
        return Ok(port);
    };
    // The rule for the length of a socket's path holds for the whole path.
    let whole = folder.join(path).components().collect::<PathBuf>();
    format!("unix:{}", whole.display())
        .parse()
        .map_err(|error: super::PortError| error.to_string())
}

fn log_to(key: &Key, raw: &Raw<'_>, folder: &Path) -> Result<LogTo, String> {
    let text = text(key, raw)?;
    Ok(match text {
        "journal" => LogTo::Journal,
        "syslog" => LogTo::Syslog,
        "stderr" => LogTo::Stderr,
        _ => match text.strip_prefix("file:") {
            Some(file) if !file.is_empty() && file.len() <= PATH_BYTES => {
                LogTo::File(resolve(folder, file))
            }
            _ if text.starts_with(['/', '.']) => {
                return Err(takes(
                    key,
                    raw,
                    &format!("write \"file:{}\"", value::shortened(text)),
                ));
            }
            _ => {
                let offer = did_you_mean(text, "", ["journal", "syslog", "stderr"]);
                return Err(takes(key, raw, "") + &offer);
            }
        },
    })
}

fn mta_timeouts(key: &Key, raw: &Raw<'_>) -> Result<(Duration, Duration), String> {
    let hint = "such as \"10s,300s\": for the answer to a command, and during the content";
    let both = text(key, raw)?
        .split_once(',')
        .and_then(|(command, content)| {
            Some((value::duration(command)?, value::duration(content)?))
        });
    match both {
        Some((command, content)) if !command.is_zero() && !content.is_zero() => {
            Ok((command, content))
        }
        _ => Err(takes(key, raw, hint)),
    }
}

fn word<T: Copy>(key: &Key, raw: &Raw<'_>, table: &[(&str, T)]) -> Result<T, String> {
    let text = text(key, raw)?;
    table
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            takes(key, raw, "") + &did_you_mean(text, "", table.iter().map(|(name, _)| *name))
        })
}

fn mode(key: &Key, raw: &Raw<'_>) -> Result<u32, String> {
    let hint = "in quotes, such as \"0640\"";
    match raw {
        Raw::Text(text) => value::mode(text).ok_or_else(|| takes(key, raw, hint)),
        Raw::Number { value, octal: true } => u32::try_from(*value)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .ok_or_else(|| takes(key, raw, hint)),
        other => Err(takes(key, other, hint)),
    }
}

fn count(key: &Key, raw: &Raw<'_>, least: u32, most: u32) -> Result<u32, String> {
    let hint = match raw {
        Raw::Text(_) => "a number without quotes",
        _ => "",
    };
    match raw {
        Raw::Number { value, .. } => u32::try_from(*value)
            .ok()
            .filter(|value| (least..=most).contains(value)),
        _ => None,
    }
    .ok_or_else(|| takes(key, raw, hint))
}

/// `Ok(None)`: a duration, but out of any range.
fn time(key: &Key, raw: &Raw<'_>, never: bool) -> Result<Option<Duration>, String> {
    match raw {
        Raw::Text(text) if never && text.trim() == "0" => Ok(Some(Duration::ZERO)),
        Raw::Text(text) => value::duration(text).map(Some).ok_or_else(|| {
            takes(
                key,
                raw,
                "a duration is a whole number and ms, s, m, h or d, such as \"30s\"",
            )
        }),
        Raw::Number { value: 0, .. } if never => Ok(Some(Duration::ZERO)),
        Raw::Number { value, .. } => Err(takes(
            key,
            raw,
            &format!("a duration has a unit: if you mean seconds, write \"{value}s\""),
        )),
        other => Err(takes(key, other, "")),
    }
}

/// `Ok(None)`: a size, but out of any range.
fn size(key: &Key, raw: &Raw<'_>) -> Result<Option<u64>, String> {
    match raw {
        Raw::Text(text) => value::size(text).map(Some).ok_or_else(|| {
            takes(
                key,
                raw,
                "a size is a whole number and K, M, G or T, such as \"64M\"",
            )
        }),
        Raw::Number { value, .. } => Ok(u64::try_from(*value).ok()),
        other => Err(takes(key, other, "")),
    }
}
