//! `log.debug`, `log.info`, `log.warn`, `log.error`: log lines that begin with the queue id, if there is one. `print` is `log.info`.
#![forbid(unsafe_code)]

use std::rc::Rc;

use ::log::Level;
use mlua::{Function, Lua, Table, Value, Variadic};

use super::super::sandbox::Shared;

/// The functions of the table.
pub(crate) const LEVELS: [(&str, Level); 4] = [
    ("debug", Level::Debug),
    ("info", Level::Info),
    ("warn", Level::Warn),
    ("error", Level::Error),
];

/// The longest line: a policy may log what a stranger sent.
const MOST_BYTES: usize = 4096;

pub(crate) fn make(lua: &Lua, shared: &Rc<Shared>) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    for (name, level) in LEVELS {
        table.raw_set(name, writer(lua, shared, level)?)?;
    }
    Ok(table)
}

/// A function that logs its arguments, a space between them.
pub(crate) fn writer(lua: &Lua, shared: &Rc<Shared>, level: Level) -> mlua::Result<Function> {
    let shared = Rc::clone(shared);
    lua.create_function(move |_, values: Variadic<Value>| {
        if !::log::log_enabled!(target: "policy", level) {
            return Ok(());
        }
        let mut line = String::new();
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                line.push(' ');
            }
            match value {
                Value::String(text) => append(&mut line, &text.as_bytes()),
                other => append(&mut line, other.to_string()?.as_bytes()),
            }
            if line.len() >= MOST_BYTES {
                break;
            }
        }
        let queue_id = shared
            .current
            .borrow()
            .as_ref()
            .and_then(|inner| inner.queue_id());
        match queue_id {
            Some(id) => {
                ::log::log!(target: "policy", level, queue_id = id.as_str(); "{id}: {line}")
            }
            None => ::log::log!(target: "policy", level, "{line}"),
        }
        Ok(())
    })
}

/// One line whatever a stranger put into it: control characters are shown, not sent to the log.
fn append(line: &mut String, bytes: &[u8]) {
    let bytes = bytes
        .get(..MOST_BYTES.saturating_sub(line.len()))
        .unwrap_or(bytes);
    for character in String::from_utf8_lossy(bytes).chars() {
        if character.is_control() && character != '\t' {
            line.extend(character.escape_default())
        } else {
            line.push(character)
        }
    }
}
