//! `milter`: the verdicts, and `milter.sleep`.
#![forbid(unsafe_code)]

use mlua::{Function, LightUserData, Lua, MetaMethod, Table, UserData, UserDataMethods, Value};

use super::super::verdict::Verdict;
use super::ctx::{Ctx, PROGRESS};
use super::{fail, type_name};
use crate::config::nearest::did_you_mean;
use crate::sys::lua_guard;

/// The verdicts that are constants.
pub(crate) const VERDICTS: [(&str, Verdict); 6] = [
    ("CONTINUE", Verdict::Continue),
    ("ACCEPT", Verdict::Accept),
    ("REJECT", Verdict::Reject),
    ("TEMPFAIL", Verdict::Tempfail),
    ("DISCARD", Verdict::Discard),
    ("SKIP", Verdict::Skip),
];

/// A verdict in the hands of a policy.
pub(crate) struct VerdictValue(pub(crate) Verdict);

impl UserData for VerdictValue {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| {
            Ok(match &this.0 {
                Verdict::Reply(_) => "ctx:reply(...)".to_owned(),
                verdict => format!("milter.{}", verdict.name().to_ascii_uppercase()),
            })
        });
    }
}

/// What a callback yields when it must wait: no script can make a light userdata, so none can forge it.
pub(crate) fn token() -> Value {
    static PLACE: u8 = 0;
    Value::LightUserData(LightUserData(std::ptr::from_ref(&PLACE).cast_mut().cast()))
}

/// A policy cannot sleep longer than this at once: deadlines are shorter by far.
const MOST_SECONDS: f64 = 86_400.0;

/// The functions that wait are Lua, since only Lua can yield; they check first, in Rust.
const WAITING: &str = "
local check_sleep, check_progress, yield, token = ...
return function(seconds) yield(token, check_sleep(seconds)) end,
       function(ctx) check_progress(ctx) yield(token) end
";

/// Makes the table, and the function behind `ctx:progress`.
pub(crate) fn make(lua: &Lua) -> mlua::Result<Table> {
    let milter = lua.create_table()?;
    for (name, verdict) in VERDICTS {
        milter.raw_set(name, VerdictValue(verdict))?;
    }
    let check_sleep = lua.create_function(|lua, seconds: Value| {
        in_callback(lua, "milter.sleep")?;
        let given = match seconds {
            // Exact up to 2^53, and anything near that is refused.
            #[allow(clippy::cast_precision_loss)]
            Value::Integer(number) => number as f64,
            Value::Number(number) => number,
            other => {
                return Err(fail(
                    lua,
                    format_args!(
                        "milter.sleep: seconds must be a number, not {}",
                        type_name(Some(&other))
                    ),
                ));
            }
        };
        if !(0.0..=MOST_SECONDS).contains(&given) {
            return Err(fail(
                lua,
                format_args!("milter.sleep: seconds must be from 0 to {MOST_SECONDS}, not {given}"),
            ));
        }
        Ok(given)
    })?;
    let check_progress = lua.create_function(|lua, ctx: Value| {
        let Value::UserData(ctx) = ctx else {
            return Err(fail(lua, "write ctx:progress(), with a colon"));
        };
        let ctx = ctx
            .borrow::<Ctx>()
            .map_err(|_| fail(lua, "write ctx:progress(), with a colon"))?;
        in_callback(lua, "ctx:progress")?;
        ctx.facts(lua, |facts| match facts.callback {
            Some(super::super::event::Callback::Eom) => Ok(()),
            _ => Err(fail(
                lua,
                "ctx:progress: an MTA takes progress in policy.eom only",
            )),
        })
    })?;
    let make: Function = lua.load(WAITING).set_name("=[milter]").into_function()?;
    let (sleep, progress): (Function, Function) = make.call((
        check_sleep,
        check_progress,
        lua_guard::yield_function(lua)?,
        token(),
    ))?;
    milter.raw_set("sleep", sleep)?;
    lua.set_named_registry_value(PROGRESS, progress)?;
    let strict = lua.create_table()?;
    strict.raw_set(
        "__index",
        lua.create_function(|lua, (_, key): (Value, Value)| {
            let name = key.as_string().map_or_else(
                || key.type_name().to_owned(),
                mlua::LuaString::to_string_lossy,
            );
            let known = VERDICTS.iter().map(|(name, _)| *name).chain(["sleep"]);
            Err::<(), _>(fail(
                lua,
                format_args!(
                    "milter has no \"{name}\"{}",
                    did_you_mean(&name, "milter.", known)
                ),
            ))
        })?,
    )?;
    strict.raw_set("__metatable", false)?;
    milter.set_metatable(Some(strict))?;
    Ok(milter)
}

fn in_callback(lua: &Lua, call: &str) -> mlua::Result<()> {
    if lua_guard::in_callback_coroutine(lua) {
        return Ok(());
    }
    let text = format!(
        "{call} suspends a callback: call it from the callback itself, not from a coroutine or the top level"
    );
    Err(fail(lua, text))
}
