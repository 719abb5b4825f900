//! A Lua state as a policy gets it: the guarded libraries, our own objects, nothing that reaches files, processes or bytecode.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ::log::Level;
use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, LuaOptions, MultiValue, StdLib, Table, Value};

use super::api::{self, fail};
use super::context::Inner;
use super::load::Files;
use crate::sys::lua_guard;

/// The longest text for `load`: the parser runs without hooks.
const MOST_LOADED_BYTES: usize = 1 << 20;

/// What the functions that a policy sees share with the interpreter.
pub(super) struct Shared {
    /// Where `require` and `list.load` find their bytes.
    pub(super) files: Files,
    /// The top level runs: files may be asked for.
    pub(super) loading: Cell<bool>,
    /// Whose callback runs, for log lines.
    pub(super) current: RefCell<Option<Rc<Inner>>>,
}

/// Makes a state with its limits set and no policy in it.
pub(super) fn make(shared: &Rc<Shared>, memory: usize, seed: u64) -> mlua::Result<Lua> {
    // A script's pcall must not swallow a Rust panic: it goes on in Rust.
    let options = LuaOptions::new().catch_rust_panics(false);
    let lua = Lua::new_with(StdLib::MATH | StdLib::OS, options)?;
    lua.set_memory_limit(memory)?;
    lua_guard::install(&lua)?;
    let globals = lua.globals();
    for name in ["dofile", "loadfile", "warn", "package"] {
        globals.raw_remove(name)?;
    }
    let os: Table = globals.raw_get("os")?;
    let clocks = lua.create_table()?;
    for name in ["time", "clock", "date", "difftime"] {
        clocks.raw_set(name, os.raw_get::<Value>(name)?)?;
    }
    globals.raw_set("os", clocks)?;
    globals.raw_set(
        "debug",
        lua.create_table_from([("traceback", lua.create_function(traceback)?)])?,
    )?;
    globals.raw_set("load", lua.create_function(load)?)?;
    globals.raw_set("collectgarbage", lua.create_function(collectgarbage)?)?;
    globals.raw_set("require", require(&lua, shared)?)?;
    globals.raw_set("print", api::log::writer(&lua, shared, Level::Info)?)?;
    globals.raw_set("log", api::log::make(&lua, shared)?)?;
    globals.raw_set("list", api::list::make(&lua, shared)?)?;
    globals.raw_set("milter", api::milter::make(&lua)?)?;
    // Children are forked copies: without a seed of its own each would draw the same numbers.
    let math: Table = globals.raw_get("math")?;
    let seeding: Function = math.raw_get("randomseed")?;
    seeding.call::<()>((seed.cast_signed(), seed.rotate_left(32).cast_signed()))?;
    Ok(lua)
}

fn traceback(lua: &Lua, message: Option<mlua::LuaString>) -> mlua::Result<mlua::LuaString> {
    let message = message.map(|message| message.to_string_lossy());
    lua.traceback(message.as_deref(), 1)
}

fn collectgarbage(lua: &Lua, what: Option<mlua::LuaString>) -> mlua::Result<f64> {
    match what {
        // Bytes of a state are far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        Some(what) if what.as_bytes() == b"count" => Ok(lua.used_memory() as f64 / 1024.0),
        _ => Err(fail(
            lua,
            "collectgarbage: a policy may ask for \"count\" only; memory is collected by itself",
        )),
    }
}

/// `load(text [, name [, mode [, env]]])`: text only, since crafted bytecode can break the interpreter.
fn load(lua: &Lua, arguments: MultiValue) -> mlua::Result<(Value, Option<String>)> {
    let mut arguments = arguments.into_iter();
    let Some(Value::String(text)) = arguments.next() else {
        return Err(fail(lua, "load: the chunk must be a string"));
    };
    let name = match arguments.next() {
        Some(Value::String(name)) => name.to_string_lossy(),
        _ => "=load".to_owned(),
    };
    match arguments.next() {
        Some(Value::String(mode)) if !mode.as_bytes().contains(&b't') => {
            return Ok((
                Value::Nil,
                Some("a policy can load text only, no bytecode".to_owned()),
            ));
        }
        _ => {}
    }
    if text.as_bytes().len() > MOST_LOADED_BYTES {
        return Ok((
            Value::Nil,
            Some(format!(
                "the chunk is longer than {MOST_LOADED_BYTES} bytes"
            )),
        ));
    }
    let text = text.as_bytes().to_vec();
    let mut chunk = lua.load(text).set_name(name).set_mode(ChunkMode::Text);
    if let Some(Value::Table(environment)) = arguments.next() {
        chunk = chunk.set_environment(environment);
    }
    match chunk.into_function() {
        Ok(function) => Ok((Value::Function(function), None)),
        Err(error @ mlua::Error::MemoryError(_)) => Err(error),
        Err(mlua::Error::SyntaxError { message, .. }) => Ok((Value::Nil, Some(message))),
        Err(error) => Ok((Value::Nil, Some(error.to_string()))),
    }
}

fn require(lua: &Lua, shared: &Rc<Shared>) -> mlua::Result<Function> {
    let loaded = lua.create_table()?;
    let shared = Rc::clone(shared);
    lua.create_function(move |lua, name: Value| {
        let Value::String(name) = name else {
            return Err(fail(lua, "require: the name must be a string"));
        };
        match loaded.raw_get::<Value>(&name)? {
            Value::Nil => {}
            Value::Boolean(false) => {
                return Err(fail(
                    lua,
                    format_args!(
                        "require: module \"{}\" requires itself",
                        name.to_string_lossy()
                    ),
                ));
            }
            value => return Ok(value),
        }
        let text = name.to_string_lossy();
        if !shared.loading.get() {
            let text = format!(
                "require: require \"{text}\" at the top level of the policy, not in a callback"
            );
            return Err(fail(lua, text));
        }
        let source = shared
            .files
            .module(&text)
            .map_err(|error| fail(lua, format_args!("require: {error}")))?;
        let chunk = lua
            .load(source)
            .set_name(format!("@{text}.lua"))
            .set_mode(ChunkMode::Text)
            .into_function()?;
        loaded.raw_set(&name, false)?;
        let value = match chunk.call::<Value>(text) {
            Ok(Value::Nil | Value::Boolean(false)) => Value::Boolean(true),
            Ok(value) => value,
            Err(error) => {
                loaded.raw_set(&name, Value::Nil)?;
                return Err(error);
            }
        };
        loaded.raw_set(&name, value.clone())?;
        Ok(value)
    })
}
