//! From bytes to callbacks: compiles a policy, runs its top level under a deadline, and reads the table that it returns.
//!
//! The checker and every interpreter come through here, the one with files from the disk, the other with a bundle.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, Table, Value};

use super::bundle::Bundle;
use super::checker::Reader;
use super::error::PolicyError;
use super::event::Callback;
use super::interpreter::Limits;
use super::lists::{List, Lists};
use super::sandbox::Shared;
use super::wants::Wants;
use crate::config::nearest::did_you_mean;
use crate::sys::lua_guard;

/// Keys of a policy's table that are not callbacks.
pub(super) const SETTINGS: [&str; 3] = ["collect", "answer_body", "macros"];
/// Names for `policy.collect`.
pub(super) const COLLECT: [&str; 6] = ["client", "helo", "sender", "recipients", "headers", "body"];
/// Stages for `policy.macros`, by their number in the protocol.
const MACRO_STAGES: [&str; 7] = ["connect", "helo", "mail", "rcpt", "data", "eom", "eoh"];

/// Where modules and lists come from.
pub(super) enum Files {
    /// The disk, which is read once and remembered.
    Disk(Reader),
    /// What the checker read.
    Bundle(Arc<Bundle>, Lists),
}

impl Files {
    /// The text of a module.
    pub(super) fn module(&self, name: &str) -> Result<Vec<u8>, String> {
        match self {
            Files::Disk(reader) => reader.module(name),
            Files::Bundle(bundle, _) => {
                match bundle.modules.iter().find(|module| module.name == name) {
                    Some(module) => Ok(module.source.clone()),
                    None => Err(format!(
                        "module \"{name}\" was not required when the policy was checked"
                    )),
                }
            }
        }
    }

    /// The set of a list file.
    pub(super) fn list(&self, path: &[u8]) -> Result<List, String> {
        match self {
            Files::Disk(reader) => reader.list(path),
            Files::Bundle(bundle, lists) => {
                let path = beside(&bundle.path, path)?;
                lists.get(&path).ok_or_else(|| {
                    format!(
                        "{} was not loaded when the policy was checked",
                        path.display()
                    )
                })
            }
        }
    }
}

/// A list's path: absolute, or below the policy's directory.
pub(super) fn beside(policy: &Path, path: &[u8]) -> Result<PathBuf, String> {
    let path = Path::new(OsStr::from_bytes(path));
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if path.as_os_str().is_empty() || !plain {
        return Err(format!(
            "\"{}\" must be a file beside the policy, or an absolute path",
            path.display()
        ));
    }
    Ok(policy.parent().unwrap_or(Path::new("")).join(path))
}

/// A policy in a Lua state.
pub(super) struct Loaded {
    pub(super) callbacks: [Option<Function>; 12],
    pub(super) wants: Wants,
}

/// Compiles and runs a policy.
pub(super) fn load(
    lua: &Lua,
    shared: &Rc<Shared>,
    path: &Path,
    source: &[u8],
    limits: &Limits,
) -> Result<Loaded, PolicyError> {
    let name = path.file_name().map_or_else(
        || "policy".into(),
        |name| name.to_string_lossy().into_owned(),
    );
    let failed = |error: &mlua::Error| match error_is_memory(error) {
        true => PolicyError::Memory {
            path: path.to_owned(),
            limit: limits.memory,
        },
        false => PolicyError::Lua {
            path: path.to_owned(),
            text: describe(error),
        },
    };
    let chunk = lua
        .load(source.to_vec())
        .set_name(format!("@{name}"))
        .set_mode(ChunkMode::Text);
    let chunk = chunk.into_function().map_err(|error| failed(&error))?;
    let deadline = Instant::now() + limits.callback_timeout;
    shared.loading.set(true);
    let (result, watched) =
        lua_guard::watch(None, deadline, limits.slice, || chunk.call::<Value>(()));
    shared.loading.set(false);
    let table = match result {
        result if watched.late => {
            let text = result.as_ref().err().map_or_else(String::new, describe);
            return Err(PolicyError::Timeout {
                path: path.to_owned(),
                limit: limits.callback_timeout,
                text,
            });
        }
        Err(error) => return Err(failed(&error)),
        Ok(Value::Table(table)) => table,
        Ok(other) => {
            let text = format!(
                "{name} must end with \"return policy\", a table of callbacks; it returned {}",
                other.type_name()
            );
            return Err(PolicyError::Table {
                path: path.to_owned(),
                text,
            });
        }
    };
    read_table(&table).map_err(|text| PolicyError::Table {
        path: path.to_owned(),
        text,
    })
}

fn read_table(table: &Table) -> Result<Loaded, String> {
    let mut callbacks = [const { None }; 12];
    let mut wants = Wants::default();
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair.map_err(|error| describe(&error))?;
        let Value::String(key) = &key else {
            return Err(format!(
                "the policy's table has a key that is not a name ({})",
                key.type_name()
            ));
        };
        let key = key.to_string_lossy();
        match (key.as_str(), &value) {
            ("collect", Value::Table(names)) => read_collect(names, &mut wants)?,
            ("collect", _) => {
                return Err("policy.collect must be a list of names, like {\"sender\"}".to_owned());
            }
            ("answer_body", Value::Boolean(answer)) => wants.answer_body = *answer,
            ("answer_body", _) => return Err("policy.answer_body must be true or false".to_owned()),
            ("macros", Value::Table(stages)) => read_macros(stages, &mut wants)?,
            ("macros", _) => {
                return Err(
                    "policy.macros must be a table, like {mail = \"auth_authen\"}".to_owned(),
                );
            }
            (name, value) => match (
                Callback::ALL
                    .into_iter()
                    .find(|callback| callback.name() == name),
                value,
            ) {
                (Some(callback), Value::Function(function)) => {
                    wants.callbacks |= callback.bit();
                    if let Some(place) = callbacks.get_mut(callback as usize) {
                        *place = Some(function.clone());
                    }
                }
                (Some(_), other) => {
                    return Err(format!(
                        "policy.{name} must be a function, not {}",
                        other.type_name()
                    ));
                }
                (None, value) => return Err(unknown_key(name, value)),
            },
        }
    }
    Ok(Loaded { callbacks, wants })
}

fn unknown_key(name: &str, value: &Value) -> String {
    let known = Callback::ALL
        .iter()
        .map(|callback| callback.name())
        .chain(SETTINGS);
    let hint = did_you_mean(name, "policy.", known);
    let place = value
        .as_function()
        .map(Function::info)
        .and_then(|info| Some((info.short_src?, info.line_defined?)));
    let place = place.map_or_else(String::new, |(file, line)| format!("{file}:{line}: "));
    let advice = if hint.is_empty() {
        "; make a helper a local function"
    } else {
        ""
    };
    format!("{place}policy.{name} is not a callback or setting{hint}{advice}")
}

fn read_collect(names: &Table, wants: &mut Wants) -> Result<(), String> {
    for pair in names.pairs::<Value, Value>() {
        let (_, name) = pair.map_err(|error| describe(&error))?;
        let name = name.as_string().map_or_else(
            || name.type_name().to_owned(),
            mlua::LuaString::to_string_lossy,
        );
        let collect = &mut wants.collect;
        match name.as_str() {
            "client" => collect.client = true,
            "helo" => collect.helo = true,
            "sender" => collect.sender = true,
            "recipients" => collect.recipients = true,
            "headers" => collect.headers = true,
            "body" => collect.body = true,
            other => {
                let hint = did_you_mean(other, "", COLLECT);
                return Err(format!(
                    "policy.collect: \"{other}\" cannot be collected, only {}{hint}",
                    COLLECT.join(", ")
                ));
            }
        }
    }
    Ok(())
}

fn read_macros(stages: &Table, wants: &mut Wants) -> Result<(), String> {
    for pair in stages.pairs::<Value, Value>() {
        let (stage, names) = pair.map_err(|error| describe(&error))?;
        let stage = stage.as_string().map_or_else(
            || stage.type_name().to_owned(),
            mlua::LuaString::to_string_lossy,
        );
        let Some(index) = MACRO_STAGES.iter().position(|name| *name == stage) else {
            let hint = did_you_mean(&stage, "", MACRO_STAGES);
            return Err(format!(
                "policy.macros: \"{stage}\" is not a stage ({}){hint}",
                MACRO_STAGES.join(", ")
            ));
        };
        let plain = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_graphic() || byte == b' ')
        };
        match names
            .as_string()
            .map(mlua::LuaString::to_string_lossy)
            .filter(|text| plain(text))
        {
            Some(text) => wants.macros[index] = Some(text),
            None => {
                return Err(format!(
                    "policy.macros.{stage} must be a string of macro names with spaces between"
                ));
            }
        }
    }
    Ok(())
}

/// Message and traceback of an error, without mlua's own words.
pub(super) fn describe(error: &mlua::Error) -> String {
    match error {
        mlua::Error::CallbackError { traceback, cause } => {
            let mut cause = cause;
            while let mlua::Error::CallbackError { cause: inner, .. } = cause.as_ref() {
                cause = inner;
            }
            format!("{}\n{traceback}", describe(cause))
        }
        mlua::Error::RuntimeError(text) | mlua::Error::MemoryError(text) => text.clone(),
        mlua::Error::SyntaxError { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// Did Lua run out of memory?
pub(super) fn error_is_memory(error: &mlua::Error) -> bool {
    match error {
        mlua::Error::MemoryError(_) => true,
        mlua::Error::CallbackError { cause, .. } => error_is_memory(cause),
        // Lua's own functions report it as text when they catch it on the way.
        mlua::Error::RuntimeError(text) => {
            text.starts_with("not enough memory") || text.contains(": not enough memory")
        }
        _ => false,
    }
}
