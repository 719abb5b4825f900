//! What a policy sees, a file an object: `ctx`, its edits, `milter`, `log`, `list`.
#![forbid(unsafe_code)]

pub(super) mod ctx;
mod edits;
pub(super) mod list;
pub(super) mod log;
pub(super) mod milter;

use mlua::{Lua, Value};

/// An error with the place in the policy that caused it, as Lua's own errors have it.
pub(super) fn fail(lua: &Lua, text: impl std::fmt::Display) -> mlua::Error {
    // The nearest caller that is a file of the policy: between it and us stand only functions of ours.
    for level in 1..4 {
        let place = lua.inspect_stack(level, |frame| {
            let source = frame.source();
            let is_file = source
                .source
                .as_deref()
                .is_some_and(|source| source.starts_with('@'));
            let name = source.short_src.map(std::borrow::Cow::into_owned);
            if is_file {
                name.zip(frame.current_line())
            } else {
                None
            }
        });
        match place {
            Some(Some((file, line))) => {
                return mlua::Error::RuntimeError(format!("{file}:{line}: {text}"));
            }
            Some(None) => {}
            None => break,
        }
    }
    mlua::Error::RuntimeError(text.to_string())
}

/// A string argument; a number is taken as Lua's own functions take it.
fn bytes(lua: &Lua, call: &str, what: &str, value: Option<&Value>) -> mlua::Result<Vec<u8>> {
    match value {
        Some(Value::String(text)) => Ok(text.as_bytes().to_vec()),
        Some(Value::Integer(number)) => Ok(number.to_string().into_bytes()),
        Some(Value::Number(number)) => match lua.coerce_string(Value::Number(*number))? {
            Some(text) => Ok(text.as_bytes().to_vec()),
            None => Err(fail(lua, format_args!("{call}: {what} must be a string"))),
        },
        other => Err(fail(
            lua,
            format_args!("{call}: {what} must be a string, not {}", type_name(other)),
        )),
    }
}

/// A whole number in a range.
fn number(
    lua: &Lua,
    call: &str,
    what: &str,
    value: Option<&Value>,
    least: u32,
) -> mlua::Result<u32> {
    let given = match value {
        Some(Value::Integer(number)) => Some(*number),
        Some(Value::Number(number)) => lua.coerce_integer(Value::Number(*number))?,
        _ => None,
    };
    // 32 bits on the wire, of which no MTA takes the sign bit.
    match given
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| *number >= least && *number <= i32::MAX.unsigned_abs())
    {
        Some(number) => Ok(number),
        None => {
            let got =
                given.map_or_else(|| type_name(value).to_owned(), |number| number.to_string());
            Err(fail(
                lua,
                format_args!("{call}: {what} must be a whole number from {least} on, not {got}"),
            ))
        }
    }
}

/// No more arguments than there are parameters: one too many is a mistake, not a wish.
fn at_most(lua: &Lua, call: &str, arguments: &[Value], most: usize) -> mlua::Result<()> {
    if arguments.len() > most {
        return Err(fail(
            lua,
            format_args!("{call}: takes {most} arguments, not {}", arguments.len()),
        ));
    }
    Ok(())
}

fn type_name(value: Option<&Value>) -> &'static str {
    value.map_or("nothing", Value::type_name)
}
