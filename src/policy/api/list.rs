//! `list.load(path)`: a set from a file.
#![forbid(unsafe_code)]

use std::rc::Rc;

use mlua::{Lua, MetaMethod, Table, UserData, UserDataMethods, Value};

use super::super::lists::List;
use super::super::sandbox::Shared;
use super::{bytes, fail};

struct ListValue(List);

impl UserData for ListValue {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("contains", |lua, this, text: Value| match &text {
            Value::String(text) => Ok(this.0.contains(&text.as_bytes())),
            other => Ok(this
                .0
                .contains(&bytes(lua, "list:contains", "text", Some(other))?)),
        });
        methods.add_meta_method(MetaMethod::Len, |_, this, ()| Ok(this.0.len()));
        methods.add_meta_method(MetaMethod::Index, |lua, _, key: Value| {
            let name = key.as_string().map_or_else(
                || key.type_name().to_owned(),
                mlua::LuaString::to_string_lossy,
            );
            Err::<(), _>(fail(
                lua,
                format_args!("a list has no \"{name}\"; write list:contains(text)"),
            ))
        });
    }
}

pub(crate) fn make(lua: &Lua, shared: &Rc<Shared>) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let shared = Rc::clone(shared);
    let load = lua.create_function(move |lua, path: Value| {
        let path = bytes(lua, "list.load", "path", Some(&path))?;
        if !shared.loading.get() {
            return Err(fail(
                lua,
                "list.load: load lists at the top level of the policy, not in a callback",
            ));
        }
        match shared.files.list(&path) {
            Ok(list) => Ok(ListValue(list)),
            Err(text) => Err(fail(lua, format_args!("list.load: {text}"))),
        }
    })?;
    table.raw_set("load", load)?;
    Ok(table)
}
